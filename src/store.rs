//! Where job records live. Every 2xx rests on [`Store::take`]: when it returns, the report survives a crash of the node.
//!
//! Metrics: `recoverd_store_commits_total`, `recoverd_store_commit_seconds`, `recoverd_store_checkpoint_seconds`,
//! `recoverd_store_batch_reports`, `recoverd_store_failures_total`, `recoverd_store_damaged_total`, `recoverd_store_queue_depth`, `recoverd_announcements_dropped_total`,
//! `recoverd_sentry_untold_dropped_total` by reason.

mod checkpoint;
mod codec;
mod database;
mod embedded;
mod journal;
mod layers;
mod ledger;
mod rows;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::domain::amendment::Amendment;
use crate::domain::announcement::Level;
use crate::domain::build::{BuildReport, Timestamp};
use crate::domain::history::Novelty;
use crate::domain::job::{ControllerName, JobKey};
use crate::domain::record::{Closed, JobRecord, Taken};
use crate::domain::removal::Removal;
use crate::domain::rules::Rulebook;
use crate::domain::sentry::record::{SentryRecord, Standing};
use crate::domain::sentry::speech::SentryNews;
use crate::domain::sentry::{Heard, IntegrationName, Occurrence, Seen, SentryKey};
use crate::domain::status::{Change, Status};
use crate::domain::survey::Item;
use crate::machinery::clock::Clock;
use crate::machinery::health::Part;

pub use embedded::{DATABASE_FILE, OpenError};

/// Why something was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing can be written at present. Trying again later is right.
    #[error("the store cannot write: {0}")]
    Unwritable(Arc<str>),
    #[error("the store has been shut down")]
    Closed,
    /// It would be one of too many that wait to be told.
    #[error("too much waits to be told: see whether the Agent is there")]
    Full,
}

/// What became of a report that is stored now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `None` when the rules leave the job out, and nothing was kept.
    pub novelty: Option<Novelty>,
    /// Its result leaves the job's status as it is.
    pub held: bool,
}

/// Something that is durable now and worth telling.
#[derive(Clone, Debug)]
pub enum News {
    Job(JobNews),
    Sentry(Box<SentryNews>),
}

impl News {
    /// It may not be mixed up with what was read before.
    fn is_of_a_status(&self) -> bool {
        match self {
            Self::Job(news) => news.change.is_some() || news.build.is_none(),
            Self::Sentry(news) => news.record.standing().is_some_and(|standing| !standing.is_told()),
        }
    }
}

/// What was announced, and has reached the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Job(JobKey, Status),
    /// With how it stood; a notice has no standing.
    Sentry(SentryKey, Option<Standing>),
}

/// News of a job.
#[derive(Clone, Debug)]
pub struct JobNews {
    pub key: JobKey,
    pub level: Option<Level>,
    pub change: Option<Change>,
    /// The build that it came from, with its branch; `None` for a closing or a change of rules.
    pub build: Option<Box<(String, BuildReport, Taken)>>,
}

/// A job as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: JobKey,
    pub record: JobRecord,
}

/// Something of Sentry's as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct SentryEntry {
    pub key: SentryKey,
    pub record: SentryRecord,
}

/// A look at a controller, by which its [`Sighting`]s are judged.
#[derive(Clone, Debug)]
pub struct Look {
    pub controller: ControllerName,
    /// By our clock, before Jenkins was asked. What was closed since stays closed.
    pub asked: Timestamp,
    /// By Jenkins' own clock, when it answered.
    pub clock: Timestamp,
    /// A build that ended longer ago is history: it has its say in the status, and no metrics.
    pub fresh: Duration,
}

impl Look {
    fn is_fresh(&self, report: &BuildReport) -> bool {
        report.ended().is_some_and(|ended| self.clock.since(ended) <= self.fresh)
    }
}

/// What Jenkins shows of one item.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub item: Item,
    /// Builds that have ended, the oldest first.
    pub builds: Vec<BuildReport>,
    /// Where the last one leaves the job as it is.
    pub decisive: Option<Decisive>,
}

/// Which build decides a job whose last one does not.
#[derive(Clone, Copy, Debug)]
pub struct Decisive {
    /// The number of the last one.
    pub last: u64,
    /// That of the one which decides; `None` when Jenkins has none.
    pub number: Option<u64>,
}

