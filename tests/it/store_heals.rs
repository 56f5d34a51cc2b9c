//! A store that cannot write gives no 2xx, says why, and mends itself when it can.

use std::time::Duration;

use tokio::process::Command;

use crate::world::{PATIENCE, Process, TOKEN, completed, main_controller, recoverd, settings_text};

/// Blocks into which an empty database fits, 2,064 of them, but not the next size that it grows to.
pub const CRAMPED: u64 = 2_560;

/// `serve` in a shell that lets no file grow beyond `blocks` of 512 bytes: a full disk, as the store sees it.
pub fn with_file_size_limit(blocks: u64) -> Command {
    let mut command = Command::new("sh");
    // Without the trap the kernel would kill the process instead of failing its write.
    let script = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(recoverd());
    command
}

/// Reports the first build of a job of its own, and returns the answer's status.
pub async fn post(client: &reqwest::Client, process: &Process, number: u64) -> u16 {
    // Long names, so that the file has to grow soon.
    let job = format!("{}/{number}", "long".repeat(200));
    let request = client.post(format!("http://{}/jenkins/main", process.webhooks)).bearer_auth(TOKEN);
    let body = completed(&job, 1, "FAILURE").to_string();
    request.body(body).send().await.unwrap().status().as_u16()
}

async fn readyz(client: &reqwest::Client, process: &Process) -> (u16, String) {
    let response = client.get(format!("http://{}/readyz", process.admin)).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_full_disk_refuses_webhooks_until_there_is_room_and_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let text = settings_text(directory.path(), "udp://127.0.0.1:9", &main_controller());
    let process = Process::spawn(directory.path(), &text, with_file_size_limit(CRAMPED)).await;
    let client = reqwest::Client::new();

    let mut acknowledged = 0;
    let refused = loop {
        match post(&client, &process, acknowledged + 1).await {
            200 => acknowledged += 1,
            refused => break refused,
        }
        assert!(acknowledged < 50_000, "the limit never told");
    };
    assert_eq!(refused, 503);
    let (status, lines) = readyz(&client, &process).await;
    assert_eq!(status, 503);
    assert!(lines.contains("store: cannot write to"), "{lines}");
    assert!(lines.contains("free space"), "it says what to do: {lines}");

    let pid = process.child.id().unwrap();
    let lifted = Command::new("prlimit").args(["--pid", &pid.to_string(), "--fsize=unlimited:unlimited"]).status();
    assert!(lifted.await.unwrap().success());
    let mended = async {
        while readyz(&client, &process).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, mended).await.expect("the store did not mend itself");
    assert_eq!(post(&client, &process, acknowledged + 1).await, 200);

    let mut jobs = 0;
    let mut after: Option<String> = None;
    loop {
        let mut url = reqwest::Url::parse(&format!("http://{}/api/v1/jobs?limit=1000", process.admin)).unwrap();
        if let Some(after) = &after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let page: serde_json::Value = client.get(url).send().await.unwrap().json().await.unwrap();
        jobs += page["jobs"].as_array().unwrap().len() as u64;
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(jobs, acknowledged + 1);
}
