//! A webhook that got a 2xx survives SIGKILL, whenever it comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use recoverd::domain::job::{ControllerName, JobKey, JobPath};
use recoverd::store::{Store, StoreMetrics};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::world::{Process, TOKEN, completed, load, main_controller, recoverd, settings_text};

const KILLS: u64 = 50;
const SENDERS: usize = 8;

/// For all moments of a kill: of each job, the last build whose webhook was answered with a 2xx is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_build_is_there_after_fifty_kills_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller());
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    let mut cut_short = 0;
    // One for all: to make another takes longer than most of these processes live.
    let client = reqwest::Client::new();
    for kill in 0..KILLS {
        let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
        let url = format!("http://{}/jenkins/main", process.webhooks);
        let killed = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let job = format!("acme/job-{sender}");
            let next = acknowledged.get(&job).copied().unwrap_or(0) + 1;
            senders.spawn(send(client.clone(), url.clone(), job, next, killed.clone()));
        }
        // Spread over the first commits and the busy time after them.
        tokio::time::sleep(Duration::from_micros(500 + kill * 3_000)).await;
        process.child.kill().await.unwrap();
        killed.store(true, Ordering::Relaxed);
        for (job, last, unanswered) in senders.join_all().await {
            cut_short += usize::from(unanswered);
            if let Some(last) = last {
                acknowledged.insert(job, last);
            }
        }
        let stored = stored(directory.path(), &text).await;
        for (job, last) in &acknowledged {
            assert!(
                stored[job] >= *last,
                "kill {kill}: {job} #{last} was acknowledged, and #{} is stored",
                stored[job]
            );
        }
    }
    assert_eq!(acknowledged.len(), SENDERS, "every sender got through at some time");
    assert!(cut_short > 0, "no kill ever came between a request and its answer: the test shows nothing");
}

/// Sends build after build. Returns the job, the last number that was acknowledged, and whether one was cut short.
async fn send(
    client: reqwest::Client,
    url: String,
    job: String,
    first: u64,
    killed: Arc<AtomicBool>,
) -> (String, Option<u64>, bool) {
    let mut last = None;
    for number in first.. {
        if killed.load(Ordering::Relaxed) {
            break;
        }
        let body = completed(&job, number, "FAILURE").to_string();
        match client.post(&url).bearer_auth(TOKEN).body(body).send().await {
            Ok(response) if response.status().is_success() => last = Some(number),
            Ok(response) => panic!("refused with {}", response.status()),
            Err(_) => return (job, last, true),
        }
    }
    (job, last, false)
}

/// The newest build of each job, read from the store itself.
async fn stored(directory: &std::path::Path, text: &str) -> HashMap<String, u64> {
    let settings = load(directory, text);
    let health = recoverd::machinery::health::Health::default().required("store");
    let metrics = StoreMetrics::register(&mut Registry::default());
    let clock = recoverd::machinery::clock::Clock::system();
    let rulebook = Arc::new(settings.rulebook());
    // The file's lock is released with the killed process.
    let (store, mut news) = Store::open(&settings.data_dir, rulebook, clock, health, metrics).unwrap();
    let newest = |job: String| {
        let key = JobKey { controller: ControllerName::parse("main").unwrap(), job: JobPath::parse(&job).unwrap() };
        let entry = store.find(&key).unwrap();
        let newest = entry.and_then(|entry| {
            let (_, history) = entry.record.branches().next()?;
            Some(history.builds().first()?.number)
        });
        (job, newest.unwrap_or(0))
    };
    let listed = store.page(None, 1_000).unwrap().len() as u64;
    assert_eq!(store.count(), listed, "the count follows the journal");
    let stored = (0..SENDERS).map(|sender| newest(format!("acme/job-{sender}"))).collect();
    drop(store);
    // The file is free once the writer has ended.
    while news.recv().await.is_some() {}
    stored
}
