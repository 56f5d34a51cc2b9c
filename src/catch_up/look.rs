//! One look: all items that Jenkins shows, of which those that say something new are joined.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::index::Index;
use super::metrics::Of;
use super::{CatchUp, Interrupted, Watch};
use crate::domain::build::{BuildReport, Timestamp};
use crate::domain::job::{ControllerName, JobPath};
use crate::domain::rules::{ControllerRules, Policy};
use crate::domain::survey::{Item, Kind, Survey};
use crate::jenkins::rest::{Fault, RemoteApi};
use crate::store::{Decisive, Look, Sighting};

/// Sightings that share a commit. A webhook that comes meanwhile waits for them.
const TOGETHER: usize = 256;
/// So many branches may wait until all of their project are seen.
const WAITING: usize = 5_000;
/// A build that ended longer ago is history, unless looks are rarer.
const FRESH: Duration = Duration::from_mins(10);
/// So many jobs are asked for more of their builds; for the others the next looks are.
const QUESTIONS: usize = 1_000;

/// What a look has gathered and not joined yet.
struct Gathering<'a> {
    flow: &'a CatchUp,
    controller: &'a ControllerName,
    api: &'a RemoteApi,
    index: &'a mut Index,
    rules: Option<&'a ControllerRules>,
    asked: Timestamp,
    fresh: Duration,
    questions: usize,
    /// Projects, and whether they are disabled.
    projects: HashMap<JobPath, bool>,
    single: Vec<Sighting>,
    /// Projects with their branches: half of them would make a status that holds for a moment only.
    branches: BTreeMap<JobPath, Vec<Sighting>>,
    waiting: usize,
}

impl CatchUp {
    /// Joins whatever is new of a controller.
    pub(super) async fn tour(&self, watch: &mut Watch) -> Result<Survey, Interrupted> {
        let mut gathering = Gathering {
            flow: self,
            controller: &watch.name,
            api: &watch.api,
            index: &mut watch.index,
            rules: self.rulebook.of(&watch.name),
            asked: self.clock.now(),
            fresh: FRESH.max(watch.every * 2),
            questions: QUESTIONS,
            projects: HashMap::new(),
            single: Vec::new(),
            branches: BTreeMap::new(),
            waiting: 0,
        };
        let mut tour = watch.api.tour();
        while let Some(items) = tour.next().await? {
            for item in items {
                gathering.take(item).await;
            }
            gathering.join_singles(tour.clock()).await?;
            if gathering.waiting >= WAITING {
                gathering.join_branches(tour.clock()).await?;
            }
        }
        gathering.join_branches(tour.clock()).await?;
        Ok(tour.end())
    }
}

impl Gathering<'_> {
    async fn take(&mut self, mut item: Item) {
        let project = match item.kind {
            Kind::Project => {
                self.projects.insert(item.path.clone(), item.disabled);
                Some(item.path.clone())
            }
            Kind::Job => {
                item.path.split_leaf().map(|(parent, _)| parent).filter(|parent| self.projects.contains_key(parent))
            }
            Kind::Folder => None,
        };
        // The branches of a project that is built no more are not built either.
        item.disabled |=
            project.as_ref().and_then(|project| self.projects.get(project)).is_some_and(|disabled| *disabled);
        if !self.index.show(&item) {
            return;
        }
        let job = project.as_ref().unwrap_or(&item.path);
        let policy = self.rules.map_or(Policy::usual(), |rules| rules.policy(job));
        let counts = !item.disabled && self.rules.is_none_or(|rules| rules.includes(job));
        let is_open = |last: &BuildReport| counts && policy.status_of(last.progress).is_none();
        let (builds, decisive) = match &item.last {
            Some(last) if is_open(last) => self.ask_for_builds(last, policy).await,
            last => (last.iter().cloned().collect(), None),
        };
        let sighting = Sighting { item, builds, decisive };
        match project {
            Some(project) => {
                self.waiting += 1;
                self.branches.entry(project).or_default().push(sighting);
            }
            None => self.single.push(sighting),
        }
    }

    /// The builds up to `last`, the oldest first, and which of them decides. When they cannot be had now, `last` alone.
    async fn ask_for_builds(&mut self, last: &BuildReport, policy: &Policy) -> (Vec<BuildReport>, Option<Decisive>) {
        let Some(mut builds) = self.builds(&last.job).await else {
            self.index.doubt(&last.job);
            return (vec![last.clone()], None);
        };
        let runs = |build: &BuildReport| build.progress.outcome().is_none();
        if builds.iter().any(|build| runs(build) && build.number < last.number) {
            // It decides when it ends, and `last` will be the last one all the same.
            self.index.doubt(&last.job);
        }
        builds.retain(|build| !runs(build));
        let decides = |build: &&BuildReport| policy.status_of(build.progress).is_some();
        let number = builds.iter().find(decides).map(|build| build.number);
        let newest = builds.first().map(|build| build.number);
        self.index.decide(&last.job, number);
        builds.reverse();
        (builds, newest.map(|last| Decisive { last, number }))
    }

    /// The newest builds of a job, newest first, as far as there are questions left.
    async fn builds(&mut self, job: &JobPath) -> Option<Vec<BuildReport>> {
        self.questions = self.questions.checked_sub(1)?;
        match self.api.builds(job).await {
            Ok(builds) => Some(builds),
            Err(error) => {
                tracing::debug!(controller = %self.controller, %job, %error, "its builds cannot be read");
                if matches!(error.fault, Fault::Unreachable { .. } | Fault::Timeout { .. } | Fault::Broken { .. }) {
                    self.questions = 0;
                }
                None
            }
        }
    }

    async fn join_singles(&mut self, clock: Option<Timestamp>) -> Result<(), Interrupted> {
        while !self.single.is_empty() {
            let rest = self.single.split_off(self.single.len().min(TOGETHER));
            let together = std::mem::replace(&mut self.single, rest);
            self.join(together, clock).await?;
        }
        Ok(())
    }

    async fn join_branches(&mut self, clock: Option<Timestamp>) -> Result<(), Interrupted> {
        self.waiting = 0;
        let mut together = Vec::new();
        for branches in std::mem::take(&mut self.branches).into_values() {
            together.extend(branches);
            if together.len() >= TOGETHER {
                self.join(std::mem::take(&mut together), clock).await?;
            }
        }
        self.join(together, clock).await
    }

    async fn join(&self, sightings: Vec<Sighting>, clock: Option<Timestamp>) -> Result<(), Interrupted> {
        if sightings.is_empty() {
            return Ok(());
        }
        let look = Look {
            controller: self.controller.clone(),
            asked: self.asked,
            clock: clock.unwrap_or_else(|| self.flow.clock.now()),
            fresh: self.fresh,
        };
        let repaired = self.flow.store.sight(look, sightings).await?;
        let counter = self.flow.metrics.repaired.get_or_create_owned(&Of { controller: self.controller.to_string() });
        counter.inc_by(repaired);
        Ok(())
    }
}
