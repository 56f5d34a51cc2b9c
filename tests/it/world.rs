//! What the tests stand on: recoverd in this process or as a child, and an Agent that listens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use recoverd::app::{Bound, Running};
use recoverd::config::{Environment, Settings};
use recoverd::datadog::decode::{self, Datagram, decode};
use recoverd::domain::pod::PodIdentity;
use recoverd::machinery::clock::Clock;
use recoverd::machinery::supervise::Ended;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::process::{Child, Command};

/// The token of every controller in these tests.
pub const TOKEN: &str = "a-token-for-the-tests";

/// Beyond this something hangs: a bound on waiting, never a measure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with free ports; `more` comes behind the tables that every test needs.
pub fn settings_text(directory: &Path, agent: &str, more: &str) -> String {
    let data_dir = directory.join("data").display().to_string();
    format!(
        r#"
data_dir = {data_dir:?}
[webhooks]
listen = "127.0.0.1:0"
rate_per_second = 100000
burst = 100000
[admin]
listen = "127.0.0.1:0"
[datadog]
dogstatsd = "{agent}"
resend_interval = "1s"
{more}"#
    )
}

/// One Jenkins, `main`.
pub fn main_controller() -> String {
    format!("[[jenkins]]\nname = \"main\"\nurl = \"https://ci.example.org/\"\ntokens = [\"{TOKEN}\"]\n")
}

/// recoverd in this process, and its Agent.
pub struct World {
    pub running: Running,
    pub agent: Agent,
    pub client: reqwest::Client,
    pub directory: TempDir,
    text: String,
}

impl World {
    /// With one controller, `main`.
    pub async fn spawn() -> Self {
        Self::with(&main_controller()).await
    }

    /// With these tables behind the usual ones.
    pub async fn with(more: &str) -> Self {
        Self::on(tempfile::tempdir().unwrap(), more).await
    }

    /// On what the directory `data` in there holds.
    pub async fn on(directory: TempDir, more: &str) -> Self {
        Self::at(directory, more, Clock::system()).await
    }

    /// With a clock that the test sets.
    pub async fn at(directory: TempDir, more: &str, clock: Clock) -> Self {
        let agent = Agent::udp().await;
        let text = settings_text(directory.path(), &agent.address, more);
        let running = start(&directory, &text, clock).await;
        Self { running, agent, client: reqwest::Client::new(), directory, text }
    }

    /// Stops and starts again on the same data, with the same Agent.
    pub async fn restarted(self) -> Self {
        let text = self.text.clone();
        self.restarted_with(text).await
    }

    /// The same with `change` made to the settings' text.
    pub async fn restarted_with(self, text: String) -> Self {
        let Self { running, agent, client, directory, .. } = self;
        assert_eq!(running.end(PATIENCE).await, Ended::Drained);
        Self { running: start(&directory, &text, Clock::system()).await, agent, client, directory, text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn webhook_url(&self, rest: &str) -> String {
        format!("http://{}/jenkins/{rest}", self.running.addresses.webhooks)
    }

    pub fn relay_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addresses.relay.expect("there is a relay"))
    }

    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addresses.admin)
    }

    /// Posts a document for `main` and returns the status and the answer's `result`.
    pub async fn post(&self, document: impl Into<reqwest::Body>) -> (u16, String) {
        let request = self.client.post(self.webhook_url("main")).bearer_auth(TOKEN).body(document);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        (status, answer["result"].as_str().unwrap_or_default().to_owned())
    }

    /// A completed build, which must be accepted.
    pub async fn build(&self, job: &str, number: u64, result: &str) {
        let (status, _) = self.post(completed(job, number, result).to_string()).await;
        assert_eq!(status, 200, "{job} #{number} {result}");
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.admin_url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Stops, drains, and shows that no task failed.
    pub async fn finish(self) {
        assert_eq!(self.running.end(PATIENCE).await, Ended::Drained);
    }
}

async fn start(directory: &TempDir, text: &str, clock: Clock) -> Running {
    let settings = load(directory.path(), text);
    let bound = Bound::bind(&settings).await.unwrap();
    bound.start(&settings, own_pod(), clock).unwrap()
}

/// The pod that recoverd is in.
pub fn own_pod() -> PodIdentity {
    PodIdentity {
        name: Some("web-1".to_owned()),
        namespace: Some("shop".to_owned()),
        node: Some("node-a".to_owned()),
        ..PodIdentity::default()
    }
}

