//! Sends what is kept, the oldest first: one at a time, until upstream has taken it or says that it never will.

use std::collections::{BTreeMap, HashMap};
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
/// So often a request may fail, while others get through, before it has to let others pass; the less often, the more there are
/// already that fail alone.
const PATIENCE: u32 = 5;
/// So often it may fail while nothing gets through: then others are tried, to see whether it is the request or Sentry.
const DOUBT: u32 = 3;
/// For how long others pass it at first, and at last.
const PUT_OFF: Duration = Duration::from_mins(5);
const LONGEST_PUT_OFF: Duration = Duration::from_hours(1);
/// Requests that are suspects at once, or in doubt; beyond that they are tried as if nothing were known of them.
const MOST_SUSPECTS: usize = 4_096;

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
    /// What failed where others got through. It is known until it is out of the spool.
    suspects: HashMap<u64, Suspect>,
    /// Until when no suspect is tried.
    wary: Option<Instant>,
    /// What failed where nothing got through. Once something does, these are suspects. Then, or when there is nothing else, they
    /// are the first again.
    in_doubt: BTreeMap<u64, Place>,
    /// What upstream had taken at the last failure.
    works: u64,
}

/// A request that fails.
#[derive(Debug)]
struct Stumble {
    number: u64,
    times: u32,
    /// What upstream had taken before.
    works: u64,
}

/// Others pass it after a single failure, which says nothing about upstream.
#[derive(Debug)]
struct Suspect {
    place: Place,
    /// How often it was put off while others got through.
    times: u32,
    /// What upstream had taken then.
    works: u64,
    until: Instant,
}

