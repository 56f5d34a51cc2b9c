//! What each request does to the records, written once for whatever keeps them.

mod removal;
mod sentry;
mod survey;

use std::collections::HashMap;
use std::sync::Arc;

use super::{JobNews, News, Receipt};
use crate::domain::announcement::Level;
use crate::domain::build::{BuildReport, Timestamp};
use crate::domain::history::Novelty;
use crate::domain::job::{ControllerName, JobKey};
use crate::domain::projects::{Place, Projects, Source};
use crate::domain::record::{Announced, Closed, JobRecord};
use crate::domain::rules::{Children, Rulebook};
use crate::domain::sentry::SentryKey;
use crate::domain::sentry::record::SentryRecord;
use crate::domain::status::Status;

pub(super) use sentry::SentryLedger;

/// One transaction on whatever keeps the records.
pub(super) trait Pages {
    type Error;

    fn load(&self, key: &JobKey) -> Result<Option<JobRecord>, Self::Error>;
    /// Costs the disk nothing when the record is as it was.
    fn save(&mut self, key: &JobKey, record: &JobRecord) -> Result<(), Self::Error>;
    fn remove(&mut self, key: &JobKey) -> Result<(), Self::Error>;
    /// Every job below `parent`, however deep.
    fn below(&self, parent: &JobKey) -> Result<Vec<JobKey>, Self::Error>;
    /// Every job one level below `parent`.
    fn children(&self, parent: &JobKey) -> Result<Vec<JobKey>, Self::Error> {
        let is_child = |key: &JobKey| key.job.split_leaf().is_some_and(|(of, _)| of == parent.job);
        Ok(self.below(parent)?.into_iter().filter(is_child).collect())
    }
    fn save_project(&mut self, parent: &JobKey, source: Source, children: Children) -> Result<(), Self::Error>;

    fn load_sentry(&self, key: &SentryKey) -> Result<Option<SentryRecord>, Self::Error>;
    /// As of [`Self::save`].
    fn save_sentry(&mut self, key: &SentryKey, record: &SentryRecord) -> Result<(), Self::Error>;
    fn remove_sentry(&mut self, key: &SentryKey) -> Result<(), Self::Error>;
}

/// The steps, and what they need to know.
#[derive(Debug)]
pub(super) struct Ledger {
    rulebook: Arc<Rulebook>,
    pub(super) projects: Projects,
    /// When the first webhook of each controller came since the start. One that sends none misses none.
    listening: HashMap<ControllerName, Timestamp>,
    pub(super) sentry: SentryLedger,
}

impl Ledger {
    pub(super) fn new(rulebook: Arc<Rulebook>, projects: Projects, sentry: SentryLedger) -> Self {
        Self { rulebook, projects, listening: HashMap::new(), sentry }
    }

    pub(super) fn covers(&self, key: &SentryKey) -> bool {
        self.rulebook.integration(&key.integration).is_some()
    }

    pub(super) fn take<P: Pages>(
        &mut self,
        pages: &mut P,
        controller: &ControllerName,
        report: Box<BuildReport>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Receipt, P::Error> {
        if !self.listening.contains_key(controller) {
            self.listening.insert(controller.clone(), now);
        }
        if let Some((source, children)) = report.parent_holds
            && let Some((parent, _)) = report.job.split_leaf()
        {
            let parent = JobKey { controller: controller.clone(), job: parent };
            self.learn(pages, &parent, source, children, now, news)?;
        }
        let Place { key, branch } = self.projects.place(&self.rulebook, controller, &report.job);
        if !self.rulebook.covers(&key) {
            return Ok(Receipt { novelty: None, held: false });
        }
        let mut record = pages.load(&key)?.unwrap_or_default();
        let taken = record.take(&branch, &report, self.rulebook.policy(&key), now);
        pages.save(&key, &record)?;
        let receipt = Receipt { novelty: Some(taken.novelty), held: taken.held };
        let level = Level::of(&record, self.rulebook.policy(&key));
        let worth_telling = !matches!(taken.novelty, Novelty::Duplicate | Novelty::Stale);
        let change = taken.change;
        if worth_telling || taken.change.is_some() || taken.waited.is_some() {
            let build = Some(Box::new((branch, *report, taken)));
            news.push(News::Job(JobNews { key, level, change, build }));
        }
        Ok(receipt)
    }

    /// `false` when there is no such job.
    pub(super) fn end<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &JobKey,
        why: Closed,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        let Some(record) = pages.load(key)? else { return Ok(false) };
        let was_there = !record.is_spent();
        self.close(pages, key, record, why, now, news)?;
        Ok(was_there)
    }

    pub(super) fn confirm<P: Pages>(pages: &mut P, key: &JobKey, status: Status) -> Result<(), P::Error> {
        let Some(mut record) = pages.load(key)? else { return Ok(()) };
        if record.confirm(status) { pages.save(key, &record) } else { Ok(()) }
    }

