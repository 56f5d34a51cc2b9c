//! One look after the other, and each joined with what is stored.
//!
//! Metrics: `recoverd_sentry_looks_total`, `recoverd_sentry_look_failures_total`, `recoverd_sentry_look_seconds`,
//! `recoverd_sentry_repaired_total`, `recoverd_sentry_absent`, `recoverd_sentry_unreadable_total`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inquiry, Key, Look, Report, Shown, Sighting};
use crate::domain::build::Timestamp;
use crate::domain::sentry::record::SentryRecord;
use crate::domain::sentry::{
    AlertReport, AlertState, AlertText, IntegrationName, IssueReport, IssueState, IssueText, Level, Seen, Subject,
};
use crate::machinery::clock::Clock;
use crate::machinery::health::Part;
use crate::machinery::retry;
use crate::sentry::rest::{Incident, Issue, RemoteApi, RestError};
use crate::store::{SentryEntry, Store, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    integration: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    integration: String,
    reason: &'static str,
}

/// Numbers of all Sentries that are asked.
#[derive(Clone, Debug, Default)]
pub struct SentryCatchUpMetrics {
    looks: Family<Of, Counter>,
    failures: Family<Because, Counter>,
    seconds: Family<Of, Gauge<f64, AtomicU64>>,
    repaired: Family<Of, Counter>,
    absent: Family<Of, Gauge>,
    unreadable: Family<Of, Counter>,
}

impl SentryCatchUpMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_sentry_looks", "Looks at all that is open in a Sentry", new.looks.clone());
        let help = "Looks that came to no end, and questions about one issue or alert without an answer";
        registry.register("recoverd_sentry_look_failures", help, new.failures.clone());
        registry.register("recoverd_sentry_look_seconds", "How long the last look took", new.seconds.clone());
        let help = "Issues and metric alerts whose state was learned by looking";
        registry.register("recoverd_sentry_repaired", help, new.repaired.clone());
        let help = "Issues and metric alerts thought to be open that the last look did not list";
        registry.register("recoverd_sentry_absent", help, new.absent.clone());
        let help = "Issues and metric alerts that were listed without an id or a status";
        registry.register("recoverd_sentry_unreadable", help, new.unreadable.clone());
        new
    }

    /// Shows an integration before anything has happened to it.
    fn show(&self, integration: &IntegrationName) {
        let of = Of { integration: integration.to_string() };
        for counters in [&self.looks, &self.repaired, &self.unreadable] {
            drop(counters.get_or_create(&of));
        }
        drop(self.absent.get_or_create(&of));
        drop(self.seconds.get_or_create(&of));
        let because = Because { integration: integration.to_string(), reason: "unreachable" };
        drop(self.failures.get_or_create(&because));
    }
}

/// Asks one Sentry at a time.
#[derive(Debug)]
pub struct SentryCatchUp {
    pub store: Store,
    pub clock: Clock,
    pub metrics: SentryCatchUpMetrics,
}

/// A Sentry that is asked.
#[derive(Debug)]
pub struct Watch {
    name: IntegrationName,
    inquiry: Inquiry,
    every: Duration,
    health: Part,
    due: Instant,
    failures: u32,
}

impl Watch {
    /// `every` lies between two looks. `health` is its line on the board.
    pub fn new(name: IntegrationName, api: RemoteApi, clock: Clock, every: Duration, health: Part) -> Self {
        health.down("the first look at its issues is under way");
        Self { name, inquiry: Inquiry::new(api, clock), every, health, due: Instant::now(), failures: 0 }
    }
}

/// Why a look came to no end.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error("what Sentry shows cannot be joined: {0}")]
    Store(#[from] StoreError),
}

impl Interrupted {
    fn reason(&self) -> &'static str {
        match self {
            Self::Rest(error) => error.fault.reason(),
            Self::Store(_) => "store",
        }
    }
}

/// A Sentry that does not answer is asked at least this often, but never more often than usual.
const LONGEST_BACKOFF: Duration = Duration::from_mins(15);

impl SentryCatchUp {
    /// The first looks begin at once. One that is under way when it is time to stop is broken off, which loses nothing.
    pub async fn run(self, mut watches: Vec<Watch>, stop: CancellationToken) {
        for watch in &watches {
            self.metrics.show(&watch.name);
        }
        while let Some(next) = watches.iter_mut().min_by_key(|watch| watch.due) {
            let looking = async {
                tokio::time::sleep_until(next.due).await;
                self.look(next).await;
            };
            if stop.run_until_cancelled(looking).await.is_none() {
                return;
            }
        }
        stop.cancelled().await;
    }

    async fn look(&self, watch: &mut Watch) {
        let started = Instant::now();
        let of = Of { integration: watch.name.to_string() };
        let wait = match self.survey(watch).await {
            Ok(report) => {
                self.metrics.looks.get_or_create(&of).inc();
                self.metrics.seconds.get_or_create(&of).set(started.elapsed().as_secs_f64());
                self.metrics.absent.get_or_create(&of).set(i64::try_from(report.absent).unwrap_or(i64::MAX));
                self.metrics.unreadable.get_or_create(&of).inc_by(report.unreadable as u64);
                report.unanswered.iter().for_each(|error| self.count_failure(watch, error.fault.reason()));
                succeed(watch, &report.troubles);
                watch.every
            }
            Err(interrupted) => {
                self.fail(watch, &interrupted);
                let longest = LONGEST_BACKOFF.max(watch.every);
                retry::backoff(watch.every, longest, watch.failures)
            }
        };
        watch.due = Instant::now() + retry::spread(wait);
    }

