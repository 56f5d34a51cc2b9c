//! `recoverd demo`: the real server on free ports, an Agent that prints what arrives, and a played Jenkins day.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::admin_api::client;
use super::table::{colour, harmless};
use super::{Exit, jobs};
use crate::app::{Bound, Running};
use crate::config::{Environment, Settings};
use crate::datadog::decode::{Datagram, decode};
use crate::domain::pod::PodIdentity;
use crate::domain::signal::JOB_STATUS;
use crate::domain::status::Status;
use crate::http::admin::JobsView;
use crate::machinery::clock::Clock;
use crate::machinery::supervise::{Ended, Supervisor};

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// End after the story instead of staying up.
    #[arg(long)]
    exit: bool,
}

const TOKEN: &str = "demo-token-not-a-secret";
const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than anything in the demo takes; beyond it the demo has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// When nothing was sent for so long, all that a build leads to has been.
const QUIET: Duration = Duration::from_millis(150);

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let exit = runtime.block_on(self.play());
        runtime.shutdown_background();
        exit
    }

    async fn play(self) -> anyhow::Result<Exit> {
        let directory = Directory::create()?;
        let agent_tasks = Supervisor::default();
        let agent = Agent::listen(&agent_tasks).await?;
        let settings = settings(&directory, agent.address)?;
        let stage = Stage::start(settings, agent).await?;

        say(
            "recoverd runs with a store in a temporary directory, and a stand-in for Datadog's Agent prints what it is sent.",
        );
        say(&format!(
            "Webhooks go to http://{}/jenkins/demo, and every line that begins with an arrow is a datagram.",
            stage.running.addresses.webhooks
        ));
        let stage = stage.tell_the_day().await?;
        stage.print_table().await?;

        if !self.exit {
            stage.invite().await;
            tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
        }
        let ended = stage.running.end(DEADLINE).await;
        agent_tasks.end(DEADLINE).await;
        Ok(if ended == Ended::Drained { Exit::Success } else { Exit::Failure })
    }
}

/// The running server, with its Jenkins and its Agent.
struct Stage {
    settings: Settings,
    running: Running,
    agent: Agent,
    client: reqwest::Client,
    now: i64,
}

/// One build of the day.
struct Build<'a> {
    job: &'a str,
    number: u64,
    phase: &'a str,
    result: &'a str,
    node: &'a str,
    /// Minutes into the day at which it was created.
    at: i64,
}

impl Stage {
    async fn start(settings: Settings, agent: Agent) -> anyhow::Result<Self> {
        let running = start(&settings).await?;
        let now = Clock::system().now().as_millis() - 8 * 3_600_000;
        let client = client(&format!("http://{}/", running.addresses.webhooks).parse()?)?;
        Ok(Self { settings, running, agent, client, now })
    }

    async fn tell_the_day(mut self) -> anyhow::Result<Self> {
        let login = "acme/web/feature%2Flogin";
        let main = "acme/web/main";

        self.scene("08:00  A branch fails on one node").await;
        self.build(Build { job: main, number: 41, phase: "COMPLETED", result: "SUCCESS", node: "linux-1", at: 0 })
            .await?;
        self.agent.expect("acme/web", Status::Ok).await?;
        self.build(Build { job: login, number: 7, phase: "COMPLETED", result: "FAILURE", node: "linux-1", at: 5 })
            .await?;
        self.agent.expect("acme/web", Status::Critical).await?;

        self.scene("08:10  A build is aborted: that says nothing of the job, so the alert holds").await;
        self.build(Build { job: main, number: 42, phase: "COMPLETED", result: "ABORTED", node: "linux-2", at: 10 })
            .await?;
        self.agent.expect("acme/web", Status::Critical).await?;

        self.scene("08:15  Another branch passes on another node: one job, one tag set, so the alert recovers").await;
        self.build(Build { job: main, number: 43, phase: "COMPLETED", result: "SUCCESS", node: "windows-3", at: 15 })
            .await?;
        self.agent.expect("acme/web", Status::Ok).await?;

        self.scene("08:20  A late duplicate of the failure arrives: it changes nothing").await;
        self.build(Build { job: login, number: 7, phase: "FINALIZED", result: "FAILURE", node: "linux-1", at: 5 })
            .await?;

        self.scene("09:00  The nightly job fails, and then recoverd itself is restarted").await;
        self.build(Build {
            job: "nightly",
            number: 300,
            phase: "COMPLETED",
            result: "FAILURE",
            node: "linux-2",
            at: 60,
        })
        .await?;
        self.agent.expect("nightly", Status::Critical).await?;
        self = self.restart().await?;
        self.agent.expect("nightly", Status::Critical).await?;
        say("The status was stored before the webhook was answered, so it is told again.");

        self.scene("10:00  The nightly job is mended").await;
        self.build(Build {
            job: "nightly",
            number: 301,
            phase: "COMPLETED",
            result: "SUCCESS",
            node: "linux-1",
            at: 120,
        })
        .await?;
        self.agent.expect("nightly", Status::Ok).await?;

        self.scene("10:05  Another job breaks, and stays so").await;
        self.build(Build {
            job: "deploy",
            number: 12,
            phase: "COMPLETED",
            result: "FAILURE",
            node: "linux-2",
            at: 125,
        })
        .await?;
        self.agent.expect("deploy", Status::Critical).await?;
        Ok(self)
    }

