//! After a look: what is stored of the controller is compared with what it has shown, and what is gone is closed.

use std::time::Duration;

use tokio::time::Instant;

use super::comparison::{Comparison, Renames};
use super::metrics::Of;
use super::{CatchUp, Interrupted, Watch};
use crate::domain::amendment::{Amendment, What};
use crate::domain::job::{ControllerName, JobKey, JobPath};
use crate::domain::record::Closed;
use crate::domain::survey::Survey;
use crate::store::{Entry, Store, StoreError};

/// Records read, or amendments made, in one go.
const PAGE: usize = 256;
/// A look that misses most of the jobs is believed when all have missed them for so long. By then somebody has seen it.
const PATIENCE: Duration = Duration::from_hours(24);

impl CatchUp {
    /// Returns what somebody should look after.
    pub(super) async fn compare(&self, watch: &mut Watch, survey: &Survey) -> Result<Vec<String>, Interrupted> {
        let mut comparison = Comparison::new(&mut watch.index, survey);
        let add = |entry: &Entry| comparison.add(entry, self.rulebook.policy(&entry.key));
        self.for_each_record(&watch.name, add).await?;
        let (known, missing, unlisted) = (comparison.known, comparison.missing, comparison.unlisted);
        let example = comparison.unlisted_example.take();
        let is_plausible = comparison.is_plausible();
        watch.doubted = watch.doubted.or_else(|| Some(Instant::now())).filter(|_| !is_plausible);
        // An empty controller is not worth closing for, and looks the same as one that hides all.
        let was_patient = || watch.doubted.is_some_and(|since| since.elapsed() >= PATIENCE);
        let is_believed = is_plausible || (survey.jobs > 0 && was_patient());
        let amendments = comparison.end(is_believed);
        self.amend(watch, amendments).await?;

        let gone = self.metrics.missing.get_or_create_owned(&Of { controller: watch.name.to_string() });
        gone.set(i64::try_from(missing).unwrap_or(i64::MAX));
        let mut troubles = Vec::new();
        if !is_plausible {
            troubles.push(format!(
                "it shows {} of the {known} jobs that are known, so none is closed: grant the user Job/Read on all of them; \
                 what was really removed is closed after a day, or by `recoverd jobs forget`",
                known - missing
            ));
        }
        if let Some(example) = example {
            troubles.push(format!(
                "it does not show {unlisted} jobs that are built, {} for one: grant the user Job/Read there",
                example.job
            ));
        }
        Ok(troubles)
    }

    async fn amend(&self, watch: &mut Watch, mut amendments: Vec<Amendment>) -> Result<(), Interrupted> {
        if amendments.is_empty() {
            return Ok(());
        }
        self.find_renamed(watch, &mut amendments).await?;
        for some in amendments.chunks(PAGE) {
            for mended in self.store.amend(some.to_vec()).await? {
                self.metrics.count(&mended);
                let (controller, job) = (mended.key.controller.as_str(), mended.key.job.as_str());
                match mended.what {
                    What::Close(why) => {
                        tracing::info!(controller, job, why = why.reason(), "a job is closed");
                        if let Closed::Renamed(to) = why {
                            self.doubt(watch, to).await?;
                        }
                    }
                    What::Drop { leaf } => tracing::info!(controller, job, branch = leaf, "a branch is gone"),
                    What::Withdraw { leaf, last } => {
                        tracing::info!(controller, job, branch = leaf, last, "builds are gone");
                    }
                }
            }
        }
        Ok(())
    }

    /// What a job under its new name was handed of its old builds is held against those that Jenkins has.
    async fn doubt(&self, watch: &mut Watch, job: JobPath) -> Result<(), Interrupted> {
        let key = JobKey { controller: watch.name.clone(), job };
        if let Some(Entry { key, record }) = self.read(move |store| store.find(&key)).await? {
            record.branches().for_each(|(leaf, _)| watch.index.doubt(&key.job.branch(leaf)));
        }
        Ok(())
    }

    /// Says of what went missing where it is now, if it is somewhere.
    async fn find_renamed(&self, watch: &Watch, amendments: &mut [Amendment]) -> Result<(), Interrupted> {
        let mut renames = Renames::default();
        for (index, amendment) in amendments.iter().enumerate() {
            if amendment.what == What::Close(Closed::Deleted) {
                let key = amendment.key.clone();
                if let Some(entry) = self.read(move |store| store.find(&key)).await? {
                    renames.lose(index, &entry.record);
                }
            }
        }
        if !renames.is_empty() {
            self.for_each_record(&watch.name, |entry| renames.look_for(entry, &watch.index)).await?;
            renames.name(amendments);
        }
        Ok(())
    }

    async fn for_each_record(
        &self,
        controller: &ControllerName,
        mut visit: impl FnMut(&Entry) + Send,
    ) -> Result<(), StoreError> {
        let mut after = JobKey::before_all(controller.clone());
        loop {
            let behind = after.clone();
            let page = self.read(move |store| store.page(Some(&behind), PAGE)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key.clone();
            let ours = page.iter().take_while(|entry| entry.key.controller == *controller);
            ours.for_each(&mut visit);
            if after.controller != *controller {
                return Ok(());
            }
        }
    }

    /// Reads block on the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || read(&store)).await.unwrap_or(Err(StoreError::Closed))
    }
}
