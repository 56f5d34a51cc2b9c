//! Webhook to datagram, durable, beside a bare axum handler that parses the same body and keeps nothing: same machine,
//! same run, same load. Repeat it with `cargo bench --bench webhook`.
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
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use recoverd::app::Bound;
use recoverd::config::{Environment, Settings};
use recoverd::domain::pod::PodIdentity;
use recoverd::machinery::clock::Clock;
use serde::Deserialize;

const CONNECTIONS: usize = 128;
const JOBS: usize = 1_000;
const ROUNDS: u64 = 40;
const REPEATS: usize = 5;

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

fn main() {
    let bare = bare_axum();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let checks = load::agent(&socket);
    let ours = recoverd(directory.path(), &socket);

    let nginx = nginx::Nginx::start(directory.path(), &socket);
    if nginx.is_none() {
        println!("nginx with Lua is not here (nginx-light libnginx-mod-http-lua lua-cjson): left out");
    }
    println!(
        "{CONNECTIONS} connections, {JOBS} jobs, {} webhooks a run, {REPEATS} runs of each in turn",
        JOBS as u64 * ROUNDS
    );
    let (mut ratios, mut to_nginx) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS as u64 {
        let first = 1 + repeat * ROUNDS;
        let webhooks = JOBS as u64 * ROUNDS;
        let began = load::cpu();
        let plain = per_second(webhooks, load::flood(bare, CONNECTIONS, JOBS, first, ROUNDS));
        let plain_cpu = micros(load::cpu() - began, webhooks);

        let began = load::cpu();
        let before = checks.load(Ordering::Relaxed);
        let start = Instant::now();
        let answered = load::flood(ours, CONNECTIONS, JOBS, first, ROUNDS);
        let made_ready = start.elapsed().saturating_sub(answered);
        while checks.load(Ordering::Relaxed) < before + webhooks {
            assert!(start.elapsed() < Duration::from_mins(2), "checks are missing");
            std::thread::sleep(Duration::from_millis(1));
        }
        let told = start.elapsed().saturating_sub(made_ready);
        let (answered, told) = (per_second(webhooks, answered), per_second(webhooks, told));
        println!(
            "bare axum {plain:8.0}/s, {plain_cpu:.1} us   recoverd answered {answered:8.0}/s, told {told:8.0}/s, {:.1} us   ratio {:.2}",
            micros(load::cpu() - began, webhooks),
            told / plain
        );
        ratios.push(told / plain);
        if let Some(nginx) = &nginx {
            let glue = per_second(webhooks, load::flood(nginx.address, CONNECTIONS, JOBS, first, ROUNDS));
            println!("nginx with Lua {glue:8.0}/s   ratio {:.2}", told / glue);
            to_nginx.push(told / glue);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio, webhook to datagram against bare axum: {:.2} (bar: 0.50)", ratios[REPEATS / 2]);
    to_nginx.sort_by(f64::total_cmp);
    if let Some(median) = to_nginx.get(REPEATS / 2) {
        println!("median ratio, webhook to datagram against nginx with Lua: {median:.2} (bar: 1.50)");
    }
    drop(nginx);
    paced(ours, 1 + REPEATS as u64 * ROUNDS);
    // The servers' threads end with the process.
    std::process::exit(0);
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

/// Processor time of both sides, load and Agent included.
fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn bare_axum() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
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
    });
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
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("recoverd").enable_all().build().unwrap();
        runtime.block_on(async {
            let bound = Bound::bind(&settings).await.unwrap();
            let running = bound.start(&settings, PodIdentity::default(), Clock::system()).unwrap();
            sender.send(running.addresses.webhooks).unwrap();
            running.failed().cancelled().await;
        });
    });
    receiver.recv().unwrap()
}
