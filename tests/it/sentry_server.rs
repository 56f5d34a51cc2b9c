//! Stands where Sentry does: issues and metric alerts that tests change, and its REST API over them with cursors and rate
//! limits. Written after the sources of Sentry (`OrganizationGroupIndexEndpoint`, `OrganizationIncidentIndexEndpoint`,
//! `BaseEndpoint.build_cursor_link`, `RatelimitMiddleware`). What can be wrong with a Sentry is in [`Fault`].
#![allow(dead_code, reason = "not every promise needs all of it")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, LINK, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub const API_TOKEN: &str = "6f3f0a0c5a0f4b8e9d7c1b2a3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d8c9b0a1f2e";
pub const ORGANIZATION: &str = "acme";

/// What can be wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A page with 200, as single sign-on answers.
    LoginPage,
    Status(u16),
    /// 429 with these seconds in `Retry-After`; `None` leaves it to the window's headers.
    Limited(Option<u64>),
    /// The first half of the body, as if it were all.
    Truncated,
    /// The connection ends within the body.
    Cut,
    /// So many bytes of blanks, compressed.
    Bomb(usize),
    Redirect(String),
    /// Before each answer.
    Slow(Duration),
    /// This body as JSON.
    Body(String),
    /// A next page behind each, always the same.
    Circle,
    /// A next page behind each, always another.
    Endless,
    /// This `Link` header.
    Link(String),
}

#[derive(Clone, Debug)]
pub struct Issue {
    pub project: String,
    pub level: String,
    pub status: String,
    pub title: String,
    /// The token may not see it.
    pub is_hidden: bool,
    /// Beyond the 90 days that lists tell of.
    pub is_old: bool,
}

#[derive(Clone, Debug)]
pub struct Incident {
    pub identifier: u64,
    pub rule: u64,
    pub projects: Vec<String>,
    /// `IncidentStatus`.
    pub status: u8,
    pub title: String,
    pub is_hidden: bool,
}

/// One organization.
#[derive(Debug, Default)]
pub struct Sentry {
    pub issues: BTreeMap<u64, Issue>,
    /// Gone into the issue of that id.
    pub merged: BTreeMap<u64, u64>,
    pub incidents: BTreeMap<u64, Incident>,
    /// At most so many at once, whatever is asked for.
    pub page: usize,
    /// Requests that each window allows. `None` is all.
    pub limit: Option<u64>,
    used: u64,
}

impl Sentry {
    pub fn create(&mut self, id: u64, project: &str, level: &str) {
        let (project, level) = (project.to_owned(), level.to_owned());
        let (status, title) = ("unresolved".to_owned(), format!("ValueError: {id}"));
        self.issues.insert(id, Issue { project, level, status, title, is_hidden: false, is_old: false });
    }

    pub fn set(&mut self, id: u64, status: &str) {
        status.clone_into(&mut self.issue(id).status);
    }

    pub fn issue(&mut self, id: u64) -> &mut Issue {
        self.issues.get_mut(&id).unwrap()
    }

    /// `status` as of `IncidentStatus`: 2 closed, 10 warning, 20 critical.
    pub fn alert(&mut self, id: u64, rule: u64, project: &str, status: u8) {
        let (projects, title) = (vec![project.to_owned()], format!("Rule {rule}"));
        let incident = Incident { identifier: id + 1_000, rule, projects, status, title, is_hidden: false };
        self.incidents.insert(id, incident);
    }

