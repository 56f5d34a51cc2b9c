//! HTTP/1.1 as bytes (RFC 9112): how far a body goes, and whether its connection may be used again. Pure.
//!
//! What two readers could take for two things is no message here: a length that is none, two of them, a transfer coding but
//! `chunked`.

mod fields;
pub mod server;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use memchr::memchr;
use tokio::io::AsyncWrite;

pub use fields::{Fields, is_same};

/// More than this a head does not have, in bytes.
pub const LONGEST_HEAD: usize = 64 << 10;
/// The line that tells a chunk's size, or a trailer.
const LONGEST_LINE: usize = 4 << 10;
const LONGEST_TRAILERS: usize = 16 << 10;
/// What one write takes parts from.
const SLICES: usize = 16;
/// Less than this is copied out of the buffer, which then needs not be made anew.
const SMALL: usize = 4 << 10;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply<B> {
    pub status: StatusCode,
    pub fields: Fields,
    pub body: B,
}

impl<B> Reply<B> {
    /// That all is well.
    pub fn new(body: B) -> Self {
        Self { status: StatusCode::OK, fields: Fields::default(), body }
    }
}

/// How far a body goes yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Extent {
    Length(u64),
    Chunked(Chunked),
    /// Up to where the connection ends.
    UntilClosed,
}

/// Where in a chunked body we are.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunked {
    Size,
    Data(u64),
    /// At the end of the line behind a chunk.
    DataEnd,
    /// With so many bytes of them seen.
    Trailers(usize),
    End,
}

/// What more of a body there is.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Piece(Bytes),
    End,
    /// More has to be read first.
    Missing,
}

impl Extent {
    /// What the headers say; `None` when they say nothing.
    ///
    /// # Errors
    /// When there is no telling, or more than one way to.
    pub fn told(fields: &Fields) -> io::Result<Option<Self>> {
        let (mut codings, mut lengths) = (fields.all(&TRANSFER_ENCODING), fields.all(&CONTENT_LENGTH));
        let length = lengths.next();
        if let Some(coding) = codings.next() {
            let is_plain = codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked");
            if !is_plain || length.is_some() {
                return Err(invalid("the body is in a transfer coding that nobody asked for, or has a length besides"));
            }
            return Ok(Some(Self::Chunked(Chunked::Size)));
        }
        let Some(length) = length else { return Ok(None) };
        let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        let digits = std::str::from_utf8(length).ok().filter(|_| is_number);
        let bytes = digits.and_then(|digits| digits.parse().ok());
        match bytes.filter(|_| lengths.all(|other| other == length)) {
            Some(bytes) => Ok(Some(Self::Length(bytes))),
            None => Err(invalid("the length of the body is none")),
        }
    }

    /// In bytes, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunked::End) => Some(0),
            Self::Chunked(_) | Self::UntilClosed => None,
        }
    }

    /// Whether its end has been seen.
    pub fn is_over(&self) -> bool {
        self.left() == Some(0)
    }

    /// All that is left of it, if that is just what has been `read`: the buffer itself goes, and nothing is copied.
    pub fn take_all(&mut self, read: &mut BytesMut) -> Option<Bytes> {
        let left = match self {
            Self::Length(left) if *left > 0 && *left == read.len() as u64 => left,
            _ => return None,
        };
        *left = 0;
        Some(std::mem::take(read).freeze())
    }

    /// Takes what has been `read` of it.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub fn take(&mut self, read: &mut BytesMut) -> io::Result<Next> {
        match self {
            Self::Length(0) => Ok(Next::End),
            Self::Length(left) => Ok(some(left, read)),
            Self::Chunked(chunked) => chunked.take(read),
            Self::UntilClosed if read.is_empty() => Ok(Next::Missing),
            Self::UntilClosed => Ok(Next::Piece(read.split().freeze())),
        }
    }
}

