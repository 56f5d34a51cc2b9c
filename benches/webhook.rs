//! Webhook to datagram, durable, beside a bare axum handler that parses the same body and keeps nothing, and beside nginx with
//! Lua that sends what it can without a memory: same machine, same run, same load, in turns. Repeat it with
//! `cargo bench --bench webhook`.
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
#[path = "load/nginx.rs"]
mod nginx;

use std::net::SocketAddr;
use std::time::Duration;

use recoverd::app::Bound;
use recoverd::config::{Environment, Settings};
use recoverd::domain::pod::PodIdentity;
use recoverd::machinery::clock::Clock;
use serde::Deserialize;

const CONNECTIONS: usize = 128;
const JOBS: usize = 1_000;
const ROUNDS: u64 = 40;
const WEBHOOKS: u64 = JOBS as u64 * ROUNDS;
const REPEATS: usize = 9;

/// What the bare handler takes out of a document: as much as one needs to make a check of it.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, as the other side does, and then thrown away")]
struct Document {
    name: String,
    url: String,
    build: Build,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, as the other side does, and then thrown away")]
struct Build {
    full_url: String,
    number: u64,
    timestamp: i64,
    duration: u64,
    phase: String,
    status: String,
    url: String,
    scm: Scm,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, as the other side does, and then thrown away")]
struct Scm {
    branch: String,
    commit: String,
}

/// One server's figures of one run.
#[derive(Clone, Copy)]
struct Run {
    /// Until all are answered.
    answered: f64,
    /// Until the Agent has the last check that it gets.
    told: f64,
    lost: u64,
    /// Processor time of the server alone, in microseconds a webhook.
    cpu: f64,
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let agent = load::Agent::start(&socket);
    let bare = bare_axum();
    let ours = recoverd(directory.path(), &socket);
    let nginx = nginx::Nginx::start(directory.path(), &socket);
    if nginx.is_none() {
        println!("nginx with Lua is not here (nginx-light libnginx-mod-http-lua lua-cjson): left out");
    }
    println!("{CONNECTIONS} connections, {JOBS} jobs, {WEBHOOKS} webhooks a run, {REPEATS} runs of each in turn");
    let (mut to_bare, mut to_nginx) = (Vec::new(), Vec::new());
    // Not counted: what is made at the first webhook, a server makes here.
    for repeat in 0..=REPEATS {
        let first = 1 + repeat as u64 * ROUNDS;
        let (mut plain, mut told, mut glue) = (None, None, None);
        for turn in 0..3 {
            // Each is the first, the second and the last as often as the others.
            match (repeat + turn) % 3 {
                0 => plain = Some(run(bare, first, None, &|| load::cpu_of_threads(|name| name == "bare"))),
                1 => told = Some(run(ours, first, Some(&agent), &|| load::cpu_of_threads(is_ours))),
                _ => glue = nginx.as_ref().map(|nginx| run(nginx.address, first, Some(&agent), &|| nginx.cpu())),
            }
        }
        if repeat == 0 {
            continue;
        }
        let (plain, told) = (plain.unwrap(), told.unwrap());
        assert_eq!(told.lost, 0, "checks of ours are missing");
        print!("bare axum {:.0}/s, {:.1} us", plain.answered, plain.cpu);
        print!("   recoverd {:.0}/s (answered {:.0}/s), {:.1} us", told.told, told.answered, told.cpu);
        to_bare.push(told.told / plain.answered);
        if let Some(glue) = glue {
            print!("   nginx {:.0}/s (answered {:.0}/s), {:.1} us", glue.told, glue.answered, glue.cpu);
            if glue.lost > 0 {
                print!(", {} checks lost", glue.lost);
            }
            to_nginx.push(told.told / glue.told);
        }
        println!();
    }
    println!("median ratio, webhook to datagram against bare axum: {:.2} (bar: 0.50)", median(to_bare));
    if !to_nginx.is_empty() {
        println!("median ratio, webhook to datagram against nginx with Lua: {:.2} (bar: 1.50)", median(to_nginx));
    }
    drop(nginx);
    paced(ours, 1 + (REPEATS as u64 + 1) * ROUNDS);
    // The servers' threads end with the process.
    std::process::exit(0);
}

/// One flood. `agent`: where the server tells what it was sent.
fn run(address: SocketAddr, first: u64, agent: Option<&load::Agent>, cpu: &dyn Fn() -> Duration) -> Run {
    let before = agent.map_or(0, load::Agent::checks);
    let began = cpu();
    let (start, answered) = load::flood(address, CONNECTIONS, JOBS, first, ROUNDS);
    let told = agent.map_or(answered, |agent| agent.wait_for(before + WEBHOOKS).saturating_duration_since(start));
    let arrived = agent.map_or(WEBHOOKS, |agent| agent.checks() - before);
    Run {
        answered: WEBHOOKS as f64 / answered.as_secs_f64(),
        told: arrived as f64 / told.max(answered).as_secs_f64(),
        lost: WEBHOOKS - arrived,
        cpu: (cpu() - began).as_secs_f64() * 1e6 / WEBHOOKS as f64,
    }
}

/// Every thread but those of the load (this process' own), the Agent and the peer.
fn is_ours(thread: &str) -> bool {
    !thread.starts_with("webhook") && !["agent", "bare"].contains(&thread)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A thousand webhooks a second, evenly, and how long each takes to be answered.
fn paced(address: SocketAddr, first: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let start = tokio::time::Instant::now() + Duration::from_millis(50);
        for connection in 0..50_u64 {
            tasks.spawn(async move {
                let mut waits = Vec::new();
                let mut stream = load::Connection::open(address).await;
                for turn in 0..200_u64 {
                    let due = start + Duration::from_millis(connection + turn * 50);
                    let request = load::request(&load::document(usize::try_from(connection).unwrap(), first + turn));
                    tokio::time::sleep_until(due).await;
                    assert_eq!(stream.ask(&request).await, 200);
                    // From when it was due: a server that stalls does not slow the clock.
                    waits.push(due.elapsed());
                }
                waits
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    });
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    println!("at 1,000/s: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms (bar: p99 10 ms)", at(0.5), at(0.99), at(0.999));
}

fn bare_axum() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("bare").enable_all().build().unwrap();
        runtime.block_on(async {
            let parse = |body: bytes::Bytes| async move {
                let document: Document = serde_json::from_slice(&body).unwrap();
                std::hint::black_box(document);
                axum::Json(serde_json::json!({ "result": "finished" }))
            };
            let router = axum::Router::new().route("/jenkins/{controller}", axum::routing::post(parse));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(axum::serve::ListenerExt::tap_io(listener, |tcp| tcp.set_nodelay(true).unwrap()), router)
                .await
                .unwrap();
        });
    };
    std::thread::Builder::new().name("bare".to_owned()).spawn(serve).unwrap();
    receiver.recv().unwrap()
}

fn recoverd(directory: &std::path::Path, socket: &std::path::Path) -> SocketAddr {
    let text = format!(
        r#"
data_dir = {:?}
[webhooks]
listen = "127.0.0.1:0"
rate_per_second = 4000000
burst = 4000000
max_connections_per_peer = 1000
[admin]
listen = "127.0.0.1:0"
[[jenkins]]
name = "main"
url = "https://ci.example.org/"
tokens = ["{}"]
[datadog]
dogstatsd = "unix://{}"
resend_interval = "1h"
"#,
        directory.join("data").display().to_string(),
        load::TOKEN,
        socket.display()
    );
    let file = directory.join("recoverd.toml");
    std::fs::write(&file, text).unwrap();
    let settings = Settings::load(Some(&file), &Environment::new()).unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("recoverd").enable_all().build().unwrap();
        runtime.block_on(async {
            let bound = Bound::bind(&settings).await.unwrap();
            let running = bound.start(&settings, PodIdentity::default(), Clock::system()).unwrap();
            sender.send(running.addresses.webhooks).unwrap();
            running.failed().cancelled().await;
        });
    };
    std::thread::Builder::new().name("recoverd".to_owned()).spawn(serve).unwrap();
    receiver.recv().unwrap()
}
