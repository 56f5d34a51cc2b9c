//! What each request does to the records, written once for whatever keeps them.

use std::sync::Arc;

use super::{News, Receipt};
use crate::domain::announcement::Level;
use crate::domain::build::{BuildReport, Timestamp};
use crate::domain::history::Novelty;
use crate::domain::job::{ControllerName, JobKey};
use crate::domain::projects::{Place, Projects, Source};
use crate::domain::record::{Announced, Closed, JobRecord};
use crate::domain::rules::{Children, Rulebook};
use crate::domain::status::Status;

/// One transaction on whatever keeps the records.
pub(super) trait Pages {
    type Error;

    fn load(&self, key: &JobKey) -> Result<Option<JobRecord>, Self::Error>;
    fn save(&mut self, key: &JobKey, record: &JobRecord) -> Result<(), Self::Error>;
    fn remove(&mut self, key: &JobKey) -> Result<(), Self::Error>;
    /// Every job one level below `parent`.
    fn children(&self, parent: &JobKey) -> Result<Vec<JobKey>, Self::Error>;
    fn save_project(&mut self, parent: &JobKey, source: Source, children: Children) -> Result<(), Self::Error>;
}

/// The steps, and what they need to know.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) rulebook: Arc<Rulebook>,
    pub(super) projects: Projects,
}

impl Ledger {
    pub(super) fn take<P: Pages>(
        &mut self,
        pages: &mut P,
        controller: &ControllerName,
        report: Box<BuildReport>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Receipt, P::Error> {
        if report.is_branch
            && let Some((parent, _)) = report.job.split_leaf()
        {
            let parent = JobKey { controller: controller.clone(), job: parent };
            self.learn(pages, &parent, Source::Inferred, Children::Branches, now, news)?;
        }
        let Place { key, branch } = self.projects.place(&self.rulebook, controller, &report.job);
        if !self.rulebook.covers(&key) {
            return Ok(Receipt { novelty: None, held: false });
        }
        let mut record = pages.load(&key)?.unwrap_or_default();
        let before = record.clone();
        let taken = record.take(&branch, &report, self.rulebook.policy(&key), now);
        if record != before {
            pages.save(&key, &record)?;
        }
        let receipt = Receipt { novelty: Some(taken.novelty), held: taken.held };
        let level = Level::of(&record, self.rulebook.policy(&key));
        let worth_telling = !matches!(taken.novelty, Novelty::Duplicate | Novelty::Stale);
        if worth_telling || taken.change.is_some() || taken.waited.is_some() {
            news.push(News { key, level, change: taken.change, build: Some(Box::new((branch, *report, taken))) });
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
        self.close(pages, key, record, why, now, news)?;
        Ok(true)
    }

    pub(super) fn confirm<P: Pages>(pages: &mut P, key: &JobKey, status: Status) -> Result<(), P::Error> {
        let Some(mut record) = pages.load(key)? else { return Ok(()) };
        if !record.confirm(status) {
            return Ok(());
        }
        if record.is_spent() { pages.remove(key) } else { pages.save(key, &record) }
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
        let place = self.projects.place(&self.rulebook, &key.controller, &key.job);
        if place.key != *key {
            return self.move_branch(pages, key, &place, now, news);
        }
        if record.has_branches() && !self.projects.holds_branches(&self.rulebook, key) {
            return self.split(pages, key, record, now, news);
        }
        if !self.rulebook.covers(key) {
            return self.close(pages, key, record, Closed::Filtered, now, news);
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
        let policy = self.rulebook.policy(key);
        let change = record.announce(policy, now);
        pages.save(key, &record)?;
        if change.is_some() {
            news.push(News { key: key.clone(), level: Level::of(&record, policy), change, build: None });
        }
        Ok(())
    }

    /// Remembers what `parent` holds; jobs that turn out to be its branches move into it.
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
        for child in pages.children(parent)? {
            let place = self.projects.place(&self.rulebook, &child.controller, &child.job);
            if place.key != child {
                self.move_branch(pages, &child, &place, now, news)?;
            }
        }
        Ok(())
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
    ) -> Result<(), P::Error> {
        if !record.close(why, now) {
            return Ok(());
        }
        self.tell_closing(pages, key, &record, news)
    }

    fn tell_closing<P: Pages>(
        &self,
        pages: &mut P,
        key: &JobKey,
        record: &JobRecord,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        if record.is_spent() {
            return pages.remove(key);
        }
        pages.save(key, record)?;
        let level = Level::of(record, self.rulebook.policy(key));
        let change = record.announced().and_then(Announced::change);
        news.push(News { key: key.clone(), level, change, build: None });
        Ok(())
    }
}
