use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const AMPLE: Limits = Limits { bytes: 1 << 30, entries: 1_000, age: Duration::from_mins(1) };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000 + seconds * 1000)
}

fn held(body: &[u8]) -> Body {
    Body::Held(vec![Bytes::copy_from_slice(body)])
}

async fn append(spool: &Spool, body: &[u8]) -> Result<(), NotKept> {
    spool.append(at(0), 0, b"head".to_vec(), held(body)).await
}

async fn text(spool: &Spool, place: Place) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
    let entry = spool.read(place).await?;
    let body: Vec<Bytes> = entry.body().try_collect().await.unwrap();
    assert_eq!(entry.size(), body.iter().map(|piece| piece.len() as u64).sum::<u64>());
    Ok((entry.head, body.concat()))
}

/// All that is whole, in its order; what is not is taken out, as whoever delivers does.
async fn drained(spool: &Spool) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(place) = spool.next(|_| false, |_| false) {
        if let Ok((_, body)) = text(spool, place).await {
            bodies.push(body);
        }
        spool.remove(place).await.unwrap();
    }
    bodies
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_kept_comes_back_in_its_order_after_a_start_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let spool = Spool::open(path.clone(), AMPLE).unwrap();
    assert_eq!(spool.next(|_| false, |_| false), None);
    for body in [&b"one"[..], b"", b"three"] {
        append(&spool, body).await.unwrap();
    }
    let first = spool.next(|_| false, |_| false).unwrap();
    assert_eq!(text(&spool, first).await.unwrap(), (b"head".to_vec(), b"one".to_vec()));
    assert_eq!(spool.held(), Held { entries: 3, bytes: 3 * 4096 });
    let again = Spool::open(path.clone(), AMPLE).unwrap();
    assert_eq!(again.held(), spool.held());
    append(&again, b"four").await.unwrap();
    assert_eq!(drained(&again).await, [&b"one"[..], b"", b"three", b"four"]);
    assert_eq!((again.held(), files(&path).len()), (Held::default(), 0));
}

#[tokio::test]
async fn those_who_come_at_once_all_get_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    let bodies: Vec<Vec<u8>> = (0..200_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let kept = futures_util::future::join_all(bodies.iter().map(|body| append(&spool, body))).await;
    assert!(kept.iter().all(Result::is_ok), "{kept:?}");
    let mut found = drained(&Spool::open(directory.path().to_owned(), AMPLE).unwrap()).await;
    found.sort();
    let mut bodies = bodies;
    bodies.sort();
    assert_eq!(found, bodies);
}

#[tokio::test]
async fn a_file_is_kept_from_its_beginning_wherever_it_was_read_to() {
    use std::io::{Read as _, Write as _};
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().join("spool"), AMPLE).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    file.write_all(&body).unwrap();
    file.read_exact(&mut []).unwrap();
    spool.append(at(0), 0, Vec::new(), Body::File(Arc::new(file), body.len() as u64)).await.unwrap();
    assert!(drained(&spool).await == [body]);
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for_and_room_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let few = Limits { bytes: 4 * 4096, entries: 3, ..AMPLE };
    let spool = Spool::open(directory.path().to_owned(), few).unwrap();
    append(&spool, b"a").await.unwrap();
    // Its prefix and sum do not fit into three blocks.
    assert!(matches!(append(&spool, &[0; 3 * 4096]).await, Err(NotKept::Full)));
    append(&spool, &[0; 4096]).await.unwrap();
    append(&spool, b"c").await.unwrap();
    assert!(matches!(append(&spool, b"d").await, Err(NotKept::Full)));
    assert_eq!(spool.held(), Held { entries: 3, bytes: 4 * 4096 });
    spool.remove(spool.next(|_| false, |_| false).unwrap()).await.unwrap();
    append(&spool, b"d").await.unwrap();
    // An entry less, but no room.
    let again = Spool::open(directory.path().to_owned(), Limits { entries: 10, ..few }).unwrap();
    assert!(matches!(append(&again, b"e").await, Err(NotKept::Full)));
}

