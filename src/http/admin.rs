//! The operator's side: `/healthz`, `/readyz`, `/metrics` and `/api/v1/…`.
//!
//! The two probes are open to everybody, as a kubelet has no token, and say no more than which part is in trouble.

mod issues;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::auth::Access;
use super::problem::Problem;
use crate::domain::announcement::{Because, Level};
use crate::domain::history::Build;
use crate::domain::job::{ControllerName, JobKey, JobPath};
use crate::domain::pod::PodIdentity;
use crate::domain::record::Closed;
use crate::domain::rules::{Rulebook, branch_name};
use crate::domain::silence::Silence;
use crate::domain::status::Status;
use crate::machinery::clock::Clock;
use crate::machinery::health::Health;
use crate::store::{Entry, Store, StoreError};
pub use issues::{IssueView, IssuesView};

/// What the admin listener shows.
#[derive(Clone, Debug)]
pub struct Admin {
    pub access: Access,
    pub health: Health,
    pub registry: Arc<Registry>,
    pub store: Store,
    pub rulebook: Arc<Rulebook>,
    pub clock: Clock,
    pub pod: watch::Receiver<PodIdentity>,
}

/// A job, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub controller: String,
    pub job: String,
    /// Absent as long as no build has decided.
    pub status: Option<Status>,
    /// One line: why it has this status.
    pub why: Option<String>,
    /// The last status that Datadog was told, and whether the Agent has taken it.
    pub announced: Option<AnnouncedView>,
    /// Why it is no longer watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// The branch that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its last build was seen without its webhook, where others' come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<SilenceView>,
    /// All that is remembered. Only where one job is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedView {
    pub status: Status,
    pub at_ms: i64,
    pub confirmed: bool,
}

/// A build whose webhook never came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilenceView {
    pub number: u64,
    /// Absent for a job without branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// When it ended.
    pub since_ms: i64,
    /// `no_endpoint`, `stopped` or `first_build`.
    pub cause: String,
    /// One line: what is probably wrong, and what to do.
    pub advice: String,
}

/// A branch, with its builds from the newest on. The name is empty for a job without branches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BranchView {
    pub name: String,
    /// The rules let it have a say.
    pub counts: bool,
    pub builds: Vec<BuildView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildView {
    pub number: u64,
    /// `null` while it runs.
    pub result: Option<String>,
    /// At the latest.
    pub created_ms: i64,
    /// By how much earlier it may have been.
    pub created_slack_ms: u64,
    pub duration_ms: Option<u64>,
    /// Where it ran, if a sender told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One page of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobsView {
    pub jobs: Vec<JobView>,
    /// Ask for `?after=` this to go on; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

pub fn router(admin: Admin) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{controller}/{*job}", get(job).delete(forget))
        .route("/api/v1/issues", get(issues::list))
        .route("/api/v1/issues/{integration}/{*id}", get(issues::show).delete(issues::forget))
        .route("/api/v1/pod", get(pod))
        .layer(from_fn_with_state(admin.clone(), guard));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .with_state(admin)
}

async fn guard(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !admin.access.admits(peer.ip(), &headers, &[]) {
        return Err(Problem::AdminUnauthorized);
    }
    Ok(next.run(request).await)
}

/// A line for each part; 503 only when nothing could be accepted.
async fn readyz(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    for line in admin.health.lines() {
        text.extend([&*line.part, ": ", line.trouble.as_deref().unwrap_or("ok"), "\n"]);
    }
    let status = if admin.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &admin.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

#[derive(Debug, Deserialize)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// A page holds so many jobs unless asked otherwise, and never more than ten times that.
const PAGE: usize = 100;

async fn jobs(
    State(admin): State<Admin>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<JobsView>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::BadRequest(rejection.body_text()))?;
    let after = page.after.as_deref().map(cursor).transpose()?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE * 10);
    let entries = read(&admin.store, move |store| store.page(after.as_ref(), limit)).await?;
    let next = entries.last().filter(|_| entries.len() == limit).map(|entry| entry.key.to_string());
    let there = entries.iter().filter(|entry| !entry.record.is_spent());
    Ok(Json(JobsView { jobs: there.map(|entry| view(entry, &admin, false)).collect(), next }))
}

