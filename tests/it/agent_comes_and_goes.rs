//! An Agent that is absent, restarts, is slow, or has another address: every status arrives within a resend.

use std::collections::BTreeSet;
use std::path::Path;

use recoverd::app::{Bound, Running};
use recoverd::datadog::decode::Datagram;
use recoverd::domain::pod::PodIdentity;
use recoverd::machinery::clock::Clock;
use recoverd::machinery::supervise::Ended;

use crate::world::{Agent, CRITICAL, PATIENCE, TOKEN, completed, load, main_controller, settings_text};

const JOBS: u64 = 40;

async fn start(directory: &Path, socket: &Path) -> Running {
    let agent = format!("unix://{}", socket.display());
    let settings = load(directory, &settings_text(directory, &agent, &main_controller()));
    let bound = Bound::bind(&settings).await.unwrap();
    bound.start(&settings, PodIdentity::default(), Clock::system()).unwrap()
}

async fn fail(running: &Running, jobs: std::ops::Range<u64>) {
    let client = reqwest::Client::new();
    let url = format!("http://{}/jenkins/main", running.addresses.webhooks);
    for job in jobs {
        let body = completed(&format!("acme/job-{job}"), 1, "FAILURE").to_string();
        let response = client.post(&url).bearer_auth(TOKEN).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

/// Reads until each of the jobs has been said to be CRITICAL.
async fn expect_all(agent: &Agent, jobs: std::ops::Range<u64>) {
    let mut missing: BTreeSet<String> = jobs.map(|job| format!("job:acme/job-{job}")).collect();
    let waiting = async {
        while !missing.is_empty() {
            for datagram in agent.next().await {
                if let Datagram::Check(check) = datagram {
                    assert_eq!(check.status, CRITICAL);
                    missing.retain(|job| !check.tags.contains(job));
                }
            }
        }
    };
    let arrived = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(arrived.is_ok(), "never heard of {missing:?}");
}

#[tokio::test]
async fn an_agent_that_comes_after_recoverd_hears_of_every_job() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let running = start(directory.path(), &socket).await;
    fail(&running, 0..JOBS).await;
    assert!(!socket.exists(), "the Agent's path is the Agent's to create");
    let agent = Agent::unix(&socket);
    expect_all(&agent, 0..JOBS).await;
    assert_eq!(running.end(PATIENCE).await, Ended::Drained);
}

#[tokio::test]
async fn an_agent_whose_socket_is_replaced_while_checks_flow_hears_of_every_job() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let mut agent = Agent::unix(&socket);
    let running = start(directory.path(), &socket).await;
    for restart in 0..3 {
        fail(&running, restart * JOBS..(restart + 1) * JOBS).await;
        // A few datagrams are on their way, unread, when the socket goes.
        drop(agent);
        std::fs::remove_file(&socket).unwrap();
        fail(&running, (restart + 1) * JOBS..(restart + 1) * JOBS + 3).await;
        agent = Agent::unix(&socket);
        expect_all(&agent, 0..(restart + 1) * JOBS + 3).await;
    }
    // The Agent's queue holds a few datagrams only: it must be read for recoverd to end.
    let reading = async {
        loop {
            agent.next().await;
        }
    };
    tokio::select! {
        () = reading => {}
        ended = running.end(PATIENCE) => assert_eq!(ended, Ended::Drained),
    }
}

#[tokio::test]
async fn the_event_of_a_failure_that_nobody_heard_is_told_when_the_agent_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let running = start(directory.path(), &socket).await;
    fail(&running, 0..1).await;
    // Longer than an announcement may be on its way.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let agent = Agent::unix(&socket);
    let (mut event, mut metric) = (None, None);
    let both = async {
        while event.is_none() || metric.is_none() {
            for datagram in agent.next().await {
                match datagram {
                    Datagram::Event(heard) => event = Some(heard),
                    Datagram::Metric(heard) if heard.name == "jenkins.job.completed" => metric = Some(heard),
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("the event or the metric is missing");
    assert_eq!(event.unwrap().title, "acme/job-0 failed");
    assert!(metric.unwrap().tags.contains(&"job:acme/job-0".to_owned()), "metrics wait for the Agent too");
    drop(running);
}
