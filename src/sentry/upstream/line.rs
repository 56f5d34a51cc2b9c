//! One connection to an upstream, and HTTP/1.1 on it as RFC 9112 has it for clients: one request at a time, written from where
//! its parts lie, and read no further than its answer goes.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::payload::Payload;
use crate::machinery::alarm::Alarm;
use crate::machinery::http1::{Extent, Fields, LONGEST_HEAD, Next, invalid, is_kept, poll_write};

/// Nearly every answer has room in this, in bytes.
const ROOM: usize = 4 << 10;
/// What is read at once of a long one.
const BLOCK: usize = 16 << 10;
const MOST_HEADERS: usize = 128;
/// A body of so many bytes or fewer is written with its head.
pub(super) const JOINED: u64 = 16 << 10;

/// A connection, on which one request follows another.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    /// Read, and not yet made sense of.
    read: BytesMut,
    alarm: Alarm<Box<Sleep>>,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    head: Vec<u8>,
    /// Of the head, in bytes.
    sent: usize,
    payload: Payload<'a>,
    is_head_asked: bool,
    is_begun: bool,
    is_sent: bool,
    /// Why no more of it could be sent.
    broken: Option<io::Error>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// It took too long.
    Late,
    Broken(io::Error),
    /// The body could not be read to its end.
    Unreadable,
}

/// The beginning of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
    pub(super) extent: Extent,
    /// Whether the line may be asked again, once all of the body has been read.
    pub(super) is_kept: bool,
}

impl<'a> Outgoing<'a> {
    /// A small body is written with its head, as one part: that costs less than several.
    pub(super) fn new(mut head: Vec<u8>, mut payload: Payload<'a>, method: &Method) -> Self {
        let is_head_asked = method == Method::HEAD;
        if payload.size() <= JOINED {
            payload.parts().for_each(|part| head.extend_from_slice(part));
            payload.advance(usize::MAX);
        }
        Self { head, sent: 0, payload, is_head_asked, is_begun: false, is_sent: false, broken: None }
    }

