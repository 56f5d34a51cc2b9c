//! `/api/…`: what SDKs post to Sentry. Every method and path below it goes on.
//!
//! Dropped on the way, in both directions, is what belongs to one connection alone (RFC 9110, 7.6.1). Added is the peer in
//! `X-Forwarded-For`, of which Sentry takes the first, and `Via`, by which a loop is known. Browsers are let in from
//! everywhere, as Sentry does (develop.sentry.dev, CORS).

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONNECTION, CONTENT_TYPE,
    EXPECT, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use serde_json::json;

use crate::machinery::http1::server::{Incoming, Peer, Responder};
use crate::relay::{Answer, Arrival, RATE_LIMITS, Refusal, Relay};
use crate::sentry::upstream::AnswerBody;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What belongs to one connection, and what is said anew.
const OF_A_CONNECTION: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// So many relays one behind another make sense; more are a loop.
const MOST_HOPS: usize = 4;
const NAME: &str = "recoverd";

/// The relay's door.
#[derive(Debug)]
pub struct RelayDoor {
    relay: Relay,
    /// By which it knows what it has forwarded itself.
    via: HeaderValue,
}

/// What goes back to a sender: what upstream says as it comes, or a word of our own.
type Told = Either<AnswerBody, Full<Bytes>>;

impl RelayDoor {
    /// `name` tells this process from all others.
    pub fn new(relay: Relay, name: &str) -> Self {
        let via = HeaderValue::try_from(format!("1.1 {NAME}-{name}"));
        Self { relay, via: via.unwrap_or(HeaderValue::from_static("1.1 recoverd")) }
    }
}

impl Responder for RelayDoor {
    type Body = Told;

    async fn respond(&self, request: Request<Incoming<'_, '_>>, peer: &Peer) -> Response<Told> {
        if request.uri().path().strip_prefix("/api/").is_none_or(str::is_empty) {
            return problem(StatusCode::NOT_FOUND, "there is nothing here; Sentry's paths begin with /api/");
        }
        let (mut parts, body) = request.into_parts();
        let is_browser = parts.headers.contains_key(ORIGIN);
        if parts.method == Method::OPTIONS && is_browser {
            return preflight(&parts.headers);
        }
        let mut response = match self.admit(&mut parts.headers, peer) {
            Ok(()) => {
                let arrival =
                    Arrival { method: parts.method, uri: parts.uri, headers: parts.headers, body, peer: peer.address };
                told(self.relay.forward(arrival).await)
            }
            Err(problem) => problem,
        };
        if is_browser {
            let_browsers_read(response.headers_mut());
        }
        response
    }
}

fn told(answer: Result<Answer, Refusal>) -> Response<Told> {
    match answer {
        Ok(Answer::Theirs(response)) => {
            let mut response = response.map(Told::Left);
            drop_hops(response.headers_mut());
            response
        }
        Ok(Answer::Limited { left, limits }) => limited(left.as_secs().max(1), &limits),
        Ok(Answer::Kept(event_id)) => kept(event_id.as_deref()),
        Err(refusal) => refuse(&refusal),
    }
}

impl RelayDoor {
    /// Makes the headers such as are to go on, unless they have been here before.
    #[expect(clippy::result_large_err, reason = "it is the answer")]
    fn admit(&self, headers: &mut HeaderMap, peer: &Peer) -> Result<(), Response<Told>> {
        let (mut is_back, mut relays) = (false, 0);
        let lines = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
        for hop in lines.flat_map(|line| line.split(',')) {
            is_back |= self.via == hop.trim();
            relays += usize::from(hop.contains(NAME));
        }
        if is_back || relays >= MOST_HOPS {
            self.relay.refused("loop");
            // A status at which a relay before this one does not try again.
            return Err(problem(
                StatusCode::BAD_REQUEST,
                "this request has been here before: the upstream of a relay leads back to it",
            ));
        }
        drop_hops(headers);
        headers.remove(HOST);
        headers.append(VIA, self.via.clone());
        let mut chain = peer.name.clone();
        let before = headers.get_all(FORWARDED_FOR).iter().chain([&peer.name]);
        let before: Vec<&str> = before.filter_map(|value| value.to_str().ok()).collect();
        if before.len() > 1
            && let Ok(whole) = HeaderValue::try_from(before.join(", "))
        {
            chain = whole;
        }
        headers.insert(FORWARDED_FOR, chain);
        Ok(())
    }
}

fn drop_hops(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    let known = headers.keys().filter(|name| OF_A_CONNECTION.contains(name)).cloned();
    let known: Vec<HeaderName> = known.collect();
    for name in named.iter().chain(&known) {
        headers.remove(name);
    }
}

fn preflight(asked: &HeaderMap) -> Response<Told> {
    let mut response = Response::new(Told::Right(Full::default()));
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    let usual = HeaderValue::from_static(
        "x-sentry-auth, x-requested-with, x-forwarded-for, origin, referer, accept, content-type, authentication, \
         authorization, content-encoding, transfer-encoding",
    );
    let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(usual));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    let_browsers_read(headers);
    response
}

/// Sentry's own word on it stands.
fn let_browsers_read(headers: &mut HeaderMap) {
    headers.entry(ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
    headers
        .entry(ACCESS_CONTROL_EXPOSE_HEADERS)
        .or_insert(HeaderValue::from_static("x-sentry-error, x-sentry-rate-limits, retry-after"));
}

/// As Sentry answers, which writes an id without dashes.
fn kept(event_id: Option<&str>) -> Response<Told> {
    let body = match event_id {
        Some(id) => json!({ "id": id.replace('-', "") }),
        None => json!({}),
    };
    ours(StatusCode::OK, &body)
}

fn limited(seconds: u64, limits: &str) -> Response<Told> {
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "Sentry has asked not to be sent this for a while");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    if let Ok(limits) = HeaderValue::from_str(limits) {
        response.headers_mut().insert(RATE_LIMITS, limits);
    }
    response
}

fn refuse(refusal: &Refusal) -> Response<Told> {
    let status = match refusal {
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
        Refusal::BrokenOff => StatusCode::BAD_REQUEST,
        Refusal::NotKept => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = problem(status, &refusal.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}

/// As Sentry's own errors look.
fn problem(status: StatusCode, detail: &str) -> Response<Told> {
    ours(status, &json!({ "detail": detail }))
}

fn ours(status: StatusCode, text: &serde_json::Value) -> Response<Told> {
    let mut response = Response::new(Told::Right(text.to_string().into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
