//! The commands, as a person or a script runs them.

use std::path::Path;
use std::process::Output;

use clap::CommandFactory as _;
use recoverd::cli::Cli;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::world::{CRITICAL, World, completed, recoverd};

async fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(recoverd());
    command.args(arguments).current_dir(directory).env_remove("RECOVERD_CONFIG").output().await.unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn demo_shows_a_failure_a_held_abort_and_a_recovery_on_another_branch() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["demo", "--exit"]).await;
    let said = out(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", err(&output));
    let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("{words:?} is missing from\n{said}"));
    let failed = at("check  CRITICAL jenkins.job.status  job:acme/web");
    let aborted = at("COMPLETED ABORTED");
    let recovered = at("event  acme/web recovered");
    let duplicate = at("answered 200 duplicate");
    assert!(failed < aborted && aborted < recovered && recovered < duplicate, "{said}");
    assert!(at("starts again") < at("nightly recovered"));
    assert!(at("controller  job") > duplicate, "a table ends it");
    assert!(!said.contains('\u{1b}'), "colour is for terminals");
    // What a build leads to stands below it, and above the next headline.
    let mut scenes = 0;
    for (headline, below) in said.lines().zip(said.lines().skip(1)) {
        if headline.get(2..3) == Some(":") && headline.get(5..7) == Some("  ") {
            scenes += 1;
            assert!(below.starts_with("   Jenkins: "), "{below:?} stands below {headline:?} in\n{said}");
        }
    }
    assert_eq!(scenes, 7, "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

/// A recoverd with a failed job, and the flags that lead the commands to it.
async fn world_with_a_failure() -> (World, String, String) {
    let world = World::spawn().await;
    world.build("acme/web", 1, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    let (admin, webhooks) = (world.admin_url("/"), format!("http://{}/", world.running.addresses.webhooks));
    (world, admin, webhooks)
}

#[tokio::test]
async fn jobs_are_listed_shown_and_forgotten() {
    let (world, admin, _) = world_with_a_failure().await;
    let directory = world.directory.path();
    let list = run(directory, &["jobs", "list", "--admin", &admin]).await;
    assert_eq!(list.status.code(), Some(0), "{}", err(&list));
    assert!(out(&list).contains("main        acme/web  CRITICAL  acme/web #1: FAILURE"), "{}", out(&list));
    let json = run(directory, &["jobs", "list", "--json", "--status", "critical", "--admin", &admin]).await;
    let json: Value = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!(json["jobs"][0]["status"], "critical");
    let none = run(directory, &["jobs", "list", "--json", "--status", "ok", "--admin", &admin]).await;
    assert_eq!(serde_json::from_str::<Value>(&out(&none)).unwrap()["jobs"], Value::Array(Vec::new()));
    let none = run(directory, &["jobs", "list", "--status", "ok", "--admin", &admin]).await;
    assert!(out(&none).starts_with("none of 1 jobs matches"), "{}", out(&none));
    let show = run(directory, &["jobs", "show", "main", "acme/web", "--admin", &admin]).await;
    assert!(out(&show).contains("FAILURE  2026-05-28T20:27:40Z"), "{}", out(&show));
    for line in out(&list).lines().chain(out(&show).lines()) {
        assert_eq!(line, line.trim_end(), "a line ends in blanks");
    }
    let null = run(directory, &["jobs", "show", "main", "none", "--json", "--admin", &admin]).await;
    assert_eq!((null.status.code(), out(&null).as_str()), (Some(1), "null\n"));
    let missing = run(directory, &["jobs", "show", "main", "none", "--admin", &admin]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("there is no job none on main"), "{}", err(&missing));
    let forget = run(directory, &["jobs", "forget", "main", "acme/web", "--admin", &admin]).await;
    assert_eq!(forget.status.code(), Some(0), "{}", err(&forget));
    world.agent.expect("acme/web", 0).await;
    world.finish().await;
}

#[tokio::test]
async fn saved_documents_are_replayed() {
    let (world, _, webhooks) = world_with_a_failure().await;
    let directory = world.directory.path();
    let save = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    save("good.json", completed("acme/web", 2, "SUCCESS").to_string());
    save("again.json", completed("acme/web", 1, "FAILURE").to_string());
    save("bad.json", "no document".to_owned());
    let good = run(directory, &["replay", "--url", &webhooks, "good.json", "again.json"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    assert_eq!(out(&good), "good.json: finished\nagain.json: duplicate\n");
    let bad = run(directory, &["replay", "--url", &webhooks, "--json", "bad.json"]).await;
    assert_eq!(bad.status.code(), Some(1));
    let line: Value = serde_json::from_str(&out(&bad)).unwrap();
    assert_eq!((&line["file"], &line["status"]), (&"bad.json".into(), &400.into()));
    world.agent.expect("acme/web", 0).await;
    // Whoever sent them.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jenkins");
    let names = ["generic-event-run-completed.json", "statistics-gatherer-finalized.json", "step-form.txt"];
    let others = names.map(|name| fixtures.join(name).display().to_string());
    let others =
        run(directory, &[&["replay", "--url", &webhooks], &others.each_ref().map(String::as_str)[..]].concat()).await;
    let results: Vec<String> = out(&others).lines().map(|line| line.rsplit(": ").next().unwrap().to_owned()).collect();
    assert_eq!(results, ["finished", "finished", "duplicate"], "{}", out(&others));
    // One that cannot be read does not keep the others from being posted.
    let absent = run(directory, &["replay", "--url", &webhooks, "absent.json", "good.json"]).await;
    assert_eq!(absent.status.code(), Some(1));
    let said = out(&absent);
    assert!(said.starts_with("absent.json: cannot be read: No such file"), "{said}");
    assert!(said.ends_with("good.json: duplicate\n"), "{said}");
    let nobody = run(directory, &["replay", "--url", &webhooks, "--controller", "nobody", "good.json"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(out(&nobody).contains("this recoverd has no controller nobody"), "{}", out(&nobody));
    world.finish().await;
}

/// From this machine no token is needed, so another one's answer is played.
#[tokio::test]
async fn a_command_that_is_not_let_in_says_whether_it_had_a_token() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}/", listener.local_addr().unwrap());
    let refuse = async || {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("wrong.token"), "not-the-admin-token\n").unwrap();
    let without = ["jobs", "list", "--admin", &admin];
    let (without, ()) = tokio::join!(run(directory.path(), &without), refuse());
    assert!(err(&without).contains("wants an admin token"), "{}", err(&without));
    let wrong = ["jobs", "list", "--admin", &admin, "--token-file", "wrong.token"];
    let (wrong, ()) = tokio::join!(run(directory.path(), &wrong), refuse());
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("does not know this admin token"), "{}", err(&wrong));
}

#[tokio::test]
async fn when_nobody_answers_a_command_says_where_it_asked() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["jobs", "list", "--admin", "http://127.0.0.1:9/"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no recoverd answers at http://127.0.0.1:9/"), "{}", err(&output));
}

#[tokio::test]
async fn a_setting_with_a_typo_is_named_with_its_file_and_the_nearest_key() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("recoverd.toml"), "[webhooks]\nlistn = \"127.0.0.1:1\"\n").unwrap();
    for arguments in [["config", "check"].as_slice(), &["serve"], &["config", "show"]] {
        let output = run(directory.path(), arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = err(&output);
        for words in ["recoverd.toml", "webhooks.listn", "webhooks.listen"] {
            assert!(said.contains(words), "{words} is not in {said}");
        }
    }
}

#[tokio::test]
async fn a_command_line_that_cannot_be_meant_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let two = "[[jenkins]]\nname = \"a\"\nauth = \"none\"\n[[jenkins]]\nname = \"b\"\nauth = \"none\"\n";
    std::fs::write(path.join("recoverd.toml"), two).unwrap();
    std::fs::write(path.join("empty"), "\n").unwrap();
    let table: [(&[&str], &str); 6] = [
        (&["replay", "x.json"], "say which with --controller"),
        (&["replay", "--controller", "a", "--url", "mailto:x", "x.json"], "--url is no address of a webhook listener"),
        (&["replay", "--controller", "a", "--token-file", "absent", "x.json"], "cannot read the token in absent"),
        (&["jobs", "list", "--admin", "mailto:x"], "mailto:x is no address of an admin listener"),
        (&["issues", "list", "--token-file", "absent"], "cannot read the token in absent: No such file"),
        (&["jobs", "list", "--token-file", "empty"], "empty holds no token"),
    ];
    for (arguments, expected) in table {
        let output = run(path, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
    }
}

#[tokio::test]
async fn settings_are_shown_without_their_secrets() {
    let world = World::spawn().await;
    let directory = world.directory.path();
    let show = run(directory, &["config", "show"]).await;
    assert_eq!(show.status.code(), Some(0), "{}", err(&show));
    assert!(out(&show).contains("<redacted>") && !out(&show).contains(crate::world::TOKEN), "{}", out(&show));
    let json = run(directory, &["config", "show", "--json"]).await;
    let json: Value = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!(json["jenkins"][0]["name"], "main");
    let check = run(directory, &["config", "check"]).await;
    assert_eq!((check.status.code(), out(&check).as_str()), (Some(0), "the settings are good\n"));
    world.finish().await;
}

/// All that there are, and those that hold others too.
fn commands() -> Vec<String> {
    fn below(command: &clap::Command, path: &str, into: &mut Vec<String>) {
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            into.push(path.trim_start().to_owned());
            below(inner, &path, into);
        }
    }
    let mut all = Vec::new();
    below(&Cli::command(), "", &mut all);
    assert!(["doctor", "issues", "jobs list"].iter().all(|known| all.iter().any(|one| one == known)), "{all:?}");
    all
}

#[tokio::test]
async fn every_command_explains_itself_with_an_example() {
    let directory = tempfile::tempdir().unwrap();
    for command in commands() {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = run(directory.path(), &words).await;
        assert_eq!(output.status.code(), Some(0));
        let said = out(&output);
        assert!(said.contains("Example: recoverd ") || said.contains("Examples: recoverd "), "{command}: {said}");
    }
    assert_eq!(run(directory.path(), &["no-such-command"]).await.status.code(), Some(2));
}
