//! What each webhook says, and what holds for any.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::sentry::{AlertReport, AlertState, IssueReport, IssueState, Level, Notice, NoticeKind};

const AT: Timestamp = Timestamp::from_millis(1_795_533_960_000);

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentry").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn told(resource: Resource, body: impl AsRef<[u8]>) -> Occurrence {
    match read(resource, body.as_ref(), AT) {
        Ok(Reading::Told(occurrence)) => *occurrence,
        other => panic!("{other:?} from {}", String::from_utf8_lossy(body.as_ref())),
    }
}

fn issue(body: impl AsRef<[u8]>) -> IssueReport {
    let Occurrence::Issue(report) = told(Resource::Issue, body) else { panic!("not an issue") };
    report
}

fn alert(body: impl AsRef<[u8]>) -> AlertReport {
    let Occurrence::Alert(report) = told(Resource::MetricAlert, body) else { panic!("not an alert") };
    report
}

fn notice(resource: Resource, body: impl AsRef<[u8]>) -> Notice {
    let Occurrence::Notice(notice) = told(resource, body) else { panic!("not a notice") };
    notice
}

#[test]
fn an_issue_is_open_resolved_or_archived() {
    let table = [
        ("issue-created", IssueState::Open, "created"),
        ("issue-unresolved", IssueState::Open, "unresolved"),
        ("issue-resolved", IssueState::Resolved, "resolved"),
        ("issue-archived", IssueState::Archived, "archived"),
        ("issue-ignored", IssueState::Archived, "archived"),
    ];
    for (name, state, action) in table {
        let report = issue(fixture(name));
        assert_eq!((report.id, report.state, report.action, report.at), (4_509_112_233, state, action, AT), "{name}");
        let about = report.about;
        assert_eq!(about.project.as_deref(), Some("web"), "{name}");
        assert_eq!(about.short_id.as_deref(), Some("WEB-1F"));
        assert_eq!(about.level, Some(Level::Error));
        assert_eq!(about.title.as_deref(), Some("ValueError: no such card"));
        assert_eq!(about.culprit.as_deref(), Some("checkout.views in pay"));
        let link = "https://sentry.example.com/organizations/acme/issues/4509112233/";
        assert_eq!(about.link.as_deref(), Some(link));
    }
}

#[test]
fn a_metric_alert_says_which_rule_and_which_span() {
    let table = [
        ("metric-alert-critical", AlertState::Critical),
        ("metric-alert-warning", AlertState::Warning),
        ("metric-alert-open", AlertState::Open),
        ("metric-alert-resolved", AlertState::Resolved),
    ];
    for (name, state) in table {
        let report = alert(fixture(name));
        assert_eq!((report.rule, report.identifier, report.state, report.at), (17, 31, state, AT), "{name}");
        let about = report.about;
        assert_eq!(
            (about.name.as_deref(), about.projects),
            (Some("Too many errors"), vec!["web".into(), "api".into()])
        );
        assert!(about.text.unwrap().ends_with("events in the last 10 minutes\nFilter: level:error"), "{name}");
        let link = "https://sentry.example.com/organizations/acme/alerts/rules/details/17/?alert=31";
        assert_eq!(about.link.as_deref(), Some(link));
    }
}

#[test]
fn what_is_told_of_one_event_names_its_pod() {
    let event = "e4874d664c3540c1a32eab185f12c5ab";
    let page = format!("https://sentry.example.com/organizations/acme/issues/4509112233/events/{event}/");
    let plugins = "https://sentry.example.com/organizations/acme/issues/4509112233/?referrer=webhooks_plugin";
    let table = [
        (
            Resource::EventAlert,
            "event-alert-triggered",
            NoticeKind::EventAlert,
            format!("{event}/Payments fail"),
            Some("Payments fail"),
            page.as_str(),
        ),
        (Resource::Error, "error-created", NoticeKind::Error, event.to_owned(), None, &page),
        (
            Resource::Plugin,
            "plugin",
            NoticeKind::Plugin,
            event.to_owned(),
            Some("Send a notification for new issues"),
            plugins,
        ),
    ];
    for (resource, name, kind, id, rule, link) in table {
        let expected = Notice {
            kind,
            id,
            at: AT,
            issue: Some(4_509_112_233),
            project: Some("web".to_owned()),
            level: Some(Level::Error),
            title: Some("ValueError: no such card".to_owned()),
            culprit: Some("checkout.views in pay".to_owned()),
            link: Some(link.to_owned()),
            rule: rule.map(str::to_owned),
            pod_name: Some("web-6f7c9d5b8-x2x4p".to_owned()),
            pod_namespace: Some("shop".to_owned()),
        };
        assert_eq!(notice(resource, fixture(name)), expected, "{name}");
    }
    let comment = notice(Resource::Comment, fixture("comment-created"));
    assert_eq!((comment.kind, comment.id.as_str(), comment.issue), (NoticeKind::Comment, "1234", Some(4_509_112_233)));
    assert_eq!(
        (comment.project.as_deref(), comment.title.as_deref()),
        (Some("web"), Some("Rolled back to 2026.11.23"))
    );
}

