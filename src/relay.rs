//! The journey of what an SDK posts: taken in, given the pod's tags, handed to the Sentry that it is for, and that Sentry's
//! answer handed back.
//!
//! ```text
//! http::relay ─ Arrival ─▶ intake: decoded, spliced, held or on disk ─▶ breaker, limits ─▶ upstream ─ Answer ─▶ http::relay
//!                                                                        │ no answer, or a 5xx
//!                                                                        ▼
//!                                                                      spool ─ 200 and the id ─▶ http::relay
//!                                                                        └─▶ delivery: the oldest first ─▶ upstream
//! ```
//! What nothing is added to goes on as it came, byte for byte, in the coding that it came in. A request is tried at once even
//! while older ones wait in the spool: what is new is worth the most, and Sentry sorts events by their own time.
//!
//! Metrics: see [`metrics`].

mod breaker;
mod delivery;
mod intake;
mod kept;
mod limits;
mod metrics;
mod pile;
mod senders;
mod tally;
mod target;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use crate::domain::pod::TagChoice;
use crate::machinery::clock::Clock;
use crate::machinery::health;
use crate::machinery::spool::{self, NotKept, Spool};
use crate::sentry::upstream::{NoAnswer, Payload, Upstream, UpstreamError, Way};
use breaker::Breaker;
pub use delivery::Delivery;
use intake::{Intake, Taken};
use kept::Letter;
use limits::Limits;
use metrics::PerUpstream;
pub use metrics::RelayMetrics;
use pile::{Closed, Room};
pub use senders::Senders;
use tally::Tally;
pub use tally::Teller;
use target::Target;

/// How the relay works, as the settings have it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The first one takes what no route does.
    pub upstreams: Vec<Url>,
    pub routes: Vec<Route>,
    pub way: Way,
    pub whose: Whose,
    /// Whether events are given tags.
    pub enrich: bool,
    pub tags: TagChoice,
    /// As received, in bytes.
    pub max_body_bytes: u64,
    pub spool_max_bytes: u64,
    pub spool_max_age: Duration,
}

/// Whose events come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    OwnPod,
    PodsOfTheNode,
}

/// What goes to an upstream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub projects: Vec<String>,
    pub keys: Vec<String>,
    /// The place among the plan's.
    pub upstream: usize,
}

/// A request for Sentry, its headers such as are to go on. `Content-Length` is only a hint here.
#[derive(Debug)]
pub struct Arrival<B> {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: B,
    pub peer: SocketAddr,
}

/// What the sender is told.
#[derive(Debug)]
pub enum Answer {
    /// What upstream said.
    Theirs(Response<Incoming>),
    /// Sentry does not want it for so long, as it has said before.
    Limited(Duration),
    /// It is on disk and goes on later. With the event's id, if it has one.
    Kept(Option<Box<str>>),
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("what is to be kept for it cannot be kept in {}", directory.display())]
    Spool { directory: PathBuf, source: io::Error },
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is over {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body ended early")]
    BrokenOff,
    #[error("Sentry cannot be reached, and it could not be kept; send it again later")]
    NotKept,
}

impl Refusal {
    /// As a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Slow => "timeout",
            Self::BrokenOff => "broken_off",
            Self::NotKept => "not_kept",
        }
    }
}

/// Takes requests in and on.
#[derive(Debug)]
pub struct Relay {
    behind: Vec<Arc<Behind>>,
    routes: Vec<Route>,
    senders: Senders,
    max_body_bytes: u64,
    room: Room,
    clock: Clock,
    tally: Arc<Tally>,
    ended: CancellationToken,
    /// Nothing comes in any more once the last user of this relay is gone.
    _end: DropGuard,
    metrics: RelayMetrics,
}

/// An upstream, and what is known of it.
#[derive(Debug)]
struct Behind {
    upstream: Upstream,
    breaker: Mutex<Breaker>,
    /// Whether the breaker has anything to say.
    is_failing: AtomicBool,
    /// How often it has taken something, or said that it does not want it.
    works: AtomicU64,
    /// It works again.
    recovered: Notify,
    limits: Mutex<Limits>,
    /// Whether anything is limited.
    is_limited: AtomicBool,
    spool: Spool,
    /// What is wrong with it, when it is broken.
    trouble: Mutex<Option<String>>,
    health: health::Part,
    metrics: PerUpstream,
}

/// More of them than any disk has room for in its default size, so that they always can be counted in memory.
const MOST_KEPT: usize = 1_000_000;

