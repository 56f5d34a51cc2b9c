//! When to try again: later and later, and never all at the same moment.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// `wait`, a tenth shorter or longer by chance, so that what began together does not stay together.
pub fn spread(wait: Duration) -> Duration {
    // The standard library's only source of chance: each state has new keys.
    let chance = u32::try_from(RandomState::new().hash_one(()) % 201).unwrap_or_default();
    wait / 1000 * (900 + chance)
}

/// How long to wait after so many failures in a row: twice as long after each, up to `longest`.
pub fn backoff(first: Duration, longest: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(longest.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_varies_by_a_tenth() {
        let waits: Vec<Duration> = (0..100).map(|_| spread(Duration::from_secs(100))).collect();
        assert!(waits.iter().all(|wait| (Duration::from_secs(90)..=Duration::from_secs(110)).contains(wait)));
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{:?}", waits[0]);
        assert_eq!(spread(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_longest() {
        let seconds = |failures| backoff(Duration::from_mins(1), Duration::from_mins(5), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(seconds), [60, 60, 120, 240, 300, 300]);
        let rare = Duration::from_hours(1);
        assert_eq!(backoff(rare, Duration::from_mins(5), 3), rare, "never sooner than usual");
    }
}
