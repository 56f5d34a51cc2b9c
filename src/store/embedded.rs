//! Records in one redb file. One thread writes; whatever waits for it goes into one commit, so that a hundred webhooks
//! share one `fdatasync`.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition};
use tokio::sync::mpsc;

use super::codec::{self, CodecError};
use super::ledger::{Ledger, Pages};
use super::{Command, Entry, News, Receipt, Reply, StoreError, StoreMetrics};
use crate::domain::build::Timestamp;
use crate::domain::job::{ControllerName, JobKey, JobPath};
use crate::domain::projects::{Projects, Source};
use crate::domain::record::JobRecord;
use crate::domain::rules::{Children, Rulebook};
use crate::machinery::clock::Clock;
use crate::machinery::health::Part;

/// Controller and job path, to a [`JobRecord`].
const JOBS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("jobs");
/// Controller and parent's path, to what the parent holds.
const PROJECTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("projects");
/// How the other tables are written.
const FORM: TableDefinition<(), u8> = TableDefinition::new("form");
/// What a reopened database is tried with.
const TRIAL: TableDefinition<(), &[u8]> = TableDefinition::new("trial");

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the directory {}: set `data_dir` to a place that this user may write to", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process: is another recoverd running with this `data_dir`?", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}; if it is damaged, move it away: recoverd starts afresh", path.display())]
    Database { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot start the writer's thread")]
    Thread(#[source] std::io::Error),
}

/// The database, for readers. Empty while it is being opened anew.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    database: Arc<RwLock<Option<Arc<Database>>>>,
    damaged: Counter,
}

/// The one thread that writes.
pub(super) struct Writer {
    path: PathBuf,
    shared: Shared,
    ledger: Ledger,
    clock: Clock,
    health: Part,
    metrics: StoreMetrics,
    news: mpsc::Sender<News>,
    /// Statuses that moved, so far.
    changes: Arc<AtomicU64>,
    /// When the last trouble ended.
    mended: Option<Instant>,
}

/// Any failure of the database, in words.
struct Broken(String);

impl<E: Display> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// An answer that waits for the commit.
enum Answer {
    Receipt(Reply<Receipt>, Receipt),
    Found(Reply<bool>, bool),
    Done(Reply<()>),
}

impl Writer {
    /// So many requests share a commit at most.
    const BATCH: usize = 512;
    /// A broken database is opened anew this often.
    const RETRY: Duration = Duration::from_millis(500);
    /// A trial takes as much as a large batch does: on a disk with room for a few records more, the store would otherwise
    /// mend and break with each batch.
    const TRIAL_BYTES: usize = 1_000_000;
    /// What breaks again so soon has not been mended: it is the same trouble, which is told once.
    const CALM: Duration = Duration::from_mins(1);
    /// So long a commit waits at most for its news to find a place.
    const PATIENCE: Duration = Duration::from_millis(100);
    /// Pages kept in memory. Records are small and the system caches the file as well.
    const CACHE_BYTES: usize = 16 * 1024 * 1024;

