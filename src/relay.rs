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
//! Metrics: those that the head of `relay/metrics.rs` lists.

mod behind;
mod breaker;
mod delivery;
mod intake;
mod keeper;
mod kept;
mod limits;
mod metrics;
mod pile;
mod senders;
mod tally;
mod target;
mod turns;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Method, Uri};
use hyper::body::Body;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use crate::domain::build::Timestamp;
use crate::domain::pod::TagChoice;
use crate::machinery::clock::Clock;
use crate::machinery::health;
use crate::machinery::http1::{Fields, Reply};
use crate::machinery::spool::{self, ReadError, Spool};
use crate::sentry::upstream::{AnswerBody, Upstream, UpstreamError, Way};
use behind::{Behind, may_change};
pub use delivery::Delivery;
use intake::{Intake, Taken};
pub use keeper::Keeper;
use keeper::Unanswered;
use kept::Letter;
pub use metrics::RelayMetrics;
use pile::Room;
pub use senders::{Sender, Senders};
use tally::Tally;
pub use tally::Teller;
use target::Target;

pub use limits::HEADER as RATE_LIMITS;

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
    /// Of one upstream; as much again, or room for two of the largest, for all bodies on their way that do not fit into memory.
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

/// A request for Sentry, its fields such as are to go on. `Content-Length` is only a hint here.
#[derive(Debug)]
pub struct Arrival<B> {
    pub method: Method,
    pub uri: Uri,
    pub fields: Fields,
    pub body: B,
    pub peer: SocketAddr,
}

/// What the sender is told.
#[derive(Debug)]
pub enum Answer {
    /// What upstream said.
    Theirs(Reply<AnswerBody>),
    /// Sentry does not want it for so long, as it has said before. `limits`: all that it said of this key, as the value of
    /// [`RATE_LIMITS`].
    Limited { left: Duration, limits: String },
    /// It is on disk and goes on later. With the event's id, if it has one.
    Kept(Option<Box<str>>),
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("there is no place to keep what it does not take, {}", directory.display())]
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
    /// For what its sender does not wait for.
    left: mpsc::Sender<keeper::Left>,
    /// Nothing comes in any more once this relay is gone.
    _end: DropGuard,
    metrics: RelayMetrics,
}

/// What has to run beside a relay.
#[derive(Debug)]
pub struct Errands {
    /// One for each upstream.
    pub deliveries: Vec<Delivery>,
    pub keeper: Keeper,
    pub teller: Teller,
}

/// Below the data's.
pub const DIRECTORY: &str = "relay";
const SPOOLS: &str = "spool";

