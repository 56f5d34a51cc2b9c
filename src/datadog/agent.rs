//! Hands signals to the Agent's DogStatsD: in order, at a pace that it can follow, again after it was away.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::link::{Link, SendError, Sent};
use super::metrics::{AgentMetrics, Kind, Reason};
use super::names::{Names, Need};
use super::target::{AgentTarget, DatagramLimit};
use crate::domain::signal::Signal;
use crate::machinery::health;

/// How often a connection in use is looked at: whether it still leads to the Agent.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Pauses while the Agent's queue is full: as short as the kernel's timers allow at first, then longer.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// By UDP the kernel drops what the Agent has no room for and tells nobody. A receiver has 212,992 bytes by default
/// (`net.core.rmem_default`), of which each datagram takes its own size and up to 1,024 bytes of the kernel's: no more
/// than so much is sent at once, …
const BURST: usize = 64 * 1024;
/// … and then the Agent gets so long to read it. Measured with 100,000 checks on two cores under a load of eight: 2 % lost
/// at 200 µs, 0.2 % at 500 µs and no less at 1 ms, when the receiver itself was not run for long enough. What is lost
/// is sent again in the next round.
const BURST_PAUSE: Duration = Duration::from_micros(500);
const KERNEL_SHARE: usize = 1024;

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    pub target: AgentTarget,
    /// Largest datagram. Default: 1432 bytes by UDP, one Ethernet frame; 8192 by Unix socket, the Agent's buffer.
    /// Larger only with `dogstatsd_buffer_size` raised in the Agent.
    pub limit: DatagramLimit,
    /// How old the address of a name may get. Default: 30 s. No effect on addresses and Unix sockets.
    pub re_resolve: Duration,
    /// How long one datagram waits for a full queue before the rest of its batch is given up. Default: 1 s.
    pub patience: Duration,
}

impl AgentSettings {
    pub fn new(target: AgentTarget) -> Self {
        let limit = DatagramLimit::usual(&target);
        Self { target, limit, re_resolve: Duration::from_secs(30), patience: Duration::from_secs(1) }
    }
}

/// What became of a batch.
#[derive(Debug, PartialEq)]
pub struct Delivery {
    /// So many, from the front, are done with: sent, or dropped because they can never be sent. By UDP, sent is not
    /// received.
    pub taken: usize,
    /// The others, in order. Checks and events among them were counted as dropped; metrics are the caller's to keep.
    pub rest: Vec<Signal>,
    /// Why there are others.
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens: [`AgentSink::probe`] tells when the Agent has come.
    Away,
    /// The Agent left its queue full for as long as patience lasts.
    Slow,
}

/// A handle on the one connection to the Agent. Clones share it.
#[derive(Clone)]
pub struct AgentSink {
    line: Arc<tokio::sync::Mutex<Line>>,
    names: Arc<Names>,
    arrived: Arc<AtomicBool>,
}

impl fmt::Debug for AgentSink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AgentSink").field("names", &self.names).finish_non_exhaustive()
    }
}

impl AgentSink {
    /// Connects to nothing yet: the Agent may come later, or never.
    pub fn new(settings: AgentSettings, health: health::Part, metrics: AgentMetrics) -> Self {
        let arrived = Arc::<AtomicBool>::default();
        let names = Arc::new(Names::new(&settings.target, settings.re_resolve));
        let line = Line {
            settings,
            link: None,
            condition: Condition::Unknown,
            connections: 0,
            looked: None,
            burst: 0,
            told_too_large: false,
            names: names.clone(),
            arrived: arrived.clone(),
            health,
            metrics,
        };
        Self { line: Arc::new(tokio::sync::Mutex::new(line)), names, arrived }
    }

    /// Sends in order, on a thread that may block; a batch waits for the one before it. Returns once the last is sent
    /// or the rest is given up. 100,000 checks take one to three seconds: who has more, and news to tell in between, sends
    /// in several batches.
    ///
    /// # Cancel safety
    /// Dropped while it waits for its turn, nothing is sent. Dropped later, the batch goes on without it, and only the
    /// answer is lost.
    pub async fn deliver(&self, mut signals: Vec<Signal>) -> Delivery {
        if signals.is_empty() {
            return Delivery { taken: 0, rest: signals, trouble: None };
        }
        self.names.look_up(Need::Any).await;
        let mut line = self.line.clone().lock_owned().await;
        let batch = tokio::task::spawn_blocking(move || {
            let (taken, trouble) = line.send_all(&signals);
            let rest = signals.split_off(taken);
            Delivery { taken, rest, trouble }
        });
        // Fails only while the runtime shuts down.
        batch.await.unwrap_or(Delivery { taken: 0, rest: Vec::new(), trouble: Some(Trouble::Away) })
    }

    /// To be called every second or so: looks whether the Agent is there and connects when it is. True once for each
    /// time that the Agent has come, come back or been replaced, whoever noticed: it may know nothing of what was sent
    /// before, so all of it is due again. While a batch is under way it looks after the connection itself.
    ///
    /// # Cancel safety
    /// Loses nothing.
    pub async fn probe(&self) -> bool {
        self.names.look_up(Need::Fresh).await;
        if let Ok(mut line) = self.line.clone().try_lock_owned() {
            // Fails only while the runtime shuts down.
            let _ = tokio::task::spawn_blocking(move || line.probe()).await;
        }
        self.arrived.swap(false, Ordering::Relaxed)
    }
}