    pub(super) fn open(
        directory: &Path,
        rulebook: Arc<Rulebook>,
        clock: Clock,
        health: Part,
        metrics: StoreMetrics,
        news: mpsc::Sender<News>,
    ) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join("recoverd.redb");
        let database = open(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
            other => OpenError::Database { path: path.clone(), source: Box::new(other) },
        })?;
        let projects =
            prepare(&database).map_err(|broken| OpenError::Database { path: path.clone(), source: broken.0.into() })?;
        health.up();
        Ok(Self {
            path,
            shared: Shared {
                database: Arc::new(RwLock::new(Some(Arc::new(database)))),
                damaged: metrics.damaged.clone(),
            },
            ledger: Ledger { rulebook, projects },
            clock,
            health,
            metrics,
            news,
            changes: Arc::default(),
            mended: None,
        })
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    pub(super) fn changes(&self) -> Arc<AtomicU64> {
        self.changes.clone()
    }

    /// Serves until every handle is gone and the queue is dry.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(Self::BATCH);
        while let Some(first) = inbox.blocking_recv() {
            batch.push(first);
            while batch.len() < Self::BATCH
                && let Ok(next) = inbox.try_recv()
            {
                batch.push(next);
            }
            #[expect(clippy::cast_precision_loss, reason = "at most 512")]
            self.metrics.batch_reports.observe(batch.len() as f64);
            if let Err(Broken(why)) = self.serve(batch.drain(..)) {
                self.refuse_until_mended(&why, &mut inbox);
            }
            self.metrics.queue_depth.set(i64::try_from(inbox.len()).unwrap_or(i64::MAX));
        }
    }

    /// One transaction. The answers go out after its commit, or a refusal to all of them.
    fn serve(&mut self, mut batch: impl Iterator<Item = Command>) -> Result<(), Broken> {
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(Self::BATCH);
        let mut news = Vec::new();
        match self.transact(&mut batch, now, &mut answers, &mut news) {
            Ok(()) => {
                for answer in answers {
                    answer.send(None);
                }
                self.tell(news);
                Ok(())
            }
            Err(broken) => {
                // Whoever is refused and asks for the reason finds it.
                self.tell_trouble(&broken.0);
                let why: Arc<str> = broken.0.as_str().into();
                for answer in answers {
                    answer.send(Some(StoreError::Unwritable(why.clone())));
                }
                // Those that the transaction did not come to.
                batch.for_each(|command| command.refuse(&why));
                Err(broken)
            }
        }
    }

    /// Hands the news on. A full queue slows the writer, and with it those who send, but never for longer than a
    /// moment: an Agent that does not read must not keep webhooks out. What is dropped then follows with the next round.
    fn tell(&self, news: Vec<News>) {
        let give_up = Instant::now() + Self::PATIENCE;
        for item in news {
            let mut item = item;
            while let Err(refused) = self.news.try_send(item) {
                let mpsc::error::TrySendError::Full(full) = refused else { return };
                if Instant::now() >= give_up {
                    self.metrics.untold.inc();
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
                item = full;
            }
        }
    }

    fn transact(
        &mut self,
        batch: &mut impl Iterator<Item = Command>,
        now: Timestamp,
        answers: &mut Vec<Answer>,
        news: &mut Vec<News>,
    ) -> Result<(), Broken> {
        let database = self.shared.get()?;
        let transaction = database.begin_write()?;
        let mut result = Ok(());
        let mut changed = false;
        {
            let mut pages = Tables {
                jobs: transaction.open_table(JOBS)?,
                projects: transaction.open_table(PROJECTS)?,
                damaged: &self.metrics.damaged.clone(),
                changed: false,
            };
            // Every request gets its answer, also those behind one that failed.
            for command in batch {
                let step = self.step(&mut pages, command, now, answers, news);
                result = result.and(step);
            }
            changed |= pages.changed;
        }
        result?;
        if !changed {
            // What the reports repeat was committed before, or they are left out by the rules.
            return transaction.abort().map_err(Broken::from);
        }
        let started = Instant::now();
        transaction.commit()?;
        // Before anybody is told: whoever tells a page afterwards looks here.
        let moved = news.iter().filter(|news| news.change.is_some()).count();
        self.changes.fetch_add(moved as u64, Ordering::Release);
        self.metrics.commits.inc();
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn step(
        &mut self,
        pages: &mut Tables<'_>,
        command: Command,
        now: Timestamp,
        answers: &mut Vec<Answer>,
        news: &mut Vec<News>,
    ) -> Result<(), Broken> {
        match command {
            Command::Take { controller, report, reply } => {
                let receipt = self.ledger.take(pages, &controller, report, now, news);
                let told = receipt.as_ref().map_or(Receipt { novelty: None, held: false }, |receipt| *receipt);
                answers.push(Answer::Receipt(reply, told));
                receipt.map(|_| ())
            }
            Command::Close { key, why, reply } => {
                let found = self.ledger.end(pages, &key, why, now, news);
                answers.push(Answer::Found(reply, *found.as_ref().unwrap_or(&false)));
                found.map(|_| ())
            }
            Command::Confirm { told } => told.iter().try_for_each(|(key, status)| Ledger::confirm(pages, key, *status)),
            Command::Review { keys, reply } => {
                answers.push(Answer::Done(reply));
                keys.iter().try_for_each(|key| self.ledger.review(pages, key, now, news))
            }
        }
    }

    fn tell_trouble(&self, why: &str) {
        self.metrics.failures.inc();
        let file = self.path.display();
        let advice = format!(
            "cannot write to {file}: {why}; free space there or mend the disk, webhooks are refused until then"
        );
        self.health.down(advice);
        if self.mended.is_some_and(|mended| mended.elapsed() < Self::CALM) {
            tracing::warn!(path = %file, error = why, "the store cannot write again");
        } else {
            tracing::error!(path = %file, error = why, "the store cannot write, webhooks are refused until it can");
        }
    }

    /// Refuses whatever comes until the database can be opened and written to again.
    fn refuse_until_mended(&mut self, why: &str, inbox: &mut mpsc::Receiver<Command>) {
        let file = self.path.display();
        let why: Arc<str> = why.into();
        loop {
            let deadline = Instant::now() + Self::RETRY;
            while Instant::now() < deadline {
                match inbox.try_recv() {
                    Ok(command) => command.refuse(&why),
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                    Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            match self.reopen() {
                Ok(projects) => {
                    self.ledger.projects = projects;
                    self.mended = Some(Instant::now());
                    self.health.up();
                    tracing::info!(path = %file, "the store writes again");
                    return;
                }
                Err(Broken(error)) => tracing::debug!(path = %file, error, "the store still cannot write"),
            }
        }
    }

    /// redb refuses all work after a failed write; a new handle starts from the last good commit.
    fn reopen(&self) -> Result<Projects, Broken> {
        let broken = self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut broken) = broken {
            // Readers hold it for the length of one page.
            while let Err(held) = Arc::try_unwrap(broken) {
                std::thread::sleep(Duration::from_millis(1));
                broken = held;
            }
        }
        let database = open(&self.path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TRIAL)?.insert((), vec![0; Self::TRIAL_BYTES].as_slice())?;
        transaction.commit()?;
        let transaction = database.begin_write()?;
        transaction.delete_table(TRIAL)?;
        transaction.commit()?;
        let projects = prepare(&database)?;
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(projects)
    }
}

impl Command {
    fn refuse(self, why: &Arc<str>) {
        let error = StoreError::Unwritable(why.clone());
        match self {
            Self::Take { reply, .. } => drop(reply.send(Err(error))),
            Self::Close { reply, .. } => drop(reply.send(Err(error))),
            Self::Review { reply, .. } => drop(reply.send(Err(error))),
            // The next round finds the announcement unconfirmed, and repeats it.
            Self::Confirm { .. } => {}
        }
    }
}

impl Answer {
    fn send(self, error: Option<StoreError>) {
        // Whoever asked may have gone: then nobody is told, and what is stored stays stored.
        match self {
            Self::Receipt(reply, receipt) => drop(reply.send(error.map_or(Ok(receipt), Err))),
            Self::Found(reply, found) => drop(reply.send(error.map_or(Ok(found), Err))),
            Self::Done(reply) => drop(reply.send(error.map_or(Ok(()), Err))),
        }
    }
}

fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(Writer::CACHE_BYTES).create(path)
}

/// Creates the tables and reads what must be at hand.
fn prepare(database: &Database) -> Result<Projects, Broken> {
    let transaction = database.begin_write()?;
    transaction.open_table(JOBS)?;
    transaction.open_table(PROJECTS)?;
    {
        let mut form = transaction.open_table(FORM)?;
        let found = form.get(())?.map(|form| form.value());
        match found {
            Some(newer) if newer > codec::VERSION => return Err(CodecError::Version(newer).into()),
            Some(codec::VERSION) => {}
            _ => drop(form.insert((), codec::VERSION)?),
        }
    }
    transaction.commit()?;
    let mut projects = Projects::default();
    for row in database.begin_read()?.open_table(PROJECTS)?.iter()? {
        let (key, value) = row?;
        let known = || -> Result<(JobKey, (Source, Children)), Broken> {
            Ok((job_key(key.value())?, codec::decode(value.value())?))
        };
        match known() {
            Ok((parent, (source, children))) => drop(projects.learn(parent, source, children)),
            Err(Broken(error)) => tracing::warn!(error, "what a parent holds cannot be read and is learned anew"),
        }
    }
    Ok(projects)
}

fn job_key((controller, job): (&str, &str)) -> Result<JobKey, Broken> {
    Ok(JobKey { controller: ControllerName::parse(controller)?, job: JobPath::parse(job)? })
}

impl Shared {
    fn get(&self) -> Result<Arc<Database>, Broken> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner).clone();
        database.ok_or_else(|| Broken("it is being opened anew".to_owned()))
    }

    pub(super) fn page(&self, after: Option<&JobKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let read = || -> Result<Vec<Entry>, Broken> {
            let jobs = self.get()?.begin_read()?.open_table(JOBS)?;
            let rows = match after {
                None => jobs.iter()?,
                Some(key) => {
                    let behind = std::ops::Bound::Excluded((key.controller.as_str(), key.job.as_str()));
                    jobs.range::<(&str, &str)>((behind, std::ops::Bound::Unbounded))?
                }
            };
            let entries = rows.filter_map(|row| match row {
                Ok((key, value)) => self.entry(key.value(), value.value()).map(Ok),
                Err(error) => Some(Err(error.into())),
            });
            entries.take(limit).collect()
        };
        read().map_err(unreadable)
    }

    pub(super) fn find(&self, key: &JobKey) -> Result<Option<Entry>, StoreError> {
        let read = || -> Result<Option<Entry>, Broken> {
            let jobs = self.get()?.begin_read()?.open_table(JOBS)?;
            let place = (key.controller.as_str(), key.job.as_str());
            Ok(jobs.get(place)?.and_then(|value| self.entry(place, value.value())))
        };
        read().map_err(unreadable)
    }

    /// `None` for what cannot be read: one damaged record must not hide every other job.
    fn entry(&self, place: (&str, &str), value: &[u8]) -> Option<Entry> {
        let read = || -> Result<Entry, Broken> { Ok(Entry { key: job_key(place)?, record: codec::decode(value)? }) };
        read()
            .inspect_err(|Broken(error)| {
                self.damaged.inc();
                let (controller, job) = place;
                tracing::warn!(controller, job, error, "a stored job cannot be read and is passed over");
            })
            .ok()
    }

    pub(super) fn count(&self) -> Result<u64, StoreError> {
        let read = || -> Result<u64, Broken> { Ok(self.get()?.begin_read()?.open_table(JOBS)?.len()?) };
        read().map_err(unreadable)
    }
}

