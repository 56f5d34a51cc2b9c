//! `[kubernetes]`: what recoverd learns of its own pod, and of those beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who changes it: whoever mounts the Downward API's volume elsewhere than the shipped manifests do, or whose pods reach the
/// API server by another way than the usual.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct KubernetesSettings {
    /// Directory with the Downward API's files `labels` and `annotations`. Default: /etc/podinfo. One that is not there
    /// means that there are none.
    pub downward_dir: PathBuf,
    /// Address of the API server, which `relay.mode = "daemonset"` asks for this node's pods. Default: none, the cluster's own,
    /// with the pod's service account. Over `http://` no credentials are shown.
    pub api_server: Option<String>,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { downward_dir: PathBuf::from("/etc/podinfo"), api_server: None }
    }
}

impl KubernetesSettings {
    pub(super) fn template() -> Self {
        Self { api_server: Some(String::new()), ..Self::default() }
    }
}