impl Chunked {
    /// RFC 9112, 7.1. Extensions and trailers are passed over.
    fn take(&mut self, read: &mut BytesMut) -> io::Result<Next> {
        loop {
            *self = match self {
                Self::Size => {
                    let Some(line) = line(read)? else { return Ok(Next::Missing) };
                    let end = memchr(b';', &line).unwrap_or(line.len());
                    let digits = line.get(..end).unwrap_or_default().trim_ascii_end();
                    match size(digits).ok_or_else(|| invalid("a chunk has no size"))? {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    }
                }
                Self::Data(0) => Self::DataEnd,
                Self::Data(left) => return Ok(some(left, read)),
                Self::DataEnd => match read.get(..2) {
                    None => return Ok(Next::Missing),
                    Some(b"\r\n") => {
                        read.advance(2);
                        Self::Size
                    }
                    Some(_) => return Err(invalid("a chunk is longer than it says")),
                },
                Self::Trailers(seen) => {
                    let Some(line) = line(read)? else { return Ok(Next::Missing) };
                    let seen = *seen + line.len();
                    if seen > LONGEST_TRAILERS {
                        return Err(invalid("the trailers have no end"));
                    }
                    if line.is_empty() { Self::End } else { Self::Trailers(seen) }
                }
                Self::End => return Ok(Next::End),
            }
        }
    }
}

fn some(left: &mut u64, read: &mut BytesMut) -> Next {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= here as u64;
    if here > 0 { Next::Piece(take(read, here)) } else { Next::Missing }
}

fn take(read: &mut BytesMut, length: usize) -> Bytes {
    if length >= SMALL {
        return read.split_to(length).freeze();
    }
    let taken = Bytes::copy_from_slice(read.get(..length).unwrap_or_default());
    read.advance(taken.len());
    taken
}

/// Without its end; `None` until that has come.
fn line(read: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    match memchr(b'\n', read) {
        Some(end) if end <= LONGEST_LINE => {
            let mut line = read.split_to(end + 1);
            if !line.ends_with(b"\r\n") {
                return Err(invalid("a line has no end"));
            }
            line.truncate(end - 1);
            Ok(Some(line))
        }
        None if read.len() <= LONGEST_LINE => Ok(None),
        _ => Err(invalid("a chunk's size has no end")),
    }
}

/// Hexadecimal, without a sign.
fn size(digits: &[u8]) -> Option<u64> {
    let is_number = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

/// Whether the other side wants the connection to stay, which before HTTP/1.1 it had to say.
pub fn is_kept(fields: &Fields, is_old: bool) -> bool {
    let mut options = fields.texts(&CONNECTION).flat_map(|value| value.split(',')).map(str::trim);
    if is_old {
        options.any(|option| option.eq_ignore_ascii_case("keep-alive"))
    } else {
        !options.any(|option| option.eq_ignore_ascii_case("close"))
    }
}

/// Writes as much of the parts as goes at once.
pub fn poll_write<'a>(
    stream: &mut (impl AsyncWrite + Unpin),
    parts: impl Iterator<Item = &'a [u8]>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
        count += 1;
    }
    let written = match slices.get(..count).unwrap_or_default() {
        // The plain call costs less.
        [only] => ready!(Pin::new(stream).poll_write(context, only)),
        slices => ready!(Pin::new(stream).poll_write_vectored(context, slices)),
    };
    Poll::Ready(written.and_then(|written| if written > 0 { Ok(written) } else { Err(ErrorKind::WriteZero.into()) }))
}

/// Appends the line that tells a body's length.
pub fn put_length(head: &mut Vec<u8>, bytes: u64) {
    put_field(head, b"content-length", itoa::Buffer::new().format(bytes).as_bytes());
}

/// Appends the line of a field.
pub fn put_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.reserve(name.len() + value.len() + 4);
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// So much of the parts has been written.
pub fn advance(parts: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = parts.front_mut().filter(|_| written > 0) {
        let here = written.min(first.len());
        first.advance(here);
        written -= here;
        if first.is_empty() {
            parts.pop_front();
        }
    }
}

