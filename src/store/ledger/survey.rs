//! What a look at a controller does to the records.

use std::collections::BTreeMap;

use super::{Ledger, News, Pages};
use crate::domain::amendment::{Amendment, What};
use crate::domain::build::{BuildReport, Timestamp, Webhook};
use crate::domain::history::Novelty;
use crate::domain::job::{ControllerName, JobKey};
use crate::domain::projects::{Place, Source};
use crate::domain::record::{JobRecord, Taken};
use crate::domain::survey::Kind;
use crate::store::{Decisive, JobNews, Look, Sighting};

/// A record while the sightings of its job come in.
struct Sighted {
    before: Option<JobRecord>,
    record: JobRecord,
    was_opened: bool,
    /// Builds that have ended just now, with their branches.
    fresh: Vec<(String, BuildReport, Taken)>,
}

impl Ledger {
    /// Joins what Jenkins shows, each record once, however many of its branches are among it. Returns how many builds of
    /// known jobs were news.
    pub(in crate::store) fn sight<P: Pages>(
        &mut self,
        pages: &mut P,
        look: &Look,
        sightings: Vec<Sighting>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<u64, P::Error> {
        for Sighting { item, .. } in &sightings {
            if let Some(children) = item.kind.children() {
                let parent = JobKey { controller: look.controller.clone(), job: item.path.clone() };
                self.learn(pages, &parent, Source::Told, children, now, news)?;
            }
        }
        let mut sighted = BTreeMap::new();
        let mut repaired = 0;
        for sighting in sightings {
            repaired += self.join(pages, look, sighting, now, &mut sighted)?;
        }
        for (key, sighted) in sighted {
            self.conclude(pages, &key, sighted, now, news)?;
        }
        Ok(repaired)
    }

    fn join<P: Pages>(
        &self,
        pages: &P,
        look: &Look,
        Sighting { item, builds, decisive }: Sighting,
        now: Timestamp,
        sighted: &mut BTreeMap<JobKey, Sighted>,
    ) -> Result<u64, P::Error> {
        let Place { key, branch } = self.projects.place(&self.rulebook, &look.controller, &item.path);
        let is_job = item.kind == Kind::Job || (item.kind == Kind::Project && branch.is_empty());
        // A branch that was never built says nothing, and its project is there by itself.
        let is_empty_branch = builds.is_empty() && !branch.is_empty();
        if !is_job || item.disabled || is_empty_branch || !self.rulebook.covers(&key) {
            return Ok(0);
        }
        if !sighted.contains_key(&key) {
            let before = pages.load(&key)?;
            let record = before.clone().unwrap_or_default();
            sighted.insert(key.clone(), Sighted { before, record, was_opened: false, fresh: Vec::new() });
        }
        let Some(Sighted { before, record, was_opened, fresh }) = sighted.get_mut(&key) else { return Ok(0) };
        if record.closed_at().is_some_and(|at| at >= look.asked) {
            // What closed it is younger than what was seen.
            return Ok(0);
        }
        *was_opened |= record.list(&branch);
        let mut repaired = 0;
        for report in builds {
            let webhook = self.webhook_of(&look.controller, &report);
            let taken = record.see(&branch, &report, webhook, self.rulebook.policy(&key), now);
            if taken.novelty == Novelty::Finished {
                repaired += u64::from(before.is_some());
                if look.is_fresh(&report) {
                    fresh.push((branch.clone(), report, taken));
                }
            }
        }
        if let Some(Decisive { last, number }) = decisive {
            record.void(&branch, last, number, self.rulebook.policy(&key));
        }
        Ok(repaired)
    }

    /// A webhook is missed when the build ended after another one of that controller had come.
    fn webhook_of(&self, controller: &ControllerName, report: &BuildReport) -> Webhook {
        match self.listening.get(controller).zip(report.ended()) {
            Some((since, ended)) if ended > *since => Webhook::Missing,
            _ => Webhook::NotDue,
        }
    }

    /// What was so long before anybody looked is told without an event, and without the metrics of its builds.
    fn conclude<P: Pages>(
        &self,
        pages: &mut P,
        key: &JobKey,
        Sighted { before, mut record, was_opened, fresh }: Sighted,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let is_old = fresh.is_empty() && (was_opened || record.announced().is_none());
        let level = self.announce(key, &mut record, is_old, now);
        if before.as_ref() != Some(&record) {
            pages.save(key, &record)?;
        }
        let of_build =
            |build| News::Job(JobNews { key: key.clone(), level: None, change: None, build: Some(Box::new(build)) });
        news.extend(fresh.into_iter().map(of_build).chain(level));
        Ok(())
    }

    /// Mends what was found twice. Returns what still held, and was mended.
    pub(in crate::store) fn amend<P: Pages>(
        &mut self,
        pages: &mut P,
        amendments: Vec<Amendment>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Vec<Amendment>, P::Error> {
        let mut mended = Vec::new();
        for amendment in amendments {
            let key = &amendment.key;
            let Some(mut record) = pages.load(key)? else { continue };
            if !amendment.apply(&mut record, now) {
                continue;
            }
            match amendment.what {
                What::Close(_) => {
                    self.tell_closing(pages, key, &record, news)?;
                    self.hand_over(pages, key, &record, now, news)?;
                }
                What::Drop { .. } | What::Withdraw { .. } => self.settle(pages, key, record, now, news)?,
            }
            mended.push(amendment);
        }
        Ok(mended)
    }
}
