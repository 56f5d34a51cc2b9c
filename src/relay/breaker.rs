//! Whether an upstream is worth asking. Pure: the time is handed in.

use std::time::{Duration, Instant};

/// Opens after failures in a row, and lets one request through now and then to see whether it is over.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Nobody asks before.
    closed_until: Option<Instant>,
    /// One is finding out.
    is_tried: bool,
}

impl Breaker {
    /// So many failures in a row are no accident.
    const PATIENCE: u32 = 5;
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// Whether to ask now. Who may is the one that finds out for all, until the next pause is over.
    pub(super) fn lets_through(&mut self, now: Instant) -> bool {
        match self.closed_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.closed_until = Some(now + self.pause());
                self.is_tried = true;
                true
            }
        }
    }

    /// How long there is no sense in asking.
    pub(super) fn pause_left(&self, now: Instant) -> Duration {
        self.closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns whether this is news: it was broken until now.
    pub(super) fn answered(&mut self) -> bool {
        (self.failures, self.is_tried) = (0, false);
        self.closed_until.take().is_some()
    }

    /// Returns whether this is news: it is broken from now on.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        // What was under way when it broke says nothing new, however much that was.
        if !std::mem::take(&mut self.is_tried) && self.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < Self::PATIENCE {
            return false;
        }
        self.closed_until.replace(now + self.pause()).is_none()
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(Self::PATIENCE).min(5);
        (Self::SHORTEST * 2_u32.pow(doublings)).min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_stop_all_but_one_request_at_a_time() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        for failure in 1..Breaker::PATIENCE {
            assert!(!breaker.failed(now), "{failure}");
            assert!(breaker.lets_through(now));
        }
        assert!(breaker.failed(now), "the fifth");
        assert!(!breaker.lets_through(now) && breaker.closed_until.is_some());
        assert!(breaker.lets_through(at(1)), "one may look");
        assert!(!breaker.lets_through(at(1)), "and no other");
        assert!(!breaker.failed(at(1)), "no news");
        assert!(!breaker.lets_through(at(2)), "the pause has grown");
        assert!(breaker.lets_through(at(3)));
        assert!(breaker.answered());
        assert!(breaker.lets_through(at(3)) && breaker.closed_until.is_none());
        assert!(!breaker.answered());
    }

    #[test]
    fn an_answer_in_between_is_no_row() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            assert!(!breaker.failed(now));
            breaker.answered();
        }
        assert!(breaker.lets_through(now));
    }

    #[test]
    fn the_pause_does_not_grow_for_ever() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..1_000 {
            breaker.failed(now);
            now += breaker.pause_left(now);
            assert!(breaker.lets_through(now));
        }
        breaker.failed(now);
        assert_eq!(breaker.pause_left(now), Breaker::LONGEST);
    }

    #[test]
    fn a_crowd_that_fails_at_once_is_one_failure() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        (0..1_000).for_each(|_| _ = breaker.failed(now));
        assert_eq!(breaker.pause_left(now), Breaker::SHORTEST);
    }
}
