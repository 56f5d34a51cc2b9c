//! A body on its way to an upstream. Its length is always known.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;

use crate::machinery::http1::advance;

/// The body of a request: pieces in memory, or a stream.
pub struct Payload {
    /// What is sent next.
    held: VecDeque<Bytes>,
    /// What comes behind that, read as it is sent.
    read: Option<Reading>,
    bytes: u64,
}

struct Reading {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>,
    left: u64,
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Payload({} bytes)", self.bytes)
    }
}

impl Payload {
    pub fn held(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let held: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let bytes = held.iter().map(|piece| piece.len() as u64).sum();
        Self { held, read: None, bytes }
    }

    /// A stream of `bytes` in all. One that ends early, or fails, breaks the request off.
    pub fn read(bytes: u64, stream: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Self {
        let read = Reading { stream: Box::pin(stream), left: bytes };
        Self { held: VecDeque::new(), read: Some(read), bytes }
    }

    /// In bytes, of which some may have been sent.
    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    /// What can be sent.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.held.iter()
    }

    /// So much of it has been sent.
    pub(super) fn advance(&mut self, sent: usize) {
        advance(&mut self.held, sent);
    }

    /// Sees to it that there is something to send. Returns `false` when all has been.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.held.is_empty() {
            let Some(reading) = self.read.as_mut().filter(|reading| reading.left > 0) else {
                return Poll::Ready(Ok(false));
            };
            let Some(piece) = ready!(reading.stream.as_mut().poll_next(context)).transpose()? else {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            let left = reading.left.checked_sub(piece.len() as u64);
            // More would be taken for the next request.
            reading.left = left.ok_or(io::ErrorKind::InvalidData)?;
            self.held.extend(Some(piece).filter(|piece| !piece.is_empty()));
        }
        Poll::Ready(Ok(true))
    }
}
