//! Items and builds, as the API writes them: what is asked for, and how an answer is read. Pure.
//!
//! One odd value must not cost the other thousand items of an answer: a field of the wrong kind counts as absent, an item
//! without a name as unreadable. Text is borrowed from the answer, and what was not asked for is skipped unread.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, SeqAccess};

use super::Fault;
use super::answer::syntax;
use super::kind::{self, Shows};
use crate::domain::build::{BuildReport, Created, Outcome, Progress, Timestamp};
use crate::domain::job::JobPath;
use crate::domain::survey::Kind;
use crate::machinery::lenient::{self, Fill, Filling, Scalar, skip};

/// Of every item. `_class` comes unasked with every object whose class is not plain from its place
/// (`org.kohsuke.stapler.export.ClassAttributeBehaviour`), which is each of these. `fullName` is younger than `name`.
const ITEM: &str = "name,fullName,disabled,buildable,lastCompletedBuild[number,result,timestamp,duration,builtOn]";

/// The newest builds of a job, and the last ones that decide, which Jenkins keeps at hand however far back they are.
pub(super) const BUILDS: &str = "builds[number,result,building,timestamp,duration,builtOn]{0,20},\
                                 lastStableBuild[number,result,building,timestamp,duration,builtOn],\
                                 lastUnstableBuild[number,result,building,timestamp,duration,builtOn],\
                                 lastFailedBuild[number,result,building,timestamp,duration,builtOn]";

/// How much one question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first item of the folder that was asked, counted from 0.
    pub(super) from: usize,
    /// Items of the folder that was asked.
    pub(super) width: usize,
    /// Levels below it that are written out, 1 for its own items alone.
    pub(super) levels: usize,
}

impl Extent {
    /// Items of each folder below the one that was asked. Where there are more, that folder is asked by itself.
    pub(super) const INNER: usize = 100;

    /// The `tree` parameter (`org.kohsuke.stapler.export.NamedPathPruner`). Of the items below the last level it asks for
    /// one, just to see whether there can be any.
    pub(super) fn tree(self) -> String {
        let Self { from, width, levels } = self;
        let mut tree = String::new();
        for _ in 0..levels {
            let _ = write!(tree, "jobs[{ITEM},");
        }
        tree.push_str("jobs[name]{0,1}");
        for _ in 1..levels {
            let _ = write!(tree, "]{{0,{}}}", Self::INNER);
        }
        let _ = write!(tree, "]{{{from},{}}}", from.saturating_add(width));
        tree
    }
}

/// One item, as it was read.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    class: Text<'a>,
    name: Text<'a>,
    full_name: Text<'a>,
    disabled: Option<bool>,
    buildable: Option<bool>,
    last: Option<Run<'a>>,
    /// It has `lastCompletedBuild`, be it null.
    has_last: bool,
    pub(super) below: Below<'a>,
}

type Text<'a> = Option<Cow<'a, str>>;

/// What an item holds.
#[derive(Debug, Default)]
pub(super) enum Below<'a> {
    /// It holds no items.
    #[default]
    Nothing,
    /// It may hold some; they were not asked for.
    Unasked,
    Listed(Vec<Found<'a>>),
}

#[derive(Debug, Default)]
struct Run<'a> {
    number: Option<i64>,
    result: Text<'a>,
    is_building: bool,
    timestamp: Option<i64>,
    duration: Option<i64>,
    node: Text<'a>,
}

