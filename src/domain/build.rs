//! One build as it was reported, and one moment as well as it is known. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::JobPath;
use super::projects::Source;
use super::rules::Children;

/// Milliseconds since the Unix epoch, as Jenkins and Datadog count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; nothing when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// When a build was created: at `latest`, or up to `slack` before it.
///
/// Which document gives which figure: `COMPLETED` carries creation + duration, so creation is exact; `FINALIZED` carries
/// the time of sending; plugins before 1.15 send no duration and before 1.12 no time at all
/// (notification-plugin, `JobListener` and `Phase`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Created {
    pub latest: Timestamp,
    pub slack: Duration,
}

impl Created {
    /// Between the end of a build and its `FINALIZED` message lie post-build steps: minutes at worst.
    pub const AFTER_COMPLETION: Duration = Duration::from_hours(1);
    /// Where the duration is unknown, a build may have run for as long as this.
    pub const LONGEST_BUILD: Duration = Duration::from_hours(24);

    /// Clocks differ by a little. A build from further in the future tells no time: its clock is wrong, and would stay
    /// the newest until the others have caught up.
    pub const CLOCK_SKEW: Duration = Duration::from_mins(10);

    pub const fn exactly(at: Timestamp) -> Self {
        Self { latest: at, slack: Duration::ZERO }
    }

    pub const fn at_most(slack: Duration, before: Timestamp) -> Self {
        Self { latest: before, slack }
    }

    pub fn is_exact(self) -> bool {
        self.slack.is_zero()
    }

    pub fn earliest(self) -> Timestamp {
        self.latest.minus(self.slack)
    }

    /// Whether both can speak of one moment.
    pub fn agrees_with(self, other: Self) -> bool {
        self.earliest() <= other.latest && other.earliest() <= self.latest
    }

    /// What both together tell, if they agree.
    #[must_use]
    pub fn narrowed_by(self, other: Self) -> Self {
        let latest = self.latest.min(other.latest);
        Self { latest, slack: latest.since(self.earliest().max(other.earliest())) }
    }
}

/// A build's result, in Jenkins's own order from best to worst (`hudson.model.Result`); an unknown word comes first, so
/// that any known one corrects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    Unknown,
    Success,
    Unstable,
    Failure,
    NotBuilt,
    Aborted,
}

impl Outcome {
    pub const ALL: [Self; 6] =
        [Self::Unknown, Self::Success, Self::Unstable, Self::Failure, Self::NotBuilt, Self::Aborted];

    /// Reads a result in any case; `FAILED` is a common misspelling. Any other word is [`Outcome::Unknown`].
    pub fn read(word: &str) -> Self {
        let is = |name: &str| word.trim().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(|outcome| is(outcome.as_str())).unwrap_or(if is("FAILED") {
            Self::Failure
        } else {
            Self::Unknown
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Success => "SUCCESS",
            Self::Unstable => "UNSTABLE",
            Self::Failure => "FAILURE",
            Self::NotBuilt => "NOT_BUILT",
            Self::Aborted => "ABORTED",
        }
    }
}

/// What one document says of one build.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildReport {
    /// The full path, a branch's leaf included.
    pub job: JobPath,
    /// What the document shows that the parent of `job` holds, branches or jobs, and how well that is known.
    pub parent_holds: Option<(Source, Children)>,
    /// Counts from 1 in each job; starts anew when a job is recreated.
    pub number: u64,
    /// `Running` carries no outcome, whatever the document said; the others always carry one.
    pub progress: Progress,
    /// `None` when the document tells no time: then the arrival stands in.
    pub created: Option<Created>,
    /// When it entered the queue. `QUEUED` says so, `STARTED` that it left it (notification-plugin, `JobListener`).
    pub queued: Option<Timestamp>,
    pub duration: Option<Duration>,
    /// What source control calls the branch, without the remote's name.
    pub scm_branch: Option<String>,
    /// The commit that was built.
    pub commit: Option<String>,
    /// The agent that it ran on, where the sender knows.
    pub node: Option<String>,
    /// Link to the build, for people. Never fetched.
    pub link: Option<String>,
}

impl BuildReport {
    /// What the shortest document says: which build, and how far it came.
    pub fn new(job: JobPath, number: u64, progress: Progress) -> Self {
        Self {
            job,
            parent_holds: None,
            number,
            progress,
            created: None,
            queued: None,
            duration: None,
            scm_branch: None,
            commit: None,
            node: None,
            link: None,
        }
    }

    /// When it ended, or was created if nothing tells how long it took.
    pub fn ended(&self) -> Option<Timestamp> {
        self.created.map(|created| created.latest.plus(self.duration.unwrap_or_default()))
    }
}

/// How far a build has come, with the result that belongs to it. The order is the rule for two documents of one build:
/// the later stage corrects the earlier, and within a stage the worse result does, as a Jenkins build can only worsen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Progress {
    Running,
    Completed(Outcome),
    Finalized(Outcome),
    /// What Jenkins itself shows when asked, whatever was sent before.
    Settled(Outcome),
}

impl Progress {
    pub fn is_good(self) -> bool {
        self.outcome() == Some(Outcome::Success)
    }

    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Running => None,
            Self::Completed(outcome) | Self::Finalized(outcome) | Self::Settled(outcome) => Some(outcome),
        }
    }
}

/// Whether a build's webhook came. The order is the rule for two reports of one build: the stronger one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Webhook {
    /// None was to be expected: nobody listened when the build ended, or its controller sends none.
    NotDue,
    /// The build's end was seen without it.
    Missing,
    Came,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_in_any_case_and_an_unknown_one_is_named_so() {
        let table = [
            ("SUCCESS", Outcome::Success),
            ("Success", Outcome::Success),
            (" failure ", Outcome::Failure),
            ("FAILED", Outcome::Failure),
            ("not_built", Outcome::NotBuilt),
            ("BLABLA", Outcome::Unknown),
            ("", Outcome::Unknown),
        ];
        for (word, expected) in table {
            assert_eq!(Outcome::read(word), expected, "{word:?}");
        }
    }

    #[test]
    fn an_exact_time_narrows_a_vague_one_whichever_comes_first() {
        let exact = Created::exactly(Timestamp::from_millis(1_000));
        let vague = Created::at_most(Duration::from_mins(1), Timestamp::from_millis(5_000));
        assert!(exact.agrees_with(vague) && vague.agrees_with(exact));
        assert_eq!(vague.narrowed_by(exact), exact);
        assert_eq!(exact.narrowed_by(vague), exact);
        assert!(!Created::exactly(Timestamp::from_millis(5_001)).agrees_with(vague));
    }
}
