//! Sends what is kept, the oldest first: one at a time, until upstream has taken it or says that it never will.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::behind::{Behind, may_change};
use super::kept::Letter;
use super::{limits, lock};
use crate::machinery::clock::Clock;
use crate::machinery::retry;
use crate::machinery::spool::{Place, ReadError};
use crate::sentry::upstream::{AnswerBody, Payload};

/// After a failure.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Longer than this no upstream that fails is left alone, whatever it asks for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// A limit that does not say of what, or for how long.
const USUAL_LIMIT: Duration = Duration::from_mins(1);
/// At least so often it is seen what is too old.
const SWEEP: Duration = Duration::from_secs(10);
/// Lanes that may be held at once; beyond that all wait for the first.
const MOST_HOLDS: usize = 4_096;
/// More of an answer is not read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;
/// So often a request may fail, while others get through, before it has to let others pass.
const PATIENCE: u32 = 5;
/// So often it may fail while nothing gets through: then others are tried, to see whether it is the request or Sentry.
const DOUBT: u32 = 3;

/// Of one upstream.
#[derive(Debug)]
pub struct Delivery {
    behind: Arc<Behind>,
    clock: Clock,
    /// What Sentry does not want yet, by lane.
    holds: HashMap<u32, Instant>,
    /// Failures in a row, and until when nothing is tried for them.
    failures: u32,
    rests: Option<Instant>,
    stumble: Option<Stumble>,
    /// What failed where others got through: it comes last.
    put_off: HashMap<u64, Instant>,
    /// What failed where nothing got through. Once something does, or there is nothing else, these are the first again.
    in_doubt: BTreeSet<u64>,
}

/// A request that fails.
#[derive(Debug)]
struct Stumble {
    number: u64,
    times: u32,
    /// What upstream had taken before.
    works: u64,
}

/// What became of an attempt.
enum Sent {
    /// It is out of the spool.
    Done,
    /// It is not wanted for so long.
    Hold(Duration),
    /// Upstream fails, and wants to be left alone for so long.
    Failed { reason: &'static str, asked: Duration },
}

impl Delivery {
    pub(super) fn new(behind: Arc<Behind>, clock: Clock) -> Self {
        Self {
            behind,
            clock,
            holds: HashMap::new(),
            failures: 0,
            rests: None,
            stumble: None,
            put_off: HashMap::new(),
            in_doubt: BTreeSet::new(),
        }
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
            self.holds.retain(|_, until| *until > now);
            self.put_off.retain(|_, until| *until > now);
            let broken = lock(&self.behind.breaker).pause_left(now.into_std());
            let rest = self.rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            if !rest.max(broken).is_zero() {
                self.pause(rest.max(broken)).await;
                continue;
            }
            let holds = |lane| self.holds.contains_key(&lane);
            let passes = |number| self.put_off.contains_key(&number) || self.in_doubt.contains(&number);
            let Some(place) = self.behind.spool.next(holds, passes) else {
                if std::mem::take(&mut self.in_doubt).is_empty() {
                    self.idle(now).await;
                }
                continue;
            };
            match self.send(place).await {
                Sent::Done => {
                    self.failures = 0;
                    self.in_doubt.clear();
                }
                Sent::Hold(time) => {
                    self.behind.metrics.retried("limited");
                    if self.holds.len() < MOST_HOLDS {
                        self.holds.insert(place.lane, Instant::now() + time);
                    } else {
                        self.rests = Some(Instant::now() + time.min(LONGEST_RETRY_AFTER));
                    }
                }
                Sent::Failed { reason, asked } => {
                    self.behind.metrics.retried(reason);
                    self.failures = self.failures.saturating_add(1);
                    self.stumbled(place, reason);
                    let wait = retry::spread(retry::backoff(SHORTEST, LONGEST, self.failures));
                    self.rests = Some(Instant::now() + wait.max(asked.min(LONGEST_RETRY_AFTER)));
                }
            }
        }
    }

    /// Until there is something to do.
    async fn idle(&self, now: Instant) {
        let next = self.holds.values().chain(self.put_off.values()).min().copied();
        let until = next.unwrap_or(now + SWEEP).min(now + SWEEP);
        tokio::select! {
            () = self.behind.spool.grown() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Unless upstream works again before.
    async fn pause(&mut self, time: Duration) {
        self.behind.show(None);
        tokio::select! {
            () = self.behind.recovered.notified() => self.rests = None,
            () = tokio::time::sleep(time.min(SWEEP)) => {}
        }
    }

    async fn expire(&self) {
        while let Some(place) = self.behind.spool.expired(self.clock.now()) {
            self.drop(place, "expired").await;
        }
    }

    async fn send(&self, place: Place) -> Sent {
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
        let unwanted = || self.behind.is_unwanted(&letter.key, &letter.categories);
        if let Some(left) = unwanted() {
            return Sent::Hold(left);
        }
        let payload = Payload::read(entry.size(), entry.body());
        let response = match self.behind.ask(&letter, payload).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Sent::Failed { reason: error.reason(), asked: Duration::ZERO },
            None => return Sent::Failed { reason: "not_asked", asked: Duration::ZERO },
        };
        let asked = limits::retry_after(&response.fields);
        let status = response.status;
        drain(response.body).await;
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let left = unwanted().or(asked).unwrap_or(USUAL_LIMIT);
                Sent::Hold(left.max(SHORTEST))
            }
            status if status.is_success() => {
                self.behind.metrics.delivered();
                self.remove(place).await
            }
            status if status.is_client_error() && !may_change(status) => self.drop(place, reason(status)).await,
            _ => Sent::Failed { reason: "status", asked: asked.unwrap_or_default() },
        }
    }

    /// Whether it is the request's own fault: then others pass it, until its time is over.
    fn stumbled(&mut self, place: Place, reason: &str) {
        // It was not sent.
        if matches!(reason, "unreachable" | "not_asked") {
            return;
        }
        let works = self.behind.works.load(Ordering::Relaxed);
        if !self.in_doubt.is_empty() {
            // It was tried in another's place, and tells no more than that one did.
            self.doubt(place);
            return;
        }
        let before = self.stumble.take().filter(|stumble| stumble.number == place.number);
        let mut stumble = before.unwrap_or(Stumble { number: place.number, times: 0, works });
        stumble.times += 1;
        let others_pass = works > stumble.works;
        if stumble.times >= PATIENCE && others_pass && self.put_off.len() < MOST_HOLDS {
            self.put_off.insert(place.number, Instant::now() + LONGEST_RETRY_AFTER);
            self.failures = 0;
            return;
        }
        if stumble.times >= DOUBT && !others_pass {
            self.doubt(place);
        }
        self.stumble = Some(stumble);
    }

    fn doubt(&mut self, place: Place) {
        if self.in_doubt.len() < MOST_HOLDS {
            self.in_doubt.insert(place.number);
        } else {
            self.in_doubt.clear();
        }
    }

    async fn drop(&self, place: Place, reason: &'static str) -> Sent {
        self.behind.metrics.dropped(reason);
        self.remove(place).await
    }

    async fn remove(&self, place: Place) -> Sent {
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
    let _ = tokio::time::timeout(SHORTEST, reading).await;
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