    fn answer(&self, below: &str, query: &BTreeMap<String, String>) -> Result<(Value, Option<String>), StatusCode> {
        let segments: Vec<&str> = below.split('/').collect();
        match segments.as_slice() {
            ["issues", ""] => {
                assert_eq!(query.get("query").map(String::as_str), Some("is:unresolved"));
                assert_eq!(query.get("project").map(String::as_str), Some("-1"), "or only those of its own teams");
                let is_listed = |issue: &Issue| issue.status == "unresolved" && !issue.is_hidden && !issue.is_old;
                let open = self.issues.iter().rev().filter(|(_, issue)| is_listed(issue));
                Ok(self.paged(open.map(|(id, issue)| issue.shown(*id)).collect(), query))
            }
            ["issues", id, ""] => {
                let id: u64 = id.parse().map_err(|_| StatusCode::NOT_FOUND)?;
                let id = self.merged.get(&id).copied().unwrap_or(id);
                let issue = self.issues.get(&id).ok_or(StatusCode::NOT_FOUND)?;
                if issue.is_hidden { Err(StatusCode::FORBIDDEN) } else { Ok((issue.shown(id), None)) }
            }
            ["incidents", ""] => {
                assert_eq!(query.get("status").map(String::as_str), Some("open"));
                let open = self.incidents.iter().rev().filter(|(_, alert)| alert.status != 2 && !alert.is_hidden);
                Ok(self.paged(open.map(|(id, alert)| alert.shown(*id)).collect(), query))
            }
            ["incidents", identifier, ""] => {
                let found = self.incidents.iter().find(|(_, alert)| alert.identifier.to_string() == *identifier);
                let (id, alert) = found.filter(|(_, alert)| !alert.is_hidden).ok_or(StatusCode::NOT_FOUND)?;
                Ok((alert.shown(*id), None))
            }
            _ => Err(StatusCode::NOT_FOUND),
        }
    }

    /// `OffsetPaginator`: a cursor is `value:offset:is_previous`.
    fn paged(&self, all: Vec<Value>, query: &BTreeMap<String, String>) -> (Value, Option<String>) {
        let asked = query.get("limit").map_or(25, |limit| limit.parse().unwrap());
        let width: usize = if self.page == 0 { asked } else { self.page.min(asked) };
        let from = query.get("cursor").map_or(0, |cursor| cursor.split(':').nth(1).unwrap().parse().unwrap());
        let rest: Vec<Value> = all.into_iter().skip(from).collect();
        let has_more = rest.len() > width;
        let page = rest.into_iter().take(width).collect();
        (Value::Array(page), Some(links(&format!("0:{}:0", from + width), has_more)))
    }
}

impl Issue {
    fn shown(&self, id: u64) -> Value {
        json!({
            "id": id.to_string(), "shareId": null, "shortId": format!("{}-{id}", self.project.to_uppercase()),
            "title": self.title, "culprit": "app.views in get", "permalink": format!("https://acme.sentry.io/issues/{id}/"),
            "logger": null, "level": self.level, "status": self.status, "statusDetails": {}, "substatus": "ongoing",
            "isPublic": false, "platform": "python", "numComments": 0, "assignedTo": null, "isBookmarked": false,
            "project": {"id": "4505", "name": self.project, "slug": self.project, "platform": "python"},
            "type": "error", "metadata": {"type": "ValueError", "value": id.to_string()}, "annotations": [],
            "count": "17", "userCount": 3, "firstSeen": "2026-11-20T08:00:00.000000Z",
            "lastSeen": "2026-11-24T15:26:00.123456Z",
        })
    }
}

impl Incident {
    fn shown(&self, id: u64) -> Value {
        json!({
            "id": id.to_string(), "identifier": self.identifier.to_string(), "organizationId": "1",
            "projects": self.projects, "status": self.status, "statusMethod": 3, "type": 2, "title": self.title,
            "alertRule": {"id": self.rule.to_string(), "name": self.title, "status": 0, "aggregate": "count()",
                "projects": self.projects, "triggers": [{"id": "1", "label": "critical", "alertThreshold": 100.0}]},
            "activities": null, "dateStarted": "2026-11-24T15:20:00Z", "dateDetected": "2026-11-24T15:21:00Z",
            "dateCreated": "2026-11-24T15:21:00.5Z",
            "dateClosed": (self.status == 2).then_some("2026-11-24T15:26:00Z"),
        })
    }
}

