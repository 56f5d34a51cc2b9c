//! Sentry's webhooks are known by their signature, told apart by what they are about, and answered at once; what is none of
//! Sentry's learns nothing and costs nothing.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::hooks::{PLUGIN_TOKEN, SECRET, answered, fixture, hook, integration, now, post_hook, post_hook_at, sign};
use crate::world::{World, main_controller};

async fn world() -> World {
    World::with(&format!("{}{}", main_controller(), integration())).await
}

/// The value of each series of these metrics.
async fn series(world: &World, metric: &str) -> BTreeMap<String, u64> {
    let (_, page) = world.get("/metrics").await;
    let lines = page.lines().filter_map(|line| line.strip_prefix(metric)?.split_once(' '));
    lines.map(|(labels, count)| (labels.to_owned(), count.parse().unwrap())).collect()
}

async fn count(world: &World, metric: &str, labels: &str) -> u64 {
    series(world, metric).await.get(&format!("{{{labels}}}")).copied().unwrap_or_default()
}

#[tokio::test]
async fn every_resource_and_action_is_answered_and_counted() {
    let world = world().await;
    let table = [
        ("issue", "issue-created", ""),
        ("issue", "issue-unresolved", ""),
        ("issue", "issue-resolved", ""),
        ("issue", "issue-archived", ""),
        ("issue", "issue-ignored", ""),
        ("issue", "issue-assigned", "assigned"),
        ("event_alert", "event-alert-triggered", ""),
        ("metric_alert", "metric-alert-critical", ""),
        ("metric_alert", "metric-alert-warning", ""),
        ("metric_alert", "metric-alert-open", ""),
        ("metric_alert", "metric-alert-resolved", ""),
        ("error", "error-created", ""),
        ("comment", "comment-created", ""),
        ("comment", "comment-updated", "comment_edited"),
        ("comment", "comment-deleted", "comment_edited"),
        ("installation", "installation-created", "installation"),
        ("installation", "installation-deleted", "installation"),
        ("seer", "seer-root-cause-completed", "seer"),
    ];
    for (index, (resource, name, because)) in table.into_iter().enumerate() {
        let body = fixture(name);
        let at = now() - 300 + index as u64;
        let signature = sign(SECRET, &body).await;
        let accepted = series(&world, "recoverd_sentry_webhooks_accepted_total").await;
        let request = hook(&world, "acme", resource, at).header("sentry-hook-signature", signature).body(body);
        let (status, answer) = answered(request).await;
        let result = answer["result"].as_str().unwrap_or_default();
        assert_eq!(status, 200, "{name}: {answer}");
        assert_eq!(result == "ignored", !because.is_empty(), "{name}: {answer}");
        assert!(["changed", "duplicate", "stale", "ignored"].contains(&result), "{name}: {answer}");
        assert_eq!(answer["detail"].as_str().unwrap_or_default(), because, "{name}: {answer}");
        let labels = format!("{{integration=\"acme\",resource=\"{resource}\",was=\"{result}\"}}");
        let before = accepted.get(&labels).copied().unwrap_or_default();
        let after = series(&world, "recoverd_sentry_webhooks_accepted_total").await;
        assert_eq!(after.get(&labels), Some(&(before + 1)), "{name}");
        assert_eq!(after.values().sum::<u64>(), accepted.values().sum::<u64>() + 1, "{name} is counted once");
    }
    let ignored = series(&world, "recoverd_sentry_webhooks_ignored_total").await;
    let expected = [("assigned", 1), ("comment_edited", 2), ("installation", 2), ("seer", 1)];
    let label = |reason: &str| format!("{{integration=\"acme\",reason=\"{reason}\"}}");
    assert_eq!(ignored, expected.map(|(reason, count)| (label(reason), count)).into());
    let received = count(&world, "recoverd_sentry_webhooks_received_total", "integration=\"acme\"").await;
    assert_eq!(received, table.len() as u64);
    assert!(series(&world, "recoverd_sentry_webhooks_refused_total").await.is_empty());
    world.finish().await;
}

