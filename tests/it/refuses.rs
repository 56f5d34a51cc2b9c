//! Bad input: what is refused, with which words, and what that costs.

use std::time::Duration;

use recoverd::domain::pod::PodIdentity;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::world::{CRITICAL, OK, TOKEN, World, completed, main_controller};

async fn post(world: &World, path: &str, token: Option<&str>, body: Vec<u8>) -> (StatusCode, Value) {
    let mut request = world.client.post(world.webhook_url(path)).body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn every_refusal_has_its_status_and_names_what_is_wrong() {
    let world = World::spawn().await;
    let good = completed("acme/web", 1, "SUCCESS").to_string();
    let with_token_in_path = format!("main/{TOKEN}");
    let with_token_in_query = format!("main?token={TOKEN}");
    let wrong = Some("not-the-token-of-main");
    let right = Some(TOKEN);
    let table: Vec<(&str, Option<&str>, String, u16, &str)> = vec![
        ("main", right, good.clone(), 200, ""),
        (&with_token_in_path, None, good.clone(), 200, ""),
        (&with_token_in_query, None, good.clone(), 200, ""),
        ("main", None, good.clone(), 401, "one of `tokens` or `tokens_file` in the settings"),
        ("main", wrong, good.clone(), 401, "one of `tokens` or `tokens_file` in the settings"),
        ("main/wrong", None, good.clone(), 401, "one of `tokens` or `tokens_file` in the settings"),
        ("main?token=wrong", None, good.clone(), 401, "one of `tokens` or `tokens_file` in the settings"),
        // A wrong token learns nothing of what is wrong with the body.
        ("main", wrong, "garbage".into(), 401, "one of `tokens` or `tokens_file` in the settings"),
        ("other", right, good.clone(), 404, "builds go to /jenkins/NAME"),
        ("main/a/b", right, good.clone(), 404, "builds go to /jenkins/NAME"),
        ("main", right, String::new(), 400, "empty"),
        ("main", right, "garbage".into(), 400, "`g`"),
        ("main", right, "{".into(), 400, "JSON"),
        ("main", right, "{}".into(), 400, "`build`"),
        (
            "main",
            right,
            r#"{"name":"a","build":{"phase":"COMPLETED","status":"SUCCESS"}}"#.into(),
            400,
            "`build.number`",
        ),
        ("main", right, r#"{"build":{"number":1,"phase":"COMPLETED","status":"SUCCESS"}}"#.into(), 400, "`url`"),
        ("main", right, r#"{"name":"a","build":{"number":"x","phase":"COMPLETED"}}"#.into(), 400, "`build.number`"),
        ("main", right, "<!DOCTYPE job><job/>".into(), 400, "document type"),
    ];
    for (path, token, body, status, words) in table {
        let (found, answer) = post(&world, path, token, body.clone().into_bytes()).await;
        assert_eq!(found.as_u16(), status, "{path} {token:?} {body}: {answer}");
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{path} {body}: {detail:?} does not say {words:?}");
        assert!(!answer.to_string().contains(TOKEN));
    }
    let not_a_post = world.client.get(world.webhook_url("main")).send().await.unwrap();
    assert_eq!(not_a_post.status(), 405);
    let elsewhere = format!("http://{}/favicon.ico", world.running.addresses.webhooks);
    assert_eq!(world.client.get(elsewhere).send().await.unwrap().status(), 404);

    let (_, metrics) = world.get("/metrics").await;
    for line in [
        r#"recoverd_webhooks_refused_total{controller="main",reason="unauthorized"} 5"#,
        r#"recoverd_webhooks_refused_total{controller="",reason="not_found"} 3"#,
        r#"recoverd_webhooks_refused_total{controller="",reason="method_not_allowed"} 1"#,
        r#"recoverd_webhooks_refused_total{controller="main",reason="bad_request"} 8"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains(TOKEN) && !metrics.contains("\"other\""), "a metric shows what it must not");
    world.finish().await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let world = World::spawn().await;
    let webhooks = |path: &str| format!("http://{}{path}", world.running.addresses.webhooks);
    let table = [
        (Method::POST, webhooks("/jenkins/%FF"), 404),
        (Method::POST, webhooks("/jenkins/main/%FF"), 404),
        (Method::POST, webhooks("/nothing"), 404),
        (Method::DELETE, webhooks("/jenkins/main"), 405),
        (Method::GET, world.admin_url("/api/v1/jobs?limit=x"), 400),
        (Method::GET, world.admin_url("/api/v1/jobs?after=x"), 400),
        (Method::GET, world.admin_url("/api/v1/jobs/main/%FF"), 404),
        (Method::DELETE, world.admin_url("/api/v1/jobs/%FF/a"), 404),
        (Method::GET, world.admin_url("/nothing"), 404),
        (Method::POST, world.admin_url("/api/v1/jobs"), 405),
    ];
    for (method, url, status) in table {
        let response = world.client.request(method.clone(), &url).body("{}").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {url}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {url}");
        let problem: Value = response.json().await.unwrap();
        assert!(problem["detail"].is_string() && problem["status"] == status, "{method} {url}: {problem}");
    }
    world.finish().await;
}

/// Whoever tries addresses out is slowed down and refused like everybody, and it shows.
#[tokio::test]
async fn what_addresses_nobody_is_paced_and_counted_too() {
    let directory = tempfile::tempdir().unwrap();
    let agent = crate::world::Agent::udp().await;
    let text = crate::world::settings_text(directory.path(), &agent.address, &main_controller())
        .replace("rate_per_second = 100000\nburst = 100000", "rate_per_second = 1\nburst = 1");
    let settings = crate::world::load(directory.path(), &text);
    let bound = recoverd::app::Bound::bind(&settings).await.unwrap();
    let running = bound.start(&settings, PodIdentity::default(), recoverd::machinery::clock::Clock::system()).unwrap();
    let url = |path: &str| format!("http://{}{path}", running.addresses.webhooks);
    let client = reqwest::Client::builder().timeout(Duration::from_millis(300)).build().unwrap();
    assert_eq!(client.get(url("/")).send().await.unwrap().status(), 404);
    let paths = [(Method::GET, "/"), (Method::GET, "/jenkins/main"), (Method::POST, "/jenkins/nobody")];
    for (method, path) in paths {
        let response = client.request(method.clone(), url(path)).send().await;
        assert!(response.is_err_and(|error| error.is_timeout()), "{method} {path} is not slowed down");
    }
    running.end(crate::world::PATIENCE).await;
}

#[tokio::test]
async fn a_huge_log_does_not_cost_the_event_and_a_huge_nothing_is_refused() {
    let world = World::spawn().await;
    let log = "all work and no play\n".repeat(400_000);
    // In the plugin's own order: what identifies a build comes before its log.
    let document = format!(
        r#"{{"name":"web","url":"job/acme/job/web/","build":{{"number":1,"timestamp":1780000090000,"duration":30000,
           "phase":"COMPLETED","status":"FAILURE","url":"job/acme/job/web/1/","log":{}}}}}"#,
        serde_json::Value::from(log.as_str())
    );
    assert_eq!(world.post(document).await, (202, "finished".to_owned()));
    world.agent.expect("acme/web", CRITICAL).await;

    let xml = format!(
        "<job><name>web</name><url>job/acme/job/web/</url><build><number>2</number><phase>COMPLETED</phase>\
         <status>SUCCESS</status><timestamp>1780000200000</timestamp><duration>1000</duration><log>{log}</log></build></job>"
    );
    assert_eq!(world.post(xml).await, (202, "finished".to_owned()));
    world.agent.expect("acme/web", OK).await;

    let nothing = format!("{{\"parameters\":\"{}\"", "x".repeat(3_000_000));
    let (status, answer) = post(&world, "main", Some(TOKEN), nothing.into_bytes()).await;
    assert_eq!(status.as_u16(), 413, "{answer}");
    world.finish().await;
}

