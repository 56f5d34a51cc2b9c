//! The API server, and the sign that it answers a watch.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use kube::Client;
use kube::client::ClientBuilder;
use tokio::sync::Notify;
use tower::Service;
use tower::layer::layer_fn;
use tower::limit::RateLimitLayer;
use url::Url;

use super::PodMetrics;
use crate::kubernetes::cluster::{self, ClusterError};
use crate::machinery::health;

/// Nothing on a connection for so long means that it is dead.
const SILENCE: Duration = Duration::from_secs(130);
/// Something on the way may end each watch as it begins.
const MOST_REQUESTS: (u64, Duration) = (5, Duration::from_secs(1));

/// The API server, asked for pods.
pub struct PodApi {
    address: Option<Url>,
    pub(super) client: Client,
    /// Told when a watch has begun: it need not tell anything for hours, and that it answers is the sign.
    pub(super) begun: Arc<Notify>,
    pub(super) health: health::Part,
    pub(super) metrics: PodMetrics,
}

impl PodApi {
    /// Connects to nothing yet. `address` is that of the API server, where it is not the cluster's own.
    ///
    /// # Errors
    /// When this is no pod, or one without a service account's token.
    pub fn new(address: Option<&Url>, health: health::Part, metrics: PodMetrics) -> Result<Self, ClusterError> {
        let begun = Arc::new(Notify::new());
        Ok(Self { address: address.cloned(), client: connect(address, &begun)?, begun, health, metrics })
    }

    /// Takes new connections, and reads anew whom to trust: the cluster's authority may be another one by now. What cannot be
    /// read leaves all as it was.
    pub(super) fn reconnect(&mut self) {
        match connect(self.address.as_ref(), &self.begun) {
            Ok(client) => self.client = client,
            Err(error) => tracing::warn!(%error, "the way to the API server stays as it was"),
        }
    }
}

impl fmt::Debug for PodApi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PodApi").field("health", &self.health).finish_non_exhaustive()
    }
}

fn connect(address: Option<&Url>, begun: &Arc<Notify>) -> Result<Client, ClusterError> {
    let mut config = cluster::config(address)?;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    let (most, within) = MOST_REQUESTS;
    let client = ClientBuilder::try_from(config)?;
    let client = client.with_layer(&layer_fn(|asked| Noticed { asked, begun: begun.clone() }));
    Ok(client.with_layer(&RateLimitLayer::new(most, within)).build())
}

/// Notices that a watch has begun.
struct Noticed<S> {
    asked: S,
    begun: Arc<Notify>,
}

impl<S, Q, R> Service<Request<Q>> for Noticed<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.asked.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let begun = query.split('&').any(|pair| pair == "watch=true").then(|| self.begun.clone());
        let response = self.asked.call(request);
        let notice = async move {
            let response = response.await?;
            if let Some(begun) = begun.filter(|_| response.status().is_success()) {
                begun.notify_one();
            }
            Ok(response)
        };
        notice.boxed()
    }
}