    /// Brings one job in line with the present rules.
    pub(super) fn review<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &JobKey,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let Some(mut record) = pages.load(key)? else { return Ok(()) };
        if record.is_over(now) {
            return pages.remove(key);
        }
        let place = self.projects.place(&self.rulebook, &key.controller, &key.job);
        if place.key != *key {
            return self.move_branch(pages, key, &place, now, news);
        }
        if record.has_branches() && !self.projects.holds_branches(&self.rulebook, key) {
            return self.split(pages, key, record, now, news);
        }
        if !self.rulebook.covers(key) {
            self.close(pages, key, record, Closed::Filtered, now, news)?;
            return Ok(());
        }
        if record.closed() == Some(&Closed::Filtered) {
            record.reopen();
        }
        self.settle(pages, key, record, now, news)
    }

    /// Stores a record whose builds came from elsewhere, or whose rules changed, and tells its status if that moved.
    fn settle<P: Pages>(
        &self,
        pages: &mut P,
        key: &JobKey,
        mut record: JobRecord,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        if !self.rulebook.covers(key) {
            record.close(Closed::Filtered, now);
            return self.tell_closing(pages, key, &record, news);
        }
        // What was never told has been so for a while all the same.
        let is_old = record.announced().is_none();
        let level = self.announce(key, &mut record, is_old, now);
        pages.save(key, &record)?;
        news.extend(level);
        Ok(())
    }

    /// What is to be told of a record's status, if it moved. What is old is no event.
    fn announce(&self, key: &JobKey, record: &mut JobRecord, is_old: bool, now: Timestamp) -> Option<News> {
        let policy = self.rulebook.policy(key);
        record.announce(policy, now)?;
        if is_old {
            record.hush();
        }
        let change = record.announced().and_then(Announced::change);
        Some(News::Job(JobNews { key: key.clone(), level: Level::of(record, policy), change, build: None }))
    }

    /// Remembers what `parent` holds. Jobs that turn out to be its branches move into it; what passed for its branches
    /// comes apart. The project's status is not announced yet: whoever learns of a project knows more of it.
    fn learn<P: Pages>(
        &mut self,
        pages: &mut P,
        parent: &JobKey,
        source: Source,
        children: Children,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        if !self.projects.learn(parent.clone(), source, children) {
            return Ok(());
        }
        pages.save_project(parent, source, children)?;
        if self.projects.holds_branches(&self.rulebook, parent) {
            return self.gather_branches(pages, parent, now, news);
        }
        match pages.load(parent)?.filter(JobRecord::has_branches) {
            Some(record) => self.split(pages, parent, record, now, news),
            None => Ok(()),
        }
    }

    fn gather_branches<P: Pages>(
        &mut self,
        pages: &mut P,
        parent: &JobKey,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let mut project = None;
        for child in pages.children(parent)? {
            let Some(mut branch) = pages.load(&child)?.filter(|job| !matches!(job.closed(), Some(Closed::Moved(_))))
            else {
                continue;
            };
            let Some((_, leaf)) = child.job.split_leaf() else { continue };
            let into = match &mut project {
                Some(project) => project,
                none => none.insert(pages.load(parent)?.unwrap_or_default()),
            };
            branch.move_into(into, parent, leaf, now);
            self.tell_closing(pages, &child, &branch, news)?;
        }
        project.map_or(Ok(()), |project| pages.save(parent, &project))
    }

    fn move_branch<P: Pages>(
        &mut self,
        pages: &mut P,
        from: &JobKey,
        to: &Place,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let Some(mut branch) = pages.load(from)? else { return Ok(()) };
        if matches!(branch.closed(), Some(Closed::Moved(_))) {
            return Ok(());
        }
        let mut project = pages.load(&to.key)?.unwrap_or_default();
        branch.move_into(&mut project, &to.key, &to.branch, now);
        self.settle(pages, &to.key, project, now, news)?;
        self.tell_closing(pages, from, &branch, news)
    }

    /// What passed for a project is a folder: each of its branches is a job.
    fn split<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &JobKey,
        mut record: JobRecord,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        for (leaf, builds) in record.split(now) {
            let child = JobKey { controller: key.controller.clone(), job: key.job.child(&leaf) };
            let mut job = pages.load(&child)?.unwrap_or_default();
            job.join(builds);
            self.settle(pages, &child, job, now, news)?;
        }
        self.tell_closing(pages, key, &record, news)
    }

    fn close<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &JobKey,
        mut record: JobRecord,
        why: Closed,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        if !record.close(why, now) {
            return Ok(false);
        }
        self.tell_closing(pages, key, &record, news)?;
        self.hand_over(pages, key, &record, now, news)?;
        Ok(true)
    }

    /// A job that has another name now keeps its builds: the last that decided may be further back than Jenkins tells.
    fn hand_over<P: Pages>(
        &mut self,
        pages: &mut P,
        from: &JobKey,
        record: &JobRecord,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let Some(Closed::Renamed(to)) = record.closed() else { return Ok(()) };
        let Place { key: to, branch } = self.projects.place(&self.rulebook, &from.controller, to);
        let mut heir = pages.load(&to)?.unwrap_or_default();
        if !branch.is_empty() || heir.closed().is_some() {
            return Ok(());
        }
        heir.join(record.clone());
        self.settle(pages, &to, heir, now, news)
    }

    fn tell_closing<P: Pages>(
        &self,
        pages: &mut P,
        key: &JobKey,
        record: &JobRecord,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        pages.save(key, record)?;
        if record.is_spent() {
            return Ok(());
        }
        let level = Level::of(record, self.rulebook.policy(key));
        let change = record.announced().and_then(Announced::change);
        news.push(News::Job(JobNews { key: key.clone(), level, change, build: None }));
        Ok(())
    }
}
