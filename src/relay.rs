//! The journey of what an SDK posts: taken in, given the pod's tags, handed to the Sentry that it is for, and that Sentry's
//! answer handed back.
//!
//! ```text
//! http::relay ─ Arrival ─▶ intake: decoded, spliced, held or on disk ─▶ breaker, limits ─▶ upstream ─ Answer ─▶ http::relay
//! ```
//! What nothing is added to goes on as it came, byte for byte, in the coding that it came in.
//!
//! Metrics: those that the head of `relay/metrics.rs` lists.

mod breaker;
mod intake;
mod limits;
mod metrics;
mod pile;
mod senders;
mod target;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use url::Url;

use crate::domain::pod::TagChoice;
use crate::machinery::health;
use crate::sentry::upstream::{NoAnswer, Payload, Upstream, UpstreamError, Way};
use breaker::Breaker;
use intake::{Intake, Taken};
use limits::Limits;
use metrics::PerUpstream;
pub use metrics::RelayMetrics;
use pile::Room;
pub use senders::{Sender, Senders};
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
    behind: Vec<Behind>,
    routes: Vec<Route>,
    senders: Senders,
    max_body_bytes: u64,
    room: Room,
    metrics: RelayMetrics,
}

/// An upstream, and what is known of it.
#[derive(Debug)]
struct Behind {
    upstream: Upstream,
    breaker: Mutex<Breaker>,
    /// Whether the breaker has anything to say.
    is_failing: AtomicBool,
    limits: Mutex<Limits>,
    /// Whether anything is limited.
    is_limited: AtomicBool,
    health: health::Part,
    metrics: PerUpstream,
}

impl Relay {
    /// Connects to nothing yet. `drafts` is a directory for bodies that are too large for memory; `part` makes a line of
    /// the board for the name of an upstream.
    ///
    /// # Errors
    /// When an upstream's address or certificates cannot be used.
    pub fn new(
        plan: &Plan,
        senders: Senders,
        drafts: PathBuf,
        metrics: RelayMetrics,
        part: impl Fn(&str) -> health::Part,
    ) -> Result<Self, UpstreamError> {
        let mut behind = Vec::with_capacity(plan.upstreams.len());
        for url in &plan.upstreams {
            let upstream = Upstream::new(url, &plan.way)?;
            let (health, metrics) = (part(upstream.name()), metrics.upstream(upstream.name()));
            health.up();
            behind.push(Behind {
                upstream,
                breaker: Mutex::default(),
                is_failing: AtomicBool::new(false),
                limits: Mutex::default(),
                is_limited: AtomicBool::new(false),
                health,
                metrics,
            });
        }
        Ok(Self {
            behind,
            routes: plan.routes.clone(),
            senders,
            max_body_bytes: plan.max_body_bytes,
            room: Room::new(drafts),
            metrics,
        })
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
        let sender = self.senders.of(peer.ip()).await;
        let mut intake = Intake::new(&target, &headers, &sender.tags, self.max_body_bytes, &self.room);
        intake.take(body).await?;
        let Taken { pile, is_decoded, report, key: inner_key, undecodable } = intake.finish().await?;
        if let Some(reason) = undecodable {
            self.metrics.passed(reason);
        }
        if let Some(report) = &report {
            self.metrics.items(report);
            self.metrics.attributed(&sender.whose);
        }
        headers.remove(CONTENT_LENGTH);
        if is_decoded {
            headers.remove(CONTENT_ENCODING);
        }
        let key = target.key.as_deref().or(inner_key.as_deref()).unwrap_or_default();
        let Some(behind) = self.route(target.project, key) else { return Err(Refusal::NotKept) };
        let categories: Vec<_> =
            report.iter().flat_map(|report| report.items.keys().map(|item| limits::name(item.category))).collect();
        if let Some(left) = behind.is_unwanted(key, &categories) {
            return Ok(Answer::Limited(left));
        }
        let mut request = Request::new(pile.into_payload());
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.uri_mut() = uri.clone();
        match behind.ask(request, key).await {
            Some(Ok(response)) => Ok(Answer::Theirs(response)),
            Some(Err(_)) | None => Err(Refusal::NotKept),
        }
    }

    fn route(&self, project: &str, key: &str) -> Option<&Behind> {
        let is_for = |route: &&Route| {
            route.projects.iter().any(|known| known == project) || route.keys.iter().any(|known| known == key)
        };
        let at = self.routes.iter().find(is_for).map_or(0, |route| route.upstream);
        self.behind.get(at)
    }
}

impl Behind {
    /// How long nothing of this is wanted yet, by what was said before.
    fn is_unwanted(&self, key: &str, categories: &[&str]) -> Option<Duration> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return None;
        }
        let mut limits = lock(&self.limits);
        let left = limits.hold(key, categories, Instant::now());
        self.is_limited.store(!limits.is_empty(), Ordering::Relaxed);
        drop(limits);
        left.inspect(|_| self.metrics.held_back())
    }

    /// `None` when it is not worth a try at present.
    async fn ask(&self, request: Request<Payload>, key: &str) -> Option<Result<Response<Incoming>, NoAnswer>> {
        if self.is_failing.load(Ordering::Relaxed) && !lock(&self.breaker).lets_through(Instant::now()) {
            return None;
        }
        let asked = Instant::now();
        let answer = self.upstream.send(request).await;
        match &answer {
            Ok(response) => {
                self.metrics.answered(response.status(), asked.elapsed());
                if response.status().is_server_error() {
                    self.failed(&format!("answers {}", response.status()));
                } else {
                    self.works();
                }
                self.learn(response, key);
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
            self.health.down(why);
            tracing::warn!(upstream = self.upstream.name(), why, "Sentry does not take events");
        }
    }

    fn works(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) && lock(&self.breaker).answered() {
            self.metrics.broken(false);
            self.health.up();
            tracing::info!(upstream = self.upstream.name(), "Sentry takes events again");
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
