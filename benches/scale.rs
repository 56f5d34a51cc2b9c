//! What 100,000 jobs cost: memory, time to be ready after a crash, CPU of a round, CPU of a webhook against 100 jobs.
//! Repeat it with `cargo bench --bench scale`.
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

use std::path::Path;
use std::time::Duration;

use process::Process;

const JOBS: usize = 100_000;
const FEW: usize = 100;
const CONNECTIONS: usize = 50;
/// Webhooks of each measurement.
const WEBHOOKS: usize = 50_000;

fn start(directory: &Path, socket: &Path, resend_interval: &str) -> Process {
    let more = format!(
        r#"
[[jenkins]]
name = "main"
url = "https://ci.example.org/"
tokens = ["{}"]
"#,
        load::TOKEN
    );
    Process::start(directory, socket, resend_interval, &more)
}

/// CPU of one webhook, in microseconds, with `WEBHOOKS` of them spread over `jobs` jobs.
fn cost(process: &Process, jobs: usize, first: u64) -> f64 {
    let before = process.cpu();
    if jobs <= FEW {
        load::flood(process.webhooks, CONNECTIONS, jobs, first, (WEBHOOKS / jobs) as u64);
    } else {
        load::flood_sample(process.webhooks, CONNECTIONS, jobs, WEBHOOKS, first);
    }
    std::thread::sleep(Duration::from_secs(2));
    (process.cpu() - before).as_secs_f64() * 1e6 / WEBHOOKS as f64
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let agent = load::Agent::start(&socket);

    let mut process = start(directory.path(), &socket, "1h");
    std::thread::sleep(Duration::from_secs(1));
    println!("idle: {:.1} MiB resident (bar: 15)", process.resident_mib());
    cost(&process, FEW, 1);
    let few = cost(&process, FEW, 10_000);
    load::flood(process.webhooks, CONNECTIONS, JOBS, 1, 1);
    println!("{JOBS} jobs, after their first builds: {:.1} MiB resident (bar: 100)", process.resident_mib());
    cost(&process, JOBS, 2);
    let many = cost(&process, JOBS, 3);
    println!(
        "a webhook costs {few:.1} us of CPU at {FEW} jobs, {many:.1} at {JOBS}: ratio {:.2} (bar: 1.2)",
        many / few
    );
    println!("under that load: {:.1} MiB resident", process.resident_mib());

    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let before = agent.checks();
    let process = start(directory.path(), &socket, "20s");
    println!("ready {:.0} ms after a SIGKILL with {JOBS} jobs (bar: 300)", process.ready_after.as_secs_f64() * 1e3);
    let started = process.cpu();
    while agent.checks() < before + JOBS as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("a round of {JOBS} checks: {:.2} s of CPU (bar: 1)", (process.cpu() - started).as_secs_f64());
    println!("after it: {:.1} MiB resident (bar: 100)", process.resident_mib());
    process.stop();
}
