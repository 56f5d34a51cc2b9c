//! Who may knock at a door. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::domain::job::ControllerName;
use crate::jenkins::rest::RestSettings;

/// How a peer shows that it may come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    #[default]
    Token,
    None,
}

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever brings one of these; nobody, when there is none.
    Tokens(Vec<SecretString>),
    /// Peers on this host, whatever they bring.
    LoopbackOnly,
    /// Everybody.
    Open,
}

/// A controller and who may speak for it.
#[derive(Clone, Debug)]
pub struct Controller {
    pub name: ControllerName,
    pub access: Access,
    /// How it is asked; `None` when it is asked nothing.
    pub api: Option<RestSettings>,
    /// From one look at all its jobs to the next; `None` for never.
    pub poll_interval: Option<Duration>,
    /// Where it takes documents as raw TCP.
    pub tcp: Option<SocketAddr>,
    /// Where it takes documents as datagrams.
    pub udp: Option<SocketAddr>,
}

impl Access {
    pub(super) fn of(auth: Auth, tokens: &[Secret]) -> Self {
        match auth {
            Auth::None => Self::Open,
            Auth::Token if tokens.is_empty() => Self::LoopbackOnly,
            Auth::Token => Self::Tokens(tokens.iter().map(Secret::to_secret_string).collect()),
        }
    }
}
