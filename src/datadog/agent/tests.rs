use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;
use crate::datadog::decode::{Datagram, decode};
use crate::domain::signal::{Check, JOB_STATUS, Measure, Metric, MetricName, Tag, tag};
use crate::domain::status::Status;
use crate::machinery::health::Health;

fn check(number: usize) -> Signal {
    Signal::Check(Check {
        name: JOB_STATUS,
        status: Status::Critical,
        host: "main".into(),
        tags: vec![Tag::new(tag::JOB, number.to_string()), Tag::new(tag::CARDINALITY, "none")].into(),
        message: format!("Build #{number} failed"),
    })
}

fn checks(numbers: std::ops::Range<usize>) -> Vec<Signal> {
    numbers.map(check).collect()
}

/// The numbers of the checks in a datagram; none for a knock.
fn numbers(datagram: &[u8]) -> Vec<usize> {
    let number = |read: Datagram| match read {
        Datagram::Check(check) => check.tags[0].strip_prefix("job:").unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    };
    decode(datagram).unwrap().into_iter().map(number).collect()
}

/// Reads until so many checks have come, or none for a second.
fn read(agent: impl Fn(&mut [u8]) -> std::io::Result<usize>, count: usize) -> Vec<usize> {
    let mut read = Vec::new();
    let mut buffer = vec![0; 65_536];
    while read.len() < count {
        let Ok(length) = agent(&mut buffer) else { break };
        read.extend(numbers(&buffer[..length]));
    }
    read
}

fn unix_agent(path: &Path) -> UnixDatagram {
    let agent = UnixDatagram::bind(path).unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    agent
}

fn udp_agent(address: &str) -> UdpSocket {
    let agent = UdpSocket::bind(address).unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    agent
}

struct World {
    sink: AgentSink,
    health: Health,
    registry: Registry,
}

impl World {
    fn new(target: &str, change: impl FnOnce(&mut AgentSettings)) -> Self {
        let mut settings = AgentSettings::new(target.parse().unwrap());
        change(&mut settings);
        let health = Health::default();
        let mut registry = Registry::default();
        let metrics = AgentMetrics::register(&mut registry);
        let sink = AgentSink::new(settings, health.optional("agent"), metrics);
        Self { sink, health, registry }
    }

    fn unix(path: &Path) -> Self {
        Self::new(&format!("unix://{}", path.display()), |settings| settings.patience = Duration::from_millis(500))
    }

    fn trouble(&self) -> Option<String> {
        self.health.lines().remove(0).trouble
    }

    fn counts(&self, line: &str) -> bool {
        let mut shown = String::new();
        encode(&mut shown, &self.registry).unwrap();
        shown.lines().any(|shown| shown == line)
    }
}

fn home() -> (TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("dsd.socket");
    (home, path)
}

#[tokio::test]
async fn an_agent_that_comes_late_is_found_and_its_socket_is_never_made_for_it() {
    let (_home, path) = home();
    let world = World::unix(&path);
    assert!(!world.sink.probe().await);
    let delivery = world.sink.deliver(checks(0..3)).await;
    assert_eq!((delivery.taken, delivery.trouble), (0, Some(Trouble::Away)));
    assert_eq!(delivery.rest, checks(0..3));
    assert!(world.trouble().unwrap().contains("mount its directory"));
    assert!(!path.exists());
    assert!(world.counts("recoverd_datadog_dropped_total{kind=\"check\",reason=\"away\"} 3"));

    let agent = unix_agent(&path);
    assert!(world.sink.probe().await);
    assert!(!world.sink.probe().await);
    assert_eq!(world.trouble(), None);
    let delivery = world.sink.deliver(checks(0..3)).await;
    assert_eq!(delivery, Delivery { taken: 3, rest: vec![], trouble: None });
    assert_eq!(read(|buffer| agent.recv(buffer), 3), [0, 1, 2]);
    assert!(world.counts("recoverd_datadog_sent_total{kind=\"check\"} 3"));
    assert!(world.counts("recoverd_datadog_rebuilds_total 0"));
}