#[tokio::test]
async fn what_cannot_be_written_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let spool = Spool::open(path.clone(), AMPLE).unwrap();
    // Shorter than it says.
    let short = Body::File(Arc::new(tempfile::tempfile().unwrap()), 10);
    assert!(matches!(spool.append(at(0), 0, Vec::new(), short).await, Err(NotKept::Unwritable(_))));
    assert_eq!((spool.held(), files(&path).len()), (Held::default(), 0));
    std::fs::remove_dir(&path).unwrap();
    assert!(matches!(append(&spool, b"a").await, Err(NotKept::Unwritable(_))));
    assert_eq!(spool.held(), Held::default());
    let full = NotKept::from(io::Error::from(io::ErrorKind::StorageFull));
    assert!(matches!(full, NotKept::DiskFull));
}

#[tokio::test]
async fn an_attempt_that_is_given_up_gives_its_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    for _ in 0..20 {
        let mut attempt = Box::pin(append(&spool, b"a"));
        assert!(futures_util::poll!(&mut attempt).is_pending());
        drop(attempt);
    }
    // Whether they got their place or not: what is counted is what is there, once the last of them is through.
    append(&spool, b"b").await.unwrap();
    let settled = async {
        let is_still = || {
            let held = spool.held();
            spool.0.writers.available_permits() == WRITERS && files(directory.path()).len() == held.entries
        };
        // An attempt may yet begin between two looks.
        let mut still = 0;
        while still < 100 {
            still = if is_still() { still + 1 } else { 0 };
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), settled).await.expect("what is counted is what is there");
    assert_eq!(Spool::open(directory.path().to_owned(), AMPLE).unwrap().held(), spool.held());
}

#[tokio::test]
async fn what_is_older_than_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    for seconds in [0, 30] {
        spool.append(at(seconds), 0, Vec::new(), held(b"")).await.unwrap();
    }
    let expired = |seconds| spool.expired(at(seconds)).map(|place| place.came);
    assert_eq!([60, 61].map(expired), [None, Some(at(0))]);
    assert_eq!(expired(-1_000), None, "a clock that was set back ends nothing");
    spool.remove(spool.next(|_| false, |_| false).unwrap()).await.unwrap();
    assert_eq!([90, 91].map(expired), [None, Some(at(30))]);
}

#[tokio::test]
async fn what_came_by_a_clock_that_was_ahead_keeps_nobody_from_being_over() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    for seconds in [10_000, 0] {
        spool.append(at(seconds), 0, Vec::new(), held(b"")).await.unwrap();
    }
    assert_eq!(spool.expired(at(61)).map(|place| place.came), Some(at(0)));
}

#[tokio::test]
async fn a_lane_can_be_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    for lane in [7, 7, 9, 7] {
        spool.append(at(0), lane, Vec::new(), held(b"")).await.unwrap();
    }
    let place = spool.next(|lane| lane == 7, |_| false).unwrap();
    assert_eq!((place.number, place.lane), (2, 9));
    spool.remove(place).await.unwrap();
    assert_eq!(spool.next(|lane| lane == 7, |_| false), None);
    assert_eq!(spool.next(|_| false, |_| false).unwrap().number, 0);
}

#[tokio::test]
async fn what_others_put_there_is_left_alone_and_what_was_not_finished_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let strange = [
        "00000000000000000001.5.18446744073709551615.00000007",
        "00000000000000000001.5.6.x",
        "1.5.6.00000007",
        "18446744073709551615.5.6.00000007",
        "lost+found",
    ];
    for name in strange.into_iter().chain(["3.draft"]) {
        std::fs::write(directory.path().join(name), "x").unwrap();
    }
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    assert_eq!(spool.held(), Held::default());
    assert_eq!(files(directory.path()), strange);
}

#[tokio::test]
async fn every_byte_that_is_another_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path().to_owned(), AMPLE).unwrap();
    append(&spool, b"body").await.unwrap();
    let place = spool.next(|_| false, |_| false).unwrap();
    let file = File::options().write(true).open(spool.path(&place)).unwrap();
    let whole = std::fs::read(spool.path(&place)).unwrap();
    for (offset, byte) in whole.iter().enumerate() {
        file.write_all_at(&[byte ^ 0x10], offset as u64).unwrap();
        assert!(matches!(spool.read(place).await, Err(ReadError::Damaged)), "byte {offset}");
        file.write_all_at(&[*byte], offset as u64).unwrap();
    }
    assert_eq!(text(&spool, place).await.unwrap().1, b"body");
    std::fs::remove_file(spool.path(&place)).unwrap();
    assert!(matches!(spool.read(place).await, Err(ReadError::Damaged)));
    spool.remove(place).await.unwrap();
}

