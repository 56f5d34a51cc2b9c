//! Every refusal, in one place. Peers learn what is wrong with their request; causes on our side go to the log.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is refused, as its sender may know it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("{0}")]
    BadRequest(String),
    #[error(
        "a token is needed here, one of `tokens` or `tokens_file` in the settings: in the path, as ?token=, as Bearer, or as the password of Basic"
    )]
    Unauthorized,
    #[error(
        "an admin token is needed here, one of `admin.tokens` or `admin.tokens_file`: as Bearer, or as the password of Basic"
    )]
    AdminUnauthorized,
    #[error(
        "a signature is needed here: `Sentry-Hook-Signature`, made of the whole body with a client secret of this integration"
    )]
    Unsigned,
    #[error("`Sentry-Hook-Timestamp` is missing, or not within ten minutes of this host's clock")]
    NotOfNow,
    #[error("there is nothing here")]
    NotFound,
    #[error(
        "there is nothing here: builds go to /jenkins/NAME and Sentry's webhooks to /sentry/NAME, NAME being a `name` in the settings"
    )]
    NoSuchSender,
    #[error("this address takes another method")]
    MethodNotAllowed,
    #[error("the body did not arrive in time")]
    Timeout,
    #[error("the body is over {limit} bytes and does not say which build it is about before that")]
    TooLarge { limit: usize },
    #[error("the body is over {limit} bytes, so that what it is cannot be told")]
    TooLargeToKnow { limit: usize },
    #[error("too many requests from this address")]
    TooManyRequests { retry_after: Duration },
    #[error("it could not be stored; send it again later")]
    NotStored,
    #[error("it could not be read at present; ask again later")]
    NotRead,
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::AdminUnauthorized | Self::Unsigned | Self::NotOfNow => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::NoSuchSender => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } | Self::TooLargeToKnow { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotStored | Self::NotRead => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A word for the counter of refusals.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Unauthorized | Self::AdminUnauthorized | Self::Unsigned => "unauthorized",
            Self::NotOfNow => "stale_timestamp",
            Self::NotFound | Self::NoSuchSender => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::TooLarge { .. } | Self::TooLargeToKnow { .. } => "too_large",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::NotStored => "not_stored",
            Self::NotRead => "not_read",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({ "title": title, "status": status.as_u16(), "detail": self.to_string() }).to_string();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthorized | Self::AdminUnauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"recoverd\", Bearer"));
            }
            Self::Unsigned | Self::NotOfNow => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Sentry-Hook-Signature"));
            }
            Self::TooManyRequests { retry_after } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            }
            Self::NotStored | Self::NotRead => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_its_kind_and_when_to_come_again() {
        let response = Problem::TooManyRequests { retry_after: Duration::from_secs(3) }.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        for problem in [Problem::Unauthorized, Problem::AdminUnauthorized, Problem::Unsigned, Problem::NotOfNow] {
            assert_eq!(problem.status(), StatusCode::UNAUTHORIZED);
            assert!(problem.into_response().headers().contains_key(WWW_AUTHENTICATE));
        }
        for problem in [Problem::NotStored, Problem::NotRead] {
            let response = problem.into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn the_admin_listener_offers_no_way_in_that_it_does_not_have() {
        let said = Problem::AdminUnauthorized.to_string();
        assert!(!said.contains("path") && !said.contains("?token="), "{said}");
    }
}