impl Found<'_> {
    /// Its short name, as Jenkins keeps it: a branch's is encoded once.
    pub(super) fn name(&self) -> Option<&str> {
        let from_full = || self.full_name.as_deref().and_then(|full| full.rsplit('/').next());
        self.name.as_deref().or_else(from_full)
    }

    /// What Jenkins calls it in full, where it says so: releases before 2.0 do not.
    pub(super) fn full_name(&self) -> Option<&str> {
        self.full_name.as_deref()
    }

    pub(super) fn kind(&self) -> Kind {
        let builds = self.buildable.is_some() || self.has_last;
        let items = !matches!(self.below, Below::Nothing);
        kind::of(self.class.as_deref().unwrap_or_default(), Shows { builds, items })
    }

    /// The job of a branch that is gone stays until its project tidies up, and is not buildable meanwhile
    /// (`BranchJobProperty`, workflow-multibranch). An external job is never built by Jenkins itself.
    pub(super) fn is_disabled(&self) -> bool {
        let is_external = || self.class.as_deref() == Some("hudson.model.ExternalJob");
        self.disabled == Some(true) || (self.buildable == Some(false) && !is_external())
    }

    pub(super) fn has_last(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn last(&self, path: &JobPath) -> Option<BuildReport> {
        self.last.as_ref().and_then(|run| run.report(path))
    }
}

impl Run<'_> {
    /// `None` for what has no number, or has ended without a result.
    fn report(&self, path: &JobPath) -> Option<BuildReport> {
        let number = self.number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)?;
        let progress = if self.is_building {
            Progress::Running
        } else {
            // A run takes its result for good before it stops building (`hudson.model.Run.setResult`).
            Progress::Settled(Outcome::read(self.result.as_deref()?))
        };
        let duration = self.duration.and_then(|millis| u64::try_from(millis).ok()).filter(|_| !self.is_building);
        Some(BuildReport {
            created: self.timestamp.map(|millis| Created::exactly(Timestamp::from_millis(millis))),
            duration: duration.map(Duration::from_millis),
            node: self.node.as_deref().filter(|node| !node.is_empty()).map(str::to_owned),
            ..BuildReport::new(path.clone(), number.into(), progress)
        })
    }
}

/// The items of one answer to [`Extent::tree`], at most `most` of them over all levels.
///
/// # Errors
/// When it is no folder's answer, or holds more.
pub(super) fn items(body: &[u8], levels: usize, most: usize) -> Result<Vec<Found<'_>>, Fault> {
    let left = Cell::new(most);
    let mut top = Item { found: Found::default(), levels, left: &left };
    match lenient::read(body, &mut top) {
        Err(_) if left.get() == 0 => Err(Fault::TooMany { limit: most }),
        Err(error) => Err(syntax(&error)),
        Ok(()) => match top.found.below {
            Below::Listed(found) => Ok(found),
            _ => Err(Fault::Foreign { what: "`jobs`" }),
        },
    }
}

/// The builds of an answer to [`BUILDS`], newest first.
///
/// # Errors
/// When it is no job's answer.
pub(super) fn builds(job: &JobPath, body: &[u8]) -> Result<Vec<BuildReport>, Fault> {
    let mut found = Builds::default();
    lenient::read(body, &mut found).map_err(|error| syntax(&error))?;
    let Some(runs) = found.listed else { return Err(Fault::Foreign { what: "`builds`" }) };
    let mut reports: Vec<_> = runs.iter().chain(&found.decisive).filter_map(|run| run.report(job)).collect();
    reports.sort_by_key(|report| std::cmp::Reverse(report.number));
    reports.dedup_by_key(|report| report.number);
    Ok(reports)
}

struct Item<'f, 'a> {
    found: Found<'a>,
    /// How many lists of items may still be entered.
    levels: usize,
    /// How many items may still be found.
    left: &'f Cell<usize>,
}

