//! The pods of this node: listed once, then watched, and listed anew when the watch has missed something.
//!
//! While the API server is away, those that were known last stay.
//!
//! Metrics: see [`PodMetrics`].

mod api;
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

use futures_util::{FutureExt as _, StreamExt as _};
use kube::Api;
use kube::runtime::watcher::{self, Event, ListSemantic, watcher};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::domain::pod::{Pod, TagChoice, Unattributable};
use crate::domain::pod_directory::{PodDirectory, Seen};
use crate::machinery::retry::{backoff, spread};
pub use api::PodApi;
pub use examine::examine;
pub use metrics::PodMetrics;
use slim::SlimPod;
use trouble::{Place, Trouble};

/// After this the API server ends a watch, and a dead connection is noticed soon after.
const WATCH_SECONDS: u32 = 120;
/// A watch that has begun and is not over after this is well.
const LASTS: Duration = Duration::from_secs(1);
/// A failure so long after the last one is the first of its own.
const CALM: Duration = Duration::from_mins(2);
/// After so many refusals, where the watch was to go on may be what is wrong.
const STUCK: u32 = 3;
const TIDY: Duration = Duration::from_secs(30);

/// What is known of the pods of this node; `P` is what is kept of each.
pub struct NodePods<P> {
    directory: RwLock<PodDirectory<P>>,
    /// Whether there was a list; sent again with all that is told of a pod.
    has_list: watch::Sender<bool>,
    /// What is remembered for a while is so by a clock that nobody sets.
    began: Instant,
}

impl<P> fmt::Debug for NodePods<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NodePods").finish_non_exhaustive()
    }
}

impl<P: Clone> NodePods<P> {
    /// Knows nobody until there is a [`PodWatch`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self { directory: RwLock::default(), has_list: watch::Sender::new(false), began: Instant::now() })
    }

    /// Who has this address.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn whose(&self, address: IpAddr) -> Result<P, Unattributable> {
        let found = self.read().whose(address, self.now());
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

    /// Waits until it is known who has this address, for ever if nobody has.
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
        self.write().applied(seen, self.now());
        self.has_list.send_modify(|_| ());
    }

    /// The pod is gone.
    pub fn deleted(&self, uid: &Arc<str>) {
        self.write().deleted(uid, self.now());
        self.has_list.send_modify(|_| ());
    }

    /// These are all that there are.
    pub fn are(&self, uids: &HashSet<Arc<str>>) {
        self.write().listed(uids, self.now());
        self.has_list.send_replace(true);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
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
    pub pace: Pace,
}

impl<P, F> fmt::Debug for PodWatch<P, F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PodWatch").field("node", &self.node).finish_non_exhaustive()
    }
}

/// When to ask again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After the first failure; then twice as long after each. Default: 0.5 s.
    pub first_wait: Duration,
    /// Default: 30 s.
    pub longest_wait: Duration,
    /// All pods are listed so often though nothing is known to be missed: a server that was set back to a backup answers a
    /// watch with 200 and then with silence, until it has come to where the watch left off. Such a list is taken as the API
    /// server remembers it, which costs little, and may be a moment old; after a loss it is the most recent. Default: 30 min.
    pub list_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            list_every: Duration::from_mins(30),
        }
    }
}

/// Failures in a row. A list is none, and ends no row: where it comes and a watch does not, lists would follow one another.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// Of these, since the last list, those after which the watch may have lost its place.
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
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut failures = Failures::default();
        let mut ticks = tokio::time::interval(TIDY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut semantic = ListSemantic::MostRecent;
        loop {
            semantic = self.list_and_watch(semantic, &mut failures, &mut ticks).await;
            if failures.count > 0 {
                self.api.reconnect();
            }
        }
    }

    /// Until all pods are to be listed anew, and returns how.
    async fn list_and_watch(
        &self,
        semantic: ListSemantic,
        failures: &mut Failures,
        ticks: &mut Interval,
    ) -> ListSemantic {
        let fields = format!("spec.nodeName={}", self.node);
        let mut config = watcher::Config::default().fields(&fields).timeout(WATCH_SECONDS);
        if semantic == ListSemantic::Any {
            // With a limit it would not be asked so.
            config = watcher::Config { page_size: None, ..config.any_semantic() };
        }
        let mut told = pin!(watcher(Api::<SlimPod>::all(self.api.client.clone()), config));
        let mut enough = pin!(tokio::time::sleep(spread(self.pace.list_every)));
        let mut listed = HashSet::new();
        let mut begun: Option<Instant> = None;
        // When a watch that has begun is one that lasts.
        let mut well: Option<Instant> = None;
        loop {
            let told = tokio::select! {
                told = told.next() => told,
                () = self.api.begun.notified() => {
                    self.lasted(begun.replace(Instant::now()), failures);
                    well = Some(Instant::now() + LASTS);
                    continue;
                }
                () = tokio::time::sleep_until(well.unwrap_or_else(Instant::now)), if well.is_some() => {
                    well = None;
                    self.is_well();
                    continue;
                }
                _ = ticks.tick() => {
                    self.tidy();
                    continue;
                }
                () = &mut enough => return ListSemantic::Any,
            };
            match told {
                Some(Ok(event)) => {
                    if matches!(event, Event::Apply(_) | Event::Delete(_)) {
                        *failures = Failures::default();
                        self.is_well();
                    }
                    self.take(event, &mut listed);
                }
                Some(Err(error)) => {
                    self.lasted(begun.take(), failures);
                    let (wait, is_lost) = self.failed(&error, failures);
                    tokio::time::sleep(wait).await;
                    // One that had begun is over.
                    well = None;
                    let _ = self.api.begun.notified().now_or_never();
                    if is_lost {
                        failures.stuck = 0;
                        return ListSemantic::MostRecent;
                    }
                }
                None => return ListSemantic::MostRecent,
            }
        }
    }

    /// A watch that is over, and had begun then, ends the row of failures if it took longer than the longest wait. What is
    /// stuck stays so: it may have been silent.
    fn lasted(&self, begun: Option<Instant>, failures: &mut Failures) {
        if begun.is_some_and(|begun| begun.elapsed() > self.pace.longest_wait) {
            failures.count = 0;
        }
    }

    fn is_well(&self) {
        if self.api.health.up() {
            tracing::info!("the API server tells of this node's pods");
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
        self.pods.write().forget(self.pods.now());
        self.count();
    }

    fn count(&self) {
        self.api.metrics.known(self.pods.read().len());
    }

    /// Returns how long to wait before the next attempt, and whether that must be a list.
    fn failed(&self, error: &watcher::Error, failures: &mut Failures) -> (Duration, bool) {
        let Trouble { reason, why, place } = Trouble::of(error);
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
        failures.stuck += u32::from(place == Place::Doubtful);
        let is_lost = place == Place::Lost || failures.stuck >= STUCK;
        (spread(backoff(self.pace.first_wait, self.pace.longest_wait, failures.count)), is_lost)
    }
}