/// What is done to a spool.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    /// The oldest is delivered.
    Take,
    /// The process ends, and leaves an attempt that it has not finished.
    Crash,
    /// The disk loses the end of the newest file.
    Tear(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_000_usize).prop_map(Step::Append),
        2 => Just(Step::Take),
        1 => Just(Step::Crash),
        1 => any::<Index>().prop_map(Step::Tear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For all lines, whatever was taken out of them: the next is the oldest that is neither held nor passed over.
    #[test]
    fn the_next_is_the_oldest_that_is_not_passed_over(
        lanes in prop::collection::vec(0..6_u32, 0..40),
        gone in prop::collection::btree_set(0..40_u64, 0..20),
        held in prop::collection::btree_set(0..6_u32, 0..5),
        passed in prop::collection::btree_set(0..40_u64, 0..20),
    ) {
        let mut line = Line::default();
        for (number, lane) in (0..).zip(lanes) {
            line.take_in(Place { number, came: at(0), bytes: 1, lane });
        }
        for number in &gone {
            line.take_out(*number);
        }
        let is_next = |place: &&Place| !held.contains(&place.lane) && !passed.contains(&place.number);
        let expected = line.places.values().find(is_next).copied();
        prop_assert_eq!(line.next(|lane| held.contains(&lane), |number| passed.contains(&number)), expected);
        prop_assert_eq!(line.held.entries, line.places.len());
        prop_assert!(line.lanes.len() == line.places.len() && line.ages.len() == line.places.len());
    }

    /// For all sequences of appends, deliveries, crashes and torn files: what was taken in is there, in its order and once,
    /// but for what the disk itself has torn, which is noticed; and there is never more than the limits allow.
    #[test]
    fn nothing_acknowledged_is_lost(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let limits = Limits { bytes: 6 * 4096, entries: 5, ..AMPLE };
            let open = || Spool::open(directory.path().to_owned(), limits).unwrap();
            let mut spool = open();
            // What should be there, by number; torn or not.
            let mut expected: BTreeMap<u64, (Vec<u8>, bool)> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Append(bytes) => {
                        let body = vec![u8::try_from(number).unwrap(); bytes];
                        let before = spool.held();
                        let room = before.bytes + on_disk(bytes as u64 + 16) <= limits.bytes && before.entries < limits.entries;
                        let kept = append(&spool, &body).await;
                        assert_eq!(kept.is_ok(), room, "{kept:?} {before:?}");
                        if room {
                            let place = spool.0.line.lock().unwrap().places.values().next_back().copied().unwrap();
                            assert!(expected.keys().next_back().is_none_or(|last| *last < place.number));
                            expected.insert(place.number, (body, false));
                        }
                    }
                    Step::Take => {
                        let place = spool.next(|_| false, |_| false);
                        assert_eq!(place.map(|place| place.number), expected.keys().next().copied());
                        let Some(place) = place else { continue };
                        let (body, is_torn) = expected.remove(&place.number).unwrap();
                        match text(&spool, place).await {
                            Ok((head, found)) => assert!(!is_torn && head == b"head" && found == body),
                            Err(ReadError::Damaged) => assert!(is_torn),
                            Err(error) => panic!("{error}"),
                        }
                        spool.remove(place).await.unwrap();
                    }
                    Step::Crash => {
                        std::fs::write(directory.path().join(format!("{number}.draft")), "half of it").unwrap();
                        spool = open();
                    }
                    Step::Tear(end) => {
                        let Some((newest, (_, is_torn))) = expected.iter_mut().next_back() else { continue };
                        if std::mem::replace(is_torn, true) {
                            continue;
                        }
                        let place = spool.next(|_| false, |number| number != *newest).unwrap();
                        let file = File::options().write(true).open(spool.path(&place)).unwrap();
                        file.set_len(end.index(usize::try_from(place.bytes).unwrap()) as u64).unwrap();
                        spool = open();
                    }
                }
                let held = spool.held();
                assert!(held.entries == expected.len() && held.bytes <= limits.bytes, "{held:?}");
            }
            let left: Vec<_> = expected.into_values().filter(|(_, is_torn)| !is_torn).map(|(body, _)| body).collect();
            assert_eq!(drained(&open()).await, left);
        });
    }
}