/// More of them than any disk has room for in its default size, so that they always can be counted in memory.
const MOST_KEPT: usize = 1_000_000;
/// So many are looked at before they are moved: a kill in between does not undo all.
const MOVED_AT_ONCE: usize = 1_024;

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
    ) -> Result<(Self, Errands), RelayError> {
        let limits = spool::Limits { bytes: plan.spool_max_bytes, entries: MOST_KEPT, age: plan.spool_max_age };
        let spools = directory.join(SPOOLS);
        let upstreams =
            plan.upstreams.iter().map(|url| Upstream::new(url, &plan.way)).collect::<Result<Vec<_>, _>>()?;
        let homes = plan.upstreams.iter().map(|url| {
            let kept = spools.join(spool_name(url));
            Home::open(&kept, &directory, limits).map_err(|source| RelayError::Spool { directory: kept, source })
        });
        let homes = homes.collect::<Result<Vec<_>, _>>()?;
        if bring_home(&spools, plan, &homes, limits) {
            homes.iter().for_each(Home::is_no_longer_new);
        }
        let behind = |(upstream, home): (Upstream, Home)| {
            let (health, metrics) = (part(upstream.name()), metrics.upstream(upstream.name()));
            Arc::new(Behind::new(upstream, home.spool, health, metrics))
        };
        let behind: Vec<_> = upstreams.into_iter().zip(homes).map(behind).collect();
        let (ended, tally) = (CancellationToken::new(), Arc::<Tally>::default());
        let (left, keeper) = Keeper::new(clock.clone());
        let errands = Errands {
            deliveries: behind.iter().map(|behind| Delivery::new(behind.clone(), clock.clone())).collect(),
            keeper,
            teller: Teller::new(tally.clone(), ended.clone()),
        };
        let relay = Self {
            behind,
            routes: plan.routes.clone(),
            senders,
            max_body_bytes: plan.max_body_bytes,
            room: Room::new(directory, plan.spool_max_bytes.max(2 * plan.max_body_bytes)),
            clock,
            tally,
            left,
            _end: ended.drop_guard(),
            metrics,
        };
        Ok((relay, errands))
    }

    /// Hands a request on and waits for the answer's head.
    ///
    /// # Errors
    /// When it is not taken; it may have arrived upstream all the same.
    ///
    /// # Cancel safety
    /// Dropped before the body is whole and in hand, it is lost, and counted. Dropped later, it may have arrived upstream, and is
    /// kept to be sent.
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
        let Arrival { method, uri, mut fields, body, peer } = arrival;
        let mut target = Target::of(&uri, &fields);
        self.metrics.received(target.door_label());
        let leaving = Leaving(&self.metrics);
        let sender = self.senders.of(peer.ip()).await;
        let mut intake = Intake::new(&target, &fields, &sender.tags, self.max_body_bytes, &self.room);
        let taken = match intake.take(body).await {
            Ok(()) => intake.finish().await,
            Err(refusal) => Err(refusal),
        };
        // It has not left: from here on what becomes of it is counted elsewhere.
        std::mem::forget(leaving);
        let Taken { body, is_decoded, report, key: inner_key, undecodable } = taken?;
        if let Some(reason) = undecodable {
            self.metrics.passed(reason);
        }
        if let Some(report) = &report {
            self.metrics.items(report);
            self.metrics.attributed(&sender.whose);
            self.tally.count(target.project_number(), report, &sender.whose);
        }
        if is_decoded {
            fields.remove(&CONTENT_ENCODING);
        }
        let key = target.key.take().or(inner_key).unwrap_or_default();
        let Some(behind) = self.route(target.project, &key) else { return Err(Refusal::NotKept) };
        let items = report.iter().flat_map(|report| report.items.keys());
        let mut categories: Vec<Cow<'static, str>> = items.map(|item| limits::name(item.category).into()).collect();
        categories.sort_unstable();
        categories.dedup();
        if let Some(left) = behind.is_unwanted(&key, &categories) {
            behind.metrics.held_back();
            return Ok(Answer::Limited { left, limits: behind.limits_told(&key) });
        }
        // What people ask wants an answer now or never.
        let may_wait = method == Method::POST && target.project_number().is_some();
        let letter = Letter { method, uri, fields, key, categories };
        let waiting = Unanswered::new(behind, letter, body, may_wait.then_some(&self.left));
        let reason = match waiting.ask().await {
            Some(Ok(response)) if may_wait && may_change(response.status) => "status",
            Some(Ok(response)) => {
                waiting.settled();
                return Ok(Answer::Theirs(response));
            }
            Some(Err(error)) => error.reason(),
            None => "not_asked",
        };
        waiting.keep(reason, &self.clock).await?;
        Ok(Answer::Kept(report.and_then(|report| report.event_id)))
    }

    fn route(&self, project: &str, key: &str) -> Option<&Arc<Behind>> {
        self.behind.get(route(&self.routes, project, key))
    }
}

/// Dropped, it counts a sender who has left before what it sent was in hand.
struct Leaving<'a>(&'a RelayMetrics);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.refused("left");
    }
}

/// The place among the upstreams.
fn route(routes: &[Route], project: &str, key: &str) -> usize {
    let is_for = |route: &&Route| {
        route.projects.iter().any(|known| known == project) || route.keys.iter().any(|known| known == key)
    };
    routes.iter().find(is_for).map_or(0, |route| route.upstream)
}

/// How many requests are kept for an upstream, and since when; `None` when there are none. `directory` is that of
/// [`Relay::new`]. Blocks.
///
/// # Errors
/// When it cannot be looked into.
pub fn kept_for(directory: &Path, upstream: &Url) -> io::Result<Option<(usize, Timestamp)>> {
    spool::look(&directory.join(SPOOLS).join(spool_name(upstream)))
}

