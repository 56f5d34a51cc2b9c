//! Sends what is kept, the oldest first: one at a time, until upstream has taken it or says that it never will.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::behind::{Behind, may_change};
use super::kept::Letter;
use super::turns::{Turn, Turns};
use super::{limits, lock};
use crate::machinery::clock::Clock;
use crate::machinery::spool::{Place, ReadError};
use crate::sentry::upstream::{AnswerBody, NoAnswer, Payload};

/// A limit that does not say of what, or for how long.
const USUAL_LIMIT: Duration = Duration::from_mins(1);
/// At least so often it is seen what is too old.
const SWEEP: Duration = Duration::from_secs(10);
/// More of an answer is not read, in bytes, and for no longer.
const LONGEST_ANSWER: usize = 64 << 10;
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Of one upstream.
#[derive(Debug)]
pub struct Delivery {
    behind: Arc<Behind>,
    clock: Clock,
    turns: Turns,
}

/// What became of an attempt.
enum Sent {
    /// It is out of the spool.
    Done,
    /// It is not wanted for so long.
    Hold(Duration),
    /// Upstream was not reached, or not asked.
    Not(&'static str),
    /// It fails, and upstream wants to be left alone for so long.
    Failed { reason: &'static str, asked: Duration },
}

impl Delivery {
    pub(super) fn new(behind: Arc<Behind>, clock: Clock) -> Self {
        Self { behind, clock, turns: Turns::default() }
    }

    /// Ends at once when it is time to stop: what is under way stays kept, and may arrive twice.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.deliver()).await;
    }

    async fn deliver(&mut self) -> Infallible {
        loop {
            self.expire().await;
            // Those who append say it as well, and the last word may be an old one.
            self.behind.metrics.holds(self.behind.spool.held());
            let now = Instant::now();
            let rest = self.turns.rest(now).max(lock(&self.behind.breaker).pause_left(now));
            if !rest.is_zero() {
                self.pause(rest).await;
                continue;
            }
            let spool = &self.behind.spool;
            let oldest = |turns: &Turns| spool.next(|lane| turns.is_held(lane), |number| turns.is_passed(number));
            match self.turns.next(self.works(), now, oldest) {
                Turn::Try(place) => self.attempt(place, now).await,
                Turn::Wait(until) => self.idle(until.unwrap_or(now + SWEEP).min(now + SWEEP)).await,
            }
        }
    }

    async fn attempt(&mut self, place: Place, began: Instant) {
        let sent = self.send(place).await;
        let (works, now) = (self.works(), Instant::now());
        match sent {
            Sent::Done => {}
            Sent::Hold(time) => {
                self.behind.metrics.retried("limited");
                self.turns.limited(place.lane, time, now);
            }
            Sent::Not(reason) => {
                self.behind.metrics.retried(reason);
                self.turns.not_sent(began, works, now);
            }
            Sent::Failed { reason, asked } => {
                self.behind.metrics.retried(reason);
                self.turns.failed(place, began, asked, works, now);
            }
        }
    }

    fn works(&self) -> u64 {
        self.behind.works.load(Ordering::Relaxed)
    }

    /// Until there is something to do.
    async fn idle(&self, until: Instant) {
        tokio::select! {
            () = self.behind.spool.grown() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }

    /// Unless upstream works again before.
    async fn pause(&mut self, time: Duration) {
        self.behind.show(None);
        tokio::select! {
            () = self.behind.recovered.notified() => self.turns.recovered(),
            () = tokio::time::sleep(time.min(SWEEP)) => {}
        }
    }

    async fn expire(&mut self) {
        while let Some(place) = self.behind.spool.expired(self.clock.now()) {
            self.drop(place, "expired").await;
        }
    }

    async fn send(&mut self, place: Place) -> Sent {
        let entry = match self.behind.spool.read(place).await {
            Ok(entry) => entry,
            Err(ReadError::Damaged) => {
                tracing::warn!(upstream = self.behind.upstream.name(), "a kept event is damaged, it is dropped");
                return self.drop(place, "damaged").await;
            }
            Err(error @ ReadError::Unreadable(_)) => {
                tracing::warn!(upstream = self.behind.upstream.name(), %error, "a kept event waits");
                return Sent::Failed { reason: "unreadable", asked: Duration::ZERO };
            }
        };
        let Some(letter) = Letter::decode(&entry.head) else { return self.drop(place, "damaged").await };
        let behind = self.behind.clone();
        let unwanted = || behind.is_unwanted(&letter.key, &letter.categories);
        if let Some(left) = unwanted() {
            return Sent::Hold(left);
        }
        let payload = Payload::read(entry.size(), entry.body());
        let response = match behind.ask(&letter, payload, self.turns.is_telling(place.number)).await {
            Some(Ok(response)) => response,
            Some(Err(error @ NoAnswer::Unreachable(_))) => return Sent::Not(error.reason()),
            Some(Err(error)) => return Sent::Failed { reason: error.reason(), asked: Duration::ZERO },
            None => return Sent::Not("not_asked"),
        };
        let asked = limits::retry_after(&response.fields);
        let status = response.status;
        drain(response.body).await;
        match status {
            StatusCode::TOO_MANY_REQUESTS => Sent::Hold(unwanted().or(asked).unwrap_or(USUAL_LIMIT)),
            status if status.is_success() => {
                self.behind.metrics.delivered();
                self.turns.taken(place.number, Instant::now());
                self.remove(place).await
            }
            status if status.is_client_error() && !may_change(status) => self.drop(place, reason(status)).await,
            _ => Sent::Failed { reason: "status", asked: asked.unwrap_or_default() },
        }
    }

    async fn drop(&mut self, place: Place, reason: &'static str) -> Sent {
        self.behind.metrics.dropped(reason);
        self.remove(place).await
    }

    async fn remove(&mut self, place: Place) -> Sent {
        self.turns.gone(place.number);
        if let Err(error) = self.behind.spool.remove(place).await {
            tracing::warn!(%error, "an event that is done with cannot be deleted; the next start sends it again");
        }
        self.behind.metrics.holds(self.behind.spool.held());
        Sent::Done
    }
}

/// A connection whose answer was not read is of no more use.
async fn drain(mut body: AnswerBody) {
    let reading = async {
        let mut left = LONGEST_ANSWER;
        while let Some(Ok(frame)) = body.frame().await
            && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = rest;
        }
    };
    // Then the next one takes a new connection.
    let _ = tokio::time::timeout(ANSWER_TIME, reading).await;
}

/// As a metric's label.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "unauthorized",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        _ => "rejected",
    }
}
