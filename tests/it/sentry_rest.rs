//! An organization of Sentry is asked over its REST API: everything that is open is found, and no answer does harm.

use std::time::Duration;

use recoverd::sentry::rest::{Fault as Told, Incident, Issue, Pages, RemoteApi, RestError, RestSettings};

use crate::sentry_server::{API_TOKEN, Fault, ORGANIZATION, SentryServer};

fn settings(server: &SentryServer) -> RestSettings {
    RestSettings::new(server.url().parse().unwrap(), ORGANIZATION.to_owned(), API_TOKEN.into())
}

fn api(server: &SentryServer) -> RemoteApi {
    RemoteApi::new(settings(server)).unwrap()
}

async fn all<T>(mut pages: Pages<'_, T>) -> Result<(Vec<T>, bool), RestError> {
    let mut found = Vec::new();
    while let Some(page) = pages.next().await? {
        assert_eq!(page.unreadable, 0);
        found.extend(page.items);
    }
    Ok((found, pages.is_whole()))
}

fn ids(issues: &[Issue]) -> Vec<u64> {
    issues.iter().map(|issue| issue.id).collect()
}

#[tokio::test]
async fn every_open_issue_and_alert_is_found_page_by_page() {
    let server = SentryServer::spawn().await;
    {
        let mut sentry = server.sentry();
        sentry.page = 2;
        for id in 1..=7 {
            sentry.create(id, "web", "error");
        }
        sentry.set(3, "resolved");
        sentry.set(4, "ignored");
        sentry.alert(31, 7, "web", 20);
        sentry.alert(32, 8, "api", 2);
        sentry.alert(33, 9, "api", 10);
    }
    let api = api(&server);
    let (issues, is_whole) = all(api.unresolved()).await.unwrap();
    assert_eq!((ids(&issues), is_whole), (vec![7, 6, 5, 2, 1], true));
    assert_eq!(issues[0].project.slug.as_deref(), Some("web"));
    assert_eq!(issues[0].short_id.as_deref(), Some("WEB-7"));
    let asked = server.take_requests();
    assert_eq!(asked.len(), 3);
    assert!(asked[0].ends_with("&limit=100"), "{}", asked[0]);
    assert!(asked[2].ends_with("&limit=100&cursor=0:4:0"), "{}", asked[2]);

    let (alerts, _) = all(api.open_incidents()).await.unwrap();
    let told: Vec<_> = alerts.iter().map(|alert: &Incident| (alert.id, alert.status)).collect();
    assert_eq!(told, [(33, 10), (31, 20)]);
    assert_eq!((alerts[1].identifier, alerts[1].rule.id), (1_031, Some(7)));
}

