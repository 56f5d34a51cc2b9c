use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::domain::build::Timestamp;

fn place(number: u64, lane: u32) -> Place {
    Place { number, came: Timestamp::from_millis(0), bytes: 1, lane }
}

/// With suspects of which each is due after so many seconds.
fn turns(now: Instant, due: &[u64]) -> Turns {
    let until = |after: u64| now + Duration::from_secs(after);
    let suspect = |(number, after): (u64, &u64)| {
        (number, Suspect { place: place(number, 0), times: 1, works: 0, until: until(*after) })
    };
    Turns { suspects: (0..).zip(due).map(suspect).collect(), ..Turns::default() }
}

#[test]
fn of_suspects_it_is_the_one_that_has_waited_longest() {
    let began = Instant::now();
    let mut turns = turns(began, &[1, 0, 2]);
    let now = began + SHORTEST * 2;
    let sound = place(3, 0);
    let next = |turns: &mut Turns, works| turns.next(works, now, |turns| (!turns.is_held(0)).then_some(sound));
    assert_eq!(next(&mut turns, 0), Turn::Try(sound), "nothing gets through");
    for expected in [1, 0, 2, 3] {
        assert_eq!(next(&mut turns, 1), Turn::Try(place(expected, 0)));
        turns.suspects.entry(expected).and_modify(|suspect| suspect.until = now + PUT_OFF);
    }
    turns.suspects.values_mut().for_each(|suspect| suspect.until = now);
    turns.wary = Some(now + SHORTEST);
    assert_eq!(next(&mut turns, 1), Turn::Try(sound), "one has just failed");
    assert_eq!(turns.next(1, now, |_| None), Turn::Wait(turns.wary));
    turns.wary = None;
    turns.limited(0, SHORTEST, now);
    assert_eq!(next(&mut turns, 1), Turn::Wait(Some(now + SHORTEST)), "all of that lane is held");
}

#[test]
fn who_fails_where_nothing_gets_through_is_put_off_no_longer_than_at_first() {
    let now = Instant::now();
    let mut suspect = Suspect::new(place(0, 0), 5, now);
    for (works, times) in [(5, 1), (6, 2), (7, 4), (7, 1), (8, 8), (9, 12), (9, 1)] {
        suspect.put_off(works, now);
        assert_eq!(suspect.until - now, PUT_OFF * times, "{works}");
    }
}

#[test]
fn a_suspect_that_is_taken_brings_the_others_forward_and_who_was_none_does_not() {
    let now = Instant::now();
    let waits = [0, 60, 3_000, 3_600];
    let mut turns = turns(now, &waits);
    let left = |turns: &Turns| {
        let mut left: Vec<_> = turns.suspects.values().map(|suspect| (suspect.until - now).as_secs()).collect();
        left.sort_unstable();
        left
    };
    turns.taken(4, now);
    assert_eq!(left(&turns), waits);
    turns.taken(0, now);
    turns.gone(0);
    assert_eq!(left(&turns), [60, 300, 300]);
}

#[test]
fn whatever_upstream_takes_ends_a_row_of_failures() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    for (works, seconds) in [(0, 1), (0, 2), (0, 4), (1, 1), (1, 2), (2, 1)] {
        turns.not_sent(now, works, now);
        assert!(is_about(turns.rest(now), seconds), "{works}: {:?}", turns.rest(now));
    }
    turns.recovered();
    assert_eq!(turns.rest(now), Duration::ZERO);
}

/// Whether the wait is one of so many seconds, spread.
fn is_about(wait: Duration, seconds: u32) -> bool {
    wait.as_secs_f64() / 0.8 >= f64::from(seconds) && wait.as_secs_f64() / 1.2 <= f64::from(seconds)
}

#[test]
fn upstream_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let now = Instant::now();
    for (asked, rests) in [(60, 60), (299, 299), (3_600, 300)] {
        let mut turns = Turns::default();
        turns.failed(place(0, 0), now, Duration::from_secs(asked), 0, now);
        assert_eq!(turns.rest(now), Duration::from_secs(rests));
    }
}

#[test]
fn where_too_many_lanes_are_limited_all_wait_within_reason() {
    let now = Instant::now();
    for (limit, rests) in [(60, 60), (3_600, 300)] {
        let mut turns = Turns::default();
        for lane in (0..).take(MOST_HOLDS) {
            turns.limited(lane, Duration::from_secs(limit), now);
            assert!(turns.is_held(lane) && turns.rest(now).is_zero());
        }
        turns.limited(u32::MAX, Duration::from_secs(limit), now);
        assert!(!turns.is_held(u32::MAX));
        assert_eq!(turns.rest(now), Duration::from_secs(rests));
    }
}

