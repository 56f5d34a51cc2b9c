//! What a look at a whole controller tells: its items one by one, whether nothing was overlooked, and how busy it is.
//! Pure.

use std::fmt;

use super::build::{BuildReport, Timestamp};
use super::job::{JobPath, stable_hash};
use super::rules::Children;

/// What an item of a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is built.
    Job,
    /// It holds branches, each of which is built: a multibranch project.
    Project,
    /// It holds further items, and nothing in it is a branch of it.
    Folder,
}

impl Kind {
    /// What it holds; `None` for what is built itself.
    pub fn children(self) -> Option<Children> {
        match self {
            Self::Job => None,
            Self::Project => Some(Children::Branches),
            Self::Folder => Some(Children::Jobs),
        }
    }
}

/// One item, as the controller shows it now.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub path: JobPath,
    pub kind: Kind,
    /// The controller builds it no more, until somebody enables it.
    pub disabled: bool,
    /// The completed build of the highest number, if there is one: the one that was created last, even where one before it
    /// took longer. Its result is final.
    pub last: Option<BuildReport>,
    /// It has such a build, which cannot be read: whatever it was, it is not that there is none.
    pub hides_last: bool,
}

impl Item {
    /// A number that stays the same as long as the item says the same: what need not be merged anew. Not to be stored.
    pub fn fingerprint(&self) -> u64 {
        let Self { path, kind, disabled, last, hides_last } = self;
        let last = last.as_ref().map(|last| (last.number, last.progress, last.created, last.duration));
        stable_hash(&format!("{path}\n{kind:?} {disabled} {hides_last} {last:?}"))
    }
}

/// How a look at a whole controller ended. All that was found had been handed over before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Items that were handed over. One that moved meanwhile may be among them twice, or not at all.
    pub items: u64,
    /// Those of them that are built, branches included.
    pub jobs: u64,
    /// Where the look did not reach, at most [`Survey::MAX_GAPS`]. While there is one, what was not found may well exist.
    pub gaps: Vec<Gap>,
    /// The controller's own time when it answered last, to the second.
    pub clock: Option<Timestamp>,
}

impl Survey {
    /// Of further gaps only the first so many are told.
    pub const MAX_GAPS: usize = 20;

    /// Whether what was not found is not there, or not ours to see.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// A folder or project whose items are not all known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// `None` for the top level.
    pub folder: Option<JobPath>,
    pub because: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Jenkins refused to show it, or knows it no more.
    Refused,
    /// It lies deeper than anything is followed.
    TooDeep,
    /// An item in it says that it belongs elsewhere, so that following it could go in circles.
    Astray,
    /// Its list changed again and again while it was read.
    Restless,
    /// One of its items is more than is read at once, or is no item.
    Unreadable,
    /// The look ended before it came there.
    CutShort,
}

impl GapReason {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooDeep => "too_deep",
            Self::Astray => "astray",
            Self::Restless => "restless",
            Self::Unreadable => "unreadable",
            Self::CutShort => "cut_short",
        }
    }
}

impl fmt::Display for Gap {
    /// A line for people.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => write!(out, "{folder}: ")?,
            None => out.write_str("the top level: ")?,
        }
        out.write_str(match self.because {
            GapReason::Refused => "Jenkins does not show it to this user",
            GapReason::TooDeep => "its items lie deeper than anything is followed",
            GapReason::Astray => "an item in it says that it belongs elsewhere",
            GapReason::Restless => "its items changed again and again while they were read",
            GapReason::Unreadable => "an item in it cannot be read",
            GapReason::CutShort => "the look ended before it came there",
        })
    }
}

/// How busy a controller is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub queue: Queue,
    pub executors: Executors,
    pub nodes: Nodes,
    /// Builds under way.
    pub building: u64,
}

/// What waits to be built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub size: u64,
    /// Could begin, had it an executor.
    pub buildable: u64,
    /// Has an executor and is about to begin.
    pub pending: u64,
    /// Has waited for too long, as Jenkins sees it.
    pub stuck: u64,
    /// Waits for something else than an executor.
    pub blocked: u64,
}

/// Of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executors {
    pub count: u64,
    pub free: u64,
    pub in_use: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    pub count: u64,
    pub online: u64,
    pub offline: u64,
}