impl<'de> Fill<'de> for Item<'_, 'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Self { found, levels, left } = self;
        match key {
            "_class" => found.class = scalar(map)?.text(),
            "name" => found.name = scalar(map)?.text(),
            "fullName" => found.full_name = scalar(map)?.text(),
            "disabled" => found.disabled = scalar(map)?.flag(),
            "buildable" => found.buildable = scalar(map)?.flag(),
            "lastCompletedBuild" => {
                found.has_last = true;
                map.next_value_seed(Filling(&mut found.last))?;
            }
            "jobs" if *levels == 0 => {
                skip(map)?;
                found.below = Below::Unasked;
            }
            "jobs" => {
                let mut list = Items { levels: *levels - 1, left, found: None };
                map.next_value_seed(Filling(&mut list))?;
                found.below = list.found.map_or(Below::Nothing, Below::Listed);
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct Items<'f, 'a> {
    levels: usize,
    left: &'f Cell<usize>,
    found: Option<Vec<Found<'a>>>,
}

impl<'de> Fill<'de> for Items<'_, 'de> {
    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        let found = self.found.get_or_insert_default();
        loop {
            let mut item = Item { found: Found::default(), levels: self.levels, left: self.left };
            if list.next_element_seed(Filling(&mut item))?.is_none() {
                return Ok(());
            }
            let Some(left) = self.left.get().checked_sub(1) else { return Err(A::Error::custom("too many")) };
            self.left.set(left);
            found.push(item.found);
        }
    }
}

#[derive(Default)]
struct Builds<'a> {
    listed: Option<Vec<Run<'a>>>,
    decisive: Vec<Run<'a>>,
}

impl<'de> Fill<'de> for Builds<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "builds" => map.next_value_seed(Filling(self)),
            "lastStableBuild" | "lastUnstableBuild" | "lastFailedBuild" => {
                let mut run = None;
                map.next_value_seed(Filling(&mut run))?;
                self.decisive.extend(run);
                Ok(())
            }
            _ => skip(map),
        }
    }

    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        let listed = self.listed.get_or_insert_default();
        let mut run = None;
        while list.next_element_seed(Filling(&mut run))?.is_some() {
            listed.extend(run.take());
        }
        Ok(())
    }
}

impl<'de> Fill<'de> for Option<Run<'de>> {
    fn begin(&mut self) {
        *self = Some(Run::default());
    }

    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Some(run) = self else { return skip(map) };
        match key {
            "number" => run.number = scalar(map)?.integer(),
            "result" => run.result = scalar(map)?.text(),
            "building" => run.is_building = scalar(map)?.flag() == Some(true),
            "timestamp" => run.timestamp = scalar(map)?.integer(),
            "duration" => run.duration = scalar(map)?.integer(),
            "builtOn" => run.node = scalar(map)?.text(),
            _ => skip(map)?,
        }
        Ok(())
    }
}

