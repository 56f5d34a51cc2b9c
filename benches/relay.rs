//! The relay, which adds the pod's tags, beside nginx `proxy_pass`, which adds nothing: same upstream, same load, same run, in
//! turn. Repeat it with `cargo bench --bench relay`; nginx is Debian's `nginx-light`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::unchecked_time_subtraction,
    reason = "a benchmark prints what it finds, and ends where it cannot go on"
)]

mod load;
#[path = "load/process.rs"]
mod process;
#[path = "load/proxy.rs"]
mod proxy;
#[path = "load/sentry.rs"]
mod sentry;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use process::Process;
use proxy::Proxy;

const CONNECTIONS: usize = 32;
/// Short runs, many of them in turn, each first every other time: what else the machine does then troubles both alike.
const REPEATS: usize = 9;
const IDLE: usize = 1_000;

/// Both sides' figures of one run.
#[derive(Clone, Copy)]
struct Run {
    per_second: f64,
    p99: f64,
    /// Processor time of the proxy alone, in microseconds a request.
    cpu: f64,
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = sentry::upstream();
    let more = format!("[relay]\nenabled = true\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}/\"\n");
    let socket = directory.path().join("dsd.socket");
    let _agent = load::Agent::start(&socket);
    let ours = Process::start(directory.path(), &socket, "1h", &more);
    let relay = ours.relay.expect("there is a relay");
    let Some(nginx) = Proxy::start(directory.path(), upstream) else {
        println!("nginx is not here (nginx-light)");
        return;
    };
    println!("{CONNECTIONS} connections, {REPEATS} runs of each in turn; medians, and the mean of the processor time");
    for (size, requests) in [(2_000, 16_000), (100_000, 4_000)] {
        for coding in ["identity", "gzip"] {
            let request = request(size, coding);
            let turn = |address, cpu: &dyn Fn() -> Duration| run(address, &request, requests, cpu);
            turn(relay, &|| ours.cpu());
            turn(nginx.address, &|| nginx.cpu());
            let (mut relayed, mut proxied) = (Vec::new(), Vec::new());
            for repeat in 0..REPEATS {
                if repeat % 2 == 0 {
                    relayed.push(turn(relay, &|| ours.cpu()));
                }
                proxied.push(turn(nginx.address, &|| nginx.cpu()));
                if repeat % 2 == 1 {
                    relayed.push(turn(relay, &|| ours.cpu()));
                }
            }
            print(&format!("{} KB {coding}", size / 1_000), &relayed, &proxied);
        }
    }
    idle(relay, &ours);
    drop(nginx);
    ours.stop();
    std::process::exit(0);
}

fn print(what: &str, relayed: &[Run], proxied: &[Run]) {
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let ratio = |figure: fn(&Run) -> f64| {
        median(relayed.iter().zip(proxied).map(|(relayed, proxied)| figure(relayed) / figure(proxied)).collect())
    };
    println!(
        "{what}: relay {:.0}/s, p99 {:.2} ms, {:.1} us   nginx {:.0}/s, p99 {:.2} ms, {:.1} us   ratio {:.2} (bar: 1.00), \
         p99 {:.2} (bar: 1.20), processor time {:.2}",
        of(relayed, |run| run.per_second),
        of(relayed, |run| run.p99),
        mean(relayed),
        of(proxied, |run| run.per_second),
        of(proxied, |run| run.p99),
        mean(proxied),
        ratio(|run| run.per_second),
        ratio(|run| run.p99),
        mean(relayed) / mean(proxied),
    );
}

/// Of the processor time, which the system tells in steps of 10 ms: over all runs they even out.
fn mean(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.cpu).sum::<f64>() / runs.len() as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// So many requests, each connection as fast as it is answered.
fn run(address: SocketAddr, request: &Bytes, requests: usize, cpu: &dyn Fn() -> Duration) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(load::Connection::open(address).await);
        }
        let (before, start) = (cpu(), Instant::now());
        let mut tasks = tokio::task::JoinSet::new();
        for mut connection in connections {
            let request = request.clone();
            tasks.spawn(async move {
                let mut waits = Vec::new();
                for _ in 0..requests / CONNECTIONS {
                    let asked = Instant::now();
                    assert_eq!(connection.ask(&request).await, 200);
                    waits.push(asked.elapsed());
                }
                waits
            });
        }
        let mut waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
        let took = start.elapsed();
        let cpu = (cpu() - before).as_secs_f64() * 1e6 / waits.len() as f64;
        waits.sort();
        let p99 = waits[waits.len() * 99 / 100].as_secs_f64() * 1_000.0;
        Run { per_second: waits.len() as f64 / took.as_secs_f64(), p99, cpu }
    })
}

/// Memory with many SDKs that have sent an event and keep their connection.
fn idle(address: SocketAddr, ours: &Process) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = request(2_000, "identity");
        let before = ours.resident_mib();
        let mut connections = Vec::new();
        for _ in 0..IDLE {
            let mut connection = load::Connection::open(address).await;
            assert_eq!(connection.ask(&request).await, 200);
            connections.push(connection);
        }
        println!("{IDLE} idle connections: {:.1} MiB resident, {before:.1} MiB before", ours.resident_mib());
    });
}

/// An envelope of one event, as SDKs send most.
fn request(size: usize, coding: &str) -> Bytes {
    let event = sentry::error(size, r#"{"route":"/cart"}"#);
    sentry::post("/api/7/envelope/", coding, &sentry::envelope(&[(r#""type":"event""#, event.as_bytes())]))
}
