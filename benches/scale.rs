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

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const JOBS: usize = 100_000;
const FEW: usize = 100;
const CONNECTIONS: usize = 50;
/// Webhooks of each measurement.
const WEBHOOKS: usize = 50_000;

struct Process {
    child: Child,
    webhooks: SocketAddr,
    ready_after: Duration,
}

impl Process {
    fn start(directory: &Path, socket: &Path, resend_interval: &str) -> Self {
        let text = format!(
            r#"
data_dir = {:?}
[webhooks]
listen = "127.0.0.1:0"
rate_per_second = 4000000
burst = 4000000
[admin]
listen = "127.0.0.1:0"
[[jenkins]]
name = "main"
url = "https://ci.example.org/"
tokens = ["{}"]
[datadog]
dogstatsd = "unix://{}"
resend_interval = "{resend_interval}"
[log]
format = "json"
"#,
            directory.join("data").display().to_string(),
            load::TOKEN,
            socket.display()
        );
        let file = directory.join("recoverd.toml");
        std::fs::write(&file, text).unwrap();
        let start = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_recoverd"))
            .args(["serve", "--config"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = loop {
            let line = lines.next().expect("recoverd ended").unwrap();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            if value["message"] == "recoverd is ready" {
                break value;
            }
        };
        let ready_after = start.elapsed();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, webhooks: ready["webhooks"].as_str().unwrap().parse().unwrap(), ready_after }
    }

    fn cpu(&self) -> Duration {
        load::cpu_of(self.child.id())
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// CPU of one webhook, in microseconds, with `WEBHOOKS` of them spread over `jobs` jobs.
    fn cost(&self, jobs: usize, first: u64) -> f64 {
        let before = self.cpu();
        if jobs <= FEW {
            load::flood(self.webhooks, CONNECTIONS, jobs, first, (WEBHOOKS / jobs) as u64);
        } else {
            load::flood_sample(self.webhooks, CONNECTIONS, jobs, WEBHOOKS, first);
        }
        std::thread::sleep(Duration::from_secs(2));
        (self.cpu() - before).as_secs_f64() * 1e6 / WEBHOOKS as f64
    }
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let checks = load::agent(&socket);

    let mut process = Process::start(directory.path(), &socket, "1h");
    std::thread::sleep(Duration::from_secs(1));
    println!("idle: {:.1} MiB resident (bar: 15)", process.resident_mib());
    process.cost(FEW, 1);
    let few = process.cost(FEW, 10_000);
    load::flood(process.webhooks, CONNECTIONS, JOBS, 1, 1);
    println!("{JOBS} jobs, after their first builds: {:.1} MiB resident (bar: 100)", process.resident_mib());
    process.cost(JOBS, 2);
    let many = process.cost(JOBS, 3);
    println!(
        "a webhook costs {few:.1} us of CPU at {FEW} jobs, {many:.1} at {JOBS}: ratio {:.2} (bar: 1.2)",
        many / few
    );
    println!("under that load: {:.1} MiB resident", process.resident_mib());

    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let before = checks.load(Ordering::Relaxed);
    let mut process = Process::start(directory.path(), &socket, "20s");
    println!("ready {:.0} ms after a SIGKILL with {JOBS} jobs (bar: 300)", process.ready_after.as_secs_f64() * 1e3);
    let started = process.cpu();
    while checks.load(Ordering::Relaxed) < before + JOBS as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("a round of {JOBS} checks: {:.2} s of CPU (bar: 1)", (process.cpu() - started).as_secs_f64());
    println!("after it: {:.1} MiB resident (bar: 100)", process.resident_mib());
    process.child.kill().unwrap();
    process.child.wait().unwrap();
}
