//! One answer: taken in under its limits, or told apart by what is wrong with it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode, Url};

use super::{Fault, RestError};
use crate::domain::build::Timestamp;
use crate::machinery::answer::{self, NotSent, Spoilt, address, date, retry_after, text};

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
        let body = answer::body(&mut response, MAX_BYTES).await.map_err(|spoilt| refuse(fault(spoilt, patience)))?;
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
    let fault = match answer::not_sent(error) {
        NotSent::Timeout => Fault::Timeout { after: patience },
        NotSent::Certificate { why } => Fault::Certificate { why },
        NotSent::Unreachable { why } => Fault::Unreachable { why },
    };
    RestError { at: address(url), fault }
}

fn fault(spoilt: Spoilt, patience: Duration) -> Fault {
    match spoilt {
        Spoilt::TooLarge => Fault::TooLarge { limit: MAX_BYTES },
        Spoilt::Compression => Fault::Compression,
        Spoilt::Timeout => Fault::Timeout { after: patience },
        Spoilt::Broken { why } => Fault::Broken { why },
    }
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