impl Suspect {
    fn put_off(&mut self, works: u64, now: Instant) {
        // Where nothing gets through it may not be its own fault, and it does not have to pay for it.
        let is_its_own = works > self.works || self.times == 0;
        self.times = self.times.saturating_add(is_its_own.into());
        self.works = works;
        self.until = now + retry::backoff(PUT_OFF, LONGEST_PUT_OFF, if is_its_own { self.times } else { 1 });
    }
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
            suspects: HashMap::new(),
            wary: None,
            in_doubt: BTreeMap::new(),
            works: 0,
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
            self.wary = self.wary.filter(|until| *until > now);
            let broken = lock(&self.behind.breaker).pause_left(now.into_std());
            let rest = self.rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            if !rest.max(broken).is_zero() {
                self.pause(rest.max(broken)).await;
                continue;
            }
            let Some(place) = self.next(now) else {
                if std::mem::take(&mut self.in_doubt).is_empty() {
                    self.idle(now).await;
                }
                continue;
            };
            match self.send(place).await {
                Sent::Done => self.failures = 0,
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
                    if self.is_put_off(place, reason) {
                        // What takes long to fail leaves the others as much time.
                        let failed = Instant::now();
                        self.wary = Some(failed + (failed - now).clamp(SHORTEST, LONGEST));
                        continue;
                    }
                    self.failures = self.failures.saturating_add(1);
                    let wait = retry::spread(retry::backoff(SHORTEST, LONGEST, self.failures));
                    self.rests = Some(Instant::now() + wait.max(asked.min(LONGEST_RETRY_AFTER)));
                }
            }
        }
    }

    /// What to try now. A suspect whose time has come is in its place in the line, but while nothing gets through suspects come
    /// last: or else they would pay for what is not their fault. Of suspects it is the one that has waited longest, so that each
    /// has its turn.
    fn next(&mut self, now: Instant) -> Option<Place> {
        let gets_through = self.learn(now);
        let is_held = |lane| self.holds.contains_key(&lane);
        let is_passed = |number| self.in_doubt.contains_key(&number) || self.suspects.contains_key(&number);
        let sound = self.behind.spool.next(is_held, is_passed);
        let due = self.suspects.values().filter(|suspect| suspect.until <= now && !is_held(suspect.place.lane));
        let due = due.filter(|_| self.wary.is_none()).min_by_key(|suspect| (suspect.until, suspect.place.number));
        let due = due.map(|suspect| suspect.place);
        match (sound, due) {
            (Some(sound), Some(due)) if gets_through && due.number < sound.number => Some(due),
            (sound, due) => sound.or(due),
        }
    }

    /// Whether upstream has taken something since the last failure. Then what is in doubt fails by its own fault.
    fn learn(&mut self, now: Instant) -> bool {
        let works = self.behind.works.load(Ordering::Relaxed);
        let gets_through = works > self.works;
        if gets_through {
            for (number, place) in std::mem::take(&mut self.in_doubt) {
                if self.suspects.len() < MOST_SUSPECTS {
                    self.suspects.entry(number).or_insert(Suspect { place, times: 0, works, until: now });
                }
            }
        }
        gets_through
    }

    /// Until there is something to do.
    async fn idle(&self, now: Instant) {
        let put_off = self.suspects.values().map(|suspect| suspect.until).filter(|until| *until > now);
        let next = self.holds.values().copied().chain(put_off).chain(self.wary).min();
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
        let is_telling = !self.suspects.contains_key(&place.number);
        let response = match behind.ask(&letter, payload, is_telling).await {
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
                if self.suspects.contains_key(&place.number) {
                    // It was not its own fault, and so maybe none of the others'.
                    let soon = Instant::now() + PUT_OFF;
                    self.suspects.values_mut().for_each(|suspect| suspect.until = suspect.until.min(soon));
                }
                self.remove(place).await
            }
            status if status.is_client_error() && !may_change(status) => self.drop(place, reason(status)).await,
            _ => Sent::Failed { reason: "status", asked: asked.unwrap_or_default() },
        }
    }

    /// Whether it is the request's own fault: then others pass it, until its time is over.
    fn is_put_off(&mut self, place: Place, reason: &str) -> bool {
        // It was not sent.
        if matches!(reason, "unreachable" | "not_asked") {
            return false;
        }
        let now = Instant::now();
        self.learn(now);
        let works = self.behind.works.load(Ordering::Relaxed);
        self.works = works;
        if let Some(suspect) = self.suspects.get_mut(&place.number) {
            suspect.put_off(works, now);
            return true;
        }
        if !self.in_doubt.is_empty() {
            // It was tried in another's place, and tells no more than that one did.
            self.doubt(place);
            return false;
        }
        let before = self.stumble.take().filter(|stumble| stumble.number == place.number);
        let mut stumble = before.unwrap_or(Stumble { number: place.number, times: 0, works });
        stumble.times += 1;
        let others_pass = works > stumble.works;
        let known = u32::try_from(self.suspects.len()).unwrap_or(PATIENCE);
        if stumble.times >= PATIENCE.saturating_sub(known) && others_pass && self.suspects.len() < MOST_SUSPECTS {
            let mut suspect = Suspect { place, times: 0, works, until: now };
            suspect.put_off(works, now);
            self.suspects.insert(place.number, suspect);
            self.failures = 0;
            return true;
        }
        if stumble.times >= DOUBT && (!others_pass || self.suspects.len() >= MOST_SUSPECTS) {
            self.doubt(place);
        }
        self.stumble = Some(stumble);
        false
    }

    fn doubt(&mut self, place: Place) {
        if self.in_doubt.len() < MOST_SUSPECTS {
            self.in_doubt.insert(place.number, place);
        } else {
            self.in_doubt.clear();
        }
    }

    async fn drop(&mut self, place: Place, reason: &'static str) -> Sent {
        self.behind.metrics.dropped(reason);
        self.remove(place).await
    }

    async fn remove(&mut self, place: Place) -> Sent {
        self.suspects.remove(&place.number);
        self.in_doubt.remove(&place.number);
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

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::machinery::health::Health;
    use crate::machinery::http1::Fields;
    use crate::machinery::spool::{Body, Limits, Spool};
    use crate::relay::RelayMetrics;
    use crate::sentry::upstream::{Upstream, Way};

    async fn delivery(directory: &std::path::Path, entries: usize) -> (Delivery, Vec<Place>) {
        let second = Duration::from_secs(1);
        let way = Way { connect_timeout: second, timeout: second, authorities: Vec::new(), proxy: None };
        let upstream = Upstream::new(&"http://127.0.0.1:9/".parse().unwrap(), &way).unwrap();
        let limits = Limits { bytes: 1 << 20, entries: 100, age: LONGEST_PUT_OFF };
        let spool = Spool::open(directory.to_owned(), limits).unwrap();
        let (uri, key) = (Uri::from_static("/api/7/store/"), "abc".into());
        let letter = Letter { method: Method::POST, uri, fields: Fields::default(), key, categories: Vec::new() };
        for _ in 0..entries {
            let head = letter.encode().unwrap();
            spool.append(Clock::system().now(), letter.lane(), head, Body::Held(Vec::new())).await.unwrap();
        }
        let places = spool.places();
        let metrics = RelayMetrics::register(&mut Registry::default()).upstream("a");
        let behind = Behind::new(upstream, spool, Health::default().optional("a"), metrics);
        (Delivery::new(Arc::new(behind), Clock::system()), places)
    }

    #[tokio::test]
    async fn of_suspects_it_is_the_one_that_has_waited_longest() {
        let directory = tempfile::tempdir().unwrap();
        let (mut delivery, places) = delivery(directory.path(), 4).await;
        let now = Instant::now() + LONGEST_PUT_OFF;
        let waits = [1, 2, 0].map(Duration::from_secs);
        for (&place, waits) in places.iter().zip(waits) {
            delivery
                .suspects
                .insert(place.number, Suspect { place, times: 1, works: 0, until: now.checked_sub(waits).unwrap() });
        }
        let number = |place: Option<Place>| place.map(|place| place.number);
        let [first, second, third, sound] = [0, 1, 2, 3].map(|at| Some(places[at].number));
        assert_eq!(number(delivery.next(now)), sound, "nothing gets through");
        delivery.behind.works.fetch_add(1, Ordering::Relaxed);
        for expected in [second, first, third, sound] {
            assert_eq!(number(delivery.next(now)), expected);
            if let Some(suspect) = expected.and_then(|number| delivery.suspects.get_mut(&number)) {
                suspect.until = now + PUT_OFF;
            }
        }
        delivery.suspects.values_mut().for_each(|suspect| suspect.until = now);
        delivery.wary = Some(now + SHORTEST);
        assert_eq!(number(delivery.next(now)), sound, "one has just failed");
        delivery.behind.spool.remove(places[3]).await.unwrap();
        assert_eq!(number(delivery.next(now)), None);
        delivery.wary = None;
        delivery.holds.insert(places[0].lane, now + SHORTEST);
        assert_eq!(number(delivery.next(now)), None, "all of that lane is held");
    }

    #[tokio::test]
    async fn who_fails_where_nothing_gets_through_is_put_off_no_longer_than_at_first() {
        let directory = tempfile::tempdir().unwrap();
        let (_, places) = delivery(directory.path(), 1).await;
        let now = Instant::now();
        let mut suspect = Suspect { place: places[0], times: 0, works: 5, until: now };
        for (works, times) in [(5, 1), (6, 2), (7, 4), (7, 1), (8, 8), (9, 12), (9, 1)] {
            suspect.put_off(works, now);
            assert_eq!(suspect.until - now, PUT_OFF * times, "{works}");
        }
    }
}
