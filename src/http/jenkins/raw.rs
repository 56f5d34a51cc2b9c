//! The Notification plugin's other protocols: a document is all the bytes of one TCP connection, or one UDP datagram
//! (`Protocol` of the plugin). Neither carries a token or waits for an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::intake::{Intake, Protocol};
use crate::domain::job::ControllerName;
use crate::http::body::{self, Received};
use crate::http::problem::Problem;
use crate::machinery::listener::{Limits, ListenerMetrics};
use crate::machinery::raw;

/// The way in for one controller's documents.
#[derive(Debug)]
pub struct Raw {
    pub controller: ControllerName,
    pub intake: Intake,
}

/// Serves until `stop`, then finishes what has begun. A connection is closed when what it brought is stored.
pub async fn serve_tcp(
    door: Arc<Raw>,
    listener: TcpListener,
    limits: Limits,
    metrics: ListenerMetrics,
    stop: CancellationToken,
) {
    let converse = |mut stream: TcpStream, peer| {
        let door = door.clone();
        async move {
            let read = async {
                door.admit(peer).await?;
                body::read_stream(&mut stream, door.intake.max_body_bytes, door.intake.body_time).await
            };
            door.take(read.await, Protocol::Tcp).await;
            drop(stream);
        }
    };
    raw::serve_streams("jenkins_tcp", listener, limits, metrics, stop, converse).await;
}

/// Serves until `stop`, then finishes what was received.
pub async fn serve_udp(door: Arc<Raw>, socket: UdpSocket, stop: CancellationToken) {
    let take = |bytes: Bytes, peer| {
        let door = door.clone();
        async move {
            let limit = door.intake.max_body_bytes;
            let received = door.admit(peer).await.map(|()| Received::datagram(bytes, limit));
            door.take(received, Protocol::Udp).await;
        }
    };
    raw::serve_datagrams("jenkins_udp", socket, stop, take).await;
}

impl Raw {
    async fn admit(&self, peer: SocketAddr) -> Result<(), Problem> {
        self.intake.count_arrival(self.controller.as_str());
        self.intake.pace.pass(peer).await
    }

    /// There is nobody to answer: what is refused is counted, and told to whoever turns the log up.
    async fn take(&self, received: Result<Received, Problem>, protocol: Protocol) {
        let taken = async { self.intake.take(&self.controller, received?, protocol).await };
        let controller = self.controller.as_str();
        match taken.await {
            Ok(taken) => tracing::debug!(controller, ?protocol, was = taken.was, "a document was taken in"),
            Err(problem) => {
                self.intake.count_refusal(controller, &problem);
                tracing::debug!(controller, ?protocol, %problem, "a document was refused");
            }
        }
    }
}
