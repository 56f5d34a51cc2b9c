//! What is broken, hostile or endless harms nobody: it goes on as it came or is refused, and the next event is served.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ingest::Ingest;
use crate::world::{PATIENCE, World};

const ENVELOPE: &str = "/api/7/envelope/?sentry_key=abc&sentry_version=7";
const SOUND: &str = "{}\n{\"type\":\"event\",\"length\":2}\n{}\n";
const TAGS: &str = r#""tags":{"pod_name":"web-1","pod_namespace":"shop","node_name":"node-a"}"#;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.running.addresses.relay.unwrap()).await.unwrap()
}

/// That an event still gains its tags.
async fn still_serves(world: &World, sentry: &Ingest) {
    let sent = world.client.post(world.relay_url(ENVELOPE)).body(SOUND).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let expected = format!("{{}}\n{{\"type\":\"event\",\"length\":{}}}\n{{{TAGS}}}\n", TAGS.len() + 2);
    assert_eq!(sentry.next().await.text(), expected);
}

#[tokio::test]
async fn what_is_broken_goes_on_as_it_came() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let deep = format!("{{}}\n{{\"type\":\"event\"}}\n{}", "[".repeat(100_000));
    let table: [(&str, Vec<u8>); 14] = [
        ("nothing", Vec::new()),
        ("no line", b"{".to_vec()),
        ("only a header", b"{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}".to_vec()),
        ("shorter than its length", b"{}\n{\"type\":\"event\",\"length\":2000}\n{}\n".to_vec()),
        ("longer than its length", b"{}\n{\"type\":\"event\",\"length\":1}\n{}\n".to_vec()),
        ("a length beyond all numbers", b"{}\n{\"type\":\"event\",\"length\":99999999999999999999999}\n{}\n".to_vec()),
        ("a negative length", b"{}\n{\"type\":\"event\",\"length\":-2}\n{}\n".to_vec()),
        ("two lengths", b"{}\n{\"type\":\"event\",\"length\":2,\"length\":3}\n{}\n".to_vec()),
        ("cut within its event", b"{}\n{\"type\":\"event\"}\n{\"message\":\"hel".to_vec()),
        ("no JSON", b"{}\n{\"type\":\"event\"}\n<html>\n".to_vec()),
        ("no text", b"{}\n{\"type\":\"event\"}\n{\"a\":\"\xff\xfe\",}\n".to_vec()),
        ("tags that are a number", b"{}\n{\"type\":\"event\"}\n{\"tags\":1}\n".to_vec()),
        ("zeros", vec![0; 100_000]),
        ("depth", deep.into_bytes()),
    ];
    for (what, body) in table {
        let sent = world.client.post(world.relay_url(ENVELOPE)).body(body.clone()).send().await.unwrap();
        assert_eq!(sent.status(), 200, "{what}");
        let arrived = sentry.next().await.body;
        assert!(arrived == body, "{what}: {}", String::from_utf8_lossy(&arrived[..arrived.len().min(200)]));
    }
    still_serves(&world, &sentry).await;
    world.finish().await;
}

#[tokio::test]
async fn a_header_is_not_touched_whatever_is_in_it_twice() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let header = "{\"sent_at\":\"2026-11-24T15:26:00Z\",\"sent_at\":\"x\",\"trace\":{\"a\":1e400},\"trace\":null , \"z\":\"\\ud800\"}";
    let body = SOUND.replacen("{}", header, 1);
    world.client.post(world.relay_url(ENVELOPE)).body(body).send().await.unwrap();
    let arrived = sentry.next().await;
    assert_eq!(arrived.text().lines().next(), Some(header));
    assert!(arrived.text().contains("\"pod_name\":\"web-1\""), "it is enriched all the same");
    world.finish().await;
}

