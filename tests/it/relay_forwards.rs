//! What an SDK posts arrives at its Sentry, and but for the tags no byte of it is another.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::ingest::{Ingest, Reply, settings};
use crate::world::{PATIENCE, World};

const EVENT: &str = "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"sent_at\":\"x\"}\n{\"type\":\"event\",\"length\":21}\n{\"message\":\"\u{fc}ber\", }\n";
const ENVELOPE: &str = "/api/7/envelope/?sentry_key=abc&sentry_version=7";

fn event(message: &str) -> String {
    let payload = format!("{{\"message\":\"{message}\"}}");
    format!(
        "{{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{payload}\n",
        payload.len()
    )
}

/// The same with the tags of the pod that the tests run in.
fn tagged(message: &str) -> String {
    let tags = r#""tags":{"pod_name":"web-1","pod_namespace":"shop","node_name":"node-a"},"#;
    let payload = format!("{{{tags}\"message\":\"{message}\"}}");
    format!(
        "{{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{payload}\n",
        payload.len()
    )
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_event_gains_the_pod_and_upstreams_answer_comes_back() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    sentry.reply(Reply::new(200, r#"{"id":"x"}"#).with("x-sentry-rate-limits", "60:session:key"));
    let request = world.client.post(world.relay_url(ENVELOPE)).body(event("hello")).header("user-agent", "sentry.x/1");
    let response = request.header("x-sentry-auth", "Sentry sentry_key=abc").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-sentry-rate-limits"], "60:session:key");
    assert_eq!(response.text().await.unwrap(), r#"{"id":"x"}"#);
    let arrived = sentry.next().await;
    assert_eq!(arrived.text(), tagged("hello"));
    assert_eq!(arrived.target, ENVELOPE);
    assert_eq!(arrived.header("user-agent"), Some("sentry.x/1"));
    assert_eq!(arrived.header("x-sentry-auth"), Some("Sentry sentry_key=abc"));
    assert_eq!(arrived.header("authorization"), None);
    assert_eq!(arrived.header("host"), Some(&*sentry.address.to_string()));
    assert_eq!(arrived.header("content-length"), Some(&*tagged("hello").len().to_string()));
    assert_eq!(arrived.header("x-forwarded-for"), Some("127.0.0.1"));
    world.finish().await;
}

#[tokio::test]
async fn a_compressed_event_gains_it_too_and_what_is_not_changed_stays_compressed() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    for (coding, body) in [("gzip", gzip(event("a").as_bytes())), ("deflate", deflate(event("a").as_bytes()))] {
        let request = world.client.post(world.relay_url(ENVELOPE)).header("content-encoding", coding).body(body);
        assert_eq!(request.send().await.unwrap().status(), 200);
        let arrived = sentry.next().await;
        assert_eq!((arrived.text(), arrived.header("content-encoding")), (&*tagged("a"), None), "{coding}");
    }
    let session = "{}\n{\"type\":\"session\"}\n{}\n";
    let untouched = [
        ("gzip", gzip(session.as_bytes())),
        ("gzip", b"not gzip at all".to_vec()),
        ("gzip", gzip(EVENT.as_bytes())),
        ("gzip", gzip(&vec![0; 20 << 20])),
        ("snappy", event("a").into_bytes()),
    ];
    for (coding, body) in untouched {
        let request = world.client.post(world.relay_url(ENVELOPE)).header("content-encoding", coding);
        assert_eq!(request.body(body.clone()).send().await.unwrap().status(), 200);
        let arrived = sentry.next().await;
        assert_eq!(arrived.header("content-encoding"), Some(coding));
        assert!(arrived.body == body, "{coding}: a byte has changed");
    }
    world.finish().await;
}

#[tokio::test]
async fn every_path_and_method_below_api_goes_on_untouched() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let table = [
        (Method::POST, "/api/7/minidump/?sentry_key=a%20b"),
        (Method::POST, "/api/7/security/?sentry_key=abc"),
        (Method::GET, "/api/7/cron/nightly/abc/?status=ok"),
        (Method::PUT, "/api/7/cron/nightly/abc/"),
        (Method::POST, "/api/7/integration/otlp/v1/traces"),
        (Method::POST, "/api/7/envelope/more/"),
        (Method::GET, "/api/0/organizations/"),
        (Method::POST, "/api/7//odd//path"),
    ];
    for (method, path) in table {
        let body = if method == Method::GET { Vec::new() } else { event("x").into_bytes() };
        let request = world.client.request(method.clone(), world.relay_url(path)).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
        let arrived = sentry.next().await;
        assert_eq!((arrived.method, &*arrived.target, arrived.body), (method, path, body));
    }
    let elsewhere = world.client.get(world.relay_url("/metrics")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
    assert!(elsewhere.text().await.unwrap().starts_with("{\"detail\":"));
    world.finish().await;
}

#[tokio::test]
async fn a_browser_may_send_from_everywhere_and_read_the_answer() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let asked =
        world.client.request(Method::OPTIONS, world.relay_url(ENVELOPE)).header("origin", "https://shop.example");
    let asked = asked.header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(asked.status(), 200);
    assert_eq!(asked.headers()["access-control-allow-origin"], "*");
    assert_eq!(asked.headers()["access-control-max-age"], "3600");
    assert!(sentry.is_quiet().await, "it is not asked");
    let sent = world.client.post(world.relay_url(ENVELOPE)).header("origin", "https://shop.example").body(event("x"));
    let sent = sent.send().await.unwrap();
    assert_eq!(sent.headers()["access-control-allow-origin"], "*");
    assert!(sent.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-sentry-rate-limits"));
    world.finish().await;
}

#[tokio::test]
async fn a_large_upload_arrives_whole_by_way_of_the_disk() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let attachment: Vec<u8> = (0..24_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let tail =
        [format!("{{\"type\":\"attachment\",\"length\":{}}}\n", attachment.len()).as_bytes(), &attachment].concat();
    let (body, expected) = ([event("x").as_bytes(), &tail].concat(), [tagged("x").as_bytes(), &tail].concat());
    for (coding, body) in [(None, body.clone()), (Some("gzip"), gzip(&body))] {
        let mut request = world.client.post(world.relay_url(ENVELOPE));
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        assert_eq!(request.body(body).send().await.unwrap().status(), 200);
        assert!(sentry.next().await.body == expected, "a byte has changed");
    }
    let left = std::fs::read_dir(world.directory.path().join("data/relay")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["spool"], "the drafts are gone");
    world.finish().await;
}

#[tokio::test]
async fn a_limit_that_sentry_has_named_is_kept_without_asking() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let post = async || world.client.post(world.relay_url(ENVELOPE)).body(event("x")).send().await.unwrap();
    sentry.reply(Reply::new(429, "{}").with("retry-after", "60").with("x-sentry-rate-limits", "60:error:key"));
    assert_eq!(post().await.status(), 429);
    sentry.next().await;
    let held = post().await;
    assert_eq!((held.status().as_u16(), held.headers().contains_key("retry-after")), (429, true));
    // Or else the SDK would hold back all that it has.
    let limits = held.headers()["x-sentry-rate-limits"].to_str().unwrap();
    assert!(limits.ends_with(":error:key") && !limits.contains(','), "{limits}");
    assert!(sentry.is_quiet().await);
    let session = "{}\n{\"type\":\"session\"}\n{}\n";
    let other = world.client.post(world.relay_url(ENVELOPE)).body(session).send().await.unwrap();
    assert_eq!(other.status(), 200, "of sessions nothing was said");
    let stranger = world.client.post(world.relay_url("/api/7/envelope/?sentry_key=other")).body(event("x"));
    assert_eq!(stranger.send().await.unwrap().status(), 200, "of other keys neither");
    world.finish().await;
}

#[tokio::test]
async fn what_one_without_a_key_is_told_concerns_no_other() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let ask = async || world.client.get(world.relay_url("/api/0/organizations/")).send().await.unwrap().status();
    sentry.reply(Reply::new(429, "{}").with("retry-after", "60"));
    assert_eq!(ask().await, 429);
    assert_eq!(ask().await, 200);
    world.finish().await;
}

