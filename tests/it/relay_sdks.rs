//! What real SDKs send arrives at a real server: every kind, with the pod on what can have it, and otherwise as it was sent.
//!
//! `tests/sdks` has what Python's and Node's send, [`send_by_rust`] what this one does. What Bugsink makes no event of is looked at
//! in the envelopes, which it keeps as they came. Between SDK and relay, and between relay and Bugsink, a [`Tee`] listens.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use recoverd::sentry::encoding::{Codings, DecodeLimits, Decoder};
use sentry::protocol::{Attachment, Log, LogAttribute, LogLevel, MonitorCheckIn, MonitorCheckInStatus};
use sentry::types::random_uuid;
use sentry::{ClientOptions, Hub, Level, Scope, TransactionContext};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bugsink::Bugsink;
use crate::ingest::{self, Recorded};
use crate::tee::Tee;
use crate::world::{PATIENCE, World};

/// All of it, as it stands in JSON.
const POD: [(&str, &str); 3] = [("pod_name", "web-1"), ("pod_namespace", "shop"), ("node_name", "node-a")];

/// The SDK's, and what it sends besides what all send.
struct Sdk {
    name: &'static str,
    more: &'static [&'static str],
}

const PYTHON: Sdk = Sdk { name: "python", more: &[] };
const NODE: Sdk = Sdk { name: "node", more: &["feedback"] };
const RUST: Sdk = Sdk { name: "rust", more: &[] };

impl Sdk {
    /// Sends all and waits until it is sent.
    async fn send(&self, dsn: String) {
        if self.name == "rust" {
            return tokio::task::spawn_blocking(move || send_by_rust(&dsn)).await.unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/sentry-sdks");
        let sending = Command::new(script).arg(self.name).env("SENTRY_DSN", dsn).kill_on_drop(true).output();
        // The first time on a machine it is installed.
        let output = tokio::time::timeout(Duration::from_mins(5), sending).await.expect("it hangs").unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn send_by_rust(dsn: &str) {
    let mut options = ClientOptions::new().release("shop@1.0.0").traces_sample_rate(1.0);
    options.dsn = Some(dsn.parse().unwrap());
    let client = Arc::new(sentry::Client::from_config(sentry::apply_defaults(options)));
    let hub = Arc::new(Hub::new(Some(client.clone()), Arc::new(Scope::default())));
    Hub::run(hub.clone(), || {
        // The first, since Bugsink's answer asks for no more of them.
        sentry::start_transaction(TransactionContext::new("a transaction", "task")).finish();
        assert!(client.flush(Some(PATIENCE)));
        sentry_core::start_session();
        sentry::capture_error(&"ü".parse::<u8>().unwrap_err());
        sentry_core::end_session();
        sentry::capture_message("a message", Level::Info);
        let own = |scope: &mut Scope| scope.set_tag("pod_name", "my-own");
        sentry::with_scope(own, || sentry::capture_message("a message with a pod of its own", Level::Info));
        let buffer = (0..=255_u8).cycle().take(256 * 300).collect();
        let attachment = Attachment { buffer, filename: "every-byte.bin".into(), ..Attachment::default() };
        let attached = |scope: &mut Scope| scope.add_attachment(attachment);
        sentry::with_scope(attached, || sentry::capture_message("a message with an attachment", Level::Info));
        #[expect(clippy::disallowed_methods, reason = "an application's clock is not recoverd's")]
        let log = Log {
            level: LogLevel::Info,
            body: "a log".to_owned(),
            trace_id: None,
            timestamp: SystemTime::now(),
            severity_number: None,
            attributes: [].into(),
        };
        hub.capture_log(log.clone());
        let attributes = [("pod_name".to_owned(), LogAttribute::from("my-own"))].into();
        hub.capture_log(Log { body: "a log with a pod of its own".to_owned(), attributes, ..log });
        let check_in = MonitorCheckIn {
            check_in_id: random_uuid(),
            monitor_slug: "nightly".to_owned(),
            status: MonitorCheckInStatus::Ok,
            environment: None,
            duration: Some(1.5),
            monitor_config: None,
        };
        client.send_envelope(check_in.into());
    });
    assert!(client.close(Some(PATIENCE)));
}

/// What an SDK sent, what the relay made of it, and what Bugsink has.
struct Journey {
    sent: Vec<Recorded>,
    forwarded: Vec<Recorded>,
    stored: Vec<Vec<u8>>,
}

/// One SDK through a relay of its own: what Bugsink says of transactions holds for the relay as well.
async fn journey(sdk: &Sdk, bugsink: &Bugsink, more: &str) -> Journey {
    let before = bugsink.envelopes().len();
    let (host, _) = bugsink.dsn.rsplit_once('/').unwrap();
    let (key, host) = host.trim_start_matches("http://").split_once('@').unwrap();
    let behind = Tee::before(&format!("http://{host}")).await;
    let world = World::with(&ingest::settings(&format!("http://{}/", behind.address), more)).await;
    let front = Tee::before(&world.relay_url("")).await;
    sdk.send(format!("http://{key}@{}/1", front.address)).await;
    world.finish().await;
    let stored = bugsink.envelopes().split_off(before);
    Journey { sent: front.take(), forwarded: behind.take(), stored }
}

/// As it was before it was compressed.
fn decoded(request: &Recorded) -> Vec<u8> {
    let codings = Codings::of(request.header("content-encoding")).unwrap();
    let mut decoder = Decoder::new(&codings, DecodeLimits::default());
    decoder.push(Bytes::copy_from_slice(&request.body));
    let mut text = Vec::new();
    while let Some(piece) = decoder.next().unwrap() {
        text.extend_from_slice(&piece);
    }
    decoder.finish().unwrap();
    text
}

/// An envelope's header line, and its items' headers and payloads.
#[derive(PartialEq)]
struct Envelope {
    header: Vec<u8>,
    items: Vec<(Value, Vec<u8>)>,
}

impl Envelope {
    fn read(bytes: &[u8]) -> Self {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let header = lines.next().unwrap().to_vec();
        let (mut items, mut rest) = (Vec::new(), lines.next().unwrap_or_default());
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let header: Value = serde_json::from_slice(&rest[..end]).unwrap();
            rest = &rest[end + 1..];
            let line = || rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let length = header["length"].as_u64().map_or_else(line, |length| usize::try_from(length).unwrap());
            items.push((header, rest[..length].to_vec()));
            rest = rest.get(length + 1..).unwrap_or_default();
        }
        Self { header, items }
    }

    /// With every trace of the pod cut out of its bytes.
    fn without_pod(mut self) -> Self {
        for (header, payload) in &mut self.items {
            if ["event", "transaction", "feedback", "log"].contains(&header["type"].as_str().unwrap()) {
                *payload = cut(payload);
                header.as_object_mut().unwrap().remove("length");
            }
        }
        self
    }
}

/// To be read by people.
impl fmt::Display for Envelope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", String::from_utf8_lossy(&self.header))?;
        self.items.iter().try_for_each(|(header, payload)| {
            let beginning = &payload[..payload.len().min(10_000)];
            writeln!(out, "{header}\n{}", String::from_utf8_lossy(beginning))
        })
    }
}