fn links(next: &str, has_more: bool) -> String {
    let link = |rel, results, cursor: &str| {
        format!(
            "<http://elsewhere.invalid/?&cursor={cursor}>; rel=\"{rel}\"; results=\"{results}\"; cursor=\"{cursor}\""
        )
    };
    format!("{}, {}", link("previous", false, "0:0:1"), link("next", has_more, next))
}

/// The running server. Everything of [`Sentry`] can be reached by [`Self::sentry`].
pub struct SentryServer {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    /// Answers that may leave while [`Self::hold`] holds.
    gate: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    sentry: Sentry,
    /// By the beginning of the path below the organization that they hold for.
    faults: BTreeMap<String, Fault>,
    /// Answers below this path are made, and then kept back.
    held: Option<String>,
    kept_back: usize,
    /// Path below the organization, and query, of each request.
    requests: Vec<String>,
}

impl SentryServer {
    /// An empty organization.
    pub async fn spawn() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let gate = Arc::new(Semaphore::new(0));
        let app = Router::new().fallback(answer).with_state((shared.clone(), gate.clone()));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, gate, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The organization, to look at and to change. Not to be held across an await.
    pub fn sentry(&self) -> impl std::ops::DerefMut<Target = Sentry> + '_ {
        struct Guard<'a>(MutexGuard<'a, Shared>);
        impl std::ops::Deref for Guard<'_> {
            type Target = Sentry;
            fn deref(&self) -> &Sentry {
                &self.0.sentry
            }
        }
        impl std::ops::DerefMut for Guard<'_> {
            fn deref_mut(&mut self) -> &mut Sentry {
                &mut self.0.sentry
            }
        }
        Guard(self.shared.lock().unwrap())
    }

    /// From now on all answers have this fault.
    pub fn fault(&self, fault: Fault) {
        self.fault_at("", fault);
    }

    /// From now on answers below this path have it: `issues/`, `incidents/`.
    pub fn fault_at(&self, path: &str, fault: Fault) {
        self.shared.lock().unwrap().faults.insert(path.to_owned(), fault);
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.shared.lock().unwrap().faults.clear();
    }

    /// Answers below this path are made from now on, and sent only after [`Self::release`].
    pub fn hold(&self, path: &str) {
        self.shared.lock().unwrap().held = Some(path.to_owned());
    }

    /// Waits until an answer is made and kept back.
    pub async fn kept_back(&self) {
        while self.shared.lock().unwrap().kept_back == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn release(&self) {
        let mut shared = self.shared.lock().unwrap();
        shared.held = None;
        self.gate.add_permits(std::mem::take(&mut shared.kept_back));
    }

    /// Path and query of the requests since the last call, decoded.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }

    /// A `[[sentry.integrations]]` table that asks this server every second, with the tests' webhook secret.
    pub fn settings(&self, name: &str, secret: &str) -> String {
        let url = self.url();
        format!(
            "[[sentry.integrations]]\nname = \"{name}\"\nsecrets = [\"{secret}\"]\nurl = \"{url}\"\n\
             organization = \"{ORGANIZATION}\"\napi_token = \"{API_TOKEN}\"\npoll_interval = \"1s\"\n"
        )
    }

    /// A new window of requests begins.
    pub fn open_window(&self) {
        self.shared.lock().unwrap().sentry.used = 0;
    }
}

impl Drop for SentryServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Held = (Arc<Mutex<Shared>>, Arc<Semaphore>);