#[tokio::test]
async fn one_issue_and_one_alert_are_asked_for_by_themselves() {
    let server = SentryServer::spawn().await;
    {
        let mut sentry = server.sentry();
        sentry.create(1, "web", "error");
        sentry.create(2, "web", "error");
        sentry.set(1, "resolved");
        sentry.merged.insert(9, 2);
        sentry.alert(31, 7, "web", 2);
    }
    let api = api(&server);
    assert_eq!(api.issue(1).await.unwrap().thing.status, "resolved");
    assert_eq!(api.issue(9).await.unwrap().thing.id, 2, "it was merged");
    assert_eq!(api.issue(8).await.unwrap_err().fault, Told::NotFound);
    assert_eq!(api.incident(1_031).await.unwrap().thing.status, 2);
    server.fault_at("incidents/1031/", Fault::Body(r#"{"id":"32","identifier":"1032","status":2}"#.to_owned()));
    assert_eq!(api.incident(1_031).await.unwrap_err().fault.reason(), "foreign", "no other may end it");
}

#[tokio::test]
async fn the_token_goes_nowhere_else() {
    let (server, other) = (SentryServer::spawn().await, SentryServer::spawn().await);
    server.sentry().create(1, "web", "error");
    server.fault(Fault::Redirect(format!("{}api/0/organizations/acme/issues/", other.url())));
    let fault = all(api(&server).unresolved()).await.unwrap_err().fault;
    assert_eq!(fault, Told::Redirect { to: format!("http://{}", other.address) });
    server.heal();
    let link = format!(
        "<{}api/0/organizations/acme/issues/?cursor=5:0:0>; rel=\"next\"; results=\"true\"; cursor=\"5:0:0\"",
        other.url()
    );
    server.fault_at("issues/", Fault::Link(link));
    assert_eq!(all(api(&server).unresolved()).await.unwrap_err().fault, Told::Circle);
    assert_eq!(other.take_requests(), Vec::<String>::new());
}

#[tokio::test]
async fn rate_limits_are_kept() {
    let server = SentryServer::spawn().await;
    {
        let mut sentry = server.sentry();
        sentry.page = 1;
        (1..=3).for_each(|id| sentry.create(id, "web", "error"));
        sentry.limit = Some(2);
    }
    let api = api(&server);
    let mut pages = api.unresolved();
    assert!(pages.next().await.unwrap().is_some());
    assert!(pages.next().await.unwrap().is_some());
    server.open_window();
    assert!(pages.next().await.unwrap().is_some());
    assert_eq!(server.take_requests().len(), 3, "none was refused: it waited for the window");

    // Refused, and put once more.
    server.sentry().limit = Some(0);
    let asking = api.issue(1);
    let opening = async {
        while server.take_requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.sentry().limit = None;
    };
    let (answered, ()) = tokio::join!(asking, opening);
    assert_eq!(answered.unwrap().thing.id, 1);

    // Who is to wait for long waits elsewhere.
    server.fault(Fault::Limited(Some(600)));
    let fault = api.issue(1).await.unwrap_err().fault;
    assert_eq!(fault, Told::RateLimited { retry_after: Some(Duration::from_mins(10)) });
}

#[tokio::test]
async fn each_fault_is_told_by_its_name() {
    let server = SentryServer::spawn().await;
    (1..=3).for_each(|id| server.sentry().create(id, "web", "error"));
    let deep = "[".repeat(200_000);
    let table = [
        (Fault::Status(401), "unauthorized"),
        (Fault::Status(403), "forbidden"),
        (Fault::Status(404), "not_found"),
        (Fault::Status(410), "not_found"),
        (Fault::Status(500), "status"),
        (Fault::Limited(Some(600)), "rate_limited"),
        (Fault::LoginPage, "page"),
        (Fault::Truncated, "syntax"),
        (Fault::Cut, "broken"),
        (Fault::Bomb(64 * 1024 * 1024), "too_large"),
        (Fault::Slow(Duration::from_secs(30)), "timeout"),
        (Fault::Circle, "circle"),
        (Fault::Link("<x>; rel=\"next\"; results=\"true\"; cursor=\"a b\"".to_owned()), "foreign"),
        (Fault::Body("{}".to_owned()), "foreign"),
        (Fault::Body("7".to_owned()), "foreign"),
        (Fault::Body(String::new()), "syntax"),
        (Fault::Body(deep.clone()), "syntax"),
        (Fault::Body(format!("[{}]", vec!["{\"id\":1,\"status\":\"x\"}"; 1_001].join(","))), "too_many"),
        (Fault::Body(format!("[{{\"id\":{deep}")), "syntax"),
    ];
    let api = RemoteApi::new(RestSettings { patience: Duration::from_secs(1), ..settings(&server) }).unwrap();
    for (fault, reason) in table {
        server.fault(fault.clone());
        let error = all(api.unresolved()).await.unwrap_err();
        assert_eq!(error.fault.reason(), reason, "{fault:?}: {error}");
        assert!(!error.to_string().contains(API_TOKEN) && error.to_string().len() < 600, "{error}");
        server.heal();
    }
    let refused = RestSettings { api_token: "another".into(), ..settings(&server) };
    let error = all(RemoteApi::new(refused).unwrap().unresolved()).await.unwrap_err();
    assert_eq!(error.fault, Told::Unauthorized);
    assert!(all(api.unresolved()).await.is_ok(), "and it is well again");
}

#[tokio::test]
async fn a_list_without_an_end_is_left() {
    let server = SentryServer::spawn().await;
    server.fault(Fault::Endless);
    let api = api(&server);
    let (issues, is_whole) = all(api.unresolved()).await.unwrap();
    assert_eq!((issues.len(), is_whole), (0, false));
    assert_eq!(server.take_requests().len(), 1_000);
    let brief = RestSettings { list_time: Duration::from_millis(50), ..settings(&server) };
    server.fault(Fault::Slow(Duration::from_secs(5)));
    let error = all(RemoteApi::new(brief).unwrap().unresolved()).await.unwrap_err();
    assert_eq!(error.fault.reason(), "endless");
}