#[tokio::test]
async fn what_grows_beyond_measure_is_passed_on_small() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let event = [b"{}\n{\"type\":\"event\"}\n{\"a\":\"" as &[u8], &vec![b'a'; 64 << 20], b"\"}"].concat();
    let attachment = [b"{}\n{\"type\":\"attachment\"}\n" as &[u8], &vec![0; 64 << 20]].concat();
    for bomb in [gzip(&event), gzip(&attachment), gzip(&gzip(&gzip(&attachment)))] {
        let request = world.client.post(world.relay_url(ENVELOPE)).header("content-encoding", "gzip");
        assert_eq!(request.body(bomb.clone()).send().await.unwrap().status(), 200);
        let arrived = sentry.next().await;
        assert_eq!(arrived.header("content-encoding"), Some("gzip"));
        assert!(arrived.body == bomb, "a byte has changed");
    }
    let (_, metrics) = world.get("/metrics").await;
    assert!(metrics.contains("recoverd_relay_passed_total{reason=\"bomb\"} 2"), "{metrics}");
    still_serves(&world, &sentry).await;
    world.finish().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_is_announced() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("max_body_bytes = 65536")).await;
    let large = vec![b'x'; 65_537];
    let announced = world.client.post(world.relay_url(ENVELOPE)).body(large.clone()).send().await.unwrap();
    assert_eq!(announced.status(), 413);
    let mut chunked = connect(&world).await;
    let head =
        format!("POST {ENVELOPE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", large.len());
    chunked.write_all(head.as_bytes()).await.unwrap();
    chunked.write_all(&large).await.unwrap();
    assert!(status_line(&mut chunked).await.starts_with("HTTP/1.1 413"));
    assert!(sentry.is_quiet().await, "nothing of it went on");
    still_serves(&world, &sentry).await;
    world.finish().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let heads = [
        format!("POST {ENVELOPE} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{SOUND}"),
        format!("POST {ENVELOPE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{SOUND}"),
        format!(
            "POST {ENVELOPE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnumber\r\n{SOUND}\r\n0\r\n\r\n"
        ),
    ];
    for head in heads {
        let mut stream = connect(&world).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // An answer or none, but an end.
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection stays open");
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
    still_serves(&world, &sentry).await;
    assert!(sentry.is_quiet().await);
    world.finish().await;
}

/// They hold nothing but their connections: however many there are, others are served, and what they send in the end arrives.
#[tokio::test]
async fn slow_senders_hold_up_nobody() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&world).await;
        let head = format!("POST {ENVELOPE} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", SOUND.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&SOUND.as_bytes()[..10]).await.unwrap();
        slow.push(stream);
    }
    still_serves(&world, &sentry).await;
    for mut stream in slow.drain(..100) {
        for byte in &SOUND.as_bytes()[10..] {
            stream.write_all(&[*byte]).await.unwrap();
        }
        assert!(status_line(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert!(sentry.next().await.text().contains("\"pod_name\":\"web-1\""));
    }
    drop(slow);
    still_serves(&world, &sentry).await;
    world.finish().await;
}

/// Sentry is the one to say no, in its own words.
#[tokio::test]
async fn a_project_that_is_none_is_refused_by_sentry_itself() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    for path in ["/api/.../envelope/", "/api/99999999999999999999/envelope/", "/api/%00/envelope/", "/api/a%2Fb/store/"]
    {
        sentry.reply(crate::ingest::Reply::new(403, r#"{"detail":"bad project"}"#));
        let mut stream = connect(&world).await;
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(status_line(&mut stream).await.starts_with("HTTP/1.1 403"), "{path}");
        assert_eq!(sentry.next().await.target, path);
    }
    let (_, metrics) = world.get("/metrics").await;
    let mine: Vec<&str> = metrics.lines().filter(|line| line.starts_with("recoverd_relay")).collect();
    assert!(!mine.iter().any(|line| line.contains("99999999999999999999") || line.contains("%00")), "{mine:?}");
    still_serves(&world, &sentry).await;
    world.finish().await;
}

#[tokio::test]
async fn no_path_leads_out_of_where_it_seems_to_be() {
    let sentry = Ingest::spawn().await;
    let world = World::with(&sentry.settings("")).await;
    let table = ["/api/../x", "/api/7/%2e%2E/x", "/api/7/.%2e", "/api/./7/store/", "/api/..%2f..%2Fx", "/api/7/..\\x"];
    for path in table {
        let mut stream = connect(&world).await;
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(status_line(&mut stream).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let (_, metrics) = world.get("/metrics").await;
    let counted = format!("recoverd_relay_refused_total{{reason=\"dot_segments\"}} {}", table.len());
    assert!(metrics.contains(&counted), "{metrics}");
    still_serves(&world, &sentry).await;
    assert!(sentry.is_quiet().await);
    world.finish().await;
}

/// What the settings alone cannot tell.
#[tokio::test]
async fn two_relays_that_lead_to_each_other_end_it_at_the_first() {
    let (one, other) = (crate::bugsink::free_port(), crate::bugsink::free_port());
    let before = |listen: u16, upstream: u16| {
        format!(
            "[relay]\nenabled = true\nlisten = \"127.0.0.1:{listen}\"\nupstream = \"http://127.0.0.1:{upstream}/\"\n"
        )
    };
    let (first, second) = (World::with(&before(one, other)).await, World::with(&before(other, one)).await);
    let sent = first.client.post(first.relay_url(ENVELOPE)).body(SOUND).send();
    let sent = tokio::time::timeout(PATIENCE, sent).await.expect("it goes round and round").unwrap();
    assert_eq!(sent.status(), 400);
    assert!(sent.text().await.unwrap().contains("leads back"));
    let (_, metrics) = first.get("/metrics").await;
    assert!(metrics.contains("recoverd_relay_refused_total{reason=\"loop\"} 1"), "once round");
    first.finish().await;
    second.finish().await;
}

async fn status_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let reading = async {
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.expect("an answer"));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("no answer");
    String::from_utf8(line).unwrap()
}