async fn answer(State((shared, gate)): State<Held>, request: Request) -> Response {
    let (path, raw) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let url = reqwest::Url::parse(&format!("http://sentry/?{raw}")).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let Some(below) = path.strip_prefix(&format!("/api/0/organizations/{ORGANIZATION}/")) else {
        return detail(StatusCode::NOT_FOUND, "The requested resource does not exist");
    };
    let (fault, outcome, limit, is_held) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(format!("{below}?{}", percent_encoding::percent_decode_str(&raw).decode_utf8_lossy()));
        let applies = |(prefix, _): &(&String, &Fault)| below.starts_with(prefix.as_str());
        let fault = shared.faults.iter().rfind(applies).map(|(_, fault)| fault.clone());
        shared.sentry.used += 1;
        let limit = shared.sentry.limit.map(|limit| (limit, shared.sentry.used));
        let is_held = shared.held.as_ref().is_some_and(|held| below.starts_with(held.as_str()));
        shared.kept_back += usize::from(is_held);
        (fault, shared.sentry.answer(below, &query), limit, is_held)
    };
    if is_held {
        gate.acquire().await.unwrap().forget();
    }
    let is_known = request.headers().get(AUTHORIZATION).is_some_and(|it| it == &format!("Bearer {API_TOKEN}"));
    let mut response = match outcome {
        _ if !is_known => detail(StatusCode::UNAUTHORIZED, "Invalid token"),
        _ if limit.is_some_and(|(limit, used)| used > limit) => {
            detail(StatusCode::TOO_MANY_REQUESTS, "You are attempting to use this endpoint too frequently.")
        }
        Ok((body, link)) => {
            let mut response = json_of(body.to_string());
            if let Some(link) = link {
                response.headers_mut().insert(LINK, link.parse().unwrap());
            }
            response
        }
        Err(status) => detail(status, "The requested resource does not exist"),
    };
    let headers = response.headers_mut();
    let now = unix_now();
    headers.insert(DATE, date(now));
    if let Some((limit, used)) = limit {
        headers.insert("x-sentry-rate-limit-limit", limit.into());
        headers.insert("x-sentry-rate-limit-remaining", limit.saturating_sub(used).into());
        headers.insert("x-sentry-rate-limit-reset", (now + 1).into());
    }
    match fault {
        Some(fault) => spoil(response, fault).await,
        None => response,
    }
}

fn json_of(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

fn detail(status: StatusCode, text: &str) -> Response {
    let mut response = json_of(json!({ "detail": text }).to_string());
    *response.status_mut() = status;
    response
}

async fn spoil(mut response: Response, fault: Fault) -> Response {
    match fault {
        Fault::LoginPage => {
            let page = "<!DOCTYPE html><html><head><title>Login | Sentry</title></head></html>";
            ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
        }
        Fault::Status(status) => detail(StatusCode::from_u16(status).unwrap(), "Internal Error"),
        Fault::Limited(after) => {
            let mut limited = detail(StatusCode::TOO_MANY_REQUESTS, "too frequently");
            limited.headers_mut().extend(after.map(|seconds| (RETRY_AFTER, seconds.into())));
            limited
        }
        Fault::Redirect(to) => (StatusCode::FOUND, [(LOCATION, to)]).into_response(),
        Fault::Body(body) => json_of(body),
        Fault::Slow(by) => {
            tokio::time::sleep(by).await;
            response
        }
        Fault::Bomb(bytes) => {
            let blanks = vec![b' '; 64 * 1024];
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&blanks).unwrap();
            // Several streams behind one another are one.
            let mut response = json_of(encoder.finish().unwrap().repeat(bytes / blanks.len()));
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            response
        }
        Fault::Circle => with_link(response, &links("0:0:0", true)),
        Fault::Endless => {
            static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut empty = json_of("[]");
            *empty.headers_mut() = HeaderMap::new();
            with_link(empty, &links(&format!("{next}:0:0"), true))
        }
        Fault::Link(link) => with_link(response, &link),
        Fault::Truncated | Fault::Cut => {
            let body = std::mem::take(response.body_mut());
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            if matches!(fault, Fault::Truncated) {
                return json_of(half);
            }
            let end = async {
                // What was sent must be on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            };
            let chunks = futures_util::stream::once(async { Ok(half) }).chain(futures_util::stream::once(end));
            json_of(Body::from_stream(chunks))
        }
    }
}

fn with_link(mut response: Response, link: &str) -> Response {
    response.headers_mut().insert(LINK, link.parse().unwrap());
    response
}

fn date(seconds: i64) -> axum::http::HeaderValue {
    let date = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    date.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a server of its own has a clock of its own")]
fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
