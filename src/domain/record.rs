//! All that is stored of one job: its branches' builds, and what Datadog was told. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::{BuildReport, Timestamp};
use super::history::{Build, History, Joined, Novelty};
use super::job::{JobKey, JobPath};
use super::rules::{Mode, Policy};
use super::status::{Change, Status};

/// One job's record. The empty branch name stands for a job that has no branches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    branches: BTreeMap<String, History>,
    announced: Option<Announced>,
    closed: Option<Closed>,
}

/// The last status that was handed on to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub status: Status,
    /// What it had been before, to say "recovered" also when the saying is repeated after a crash.
    pub before: Option<Status>,
    pub at: Timestamp,
    /// The sink has taken it. Until then it is told anew at every round.
    pub confirmed: bool,
}

impl Announced {
    pub fn change(self) -> Option<Change> {
        Change::between(self.before, self.status)
    }
}

/// Why a job is no longer spoken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// The configuration leaves it out.
    Filtered,
    /// An operator said so.
    Forgotten,
    /// It is a branch, and its project speaks for it.
    Moved(JobPath),
    /// It is a folder, and what were its branches speak for themselves.
    Split,
    /// Jenkins has it no more.
    Deleted,
    /// Jenkins has it under another path now.
    Renamed(JobPath),
    /// Jenkins builds it no more, until somebody enables it.
    Disabled,
}

impl Closed {
    /// A clause for people, to follow "no longer watched".
    pub fn reason(&self) -> String {
        match self {
            Self::Filtered => "left out by the configuration".to_owned(),
            Self::Forgotten => "forgotten by an operator".to_owned(),
            Self::Moved(to) => format!("a branch, reported as {to}"),
            Self::Split => "a folder, whose jobs are reported one by one".to_owned(),
            Self::Deleted => "deleted in Jenkins".to_owned(),
            Self::Renamed(to) => format!("renamed in Jenkins, now {to}"),
            Self::Disabled => "disabled in Jenkins".to_owned(),
        }
    }
}

/// The status of a job, and the build that decides it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Current<'a> {
    pub status: Status,
    /// As on disk; empty for a job without branches.
    pub branch: &'a str,
    pub build: Build,
}

/// What taking in one report led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub build: Build,
    pub novelty: Novelty,
    /// How long the build stood in the queue, told once.
    pub waited: Option<Duration>,
    /// The build's result leaves the job as it is.
    pub held: bool,
    /// The job's status moved, and nobody has been told yet.
    pub change: Option<Change>,
    /// Measured when a build first tells its result.
    pub timings: Timings,
}

/// What a build's end tells of its branch's past. Each is measured between creations, as Datadog's plugin does
/// (`DatadogBuildListener`), but over decisive builds only: an aborted build neither breaks nor repairs anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// A good build's, since the first bad one before it.
    pub recovered_after: Option<Duration>,
    /// A bad build's, since the last good one.
    pub failed_after: Option<Duration>,
    /// A good build's duration, with the trouble before it.
    pub lead: Option<Duration>,
    /// Between the ends of a good build and the good one before.
    pub cycle: Option<Duration>,
    /// A bad build's duration.
    pub feedback: Option<Duration>,
}

impl JobRecord {
    /// A project's branches beyond this are forgotten, those first that have been quiet for longest.
    pub const MAX_BRANCHES: usize = 2_000;

    pub fn branches(&self) -> impl Iterator<Item = (&str, &History)> {
        self.branches.iter().map(|(leaf, history)| (leaf.as_str(), history))
    }