async fn job(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<JobView>, Problem> {
    let key = key_in(path)?;
    let entry = read(&admin.store, move |store| store.find(&key)).await?;
    // What has ended is remembered for a while, and no more shown.
    let entry = entry.filter(|entry| !entry.record.is_spent()).ok_or(Problem::NotFound)?;
    Ok(Json(view(&entry, &admin, true)))
}

async fn forget(
    State(admin): State<Admin>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let found = admin.store.close(key_in(path)?, Closed::Forgotten).await.map_err(|_| Problem::NotStored)?;
    if found { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::NotFound) }
}

async fn pod(State(admin): State<Admin>) -> Json<PodIdentity> {
    Json(admin.pod.borrow().clone())
}

/// What is not UTF-8 names no job.
fn key_in(path: Result<Path<(String, String)>, PathRejection>) -> Result<JobKey, Problem> {
    let Path((controller, job)) = path.map_err(|_| Problem::NotFound)?;
    key(&controller, &job)
}

fn key(controller: &str, job: &str) -> Result<JobKey, Problem> {
    let controller = ControllerName::parse(controller).map_err(|_| Problem::NotFound)?;
    Ok(JobKey { controller, job: JobPath::parse(job).map_err(|_| Problem::NotFound)? })
}

fn cursor(after: &str) -> Result<JobKey, Problem> {
    let bad = || Problem::BadRequest("`after` is the `next` of the page before".to_owned());
    let (controller, job) = after.split_once(':').ok_or_else(bad)?;
    key(controller, job).map_err(|_| bad())
}

async fn read<T: Send + 'static>(
    store: &Store,
    read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let store = store.clone();
    let reading = tokio::task::spawn_blocking(move || read(&store)).await;
    reading.unwrap_or(Err(StoreError::Closed)).map_err(|error| {
        // In its words the store cannot write, which is not what failed here.
        let why = match &error {
            StoreError::Unwritable(why) => why.to_string(),
            StoreError::Closed | StoreError::Full => error.to_string(),
        };
        tracing::warn!(error = why, "the store cannot be read");
        Problem::NotRead
    })
}

fn view(Entry { key, record }: &Entry, admin: &Admin, whole: bool) -> JobView {
    let policy = admin.rulebook.policy(key);
    let level = Level::of(record, policy).filter(|level| matches!(level.because, Because::Build { .. }));
    let branch = level.as_ref().and_then(|level| match &level.because {
        Because::Build { branch, .. } if !branch.is_empty() => Some(branch_name(branch).into_owned()),
        _ => None,
    });
    let branches = record.branches().filter(|_| whole).map(|(leaf, history)| BranchView {
        name: branch_name(leaf).into_owned(),
        counts: leaf.is_empty() || policy.counts(leaf),
        builds: history.builds().iter().map(build_view).collect(),
    });
    JobView {
        controller: key.controller.to_string(),
        job: key.job.to_string(),
        status: level.as_ref().map(|level| level.status),
        why: level.as_ref().map(|level| level.message(&key.job)),
        announced: record.announced().map(|announced| AnnouncedView {
            status: announced.status,
            at_ms: announced.at.as_millis(),
            confirmed: announced.confirmed,
        }),
        closed: record.closed().map(crate::domain::record::Closed::reason),
        branch,
        silent: Silence::of(record, admin.clock.now()).map(silence_view),
        branches: branches.collect(),
    }
}

fn silence_view(silence: Silence<'_>) -> SilenceView {
    SilenceView {
        number: silence.number,
        branch: Some(silence.branch).filter(|leaf| !leaf.is_empty()).map(|leaf| branch_name(leaf).into_owned()),
        since_ms: silence.since.as_millis(),
        cause: silence.cause.as_str().to_owned(),
        advice: silence.cause.advice().to_owned(),
    }
}

fn build_view(build: &Build) -> BuildView {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    BuildView {
        number: build.number,
        result: build.progress.outcome().map(|outcome| outcome.as_str().to_owned()),
        created_ms: build.created.latest.as_millis(),
        created_slack_ms: millis(build.created.slack),
        duration_ms: build.duration.map(millis),
        node: build.node.as_deref().map(str::to_owned),
    }
}
