//! Stands where Jenkins does: a tree of jobs that tests change, its remote access API with a real `tree` evaluator, and
//! the Notification plugin's documents for what happens in it. Written after the sources of Jenkins core, stapler and the
//! plugins. What can be wrong with a Jenkins is in [`Fault`].
#![allow(clippy::result_large_err, reason = "a refusal is a whole answer")]

mod documents;
mod export;
mod model;
mod selector;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;

pub use documents::Phase;
pub use model::{Class, Jenkins, Waiting};

/// A user who may read everything that is not hidden from it.
pub const USER: &str = "recoverd";
pub const API_TOKEN: &str = "110123456789abcdef0123456789abcdef";

/// What can be wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A page with 200, as single sign-on answers.
    LoginPage,
    Status(u16),
    /// The first half of the body, as if it were all.
    Truncated,
    /// The connection ends within the body.
    Cut,
    /// So many bytes of blanks, compressed.
    Bomb(usize),
    /// Says that it is compressed, and is not.
    FalseGzip,
    Redirect(String),
    /// Before each answer.
    Slow(Duration),
    /// This body as JSON.
    Body(String),
    /// `Date` this much off.
    ClockOff(i64),
}

/// The running server. Everything of [`Jenkins`] can be reached by [`Self::jenkins`].
pub struct JenkinsServer {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    jenkins: Jenkins,
    /// By the beginning of the path below the context path that they hold for.
    faults: BTreeMap<String, Fault>,
    has_moved: bool,
    /// Path and query of each request, decoded.
    requests: Vec<String>,
    /// Bytes of all bodies, before compression.
    answered_bytes: usize,
}

impl JenkinsServer {
    /// An empty Jenkins below the context path `/jenkins/`.
    pub async fn spawn() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        shared.lock().unwrap().jenkins.root_url = format!("http://{address}/jenkins/");
        let app = Router::new().fallback(answer).with_state(shared.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/jenkins/", self.address)
    }

    /// A `[[jenkins]]` table that asks this server every second, with the tests' webhook token.
    pub fn settings(&self, name: &str) -> String {
        let (url, token) = (self.url(), crate::world::TOKEN);
        format!(
            "[[jenkins]]\nname = \"{name}\"\nurl = \"{url}\"\ntokens = [\"{token}\"]\nuser = \"{USER}\"\n\
             api_token = \"{API_TOKEN}\"\npoll_interval = \"1s\"\n"
        )
    }

    /// The tree, to look at and to change. Not to be held across an await.
    pub fn jenkins(&self) -> impl std::ops::DerefMut<Target = Jenkins> + '_ {
        struct Guard<'a>(MutexGuard<'a, Shared>);
        impl std::ops::Deref for Guard<'_> {
            type Target = Jenkins;
            fn deref(&self) -> &Jenkins {
                &self.0.jenkins
            }
        }
        impl std::ops::DerefMut for Guard<'_> {
            fn deref_mut(&mut self) -> &mut Jenkins {
                &mut self.0.jenkins
            }
        }
        Guard(self.shared.lock().unwrap())
    }

    /// From now on all answers have this fault.
    pub fn fault(&self, fault: Fault) {
        self.fault_at("", fault);
    }

    /// From now on answers below this path have it: `job/acme/`, `computer/`.
    pub fn fault_at(&self, path: &str, fault: Fault) {
        self.shared.lock().unwrap().faults.insert(path.to_owned(), fault);
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.shared.lock().unwrap().faults.clear();
    }

    /// What was below `/old/` has moved to `/jenkins/`.
    pub fn redirect_old_context_path(&self) {
        self.shared.lock().unwrap().has_moved = true;
    }

    /// Path and query of the requests since the last call, decoded.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }

    pub fn answered_bytes(&self) -> usize {
        self.shared.lock().unwrap().answered_bytes
    }
}

