//! A body while it is gathered: in memory as long as it is small and there is room for all, else in a file without a name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use crate::machinery::blocks::blocks;
use crate::machinery::spool;
use crate::sentry::upstream::Payload;

/// More of one body than this goes to a file.
const MOST_HELD: usize = 1 << 20;
/// So much of each body is held without asking: it is what the connection has read already.
pub(super) const FREE: usize = 16 << 10;
/// Of all bodies at once, beyond that.
const MOST_OF_ALL: usize = 64 << 20;
/// Smaller pieces are copied together: each of them may hold on to a buffer much larger than itself.
const SMALL: usize = 1 << 10;
/// What is written and read at once.
const BLOCK: usize = 256 << 10;

/// The memory that all bodies share, and the directory for those that do not fit.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicUsize,
    most_held: usize,
    /// Of the drafts, in bytes.
    written: AtomicU64,
    most_written: u64,
    drafts: PathBuf,
    next: AtomicU64,
}

impl Room {
    /// For drafts of so many bytes in all. Those that a process left behind which was killed are removed. Blocks.
    pub(super) fn new(drafts: PathBuf, most_written: u64) -> Self {
        let left = drafts.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        for draft in left.filter(|path| path.extension().is_some_and(|extension| extension == "draft")) {
            if let Err(error) = std::fs::remove_file(&draft) {
                tracing::warn!(draft = %draft.display(), %error, "a draft that was left behind cannot be removed");
            }
        }
        Self::of(drafts, MOST_OF_ALL, most_written)
    }

