//! What `ci/release` trains recoverd with: all that is hot in it, in shares as they may be, bounded in count. It measures
//! nothing, and ends at once where an answer is not what it should be. `RECOVERD=path cargo test --bench training`.
//!
//! What it leaves out is built for size instead of speed: whatever becomes hot belongs in here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    dead_code,
    unused_imports,
    missing_debug_implementations,
    unreachable_pub,
    reason = "it stands on the benchmarks and the tests, and uses a part of them"
)]

#[path = "../tests/it"]
mod it {
    pub mod jenkins_server;
    pub mod tls;
}
mod load;
#[path = "load/process.rs"]
mod process;
#[path = "load/sentry.rs"]
mod sentry;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use it::jenkins_server::{Class, JenkinsServer};
use it::tls::TlsFront;
use process::Process;
use recoverd::sentry::webhook::Secrets;

/// What the stand-in for Jenkins takes from the tests' world.
mod world {
    pub const CREATED: i64 = 1_780_000_000_000;
    pub const TOKEN: &str = super::load::TOKEN;
}

const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// Of SDKs, and of all others.
const CONNECTIONS: usize = 32;
/// How often each connection sends the whole mix.
const MIXES: usize = 25;
const JOBS: usize = 1_000;
const BUILDS: u64 = 12;
/// So many of each document that other senders post.
const OF_OTHERS: usize = 100;
/// Of which a look at Jenkins tells.
const SEEN_JOBS: usize = 500;
/// What is told of issues in Sentry, …
const HOOKS: usize = 4_000;
/// … of so many.
const ISSUES: usize = 100;
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let began = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let agent = load::Agent::start(&socket);
    let plain = sentry::upstream();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (front, server) = runtime.block_on(async { (TlsFront::before(plain).await, JenkinsServer::spawn().await) });
    let authority = directory.path().join("authority.pem");
    std::fs::write(&authority, &front.certificate).unwrap();
    for job in 0..SEEN_JOBS {
        let name = format!("team-{}/service-{job}", job % 10);
        server.jenkins().create(Class::FreeStyle, &name);
        server.jenkins().build(&name, if job % 20 == 1 { "FAILURE" } else { "SUCCESS" });
    }
    let more = format!(
        r#"
[relay]
enabled = true
listen = "127.0.0.1:0"
upstream = "http://{plain}/"
ca_file = {:?}
[[relay.routes]]
projects = ["8"]
upstream = "https://{}/"
[[sentry.integrations]]
name = "acme"
secrets = ["{SECRET}"]
[[jenkins]]
name = "main"
url = "https://ci.example.org/"
tokens = ["{}"]
{}"#,
        authority.display().to_string(),
        front.address,
        load::TOKEN,
        server.settings("seen")
    );

    let ours = Process::start(directory.path(), &socket, "5s", &more);
    let scraping = Scraping::start(&ours);
    let relayed = relay(&ours);
    let webhooks = webhooks(&ours);
    let hooks = hooks(&ours);
    let page = Page::of(&ours);
    scraping.end();
    page.expect("recoverd_relay_requests_total", r#"status="2xx""#, relayed);
    page.expect("recoverd_relay_requests_total", "", relayed);
    for trouble in ["passed", "refused", "unattributed", "spooled", "spool_refused"] {
        page.expect(&format!("recoverd_relay_{trouble}_total"), "", 0);
    }
    let items = |label: &str| page.sum("recoverd_relay_items_total", label);
    for category in ["event", "transaction", "log"] {
        assert!(
            items(&format!(r#"category="{category}",outcome="enriched""#)) > 0,
            "{category} has no tags\n{}",
            page.0
        );
    }
    let outcomes = items(r#"outcome="enriched""#) + items(r#"outcome="other_kind""#);
    page.expect("recoverd_relay_items_total", "", outcomes);
    page.expect("recoverd_webhooks_received_total", r#"controller="main""#, webhooks);
    page.expect("recoverd_sentry_webhooks_accepted_total", r#"resource="issue""#, hooks);
    ours.wait_for_looks(3);
    wait_for_round(&agent);
    ours.stop();

    // A start with all that is stored.
    let again = Process::start(directory.path(), &socket, "5s", &more);
    wait_for_round(&agent);
    again.stop();
    println!(
        "{relayed} requests relayed, {webhooks} webhooks of Jenkins and {hooks} of Sentry, all as it should be, in {} s",
        began.elapsed().as_secs()
    );
    std::process::exit(0);
}

impl Process {
    fn wait_for_looks(&self, wanted: u64) {
        let began = Instant::now();
        while Page::of(self).sum("recoverd_surveys_total", "") < wanted {
            assert!(began.elapsed() < PATIENCE, "recoverd does not look at Jenkins");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Until as many checks have come as there are jobs.
fn wait_for_round(agent: &load::Agent) {
    let (began, before) = (Instant::now(), agent.checks());
    while agent.checks() < before + (JOBS + SEEN_JOBS) as u64 {
        assert!(began.elapsed() < PATIENCE, "recoverd does not tell of its jobs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns how many requests there were.
fn relay(ours: &Process) -> u64 {
    let mix = mix();
    let requests = (0..CONNECTIONS)
        .flat_map(|connection| mix.iter().cycle().take(mix.len() * MIXES).map(move |one| (connection, one.clone())));
    load::send(ours.relay.expect("there is a relay"), CONNECTIONS, requests);
    (CONNECTIONS * MIXES * mix.len()) as u64
}

/// What SDKs send, each as often as its share is.
fn mix() -> Vec<Bytes> {
    const ENVELOPE: &str = "/api/7/envelope/";
    /// To a Sentry beyond TLS, as sentry.io is.
    const BY_TLS: &str = "/api/8/envelope/?sentry_version=7&sentry_key=def";
    let item = |kind: &str, payload: &str| sentry::envelope(&[(&format!(r#""type":"{kind}""#), payload.as_bytes())]);
    let bare = item("event", &sentry::error(2_000, ""));
    let tagged = item("event", &sentry::error(2_000, r#"{"route":"/cart","customer":"acme"}"#));
    let listed = item("event", &sentry::error(2_000, r#"[["route","/cart"],["pod_name","its-own"]]"#));
    let large = item("event", &sentry::error(100_000, r#"{"route":"/cart"}"#));
    let transaction = item("transaction", &transaction());
    let logs = sentry::envelope(&[(
        r#""type":"log","item_count":20,"content_type":"application/vnd.sentry.items.log+json""#,
        logs().as_bytes(),
    )]);
    let session = item(
        "session",
        r#"{"sid":"7c7b6585f9014d4ea7f4d5c3b2a1908f","init":true,"started":"2026-11-24T15:26:00Z","timestamp":"2026-11-24T15:26:01Z","status":"ok","errors":0,"attrs":{"release":"shop@1.0.0","environment":"production"}}"#,
    );
    let sessions = item(
        "sessions",
        r#"{"aggregates":[{"started":"2026-11-24T15:26:00Z","exited":123,"errored":4}],"attrs":{"release":"shop@1.0.0","environment":"production"}}"#,
    );
    let lost = item(
        "client_report",
        r#"{"timestamp":1780000000,"discarded_events":[{"reason":"sample_rate","category":"transaction","quantity":7}]}"#,
    );
    // Differs as what is compressed already.
    let noise: Vec<u8> =
        (0_u32..120_000).map(|at| (at.wrapping_mul(at ^ 0x9E37_79B1) >> 24).to_le_bytes()[0]).collect();
    let attached = sentry::envelope(&[
        (r#""type":"event""#, sentry::error(2_000, "").as_bytes()),
        (r#""type":"attachment","filename":"screenshot.png","content_type":"image/png""#, &noise),
    ]);
    let shares: [(usize, &str, &str, &[u8]); 31] = [
        (4, ENVELOPE, "identity", &bare),
        (4, ENVELOPE, "identity", &tagged),
        (1, ENVELOPE, "identity", &listed),
        (4, ENVELOPE, "gzip", &bare),
        (4, ENVELOPE, "gzip", &tagged),
        (1, ENVELOPE, "gzip", &listed),
        (1, ENVELOPE, "deflate", &tagged),
        (2, ENVELOPE, "br", &tagged),
        (1, ENVELOPE, "zstd", &tagged),
        (2, ENVELOPE, "identity", &large),
        (2, ENVELOPE, "gzip", &large),
        (1, ENVELOPE, "deflate", &large),
        (1, ENVELOPE, "br", &large),
        (1, ENVELOPE, "zstd", &large),
        (2, ENVELOPE, "identity", &transaction),
        (3, ENVELOPE, "gzip", &transaction),
        (1, ENVELOPE, "br", &transaction),
        (1, ENVELOPE, "identity", &logs),
        (2, ENVELOPE, "gzip", &logs),
        (1, ENVELOPE, "br", &logs),
        (1, ENVELOPE, "identity", &session),
        (1, ENVELOPE, "gzip", &sessions),
        (1, ENVELOPE, "gzip", &lost),
        (1, ENVELOPE, "identity", &attached),
        (1, ENVELOPE, "gzip", &attached),
        (2, BY_TLS, "identity", &tagged),
        (3, BY_TLS, "gzip", &bare),
        (1, BY_TLS, "gzip", &large),
        (2, BY_TLS, "gzip", &transaction),
        (1, "/api/7/store/", "gzip", &bare[header_of(&bare)..]),
        (1, "/api/7/security/?sentry_key=abc", "identity", br#"{"csp-report":{"blocked-uri":"https://example.org/"}}"#),
    ];
    // One of each in turn, as long as there are any left: no kind comes all at once.
    let most = shares.iter().map(|(share, ..)| *share).max().unwrap_or_default();
    let requests: Vec<_> = shares.map(|(share, path, coding, body)| (share, sentry::post(path, coding, body))).into();
    (0..most)
        .flat_map(|turn| requests.iter().filter(move |(share, _)| turn < *share).map(|(_, request)| request.clone()))
        .collect()
}

/// The two lines before an envelope's first payload.
fn header_of(envelope: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', envelope).nth(1).unwrap() + 1
}

/// One of 40 spans.
fn transaction() -> String {
    let span = |number: u64| {
        format!(
            r#"{{"span_id":"{:016x}","trace_id":"771a43a4192642f0b136d5159a501700","parent_span_id":"a1b2c3d4e5f60718","op":"db.query","description":"SELECT \"id\", \"name\" FROM \"articles\" WHERE \"id\" = {number}","start_timestamp":1780000000.{number:03},"timestamp":1780000000.{:03},"data":{{"db.system":"postgresql"}}}}"#,
            number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            number + 5
        )
    };
    let spans: Vec<String> = (100..140).map(span).collect();
    format!(
        r#"{{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","type":"transaction","transaction":"/cart","start_timestamp":1780000000.1,"timestamp":1780000000.5,"platform":"python","contexts":{{"trace":{{"trace_id":"771a43a4192642f0b136d5159a501700","span_id":"a1b2c3d4e5f60718","op":"http.server","status":"ok"}}}},"spans":[{}],"tags":{{"route":"/cart"}},"request":{{"url":"https://shop.example.org/cart","method":"GET","headers":[["Accept","*/*"],["User-Agent","Mozilla/5.0"]]}}}}"#,
        spans.join(",")
    )
}

/// Twenty of them.
fn logs() -> String {
    let log = |number: u64| {
        format!(
            r#"{{"timestamp":1780000000.{number:03},"trace_id":"771a43a4192642f0b136d5159a501700","level":"info","severity_number":9,"body":"article {number} was put into the cart","attributes":{{"sentry.release":{{"value":"shop@1.0.0","type":"string"}},"article":{{"value":{number},"type":"integer"}}}}}}"#
        )
    };
    let logs: Vec<String> = (100..120).map(log).collect();
    format!(r#"{{"items":[{}]}}"#, logs.join(","))
}

/// Builds of many jobs, phase by phase, and what other senders post. Returns how many webhooks there were.
fn webhooks(ours: &Process) -> u64 {
    let build = |number: u64| {
        let phases = ["STARTED", "COMPLETED", "FINALIZED"];
        phases.into_iter().flat_map(move |phase| {
            (0..JOBS).map(move |job| {
                let mut document = load::document(job, number).replace("COMPLETED", phase);
                if phase == "STARTED" {
                    document = document.replace(r#""status":"SUCCESS","#, "").replace(r#""status":"FAILURE","#, "");
                }
                (job, Bytes::from(load::request(&document)))
            })
        })
    };
    load::send(ours.webhooks, CONNECTIONS, (1..=BUILDS).flat_map(build));
    let others = [
        "full.json",
        "full.xml",
        "generic-event-freestyle-finalized.json",
        "generic-event-run-completed.json",
        "statistics-gatherer-finalized.json",
        "cloudevents-structured-finalized.json",
        "outbound-webhook-unstable.json",
        "step.json",
    ];
    let post = |(turn, name): (usize, &str)| (turn, Bytes::from(load::request(&fixture("jenkins", name))));
    load::send(
        ours.webhooks,
        CONNECTIONS,
        others.into_iter().cycle().take(others.len() * OF_OTHERS).enumerate().map(post),
    );
    BUILDS * 3 * JOBS as u64 + (others.len() * OF_OTHERS) as u64
}

fn fixture(room: &str, name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(room).join(name)).unwrap()
}

/// Issues that come and go. Returns how many webhooks there were.
fn hooks(ours: &Process) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "Sentry's clock is not recoverd's")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let secrets = Secrets::new([&SECRET.to_owned().into()]);
    let documents = ["issue-created.json", "issue-resolved.json"].map(|name| fixture("sentry", name));
    let hook = |turn: usize| {
        let document = &documents[turn / ISSUES % documents.len()];
        let body = document.replace("4509112233", &format!("45091{:05}", turn % ISSUES));
        let signature = secrets.sign(body.as_bytes()).expect("there is a secret");
        let request = format!(
            "POST /sentry/acme HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nRequest-ID: {turn}\r\nSentry-Hook-Resource: issue\r\nSentry-Hook-Timestamp: {now}\r\nSentry-Hook-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (turn % ISSUES, request.into())
    };
    load::send(ours.webhooks, CONNECTIONS, (0..HOOKS).map(hook));
    HOOKS as u64
}

/// What Prometheus and Kubernetes ask, meanwhile.
struct Scraping {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Scraping {
    fn start(ours: &Process) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, admin) = (is_over.clone(), ours.admin);
        let scrape = move || {
            while !over.load(Ordering::Relaxed) {
                for path in ["metrics", "healthz", "readyz", "api/v1/jobs", "api/v1/issues", "api/v1/pod"] {
                    get(admin, path);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        Self { is_over, thread: std::thread::spawn(scrape) }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the admin listener answers");
    }
}

fn get(admin: std::net::SocketAddr, path: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    runtime.block_on(async {
        let answer = client.get(format!("http://{admin}/{path}")).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        text
    })
}

/// `/metrics`.
struct Page(String);

impl Page {
    fn of(ours: &Process) -> Self {
        Self(get(ours.admin, "metrics"))
    }

    /// Of all samples of a metric that have this label.
    fn sum(&self, metric: &str, label: &str) -> u64 {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(metric));
        let samples = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        samples.map(|rest| rest.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn expect(&self, metric: &str, label: &str, wanted: u64) {
        let found = self.sum(metric, label);
        assert_eq!(found, wanted, "{metric} with {label:?}\n{}", self.0);
    }
}