    /// Whether no byte of it has been sent.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_begun
    }

    fn advance(&mut self, mut sent: usize) {
        self.is_begun |= sent > 0;
        let of_head = sent.min(self.head.len() - self.sent);
        self.sent += of_head;
        sent -= of_head;
        self.payload.advance(sent);
    }

    /// What is left of the head.
    fn head(&self) -> &[u8] {
        self.head.get(self.sent..).unwrap_or_default()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: BytesMut::new(), alarm: Alarm::new(Box::pin(tokio::time::sleep(Duration::ZERO))) }
    }

    /// Whether it is open, and nothing has come that nobody asked for.
    pub(super) fn is_quiet(&mut self, context: &mut Context<'_>) -> bool {
        self.read.is_empty() && self.poll_fill(context, ROOM).is_pending()
    }

    /// Whether all that came has been made sense of.
    fn is_drained(&self) -> bool {
        self.read.is_empty()
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < room / 4 {
            self.read.reserve(room);
        }
        pin!(self.stream.read_buf(&mut self.read)).poll(context)
    }

    /// Sends a request and reads the head of its answer. An answer may come before all is sent, and is the last one then.
    pub(super) async fn exchange(&mut self, request: &mut Outgoing<'_>, deadline: Instant) -> Result<Head, Fault> {
        poll_fn(|context| match self.poll_exchange(context, request) {
            Poll::Pending => self.alarm.poll(deadline, context).map(|()| Err(Fault::Late)),
            ready @ Poll::Ready(_) => ready,
        })
        .await
    }

    fn poll_exchange(&mut self, context: &mut Context<'_>, request: &mut Outgoing<'_>) -> Poll<Result<Head, Fault>> {
        if !request.is_sent && request.broken.is_none() {
            match self.poll_send(context, request) {
                Poll::Ready(Ok(())) => request.is_sent = true,
                // Who closes early may have said why.
                Poll::Ready(Err(Fault::Broken(error))) => request.broken = Some(error),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => {}
            }
        }
        loop {
            match Head::take(&mut self.read, request.is_head_asked) {
                Ok(Some(mut head)) => {
                    head.is_kept &= request.is_sent;
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(Fault::Broken(error))),
            }
            let error = match ready!(self.poll_fill(context, ROOM)) {
                Ok(1..) => continue,
                Ok(0) => io::Error::new(ErrorKind::UnexpectedEof, "it was closed before an answer"),
                Err(error) => error,
            };
            return Poll::Ready(Err(Fault::Broken(request.broken.take().unwrap_or(error))));
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, request: &mut Outgoing<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if request.head().is_empty()
                && !ready!(request.payload.poll_more(context)).map_err(|_| Fault::Unreadable)?
            {
                break;
            }
            let head = Some(request.head()).filter(|head| !head.is_empty());
            let parts = head.into_iter().chain(request.payload.parts());
            let sent = ready!(poll_write(&mut self.stream, parts, context)).map_err(Fault::Broken)?;
            request.advance(sent);
        }
        Pin::new(&mut self.stream).poll_flush(context).map_err(Fault::Broken)
    }

    /// The next of an answer's body; `None` at its end.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        extent: &mut Extent,
    ) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match extent.take(&mut self.read)? {
                Next::Piece(piece) => return Poll::Ready(Ok(Some(piece))),
                Next::End => return Poll::Ready(Ok(None)),
                Next::Missing => {}
            }
            if ready!(self.poll_fill(context, BLOCK))? == 0 {
                return Poll::Ready(match extent {
                    Extent::UntilClosed => Ok(None),
                    _ => Err(io::Error::new(ErrorKind::UnexpectedEof, "it was closed within an answer")),
                });
            }
        }
    }

    /// The whole body, if all of it has come, and whether the line has nothing more to say then.
    pub(super) fn whole_body(&mut self, extent: &mut Extent) -> Option<(Bytes, bool)> {
        let left = usize::try_from(extent.left()?).ok().filter(|left| *left <= self.read.len());
        left?;
        match extent.take(&mut self.read) {
            Ok(Next::Piece(piece)) => Some((piece, self.is_drained())),
            _ => Some((Bytes::new(), self.is_drained())),
        }
    }

    /// Whether the next answer may be awaited after a body that went so far.
    pub(super) fn is_at_end(&self, extent: &Extent) -> bool {
        self.is_drained() && extent.is_over()
    }
}

impl Head {
    /// `None` until all of it has come. What is said before the answer is passed over.
    fn take(read: &mut BytesMut, is_head_asked: bool) -> io::Result<Option<Self>> {
        while !read.is_empty() {
            let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut []);
            let parser = httparse::ParserConfig::default();
            let parsed = parser.parse_response_with_uninit_headers(&mut response, read, &mut room);
            let length = match parsed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
                httparse::Status::Complete(length) => length,
                httparse::Status::Partial if read.len() < LONGEST_HEAD => return Ok(None),
                httparse::Status::Partial => return Err(invalid("the head of its answer has no end")),
            };
            let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.ok_or_else(|| invalid("its answer has no status"))?;
            if status.is_informational() {
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(invalid("it speaks of another protocol, which nobody asked for"));
                }
                read.advance(length);
                continue;
            }
            let is_old = response.version == Some(0);
            let fields = Fields::read(read.get(..length).unwrap_or_default(), response.headers);
            let mut fields = fields.ok_or_else(|| invalid("its answer has a header that is none"))?;
            read.advance(length);
            // Chunks count, and who else reads this may have seen another end.
            let is_twofold = fields.contains(&TRANSFER_ENCODING) && fields.remove(&CONTENT_LENGTH);
            let extent = extent(&fields, status, is_head_asked)?;
            let is_kept = !is_twofold && is_kept(&fields, is_old) && extent != Extent::UntilClosed;
            return Ok(Some(Self { status, fields, extent, is_kept }));
        }
        Ok(None)
    }
}

/// RFC 9112, 6.3.
fn extent(fields: &Fields, status: StatusCode, is_head_asked: bool) -> io::Result<Extent> {
    if is_head_asked || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Extent::Length(0));
    }
    Ok(Extent::told(fields)?.unwrap_or(Extent::UntilClosed))
}

#[cfg(test)]
mod tests;