    pub fn announced(&self) -> Option<Announced> {
        self.announced
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Joins one report of the branch `leaf`. Idempotent, and commutative as to the status that it ends in.
    pub fn take(&mut self, leaf: &str, report: &BuildReport, policy: &Policy, now: Timestamp) -> Taken {
        let history = match self.branches.get_mut(leaf) {
            Some(history) => history,
            None => self.branches.entry(leaf.to_owned()).or_default(),
        };
        let Joined { build, novelty, waited } = history.join(report, now);
        let timings = if novelty == Novelty::Finished { timings(history, &build, policy) } else { Timings::default() };
        if matches!(novelty, Novelty::Started | Novelty::Finished | Novelty::Corrected) {
            self.closed = None;
            self.forget_quiet_branches();
        }
        let held = build.progress.outcome().is_some_and(|outcome| policy.verdict(outcome).status().is_none());
        Taken { build, novelty, waited, held, change: self.announce(policy, now), timings }
    }

    /// Compares the status with what was announced and, where they differ, makes it the one to announce.
    pub fn announce(&mut self, policy: &Policy, now: Timestamp) -> Option<Change> {
        let before = self.announced.map(|announced| announced.status);
        let status = match self.current(policy).filter(|_| self.closed.is_none()) {
            Some(current) => current.status,
            // Closed, or corrected or ruled away: what was said no longer follows from anything, and is taken back.
            None => before.map(|_| Status::Ok)?,
        };
        let change = Change::between(before, status)?;
        self.announced = Some(Announced { status, before, at: now, confirmed: false });
        Some(change)
    }

    /// The sink has taken the announcement of `status`. `false` when another one is due by now.
    pub fn confirm(&mut self, status: Status) -> bool {
        match &mut self.announced {
            Some(announced) if announced.status == status && !announced.confirmed => {
                announced.confirmed = true;
                true
            }
            _ => false,
        }
    }

    /// Ends the job: one OK that says why, then silence. Does nothing when it is closed already, unless it was only left
    /// out by the rules: then the new reason stands, and nothing more is said.
    pub fn close(&mut self, why: Closed, now: Timestamp) -> bool {
        match self.closed.replace(why) {
            None => {}
            Some(Closed::Filtered) if self.closed != Some(Closed::Filtered) => return true,
            already => {
                self.closed = already;
                return false;
            }
        }
        let before = self.announced.map(|announced| announced.status);
        // A job that never had a status has nothing to take back.
        self.announced = before.map(|_| Announced { status: Status::Ok, before, at: now, confirmed: false });
        true
    }

    /// Undoes [`Self::close`] when its reason no longer holds.
    pub fn reopen(&mut self) {
        self.closed = None;
    }

    /// Nothing is left to say of it, and nothing is worth keeping.
    pub fn is_spent(&self) -> bool {
        use Closed::{Deleted, Forgotten, Moved, Renamed, Split};
        matches!(self.closed, Some(Forgotten | Moved(_) | Split | Deleted | Renamed(_)))
            && self.announced.is_none_or(|announced| announced.confirmed)
    }

    /// Hands the builds of a job that has turned out to be the branch `leaf` over to its project.
    pub fn move_into(&mut self, project: &mut JobRecord, to: &JobKey, leaf: &str, now: Timestamp) {
        let builds = std::mem::take(&mut self.branches).into_values().map(|history| (leaf.to_owned(), history));
        project.join(JobRecord { branches: builds.collect(), ..JobRecord::default() });
        self.close(Closed::Moved(to.job.clone()), now);
    }

    /// Some of its builds are a branch's.
    pub fn has_branches(&self) -> bool {
        self.branches.keys().any(|leaf| !leaf.is_empty())
    }

    /// Gives up what were thought to be branches: each becomes a job of its own, by its leaf.
    pub fn split(&mut self, now: Timestamp) -> Vec<(String, JobRecord)> {
        let jobs = std::mem::take(&mut self.branches);
        self.close(Closed::Split, now);
        let alone = |(leaf, history)| {
            let record = JobRecord { branches: BTreeMap::from([(String::new(), history)]), ..JobRecord::default() };
            (leaf, record)
        };
        jobs.into_iter().map(alone).collect()
    }

    /// Takes in the builds that another record holds of the same job.
    pub fn join(&mut self, other: JobRecord) {
        for (leaf, history) in other.branches {
            self.branches.entry(leaf).or_default().join_all(&history);
            self.closed = None;
        }
        self.forget_quiet_branches();
    }

    /// `None` as long as no counted branch had a decisive build.
    pub fn current(&self, policy: &Policy) -> Option<Current<'_>> {
        let decided = self
            .branches
            .iter()
            .filter(|(leaf, _)| leaf.is_empty() || policy.counts(leaf))
            .filter_map(|(leaf, history)| decisive(history, policy, leaf));
        match policy.mode {
            Mode::Latest => decided.max_by_key(|current| (current.build.created.latest, current.branch)),
            Mode::Worst => decided.max_by_key(|current| (current.status, current.build.created.latest, current.branch)),
        }
    }

