//! A forwarder that keeps what goes through it: every request as it came, to be held against what arrived behind it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::response::Response;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::net::TcpListener;

use crate::ingest::Recorded;

pub struct Tee {
    pub address: SocketAddr,
    kept: Arc<Mutex<Vec<Recorded>>>,
}

#[derive(Clone)]
struct Line {
    client: reqwest::Client,
    /// Without the slash at its end.
    to: String,
    kept: Arc<Mutex<Vec<Recorded>>>,
}

impl Tee {
    /// `to`: scheme and host.
    pub async fn before(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::<Mutex<Vec<Recorded>>>::default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let line = Line { client, to: to.trim_end_matches('/').to_owned(), kept: kept.clone() };
        let router = Router::new().fallback(pass).with_state(line);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, kept }
    }

    /// All that went through since the last call.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.kept.lock().unwrap())
    }
}

async fn pass(State(line): State<Line>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.uri.path_and_query().unwrap().to_string();
    let mut headers = parts.headers.clone();
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let request = line.client.request(parts.method.clone(), format!("{}{target}", line.to)).headers(headers);
    // What came in chunks goes on in chunks.
    let on = if parts.headers.contains_key(CONTENT_LENGTH) { body.clone().into() } else { in_chunks(&body) };
    let recorded = Recorded { method: parts.method, target, headers: parts.headers, body: body.to_vec() };
    line.kept.lock().unwrap().push(recorded);
    let answer = request.body(on).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

fn in_chunks(body: &Bytes) -> reqwest::Body {
    let pieces: Vec<_> = body.chunks(1_000).map(|piece| body.slice_ref(piece)).collect();
    let frames = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(piece)));
    reqwest::Body::wrap(StreamBody::new(stream::iter(frames)))
}
