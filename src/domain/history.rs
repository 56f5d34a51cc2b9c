//! The builds of one job path, newest first, and how one more report joins them. Pure.
//!
//! Joining is idempotent, and its end does not depend on the order in which reports arrive: what is known of one build
//! only grows more certain, and what is forgotten is always the oldest.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::{BuildReport, Created, Outcome, Progress, Timestamp, Webhook};

/// What is remembered of one build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Build {
    pub number: u64,
    pub created: Created,
    /// When it entered the queue.
    pub queued: Option<Timestamp>,
    pub duration: Option<Duration>,
    pub progress: Progress,
    pub webhook: Webhook,
    /// Where it ran, if a sender told. One may tell it at the start of a build alone.
    pub node: Option<Arc<str>>,
}

/// What one report was, seen against those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// A build that had not been heard of, and runs.
    Started,
    /// The first result of this build.
    Finished,
    /// Another result than was known, for a build that had one.
    Corrected,
    /// Nothing that changes what is known of the outcome.
    Duplicate,
    /// Older than all that is remembered.
    Stale,
}

/// A build after one more report of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub build: Build,
    pub novelty: Novelty,
    /// Nothing had been heard of this build.
    pub is_sudden: bool,
    /// Nor is any newer.
    pub is_next: bool,
    /// How long it stood in the queue, told once: when it first became known.
    pub waited: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    builds: Vec<Build>,
}

impl History {
    /// So many of the newest builds are remembered.
    const NEWEST: usize = 10;
    /// Beyond those, so many of the newest of each outcome: whichever outcomes decide, the last decisive build and its
    /// predecessor are there after a long run of builds that do not.
    const OF_EACH_OUTCOME: usize = 2;

    /// Newest first, as [`Self::builds`] gives them.
    pub(super) fn of_sorted(builds: Vec<Build>) -> Self {
        Self { builds }
    }

    pub fn builds(&self) -> &[Build] {
        &self.builds
    }

    /// The newest build that has ended.
    pub fn last_ended(&self) -> Option<&Build> {
        self.builds.iter().find(|build| build.progress.outcome().is_some())
    }

    /// Whether the newest ended build is another one than `last`, the number of the newest that Jenkins shows.
    pub fn reaches_beyond(&self, last: Option<u64>) -> bool {
        self.last_ended().is_some_and(|newest| Some(newest.number) != last)
    }

    /// Forgets the ended builds that are newer than `last`, the number of the newest that Jenkins shows: there are none
    /// such, or no longer.
    pub fn withdraw(&mut self, last: Option<u64>) {
        let mut reached = false;
        self.builds.retain(|build| {
            reached |= Some(build.number) == last;
            reached || build.progress.outcome().is_none()
        });
    }

    /// Joins what `report` says; `arrived` stands in for the time of creation where it tells none, or one to come.
    pub fn join(&mut self, report: &BuildReport, webhook: Webhook, arrived: Timestamp) -> Joined {
        let now = arrived.plus(Created::CLOCK_SKEW);
        let credible = report.created.filter(|created| created.earliest() <= now);
        let told = Build {
            number: report.number,
            created: credible.unwrap_or(Created::at_most(Created::LONGEST_BUILD, arrived)),
            queued: report.queued,
            duration: report.duration,
            progress: report.progress,
            webhook,
            node: report.node.as_deref().map(Arc::from),
        };
        let known = self.builds.iter().position(|known| known.is_same_as(&told)).map(|at| self.builds.swap_remove(at));
        let build = known.as_ref().map_or_else(|| told.clone(), |known| known.joined_with(&told));
        self.builds.push(build.clone());
        self.sort();
        self.forget_the_oldest();
        let novelty = match &known {
            _ if !self.builds.contains(&build) => Novelty::Stale,
            Some(known) => novelty(known.progress, build.progress),
            None if told.progress == Progress::Running => Novelty::Started,
            None => Novelty::Finished,
        };
        let waited = if known.as_ref().and_then(Build::waited).is_none() { build.waited() } else { None };
        let is_sudden = known.is_none();
        let is_next = is_sudden && self.builds.first() == Some(&build);
        Joined { build, novelty, is_sudden, is_next, waited }
    }

    /// Takes in another history of the same job path.
    pub fn join_all(&mut self, other: &History) {
        for told in &other.builds {
            match self.builds.iter_mut().find(|known| known.is_same_as(told)) {
                Some(known) => *known = known.joined_with(told),
                None => self.builds.push(told.clone()),
            }
        }
        self.sort();
        self.forget_the_oldest();
    }

