//! Everything, wired: bind first, then run; sources stop first, and the rest runs dry.

mod from_sentry;
mod relay;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catch_up::{CatchUp, CatchUpMetrics, Watch};
use crate::config::{self, Settings};
use crate::datadog::{AgentMetrics, AgentSink};
use crate::domain::job::ControllerName;
use crate::domain::pod::PodIdentity;
use crate::domain::sentry::IntegrationName;
use crate::http::admin::{self, Admin};
use crate::http::auth::{Access, Tokens};
use crate::http::jenkins::intake::{Intake, WebhookMetrics};
use crate::http::jenkins::raw::{self, Raw};
use crate::http::jenkins::{self, Controller, Webhooks};
use crate::http::pace::Pace;
use crate::jenkins::rest::{RemoteApi, RestError};
use crate::kubernetes::cluster::ClusterError;
use crate::kubernetes::downward;
use crate::machinery::clock::Clock;
use crate::machinery::health::Health;
use crate::machinery::listener::{self, Limits, ListenerMetrics};
use crate::machinery::supervise::{Ended, Supervisor};
use crate::machinery::throttle::{Rate, Throttle};
use crate::pipeline::{Announcer, AnnouncerMetrics, Pipeline};
use crate::relay::RelayError;
use crate::resend::{Resend, ResendMetrics};
use crate::store::{OpenError, Store, StoreMetrics};

/// Why recoverd could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}, the `{setting}` of the settings: {}", remedy(source))]
    Bind { setting: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(
        "this user may not write {}: give it that right, or set `data_dir` to a directory where it has it",
        path.display()
    )]
    Forbidden { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(OpenError),
    #[error("cannot relay to Sentry")]
    Relay(#[from] RelayError),
    #[error("cannot start threads for the relay: {0}")]
    Threads(std::io::Error),
    #[error("cannot ask the Sentry of {integration}: {source}")]
    Sentry { integration: IntegrationName, source: crate::sentry::rest::RestError },
    #[error("cannot ask the Jenkins {controller}: {source}")]
    Jenkins { controller: ControllerName, source: RestError },
    #[error(
        "`relay.mode` is \"daemonset\", and the node's name is not known: set NODE_NAME by the Downward API, `fieldRef: \
         {{fieldPath: spec.nodeName}}`"
    )]
    NoNode,
    #[error("cannot ask which pods this node has: {0}")]
    Cluster(#[from] ClusterError),
}

/// What an operator can do about an address that cannot be had.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop what listens there, perhaps another recoverd, or set another port",
        ErrorKind::AddrNotAvailable => "set an address of this host, or 0.0.0.0 for all of them",
        ErrorKind::PermissionDenied => "set a port from 1024 on, which needs no right of its own",
        _ => "set another address",
    }
}

impl From<OpenError> for StartError {
    /// A file that may not be written fails to open in the same words as a damaged one; so it is looked at once more.
    fn from(error: OpenError) -> Self {
        let OpenError::Database { path, .. } = &error else { return Self::Store(error) };
        match std::fs::OpenOptions::new().read(true).append(true).create(true).open(path) {
            Err(source) if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                Self::Forbidden { path: path.clone(), source }
            }
            _ => Self::Store(error),
        }
    }
}

/// All listeners bound, nothing served yet.
#[derive(Debug)]
pub struct Bound {
    webhooks: TcpListener,
    admin: TcpListener,
    relay: Option<TcpListener>,
    tcp: Vec<(ControllerName, TcpListener)>,
    udp: Vec<(ControllerName, UdpSocket)>,
}

