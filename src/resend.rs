//! The rounds: every job's status, again and again. One lost datagram, a dead Agent, a crash between storing and
//! sending, a change of rules: all heal here.
//!
//! Metrics: `recoverd_rounds_total`, `recoverd_round_seconds`, `recoverd_jobs` by status, `recoverd_jobs_colliding`,
//! `recoverd_jobs_silent`, `recoverd_sentry_issues_open`, `recoverd_sentry_alerts_open`, `recoverd_sentry_notices_waiting`.

mod sentry;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::datadog::{AgentSink, sanitise};
use crate::domain::announcement::{Level, Speaker};
use crate::domain::job::{JobKey, JobPath, stable_hash};
use crate::domain::record::Closed;
use crate::domain::rules::{Children, Rulebook};
use crate::domain::signal::{Signal, Tag, tag};
use crate::domain::silence::Silence;
use crate::domain::status::Status;
use crate::machinery::clock::Clock;
use crate::store::{Entry, Store, StoreError, Told};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    status: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct ResendMetrics {
    rounds: Counter,
    seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    jobs: Family<Of, Gauge>,
    colliding: Gauge,
    silent: Gauge,
    sentry_issues: Gauge,
    sentry_alerts: Gauge,
    sentry_notices: Gauge,
}

impl ResendMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_rounds", "Rounds in which every status was sent", new.rounds.clone());
        registry.register("recoverd_round_seconds", "How long the last round took", new.seconds.clone());
        let help = "Jobs that Datadog cannot tell from another, as it writes their names alike";
        registry.register("recoverd_jobs_colliding", help, new.colliding.clone());
        let help = "Jobs whose last build was seen without its webhook, where others' come";
        registry.register("recoverd_jobs_silent", help, new.silent.clone());
        let help = "Issues of Sentry that are open";
        registry.register("recoverd_sentry_issues_open", help, new.sentry_issues.clone());
        let help = "Metric alerts of Sentry that are open";
        registry.register("recoverd_sentry_alerts_open", help, new.sentry_alerts.clone());
        let help = "Events of Sentry that wait for the Agent";
        registry.register("recoverd_sentry_notices_waiting", help, new.sentry_notices.clone());
        registry.register("recoverd_jobs", "Jobs by their status in the last round", new.jobs.clone());
        new
    }
}

/// Sends the status of every job each `interval`.
#[derive(Debug)]
pub struct Resend {
    pub rulebook: Arc<Rulebook>,
    pub store: Store,
    pub sink: AgentSink,
    pub clock: Clock,
    pub interval: Duration,
    pub metrics: ResendMetrics,
}

/// Why a round ended before its end.
enum Interrupted {
    /// The Agent has gone; when it is back, a round begins anew.
    AgentAway,
    Store(StoreError),
    Stopped,
}

impl Resend {
    /// Jobs read and sent in one go.
    const PAGE: usize = 256;
    /// The Agent is looked for this often while it is away.
    const PROBE: Duration = Duration::from_secs(1);
    /// An announcement that is younger than this is probably being sent just now.
    const IN_FLIGHT: Duration = Duration::from_secs(5);

