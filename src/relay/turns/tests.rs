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
    let usual = |wait: Duration, seconds: u64| {
        wait.as_secs_f64() / 0.8 >= seconds as f64 && wait.as_secs_f64() / 1.2 <= seconds as f64
    };
    for (works, seconds) in [(0, 1), (0, 2), (0, 4), (1, 1), (1, 2), (2, 1)] {
        turns.not_sent(works, now);
        assert!(usual(turns.rest(now), seconds), "{works}: {:?}", turns.rest(now));
    }
    turns.recovered();
    assert_eq!(turns.rest(now), Duration::ZERO);
}
