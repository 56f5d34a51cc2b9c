//! Where the Agent listens, and how large a datagram it gets. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// DogStatsD's own.
pub const DEFAULT_PORT: u16 = 8125;

/// Where DogStatsD listens, as `DD_DOGSTATSD_URL` writes it: `udp://host:port` or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AgentTarget {
    /// `host` is a name or an address, without brackets.
    Udp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// Why a string is no [`AgentTarget`], and what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentTargetError {
    #[error("write udp://HOST:PORT or unix:///PATH instead of {given:?}")]
    Scheme { given: String },
    #[error(
        "DogStatsD is written to in datagrams: use unix:///PATH, and `dogstatsd_socket` in the Agent, instead of {given:?}"
    )]
    Stream { given: String },
    #[error("{given:?} names no host: write udp://127.0.0.1:8125")]
    Host { given: String },
    #[error("{given:?} has no port from 1 to 65535: write udp://127.0.0.1:8125")]
    Port { given: String },
    #[error("an IPv6 address stands in brackets, udp://[::1]:8125, unlike {given:?}")]
    Brackets { given: String },
    #[error("the path of a socket begins with a slash, unix:///var/run/datadog/dsd.socket, unlike {given:?}")]
    Relative { given: String },
}

impl AgentTarget {
    /// The address, when no name has to be looked up for it.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp { host, port } => host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, *port)),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for AgentTarget {
    type Err = AgentTargetError;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let raw = raw.trim();
        let given = || raw.to_owned();
        match raw.split_once("://") {
            Some(("udp", authority)) => udp(authority.strip_suffix('/').unwrap_or(authority), raw),
            Some(("unix" | "unixgram", path)) if Path::new(path).is_absolute() && !path.contains('\0') => {
                Ok(Self::Unix(path.into()))
            }
            Some(("unix" | "unixgram", _)) => Err(AgentTargetError::Relative { given: given() }),
            Some(("unixstream" | "tcp" | "http" | "https", _)) => Err(AgentTargetError::Stream { given: given() }),
            _ => Err(AgentTargetError::Scheme { given: given() }),
        }
    }
}

fn udp(authority: &str, raw: &str) -> Result<AgentTarget, AgentTargetError> {
    let given = || raw.to_owned();
    let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
        let (address, rest) = inner.split_once(']').ok_or_else(|| AgentTargetError::Brackets { given: given() })?;
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(AgentTargetError::Brackets { given: given() });
        }
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(AgentTargetError::Port { given: given() }),
            port => port,
        };
        (address, port)
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(AgentTargetError::Brackets { given: given() }),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    // A name is looked up, never written anywhere: what cannot be part of one is a slip of the pen.
    let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if host.is_empty() || !host.chars().all(in_a_name) {
        return Err(AgentTargetError::Host { given: given() });
    }
    let port = match port.map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(AgentTargetError::Port { given: given() }),
    };
    Ok(AgentTarget::Udp { host: host.to_owned(), port })
}

impl fmt::Display for AgentTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { host, port } if host.contains(':') => write!(out, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(out, "udp://{host}:{port}"),
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
        }
    }
}

/// The most bytes that one datagram may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatagramLimit(usize);

/// Why a number is no [`DatagramLimit`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram has from 512 to 65507 bytes, and the Agent reads 8192 unless told otherwise, unlike {given}")]
pub struct DatagramLimitError {
    given: usize,
}

impl DatagramLimit {
    /// Leaves room for the tags of a check and a few words.
    pub const MIN: usize = 512;
    /// The most that UDP carries.
    pub const MAX: usize = 65_507;

    /// # Errors
    /// Below [`Self::MIN`] and above [`Self::MAX`].
    pub fn parse(bytes: usize) -> Result<Self, DatagramLimitError> {
        if (Self::MIN..=Self::MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(DatagramLimitError { given: bytes })
        }
    }

    /// One Ethernet frame by UDP; what the Agent reads at once from a Unix socket.
    pub fn usual(target: &AgentTarget) -> Self {
        match target {
            AgentTarget::Udp { .. } => Self(1432),
            AgentTarget::Unix(_) => Self(8192),
        }
    }

    pub fn bytes(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_the_agents_own_clients_read_it() {
        let udp = |host: &str, port| AgentTarget::Udp { host: host.into(), port };
        let table = [
            ("udp://127.0.0.1:8125", udp("127.0.0.1", 8125), "udp://127.0.0.1:8125"),
            ("udp://[::1]:9125", udp("::1", 9125), "udp://[::1]:9125"),
            ("udp://[fd00::7]", udp("fd00::7", 8125), "udp://[fd00::7]:8125"),
            ("udp://agent.svc", udp("agent.svc", 8125), "udp://agent.svc:8125"),
            ("  udp://agent.svc:1/ ", udp("agent.svc", 1), "udp://agent.svc:1"),
            ("unix:///a/dsd.socket", AgentTarget::Unix("/a/dsd.socket".into()), "unix:///a/dsd.socket"),
            ("unixgram:///a/dsd.socket", AgentTarget::Unix("/a/dsd.socket".into()), "unix:///a/dsd.socket"),
        ];
        for (raw, expected, shown) in table {
            assert_eq!(raw.parse(), Ok(expected.clone()), "{raw}");
            assert_eq!(expected.to_string(), shown);
            assert_eq!(shown.parse(), Ok(expected));
        }
    }

    #[test]
    fn a_refusal_says_what_to_write_instead() {
        let table = [
            ("", "write udp://HOST:PORT or unix:///PATH"),
            ("127.0.0.1:8125", "write udp://HOST:PORT or unix:///PATH"),
            ("UDP//agent", "write udp://HOST:PORT or unix:///PATH"),
            ("unix://dsd.socket", "begins with a slash"),
            ("unix://", "begins with a slash"),
            ("unixstream:///a", "use unix:///PATH"),
            ("tcp://agent:8125", "use unix:///PATH"),
            ("udp://", "names no host"),
            ("udp://:8125", "names no host"),
            ("udp://a b", "names no host"),
            ("udp://user@agent", "names no host"),
            ("udp://agent:0", "no port"),
            ("udp://agent:65536", "no port"),
            ("udp://agent:", "no port"),
            ("udp://[::1]x", "no port"),
            ("udp://::1:8125", "stands in brackets"),
            ("udp://[agent]:8125", "stands in brackets"),
            ("udp://[::1", "stands in brackets"),
        ];
        for (raw, expected) in table {
            let refusal = raw.parse::<AgentTarget>().unwrap_err().to_string();
            assert!(refusal.contains(expected), "{raw}: {refusal}");
        }
    }

    #[test]
    fn a_limit_that_holds_no_check_is_refused() {
        for (bytes, good) in [(511, false), (512, true), (65_507, true), (65_508, false)] {
            assert_eq!(DatagramLimit::parse(bytes).is_ok(), good, "{bytes}");
        }
    }
}