#[tokio::test]
async fn an_agent_that_restarts_in_the_middle_is_followed() {
    let (_home, path) = home();
    let agent = unix_agent(&path);
    let world = World::unix(&path);
    assert_eq!(world.sink.deliver(checks(0..2)).await.taken, 2);
    assert_eq!(read(|buffer| agent.recv(buffer), 2), [0, 1]);
    assert!(world.sink.probe().await);

    drop(agent);
    assert_eq!(world.sink.deliver(checks(2..3)).await.trouble, Some(Trouble::Away));
    assert!(world.trouble().unwrap().contains("is the Agent running?"));
    std::fs::remove_file(&path).unwrap();
    let agent = unix_agent(&path);
    assert_eq!(world.sink.deliver(checks(3..5)).await.taken, 2);
    assert_eq!(read(|buffer| agent.recv(buffer), 2), [3, 4]);
    assert!(world.sink.probe().await, "whoever noticed");
    assert_eq!(world.trouble(), None);
    assert!(world.counts("recoverd_datadog_rebuilds_total 1"));
}

#[tokio::test]
async fn a_socket_that_was_replaced_is_left_although_its_agent_still_reads() {
    let (_home, path) = home();
    let old = unix_agent(&path);
    let world = World::unix(&path);
    assert_eq!(world.sink.deliver(checks(0..1)).await.taken, 1);
    assert!(world.sink.probe().await);

    std::fs::remove_file(&path).unwrap();
    let new = unix_agent(&path);
    assert!(world.sink.probe().await);
    assert_eq!(world.sink.deliver(checks(1..3)).await.taken, 2);
    assert_eq!(read(|buffer| new.recv(buffer), 2), [1, 2]);
    assert_eq!(read(|buffer| old.recv(buffer), 9), [0]);
    assert!(world.counts("recoverd_datadog_rebuilds_total 1"));
}