    /// The first round begins at once. A round that has begun a page finishes it.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let due = tokio::time::Instant::now() + self.interval;
            // Whoever has come by now hears of everything in this round.
            self.sink.probe().await;
            let away = match self.rounds(&stop).await {
                Ok(()) => false,
                Err(Interrupted::Stopped) => return,
                Err(Interrupted::AgentAway) => true,
                Err(Interrupted::Store(error)) => {
                    tracing::warn!(%error, "a round was broken off, the next one tries again");
                    false
                }
            };
            if self.wait(due, away, &stop).await.is_none() {
                return;
            }
        }
    }

    /// Until the next round is due, or the Agent is back. `None` when it is time to stop.
    async fn wait(&self, due: tokio::time::Instant, mut away: bool, stop: &CancellationToken) -> Option<()> {
        let mut probes = tokio::time::interval(Self::PROBE);
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(due), if !away => return Some(()),
                _ = probes.tick() => {
                    if self.sink.probe().await {
                        return Some(());
                    }
                    away &= tokio::time::Instant::now() < due;
                }
            }
        }
    }

    async fn rounds(&self, stop: &CancellationToken) -> Result<(), Interrupted> {
        let started = Instant::now();
        self.round(stop).await?;
        let sentry::Counts { issues, alerts, notices } = self.sentry_round(stop).await?;
        self.metrics.sentry_issues.set(issues);
        self.metrics.sentry_alerts.set(alerts);
        self.metrics.sentry_notices.set(notices);
        self.metrics.rounds.inc();
        self.metrics.seconds.set(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn round(&self, stop: &CancellationToken) -> Result<(), Interrupted> {
        let total = self.store.count();
        let pause = pause(self.interval, total);
        let mut counts = [0_i64; 4];
        let mut names = Names::default();
        let mut silent = 0;
        let mut after = None;
        loop {
            let behind = after.take();
            let seen = self.store.changes();
            let page = self.page(behind.clone()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            page.iter().filter(|entry| entry.record.closed().is_none()).for_each(|entry| names.add(&entry.key));
            let now = self.clock.now();
            silent += page.iter().filter(|entry| Silence::of(&entry.record, now).is_some()).count();
            let page = self.reviewed(page).await?;
            self.tell(&page, &mut counts).await?;
            self.correct(behind, page, seen).await?;
            if !pause.is_zero() && stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(Interrupted::Stopped);
            }
        }
        for (status, count) in ["ok", "warning", "critical", "none"].into_iter().zip(counts) {
            self.metrics.jobs.get_or_create(&Of { status }).set(count);
        }
        self.metrics.silent.set(i64::try_from(silent).unwrap_or(i64::MAX));
        let before = self.metrics.colliding.set(names.colliding);
        if let Some(example) = names.example.filter(|_| names.colliding > before) {
            tracing::warn!(
                jobs = names.colliding,
                job = example,
                "Datadog writes the names of some jobs alike, and one hides the other: rename them"
            );
        }
        Ok(())
    }

    /// A job that changed while its page was being told may have been told in the wrong order: it is told again, until
    /// nothing changes meanwhile.
    async fn correct(&self, behind: Option<JobKey>, mut told: Vec<Entry>, mut seen: u64) -> Result<(), Interrupted> {
        while self.store.changes() != seen {
            seen = self.store.changes();
            let mut page = self.page(behind.clone()).await?;
            page.retain(|entry| {
                let before = told.iter().find(|before| before.key == entry.key);
                before.is_some_and(|before| before.record.announced() != entry.record.announced())
            });
            if page.is_empty() {
                break;
            }
            self.tell(&page, &mut [0; 4]).await?;
            for entry in page {
                told.retain(|before| before.key != entry.key);
                told.push(entry);
            }
        }
        Ok(())
    }

    async fn page(&self, behind: Option<JobKey>) -> Result<Vec<Entry>, Interrupted> {
        self.blocking(move |store| store.page(behind.as_ref(), Self::PAGE)).await
    }

    /// Applies the rules to the jobs whose records they contradict: left out or taken in anew, another mapping, a
    /// project whose branches were jobs.
    async fn reviewed(&self, mut page: Vec<Entry>) -> Result<Vec<Entry>, Interrupted> {
        let keys: Vec<JobKey> =
            page.iter().filter(|entry| self.contradicts_rules(entry)).map(|entry| entry.key.clone()).collect();
        if keys.is_empty() {
            return Ok(page);
        }
        self.store.review(keys.clone()).await.map_err(Interrupted::Store)?;
        // The writer has handed its news to the announcer already.
        page.retain(|entry| !keys.contains(&entry.key));
        Ok(page)
    }

    fn contradicts_rules(&self, Entry { key, record }: &Entry) -> bool {
        let covered = self.rulebook.covers(key);
        match record.closed() {
            Some(Closed::Filtered) => covered,
            Some(_) => record.is_over(self.clock.now()),
            None if !covered => true,
            None => {
                let holds = |parent: &JobPath| self.rulebook.of(&key.controller)?.children(parent);
                let is_branch = key.job.split_leaf().and_then(|(parent, _)| holds(&parent)) == Some(Children::Branches);
                let is_folder = record.has_branches() && holds(&key.job) == Some(Children::Jobs);
                let announced = record.announced().map(|announced| announced.status);
                let current = record.current(self.rulebook.policy(key)).map(|current| current.status);
                is_branch || is_folder || current.or(announced.map(|_| Status::Ok)) != announced
            }
        }
    }

    async fn tell(&self, page: &[Entry], counts: &mut [i64; 4]) -> Result<(), Interrupted> {
        let now = self.clock.now();
        let mut signals = Vec::with_capacity(page.len());
        let mut to_confirm = Vec::new();
        for Entry { key, record } in page.iter().filter(|entry| !entry.record.is_spent()) {
            let speaker = Speaker::new(key, self.rulebook.of(&key.controller));
            let level = Level::of(record, self.rulebook.policy(key));
            let column = level.as_ref().map_or(3, |level| level.status as usize);
            counts.get_mut(column).into_iter().for_each(|count| *count += 1);
            let Some(level) = level else { continue };
            signals.push(Signal::Check(speaker.check(&level)));
            let untold = record
                .announced()
                .filter(|announced| !announced.confirmed && now.since(announced.at) >= Self::IN_FLIGHT);
            if let Some(announced) = untold {
                let event = announced.change().and_then(|change| speaker.event(change, &level, None, announced.at));
                signals.extend(event.map(Signal::Event));
                to_confirm.push((signals.len(), Told::Job(key.clone(), announced.status)));
            }
        }
        self.hand_over(signals, to_confirm).await
    }

    /// Sends, and notes what has been told: all whose last signal was taken.
    async fn hand_over(&self, signals: Vec<Signal>, to_confirm: Vec<(usize, Told)>) -> Result<(), Interrupted> {
        let all = signals.len();
        let delivery = self.sink.deliver(signals).await;
        let told: Vec<Told> =
            to_confirm.into_iter().filter(|(until, _)| *until <= delivery.taken).map(|(_, told)| told).collect();
        self.store.confirmer().confirm(told).await;
        if delivery.taken < all { Err(Interrupted::AgentAway) } else { Ok(()) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Interrupted> {
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || read(&store)).await;
        reading.unwrap_or(Err(StoreError::Closed)).map_err(Interrupted::Store)
    }
}

/// The names of one round's jobs as Datadog sees them: in lower case, with `_` for most signs.
#[derive(Default)]
struct Names {
    seen: HashSet<u64>,
    colliding: i64,
    example: Option<String>,
}

impl Names {
    fn add(&mut self, key: &JobKey) {
        let tag = sanitise::tag(&Tag::new(tag::JOB, key.job.as_str())).unwrap_or_default();
        if !self.seen.insert(stable_hash(&format!("{} {}", key.controller, tag.to_lowercase()))) {
            self.colliding += 1;
            self.example.get_or_insert_with(|| key.to_string());
        }
    }
}

/// Between two pages, so that a round of many jobs takes half the interval and never floods the Agent. Up to one page
/// of jobs go in one burst, which an Agent takes easily.
fn pause(interval: Duration, jobs: u64) -> Duration {
    let pages = u32::try_from(jobs.div_ceil(Resend::PAGE as u64)).unwrap_or(u32::MAX);
    if pages <= 1 { Duration::ZERO } else { interval / 2 / pages }
}