    pub(super) fn of(drafts: PathBuf, most_held: usize, most_written: u64) -> Self {
        let (held, written, next) = Default::default();
        Self(Arc::new(Shared { held, most_held, written, most_written, drafts, next }))
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Of no size yet.
    pub(super) fn share(&self) -> Share {
        Share { room: self.clone(), bytes: 0, written: 0 }
    }

    /// A file that is gone with its last user.
    async fn file(&self) -> io::Result<Arc<File>> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let room = self.clone();
        let making = tokio::task::spawn_blocking(move || {
            let drafts = &room.0.drafts;
            std::fs::create_dir_all(drafts)?;
            let path = drafts.join(format!("{}-{number}.draft", std::process::id()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(Arc::new(file))
        });
        making.await.map_err(io::Error::other)?
    }
}

/// A share of the memory, and of the disk; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    bytes: usize,
    written: u64,
}

impl Share {
    /// Makes it as large as is needed to hold so much, or smaller. Returns `false`, and leaves it as it is, when there is no room.
    pub(super) fn covers(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE).next_multiple_of(FREE);
        let Shared { held, most_held, .. } = &*self.room.0;
        if let Some(more @ 1..) = wanted.checked_sub(self.bytes) {
            if held.fetch_add(more, Ordering::Relaxed) + more > *most_held {
                held.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else if wanted < self.bytes {
            held.fetch_sub(self.bytes - wanted, Ordering::Relaxed);
        }
        self.bytes = wanted;
        true
    }

    /// Takes room on disk for so many bytes more.
    fn write(&mut self, bytes: u64) -> io::Result<()> {
        let Shared { written, most_written, .. } = &*self.room.0;
        self.written += bytes;
        if written.fetch_add(bytes, Ordering::Relaxed) + bytes > *most_written {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        if self.written > 0 {
            self.room.0.written.fetch_sub(self.written, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(super) struct Pile {
    pieces: Vec<Bytes>,
    /// The last piece, as long as it is small.
    tail: BytesMut,
    held: usize,
    share: Share,
    /// What does not fit, and all that came before it.
    file: Option<Arc<File>>,
    bytes: u64,
}

impl Pile {
    pub(super) fn new(room: &Room) -> Self {
        Self { pieces: Vec::new(), tail: BytesMut::new(), held: 0, share: room.share(), file: None, bytes: 0 }
    }

    /// # Errors
    /// When there is no room in memory and the file cannot be written. Then the pile is of no more use.
    pub(super) async fn push(&mut self, piece: Bytes) -> io::Result<()> {
        if self.holds(piece) { Ok(()) } else { self.spill().await }
    }

    /// Takes a piece; whether all that is in memory may stay there.
    fn holds(&mut self, piece: Bytes) -> bool {
        self.bytes += piece.len() as u64;
        self.held += piece.len();
        if piece.len() >= SMALL || (self.pieces.is_empty() && self.tail.is_empty()) {
            self.close_tail();
            self.pieces.push(piece);
        } else {
            self.tail.extend_from_slice(&piece);
            if self.tail.len() >= BLOCK {
                self.close_tail();
            }
        }
        let most = if self.file.is_some() { BLOCK } else { MOST_HELD };
        self.held <= most && self.share.covers(self.held)
    }

    /// # Errors
    /// As [`Pile::push`].
    pub(super) async fn push_all(&mut self, pieces: &mut Vec<Bytes>) -> io::Result<()> {
        for piece in pieces.drain(..) {
            if !self.holds(piece) {
                self.spill().await?;
            }
        }
        Ok(())
    }

    /// Takes the last pieces and closes. If they are all, and not much, they stay as they are: together they fill what they hold
    /// on to.
    ///
    /// # Errors
    /// As [`Pile::push`].
    pub(super) async fn close_with(mut self, last: &mut Vec<Bytes>) -> io::Result<Closed> {
        let is_all = self.bytes == 0 && last.iter().map(Bytes::len).sum::<usize>() <= FREE;
        if is_all {
            return Ok(Closed { body: spool::Body::Held(std::mem::take(last)), _share: self.share });
        }
        self.push_all(last).await?;
        self.close().await
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    async fn spill(&mut self) -> io::Result<()> {
        self.close_tail();
        self.share.write(self.held as u64)?;
        let mut file = match &mut self.file {
            Some(file) => file.clone(),
            none => none.insert(self.share.room.file().await?).clone(),
        };
        let pieces = std::mem::take(&mut self.pieces);
        // As they are: tokio's files copy what they write, and each keeps a buffer for that.
        let writing = tokio::task::spawn_blocking(move || pieces.iter().try_for_each(|piece| file.write_all(piece)));
        writing.await.map_err(io::Error::other)??;
        self.held = 0;
        self.share.covers(0);
        Ok(())
    }

    /// # Errors
    /// When the file cannot be written.
    pub(super) async fn close(mut self) -> io::Result<Closed> {
        self.close_tail();
        if self.file.is_some() {
            self.spill().await?;
        }
        let body = match self.file {
            None => spool::Body::Held(self.pieces),
            Some(file) => spool::Body::File(file, self.bytes),
        };
        Ok(Closed { body, _share: self.share })
    }
}

/// A whole body, to be sent or kept as often as is needed.
#[derive(Debug)]
pub(super) struct Closed {
    body: spool::Body,
    /// Held as long as the body is.
    _share: Share,
}

impl Closed {
    pub(super) fn payload(&self) -> Payload<'_> {
        match &self.body {
            spool::Body::Held(pieces) => Payload::held(pieces),
            spool::Body::File(file, bytes) => Payload::read(*bytes, blocks(file.clone(), 0..*bytes)),
        }
    }

    pub(super) fn body(&self) -> spool::Body {
        self.body.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_draft_is_nobody_elses_to_read_and_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = Room::of(directory.path().to_owned(), 0, 0).file().await.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn drafts_take_no_more_of_the_disk_than_they_may_and_give_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::of(directory.path().to_owned(), MOST_OF_ALL, 5 << 20);
        let block = Bytes::from(vec![0; BLOCK]);
        let fill = async |mebibytes: usize| {
            let mut pile = Pile::new(&room);
            for _ in 0..mebibytes << 2 {
                pile.push(block.clone()).await?;
            }
            pile.close().await
        };
        let first = fill(3).await.unwrap();
        assert_eq!(
            (room.held(), room.0.written.load(Ordering::Relaxed)),
            (0, 3 << 20),
            "what is on disk is in no memory"
        );
        assert_eq!(fill(3).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let second = fill(2).await.unwrap();
        drop(first);
        fill(3).await.unwrap();
        drop(second);
        assert_eq!(room.0.written.load(Ordering::Relaxed), 0);
    }
    #[tokio::test]
    async fn what_is_closed_with_takes_its_share_of_the_memory_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::of(directory.path().to_owned(), MOST_OF_ALL, 0);
        for (bytes, held) in [(FREE, 0), (FREE + 1, FREE)] {
            let closed = Pile::new(&room).close_with(&mut vec![vec![0; bytes].into()]).await.unwrap();
            assert_eq!(room.held(), held, "{bytes}");
            drop(closed);
            assert_eq!(room.held(), 0);
        }
    }
}
