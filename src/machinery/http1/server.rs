//! HTTP/1.1 on a connection that somebody else has opened: one request after another, and each answer before the next.
//!
//! A request's body is read while it is answered. Who closes the connection, or only its own side of it, waits for no answer:
//! then the answering is dropped.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{DATE, EXPECT};
use http::{Method, StatusCode, Uri};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Extent, Fields, LONGEST_HEAD, Next, Reply, SLICES, advance, is_kept, is_same, poll_write, put_field, put_length,
};
use crate::machinery::alarm::Alarm;
use crate::machinery::clock::Clock;

const MOST_HEADERS: usize = 64;
/// Nearly every request has room in this, in bytes.
const ROOM: usize = 8 << 10;
/// What is read at once of a long one.
const MOST_ROOM: usize = 128 << 10;
/// A body up to this is given out in one piece, as nearly all are that must be looked into as a whole, …
const GATHERED: u64 = 128 << 10;
/// … as long as all that are gathered at once are not more.
const MOST_GATHERED: usize = 16 << 20;
/// An answer up to this is written with its head, as one part: that costs less than several.
const JOINED: u64 = 4 << 10;
/// Who takes nothing of an answer for so long is left.
const STALLED: Duration = Duration::from_secs(30);
/// Who has sent what nobody read gets so long to read why, before the connection is broken off, …
const LINGER: Duration = Duration::from_secs(1);
/// … and may send so much more.
const MOST_LINGERED: usize = 1 << 20;

/// Whatever went wrong.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The address without the port, an IPv4 one as such, as headers name it.
    pub name: String,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self { address, name: address.ip().to_canonical().to_string() }
    }
}

/// A request whose body has not been read.
#[derive(Debug)]
pub struct Request<'a, 's> {
    pub method: Method,
    pub target: Uri,
    pub fields: Fields,
    pub body: Incoming<'a, 's>,
}

/// Answers requests.
pub trait Responder: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin;

    fn respond(&self, request: Request<'_, '_>, peer: &Peer) -> impl Future<Output = Reply<Self::Body>> + Send;
}

/// Until either side has had enough, or it is time to stop; what has begun by then comes to its end. `head_time` is from
/// connecting, or from the answer before, to the end of a request's head.
///
/// # Errors
/// When the connection breaks. That is nobody's fault here.
pub(in crate::machinery) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    responder: Arc<impl Responder>,
    head_time: Duration,
    stop: CancellationToken,
) -> io::Result<()> {
    let (peer, (mut reader, mut writer)) = (Peer::new(peer), stream.split());
    let mut read = BytesMut::new();
    let (stopped, timer) = (pin!(stop.cancelled()), pin!(sleep_until(Instant::now() + head_time)));
    let mut awaiting = Awaiting { stop: stopped, alarm: Alarm::new(timer) };
    loop {
        let head = match awaiting.head(&mut reader, &mut read, head_time).await? {
            Ok(Some(head)) => head,
            Ok(None) => return writer.shutdown().await,
            Err(status) => {
                let refusal = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                writer.write_all(refusal.as_bytes()).await?;
                return linger(&mut reader, &mut writer).await;
            }
        };
        let Head { method, target, fields, mut extent, is_old, is_kept } = head;
        let manner = Manner { is_old, is_bare: method == Method::HEAD };
        let is_awaited = !is_old && fields.get(&EXPECT).is_some_and(is_continue);
        let has_come = AtomicBool::new(extent.is_over());
        let answer = {
            let gathering = Gathering::of(extent.left());
            let (reader, read, extent, has_come) = (&mut reader, &mut read, &mut extent, &has_come);
            let body = Incoming { reader, read, extent, has_come, is_awaited, gathering, room: ROOM };
            let mut answering = pin!(responder.respond(Request { method, target, fields, body }, &peer));
            let answered = poll_fn(|context| match answering.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                // Until the body has come, it is that which sees the end.
                Poll::Pending if has_come.load(Ordering::Relaxed) && is_gone(writer.as_ref(), context) => {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            });
            answered.await
        };
        let Some(answer) = answer else { return Ok(()) };
        let is_last = !is_kept || !has_come.load(Ordering::Relaxed) || stop.is_cancelled();
        if write(&mut writer, answer, manner, is_last).await? {
            return if has_come.load(Ordering::Relaxed) {
                writer.shutdown().await
            } else {
                linger(&mut reader, &mut writer).await
            };
        }
    }
}