    async fn build(&self, build: Build<'_>) -> anyhow::Result<()> {
        let Build { job, number, phase, result, node, at } = build;
        let leaf = job.rsplit('/').next().unwrap_or(job);
        let (created, duration) = (self.now + at * 60_000, 90_000);
        let mut url = String::new();
        for name in job.split('/') {
            url.extend(["job/", &name.replace('%', "%25"), "/"]);
        }
        let document = json!({
            "name": leaf,
            "url": url,
            "build": {
                "number": number,
                "phase": phase,
                "status": result,
                "timestamp": created + duration,
                "duration": duration,
                "url": format!("{url}{number}/"),
                "full_url": format!("https://jenkins.example/{url}{number}/"),
                "node_name": node,
                "scm": { "branch": format!("origin/{}", leaf.replace("%2F", "/")) },
            },
        });
        let target = format!("http://{}/jenkins/demo", self.running.addresses.webhooks);
        // What it leads to is printed below it, however fast it is, and not below the next build.
        self.agent.quiet().await;
        let _word = self.agent.word.lock().await;
        let response = self.client.post(target).bearer_auth(TOKEN).body(document.to_string()).send().await?;
        let status = response.status();
        let answer: serde_json::Value = response.json().await.unwrap_or_default();
        let said = answer.get("result").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
        say(&format!("   Jenkins: {job} #{number} on {node}: {phase} {result}, answered {} {said}", status.as_u16()));
        if !status.is_success() {
            bail!("the webhook was refused: {answer}");
        }
        Ok(())
    }

    async fn restart(self) -> anyhow::Result<Self> {
        let Self { settings, running, agent, client, now } = self;
        if running.end(DEADLINE).await != Ended::Drained {
            bail!("recoverd did not stop in time");
        }
        agent.quiet().await;
        say("   recoverd has stopped, and starts again");
        Ok(Self { running: start(&settings).await?, settings, agent, client, now })
    }

    async fn print_table(&self) -> anyhow::Result<()> {
        self.scene("What recoverd knows now (`recoverd jobs list`)").await;
        let url = format!("http://{}/api/v1/jobs", self.running.addresses.admin);
        let page: JobsView = self.client.get(url).send().await?.json().await?;
        jobs::print_jobs(&page.jobs);
        Ok(())
    }

    /// A headline, once the Agent has nothing more to say of what was before.
    async fn scene(&self, text: &str) {
        self.agent.quiet().await;
        let style = AnsiColor::Cyan.on_default().bold();
        println!("\n{style}{text}{style:#}");
    }

    async fn invite(&self) {
        let body =
            r#"{"name":"nightly","url":"job/nightly/","build":{"number":302,"phase":"COMPLETED","status":"FAILURE"}}"#;
        self.scene("It stays up. Try a build of your own, and end it with Ctrl-C").await;
        println!(
            "curl -H 'Authorization: Bearer {TOKEN}' -d '{body}' http://{}/jenkins/demo",
            self.running.addresses.webhooks
        );
        println!("curl http://{}/readyz", self.running.addresses.admin);
    }
}

async fn start(settings: &Settings) -> anyhow::Result<Running> {
    Ok(Bound::bind(settings).await?.start(settings, PodIdentity::default(), Clock::system())?)
}

