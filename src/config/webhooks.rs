//! `[webhooks]`: the door that Jenkins knocks at.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};

use super::listen;

/// Who changes it: whoever runs Jenkins elsewhere than on this host, and so must be let in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct WebhookSettings {
    /// Address for `POST /jenkins/{controller}`. Default: 127.0.0.1:8080, this host alone. Port 0 takes any free one.
    /// In a container: 0.0.0.0:8080.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// Largest body, in bytes; a longer one still counts if the build's identity stands before the limit.
    /// Default: 1048576, 1 MiB. From 1024 to 67108864. Raise it for jobs that send their log and put it first.
    pub max_body_bytes: usize,
    /// Connections at once; further ones wait in the kernel's queue. Default: 1024. Raise it with the file limit.
    pub max_connections: NonZeroUsize,
    /// Connections at once from one address. Default: 256. Raise it when many controllers share an address (NAT, proxy).
    pub max_connections_per_peer: NonZeroUsize,
    /// Webhooks a second from one address, in the long run; faster ones are slowed down. Default: 1000.
    /// Lower it where the port is open to strangers.
    pub rate_per_second: NonZeroU32,
    /// Webhooks at once from one address before `rate_per_second` bites. Default: 2000.
    pub burst: NonZeroU32,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        const fn count(of: u32) -> NonZeroU32 {
            match NonZeroU32::new(of) {
                Some(count) => count,
                None => NonZeroU32::MIN,
            }
        }
        const fn size(of: usize) -> NonZeroUsize {
            match NonZeroUsize::new(of) {
                Some(size) => size,
                None => NonZeroUsize::MIN,
            }
        }
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 1024 * 1024,
            max_connections: size(1024),
            max_connections_per_peer: size(256),
            rate_per_second: count(1000),
            burst: count(2000),
        }
    }
}

impl WebhookSettings {
    pub(super) const BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=64 * 1024 * 1024;
}
