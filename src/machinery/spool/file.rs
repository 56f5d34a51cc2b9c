//! One entry in its file: a mark and the head's length, the head, the body, and a checksum of all that.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;
use futures_util::Stream;

use super::ReadError;
use crate::machinery::blocks::{self, blocks};

/// The form of these files.
const MARK: [u8; 4] = *b"spl1";
const PREFIX: usize = MARK.len() + 4;
const SUM: usize = 4;
/// Pieces that are smaller are written together.
const JOINED: usize = 64 << 10;
/// An error that a disk gives for a place that it cannot read.
const EIO: i32 = 5;

/// What comes behind the head.
#[derive(Clone, Debug)]
pub enum Body {
    Held(Vec<Bytes>),
    /// The first so many bytes of a file, whatever its cursor is at.
    File(Arc<File>, u64),
}

impl Body {
    fn bytes(&self) -> u64 {
        match self {
            Self::Held(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Self::File(_, bytes) => *bytes,
        }
    }
}

/// An entry, its head read and its body still on disk.
#[derive(Debug)]
pub struct Entry {
    pub head: Vec<u8>,
    file: Arc<File>,
    body: Range<u64>,
}

impl Entry {
    /// Of the body, in bytes.
    pub fn size(&self) -> u64 {
        self.body.end - self.body.start
    }

    pub fn body(&self) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
        blocks(self.file.clone(), self.body.clone())
    }
}

/// Of a whole file, in bytes.
pub(super) fn size(head: &[u8], body: &Body) -> u64 {
    (PREFIX + head.len() + SUM) as u64 + body.bytes()
}

/// On `Ok` what is in the file survives a crash of the node, if its name does.
pub(super) fn write(path: &Path, head: &[u8], body: &Body) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut sink = Summed { inner: io::BufWriter::with_capacity(JOINED, file), sum: Hasher::new() };
    let length = u32::try_from(head.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    sink.write(&MARK)?;
    sink.write(&length.to_le_bytes())?;
    sink.write(head)?;
    match body {
        Body::Held(pieces) => pieces.iter().try_for_each(|piece| sink.write(piece))?,
        Body::File(file, bytes) => each_block(file, 0..*bytes, |block| sink.write(block))?,
    }
    let Summed { mut inner, sum } = sink;
    inner.write_all(&sum.finalize().to_le_bytes())?;
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}

struct Summed {
    inner: io::BufWriter<File>,
    sum: Hasher,
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }
}

/// Reads all of it once, so that what is handed on is whole.
pub(super) fn read(path: &Path, bytes: u64) -> Result<Entry, ReadError> {
    opened(path, bytes).and_then(|entry| verified(entry, bytes)).map_err(ReadError::of)
}

/// Without a look at the body: it, or the head, may be damaged all the same.
pub(super) fn head(path: &Path, bytes: u64) -> Result<Vec<u8>, ReadError> {
    opened(path, bytes).map(|entry| entry.head).map_err(ReadError::of)
}

impl ReadError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ if error.raw_os_error() == Some(EIO) => Self::Damaged,
            _ => Self::Unreadable(error),
        }
    }
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn verified(entry: Entry, bytes: u64) -> io::Result<Entry> {
    let (file, end) = (&entry.file, entry.body.end);
    let mut sum = Hasher::new();
    each_block(file, 0..end, |block| {
        sum.update(block);
        Ok(())
    })?;
    let is_whole = blocks::read(file, &(end..bytes))? == sum.finalize().to_le_bytes()[..];
    if is_whole { Ok(entry) } else { Err(damaged()) }
}

fn opened(path: &Path, bytes: u64) -> io::Result<Entry> {
    let file = Arc::new(File::open(path)?);
    let end = bytes.checked_sub(SUM as u64).ok_or_else(damaged)?;
    if file.metadata()?.len() != bytes {
        return Err(damaged());
    }
    let prefix = blocks::read(&file, &(0..PREFIX as u64))?;
    let (mark, length) = prefix.split_first_chunk().ok_or_else(damaged)?;
    let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?);
    let start = PREFIX as u64 + u64::from(length);
    if *mark != MARK || start > end {
        return Err(damaged());
    }
    let mut head = Vec::new();
    each_block(&file, PREFIX as u64..start, |block| {
        head.extend_from_slice(block);
        Ok(())
    })?;
    Ok(Entry { head, file, body: start..end })
}

fn each_block(file: &File, mut place: Range<u64>, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while !place.is_empty() {
        let block = blocks::read(file, &place)?;
        if block.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each(&block)?;
        place.start += block.len() as u64;
    }
    Ok(())
}
