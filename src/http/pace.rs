//! How fast one source may post, whatever it posts.
//!
//! Metrics: `recoverd_webhooks_delayed_total`.

use std::net::SocketAddr;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::problem::Problem;
use crate::machinery::throttle::Throttle;

/// Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct Pace {
    throttle: Throttle,
    delayed: Counter,
}

impl Pace {
    pub fn register(throttle: Throttle, registry: &mut Registry) -> Self {
        let new = Self { throttle, delayed: Counter::default() };
        registry.register("recoverd_webhooks_delayed", "Requests slowed down by the rate limit", new.delayed.clone());
        new
    }

    /// Slows a source down, and refuses it only when it would have to wait too long.
    pub(super) async fn pass(&self, peer: SocketAddr) -> Result<(), Problem> {
        match self.throttle.pass(peer.ip()).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.delayed.inc();
                Ok(())
            }
            Err(too_fast) => Err(Problem::TooManyRequests { retry_after: too_fast.retry_after }),
        }
    }
}