    /// Forgets what `decides` between the build `last` and the one before it that does in Jenkins, `decisive`: they are
    /// of an earlier life of the job, or were deleted.
    pub fn void(&mut self, last: u64, decisive: Option<u64>, decides: impl Fn(&Build) -> bool) {
        let (mut reached, mut passed) = (false, false);
        self.builds.retain(|build| {
            passed |= reached && Some(build.number) == decisive;
            let stays = !reached || passed || !decides(build);
            reached |= build.number == last;
            stays
        });
    }

    /// Newest first, by creation and then by number.
    ///
    /// Numbers only grow as long as a job lives. So a build whose creation is vague was created no later than any
    /// higher-numbered build that falls within its slack. A higher number that is older than the slack allows belongs
    /// to an earlier life of a job that was recreated, and says nothing.
    fn sort(&mut self) {
        self.builds.sort_unstable_by_key(|build| (std::cmp::Reverse(build.number), build.created.latest));
        let mut settled: Vec<(Timestamp, Build)> = Vec::with_capacity(self.builds.len());
        for build in self.builds.drain(..) {
            let created = settled
                .iter()
                .filter(|(at, higher)| higher.number > build.number && *at >= build.created.earliest())
                .map(|(at, _)| *at)
                .fold(build.created.latest, Timestamp::min);
            settled.push((created, build));
        }
        settled.sort_by_key(|(at, build)| std::cmp::Reverse((*at, build.number)));
        self.builds.extend(settled.into_iter().map(|(_, build)| build));
    }

    /// Keeps the newest builds, the newest of each outcome, and the one that the present trouble began with.
    fn forget_the_oldest(&mut self) {
        if self.builds.len() <= Self::NEWEST {
            return;
        }
        let good = Progress::is_good;
        let trouble_began = self.builds.iter().position(|build| good(build.progress)).unwrap_or(self.builds.len());
        let mut of_each = [0_usize; Outcome::ALL.len() + 1];
        let mut seen = 0;
        self.builds.retain(|build| {
            seen += 1;
            let kind = build.progress.outcome().map_or(0, |outcome| outcome as usize + 1);
            let Some(count) = of_each.get_mut(kind) else { return false };
            *count += 1;
            seen <= Self::NEWEST || seen == trouble_began || (kind > 0 && *count <= Self::OF_EACH_OUTCOME)
        });
    }
}

fn novelty(before: Progress, after: Progress) -> Novelty {
    match (before.outcome(), after.outcome()) {
        (None, Some(_)) => Novelty::Finished,
        (Some(was), Some(is)) if was != is => Novelty::Corrected,
        _ => Novelty::Duplicate,
    }
}

impl Build {
    fn is_same_as(&self, other: &Self) -> bool {
        self.number == other.number && self.created.agrees_with(other.created)
    }

    fn joined_with(&self, other: &Self) -> Self {
        Self {
            number: self.number,
            created: self.created.narrowed_by(other.created),
            queued: self.queued.max(other.queued),
            duration: self.duration.max(other.duration),
            progress: self.progress.max(other.progress),
            webhook: self.webhook.max(other.webhook),
            node: self.node.as_ref().max(other.node.as_ref()).cloned(),
        }
    }

    /// How long it stood in the queue.
    fn waited(&self) -> Option<Duration> {
        self.queued.filter(|_| self.created.is_exact()).map(|queued| self.created.latest.since(queued))
    }

