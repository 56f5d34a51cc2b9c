//! What can be wrong with an answer of Jenkins, and what to do about it. Pure.

use std::time::Duration;

/// A question that Jenkins did not answer. Says where, without any secret.
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
    #[error("cannot be reached ({why}): check `url`, that Jenkins runs, and what lies between (DNS, proxy, firewall)")]
    Unreachable { why: String },
    #[error(
        "its certificate is not trusted ({why}): name the certificate authority in SSL_CERT_FILE, or mend the certificate"
    )]
    Certificate { why: String },
    #[error("no whole answer within {} s: see whether Jenkins is overloaded", after.as_secs())]
    Timeout { after: Duration },
    #[error("the connection broke within the answer ({why}): look for a proxy that cuts it")]
    Broken { why: String },
    #[error(
        "401, user or token is wrong: set `user` and `api_token`, which is made in Jenkins under Security of that user"
    )]
    Unauthorized,
    #[error(
        "403, this user may not see it: grant it {}", permission.as_deref().unwrap_or("Overall/Read and Job/Read")
    )]
    Forbidden {
        /// What Jenkins says is missing.
        permission: Option<String>,
    },
    #[error("404, there is nothing: check `url`, with its context path, and that this user may see it")]
    NotFound,
    #[error("leads to {to}, where no credentials are sent: set `url` to Jenkins' own address")]
    Redirect { to: String },
    #[error("answered {status}: wait if Jenkins is starting, else look into its log")]
    Status {
        status: u16,
        /// How long to leave it alone, where it says so.
        retry_after: Option<Duration>,
    },
    #[error("answered with a page instead of JSON, probably a login: let the API pass by single sign-on or its proxy")]
    Page,
    #[error("the answer is over {limit} bytes: check that `url` is Jenkins")]
    TooLarge { limit: usize },
    #[error("the answer has over {limit} items: check that `url` is Jenkins")]
    TooMany { limit: usize },
    #[error("the answer's compression is broken or unknown: look for a proxy that changes it")]
    Compression,
    #[error(
        "the answer is cut off, or no JSON, at line {line}, column {column}: look for a proxy that cuts or changes it"
    )]
    Syntax { line: usize, column: usize },
    #[error("the answer lacks {what}: check that `url` is Jenkins, and that no proxy answers for it")]
    Foreign { what: &'static str },
    #[error("not all jobs were seen within {} s: see whether Jenkins is overloaded", after.as_secs())]
    Endless { after: Duration },
}

impl Fault {
    /// Whether it may pass by itself. Otherwise somebody has to change something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Broken { .. } | Self::Endless { .. } => true,
            // What was cut off.
            fault => matches!(fault, Self::Syntax { .. } | Self::Compression),
        }
    }

    /// How long it wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
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
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound => "not_found",
            Self::Redirect { .. } => "redirect",
            Self::Status { .. } => "status",
            Self::Page => "page",
            Self::TooLarge { .. } => "too_large",
            Self::TooMany { .. } => "too_many",
            Self::Compression => "compression",
            Self::Syntax { .. } => "syntax",
            Self::Foreign { .. } => "foreign",
            Self::Endless { .. } => "endless",
        }
    }

    /// Whether asking for less at once may help.
    pub(super) fn is_of_size(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::TooLarge { .. } | Self::TooMany { .. })
    }
}
