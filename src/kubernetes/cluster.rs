//! The way to the API server.

use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::InClusterError;
use url::Url;

/// For a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("this is no pod: {0}; run recoverd in Kubernetes, or set `kubernetes.api_server`")]
    NotInside(String),
    #[error("cannot read the service account: {0}; mount its token, with `automountServiceAccountToken` true")]
    NoAccount(String),
    #[error("`kubernetes.api_server` is not an address: {0}")]
    Address(#[from] http::uri::InvalidUri),
    #[error("{0}")]
    Client(#[from] kube::Error),
}

/// The cluster that this pod is in, asked as its service account; or the API server at `address`. Over plain HTTP no
/// credentials are shown.
///
/// # Errors
/// When this is no pod, or one without a service account's token.
pub(super) fn config(address: Option<&Url>) -> Result<kube::Config, ClusterError> {
    let inside = kube::Config::incluster_env();
    let mut config = match address {
        None => inside.map_err(|error| match error {
            InClusterError::ReadDefaultNamespace(_) | InClusterError::ReadCertificateBundle(_) => {
                ClusterError::NoAccount(error.to_string())
            }
            error => ClusterError::NotInside(error.to_string()),
        })?,
        Some(address) => {
            let uri: http::Uri = address.as_str().parse()?;
            match inside {
                Ok(mut inside) if address.scheme() == "https" => {
                    inside.cluster_url = uri;
                    inside
                }
                _ => kube::Config::new(uri),
            }
        }
    };
    config.connect_timeout = Some(CONNECT);
    // By which the API server's audit log tells who asked.
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("recoverd/", env!("CARGO_PKG_VERSION")))));
    // Who waits, and how long, is decided where the pods are followed.
    config.default_retry = false;
    Ok(config)
}