#[test]
fn the_more_fail_by_their_own_fault_the_sooner_one_is_taken_for_another() {
    let now = Instant::now();
    for (known, times) in [(0, 5), (1, 4), (3, 2), (9, 2)] {
        let mut turns = turns(now, &vec![600; known]);
        for works in 1..=times {
            assert!(!turns.is_passed(100), "{known}");
            turns.failed(place(100, 0), now, Duration::ZERO, works, now);
        }
        assert!(turns.is_passed(100), "{known}");
    }
}

#[test]
fn what_is_put_off_ends_the_row_of_its_failures() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    for works in [0, 1, 1, 1, 1] {
        turns.failed(place(0, 0), now, Duration::ZERO, works, now);
    }
    assert!(turns.suspects.contains_key(&0) && is_about(turns.rest(now), 4), "{turns:?}");
    turns.not_sent(now, 1, now);
    assert!(is_about(turns.rest(now), 1), "{:?}", turns.rest(now));
}

#[test]
fn however_many_are_in_doubt_none_is_forgotten() {
    let (mut turns, now, many) = (Turns::default(), Instant::now(), 10_000);
    for number in (0..DOUBT).map(|_| 0).chain(1..many) {
        assert!(!turns.is_passed(number));
        turns.failed(place(number, 0), now, Duration::ZERO, 0, now);
    }
    assert!((0..many).all(|number| turns.is_passed(number)));
    turns.next(1, now, |_| None);
    assert_eq!((turns.suspects.len(), turns.in_doubt.len()), (10_000, 0));
}

/// How upstream is for a time.
#[derive(Clone, Copy, Debug)]
enum Weather {
    Takes,
    Fails(Duration),
    IsAway,
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    came: Duration,
    lane: u32,
    /// A poison, and how long it takes to fail.
    fails: Option<Duration>,
}

/// A limit of one lane.
#[derive(Clone, Copy, Debug)]
struct Limit {
    lane: u32,
    from: Duration,
    until: Duration,
}

/// A spool and an upstream around [`Turns`], on a clock of their own.
#[derive(Default)]
struct World {
    turns: Turns,
    now: Duration,
    works: u64,
    /// What is yet to come, and what is there, by number.
    kept: BTreeMap<u64, Kept>,
    /// Until when it is how. Afterwards upstream takes all.
    weather: Vec<(Duration, Weather)>,
    limits: Vec<Limit>,
    /// So often something is taken that was never kept, unless upstream fails.
    traffic: Option<Duration>,
    /// What has failed, and when it did last as a suspect.
    failed: HashSet<u64>,
    put_off: BTreeMap<u64, Duration>,
    /// Until when no suspect is to be tried after the last one.
    wary: Duration,
    /// Since when nothing got through, and how many were tried since then, without suspects and of them.
    dry: (Duration, u64, u64),
    /// From when on upstream takes all, and how often it was asked since, suspects aside.
    well: Duration,
    tries: u64,
    /// How often a failure said something about upstream.
    told: u32,
}

const MOMENT: Duration = Duration::from_millis(10);

impl World {
    fn new(kept: Vec<Kept>, weather: Vec<(Duration, Weather)>, limits: Vec<Limit>, traffic: Option<Duration>) -> Self {
        let mut until = Duration::ZERO;
        let weather: Vec<_> = weather
            .into_iter()
            .map(|(time, how)| {
                until += time;
                (until, how)
            })
            .collect();
        let ends = limits.iter().map(|limit| limit.until).chain(kept.iter().map(|kept| kept.came)).chain([until]);
        let well = ends.max().unwrap_or_default() + SHORTEST * 2;
        let mut kept = kept;
        kept.sort_by_key(|kept| kept.came);
        World { kept: (0..).zip(kept).collect(), weather, limits, traffic, well, ..World::default() }
    }

    fn weather(&self, at: Duration) -> Weather {
        self.weather.iter().find(|(until, _)| at < *until).map_or(Weather::Takes, |(_, how)| *how)
    }

    fn takes(&mut self) {
        self.works += 1;
        self.dry = (self.now, 0, 0);
    }

