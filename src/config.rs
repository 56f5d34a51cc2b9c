//! What the operator sets: read once at start, checked whole, never changed after.
//!
//! A value comes from the first of these that has it: a `RECOVERD_<TABLE>__<KEY>` variable, the file, a variable of
//! Datadog's or Sentry's own (`DD_AGENT_HOST`, `SENTRY_DSN`, …), the default. The environment is handed in, so that tests
//! own it; [`environment`] reads the real one, for `main` alone.

mod access;
mod admin;
mod checks;
mod datadog;
mod jenkins;
mod kubernetes;
mod layers;
mod listen;
mod log;
mod relay;
mod schema;
mod secret;
mod sentry;
mod span;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

pub use access::{Access, Auth, Controller};
pub use admin::AdminSettings;
pub use datadog::{DatadogSettings, Transport};
pub use jenkins::{JenkinsSettings, RuleSettings};
pub use kubernetes::KubernetesSettings;
pub use log::{LogFormat, LogSettings};
pub use relay::{RelayMode, RelaySettings, RouteSettings};
pub use secret::Secret;
pub use sentry::{HookAuth, Integration, IntegrationSettings, SentrySettings};
pub use webhooks::WebhookSettings;

use crate::datadog::target::DEFAULT_PORT;
use crate::datadog::{AgentSettings, AgentTarget};
use crate::domain::rules::Rulebook;
use crate::relay::Plan;
use layers::{Borrowed, Layers};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// The process's own environment. What is not UTF-8 is bent until it is.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

/// Everything that is set, checked. No way of printing it shows a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Directory of what must survive a restart; created when absent. Default: `data`, in the working directory. Who
    /// changes it: whoever mounts a volume.
    pub data_dir: PathBuf,
    /// Time from the signal to stop until what is still under way is given up. Default: 25s, below the 30s after which
    /// Kubernetes kills. From 1s to 1h. Who changes it: whoever sets `terminationGracePeriodSeconds`.
    #[serde(with = "span")]
    pub shutdown_deadline: Duration,
    pub webhooks: WebhookSettings,
    pub admin: AdminSettings,
    pub jenkins: Vec<JenkinsSettings>,
    pub datadog: DatadogSettings,
    pub sentry: SentrySettings,
    pub relay: RelaySettings,
    pub kubernetes: KubernetesSettings,
    pub log: LogSettings,
    #[serde(skip)]
    checked: checks::Checked,
}

/// Everything that is wrong with the settings, a line each: where it was set, which key, what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines.join("\n"))]
pub struct ConfigError {
    lines: Vec<String>,
}

impl ConfigError {
    fn one(line: String) -> Self {
        Self { lines: vec![line] }
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Top {
    data_dir: PathBuf,
    #[serde(deserialize_with = "span::deserialize")]
    shutdown_deadline: Duration,
}

impl Default for Top {
    fn default() -> Self {
        Self { data_dir: PathBuf::from("data"), shutdown_deadline: Duration::from_secs(25) }
    }
}

impl Settings {
    /// The file that is read when none is named, if it is there.
    pub const DEFAULT_FILE: &str = "recoverd.toml";
    /// The one controller when none is configured.
    pub const DEFAULT_CONTROLLER: &str = "default";

    const SHUTDOWN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

    /// Reads `file`, else [`Self::DEFAULT_FILE`] if the working directory has one, and lays `environment` over it. Paths
    /// in settings start at the working directory.
    ///
    /// # Errors
    /// All that is wrong at once, as far as it can be told apart; a file that is not TOML ends the search.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(Self::DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::assemble(Some((path, &text)), environment),
            Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => Self::assemble(None, environment),
            Err(error) => {
                Err(ConfigError::one(format!("{}: cannot read the settings: {error}; check --config", path.display())))
            }
        }
    }