    fn forget_quiet_branches(&mut self) {
        while self.branches.len() > Self::MAX_BRANCHES {
            let last_heard = |history: &History| history.builds().first().map(|build| build.created.latest);
            let quietest = self.branches.iter().min_by_key(|(leaf, history)| (last_heard(history), (*leaf).clone()));
            let Some(quietest) = quietest.map(|(leaf, _)| leaf.clone()) else { return };
            self.branches.remove(&quietest);
        }
    }
}

fn decisive<'a>(history: &History, policy: &Policy, branch: &'a str) -> Option<Current<'a>> {
    history.builds().iter().find_map(|build| {
        let status = policy.verdict(build.progress.outcome()?).status()?;
        Some(Current { status, branch, build: *build })
    })
}

fn timings(history: &History, build: &Build, policy: &Policy) -> Timings {
    let verdict = |build: &Build| policy.verdict(build.progress.outcome()?).status();
    let Some(status) = verdict(build) else { return Timings::default() };
    let is_good = |status: Status| status == Status::Ok;
    let mut before = history
        .builds()
        .iter()
        .skip_while(|other| *other != build)
        .skip(1)
        .filter_map(|other| Some((other, is_good(verdict(other)?))))
        .peekable();
    let since = |other: &Build| Some(build.created.latest.since(other.created.latest)).filter(|time| !time.is_zero());
    if !is_good(status) {
        let last_good = before.find(|(_, good)| *good).map(|(other, _)| other);
        return Timings { failed_after: last_good.and_then(since), feedback: build.duration, ..Timings::default() };
    }
    let mut trouble_began = None;
    while let Some((other, _)) = before.next_if(|(_, good)| !good) {
        trouble_began = Some(other);
    }
    let recovered_after = trouble_began.and_then(since);
    let last_good = before.next().and_then(|(other, _)| other.ended());
    Timings {
        recovered_after,
        lead: build.duration.map(|duration| duration.saturating_add(recovered_after.unwrap_or_default())),
        cycle: build.ended().zip(last_good).map(|(end, before)| end.since(before)).filter(|time| !time.is_zero()),
        ..Timings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::build::{Created, Outcome, Progress};
    use crate::domain::rules::Globs;

    const MINUTE: i64 = 60_000;
    const NOW: Timestamp = Timestamp::from_millis(10_000 * MINUTE);

    fn report(number: u64, outcome: Outcome) -> BuildReport {
        BuildReport {
            job: JobPath::parse("job").unwrap(),
            is_branch: false,
            number,
            progress: Progress::Completed(outcome),
            created: Some(Created::exactly(Timestamp::from_millis(i64::try_from(number).unwrap() * MINUTE))),
            queued: None,
            duration: Some(Duration::from_secs(30)),
            scm_branch: None,
            commit: None,
            node: None,
            link: None,
        }
    }

    fn take(record: &mut JobRecord, branch: &str, number: u64, outcome: Outcome) -> Taken {
        record.take(branch, &report(number, outcome), Policy::usual(), NOW)
    }

    #[test]
    fn a_red_streak_breaks_once_and_recovers_once() {
        use Outcome::{Aborted, Failure, Success, Unstable};
        use Status::{Critical, Ok, Warning};
        let mut record = JobRecord::default();
        let table = [
            (1, Success, Some(Change::First(Ok))),
            (2, Failure, Some(Change::Failed { from: Ok, to: Critical })),
            (3, Failure, None),
            // An aborted build in between neither ends the trouble nor hides its end.
            (4, Aborted, None),
            (3, Failure, None),
            (5, Unstable, Some(Change::Eased { from: Critical, to: Warning })),
            (6, Success, Some(Change::Recovered { from: Warning })),
            (2, Failure, None),
        ];
        for (number, outcome, expected) in table {
            assert_eq!(take(&mut record, "", number, outcome).change, expected, "#{number} {outcome:?}");
        }
    }

    #[test]
    fn the_latest_counted_branch_decides_or_the_worst() {
        let mut record = JobRecord::default();
        take(&mut record, "main", 1, Outcome::Failure);
        take(&mut record, "release%2F1", 2, Outcome::Unstable);
        take(&mut record, "PR-7", 3, Outcome::Success);
        let only = |patterns: &[&str]| Globs::parse(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).ok();
        let table = [
            (Mode::Latest, None, Some(Status::Ok)),
            (Mode::Worst, None, Some(Status::Critical)),
            (Mode::Latest, only(&["main", "release/*"]), Some(Status::Warning)),
            (Mode::Worst, only(&["release/*", "PR-*"]), Some(Status::Warning)),
            (Mode::Latest, only(&["none"]), None),
        ];
        for (mode, branches, expected) in table {
            let policy = Policy { mode, branches: branches.clone(), ..Policy::default() };
            assert_eq!(record.current(&policy).map(|current| current.status), expected, "{mode:?} {branches:?}");
        }
    }

    #[test]
    fn a_correction_to_a_result_that_holds_gives_back_the_status_before() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Success);
        take(&mut record, "", 2, Outcome::Failure);
        let corrected = BuildReport { progress: Progress::Finalized(Outcome::Aborted), ..report(2, Outcome::Aborted) };
        let taken = record.take("", &corrected, Policy::usual(), NOW);
        assert_eq!(taken.change, Some(Change::Recovered { from: Status::Critical }));
    }

    #[test]
    fn only_what_was_announced_last_can_be_confirmed() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Failure);
        take(&mut record, "", 2, Outcome::Success);
        assert!(!record.confirm(Status::Critical), "that is no longer true");
        assert!(record.confirm(Status::Ok));
        assert!(!record.confirm(Status::Ok), "once is enough");
    }

    #[test]
    fn a_closed_job_says_ok_once_and_reopens_with_its_next_build() {
        let now = NOW;
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Failure);
        assert!(record.close(Closed::Forgotten, now));
        assert!(!record.close(Closed::Filtered, now));
        assert_eq!(record.announced().unwrap().status, Status::Ok);
        assert!(!record.is_spent(), "the one OK is still to be told");
        record.confirm(Status::Ok);
        assert!(record.is_spent());
        let taken = take(&mut record, "", 2, Outcome::Failure);
        assert_eq!(taken.change, Some(Change::Failed { from: Status::Ok, to: Status::Critical }));
        assert_eq!(record.closed(), None);
    }

    #[test]
    fn a_status_that_no_build_bears_out_any_more_is_taken_back() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Failure);
        record.confirm(Status::Critical);
        let corrected = BuildReport { progress: Progress::Finalized(Outcome::Aborted), ..report(1, Outcome::Aborted) };
        let taken = record.take("", &corrected, Policy::usual(), NOW);
        assert_eq!(taken.change, Some(Change::Recovered { from: Status::Critical }));
        assert_eq!(record.current(Policy::usual()), None);
        assert_eq!(record.announce(Policy::usual(), NOW), None, "once");
    }

    #[test]
    fn a_job_that_was_left_out_and_then_moved_is_spent() {
        let now = NOW;
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Failure);
        record.close(Closed::Filtered, now);
        record.confirm(Status::Ok);
        assert!(!record.is_spent(), "it may be taken in again");
        assert!(record.close(Closed::Forgotten, now));
        assert!(record.is_spent());
    }

    #[test]
    fn a_job_without_a_status_is_closed_in_silence() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Aborted);
        record.close(Closed::Forgotten, NOW);
        assert_eq!(record.announced(), None);
        assert!(record.is_spent());
    }

    #[test]
    fn beyond_the_limit_the_branches_that_were_quiet_longest_are_forgotten() {
        let mut record = JobRecord::default();
        for number in 1..=JobRecord::MAX_BRANCHES as u64 + 5 {
            take(&mut record, &format!("branch-{number}"), number, Outcome::Success);
        }
        assert_eq!(record.branches().count(), JobRecord::MAX_BRANCHES);
        assert!(record.branches().all(|(leaf, _)| leaf != "branch-5"));
        assert!(record.branches().any(|(leaf, _)| leaf == "branch-6"));
    }

    #[test]
    fn times_are_measured_over_decisive_builds() {
        let mut record = JobRecord::default();
        take(&mut record, "", 1, Outcome::Success);
        let first_bad = take(&mut record, "", 2, Outcome::Failure).timings;
        assert_eq!(first_bad.failed_after, Some(Duration::from_mins(1)));
        assert_eq!(first_bad.feedback, Some(Duration::from_secs(30)));
        assert_eq!(take(&mut record, "", 3, Outcome::Aborted).timings, Timings::default());
        let good = take(&mut record, "", 4, Outcome::Success).timings;
        assert_eq!(good.recovered_after, Some(Duration::from_mins(2)));
        assert_eq!(good.lead, Some(Duration::from_secs(150)));
        assert_eq!(good.cycle, Some(Duration::from_mins(3)));
        assert_eq!(take(&mut record, "", 4, Outcome::Success).timings, Timings::default(), "told once");
    }
}