/// The connection, and what is known of it. Its methods block.
struct Line {
    settings: AgentSettings,
    link: Option<Link>,
    condition: Condition,
    connections: u64,
    looked: Option<Instant>,
    /// Bytes of the receiver's buffer filled since the last pause.
    burst: usize,
    told_too_large: bool,
    names: Arc<Names>,
    arrived: Arc<AtomicBool>,
    health: health::Part,
    metrics: AgentMetrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Unknown,
    Up,
    Slow,
    Away,
}

impl Line {
    fn send_all(&mut self, signals: &[Signal]) -> (usize, Option<Trouble>) {
        let mut taken = 0;
        while let Some((first, behind)) = signals.get(taken..).and_then(<[Signal]>::split_first) {
            match self.send(first, behind) {
                Ok(sent) => taken += sent,
                Err(trouble) => {
                    let reason = match trouble {
                        Trouble::Away => Reason::away,
                        Trouble::Slow => Reason::slow,
                    };
                    // A metric is handed back to be kept; a check or an event is told anew out of the store.
                    for lost in signals.iter().skip(taken).filter(|signal| !matches!(signal, Signal::Metric(_))) {
                        self.metrics.dropped(Kind::of(lost), reason);
                    }
                    return (taken, Some(trouble));
                }
            }
        }
        (signals.len(), None)
    }

    /// One datagram. Returns how many signals are done with.
    fn send(&mut self, first: &Signal, behind: &[Signal]) -> Result<usize, Trouble> {
        let kind = Kind::of(first);
        let (mut full_since, mut pause, mut rebuilt) = (None, FIRST_PAUSE, false);
        loop {
            self.stay_connected()?;
            let Some(link) = &mut self.link else { return Err(Trouble::Away) };
            match link.send(first, behind, self.settings.limit) {
                Ok(sent) => {
                    self.sent(&sent);
                    return Ok(sent.signals.len());
                }
                Err(SendError::Full) => {
                    let since: &mut Instant = full_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.settings.patience {
                        self.slow();
                        return Err(Trouble::Slow);
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(SendError::Broken(error)) => {
                    self.link = None;
                    if rebuilt {
                        self.away(&error);
                        return Err(Trouble::Away);
                    }
                    rebuilt = true;
                }
                Err(SendError::TooLarge) => {
                    self.too_large(kind);
                    return Ok(1);
                }
                Err(SendError::NotFinite) => {
                    self.metrics.dropped(kind, Reason::not_finite);
                    return Ok(1);
                }
            }
        }
    }

    fn sent(&mut self, sent: &Sent) {
        self.metrics.sent(sent.bytes, &sent.signals);
        if self.condition != Condition::Up {
            self.up();
        }
        if self.link.as_ref().is_some_and(Link::is_lossy) {
            self.burst += sent.bytes + KERNEL_SHARE;
            if self.burst >= BURST {
                self.burst = 0;
                thread::sleep(BURST_PAUSE);
            }
        }
    }

    fn probe(&mut self) {
        self.looked = None;
        let there = self.stay_connected().is_ok();
        if there && self.condition == Condition::Slow && self.link.as_ref().is_some_and(Link::has_room) {
            self.up();
        }
    }

    fn stay_connected(&mut self) -> Result<(), Trouble> {
        if let Some(link) = &self.link {
            if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
                return Ok(());
            }
            self.looked = Some(Instant::now());
            if link.leads_to_the_agent(&self.names.known()) {
                return Ok(());
            }
            self.link = None;
        }
        let link = match &self.settings.target {
            AgentTarget::Unix(path) => Link::to_socket(path),
            AgentTarget::Udp { host, .. } => Link::to_any_address(&self.names.known(), host),
        };
        match link {
            Ok(link) => {
                self.link = Some(link);
                self.looked = Some(Instant::now());
                self.connected();
                Ok(())
            }
            Err(error) => {
                self.away(&error);
                Err(Trouble::Away)
            }
        }
    }

    fn connected(&mut self) {
        if self.connections > 0 {
            self.metrics.rebuilt();
        }
        self.connections += 1;
        if self.condition == Condition::Up {
            info!(datadog.agent = %self.settings.target, "the Datadog Agent was replaced");
            self.arrived.store(true, Ordering::Relaxed);
        } else {
            self.up();
        }
    }

    fn up(&mut self) {
        info!(datadog.agent = %self.settings.target, "the Datadog Agent is there");
        self.condition = Condition::Up;
        self.names.be_patient();
        self.arrived.store(true, Ordering::Relaxed);
        self.health.up();
    }

    fn away(&mut self, why: &dyn fmt::Display) {
        if self.condition != Condition::Away {
            warn!(datadog.agent = %self.settings.target, reason = %why, "no Datadog Agent: nothing is sent until it comes");
        }
        self.condition = Condition::Away;
        self.names.be_eager();
        self.health.down(why.to_string());
    }

    fn slow(&mut self) {
        if self.condition != Condition::Slow {
            warn!(
                datadog.agent = %self.settings.target,
                waited_ms = self.settings.patience.as_millis(),
                "the Datadog Agent does not read its socket"
            );
        }
        self.condition = Condition::Slow;
        self.health.down(format!("the Agent at {} does not read its socket: restart it", self.settings.target));
    }

    fn too_large(&mut self, kind: Kind) {
        self.metrics.dropped(kind, Reason::too_large);
        if !self.told_too_large {
            self.told_too_large = true;
            let limit_bytes = self.settings.limit.bytes();
            warn!(kind = ?kind, limit_bytes, "tags alone fill a datagram: use fewer; told once, counted always");
        }
    }
}
