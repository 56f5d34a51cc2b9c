//! `[kubernetes]`: what recoverd learns of its own pod.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who changes it: whoever mounts the Downward API's volume elsewhere than the shipped manifests do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct KubernetesSettings {
    /// Directory with the Downward API's files `labels` and `annotations`. Default: /etc/podinfo. One that is not there
    /// means that there are none.
    pub downward_dir: PathBuf,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { downward_dir: PathBuf::from("/etc/podinfo") }
    }
}