impl Bound {
    /// # Errors
    /// When an address is taken or not ours.
    pub async fn bind(settings: &Settings) -> Result<Self, StartError> {
        // With two of them among the crates, whoever does not name one panics. A second call changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut bound = Self {
            webhooks: bind("webhooks.listen", settings.webhooks.listen).await?,
            admin: bind("admin.listen", settings.admin.listen).await?,
            relay: None,
            tcp: Vec::new(),
            udp: Vec::new(),
        };
        if settings.relay().is_some() {
            bound.relay = Some(bind("relay.listen", settings.relay.listen).await?);
        }
        for controller in settings.controllers() {
            if let Some(address) = controller.tcp {
                bound.tcp.push((controller.name.clone(), bind("jenkins.tcp_listen", address).await?));
            }
            if let Some(address) = controller.udp {
                let setting = "jenkins.udp_listen";
                let socket = UdpSocket::bind(address).await;
                let socket = socket.map_err(|source| StartError::Bind { setting, address, source })?;
                bound.udp.push((controller.name.clone(), socket));
            }
        }
        Ok(bound)
    }

    fn addresses(&self, settings: &Settings) -> Addresses {
        Addresses {
            webhooks: self.webhooks.local_addr().unwrap_or(settings.webhooks.listen),
            admin: self.admin.local_addr().unwrap_or(settings.admin.listen),
            relay: self.relay.as_ref().and_then(|listener| listener.local_addr().ok()),
            tcp: self.tcp.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect(),
            udp: self.udp.iter().filter_map(|(_, socket)| socket.local_addr().ok()).collect(),
        }
    }

    /// Opens the store and starts every task.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn start(self, settings: &Settings, pod: PodIdentity, clock: Clock) -> Result<Running, StartError> {
        let supervisor = Supervisor::default();
        let health = Health::default();
        let mut registry = Registry::default();
        let rulebook = Arc::new(settings.rulebook());
        let addresses = self.addresses(settings);

        let store_metrics = StoreMetrics::register(&mut registry);
        let (store, news) =
            Store::open(&settings.data_dir, rulebook.clone(), clock.clone(), health.required("store"), store_metrics)?;
        let agent_metrics = AgentMetrics::register(&mut registry);
        let sink = AgentSink::new(settings.agent(), health.optional("datadog"), agent_metrics);

        let announcer = Announcer {
            rulebook: rulebook.clone(),
            sink: sink.clone(),
            confirmer: store.confirmer(),
            clock: clock.clone(),
            metrics: AnnouncerMetrics::register(&mut registry),
        };
        supervisor.spawn("announcer", announcer.run(news));

        let resend = Resend {
            rulebook: rulebook.clone(),
            store: store.clone(),
            sink: sink.clone(),
            clock: clock.clone(),
            interval: settings.datadog.resend_interval,
            metrics: ResendMetrics::register(&mut registry),
        };
        supervisor.spawn("resend", resend.run(supervisor.stop()));

        let catch_up = CatchUp {
            rulebook: rulebook.clone(),
            store: store.clone(),
            sink: sink.clone(),
            clock: clock.clone(),
            metrics: CatchUpMetrics::register(&mut registry),
        };
        supervisor.spawn("catch-up", catch_up.run(watches(settings, &health)?, supervisor.stop()));
        from_sentry::look(settings, &store, &clock, &health, &mut registry, &supervisor)?;

        let (pod_sender, pod) = watch::channel(pod);
        let downward_dir = settings.kubernetes.downward_dir.clone();
        supervisor.spawn("downward", downward::watch(downward_dir, pod_sender, supervisor.stop(), DOWNWARD_EVERY));

        let throttle = Throttle::new(Rate {
            per_second: settings.webhooks.rate_per_second,
            burst: settings.webhooks.burst,
            patience: THROTTLE_PATIENCE,
        });
        supervisor.spawn("housekeeping", housekeeping(throttle.clone(), supervisor.stop()));

        let listener_metrics = ListenerMetrics::register(&mut registry);
        let pace = Pace::register(throttle, &mut registry);
        let pipeline = Pipeline::new(store.clone());
        let from_sentry = from_sentry::door(settings, &pipeline, &pace, &clock, &mut registry);
        let intake = Intake {
            pipeline,
            pace,
            max_body_bytes: settings.webhooks.max_body_bytes,
            body_time: BODY_TIME,
            metrics: WebhookMetrics::register(&mut registry),
        };
        let webhooks = Webhooks { controllers: controllers(settings), intake: intake.clone() };
        let limits = Limits {
            connections: settings.webhooks.max_connections.get(),
            per_peer: settings.webhooks.max_connections_per_peer.get(),
            header_time: HEADER_TIME,
        };
        supervisor.spawn(
            "webhooks",
            listener::serve(
                "webhooks",
                self.webhooks,
                jenkins::router(webhooks).merge(from_sentry),
                limits,
                listener_metrics.clone(),
                supervisor.stop(),
            ),
        );
        let raw = RawDoors { intake, limits, metrics: listener_metrics.clone() };
        raw.serve(&supervisor, self.tcp, self.udp);
        let surroundings = relay::Surroundings { pod: &pod, clock: &clock, health: &health, supervisor: &supervisor };
        relay::start(settings, self.relay, &surroundings, sink, &mut registry, &listener_metrics)?;
        let admin = Admin {
            access: access(&settings.admin.access()),
            health,
            registry: Arc::new(registry),
            store,
            rulebook,
            clock,
            pod,
        };
        supervisor.spawn(
            "admin",
            listener::serve(
                "admin",
                self.admin,
                admin::router(admin),
                ADMIN_LIMITS,
                listener_metrics,
                supervisor.stop(),
            ),
        );
        Ok(Running { supervisor, addresses })
    }
}

