//! What readers see: the database, and over it what only the journal has yet.

use std::cmp::Ordering as Order;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prometheus_client::metrics::counter::Counter;

use super::codec;
use super::database::{Base, Broken, Snapshot};
use super::journal::Ahead;
use super::rows::{Key, Row, Rows, Table, Value};
use super::{Entry, SentryEntry, StoreError};
use crate::domain::job::{ControllerName, JobKey, JobPath};
use crate::domain::sentry::{IntegrationName, SentryKey, Subject};

/// Shared by the writer, who alone changes it, and the readers.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    layers: Arc<RwLock<Layers>>,
    jobs: Arc<AtomicU64>,
    damaged: Counter,
}

/// From the newest to the oldest; a row counts where it is found first.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Written since the last checkpoint began.
    active: Rows,
    /// On its way into the database.
    frozen: Option<Arc<Rows>>,
    /// `None` while it is being opened anew.
    base: Option<Arc<Base>>,
}

impl Layers {
    /// What stands over the database, if anything does.
    fn over(&self, table: Table, key: &Key) -> Option<&Value> {
        let frozen = || self.frozen.as_ref()?.of(table).get(key);
        self.active.of(table).get(key).or_else(frozen)
    }

    fn base(&self) -> Result<&Arc<Base>, Broken> {
        self.base.as_ref().ok_or_else(|| Broken("it is being opened anew".to_owned()))
    }

    /// Up to `limit` rows, in order.
    fn rows(&self, table: Table, from: Bound<&Key>, limit: usize) -> Result<Vec<Row>, Broken> {
        let below = self.base()?.snapshot(table)?;
        let below = below.range(from)?.map(|row| row.map(|(key, value)| (key, Some(value))));
        let copied = |(key, value): (&Key, &Value)| Ok((key.clone(), value.clone()));
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.range(table, from)).map(copied);
        let active = self.active.range(table, from).map(copied);
        let present = |row: Result<(Key, Value), Broken>| row.map(|(key, value)| Some((key, value?))).transpose();
        overlay(active, overlay(frozen, below)).filter_map(present).take(limit).collect()
    }
}

/// Merges two sorted lists of rows; of two with one key the first list's stays.
fn overlay(
    over: impl Iterator<Item = Result<(Key, Value), Broken>>,
    under: impl Iterator<Item = Result<(Key, Value), Broken>>,
) -> impl Iterator<Item = Result<(Key, Value), Broken>> {
    let (mut over, mut under) = (over.peekable(), under.peekable());
    std::iter::from_fn(move || {
        let order = match (over.peek(), under.peek()) {
            (Some(Ok((a, _))), Some(Ok((b, _)))) => a.cmp(b),
            (Some(_), None) => Order::Less,
            // A failure comes out as soon as it is met.
            _ => Order::Greater,
        };
        match order {
            Order::Less => over.next(),
            Order::Greater => under.next(),
            Order::Equal => {
                under.next();
                over.next()
            }
        }
    })
}