impl Relay {
    /// Connects to nothing yet, and looks for what an earlier process has kept. `directory` is for what does not fit into
    /// memory or cannot be sent; `part` makes a line of the board for the name of an upstream. Blocks.
    ///
    /// # Errors
    /// When an upstream's address or certificates cannot be used, or the directory cannot.
    pub fn new(
        plan: &Plan,
        senders: Senders,
        directory: PathBuf,
        clock: Clock,
        metrics: RelayMetrics,
        part: impl Fn(&str) -> health::Part,
    ) -> Result<Self, RelayError> {
        let limits = spool::Limits { bytes: plan.spool_max_bytes, entries: MOST_KEPT, age: plan.spool_max_age };
        let mut behind = Vec::with_capacity(plan.upstreams.len());
        for url in &plan.upstreams {
            let upstream = Upstream::new(url, &plan.way)?;
            let (health, metrics) = (part(upstream.name()), metrics.upstream(upstream.name()));
            health.up();
            let kept = directory.join("spool").join(spool_name(url));
            let spool = Spool::open(kept.clone(), limits)
                .map_err(|source| RelayError::Spool { directory: kept.clone(), source })?;
            let held = spool.held();
            if held.entries > 0 {
                let upstream = upstream.name();
                tracing::info!(upstream, entries = held.entries, bytes = held.bytes, "kept events are sent now");
            }
            metrics.holds(held);
            behind.push(Arc::new(Behind {
                upstream,
                breaker: Mutex::default(),
                is_failing: AtomicBool::new(false),
                works: AtomicU64::new(0),
                recovered: Notify::new(),
                limits: Mutex::default(),
                is_limited: AtomicBool::new(false),
                spool,
                trouble: Mutex::default(),
                health,
                metrics,
            }));
        }
        let ended = CancellationToken::new();
        Ok(Self {
            behind,
            routes: plan.routes.clone(),
            senders,
            max_body_bytes: plan.max_body_bytes,
            room: Room::new(directory),
            clock,
            tally: Arc::default(),
            _end: ended.clone().drop_guard(),
            ended,
            metrics,
        })
    }

    /// Those who send what is kept, one for each upstream.
    pub fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        self.behind.iter().map(|behind| Delivery::new(behind.clone(), self.clock.clone()))
    }

    /// Who tells Datadog what came in.
    pub fn teller(&self) -> Teller {
        Teller::new(self.tally.clone(), self.ended.clone())
    }

    /// Hands a request on and waits for the answer's head.
    ///
    /// # Errors
    /// When it is not taken; it may have arrived upstream all the same.
    ///
    /// # Cancel safety
    /// Dropped, it may have arrived upstream or not.
    pub async fn forward<B>(&self, arrival: Arrival<B>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let forwarded = self.carry(arrival).await;
        forwarded.inspect_err(|refusal| self.metrics.refused(refusal.reason()))
    }

    /// Counts a request that the door did not let in.
    pub fn refused(&self, reason: &'static str) {
        self.metrics.refused(reason);
    }

    async fn carry<B>(&self, arrival: Arrival<B>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Arrival { method, uri, mut headers, body, peer } = arrival;
        let target = Target::of(&uri, &headers);
        self.metrics.received(target.door_label());
        let sender = self.senders.of(peer.ip());
        let mut intake = Intake::new(&target, &headers, &sender.tags, self.max_body_bytes, &self.room);
        intake.take(body).await?;
        let Taken { body, is_decoded, report, key: inner_key, undecodable } = intake.finish().await?;
        if let Some(reason) = undecodable {
            self.metrics.passed(reason);
        }
        if let Some(report) = &report {
            self.metrics.items(report);
            self.metrics.attributed(&sender.whose);
            self.tally.count(target.project_number(), report, &sender.whose);
        }
        headers.remove(CONTENT_LENGTH);
        if is_decoded {
            headers.remove(CONTENT_ENCODING);
        }
        let key = target.key.as_deref().or(inner_key.as_deref()).unwrap_or_default();
        let Some(behind) = self.route(target.project, key) else { return Err(Refusal::NotKept) };
        let mut categories: Vec<_> =
            report.iter().flat_map(|report| report.items.keys().map(|item| limits::name(item.category))).collect();
        categories.dedup();
        if let Some(left) = behind.is_unwanted(key, &categories) {
            behind.metrics.held_back();
            return Ok(Answer::Limited(left));
        }
        // What people ask wants an answer now or never.
        let may_wait = method == Method::POST && target.project_number().is_some();
        let letter = Letter {
            method,
            key: key.into(),
            categories: categories.into_iter().map(Into::into).collect(),
            uri: uri.clone(),
            headers,
        };
        let reason = match behind.ask(&letter, body.payload()).await {
            Some(Ok(response)) if may_wait && may_change(response.status()) => "status",
            Some(Ok(response)) => return Ok(Answer::Theirs(response)),
            Some(Err(error)) => error.reason(),
            None => "not_asked",
        };
        if !may_wait {
            return Err(Refusal::NotKept);
        }
        behind.keep(&letter, &body, reason, &self.clock).await?;
        Ok(Answer::Kept(report.and_then(|report| report.event_id)))
    }

    fn route(&self, project: &str, key: &str) -> Option<&Arc<Behind>> {
        let is_for = |route: &&Route| {
            route.projects.iter().any(|known| known == project) || route.keys.iter().any(|known| known == key)
        };
        let at = self.routes.iter().find(is_for).map_or(0, |route| route.upstream);
        self.behind.get(at)
    }
}