impl Drop for JenkinsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    if let Some(below) = path.strip_prefix("/old/").filter(|_| shared.lock().unwrap().has_moved) {
        return (StatusCode::FOUND, [(LOCATION, format!("/jenkins/{below}?{query}"))]).into_response();
    }
    let Some(below) = path.strip_prefix("/jenkins/") else { return page(StatusCode::NOT_FOUND) };
    let (fault, outcome, now) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(format!("{path}?{}", percent_encoding::percent_decode_str(&query).decode_utf8_lossy()));
        let applies = |(prefix, _): &(&String, &Fault)| below.starts_with(prefix.as_str());
        let fault = shared.faults.iter().rfind(applies).map(|(_, fault)| fault.clone());
        let outcome = shared.jenkins.answer(request.headers(), below, &query);
        if let Ok(body) = &outcome {
            shared.answered_bytes += body.len();
        }
        (fault, outcome, shared.jenkins.tells_its_time.then_some(shared.jenkins.now))
    };
    let mut response = match outcome {
        Ok(body) => json(body, request.headers()),
        Err(refusal) => refusal,
    };
    if let Some(now) = now {
        response.headers_mut().insert(DATE, date(now / 1000));
    }
    match fault {
        Some(fault) => spoil(response, fault, request.headers()).await,
        None => response,
    }
}

/// As `hudson.model.Api` answers, which compresses for whoever takes it.
fn json(body: Vec<u8>, headers: &HeaderMap) -> Response {
    let takes_gzip = headers.get(ACCEPT_ENCODING).is_some_and(|of| of.to_str().unwrap().contains("gzip"));
    let mut response = if takes_gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        ([(CONTENT_ENCODING, "gzip")], encoder.finish().unwrap()).into_response()
    } else {
        body.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, "application/json;charset=utf-8".parse().unwrap());
    headers.insert("x-jenkins", "2.541.1".parse().unwrap());
    headers.insert("x-jenkins-session", "5f0c7d1e".parse().unwrap());
    response
}

fn page(status: StatusCode) -> Response {
    let page = format!("<html><head><title>Jenkins</title></head><body>{status}</body></html>");
    (status, [(CONTENT_TYPE, "text/html;charset=utf-8")], page).into_response()
}

async fn spoil(mut response: Response, fault: Fault, headers: &HeaderMap) -> Response {
    match fault {
        Fault::LoginPage => page(StatusCode::OK),
        Fault::Status(status) => page(StatusCode::from_u16(status).unwrap()),
        Fault::Redirect(to) => (StatusCode::FOUND, [(LOCATION, to)]).into_response(),
        Fault::Body(body) => json(body.into_bytes(), headers),
        Fault::Slow(by) => {
            tokio::time::sleep(by).await;
            response
        }
        Fault::FalseGzip => {
            let mut response = json(b"{\"jobs\":[]}".to_vec(), &HeaderMap::new());
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            response
        }
        Fault::Bomb(bytes) => {
            let blanks = vec![b' '; 64 * 1024];
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&blanks).unwrap();
            // Several streams behind one another are one.
            let bomb = encoder.finish().unwrap().repeat(bytes / blanks.len());
            let mut response = json(bomb, &HeaderMap::new());
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            response
        }
        Fault::ClockOff(seconds) => {
            response.headers_mut().insert(DATE, date(unix_now() + seconds));
            response
        }
        Fault::Truncated | Fault::Cut => {
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body = unpacked(&body);
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            if matches!(fault, Fault::Truncated) {
                return json(half.to_vec(), &HeaderMap::new());
            }
            let end = async {
                // What was sent must be on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            };
            let chunks = futures_util::stream::once(async { Ok(half) }).chain(futures_util::stream::once(end));
            let mut response = json(Vec::new(), &HeaderMap::new());
            *response.body_mut() = Body::from_stream(chunks);
            response.headers_mut().remove("content-length");
            response
        }
    }
}

fn date(seconds: i64) -> HeaderValue {
    let date = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    date.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().unwrap()
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    match decoder.write_all(body).and_then(|()| decoder.finish()) {
        Ok(plain) => plain,
        Err(_) => body.to_vec(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a server of its own has a clock of its own")]
fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// The user that a request comes from; `Err` for a wrong password.
fn user(headers: &HeaderMap, users: &BTreeMap<String, String>) -> Result<Option<String>, Response> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let pair = value.to_str().ok().and_then(|value| value.strip_prefix("Basic "));
    let pair = pair.and_then(|pair| base64::engine::general_purpose::STANDARD.decode(pair).ok());
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
    let (name, password) = pair.split_once(':').unwrap_or_default();
    if users.get(name).is_some_and(|known| known == password) {
        return Ok(Some(name.to_owned()));
    }
    let mut response = page(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert("www-authenticate", "Basic realm=\"Jenkins\"".parse().unwrap());
    Err(response)
}
