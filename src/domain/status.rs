//! A service check's status, what a result does to it, and what counts as a change. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Datadog service check's status. Its order is that of harm, so `max` is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Warning,
    Critical,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// What a result says of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Critical,
    /// Nothing: the job stays as it is.
    Hold,
}

impl Verdict {
    pub fn status(self) -> Option<Status> {
        match self {
            Self::Ok => Some(Status::Ok),
            Self::Warning => Some(Status::Warning),
            Self::Critical => Some(Status::Critical),
            Self::Hold => None,
        }
    }
}

/// How a job's status moved against what was last announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first status that this job ever had.
    First(Status),
    /// From good to bad, or from bad to worse.
    Failed { from: Status, to: Status },
    /// From CRITICAL to WARNING: better, but not good.
    Eased { from: Status, to: Status },
    /// Back to OK.
    Recovered { from: Status },
}

impl Change {
    /// `None` when nothing changed.
    pub fn between(announced: Option<Status>, now: Status) -> Option<Self> {
        match announced {
            None => Some(Self::First(now)),
            Some(from) if from == now => None,
            Some(from) if now == Status::Ok => Some(Self::Recovered { from }),
            Some(from) if now > from => Some(Self::Failed { from, to: now }),
            Some(from) => Some(Self::Eased { from, to: now }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_by_where_it_leads() {
        use Status::{Critical, Ok, Warning};
        let table = [
            (None, Ok, Some(Change::First(Ok))),
            (None, Critical, Some(Change::First(Critical))),
            (Some(Ok), Ok, None),
            (Some(Ok), Warning, Some(Change::Failed { from: Ok, to: Warning })),
            (Some(Warning), Critical, Some(Change::Failed { from: Warning, to: Critical })),
            (Some(Critical), Warning, Some(Change::Eased { from: Critical, to: Warning })),
            (Some(Critical), Ok, Some(Change::Recovered { from: Critical })),
        ];
        for (before, now, expected) in table {
            assert_eq!(Change::between(before, now), expected, "{before:?} -> {now:?}");
        }
    }
}
