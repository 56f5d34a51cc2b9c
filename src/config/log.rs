//! `[log]`: what is logged, and how it looks.

use serde::{Deserialize, Serialize};

/// Who changes it: whoever looks for a fault.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct LogSettings {
    /// `text` for people, `json` for collectors. Default: `auto`, text on a terminal and JSON elsewhere.
    pub format: LogFormat,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,recoverd::datadog=debug`.
    /// Default: `info`. Does not change what goes to Sentry.
    pub level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
