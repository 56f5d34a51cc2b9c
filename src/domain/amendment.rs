//! What Jenkins has shown twice to be otherwise than it is remembered, and how that is mended. Pure.

use super::build::Timestamp;
use super::history::Build;
use super::job::JobKey;
use super::record::{Closed, JobRecord};

/// One thing to be mended in the record of one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Amendment {
    pub key: JobKey,
    pub what: What,
    /// The newest build that was known of it when it was found. Whatever was built since is news that the finding knows
    /// nothing of: then it is void.
    pub newest: Option<Build>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The job is no more.
    Close(Closed),
    /// The branch is no more; its name as on disk, empty for the builds of a job that has become a project.
    Drop { leaf: String },
    /// Builds of the branch were deleted, or were never there: all that are newer than `last`, the number of the newest
    /// that Jenkins shows.
    Withdraw { leaf: String, last: Option<u64> },
}

impl What {
    /// The newest build that `record` has of what this is about.
    pub fn newest(&self, record: &JobRecord) -> Option<Build> {
        match self {
            Self::Close(_) => record.newest(),
            Self::Drop { leaf } | Self::Withdraw { leaf, .. } => record.branch(leaf)?.builds().first().cloned(),
        }
    }
}

impl Amendment {
    pub fn new(key: JobKey, what: What, record: &JobRecord) -> Self {
        let newest = what.newest(record);
        Self { key, what, newest }
    }

    /// Whether `record` is still as it was when this was found.
    pub fn holds(&self, record: &JobRecord) -> bool {
        self.what.newest(record) == self.newest
    }

    /// Returns whether it changed anything.
    pub fn apply(&self, record: &mut JobRecord, now: Timestamp) -> bool {
        if !self.holds(record) {
            return false;
        }
        match &self.what {
            What::Close(why) => record.close(why.clone(), now),
            What::Drop { leaf } => record.drop_branch(leaf),
            What::Withdraw { leaf, last } => record.withdraw(leaf, *last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::build::{BuildReport, Created, Outcome, Progress};
    use crate::domain::job::{ControllerName, JobPath};
    use crate::domain::rules::Policy;
    use crate::domain::status::Status;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn take(record: &mut JobRecord, leaf: &str, number: u64, outcome: Outcome) {
        let report = BuildReport {
            created: Some(Created::exactly(Timestamp::from_millis(i64::try_from(number).unwrap() * 1_000))),
            duration: Some(Duration::from_secs(1)),
            ..BuildReport::new(JobPath::parse("acme/web").unwrap(), number, Progress::Completed(outcome))
        };
        record.take(leaf, &report, Policy::usual(), NOW);
    }

    fn amendment(what: What, record: &JobRecord) -> Amendment {
        let job = JobPath::parse("acme/web").unwrap();
        Amendment::new(JobKey { controller: ControllerName::parse("main").unwrap(), job }, what, record)
    }

    fn status(record: &JobRecord) -> Option<Status> {
        record.current(Policy::usual()).map(|current| current.status)
    }

    #[test]
    fn what_was_built_since_it_was_found_makes_it_void() {
        let close = || What::Close(Closed::Deleted);
        let drop = || What::Drop { leaf: "main".to_owned() };
        let withdraw = || What::Withdraw { leaf: "main".to_owned(), last: None };
        for what in [close, drop as fn() -> What, withdraw] {
            let mut record = JobRecord::default();
            take(&mut record, "main", 1, Outcome::Failure);
            let found = amendment(what(), &record);
            take(&mut record, "main", 2, Outcome::Failure);
            let before = record.clone();
            assert!(!found.apply(&mut record, NOW));
            assert_eq!(record, before, "{:?}", found.what);
            assert!(amendment(what(), &record).apply(&mut record, NOW), "{:?}", found.what);
        }
    }

    #[test]
    fn a_branch_that_is_no_more_decides_nothing_any_longer() {
        let mut record = JobRecord::default();
        take(&mut record, "main", 1, Outcome::Success);
        take(&mut record, "feature%2Fx", 2, Outcome::Failure);
        assert_eq!(status(&record), Some(Status::Critical));
        assert!(amendment(What::Drop { leaf: "feature%2Fx".to_owned() }, &record).apply(&mut record, NOW));
        assert_eq!(status(&record), Some(Status::Ok));
        assert!(!amendment(What::Drop { leaf: "feature%2Fx".to_owned() }, &record).apply(&mut record, NOW), "once");
    }

    #[test]
    fn a_build_that_is_no_more_gives_back_the_status_before() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Success);
        take(&mut record, "", 2, Outcome::Failure);
        assert!(amendment(What::Withdraw { leaf: String::new(), last: Some(1) }, &record).apply(&mut record, NOW));
        assert_eq!(status(&record), Some(Status::Ok));
        assert!(amendment(What::Withdraw { leaf: String::new(), last: None }, &record).apply(&mut record, NOW));
        assert_eq!(status(&record), None);
    }
}
