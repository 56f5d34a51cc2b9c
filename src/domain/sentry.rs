//! What Sentry tells of: issues, metric alerts, and things that happened once. Pure.

pub mod record;
pub mod speech;
pub mod tally;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::Timestamp;
use super::job::ControllerName;
use super::status::Status;

/// The configured name of one Sentry integration, as it stands in the webhook's URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntegrationName(Arc<str>);

/// Why a string is not an integration's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an integration's name has 1 to 64 characters of a-z, A-Z, 0-9, `_`, `.` and `-`, unlike {given:?}")]
pub struct IntegrationNameError {
    given: String,
}

impl IntegrationName {
    /// # Errors
    /// When the name could not stand in a URL, a host name and a tag unchanged.
    pub fn parse(raw: &str) -> Result<Self, IntegrationNameError> {
        match ControllerName::parse(raw) {
            Ok(name) => Ok(Self((&name).into())),
            Err(_) => Err(IntegrationNameError { given: raw.chars().take(80).collect() }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&IntegrationName> for Arc<str> {
    fn from(name: &IntegrationName) -> Self {
        name.0.clone()
    }
}

impl fmt::Display for IntegrationName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How bad an event is, in Sentry's words (develop.sentry.dev, event payloads, `level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Sample,
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

impl Level {
    pub const ALL: [Self; 6] = [Self::Sample, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// `None` for a word that is not Sentry's. Case is ignored.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word.trim()))
    }

    /// What an open issue of this level is.
    pub fn status(self) -> Status {
        if self >= Self::Error { Status::Critical } else { Status::Warning }
    }
}

/// What became of something that Sentry told and that is stored now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was news.
    Changed,
    /// It was known.
    Duplicate,
    /// Something later is known.
    Stale,
    /// There is no room for it, until what waits has been told.
    Full,
}

impl Heard {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Full => "full",
        }
    }
}

/// What Sentry shows when it is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Issue(IssueReport),
    Alert(AlertReport),
    /// This issue has become part of another.
    Merged {
        issue: u64,
        into: u64,
        at: Timestamp,
    },
    /// Sentry does not know this issue any more.
    IssueGone {
        issue: u64,
        at: Timestamp,
    },
    /// Sentry does not know this span of a metric alert any more.
    AlertGone {
        rule: u64,
        identifier: u64,
        at: Timestamp,
    },
}

/// Something that is spoken of, and of which integration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SentryKey {
    pub integration: IntegrationName,
    pub subject: Subject,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A metric alert, by its rule.
    Alert(u64),
    Issue(u64),
    Notice(NoticeKind, String),
    Project(String),
}

impl fmt::Display for Subject {
    /// In such a way that [`Self::parse`] reads it, and that numbers are in order.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(rule) => write!(out, "alert/{rule:020}"),
            Self::Issue(id) => write!(out, "issue/{id:020}"),
            Self::Notice(kind, id) => write!(out, "notice/{}/{id}", kind.as_str()),
            Self::Project(slug) => write!(out, "project/{slug}"),
        }
    }
}

impl Subject {
    /// `None` for what is none.
    pub fn parse(raw: &str) -> Option<Self> {
        let (sort, name) = raw.split_once('/')?;
        Some(match sort {
            "alert" => Self::Alert(name.parse().ok()?),
            "issue" => Self::Issue(name.parse().ok()?),
            "notice" => {
                let (kind, id) = name.split_once('/')?;
                Self::Notice(NoticeKind::ALL.into_iter().find(|known| known.as_str() == kind)?, id.to_owned())
            }
            "project" => Self::Project(name.to_owned()),
            _ => return None,
        })
    }
}

/// What one webhook tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Occurrence {
    Issue(IssueReport),
    Alert(AlertReport),
    Notice(Notice),
}

/// How an issue stands, by Sentry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IssueState {
    /// Somebody has it out of the way, for good or for a while; `ignored` is its older name.
    Archived,
    Resolved,
    Open,
}

/// An issue as Sentry tells of it. Texts are a stranger's, and of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueReport {
    /// Counts within the whole of Sentry.
    pub id: u64,
    pub state: IssueState,
    /// What has just happened to it, in Sentry's word: `created`, `unresolved`, `resolved`, `archived`.
    pub action: &'static str,
    /// When that was so, by Sentry's clock.
    pub at: Timestamp,
    pub about: IssueText,
}

/// What there is to say of an issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueText {
    /// The project's slug, or its number where there is no slug.
    pub project: Option<String>,
    /// What people call it: `WEB-1F`.
    pub short_id: Option<String>,
    pub level: Option<Level>,
    pub title: Option<String>,
    pub culprit: Option<String>,
    /// Its page. Shown to people, never fetched.
    pub link: Option<String>,
}

/// How a metric alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AlertState {
    Resolved,
    /// It is open, and nobody says how bad it is.
    Open,
    Warning,
    Critical,
}

impl IssueState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Resolved => "resolved",
            Self::Open => "unresolved",
        }
    }
}

impl AlertState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Open => "open",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    pub fn status(self) -> Status {
        match self {
            Self::Resolved => Status::Ok,
            Self::Open | Self::Warning => Status::Warning,
            Self::Critical => Status::Critical,
        }
    }
}

/// A span in which a metric alert is, or was, open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertReport {
    /// Of the alert rule, which goes off again and again.
    pub rule: u64,
    /// Of this span; counts within the organization.
    pub identifier: u64,
    pub state: AlertState,
    /// When that was so, by Sentry's clock.
    pub at: Timestamp,
    pub about: AlertText,
}

/// What there is to say of a metric alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertText {
    /// The rule's.
    pub name: Option<String>,
    /// Slugs.
    pub projects: Vec<String>,
    /// Why, in Sentry's words.
    pub text: Option<String>,
    pub link: Option<String>,
}

/// Something that happened once, and is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub kind: NoticeKind,
    /// Of two with the same kind and id, one is a repetition: the event and the rule that it set off, the event, or the
    /// comment.
    pub id: String,
    pub at: Timestamp,
    pub issue: Option<u64>,
    /// As of [`IssueText`], from here on.
    pub project: Option<String>,
    pub level: Option<Level>,
    pub title: Option<String>,
    pub culprit: Option<String>,
    pub link: Option<String>,
    /// The alert rule that it set off.
    pub rule: Option<String>,
    /// The pod that the event came from, by its tag `pod_name`.
    pub pod_name: Option<String>,
    /// By its tag `pod_namespace`.
    pub pod_namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    /// An event set off an issue alert.
    EventAlert,
    /// An event of an error.
    Error,
    /// Somebody commented on an issue.
    Comment,
    /// The unsigned plugin of old, `WebHooks`, told of an event.
    Plugin,
}

impl NoticeKind {
    pub const ALL: [Self; 4] = [Self::EventAlert, Self::Error, Self::Comment, Self::Plugin];

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventAlert => "event_alert",
            Self::Error => "error",
            Self::Comment => "comment",
            Self::Plugin => "plugin",
        }
    }
}