/// A request to the one writer.
#[derive(Debug)]
enum Command {
    Take {
        controller: ControllerName,
        report: Box<BuildReport>,
        reply: Reply<Receipt>,
    },
    Close {
        key: JobKey,
        why: Closed,
        reply: Reply<bool>,
    },
    Remove {
        controller: ControllerName,
        gone: Box<Removal>,
        reply: Reply<bool>,
    },
    Hear {
        integration: IntegrationName,
        occurrence: Box<Occurrence>,
        reply: Reply<Heard>,
    },
    See {
        integration: IntegrationName,
        seen: Vec<Seen>,
        reply: Reply<u64>,
    },
    Forget {
        key: SentryKey,
        reply: Reply<bool>,
    },
    Confirm {
        told: Vec<Told>,
    },
    Review {
        keys: Vec<JobKey>,
        reply: Reply<()>,
    },
    ReviewSentry {
        keys: Vec<SentryKey>,
        reply: Reply<()>,
    },
    Sight {
        look: Look,
        sightings: Vec<Sighting>,
        reply: Reply<u64>,
    },
    Amend {
        amendments: Vec<Amendment>,
        reply: Reply<Vec<Amendment>>,
    },
    /// It is time to look after the journal.
    Tend,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The store's own numbers.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    commits: Counter,
    commit_seconds: Histogram,
    checkpoint_seconds: Histogram,
    batch_reports: Histogram,
    failures: Counter,
    damaged: Counter,
    queue_depth: Gauge,
    untold: Counter,
    given_up: Family<Because, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

impl StoreMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5]),
            checkpoint_seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            batch_reports: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            failures: Counter::default(),
            damaged: Counter::default(),
            queue_depth: Gauge::default(),
            untold: Counter::default(),
            given_up: Family::default(),
        };
        registry.register("recoverd_store_commits", "Durable commits", new.commits.clone());
        registry.register("recoverd_store_commit_seconds", "Time of a commit", new.commit_seconds.clone());
        let help = "Time that the database takes for what the journal gathered; no webhook waits for it";
        registry.register("recoverd_store_checkpoint_seconds", help, new.checkpoint_seconds.clone());
        registry.register("recoverd_store_batch_reports", "Requests in one commit", new.batch_reports.clone());
        registry.register("recoverd_store_failures", "Commits that failed", new.failures.clone());
        let help = "Stored records that could not be read: passed over, and begun afresh by their job's next build";
        registry.register("recoverd_store_damaged", help, new.damaged.clone());
        registry.register("recoverd_store_queue_depth", "Requests that wait for the writer", new.queue_depth.clone());
        let help = "News that found the announcer's queue full; their checks and events follow with the next round";
        registry.register("recoverd_announcements_dropped", help, new.untold.clone());
        let help = "Issues of Sentry that are over and were given up before Datadog was told";
        registry.register("recoverd_sentry_untold_dropped", help, new.given_up.clone());
        drop(new.given_up());
        new
    }

    /// For issues that had to make room.
    fn given_up(&self) -> Counter {
        self.given_up.get_or_create(&Because { reason: "too_many_issues" }).clone()
    }
}

/// Notes what has been told.
#[derive(Clone, Debug)]
pub struct Confirmer(mpsc::WeakSender<Command>);

impl Confirmer {
    /// These announcements reached the sink. Not durable at once: what a crash undoes here is told twice.
    pub async fn confirm(&self, told: Vec<Told>) {
        if let Some(commands) = self.0.upgrade().filter(|_| !told.is_empty()) {
            let _ = commands.send(Command::Confirm { told }).await;
        }
    }
}

/// A handle on the store; clones share it. The writer ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    shared: layers::Shared,
    changes: Arc<AtomicU64>,
    metrics: StoreMetrics,
}

impl Store {
    /// So many requests may wait for the writer. Whoever comes then waits for a place: Jenkins takes a refusal for an
    /// answer and never asks again, so slow is better than no.
    const QUEUE: usize = 1_024;
    /// So much news may wait to be told. More is dropped, counted, and told by the next round.
    const NEWS: usize = 4_096;

    /// Opens or creates the database in `directory` and starts its writer.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be read.
    pub fn open(
        directory: &Path,
        rulebook: Arc<Rulebook>,
        clock: Clock,
        health: Part,
        metrics: StoreMetrics,
    ) -> Result<(Self, mpsc::Receiver<News>), OpenError> {
        let (commands, inbox) = mpsc::channel(Self::QUEUE);
        let (news, told) = mpsc::channel(Self::NEWS);
        let writer =
            embedded::Writer::open(directory, rulebook, clock, health, metrics.clone(), news, commands.downgrade())?;
        let (shared, changes) = (writer.shared(), writer.changes());
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(OpenError::Thread)?;
        Ok((Self { commands, shared, changes, metrics }, told))
    }

