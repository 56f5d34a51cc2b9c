//! Addresses to listen on. Pure.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let raw = String::deserialize(deserializer)?;
    raw.parse().map_err(|_| {
        serde::de::Error::custom(format!("{raw:?} is not an IP address with a port, such as 127.0.0.1:8080"))
    })
}

pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    deserialize(deserializer).map(Some)
}
