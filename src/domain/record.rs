//! All that is stored of one job: its branches' builds, and what Datadog was told. Pure.

pub mod past;
mod timings;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::{BuildReport, Timestamp, Webhook};
use super::history::{Build, History, Joined, Novelty};
use super::job::{JobKey, JobPath};
use super::rules::{Mode, Policy};
use super::status::{Change, Status};
pub use timings::Timings;

/// One job's record. The empty branch name stands for a job that has no branches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    branches: BTreeMap<String, History>,
    announced: Option<Announced>,
    closed: Option<Closing>,
    /// It was built after Jenkins no longer listed it: there it is, but whoever asks may not see it.
    unlisted: bool,
}

/// The end of a job, until it is built or seen again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Closing {
    why: Closed,
    /// By our clock.
    at: Timestamp,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

    /// As a metric's label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Forgotten => "forgotten",
            Self::Moved(_) => "moved",
            Self::Split => "split",
            Self::Deleted => "deleted",
            Self::Renamed(_) => "renamed",
            Self::Disabled => "disabled",
        }
    }

    /// How little there is left to wait for. A job that is closed for one reason is closed anew only by a more final one.
    fn finality(&self) -> u8 {
        match self {
            Self::Filtered | Self::Disabled => 0,
            Self::Forgotten => 1,
            Self::Moved(_) | Self::Split | Self::Deleted | Self::Renamed(_) => 2,
        }
    }
}

/// The status of a job, and the build that decides it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Current<'a> {
    pub status: Status,
    /// As on disk; empty for a job without branches.
    pub branch: &'a str,
    pub build: &'a Build,
}

/// What taking in one report led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub build: Build,
    pub novelty: Novelty,
    /// Nothing had been heard of the build before, not even that it began.
    pub is_sudden: bool,
    /// How long the build stood in the queue, told once.
    pub waited: Option<Duration>,
    /// The build's result leaves the job as it is.
    pub held: bool,
    /// The job's status moved, and nobody has been told yet.
    pub change: Option<Change>,
    /// Measured when a build first tells its result.
    pub timings: Timings,
}

impl JobRecord {
    /// A project's branches beyond this are forgotten, those first that have been quiet for longest.
    pub const MAX_BRANCHES: usize = 2_000;
    /// A job that has ended is remembered for so long, lest a late document bring it back.
    pub const REMEMBERED: Duration = Duration::from_hours(24);

    pub fn branches(&self) -> impl Iterator<Item = (&str, &History)> {
        self.branches.iter().map(|(leaf, history)| (leaf.as_str(), history))
    }

    pub fn announced(&self) -> Option<Announced> {
        self.announced
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref().map(|closing| &closing.why)
    }

    /// By our clock.
    pub fn closed_at(&self) -> Option<Timestamp> {
        self.closed.as_ref().map(|closing| closing.at)
    }

    /// It is built although Jenkins does not list it to whoever asks.
    pub fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    /// The build of all branches that was created last.
    pub fn newest(&self) -> Option<Build> {
        let newest = self.branches.values().filter_map(|history| history.builds().first());
        newest.max_by_key(|build| (build.created.latest, build.number)).cloned()
    }

    pub fn branch(&self, leaf: &str) -> Option<&History> {
        self.branches.get(leaf)
    }

    /// Joins one report of the branch `leaf` that a webhook brought. Idempotent, and commutative as to the status that it
    /// ends in.
    ///
    /// A closed job is opened by a build that nothing had been heard of, and that is the newest: whatever else comes is
    /// the echo of what was before.
    pub fn take(&mut self, leaf: &str, report: &BuildReport, policy: &Policy, now: Timestamp) -> Taken {
        let (mut taken, is_next) = self.join_report(leaf, report, Webhook::Came, policy, now);
        if is_next && let Some(Closing { why: Closed::Deleted, at }) = self.closed {
            self.unlisted = report.created.is_some_and(|created| created.earliest() > at);
        }
        if is_next {
            self.open_for(leaf);
        }
        taken.change = self.announce(policy, now);
        taken
    }

    /// Joins a build that Jenkins itself shows. What follows from it is to be announced when all is joined that belongs
    /// together.
    pub fn see(
        &mut self,
        leaf: &str,
        report: &BuildReport,
        webhook: Webhook,
        policy: &Policy,
        now: Timestamp,
    ) -> Taken {
        let (taken, is_next) = self.join_report(leaf, report, webhook, policy, now);
        if is_next && self.closed() == Some(&Closed::Forgotten) {
            self.open_for(leaf);
        }
        taken
    }

    /// Jenkins lists it, and builds it. Returns whether that opens it: what an operator or the rules have closed stays so.
    pub fn list(&mut self, leaf: &str) -> bool {
        self.unlisted = false;
        let opens = self.closed().is_some_and(|why| !matches!(why, Closed::Forgotten | Closed::Filtered));
        if opens {
            self.open_for(leaf);
        }
        opens
    }

