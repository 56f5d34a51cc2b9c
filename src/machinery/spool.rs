//! A line of things on disk that wait to be handed on: the oldest first, bounded, and none lost that was taken in.
//!
//! One file an entry, which is written under another name, synced, renamed, and made certain by a sync of the directory that
//! all who wait at the time share. A name says all that a start has to know:
//! ```text
//! 00000000000000000042.1780000000000.2310.9ae1f27c      the number, when it came (ms), bytes, the lane
//! ```
//! Within a file: see `file`. Files that cannot be written to their end are gone with the attempt, or with the next start.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};

use crate::domain::build::Timestamp;
pub use file::{Body, Entry};

/// How much a spool takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On disk: a small file takes a block.
    pub bytes: u64,
    pub entries: usize,
    /// What is older is [expired](Spool::expired).
    pub age: Duration,
}

/// Why something was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    #[error("the spool is full")]
    Full,
    #[error("the disk is full")]
    DiskFull,
    #[error("the spool cannot be written: {0}")]
    Unwritable(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Unwritable(error),
        }
    }
}

/// Why an entry cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It will never be any better.
    #[error("what was kept is damaged")]
    Damaged,
    #[error("what was kept cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Where an entry stands in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub number: u64,
    pub came: Timestamp,
    /// Of the whole file.
    pub bytes: u64,
    /// Of which there may be many. Who takes out entries can pass over a lane.
    pub lane: u32,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub entries: usize,
    /// On disk.
    pub bytes: u64,
}

/// What a file takes on disk at least.
const BLOCK: u64 = 4096;
/// A name that says more is none of ours. So sums stay what they are.
const MOST_NUMBERS: u64 = 1 << 60;
const LARGEST: u64 = 1 << 40;
/// So many files are written at once; others wait for their turn.
const WRITERS: usize = 16;
const DRAFT: &str = "draft";

/// Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// To be synced.
    handle: File,
    limits: Limits,
    line: Mutex<Line>,
    drafts: AtomicU64,
    writers: Semaphore,
    /// Written, and not yet certain.
    waiting: Mutex<Vec<Written>>,
    /// Who has it makes certain what waits. It holds the next number.
    turn: Arc<tokio::sync::Mutex<u64>>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<u64, Place>,
    /// By when they came: a clock may have been ahead, or set back.
    ages: BTreeSet<(Timestamp, u64)>,
    /// The numbers of each lane, …
    lanes: BTreeSet<(u32, u64)>,
    /// … and the first of each, so that the length of what is passed over does not tell.
    firsts: BTreeSet<(u64, u32)>,
    /// Those included that are being written.
    held: Held,
}

#[derive(Debug)]
struct Written {
    draft: Draft,
    came: Timestamp,
    lane: u32,
    told: oneshot::Sender<Result<(), NotKept>>,
}

/// A share of the room; given back when dropped.
#[derive(Debug)]
struct Room {
    spool: Spool,
    bytes: u64,
    /// It is that of a place in the line.
    is_placed: bool,
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.is_placed {
            self.spool.line().give_back(self.bytes);
        }
    }
}

/// A file that is gone when dropped, unless it has its place.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    room: Room,
}