fn unreadable(broken: Broken) -> StoreError {
    StoreError::Unwritable(broken.0.into())
}

/// The tables of one open transaction.
struct Tables<'txn> {
    damaged: &'txn Counter,
    jobs: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    projects: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    changed: bool,
}

impl Pages for Tables<'_> {
    type Error = Broken;

    fn load(&self, key: &JobKey) -> Result<Option<JobRecord>, Broken> {
        let Some(value) = self.jobs.get((key.controller.as_str(), key.job.as_str()))? else { return Ok(None) };
        match codec::decode(value.value()) {
            Ok(record) => Ok(Some(record)),
            // One damaged record must not stop every job. Its next build writes it anew.
            Err(error @ CodecError::Damaged(_)) => {
                self.damaged.inc();
                tracing::error!(job = %key, %error, "a stored job cannot be read and starts afresh");
                Ok(None)
            }
            Err(error @ CodecError::Version(_)) => Err(error.into()),
        }
    }

    fn save(&mut self, key: &JobKey, record: &JobRecord) -> Result<(), Broken> {
        let value = codec::encode(record)?;
        self.jobs.insert((key.controller.as_str(), key.job.as_str()), value.as_slice())?;
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, key: &JobKey) -> Result<(), Broken> {
        self.jobs.remove((key.controller.as_str(), key.job.as_str()))?;
        self.changed = true;
        Ok(())
    }

    fn children(&self, parent: &JobKey) -> Result<Vec<JobKey>, Broken> {
        let prefix = format!("{}/", parent.job);
        let controller = parent.controller.as_str();
        let mut children = Vec::new();
        for row in self.jobs.range((controller, prefix.as_str())..)? {
            let (key, _) = row?;
            let (of, job) = key.value();
            let Some(leaf) = job.strip_prefix(&prefix).filter(|_| of == controller) else { break };
            if !leaf.contains('/') {
                children.push(job_key((of, job))?);
            }
        }
        Ok(children)
    }

    fn save_project(&mut self, parent: &JobKey, source: Source, children: Children) -> Result<(), Broken> {
        let value = codec::encode(&(source, children))?;
        self.projects.insert((parent.controller.as_str(), parent.job.as_str()), value.as_slice())?;
        self.changed = true;
        Ok(())
    }
}