/// What is spliced in, wherever it stands; with the tags that were there before it stands in front of them.
fn cut(payload: &[u8]) -> Vec<u8> {
    let plain = |key: &str, value: &str| format!("\"{key}\":\"{value}\"");
    let attribute = |key: &str, value: &str| format!("\"{key}\":{{\"value\":\"{value}\",\"type\":\"string\"}}");
    let mut text = String::from_utf8(payload.to_vec()).unwrap();
    for own in 0..2 {
        // The second time the app has named the pod itself.
        let tags: Vec<_> = POD[own..].iter().map(|(key, value)| plain(key, value)).collect();
        let attributes: Vec<_> = POD[own..].iter().map(|(key, value)| attribute(key, value)).collect();
        for (name, all) in [("tags", tags.join(",")), ("attributes", attributes.join(","))] {
            for form in [format!("\"{name}\":{{{all}}},"), format!("{all},"), all] {
                text = text.replace(&form, "");
            }
        }
    }
    // Python has this where there are none, which is then where they stand.
    text.replace("\"tags\":{},", "").into_bytes()
}

fn items<'a>(envelopes: &'a [Envelope], kind: &str) -> Vec<&'a [u8]> {
    let all = envelopes.iter().flat_map(|envelope| &envelope.items);
    all.filter(|(header, _)| header["type"] == kind).map(|(_, payload)| &**payload).collect()
}

/// In an order that does not depend on which came first, each once: Bugsink fails at half a surrogate, so the relay keeps
/// that event and sends it again.
fn sorted(mut bodies: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    bodies.sort();
    bodies.dedup();
    bodies
}