#[tokio::test]
async fn what_is_not_signed_by_sentry_is_refused_and_learns_nothing() {
    let world = world().await;
    let body = fixture("issue-created");
    let right = sign(SECRET, &body).await;
    let wrong = sign("another-secret-than-that-of-acme", &body).await;
    let text = String::from_utf8(body.clone()).unwrap();
    // The same document, written by somebody who has read it.
    let again = serde_json::to_vec(&serde_json::from_str::<Value>(&text).unwrap()).unwrap();
    assert_ne!(again, body);
    let table: Vec<(&str, Option<String>, Vec<u8>)> = vec![
        ("missing", None, body.clone()),
        ("wrong", Some(wrong), body.clone()),
        ("truncated", Some(right[..40].to_owned()), body.clone()),
        ("a byte short", Some(right[..62].to_owned()), body.clone()),
        ("longer", Some(format!("{right}00")), body.clone()),
        ("upper case", Some(right.to_uppercase()), body.clone()),
        ("with a prefix", Some(format!("sha256={right}")), body.clone()),
        ("empty", Some(String::new()), body.clone()),
        ("of a body that was read and written again", Some(right.clone()), again),
        ("of a body with one more blank", Some(right.clone()), [body.as_slice(), b" "].concat()),
        ("of another resource's body", Some(right.clone()), fixture("issue-resolved")),
        ("of nothing", Some(right.clone()), Vec::new()),
        ("wrong, and the body is no JSON", Some("0".repeat(64)), b"garbage".to_vec()),
    ];
    let refused = table.len() as u64;
    for (what, signature, body) in table {
        let mut request = hook(&world, "acme", "issue", now()).body(body);
        if let Some(signature) = signature {
            request = request.header("sentry-hook-signature", signature);
        }
        let (status, answer) = answered(request).await;
        assert_eq!(status, 401, "{what}: {answer}");
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("a signature is needed here"), "{what}: {detail}");
        assert!(!answer.to_string().contains(&right), "{what} learns the signature");
    }
    let labels = "integration=\"acme\",reason=\"unauthorized\"";
    assert_eq!(count(&world, "recoverd_sentry_webhooks_refused_total", labels).await, refused);
    assert!(series(&world, "recoverd_sentry_webhooks_accepted_total").await.is_empty());
    // The very bytes, and it is let in.
    assert_eq!(post_hook(&world, "issue", body).await, (200, "changed".to_owned()));
    let (_, page) = world.get("/metrics").await;
    assert!(!page.contains(SECRET) && !page.contains(&right));
    world.finish().await;
}

#[tokio::test]
async fn a_webhook_is_of_now_or_it_is_stale() {
    let world = world().await;
    let body = fixture("issue-created");
    let signature = sign(SECRET, &body).await;
    // A minute of slack for the test itself.
    let (early, late) = ((now() - 660).to_string(), (now() + 660).to_string());
    let table = [
        (Some(early.as_str()), 401),
        (Some(late.as_str()), 401),
        (Some("0"), 401),
        (Some("-1"), 401),
        (Some("+1795533960"), 401),
        (Some("soon"), 401),
        (Some(""), 401),
        (Some("99999999999999999999999"), 401),
        (Some("9223372036854775807"), 401),
        (None, 401),
    ];
    for (at, expected) in table {
        let url = format!("http://{}/sentry/acme", world.running.addresses.webhooks);
        let mut request = world.client.post(url).header("sentry-hook-resource", "issue").body(body.clone());
        request = request.header("sentry-hook-signature", &signature);
        if let Some(at) = at {
            request = request.header("sentry-hook-timestamp", at);
        }
        let (status, answer) = answered(request).await;
        assert_eq!(status, expected, "{at:?}: {answer}");
        assert!(answer["detail"].as_str().unwrap_or_default().contains("Sentry-Hook-Timestamp"), "{at:?}: {answer}");
    }
    let labels = "integration=\"acme\",reason=\"stale_timestamp\"";
    assert_eq!(count(&world, "recoverd_sentry_webhooks_refused_total", labels).await, table.len() as u64);
    for at in [now() - 540, now() + 540] {
        let (status, answer) = post_hook_at(&world, "comment", fixture("comment-created"), at).await;
        assert_eq!(status, 200, "{answer}");
    }
    world.finish().await;
}