/// Whether another time the answer may be another: it was not what was sent.
fn may_change(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// A directory for what is kept for an upstream: no two have the same.
fn spool_name(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).take(100).collect();
    format!("{host}-{:08x}", crc32fast::hash(url.as_str().as_bytes()))
}

impl Behind {
    /// On `Ok` it survives a crash of the node.
    async fn keep(&self, letter: &Letter, body: &Closed, reason: &'static str, clock: &Clock) -> Result<(), Refusal> {
        let kept = match letter.encode() {
            Some(head) => self.spool.append(clock.now(), letter.lane(), head, body.body()).await,
            None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        };
        self.metrics.holds(self.spool.held());
        match kept {
            Ok(()) => self.metrics.kept(reason),
            Err(error) => {
                self.metrics.not_kept(match &error {
                    NotKept::Full => "full",
                    NotKept::DiskFull => "disk_full",
                    NotKept::Unwritable(_) => "unwritable",
                });
                self.show(Some(&error));
                tracing::debug!(upstream = self.upstream.name(), %error, "an event could not be kept");
                return Err(Refusal::NotKept);
            }
        }
        self.show(None);
        Ok(())
    }

    /// Says on the board what is wrong, and how much waits for it to be over.
    fn show(&self, not_kept: Option<&NotKept>) {
        let trouble = lock(&self.trouble);
        let (Some(why), held) = (trouble.as_deref(), self.spool.held()) else { return };
        let more = not_kept.map(|error| format!("; {error}: more is refused")).unwrap_or_default();
        self.health.down(format!("{why}; {} requests wait on disk, {} KiB{more}", held.entries, held.bytes / 1024));
    }

    /// How long nothing of this is wanted yet, by what was said before.
    fn is_unwanted(&self, key: &str, categories: &[impl AsRef<str>]) -> Option<Duration> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return None;
        }
        let categories: Vec<&str> = categories.iter().map(AsRef::as_ref).collect();
        let mut limits = lock(&self.limits);
        let left = limits.hold(key, &categories, Instant::now());
        self.is_limited.store(!limits.is_empty(), Ordering::Relaxed);
        left
    }

    /// `None` when it is not worth a try at present.
    async fn ask(&self, letter: &Letter, payload: Payload) -> Option<Result<Response<Incoming>, NoAnswer>> {
        if self.is_failing.load(Ordering::Relaxed) && !lock(&self.breaker).lets_through(Instant::now()) {
            return None;
        }
        let asked = Instant::now();
        let answer = self.upstream.send(letter.request(payload)).await;
        match &answer {
            Ok(response) => {
                self.metrics.answered(response.status(), asked.elapsed());
                if response.status().is_server_error() {
                    self.failed(&format!("answers {}", response.status()));
                } else {
                    self.works();
                }
                self.learn(response, &letter.key);
            }
            // Its own fault it is not.
            Err(NoAnswer::Unreadable) => {}
            Err(error) => {
                self.metrics.not_answered(asked.elapsed());
                self.failed(&error.to_string());
            }
        }
        Some(answer)
    }

    fn failed(&self, why: &str) {
        self.is_failing.store(true, Ordering::Relaxed);
        let mut breaker = lock(&self.breaker);
        if breaker.failed(Instant::now()) {
            drop(breaker);
            self.metrics.broken(true);
            *lock(&self.trouble) = Some(why.to_owned());
            self.show(None);
            tracing::warn!(upstream = self.upstream.name(), why, "Sentry does not take events, they are kept");
        }
    }

    fn works(&self) {
        self.works.fetch_add(1, Ordering::Relaxed);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.recovered.notify_one();
            if lock(&self.breaker).answered() {
                self.metrics.broken(false);
                lock(&self.trouble).take();
                self.health.up();
                tracing::info!(upstream = self.upstream.name(), "Sentry takes events again");
            }
        }
    }

    fn learn(&self, response: &Response<Incoming>, key: &str) {
        let is_429 = response.status() == StatusCode::TOO_MANY_REQUESTS;
        if !is_429 && !response.headers().contains_key(limits::HEADER) {
            return;
        }
        let asked = limits::asked(is_429, response.headers());
        if asked.is_empty() {
            return;
        }
        self.metrics.limited();
        lock(&self.limits).learn(key, asked, Instant::now());
        self.is_limited.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
