//! The relay, wired.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::StartError;
use crate::config::Settings;
use crate::domain::pod::PodIdentity;
use crate::http::relay::{RelayDoor, router};
use crate::machinery::health::Health;
use crate::machinery::listener::{self, Limits, ListenerMetrics};
use crate::machinery::supervise::Supervisor;
use crate::relay::{Plan, Relay, RelayMetrics, Senders, Whose};

/// SDKs keep a connection for the next event.
const HEADER_TIME: Duration = Duration::from_mins(2);

/// Without a listener there is none.
pub(super) fn start(
    settings: &Settings,
    listener: Option<TcpListener>,
    pod: &watch::Receiver<PodIdentity>,
    health: &Health,
    registry: &mut Registry,
    metrics: &ListenerMetrics,
    supervisor: &Supervisor,
) -> Result<(), StartError> {
    let Some((plan, listener)) = settings.relay().zip(listener) else { return Ok(()) };
    let part = |upstream: &str| health.optional(&format!("relay {upstream}"));
    let drafts = settings.data_dir.join("relay");
    let relay = Relay::new(plan, senders(plan, pod), drafts, RelayMetrics::register(registry), part)?;
    let limits = Limits {
        connections: settings.relay.max_connections.get(),
        per_peer: settings.relay.max_connections_per_peer.get(),
        header_time: HEADER_TIME,
    };
    // What no other relay has at the same time, as good as certainly.
    let name = format!("{:016x}", RandomState::new().build_hasher().finish());
    let door = router(RelayDoor::new(relay, &name));
    supervisor.spawn("relay", listener::serve("relay", listener, door, limits, metrics.clone(), supervisor.stop()));
    Ok(())
}

/// Whose events come in.
fn senders(plan: &Plan, pod: &watch::Receiver<PodIdentity>) -> Senders {
    match plan.whose {
        Whose::OwnPod => Senders::own_pod(pod.clone(), plan.tags.clone(), plan.enrich),
        Whose::PodsOfTheNode => Senders::unknown(),
    }
}
