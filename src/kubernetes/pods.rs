//! The pods of this node: listed once, then watched, and listed anew when the watch has missed something.
//!
//! While the API server is away, those that were known last stay.
//!
//! Metrics: see [`PodMetrics`].

mod examine;
mod metrics;
mod slim;
mod trouble;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::client::ClientBuilder;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tower::limit::RateLimitLayer;
use tower::util::MapResponseLayer;
use url::Url;

use super::cluster::{self, ClusterError};
use crate::domain::pod::{Pod, TagChoice, Unattributable};
use crate::domain::pod_directory::{PodDirectory, Seen};
use crate::machinery::clock::Clock;
use crate::machinery::health;
use crate::machinery::retry::{backoff, spread};
pub use examine::examine;
pub use metrics::PodMetrics;
use slim::SlimPod;
use trouble::Trouble;

/// After this the API server ends a watch, and a dead connection is noticed soon after.
const WATCH_SECONDS: u32 = 120;
/// Nothing on a connection for so long means that it is dead.
const SILENCE: Duration = Duration::from_secs(130);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A failure so long after the last one is the first of its own.
const CALM: Duration = Duration::from_mins(2);
/// After so many watches in a row that would not begin, where they were to begin may be what is wrong.
const STUCK: u32 = 3;
/// Something on the way may end each watch as it begins.
const MOST_REQUESTS: (u64, Duration) = (5, Duration::from_secs(1));
const TIDY: Duration = Duration::from_secs(30);

/// What is known of the pods of this node; `P` is what is kept of each.
pub struct NodePods<P> {
    directory: RwLock<PodDirectory<P>>,
    /// Whether there was a list; sent again with every pod.
    has_list: watch::Sender<bool>,
    clock: Clock,
}

impl<P> fmt::Debug for NodePods<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NodePods").finish_non_exhaustive()
    }
}

impl<P: Clone> NodePods<P> {
    /// Knows nobody until there is a [`PodWatch`].
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { directory: RwLock::default(), has_list: watch::Sender::new(false), clock })
    }

    /// Who has this address.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn whose(&self, address: IpAddr) -> Result<P, Unattributable> {
        let found = self.read().whose(address, self.clock.now());
        found.map_err(|reason| match reason {
            Unattributable::UnknownAddress if !*self.has_list.borrow() => Unattributable::NotSynced,
            reason => reason,
        })
    }

    /// Waits for the first list.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn listed(&self) {
        // The sender is in here, and so does not go first.
        let _ = self.has_list.subscribe().wait_for(|has_list| *has_list).await;
    }

    /// Waits for a pod with this address, for ever if there is none.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn appears(&self, address: IpAddr) -> P {
        let mut news = self.has_list.subscribe();
        loop {
            if let Ok(pod) = self.whose(address) {
                return pod;
            }
            // The sender is in here, and so does not go first.
            let _ = news.changed().await;
        }
    }

    /// The pod is there, anew or changed.
    pub fn applied(&self, seen: &Seen<P>) {
        self.write().applied(seen, self.clock.now());
        self.has_list.send_modify(|_| ());
    }

    /// The pod is gone.
    pub fn deleted(&self, uid: &Arc<str>) {
        self.write().deleted(uid, self.clock.now());
    }

    /// These are all that there are.
    pub fn are(&self, uids: &HashSet<Arc<str>>) {
        self.write().listed(uids, self.clock.now());
        self.has_list.send_replace(true);
    }

    fn read(&self) -> RwLockReadGuard<'_, PodDirectory<P>> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, PodDirectory<P>> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the pods of one node known.
pub struct PodWatch<P, F> {
    pub pods: Arc<NodePods<P>>,
    pub node: String,
    pub choice: TagChoice,
    /// Makes of a pod what is kept of it.
    pub prepare: F,
    pub api: PodApi,
}

/// The API server, asked for pods.
pub struct PodApi {
    client: Client,
    health: health::Part,
    metrics: PodMetrics,
}