#[tokio::test]
async fn without_a_configured_jenkins_the_default_one_takes_this_machines_builds() {
    let world = World::with("").await;
    let (status, _) = post(&world, "default", None, completed("a", 1, "SUCCESS").to_string().into()).await;
    assert_eq!(status, 200);
    world.agent.expect("a", OK).await;
    world.finish().await;
}

#[tokio::test]
async fn a_token_opens_its_own_controller_only() {
    let second = "[[jenkins]]\nname = \"second\"\ntokens = [\"the-token-of-the-second\", \"its-next-token\"]\n";
    let world = World::with(&format!("{}{second}", main_controller())).await;
    let body = completed("a", 1, "SUCCESS").to_string();
    let table = [
        ("main", TOKEN, 200),
        ("second", "the-token-of-the-second", 200),
        ("second", "its-next-token", 200),
        ("second", TOKEN, 401),
        ("main", "the-token-of-the-second", 401),
    ];
    for (controller, token, status) in table {
        let (found, _) = post(&world, controller, Some(token), body.clone().into()).await;
        assert_eq!(found.as_u16(), status, "{controller} {token}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_fast_source_is_slowed_down_before_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let agent = crate::world::Agent::udp().await;
    let text = crate::world::settings_text(directory.path(), &agent.address, &main_controller())
        .replace("rate_per_second = 100000\nburst = 100000", "rate_per_second = 20\nburst = 5");
    let settings = crate::world::load(directory.path(), &text);
    let bound = recoverd::app::Bound::bind(&settings).await.unwrap();
    let running = bound.start(&settings, PodIdentity::default(), recoverd::machinery::clock::Clock::system()).unwrap();
    let url = format!("http://{}/jenkins/main", running.addresses.webhooks);
    let client = reqwest::Client::new();
    let posts = (1..=15).map(|number| {
        let body = completed("acme/web", number, "SUCCESS").to_string();
        client.post(&url).bearer_auth(TOKEN).body(body).send()
    });
    for response in futures_util::future::join_all(posts).await {
        assert_eq!(response.unwrap().status(), 200, "slowed down, not refused");
    }
    let metrics = client.get(format!("http://{}/metrics", running.addresses.admin)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let delayed = metrics.lines().find_map(|line| line.strip_prefix("recoverd_webhooks_delayed_total ")).unwrap();
    assert!(delayed.parse::<u64>().unwrap() >= 5, "{delayed}");
    running.end(crate::world::PATIENCE).await;
}
