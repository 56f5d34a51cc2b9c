//! A rate for each source that slows down first and refuses only who would have to wait too long.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;

/// How much of one source is served, and how long it may be kept waiting.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: NonZeroU32,
    /// So many at once after a quiet time.
    pub burst: NonZeroU32,
    /// Longer than this nobody waits: the answer is a refusal.
    pub patience: Duration,
}

/// Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct Throttle {
    limiter: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    waiting: Arc<Semaphore>,
    patience: Duration,
}

/// The source would have to wait too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// Worth waiting before the next try.
    pub retry_after: Duration,
}

impl Throttle {
    /// So many requests may be held back at a time; further ones are refused, as each holds memory.
    const WAITING: usize = 1_000;

    pub fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let limiter = Arc::new(RateLimiter::keyed(quota));
        Self { limiter, waiting: Arc::new(Semaphore::new(Self::WAITING)), patience: rate.patience }
    }

    /// Returns once the source may go on. `Ok(true)` when it had to wait.
    ///
    /// # Errors
    /// When it would have to wait longer than its patience, or too many wait already.
    ///
    /// # Cancel safety
    /// Whoever stops waiting has spent nothing.
    pub async fn pass(&self, source: IpAddr) -> Result<bool, TooFast> {
        let source = bucket(source);
        let clock = DefaultClock::default();
        let Err(not_yet) = self.limiter.check_key(&source) else { return Ok(false) };
        let mut wait = not_yet.wait_time_from(clock.now());
        let refusal = TooFast { retry_after: wait.max(Duration::from_secs(1)) };
        let Ok(_place) = self.waiting.try_acquire() else { return Err(refusal) };
        let mut left = self.patience;
        while wait <= left {
            tokio::time::sleep(wait).await;
            left -= wait;
            match self.limiter.check_key(&source) {
                Ok(()) => return Ok(true),
                Err(not_yet) => wait = not_yet.wait_time_from(clock.now()),
            }
        }
        Err(refusal)
    }

    /// Forgets sources that have been quiet. To be called now and then, or memory grows with every address ever seen.
    pub fn forget_quiet_sources(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// One source: an IPv4 address, or an IPv6 network, since a host has a whole /64 to itself.
fn bucket(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(per_second: u32, burst: u32, patience: Duration) -> Throttle {
        let [per_second, burst] = [per_second, burst].map(|number| NonZeroU32::new(number).unwrap());
        Throttle::new(Rate { per_second, burst, patience })
    }

    #[tokio::test]
    async fn the_burst_passes_at_once_the_next_waits_and_the_impatient_is_refused() {
        let source = [10, 0, 0, 1].into();
        let patient = throttle(50, 2, Duration::from_secs(5));
        assert_eq!(patient.pass(source).await, Ok(false));
        assert_eq!(patient.pass(source).await, Ok(false));
        assert_eq!(patient.pass(source).await, Ok(true));
        let impatient = throttle(1, 1, Duration::from_millis(1));
        assert_eq!(impatient.pass(source).await, Ok(false));
        assert!(impatient.pass(source).await.is_err());
        assert_eq!(impatient.pass([10, 0, 0, 2].into()).await, Ok(false), "another source has its own rate");
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let address = |text: &str| bucket(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
