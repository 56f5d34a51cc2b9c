//! Serves HTTP/1.1 on a bound socket, with every limit that a hostile peer would test.
//!
//! Metrics: `recoverd_connections`, `recoverd_connections_refused_total` by listener.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::crew::Crew;
use super::http1::server::{self, Responder};

/// What one listener takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections. At the limit nothing is accepted: peers wait in the system's backlog.
    pub connections: usize,
    /// Open connections of one address. One more is closed at once.
    pub per_peer: usize,
    /// From connecting, or from the answer before, to the end of the request's head.
    pub header_time: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    listener: &'static str,
}

/// Numbers of all listeners.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    open: Family<Name, Gauge>,
    refused: Family<Name, Counter>,
}

impl ListenerMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self { open: Family::default(), refused: Family::default() };
        registry.register("recoverd_connections", "Open connections", new.open.clone());
        let help = "Connections closed at once, as their address had too many";
        registry.register("recoverd_connections_refused", help, new.refused.clone());
        new
    }
}

/// Serves HTTP until `stop`, then lets requests that have begun come to their end.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: ListenerMetrics,
    stop: CancellationToken,
) {
    let door = Door::new(name, listener, limits, &metrics);
    let http = http(limits);
    let graceful = GracefulShutdown::new();
    while let Some((stream, address, visit)) = door.next(&stop).await {
        let service = TowerToHyperService::new(router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(address));
            request
        }));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        spawn_connection(async move {
            if let Err(error) = connection.await {
                tracing::debug!(listener = name, %error, "a connection ended early");
            }
            drop(visit);
        });
    }
    drop(door);
    graceful.shutdown().await;
}

/// The same on threads of a crew, each connection as a whole on one of them.
pub async fn serve_by(
    crew: Crew,
    name: &'static str,
    listener: TcpListener,
    responder: Arc<impl Responder>,
    limits: Limits,
    metrics: ListenerMetrics,
    stop: CancellationToken,
) {
    let door = Door::new(name, listener, limits, &metrics);
    let open = TaskTracker::new();
    while let Some((stream, address, visit)) = door.next(&stop).await {
        // From here on it is another runtime that waits for it.
        let Ok(stream) = stream.into_std() else { continue };
        // Each has a token of its own: they are asked often, and one for all would be one lock for all.
        let (responder, stop) = (responder.clone(), stop.child_token());
        crew.spawn(open.track_future(async move {
            let _visit = visit;
            let serving = async {
                server::serve(TcpStream::from_std(stream)?, address, responder, limits.header_time, stop).await
            };
            if let Err(error) = serving.await {
                tracing::debug!(listener = name, %error, "a connection ended early");
            }
        }));
    }
    drop(door);
    open.close();
    open.wait().await;
}

fn http(limits: Limits) -> Builder {
    let mut http = Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_headers(64).max_buf_size(64 * 1024);
    http
}

/// A listener that lets in no more than it takes on.
pub(super) struct Door {
    name: &'static str,
    listener: TcpListener,
    places: Arc<Semaphore>,
    peers: Peers,
    per_peer: usize,
    open: Gauge,
    refused: Counter,
}

/// One connection in all that counts it; it has left when this is dropped.
pub(super) struct Visit {
    _shown: Shown,
    _guest: Guest,
    _place: OwnedSemaphorePermit,
}

impl Door {
    pub(super) fn new(name: &'static str, listener: TcpListener, limits: Limits, metrics: &ListenerMetrics) -> Self {
        Self {
            name,
            listener,
            places: Arc::new(Semaphore::new(limits.connections)),
            peers: Peers::default(),
            per_peer: limits.per_peer,
            open: metrics.open.get_or_create_owned(&Name { listener: name }),
            refused: metrics.refused.get_or_create_owned(&Name { listener: name }),
        }
    }

    /// The next connection, or `None` when it is time to stop.
    pub(super) async fn next(&self, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr, Visit)> {
        loop {
            let accepting = async { (self.places.clone().acquire_owned().await, self.listener.accept().await) };
            let (place, accepted) = stop.run_until_cancelled(accepting).await?;
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end make room.
                    tracing::warn!(listener = self.name, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(guest) = self.peers.enter(address.ip(), self.per_peer) else {
                self.refused.inc();
                continue;
            };
            // An answer is one small segment: waiting for more only delays it.
            let _ = stream.set_nodelay(true);
            let visit = Visit { _shown: Shown::new(self.open.clone()), _guest: guest, _place: place.ok()? };
            return Some((stream, address, visit));
        }
    }
}

/// A connection is no background task: its failure is its own.
#[expect(clippy::disallowed_methods, reason = "whoever listens waits for its connections")]
pub(super) fn spawn_connection(connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(connection);
}

/// An open connection in the gauge, however it ends.
struct Shown(Gauge);

impl Shown {
    fn new(open: Gauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Who is connected, and how often.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place among its peer's; given back when dropped.
struct Guest {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    fn enter(&self, address: IpAddr, most: usize) -> Option<Guest> {
        let address = address.to_canonical();
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Guest { peers: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut peers = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_its_place_back_when_it_leaves() {
        let peers = Peers::default();
        let address: IpAddr = [127, 0, 0, 1].into();
        let first = peers.enter(address, 1).unwrap();
        assert!(peers.enter(address, 1).is_none());
        assert!(peers.enter("::ffff:127.0.0.1".parse().unwrap(), 1).is_none(), "the same address, mapped");
        assert!(peers.enter([127, 0, 0, 2].into(), 1).is_some());
        drop(first);
        assert!(peers.enter(address, 1).is_some());
        assert_eq!(peers.0.lock().unwrap().len(), 0);
    }
}