#[tokio::test]
async fn bad_input_names_the_field_and_odd_input_costs_nothing() {
    let world = world().await;
    let hostile = "\u{202e}<script>alert(1)</script>\n|#pod:x\u{0}\u{1b}[2J".repeat(200);
    let issue = |issue: Value| json!({ "action": "created", "data": { "issue": issue } }).to_string();
    let action = |action: &str| json!({ "action": action, "data": { "issue": { "id": "1" } } }).to_string();
    let deep = format!(
        r#"{{"action":"created","x":{}{},"data":{{"issue":{{"id":"1"}}}}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let unheard_of = "x".repeat(3_000);
    let table: Vec<(&str, String, u16, &str)> = vec![
        ("issue", String::new(), 400, "not JSON"),
        ("issue", "garbage".into(), 400, "line 1, column 1"),
        ("issue", r#"{"action":"created""#.into(), 400, "not JSON"),
        ("issue", "[]".into(), 400, "`action`"),
        ("issue", "{}".into(), 400, "`action`"),
        ("issue", r#"{"action":7}"#.into(), 400, "`action`"),
        ("issue", r#"{"action":"created"}"#.into(), 400, "`data.issue.id`"),
        ("issue", issue(json!({ "id": "../../x" })), 400, "`data.issue.id`"),
        ("issue", issue(json!({ "id": -4 })), 400, "`data.issue.id`"),
        ("event_alert", r#"{"action":"triggered","data":{"event":[]}}"#.into(), 400, "`data.event.event_id`"),
        ("error", r#"{"action":"created","data":{"error":{}}}"#.into(), 400, "`data.error.event_id`"),
        ("comment", r#"{"action":"created","data":{}}"#.into(), 400, "`data.comment_id`"),
        ("metric_alert", r#"{"action":"critical","data":{}}"#.into(), 400, "`data.metric_alert.identifier`"),
        (
            "metric_alert",
            r#"{"action":"critical","data":{"metric_alert":{"identifier":"1"}}}"#.into(),
            400,
            "`data.metric_alert.alert_rule.id`",
        ),
        // Numbers as they are, no slug, no project at all, texts that mean harm, kinds that are odd.
        ("issue", issue(json!({ "id": 21, "project": { "id": 7 } })), 200, ""),
        ("issue", issue(json!({ "id": "22" })), 200, ""),
        ("issue", issue(json!({ "id": 23, "title": hostile, "culprit": hostile, "shortId": hostile })), 200, ""),
        (
            "issue",
            issue(json!({ "id": 24, "title": {}, "level": 9, "project": "web", "web_url": "javascript:x" })),
            200,
            "",
        ),
        ("issue", r#"{"action":"created","data":{"issue":{"id":"25","title":"half \ud800"}}}"#.into(), 200, ""),
        ("issue", deep, 200, ""),
        ("issue", action("merged"), 200, "unknown_action"),
        ("event_alert", action("resolved"), 200, "unknown_action"),
        ("metric_alert", action("exploded"), 200, "unknown_action"),
        ("error", action("deleted"), 200, "unknown_action"),
        ("comment", action("liked"), 200, "unknown_action"),
        ("preprod_artifact", "{}".into(), 200, "unknown_resource"),
        (&unheard_of, "{}".into(), 200, "unknown_resource"),
        ("installation", "no JSON".into(), 200, "installation"),
    ];
    for (resource, body, status, words) in table {
        let signature = sign(SECRET, body.as_bytes()).await;
        let start: String = body.chars().take(200).collect();
        let request = hook(&world, "acme", resource, now()).header("sentry-hook-signature", signature).body(body);
        let (found, answer) = answered(request).await;
        assert_eq!(found, status, "{resource} {start}: {answer}");
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words) && detail.is_empty() == words.is_empty(), "{resource} {start}: {detail:?}");
    }
    let refused = "integration=\"acme\",reason=\"bad_request\"";
    assert_eq!(count(&world, "recoverd_sentry_webhooks_refused_total", refused).await, 14);
    for (reason, expected) in [("unknown_action", 5), ("unknown_resource", 2)] {
        let labels = format!("integration=\"acme\",reason=\"{reason}\"");
        assert_eq!(count(&world, "recoverd_sentry_webhooks_ignored_total", &labels).await, expected, "{reason}");
    }
    let labels = "integration=\"acme\",resource=\"other\",was=\"ignored\"";
    assert_eq!(count(&world, "recoverd_sentry_webhooks_accepted_total", labels).await, 2);
    world.finish().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_whole() {
    let world = world().await;
    let issue = |length: usize| {
        let body = json!({ "action": "created", "data": { "issue": { "id": "1", "title": "" } } }).to_string();
        body.replace("\"title\":\"\"", &format!("\"title\":\"{}\"", "x".repeat(length - body.len())))
    };
    assert_eq!(post_hook(&world, "issue", issue(1024 * 1024)).await.0, 200);
    assert_eq!(post_hook(&world, "issue", issue(1024 * 1024 + 1)).await.0, 413);
    let labels = "integration=\"acme\",reason=\"too_large\"";
    assert_eq!(count(&world, "recoverd_sentry_webhooks_refused_total", labels).await, 1);
    world.finish().await;
}

#[tokio::test]
async fn a_secret_is_replaced_without_a_webhook_lost_and_opens_its_own_integration_alone() {
    let next = "the-next-client-secret-of-acme";
    let foreign = "the-client-secret-of-another";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secrets");
    std::fs::write(&file, format!("{next}\n")).unwrap();
    let tables = format!(
        "{}secrets_file = {:?}\n[[sentry.integrations]]\nname = \"other\"\nsecrets = [\"{foreign}\"]\n",
        integration(),
        file.display().to_string()
    );
    let world = World::with(&tables).await;
    let body = fixture("comment-created");
    let table = [
        ("acme", SECRET, 200),
        ("acme", next, 200),
        ("other", foreign, 200),
        ("acme", foreign, 401),
        ("other", next, 401),
    ];
    for (name, secret, expected) in table {
        let signature = sign(secret, &body).await;
        for path in [name.to_owned(), format!("{name}/")] {
            let request = hook(&world, &path, "comment", now()).header("sentry-hook-signature", &signature);
            let (status, answer) = answered(request.body(body.clone())).await;
            assert_eq!(status, expected, "{path} {secret}: {answer}");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn the_old_plugin_comes_in_by_a_token_which_stands_in_for_no_signature() {
    let world = world().await;
    let url = |rest: &str| format!("http://{}/sentry/acme{rest}", world.running.addresses.webhooks);
    let (in_path, in_query) = (format!("/{PLUGIN_TOKEN}"), format!("?token={PLUGIN_TOKEN}"));
    let in_path_and_slash = format!("/{PLUGIN_TOKEN}/");
    let plugin = fixture("plugin");
    for path in [&in_path, &in_path_and_slash, &in_query] {
        let (status, answer) = answered(world.client.post(url(path)).body(plugin.clone())).await;
        assert_eq!((status, answer["result"].is_string()), (200, true), "{path}: {answer}");
    }
    let bare = || world.client.post(url("")).body(plugin.clone());
    assert_eq!(answered(bare().bearer_auth(PLUGIN_TOKEN)).await.0, 200);
    assert_eq!(answered(bare().basic_auth("sentry", Some(PLUGIN_TOKEN))).await.0, 200);
    let accepted = series(&world, "recoverd_sentry_webhooks_accepted_total").await;
    let of_the_plugin = accepted.iter().filter(|(labels, _)| labels.contains("resource=\"plugin\""));
    assert_eq!(of_the_plugin.map(|(_, count)| count).sum::<u64>(), 5);

    for request in [bare(), bare().bearer_auth("wrong"), world.client.post(url("/wrong")).body(plugin.clone())] {
        let (status, answer) = answered(request).await;
        assert_eq!(status, 401, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("a token is needed"), "{answer}");
    }
    // A secret is no token.
    assert_eq!(answered(bare().bearer_auth(SECRET)).await.0, 401);
    // What Sentry signs must be signed, whoever brings a token; and the plugin's document has no header to claim otherwise.
    let issue = fixture("issue-resolved");
    for path in ["acme", &format!("acme{in_path}"), &format!("acme{in_query}")] {
        let request = hook(&world, path, "issue", now()).bearer_auth(PLUGIN_TOKEN).body(issue.clone());
        let (status, answer) = answered(request).await;
        assert_eq!(status, 401, "{path}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("a signature is needed"), "{path}: {answer}");
    }
    let (status, answer) = answered(world.client.post(url(&in_path)).body(issue)).await;
    assert_eq!(status, 400, "an issue's webhook is not the plugin's: {answer}");
    assert!(answer["detail"].as_str().unwrap().contains("`event.event_id`"), "{answer}");
    world.finish().await;
}

#[tokio::test]
async fn without_authentication_everything_is_believed() {
    let world = World::with("[[sentry.integrations]]\nname = \"acme\"\nauth = \"none\"\n").await;
    let unsigned = |at| hook(&world, "acme", "issue", at).body(fixture("issue-created"));
    assert_eq!(answered(unsigned(now())).await.0, 200);
    assert_eq!(answered(unsigned(now() - 3600)).await.0, 401, "a time that is given must be of now");
    let url = format!("http://{}/sentry/acme", world.running.addresses.webhooks);
    assert_eq!(answered(world.client.post(url).body(fixture("plugin"))).await.0, 200);
    world.finish().await;
}

#[tokio::test]
async fn what_addresses_no_integration_is_refused_like_everything_else() {
    let world = world().await;
    let url = |path: &str| format!("http://{}{path}", world.running.addresses.webhooks);
    let table = [
        (Method::POST, "/sentry/nobody", 404),
        (Method::POST, "/sentry/nobody/token", 404),
        (Method::POST, "/sentry/%FF", 404),
        (Method::POST, "/sentry/acme/%FF", 404),
        (Method::POST, "/sentry", 404),
        (Method::POST, "/sentry/acme/a/b", 404),
        (Method::GET, "/sentry/acme", 405),
        (Method::PUT, "/sentry/acme/token/", 405),
        // The other door's answers are its own.
        (Method::GET, "/jenkins/main", 405),
        (Method::POST, "/jenkins/nobody", 404),
    ];
    for (method, path, status) in table {
        let response = world.client.request(method.clone(), url(path)).body("{}").send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
    }
    let refused = series(&world, "recoverd_sentry_webhooks_refused_total").await;
    let label = |reason: &str| format!("{{integration=\"\",reason=\"{reason}\"}}");
    assert_eq!(refused, [(label("method_not_allowed"), 2), (label("not_found"), 4)].into());
    let (_, page) = world.get("/metrics").await;
    assert!(!page.contains("nobody"), "a name that somebody tried is a label");
    let unsigned = world.client.post(url("/sentry/acme")).header("sentry-hook-resource", "issue").send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    assert!(unsigned.headers().contains_key("www-authenticate"));
    world.finish().await;
}