    fn assemble(file: Option<(&Path, &str)>, environment: &Environment) -> Result<Self, ConfigError> {
        let schema = serde_json::to_value(Self::template()).map_err(|error| ConfigError::one(error.to_string()))?;
        let mut layers = Layers::merge(&schema, &borrowed(environment), file, environment)?;
        let Top { data_dir, shutdown_deadline } = layers.top();
        let mut settings = Self {
            data_dir,
            shutdown_deadline,
            webhooks: layers.table("webhooks"),
            admin: layers.table("admin"),
            jenkins: layers.tables("jenkins"),
            datadog: layers.table("datadog"),
            sentry: layers.table("sentry"),
            relay: layers.table("relay"),
            kubernetes: layers.table("kubernetes"),
            log: layers.table("log"),
            checked: checks::Checked::default(),
        };
        layers.finish()?;
        settings.checked = checks::check(&mut settings, &mut layers);
        layers.finish()?;
        Ok(settings)
    }

    /// Settings with every key present and every list filled: what there is to set.
    fn template() -> Self {
        let Top { data_dir, shutdown_deadline } = Top::default();
        Self {
            data_dir,
            shutdown_deadline,
            webhooks: WebhookSettings::default(),
            admin: AdminSettings::template(),
            jenkins: vec![JenkinsSettings::template()],
            datadog: DatadogSettings::template(),
            sentry: SentrySettings::template(),
            relay: RelaySettings::template(),
            kubernetes: KubernetesSettings::template(),
            log: LogSettings::default(),
            checked: checks::Checked::default(),
        }
    }

    /// The rules of all controllers, with all tags that the operator set.
    pub fn rulebook(&self) -> Rulebook {
        self.checked.rulebook.clone()
    }

    /// The controllers that may report builds; never none.
    pub fn controllers(&self) -> &[Controller] {
        &self.checked.controllers
    }

    /// The Sentry integrations that may report, and those that are asked.
    pub fn integrations(&self) -> &[Integration] {
        &self.checked.integrations
    }

    /// Where the Agent is, and how to send to it.
    pub fn agent(&self) -> AgentSettings {
        let usual = || AgentSettings::new(AgentTarget::Udp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT });
        self.checked.agent.clone().unwrap_or_else(usual)
    }

    /// How the relay works; `None` when there is none.
    pub fn relay(&self) -> Option<&Plan> {
        self.checked.relay.as_ref()
    }

    /// Where the API server is, if not where the cluster says.
    pub fn api_server(&self) -> Option<&Url> {
        self.checked.api_server.as_ref()
    }

    /// What is allowed but unwise, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.checked.warnings
    }

    /// What is in force, with each secret as `<redacted>`, so that only their number shows.
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// [`Self::redacted`] as a file that could be loaded, but for the secrets.
    pub fn redacted_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

/// What other programs' variables say, for where ours and the file say nothing. An empty one counts as absent.
fn borrowed(environment: &Environment) -> Vec<Borrowed> {
    let read = |variable: &str| environment.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    let mut lend = |path, variable, value| found.push(Borrowed { path, variable, value });
    let port = read("DD_DOGSTATSD_PORT");
    if let Some(url) = read("DD_DOGSTATSD_URL") {
        lend("datadog.dogstatsd", "DD_DOGSTATSD_URL", url.to_owned());
    } else if let Some(host) = read("DD_AGENT_HOST") {
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        lend("datadog.dogstatsd", "DD_AGENT_HOST", format!("udp://{host}:{}", port.unwrap_or("8125")));
    } else if let Some(port) = port {
        lend("datadog.dogstatsd", "DD_DOGSTATSD_PORT", format!("udp://127.0.0.1:{port}"));
    }
    if let Some(key) = read("DD_API_KEY") {
        lend("datadog.api_key", "DD_API_KEY", key.to_owned());
    }
    if let Some(site) = read("DD_SITE") {
        lend("datadog.site", "DD_SITE", site.to_owned());
    }
    if let Some(dsn) = read("SENTRY_DSN") {
        lend("sentry.dsn", "SENTRY_DSN", dsn.to_owned());
    }
    found
}
