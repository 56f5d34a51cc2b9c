//! What an SDK was told 200 for arrives at its Sentry, however long that is away and whatever happens to recoverd meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recoverd::datadog::decode;
use recoverd::domain::build::Timestamp;
use recoverd::machinery::clock::Clock;
use recoverd::machinery::supervise::Ended;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::ingest::{Ingest, Recorded, Reply, settings};
use crate::world::{PATIENCE, Process, World, recoverd, settings_text};

const ENVELOPE: &str = "/api/7/envelope/?sentry_key=abc&sentry_version=7";
const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

fn event(message: &str) -> String {
    let payload = format!("{{\"message\":\"{message}\"}}");
    format!("{{\"event_id\":\"{ID}\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{payload}\n", payload.len())
}

fn message(arrived: &Recorded) -> String {
    let payload: Value = serde_json::from_str(arrived.text().lines().nth(2).unwrap()).unwrap();
    assert_eq!(payload["tags"]["pod_name"], "web-1");
    payload["message"].as_str().unwrap().to_owned()
}

/// An address where nobody listens, to be listened on later.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn comes_back(address: SocketAddr) -> Ingest {
    Ingest::on(TcpListener::bind(address).await.unwrap())
}

async fn post(world: &World, body: impl Into<reqwest::Body>) -> reqwest::Response {
    world.client.post(world.relay_url(ENVELOPE)).body(body).send().await.unwrap()
}

/// Waits until the sample of a metric, its labels within, is so much.
async fn counted(world: &World, sample: &str, value: u64) {
    let wanted = format!("{sample} {value}");
    let mut shown = String::new();
    let waiting = async {
        loop {
            shown = world.get("/metrics").await.1;
            let is_wanted = |line: &str| {
                let (name, labels) = wanted.split_once('{').unwrap_or((&wanted, ""));
                let (label, value) = labels.split_once('}').unwrap_or(("", labels));
                line.starts_with(&format!("{name}{{")) && line.contains(label) && line.ends_with(value)
            };
            if shown.lines().any(is_wanted) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        let of_spool: Vec<_> = shown.lines().filter(|line| line.contains("_relay_")).collect();
        panic!("{wanted} never showed:\n{}", of_spool.join("\n"));
    }
}

#[tokio::test]
async fn what_upstream_does_not_take_is_kept_and_arrives_in_its_order() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    for number in 0..7 {
        let kept = world.client.post(world.relay_url(ENVELOPE)).body(event(&number.to_string()));
        let kept = kept.header("origin", "https://shop.example").header("x-sentry-auth", "Sentry sentry_key=abc");
        let kept = kept.send().await.unwrap();
        assert_eq!(kept.status(), 200);
        assert_eq!(kept.headers()["access-control-allow-origin"], "*");
        assert_eq!(kept.headers()["content-type"], "application/json");
        assert_eq!(kept.text().await.unwrap(), format!("{{\"id\":\"{ID}\"}}"));
    }
    let metrics = world.get("/metrics").await.1;
    let spooled = metrics.lines().filter(|line| line.starts_with("recoverd_relay_spooled_total{"));
    let reasons = spooled.filter(|line| line.contains("\"unreachable\"") || line.contains("\"not_asked\""));
    // Whoever came once it was known did not ask, and that may have been seen by who sends again.
    assert_eq!(reasons.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum::<u32>(), 7);
    counted(&world, "recoverd_relay_spool_entries{}", 7).await;
    let (status, lines) = world.get("/readyz").await;
    assert_eq!(status, 200);
    let line = lines.lines().find(|line| line.starts_with(&format!("relay {upstream}: "))).unwrap();
    assert!(line.contains("cannot connect") && line.contains("7 requests wait on disk, 28 KiB"), "{line}");

    let sentry = comes_back(upstream).await;
    for number in 0..7 {
        let arrived = sentry.next().await;
        assert_eq!((arrived.method.clone(), &*arrived.target), (Method::POST, ENVELOPE));
        assert_eq!(message(&arrived), number.to_string());
        assert_eq!(arrived.header("x-sentry-auth"), Some("Sentry sentry_key=abc"));
        assert_eq!(arrived.header("host"), Some(&*upstream.to_string()));
        assert_eq!(arrived.header("content-length"), Some(&*arrived.body.len().to_string()));
        assert_eq!(arrived.header("x-forwarded-for"), Some("127.0.0.1"));
    }
    counted(&world, "recoverd_relay_spool_delivered_total{}", 7).await;
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    counted(&world, "recoverd_relay_spool_bytes{}", 0).await;
    assert!(world.get("/readyz").await.1.contains(&format!("relay {upstream}: ok")));
    assert!(sentry.is_quiet().await, "once is enough");
    world.finish().await;
}

