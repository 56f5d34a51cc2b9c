//! One answer: taken in under its limits, or told apart by what is wrong with it.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use chrono::DateTime;
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use super::{Fault, RestError};
use crate::domain::build::Timestamp;

/// The most that one answer may have, compressed or not.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A whole answer that says it is JSON, or does not say what it is.
#[derive(Debug)]
pub(super) struct Answer {
    at: String,
    pub(super) body: Vec<u8>,
    /// `X-Jenkins`, which every answer of the API has (`hudson.model.Api`).
    pub(super) version: Option<String>,
    pub(super) date: Option<Timestamp>,
}

impl Answer {
    pub(super) async fn read(url: &Url, mut response: Response, patience: Duration) -> Result<Self, RestError> {
        let refuse = |fault| RestError { at: address(url), fault };
        refuse_status(url, &response).map_err(refuse)?;
        let (version, date) = (text(response.headers(), "x-jenkins"), date(response.headers()));
        let is_page = text(response.headers(), CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
        let mut intake = Intake::of(response.headers()).map_err(refuse)?;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => intake.take(&chunk).map_err(refuse)?,
                Ok(None) => break,
                Err(error) => return Err(refuse(broken(&error, patience))),
            }
        }
        let body = intake.end().map_err(refuse)?;
        if is_page || body.trim_ascii_start().starts_with(b"<") {
            return Err(refuse(Fault::Page));
        }
        Ok(Self { at: address(url), body, version, date })
    }

    pub(super) fn refuse(&self, fault: Fault) -> RestError {
        RestError { at: self.at.clone(), fault }
    }
}

/// A syntax error, as far as it says where.
pub(super) fn syntax(error: &serde_json::Error) -> Fault {
    Fault::Syntax { line: error.line(), column: error.column() }
}

/// Why a request got no answer at all.
pub(super) fn not_sent(url: &Url, error: &reqwest::Error, patience: Duration) -> RestError {
    let fault = if error.is_timeout() {
        Fault::Timeout { after: patience }
    } else {
        let why = innermost(error);
        if why.contains("certificate") { Fault::Certificate { why } } else { Fault::Unreachable { why } }
    };
    RestError { at: address(url), fault }
}

fn broken(error: &reqwest::Error, patience: Duration) -> Fault {
    if error.is_timeout() { Fault::Timeout { after: patience } } else { Fault::Broken { why: innermost(error) } }
}

/// The first cause, which alone says what happened; those around it repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    legible(&cause.to_string())
}

fn refuse_status(url: &Url, response: &Response) -> Result<(), Fault> {
    let status = response.status();
    match status {
        StatusCode::UNAUTHORIZED => Err(Fault::Unauthorized),
        // `AccessDeniedException3` of Jenkins core says what is missing.
        StatusCode::FORBIDDEN => {
            let permission = text(response.headers(), "x-required-permission");
            Err(Fault::Forbidden { permission: permission.map(|id| as_people_call_it(&id)) })
        }
        StatusCode::NOT_FOUND => Err(Fault::NotFound),
        status if status.is_redirection() => {
            let to = text(response.headers(), LOCATION.as_str()).and_then(|to| url.join(&to).ok());
            let to = to.map_or_else(|| "nowhere".to_owned(), |to| to.origin().ascii_serialization());
            Err(Fault::Redirect { to })
        }
        status if status.is_success() => Ok(()),
        status => Err(Fault::Status { status: status.as_u16(), retry_after: retry_after(response.headers()) }),
    }
}

/// Jenkins' pages name a permission by its group: `hudson.model.Hudson.Read` is Overall/Read.
fn as_people_call_it(permission: &str) -> String {
    let groups = [("hudson.model.Hudson.", "Overall/"), ("hudson.model.Item.", "Job/")];
    let known = groups.iter().find_map(|(id, group)| Some(format!("{group}{}", permission.strip_prefix(id)?)));
    known.unwrap_or_else(|| permission.to_owned())
}

/// In seconds. A date, which RFC 9110 allows as well, no server of ours sends.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER.as_str())?.trim().parse().ok().map(Duration::from_secs)
}

/// For messages: neither query nor user.
fn address(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(legible)
}

/// Text of a stranger, short and without control characters.
fn legible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    DateTime::parse_from_rfc2822(date).ok().map(|date| Timestamp::from_millis(date.timestamp_millis()))
}

/// Where a body is gathered, and unpacked on its way.
enum Intake {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Intake {
    fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).as_deref() {
            None | Some(b"" | b"identity") => Ok(Self::Plain(Capped::default())),
            Some(b"gzip" | b"x-gzip") => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Capped::default())))),
            Some(_) => Err(Fault::Compression),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Plain(body) => body.write_all(chunk).map_err(|_| too_large()),
            Self::Gzip(decoder) => decoder.write_all(chunk).map_err(|_| Self::why(decoder.get_ref())),
        }
    }

    fn end(self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Plain(body) => Ok(body.bytes),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) => Ok(std::mem::take(&mut decoder.get_mut().bytes)),
                Err(_) => Err(Self::why(decoder.get_ref())),
            },
        }
    }

    fn why(body: &Capped) -> Fault {
        if body.is_full { too_large() } else { Fault::Compression }
    }
}

fn too_large() -> Fault {
    Fault::TooLarge { limit: MAX_BYTES }
}

/// Takes so much and no more.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Capped {
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + chunk.len() > MAX_BYTES {
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