#[tokio::test]
async fn a_socket_replaced_while_a_batch_flows_gets_the_rest() {
    let (_home, path) = home();
    let old = unix_agent(&path);
    let world =
        World::new(&format!("unix://{}", path.display()), |settings| settings.patience = Duration::from_secs(5));
    let flow = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let first = read(|buffer| old.recv(buffer), 20);
            std::fs::remove_file(&path).unwrap();
            let new = unix_agent(&path);
            // The old one lives and its queue is full: nothing but its file shows that it is the wrong one.
            let second = read(|buffer| new.recv(buffer), usize::MAX);
            (first, old, second)
        }
    });
    assert_eq!(world.sink.deliver(checks(0..100)).await.taken, 100);
    let (first, old, second) = flow.await.unwrap();
    old.set_nonblocking(true).unwrap();
    let stranded = read(|buffer| old.recv(buffer), 100);
    assert!(stranded.len() < 20, "{stranded:?}");
    assert_eq!([first, stranded, second].concat(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_agent_that_pauses_within_patience_gets_everything_in_order() {
    let (_home, path) = home();
    let agent = unix_agent(&path);
    let world = World::unix(&path);
    let reading = tokio::task::spawn_blocking(move || {
        thread::sleep(Duration::from_millis(200));
        read(|buffer| agent.recv(buffer), 1000)
    });
    assert_eq!(world.sink.deliver(checks(0..1000)).await.taken, 1000);
    assert_eq!(reading.await.unwrap(), (0..1000).collect::<Vec<_>>());
    assert_eq!(world.trouble(), None);
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_and_found_again() {
    let (_home, path) = home();
    let agent = unix_agent(&path);
    let world = World::unix(&path);
    let began = Instant::now();
    let delivery = world.sink.deliver(checks(0..100)).await;
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_secs(2));
    assert_eq!(delivery.trouble, Some(Trouble::Slow));
    assert_eq!(delivery.taken + delivery.rest.len(), 100);
    assert!(delivery.taken > 0 && !delivery.rest.is_empty());
    assert!(
        world.counts(&format!(
            "recoverd_datadog_dropped_total{{kind=\"check\",reason=\"slow\"}} {}",
            delivery.rest.len()
        ))
    );
    assert!(world.sink.probe().await, "it came at first");
    assert!(!world.sink.probe().await);
    assert!(world.trouble().unwrap().contains("does not read"));

    assert_eq!(read(|buffer| agent.recv(buffer), delivery.taken).len(), delivery.taken);
    assert!(world.sink.probe().await);
    assert_eq!(world.trouble(), None);
}

#[tokio::test]
async fn two_batches_at_once_do_not_mix() {
    let (_home, path) = home();
    let agent = unix_agent(&path);
    let world = World::unix(&path);
    let reading = tokio::task::spawn_blocking(move || read(|buffer| agent.recv(buffer), 200));
    let (one, two) = tokio::join!(world.sink.deliver(checks(0..100)), world.sink.deliver(checks(100..200)));
    assert_eq!((one.taken, two.taken), (100, 100));
    let read = reading.await.unwrap();
    assert!(read.is_sorted() || read[100..].is_sorted() && read[..100].is_sorted(), "{read:?}");
}

#[tokio::test]
async fn by_udp_nobody_is_noticed_too() {
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        let placeholder = udp_agent(if host == "[::1]" { "[::1]:0" } else { "127.0.0.1:0" });
        let address = placeholder.local_addr().unwrap();
        drop(placeholder);
        let world = World::new(&format!("udp://{host}:{}", address.port()), |_| ());
        assert_eq!(world.sink.deliver(checks(0..1)).await.trouble, Some(Trouble::Away), "{host}");
        assert!(world.trouble().unwrap().contains("nothing listens on UDP"), "{host}");

        let agent = udp_agent(&address.to_string());
        assert!(world.sink.probe().await, "{host}");
        assert_eq!(world.sink.deliver(checks(0..50)).await.taken, 50, "{host}");
        assert_eq!(read(|buffer| agent.recv(buffer), 50), (0..50).collect::<Vec<_>>(), "{host}");

        drop(agent);
        assert!(!world.sink.probe().await, "{host}");
        assert!(world.trouble().is_some(), "{host}");
        let agent = udp_agent(&address.to_string());
        assert!(world.sink.probe().await, "{host}");
        assert_eq!(world.sink.deliver(checks(0..1)).await.taken, 1, "{host}");
        assert_eq!(read(|buffer| agent.recv(buffer), 1), [0], "{host}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_no_panic_and_no_wait() {
    let world = World::new("udp://recoverd.invalid:8125", |_| ());
    assert_eq!(world.sink.deliver(checks(0..1)).await.trouble, Some(Trouble::Away));
    assert!(world.trouble().unwrap().contains("has no address"));
}

#[tokio::test]
async fn what_can_never_be_sent_is_counted_and_holds_up_nothing() {
    let (_home, path) = home();
    let agent = unix_agent(&path);
    let world = World::new(&format!("unix://{}", path.display()), |settings| {
        settings.limit = DatagramLimit::parse(512).unwrap();
    });
    let Signal::Check(mut huge) = check(0) else { panic!() };
    huge.tags = (0..5).map(|number| Tag::new(tag::BRANCH, format!("{number}{}", "x".repeat(150)))).collect();
    let endless = Metric { name: MetricName::JobDuration, measure: Measure::Gauge(f64::INFINITY), tags: [].into() };
    let delivery = world.sink.deliver(vec![Signal::Check(huge), Signal::Metric(endless), check(7)]).await;
    assert_eq!(delivery, Delivery { taken: 3, rest: vec![], trouble: None });
    assert_eq!(read(|buffer| agent.recv(buffer), 1), [7]);
    assert!(world.counts("recoverd_datadog_dropped_total{kind=\"check\",reason=\"too_large\"} 1"));
    assert!(world.counts("recoverd_datadog_dropped_total{kind=\"metric\",reason=\"not_finite\"} 1"));
}

/// A measurement, not a promise: `cargo test --release --lib throughput -- --ignored --nocapture`, with a receiver of
/// your own at the target in `RECOVERD_MEASURE`.
#[tokio::test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "where to send is told by hand")]
async fn throughput() {
    let target = std::env::var("RECOVERD_MEASURE").unwrap();
    let world = World::new(&target, |_| ());
    let cpu_ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    for _ in 0..3 {
        let signals = checks(0..100_000);
        let (ticks, began) = (cpu_ticks(), Instant::now());
        let delivery = world.sink.deliver(signals).await;
        println!(
            "{target}: {} taken, {:?} of wall, {} cs of CPU",
            delivery.taken,
            began.elapsed(),
            cpu_ticks() - ticks
        );
    }
}