#[test]
fn what_says_nothing_that_counts_says_why() {
    let table = [
        (Resource::Issue, "issue-assigned", IgnoredBecause::Assigned),
        (Resource::Comment, "comment-updated", IgnoredBecause::CommentEdited),
        (Resource::Comment, "comment-deleted", IgnoredBecause::CommentEdited),
        (Resource::Installation, "installation-created", IgnoredBecause::Installation),
        (Resource::Seer, "seer-root-cause-completed", IgnoredBecause::Seer),
        (Resource::read("activity_alert"), "issue-created", IgnoredBecause::UnknownResource),
        (Resource::MetricAlert, "issue-created", IgnoredBecause::UnknownAction),
        (Resource::EventAlert, "error-created", IgnoredBecause::UnknownAction),
        (Resource::Error, "event-alert-triggered", IgnoredBecause::UnknownAction),
    ];
    for (resource, name, because) in table {
        assert_eq!(read(resource, &fixture(name), AT), Ok(Reading::Ignored(because)), "{resource:?} {name}");
    }
}

#[test]
fn the_project_of_an_event_is_its_slug_or_else_its_number() {
    let table = [
        (json!({ "url": "https://sentry.io/api/0/projects/acme/web-shop/events/1/" }), Some("web-shop")),
        (json!({ "url": "https://h/sentry/api/0/projects/acme/web_2/events/1/", "project": 7 }), Some("web_2")),
        (json!({ "url": "https://sentry.io/api/0/projects/acme/web/issues/1/", "project": 7 }), Some("7")),
        (json!({ "url": "https://sentry.io/api/0/projects/acme//events/1/", "project": "7" }), Some("7")),
        (json!({ "url": "https://sentry.io/api/0/projects/acme/a|b/events/1/", "project": 7 }), Some("7")),
        (json!({ "url": 9, "project": 7 }), Some("7")),
        (json!({ "project": { "slug": "web" } }), None),
    ];
    for (mut event, expected) in table {
        event["event_id"] = "1".into();
        let body = json!({ "action": "created", "data": { "error": event } });
        assert_eq!(notice(Resource::Error, body.to_string()).project.as_deref(), expected, "{body}");
    }
    let body = json!({ "action": "created", "data": { "issue": { "id": 1, "project": { "id": 7 } } } });
    assert_eq!(issue(body.to_string()).about.project.as_deref(), Some("7"));
}