#[tokio::test]
async fn a_draft_that_was_left_behind_is_in_nobodys_way() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let drafts = world.directory.path().join("data/relay");
    let stray = drafts.join(format!("{}-0.draft", std::process::id()));
    std::fs::write(&stray, "left by a process that was killed").unwrap();
    let world = world.restarted().await;
    assert!(!stray.exists());
    world.finish().await;
}

#[tokio::test]
async fn projects_and_keys_find_their_own_sentry() {
    let (usual, of_project, of_key) = (Ingest::spawn().await, Ingest::spawn().await, Ingest::spawn().await);
    let routes = format!(
        "[[relay.routes]]\nprojects = [\"8\"]\nupstream = \"http://{}/\"\n[[relay.routes]]\nkeys = [\"k9\"]\nupstream = \"http://{}/sub/\"",
        of_project.address, of_key.address
    );
    let world = World::with(&usual.settings(&routes)).await;
    let of_dsn = "{\"dsn\":\"https://k9@sentry.example/1\"}\n{\"type\":\"session\"}\n{}\n".to_owned();
    for (path, body, sentry, target) in [
        ("/api/7/envelope/?sentry_key=abc", event("x"), &usual, "/api/7/envelope/?sentry_key=abc"),
        ("/api/8/store/?sentry_key=abc", "{}".to_owned(), &of_project, "/api/8/store/?sentry_key=abc"),
        ("/api/9/envelope/?sentry_key=k9", event("x"), &of_key, "/sub/api/9/envelope/?sentry_key=k9"),
        ("/api/1/envelope/", of_dsn, &of_key, "/sub/api/1/envelope/"),
    ] {
        world.client.post(world.relay_url(path)).body(body).send().await.unwrap();
        assert_eq!(sentry.next().await.target, target);
    }
    world.finish().await;
}

