//! `[relay]`: the door that applications post their Sentry events to, and the Sentry behind it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{listen, span};

/// Who changes it: whoever wants the pod's name on Sentry events.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct RelaySettings {
    /// Whether there is a relay. Default: false.
    pub enabled: bool,
    /// Address for `/api/…`. Default: 127.0.0.1:8082, this host alone, which a sidecar's application shares. For a
    /// DaemonSet: 0.0.0.0:8082.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// Address of the Sentry that all goes to which no route takes: `https://sentry.example.com/`, or for sentry.io the host
    /// in the DSN, `https://o1.ingest.sentry.io/`. Required when enabled.
    pub upstream: Option<String>,
    /// Whose events come here: `sidecar`, the own pod's; `daemonset`, those of the pods on this node, told apart by address.
    /// Default: `sidecar`.
    pub mode: RelayMode,
    /// Whether events are given tags at all. Default: true. Without, every byte goes on as it came.
    pub enrich: bool,
    /// Whether `node_name` is among the tags. Default: true.
    pub node_name: bool,
    /// Labels of the pod that become tags, `label` or `label=tag`: `app.kubernetes.io/name=app`. Default: none.
    pub labels: Vec<String>,
    /// The same of annotations. Default: none.
    pub annotations: Vec<String>,
    /// Other Sentries, by project or public key; the first that fits takes the request. Default: none.
    pub routes: Vec<RouteSettings>,
    /// PEM file of certificate authorities that an upstream's certificate may come from, besides the system's. Default: none.
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy on the way to every upstream: `http://user:password@proxy:3128`. Default: what `HTTPS_PROXY` and `NO_PROXY`
    /// say, else none.
    pub proxy: Option<Secret>,
    /// Time for a connection to an upstream. Default: 3s. From 100ms to 1m.
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    /// Time for an upstream's answer, after which the request is kept and sent later. Default: 10s. From 100ms to 5m; SDKs
    /// give up after about 30s.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// Largest body, in bytes as received. Default: 209715200, 200 MiB, Sentry's own limit. From 65536 to 1073741824.
    pub max_body_bytes: usize,
    /// Connections at once; further ones wait in the kernel's queue. Default: 4096. Raise it with the file limit.
    pub max_connections: NonZeroUsize,
    /// Connections at once from one address. Default: 4096: in a sidecar all come from one.
    pub max_connections_per_peer: NonZeroUsize,
    /// Room on disk for what each upstream could not take yet, in bytes. Default: 536870912, 512 MiB. From 1 MiB to 1 TiB.
    /// When it is full, SDKs get a 503. As much again, or twice `max_body_bytes` if that is more, is for all bodies on their way
    /// that are too large for memory.
    pub spool_max_bytes: u64,
    /// Time after which what was kept is dropped. Default: 1d. From 1m to 30d.
    #[serde(with = "span")]
    pub spool_max_age: Duration,
}

/// Whose events come to the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayMode {
    #[default]
    Sidecar,
    Daemonset,
}

/// `[[relay.routes]]`: what goes to another Sentry.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RouteSettings {
    /// Projects, by the number in their DSN. Default: none.
    pub projects: Vec<String>,
    /// Public keys, what stands before the `@` of a DSN. Default: none.
    pub keys: Vec<String>,
    /// Address of the Sentry that they belong to. Required.
    pub upstream: String,
}

impl Default for RelaySettings {
    fn default() -> Self {
        const CONNECTIONS: NonZeroUsize = match NonZeroUsize::new(4096) {
            Some(count) => count,
            None => NonZeroUsize::MIN,
        };
        Self {
            enabled: false,
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            upstream: None,
            mode: RelayMode::Sidecar,
            enrich: true,
            node_name: true,
            labels: Vec::new(),
            annotations: Vec::new(),
            routes: Vec::new(),
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            max_body_bytes: 200 * 1024 * 1024,
            max_connections: CONNECTIONS,
            max_connections_per_peer: CONNECTIONS,
            spool_max_bytes: 512 * 1024 * 1024,
            spool_max_age: Duration::from_hours(24),
        }
    }
}

impl RelaySettings {
    pub(super) const CONNECT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);
    pub(super) const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(5);
    pub(super) const BODY_BYTES: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;
    pub(super) const SPOOL_BYTES: std::ops::RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024 * 1024;
    pub(super) const SPOOL_AGE: std::ops::RangeInclusive<Duration> =
        Duration::from_mins(1)..=Duration::from_hours(30 * 24);

    pub(super) fn template() -> Self {
        let route = RouteSettings { projects: vec![String::new()], keys: vec![String::new()], upstream: String::new() };
        Self {
            upstream: Some(String::new()),
            labels: vec![String::new()],
            annotations: vec![String::new()],
            routes: vec![route],
            ca_file: Some(PathBuf::new()),
            proxy: Some(Secret::new("")),
            ..Self::default()
        }
    }
}