#[test]
fn tags_are_found_however_they_are_written() {
    let long = "x".repeat(500);
    let table = [
        (json!([["pod_name", "web-1"], ["pod_namespace", "shop"]]), Some("web-1"), Some("shop")),
        (json!([{ "key": "pod_name", "value": "web-1" }, { "value": 1 }]), Some("web-1"), None),
        (json!({ "pod_name": "web-1", "pod_namespace": null }), Some("web-1"), None),
        (json!([["pod_name", "web-1"], ["pod_name", "web-2"]]), Some("web-1"), None),
        (json!([null, [], ["pod_name"], ["pod_name", 7], ["pod_name", " "], 3]), None, None),
        (json!([["pod_name", long, "more"], [["pod_namespace"], "shop"]]), Some(&long[..200]), None),
        (json!("pod_name=web-1"), None, None),
    ];
    for (tags, name, namespace) in table {
        let body = json!({ "action": "created", "data": { "error": { "event_id": "1", "tags": tags } } });
        let notice = notice(Resource::Error, body.to_string());
        let found = (notice.pod_name.as_deref(), notice.pod_namespace.as_deref());
        assert_eq!(found, (name, namespace), "{tags}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_none_and_a_text_is_cut_between_characters() {
    let of = |issue: Value| self::issue(json!({ "action": "created", "data": { "issue": issue } }).to_string()).about;
    let table = [
        (json!("https://sentry.io/issues/1/"), Some("https://sentry.io/issues/1/")),
        (json!("http://sentry.internal/issues/1/"), Some("http://sentry.internal/issues/1/")),
        (json!("javascript:alert(1)"), None),
        (json!("/issues/1/"), None),
        (json!("https://sentry.io/ x"), None),
        (json!("https://sentry.io/\nx"), None),
        (json!(format!("https://sentry.io/{}", "x".repeat(3_000))), None),
        (json!(["https://sentry.io/"]), None),
    ];
    for (link, expected) in table {
        assert_eq!(of(json!({ "id": 1, "web_url": link })).link.as_deref(), expected, "{link}");
    }
    let both = json!({ "id": 1, "web_url": "https://sentry.io/b", "permalink": "https://sentry.io/a" });
    assert_eq!(of(both).link.as_deref(), Some("https://sentry.io/a"));
    assert_eq!(of(json!({ "id": 1, "title": "é".repeat(5_000) })).title.unwrap().chars().count(), 1_000);
    assert_eq!(of(json!({ "id": 1, "title": " " })).title, None);
}

#[test]
fn text_that_no_one_can_write_costs_that_text_alone() {
    let halves =
        br#"{"action":"created","data":{"issue":{"id":"1","title":"half \ud800","culprit":"x","level":1e400}}}"#;
    let about = issue(halves).about;
    assert_eq!((about.title, about.culprit.as_deref(), about.level), (None, Some("x"), None));
    let bytes = b"\xEF\xBB\xBF{\"action\":\"created\",\"data\":{\"issue\":{\"id\":\"1\",\"title\":\"\xFF\",\"culprit\":\"x\"}}}";
    let about = issue(bytes).about;
    assert_eq!((about.title.as_deref(), about.culprit.as_deref()), (Some("\u{fffd}"), Some("x")));
}

#[test]
fn an_error_says_which_field_or_where_and_repeats_nothing() {
    let error = |body: &str| read(Resource::Issue, body.as_bytes(), AT).unwrap_err();
    assert_eq!(error("{\"action\":\n s3cret"), HookError::Syntax { line: 2, column: 2 });
    assert_eq!(error(r#"{"action":{"s3cret":1}}"#), HookError::Missing { field: "action" });
    let message = error(r#"{"action":"created","data":{"issue":{"id":"s3cret"}}}"#).to_string();
    assert!(message.contains("`data.issue.id`") && !message.contains("s3cret"), "{message}");
}

#[test]
fn a_time_is_of_now_when_it_is_within_ten_minutes_of_it() {
    let now = Timestamp::from_millis(1_795_533_960_500);
    let table = [
        ("1795533960", true),
        ("1795533361", true),
        ("1795533360", false),
        ("1795534560", true),
        ("1795534561", false),
        ("1795533960.5", false),
        ("-1795533960", false),
        ("+1795533960", false),
        (" 1795533960", false),
        ("", false),
        ("9223372036854775807", false),
        ("99999999999999999999", false),
    ];
    for (header, expected) in table {
        let at = fresh(header, now);
        assert_eq!(at.is_some(), expected, "{header:?}");
        assert_eq!(at.map(Timestamp::as_seconds), header.parse().ok().filter(|_| expected), "{header:?}");
    }
}

const RESOURCES: [Resource; 9] = [
    Resource::Issue,
    Resource::EventAlert,
    Resource::MetricAlert,
    Resource::Error,
    Resource::Comment,
    Resource::Plugin,
    Resource::Installation,
    Resource::Seer,
    Resource::Other,
];

/// Any JSON, with the keys that are looked for among others.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "created|triggered|critical|resolved|[0-9]{1,25}|.{0,9}".prop_map(Value::from),
    ];
    let key =
        "action|data|issue|event|error|metric_alert|alert_rule|identifier|id|event_id|comment_id|project|tags|url|x";
    leaf.prop_recursive(5, 80, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// For all documents of each resource: sound JSON is never a syntax error, and an error names a field.
    #[test]
    fn sound_json_is_told_ignored_or_lacks_a_field(document in document()) {
        let body = serde_json::to_vec(&document).unwrap();
        for resource in RESOURCES {
            if let Err(error) = read(resource, &body, AT) {
                prop_assert!(matches!(error, HookError::Missing { .. }), "{error}");
            }
        }
    }

    /// For all bytes: a body is read or refused.
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for resource in RESOURCES {
            let _ = read(resource, &body, AT);
        }
    }
}