#[tokio::test]
async fn a_loop_ends_where_it_began() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = socket.local_addr().unwrap();
    let world = World::with(&crate::ingest::settings(&format!("http://{front}/"), "")).await;
    let relay = world.running.addresses.relay.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = socket.accept().await {
            let mut inside = tokio::net::TcpStream::connect(relay).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    let sent = world.client.post(world.relay_url(ENVELOPE)).body(event("x")).send().await.unwrap();
    assert_eq!(sent.status(), 400);
    assert!(sent.text().await.unwrap().contains("leads back"));
    world.finish().await;
}

/// Answers as many requests on each connection, which it then closes without a word. Counts the connections.
/// Asks a Sentry that says no more than the beginning of its answer, and returns both sides of that.
async fn stalled(timeout: &str) -> (World, reqwest::Response, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/", listener.local_addr().unwrap());
    let world = World::with(&settings(&upstream, &format!("timeout = \"{timeout}\""))).await;
    let asked = world.client.post(world.relay_url(ENVELOPE)).body(event("hello")).send();
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\"hello\"}\n") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
        stream
    };
    let (response, stream) = tokio::join!(asked, answering);
    (world, response.unwrap(), stream)
}

async fn is_closed(mut stream: TcpStream) {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.expect("it stays open");
    assert_eq!(read.unwrap_or_default(), 0);
}

#[tokio::test]
async fn an_answer_that_stalls_is_given_up() {
    let (world, response, upstream) = stalled("300ms").await;
    assert_eq!(response.status(), 200);
    let read = tokio::time::timeout(PATIENCE, response.bytes()).await.expect("it never ends");
    assert!(read.is_err(), "{read:?}");
    is_closed(upstream).await;
    world.finish().await;
}

#[tokio::test]
async fn an_answer_that_stalls_ends_with_who_waits_for_it() {
    let (world, response, upstream) = stalled("5m").await;
    drop(response);
    is_closed(upstream).await;
    world.finish().await;
}

async fn closes_after(requests: usize) -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) =
        (listener.local_addr().unwrap(), std::sync::Arc::<std::sync::atomic::AtomicUsize>::default());
    let connections = count.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            for _ in 0..requests {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                while !read.ends_with(b"}\n") {
                    let length = stream.read(&mut buffer).await.unwrap();
                    read.extend_from_slice(&buffer[..length]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            }
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_connection_to_upstream_is_used_again_until_upstream_closes_it() {
    for (requests, expected) in [(1, 6), (3, 2), (6, 1)] {
        let (upstream, connections) = closes_after(requests).await;
        let world = World::with(&crate::ingest::settings(&format!("http://{upstream}/"), "")).await;
        for number in 0..6 {
            let sent = world.client.post(world.relay_url(ENVELOPE)).body(event("x")).send().await.unwrap();
            assert_eq!((sent.status().as_u16(), &*sent.text().await.unwrap()), (200, "{}"), "{number} of {requests}");
            // What is closed is seen to be so only once the system has told.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), expected, "after {requests} each");
        world.finish().await;
    }
}
