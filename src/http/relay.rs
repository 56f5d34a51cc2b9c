//! `/api/…`: what SDKs post to Sentry. Every method and path below it goes on.
//!
//! Dropped on the way, in both directions, is what belongs to one connection alone (RFC 9110, 7.6.1). Added is the peer in
//! `X-Forwarded-For`, of which Sentry takes the first, and `Via`, by which a loop is known. Browsers are let in from
//! everywhere, as Sentry does (develop.sentry.dev, CORS).

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CONNECTION, CONTENT_TYPE,
    ORIGIN, RETRY_AFTER, VIA,
};
use http::{HeaderName, Method, StatusCode};
use http_body_util::{Either, Full};
use serde_json::json;

use crate::machinery::http1::server::{Peer, Request, Responder};
use crate::machinery::http1::{Fields, Reply, is_same};
use crate::relay::{Answer, Arrival, RATE_LIMITS, Refusal, Relay};
use crate::sentry::upstream::AnswerBody;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What belongs to one connection, and what is said anew.
const OF_A_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// So many relays one behind another make sense; more are a loop.
const MOST_HOPS: usize = 4;
const NAME: &str = "recoverd";

/// The relay's door.
#[derive(Debug)]
pub struct RelayDoor {
    relay: Relay,
    /// By which it knows what it has forwarded itself.
    via: String,
}

/// What goes back to a sender: what upstream says as it comes, or a word of our own.
type Told = Either<AnswerBody, Full<Bytes>>;

impl RelayDoor {
    /// `name` tells this process from all others.
    pub fn new(relay: Relay, name: &str) -> Self {
        Self { relay, via: format!("1.1 {NAME}-{name}") }
    }
}

impl Responder for RelayDoor {
    type Body = Told;

    async fn respond(&self, request: Request<'_, '_>, peer: &Peer) -> Reply<Told> {
        let Request { method, target: uri, mut fields, body } = request;
        if uri.path().strip_prefix("/api/").is_none_or(str::is_empty) {
            return problem(StatusCode::NOT_FOUND, "there is nothing here; Sentry's paths begin with /api/");
        }
        if has_dot_segments(uri.path()) {
            self.relay.refused("dot_segments");
            return problem(StatusCode::NOT_FOUND, "a path with dot segments could lead to anywhere");
        }
        let is_browser = fields.contains(&ORIGIN);
        if method == Method::OPTIONS && is_browser {
            return preflight(&fields);
        }
        let mut reply = match self.admit(&mut fields, peer) {
            Ok(()) => told(self.relay.forward(Arrival { method, uri, fields, body, peer: peer.address }).await),
            Err(problem) => problem,
        };
        if is_browser {
            let_browsers_read(&mut reply.fields);
        }
        reply
    }
}

fn told(answer: Result<Answer, Refusal>) -> Reply<Told> {
    match answer {
        Ok(Answer::Theirs(Reply { status, mut fields, body })) => {
            drop_hops(&mut fields);
            Reply { status, fields, body: Told::Left(body) }
        }
        Ok(Answer::Limited { left, limits }) => limited(left.as_secs().max(1), &limits),
        Ok(Answer::Kept(event_id)) => kept(event_id.as_deref()),
        Err(refusal) => refuse(&refusal),
    }
}

impl RelayDoor {
    /// Makes the fields such as are to go on, unless they have been here before.
    fn admit(&self, fields: &mut Fields, peer: &Peer) -> Result<(), Reply<Told>> {
        let (mut is_back, mut relays) = (false, 0);
        for hop in fields.texts(&VIA).flat_map(|line| line.split(',')) {
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
        drop_hops(fields);
        fields.push(&VIA, &self.via);
        if fields.contains(&FORWARDED_FOR) {
            let chain: Vec<&str> = fields.texts(&FORWARDED_FOR).chain([peer.name.as_str()]).collect();
            let chain = chain.join(", ");
            fields.remove(&FORWARDED_FOR);
            fields.push(&FORWARDED_FOR, chain);
        } else {
            fields.push(&FORWARDED_FOR, &peer.name);
        }
        Ok(())
    }
}

/// Whether somebody on the way could take it for another path, out of `/api/` or of the upstream's own prefix.
fn has_dot_segments(path: &str) -> bool {
    if !path.bytes().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn drop_hops(fields: &mut Fields) {
    let named = fields.texts(&CONNECTION).flat_map(|line| line.split(','));
    let named: Vec<String> = named.map(|name| name.trim().to_ascii_lowercase()).collect();
    fields.retain(|written| {
        let is = |name: &str| is_same(written, name);
        !OF_A_CONNECTION.into_iter().any(is) && !named.iter().any(|name| is(name))
    });
}

fn preflight(asked: &Fields) -> Reply<Told> {
    const USUAL: &[u8] =
        b"x-sentry-auth, x-requested-with, x-forwarded-for, origin, referer, accept, content-type, authentication, \
          authorization, content-encoding, transfer-encoding";
    let mut reply = Reply::new(Told::Right(Full::default()));
    let fields = &mut reply.fields;
    fields.push(&ACCESS_CONTROL_ALLOW_METHODS, "POST");
    fields.push(&ACCESS_CONTROL_ALLOW_HEADERS, asked.get(&ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or(USUAL));
    fields.push(&ACCESS_CONTROL_MAX_AGE, "3600");
    let_browsers_read(fields);
    reply
}

/// Sentry's own word on it stands.
fn let_browsers_read(fields: &mut Fields) {
    let ours = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "x-sentry-error, x-sentry-rate-limits, retry-after"),
    ];
    for (name, value) in ours {
        if !fields.contains(&name) {
            fields.push(&name, value);
        }
    }
}

/// As Sentry answers, which writes an id without dashes.
fn kept(event_id: Option<&str>) -> Reply<Told> {
    let body = match event_id {
        Some(id) => json!({ "id": id.replace('-', "") }),
        None => json!({}),
    };
    ours(StatusCode::OK, &body)
}

fn limited(seconds: u64, limits: &str) -> Reply<Told> {
    let mut reply = problem(StatusCode::TOO_MANY_REQUESTS, "Sentry has asked not to be sent this for a while");
    reply.fields.push(&RETRY_AFTER, seconds.to_string());
    reply.fields.push(&RATE_LIMITS, limits);
    reply
}

fn refuse(refusal: &Refusal) -> Reply<Told> {
    let status = match refusal {
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
        Refusal::BrokenOff => StatusCode::BAD_REQUEST,
        Refusal::NotKept => StatusCode::SERVICE_UNAVAILABLE,
    };
    // No word on when to come again: SDKs take that for a limit, and throw away all that they have until then.
    problem(status, &refusal.to_string())
}

/// As Sentry's own errors look.
fn problem(status: StatusCode, detail: &str) -> Reply<Told> {
    ours(status, &json!({ "detail": detail }))
}

fn ours(status: StatusCode, text: &serde_json::Value) -> Reply<Told> {
    let fields = [(CONTENT_TYPE, "application/json")].into_iter().collect();
    Reply { status, fields, body: Told::Right(text.to_string().into()) }
}
