//! An error inside recoverd reaches Sentry, once, tagged with the pod, and without those tags outside Kubernetes.
//!
//! The error is a real one: the process may not write more than a little into any file, so its store fails as on a full
//! disk.

use std::time::Duration;

use futures_util::future::join_all;

use crate::bugsink::{Bugsink, StoredEvent};
use crate::store_heals::{CRAMPED, post, with_file_size_limit};
use crate::world::{PATIENCE, Process, main_controller, settings_text};

/// So many webhooks come together, and are stored together.
const CROWD: usize = 50;

/// Lets the disk run full under `serve` with this in its environment, and returns what Sentry has of it.
async fn error_of(variables: &[(&str, &str)]) -> StoredEvent {
    let bugsink = Bugsink::start();
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller());
    let mut command = with_file_size_limit(CRAMPED);
    command.env_clear().env("SENTRY_DSN", &bugsink.dsn).envs(variables.iter().copied());
    let process = Process::spawn(directory.path(), &text, command).await;
    let client = reqwest::Client::new();

    let crowd = |round: usize| {
        let (client, process) = (&client, &process);
        join_all((1..=CROWD).map(move |place| post(client, process, (round * CROWD + place) as u64)))
    };
    let full = async {
        let mut round = 0;
        while crowd(round).await.iter().all(|status| *status == 200) {
            round += 1;
        }
        round
    };
    let round = tokio::time::timeout(PATIENCE, full).await.expect("the limit never told");
    let event = bugsink.wait_for(PATIENCE, |event| event.level == "error");
    assert_eq!(event.message, "the store cannot write, webhooks are refused until it can");
    // The store is tried twice a second. What little room there is must not count as mended.
    for round in round + 1..round + 20 {
        assert_eq!(crowd(round).await, [503; CROWD]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bugsink.events().len(), 1, "one trouble, one event");
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_our_own_is_reported_with_its_pod() {
    let event = error_of(&[("POD_NAME", "recoverd-0"), ("POD_NAMESPACE", "ci"), ("NODE_NAME", "node-7")]).await;
    for (key, value) in [("pod_name", "recoverd-0"), ("pod_namespace", "ci"), ("node_name", "node-7")] {
        assert_eq!(event.tag(key), Some(value), "{event:?}");
    }
    assert_eq!(event.raw["server_name"], "recoverd-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_our_own_names_no_pod_outside_kubernetes() {
    let event = error_of(&[]).await;
    for key in ["pod_name", "pod_namespace", "node_name"] {
        assert_eq!(event.tag(key), None, "{event:?}");
    }
}
