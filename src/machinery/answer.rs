//! What an HTTP server of others answered: taken in under a limit, and put into words. What the answer means is for the
//! rooms that ask.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use chrono::DateTime;
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};

use crate::domain::build::Timestamp;

/// Why a request got no answer.
#[derive(Debug)]
pub enum NotSent {
    Timeout,
    Certificate { why: String },
    Unreachable { why: String },
}

/// Why an answer's body could not be taken in.
#[derive(Debug)]
pub enum Spoilt {
    TooLarge,
    Compression,
    Timeout,
    /// The connection ended within it.
    Broken {
        why: String,
    },
}

pub fn not_sent(error: &reqwest::Error) -> NotSent {
    if error.is_timeout() {
        return NotSent::Timeout;
    }
    let why = innermost(error);
    if why.contains("certificate") { NotSent::Certificate { why } } else { NotSent::Unreachable { why } }
}

/// The whole body, of at most `limit` bytes before and after it is unpacked.
///
/// # Errors
/// When it is larger, broken or cut off.
pub async fn body(response: &mut Response, limit: usize) -> Result<Vec<u8>, Spoilt> {
    let mut intake = Intake::of(response.headers(), limit)?;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => intake.take(&chunk)?,
            Ok(None) => return intake.end(),
            Err(error) if error.is_timeout() => return Err(Spoilt::Timeout),
            Err(error) => return Err(Spoilt::Broken { why: innermost(&error) }),
        }
    }
}

/// The first cause, which alone says what happened; those around it repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    legible(&cause.to_string())
}

/// In seconds. A date, which RFC 9110 allows as well, no server of ours sends.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER.as_str())?.trim().parse().ok().map(Duration::from_secs)
}

/// For messages: neither query nor user.
pub fn address(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

pub fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(legible)
}

/// Proxies are of no use on the way to it.
pub fn is_this_host(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Text of a stranger, short and without control characters.
pub fn legible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    DateTime::parse_from_rfc2822(date).ok().map(|date| Timestamp::from_millis(date.timestamp_millis()))
}

/// Where a body is gathered, and unpacked on its way.
enum Intake {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Intake {
    fn of(headers: &HeaderMap, limit: usize) -> Result<Self, Spoilt> {
        match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).as_deref() {
            None | Some(b"" | b"identity") => Ok(Self::Plain(Capped::of(limit))),
            Some(b"gzip" | b"x-gzip") => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Capped::of(limit))))),
            Some(_) => Err(Spoilt::Compression),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Spoilt> {
        match self {
            Self::Plain(body) => body.write_all(chunk).map_err(|_| Spoilt::TooLarge),
            Self::Gzip(decoder) => decoder.write_all(chunk).map_err(|_| Self::why(decoder.get_ref())),
        }
    }

    fn end(self) -> Result<Vec<u8>, Spoilt> {
        match self {
            Self::Plain(body) => Ok(body.bytes),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) => Ok(std::mem::take(&mut decoder.get_mut().bytes)),
                Err(_) => Err(Self::why(decoder.get_ref())),
            },
        }
    }

    fn why(body: &Capped) -> Spoilt {
        if body.is_full { Spoilt::TooLarge } else { Spoilt::Compression }
    }
}

/// Takes so much and no more.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Capped {
    fn of(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, is_full: false }
    }
}

impl Write for Capped {
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + chunk.len() > self.limit {
            self.is_full = true;
            return Err(std::io::Error::other("full"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
