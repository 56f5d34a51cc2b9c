//! What Jenkins has no more, or has elsewhere now. Pure.

use super::build::{Created, Timestamp};
use super::history::History;
use super::job::JobPath;
use super::record::Closed;

/// A job, a branch, or a folder with all that is in it, gone from its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub path: JobPath,
    /// Where it is now; `None` when it is nowhere.
    pub to: Option<JobPath>,
    /// When it went. `None` when the document tells no time: then the arrival stands in.
    pub at: Option<Timestamp>,
}

impl Removal {
    /// Whether something of `history` ended that was certainly begun later: then it is of another life, and the document
    /// of this end came late.
    pub fn is_outlived_by(&self, history: &History, now: Timestamp) -> bool {
        let until = self.until(now);
        history.builds().iter().any(|build| build.progress.outcome().is_some() && build.created.earliest() > until)
    }

    /// The last moment of what is gone. Nobody can tell the future: what comes from further ahead than clocks differ is gone
    /// by now, as is what comes without a time.
    fn until(&self, now: Timestamp) -> Timestamp {
        let latest = now.plus(Created::CLOCK_SKEW);
        self.at.filter(|at| *at <= latest).unwrap_or(latest)
    }

    /// Where `path`, which is the one that went or lies below it, is now.
    pub fn moved(&self, path: &JobPath) -> Option<JobPath> {
        let to = self.to.as_ref()?;
        match path.as_str().strip_prefix(self.path.as_str())?.trim_start_matches('/') {
            "" => Some(to.clone()),
            below => JobPath::parse(&format!("{to}/{below}")).ok(),
        }
    }

    /// Why `path`, which is the one that went or lies below it, is no longer spoken of.
    pub fn closes(&self, path: &JobPath) -> Closed {
        self.moved(path).map_or(Closed::Deleted, Closed::Renamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::build::{BuildReport, Outcome, Progress};
    use crate::domain::record::JobRecord;
    use crate::domain::rules::Policy;

    fn path(raw: &str) -> JobPath {
        JobPath::parse(raw).unwrap()
    }

    #[test]
    fn a_clock_that_is_wrong_tells_no_time() {
        let minute = |minute: i64| Timestamp::from_millis(minute * 60_000);
        let table = [(Some(99), 99), (Some(100), 100), (Some(110), 110), (Some(111), 110), (None, 110)];
        for (at, expected) in table {
            let removal = Removal { path: path("a"), to: None, at: at.map(minute) };
            assert_eq!(removal.until(minute(100)), minute(expected), "{at:?}");
        }
    }

    #[test]
    fn only_what_certainly_began_later_and_has_ended_outlives_an_end() {
        let minute = |minute: i64| Timestamp::from_millis(minute * 60_000);
        let ended = Progress::Completed(Outcome::Failure);
        let table = [
            (Some(Created::exactly(minute(51))), ended, true),
            (Some(Created::exactly(minute(51))), Progress::Running, false),
            (Some(Created::exactly(minute(50))), ended, false),
            (Some(Created::at_most(Created::AFTER_COMPLETION, minute(100))), ended, false),
            (Some(Created::at_most(Created::AFTER_COMPLETION, minute(111))), ended, true),
            (None, ended, false),
        ];
        for (created, progress, expected) in table {
            let mut record = JobRecord::default();
            let report = BuildReport { created, ..BuildReport::new(path("a"), 1, progress) };
            record.take("", &report, Policy::usual(), minute(120));
            let removal = Removal { path: path("a"), to: None, at: Some(minute(50)) };
            let outlived = removal.is_outlived_by(record.branch("").unwrap(), minute(120));
            assert_eq!(outlived, expected, "{created:?} {progress:?}");
        }
    }

    #[test]
    fn what_lies_below_goes_along() {
        let renamed = Removal { path: path("acme/web"), to: Some(path("team/site")), at: None };
        let deleted = Removal { to: None, ..renamed.clone() };
        let table = [("acme/web", "team/site"), ("acme/web/main", "team/site/main"), ("acme/web/a/b", "team/site/a/b")];
        for (from, to) in table {
            assert_eq!(renamed.closes(&path(from)), Closed::Renamed(path(to)), "{from}");
            assert_eq!(deleted.closes(&path(from)), Closed::Deleted, "{from}");
        }
    }
}