    /// When it ended, as far as its duration is known.
    pub fn ended(&self) -> Option<Timestamp> {
        self.duration.map(|duration| self.created.latest.plus(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::JobPath;

    const HOUR: i64 = 3_600_000;
    /// When everything arrives that tells its own time.
    const LATER: i64 = 10_000 * HOUR;

    fn report(number: u64, created: Option<Created>, progress: Progress) -> BuildReport {
        BuildReport { created, ..BuildReport::new(JobPath::parse("job").unwrap(), number, progress) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a report may have none")]
    fn exact(at: i64) -> Option<Created> {
        Some(Created::exactly(Timestamp::from_millis(at)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "a report may have none")]
    fn vague(slack: Duration, latest: i64) -> Option<Created> {
        Some(Created::at_most(slack, Timestamp::from_millis(latest)))
    }

    /// Joins in this order, and tells what each report was and which builds are then known, newest first.
    fn join(history: &mut History, reports: &[BuildReport], arrived: i64) -> Vec<Novelty> {
        let join = |report| history.join(report, Webhook::Came, Timestamp::from_millis(arrived)).novelty;
        reports.iter().map(join).collect()
    }

    fn numbers(history: &History) -> Vec<u64> {
        history.builds().iter().map(|build| build.number).collect()
    }

    const GOOD: Progress = Progress::Completed(Outcome::Success);
    const BAD: Progress = Progress::Completed(Outcome::Failure);
    const ABORTED: Progress = Progress::Completed(Outcome::Aborted);

    #[test]
    fn a_build_starts_finishes_is_corrected_and_then_only_repeats() {
        let mut history = History::default();
        let steps = [
            (Progress::Running, Novelty::Started),
            (Progress::Running, Novelty::Duplicate),
            (GOOD, Novelty::Finished),
            (GOOD, Novelty::Duplicate),
            (Progress::Running, Novelty::Duplicate),
            (Progress::Finalized(Outcome::Success), Novelty::Duplicate),
            (Progress::Finalized(Outcome::Failure), Novelty::Corrected),
            (GOOD, Novelty::Duplicate),
        ];
        for (progress, expected) in steps {
            let novelty = join(&mut history, &[report(1, exact(1_000), progress)], LATER);
            assert_eq!(novelty, [expected], "{progress:?}");
        }
        assert_eq!(history.builds()[0].progress, Progress::Finalized(Outcome::Failure));
        assert_eq!(history.builds().len(), 1);
    }

    #[test]
    fn a_recreated_job_is_followed_although_its_numbers_restart() {
        let mut history = History::default();
        join(&mut history, &[report(148, exact(HOUR), BAD), report(1, exact(2 * HOUR), GOOD)], LATER);
        assert_eq!(numbers(&history), [1, 148]);
        // The same number is another build when it was created at another time.
        join(&mut history, &[report(148, exact(3 * HOUR), BAD)], LATER);
        assert_eq!(numbers(&history), [148, 1, 148]);
    }

    #[test]
    fn of_builds_whose_time_is_vague_the_number_decides() {
        // Build 2 says when it was created, build 1 only that it ended later.
        let late = vague(Created::LONGEST_BUILD, 5 * HOUR);
        for order in [[0, 1], [1, 0]] {
            let reports = [report(1, late, BAD), report(2, exact(HOUR), GOOD)];
            let mut history = History::default();
            join(&mut history, &order.map(|at| reports[at].clone()), LATER);
            assert_eq!(numbers(&history), [2, 1], "{order:?}");
        }
    }

    #[test]
    fn without_any_time_the_number_decides_until_a_day_lies_between() {
        let mut history = History::default();
        assert_eq!(join(&mut history, &[report(148, None, BAD)], 0), [Novelty::Finished]);
        join(&mut history, &[report(147, None, GOOD)], HOUR);
        assert_eq!(numbers(&history), [148, 147]);
        assert_eq!(join(&mut history, &[report(148, None, BAD)], 2 * HOUR), [Novelty::Duplicate]);
        join(&mut history, &[report(1, None, GOOD)], 30 * HOUR);
        assert_eq!(numbers(&history), [1, 148, 147], "recreated: no build runs for a day");
    }

    #[test]
    fn a_build_from_the_future_does_not_stay_the_newest() {
        let mut history = History::default();
        let (now, next_year) = (100 * HOUR, 9_000 * HOUR);
        join(&mut history, &[report(1, exact(next_year), BAD)], now);
        join(&mut history, &[report(2, exact(now), GOOD)], now);
        assert_eq!(numbers(&history), [2, 1]);
    }

    #[test]
    fn a_long_run_of_aborted_builds_forgets_neither_what_decided_nor_where_the_trouble_began() {
        let mut history = History::default();
        let build = |number: u64, progress| report(number, exact(i64::try_from(number).unwrap() * HOUR), progress);
        join(&mut history, &[build(1, GOOD), build(2, BAD), build(3, BAD), build(4, BAD)], LATER);
        let aborted: Vec<BuildReport> = (5..40).map(|number| build(number, ABORTED)).collect();
        join(&mut history, &aborted, LATER);
        let kept = numbers(&history);
        assert_eq!(kept[..10], [39, 38, 37, 36, 35, 34, 33, 32, 31, 30]);
        assert_eq!(kept[10..], [4, 3, 2, 1], "the newest two of each result, and the first of the trouble");
    }

    #[test]
    fn what_is_older_than_all_that_is_remembered_is_stale() {
        let mut history = History::default();
        let build = |number: u64| report(number, exact(i64::try_from(number).unwrap() * HOUR), GOOD);
        let builds: Vec<BuildReport> = (100..120).map(build).collect();
        join(&mut history, &builds, LATER);
        let before = history.clone();
        assert_eq!(join(&mut history, &[build(3)], LATER), [Novelty::Stale]);
        assert_eq!(history, before);
    }

    #[test]
    fn the_time_in_the_queue_is_told_once_when_both_ends_are_known() {
        let queued = BuildReport {
            queued: Some(Timestamp::from_millis(1_000)),
            ..report(1, vague(Created::LONGEST_BUILD, 1_000 + 24 * HOUR), Progress::Running)
        };
        let started = report(1, exact(8_000), Progress::Running);
        for order in [[&queued, &started], [&started, &queued]] {
            let mut history = History::default();
            let mut waited = |report| history.join(report, Webhook::Came, Timestamp::from_millis(LATER)).waited;
            assert_eq!(waited(order[0]), None);
            assert_eq!(waited(order[1]), Some(Duration::from_secs(7)));
            assert_eq!(waited(order[1]), None);
        }
    }

    #[test]
    fn builds_that_jenkins_shows_no_more_are_withdrawn_down_to_its_last() {
        let build = |number: u64, progress| report(number, exact(i64::try_from(number).unwrap() * HOUR), progress);
        let known = [build(1, GOOD), build(2, BAD), build(3, BAD), build(4, Progress::Running)];
        let table = [
            (Some(3), false, vec![4, 3, 2, 1]),
            (Some(1), true, vec![4, 1]),
            (Some(9), true, vec![4]),
            (None, true, vec![4]),
        ];
        for (last, beyond, left) in table {
            let mut history = History::default();
            join(&mut history, &known, LATER);
            assert_eq!(history.reaches_beyond(last), beyond, "{last:?}");
            history.withdraw(last);
            assert_eq!(numbers(&history), left, "{last:?}");
        }
    }

    #[test]
    fn between_an_aborted_build_and_the_one_that_decides_in_jenkins_nothing_decides() {
        let build = |number: u64, hour: i64, progress| report(number, exact(hour * HOUR), progress);
        let aborted = Progress::Settled(Outcome::Aborted);
        let earlier_life = [build(1, 1, BAD), build(2, 2, GOOD), build(3, 3, BAD)];
        let decides = |build: &Build| build.progress.outcome() != Some(Outcome::Aborted);
        let table = [
            (vec![build(1, 9, aborted)], None, vec![1]),
            (vec![build(2, 9, aborted), build(1, 8, GOOD)], Some(1), vec![2, 1, 3, 2, 1]),
            (vec![build(4, 9, aborted)], Some(2), vec![4, 2, 1]),
            (vec![build(4, 9, aborted), build(5, 10, GOOD)], Some(3), vec![5, 4, 3, 2, 1]),
        ];
        for (present, decisive, left) in table {
            let mut history = History::default();
            join(&mut history, &earlier_life, LATER);
            join(&mut history, &present, LATER);
            history.void(present[0].number, decisive, decides);
            assert_eq!(numbers(&history), left, "{decisive:?}");
        }
    }

    #[test]
    fn what_jenkins_itself_shows_outranks_whatever_was_sent() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let reports = [Progress::Finalized(Outcome::Failure), Progress::Settled(Outcome::Success), BAD];
            let mut history = History::default();
            join(&mut history, &order.map(|at: usize| report(1, exact(HOUR), reports[at])), LATER);
            assert_eq!(history.builds()[0].progress, Progress::Settled(Outcome::Success), "{order:?}");
        }
    }

    #[test]
    fn the_node_that_one_report_tells_is_the_builds() {
        let started = BuildReport { node: Some("linux-7".to_owned()), ..report(1, exact(HOUR), Progress::Running) };
        let ended = report(1, exact(HOUR), BAD);
        for order in [[&started, &ended], [&ended, &started]] {
            let mut history = History::default();
            for report in order {
                history.join(report, Webhook::Came, Timestamp::from_millis(LATER));
            }
            assert_eq!(history.builds()[0].node.as_deref(), Some("linux-7"));
            assert_eq!(history.builds()[0].progress, BAD);
        }
    }
}
