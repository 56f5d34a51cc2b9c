//! Issues and incidents, as the API writes them (`GroupSerializer`, `IncidentSerializer`). Pure.
//!
//! One odd value must not cost the other ninety-nine items of an answer: a field of the wrong kind counts as absent, an
//! item without an id as unreadable. What is not needed is skipped unread.

use serde::de::{MapAccess, SeqAccess};

use super::Fault;
use crate::domain::build::Timestamp;
use crate::machinery::lenient::{self, Fill, Filling, Scalar, skip};
use crate::sentry::fields::{Slugs, link, number, text, time};

/// More than any page that was asked for.
const MOST: usize = 1_000;

/// An issue, with its status in Sentry's words. Text is a stranger's, cut to a thousand characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issue {
    pub id: u64,
    pub short_id: Option<String>,
    /// `unresolved`, `resolved`, `ignored`, or what happens to it (`pending_merge`, `deletion_in_progress`, …).
    pub status: String,
    pub substatus: Option<String>,
    pub level: Option<String>,
    pub title: Option<String>,
    pub culprit: Option<String>,
    pub permalink: Option<String>,
    pub project: Project,
    pub first_seen: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
}

/// Whose issue it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub id: Option<u64>,
    pub slug: Option<String>,
    pub name: Option<String>,
}

/// A span in which a metric alert was open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incident {
    pub id: u64,
    /// Counts within the organization.
    pub identifier: u64,
    /// `IncidentStatus`: 1 open, 2 closed, 10 warning, 20 critical.
    pub status: i64,
    pub title: Option<String>,
    /// Slugs.
    pub projects: Vec<String>,
    pub rule: Rule,
    pub started: Option<Timestamp>,
    pub closed: Option<Timestamp>,
}

/// The metric alert itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub id: Option<u64>,
    pub name: Option<String>,
}

/// What one page holds.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    pub(super) unreadable: usize,
}

pub(super) fn issues(body: &[u8]) -> Result<List<Issue>, Fault> {
    list(body, "a list of issues")
}

pub(super) fn incidents(body: &[u8]) -> Result<List<Incident>, Fault> {
    list(body, "a list of metric alerts")
}

pub(super) fn issue(body: &[u8]) -> Result<Issue, Fault> {
    one(body, "an issue's `id` and `status`")
}

pub(super) fn incident(body: &[u8]) -> Result<Incident, Fault> {
    one(body, "a metric alert's `id`, `identifier` and `status`")
}

/// Something that is one item of a list.
trait Item: Default + for<'de> Fill<'de> {
    /// Has what makes it known.
    fn is_whole(&self) -> bool;
}

impl Item for Issue {
    fn is_whole(&self) -> bool {
        self.id != 0 && !self.status.is_empty()
    }
}

impl Item for Incident {
    fn is_whole(&self) -> bool {
        self.id != 0 && self.identifier != 0 && self.status != 0
    }
}

struct Top<T> {
    items: Vec<T>,
    unreadable: usize,
    is_list: bool,
}

impl<'de, T: Item> Fill<'de> for Top<T> {
    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        self.is_list = true;
        loop {
            let mut item = T::default();
            if list.next_element_seed(Filling(&mut item))?.is_none() {
                return Ok(());
            }
            if !item.is_whole() || self.items.len() > MOST {
                self.unreadable += 1;
            } else {
                self.items.push(item);
            }
        }
    }
}

fn list<T: Item>(body: &[u8], what: &'static str) -> Result<List<T>, Fault> {
    let mut top = Top { items: Vec::new(), unreadable: 0, is_list: false };
    lenient::read(body, &mut top).map_err(|error| syntax(&error))?;
    match top {
        Top { is_list: false, .. } => Err(Fault::Foreign { what }),
        Top { items, .. } if items.len() > MOST => Err(Fault::TooMany { limit: MOST }),
        Top { items, unreadable, .. } => Ok(List { items, unreadable }),
    }
}

fn one<T: Item>(body: &[u8], what: &'static str) -> Result<T, Fault> {
    let mut item = T::default();
    lenient::read(body, &mut item).map_err(|error| syntax(&error))?;
    if item.is_whole() { Ok(item) } else { Err(Fault::Foreign { what }) }
}

fn syntax(error: &serde_json::Error) -> Fault {
    Fault::Syntax { line: error.line(), column: error.column() }
}