    /// Joins a report with what is known. On `Ok` it survives a crash of the node (one `fdatasync`, shared by all that
    /// arrive meanwhile).
    ///
    /// # Errors
    /// When it could not be stored; then it left no trace.
    ///
    /// # Cancel safety
    /// The report may be stored or not. Telling it again does no harm.
    pub async fn take(&self, controller: ControllerName, report: Box<BuildReport>) -> Result<Receipt, StoreError> {
        self.ask(|reply| Command::Take { controller, report, reply }).await
    }

    /// Closes a job with one OK that says why. `false` when there is none.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn close(&self, key: JobKey, why: Closed) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Close { key, why, reply }).await
    }

    /// Gives up what Jenkins has no more, or has elsewhere now: a job, a branch of a project, or all that is in a folder.
    /// `false` when nothing was known of it. On `Ok` that survives a crash of the node, and doing it again does nothing.
    ///
    /// # Errors
    /// When it could not be stored.
    ///
    /// # Cancel safety
    /// It may be stored or not; if it is, it is told all the same.
    pub async fn remove(&self, controller: ControllerName, gone: Removal) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Remove { controller, gone: Box::new(gone), reply }).await
    }

    /// Applies the present rules to jobs whose record disagrees with them.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn review(&self, keys: Vec<JobKey>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Review { keys, reply }).await
    }

    /// Joins what Jenkins shows with what is known, in one commit. Whatever belongs to one project should come together, or
    /// a status is told that holds for a moment only. Returns how many builds of known jobs were news.
    ///
    /// # Errors
    /// When it could not be stored; then it left no trace.
    ///
    /// # Cancel safety
    /// It may be stored or not. Telling it again does no harm.
    pub async fn sight(&self, look: Look, sightings: Vec<Sighting>) -> Result<u64, StoreError> {
        self.ask(|reply| Command::Sight { look, sightings, reply }).await
    }

    /// Mends what Jenkins has shown twice to be otherwise. Returns what still held, and was mended.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn amend(&self, amendments: Vec<Amendment>) -> Result<Vec<Amendment>, StoreError> {
        self.ask(|reply| Command::Amend { amendments, reply }).await
    }

    /// Joins what Sentry told with what is known. As durable as of [`Self::take`].
    ///
    /// # Errors
    /// When it could not be stored; then it left no trace.
    ///
    /// # Cancel safety
    /// It may be stored or not. Telling it again does no harm.
    pub async fn hear(&self, integration: IntegrationName, occurrence: Occurrence) -> Result<Heard, StoreError> {
        let occurrence = Box::new(occurrence);
        match self.ask(|reply| Command::Hear { integration, occurrence, reply }).await? {
            Heard::Full => Err(StoreError::Full),
            heard => Ok(heard),
        }
    }

    /// Joins what Sentry shows. Returns how much of it was news.
    ///
    /// # Errors
    /// As of [`Self::hear`].
    pub async fn see(&self, integration: IntegrationName, seen: Vec<Seen>) -> Result<u64, StoreError> {
        self.ask(|reply| Command::See { integration, seen, reply }).await
    }

    /// Closes an issue or a metric alert with one OK that says why. `false` when there is none that is open.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn forget(&self, key: SentryKey) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Forget { key, reply }).await
    }

    /// Applies the present rules to what Sentry told, and forgets what is over.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn review_sentry(&self, keys: Vec<SentryKey>) -> Result<(), StoreError> {
        self.ask(|reply| Command::ReviewSentry { keys, reply }).await
    }

    /// Up to `limit` things that Sentry told of, in order, beginning behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sentry_page(&self, after: Option<&SentryKey>, limit: usize) -> Result<Vec<SentryEntry>, StoreError> {
        self.shared.sentry_page(after, limit)
    }

    /// One of them. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sentry_find(&self, key: &SentryKey) -> Result<Option<SentryEntry>, StoreError> {
        self.shared.sentry_find(key)
    }

    /// For whoever tells the news: it must not keep the store open, whose end is its own.
    pub fn confirmer(&self) -> Confirmer {
        Confirmer(self.commands.downgrade())
    }

    /// Grows with each status that moves. What was read before is as it was while this stays the same.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Up to `limit` jobs in order of controller and path, beginning behind `after`. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn page(&self, after: Option<&JobKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.shared.page(after, limit)
    }

    /// One job. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find(&self, key: &JobKey) -> Result<Option<Entry>, StoreError> {
        self.shared.find(key)
    }

    /// How many jobs there are.
    pub fn count(&self) -> u64 {
        self.shared.count()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        self.metrics.queue_depth.set(i64::try_from(Self::QUEUE - self.commands.capacity()).unwrap_or(i64::MAX));
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
