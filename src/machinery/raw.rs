//! Serves connections and datagrams as they are, without a protocol on top, and within the same limits.
//!
//! Metrics: those of [`listener`](super::listener), for connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listener::{Door, Limits, ListenerMetrics, spawn_connection};

/// So many datagrams are in hand at once. Further ones wait in the kernel, and are lost when its buffer is full.
const IN_HAND: usize = 256;
/// No datagram is longer.
const LONGEST_DATAGRAM: usize = 65_535;

/// Hands each connection to `converse` until `stop`, then waits for those that have begun.
pub async fn serve_streams<C: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    listener: TcpListener,
    limits: Limits,
    metrics: ListenerMetrics,
    stop: CancellationToken,
    converse: impl Fn(TcpStream, SocketAddr) -> C,
) {
    let door = Door::new(name, listener, limits, &metrics);
    let conversations = TaskTracker::new();
    while let Some((stream, address, visit)) = door.next(&stop).await {
        let conversation = converse(stream, address);
        spawn_connection(conversations.track_future(async move {
            conversation.await;
            drop(visit);
        }));
    }
    drop(door);
    conversations.close();
    conversations.wait().await;
}

/// Hands each datagram to `take` until `stop`, then waits for those that were received.
pub async fn serve_datagrams<T: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    socket: UdpSocket,
    stop: CancellationToken,
    take: impl Fn(Bytes, SocketAddr) -> T,
) {
    let places = Arc::new(Semaphore::new(IN_HAND));
    let in_hand = TaskTracker::new();
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    while let Some((place, arrived)) = stop
        .run_until_cancelled(async { (places.clone().acquire_owned().await, socket.recv_from(&mut buffer).await) })
        .await
    {
        match arrived {
            Ok((length, address)) => {
                let taking = take(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()), address);
                spawn_connection(in_hand.track_future(async move {
                    taking.await;
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(listener = name, %error, "cannot receive a datagram");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(socket);
    in_hand.close();
    in_hand.wait().await;
}