/// Or else what was not read would break the connection before the answer is.
async fn linger(reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>) -> io::Result<()> {
    writer.shutdown().await?;
    let mut left = MOST_LINGERED;
    let reading = async {
        let mut unread = vec![0; 8 << 10];
        while left > 0 {
            match reader.read(&mut unread).await {
                Ok(read @ 1..) => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    // Who has not read it by then does not want to.
    let _ = tokio::time::timeout(LINGER, reading).await;
    Ok(())
}

fn is_continue(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"100-continue")
}

/// What comes early of a next request is no end.
fn is_gone(stream: &TcpStream, context: &mut Context<'_>) -> bool {
    let mut byte = [0];
    matches!(stream.poll_peek(context, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(0) | Err(_)))
}

fn poll_fill(
    reader: &mut ReadHalf<'_>,
    read: &mut BytesMut,
    room: usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if read.capacity() - read.len() < room / 4 {
        read.reserve(room);
    }
    pin!(reader.read_buf(read)).poll(context)
}

/// The time between two requests.
struct Awaiting<'a, S> {
    stop: Pin<&'a mut S>,
    alarm: Alarm<&'a mut Sleep>,
}

impl<S: Future<Output = ()>> Awaiting<'_, S> {
    /// The next request, `None` when there is none, or a status for what is none.
    async fn head(
        &mut self,
        reader: &mut ReadHalf<'_>,
        read: &mut BytesMut,
        time: Duration,
    ) -> io::Result<Result<Option<Head>, StatusCode>> {
        let deadline = Instant::now() + time;
        poll_fn(|context| {
            loop {
                match Head::take(read) {
                    Ok(None) => {}
                    taken => return Poll::Ready(Ok(taken)),
                }
                if read.is_empty() && reader.as_ref().poll_read_ready(context)?.is_pending() {
                    break;
                }
                match poll_fill(reader, read, ROOM, context)? {
                    Poll::Ready(0) => return Poll::Ready(Ok(Ok(None))),
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
            }
            if read.is_empty() {
                // Nobody knows how long that will last.
                *read = BytesMut::new();
                if self.stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(Ok(None)));
                }
            }
            self.alarm.poll(deadline, context).map(|()| Ok(Ok(None)))
        })
        .await
    }
}

/// All of a request but its body.
struct Head {
    method: Method,
    target: Uri,
    fields: Fields,
    extent: Extent,
    /// Older than HTTP/1.1.
    is_old: bool,
    is_kept: bool,
}

impl Head {
    /// `None` until all of it has come.
    fn take(read: &mut BytesMut) -> Result<Option<Self>, StatusCode> {
        if read.is_empty() {
            return Ok(None);
        }
        let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut head = httparse::Request::new(&mut []);
        let length = match head.parse_with_uninit_headers(read, &mut room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if read.len() < LONGEST_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            }
            Err(_) => return Err(StatusCode::BAD_REQUEST),
        };
        let head = Self::read(&head, read.get(..length).unwrap_or_default()).ok_or(StatusCode::BAD_REQUEST)?;
        read.advance(length);
        Ok(Some(head))
    }

    fn read(head: &httparse::Request<'_, '_>, text: &[u8]) -> Option<Self> {
        let is_old = head.version? == 0;
        let fields = Fields::read(text, head.headers)?;
        let extent = Extent::told(&fields).ok()?.unwrap_or(Extent::Length(0));
        if is_old && matches!(extent, Extent::Chunked(_)) {
            return None;
        }
        let method = Method::from_bytes(head.method?.as_bytes()).ok()?;
        let target = head.path?.parse().ok()?;
        let is_kept = is_kept(&fields, is_old);
        Some(Self { method, target, fields, extent, is_old, is_kept })
    }
}