async fn every_kind_arrives_with_its_pod(sdk: Sdk) {
    let bugsink = Bugsink::start();
    let Journey { sent, forwarded, stored } = journey(&sdk, &bugsink, "").await;
    assert_eq!(
        sorted(forwarded.iter().map(decoded).collect()),
        sorted(stored.clone()),
        "Bugsink has what was forwarded"
    );

    // The rest of each event is as the SDK had it.
    let read =
        |bodies: Vec<Vec<u8>>| -> Vec<Envelope> { sorted(bodies).iter().map(|body| Envelope::read(body)).collect() };
    let stripped = |bodies: Vec<Vec<u8>>| -> Vec<Envelope> {
        let mut envelopes: Vec<_> = read(bodies).into_iter().map(Envelope::without_pod).collect();
        envelopes.sort_by_key(Envelope::to_string);
        envelopes
    };
    let (before, after) = (stripped(sent.iter().map(decoded).collect()), stripped(stored.clone()));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.to_string(), after.to_string());
    }
    assert!(before == after, "what was sent and what arrived are not the same number, or not the same bytes");

    let envelopes = read(stored);
    let kinds: BTreeSet<&str> = envelopes
        .iter()
        .flat_map(|envelope| &envelope.items)
        .map(|(header, _)| header["type"].as_str().unwrap())
        .collect();
    for kind in ["event", "transaction", "log", "attachment", "check_in", "session"].iter().chain(sdk.more) {
        assert!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }

    let mut messages = BTreeSet::new();
    for event in bugsink.events() {
        let own = event.message.ends_with("a pod of its own");
        let expected = if own { "my-own" } else { "web-1" };
        assert_eq!(event.tag("pod_name"), Some(expected), "{}", event.message);
        assert_eq!((event.tag("pod_namespace"), event.tag("node_name")), (Some("shop"), Some("node-a")));
        assert_eq!(event.tags.iter().filter(|(key, _)| key == "pod_name").count(), 1);
        let is_error = event.raw["exception"]["values"].is_array();
        messages.insert(if is_error { "an error".to_owned() } else { event.message });
    }
    for message in ["an error", "a message", "a message with a pod of its own", "a message with an attachment"] {
        assert!(messages.contains(message), "{messages:?}");
    }

    for kind in ["transaction", "feedback"] {
        for payload in items(&envelopes, kind) {
            let payload: Value = serde_json::from_slice(payload).unwrap();
            for (key, value) in POD {
                assert_eq!(payload["tags"][key], value, "{kind}");
            }
        }
    }

    let logs: Vec<Value> =
        items(&envelopes, "log").into_iter().map(|log| serde_json::from_slice(log).unwrap()).collect();
    let logs: Vec<&Value> = logs.iter().flat_map(|log| log["items"].as_array().unwrap()).collect();
    let of = |body: &str| *logs.iter().find(|log| log["body"] == body).unwrap_or_else(|| panic!("no {body}: {logs:?}"));
    for (key, value) in POD {
        assert_eq!(of("a log")["attributes"][key], json!({ "value": value, "type": "string" }));
    }
    let own = &of("a log with a pod of its own")["attributes"];
    assert_eq!((&own["pod_name"]["value"], &own["node_name"]["value"]), (&json!("my-own"), &json!("node-a")));

    let every_byte: Vec<u8> = (0..=255).cycle().take(256 * 300).collect();
    assert!(items(&envelopes, "attachment") == [every_byte], "the attachment's bytes");
    let check_in: Value = serde_json::from_slice(items(&envelopes, "check_in")[0]).unwrap();
    assert_eq!((&check_in["monitor_slug"], &check_in["status"]), (&json!("nightly"), &json!("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_python_sends_arrives_with_its_pod() {
    every_kind_arrives_with_its_pod(PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_node_sends_arrives_with_its_pod() {
    every_kind_arrives_with_its_pod(NODE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_rust_sends_arrives_with_its_pod() {
    every_kind_arrives_with_its_pod(RUST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enrichment_not_a_byte_is_another() {
    let bugsink = Bugsink::start();
    let mut codings = BTreeSet::new();
    for sdk in [PYTHON, NODE, RUST] {
        let Journey { sent, forwarded, stored } = journey(&sdk, &bugsink, "enrich = false").await;
        assert!(sent.len() >= 5, "{}: {} requests", sdk.name, sent.len());
        assert_eq!(sorted(sent.iter().map(decoded).collect()), sorted(stored), "{}: as stored", sdk.name);
        let as_it_was = |requests: &[Recorded]| {
            let line = |request: &Recorded| {
                let kept = ["content-encoding", "content-type", "user-agent", "x-sentry-auth"];
                let headers = kept.map(|name| request.header(name).map(str::to_owned));
                (request.body.clone(), request.target.clone(), headers)
            };
            let mut all: Vec<_> = requests.iter().map(line).collect();
            all.sort();
            all.dedup();
            all
        };
        assert!(as_it_was(&sent) == as_it_was(&forwarded), "{}: on the wire", sdk.name);
        codings.extend(sent.iter().map(|request| request.header("content-encoding").unwrap_or("none").to_owned()));
    }
    assert_eq!(codings.iter().map(String::as_str).collect::<Vec<_>>(), ["br", "gzip", "none"]);
}
