//! One upstream: whether it is worth asking, what it does not want, and what is kept for it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::Notify;

use super::breaker::Breaker;
use super::kept::Letter;
use super::limits::{self, Limits};
use super::metrics::PerUpstream;
use super::pile::Closed;
use super::{Refusal, lock};
use crate::machinery::clock::Clock;
use crate::machinery::health;
use crate::machinery::http1::Reply;
use crate::machinery::spool::{NotKept, Spool};
use crate::sentry::upstream::{AnswerBody, NoAnswer, Payload, Upstream};

/// An upstream, and what is known of it.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) upstream: Upstream,
    pub(super) breaker: Mutex<Breaker>,
    /// Whether the breaker has anything to say.
    is_failing: AtomicBool,
    /// How often it has taken something, or said that it does not want it.
    pub(super) works: AtomicU64,
    /// It works again.
    pub(super) recovered: Notify,
    limits: Mutex<Limits>,
    /// Whether anything is limited.
    is_limited: AtomicBool,
    pub(super) spool: Spool,
    /// What is wrong with it, when it is broken.
    trouble: Mutex<Option<String>>,
    health: health::Part,
    pub(super) metrics: PerUpstream,
}

/// Whether another time the answer may be another: it was not what was sent.
pub(super) fn may_change(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

impl Behind {
    pub(super) fn new(upstream: Upstream, spool: Spool, health: health::Part, metrics: PerUpstream) -> Self {
        health.up();
        let held = spool.held();
        if held.entries > 0 {
            tracing::info!(
                upstream = upstream.name(),
                entries = held.entries,
                bytes = held.bytes,
                "kept events are sent now"
            );
        }
        metrics.holds(held);
        Self {
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
        }
    }

    /// On `Ok` it survives a crash of the node.
    pub(super) async fn keep(
        &self,
        letter: &Letter,
        body: &Closed,
        reason: &'static str,
        clock: &Clock,
    ) -> Result<(), Refusal> {
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
    pub(super) fn show(&self, not_kept: Option<&NotKept>) {
        let trouble = lock(&self.trouble);
        let (Some(why), held) = (trouble.as_deref(), self.spool.held()) else { return };
        let more = not_kept.map(|error| format!("; {error}: more is refused")).unwrap_or_default();
        self.health.down(format!("{why}; {} requests wait on disk, {} KiB{more}", held.entries, held.bytes / 1024));
    }

    /// How long nothing of this is wanted yet, by what was said before.
    pub(super) fn is_unwanted(&self, key: &str, categories: &[impl AsRef<str>]) -> Option<Duration> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return None;
        }
        let categories: Vec<&str> = categories.iter().map(AsRef::as_ref).collect();
        let mut limits = lock(&self.limits);
        let left = limits.hold(key, &categories, Instant::now());
        self.is_limited.store(!limits.is_empty(), Ordering::Relaxed);
        left
    }

    /// All that is limited of a key, as the header has it that tells of it.
    pub(super) fn limits_told(&self, key: &str) -> String {
        lock(&self.limits).told(key, Instant::now())
    }

    /// `None` when it is not worth a try at present. A failure says something about upstream only if the letter `is_telling`.
    pub(super) async fn ask(
        &self,
        letter: &Letter,
        payload: Payload<'_>,
        is_telling: bool,
    ) -> Option<Result<Reply<AnswerBody>, NoAnswer>> {
        if self.is_failing.load(Ordering::Relaxed) && !lock(&self.breaker).lets_through(Instant::now()) {
            return None;
        }
        let asked = Instant::now();
        let Letter { method, uri, fields, .. } = letter;
        let answer = self.upstream.send(method, uri, fields, payload).await;
        match &answer {
            Ok(response) => {
                self.metrics.answered(response.status, asked.elapsed());
                let status = response.status;
                if !may_change(status) && !status.is_redirection() {
                    self.works();
                } else if is_telling && status.is_server_error() {
                    self.failed(&format!("answers {status}"));
                }
                self.learn(response, &letter.key);
            }
            // Its own fault it is not.
            Err(NoAnswer::Unreadable) => {}
            Err(error) => {
                self.metrics.not_answered(asked.elapsed());
                // Where there is no connection it is not the letter's fault.
                if is_telling || matches!(error, NoAnswer::Unreachable(_)) {
                    self.failed(&error.to_string());
                }
            }
        }
        Some(answer)
    }

    pub(super) fn failed(&self, why: &str) {
        // The lock is held until all is said: or else, of two who differ, the board would believe the slower.
        let mut breaker = lock(&self.breaker);
        self.is_failing.store(true, Ordering::Relaxed);
        if breaker.failed(Instant::now()) {
            self.metrics.broken(true);
            *lock(&self.trouble) = Some(why.to_owned());
            self.show(None);
            tracing::warn!(upstream = self.upstream.name(), why, "Sentry does not take events, they are kept");
        }
    }

    fn works(&self) {
        self.works.fetch_add(1, Ordering::Relaxed);
        if !self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let mut breaker = lock(&self.breaker);
        self.is_failing.store(false, Ordering::Relaxed);
        if breaker.answered() {
            self.metrics.broken(false);
            lock(&self.trouble).take();
            self.health.up();
            tracing::info!(upstream = self.upstream.name(), "Sentry takes events again");
        }
        drop(breaker);
        self.recovered.notify_one();
    }

    fn learn(&self, response: &Reply<AnswerBody>, key: &str) {
        let is_429 = response.status == StatusCode::TOO_MANY_REQUESTS;
        if !is_429 && !response.fields.contains(&limits::HEADER) {
            return;
        }
        let asked = limits::asked(is_429, &response.fields);
        if asked.is_empty() {
            return;
        }
        self.metrics.limited();
        // Those who have no key have no more than that in common.
        if key.is_empty() {
            return;
        }
        lock(&self.limits).learn(key, asked, Instant::now());
        self.is_limited.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::machinery::health::Health;
    use crate::machinery::http1::Fields;
    use crate::machinery::spool;
    use crate::relay::RelayMetrics;
    use crate::sentry::upstream::Way;

    #[tokio::test]
    async fn an_answer_of_its_own_that_is_no_yes_and_no_no_is_not_taken_for_sentry_working() {
        let (listener, directory) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tempfile::tempdir().unwrap());
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let second = Duration::from_secs(1);
        let way = Way { connect_timeout: second, timeout: second * 10, authorities: Vec::new(), proxy: None };
        let limits = spool::Limits { bytes: 0, entries: 0, age: second };
        let behind = Behind::new(
            Upstream::new(&url, &way).unwrap(),
            Spool::open(directory.path().to_owned(), limits).unwrap(),
            Health::default().optional("a"),
            RelayMetrics::register(&mut Registry::default()).upstream("a"),
        );
        let (uri, key) = (Uri::from_static("/api/7/store/"), "abc".into());
        let letter = Letter { method: Method::POST, uri, fields: Fields::default(), key, categories: Vec::new() };
        let table = [(200, 1), (302, 0), (307, 0), (400, 1), (404, 1), (408, 0), (429, 1), (500, 0), (503, 0)];
        for (status, counted) in table {
            let before = behind.works.load(Ordering::Relaxed);
            let answering = async {
                let (mut asked, _) = listener.accept().await.unwrap();
                assert!(asked.read(&mut [0; 1_024]).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 {status} So\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                asked.write_all(answer.as_bytes()).await.unwrap();
                asked
            };
            let (answer, _asked) = tokio::join!(behind.ask(&letter, Payload::held(&[]), false), answering);
            assert_eq!(answer.unwrap().unwrap().status, status);
            assert_eq!(behind.works.load(Ordering::Relaxed) - before, counted, "{status}");
        }
    }
}
