//! Whose turn it is of what is kept, and when. Pure, but for chance in how long it waits: the time is handed in, and how much
//! upstream has taken by then.
//!
//! The oldest is tried first. What fails does so by its own fault or by upstream's, and only what else gets through tells which:
//! ```text
//! in line ─▶ stumbles: it is tried again ─ five times, others got through ──▶ suspect: it is put off, the others pass it
//!    ▲          └─ three times, nothing did ─▶ in doubt: another is tried ──────▲
//!    └────────────── there is no other ──────────┴──── something got through ───┘
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::machinery::retry;
use crate::machinery::spool::Place;

/// After a failure.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Longer than this no upstream that fails is left alone, whatever it asks for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// Lanes that may be held at once; beyond that all wait for the first.
const MOST_HOLDS: usize = 4_096;
/// So often a request may fail, while others get through, before it has to let others pass; the less often, the more there are
/// already that fail alone.
const PATIENCE: u32 = 5;
/// So often it may fail while nothing gets through: then others are tried, to see whether it is the request or Sentry.
const DOUBT: u32 = 3;
/// So many that fail alone, at once, would be a wonder: then it is rather upstream.
const MANY: usize = 10;
/// For how long others pass it at first, and at last.
const PUT_OFF: Duration = Duration::from_mins(5);
const LONGEST_PUT_OFF: Duration = Duration::from_hours(1);

/// Of what is kept for one upstream. What it remembers of requests goes with them, so the spool is its bound; a turn takes as much
/// longer, 10 ms where 100,000 are remembered.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What Sentry does not want yet, by lane.
    holds: HashMap<u32, Instant>,
    /// Failures in a row, and until when nothing is tried for them.
    failures: u32,
    rests: Option<Instant>,
    /// What upstream had taken at the last failure.
    works: u64,
    stumble: Option<Stumble>,
    /// What failed where nothing got through.
    in_doubt: HashMap<u64, Place>,
    /// What failed where others got through. It is known until it is out of the spool.
    suspects: HashMap<u64, Suspect>,
    /// Until when no suspect is tried.
    wary: Option<Instant>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Try(Place),
    /// Until then there is nothing to try, unless something comes in.
    Wait(Option<Instant>),
}

/// The first in line, which fails.
#[derive(Debug)]
struct Stumble {
    number: u64,
    times: u32,
    /// What upstream had taken before.
    works: u64,
}

/// Others pass it after a single failure, which says nothing about upstream.
#[derive(Debug)]
struct Suspect {
    place: Place,
    /// How often it was put off while others got through.
    times: u32,
    /// What upstream had taken then.
    works: u64,
    until: Instant,
}

impl Suspect {
    /// Its time has come.
    fn new(place: Place, works: u64, now: Instant) -> Self {
        Self { place, times: 0, works, until: now }
    }

    fn put_off(&mut self, works: u64, now: Instant) {
        // Where nothing gets through it may not be its own fault, and it does not have to pay for it.
        let is_its_own = works > self.works || self.times == 0;
        self.times = self.times.saturating_add(is_its_own.into());
        self.works = works;
        self.until = now + retry::backoff(PUT_OFF, LONGEST_PUT_OFF, if is_its_own { self.times } else { 1 });
    }
}

impl Turns {
    /// How long nothing is tried, whatever comes in.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        self.rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Upstream works again.
    pub(super) fn recovered(&mut self) {
        self.rests = None;
    }

    pub(super) fn is_held(&self, lane: u32) -> bool {
        self.holds.contains_key(&lane)
    }

    /// Whether others go before it.
    pub(super) fn is_passed(&self, number: u64) -> bool {
        self.in_doubt.contains_key(&number) || self.suspects.contains_key(&number)
    }

    /// Whether its failure says something about upstream. That of a suspect does not, and what is tried in the place of another
    /// says no more than that one did, unless there are many.
    pub(super) fn is_telling(&self, number: u64) -> bool {
        (self.in_doubt.is_empty() || self.in_doubt.len() >= MANY) && !self.suspects.contains_key(&number)
    }

    /// What to try now; `oldest` is what is neither held nor passed. A suspect whose time has come is in its place in the line, but
    /// while nothing gets through suspects come last: or else they would pay for what is not their fault.
    pub(super) fn next(&mut self, works: u64, now: Instant, oldest: impl Fn(&Self) -> Option<Place>) -> Turn {
        self.holds.retain(|_, until| *until > now);
        self.wary = self.wary.filter(|until| *until > now);
        let gets_through = self.learn(works, now);
        let place = match (oldest(self), self.due(now)) {
            (Some(sound), Some(due)) if gets_through && due.number < sound.number => Some(due),
            (sound, due) => sound.or(due),
        };
        let place = place.or_else(|| if std::mem::take(&mut self.in_doubt).is_empty() { None } else { oldest(self) });
        place.map_or_else(|| Turn::Wait(self.until(now)), Turn::Try)
    }

