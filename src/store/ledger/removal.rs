//! What the end of an item in Jenkins does to the records.

use super::{Ledger, News, Pages};
use crate::domain::build::Timestamp;
use crate::domain::job::{ControllerName, JobKey};
use crate::domain::projects::Place;
use crate::domain::record::Closed;
use crate::domain::removal::Removal;

impl Ledger {
    /// Ends what Jenkins has no more at this path: a job, a branch of a project that stays, or all that is below a folder.
    /// `false` when nothing was known of it, or all of it lives again.
    pub(in crate::store) fn remove<P: Pages>(
        &mut self,
        pages: &mut P,
        controller: &ControllerName,
        gone: &Removal,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        let top = JobKey { controller: controller.clone(), job: gone.path.clone() };
        // What held branches there holds them elsewhere too.
        for (parent, source, children) in self.projects.below(&top) {
            if let Some(job) = gone.moved(&parent.job) {
                let parent = JobKey { controller: controller.clone(), job };
                self.learn(pages, &parent, source, children, now, news)?;
            }
        }
        let Place { key, branch } = self.projects.place(&self.rulebook, controller, &gone.path);
        let mut found = !branch.is_empty() && self.drop_branch(pages, &key, &branch, gone, now, news)?;
        for key in pages.below(&top)?.into_iter().chain([top]) {
            let Some(record) = pages.load(&key)? else { continue };
            if !record.branches().any(|(_, history)| gone.is_outlived_by(history, now)) {
                found |= self.close(pages, &key, record, gone.closes(&key.job), now, news)?;
            }
        }
        Ok(found)
    }

    fn drop_branch<P: Pages>(
        &mut self,
        pages: &mut P,
        project: &JobKey,
        leaf: &str,
        gone: &Removal,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        let Some(mut record) = pages.load(project)? else { return Ok(false) };
        let is_over = record.closed().is_some_and(|closed| *closed != Closed::Filtered);
        let outlived = record.branch(leaf).is_some_and(|history| gone.is_outlived_by(history, now));
        if is_over || outlived || !record.drop_branch(leaf) {
            return Ok(false);
        }
        self.settle(pages, project, record, now, news)?;
        Ok(true)
    }
}
