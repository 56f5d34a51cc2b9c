//! What the database does not have yet, on disk: batches one behind the other in files that are used again and again.
//!
//! A write into room that a file has already costs one `fdatasync` of a few pages, where the database would write a page for
//! each row that it touches. A file's frames bear one generation, so that what an earlier use left behind them is
//! told apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::rows::{self, Rows};

/// Length, generation, checksum of generation and payload.
const HEAD: usize = 4 + 8 + 4;
/// How many jobs there are more, or fewer, after a batch. It stands before the batch's rows, so that jobs need not be counted at a
/// start.
const ADDED: usize = 8;

/// What the journal holds beyond the database.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ahead {
    pub(super) rows: Rows,
    pub(super) jobs_added: i64,
}

impl Ahead {
    fn extend(&mut self, newer: Ahead) {
        self.rows.extend(newer.rows);
        self.jobs_added = self.jobs_added.saturating_add(newer.jobs_added);
    }
}
/// A file grows to a multiple of so much: growing costs a write of the file's own data as well.
const STEP: u64 = 1024 * 1024;
/// What it grows by, piece by piece.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The files, one of which is being written.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    segments: Vec<Segment>,
    /// Which of them is being written, and as what.
    active: usize,
    generation: u64,
    offset: u64,
    /// Kept for its room.
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    allocated: u64,
    /// `None`: what it holds is in the database.
    generation: Option<u64>,
}

impl Journal {
    /// Opens the files in `directory`, and returns what they hold that is newer than generation `applied`.
    pub(super) fn open(directory: &Path, applied: u64) -> io::Result<(Self, Ahead)> {
        let mut journal = Self {
            directory: directory.to_owned(),
            segments: Vec::new(),
            active: 0,
            generation: applied,
            offset: 0,
            frame: Vec::new(),
        };
        let mut found = Vec::new();
        while let Some(file) =
            optional(OpenOptions::new().read(true).write(true).open(journal.path(journal.segments.len())))?
        {
            let bytes = std::fs::read(journal.path(journal.segments.len()))?;
            let (generation, ahead) = replay(&bytes, applied)?;
            let generation = generation.filter(|generation| *generation > applied);
            journal.segments.push(Segment { file, allocated: bytes.len() as u64, generation });
            found.extend(generation.map(|generation| (generation, ahead)));
        }
        found.sort_by_key(|(generation, _)| *generation);
        journal.generation = found.last().map_or(applied, |(generation, _)| *generation);
        let mut all = Ahead::default();
        for (_, ahead) in found {
            all.extend(ahead);
        }
        journal.turn()?;
        Ok((journal, all))
    }

    /// Goes on in another file. Returns the generation that ends with this, and all before it.
    pub(super) fn turn(&mut self) -> io::Result<u64> {
        let ended = self.generation;
        let free = match self.segments.iter().position(|segment| segment.generation.is_none()) {
            Some(free) => free,
            None => self.add()?,
        };
        self.generation += 1;
        (self.active, self.offset) = (free, 0);
        self.make_room(STEP)?;
        if let Some(segment) = self.segments.get_mut(free) {
            segment.generation = Some(self.generation);
        }
        Ok(ended)
    }

    /// The database has everything up to `generation`: those files are free again.
    pub(super) fn release(&mut self, generation: u64) {
        for segment in &mut self.segments {
            segment.generation = segment.generation.filter(|of| *of > generation);
        }
    }

    /// Writes one batch. On `Ok`, and with `durable`, it survives a crash of the node.
    pub(super) fn append(&mut self, rows: &Rows, jobs_added: i64, durable: bool) -> io::Result<()> {
        self.frame.clear();
        self.frame.resize(HEAD, 0);
        self.frame.extend(jobs_added.to_le_bytes());
        rows::encode(rows, &mut self.frame);
        let generation = self.generation.to_le_bytes();
        let length = u32::try_from(self.frame.len() - HEAD)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "a batch of over 4 GiB"))?;
        let checksum = checksum(&generation, self.frame.get(HEAD..).unwrap_or_default());
        let head = length.to_le_bytes().into_iter().chain(generation).chain(checksum.to_le_bytes());
        self.frame.iter_mut().zip(head).for_each(|(byte, of_head)| *byte = of_head);
        let end = self.offset + self.frame.len() as u64;
        self.make_room(end)?;
        let Some(segment) = self.segments.get(self.active) else { return Ok(()) };
        segment.file.write_all_at(&self.frame, self.offset)?;
        if durable {
            segment.file.sync_data()?;
        }
        self.offset = end;
        Ok(())
    }

    /// Bytes in the file that is being written.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    fn path(&self, segment: usize) -> PathBuf {
        self.directory.join(format!("recoverd.journal.{segment}"))
    }

    fn add(&mut self) -> io::Result<usize> {
        let number = self.segments.len();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(number))?;
        // Its name has to survive as well.
        File::open(&self.directory)?.sync_all()?;
        self.segments.push(Segment { file, allocated: 0, generation: None });
        Ok(number)
    }

    /// Room is made of zeros: a hole would be filled at the `fdatasync` that webhooks wait for.
    fn make_room(&mut self, end: u64) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(self.active) else { return Ok(()) };
        let end = end.next_multiple_of(STEP);
        while segment.allocated < end {
            segment.file.write_all_at(&ZEROS, segment.allocated)?;
            segment.allocated += ZEROS.len() as u64;
            if segment.allocated >= end {
                segment.file.sync_all()?;
            }
        }
        Ok(())
    }
}