fn scalar<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Scalar<'de>, A::Error> {
    map.next_value()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn one(json: &str) -> Result<String, Fault> {
        let body = format!("{{\"jobs\":[{json}]}}");
        let found = items(body.as_bytes(), 2, 100)?;
        let [found] = found.as_slice() else { panic!("{found:?}") };
        let job = JobPath::parse("job").unwrap();
        let last = found.last(&job).map(|last| (last.number, last.progress.outcome(), last.duration.is_some()));
        Ok(format!("{:?} {:?} {:?} {last:?}", found.name(), found.kind(), found.is_disabled()))
    }

    #[test]
    fn a_value_of_the_wrong_kind_counts_as_absent() {
        let table = [
            (r#"{"name":"a"}"#, r#"Some("a") Job false None"#),
            (r#"{"name":7,"fullName":"x/b"}"#, r#"Some("b") Job false None"#),
            (r#"{"name":null,"fullName":["x"]}"#, "None Job false None"),
            ("7", "None Job false None"),
            ("null", "None Job false None"),
            (r#"["a"]"#, "None Job false None"),
            (r#"{"name":"a","disabled":"yes","buildable":0}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","disabled":true}"#, r#"Some("a") Job true None"#),
            (r#"{"name":"a","buildable":false}"#, r#"Some("a") Job true None"#),
            (r#"{"_class":"hudson.model.ExternalJob","name":"a","buildable":false}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","jobs":{}}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","jobs":null}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","jobs":[]}"#, r#"Some("a") Folder false None"#),
            (r#"{"name":"a","jobs":[],"lastCompletedBuild":null}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","lastCompletedBuild":[7]}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","lastCompletedBuild":{"number":"7","result":"SUCCESS"}}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","lastCompletedBuild":{"number":7,"result":null}}"#, r#"Some("a") Job false None"#),
            (r#"{"name":"a","lastCompletedBuild":{"number":0,"result":"SUCCESS"}}"#, r#"Some("a") Job false None"#),
            (
                r#"{"name":"a","lastCompletedBuild":{"number":7,"result":"SUCCESS","timestamp":1e9,"duration":-1}}"#,
                r#"Some("a") Job false Some((7, Some(Success), false))"#,
            ),
            (
                r#"{"name":"a","lastCompletedBuild":{"number":7,"result":"ODD","duration":5,"x":{"y":[]}}}"#,
                r#"Some("a") Job false Some((7, Some(Unknown), true))"#,
            ),
            (r#"{"\u006eame":"\u00fc\/%2F"}"#, r#"Some("ü/%2F") Job false None"#),
        ];
        for (json, expected) in table {
            assert_eq!(one(json).as_deref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_folders_answer_is_refused() {
        let table = [
            ("", Fault::Syntax { line: 1, column: 0 }),
            ("{\"jobs\":[{\"name\":\"a\"", Fault::Syntax { line: 1, column: 20 }),
            ("{\"jobs\":[]} x", Fault::Syntax { line: 1, column: 13 }),
            ("{}", Fault::Foreign { what: "`jobs`" }),
            ("[]", Fault::Foreign { what: "`jobs`" }),
            ("\"jobs\"", Fault::Foreign { what: "`jobs`" }),
            ("{\"jobs\":{\"a\":1}}", Fault::Foreign { what: "`jobs`" }),
            ("{\"jobs\":[1,2,3,4]}", Fault::TooMany { limit: 3 }),
            ("{\"jobs\":[{\"jobs\":[1,2]},4]}", Fault::TooMany { limit: 3 }),
        ];
        for (body, expected) in table {
            assert_eq!(items(body.as_bytes(), 2, 3).unwrap_err(), expected, "{body}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = 100_000;
        let asked = format!("{}{}", "{\"jobs\":[".repeat(deep), "]}".repeat(deep));
        let found = items(asked.as_bytes(), 3, 100).unwrap();
        assert!(matches!(found[0].below, Below::Listed(_)));
        let unasked = format!("{{\"x\":{}{},\"jobs\":[]}}", "[".repeat(deep), "]".repeat(deep));
        assert_eq!(items(unasked.as_bytes(), 3, 100).unwrap().len(), 0);
    }

    #[test]
    fn a_question_writes_its_levels_out() {
        let extent = Extent { from: 40, width: 20, levels: 2 };
        let fields = "name,fullName,disabled,buildable,lastCompletedBuild[number,result,timestamp,duration,builtOn]";
        let expected = format!("jobs[{fields},jobs[{fields},jobs[name]{{0,1}}]{{0,100}}]{{40,60}}");
        assert_eq!(extent.tree(), expected);
    }

    proptest! {
        /// For all damages to an answer: it is read or refused, and never is more found than may be.
        #[test]
        fn any_damage_is_survived(
            cut in 0..=ANSWER.len(), damages in vec((0..ANSWER.len(), any::<u8>()), 0..6), most in 0..5_usize,
        ) {
            let mut body = ANSWER.as_bytes().to_vec();
            for (at, byte) in damages {
                body[at] = byte;
            }
            body.truncate(cut);
            let _ = builds(&JobPath::parse("a").unwrap(), &body);
            if let Ok(found) = items(&body, 3, most) {
                prop_assert!(found.len() <= most);
            }
        }
    }

    const ANSWER: &str = r#"{"_class":"hudson.model.Hudson","jobs":[{"_class":"x.MultiBranchProject","name":"web",
        "jobs":[{"name":"feature%2Fx","buildable":true,"lastCompletedBuild":{"number":7,"result":"SUCCESS"}},
        {"name":"\u00fc","jobs":[{"name":"a"}]}]}],"builds":[{"number":1,"building":true},{"number":-9e99}]}"#;
}