impl Draft {
    /// Its room is from now on that of a place in the line.
    fn stay(mut self) {
        self.room.is_placed = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.room.is_placed {
            // What stays is removed by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Line {
    /// With room of its own.
    fn take_in(&mut self, place: Place) {
        self.held.entries += 1;
        self.held.bytes = self.held.bytes.saturating_add(on_disk(place.bytes));
        self.place(place);
    }

    /// At the end. Its room has been taken.
    fn place(&mut self, place: Place) {
        let Place { number, came, lane, .. } = place;
        if self.first_of(lane).is_none() {
            self.firsts.insert((number, lane));
        }
        self.lanes.insert((lane, number));
        self.ages.insert((came, number));
        self.places.insert(number, place);
    }

    fn first_of(&self, lane: u32) -> Option<u64> {
        self.lanes.range((lane, 0)..=(lane, u64::MAX)).next().map(|(_, number)| *number)
    }

    fn next(&self, holds: impl Fn(u32) -> bool, passes: impl Fn(u64) -> bool) -> Option<Place> {
        let mut oldest: Option<u64> = None;
        for &(first, lane) in &self.firsts {
            if oldest.is_some_and(|oldest| oldest < first) {
                break;
            }
            if !holds(lane) {
                let mut numbers = self.lanes.range((lane, first)..=(lane, u64::MAX)).map(|(_, number)| *number);
                oldest = oldest.into_iter().chain(numbers.find(|number| !passes(*number))).min();
            }
        }
        self.places.get(&oldest?).copied()
    }

    /// Returns whether it was there.
    fn take_out(&mut self, number: u64) -> bool {
        let Some(Place { came, bytes, lane, .. }) = self.places.remove(&number) else { return false };
        self.ages.remove(&(came, number));
        self.lanes.remove(&(lane, number));
        if self.firsts.remove(&(number, lane))
            && let Some(next) = self.first_of(lane)
        {
            self.firsts.insert((next, lane));
        }
        self.give_back(bytes);
        true
    }

    fn give_back(&mut self, bytes: u64) {
        self.held.entries = self.held.entries.saturating_sub(1);
        self.held.bytes = self.held.bytes.saturating_sub(on_disk(bytes));
    }
}

impl Spool {
    /// Finds what an earlier process left, and removes what it did not finish. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: PathBuf, limits: Limits) -> io::Result<Self> {
        create(&directory)?;
        let mut places = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Some(place) = Place::parse(&name) {
                places.push(place);
            } else if name.rsplit('.').next() == Some(DRAFT) {
                std::fs::remove_file(entry.path())?;
            }
        }
        places.sort_unstable_by_key(|place| place.number);
        let next = places.last().map_or(0, |last| last.number + 1);
        let mut line = Line::default();
        for place in places {
            line.take_in(place);
        }
        Ok(Self(Arc::new(Shared {
            handle: File::open(&directory)?,
            directory,
            limits,
            line: Mutex::new(line),
            drafts: AtomicU64::new(0),
            writers: Semaphore::new(WRITERS),
            waiting: Mutex::default(),
            turn: Arc::new(tokio::sync::Mutex::new(next)),
            grown: Notify::new(),
        })))
    }

