//! Catch-up between a Jenkins, a store and an Agent, look by look, with a clock of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use recoverd::catch_up::{CatchUp, CatchUpMetrics, Watch};
use recoverd::datadog::decode::{Datagram, Event, Metric};
use recoverd::datadog::{AgentMetrics, AgentSettings, AgentSink};
use recoverd::domain::announcement::{Because, Level};
use recoverd::domain::build::Timestamp;
use recoverd::domain::job::{ControllerName, JobKey, JobPath};
use recoverd::domain::record::Closed;
use recoverd::domain::rules::{ControllerRules, Rulebook};
use recoverd::domain::status::Status;
use recoverd::jenkins::document::{self, Extent, Reading};
use recoverd::jenkins::rest::RemoteApi;
use recoverd::machinery::clock::Clock;
use recoverd::machinery::health::Health;
use recoverd::pipeline::{Announcer, AnnouncerMetrics};
use recoverd::store::{Entry, Store, StoreMetrics};
use serde_json::Value;
use tempfile::TempDir;

use crate::jenkins_rest::settings;
use crate::jenkins_server::{Jenkins, JenkinsServer};
use crate::world::{Agent, PATIENCE};

/// All that the Agent was told.
#[derive(Debug, Default)]
pub struct Heard {
    /// Of each job every status, 0 to 2.
    pub checks: BTreeMap<String, Vec<u8>>,
    /// Of each job the last message.
    pub messages: BTreeMap<String, String>,
    pub events: Vec<Event>,
    pub metrics: Vec<Metric>,
}

pub struct Stage {
    pub server: JenkinsServer,
    pub store: Store,
    pub rulebook: Arc<Rulebook>,
    pub clock: Clock,
    pub health: Health,
    pub registry: Registry,
    heard: Arc<Mutex<Heard>>,
    catch_up: CatchUp,
    watch: Watch,
    _directory: TempDir,
}

pub fn key(job: &str) -> JobKey {
    JobKey { controller: ControllerName::parse("main").unwrap(), job: JobPath::parse(job).unwrap() }
}

impl Stage {
    pub async fn spawn() -> Self {
        Self::with(ControllerRules::default()).await
    }

    pub async fn with(mut rules: ControllerRules) -> Self {
        let server = JenkinsServer::spawn().await;
        server.jenkins().tells_its_time = true;
        rules.url = Some(server.url().into());
        let mut rulebook = Rulebook::default();
        let name = key("x").controller;
        rulebook.add(name.clone(), rules);
        let rulebook = Arc::new(rulebook);

        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::unix(&directory.path().join("dsd.socket"));
        let (mut registry, health) = (Registry::default(), Health::default());
        let clock = Clock::manual(Timestamp::from_millis(server.jenkins().now));
        let metrics = StoreMetrics::register(&mut registry);
        let part = health.required("store");
        let (store, news) = Store::open(directory.path(), rulebook.clone(), clock.clone(), part, metrics).unwrap();
        let target = AgentSettings::new(agent.address.parse().unwrap());
        let sink = AgentSink::new(target, health.optional("datadog"), AgentMetrics::register(&mut registry));
        let announcer = Announcer {
            rulebook: rulebook.clone(),
            sink: sink.clone(),
            confirmer: store.confirmer(),
            clock: clock.clone(),
            metrics: AnnouncerMetrics::register(&mut registry),
        };
        let heard = Arc::<Mutex<Heard>>::default();
        spawn(announcer.run(news));
        spawn(listen(agent, heard.clone()));

        let catch_up = CatchUp {
            rulebook: rulebook.clone(),
            store: store.clone(),
            sink,
            clock: clock.clone(),
            metrics: CatchUpMetrics::register(&mut registry),
        };
        let api = RemoteApi::new(settings(&server)).unwrap();
        let watch = Watch::new(name, api, std::time::Duration::from_mins(1), health.optional("jenkins main"));
        Self { server, store, rulebook, clock, health, registry, heard, catch_up, watch, _directory: directory }
    }

