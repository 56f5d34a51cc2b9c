//! What Sentry tells of becomes alerts that recover: one check for each issue, project and metric alert, whatever happens in
//! between.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use recoverd::datadog::decode::{Check, Datagram};
use recoverd::domain::build::Timestamp;
use recoverd::domain::sentry::tally::Tally;
use recoverd::domain::sentry::{
    IntegrationName, IssueReport, IssueState, IssueText, Level, Occurrence, SentryKey, Subject,
};
use recoverd::machinery::clock::Clock;
use recoverd::store::{Store, StoreMetrics};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::hooks::{SECRET, now, sign};
use crate::sentry_server::SentryServer;
use crate::world::{Agent, CRITICAL, OK, PATIENCE, Process, WARNING, World, recoverd, settings_text};

fn integration() -> String {
    format!("[[sentry.integrations]]\nname = \"sentry\"\nsecrets = [\"{SECRET}\"]\n")
}

/// Posts one of so many seconds ago, signed. The status, and what became of it.
async fn post_signed(webhooks: SocketAddr, resource: &str, seconds_ago: u64, body: &str) -> (u16, String) {
    let request = reqwest::Client::new().post(format!("http://{webhooks}/sentry/sentry"));
    let request = request.header("sentry-hook-resource", resource).header("content-type", "application/json");
    let request = request.header("sentry-hook-timestamp", (now() - seconds_ago).to_string());
    let signature = sign(SECRET, body.as_bytes()).await;
    let response = request.header("sentry-hook-signature", signature).body(body.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    (status, answer["result"].as_str().unwrap_or_default().to_owned())
}

/// An issue's webhook.
fn issue(id: u64, project: &str, action: &str, level: &str) -> Value {
    let status = match action {
        "created" | "unresolved" => "unresolved",
        other => other,
    };
    json!({
        "action": action,
        "actor": { "type": "application", "id": "sentry", "name": "Sentry" },
        "installation": { "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de" },
        "data": { "issue": {
            "id": id.to_string(), "shortId": format!("{}-{id}", project.to_uppercase()),
            "title": format!("ValueError: {id}"), "culprit": "app.views in get", "level": level, "status": status,
            "substatus": "new", "count": "1", "userCount": 0, "permalink": null,
            "web_url": format!("https://acme.sentry.io/issues/{id}/"),
            "firstSeen": "2026-11-24T15:26:00Z", "lastSeen": "2026-11-24T15:26:00Z",
            "project": { "id": "7", "name": project, "slug": project, "platform": "python" },
        } },
    })
}

fn metric_alert(identifier: u64, action: &str) -> Value {
    json!({
        "action": action,
        "installation": { "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de" },
        "data": {
            "metric_alert": {
                "id": (identifier - 1_000).to_string(), "identifier": identifier.to_string(), "title": "Too many errors",
                "status": 20, "projects": ["web"], "date_started": "2026-11-24T15:26:00Z", "date_closed": null,
                "alert_rule": { "id": "7", "name": "Too many errors" },
            },
            "description_title": "Critical: Too many errors", "description_text": "512 events in the last 10 minutes",
            "web_url": "https://acme.sentry.io/alerts/rules/details/7/",
        },
    })
}

fn event_alert(event: &str) -> Value {
    json!({
        "action": "triggered",
        "installation": { "uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de" },
        "data": {
            "event": {
                "event_id": event, "issue_id": "4509", "level": "error", "title": "ValueError: x", "culprit": "app.views in get",
                "project": 7, "timestamp": 1_790_000_000.5, "url": format!("https://sentry.io/api/0/projects/acme/web/events/{event}/"),
                "web_url": format!("https://acme.sentry.io/issues/4509/events/{event}/"),
                "tags": [["level", "error"], ["pod_name", "web-7d9-abc"], ["pod_namespace", "shop"]],
            },
            "triggered_rule": "Send to Datadog",
        },
    })
}

/// Posts one that must be taken, and returns what became of it.
async fn hook(world: &World, resource: &str, seconds: u64, body: &Value) -> String {
    let webhooks = world.running.addresses.webhooks;
    let (status, result) = post_signed(webhooks, resource, seconds, &body.to_string()).await;
    assert_eq!(status, 200, "{resource} {body}");
    result
}

/// The next check of this name that has this tag, whatever comes before it.
async fn next_check(agent: &Agent, name: &str, tag: &str) -> Check {
    let waiting = async {
        loop {
            for message in agent.next().await {
                match message {
                    Datagram::Check(check) if check.name == name && check.tags.iter().any(|known| known == tag) => {
                        return check;
                    }
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no {name} of {tag}"))
}

/// Waits until it says this.
async fn expect(agent: &Agent, name: &str, tag: &str, status: u8) -> Check {
    let waiting = async {
        loop {
            let check = next_check(agent, name, tag).await;
            if check.status == status {
                return check;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{name} of {tag} never said {status}"))
}

#[tokio::test]
async fn an_issue_and_its_project_go_critical_and_come_back() {
    let world = World::with(&integration()).await;
    assert_eq!(hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await, "changed");
    let check = expect(&world.agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    let expected = ["integration:sentry", "dd.internal.card:none", "project:web", "issue:WEB-1"];
    assert_eq!(check.tags, expected, "nothing that could split its group");
    assert_eq!(check.host.as_deref(), Some("sentry"));
    assert!(check.message.unwrap().contains("ValueError: 1"));
    expect(&world.agent, "sentry.project.status", "project:web", CRITICAL).await;
    assert_eq!(hook(&world, "issue", 80, &issue(2, "web", "created", "warning")).await, "changed");
    expect(&world.agent, "sentry.issue.status", "issue:WEB-2", WARNING).await;
    assert_eq!(hook(&world, "issue", 70, &issue(1, "web", "resolved", "error")).await, "changed");
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", OK).await;
    expect(&world.agent, "sentry.project.status", "project:web", WARNING).await;
    assert_eq!(hook(&world, "issue", 60, &issue(2, "web", "archived", "warning")).await, "changed");
    expect(&world.agent, "sentry.project.status", "project:web", OK).await;
    // A regression, and an older word that comes late.
    assert_eq!(hook(&world, "issue", 50, &issue(1, "web", "unresolved", "fatal")).await, "changed");
    assert_eq!(hook(&world, "issue", 55, &issue(1, "web", "resolved", "error")).await, "stale");
    assert_eq!(hook(&world, "issue", 50, &issue(1, "web", "unresolved", "fatal")).await, "duplicate");
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    world.finish().await;
}

/// The check of the project that has none, as this says.
async fn expect_of_no_project(agent: &Agent, status: u8) {
    let waiting = async {
        loop {
            let check = next_check(agent, "sentry.project.status", "integration:sentry").await;
            if check.status == status && !check.tags.iter().any(|tag| tag.starts_with("project:")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no project never said {status}"));
}

#[tokio::test]
async fn an_issue_whose_project_is_learned_late_leaves_none_behind() {
    let world = World::with(&integration()).await;
    let mut without = issue(1, "web", "created", "error");
    without["data"]["issue"]["project"] = Value::Null;
    hook(&world, "issue", 90, &without).await;
    expect_of_no_project(&world.agent, CRITICAL).await;
    hook(&world, "issue", 80, &issue(1, "web", "unresolved", "error")).await;
    expect_of_no_project(&world.agent, OK).await;
    hook(&world, "issue", 70, &issue(1, "web", "resolved", "error")).await;
    expect(&world.agent, "sentry.project.status", "project:web", OK).await;
    world.finish().await;
}

#[tokio::test]
async fn each_change_of_an_issue_is_one_event() {
    let world = World::with(&integration()).await;
    hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await;
    let event = world.agent.next_event().await;
    assert_eq!(event.title, "WEB-1 is new: ValueError: 1");
    assert!(event.text.contains("app.views in get") && event.text.contains("https://acme.sentry.io/issues/1/"));
    assert_eq!(event.alert.as_deref(), Some("error"));
    hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await;
    hook(&world, "issue", 80, &issue(1, "web", "resolved", "error")).await;
    let next = world.agent.next_event().await;
    assert_eq!(next.title, "WEB-1 was resolved: ValueError: 1", "and the repetition made none");
    assert_eq!(next.aggregation_key, event.aggregation_key);
    world.finish().await;
}

#[tokio::test]
async fn a_metric_alert_follows_its_worst_span() {
    let world = World::with(&integration()).await;
    hook(&world, "metric_alert", 90, &metric_alert(1_001, "warning")).await;
    let check = expect(&world.agent, "sentry.alert.status", "alert_id:7", WARNING).await;
    let expected = ["integration:sentry", "dd.internal.card:none", "alert:too_many_errors", "alert_id:7"];
    assert_eq!(check.tags.iter().map(|tag| tag.to_lowercase()).collect::<Vec<_>>(), expected);
    hook(&world, "metric_alert", 80, &metric_alert(1_001, "critical")).await;
    let check = expect(&world.agent, "sentry.alert.status", "alert_id:7", CRITICAL).await;
    assert!(check.message.unwrap().contains("512 events in the last 10 minutes"));
    hook(&world, "metric_alert", 70, &metric_alert(1_002, "warning")).await;
    hook(&world, "metric_alert", 60, &metric_alert(1_001, "resolved")).await;
    expect(&world.agent, "sentry.alert.status", "alert_id:7", WARNING).await;
    hook(&world, "metric_alert", 50, &metric_alert(1_002, "resolved")).await;
    expect(&world.agent, "sentry.alert.status", "alert_id:7", OK).await;
    world.finish().await;
}

#[tokio::test]
async fn an_alerts_event_names_its_pod_once_and_no_check_does() {
    let world = World::with(&integration()).await;
    let event = "e4874d664c3540c1a32eab185f12c5ab";
    assert_eq!(hook(&world, "event_alert", 90, &event_alert(event)).await, "changed");
    assert_eq!(hook(&world, "event_alert", 80, &event_alert(event)).await, "duplicate");
    let mut told = (None, None);
    while told.0.is_none() || told.1.is_none() {
        for message in world.agent.next().await {
            match message {
                Datagram::Event(event) => assert!(told.0.replace(event).is_none(), "told twice"),
                Datagram::Metric(metric) if metric.name == "sentry.event_alert.triggered" => {
                    assert!(told.1.replace(metric).is_none(), "counted twice");
                }
                Datagram::Check(check) => panic!("an event is no level: {check:?}"),
                Datagram::Metric(_) => {}
            }
        }
    }
    let (event, metric) = (told.0.unwrap(), told.1.unwrap());
    for tags in [&event.tags, &metric.tags] {
        for tag in ["pod_name:web-7d9-abc", "kube_namespace:shop", "project:web"] {
            assert!(tags.iter().any(|known| known == tag), "{tag} is not among {tags:?}");
        }
    }
    assert!(event.text.contains("https://acme.sentry.io/issues/4509/"));
    world.finish().await;
}

/// Created, killed, started anew, resolved.
#[tokio::test]
async fn an_open_issue_outlives_sigkill_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let text = settings_text(directory.path(), &agent.address, &integration());
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let post = async |webhooks, seconds, action| {
        let body = issue(1, "web", action, "error").to_string();
        assert_eq!(post_signed(webhooks, "issue", seconds, &body).await.0, 200);
    };
    post(process.webhooks, 90, "created").await;
    process.child.kill().await.unwrap();
    agent.forget();
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    expect(&agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    expect(&agent, "sentry.project.status", "project:web", CRITICAL).await;
    post(process.webhooks, 80, "resolved").await;
    expect(&agent, "sentry.issue.status", "issue:WEB-1", OK).await;
    expect(&agent, "sentry.project.status", "project:web", OK).await;
    process.child.kill().await.unwrap();
}

/// What was acknowledged while nobody could be told is told afterwards.
#[tokio::test]
async fn an_alerts_event_outlives_sigkill_while_the_agent_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let text = settings_text(directory.path(), &format!("unix://{}", socket.display()), &integration());
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let body = event_alert("e4874d664c3540c1a32eab185f12c5ab").to_string();
    assert_eq!(post_signed(process.webhooks, "event_alert", 90, &body).await.0, 200);
    process.child.kill().await.unwrap();
    let agent = Agent::unix(&socket);
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    assert_eq!(agent.next_event().await.title, "Send to Datadog: ValueError: x");
    process.child.kill().await.unwrap();
}

#[tokio::test]
async fn a_lost_resolved_is_healed_by_the_next_look() {
    let server = SentryServer::spawn().await;
    {
        let mut sentry = server.sentry();
        sentry.create(1, "web", "error");
        sentry.alert(31, 7, "web", 20);
        // Nobody told of this one.
        sentry.create(2, "shop", "warning");
    }
    let world = World::with(&server.settings("sentry", SECRET)).await;
    hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await;
    hook(&world, "metric_alert", 90, &metric_alert(1_031, "critical")).await;
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    expect(&world.agent, "sentry.alert.status", "alert_id:7", CRITICAL).await;
    expect(&world.agent, "sentry.issue.status", "issue:SHOP-2", WARNING).await;
    {
        let mut sentry = server.sentry();
        sentry.set(1, "resolved");
        // As if its rule had been edited: Sentry closes what was open under a copy of the rule.
        sentry.alert(31, 8, "web", 2);
    }
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", OK).await;
    expect(&world.agent, "sentry.alert.status", "alert_id:7", OK).await;
    expect(&world.agent, "sentry.project.status", "project:web", OK).await;
    world.finish().await;
}

/// The first look at a Sentry may show thousands.
#[tokio::test]
async fn what_was_open_before_is_told_and_is_no_event() {
    let server = SentryServer::spawn().await;
    server.sentry().create(1, "web", "error");
    server.sentry().alert(31, 7, "web", 20);
    let world = World::with(&server.settings("sentry", SECRET)).await;
    let mut critical = BTreeSet::new();
    while critical.len() < 3 {
        for message in world.agent.next().await {
            match message {
                Datagram::Check(check) => drop(critical.insert((check.name, check.status == CRITICAL))),
                Datagram::Event(event) => panic!("it is as old as that: {event:?}"),
                Datagram::Metric(_) => {}
            }
        }
    }
    assert!(critical.iter().all(|(_, is_critical)| *is_critical), "{critical:?}");
    hook(&world, "issue", 90, &issue(2, "web", "created", "error")).await;
    assert!(world.agent.next_event().await.title.starts_with("WEB-2 is new"));
    world.finish().await;
}

#[tokio::test]
async fn an_integration_that_is_taken_out_is_closed_with_one_ok() {
    let world = World::with(&integration()).await;
    hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await;
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    let text = world.text().replace(&integration(), "");
    let world = world.restarted_with(text).await;
    let check = expect(&world.agent, "sentry.issue.status", "issue:WEB-1", OK).await;
    assert!(check.message.unwrap_or_default().contains("left out by the configuration"));
    let text = format!("{}\n{}", world.text(), integration());
    let world = world.restarted_with(text).await;
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", CRITICAL).await;
    world.finish().await;
}

#[tokio::test]
async fn issues_are_listed_shown_and_forgotten() {
    let world = World::with(&integration()).await;
    hook(&world, "issue", 90, &issue(1, "web", "created", "error")).await;
    hook(&world, "metric_alert", 90, &metric_alert(1_001, "critical")).await;
    let (status, body) = world.get("/api/v1/issues?limit=2").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, page["issues"].as_array().unwrap().len()), (200, 2));
    let after = page["next"].as_str().unwrap();
    let (_, body) = world.get(&format!("/api/v1/issues?after={after}")).await;
    let rest: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(rest["issues"][0]["id"], "project/web");
    for id in ["1", "WEB-1", "web-1"] {
        let (status, body) = world.get(&format!("/api/v1/issues/sentry/{id}")).await;
        let shown: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &shown["status"], &shown["name"]), (200, &json!("critical"), &json!("WEB-1")), "{id}");
    }
    for id in ["9", "WEB-9", "alert/9", "project/none"] {
        assert_eq!(world.get(&format!("/api/v1/issues/sentry/{id}")).await.0, 404, "{id}");
    }
    let forget = async |id: &str| {
        let url = world.admin_url(&format!("/api/v1/issues/sentry/{id}"));
        world.client.delete(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(forget("project/web").await, 400);
    assert_eq!(forget("WEB-1").await, 204);
    expect(&world.agent, "sentry.issue.status", "issue:WEB-1", OK).await;
    assert_eq!(forget("alert/7").await, 204);
    expect(&world.agent, "sentry.alert.status", "alert_id:7", OK).await;
    world.finish().await;
}

/// A project with more open issues than are watched gives up those that have been quiet for longest, and says so.
#[tokio::test]
async fn a_flood_of_issues_in_one_project_is_bounded() {
    const MORE: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    let name = IntegrationName::parse("sentry").unwrap();
    let mut rulebook = recoverd::domain::rules::Rulebook::default();
    rulebook.add_integration(name.clone(), Vec::new());
    let health = recoverd::machinery::health::Health::default().required("store");
    let metrics = StoreMetrics::register(&mut registry);
    let (store, mut news) = Store::open(directory.path(), rulebook.into(), Clock::system(), health, metrics).unwrap();
    let told = async { while news.recv().await.is_some() {} };
    let fed = async {
        let all = Tally::MAX_ISSUES as u64 + MORE;
        for id in 1..=all {
            let about = IssueText { project: Some("web".into()), level: Some(Level::Error), ..IssueText::default() };
            let at = Timestamp::from_millis(1_790_000_000_000 + i64::try_from(id).unwrap());
            let report = IssueReport { id, state: IssueState::Open, action: "created", at, about };
            store.hear(name.clone(), Occurrence::Issue(report)).await.unwrap();
        }
        let (mut open, mut rows, mut after) = (0, 0, None::<SentryKey>);
        loop {
            let page = store.sentry_page(after.as_ref(), 1_000).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in &page {
                if let recoverd::domain::sentry::record::SentryRecord::Issue(issue) = &entry.record {
                    rows += 1;
                    open += u64::from(!issue.is_closed());
                    let Subject::Issue(id) = entry.key.subject else { panic!("{entry:?}") };
                    assert_eq!(issue.is_closed(), id <= MORE, "{id}");
                }
            }
        }
        assert_eq!(open, Tally::MAX_ISSUES as u64);
        assert!(rows <= 2 * Tally::MAX_ISSUES as u64);
        drop(store);
    };
    tokio::join!(told, fed);
}