pub fn load(directory: &Path, text: &str) -> Settings {
    let file = directory.join("recoverd.toml");
    std::fs::write(&file, text).unwrap();
    Settings::load(Some(&file), &Environment::new()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// When the first build of a job is created.
pub const CREATED: i64 = 1_780_000_000_000;

/// A COMPLETED document: builds are a minute apart and take half of one.
pub fn completed(job: &str, number: u64, result: &str) -> Value {
    let mut url = String::new();
    for name in job.split('/') {
        url.extend(["job/", &name.replace('%', "%25"), "/"]);
    }
    json!({
        "name": job.rsplit('/').next().unwrap(),
        "url": url,
        "build": {
            "full_url": format!("https://ci.example.org/{url}{number}/"),
            "number": number,
            "queue_id": number,
            "timestamp": CREATED + i64::try_from(number).unwrap() * 60_000 + 30_000,
            "duration": 30_000,
            "phase": "COMPLETED",
            "status": result,
            "url": format!("{url}{number}/"),
        },
    })
}

/// Stands where Datadog's Agent does.
pub struct Agent {
    /// As in `datadog.dogstatsd`.
    pub address: String,
    socket: Socket,
    /// The rest of the datagram that is being read.
    rest: Mutex<VecDeque<Datagram>>,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Agent {
    pub async fn udp() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: format!("udp://{}", socket.local_addr().unwrap()),
            socket: Socket::Udp(socket),
            rest: Mutex::default(),
        }
    }

    /// The file must not be there yet.
    pub fn unix(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self { address: format!("unix://{}", path.display()), socket: Socket::Unix(socket), rest: Mutex::default() }
    }

    /// What is left of one datagram, or the next one. Empty ones are knocks at the door.
    pub async fn next(&self) -> Vec<Datagram> {
        loop {
            let rest: Vec<Datagram> = self.rest.lock().unwrap().drain(..).collect();
            let messages = if rest.is_empty() { self.receive().await } else { rest };
            if !messages.is_empty() {
                return messages;
            }
        }
    }

    async fn receive(&self) -> Vec<Datagram> {
        let mut buffer = vec![0; 65_536];
        let receiving = async {
            match &self.socket {
                Socket::Udp(socket) => socket.recv(&mut buffer).await,
                Socket::Unix(socket) => socket.recv(&mut buffer).await,
            }
        };
        let length = tokio::time::timeout(PATIENCE, receiving).await.expect("no datagram came").unwrap();
        let datagram = &buffer[..length];
        decode(datagram).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(datagram)))
    }

    /// Leaves unread what has come until now.
    pub fn forget(&self) {
        self.rest.lock().unwrap().clear();
        let mut buffer = vec![0; 65_536];
        let is_more = |buffer: &mut [u8]| match &self.socket {
            Socket::Udp(socket) => socket.try_recv(buffer).is_ok(),
            Socket::Unix(socket) => socket.try_recv(buffer).is_ok(),
        };
        while is_more(&mut buffer) {}
    }

    /// The next message, whichever datagram it is in.
    async fn message(&self) -> Datagram {
        loop {
            if let Some(message) = self.rest.lock().unwrap().pop_front() {
                return message;
            }
            let more = self.receive().await;
            self.rest.lock().unwrap().extend(more);
        }
    }

    /// The next check of this job, whatever comes before it.
    pub async fn next_check(&self, job: &str) -> decode::Check {
        let wanted = format!("job:{job}");
        loop {
            match self.message().await {
                Datagram::Check(check) if check.tags.contains(&wanted) => return check,
                _ => {}
            }
        }
    }

    /// Waits until a check of this job has this status.
    pub async fn expect(&self, job: &str, status: u8) -> decode::Check {
        let waiting = async {
            loop {
                let check = self.next_check(job).await;
                if check.status == status {
                    return check;
                }
            }
        };
        let hint = || panic!("no check said {status} of {job}");
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| hint())
    }

    pub async fn next_event(&self) -> decode::Event {
        loop {
            if let Datagram::Event(event) = self.message().await {
                return event;
            }
        }
    }

    /// The next sample of this metric.
    pub async fn next_metric(&self, name: &str) -> decode::Metric {
        loop {
            match self.message().await {
                Datagram::Metric(metric) if metric.name == name => return metric,
                _ => {}
            }
        }
    }
}

pub const OK: u8 = 0;
pub const WARNING: u8 = 1;
pub const CRITICAL: u8 = 2;

/// The built command.
pub fn recoverd() -> PathBuf {
    env!("CARGO_BIN_EXE_recoverd").into()
}

/// recoverd as a child, to be killed.
pub struct Process {
    pub child: Child,
    pub webhooks: SocketAddr,
    pub admin: SocketAddr,
    pub relay: Option<SocketAddr>,
    /// What it logged before it was ready.
    pub said: String,
}

impl Process {
    /// Runs `serve` with these settings, by `command` if it must be wrapped.
    pub async fn spawn(directory: &Path, text: &str, mut command: Command) -> Self {
        let file = directory.join("recoverd.toml");
        std::fs::write(&file, format!("{text}\n[log]\nformat = \"json\"\n")).unwrap();
        command.args(["serve", "--config"]).arg(&file).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let value: Value = serde_json::from_str(&line).unwrap_or_default();
                if value["message"] == "recoverd is ready" {
                    return (value, seen);
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            panic!("recoverd ended before it was ready:\n{seen}");
        };
        let (ready, said) = tokio::time::timeout(PATIENCE, ready).await.expect("recoverd did not start");
        // The pipe must not fill up.
        #[expect(clippy::disallowed_methods, reason = "it ends with the child")]
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = |field: &str| ready[field].as_str().unwrap().parse().unwrap();
        let relay = ready["relay"].as_str().map(|address| address.parse().unwrap());
        Self { webhooks: address("webhooks"), admin: address("admin"), relay, said, child }
    }
}