/// What all raw doors have in common.
struct RawDoors {
    intake: Intake,
    limits: Limits,
    metrics: ListenerMetrics,
}

impl RawDoors {
    fn serve(
        self,
        supervisor: &Supervisor,
        tcp: Vec<(ControllerName, TcpListener)>,
        udp: Vec<(ControllerName, UdpSocket)>,
    ) {
        let door = |controller| Arc::new(Raw { controller, intake: self.intake.clone() });
        for (controller, listener) in tcp {
            let metrics = self.metrics.clone();
            let serving = raw::serve_tcp(door(controller), listener, self.limits, metrics, supervisor.stop());
            supervisor.spawn("jenkins_tcp", serving);
        }
        for (controller, socket) in udp {
            supervisor.spawn("jenkins_udp", raw::serve_udp(door(controller), socket, supervisor.stop()));
        }
    }
}

/// Where recoverd listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub webhooks: SocketAddr,
    pub admin: SocketAddr,
    /// Absent when there is no relay.
    pub relay: Option<SocketAddr>,
    /// For raw documents, in the order of the controllers that take them.
    pub tcp: Vec<SocketAddr>,
    pub udp: Vec<SocketAddr>,
}

/// Everything runs.
#[derive(Debug)]
pub struct Running {
    supervisor: Supervisor,
    pub addresses: Addresses,
}

impl Running {
    /// Cancelled when a task has failed: then it is time to end.
    pub fn failed(&self) -> CancellationToken {
        self.supervisor.stop()
    }

    /// Takes nothing more, finishes what was begun, at most for `deadline`.
    pub async fn end(self, deadline: Duration) -> Ended {
        self.supervisor.end(deadline).await
    }
}

/// From connecting, or the answer before, to the end of the head.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// For a whole body. Jenkins itself gives up after 30 s.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Jenkins waits 30 s for an answer, and takes a refusal for one.
const THROTTLE_PATIENCE: Duration = Duration::from_secs(20);
/// The kubelet takes up to a minute to bring a change; a few seconds more do not matter.
const DOWNWARD_EVERY: Duration = Duration::from_secs(5);
const HOUSEKEEPING: Duration = Duration::from_mins(1);
const ADMIN_LIMITS: Limits = Limits { connections: 64, per_peer: 32, header_time: HEADER_TIME };

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { setting, address, source })
}

fn controllers(settings: &Settings) -> BTreeMap<String, Controller> {
    let door = |controller: &config::Controller| {
        let access = access(&controller.access);
        (controller.name.to_string(), Controller { name: controller.name.clone(), access })
    };
    settings.controllers().iter().map(door).collect()
}

/// The controllers that are asked.
fn watches(settings: &Settings, health: &Health) -> Result<Vec<Watch>, StartError> {
    let mut watches = Vec::new();
    for controller in settings.controllers() {
        let Some((api, every)) = controller.api.clone().zip(controller.poll_interval) else { continue };
        let name = controller.name.clone();
        let api = RemoteApi::new(api).map_err(|source| StartError::Jenkins { controller: name.clone(), source })?;
        let health = health.optional(&format!("jenkins {name}"));
        watches.push(Watch::new(name, api, every, health));
    }
    Ok(watches)
}

fn access(configured: &config::Access) -> Access {
    match configured {
        config::Access::Tokens(tokens) => Access::Tokens(Tokens::new(tokens)),
        config::Access::LoopbackOnly => Access::LoopbackOnly,
        config::Access::Open => Access::Open,
    }
}

async fn housekeeping(throttle: Throttle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        throttle.forget_quiet_sources();
    }
}