impl Shared {
    pub(super) fn new(damaged: Counter) -> Self {
        Self { layers: Arc::default(), jobs: Arc::default(), damaged }
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew with a database that was just opened, and what the journal has over it.
    pub(super) fn fill(&self, base: Base, ahead: Ahead) -> Result<(), Broken> {
        let stored = base.snapshot(Table::Jobs)?.len()?;
        self.jobs.store(stored.saturating_add_signed(ahead.jobs_added), Ordering::Relaxed);
        *self.write() = Layers { active: ahead.rows, frozen: None, base: Some(Arc::new(base)) };
        Ok(())
    }

    /// Closes the database. What was not in it yet is in the journal.
    pub(super) fn clear(&self) {
        let base = std::mem::take(&mut *self.write()).base;
        if let Some(mut base) = base {
            // Readers hold it for the length of one page.
            while let Err(held) = Arc::try_unwrap(base) {
                std::thread::sleep(std::time::Duration::from_millis(1));
                base = held;
            }
        }
    }

    /// Shows a batch that is durable now.
    pub(super) fn extend(&self, rows: Rows, jobs_added: i64) {
        self.jobs.fetch_add(jobs_added.cast_unsigned(), Ordering::Relaxed);
        self.write().active.extend(rows);
    }

    /// Whether there is something for a checkpoint, and none is on its way.
    pub(super) fn can_freeze(&self) -> bool {
        let layers = self.read();
        layers.frozen.is_none() && !layers.active.is_empty()
    }

    /// Sets what was written so far apart, to be put into the database.
    pub(super) fn freeze(&self) -> Result<(Arc<Base>, Arc<Rows>), Broken> {
        let mut layers = self.write();
        let base = layers.base()?.clone();
        let frozen = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(frozen.clone());
        Ok((base, frozen))
    }

    /// What was frozen is in the database.
    pub(super) fn thaw(&self) {
        // Freed behind the lock: it may be much.
        let frozen = self.write().frozen.take();
        drop(frozen);
    }

    pub(super) fn snapshot(&self, table: Table) -> Result<Snapshot, Broken> {
        self.read().base()?.snapshot(table)
    }

    /// Reads a row that is not in the database yet; `None` when it has to be looked for there.
    pub(super) fn with_newer<T>(&self, table: Table, key: &Key, read: impl FnOnce(Option<&[u8]>) -> T) -> Option<T> {
        self.read().over(table, key).map(|value| read(value.as_deref()))
    }

    pub(super) fn rows(&self, table: Table, from: Bound<&Key>, limit: usize) -> Result<Vec<Row>, Broken> {
        self.read().rows(table, from, limit)
    }

    pub(super) fn page(&self, after: Option<&JobKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.gather(Table::Jobs, after.map(key_of), limit, |key, value| self.entry(key, value))
    }

    /// Up to `limit` rows behind `after`. What cannot be read is passed over, and leaves room for others.
    fn gather<T>(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
        read: impl Fn(&Key, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut gathered = Vec::new();
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let wanted = limit - gathered.len();
            let rows = self.rows(table, from.as_ref(), wanted).map_err(unreadable)?;
            let (got, last) = (rows.len(), rows.last().map(|(key, _)| key.clone()));
            gathered.extend(rows.iter().filter_map(|(key, value)| read(key, value)));
            match last {
                Some(last) if got == wanted && gathered.len() < limit => from = Bound::Excluded(last),
                _ => return Ok(gathered),
            }
        }
    }

    pub(super) fn find(&self, key: &JobKey) -> Result<Option<Entry>, StoreError> {
        let key = key_of(key);
        let rows = self.rows(Table::Jobs, Bound::Included(&key), 1).map_err(unreadable)?;
        Ok(rows.iter().find(|(found, _)| *found == key).and_then(|(key, value)| self.entry(key, value)))
    }

    /// As of [`Self::page`], of what Sentry told.
    pub(super) fn sentry_page(&self, after: Option<&SentryKey>, limit: usize) -> Result<Vec<SentryEntry>, StoreError> {
        self.gather(Table::Sentry, after.map(sentry_key_of), limit, |key, value| self.sentry_entry(key, value))
    }

    pub(super) fn sentry_find(&self, key: &SentryKey) -> Result<Option<SentryEntry>, StoreError> {
        let key = sentry_key_of(key);
        let rows = self.rows(Table::Sentry, Bound::Included(&key), 1).map_err(unreadable)?;
        Ok(rows.iter().find(|(found, _)| *found == key).and_then(|(key, value)| self.sentry_entry(key, value)))
    }

    fn sentry_entry(&self, key: &Key, value: &[u8]) -> Option<SentryEntry> {
        let read = || Ok(SentryEntry { key: sentry_key(key)?, record: codec::decode(value)? });
        self.readable(key, read())
    }

    fn entry(&self, key: &Key, value: &[u8]) -> Option<Entry> {
        let read = || Ok(Entry { key: job_key(key)?, record: codec::decode(value)? });
        self.readable(key, read())
    }

    /// `None` for what cannot be read: one damaged record must not hide every other one.
    fn readable<T>(&self, key: &Key, read: Result<T, Broken>) -> Option<T> {
        read.inspect_err(|Broken(error)| {
            self.damaged.inc();
            let (of, name) = key.parts();
            tracing::warn!(of, name, error, "a stored record cannot be read and is passed over");
        })
        .ok()
    }

    pub(super) fn count(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }
}

pub(super) fn key_of(key: &JobKey) -> Key {
    Key::new(key.controller.as_str(), key.job.as_str())
}

pub(super) fn job_key(key: &Key) -> Result<JobKey, Broken> {
    let (controller, job) = key.parts();
    Ok(JobKey { controller: ControllerName::parse(controller)?, job: JobPath::parse(job)? })
}

pub(super) fn sentry_key_of(key: &SentryKey) -> Key {
    Key::new(key.integration.as_str(), &key.subject.to_string())
}

pub(super) fn sentry_key(key: &Key) -> Result<SentryKey, Broken> {
    let (integration, subject) = key.parts();
    let subject = Subject::parse(subject).ok_or_else(|| Broken(format!("{subject:?} is nothing of Sentry's")))?;
    Ok(SentryKey { integration: IntegrationName::parse(integration)?, subject })
}

fn unreadable(broken: Broken) -> StoreError {
    StoreError::Unwritable(broken.0.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one layer says of a few keys.
    fn layer() -> impl Strategy<Value = Rows> {
        proptest::collection::vec((0..6u8, proptest::option::of(any::<u8>())), 0..8).prop_map(|written| {
            let mut rows = Rows::default();
            for (key, value) in written {
                rows.put(Table::Jobs, Key::new("main", &key.to_string()), value.map(|byte| Box::from([byte])));
            }
            rows
        })
    }

    proptest! {
        /// For all layers, beginnings and limits: readers see what they would if all were written to one table.
        #[test]
        fn layers_read_like_one_table(below in layer(), frozen in layer(), active in layer(), after in 0..6u8, limit in 1..8usize) {
            let directory = tempfile::tempdir().unwrap();
            let base = Base::open(&directory.path().join("base.redb")).unwrap();
            base.prepare().unwrap();
            base.apply(&below, 1).unwrap();
            let mut all = below;
            all.extend(frozen.clone());
            all.extend(active.clone());
            let layers = Layers { active, frozen: Some(Arc::new(frozen)), base: Some(Arc::new(base)) };
            let after = Key::new("main", &after.to_string());
            let expected: Vec<(Key, Box<[u8]>)> = all
                .range(Table::Jobs, Bound::Excluded(&after))
                .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
                .take(limit)
                .collect();
            prop_assert_eq!(layers.rows(Table::Jobs, Bound::Excluded(&after), limit).unwrap(), expected);
        }
    }
}
