//! Bugsink, a real server that speaks Sentry's protocol, as a child process. `ci/bugsink` installs and starts it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

/// A server with one project, gone when dropped.
pub struct Bugsink {
    pub dsn: String,
    room: TempDir,
    server: Child,
}

/// An event as Bugsink stored it.
#[derive(Debug)]
pub struct StoredEvent {
    /// Of the log line, or of the panic.
    pub message: String,
    pub level: String,
    /// In the event's order.
    pub tags: Vec<(String, String)>,
    /// All of it.
    pub raw: Value,
}

impl Bugsink {
    /// The first start on a machine installs it, which takes a minute or two.
    pub fn start() -> Self {
        let room = TempDir::new().expect("a directory");
        let mut server = Command::new(script())
            .arg(free_port().to_string())
            .arg(room.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ci/bugsink runs");
        let mut line = String::new();
        let stdout = server.stdout.take().expect("its output is ours");
        BufReader::new(stdout).read_line(&mut line).expect("a line of text");
        let dsn =
            line.split(' ').next().filter(|dsn| dsn.starts_with("http")).expect("ci/bugsink prints a DSN").to_owned();
        Self { dsn, room, server }
    }

    /// All that has arrived.
    pub fn events(&self) -> Vec<StoredEvent> {
        self.stored("events").lines().map(StoredEvent::read).collect()
    }

    /// The bodies of all that was posted, in the order in which they came, byte for byte, but decompressed.
    pub fn envelopes(&self) -> Vec<Vec<u8>> {
        self.stored("envelopes").lines().map(|line| STANDARD.decode(line).expect("base64")).collect()
    }

    fn stored(&self, what: &str) -> String {
        let output = Command::new(script()).arg(what).arg(self.room.path()).output().expect("ci/bugsink runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The first event that `is` what is looked for, of those that arrive within `patience`.
    pub fn wait_for(&self, patience: Duration, is: impl Fn(&StoredEvent) -> bool) -> StoredEvent {
        let end = Instant::now() + patience;
        loop {
            let events = self.events();
            let seen: Vec<_> = events.iter().map(|event| event.message.clone()).collect();
            if let Some(event) = events.into_iter().find(&is) {
                return event;
            }
            assert!(Instant::now() < end, "no such event; Bugsink has {seen:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Bugsink {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

impl StoredEvent {
    fn read(line: &str) -> Self {
        let raw: Value = serde_json::from_str(line).expect("Bugsink stores JSON");
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let message = ["/logentry/formatted", "/logentry/message", "/message", "/exception/values/0/value"];
        let tags = match &raw["tags"] {
            Value::Object(tags) => tags.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
            Value::Array(tags) => tags.iter().map(|pair| (plain(&pair[0]), plain(&pair[1]))).collect(),
            _ => Vec::new(),
        };
        Self {
            message: message.into_iter().find_map(text).unwrap_or_default(),
            // Sentry's default, which the crate leaves out.
            level: text("/level").unwrap_or_else(|| "error".to_owned()),
            tags,
            raw,
        }
    }

    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// A port that nobody has right now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/bugsink")
}