/// A directory for what is kept for an upstream: no two have the same.
fn spool_name(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).take(100).collect();
    format!("{host}-{:08x}", crc32fast::hash(url.as_str().as_bytes()))
}

/// Where is kept what is for an upstream.
#[derive(Debug)]
struct Home {
    spool: Spool,
    /// There until all is there that is to come from others; a start that was cut off is gone on with.
    mark: PathBuf,
    is_new: bool,
}

impl Home {
    /// `marks` is the directory for the marks of those that are new. Blocks.
    fn open(kept: &Path, marks: &Path, limits: spool::Limits) -> io::Result<Self> {
        let name = kept.file_name().unwrap_or_default().to_string_lossy();
        let mark = marks.join(format!("{name}.new"));
        if !kept.exists() {
            std::fs::create_dir_all(marks)?;
            File::create(&mark)?;
            File::open(marks)?.sync_all()?;
        }
        let is_new = mark.exists();
        Ok(Self { spool: Spool::open(kept.to_owned(), limits)?, mark, is_new })
    }

    fn is_no_longer_new(&self) {
        if self.is_new
            && let Err(error) = std::fs::remove_file(&self.mark)
        {
            tracing::warn!(mark = %self.mark.display(), %error, "what is kept for other Sentries may come here at the next start");
        }
    }
}

/// What is kept for an upstream that has gone from the settings goes where it would go if it came now, if that is new: then an
/// address was corrected. What was an upstream before as well has projects of its own, and would refuse what is not for it: a slip
/// in the settings, mended with the next start, must not cost what was kept. `homes`: the plan's upstreams'. Returns whether all
/// that is to move has. Blocks.
fn bring_home(spools: &Path, plan: &Plan, homes: &[Home], limits: spool::Limits) -> bool {
    let mut is_done = true;
    let known: Vec<String> = plan.upstreams.iter().map(spool_name).collect();
    for entry in spools.read_dir().into_iter().flatten().flatten() {
        if known.iter().any(|known| entry.file_name() == **known) {
            continue;
        }
        let directory = entry.path();
        let moved = empty_into(&directory, &plan.routes, homes, limits);
        is_done &= moved.is_ok();
        // Only an empty one can be removed in this way.
        match moved.and_then(|moved| std::fs::remove_dir(&directory).map(|()| moved)) {
            Ok(0) => {}
            Ok(entries) => {
                tracing::info!(directory = %directory.display(), entries, "events kept for a Sentry that is no upstream any more go to others");
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "what is kept there, maybe for a Sentry that is no upstream any more, stays");
            }
        }
    }
    is_done
}