fn settings(directory: &Directory, agent: SocketAddr) -> anyhow::Result<Settings> {
    let file = directory.0.join("recoverd.toml");
    let data_dir = json!(directory.0.join("data"));
    let text = format!(
        r#"
data_dir = {data_dir}
[webhooks]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[[jenkins]]
name = "demo"
url = "https://jenkins.example/"
tokens = ["{TOKEN}"]
[datadog]
dogstatsd = "udp://{agent}"
"#
    );
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Settings::load(Some(&file), &Environment::new())?)
}

/// A directory of the demo's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("recoverd-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind in the worst case, where the system clears it away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Stands in for Datadog's Agent: prints each datagram, and remembers the checks.
struct Agent {
    address: SocketAddr,
    checks: Arc<Mutex<Vec<(String, u8)>>>,
    heard: Arc<Notify>,
    /// Whoever holds it may print.
    word: Arc<tokio::sync::Mutex<()>>,
    /// Changes with each datagram that was printed.
    printed: watch::Receiver<()>,
}

impl Agent {
    async fn listen(tasks: &Supervisor) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let (speaking, printed) = watch::channel(());
        let agent = Self {
            address: socket.local_addr()?,
            checks: Arc::default(),
            heard: Arc::default(),
            word: Arc::default(),
            printed,
        };
        let ear = Ear { socket, checks: agent.checks.clone(), heard: agent.heard.clone(), word: agent.word.clone() };
        tasks.spawn("agent", ear.print_datagrams(speaking, tasks.stop()));
        Ok(agent)
    }

    /// Returns once it has printed nothing for a while.
    async fn quiet(&self) {
        let mut printed = self.printed.clone();
        while let Ok(Ok(())) = tokio::time::timeout(QUIET, printed.changed()).await {}
    }

    /// Waits for a check of this job with this status that nobody has waited for yet.
    async fn expect(&self, job: &str, status: Status) -> anyhow::Result<()> {
        let tag = format!("job:{job}");
        let arrived = || {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            let found = checks.iter().position(|(job, level)| *job == tag && *level == status as u8);
            found.map(|at| checks.drain(..=at)).is_some()
        };
        let waiting = async {
            loop {
                let heard = self.heard.notified();
                if arrived() {
                    return;
                }
                heard.await;
            }
        };
        let why = || format!("no check said that {job} is {status}");
        tokio::time::timeout(PATIENCE, waiting).await.with_context(why)
    }
}

/// The Agent's listening half.
struct Ear {
    socket: UdpSocket,
    checks: Arc<Mutex<Vec<(String, u8)>>>,
    heard: Arc<Notify>,
    word: Arc<tokio::sync::Mutex<()>>,
}

impl Ear {
    async fn print_datagrams(self, speaking: watch::Sender<()>, stop: CancellationToken) {
        let mut buffer = vec![0; 65_536];
        while let Some(Ok(length)) = stop.run_until_cancelled(self.socket.recv(&mut buffer)).await {
            let datagrams = decode(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
            let _word = self.word.lock().await;
            for datagram in datagrams {
                print(&datagram);
                speaking.send_replace(());
                if let Datagram::Check(check) = datagram
                    && check.name == JOB_STATUS
                {
                    let job = check.tags.into_iter().find(|tag| tag.starts_with("job:")).unwrap_or_default();
                    self.checks.lock().unwrap_or_else(PoisonError::into_inner).push((job, check.status));
                    self.heard.notify_waiters();
                }
            }
        }
    }
}

fn print(datagram: &Datagram) {
    let dim = Style::new().dimmed();
    match datagram {
        Datagram::Check(check) => {
            let status = [Status::Ok, Status::Warning, Status::Critical].into_iter().find(|s| *s as u8 == check.status);
            let status = status.map_or("UNKNOWN", Status::as_str);
            let style = colour(status).bold();
            let (tags, message) = (harmless(&check.tags.join(" ")), harmless(check.message.as_deref().unwrap_or("")));
            println!("   -> check  {style}{status:8}{style:#} {}  {dim}{tags}{dim:#}  {message}", check.name);
        }
        Datagram::Event(event) => {
            println!("   -> event  {}  {dim}{}{dim:#}", harmless(&event.title), harmless(&event.tags.join(" ")));
        }
        Datagram::Metric(metric) => {
            let values: Vec<String> = metric.values.iter().map(ToString::to_string).collect();
            println!(
                "   {dim}-> metric {} {} {}{dim:#}",
                metric.name,
                values.join(":"),
                harmless(&metric.tags.join(" "))
            );
        }
    }
}

fn say(text: &str) {
    println!("{text}");
}