#[tokio::test]
async fn an_answer_that_may_change_is_no_answer_and_one_that_will_not_is() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    for status in [500, 502, 503, 504, 408] {
        sentry.reply(Reply::new(status, "busy"));
        assert_eq!(post(&world, event("kept")).await.status(), 200, "{status}");
        assert_eq!(message(&sentry.next().await), "kept");
        // Sent again, and taken.
        assert_eq!(message(&sentry.next().await), "kept");
    }
    counted(&world, "recoverd_relay_spooled_total{reason=\"status\"}", 5).await;
    for status in [400, 403, 413, 429] {
        sentry.reply(Reply::new(status, "no").with("x-sentry-rate-limits", "60:session:key"));
        let answer = post(&world, event("refused")).await;
        assert_eq!((answer.status().as_u16(), &*answer.text().await.unwrap()), (status, "no"));
        assert_eq!(message(&sentry.next().await), "refused");
    }
    counted(&world, "recoverd_relay_spool_delivered_total{}", 5).await;
    assert!(sentry.is_quiet().await);
    world.finish().await;
}

#[tokio::test]
async fn what_sentry_does_not_want_of_what_was_kept_is_dropped_and_counted() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    for number in 0..5 {
        assert_eq!(post(&world, event(&number.to_string())).await.status(), 200);
    }
    let listener = TcpListener::bind(upstream).await.unwrap();
    let sentry = Ingest::on(listener);
    for status in [400, 401, 413, 404] {
        sentry.reply(Reply::new(status, "no"));
    }
    for number in 0..5 {
        assert_eq!(message(&sentry.next().await), number.to_string());
    }
    for reason in ["bad_request", "unauthorized", "too_large", "rejected"] {
        counted(&world, &format!("recoverd_relay_spool_dropped_total{{reason=\"{reason}\"}}"), 1).await;
    }
    counted(&world, "recoverd_relay_spool_delivered_total{}", 1).await;
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn what_is_limited_waits_and_lets_what_is_not_pass() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    let session = "{}\n{\"type\":\"session\"}\n{}\n";
    for body in [event("limited"), event("limited too"), session.to_owned()] {
        assert_eq!(post(&world, body).await.status(), 200);
    }
    let sentry = Ingest::on(TcpListener::bind(upstream).await.unwrap());
    sentry.reply(Reply::new(429, "{}").with("x-sentry-rate-limits", "2:error:key").with("retry-after", "2"));
    assert_eq!(message(&sentry.next().await), "limited");
    assert_eq!(sentry.next().await.text(), session);
    // And then all, in their order.
    assert_eq!(message(&sentry.next().await), "limited");
    assert_eq!(message(&sentry.next().await), "limited too");
    counted(&world, "recoverd_relay_spool_retries_total{reason=\"limited\"}", 1).await;
    counted(&world, "recoverd_relay_spool_delivered_total{}", 3).await;
    world.finish().await;
}

#[tokio::test]
async fn what_is_too_old_is_dropped_and_counted() {
    let upstream = nobody().await;
    let clock = Clock::manual(Timestamp::from_millis(1_780_000_000_000));
    let more = settings(&format!("http://{upstream}/"), "spool_max_age = \"1m\"");
    let world = World::at(tempfile::tempdir().unwrap(), &more, clock.clone()).await;
    assert_eq!(post(&world, event("old")).await.status(), 200);
    clock.advance(Duration::from_secs(40));
    assert_eq!(post(&world, event("young")).await.status(), 200);
    clock.advance(Duration::from_secs(21));
    counted(&world, "recoverd_relay_spool_dropped_total{reason=\"expired\"}", 1).await;
    let sentry = comes_back(upstream).await;
    assert_eq!(message(&sentry.next().await), "young");
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    assert!(sentry.is_quiet().await);
    world.finish().await;
}

