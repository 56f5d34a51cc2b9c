//! `[sentry]`: where recoverd's own errors go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Who changes it: whoever wants to hear of recoverd's own faults.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SentrySettings {
    /// The DSN of a project for recoverd's own errors and panics. Default: `SENTRY_DSN`, else none and nothing is sent. An
    /// empty one switches off what `SENTRY_DSN` switched on. One that leads back to recoverd is refused.
    pub dsn: Option<Secret>,
    /// File that holds the DSN. Default: none.
    pub dsn_file: Option<PathBuf>,
}

impl SentrySettings {
    pub(super) fn template() -> Self {
        Self { dsn: Some(Secret::new("")), dsn_file: Some(PathBuf::new()) }
    }
}