/// A body that is to come in one piece; no longer counted when dropped.
#[derive(Debug)]
struct Gathering(usize);

static ALL_GATHERED: AtomicUsize = AtomicUsize::new(0);

impl Gathering {
    fn of(left: Option<u64>) -> Self {
        let bytes = left.filter(|left| *left <= GATHERED).and_then(|left| usize::try_from(left).ok()).unwrap_or(0);
        let gathering = Self(bytes);
        let is_too_much = ALL_GATHERED.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST_GATHERED;
        // What was counted is taken off again.
        if is_too_much { Self(0) } else { gathering }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        ALL_GATHERED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The body of a request, read as it is asked for.
#[derive(Debug)]
pub struct Incoming<'a, 's> {
    reader: &'a mut ReadHalf<'s>,
    read: &'a mut BytesMut,
    extent: &'a mut Extent,
    has_come: &'a AtomicBool,
    /// The sender waits for leave to send it.
    is_awaited: bool,
    gathering: Gathering,
    /// What is read at once.
    room: usize,
}

impl Incoming<'_, '_> {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let wanted = self.gathering.0;
            if let Some(rest) = self.extent.take_all(self.read) {
                return Poll::Ready(Ok(Some(rest)));
            }
            if self.extent.is_over() || self.read.len() >= wanted {
                match self.extent.take(self.read)? {
                    Next::Piece(piece) => return Poll::Ready(Ok(Some(piece))),
                    Next::End => return Poll::Ready(Ok(None)),
                    Next::Missing => {}
                }
            }
            if std::mem::take(&mut self.is_awaited) && self.read.is_empty() {
                self.let_go_on()?;
            }
            let missing = wanted.saturating_sub(self.read.len());
            let filled = poll_fill(self.reader, self.read, self.room.max(missing), context);
            if filled.is_pending() && self.read.is_empty() {
                // Nobody knows how long that will last.
                *self.read = BytesMut::new();
            }
            let read = ready!(filled)?;
            if read == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            if read >= self.room {
                self.room = (self.room * 2).min(MOST_ROOM);
            }
        }
    }

    /// Nothing has been written yet that is not read: there is room for so little.
    fn let_go_on(&self) -> io::Result<()> {
        const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let written = self.reader.as_ref().try_write(GO_ON)?;
        if written == GO_ON.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }
}

impl Body for Incoming<'_, '_> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = ready!(self.poll_next(context));
        self.has_come.store(self.extent.is_over(), Ordering::Relaxed);
        Poll::Ready(next.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.extent.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.extent.left().map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// How an answer has to be.
#[derive(Clone, Copy)]
struct Manner {
    is_old: bool,
    /// Without a body, whatever its headers say.
    is_bare: bool,
}

/// How a body is told from what comes after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// It has none.
    Bare,
    Length(u64),
    Chunked,
    UntilClosed,
}