    /// Of suspects it is the one that has waited longest, so that each has its turn.
    fn due(&self, now: Instant) -> Option<Place> {
        let due = self.suspects.values().filter(|suspect| suspect.until <= now && !self.is_held(suspect.place.lane));
        let due = due.filter(|_| self.wary.is_none()).min_by_key(|suspect| (suspect.until, suspect.place.number));
        due.map(|suspect| suspect.place)
    }

    fn until(&self, now: Instant) -> Option<Instant> {
        let put_off = self.suspects.values().map(|suspect| suspect.until).filter(|until| *until > now);
        self.holds.values().copied().chain(put_off).chain(self.wary).min()
    }

    /// Whether upstream has taken something since the last failure. Then what is in doubt fails by its own fault.
    fn learn(&mut self, works: u64, now: Instant) -> bool {
        let gets_through = works > self.works;
        if gets_through {
            let in_doubt = self.in_doubt.drain();
            self.suspects.extend(in_doubt.map(|(number, place)| (number, Suspect::new(place, works, now))));
        }
        gets_through
    }

    /// Sentry does not want what is in this lane for so long.
    pub(super) fn limited(&mut self, lane: u32, time: Duration, now: Instant) {
        let time = time.max(SHORTEST);
        if self.holds.len() < MOST_HOLDS {
            self.holds.insert(lane, now + time);
        } else {
            self.rests = Some(now + time.min(LONGEST_RETRY_AFTER));
        }
    }

    /// Sentry has taken it.
    pub(super) fn taken(&mut self, number: u64, now: Instant) {
        if self.suspects.contains_key(&number) {
            // It was not its own fault, and so maybe none of the others'.
            let soon = now + PUT_OFF;
            self.suspects.values_mut().for_each(|suspect| suspect.until = suspect.until.min(soon));
        }
    }

    /// It is out of the spool.
    pub(super) fn gone(&mut self, number: u64) {
        self.suspects.remove(&number);
        self.in_doubt.remove(&number);
    }

    /// Upstream was not reached, or not asked: that is nobody's fault here.
    pub(super) fn not_sent(&mut self, began: Instant, works: u64, now: Instant) {
        self.row(works, now);
        self.pause(began, Duration::ZERO, now);
    }

    /// It was tried from when it `began`, and upstream `asked` to be left alone for so long.
    pub(super) fn failed(&mut self, place: Place, began: Instant, asked: Duration, works: u64, now: Instant) {
        self.row(works, now);
        if self.is_put_off(place, works, now) {
            // What takes long to fail leaves the others as much time, whoever else fails in it.
            self.wary = self.wary.max(Some(now + now.saturating_duration_since(began).clamp(SHORTEST, LONGEST)));
        } else {
            self.pause(began, asked, now);
        }
    }

    /// Whatever upstream takes in between ends a row of failures.
    fn row(&mut self, works: u64, now: Instant) {
        if self.learn(works, now) {
            self.failures = 0;
        }
        self.works = works;
    }

    /// What takes long to fail has waited already.
    fn pause(&mut self, began: Instant, asked: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let wait = retry::spread(retry::backoff(SHORTEST, LONGEST, self.failures));
        self.rests = Some((began + wait).max(now + asked.min(LONGEST_RETRY_AFTER)));
    }

    /// Whether it is the request's own fault: then others pass it, until its time is over.
    fn is_put_off(&mut self, place: Place, works: u64, now: Instant) -> bool {
        if let Some(suspect) = self.suspects.get_mut(&place.number) {
            suspect.put_off(works, now);
            return true;
        }
        if !self.in_doubt.is_empty() {
            // It was tried in another's place, and tells no more than that one did.
            self.in_doubt.insert(place.number, place);
            return false;
        }
        let before = self.stumble.take().filter(|stumble| stumble.number == place.number);
        let mut stumble = before.unwrap_or(Stumble { number: place.number, times: 0, works });
        stumble.times += 1;
        let others_pass = works > stumble.works;
        let known = u32::try_from(self.suspects.len()).unwrap_or(PATIENCE);
        if others_pass && stumble.times >= PATIENCE.saturating_sub(known) {
            let mut suspect = Suspect::new(place, works, now);
            suspect.put_off(works, now);
            self.suspects.insert(place.number, suspect);
            self.failures = 0;
            return true;
        }
        if !others_pass && stumble.times >= DOUBT {
            self.in_doubt.insert(place.number, place);
        }
        self.stumble = Some(stumble);
        false
    }
}

#[cfg(test)]
mod tests;
