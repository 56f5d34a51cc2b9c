//! The Notification plugin's other protocols: raw TCP and UDP, off unless they are set, and bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;

use crate::store_heals::{CRAMPED, with_file_size_limit};
use crate::world::{
    Agent, CRITICAL, OK, PATIENCE, Process, TOKEN, World, completed, main_controller, recoverd, settings_text,
};

const RAW: &str = "tcp_listen = \"127.0.0.1:0\"\nudp_listen = \"127.0.0.1:0\"\n";

async fn world() -> World {
    World::with(&format!("{}{RAW}", main_controller())).await
}

/// Sends as the plugin does, and returns when the other end is closed.
async fn send(address: std::net::SocketAddr, bytes: &[u8]) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("it is never closed")
}

/// Waits until the metrics have this line.
async fn counted(world: &World, line: &str) {
    let waiting = async {
        while !world.get("/metrics").await.1.contains(line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(in_time, "{line} is not in\n{}", world.get("/metrics").await.1);
}

#[tokio::test]
async fn a_document_is_the_bytes_of_a_connection_or_a_datagram() {
    let world = world().await;
    let (tcp, udp) = (world.running.addresses.tcp[0], world.running.addresses.udp[0]);
    assert_eq!(send(tcp, completed("acme/web", 1, "FAILURE").to_string().as_bytes()).await.unwrap(), 0);
    world.agent.expect("acme/web", CRITICAL).await;
    let xml = b"<job><url>job/acme/job/web/</url><build><number>2</number><phase>FINALIZED</phase>\
        <status>SUCCESS</status></build></job>";
    send(tcp, xml).await.unwrap();
    world.agent.expect("acme/web", OK).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(completed("nightly", 1, "FAILURE").to_string().as_bytes(), udp).await.unwrap();
    world.agent.expect("nightly", CRITICAL).await;
    for line in [
        r#"recoverd_documents_total{controller="main",sender="notification",protocol="tcp"} 2"#,
        r#"recoverd_documents_total{controller="main",sender="notification",protocol="udp"} 1"#,
        r#"recoverd_webhooks_received_total{controller="main"} 3"#,
        r#"recoverd_webhooks_accepted_total{controller="main",was="finished"} 3"#,
    ] {
        counted(&world, line).await;
    }
    world.finish().await;
}

#[tokio::test]
async fn what_is_refused_is_counted_with_its_reason_and_harms_nobody() {
    let world = world().await;
    let (tcp, udp) = (world.running.addresses.tcp[0], world.running.addresses.udp[0]);
    // A browser that a web page has sent here, nothing at all, and what never says what it is about.
    send(tcp, b"POST /jenkins/main HTTP/1.1\r\nHost: x\r\n\r\n{}").await.unwrap();
    send(tcp, b"").await.unwrap();
    let huge = format!("{{\"parameters\":\"{}", "x".repeat(3_000_000));
    // It may be hung up on before all of it is sent.
    let _ = send(tcp, huge.as_bytes()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"garbage", udp).await.unwrap();
    counted(&world, r#"recoverd_webhooks_refused_total{controller="main",reason="bad_request"} 3"#).await;
    counted(&world, r#"recoverd_webhooks_refused_total{controller="main",reason="too_large"} 1"#).await;
    // A huge log costs nothing here either.
    let document = completed("acme/web", 1, "FAILURE").to_string();
    let huge = format!("{},\"log\":\"{}\"}}}}", &document[..document.len() - 1], "x".repeat(3_000_000));
    send(tcp, huge.as_bytes()).await.unwrap();
    world.agent.expect("acme/web", CRITICAL).await;
    counted(&world, r#"recoverd_webhooks_cut_total{controller="main"} 1"#).await;
    world.finish().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let text = settings_text(directory.path(), &agent.address, &format!("{}{RAW}", main_controller()))
        .replace("[admin]", "max_connections_per_peer = 2\n[admin]");
    let settings = crate::world::load(directory.path(), &text);
    let bound = recoverd::app::Bound::bind(&settings).await.unwrap();
    let clock = recoverd::machinery::clock::Clock::system();
    let running = bound.start(&settings, recoverd::domain::pod::PodIdentity::default(), clock).unwrap();
    let tcp = running.addresses.tcp[0];
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        held.push(stream);
    }
    // Both are accepted before a third comes.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = TcpStream::connect(tcp).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, third.read(&mut [0; 1])).await.expect("it is let in");
    assert!(matches!(ended, Ok(0) | Err(_)));
    drop(held);
    let document = completed("acme/web", 1, "FAILURE").to_string();
    while send(tcp, document.as_bytes()).await.is_err() {}
    agent.expect("acme/web", CRITICAL).await;
    running.end(PATIENCE).await;
}

#[tokio::test]
async fn a_fast_source_of_datagrams_is_slowed_down_and_loses_none_that_were_received() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let text = settings_text(directory.path(), &agent.address, &format!("{}{RAW}", main_controller()))
        .replace("rate_per_second = 100000\nburst = 100000", "rate_per_second = 20\nburst = 5");
    let settings = crate::world::load(directory.path(), &text);
    let bound = recoverd::app::Bound::bind(&settings).await.unwrap();
    let clock = recoverd::machinery::clock::Clock::system();
    let running = bound.start(&settings, recoverd::domain::pod::PodIdentity::default(), clock).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 1..=15 {
        let document = completed("acme/web", number, if number == 15 { "FAILURE" } else { "SUCCESS" }).to_string();
        socket.send_to(document.as_bytes(), running.addresses.udp[0]).await.unwrap();
    }
    agent.expect("acme/web", CRITICAL).await;
    let page = async || {
        let metrics = reqwest::get(format!("http://{}/metrics", running.addresses.admin)).await.unwrap();
        metrics.text().await.unwrap()
    };
    let all = async {
        while !page().await.contains(r#"accepted_total{controller="main",was="finished"} 15"#) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("some were lost");
    let page = page().await;
    let delayed = page.lines().find_map(|line| line.strip_prefix("recoverd_webhooks_delayed_total ")).unwrap();
    assert!(delayed.parse::<u64>().unwrap() >= 5, "{delayed}");
    running.end(PATIENCE).await;
}

#[tokio::test]
async fn a_connection_is_closed_when_its_document_outlives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("{}tcp_listen = \"{tcp}\"\n", main_controller());
    let text = settings_text(directory.path(), &agent.address, &more);
    for number in 1..=5 {
        let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
        let document = completed(&format!("job-{number}"), number, "FAILURE").to_string();
        assert_eq!(send(tcp, document.as_bytes()).await.unwrap(), 0);
        process.child.kill().await.unwrap();
        let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
        let job = format!("http://{}/api/v1/jobs/main/job-{number}", process.admin);
        let answer = reqwest::get(job).await.unwrap();
        assert_eq!(answer.status(), 200, "job-{number} is lost");
        // The next one wants the same port.
        process.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_counted_and_sigterm_lets_a_connection_come_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("{}tcp_listen = \"{tcp}\"\n", main_controller());
    let text = settings_text(directory.path(), &agent.address, &more);
    let mut process = Process::spawn(directory.path(), &text, with_file_size_limit(CRAMPED)).await;
    let refused = r#"recoverd_webhooks_refused_total{controller="main",reason="not_stored"}"#;
    let metrics = format!("http://{}/metrics", process.admin);
    let full = async {
        for number in 1.. {
            let job = format!("{}/{number}", "long".repeat(200));
            send(tcp, completed(&job, 1, "FAILURE").to_string().as_bytes()).await.unwrap();
            if number % 20 == 0 && reqwest::get(&metrics).await.unwrap().text().await.unwrap().contains(refused) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE * 3, full).await.expect("the disk is never full");
    process.child.kill().await.unwrap();

    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let document = completed("acme/web", 1, "FAILURE").to_string();
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream.write_all(&document.as_bytes()[..10]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pid = process.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap().success());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(tcp).await.is_err(), "nothing new is taken");
    stream.write_all(&document.as_bytes()[10..]).await.unwrap();
    stream.shutdown().await.unwrap();
    agent.expect("acme/web", CRITICAL).await;
    let status = tokio::time::timeout(PATIENCE, process.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn nothing_listens_raw_unless_it_is_set_and_a_taken_address_is_named() {
    let world = World::spawn().await;
    let addresses = &world.running.addresses;
    assert!(addresses.tcp.is_empty() && addresses.udp.is_empty());
    let directory = tempfile::tempdir().unwrap();
    let taken = world.running.addresses.admin;
    let more = format!("[[jenkins]]\nname = \"x\"\ntokens = [\"{TOKEN}\"]\ntcp_listen = \"{taken}\"\n");
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &more);
    let error = recoverd::app::Bound::bind(&crate::world::load(directory.path(), &text)).await.unwrap_err();
    assert!(error.to_string().contains("`jenkins.tcp_listen`"), "{error}");
    world.finish().await;
}
