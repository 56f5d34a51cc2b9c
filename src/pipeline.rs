//! A build's journey: stored, then told. Read it from top to bottom.
//!
//! Metrics: `recoverd_backlog`, `recoverd_backlog_dropped_total`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::datadog::AgentSink;
use crate::domain::announcement::Speaker;
use crate::domain::build::BuildReport;
use crate::domain::job::ControllerName;
use crate::domain::removal::Removal;
use crate::domain::rules::Rulebook;
pub use crate::domain::sentry::Heard;
use crate::domain::sentry::speech::SentrySpeaker;
use crate::domain::sentry::{IntegrationName, Occurrence};
use crate::domain::signal::Signal;
use crate::machinery::clock::Clock;
use crate::store::{Confirmer, JobNews, News, Receipt, Store, StoreError, Told};

/// The way in: whoever has a report hands it over here.
#[derive(Clone, Debug)]
pub struct Pipeline {
    store: Store,
}

impl Pipeline {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// On `Ok` the report survives a crash of the node, and is told soon, or at the next round at the latest.
    ///
    /// # Errors
    /// When it could not be stored.
    ///
    /// # Cancel safety
    /// The report may be stored or not; if it is, it is told all the same.
    pub async fn accept(&self, controller: ControllerName, report: Box<BuildReport>) -> Result<Receipt, StoreError> {
        let span = tracing::debug_span!("build", %controller, job = %report.job, number = report.number);
        async {
            let receipt = self.store.take(controller, report).await;
            match &receipt {
                Ok(receipt) => tracing::debug!(novelty = ?receipt.novelty, held = receipt.held, "stored"),
                Err(error) => tracing::debug!(%error, "not stored"),
            }
            receipt
        }
        .instrument(span)
        .await
    }

    /// Takes in what Sentry told. On `Ok` it survives a crash of the node.
    ///
    /// # Errors
    /// When it could not be stored.
    ///
    /// # Cancel safety
    /// As of [`Self::accept`].
    pub async fn hear(&self, integration: IntegrationName, occurrence: Occurrence) -> Result<Heard, StoreError> {
        let span = tracing::debug_span!("sentry", %integration);
        self.store.hear(integration, occurrence).instrument(span).await
    }

    /// Gives up what Jenkins has no more. `false` when nothing was known of it. On `Ok` that survives a crash of the node.
    ///
    /// # Errors
    /// When it could not be stored.
    ///
    /// # Cancel safety
    /// As of [`Self::accept`].
    pub async fn remove(&self, controller: ControllerName, gone: Removal) -> Result<bool, StoreError> {
        let span = tracing::debug_span!("removal", %controller, path = %gone.path);
        self.store.remove(controller, gone).instrument(span).await
    }
}

#[derive(Clone, Debug, Default)]
pub struct AnnouncerMetrics {
    overflow: Counter,
    backlog: Gauge,
}

impl AnnouncerMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let help = "Metrics dropped: too many waited for the Agent to return, or it did not before the end";
        registry.register("recoverd_backlog_dropped", help, new.overflow.clone());
        registry.register("recoverd_backlog", "Metrics that wait for the Agent to return", new.backlog.clone());
        new
    }
}

/// Tells Datadog what the store has made durable.
#[derive(Debug)]
pub struct Announcer {
    pub rulebook: Arc<Rulebook>,
    pub sink: AgentSink,
    pub confirmer: Confirmer,
    pub clock: Clock,
    pub metrics: AnnouncerMetrics,
}

impl Announcer {
    /// So much news is told in one go.
    const BATCH: usize = 256;
    /// So long news waits for other news: a datagram has room for many, and costs the Agent the same.
    const GATHER: Duration = Duration::from_millis(2);
    /// Metrics that outlast an absence of the Agent. Beyond this the oldest are dropped, and counted.
    const BACKLOG: usize = 10_000;
    /// The backlog is tried again this often.
    const RETRY: Duration = Duration::from_secs(1);

    /// Ends when the store has ended and all its news is told.
    pub async fn run(self, mut news: mpsc::Receiver<News>) {
        let mut batch = Vec::with_capacity(Self::BATCH);
        let mut backlog = VecDeque::new();
        loop {
            let wait = if backlog.is_empty() { Duration::MAX } else { Self::RETRY };
            match tokio::time::timeout(wait, news.recv_many(&mut batch, Self::BATCH)).await {
                Ok(0) => break,
                Ok(_) => {
                    if batch.len() < Self::BATCH {
                        tokio::time::sleep(Self::GATHER).await;
                    }
                    while batch.len() < Self::BATCH
                        && let Ok(more) = news.try_recv()
                    {
                        batch.push(more);
                    }
                }
                Err(_) => {}
            }
            self.tell(batch.drain(..), &mut backlog).await;
        }
        if !backlog.is_empty() {
            self.metrics.overflow.inc_by(backlog.len() as u64);
            tracing::warn!(
                metrics = backlog.len(),
                "metrics are dropped that waited for the Agent; statuses are stored"
            );
        }
    }

    async fn tell(&self, batch: impl Iterator<Item = News>, backlog: &mut VecDeque<Signal>) {
        let mut signals: Vec<Signal> = backlog.drain(..).collect();
        let mut to_confirm = Vec::new();
        for news in batch {
            let told = match news {
                News::Job(news) => {
                    self.add_signals(&news, &mut signals);
                    let level = news.level.filter(|_| news.change.is_some() || news.build.is_none());
                    level.map(|level| Told::Job(news.key, level.status))
                }
                News::Sentry(news) => {
                    let speaker = SentrySpeaker::new(&news.key.integration, &self.rulebook);
                    speaker.signals(&news, self.clock.now(), &mut signals);
                    Some(Told::Sentry(news.key.clone(), news.record.standing().cloned()))
                }
            };
            to_confirm.extend(told.map(|told| (signals.len(), told)));
        }
        let all = signals.len();
        let delivery = self.sink.deliver(signals).await;
        let told: Vec<Told> =
            to_confirm.into_iter().filter(|(until, _)| *until <= delivery.taken).map(|(_, told)| told).collect();
        self.confirmer.confirm(told).await;
        if delivery.taken < all {
            self.keep_metrics(delivery.rest, backlog);
        }
        self.metrics.backlog.set(i64::try_from(backlog.len()).unwrap_or(i64::MAX));
    }

    fn add_signals(&self, news: &JobNews, signals: &mut Vec<Signal>) {
        let speaker = Speaker::new(&news.key, self.rulebook.of(&news.key.controller));
        let report = news.build.as_ref().map(|build| &build.1);
        if let Some(level) = &news.level {
            signals.push(Signal::Check(speaker.check(level)));
            let event = news.change.and_then(|change| speaker.event(change, level, report, self.clock.now()));
            signals.extend(event.map(Signal::Event));
        }
        if let Some((branch, report, taken)) = news.build.as_deref() {
            signals.extend(speaker.metrics(branch, report, taken).into_iter().map(Signal::Metric));
        }
    }

    /// Checks and events are told again by the next round, out of the store. Metrics have nobody else to keep them.
    fn keep_metrics(&self, left: Vec<Signal>, backlog: &mut VecDeque<Signal>) {
        for signal in left {
            match signal {
                Signal::Metric(_) => {
                    if backlog.len() >= Self::BACKLOG {
                        backlog.pop_front();
                        self.metrics.overflow.inc();
                    }
                    backlog.push_back(signal);
                }
                Signal::Check(_) | Signal::Event(_) => {}
            }
        }
    }
}
