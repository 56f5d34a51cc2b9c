//! What is about one event: `event_alert`, `error`, and the old `WebHooks` plugin. Pure.

use serde::de::{MapAccess, SeqAccess};

use super::tags::Tags;
use super::{HookError, IgnoredBecause, Reading, fill, project, required};
use crate::domain::build::Timestamp;
use crate::domain::sentry::{Level, Notice, NoticeKind, Occurrence};
use crate::machinery::lenient::{Fill, Filling, element, skip};
use crate::sentry::fields::{cut, link, number, text};

pub(super) fn read_alert(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut hook = Hook::default();
    fill(body, &mut hook)?;
    if required(hook.action.as_deref(), "action")? != "triggered" {
        return Ok(Reading::Ignored(IgnoredBecause::UnknownAction));
    }
    let event = required(hook.event.id.take(), "data.event.event_id")?;
    // One event may set off several rules.
    let id = format!("{event}/{}", hook.rule.as_deref().unwrap_or_default());
    Ok(hook.event.notice(NoticeKind::EventAlert, id, at, hook.rule))
}

pub(super) fn read_error(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut hook = Hook::default();
    fill(body, &mut hook)?;
    if required(hook.action.as_deref(), "action")? != "created" {
        return Ok(Reading::Ignored(IgnoredBecause::UnknownAction));
    }
    let id = required(hook.error.id.take(), "data.error.event_id")?;
    Ok(hook.error.notice(NoticeKind::Error, id, at, None))
}

pub(super) fn read_plugin(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut plugin = Plugin::default();
    fill(body, &mut plugin)?;
    let Plugin { issue, project, slug, level, culprit, message, link, rule, event } = plugin;
    let id = required(event.id, "event.event_id")?;
    Ok(Occurrence::Notice(Notice {
        kind: NoticeKind::Plugin,
        id,
        at,
        issue,
        project: slug.or(project),
        level: level.or(event.level).or(event.tags.level).as_deref().and_then(Level::read),
        title: message.or(event.title),
        culprit: culprit.or(event.culprit),
        link,
        rule,
        pod_name: event.tags.pod_name,
        pod_namespace: event.tags.pod_namespace,
    })
    .into())
}

#[derive(Default)]
struct Hook {
    action: Option<String>,
    event: Event,
    error: Event,
    rule: Option<String>,
}

impl<'de> Fill<'de> for Hook {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "action" => self.action = text(map)?,
            "data" => map.next_value_seed(Filling(&mut Data(self)))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct Data<'h>(&'h mut Hook);

impl<'de> Fill<'de> for Data<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let hook = &mut *self.0;
        match key {
            "event" => map.next_value_seed(Filling(&mut hook.event))?,
            "error" => map.next_value_seed(Filling(&mut hook.error))?,
            "triggered_rule" => hook.rule = text(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// An event, of whose project only the number is told, and the slug in the address of its API.
#[derive(Default)]
struct Event {
    id: Option<String>,
    issue: Option<u64>,
    slug: Option<String>,
    project: Option<u64>,
    level: Option<String>,
    title: Option<String>,
    culprit: Option<String>,
    link: Option<String>,
    tags: Tags,
}

impl<'de> Fill<'de> for Event {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "event_id" => self.id = text(map)?.filter(|id| is_id(id)),
            "issue_id" => self.issue = number(map)?,
            "url" => self.slug = text(map)?.and_then(|url| slug(&url)),
            "project" => self.project = number(map)?,
            "level" => self.level = text(map)?,
            "title" => self.title = text(map)?,
            "culprit" => self.culprit = text(map)?,
            "web_url" => self.link = link(map)?,
            "tags" => map.next_value_seed(Filling(&mut self.tags))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl Event {
    fn notice(self, kind: NoticeKind, id: String, at: Timestamp, rule: Option<String>) -> Reading {
        let level = self.level.or(self.tags.level);
        Occurrence::Notice(Notice {
            kind,
            id,
            at,
            issue: self.issue,
            project: project(self.slug, self.project),
            level: level.as_deref().and_then(Level::read),
            title: self.title,
            culprit: self.culprit,
            link: self.link,
            rule,
            pod_name: self.tags.pod_name,
            pod_namespace: self.tags.pod_namespace,
        })
        .into()
    }
}

/// A UUID's hexadecimal digits, as a rule without hyphens.
fn is_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The project in `https://HOST/api/0/projects/ORGANIZATION/PROJECT/events/ID/`.
fn slug(url: &str) -> Option<String> {
    let (_, below) = url.split_once("/api/0/projects/")?;
    let mut segments = below.split('/');
    let (_organization, project, events) = (segments.next()?, segments.next()?, segments.next()?);
    let is_slug = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (events == "events" && (1..=100).contains(&project.len()) && project.bytes().all(is_slug))
        .then(|| project.to_owned())
}

/// The plugin's document, which is not signed.
#[derive(Default)]
struct Plugin {
    issue: Option<u64>,
    project: Option<String>,
    slug: Option<String>,
    level: Option<String>,
    culprit: Option<String>,
    message: Option<String>,
    link: Option<String>,
    rule: Option<String>,
    event: Event,
}

impl<'de> Fill<'de> for Plugin {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.issue = number(map)?,
            "project" => self.project = text(map)?,
            "project_slug" => self.slug = text(map)?,
            "level" => self.level = text(map)?,
            "culprit" => self.culprit = text(map)?,
            "message" => self.message = text(map)?,
            "url" => self.link = link(map)?,
            "triggering_rules" => map.next_value_seed(Filling(&mut First(&mut self.rule)))?,
            "event" => map.next_value_seed(Filling(&mut self.event))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The first text of a list.
struct First<'s>(&'s mut Option<String>);

impl<'de> Fill<'de> for First<'_> {
    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = element(&mut list)? {
            if self.0.is_none() {
                *self.0 = item.text().map(|text| cut(&text));
            }
        }
        Ok(())
    }
}
