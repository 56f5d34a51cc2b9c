//! The rows in one redb file.

use std::fmt::Display;
use std::ops::Bound;
use std::path::Path;

use redb::{
    Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};

use super::codec::{self, CodecError};
use super::rows::{Key, Row, Rows, Table};

type Definition = TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;

const JOBS: Definition = TableDefinition::new("jobs");
const PROJECTS: Definition = TableDefinition::new("projects");
const SENTRY: Definition = TableDefinition::new("sentry");
/// How the other tables are written.
const FORM: TableDefinition<(), u8> = TableDefinition::new("form");
/// The journal's last generation that is in here.
const JOURNAL: TableDefinition<(), u64> = TableDefinition::new("journal");
/// What a reopened database is tried with.
const TRIAL: TableDefinition<(), &[u8]> = TableDefinition::new("trial");

/// Pages kept in memory. Records are small and the system caches the file as well.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// A trial takes as much as a large batch does: on a disk with room for a few records more, the store would otherwise mend
/// and break with each batch.
const TRIAL_BYTES: usize = 1_000_000;

/// Any failure of the disk, in words.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl<E: Display> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Base(Database);

/// A table as it was at one moment.
pub(super) struct Snapshot(ReadOnlyTable<(&'static str, &'static str), &'static [u8]>);

fn definition(table: Table) -> Definition {
    match table {
        Table::Jobs => JOBS,
        Table::Projects => PROJECTS,
        Table::Sentry => SENTRY,
    }
}

impl Base {
    pub(super) fn open(path: &Path) -> Result<Self, redb::DatabaseError> {
        Database::builder().set_cache_size(CACHE_BYTES).create(path).map(Self)
    }

    /// Creates the tables. Returns the last generation of the journal that is in them.
    pub(super) fn prepare(&self) -> Result<u64, Broken> {
        let transaction = self.0.begin_write()?;
        for table in Table::ALL {
            transaction.open_table(definition(table))?;
        }
        let applied = {
            let mut form = transaction.open_table(FORM)?;
            let found = form.get(())?.map(|form| form.value());
            match found {
                Some(newer) if newer > codec::VERSION => return Err(CodecError::Version(newer).into()),
                Some(codec::VERSION) => {}
                _ => drop(form.insert((), codec::VERSION)?),
            }
            transaction.open_table(JOURNAL)?.get(())?.map_or(0, |generation| generation.value())
        };
        transaction.commit()?;
        Ok(applied)
    }

    /// Takes in what the journal holds up to `generation`, in one commit (one `fdatasync`).
    pub(super) fn apply(&self, rows: &Rows, generation: u64) -> Result<(), Broken> {
        let transaction = self.0.begin_write()?;
        for table in Table::ALL {
            let mut stored = transaction.open_table(definition(table))?;
            for (key, value) in rows.of(table) {
                match value {
                    Some(value) => drop(stored.insert(key.parts(), &**value)?),
                    None => drop(stored.remove(key.parts())?),
                }
            }
        }
        transaction.open_table(JOURNAL)?.insert((), generation)?;
        Ok(transaction.commit()?)
    }

    /// Whether there is room for more than a few rows.
    pub(super) fn try_room(&self) -> Result<(), Broken> {
        let transaction = self.0.begin_write()?;
        transaction.open_table(TRIAL)?.insert((), vec![0; TRIAL_BYTES].as_slice())?;
        transaction.commit()?;
        let transaction = self.0.begin_write()?;
        transaction.delete_table(TRIAL)?;
        Ok(transaction.commit()?)
    }

    pub(super) fn snapshot(&self, table: Table) -> Result<Snapshot, Broken> {
        Ok(Snapshot(self.0.begin_read()?.open_table(definition(table))?))
    }
}

impl Snapshot {
    pub(super) fn len(&self) -> Result<u64, Broken> {
        Ok(self.0.len()?)
    }

    /// Reads a row's value where it lies.
    pub(super) fn with<T>(&self, key: &Key, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Broken> {
        Ok(self.0.get(key.parts())?.map(|value| read(value.value())))
    }

    /// The rows behind `after`, or those from `from` on, in order.
    pub(super) fn range(&self, from: Bound<&Key>) -> Result<impl Iterator<Item = Result<Row, Broken>>, Broken> {
        let rows = self.0.range::<(&str, &str)>((from.map(Key::parts), Bound::Unbounded))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let (first, second) = key.value();
            Ok((Key::new(first, second), value.value().into()))
        }))
    }
}
