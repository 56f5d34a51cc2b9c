//! Stands where Sentry takes events in: keeps every request as it came, and answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::world::PATIENCE;

/// A request as it came in.
#[derive(Debug)]
pub struct Recorded {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Of a body that is not text to its end.
    pub fn text_of_head(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(1_000)]).into_owned()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: &'static str,
}

impl Reply {
    pub fn new(status: u16, body: &'static str) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Clone)]
struct Ingestion {
    recorded: mpsc::Sender<Recorded>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    poison: Arc<Mutex<Option<Poison>>>,
}

/// What has this in it is answered with a 500, or breaks the connection.
#[derive(Clone, Copy)]
struct Poison {
    word: &'static str,
    is_broken_off: bool,
}

pub struct Ingest {
    pub address: SocketAddr,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    poison: Arc<Mutex<Option<Poison>>>,
    recorded: tokio::sync::Mutex<mpsc::Receiver<Recorded>>,
}

impl Ingest {
    pub async fn spawn() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, recorded) = mpsc::channel(100_000);
        let replies = Arc::<Mutex<VecDeque<Reply>>>::default();
        let poison = Arc::<Mutex<Option<Poison>>>::default();
        let state = Ingestion { recorded: sender, replies: replies.clone(), poison: poison.clone() };
        let router = Router::new().fallback(take).with_state(state);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, replies, poison, recorded: tokio::sync::Mutex::new(recorded) }
    }

    /// The settings of a relay before it; `more` comes behind them.
    pub fn settings(&self, more: &str) -> String {
        settings(&format!("http://{}/", self.address), more)
    }

    /// What the next requests are answered; later ones get what Sentry usually says.
    pub fn reply(&self, reply: Reply) {
        self.replies.lock().unwrap().push_back(reply);
    }

    /// What has this in it is answered with a 500 from now on.
    pub fn choke_on(&self, word: &'static str) {
        *self.poison.lock().unwrap() = Some(Poison { word, is_broken_off: false });
    }

    /// What has this in it gets no answer from now on: its connection is closed.
    pub fn break_on(&self, word: &'static str) {
        *self.poison.lock().unwrap() = Some(Poison { word, is_broken_off: true });
    }

    pub async fn next(&self) -> Recorded {
        let mut recorded = self.recorded.lock().await;
        tokio::time::timeout(PATIENCE, recorded.recv()).await.expect("no request came").unwrap()
    }

    /// What has come already.
    pub async fn try_next(&self) -> Option<Recorded> {
        self.recorded.lock().await.try_recv().ok()
    }

    /// What came without anybody having looked at it.
    pub async fn is_quiet(&self) -> bool {
        self.recorded.lock().await.is_empty()
    }
}

pub fn settings(upstream: &str, more: &str) -> String {
    format!("[relay]\nenabled = true\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n{more}\n")
}

async fn take(State(ingestion): State<Ingestion>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return Response::default() };
    let target = parts.uri.path_and_query().unwrap().to_string();
    let recorded = Recorded { method: parts.method, target, headers: parts.headers, body: body.to_vec() };
    let poison = *ingestion.poison.lock().unwrap();
    let poison = poison.filter(|poison| recorded.text_of_head().contains(poison.word));
    ingestion.recorded.send(recorded).await.unwrap();
    match poison {
        None => {}
        Some(Poison { is_broken_off: false, .. }) => {
            return Response::builder().status(500).body(Body::empty()).unwrap();
        }
        // It ends the task of the connection, without a word.
        Some(Poison { is_broken_off: true, .. }) => std::panic::resume_unwind(Box::new("it breaks off")),
    }
    let reply = ingestion.replies.lock().unwrap().pop_front().unwrap_or(Reply::new(200, r#"{"id":"of upstream"}"#));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
