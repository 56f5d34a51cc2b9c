//! What can be wrong with an answer of Sentry, and what to do about it. Pure.

use std::time::Duration;

/// A question that Sentry did not answer. Says where, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {fault}")]
pub struct RestError {
    /// The address that was asked, without its query.
    pub at: String,
    pub fault: Fault,
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("cannot be reached ({why}): check `url`, that Sentry runs, and what lies between (DNS, proxy, firewall)")]
    Unreachable { why: String },
    #[error(
        "its certificate is not trusted ({why}): name the certificate authority in SSL_CERT_FILE, or mend the certificate"
    )]
    Certificate { why: String },
    #[error("no whole answer within {} s: see whether Sentry is overloaded", after.as_secs())]
    Timeout { after: Duration },
    #[error("the connection broke within the answer ({why}): look for a proxy that cuts it")]
    Broken { why: String },
    #[error(
        "401, the token is wrong or revoked: set `api_token` to one of the internal integration, in Sentry under \
         Settings, Custom Integrations"
    )]
    Unauthorized,
    #[error(
        "403, the token may not see it: let the integration read Issue & Event, and Project for metric alerts, in Sentry \
         under Settings, Custom Integrations"
    )]
    Forbidden,
    #[error("404, there is nothing: check `url` and `organization`, and that the token is one of that organization")]
    NotFound,
    #[error("leads to {to}, where no token is sent: set `url` to Sentry's own address")]
    Redirect { to: String },
    #[error("429, asked too often: raise `poll_interval`, or see who else uses this token")]
    RateLimited {
        /// How long to leave it alone, where it says so.
        retry_after: Option<Duration>,
    },
    #[error("answered {status}: wait if Sentry is starting or being upgraded, else look into its log")]
    Status {
        status: u16,
        /// How long to leave it alone, where it says so.
        retry_after: Option<Duration>,
    },
    #[error(
        "answered with a page instead of JSON, probably a login: check `url`, and that its proxy lets the API pass"
    )]
    Page,
    #[error("the answer is over {limit} bytes: check that `url` is Sentry")]
    TooLarge { limit: usize },
    #[error("the answer has over {limit} items: check that `url` is Sentry")]
    TooMany { limit: usize },
    #[error("the answer's compression is broken or unknown: look for a proxy that changes it")]
    Compression,
    #[error(
        "the answer is cut off, or no JSON, at line {line}, column {column}: look for a proxy that cuts or changes it"
    )]
    Syntax { line: usize, column: usize },
    #[error("the answer lacks {what}: check that `url` is Sentry, and that no proxy answers for it")]
    Foreign { what: &'static str },
    #[error("its pages go in a circle: check that `url` is Sentry, and that no proxy keeps answers")]
    Circle,
    #[error("not all was seen within {} s: see whether Sentry is overloaded", after.as_secs())]
    Endless { after: Duration },
}

impl Fault {
    /// How long it wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// As a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Certificate { .. } => "certificate",
            Self::Timeout { .. } => "timeout",
            Self::Broken { .. } => "broken",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Redirect { .. } => "redirect",
            Self::RateLimited { .. } => "rate_limited",
            Self::Status { .. } => "status",
            Self::Page => "page",
            Self::TooLarge { .. } => "too_large",
            Self::TooMany { .. } => "too_many",
            Self::Compression => "compression",
            Self::Syntax { .. } => "syntax",
            Self::Foreign { .. } => "foreign",
            Self::Circle => "circle",
            Self::Endless { .. } => "endless",
        }
    }
}