/// Neither side can go on from here.
pub fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Fields {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect()
    }

    #[test]
    fn a_body_goes_as_far_as_its_headers_say_if_they_say_one_thing() {
        let (chunked, length) = ("transfer-encoding", "content-length");
        let mut twice = headers(&[(length, "5")]);
        twice.push(&CONTENT_LENGTH, "5");
        assert_eq!(Extent::told(&twice).unwrap(), Some(Extent::Length(5)));
        twice.push(&CONTENT_LENGTH, "6");
        assert!(Extent::told(&twice).is_err());
        assert_eq!(Extent::told(&headers(&[])).unwrap(), None);
        assert_eq!(Extent::told(&headers(&[(length, "0")])).unwrap(), Some(Extent::Length(0)));
        let told = Extent::told(&headers(&[(chunked, "Chunked")])).unwrap();
        assert_eq!(told, Some(Extent::Chunked(Chunked::Size)));
        for wrong in ["", "+5", "-5", "5, 5", "0x5", "5 5", "99999999999999999999"] {
            assert!(Extent::told(&headers(&[(length, wrong)])).is_err(), "{wrong}");
        }
        for wrong in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", ""] {
            assert!(Extent::told(&headers(&[(chunked, wrong)])).is_err(), "{wrong}");
        }
        assert!(Extent::told(&headers(&[(chunked, "chunked"), (length, "5")])).is_err(), "two readers would differ");
    }

    /// All of it, as it comes in pieces of so many bytes, and what is left over.
    fn read(mut extent: Extent, text: &[u8], piece: usize) -> io::Result<(Vec<u8>, Vec<u8>, bool)> {
        let (mut read, mut body) = (BytesMut::new(), Vec::new());
        for chunk in text.chunks(piece) {
            read.extend_from_slice(chunk);
            while let Next::Piece(piece) = extent.take(&mut read)? {
                body.extend_from_slice(&piece);
            }
        }
        Ok((body, read.to_vec(), extent.is_over()))
    }

    #[test]
    fn chunks_are_the_same_body_however_they_come() {
        let text = b"5\r\nhello\r\n006;a=\"b\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for piece in 1..=text.len() {
            let (body, rest, is_over) = read(Extent::Chunked(Chunked::Size), text, piece).unwrap();
            assert_eq!(
                (body.as_slice(), rest.as_slice(), is_over),
                (&b"hello world"[..], &b"GET"[..], true),
                "{piece}"
            );
            let (body, rest, is_over) = read(Extent::Length(5), b"helloGET", piece).unwrap();
            assert_eq!((body.as_slice(), rest.as_slice(), is_over), (&b"hello"[..], &b"GET"[..], true), "{piece}");
        }
        assert!(!read(Extent::Chunked(Chunked::Size), b"5\r\nhello\r\n0\r\n", 9).unwrap().2, "there may be trailers");
    }

    #[test]
    fn a_buffer_goes_as_a_whole_only_if_it_is_the_rest_of_a_body() {
        for (mut extent, text, goes) in [
            (Extent::Length(5), "hello", true),
            (Extent::Length(5), "hell", false),
            (Extent::Length(5), "helloG", false),
            (Extent::Length(0), "", false),
            (Extent::Chunked(Chunked::Data(5)), "hello", false),
            (Extent::UntilClosed, "hello", false),
        ] {
            let mut read = BytesMut::from(text);
            let taken = extent.take_all(&mut read);
            assert_eq!(taken.as_deref(), goes.then_some(text.as_bytes()), "{extent:?} {text}");
            assert_eq!((read.is_empty(), extent.is_over()), (goes || text.is_empty(), goes || text.is_empty()));
        }
    }

    #[test]
    fn what_is_no_chunk_is_none_and_nothing_is_read_without_end() {
        let long = "1;".to_owned() + &"a".repeat(LONGEST_LINE);
        let trailers = "0\r\n".to_owned() + &"a: b\r\n".repeat(LONGEST_TRAILERS);
        let table: [&str; 11] = [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            " 1\r\na\r\n",
            "0x1\r\n",
            "11111111111111111\r\n",
            "1\nab\r\n",
            "1\r\nab\r\n",
            &long,
            &trailers,
        ];
        for text in table {
            let shown = &text[..text.len().min(20)];
            assert!(read(Extent::Chunked(Chunked::Size), text.as_bytes(), 7).is_err(), "{shown:?}");
        }
    }

    #[test]
    fn a_connection_stays_unless_somebody_says_otherwise() {
        let table = [
            (&[][..], false, true),
            (&[("connection", "close")], false, false),
            (&[("connection", "x, Close")], false, false),
            (&[], true, false),
            (&[("connection", "Keep-Alive")], true, true),
        ];
        for (pairs, is_old, kept) in table {
            assert_eq!(is_kept(&headers(pairs), is_old), kept, "{pairs:?}");
        }
    }
}
