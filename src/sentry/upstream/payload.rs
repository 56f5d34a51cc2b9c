//! A body on its way to an upstream. Its length is always known.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::Stream;

/// The body of a request: pieces in memory, or a stream.
pub struct Payload<'a> {
    /// What is left of the piece that is sent next, if that is one of …
    first: &'a [u8],
    /// … those in memory, and those behind it.
    held: &'a [Bytes],
    /// Or else it is read as it is sent.
    read: Option<Reading>,
    bytes: u64,
}

struct Reading {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>,
    piece: Bytes,
    left: u64,
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Payload({} bytes)", self.bytes)
    }
}

impl<'a> Payload<'a> {
    pub fn held(pieces: &'a [Bytes]) -> Self {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { first: &[], held: pieces, read: None, bytes }
    }

    /// A stream of `bytes` in all. One that ends early, or fails, breaks the request off.
    pub fn read(bytes: u64, stream: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Self {
        let read = Reading { stream: Box::pin(stream), piece: Bytes::new(), left: bytes };
        Self { first: &[], held: &[], read: Some(read), bytes }
    }

    /// In bytes, of which some may have been sent.
    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    /// What can be sent.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let read = self.read.as_ref().map(|reading| &*reading.piece);
        let parts = read.into_iter().chain([self.first]).chain(self.held.iter().map(AsRef::as_ref));
        parts.filter(|part| !part.is_empty())
    }

    /// So much of it has been sent.
    pub(super) fn advance(&mut self, mut sent: usize) {
        if let Some(reading) = &mut self.read {
            reading.piece.advance(sent.min(reading.piece.len()));
            return;
        }
        loop {
            let here = sent.min(self.first.len());
            self.first.advance(here);
            sent -= here;
            match self.held {
                [next, behind @ ..] if self.first.is_empty() => (self.first, self.held) = (next, behind),
                _ => return,
            }
        }
    }

    /// Sees to it that there is something to send. Returns `false` when all has been.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.parts().next().is_none() {
            let Some(reading) = self.read.as_mut().filter(|reading| reading.left > 0) else {
                return Poll::Ready(Ok(false));
            };
            let Some(piece) = ready!(reading.stream.as_mut().poll_next(context)).transpose()? else {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            let left = reading.left.checked_sub(piece.len() as u64);
            // More would be taken for the next request.
            reading.left = left.ok_or(io::ErrorKind::InvalidData)?;
            reading.piece = piece;
        }
        Poll::Ready(Ok(true))
    }
}
