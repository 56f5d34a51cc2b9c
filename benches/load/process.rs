//! recoverd as a child, and what it costs.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Process {
    pub(crate) child: Child,
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) webhooks: SocketAddr,
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) admin: SocketAddr,
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) relay: Option<SocketAddr>,
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) ready_after: Duration,
}

impl Process {
    /// With the tables of `more` behind those that every benchmark needs.
    pub(crate) fn start(directory: &Path, socket: &Path, resend_interval: &str, more: &str) -> Self {
        let text = format!(
            r#"
data_dir = {:?}
[webhooks]
listen = "127.0.0.1:0"
rate_per_second = 4000000
burst = 4000000
[admin]
listen = "127.0.0.1:0"
[datadog]
dogstatsd = "unix://{}"
resend_interval = "{resend_interval}"
[log]
format = "json"
{more}"#,
            directory.join("data").display().to_string(),
            socket.display()
        );
        let file = directory.join("recoverd.toml");
        std::fs::write(&file, text).unwrap();
        let start = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "a benchmark has no configuration")]
        let another = std::env::var_os("RECOVERD");
        let mut child = Command::new(another.unwrap_or_else(|| env!("CARGO_BIN_EXE_recoverd").into()))
            .args(["serve", "--config"])
            .arg(&file)
            // What it is to do is in the file; a proxy, another store or a Sentry of its own would be none of that.
            .env_clear()
            .envs([("POD_NAME", "bench-0"), ("POD_NAMESPACE", "shop"), ("NODE_NAME", "node-a")])
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
        let address = |field: &str| ready[field].as_str().unwrap().parse().unwrap();
        let relay = ready["relay"].as_str().and_then(|address| address.parse().ok());
        Self { child, webhooks: address("webhooks"), admin: address("admin"), relay, ready_after }
    }

    /// As an operator does; what it has gathered about itself is written then.
    pub(crate) fn stop(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "recoverd did not end well");
    }

    pub(crate) fn cpu(&self) -> Duration {
        crate::load::cpu_of(self.child.id())
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever had.
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) fn peak_mib(&self) -> f64 {
        self.memory("VmHWM:")
    }

    /// In kB, see proc(5).
    fn memory(&self, line: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|found| found.starts_with(line)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

/// Also where a benchmark fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
