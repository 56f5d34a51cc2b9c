//! The admin listener: probes for everybody, the rest for this machine or a token.

use recoverd::domain::pod::PodIdentity;
use serde_json::Value;

use crate::world::{CRITICAL, World, completed, main_controller};

#[tokio::test]
async fn probes_metrics_and_jobs_tell_what_is_known() {
    let world = World::spawn().await;
    world.build("acme/web/main", 7, "SUCCESS").await;
    world.build("acme/web/feature%2Fx", 8, "FAILURE").await;
    world.build("nightly", 1, "ABORTED").await;
    world.agent.expect("acme/web", CRITICAL).await;

    assert_eq!(world.get("/healthz").await, (200, "ok\n".to_owned()));
    let (status, lines) = world.get("/readyz").await;
    assert_eq!((status, lines.as_str()), (200, "datadog: ok\nstore: ok\n"));

    let (_, list) = world.get("/api/v1/jobs").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let jobs: Vec<(&str, &Value)> =
        list["jobs"].as_array().unwrap().iter().map(|job| (job["job"].as_str().unwrap(), &job["status"])).collect();
    assert!(jobs.contains(&("acme/web", &"critical".into())), "{list}");
    assert!(jobs.contains(&("nightly", &Value::Null)), "an aborted build says nothing: {list}");

    let (_, one) = world.get("/api/v1/jobs/main/acme/web").await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["branch"], "feature/x");
    assert_eq!(one["why"], "acme/web #8 on feature/x: FAILURE");
    assert_eq!(one["branches"][0]["builds"][0]["result"], "FAILURE");
    assert_eq!(world.get("/api/v1/jobs/main/none").await.0, 404);

    let (_, metrics) = world.get("/metrics").await;
    for line in [
        r#"recoverd_webhooks_received_total{controller="main"} 3"#,
        r#"recoverd_webhooks_accepted_total{controller="main",was="finished"} 3"#,
        r#"recoverd_webhooks_held_total{controller="main"} 1"#,
        "recoverd_store_commits_total",
        "recoverd_store_queue_depth",
        "recoverd_store_commit_seconds_bucket",
        "recoverd_rounds_total",
        r#"recoverd_datadog_sent_total{kind="check"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    world.finish().await;
}

#[tokio::test]
async fn jobs_come_in_pages_that_miss_nothing() {
    let world = World::spawn().await;
    for job in 0..7 {
        world.build(&format!("job {job}"), 1, "SUCCESS").await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=3".to_owned();
    loop {
        let (status, page) = world.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let page: Value = serde_json::from_str(&page).unwrap();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/jobs?limit=3&after={}", next.replace(' ', "%20")),
            None => break,
        }
    }
    let expected: Vec<String> = (0..7).map(|job| format!("job {job}")).collect();
    assert_eq!(seen, expected);
    world.finish().await;
}

#[tokio::test]
async fn a_forgotten_job_gets_one_ok_and_comes_back_with_its_next_build() {
    let world = World::spawn().await;
    world.build("acme/old", 1, "FAILURE").await;
    world.agent.expect("acme/old", CRITICAL).await;
    let url = world.admin_url("/api/v1/jobs/main/acme/old");
    assert_eq!(world.client.delete(&url).send().await.unwrap().status(), 204);
    let closing = world.agent.expect("acme/old", 0).await;
    assert!(closing.message.unwrap().contains("forgotten by an operator"));
    let gone = async {
        while world.get("/api/v1/jobs/main/acme/old").await.0 != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, gone).await.expect("the record is still there");
    assert_eq!(world.client.delete(&url).send().await.unwrap().status(), 404);
    world.build("acme/old", 2, "FAILURE").await;
    world.agent.expect("acme/old", CRITICAL).await;
    world.finish().await;
}

#[tokio::test]
async fn no_token_shows_anywhere() {
    let world = World::with(&format!("{}[sentry]\n", main_controller())).await;
    world.post(completed("acme/web", 1, "FAILURE").to_string()).await;
    for path in ["/readyz", "/metrics", "/api/v1/jobs", "/api/v1/jobs/main/acme/web", "/api/v1/pod", "/nothing"] {
        let (_, text) = world.get(path).await;
        assert!(!text.contains(crate::world::TOKEN), "{path} shows a token");
    }
    world.finish().await;
}

#[tokio::test]
async fn where_admin_tokens_are_set_everybody_needs_one_but_the_probes() {
    let directory = tempfile::tempdir().unwrap();
    let text = crate::world::settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller())
        .replace("[admin]\n", "[admin]\ntokens = [\"the-token-of-the-admin\"]\n");
    let settings = crate::world::load(directory.path(), &text);
    let bound = recoverd::app::Bound::bind(&settings).await.unwrap();
    let running = bound.start(&settings, PodIdentity::default(), recoverd::machinery::clock::Clock::system()).unwrap();
    let client = reqwest::Client::new();
    let paths = [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/api/v1/jobs", 401), ("/api/v1/pod", 401)];
    for (path, without) in paths {
        let url = format!("http://{}{path}", running.addresses.admin);
        assert_eq!(client.get(&url).send().await.unwrap().status(), without, "{path}");
        assert_eq!(client.get(&url).bearer_auth("wrong-token").send().await.unwrap().status(), without, "{path}");
        assert_eq!(
            client.get(&url).bearer_auth("the-token-of-the-admin").send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    running.end(crate::world::PATIENCE).await;
}