/// Returns how many entries are in one of the `homes` now.
fn empty_into(directory: &Path, routes: &[Route], homes: &[Home], limits: spool::Limits) -> io::Result<usize> {
    let left = Spool::open(directory.to_owned(), limits)?;
    let (mut moved, mut unreadable) = (0, None);
    if homes.iter().all(|home| !home.is_new) {
        return Ok(moved);
    }
    for group in left.places().chunks(MOVED_AT_ONCE) {
        let mut of_homes = vec![Vec::new(); homes.len()];
        for &place in group {
            // What is damaged is told apart, counted and dropped by who would send it.
            let at = match left.head(&place) {
                Ok(head) => Letter::decode(&head)
                    .map_or(0, |letter| route(routes, Target::of(&letter.uri, &letter.fields).project, &letter.key)),
                Err(ReadError::Damaged) => 0,
                Err(ReadError::Unreadable(error)) => {
                    unreadable = Some(error);
                    continue;
                }
            };
            if let Some(of_home) = of_homes.get_mut(at) {
                of_home.push(place);
            }
        }
        for (home, places) in homes.iter().zip(&of_homes).filter(|(home, _)| home.is_new) {
            home.spool.adopt(&left, places)?;
            moved += places.len();
        }
    }
    unreadable.map_or(Ok(moved), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::domain::pod::PodIdentity;
    use crate::machinery::health::Health;

    fn plan(upstreams: &[&str], routes: Vec<Route>) -> Plan {
        let way = Way {
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            authorities: Vec::new(),
            proxy: None,
        };
        Plan {
            upstreams: upstreams.iter().map(|url| url.parse().unwrap()).collect(),
            routes,
            way,
            whose: Whose::OwnPod,
            enrich: true,
            tags: TagChoice::default(),
            max_body_bytes: 1 << 20,
            spool_max_bytes: 1 << 20,
            spool_max_age: Duration::from_mins(1),
        }
    }

    async fn kept(spool: &Spool, path: &str) {
        let letter = Letter {
            method: Method::POST,
            uri: path.parse().unwrap(),
            fields: Fields::default(),
            key: "abc".into(),
            categories: Vec::new(),
        };
        let came = Timestamp::from_millis(1_780_000_000_000);
        spool.append(came, 0, letter.encode().unwrap(), spool::Body::Held(Vec::new())).await.unwrap();
    }

    fn paths(spool: &Spool) -> Vec<String> {
        let path = |place: spool::Place| match spool.head(&place) {
            Ok(head) => Letter::decode(&head).unwrap().uri.path().to_owned(),
            Err(error) => error.to_string(),
        };
        spool.places().into_iter().map(path).collect()
    }

    #[tokio::test]
    async fn what_is_kept_for_a_sentry_that_is_gone_goes_where_it_would_go_now() {
        let directory = tempfile::tempdir().unwrap();
        let routes = vec![Route { projects: vec!["8".to_owned()], keys: Vec::new(), upstream: 1 }];
        let plan = plan(&["https://a.example/", "https://b.example/"], routes);
        let limits = spool::Limits { bytes: 1 << 20, entries: 100, age: Duration::from_mins(1) };
        let open = |name: &str| Spool::open(directory.path().join(name), limits).unwrap();
        let home = |url| Home { spool: open(&spool_name(url)), mark: PathBuf::new(), is_new: true };
        let homes: Vec<Home> = plan.upstreams.iter().map(home).collect();
        kept(&homes[0].spool, "/api/5/store/").await;
        let gone = open("gone");
        for project in [7, 8, 9, 8, 10] {
            kept(&gone, &format!("/api/{project}/store/")).await;
        }
        std::fs::write(directory.path().join("gone/0.draft"), "half of it").unwrap();
        // As after a crash in the middle.
        homes[0].spool.adopt(&gone, &gone.places()[..1]).unwrap();
        let torn = directory.path().join("gone").read_dir().unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        std::fs::write(torn, "torn").unwrap();
        open("empty");
        open("strange");
        std::fs::write(directory.path().join("strange/1"), "whose is it").unwrap();

        assert!(bring_home(directory.path(), &plan, &homes, limits));
        assert_eq!(
            paths(&homes[0].spool),
            ["/api/5/store/", "/api/7/store/", "/api/9/store/", "what was kept is damaged"]
        );
        assert_eq!(paths(&homes[1].spool), ["/api/8/store/", "/api/8/store/"]);
        assert_eq!(homes[0].spool.held(), spool::Held { entries: 4, bytes: 4 * 4096 });
        let mut left: Vec<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.retain(|name| !plan.upstreams.iter().any(|url| name == &*spool_name(url)));
        assert_eq!(left, ["strange"]);
        for (home, url) in homes.iter().zip(&plan.upstreams) {
            assert_eq!(paths(&open(&spool_name(url))), paths(&home.spool), "the next start finds the same");
        }
    }

    #[tokio::test]
    async fn what_is_kept_stays_where_it_is_if_it_would_go_to_a_sentry_that_was_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let limits = spool::Limits { bytes: 1 << 30, entries: 10_000, age: Duration::from_mins(1) };
        let open = |url: &str| {
            Spool::open(directory.path().join(SPOOLS).join(spool_name(&url.parse().unwrap())), limits).unwrap()
        };
        let route = |upstream| Route { projects: vec!["8".to_owned()], keys: Vec::new(), upstream };
        let start = |plan: &Plan| drop(relay(plan, directory.path(), &mut Registry::default()));
        let [a, b, c] = ["https://a.example/", "https://b.example/", "https://c.example/"];
        start(&plan(&[a, b], vec![route(1)]));
        for project in [8, 9] {
            kept(&open(b), &format!("/api/{project}/store/")).await;
        }
        start(&plan(&[a], Vec::new()));
        start(&plan(&[a, b], vec![route(1)]));
        assert_eq!((paths(&open(a)), paths(&open(b)).len()), (Vec::new(), 2), "a slip in the settings moves nothing");
        // As if a start had been cut off before it moved anything.
        drop(Home::open(
            &directory.path().join(SPOOLS).join(spool_name(&c.parse().unwrap())),
            directory.path(),
            limits,
        ));
        start(&plan(&[a, c], vec![route(1)]));
        assert_eq!(paths(&open(c)), ["/api/8/store/"], "an address was corrected");
        let marks = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(marks.collect::<Vec<_>>(), [SPOOLS], "no mark is left");
        assert_eq!((paths(&open(a)), paths(&open(b))), (Vec::new(), vec!["/api/9/store/".to_owned()]));
    }

    #[tokio::test]
    async fn more_than_are_moved_at_once_move_in_their_order_though_their_bodies_are_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(&["https://a.example/"], Vec::new());
        let limits = spool::Limits { bytes: 1 << 30, entries: 10_000, age: Duration::from_mins(1) };
        let open = |name: &str| Spool::open(directory.path().join(name), limits).unwrap();
        let (gone, many) = (open("gone"), MOVED_AT_ONCE + 2);
        kept(&gone, "/api/0/store/").await;
        let first = directory.path().join("gone").read_dir().unwrap().next().unwrap().unwrap().path();
        let name = first.file_name().unwrap().to_str().unwrap().split_once('.').unwrap().1.to_owned();
        for number in 1..many {
            std::fs::copy(&first, first.with_file_name(format!("{number:020}.{name}"))).unwrap();
        }
        let mut bytes = std::fs::read(&first).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&first, bytes).unwrap();
        let homes = [Home { spool: open(&spool_name(&plan.upstreams[0])), mark: PathBuf::new(), is_new: true }];
        assert!(bring_home(directory.path(), &plan, &homes, limits));
        assert_eq!(paths(&homes[0].spool), vec!["/api/0/store/"; many]);
        assert!(!directory.path().join("gone").exists());
    }

    fn relay(plan: &Plan, directory: &Path, registry: &mut Registry) -> (Relay, Errands) {
        let (_identity, pod) = tokio::sync::watch::channel(PodIdentity::default());
        Relay::new(
            plan,
            Senders::own_pod(pod, TagChoice::default(), true),
            directory.to_owned(),
            Clock::system(),
            RelayMetrics::register(registry),
            |name| Health::default().optional(name),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn who_leaves_before_all_is_in_hand_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let plan = plan(&["http://127.0.0.1:9/"], Vec::new());
        let (relay, _errands) = relay(&plan, directory.path(), &mut registry);
        let arrival = Arrival {
            method: Method::POST,
            uri: Uri::from_static("/api/7/store/"),
            fields: Fields::default(),
            body: StreamBody::new(futures_util::stream::pending::<io::Result<Frame<Bytes>>>()),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        let mut forwarding = Box::pin(relay.forward(arrival));
        assert!(futures_util::poll!(&mut forwarding).is_pending());
        drop(forwarding);
        let mut shown = String::new();
        prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
        assert!(shown.contains("recoverd_relay_refused_total{reason=\"left\"} 1\n"), "{shown}");
    }

    #[test]
    fn no_two_upstreams_share_a_spool() {
        let urls = [
            "https://a.example/",
            "http://a.example/",
            "https://a.example:8443/",
            "https://a.example/sub/",
            "http://[::1]/",
        ];
        let names: std::collections::BTreeSet<String> =
            urls.iter().map(|url| spool_name(&url.parse().unwrap())).collect();
        assert_eq!(names.len(), urls.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.')), "{names:?}");
    }
}
