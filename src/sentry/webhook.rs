//! What a Sentry posts of its own accord: the webhooks of an internal integration, and those of the old `WebHooks` plugin
//! (docs.sentry.io, Integration Platform, Webhooks; `sentry_plugins`, `webhooks`). Pure.
//!
//! The header `Sentry-Hook-Resource` says what a body is about, its `action` what has happened to that. What needs not be
//! known is skipped unread; a field of the wrong kind counts as absent, and only what a thing is known by is insisted on.

mod alert;
mod event;
mod issue;
mod signature;
mod tags;

use std::borrow::Cow;
use std::time::Duration;

use crate::domain::build::Timestamp;
use crate::domain::sentry::Occurrence;
use crate::machinery::lenient::{self, Fill};

pub use signature::{Secrets, Signature};

/// What a webhook is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Issue,
    EventAlert,
    MetricAlert,
    Error,
    Comment,
    Installation,
    Seer,
    /// A kind that no known version of Sentry sends, or that says nothing here.
    Other,
    /// The old plugin's, which no header names.
    Plugin,
}

impl Resource {
    /// By the header `Sentry-Hook-Resource`.
    pub fn read(word: &str) -> Self {
        match word {
            "issue" => Self::Issue,
            "event_alert" => Self::EventAlert,
            "metric_alert" => Self::MetricAlert,
            "error" => Self::Error,
            "comment" => Self::Comment,
            "installation" => Self::Installation,
            "seer" => Self::Seer,
            _ => Self::Other,
        }
    }

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::EventAlert => "event_alert",
            Self::MetricAlert => "metric_alert",
            Self::Error => "error",
            Self::Comment => "comment",
            Self::Installation => "installation",
            Self::Seer => "seer",
            Self::Other => "other",
            Self::Plugin => "plugin",
        }
    }
}

/// What a webhook amounts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Told(Box<Occurrence>),
    Ignored(IgnoredBecause),
}

impl From<Occurrence> for Reading {
    fn from(occurrence: Occurrence) -> Self {
        Self::Told(Box::new(occurrence))
    }
}

/// Why a sound webhook tells nothing that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoredBecause {
    /// Whose an issue is says nothing of how it stands.
    Assigned,
    /// A comment was changed or deleted.
    CommentEdited,
    /// The integration was installed or removed.
    Installation,
    /// Sentry's assistant is at work.
    Seer,
    UnknownResource,
    UnknownAction,
}

impl IgnoredBecause {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::CommentEdited => "comment_edited",
            Self::Installation => "installation",
            Self::Seer => "seer",
            Self::UnknownResource => "unknown_resource",
            Self::UnknownAction => "unknown_action",
        }
    }
}

/// Why a body is no webhook of Sentry's. A message never repeats what the body says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    #[error("the body is not JSON at line {line}, column {column}: send Sentry's document unchanged")]
    Syntax { line: usize, column: usize },
    #[error("the field `{field}` is missing, or not what Sentry writes there: send Sentry's document unchanged")]
    Missing { field: &'static str },
}

/// Sentry's clock and ours may differ by as much, and what is older may be somebody's who has listened.
pub const FRESH: Duration = Duration::from_mins(10);

/// The time in `Sentry-Hook-Timestamp`, seconds since 1970, if that is now. It is not signed.
pub fn fresh(header: &str, now: Timestamp) -> Option<Timestamp> {
    if header.is_empty() || !header.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let at = Timestamp::from_millis(header.parse::<i64>().ok()?.checked_mul(1000)?);
    (at.since(now) <= FRESH && now.since(at) <= FRESH).then_some(at)
}

/// Reads a body of this resource. What it tells was so at `at`.
///
/// # Errors
/// When the body is not JSON, or does not say what it is about.
pub fn read(resource: Resource, body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    match resource {
        Resource::Issue => issue::read(body, at),
        Resource::EventAlert => event::read_alert(body, at),
        Resource::MetricAlert => alert::read(body, at),
        Resource::Error => event::read_error(body, at),
        Resource::Comment => issue::read_comment(body, at),
        Resource::Plugin => event::read_plugin(body, at),
        Resource::Installation => Ok(Reading::Ignored(IgnoredBecause::Installation)),
        Resource::Seer => Ok(Reading::Ignored(IgnoredBecause::Seer)),
        Resource::Other => Ok(Reading::Ignored(IgnoredBecause::UnknownResource)),
    }
}

/// Fills `into` with a whole body. Bytes that are not UTF-8 stand in some text, which must not cost the rest.
fn fill<F: for<'de> Fill<'de>>(body: &[u8], into: &mut F) -> Result<(), HookError> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    let read = lenient::read(text.as_bytes(), into);
    read.map_err(|error| HookError::Syntax { line: error.line(), column: error.column() })
}

/// The value of a field that must be there.
fn required<T>(value: Option<T>, field: &'static str) -> Result<T, HookError> {
    value.ok_or(HookError::Missing { field })
}

/// What a project is called: its slug, else its number.
fn project(slug: Option<String>, id: Option<u64>) -> Option<String> {
    slug.or_else(|| id.map(|id| id.to_string()))
}

#[cfg(test)]
mod tests;
