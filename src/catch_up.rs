//! The looks: now and then each Jenkins is asked for all its jobs, and what it shows is joined with what webhooks told.
//! What was missed is mended, what is gone is closed, and a job that sends no webhook is known all the same.
//!
//! Metrics: `recoverd_surveys_total`, `recoverd_survey_failures_total`, `recoverd_survey_seconds`, `recoverd_survey_gaps`,
//! `recoverd_jobs_missing`, `recoverd_jobs_closed_total`, `recoverd_builds_repaired_total`,
//! `recoverd_builds_withdrawn_total`, `recoverd_branches_dropped_total`.

mod closing;
mod comparison;
mod index;
mod look;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::datadog::AgentSink;
use crate::domain::build::{Created, Timestamp};
use crate::domain::gauges;
use crate::domain::job::ControllerName;
use crate::domain::rules::Rulebook;
use crate::domain::signal::{Metric, Signal};
use crate::domain::survey::Survey;
use crate::jenkins::rest::{RemoteApi, RestError};
use crate::machinery::clock::Clock;
use crate::machinery::health::Part;
use crate::machinery::retry;
use crate::store::{Store, StoreError};
use index::Index;
pub use metrics::CatchUpMetrics;
use metrics::{Because, Of};

/// Asks one controller at a time.
#[derive(Debug)]
pub struct CatchUp {
    pub rulebook: Arc<Rulebook>,
    pub store: Store,
    pub sink: AgentSink,
    pub clock: Clock,
    pub metrics: CatchUpMetrics,
}

/// A controller that is asked, and what it has shown so far.
#[derive(Debug)]
pub struct Watch {
    name: ControllerName,
    api: RemoteApi,
    every: Duration,
    health: Part,
    index: Index,
    due: Instant,
    /// When all was last joined, changed or not.
    refreshed: Instant,
    failures: u32,
    /// Since when its looks miss too much to be believed.
    doubted: Option<Instant>,
}

/// Why a look came to no end.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error("what Jenkins shows cannot be joined: {0}")]
    Store(#[from] StoreError),
}

impl Interrupted {
    fn reason(&self) -> &'static str {
        match self {
            Self::Rest(error) => error.fault.reason(),
            Self::Store(_) => "store",
        }
    }

    /// How long until the next look, after so many failures in a row.
    fn wait(&self, every: Duration, failures: u32) -> Duration {
        let asked_for = match self {
            Self::Rest(error) => error.fault.retry_after().unwrap_or_default(),
            Self::Store(_) => Duration::ZERO,
        };
        let longest = LONGEST_BACKOFF.min(every * 5);
        retry::backoff(every, longest, failures).max(asked_for.min(LONGEST_RETRY_AFTER))
    }
}

/// A Jenkins that does not answer is asked at least this often, and every five intervals; but never more often than usual.
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);
/// Longer than this no Jenkins is left alone, whatever it asks for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// So often all items are joined, changed or not: what the store lost mends itself.
const REFRESH: Duration = Duration::from_hours(1);

impl Watch {
    /// `every` lies between two looks. `health` is its line on the board.
    pub fn new(name: ControllerName, api: RemoteApi, every: Duration, health: Part) -> Self {
        health.down("the first look at its jobs is under way");
        let now = Instant::now();
        Self { name, api, every, health, index: Index::default(), due: now, refreshed: now, failures: 0, doubted: None }
    }
}

impl CatchUp {
    /// The first looks begin at once. One that is under way when it is time to stop is broken off, which loses nothing.
    pub async fn run(self, mut watches: Vec<Watch>, stop: CancellationToken) {
        for watch in &watches {
            self.metrics.show(&watch.name);
        }
        while let Some(next) = watches.iter_mut().min_by_key(|watch| watch.due) {
            let looking = async {
                tokio::time::sleep_until(next.due).await;
                self.look(next).await;
            };
            if stop.run_until_cancelled(looking).await.is_none() {
                return;
            }
        }
        stop.cancelled().await;
    }

    /// Looks once at a controller, and sets when to look again. Returns whether the look came to its end.
    pub async fn look(&self, watch: &mut Watch) -> bool {
        let started = Instant::now();
        watch.index.begin();
        if watch.refreshed.elapsed() >= REFRESH {
            watch.index.doubt_all();
            watch.refreshed = started;
        }
        let outcome = self.survey(watch).await;
        let wait = match &outcome {
            Ok(troubles) => {
                let of = Of { controller: watch.name.to_string() };
                self.metrics.surveys.get_or_create(&of).inc();
                self.metrics.seconds.get_or_create(&of).set(started.elapsed().as_secs_f64());
                succeed(watch, troubles);
                watch.every
            }
            Err(interrupted) => {
                // What was shown and not joined is to be joined the next time.
                watch.index.doubt_all();
                self.fail(watch, interrupted);
                interrupted.wait(watch.every, watch.failures)
            }
        };
        watch.due = Instant::now() + retry::spread(wait);
        outcome.is_ok()
    }

