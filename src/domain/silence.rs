//! Jobs whose webhooks do not come although others' do, and what is probably wrong with them. Pure.

use std::time::Duration;

use super::build::{Timestamp, Webhook};
use super::history::History;
use super::record::JobRecord;

/// A build that only Jenkins itself told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence<'a> {
    /// As on disk; empty for a job without branches.
    pub branch: &'a str,
    pub number: u64,
    /// When the build ended.
    pub since: Timestamp,
    pub cause: Cause,
}

/// Why a webhook probably did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// None has ever come.
    NoEndpoint,
    /// Earlier ones came.
    Stopped,
    /// It was the first build, before which the job had no endpoint.
    FirstBuild,
}

impl Cause {
    /// In the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Stopped => "stopped",
            Self::FirstBuild => "first_build",
        }
    }

    /// One line for people, with the remedy.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no webhook has ever come from it: give the job an endpoint",
            Self::Stopped => {
                "earlier webhooks came: save its endpoint anew with the branch filter `.*`, and see that its event is `all`"
            }
            Self::FirstBuild => "its first build: a Pipeline has the endpoint that it sets from its next build on",
        }
    }
}

impl<'a> Silence<'a> {
    /// A webhook may be so late: each of the plugin's tries may take a minute.
    const GRACE: Duration = Duration::from_mins(10);

    /// The one of a job's branches that ended last. A branch is silent as long as its newest build is.
    pub fn of(record: &'a JobRecord, now: Timestamp) -> Option<Self> {
        if record.closed().is_some() {
            return None;
        }
        let silent = record.branches().filter_map(|(leaf, history)| Self::of_branch(leaf, history));
        silent.filter(|silence| now.since(silence.since) >= Self::GRACE).max_by_key(|silence| silence.since)
    }

    fn of_branch(branch: &'a str, history: &History) -> Option<Self> {
        let build = history.last_ended().filter(|build| build.webhook == Webhook::Missing)?;
        let cause = if history.builds().iter().any(|build| build.webhook == Webhook::Came) {
            Cause::Stopped
        } else if build.number == 1 {
            Cause::FirstBuild
        } else {
            Cause::NoEndpoint
        };
        let since = build.ended().unwrap_or(build.created.latest);
        Some(Self { branch, number: build.number, since, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::build::{BuildReport, Created, Outcome, Progress};
    use crate::domain::job::JobPath;
    use crate::domain::record::Closed;
    use crate::domain::rules::Policy;

    const MINUTE: i64 = 60_000;
    const LATER: Timestamp = Timestamp::from_millis(1_000 * MINUTE);

    /// Builds of one branch, a minute apart, each lasting half of one.
    fn record(branch: &str, builds: &[(u64, Webhook)]) -> JobRecord {
        let mut record = JobRecord::default();
        for &(number, webhook) in builds {
            let report = BuildReport {
                created: Some(Created::exactly(Timestamp::from_millis(i64::try_from(number).unwrap() * MINUTE))),
                duration: Some(Duration::from_secs(30)),
                ..BuildReport::new(JobPath::parse("acme/web").unwrap(), number, Progress::Settled(Outcome::Success))
            };
            record.see(branch, &report, webhook, Policy::usual(), LATER);
        }
        record
    }

    #[test]
    fn the_newest_build_says_whether_a_job_is_silent_and_those_before_it_why() {
        use Webhook::{Came, Missing, NotDue};
        let table: [(&[(u64, Webhook)], _); 8] = [
            (&[(7, Came)], None),
            (&[(7, NotDue)], None),
            (&[(7, Missing)], Some(Cause::NoEndpoint)),
            (&[(6, NotDue), (7, Missing)], Some(Cause::NoEndpoint)),
            (&[(6, Came), (7, Missing)], Some(Cause::Stopped)),
            (&[(1, Missing)], Some(Cause::FirstBuild)),
            // It came after all, or came again.
            (&[(7, Missing), (7, Came)], None),
            (&[(6, Missing), (7, Came)], None),
        ];
        for (builds, expected) in table {
            let record = record("main", builds);
            assert_eq!(Silence::of(&record, LATER).map(|silence| silence.cause), expected, "{builds:?}");
        }
    }

    #[test]
    fn a_webhook_may_be_late() {
        let record = record("", &[(7, Webhook::Missing)]);
        let ended = Timestamp::from_millis(7 * MINUTE + 30_000);
        assert_eq!(Silence::of(&record, ended.plus(Duration::from_mins(9))), None);
        let silence = Silence::of(&record, ended.plus(Duration::from_mins(10))).unwrap();
        assert_eq!((silence.number, silence.since), (7, ended));
    }

    #[test]
    fn a_job_that_is_no_longer_watched_is_not_missed() {
        let mut record = record("", &[(7, Webhook::Missing)]);
        record.close(Closed::Disabled, LATER);
        assert_eq!(Silence::of(&record, LATER), None);
    }
}