    /// On `Ok` the entry survives a crash of the node: one `fdatasync` of its file, and one `fsync` of the directory for all that
    /// wait. It stands behind all for which this had returned before.
    ///
    /// # Errors
    /// When there is no room or it cannot be written. Then nothing of it is left.
    ///
    /// # Cancel safety
    /// Dropped, it may be in the line or not.
    pub async fn append(&self, came: Timestamp, lane: u32, head: Vec<u8>, body: Body) -> Result<(), NotKept> {
        let room = self.reserve(file::size(&head, &body))?;
        // It is never closed.
        let permit = self.0.writers.acquire().await.map_err(io::Error::other)?;
        let spool = self.clone();
        let writing = tokio::task::spawn_blocking(move || spool.write(room, &head, &body));
        let draft = writing.await.map_err(io::Error::other)??;
        drop(permit);
        let (told, telling) = oneshot::channel();
        lock(&self.0.waiting).push(Written { draft, came, lane, told });
        let turn = self.0.turn.clone().lock_owned().await;
        // Somebody else may have seen to it meanwhile.
        let batch = std::mem::take(&mut *lock(&self.0.waiting));
        if !batch.is_empty() {
            let spool = self.clone();
            let mut next = turn;
            tokio::task::spawn_blocking(move || spool.settle(batch, &mut next));
        }
        telling.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::Interrupted).into()))
    }

    fn reserve(&self, bytes: u64) -> Result<Room, NotKept> {
        let limits = &self.0.limits;
        let mut line = self.line();
        let held = Held { entries: line.held.entries + 1, bytes: line.held.bytes.saturating_add(on_disk(bytes)) };
        if held.entries > limits.entries || held.bytes > limits.bytes {
            return Err(NotKept::Full);
        }
        line.held = held;
        Ok(Room { spool: self.clone(), bytes, is_placed: false })
    }

    fn write(&self, room: Room, head: &[u8], body: &Body) -> io::Result<Draft> {
        let number = self.0.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = Draft { path: self.0.directory.join(format!("{number}.{DRAFT}")), room };
        file::write(&draft.path, head, body)?;
        Ok(draft)
    }

    /// Makes certain what is written.
    fn settle(&self, batch: Vec<Written>, next: &mut u64) {
        let mut named = Vec::with_capacity(batch.len());
        for Written { mut draft, came, lane, told } in batch {
            let place = Place { number: *next, came, bytes: draft.room.bytes, lane };
            *next += 1;
            match std::fs::rename(&draft.path, self.path(&place)) {
                Ok(()) => {
                    draft.path = self.path(&place);
                    named.push((place, draft, told));
                }
                Err(error) => _ = told.send(Err(error.into())),
            }
        }
        match self.0.handle.sync_all() {
            Ok(()) => {
                for (place, draft, told) in named {
                    draft.stay();
                    self.line().place(place);
                    // Who asked may be gone.
                    let _ = told.send(Ok(()));
                }
                self.0.grown.notify_one();
            }
            Err(error) => {
                for (.., told) in named {
                    let _ = told.send(Err(io::Error::from(error.kind()).into()));
                }
            }
        }
    }

    /// Moves entries of another spool, of which nobody else takes any out, to the end of this line. After a crash in the middle
    /// each is in one of the two. Blocks.
    ///
    /// # Errors
    /// When one cannot be moved: that one and those behind it stay where they are.
    pub fn adopt(&self, other: &Self, places: &[Place]) -> io::Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let Ok(mut next) = self.0.turn.try_lock() else { return Err(io::ErrorKind::ResourceBusy.into()) };
        for &there in places {
            let here = Place { number: *next, ..there };
            std::fs::rename(other.path(&there), self.path(&here))?;
            *next += 1;
            self.line().take_in(here);
            other.line().take_out(there.number);
        }
        self.0.handle.sync_all()
    }

    /// All entries, the oldest first.
    pub fn places(&self) -> Vec<Place> {
        self.line().places.values().copied().collect()
    }

    /// The head of an entry, whose body is not looked at. Blocks.
    ///
    /// # Errors
    /// When it is not of the length that it should have, or the disk does not say.
    pub fn head(&self, place: &Place) -> Result<Vec<u8>, ReadError> {
        file::head(&self.path(place), place.bytes)
    }

    /// The oldest entry whose lane is not held and whose number is not passed over. It takes time for each that is, and none for
    /// how many wait in a lane that is held.
    pub fn next(&self, holds: impl Fn(u32) -> bool, passes: impl Fn(u64) -> bool) -> Option<Place> {
        self.line().next(holds, passes)
    }

    /// An entry whose time is over, that which came first.
    pub fn expired(&self, now: Timestamp) -> Option<Place> {
        let line = self.line();
        let (_, number) = line.ages.first().filter(|(came, _)| now.since(*came) > self.0.limits.age)?;
        line.places.get(number).copied()
    }

    /// Whole, and as it was taken in. It stays in the line.
    ///
    /// # Errors
    /// When it is not, or the disk does not say.
    ///
    /// # Cancel safety
    /// Loses nothing.
    pub async fn read(&self, place: Place) -> Result<Entry, ReadError> {
        let path = self.path(&place);
        let reading = tokio::task::spawn_blocking(move || file::read(&path, place.bytes));
        reading.await.map_err(io::Error::other)?
    }

    /// Takes an entry out of the line, and deletes it. After a crash of the node it may be there again.
    ///
    /// # Errors
    /// When it cannot be deleted. It is out of the line all the same, until the next start.
    ///
    /// # Cancel safety
    /// Dropped, it is out of the line.
    pub async fn remove(&self, place: Place) -> io::Result<()> {
        if !self.line().take_out(place.number) {
            return Ok(());
        }
        let path = self.path(&place);
        let removing = tokio::task::spawn_blocking(move || std::fs::remove_file(path));
        match removing.await.map_err(io::Error::other)? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub fn held(&self) -> Held {
        self.line().held
    }

    /// Waits until something was taken in since the last time that this was waited for.
    ///
    /// # Cancel safety
    /// Loses nothing.
    pub async fn grown(&self) {
        self.0.grown.notified().await;
    }

    fn path(&self, place: &Place) -> PathBuf {
        self.0.directory.join(place.name())
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.0.line)
    }
}

impl Place {
    fn name(&self) -> String {
        format!("{:020}.{}.{}.{:08x}", self.number, self.came.as_millis(), self.bytes, self.lane)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('.');
        let place = Self {
            number: parts.next()?.parse().ok()?,
            came: Timestamp::from_millis(parts.next()?.parse().ok()?),
            bytes: parts.next()?.parse().ok()?,
            lane: u32::from_str_radix(parts.next()?, 16).ok()?,
        };
        let is_plausible = place.number < MOST_NUMBERS && place.bytes < LARGEST;
        (is_plausible && place.name() == name).then_some(place)
    }
}

/// How many entries there are, and when the oldest came; `None` when there are none. Changes nothing. Blocks.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn look(directory: &Path) -> io::Result<Option<(usize, Timestamp)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut seen = None;
    for entry in entries {
        let Some(place) = Place::parse(&entry?.file_name().to_string_lossy()) else { continue };
        let (many, oldest) = seen.unwrap_or((0, place.came));
        seen = Some((many + 1, place.came.min(oldest)));
    }
    Ok(seen)
}

fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// Makes a directory, and those above it, such that their names survive a crash as well. Nobody else may look into it.
fn create(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(above) = directory.parent() else { return Err(io::ErrorKind::NotFound.into()) };
    create(above)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(above)?.sync_all(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