    /// Returns what somebody should look after although the look came to its end.
    async fn survey(&self, watch: &mut Watch) -> Result<Vec<String>, Interrupted> {
        let survey = self.tour(watch).await?;
        let now = self.clock.now();
        let mut troubles = self.compare(watch, &survey).await?;
        if let Some(gap) = survey.gaps.first() {
            let gaps = survey.gaps.len();
            troubles.push(format!("{gaps} of its folders cannot be seen into, so nothing in there is closed; {gap}"));
        }
        troubles.extend(survey.clock.and_then(|theirs| skew(theirs, now)));
        troubles.extend(self.tell_load(watch, &survey).await);
        let gaps = self.metrics.gaps.get_or_create_owned(&Of { controller: watch.name.to_string() });
        gaps.set(i64::try_from(survey.gaps.len()).unwrap_or(i64::MAX));
        Ok(troubles)
    }

    /// Tells how busy the controller is. What is wrong with that leaves its jobs alone.
    async fn tell_load(&self, watch: &Watch, survey: &Survey) -> Option<String> {
        let rules = self.rulebook.of(&watch.name);
        let mut gauges: Vec<Metric> = gauges::of_projects(&watch.name, rules, survey.jobs);
        let load = watch.api.load().await;
        if let Ok(load) = &load {
            gauges.extend(gauges::of_load(&watch.name, rules, load));
        }
        // What an absent Agent misses of these is no longer so when it is back.
        self.sink.deliver(gauges.into_iter().map(Signal::Metric).collect()).await;
        let error = load.err()?;
        self.count_failure(watch, error.fault.reason());
        Some(format!("its queue and nodes cannot be read, {error}"))
    }

    fn fail(&self, watch: &mut Watch, interrupted: &Interrupted) {
        self.count_failure(watch, interrupted.reason());
        watch.failures = watch.failures.saturating_add(1);
        let why = interrupted.to_string();
        let controller = watch.name.as_str();
        if watch.failures == 1 {
            tracing::warn!(controller, error = why, "a look at Jenkins failed, webhooks count until the next one");
        } else {
            tracing::debug!(controller, error = why, failures = watch.failures, "a look at Jenkins failed again");
        }
        watch.health.down(why);
    }

    fn count_failure(&self, watch: &Watch, reason: &'static str) {
        self.metrics.failures.get_or_create(&Because { controller: watch.name.to_string(), reason }).inc();
    }
}

fn succeed(watch: &mut Watch, troubles: &[String]) {
    let controller = watch.name.as_str();
    if std::mem::take(&mut watch.failures) > 0 {
        tracing::info!(controller, "Jenkins answers again");
    }
    let why = troubles.join("; ");
    if why.is_empty() {
        watch.health.up();
    } else if watch.health.down(&*why) {
        tracing::warn!(controller, why, "Jenkins shows not all that it should");
    }
}

/// What to do about two clocks that differ.
fn skew(theirs: Timestamp, ours: Timestamp) -> Option<String> {
    let (by, which) = if theirs > ours { (theirs.since(ours), "ahead of") } else { (ours.since(theirs), "behind") };
    (by > Created::CLOCK_SKEW).then(|| {
        let minutes = by.as_secs() / 60;
        format!(
            "its clock is {minutes} min {which} this host's: set both by NTP, or builds are told late or out of order"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jenkins::rest::Fault;

    #[test]
    fn a_jenkins_that_fails_is_asked_more_and_more_rarely_and_left_alone_as_long_as_it_says() {
        let busy = |seconds: Option<u64>| Fault::Status { status: 503, retry_after: seconds.map(Duration::from_secs) };
        let table = [
            (Fault::NotFound, 60, 1, 60),
            (Fault::NotFound, 60, 3, 240),
            (Fault::NotFound, 60, 9, 300),
            (Fault::NotFound, 10, 9, 50),
            (Fault::NotFound, 3_600, 9, 3_600),
            (busy(None), 60, 1, 60),
            (busy(Some(5)), 60, 1, 60),
            (busy(Some(600)), 60, 1, 600),
            (busy(Some(u64::MAX)), 60, 1, 3_600),
        ];
        for (fault, every, failures, expected) in table {
            let error = Interrupted::Rest(RestError { at: String::new(), fault });
            let wait = error.wait(Duration::from_secs(every), failures);
            assert_eq!(wait.as_secs(), expected, "{error} {every} {failures}");
        }
    }

    #[test]
    fn clocks_that_differ_by_more_than_builds_are_forgiven_are_named() {
        let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
        assert_eq!(skew(at(100), at(110)), None);
        assert!(skew(at(100), at(111)).unwrap().starts_with("its clock is 11 min behind this host's"));
        assert!(skew(at(1_540), at(100)).unwrap().starts_with("its clock is 1440 min ahead of this host's"));
    }
}