    async fn survey(&self, watch: &mut Watch) -> Result<Report, Interrupted> {
        let begun = self.clock.now();
        let Watch { name, inquiry, .. } = watch;
        let mut look: Look<'_> = inquiry.look();
        while let Some(page) = look.next().await? {
            let seen = page.into_iter().filter_map(|sighting| seen(sighting, &BTreeMap::new())).collect();
            self.join(name, seen).await?;
        }
        let open = self.open(name, begun).await?;
        let report = look.end(open.keys().copied()).await?;
        let found = report.sightings.iter().cloned().filter_map(|sighting| seen(sighting, &open)).collect();
        self.join(name, found).await?;
        Ok(report)
    }

    async fn join(&self, name: &IntegrationName, seen: Vec<Seen>) -> Result<(), Interrupted> {
        if seen.is_empty() {
            return Ok(());
        }
        let repaired = self.store.see(name.clone(), seen).await?;
        let of = Of { integration: name.to_string() };
        self.metrics.repaired.get_or_create(&of).inc_by(repaired);
        Ok(())
    }

    /// What is thought to be open and was not heard of since `begun`, each metric alert with its rule.
    async fn open(&self, name: &IntegrationName, begun: Timestamp) -> Result<BTreeMap<Key, u64>, Interrupted> {
        let (store, name) = (self.store.clone(), name.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let (mut open, mut after) = (BTreeMap::new(), None);
            loop {
                let page = store.sentry_page(after.as_ref(), PAGE)?;
                let Some(last) = page.last() else { return Ok(open) };
                after = Some(last.key.clone());
                for entry in page.iter().filter(|entry| entry.key.integration == name) {
                    open.extend(keys(entry, begun));
                }
            }
        });
        Ok(reading.await.unwrap_or(Err(StoreError::Closed))?)
    }

    fn fail(&self, watch: &mut Watch, interrupted: &Interrupted) {
        self.count_failure(watch, interrupted.reason());
        watch.failures = watch.failures.saturating_add(1);
        let why = interrupted.to_string();
        let integration = watch.name.as_str();
        if watch.failures == 1 {
            tracing::warn!(integration, error = why, "a look at Sentry failed, webhooks count until the next one");
        } else {
            tracing::debug!(integration, error = why, failures = watch.failures, "a look at Sentry failed again");
        }
        watch.health.down(why);
    }

    fn count_failure(&self, watch: &Watch, reason: &'static str) {
        self.metrics.failures.get_or_create(&Because { integration: watch.name.to_string(), reason }).inc();
    }
}

/// Read from the store at once.
const PAGE: usize = 256;

fn succeed(watch: &mut Watch, troubles: &[String]) {
    let integration = watch.name.as_str();
    if std::mem::take(&mut watch.failures) > 0 {
        tracing::info!(integration, "Sentry answers again");
    }
    let why = troubles.join("; ");
    if why.is_empty() {
        watch.health.up();
    } else if watch.health.down(&*why) {
        tracing::warn!(integration, why, "Sentry shows not all that it should");
    }
}

fn keys(SentryEntry { key, record }: &SentryEntry, begun: Timestamp) -> Vec<(Key, u64)> {
    match (&key.subject, record) {
        (Subject::Issue(id), SentryRecord::Issue(issue)) if !issue.is_closed() && issue.touched() < begun => {
            vec![(Key::Issue(*id), *id)]
        }
        (Subject::Alert(rule), SentryRecord::Alert(alert)) if alert.touched() < begun => {
            alert.open().map(|identifier| (Key::Alert(identifier), *rule)).collect()
        }
        _ => Vec::new(),
    }
}

/// `None` for what says nothing of a status: an issue that is just being merged or deleted, an alert without a rule.
fn seen(Sighting { shown, asked: at }: Sighting, open: &BTreeMap<Key, u64>) -> Option<Seen> {
    Some(match shown {
        Shown::Issue(issue) => Seen::Issue(issue_report(issue, at)?),
        Shown::Alert(incident) => {
            let known = open.get(&Key::Alert(incident.identifier)).copied();
            Seen::Alert(alert_report(incident, known, at)?)
        }
        Shown::Merged { issue, into } => Seen::Merged { issue, into, at },
        Shown::Gone(Key::Issue(issue)) => Seen::IssueGone { issue, at },
        Shown::Gone(Key::Alert(identifier)) => {
            Seen::AlertGone { rule: open.get(&Key::Alert(identifier)).copied()?, identifier, at }
        }
    })
}

/// `GroupStatus` in Sentry's source.
fn issue_report(issue: Issue, at: Timestamp) -> Option<IssueReport> {
    let state = match issue.status.as_str() {
        "unresolved" | "reprocessing" => IssueState::Open,
        "resolved" => IssueState::Resolved,
        "ignored" | "archived" | "muted" => IssueState::Archived,
        _ => return None,
    };
    let about = IssueText {
        project: issue.project.slug.or_else(|| Some(issue.project.id?.to_string())),
        short_id: issue.short_id,
        level: issue.level.as_deref().and_then(Level::read),
        title: issue.title,
        culprit: issue.culprit,
        link: issue.permalink,
    };
    Some(IssueReport { id: issue.id, state, action: state.as_str(), at, about })
}

/// `IncidentStatus` in Sentry's source.
fn alert_report(incident: Incident, rule: Option<u64>, at: Timestamp) -> Option<AlertReport> {
    let state = match incident.status {
        1 => AlertState::Open,
        2 => AlertState::Resolved,
        10 => AlertState::Warning,
        20 => AlertState::Critical,
        _ => return None,
    };
    let about = AlertText { name: incident.rule.name, projects: incident.projects, text: None, link: None };
    // A rule that was edited may go on under another id; the alert is the one that is known.
    let rule = rule.or(incident.rule.id)?;
    Some(AlertReport { rule, identifier: incident.identifier, state, at, about })
}
