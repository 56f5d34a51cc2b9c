//! The thread that brings rows from the journal into the database, so that no webhook waits for it.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::database::{Base, Broken};
use super::rows::Rows;
use super::{Command, StoreMetrics};

/// A checkpoint begins this long after the one before, if there is something for it.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Rows, and the journal's generation that ends with them.
pub(super) struct Work {
    pub(super) base: Arc<Base>,
    pub(super) rows: Arc<Rows>,
    pub(super) generation: u64,
}

/// The writer's end of the thread, which has one piece of work at most.
pub(super) struct Checkpointer {
    work: mpsc::SyncSender<Work>,
    done: mpsc::Receiver<Result<u64, Broken>>,
    under_way: bool,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// `writer` is woken when work is done, and when it is time for more.
    pub(super) fn start(
        writer: tokio::sync::mpsc::WeakSender<Command>,
        metrics: StoreMetrics,
    ) -> std::io::Result<Self> {
        let (work, inbox) = mpsc::sync_channel(1);
        let (outbox, done) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || run(&inbox, &outbox, &writer, &metrics))?;
        Ok(Self { work, done, under_way: false, thread })
    }

    pub(super) fn begin(&mut self, work: Work) {
        // The thread ends after this handle does.
        self.under_way = self.work.send(work).is_ok();
    }

    /// The generation up to which the database has everything now.
    pub(super) fn poll(&mut self) -> Option<Result<u64, Broken>> {
        let done = self.done.try_recv().ok()?;
        self.under_way = false;
        Some(done)
    }

    /// Waits for what is under way.
    pub(super) fn wait(&mut self) -> Option<Result<u64, Broken>> {
        if !std::mem::take(&mut self.under_way) {
            return None;
        }
        self.done.recv().ok()
    }

    pub(super) fn end(self) {
        drop(self.work);
        // Its panic was reported where it happened.
        let _ = self.thread.join();
    }
}

fn run(
    inbox: &mpsc::Receiver<Work>,
    outbox: &mpsc::SyncSender<Result<u64, Broken>>,
    writer: &tokio::sync::mpsc::WeakSender<Command>,
    metrics: &StoreMetrics,
) {
    loop {
        match inbox.recv_timeout(EVERY) {
            Ok(Work { base, rows, generation }) => {
                let started = Instant::now();
                let done = base.apply(&rows, generation).map(|()| generation);
                metrics.checkpoint_seconds.observe(started.elapsed().as_secs_f64());
                // Given back before the writer hears of it, who may want to close the database.
                drop((base, rows));
                if outbox.send(done).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(writer) = writer.upgrade() {
            // A writer with a full queue is awake.
            let _ = writer.try_send(Command::Tend);
        }
    }
}
