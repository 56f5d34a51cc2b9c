//! Start says so in one line, SIGTERM drains, a second signal aborts, and exit codes are for scripts.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::ingest;
use crate::world::{Agent, CRITICAL, PATIENCE, Process, TOKEN, completed, main_controller, recoverd, settings_text};

async fn signal(process: &Process, name: &str) {
    let pid = process.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
}

/// A request whose body is not all there yet.
async fn half_a_request(process: &Process, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(process.webhooks).await.unwrap();
    let head = format!(
        "POST /jenkins/main HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..10]).await.unwrap();
    // Until the server has the head in its hands.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream
}

#[tokio::test]
async fn sigterm_lets_a_webhook_that_has_begun_come_to_its_end_and_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let text = settings_text(directory.path(), &agent.address, &main_controller());
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let body = completed("acme/web", 1, "FAILURE").to_string();
    let mut stream = half_a_request(&process, &body).await;
    signal(&process, "TERM").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(process.webhooks).await.is_err(), "nothing new is taken");
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    agent.expect("acme/web", CRITICAL).await;
    let status = tokio::time::timeout(PATIENCE, process.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller());
    let mut process = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let _never_finished = half_a_request(&process, &completed("acme/web", 1, "FAILURE").to_string()).await;
    signal(&process, "TERM").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(process.child.try_wait().unwrap().is_none(), "the first signal waits for the request");
    signal(&process, "TERM").await;
    let status = tokio::time::timeout(Duration::from_secs(5), process.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn a_second_recoverd_on_the_same_data_says_so_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller());
    let _first = Process::spawn(directory.path(), &text, Command::new(recoverd())).await;
    let file = directory.path().join("recoverd.toml");
    let second = Command::new(recoverd()).args(["serve", "--config"]).arg(&file).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is in use by another process"), "{said}");
}

#[tokio::test]
async fn a_sidecar_that_does_not_know_its_pod_says_so_at_the_start() {
    let both = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "shop")];
    for (known, enrich, is_told) in
        [(&both[..0], true, true), (&both[..1], true, true), (&both, true, false), (&[], false, false)]
    {
        let directory = tempfile::tempdir().unwrap();
        let relay = ingest::settings("http://127.0.0.1:9/", &format!("enrich = {enrich}"));
        let text = settings_text(directory.path(), "udp://127.0.0.1:9", &relay);
        let mut command = Command::new(recoverd());
        command.env_remove("POD_NAME").env_remove("POD_NAMESPACE").envs(known.iter().copied());
        let process = Process::spawn(directory.path(), &text, command).await;
        let times = process.said.matches("POD_NAME or POD_NAMESPACE is not set").count();
        assert_eq!(times, usize::from(is_told), "{known:?} {enrich} {}", process.said);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_setting() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = Command::new(recoverd())
        .arg("serve")
        .current_dir(directory.path())
        .env("RECOVERD_WEBHOOKS__LISTEN", address.to_string())
        .env("RECOVERD_ADMIN__LISTEN", "127.0.0.1:0")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("webhooks.listen") && said.contains(&address.to_string()), "{said}");
    assert!(said.contains("stop what listens there, perhaps another recoverd, or set another port"), "{said}");
}

#[tokio::test]
async fn a_data_dir_that_may_not_be_written_is_not_taken_for_a_damaged_store() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(recoverd())
        .arg("serve")
        .current_dir(directory.path())
        // Closed to everybody, root included.
        .env("RECOVERD_DATA_DIR", "/sys")
        .env("RECOVERD_WEBHOOKS__LISTEN", "127.0.0.1:0")
        .env("RECOVERD_ADMIN__LISTEN", "127.0.0.1:0")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this user may not write /sys/recoverd.redb: give it that right"), "{said}");
    assert!(!said.contains("damaged"), "{said}");
}

/// The client that sends to the Agent would append the version to every check, and so make new checks of each release.
#[tokio::test]
async fn datadogs_own_version_variable_adds_no_tag_to_a_check() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::udp().await;
    let text = settings_text(directory.path(), &agent.address, &main_controller());
    let mut command = Command::new(recoverd());
    command.env("DD_VERSION", "1.2.3").env("DD_ENV", "prod").env("DD_SERVICE", "ci");
    let process = Process::spawn(directory.path(), &text, command).await;
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{}/jenkins/main", process.webhooks)).bearer_auth(TOKEN);
    request.body(completed("acme/web", 1, "FAILURE").to_string()).send().await.unwrap();
    let check = agent.expect("acme/web", CRITICAL).await;
    assert_eq!(check.tags.len(), 4, "{:?}", check.tags);
}