/// The frames from the beginning on, up to the first that is torn or of another generation than the first.
///
/// # Errors
/// When one that is whole, and newer than `applied`, holds what this version does not know: it was acknowledged.
fn replay(mut bytes: &[u8], applied: u64) -> io::Result<(Option<u64>, Ahead)> {
    let (mut generation, mut ahead) = (None, Ahead::default());
    while let Some((of, payload, rest)) = frame(bytes).filter(|(of, ..)| generation.is_none_or(|first| first == *of)) {
        match batch(payload) {
            Some(batch) => ahead.extend(batch),
            None if of <= applied => break,
            None => {
                let why =
                    "the journal was written by a newer recoverd: start that one again, and stop it, before this one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        generation = Some(of);
        bytes = rest;
    }
    Ok((generation, ahead))
}

/// Generation, payload, and what comes behind it.
fn frame(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let is_whole = checksum(generation, payload) == u32::from_le_bytes(*expected);
    is_whole.then(|| (u64::from_le_bytes(*generation), payload, rest))
}

fn batch(payload: &[u8]) -> Option<Ahead> {
    let (jobs_added, rows) = payload.split_first_chunk::<ADDED>()?;
    Some(Ahead { rows: rows::decode(rows)?, jobs_added: i64::from_le_bytes(*jobs_added) })
}

fn checksum(generation: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(generation);
    hasher.update(payload);
    hasher.finalize()
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::rows::{Key, Table};

    fn rows(number: u8) -> Rows {
        let mut rows = Rows::default();
        rows.put(Table::Jobs, Key::new("main", &format!("job-{}", number % 3)), Some(Box::from([number; 9])));
        rows
    }

    fn merged(batches: impl IntoIterator<Item = u8>) -> Ahead {
        let mut all = Ahead::default();
        batches.into_iter().for_each(|number| all.extend(Ahead { rows: rows(number), jobs_added: number.into() }));
        all
    }

    fn write(journal: &mut Journal, number: u8) {
        journal.append(&rows(number), number.into(), true).unwrap();
    }

    fn reopened(directory: &Path, applied: u64) -> Ahead {
        Journal::open(directory, applied).unwrap().1
    }

    #[test]
    fn what_the_database_has_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, nothing) = Journal::open(directory.path(), 0).unwrap();
        assert_eq!(nothing, Ahead::default());
        write(&mut journal, 1);
        let first = journal.turn().unwrap();
        write(&mut journal, 2);
        drop(journal);
        assert_eq!(reopened(directory.path(), 0), merged([1, 2]));
        assert_eq!(reopened(directory.path(), first), merged([2]));
        assert_eq!(reopened(directory.path(), first + 1), Ahead::default());
    }

    #[test]
    fn a_file_that_is_used_again_tells_nothing_of_its_past() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 0).unwrap();
        (1..=9).for_each(|number| write(&mut journal, number));
        let first = journal.turn().unwrap();
        journal.release(first);
        let second = journal.turn().unwrap();
        journal.release(second);
        write(&mut journal, 10);
        drop(journal);
        assert_eq!(reopened(directory.path(), second), merged([10]));
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 2, "two take turns");
    }

    #[test]
    fn what_a_newer_version_wrote_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 0).unwrap();
        write(&mut journal, 1);
        let mut foreign = journal.frame.split_off(HEAD);
        foreign[ADDED] = 0x7F; // a table that there is not
        let generation = journal.generation.to_le_bytes();
        let length = u32::try_from(foreign.len()).unwrap().to_le_bytes();
        let sum = checksum(&generation, &foreign).to_le_bytes();
        let frame = [&length[..], &generation, &sum, &foreign].concat();
        journal.segments[journal.active].file.write_all_at(&frame, journal.offset).unwrap();
        let (generation, error) = (journal.generation, Journal::open(directory.path(), 0).unwrap_err());
        assert!(error.to_string().contains("newer recoverd"), "{error}");
        assert_eq!(reopened(directory.path(), generation), Ahead::default(), "the database has it");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// For all tears: what was written before the first torn byte is there, in order, and nothing else.
        #[test]
        fn a_torn_end_costs_only_what_it_tore(count in 1..12u8, at in 0.0..1.0f64, flip in any::<bool>()) {
            let directory = tempfile::tempdir().unwrap();
            let (mut journal, _) = Journal::open(directory.path(), 0).unwrap();
            let mut ends = vec![0];
            for number in 0..count {
                write(&mut journal, number);
                ends.push(journal.bytes());
            }
            let file = journal.path(journal.active);
            drop(journal);
            let mut bytes = std::fs::read(&file).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let torn = (at * ends[usize::from(count)] as f64) as usize;
            if flip {
                bytes[torn] ^= 0x10;
            } else {
                bytes.truncate(torn);
            }
            std::fs::write(&file, &bytes).unwrap();
            let whole = (0..count).filter(|number| ends[usize::from(*number) + 1] <= torn as u64);
            prop_assert_eq!(reopened(directory.path(), 0), merged(whole));
        }
    }
}
