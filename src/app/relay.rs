//! The relay, wired.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::StartError;
use crate::config::Settings;
use crate::datadog::AgentSink;
use crate::domain::pod::{Pod, PodIdentity};
use crate::domain::signal::Tag;
use crate::http::relay::RelayDoor;
use crate::kubernetes::pods::{NodePods, Pace, PodApi, PodMetrics, PodWatch};
use crate::machinery::clock::Clock;
use crate::machinery::crew::Crew;
use crate::machinery::health::Health;
use crate::machinery::listener::{self, Limits, ListenerMetrics};
use crate::machinery::supervise::Supervisor;
use crate::relay::{Plan, Relay, RelayMetrics, Sender, Senders, Whose};

/// SDKs keep a connection for the next event.
const HEADER_TIME: Duration = Duration::from_mins(2);

/// What is there whether there is a relay or not.
pub(super) struct Surroundings<'a> {
    pub(super) pod: &'a watch::Receiver<PodIdentity>,
    pub(super) clock: &'a Clock,
    pub(super) health: &'a Health,
    pub(super) supervisor: &'a Supervisor,
}

/// Without a listener there is none.
pub(super) fn start(
    settings: &Settings,
    listener: Option<TcpListener>,
    around: &Surroundings<'_>,
    sink: AgentSink,
    registry: &mut Registry,
    metrics: &ListenerMetrics,
) -> Result<(), StartError> {
    let Some((plan, listener)) = settings.relay().zip(listener) else { return Ok(()) };
    let part = |upstream: &str| around.health.optional(&format!("relay {upstream}"));
    let directory = settings.data_dir.join(crate::relay::DIRECTORY);
    let senders = senders(settings, plan, around, registry)?;
    let (relay, errands) =
        Relay::new(plan, senders, directory, around.clock.clone(), RelayMetrics::register(registry), part)?;
    let supervisor = around.supervisor;
    for delivery in errands.deliveries {
        supervisor.spawn("relay delivery", delivery.run(supervisor.stop()));
    }
    let tags = settings.datadog.tags.iter().map(|raw| Tag::parse(raw)).collect();
    supervisor.spawn("relay teller", errands.teller.run(sink, tags));
    supervisor.spawn("relay keeper", errands.keeper.run());
    let limits = Limits {
        connections: settings.relay.max_connections.get(),
        per_peer: settings.relay.max_connections_per_peer.get(),
        header_time: HEADER_TIME,
    };
    // What no other relay has at the same time, as good as certainly.
    let name = format!("{:016x}", RandomState::new().build_hasher().finish());
    let door = Arc::new(RelayDoor::new(relay, &name));
    let crew = Crew::new("relay").map_err(StartError::Threads)?;
    let serving = listener::serve_by(crew, "relay", listener, door, limits, metrics.clone(), supervisor.stop());
    supervisor.spawn("relay", serving);
    Ok(())
}

/// Whose events come in.
fn senders(
    settings: &Settings,
    plan: &Plan,
    around: &Surroundings<'_>,
    registry: &mut Registry,
) -> Result<Senders, StartError> {
    match plan.whose {
        Whose::OwnPod => {
            if plan.enrich && Pod::of(&around.pod.borrow(), &plan.tags).is_none() {
                tracing::warn!(
                    "POD_NAME or POD_NAMESPACE is not set, so events will carry no pod: set both by the Downward API, or \
                     `relay.enrich = false`"
                );
            }
            Ok(Senders::own_pod(around.pod.clone(), plan.tags.clone(), plan.enrich))
        }
        Whose::PodsOfTheNode => {
            let node = around.pod.borrow().node.clone().filter(|node| is_name(node)).ok_or(StartError::NoNode)?;
            let health = around.health.optional("kubernetes");
            let api = PodApi::new(settings.api_server(), health, PodMetrics::register(registry))?;
            let pods = NodePods::new();
            let enrich = plan.enrich;
            let prepare = move |pod| Sender::pod(pod, enrich);
            let watch =
                PodWatch { pods: pods.clone(), node, choice: plan.tags.clone(), prepare, api, pace: Pace::default() };
            around.supervisor.spawn("pods", watch.run(around.supervisor.stop()));
            Ok(Senders::node_pods(pods))
        }
    }
}

/// Anything else would be another question to the API server.
fn is_name(node: &str) -> bool {
    node.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}