impl PodApi {
    /// Connects to nothing yet. `address` is that of the API server, where it is not the cluster's own.
    ///
    /// # Errors
    /// When this is no pod, or one without a service account's token.
    pub fn new(address: Option<&Url>, health: health::Part, metrics: PodMetrics) -> Result<Self, ClusterError> {
        let mut config = cluster::config(address)?;
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        // A watch that began well need not tell anything for hours: that it answers is the sign.
        let (board, (most, within)) = (health.clone(), MOST_REQUESTS);
        let notice = MapResponseLayer::new(move |response: http::Response<_>| {
            if response.status().is_success() && board.up() {
                tracing::info!("the API server tells of this node's pods");
            }
            response
        });
        let client = ClientBuilder::try_from(config)?.with_layer(&notice);
        let client = client.with_layer(&RateLimitLayer::new(most, within)).build();
        Ok(Self { client, health, metrics })
    }
}

impl fmt::Debug for PodApi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PodApi").field("health", &self.health).finish_non_exhaustive()
    }
}

impl<P, F> fmt::Debug for PodWatch<P, F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PodWatch").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    stuck: u32,
    last: Option<Instant>,
    /// What was logged of them.
    told: Option<&'static str>,
}

impl<P, F> PodWatch<P, F>
where
    P: Clone,
    F: Fn(Pod) -> P,
{
    /// Runs until `stop`. Whatever the API server does, it is asked again.
    ///
    /// # Cancel safety
    /// Dropped, the pods stay as they are known.
    pub async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut failures = Failures::default();
        let mut ticks = tokio::time::interval(TIDY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let fields = format!("spec.nodeName={}", self.node);
            let config = watcher::Config::default().fields(&fields).timeout(WATCH_SECONDS);
            let mut told = pin!(watcher(Api::<SlimPod>::all(self.api.client.clone()), config));
            let mut listed = HashSet::new();
            loop {
                let told = tokio::select! {
                    told = told.next() => told,
                    _ = ticks.tick() => {
                        self.tidy();
                        continue;
                    }
                };
                match told {
                    Some(Ok(event)) => {
                        // An attempt at a list is no success yet.
                        if !matches!(event, Event::Init) {
                            failures = Failures::default();
                        }
                        self.take(event, &mut listed);
                    }
                    Some(Err(error)) => {
                        let wait = self.failed(&error, &mut failures);
                        tokio::time::sleep(wait).await;
                        if failures.stuck >= STUCK {
                            failures.stuck = 0;
                            break;
                        }
                    }
                    None => break,
                }
            }
        }
    }

    fn take(&self, event: Event<SlimPod>, listed: &mut HashSet<Arc<str>>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.uid().map(Arc::from));
                self.apply(pod);
            }
            Event::InitDone => {
                self.pods.are(&std::mem::take(listed));
                self.api.metrics.listed();
            }
            Event::Apply(pod) => {
                self.api.metrics.told("applied");
                self.apply(pod);
            }
            Event::Delete(pod) => {
                self.api.metrics.told("deleted");
                if let Some(uid) = pod.uid() {
                    self.pods.deleted(&uid.into());
                }
            }
        }
        self.count();
    }

    fn apply(&self, pod: SlimPod) {
        let Some(seen) = pod.seen(&self.node, &self.choice) else { return };
        self.pods.applied(&seen.map(&self.prepare));
    }

    fn tidy(&self) {
        self.pods.write().forget(self.pods.clock.now());
        self.count();
    }

    fn count(&self) {
        self.api.metrics.known(self.pods.read().len());
    }

    /// Returns how long to wait before the next attempt.
    fn failed(&self, error: &watcher::Error, failures: &mut Failures) -> Duration {
        let Trouble { reason, why, is_stuck } = Trouble::of(error);
        self.api.metrics.failed(reason);
        if failures.last.is_some_and(|last| last.elapsed() > CALM) {
            *failures = Failures::default();
        }
        failures.last = Some(Instant::now());
        if let Some(why) = why {
            let was_up = self.api.health.down(&why);
            let is_another = failures.told.replace(reason) != Some(reason);
            if was_up || is_another {
                tracing::warn!(reason, why, "the pods of this node stay as they were known last");
            }
        }
        failures.count = failures.count.saturating_add(1);
        failures.stuck = if is_stuck { failures.stuck + 1 } else { 0 };
        spread(backoff(FIRST_WAIT, LONGEST_WAIT, failures.count))
    }
}