#[tokio::test]
async fn a_full_spool_says_so_and_counts() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "spool_max_bytes = 1048576")).await;
    // With what is around them they take a block more than these.
    let body = |number: u32| event(&format!("{number}{}", "x".repeat(120 << 10)));
    let mut kept = 0;
    let refused = loop {
        let answer = post(&world, body(kept)).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        kept += 1;
        assert!(kept < 20, "the limit never told");
    };
    assert_eq!((refused.status().as_u16(), kept), (503, 8));
    assert!(!refused.headers().contains_key("retry-after"), "an SDK would throw away what it has until then");
    counted(&world, "recoverd_relay_spool_refused_total{reason=\"full\"}", 1).await;
    counted(&world, "recoverd_relay_refused_total{reason=\"not_kept\"}", 1).await;
    assert!(world.get("/readyz").await.1.contains("8 requests wait on disk"));
    let sentry = comes_back(upstream).await;
    for number in 0..kept {
        let expected = format!("{number}x");
        assert!(message(&sentry.next().await).starts_with(&expected));
    }
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_says_so_and_counts() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    let spool = world.directory.path().join("data/relay/spool");
    let hidden = spool.with_extension("away");
    std::fs::rename(&spool, &hidden).unwrap();
    assert_eq!(post(&world, event("lost")).await.status(), 503);
    counted(&world, "recoverd_relay_spool_refused_total{reason=\"unwritable\"}", 1).await;
    std::fs::rename(&hidden, &spool).unwrap();
    assert_eq!(post(&world, event("kept")).await.status(), 200);
    assert_eq!(message(&comes_back(upstream).await.next().await), "kept");
    world.finish().await;
}