    /// Time goes by. Returns as soon as something got through, when told to.
    fn pass(&mut self, time: Duration, until_taken: bool) {
        let until = self.now + time;
        while let Some(every) = self.traffic {
            let next = every * u32::try_from(self.now.as_millis() / every.as_millis() + 1).unwrap();
            if next > until {
                break;
            }
            self.now = next;
            if matches!(self.weather(next), Weather::Takes) {
                self.takes();
                if until_taken {
                    self.turns.recovered();
                    return;
                }
            }
        }
        self.now = until;
    }

    fn oldest(&self, turns: &Turns) -> Option<Place> {
        let there = self.kept.iter().take_while(|(_, kept)| kept.came <= self.now);
        let mut places = there.map(|(number, kept)| place(*number, kept.lane));
        places.find(|place| !turns.is_held(place.lane) && !turns.is_passed(place.number))
    }

    fn is_suspect(&self, number: u64) -> bool {
        self.turns.suspects.contains_key(&number)
    }

    /// What is due is tried, or it is waited for.
    fn step(&mut self, zero: Instant) {
        let now = zero + self.now;
        let rest = self.turns.rest(now);
        if !rest.is_zero() {
            assert!(rest < LONGEST.mul_f64(1.2), "{rest:?}");
            return self.pass(rest, true);
        }
        let mut turns = std::mem::take(&mut self.turns);
        let turn = turns.next(self.works, now, |turns| self.oldest(turns));
        self.turns = turns;
        match turn {
            Turn::Try(place) => self.attempt(place, zero),
            Turn::Wait(until) => {
                let sweep = Duration::from_secs(10);
                let wait = until.map_or(sweep, |until| until.checked_duration_since(now).unwrap());
                assert!(!wait.is_zero(), "a busy loop");
                let there = self.kept.iter().take_while(|(_, kept)| kept.came <= self.now);
                let mut idle =
                    there.filter(|(number, kept)| !self.turns.is_held(kept.lane) && !self.is_suspect(**number));
                assert!(idle.next().is_none(), "it waits though there is something to try");
                let comes = self.kept.values().map(|kept| kept.came).find(|came| *came > self.now);
                let comes = comes.map_or(sweep, |came| came.saturating_sub(self.now));
                self.pass(wait.min(sweep).min(comes), false);
            }
        }
    }

    fn attempt(&mut self, place: Place, zero: Instant) {
        let (number, began) = (place.number, self.now);
        let kept = self.kept[&number];
        assert!(kept.came <= began && !self.turns.is_held(place.lane));
        let is_suspect = self.is_suspect(number);
        if !self.failed.contains(&number) {
            let older = self.kept.range(..number);
            let mut older =
                older.filter(|(number, kept)| !self.failed.contains(number) && !self.turns.is_held(kept.lane));
            assert!(older.next().is_none(), "{number} before its turn");
        }
        let is_telling = self.turns.is_telling(number);
        self.tries += u64::from(began >= self.well && !is_suspect);
        let (since, others, suspects) = &mut self.dry;
        *(if is_suspect { &mut *suspects } else { &mut *others }) += 1;
        let dry = began.saturating_sub(*since).as_secs();
        assert!(*others <= 16 + dry / 27, "{others} tries in {dry} s while nothing gets through");
        assert!(*suspects <= 2 + dry, "{suspects} tries of suspects in {dry} s while nothing gets through");
        if is_suspect {
            assert!(began >= self.wary, "a suspect in the time of others");
            if let Some(last) = self.put_off.get(&number) {
                assert!(began >= *last + PUT_OFF, "{number} has had its turn");
            }
        }
        let limit =
            self.limits.iter().filter(|limit| limit.lane == place.lane && limit.from <= began && began < limit.until);
        let limited = limit.map(|limit| limit.until.saturating_sub(began)).max();
        match (self.weather(began), kept.fails, limited) {
            (Weather::IsAway, ..) => {
                self.pass(MOMENT, false);
                self.turns.not_sent(zero + began, self.works, zero + self.now);
            }
            (Weather::Fails(time), ..) | (_, Some(time), _) => {
                self.pass(time, false);
                self.failed.insert(number);
                self.told += u32::from(is_telling);
                self.turns.failed(place, zero + began, Duration::ZERO, self.works, zero + self.now);
                if is_suspect {
                    self.put_off.insert(number, self.now);
                    self.wary = self.now + time.clamp(SHORTEST, LONGEST);
                    assert!(self.turns.rest(zero + self.now).is_zero(), "others wait for a suspect");
                }
            }
            (_, _, Some(left)) => {
                self.pass(MOMENT, false);
                self.takes();
                self.turns.limited(place.lane, left.saturating_sub(MOMENT), zero + self.now);
            }
            (..) => {
                self.pass(MOMENT, false);
                self.takes();
                self.turns.taken(number, zero + self.now);
                self.turns.gone(number);
                self.kept.remove(&number);
            }
        }
    }