/// Returns whether the connection has to end with it.
async fn write<B>(writer: &mut WriteHalf<'_>, answer: Reply<B>, manner: Manner, is_last: bool) -> io::Result<bool>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let Reply { status, fields, mut body } = answer;
    let is_bare = manner.is_bare || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match body.size_hint().exact() {
        _ if is_bare => Framing::Bare,
        Some(bytes) => Framing::Length(bytes),
        None if manner.is_old => Framing::UntilClosed,
        None => Framing::Chunked,
    };
    let is_last = is_last || framing == Framing::UntilClosed;
    let mut head = head(status, &fields, framing, manner, is_last);
    // What is not there yet is asked for once more below.
    if matches!(framing, Framing::Length(1..=JOINED))
        && let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()))
    {
        head.extend_from_slice(&frame.map_err(io::Error::other)?.into_data().unwrap_or_default());
    }
    let mut is_over = framing == Framing::Bare || (body.is_end_stream() && framing != Framing::Chunked);
    let written = match is_over.then(|| writer.try_write(&head)) {
        Some(Ok(written)) if written == head.len() => return Ok(is_last),
        Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => return Err(error),
        Some(Ok(written)) => written,
        Some(Err(_)) | None => 0,
    };
    let mut queue = Queue::default();
    queue.push(head.into());
    advance(&mut queue.parts, written);
    let mut stalled = None;
    poll_fn(|context| {
        loop {
            while !is_over && queue.has_room() {
                match Pin::new(&mut body).poll_frame(context).map_err(io::Error::other)? {
                    Poll::Ready(Some(frame)) => {
                        let piece = frame.into_data().unwrap_or_default();
                        if !piece.is_empty() {
                            queue.frame(piece, framing);
                        }
                        is_over = body.is_end_stream() && framing != Framing::Chunked;
                    }
                    Poll::Ready(None) => {
                        if framing == Framing::Chunked {
                            queue.push(Bytes::from_static(b"0\r\n\r\n"));
                        }
                        is_over = true;
                    }
                    Poll::Pending => break,
                }
            }
            if queue.is_empty() {
                return match () {
                    () if is_over => Poll::Ready(Ok(is_last)),
                    () if is_gone(writer.as_ref(), context) => Poll::Ready(Err(ErrorKind::ConnectionAborted.into())),
                    () => Poll::Pending,
                };
            }
            let Poll::Ready(written) = poll_write(writer, queue.parts.iter().map(AsRef::as_ref), context) else {
                ready!(stalled.get_or_insert_with(|| Box::pin(sleep(STALLED))).as_mut().poll(context));
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            };
            stalled = None;
            advance(&mut queue.parts, written?);
        }
    })
    .await
}

fn head(status: StatusCode, fields: &Fields, framing: Framing, manner: Manner, is_last: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields.iter() {
        let is_ours = is_same(name, "connection")
            || is_same(name, "transfer-encoding")
            || (framing != Framing::Bare && is_same(name, "content-length"));
        if !is_ours {
            put_field(&mut head, name, value);
        }
    }
    if !fields.contains(&DATE) {
        with_date(|date| put_field(&mut head, b"date", date.as_bytes()));
    }
    match framing {
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Bare | Framing::Length(_) | Framing::UntilClosed => {}
    }
    if is_last {
        head.extend_from_slice(b"connection: close\r\n");
    } else if manner.is_old {
        head.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if let Framing::Length(bytes) = framing {
        put_length(&mut head, bytes);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// As RFC 9110 has it, made once a second.
fn with_date(put: impl FnOnce(&str)) {
    thread_local! {
        static TOLD: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = Clock::system().now().as_millis() / 1_000;
    TOLD.with_borrow_mut(|(second, text)| {
        if *second != now {
            let date = chrono::DateTime::from_timestamp(now, 0).unwrap_or_default();
            (*second, *text) = (now, date.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        put(text);
    });
}

/// What is to be written.
#[derive(Default)]
struct Queue {
    parts: std::collections::VecDeque<Bytes>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// For a chunk and what is around it.
    fn has_room(&self) -> bool {
        self.parts.len() + 3 <= SLICES
    }

    fn push(&mut self, part: Bytes) {
        self.parts.push_back(part);
    }

    fn frame(&mut self, piece: Bytes, framing: Framing) {
        if framing == Framing::Chunked {
            self.push(format!("{:x}\r\n", piece.len()).into());
            self.push(piece);
            self.push(Bytes::from_static(b"\r\n"));
        } else {
            self.push(piece);
        }
    }
}

#[cfg(test)]
mod tests;