#[tokio::test]
async fn only_what_is_sent_to_a_project_can_wait() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    let table = [
        (Method::POST, "/api/7/store/?sentry_key=abc", 200),
        (Method::POST, "/api/7/minidump/?sentry_key=abc", 200),
        (Method::GET, "/api/7/cron/nightly/abc/", 503),
        (Method::POST, "/api/0/organizations/", 503),
    ];
    for (method, path, status) in table {
        let answer = world.client.request(method, world.relay_url(path)).body("{}").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        if status == 200 {
            assert_eq!(answer.text().await.unwrap(), "{}", "{path}: nobody said an id");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn an_id_is_answered_as_sentry_writes_it() {
    let world = World::with(&settings(&format!("http://{}/", nobody().await), "")).await;
    let dashed = "{\"event_id\":\"9ec79c33-ec99-42ab-8353-589fcb2e04dc\"}";
    let store = world.client.post(world.relay_url("/api/7/store/?sentry_key=abc")).body(dashed).send().await.unwrap();
    assert_eq!(store.text().await.unwrap(), format!("{{\"id\":\"{ID}\"}}"));
    world.finish().await;
}

#[tokio::test]
async fn a_large_upload_is_kept_whole_by_way_of_the_disk() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let attachment: Vec<u8> = (0..20_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let tail =
        [format!("{{\"type\":\"attachment\",\"length\":{}}}\n", attachment.len()).as_bytes(), &attachment].concat();
    // Upstream has read all of it before it fails.
    sentry.reply(Reply::new(500, ""));
    let kept = post(&world, [event("x").as_bytes(), &tail].concat()).await;
    assert_eq!((kept.status().as_u16(), kept.text().await.unwrap()), (200, format!("{{\"id\":\"{ID}\"}}")));
    let (first, second) = (sentry.next().await, sentry.next().await);
    assert!(first.body == second.body, "a byte has changed");
    assert!(first.body.ends_with(&tail) && first.text_of_head().contains("\"pod_name\":\"web-1\""));
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn what_sentry_chokes_on_lets_others_pass() {
    let sentry = Ingest::spawn().await;
    sentry.choke_on("poison");
    lets_others_pass(&sentry).await;
}

#[tokio::test]
async fn what_breaks_the_connection_each_time_lets_others_pass() {
    let sentry = Ingest::spawn().await;
    sentry.break_on("poison");
    lets_others_pass(&sentry).await;
}

async fn lets_others_pass(sentry: &Ingest) {
    let world = World::with(&sentry.settings("")).await;
    assert_eq!(post(&world, event("poison")).await.status(), 200);
    sentry.reply(Reply::new(500, ""));
    assert_eq!(post(&world, event("sound")).await.status(), 200);
    let arrived = async {
        let mut seen = Vec::new();
        while seen.iter().filter(|message| *message == "sound").count() < 2 {
            // What is sent at once goes through, and shows that Sentry is well.
            post(&world, "{}\n{\"type\":\"session\"}\n{}\n").await;
            while let Some(arrived) = sentry.try_next().await {
                if arrived.text().contains("message") {
                    seen.push(message(&arrived));
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        seen
    };
    let seen = tokio::time::timeout(PATIENCE * 3, arrived).await.expect("it never passed");
    assert!(seen.iter().filter(|message| *message == "poison").count() >= 5, "{seen:?}");
    counted(&world, "recoverd_relay_spool_entries{}", 1).await;
    world.finish().await;
}

#[tokio::test]
async fn what_sentry_chokes_on_is_in_nobodys_way_while_all_is_quiet() {
    let sentry = Ingest::spawn().await;
    sentry.choke_on("poison");
    is_in_nobodys_way(&sentry).await;
}

#[tokio::test]
async fn what_breaks_the_connection_each_time_is_in_nobodys_way_while_all_is_quiet() {
    let sentry = Ingest::spawn().await;
    sentry.break_on("poison");
    is_in_nobodys_way(&sentry).await;
}

/// Nothing else comes in that could show that Sentry is well.
async fn is_in_nobodys_way(sentry: &Ingest) {
    let world = World::with(&sentry.settings("")).await;
    for message in ["poison", "poison too"] {
        assert_eq!(post(&world, event(message)).await.status(), 200);
    }
    sentry.reply(Reply::new(500, ""));
    assert_eq!(post(&world, event("sound")).await.status(), 200);
    let arrived = async {
        let mut sound = 0;
        while sound < 2 {
            sound += usize::from(message(&sentry.next().await) == "sound");
        }
    };
    tokio::time::timeout(PATIENCE * 3, arrived).await.expect("it never passed");
    counted(&world, "recoverd_relay_spool_entries{}", 2).await;
    world.finish().await;
}

/// For all numbers of requests that fail each time: once it is known that they do, what is behind them does not wait for them.
#[tokio::test]
#[ignore = "takes half a minute, at worst three: who is in doubt is waited for as long as with a real Sentry"]
async fn many_that_fail_each_time_are_found_out_once_and_not_anew_for_each_that_is_sound() {
    const POISONS: usize = 12;
    let sentry = Ingest::spawn().await;
    sentry.choke_on("poison");
    let world = World::with(&sentry.settings("")).await;
    for _ in 0..POISONS {
        assert_eq!(post(&world, event("poison")).await.status(), 200);
    }
    // These are not sent at once: after five failures upstream is taken to be broken.
    let sound = ["one", "two", "three"];
    for message in sound {
        assert_eq!(post(&world, event(message)).await.text().await.unwrap(), format!("{{\"id\":\"{ID}\"}}"));
    }
    let (mut failed, mut arrived) = (0, Vec::new());
    let first = async {
        while arrived.is_empty() {
            // Once the first one is in doubt, others show that Sentry is well: or else it would take minutes.
            if failed >= 5 + 3 {
                post(&world, "{}\n{\"type\":\"session\"}\n{}\n").await;
            }
            while let Some(recorded) = sentry.try_next().await {
                match recorded.text().contains("message").then(|| message(&recorded)) {
                    Some(poison) if poison == "poison" => failed += 1,
                    sound => arrived.extend(sound),
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // What shows that Sentry is well may lose the race for the breaker several times, each time for twice as long.
    tokio::time::timeout(PATIENCE * 9, first).await.expect("the first never passed");
    // From now on all is quiet.
    let others = async {
        while arrived.len() < sound.len() {
            let recorded = sentry.next().await;
            if recorded.text().contains("message") && !recorded.text().contains("poison") {
                arrived.push(message(&recorded));
            }
        }
    };
    tokio::time::timeout(PATIENCE, others).await.expect("the others never passed");
    assert_eq!(arrived, sound);
    counted(&world, "recoverd_relay_spool_entries{}", POISONS as u64).await;
    counted(&world, "recoverd_relay_upstream_broken{}", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn datadog_is_told_what_came_in_at_the_end_as_well() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let fatal = "{}\n{\"type\":\"event\"}\n{\"level\":\"fatal\"}\n{\"type\":\"session\"}\n{}\n";
    for body in [fatal, fatal, "{}\n{\"type\":\"transaction\"}\n{}\n"] {
        assert_eq!(post(&world, body).await.status(), 200);
    }
    let World { running, agent, .. } = world;
    running.end(PATIENCE).await;
    let mut told: BTreeMap<String, f64> = BTreeMap::new();
    while told.values().sum::<f64>() < 3.0 {
        let decode::Metric { tags, values, .. } = agent.next_metric("sentry.relay.events").await;
        let tags: Vec<_> = tags.into_iter().filter(|tag| !tag.starts_with("dd.internal")).collect();
        *told.entry(tags.join(" ")).or_default() += values.iter().sum::<f64>();
    }
    let expected = [
        ("project:7 category:event level:fatal pod_name:web-1 kube_namespace:shop", 2.0),
        ("project:7 category:transaction pod_name:web-1 kube_namespace:shop", 1.0),
    ];
    assert_eq!(told, expected.into_iter().map(|(tags, count)| (tags.to_owned(), count)).collect());
}

#[tokio::test]
async fn an_sdk_that_does_not_wait_for_an_upstream_that_hangs_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let world = World::with(&settings(&format!("http://{upstream}/"), "timeout = \"5m\"")).await;
    let asked = world.client.post(world.relay_url(ENVELOPE)).body(event("left"));
    let waiting = asked.timeout(PATIENCE).send();
    let (mut silent, _) = tokio::select! {
        accepted = listener.accept() => accepted.unwrap(),
        answer = waiting => panic!("{answer:?}"),
    };
    // The SDK is gone; what it sent is upstream's, who may have done nothing with it.
    counted(&world, "recoverd_relay_spooled_total{reason=\"left\"}", 1).await;
    let mut first = [0; 4];
    silent.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"POST");
    drop((silent, listener));
    assert_eq!(message(&comes_back(upstream).await.next().await), "left");
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_waited_for_as_long_as_is_set_and_no_longer() {
    // On a new connection, on one that is kept, and before TLS.
    for (scheme, answered) in [("http", 0), ("http", 1), ("https", 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}/", listener.local_addr().unwrap());
        let world = World::with(&settings(&url, "timeout = \"1s\"")).await;
        let asking = async {
            for _ in 0..=answered {
                let answer = tokio::time::timeout(PATIENCE, post(&world, event("x"))).await.expect("it waits for ever");
                assert_eq!(answer.status(), StatusCode::OK);
            }
        };
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..answered {
                let mut asked = Vec::new();
                while !asked.ends_with(b"}\n") {
                    assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            }
            // Nobody asks anything else on a connection on which an answer may yet come.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        tokio::join!(asking, answering);
        counted(&world, "recoverd_relay_spooled_total{reason=\"timeout\"}", 1).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_is_found_out_though_nobody_waits_for_its_time_to_be_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let world = World::with(&settings(&format!("http://{upstream}/"), "timeout = \"5m\"")).await;
    let impatient = (0..5).map(|_| {
        let asked = world.client.post(world.relay_url(ENVELOPE)).body(event("x"));
        asked.timeout(Duration::from_millis(1_500)).send()
    });
    let answers = futures_util::future::join_all(impatient).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    counted(&world, "recoverd_relay_spooled_total{reason=\"left\"}", 5).await;
    counted(&world, "recoverd_relay_upstream_broken{}", 1).await;
    assert!(world.get("/readyz").await.1.contains("does not answer before SDKs give up"));
    world.finish().await;
}

#[tokio::test]
async fn what_is_kept_outlives_a_stop_and_what_the_disk_has_damaged_is_told() {
    let upstream = nobody().await;
    let world = World::with(&settings(&format!("http://{upstream}/"), "")).await;
    for word in ["damaged", "torn", "sound"] {
        assert_eq!(post(&world, event(word)).await.status(), 200);
    }
    let World { running, directory, .. } = world;
    assert_eq!(running.end(PATIENCE).await, Ended::Drained);
    let spool = std::fs::read_dir(directory.path().join("data/relay/spool")).unwrap().next().unwrap().unwrap().path();
    let mut files: Vec<_> = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    std::fs::File::options().write(true).open(&files[1]).unwrap().set_len(40).unwrap();

    let sentry = comes_back(upstream).await;
    let world = World::on(directory, &settings(&format!("http://{upstream}/"), "")).await;
    assert_eq!(message(&sentry.next().await), "sound");
    counted(&world, "recoverd_relay_spool_dropped_total{reason=\"damaged\"}", 2).await;
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    assert!(sentry.is_quiet().await);
    world.finish().await;
}

#[tokio::test]
async fn what_was_kept_for_a_wrong_address_arrives_once_that_is_mended() {
    let world = World::with(&settings(&format!("http://{}/", nobody().await), "")).await;
    for word in ["one", "two"] {
        assert_eq!(post(&world, event(word)).await.status(), 200);
    }
    let World { running, directory, .. } = world;
    assert_eq!(running.end(PATIENCE).await, Ended::Drained);
    let sentry = Ingest::spawn().await;
    let spools = directory.path().join("data/relay/spool");
    let world = World::on(directory, &sentry.settings("")).await;
    for word in ["one", "two"] {
        assert_eq!(message(&sentry.next().await), word);
    }
    counted(&world, "recoverd_relay_spool_delivered_total{}", 2).await;
    counted(&world, "recoverd_relay_spool_entries{}", 0).await;
    assert_eq!(std::fs::read_dir(spools).unwrap().count(), 1, "the old one's place is gone");
    world.finish().await;
}

#[tokio::test]
async fn without_a_place_to_keep_anything_there_is_no_relay() {
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &settings("http://127.0.0.1:9/", ""));
    std::fs::create_dir_all(directory.path().join("data/relay")).unwrap();
    std::fs::write(directory.path().join("data/relay/spool"), "a file").unwrap();
    let file = directory.path().join("recoverd.toml");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(recoverd()).args(["serve", "--config"]).arg(&file).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.contains("cannot relay to Sentry: there is no place to keep what it does not take, "), "{last}");
    assert!(last.contains("data/relay/spool/127.0.0.1-") && last.ends_with("Not a directory (os error 20)"), "{last}");
}

const SENDERS: usize = 8;
const EACH: usize = 60;

/// For all moments of a kill, in the middle of the burst and again in that of the delivery: every request that was answered with
/// a 2xx arrives after the next start, at least once, and those of one sender in their order.
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_arrives_though_recoverd_is_killed_in_the_middle_of_a_burst() {
    let client = reqwest::Client::new();
    let mut cut_short = 0;
    for kill_after in [1, 40, 150, 300, SENDERS * EACH] {
        let directory = tempfile::tempdir().unwrap();
        let upstream = nobody().await;
        let relay = settings(&format!("http://{upstream}/"), "");
        let text = settings_text(directory.path(), "udp://127.0.0.1:9", &relay);
        let mut process = Process::spawn(directory.path(), &text, pod()).await;
        let url = format!("http://{}{ENVELOPE}", process.relay.unwrap());
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            senders.spawn(burst(client.clone(), url.clone(), sender, acknowledged.clone()));
        }
        while acknowledged.load(Ordering::Relaxed) < kill_after {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        process.child.kill().await.unwrap();
        let mut sent = [0; SENDERS];
        for (sender, count) in senders.join_all().await {
            sent[sender] = count;
        }
        cut_short += sent.iter().filter(|count| **count < EACH).count();

        let sentry = comes_back(upstream).await;
        process = Process::spawn(directory.path(), &text, pod()).await;
        let mut arrived: Vec<Vec<usize>> = vec![Vec::new(); SENDERS];
        let mut kill_again = Some(kill_after / 2);
        while sent.iter().zip(&arrived).any(|(sent, arrived)| !(0..*sent).all(|number| arrived.contains(&number))) {
            let message = message(&sentry.next().await);
            let (sender, number) = message.split_once(' ').unwrap();
            arrived[sender.parse::<usize>().unwrap()].push(number.parse().unwrap());
            if kill_again.take_if(|after| arrived.iter().map(Vec::len).sum::<usize>() > *after).is_some() {
                process.child.kill().await.unwrap();
                process = Process::spawn(directory.path(), &text, pod()).await;
            }
        }
        for (sender, numbers) in arrived.iter().enumerate() {
            assert!(numbers.is_sorted(), "sender {sender}, killed after {kill_after}: {numbers:?}");
        }
    }
    assert!(cut_short > 0, "no kill ever came in the middle: the test shows nothing");
}

fn pod() -> Command {
    let mut command = Command::new(recoverd());
    command.env("POD_NAME", "web-1").env("POD_NAMESPACE", "shop");
    command
}

/// Sends one after the other. Returns who it is, and how many were acknowledged before the end.
async fn burst(client: reqwest::Client, url: String, sender: usize, acknowledged: Arc<AtomicUsize>) -> (usize, usize) {
    for number in 0..EACH {
        match client.post(&url).body(event(&format!("{sender} {number}"))).send().await {
            Ok(response) if response.status().is_success() => acknowledged.fetch_add(1, Ordering::Relaxed),
            Ok(response) => panic!("refused with {}", response.status()),
            Err(_) => return (sender, number),
        };
    }
    (sender, EACH)
}
