//! One answer: taken in under its limits, or told apart by what is wrong with it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK, LOCATION};
use reqwest::{Response, StatusCode, Url};
use tokio::time::Instant;

use super::{Fault, LONGEST_WAIT, RestError, link};
use crate::domain::build::Timestamp;
use crate::machinery::answer::{self, NotSent, Spoilt, address, date, retry_after, text};

/// The most that one answer may have, compressed or not. A hundred issues with all their owners and statistics are a
/// tenth of it.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A whole answer that says it is JSON, or does not say what it is.
#[derive(Debug)]
pub(super) struct Answer {
    at: String,
    pub(super) body: Vec<u8>,
    /// Where the list goes on.
    pub(super) next: Option<String>,
    /// Sentry's own time, to the second.
    pub(super) date: Option<Timestamp>,
    /// When it was asked for, by Sentry's clock and never too late: what it says was so then, or has become so since.
    pub(super) asked: Option<Timestamp>,
    /// Nothing more is to be asked before.
    pub(super) exhausted_until: Option<Instant>,
}

impl Answer {
    /// `sent` is when it was asked for.
    pub(super) async fn read(
        url: &Url,
        mut response: Response,
        sent: Instant,
        patience: Duration,
    ) -> Result<Self, RestError> {
        let refuse = |fault| RestError { at: address(url), fault };
        refuse_status(url, &response).map_err(refuse)?;
        let headers = response.headers();
        let (date, window) = (date(headers), Window::of(headers));
        let asked = date.map(|date| date.minus(sent.elapsed()));
        let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let next = link::next(links).map_err(refuse)?;
        let is_page = text(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
        let exhausted_until = window.exhausted().map(|left| Instant::now() + left.min(LONGEST_WAIT));
        let body = answer::body(&mut response, MAX_BYTES).await.map_err(|spoilt| refuse(fault(spoilt, patience)))?;
        if is_page || body.trim_ascii_start().starts_with(b"<") {
            return Err(refuse(Fault::Page));
        }
        Ok(Self { at: address(url), body, next, date, asked, exhausted_until })
    }

    pub(super) fn refuse(&self, fault: Fault) -> RestError {
        RestError { at: self.at.clone(), fault }
    }
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
    let (status, headers) = (response.status(), response.headers());
    match status {
        StatusCode::UNAUTHORIZED => Err(Fault::Unauthorized),
        StatusCode::FORBIDDEN => Err(Fault::Forbidden),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Fault::NotFound),
        StatusCode::TOO_MANY_REQUESTS => {
            Err(Fault::RateLimited { retry_after: retry_after(headers).or_else(|| Window::of(headers).left()) })
        }
        status if status.is_redirection() => {
            let to = text(headers, LOCATION.as_str()).and_then(|to| url.join(&to).ok());
            let to = to.map_or_else(|| "nowhere".to_owned(), |to| to.origin().ascii_serialization());
            Err(Fault::Redirect { to })
        }
        status if status.is_success() => Ok(()),
        status => Err(Fault::Status { status: status.as_u16(), retry_after: retry_after(headers) }),
    }
}

/// What Sentry says of the window in which requests are counted (`sentry.middleware.ratelimit`).
struct Window {
    remaining: Option<u64>,
    /// Seconds since 1970, by Sentry's clock.
    reset: Option<i64>,
    now: Option<Timestamp>,
}

impl Window {
    fn of(headers: &HeaderMap) -> Self {
        let remaining = text(headers, "x-sentry-rate-limit-remaining").and_then(|text| text.parse().ok());
        let reset = text(headers, "x-sentry-rate-limit-reset").and_then(|text| text.parse().ok());
        Self { remaining, reset, now: date(headers) }
    }

    /// Until a new one begins. Both times are Sentry's, whatever our clock says.
    fn left(&self) -> Option<Duration> {
        let left = self.reset?.checked_sub(self.now?.as_seconds())?;
        u64::try_from(left).ok().map(Duration::from_secs)
    }

    fn exhausted(&self) -> Option<Duration> {
        (self.remaining == Some(0)).then(|| self.left()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_measured_by_sentrys_own_clock() {
        let window = |remaining: &str, reset: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("date", "Tue, 24 Nov 2026 15:26:00 GMT".parse().unwrap());
            headers.insert("x-sentry-rate-limit-remaining", remaining.parse().unwrap());
            headers.insert("x-sentry-rate-limit-reset", reset.parse().unwrap());
            Window::of(&headers).exhausted().map(|left| left.as_secs())
        };
        let now = 1_795_533_960_i64;
        assert_eq!(window("0", &(now + 7).to_string()), Some(7));
        assert_eq!(window("1", &(now + 7).to_string()), None, "something is left");
        assert_eq!(window("0", &(now - 7).to_string()), None, "that window is over");
        assert_eq!(window("0", &i64::MIN.to_string()), None);
        assert_eq!(window("0", "soon"), None);
    }
}
