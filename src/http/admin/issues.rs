//! `/api/v1/issues`: what Sentry told of, issues, projects and metric alerts.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Admin, AnnouncedView, PAGE, Page, read};
use crate::domain::record::Announced;
use crate::domain::sentry::record::{Ended, SentryRecord};
use crate::domain::sentry::speech::{alert_message, issue_message, project_message};
use crate::domain::sentry::{IntegrationName, SentryKey, Subject};
use crate::domain::status::Status;
use crate::http::problem::Problem;
use crate::store::{SentryEntry, Store, StoreError};

/// An issue, a metric alert or a project, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssueView {
    pub integration: String,
    /// `issue`, `alert` or `project`.
    pub kind: String,
    /// What to ask for it by: an issue's number, `alert/` and its rule's number, `project/` and its slug.
    pub id: String,
    /// What people call it.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    pub status: Status,
    /// One line: why it has this status.
    pub why: String,
    /// By Sentry's clock, when that was so. Absent for a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// The last status that Datadog was told, and whether the Agent has taken it.
    pub announced: Option<AnnouncedView>,
    /// Why it is no longer watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// One page of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssuesView {
    pub issues: Vec<IssueView>,
    /// Ask for `?after=` this to go on; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<IssuesView>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::BadRequest(rejection.body_text()))?;
    let after = page.after.as_deref().map(cursor).transpose()?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE * 10);
    let entries = read(&admin.store, move |store| store.sentry_page(after.as_ref(), limit)).await?;
    let last = entries.last().filter(|_| entries.len() == limit);
    let next = last.map(|SentryEntry { key, .. }| format!("{}:{}", key.integration, key.subject));
    Ok(Json(IssuesView { issues: entries.iter().filter_map(view).collect(), next }))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<IssueView>, Problem> {
    let entry = find(&admin, path).await?;
    view(&entry).map(Json).ok_or(Problem::NotFound)
}

pub(super) async fn forget(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let entry = find(&admin, path).await?;
    if matches!(entry.key.subject, Subject::Project(_)) {
        return Err(Problem::BadRequest("a project follows from its issues; forget those".to_owned()));
    }
    let found = admin.store.forget(entry.key).await.map_err(|_| Problem::NotStored)?;
    if found { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::NotFound) }
}

async fn find(admin: &Admin, path: Result<Path<(String, String)>, PathRejection>) -> Result<SentryEntry, Problem> {
    let Path((integration, name)) = path.map_err(|_| Problem::NotFound)?;
    let integration = IntegrationName::parse(&integration).map_err(|_| Problem::NotFound)?;
    let subject = match name.parse() {
        Ok(id) => Some(Subject::Issue(id)),
        Err(_) => Subject::parse(&name),
    };
    let found = read(&admin.store, move |store| match subject {
        Some(subject) => store.sentry_find(&SentryKey { integration, subject }),
        None => by_short_id(store, &integration, &name),
    });
    found.await?.ok_or(Problem::NotFound)
}

/// Looks through all issues: there is no index, and operators ask rarely.
fn by_short_id(store: &Store, integration: &IntegrationName, name: &str) -> Result<Option<SentryEntry>, StoreError> {
    let mut after = None;
    loop {
        let page = store.sentry_page(after.as_ref(), PAGE * 10)?;
        let Some(last) = page.last() else { return Ok(None) };
        after = Some(last.key.clone());
        let is_it = |entry: &SentryEntry| match &entry.record {
            SentryRecord::Issue(issue) => {
                let short_id = issue.about().short_id.as_deref();
                entry.key.integration == *integration && short_id.is_some_and(|id| id.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        if let Some(found) = page.into_iter().find(is_it) {
            return Ok(Some(found));
        }
    }
}

fn cursor(after: &str) -> Result<SentryKey, Problem> {
    let read = || {
        let (integration, subject) = after.split_once(':')?;
        Some(SentryKey { integration: IntegrationName::parse(integration).ok()?, subject: Subject::parse(subject)? })
    };
    read().ok_or_else(|| Problem::BadRequest("`after` is the `next` of the page before".to_owned()))
}

/// `None` for a notice, which has no status, and for what has ended and is only remembered.
fn view(SentryEntry { key, record }: &SentryEntry) -> Option<IssueView> {
    let standing = record.standing()?;
    let announced = standing.announced();
    let name = standing.group().name.clone();
    let seen = IssueView {
        integration: key.integration.to_string(),
        kind: String::new(),
        id: String::new(),
        name: name.unwrap_or_default(),
        project: standing.group().project.clone(),
        status: Status::Ok,
        why: String::new(),
        at_ms: None,
        announced: announced.map(announced_view),
        closed: None,
        link: None,
    };
    Some(match (&key.subject, record) {
        (Subject::Issue(id), SentryRecord::Issue(issue)) => {
            let is_spent = issue.ended().is_some() && standing.is_told();
            (!is_spent).then(|| IssueView {
                kind: "issue".to_owned(),
                id: id.to_string(),
                status: issue.status(),
                why: issue_message(*id, issue),
                at_ms: Some(issue.at().as_millis()),
                closed: issue.ended().map(Ended::reason),
                link: issue.about().link.clone(),
                ..seen
            })?
        }
        (Subject::Alert(rule), SentryRecord::Alert(alert)) => IssueView {
            kind: "alert".to_owned(),
            id: format!("alert/{rule}"),
            status: alert.status(),
            why: alert_message(*rule, alert),
            at_ms: Some(alert.at().as_millis()),
            link: alert.about().link.clone(),
            ..seen
        },
        (Subject::Project(slug), SentryRecord::Project(project)) => IssueView {
            kind: "project".to_owned(),
            id: format!("project/{slug}"),
            name: slug.clone(),
            status: project.status(),
            why: project_message(project),
            ..seen
        },
        _ => return None,
    })
}

fn announced_view(Announced { status, at, confirmed, .. }: Announced) -> AnnouncedView {
    AnnouncedView { status, at_ms: at.as_millis(), confirmed }
}
