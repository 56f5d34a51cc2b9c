//! Records in one redb file, ahead of which goes a journal. One thread writes; whatever waits for it goes into one frame of
//! the journal, so that a hundred webhooks share one small `fdatasync`. Another thread brings into the database, every now
//! and then, what the journal has gathered.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use super::checkpoint::{self, Checkpointer};
use super::codec::{self, CodecError};
use super::database::{Base, Broken, Snapshot};
use super::journal::Journal;
use super::layers::{Shared, job_key, key_of, sentry_key_of};
use super::ledger::{Ledger, Pages, SentryLedger};
use super::rows::{Key, Rows, Table, Value};
use super::{Command, News, Receipt, Reply, StoreError, StoreMetrics, Told};
use crate::domain::amendment::Amendment;
use crate::domain::build::Timestamp;
use crate::domain::job::JobKey;
use crate::domain::projects::{Projects, Source};
use crate::domain::record::JobRecord;
use crate::domain::rules::{Children, Rulebook};
use crate::domain::sentry::record::{Ended, SentryRecord};
use crate::domain::sentry::{Heard, SentryKey};
use crate::machinery::clock::Clock;
use crate::machinery::health::Part;

/// The file in `data_dir`. Whoever has it open holds a lock on it.
pub const DATABASE_FILE: &str = "recoverd.redb";

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the directory {}: set `data_dir` to a place that this user may write to", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process: is another recoverd running with this `data_dir`?", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}; if it is damaged, move all files beside it away: recoverd starts afresh", path.display())]
    Database { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot start the writer's thread")]
    Thread(#[source] std::io::Error),
}

/// The one thread that writes.
pub(super) struct Writer {
    directory: PathBuf,
    path: PathBuf,
    shared: Shared,
    /// `None` while the store is being opened anew.
    journal: Option<Journal>,
    checkpointer: Checkpointer,
    /// When a checkpoint began last.
    frozen: Instant,
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

/// An answer that waits for the commit.
enum Answer {
    Receipt(Reply<Receipt>, Receipt),
    Heard(Reply<Heard>, Heard),
    Found(Reply<bool>, bool),
    Done(Reply<()>),
    Repaired(Reply<u64>, u64),
    Mended(Reply<Vec<Amendment>>, Vec<Amendment>),
}

impl Writer {
    /// So many requests share a commit at most.
    const BATCH: usize = 512;
    /// A broken store is opened anew this often.
    const RETRY: Duration = Duration::from_millis(500);
    /// What breaks again so soon has not been mended: it is the same trouble, which is told once.
    const CALM: Duration = Duration::from_mins(1);
    /// So long a commit waits at most for its news to find a place.
    const PATIENCE: Duration = Duration::from_millis(100);
    /// A checkpoint is due when the journal's file has grown to this. Most rows of a larger one share their page in the
    /// database with others; a smaller one is read faster after a crash.
    const JOURNAL_BYTES: u64 = 16 * 1024 * 1024;

    pub(super) fn open(
        directory: &Path,
        rulebook: Arc<Rulebook>,
        clock: Clock,
        health: Part,
        metrics: StoreMetrics,
        news: mpsc::Sender<News>,
        commands: mpsc::WeakSender<Command>,
    ) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join(DATABASE_FILE);
        let base = Base::open(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
            other => OpenError::Database { path: path.clone(), source: Box::new(other) },
        })?;
        let shared = Shared::new(metrics.damaged.clone());
        let (journal, Kept { projects, sentry }) = fill(&shared, base, directory, metrics.given_up())
            .map_err(|broken| OpenError::Database { path: path.clone(), source: broken.0.into() })?;
        let checkpointer = Checkpointer::start(commands, metrics.clone()).map_err(OpenError::Thread)?;
        health.up();
        Ok(Self {
            directory: directory.to_owned(),
            path,
            shared,
            journal: Some(journal),
            checkpointer,
            frozen: Instant::now(),
            ledger: Ledger::new(rulebook, projects, sentry),
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
            // Threads that are ready to run may be about to bring more, which would share the `fdatasync`. Not more than once:
            // on a busy node it is others' work that is let through.
            std::thread::yield_now();
            batch.extend(std::iter::from_fn(|| inbox.try_recv().ok()).take(Self::BATCH - 1));
            batch.retain(|command| !matches!(command, Command::Tend));
            if let Err(Broken(why)) = self.serve(&mut batch).and_then(|()| self.tend()) {
                self.refuse_until_mended(&why, &mut inbox);
            }
            self.metrics.queue_depth.set(i64::try_from(inbox.len()).unwrap_or(i64::MAX));
        }
        self.end();
    }

    /// Leaves all in the database, for a start that has nothing to catch up on.
    fn end(mut self) {
        let settled = self.settle().and_then(|()| self.freeze()).and_then(|()| self.settle());
        if let Err(Broken(why)) = settled {
            tracing::warn!(error = why, "the last checkpoint failed; the journal keeps what it was to take in");
        }
        self.checkpointer.end();
        self.shared.clear();
    }

    /// Frees what is in the database by now, and begins the next checkpoint when it is due.
    fn tend(&mut self) -> Result<(), Broken> {
        let full = self.journal.as_ref().is_some_and(|journal| journal.bytes() >= Self::JOURNAL_BYTES);
        let tended = if full {
            // Whoever writes faster than the database takes in waits here.
            self.settle()
        } else {
            self.checkpointer.poll().map_or(Ok(()), |done| self.release(done))
        };
        let due = full || self.frozen.elapsed() >= checkpoint::EVERY;
        let begun = tended.and_then(|()| if due { self.freeze() } else { Ok(()) });
        begun.inspect_err(|Broken(why)| self.tell_trouble(why))
    }

    /// Waits for the checkpoint that is under way, if one is.
    fn settle(&mut self) -> Result<(), Broken> {
        self.checkpointer.wait().map_or(Ok(()), |done| self.release(done))
    }

    fn release(&mut self, done: Result<u64, Broken>) -> Result<(), Broken> {
        let generation = done?;
        self.shared.thaw();
        if let Some(journal) = &mut self.journal {
            journal.release(generation);
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), Broken> {
        self.frozen = Instant::now();
        let Some(journal) = self.journal.as_mut().filter(|_| self.shared.can_freeze()) else { return Ok(()) };
        let generation = journal.turn()?;
        let (base, rows) = self.shared.freeze()?;
        self.checkpointer.begin(checkpoint::Work { base, rows, generation });
        Ok(())
    }

    /// One transaction. The answers go out after its commit, or a refusal to all of them.
    fn serve(&mut self, batch: &mut Vec<Command>) -> Result<(), Broken> {
        if batch.is_empty() {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 512")]
        self.metrics.batch_reports.observe(batch.len() as f64);
        let mut batch = batch.drain(..);
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
        let mut pages = Tables::new(self.shared.clone(), self.metrics.damaged.clone());
        let mut result = Ok(());
        // Every request gets its answer, also those behind one that failed.
        for command in batch {
            let step = self.step(&mut pages, command, now, answers, news);
            result = result.and(step);
        }
        result?;
        let Tables { staged, jobs_added, .. } = pages;
        if staged.is_empty() {
            // What the reports repeat was committed before, or they are left out by the rules.
            return Ok(());
        }
        let started = Instant::now();
        let journal = self.journal.as_mut().ok_or_else(|| Broken("it is being opened anew".to_owned()))?;
        // What nobody waits for is durable with the next batch.
        journal.append(&staged, jobs_added, !answers.is_empty())?;
        self.shared.extend(staged, jobs_added);
        // Before anybody is told: whoever tells a page afterwards looks here.
        let moved = news.iter().filter(|news| news.is_of_a_status()).count();
        self.changes.fetch_add(moved as u64, Ordering::Release);
        self.metrics.commits.inc();
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn step(
        &mut self,
        pages: &mut Tables,
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
            Command::Remove { controller, gone, reply } => {
                let found = self.ledger.remove(pages, &controller, &gone, now, news);
                answers.push(Answer::Found(reply, *found.as_ref().unwrap_or(&false)));
                found.map(|_| ())
            }
            Command::Hear { integration, occurrence, reply } => {
                let heard = self.ledger.sentry.hear(pages, &integration, *occurrence, now, news);
                answers.push(Answer::Heard(reply, *heard.as_ref().unwrap_or(&Heard::Stale)));
                heard.map(|_| ())
            }
            Command::See { integration, seen, reply } => {
                let changed = self.ledger.sentry.see(pages, &integration, seen, now, news);
                answers.push(Answer::Repaired(reply, *changed.as_ref().unwrap_or(&0)));
                changed.map(|_| ())
            }
            Command::Forget { key, reply } => {
                let found = self.ledger.sentry.forget(pages, &key, Ended::Forgotten, now, news);
                answers.push(Answer::Found(reply, *found.as_ref().unwrap_or(&false)));
                found.map(|_| ())
            }
            Command::Confirm { told } => told.iter().try_for_each(|told| match told {
                Told::Job(key, status) => Ledger::confirm(pages, key, *status),
                Told::Sentry(key, told) => self.ledger.sentry.confirm(pages, key, told.as_ref()),
            }),
            Command::ReviewSentry { keys, reply } => {
                answers.push(Answer::Done(reply));
                keys.iter().try_for_each(|key| {
                    let is_covered = self.ledger.covers(key);
                    self.ledger.sentry.review(pages, key, is_covered, now, news)
                })
            }
            Command::Review { keys, reply } => {
                answers.push(Answer::Done(reply));
                keys.iter().try_for_each(|key| self.ledger.review(pages, key, now, news))
            }
            Command::Tend => Ok(()),
            Command::Sight { look, sightings, reply } => {
                let repaired = self.ledger.sight(pages, &look, sightings, now, news);
                answers.push(Answer::Repaired(reply, *repaired.as_ref().unwrap_or(&0)));
                repaired.map(|_| ())
            }
            Command::Amend { amendments, reply } => {
                let mut mended = self.ledger.amend(pages, amendments, now, news);
                answers.push(Answer::Mended(reply, mended.as_mut().map(std::mem::take).unwrap_or_default()));
                mended.map(|_| ())
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
        let path = self.path.clone();
        let file = path.display();
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
                Ok(Kept { projects, sentry }) => {
                    (self.ledger.projects, self.ledger.sentry) = (projects, sentry);
                    self.mended = Some(Instant::now());
                    self.health.up();
                    tracing::info!(path = %file, "the store writes again");
                    return;
                }
                Err(Broken(error)) => tracing::debug!(path = %file, error, "the store still cannot write"),
            }
        }
    }

    /// redb refuses all work after a failed write, and a file that failed once is not to be trusted: both are begun
    /// anew, from what they hold.
    fn reopen(&mut self) -> Result<Kept, Broken> {
        // What it failed with is known.
        let _ = self.checkpointer.wait();
        self.journal = None;
        self.shared.clear();
        let base = Base::open(&self.path)?;
        base.try_room()?;
        let (journal, kept) = fill(&self.shared, base, &self.directory, self.metrics.given_up())?;
        self.journal = Some(journal);
        Ok(kept)
    }
}

/// What must be at hand, and is read from the records.
struct Kept {
    projects: Projects,
    sentry: SentryLedger,
}

/// Reads the journal over the database.
fn fill(shared: &Shared, base: Base, directory: &Path, given_up: Counter) -> Result<(Journal, Kept), Broken> {
    let applied = base.prepare()?;
    let (journal, ahead) = Journal::open(directory, applied)?;
    shared.fill(base, ahead)?;
    let mut projects = Projects::default();
    for (key, value) in shared.rows(Table::Projects, Bound::Unbounded, usize::MAX)? {
        let known = || -> Result<(JobKey, (Source, Children)), Broken> { Ok((job_key(&key)?, codec::decode(&value)?)) };
        match known() {
            Ok((parent, (source, children))) => drop(projects.learn(parent, source, children)),
            Err(Broken(error)) => tracing::warn!(error, "what a parent holds cannot be read and is learned anew"),
        }
    }
    let mut sentry = SentryLedger::new(given_up);
    let mut after: Option<SentryKey> = None;
    loop {
        let page = shared.sentry_page(after.as_ref(), Tables::STRIDE).map_err(|error| Broken(error.to_string()))?;
        for entry in &page {
            sentry.learn(&entry.key, &entry.record);
        }
        match page.into_iter().last() {
            Some(last) => after = Some(last.key),
            None => break,
        }
    }
    Ok((journal, Kept { projects, sentry }))
}

impl Command {
    fn refuse(self, why: &Arc<str>) {
        let error = StoreError::Unwritable(why.clone());
        match self {
            Self::Take { reply, .. } => drop(reply.send(Err(error))),
            Self::Close { reply, .. } | Self::Remove { reply, .. } | Self::Forget { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            Self::Review { reply, .. } | Self::ReviewSentry { reply, .. } => drop(reply.send(Err(error))),
            Self::Sight { reply, .. } | Self::See { reply, .. } => drop(reply.send(Err(error))),
            Self::Hear { reply, .. } => drop(reply.send(Err(error))),
            Self::Amend { reply, .. } => drop(reply.send(Err(error))),
            // The next round finds the announcement unconfirmed, and repeats it.
            Self::Confirm { .. } | Self::Tend => {}
        }
    }
}

impl Answer {
    fn send(self, error: Option<StoreError>) {
        // Whoever asked may have gone: then nobody is told, and what is stored stays stored.
        match self {
            Self::Receipt(reply, receipt) => drop(reply.send(error.map_or(Ok(receipt), Err))),
            Self::Heard(reply, heard) => drop(reply.send(error.map_or(Ok(heard), Err))),
            Self::Found(reply, found) => drop(reply.send(error.map_or(Ok(found), Err))),
            Self::Done(reply) => drop(reply.send(error.map_or(Ok(()), Err))),
            Self::Repaired(reply, repaired) => drop(reply.send(error.map_or(Ok(repaired), Err))),
            Self::Mended(reply, mended) => drop(reply.send(error.map_or(Ok(mended), Err))),
        }
    }
}

/// What a batch reads and writes.
struct Tables {
    shared: Shared,
    /// The database's tables, from when they are first looked at.
    jobs: OnceCell<Snapshot>,
    sentry: OnceCell<Snapshot>,
    staged: Rows,
    jobs_added: i64,
    damaged: Counter,
}

impl Tables {
    /// So many rows are looked through at a time.
    const STRIDE: usize = 256;

    fn new(shared: Shared, damaged: Counter) -> Self {
        Self { shared, jobs: OnceCell::new(), sentry: OnceCell::new(), staged: Rows::default(), jobs_added: 0, damaged }
    }

    fn read<T>(&self, table: Table, key: &Key, read: impl Fn(Option<&[u8]>) -> T) -> Result<T, Broken> {
        if let Some(value) = self.staged.of(table).get(key) {
            return Ok(read(value.as_deref()));
        }
        if let Some(newer) = self.shared.with_newer(table, key, &read) {
            return Ok(newer);
        }
        let below = if table == Table::Sentry { &self.sentry } else { &self.jobs };
        if below.get().is_none() {
            // Nobody else sets it.
            let _ = below.set(self.shared.snapshot(table)?);
        }
        let Some(below) = below.get() else { return Ok(read(None)) };
        Ok(below.with(key, |value| read(Some(value)))?.unwrap_or_else(|| read(None)))
    }

    fn load_row<T: codec::Stored>(&self, table: Table, key: &Key) -> Result<Option<T>, Broken> {
        match self.read(table, key, |value| value.map(codec::decode).transpose())? {
            Ok(record) => Ok(record),
            // One damaged record must not stop all others. Whatever is told next of its subject writes it anew.
            Err(error @ CodecError::Damaged(_)) => {
                self.damaged.inc();
                let (of, name) = key.parts();
                tracing::error!(of, name, %error, "a stored record cannot be read and starts afresh");
                Ok(None)
            }
            Err(error @ CodecError::Version(_)) => Err(error.into()),
        }
    }

    fn write(&mut self, key: &JobKey, value: Value) -> Result<(), Broken> {
        let key = key_of(key);
        let (was, is_same) = self.read(Table::Jobs, &key, |before| (before.is_some(), before == value.as_deref()))?;
        if is_same {
            return Ok(());
        }
        self.jobs_added += i64::from(value.is_some()) - i64::from(was);
        self.staged.put(Table::Jobs, key, value);
        Ok(())
    }
}

impl Pages for Tables {
    type Error = Broken;

    fn load(&self, key: &JobKey) -> Result<Option<JobRecord>, Broken> {
        self.load_row(Table::Jobs, &key_of(key))
    }

    fn save(&mut self, key: &JobKey, record: &JobRecord) -> Result<(), Broken> {
        self.write(key, Some(codec::encode(record)?.into()))
    }

    fn remove(&mut self, key: &JobKey) -> Result<(), Broken> {
        self.write(key, None)
    }

    fn below(&self, parent: &JobKey) -> Result<Vec<JobKey>, Broken> {
        let (controller, prefix) = (parent.controller.as_str(), format!("{}/", parent.job));
        let is_below = |key: &Key| key.parts().0 == controller && key.parts().1.starts_with(&prefix);
        let mut below = BTreeSet::new();
        let mut from = Bound::Included(Key::new(controller, &prefix));
        loop {
            let rows = self.shared.rows(Table::Jobs, from.as_ref(), Self::STRIDE)?;
            let last = rows.last().map(|(key, _)| key.clone());
            below.extend(rows.into_iter().map(|(key, _)| key).filter(&is_below));
            match last.filter(is_below) {
                Some(last) => from = Bound::Excluded(last),
                None => break,
            }
        }
        for (key, value) in self.staged.of(Table::Jobs).iter().filter(|(key, _)| is_below(key)) {
            _ = if value.is_some() { below.insert(key.clone()) } else { below.remove(key) };
        }
        below.iter().map(job_key).collect()
    }

    fn save_project(&mut self, parent: &JobKey, source: Source, children: Children) -> Result<(), Broken> {
        let value = codec::encode(&(source, children))?;
        self.staged.put(Table::Projects, key_of(parent), Some(value.into()));
        Ok(())
    }

    fn load_sentry(&self, key: &SentryKey) -> Result<Option<SentryRecord>, Broken> {
        self.load_row(Table::Sentry, &sentry_key_of(key))
    }

    fn save_sentry(&mut self, key: &SentryKey, record: &SentryRecord) -> Result<(), Broken> {
        let (key, value) = (sentry_key_of(key), codec::encode(record)?);
        if !self.read(Table::Sentry, &key, |before| before == Some(&*value))? {
            self.staged.put(Table::Sentry, key, Some(value.into()));
        }
        Ok(())
    }

    fn remove_sentry(&mut self, key: &SentryKey) -> Result<(), Broken> {
        self.staged.put(Table::Sentry, sentry_key_of(key), None);
        Ok(())
    }
}