    pub fn jenkins(&self) -> impl std::ops::DerefMut<Target = Jenkins> + '_ {
        self.server.jenkins()
    }

    /// Our clock shows what Jenkins' does.
    pub fn tick(&self) {
        let theirs = Timestamp::from_millis(self.jenkins().now);
        self.clock.advance(theirs.since(self.clock.now()));
    }

    /// Returns whether the look came to its end.
    pub async fn look(&mut self) -> bool {
        // Between two looks lies time, of which Jenkins knows as well.
        self.jenkins().now += 60_000;
        self.tick();
        self.look_with_clocks_apart().await
    }

    /// Looks, and leaves the clocks alone.
    pub async fn look_with_clocks_apart(&mut self) -> bool {
        self.catch_up.look(&mut self.watch).await
    }

    pub async fn look_twice(&mut self) {
        assert!(self.look().await && self.look().await, "{:?}", self.trouble());
    }

    /// As after a start: every item is joined anew by the next look.
    pub fn forget_what_was_shown(&mut self) {
        self.watch = self.new_watch();
    }

    fn new_watch(&self) -> Watch {
        let api = RemoteApi::new(settings(&self.server)).unwrap();
        let part = self.health.optional("jenkins main");
        Watch::new(key("x").controller, api, std::time::Duration::from_mins(1), part)
    }

    /// What `/readyz` says of the Jenkins, unless all is well.
    pub fn trouble(&self) -> Option<String> {
        let lines = self.health.lines();
        lines.into_iter().find(|line| &*line.part == "jenkins main").unwrap().trouble
    }

    /// A webhook comes in.
    pub async fn post(&self, document: &Value) {
        self.tick();
        self.post_with_clocks_apart(document).await;
    }

    pub async fn post_with_clocks_apart(&self, document: &Value) {
        let document = document.to_string();
        let Reading::Report(report) = document::read(document.as_bytes(), Extent::Whole).unwrap().reading else {
            panic!("not a build: {document}");
        };
        self.store.take(key("x").controller, report).await.unwrap();
    }

    /// All webhooks of a build come in.
    pub async fn post_all(&self, job: &str, number: u64) {
        let documents = self.jenkins().documents(job, number);
        for document in documents {
            self.post(&document).await;
        }
    }

    pub fn entry(&self, job: &str) -> Option<Entry> {
        self.store.find(&key(job)).unwrap()
    }

    pub fn closed(&self, job: &str) -> Option<Closed> {
        self.entry(job)?.record.closed().cloned()
    }

    /// Every watched job with its status, and the build that it has it from.
    pub fn statuses(&self) -> BTreeMap<String, (Status, u64)> {
        let entries = self.store.page(None, 20_000).unwrap();
        let open = entries.iter().filter(|entry| entry.record.closed().is_none());
        let status = |entry: &Entry| {
            let level = Level::of(&entry.record, self.rulebook.policy(&entry.key))?;
            match level.because {
                Because::Build { number, .. } => Some((entry.key.job.to_string(), (level.status, number))),
                _ => None,
            }
        };
        open.filter_map(status).collect()
    }

    /// The names of all watched jobs.
    pub fn watched(&self) -> Vec<String> {
        let entries = self.store.page(None, 20_000).unwrap();
        let open = entries.iter().filter(|entry| entry.record.closed().is_none());
        open.map(|entry| entry.key.job.to_string()).collect()
    }

    /// Waits until all is told, and returns it. What was heard before stays in it.
    pub async fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        let told = async {
            let untold = |entry: &Entry| entry.record.announced().is_some_and(|announced| !announced.confirmed);
            while self.store.page(None, 20_000).unwrap().iter().any(untold) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("not all was told");
        // What the sink has taken is in the socket, and what is in the socket is read in its order.
        let quiet = async {
            let count = || {
                let heard = self.heard.lock().unwrap();
                heard.checks.values().map(Vec::len).sum::<usize>() + heard.events.len() + heard.metrics.len()
            };
            let mut before = usize::MAX;
            while before != count() {
                before = count();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        quiet.await;
        self.heard.lock().unwrap()
    }

    /// The counters' page.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

async fn listen(agent: Agent, heard: Arc<Mutex<Heard>>) {
    loop {
        for datagram in agent.next().await {
            let mut heard = heard.lock().unwrap();
            match datagram {
                Datagram::Check(check) => {
                    let job = check.tags.iter().find_map(|tag| tag.strip_prefix("job:")).unwrap().to_owned();
                    heard.messages.insert(job.clone(), check.message.unwrap_or_default());
                    heard.checks.entry(job).or_default().push(check.status);
                }
                Datagram::Event(event) => heard.events.push(event),
                Datagram::Metric(metric) => heard.metrics.push(metric),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
