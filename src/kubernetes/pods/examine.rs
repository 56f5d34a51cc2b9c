//! One question to the API server, for whoever wants to know whether it answers.

use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use url::Url;

use super::slim::SlimPod;
use super::trouble::Trouble;
use crate::kubernetes::cluster;

/// Asks for one of the node's pods. Takes as long as the API server does.
///
/// # Errors
/// Why they cannot be had, and what to do.
pub async fn examine(address: Option<&Url>, node: &str) -> Result<(), String> {
    let config = cluster::config(address).map_err(|error| error.to_string())?;
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    let one = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
    let asked = Api::<SlimPod>::all(client).list(&one).await.map_err(watcher::Error::InitialListFailed);
    asked.map(drop).map_err(|error| Trouble::of(&error).why.unwrap_or_else(|| error.to_string()))
}