impl<'de> Fill<'de> for Issue {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = number(map)?.unwrap_or_default(),
            "shortId" => self.short_id = text(map)?,
            "status" => self.status = text(map)?.unwrap_or_default(),
            "substatus" => self.substatus = text(map)?,
            "level" => self.level = text(map)?,
            "title" => self.title = text(map)?,
            "culprit" => self.culprit = text(map)?,
            "permalink" => self.permalink = link(map)?,
            "project" => map.next_value_seed(Filling(&mut self.project))?,
            "firstSeen" => self.first_seen = time(map)?,
            "lastSeen" => self.last_seen = time(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Fill<'de> for Project {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = number(map)?,
            "slug" => self.slug = text(map)?,
            "name" => self.name = text(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Fill<'de> for Incident {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = number(map)?.unwrap_or_default(),
            "identifier" => self.identifier = number(map)?.unwrap_or_default(),
            "status" => self.status = map.next_value::<Scalar<'de>>()?.integer().unwrap_or_default(),
            "title" => self.title = text(map)?,
            "projects" => map.next_value_seed(Filling(&mut Slugs(&mut self.projects)))?,
            "alertRule" => map.next_value_seed(Filling(&mut self.rule))?,
            "dateStarted" => self.started = time(map)?,
            "dateClosed" => self.closed = time(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Fill<'de> for Rule {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = number(map)?,
            "name" => self.name = text(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any JSON, with the keys that are looked for among others.
    fn document() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[0-9]{1,25}|.{0,9}".prop_map(Value::from),
        ];
        let key = "id|identifier|status|projects|project|alertRule|slug|name|level|lastSeen|x";
        leaf.prop_recursive(4, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// For all answers: each item of a list is either read, with an id that is a positive number, or counted.
        #[test]
        fn no_item_is_lost_or_invented(items in prop::collection::vec(document(), 0..9)) {
            let body = serde_json::to_vec(&items).unwrap();
            let List { items: read, unreadable } = issues(&body).unwrap();
            prop_assert_eq!(read.len() + unreadable, items.len());
            prop_assert!(read.iter().all(|issue| issue.id > 0 && !issue.status.is_empty()));
            let List { items: read, unreadable } = incidents(&body).unwrap();
            prop_assert_eq!(read.len() + unreadable, items.len());
            prop_assert!(read.iter().all(|incident| incident.id > 0 && incident.identifier > 0));
        }

        /// For all bytes: an answer is read or refused.
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (issues(&body), incidents(&body), issue(&body), incident(&body));
        }
    }

    #[test]
    fn an_issue_is_read_and_one_without_an_id_costs_no_other() {
        let body =
            br#"[{"id":"4509","shortId":"WEB-1","title":"TypeError: x","culprit":"app.views in get","level":"error",
            "status":"unresolved","substatus":"regressed","permalink":"https://sentry.example/issues/4509/",
            "project":{"id":"7","name":"Web","slug":"web"},"lastSeen":"2026-11-24T15:26:00.123456Z",
            "firstSeen":"2026-11-24T15:26:00Z","statusDetails":{},"metadata":{"value":[[["deep"]]]}},
            {"shortId":"WEB-2","status":"unresolved"},{"id":"../../x","status":"unresolved"},7,null,[],
            {"id":4510,"status":"unresolved","title":9,"project":"web","level":["error"]}]"#;
        let List { items, unreadable } = issues(body).unwrap();
        assert_eq!(unreadable, 5);
        let [first, second] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!((first.id, first.project.slug.as_deref()), (4509, Some("web")));
        assert_eq!((first.status.as_str(), first.level.as_deref()), ("unresolved", Some("error")));
        assert_eq!(first.last_seen, Some(Timestamp::from_millis(1_795_533_960_123)));
        assert_eq!((second.id, second.title.as_deref(), &second.project), (4510, None, &Project::default()));
    }

    #[test]
    fn what_leads_nowhere_is_no_link() {
        let long = format!("https://sentry.example/{}", "x".repeat(3_000));
        let table = [("https://s/1", true), ("javascript:alert(1)", false), ("https://s/\\n", false), (&long, false)];
        for (text, is_link) in table {
            let body = format!(r#"{{"id":1,"status":"x","permalink":"{text}"}}"#);
            assert_eq!(issue(body.as_bytes()).unwrap().permalink.is_some(), is_link, "{text}");
        }
    }

    #[test]
    fn an_incident_is_read_with_its_rule() {
        let body = br#"{"id":"31","identifier":"7","status":20,"title":"Too many errors","projects":["web",9,"api"],
            "alertRule":{"id":"3","name":"Too many errors","triggers":[{"id":"1"}]},"dateClosed":null,
            "dateStarted":"2026-11-24T15:26:00Z"}"#;
        let incident = incident(body).unwrap();
        assert_eq!((incident.id, incident.identifier, incident.status), (31, 7, 20));
        assert_eq!(incident.projects, ["web", "api"]);
        assert_eq!(incident.rule.id, Some(3));
        assert_eq!(incident.closed, None);
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert_eq!(issues(b"{\"detail\":\"no\"}").unwrap_err(), Fault::Foreign { what: "a list of issues" });
        assert!(matches!(issues(b"[{\"id\":"), Err(Fault::Syntax { .. })));
        assert!(matches!(issues(b"[] []"), Err(Fault::Syntax { .. })));
        assert!(matches!(issue(b"[]"), Err(Fault::Foreign { .. })));
        let many = format!("[{}]", vec![r#"{"id":1,"status":"x"}"#; MOST + 1].join(","));
        assert_eq!(issues(many.as_bytes()).unwrap_err(), Fault::TooMany { limit: MOST });
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(issues(deep.as_bytes()).is_err() || issues(deep.as_bytes()).unwrap().items.is_empty());
    }
}