    fn sound(&self) -> usize {
        self.kept.values().filter(|kept| kept.fails.is_none()).count()
    }

    /// Until all that is sound was taken, and some time more.
    fn run(&mut self) {
        let zero = Instant::now();
        let poisons = u32::try_from(self.kept.values().filter(|kept| kept.fails.is_some()).count()).unwrap();
        let all = u64::try_from(self.kept.len()).unwrap();
        // Who is in doubt while all that is sound is put off is tried as often as failures allow.
        let tries = all + 6 * u64::from(poisons) + 16 + LONGEST_PUT_OFF.as_secs() / 27;
        let each = self.kept.values().filter_map(|kept| kept.fails).max().unwrap_or_default() + LONGEST.mul_f64(1.1);
        let time = self.well + LONGEST_PUT_OFF + (2 * 6 * poisons + 2) * each + MOMENT * u32::try_from(all).unwrap();
        while self.sound() > 0 {
            self.step(zero);
            assert!(self.tries <= tries, "{} wait after {tries} tries", self.sound());
            assert!(self.now <= time, "{} wait after {time:?}, all was well from {:?}", self.sound(), self.well);
        }
        let until = self.now + LONGEST_PUT_OFF;
        while self.now < until {
            self.step(zero);
        }
    }
}

#[test]
fn more_poisons_than_anybody_counts_on_stop_nobody_for_ever() {
    let poison = Kept { came: Duration::ZERO, lane: 0, fails: Some(MOMENT) };
    let mut kept = vec![poison; 1_000];
    kept.push(Kept { fails: None, ..poison });
    World::new(kept, Vec::new(), Vec::new(), None).run();
}

#[test]
fn poisons_that_nobody_knows_yet_take_no_longer_than_they_are_tried_and_break_nothing() {
    let poison = Kept { came: Duration::ZERO, lane: 0, fails: Some(LONGEST) };
    let mut kept = vec![poison; 10];
    kept.push(Kept { fails: None, ..poison });
    let (mut world, zero) = (World::new(kept, Vec::new(), Vec::new(), None), Instant::now());
    while world.sound() > 0 {
        world.step(zero);
    }
    // The first one until it is in doubt, then each of the others; and what waits are longer by chance.
    let tries = DOUBT + 9;
    assert!(world.now < LONGEST * (tries + 1), "{:?}", world.now);
    assert_eq!(world.told, DOUBT, "the rest says no more of upstream than the first did");
}

#[test]
fn many_that_fail_say_that_it_is_upstream_though_nothing_else_is_tried() {
    let kept = vec![Kept { came: Duration::ZERO, lane: 0, fails: None }; 1_000];
    let day = Duration::from_hours(24);
    let (mut world, zero) = (World::new(kept, vec![(day, Weather::Fails(MOMENT))], Vec::new(), None), Instant::now());
    while world.told < DOUBT + 2 {
        world.step(zero);
        assert!(world.now < Duration::from_mins(10), "{} told", world.told);
    }
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn fails() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(MOMENT), Just(LONGEST)]
}

proptest! {
    /// For all that is kept, poisons among it, for all upstreams that fail, are away and limit for a time, and whether or not
    /// others get through meanwhile: the oldest goes first, none is tried again that was taken, while nothing gets through
    /// tries are rare, a suspect leaves the others as much time as it takes, and once upstream is well all that is sound is
    /// taken, after so many tries and so much time.
    #[test]
    fn what_is_sound_is_taken_in_its_turn(
        kept in prop::collection::vec((seconds(0..1_200), 0..3_u32, prop::option::of(fails())), 1..50),
        weather in prop::collection::vec(
            (seconds(1..3_600), prop_oneof![Just(Weather::Takes), fails().prop_map(Weather::Fails), Just(Weather::IsAway)]),
            0..6,
        ),
        limits in prop::collection::vec((0..3_u32, seconds(0..7_200), seconds(1..600)), 0..6),
        traffic in prop::option::of(seconds(1..120)),
    ) {
        let kept = kept.into_iter().map(|(came, lane, fails)| Kept { came, lane, fails }).collect();
        let limits = limits.into_iter().map(|(lane, from, time)| Limit { lane, from, until: from + time }).collect();
        World::new(kept, weather, limits, traffic).run();
    }
}
