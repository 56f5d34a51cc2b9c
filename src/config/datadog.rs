//! `[datadog]`: where signals go, and how often.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::secret::Secret;
use super::span;

/// Who changes it: whoever has the Agent elsewhere than on this host's UDP port.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct DatadogSettings {
    /// Address of an Agent's DogStatsD: `udp://HOST:PORT`, `unix:///PATH` or `unixgram:///PATH`. Default: what
    /// `DD_DOGSTATSD_URL` says, else `DD_AGENT_HOST` and `DD_DOGSTATSD_PORT`, else `udp://127.0.0.1:8125`.
    pub dogstatsd: String,
    /// The way to Datadog: `dogstatsd`, or `auto`, which is the same as long as there is no other. Default: `auto`.
    pub transport: Transport,
    /// Tags, `key:value`, on everything that is sent. Default: none. `host` and the names that recoverd sets itself are
    /// refused.
    pub tags: Vec<String>,
    /// Time between two reports of every job's status, by which a lost datagram is made good. Default: 60s. From 1s to
    /// 12h; Datadog forgets a check after a day.
    #[serde(with = "span")]
    pub resend_interval: Duration,
    /// Largest datagram, in bytes. Default: 1432, one Ethernet frame; 8192 on a Unix socket. From 512 to 65507. Raise it
    /// only together with the Agent's `dogstatsd_buffer_size`.
    pub max_datagram_bytes: Option<usize>,
    /// Datadog's API key, which `recoverd doctor` has confirmed; the Agent has its own. Default: `DD_API_KEY`, else none.
    pub api_key: Option<Secret>,
    /// File that holds the API key. Default: none.
    pub api_key_file: Option<PathBuf>,
    /// Which of Datadog's sites the key belongs to: `datadoghq.com`, `datadoghq.eu`, `us5.datadoghq.com`, … Default:
    /// `DD_SITE`, else `datadoghq.com`.
    pub site: String,
    /// Address of Datadog's API, in place of the site's own. Default: none. Who changes it: whoever goes through a proxy
    /// that has an address of its own.
    pub url: Option<String>,
}

/// The way to Datadog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    #[default]
    Auto,
    Dogstatsd,
}

impl<'de> Deserialize<'de> for Transport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self::Auto),
            "dogstatsd" => Ok(Self::Dogstatsd),
            "api" => Err(serde::de::Error::custom("\"api\" is not available in this version; use \"dogstatsd\"")),
            other => Err(serde::de::Error::custom(format!("{other:?} is neither \"dogstatsd\" nor \"auto\""))),
        }
    }
}

impl Default for DatadogSettings {
    fn default() -> Self {
        Self {
            dogstatsd: "udp://127.0.0.1:8125".to_owned(),
            transport: Transport::Auto,
            tags: Vec::new(),
            resend_interval: Duration::from_mins(1),
            max_datagram_bytes: None,
            api_key: None,
            api_key_file: None,
            site: "datadoghq.com".to_owned(),
            url: None,
        }
    }
}

impl DatadogSettings {
    pub(super) const RESEND: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(12);

    pub(super) fn template() -> Self {
        Self {
            tags: vec![String::new()],
            max_datagram_bytes: Some(0),
            api_key: Some(Secret::new("")),
            api_key_file: Some(PathBuf::new()),
            url: Some(String::new()),
            ..Self::default()
        }
    }
}
