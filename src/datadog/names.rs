//! The addresses of the Agent's name, looked up on a timer and apart from sending, which a slow DNS must not hold up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use super::target::AgentTarget;

/// How long a name may take to be looked up.
const PATIENCE: Duration = Duration::from_secs(2);

/// How soon a name is looked up again when it has no address, or nobody is there.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// However old.
    Any,
    /// No older than the settings say.
    Fresh,
}

#[derive(Debug)]
pub(super) struct Names {
    /// `None` when there is nothing to look up.
    name: Option<(String, u16)>,
    refresh: Duration,
    known: Mutex<Vec<SocketAddr>>,
    /// Held for as long as a lookup lasts.
    asked: tokio::sync::Mutex<Option<Instant>>,
    eager: AtomicBool,
}

impl Names {
    pub(super) fn new(target: &AgentTarget, refresh: Duration) -> Self {
        let literal = target.literal();
        let name = match target {
            AgentTarget::Udp { host, port } if literal.is_none() => Some((host.clone(), *port)),
            _ => None,
        };
        Self {
            name,
            refresh,
            known: Mutex::new(literal.into_iter().collect()),
            asked: tokio::sync::Mutex::default(),
            eager: AtomicBool::new(false),
        }
    }

    pub(super) fn known(&self) -> Vec<SocketAddr> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nobody is there: the address may be stale.
    pub(super) fn be_eager(&self) {
        self.eager.store(true, Ordering::Relaxed);
    }

    pub(super) fn be_patient(&self) {
        self.eager.store(false, Ordering::Relaxed);
    }

    /// A lookup that fails leaves the addresses as they are.
    ///
    /// # Cancel safety
    /// Dropped in the middle, the next one is due in a second.
    pub(super) async fn look_up(&self, need: Need) {
        let Some((host, port)) = &self.name else { return };
        if need == Need::Any && !self.known().is_empty() {
            return;
        }
        let mut asked = self.asked.lock().await;
        let known = self.known();
        let age = if known.is_empty() || self.eager.load(Ordering::Relaxed) { AGAIN } else { self.refresh };
        if asked.is_some_and(|asked| asked.elapsed() < age) {
            return;
        }
        *asked = Some(Instant::now());
        let answer = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await;
        let found: Vec<SocketAddr> = match answer {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                debug!(%host, reason = %error, "the Agent's name was not resolved");
                return;
            }
            Err(_) => {
                debug!(%host, waited_ms = PATIENCE.as_millis(), "the Agent's name was not resolved in time");
                return;
            }
        };
        if !found.is_empty() {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }
}