    fn join_report(
        &mut self,
        leaf: &str,
        report: &BuildReport,
        webhook: Webhook,
        policy: &Policy,
        now: Timestamp,
    ) -> (Taken, bool) {
        let history = match self.branches.get_mut(leaf) {
            Some(history) => history,
            None => self.branches.entry(leaf.to_owned()).or_default(),
        };
        let Joined { build, novelty, is_sudden, is_next, waited } = history.join(report, webhook, now);
        let ended = novelty == Novelty::Finished;
        let timings = if ended { Timings::measure(history, &build, policy) } else { Timings::default() };
        if matches!(novelty, Novelty::Started | Novelty::Finished) {
            self.forget_quiet_branches();
        }
        let held = build.progress.outcome().is_some_and(|outcome| policy.verdict(outcome).status().is_none());
        (Taken { build, novelty, is_sudden, waited, held, change: None, timings }, is_next)
    }

    fn open_for(&mut self, leaf: &str) {
        if let Some(Closing { why: Closed::Deleted | Closed::Renamed(_), .. }) = self.closed.take() {
            // The other branches went with what had this name before. Those that are there yet are told of again.
            self.branches.retain(|other, _| other == leaf);
        }
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

    /// What is to be announced has been so for a while, or is so again: it is told, and is no event.
    pub fn hush(&mut self) {
        if let Some(announced) = &mut self.announced {
            announced.before = Some(announced.status);
        }
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

    /// Ends the job: one OK that says why, then silence. A job that is closed already only takes a more final reason, of
    /// which nothing more is said.
    pub fn close(&mut self, why: Closed, now: Timestamp) -> bool {
        let already = self.closed().map(Closed::finality);
        if already.is_some_and(|already| already >= why.finality()) {
            return false;
        }
        self.closed = Some(Closing { why, at: now });
        if already.is_none() {
            let before = self.announced.map(|announced| announced.status);
            // A job that never had a status has nothing to take back.
            self.announced = before.map(|_| Announced { status: Status::Ok, before, at: now, confirmed: false });
        }
        true
    }

    /// Undoes [`Self::close`] when its reason no longer holds.
    pub fn reopen(&mut self) {
        self.closed = None;
    }

    /// Nothing is left to say of it.
    pub fn is_spent(&self) -> bool {
        use Closed::{Deleted, Forgotten, Moved, Renamed, Split};
        matches!(self.closed(), Some(Forgotten | Moved(_) | Split | Deleted | Renamed(_)))
            && self.announced.is_none_or(|announced| announced.confirmed)
    }

    /// Nothing is left to say of it, and no late document of it is to be expected. What an operator has forgotten may still
    /// be there in Jenkins, and would come back if it were not remembered.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let long_ago = self.closed_at().is_some_and(|at| now.since(at) >= Self::REMEMBERED);
        self.is_spent() && long_ago && self.closed() != Some(&Closed::Forgotten)
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

    /// Forgets a branch and its builds. Returns whether there was one.
    pub fn drop_branch(&mut self, leaf: &str) -> bool {
        self.branches.remove(leaf).is_some()
    }

    /// Forgets the ended builds of a branch that are newer than `last`. Returns whether there were any.
    pub fn withdraw(&mut self, leaf: &str, last: Option<u64>) -> bool {
        let Some(history) = self.branches.get_mut(leaf).filter(|history| history.reaches_beyond(last)) else {
            return false;
        };
        history.withdraw(last);
        if history.builds().is_empty() {
            self.branches.remove(leaf);
        }
        true
    }

    /// Forgets builds of a branch that decide, though Jenkins has none that does between `last` and `decisive`.
    pub fn void(&mut self, leaf: &str, last: u64, decisive: Option<u64>, policy: &Policy) {
        if let Some(history) = self.branches.get_mut(leaf) {
            history.void(last, decisive, |build| policy.status_of(build.progress).is_some());
        }
    }

    /// The number of the build that decides a branch, whether or not that counts.
    pub fn decisive(&self, leaf: &str, policy: &Policy) -> Option<u64> {
        Some(decisive(self.branches.get(leaf)?, policy, leaf)?.build.number)
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

fn decisive<'a>(history: &'a History, policy: &Policy, branch: &'a str) -> Option<Current<'a>> {
    history.builds().iter().find_map(|build| {
        let status = policy.status_of(build.progress)?;
        Some(Current { status, branch, build })
    })
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
            created: Some(Created::exactly(Timestamp::from_millis(i64::try_from(number).unwrap() * MINUTE))),
            duration: Some(Duration::from_secs(30)),
            ..BuildReport::new(JobPath::parse("job").unwrap(), number, Progress::Completed(outcome))
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
