//! `[sentry]`: where recoverd's own errors go, and the integrations whose alerts come from there.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::secret::Secret;
use super::span;
use crate::domain::sentry::IntegrationName;
use crate::sentry::rest::RestSettings;

/// Who changes it: whoever wants to hear of recoverd's own faults.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SentrySettings {
    /// The DSN of a project for recoverd's own errors and panics. Default: `SENTRY_DSN`, else none and nothing is sent. An
    /// empty one switches off what `SENTRY_DSN` switched on. One that leads back to recoverd is refused.
    pub dsn: Option<Secret>,
    /// File that holds the DSN. Default: none.
    pub dsn_file: Option<PathBuf>,
    /// The internal integrations whose webhooks are taken. Default: none.
    pub integrations: Vec<IntegrationSettings>,
}

impl SentrySettings {
    pub(super) fn template() -> Self {
        let integrations = vec![IntegrationSettings::template()];
        Self { dsn: Some(Secret::new("")), dsn_file: Some(PathBuf::new()), integrations }
    }
}

/// How Sentry shows that a webhook is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookAuth {
    #[default]
    Signature,
    None,
}

/// One internal integration of Sentry, `[[sentry.integrations]]`. Who changes it: whoever wants Sentry's alerts in Datadog.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct IntegrationSettings {
    /// Its name in the webhook's address. 1 to 64 of a-z, A-Z, 0-9, `_`, `.`, `-`. Two that differ by case alone are
    /// refused.
    pub name: String,
    /// Its client secrets in Sentry; a webhook is signed with one of them, so that one can be replaced at leisure.
    /// Default: none. Fewer than 16 characters are warned of.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// File of further secrets, one a line. Default: none.
    #[serde(default)]
    pub secrets_file: Option<PathBuf>,
    /// Tokens for the old `WebHooks` plugin, which signs nothing. They do not stand in for a signature. Default: none.
    #[serde(default)]
    pub tokens: Vec<Secret>,
    /// File of further tokens, one a line. Default: none.
    #[serde(default)]
    pub tokens_file: Option<PathBuf>,
    /// `none` believes everybody who reaches the address. Default: `signature`.
    #[serde(default)]
    pub auth: HookAuth,
    /// Sentry's address, for asking it. Default: none. A slash is added at the end.
    #[serde(default)]
    pub url: Option<String>,
    /// The organization that is asked, by its slug. Default: none.
    #[serde(default)]
    pub organization: Option<String>,
    /// The integration's token, by which Sentry is asked for what webhooks do not tell. Default: none, and Sentry is asked
    /// nothing. Needs to read issues, events and alerts, and no more.
    #[serde(default)]
    pub api_token: Option<Secret>,
    /// File that holds that token. Default: none.
    #[serde(default)]
    pub api_token_file: Option<PathBuf>,
    /// Time between two looks at what is open. Default: 60s. From 1s to 1d; 0 is never.
    #[serde(default = "IntegrationSettings::default_poll_interval", with = "span")]
    pub poll_interval: Duration,
}

impl IntegrationSettings {
    pub(super) const POLL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

    fn default_poll_interval() -> Duration {
        Duration::from_mins(1)
    }

    fn template() -> Self {
        Self {
            name: String::new(),
            secrets: vec![Secret::new("")],
            secrets_file: Some(PathBuf::new()),
            tokens: vec![Secret::new("")],
            tokens_file: Some(PathBuf::new()),
            auth: HookAuth::Signature,
            url: Some(String::new()),
            organization: Some(String::new()),
            api_token: Some(Secret::new("")),
            api_token_file: Some(PathBuf::new()),
            poll_interval: Self::default_poll_interval(),
        }
    }
}

/// A Sentry integration, and how it is known.
#[derive(Clone, Debug)]
pub struct Integration {
    pub name: IntegrationName,
    /// With one of which a webhook is signed; none admits no signed one.
    pub secrets: Vec<SecretString>,
    /// Who may post unsigned what is never signed; everybody what he likes, when it is open.
    pub access: Access,
    /// How Sentry is asked; `None` when it is asked nothing.
    pub api: Option<RestSettings>,
    /// From one look at what is open to the next; `None` for never.
    pub poll_interval: Option<Duration>,
}
