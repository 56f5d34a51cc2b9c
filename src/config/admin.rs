//! `[admin]`: probes, metrics and the API.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::access::{Access, Auth};
use super::listen;
use super::secret::Secret;

/// Who changes it: whoever reads metrics or the API from another host.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Address for `/healthz`, `/readyz`, `/metrics` and `/api/v1`. Default: 127.0.0.1:8081. Port 0 takes any free one.
    /// In Kubernetes: 0.0.0.0:8081, for the probes come from the node.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// Secrets that open metrics and the API; any of them does, so that one can be replaced at leisure.
    /// Default: none, and only peers on this host get in.
    pub tokens: Vec<Secret>,
    /// File of further tokens, one a line. Default: none.
    pub tokens_file: Option<PathBuf>,
    /// `none` lets everybody who reaches the address in. Default: `token`.
    pub auth: Auth,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            tokens: Vec::new(),
            tokens_file: None,
            auth: Auth::Token,
        }
    }
}

impl AdminSettings {
    pub(super) fn template() -> Self {
        let Self { listen, auth, .. } = Self::default();
        Self { listen, tokens: vec![Secret::new("")], tokens_file: Some(PathBuf::new()), auth }
    }

    /// Who gets in.
    pub fn access(&self) -> Access {
        Access::of(self.auth, &self.tokens)
    }
}
