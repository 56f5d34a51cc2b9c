//! Keeps what its sender does not wait for: an SDK gives up after a few seconds, and does not send again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::Refusal;
use super::behind::Behind;
use super::kept::Letter;
use super::pile::Closed;
use crate::machinery::clock::Clock;
use crate::machinery::http1::Reply;
use crate::sentry::upstream::{AnswerBody, NoAnswer};

/// So many may be left behind at once. Beyond that they are lost, and counted.
const QUEUE: usize = 1_024;

const AT_ONCE: usize = 64;
/// Who leaves sooner says nothing about upstream.
const WAITED: Duration = Duration::from_secs(1);

/// What was left behind.
#[derive(Debug)]
pub(super) struct Left {
    behind: Arc<Behind>,
    letter: Letter,
    body: Closed,
}

/// Takes what is left behind to the spool.
#[derive(Debug)]
pub struct Keeper {
    left: mpsc::Receiver<Left>,
    clock: Clock,
}

impl Keeper {
    pub(super) fn new(clock: Clock) -> (mpsc::Sender<Left>, Self) {
        let (sender, left) = mpsc::channel(QUEUE);
        (sender, Self { left, clock })
    }

    /// Ends when the relay has.
    pub async fn run(self) {
        let Self { mut left, clock } = self;
        let left = stream::poll_fn(move |context| left.poll_recv(context));
        // Together they share the disk's time.
        left.for_each_concurrent(AT_ONCE, async |Left { behind, letter, body }| {
            // What becomes of it is counted, and there is nobody else to tell.
            let _ = behind.keep(&letter, &body, "left", &clock).await;
        })
        .await;
    }
}

/// A request that waits for its answer. Dropped, it is left behind.
#[derive(Debug)]
pub(super) struct Unanswered<'a> {
    behind: &'a Arc<Behind>,
    /// None once it is settled.
    request: Option<(Letter, Closed)>,
    /// None when it cannot be kept.
    left: Option<&'a mpsc::Sender<Left>>,
    since: Instant,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(
        behind: &'a Arc<Behind>,
        letter: Letter,
        body: Closed,
        left: Option<&'a mpsc::Sender<Left>>,
    ) -> Self {
        Self { behind, request: Some((letter, body)), left, since: Instant::now() }
    }

    /// As [`Behind::ask`].
    pub(super) async fn ask(&self) -> Option<Result<Reply<AnswerBody>, NoAnswer>> {
        let (letter, body) = self.request.as_ref()?;
        self.behind.ask(letter, body.payload(), true).await
    }

    /// There is an answer.
    pub(super) fn settled(mut self) {
        self.request = None;
    }

    /// On `Ok` it survives a crash of the node.
    pub(super) async fn keep(self, reason: &'static str, clock: &Clock) -> Result<(), Refusal> {
        let kept = match self.request.as_ref().filter(|_| self.left.is_some()) {
            Some((letter, body)) => self.behind.keep(letter, body, reason, clock).await,
            None => Err(Refusal::NotKept),
        };
        self.settled();
        kept
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some((letter, body)) = self.request.take() else { return };
        // Or else an upstream that hangs would never be found out: those who wait for it leave before its time is over.
        if self.since.elapsed() >= WAITED {
            self.behind.failed("does not answer before SDKs give up");
        }
        let Some(left) = self.left else { return };
        if left.try_send(Left { behind: self.behind.clone(), letter, body }).is_err() {
            self.behind.metrics.not_kept("too_many");
        }
    }
}
