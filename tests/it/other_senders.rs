//! Whoever else tells of builds is understood at the same address, and what several tell of one build counts once.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use recoverd::datadog::decode::Datagram;
use recoverd::domain::build::Timestamp;
use recoverd::jenkins::step;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{CREATED, CRITICAL, OK, TOKEN, World, completed};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jenkins").join(name)
}

/// An event of the Generic Event plugin for build `number` of a job, by the names of its path.
fn run(job: &str, kind: &str, number: u64, result: &str, multibranch: Option<bool>) -> Value {
    let mut source = String::new();
    for name in job.split('/') {
        source.extend(["job/", &name.replace('%', "%25"), "/"]);
    }
    let mut event = json!({
        "data": { "number": number, "result": result, "timestamp": created(number), "duration": 30_000 },
        "source": source,
        "type": kind,
    });
    if let Some(multibranch) = multibranch {
        event["data"]["_multiBranch"] = multibranch.into();
    }
    event
}

/// As of [`completed`].
fn created(number: u64) -> i64 {
    CREATED + i64::try_from(number).unwrap() * 60_000
}

/// An item event, of a minute after the creation of build `after`.
fn item(kind: &str, name: &str, after: u64) -> Value {
    let at = Timestamp::from_millis(created(after) + 59_000);
    let time = chrono::DateTime::from_timestamp_millis(at.as_millis()).unwrap();
    json!({ "data": { "fullName": name }, "time": time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string(), "type": kind })
}

async fn event(world: &World, event: Value) -> (u16, String) {
    world.post(event.to_string()).await
}

/// What is known of each job that is not closed.
async fn open_jobs(world: &World) -> Vec<(String, String)> {
    let (_, list) = world.get("/api/v1/jobs").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let text = |job: &Value, key: &str| job[key].as_str().unwrap_or("none").to_owned();
    let open = list["jobs"].as_array().unwrap().iter().filter(|job| job["closed"].is_null());
    open.map(|job| (text(job, "job"), text(job, "status"))).collect()
}

fn jobs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(job, status)| ((*job).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn every_sender_is_understood_at_the_one_address_and_counted() {
    let world = World::spawn().await;
    let table = [
        ("full.json", "finished", "notification"),
        ("cloudevents-completed.json", "finished", "cloudevents"),
        ("cloudevents-structured-finalized.json", "duplicate", "cloudevents"),
        ("generic-event-run-started.json", "started", "generic_event"),
        ("generic-event-run-completed.json", "finished", "generic_event"),
        ("generic-event-freestyle-finalized.json", "finished", "generic_event"),
        ("generic-event-matrix-axis-completed.json", "ignored", "generic_event"),
        ("generic-event-item-created.json", "ignored", "generic_event"),
        ("statistics-gatherer-started.json", "duplicate", "statistics_gatherer"),
        ("statistics-gatherer-finalized.json", "duplicate", "statistics_gatherer"),
        ("statistics-gatherer-queue-left.json", "ignored", "statistics_gatherer"),
        ("outbound-webhook-unstable.json", "finished", "outbound_webhook"),
        ("step.json", "finished", "step"),
        ("step-form.txt", "duplicate", "step"),
        ("generic-event-item-deleted.json", "closed", "generic_event"),
        ("statistics-gatherer-job-deleted.json", "closed", "statistics_gatherer"),
        ("generic-event-item-location-changed.json", "closed", "generic_event"),
        ("generic-event-item-location-changed.json", "ignored", "generic_event"),
    ];
    let mut of_each = std::collections::BTreeMap::new();
    for (name, was, sender) in table {
        let body = std::fs::read(fixture(name)).unwrap();
        assert_eq!(world.post(body).await, (200, was.to_owned()), "{name}");
        *of_each.entry(sender).or_insert(0) += 1;
    }
    let (_, metrics) = world.get("/metrics").await;
    for (sender, count) in of_each {
        let line =
            format!(r#"recoverd_documents_total{{controller="main",sender="{sender}",protocol="http"}} {count}"#);
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_huge_document_of_another_sender_counts_too_if_its_beginning_says_what_it_is() {
    let world = World::spawn().await;
    let huge = "x".repeat(2 * 1024 * 1024);
    let gatherer =
        format!(r#"{{"fullJobName":"a","number":1,"result":"FAILURE","buildUrl":"job/a/1/","parameters":"{huge}"}}"#);
    assert_eq!(world.post(gatherer).await, (202, "finished".to_owned()));
    let step = format!(r#"{{"job":"b","number":1,"result":"FAILURE","x":"{huge}"}}"#);
    assert_eq!(world.post(step).await, (202, "finished".to_owned()));
    let wrapped = completed("c", 1, "FAILURE").to_string();
    let wrapped = format!(r#"{{"specversion":"1.0","data":{},"log":"{huge}"}}}}}}"#, &wrapped[..wrapped.len() - 2]);
    assert_eq!(world.post(wrapped).await.0, 413, "its phase and status come behind the log");
    // What a generic event is about stands at its end.
    let mut generic = run("d", "run.completed", 1, "FAILURE", None);
    generic["data"]["actions"] = huge.into();
    assert_eq!(event(&world, generic).await.0, 413);
    world.finish().await;
}

#[tokio::test]
async fn a_build_that_several_tell_of_counts_once() {
    let world = World::spawn().await;
    // The Notification plugin, Generic Event, a step of the Pipeline, all of each build.
    for (number, result) in [(1, "SUCCESS"), (2, "FAILURE")] {
        event(&world, run("acme/web", "run.initialize", number, "", None)).await;
        event(&world, run("acme/web", "run.started", number, "", None)).await;
        let step = json!({ "job": "acme/web", "number": number, "result": result, "timestamp": created(number),
            "duration": 29_000 });
        assert_eq!(event(&world, step).await.1, "finished");
        for document in [completed("acme/web", number, result), run("acme/web", "run.completed", number, result, None)]
        {
            assert_eq!(event(&world, document).await.1, "duplicate");
        }
        let mut finalized = completed("acme/web", number, result);
        finalized["build"]["phase"] = "FINALIZED".into();
        assert_eq!(event(&world, finalized).await.1, "duplicate");
    }
    world.build("other", 1, "SUCCESS").await;
    let (mut started, mut completed, mut events) = (0, 0, 0);
    'all: loop {
        for datagram in world.agent.next().await {
            match datagram {
                Datagram::Metric(metric) if metric.tags.contains(&"job:other".to_owned()) => break 'all,
                Datagram::Metric(metric) if metric.name == "jenkins.job.started" => started += 1,
                Datagram::Metric(metric) if metric.name == "jenkins.job.completed" => completed += 1,
                Datagram::Event(_) => events += 1,
                _ => {}
            }
        }
    }
    assert_eq!((started, completed, events), (2, 2, 1));
    world.finish().await;
}

#[tokio::test]
async fn the_node_that_one_sender_knows_is_on_what_another_tells() {
    let world = World::spawn().await;
    let started = json!({ "fullJobName": "acme/web", "number": 1, "result": "INPROGRESS", "buildUrl": "job/acme/job/web/1/",
        "startTime": created(1), "slaveInfo": { "slaveName": "linux 7" } });
    assert_eq!(event(&world, started).await.1, "started");
    // It outlives a restart, however long the build runs.
    let world = world.restarted().await;
    world.build("acme/web", 1, "FAILURE").await;
    let failed = world.agent.next_event().await;
    assert!(failed.tags.contains(&"node:linux_7".to_owned()), "{:?}", failed.tags);
    let completed = world.agent.next_metric("jenkins.job.completed").await;
    assert!(completed.tags.contains(&"node:linux_7".to_owned()), "{:?}", completed.tags);
    let check = world.agent.next_check("acme/web").await;
    assert!(!check.tags.iter().any(|tag| tag.starts_with("node")), "never on a check: {:?}", check.tags);
    let (_, web) = world.get("/api/v1/jobs/main/acme/web").await;
    assert!(web.contains(r#""node":"linux 7""#), "{web}");
    world.finish().await;
}

#[tokio::test]
async fn what_a_sender_knows_of_branches_overrides_what_a_name_looks_like_both_ways() {
    let world = World::spawn().await;
    // A folder whose jobs are called like pull requests: the Notification plugin's documents make a project of it.
    world.build("reviews/PR-7", 1, "FAILURE").await;
    world.agent.expect("reviews", CRITICAL).await;
    world.build("reviews/PR-8", 2, "SUCCESS").await;
    world.agent.expect("reviews", OK).await;
    // The Generic Event plugin knows better: it comes apart, and the failure is back.
    event(&world, run("reviews/PR-8", "run.completed", 2, "SUCCESS", Some(false))).await;
    world.agent.expect("reviews/PR-7", CRITICAL).await;
    assert_eq!(open_jobs(&world).await, jobs(&[("reviews/PR-7", "critical"), ("reviews/PR-8", "ok")]));
    // What looks like a branch does not change that.
    world.build("reviews/PR-9", 3, "SUCCESS").await;
    assert_eq!(open_jobs(&world).await.len(), 3);

    // And a project whose branches look like nothing.
    world.build("acme/web/trunk", 4, "FAILURE").await;
    world.agent.expect("acme/web/trunk", CRITICAL).await;
    event(&world, run("acme/web/next", "run.started", 5, "", Some(true))).await;
    let closing = world.agent.expect("acme/web/trunk", OK).await;
    assert!(closing.message.unwrap().contains("reported as acme/web"));
    world.agent.expect("acme/web", CRITICAL).await;
    // A restart remembers both.
    let world = world.restarted().await;
    world.build("reviews/PR-7", 6, "SUCCESS").await;
    world.build("acme/web/trunk", 7, "SUCCESS").await;
    let expected = [("acme/web", "ok"), ("reviews/PR-7", "ok"), ("reviews/PR-8", "ok"), ("reviews/PR-9", "ok")];
    assert_eq!(open_jobs(&world).await, jobs(&expected));
    world.finish().await;
}

#[tokio::test]
async fn a_deleted_job_is_closed_with_one_ok_that_says_so() {
    let world = World::spawn().await;
    world.build("acme/web", 1, "FAILURE").await;
    world.build("acme/website", 1, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    assert_eq!(event(&world, item("item.deleted", "acme/web", 1)).await, (200, "closed".to_owned()));
    let closing = world.agent.expect("acme/web", OK).await;
    assert_eq!(closing.message.as_deref(), Some("acme/web: no longer watched, deleted in Jenkins"));
    assert_eq!(event(&world, item("item.deleted", "acme/web", 1)).await.1, "ignored", "once is enough");
    assert_eq!(event(&world, item("item.deleted", "never/heard/of", 1)).await.1, "ignored");
    assert_eq!(open_jobs(&world).await, jobs(&[("acme/website", "critical")]), "its name only begins alike");
    // Another job of that name.
    let mut anew = completed("acme/web", 1, "FAILURE");
    anew["build"]["timestamp"] = (created(60) + 30_000).into();
    event(&world, anew).await;
    world.agent.expect("acme/web", CRITICAL).await;
    // The end of the one before comes once more, late.
    assert_eq!(event(&world, item("item.deleted", "acme/web", 1)).await.1, "ignored");
    assert!(open_jobs(&world).await.contains(&("acme/web".to_owned(), "critical".to_owned())));
    world.finish().await;
}

#[tokio::test]
async fn a_deleted_branch_leaves_its_project_and_a_deleted_folder_takes_all_with_it() {
    let world = World::spawn().await;
    world.build("acme/web/PR-6", 1, "SUCCESS").await;
    world.build("acme/web/PR-7", 2, "FAILURE").await;
    world.build("acme/tools/deep/nightly", 3, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    assert_eq!(event(&world, item("item.deleted", "acme/web/PR-7", 2)).await.1, "closed");
    let recovered = world.agent.expect("acme/web", OK).await;
    assert_eq!(recovered.message.as_deref(), Some("acme/web #1 on PR-6: SUCCESS"));
    assert_eq!(event(&world, item("item.deleted", "acme/web/PR-7", 2)).await.1, "ignored");
    let (_, web) = world.get("/api/v1/jobs/main/acme/web").await;
    assert!(!web.contains("PR-7"), "{web}");

    world.agent.expect("acme/tools/deep/nightly", CRITICAL).await;
    assert_eq!(event(&world, item("item.deleted", "acme", 3)).await.1, "closed");
    world.agent.expect("acme/tools/deep/nightly", OK).await;
    assert_eq!(open_jobs(&world).await, []);
    world.finish().await;
}

#[tokio::test]
async fn a_branch_built_since_an_event_of_its_end_stays() {
    let world = World::spawn().await;
    world.build("acme/web/PR-7", 1, "SUCCESS").await;
    world.build("acme/web/PR-7", 9, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    for gone in ["acme/web/PR-7", "acme/web", "acme"] {
        assert_eq!(event(&world, item("item.deleted", gone, 5)).await.1, "ignored", "{gone}");
    }
    assert_eq!(open_jobs(&world).await, jobs(&[("acme/web", "critical")]));
    world.finish().await;
}

#[tokio::test]
async fn what_was_in_a_renamed_folder_is_closed_and_goes_on_under_its_new_name() {
    let world = World::spawn().await;
    world.build("acme/web/PR-7", 1, "FAILURE").await;
    world.build("acme/nightly", 1, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    let moved = |from: &str, to: &str| {
        let mut event = item("item.locationChanged", to, 1);
        event["metaData"] = json!({ "oldName": from, "newName": to });
        event
    };
    assert_eq!(event(&world, moved("acme", "team/acme")).await.1, "closed");
    world.agent.expect("acme/nightly", OK).await;
    let closing = world.agent.expect("acme/web", OK).await;
    assert_eq!(closing.message.as_deref(), Some("acme/web: no longer watched, renamed in Jenkins, now team/acme/web"));
    // Each item that lies in the folder has an event of its own.
    for name in ["web", "web/PR-7", "nightly"] {
        let event = event(&world, moved(&format!("acme/{name}"), &format!("team/acme/{name}"))).await;
        assert_eq!(event.1, "ignored", "{name}");
    }
    let expected = jobs(&[("team/acme/nightly", "critical"), ("team/acme/web", "critical")]);
    assert_eq!(open_jobs(&world).await, expected, "their builds went along");
    // What held branches holds them under the new name too, whatever they are called.
    world.build("team/acme/web/trunk", 2, "SUCCESS").await;
    world.agent.expect("team/acme/web", OK).await;
    world.finish().await;
}

/// The code between two lines of README, without what indents it.
fn snippet(begin: &str, end: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(begin).unwrap_or_else(|| panic!("{begin} is not in README"));
    rest.split_once(end).unwrap().0.to_owned()
}

#[tokio::test]
async fn the_shell_of_readme_tells_a_build_and_hides_the_token() {
    let world = World::spawn().await;
    let directory = tempfile::tempdir().unwrap();
    if Command::new("curl").arg("--version").output().await.is_err() {
        println!("skipped: there is no curl");
        return;
    }
    // Notes what the list of processes would show, then is curl.
    let spy = "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$SPIED\"\nPATH=$USUAL_PATH\nexec curl \"$@\"\n";
    let (curl, spied) = (directory.path().join("curl"), directory.path().join("arguments"));
    std::fs::write(&curl, spy).unwrap();
    std::fs::set_permissions(&curl, Permissions::from_mode(0o755)).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the child's own begins with it")]
    let path = std::env::var("PATH").unwrap();
    let script = snippet("sh '''", "'''");
    let tell = async |job: &str, branch: &str, result: &str, url: String| {
        let mut shell = Command::new("sh");
        // As Jenkins runs it.
        shell.arg("-xe").arg("-c").arg(&script).env_clear();
        shell.env("PATH", format!("{}:{path}", directory.path().display())).env("USUAL_PATH", &path);
        shell.env("SPIED", &spied).env("TOKEN", TOKEN).env("ADDRESS", url);
        shell.env("JOB_NAME", job).env("BUILD_NUMBER", "7").env("BUILD_URL", "https://ci.example.org/job/x/7/");
        shell.env("RESULT", result).env("CREATED", created(7).to_string()).env("DURATION", "30000");
        shell.env("BRANCH_NAME", branch).env("NODE_NAME", "linux & 7");
        shell.output().await.unwrap()
    };
    let job = r#"acme/"web" & 100%/feature%2Fx"#;
    let told = tell(job, "feature/x", "FAILURE", world.webhook_url("main")).await;
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.success() && told.stdout.is_empty(), "{said}");
    assert_eq!(open_jobs(&world).await, jobs(&[(r#"acme/"web" & 100%"#, "critical")]), "as one of its branches");
    let arguments = std::fs::read_to_string(&spied).unwrap();
    assert!(arguments.contains("job=acme/"), "{arguments}");
    assert!(!arguments.contains(TOKEN) && !said.contains(TOKEN), "{said}\n{arguments}");
    // The Notification plugin tells of the same build.
    assert_eq!(world.post(completed(job, 7, "FAILURE").to_string()).await.1, "duplicate");

    // Nobody there: the build goes on, and its log says so.
    let told = tell(job, "", "SUCCESS", "http://127.0.0.1:9/jenkins/main".to_owned()).await;
    let out = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success() && out.contains("recoverd was not told"), "{out}");
    world.finish().await;
}

/// The names that stand before a colon, or behind `--data-urlencode`.
fn fields_in(code: &str, is_field: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let words = code.split(|c: char| c.is_whitespace() || c == '"' || c == '[');
    words.filter_map(|word| is_field(word).map(str::to_owned)).collect()
}

#[test]
fn readme_names_the_fields_of_a_step_and_its_snippets_use_no_other() {
    let table = snippet("<!-- step -->", "<!-- /step -->");
    let named: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(named, step::FIELDS);
    let groovy = fields_in(&snippet("JsonOutput.toJson([", "])"), |word| word.strip_suffix(':'));
    assert_eq!(groovy, step::FIELDS);
    let shell = fields_in(&snippet("sh '''", "'''"), |word| Some(word.split_once("=$")?.0));
    assert!(shell.len() > 5 && shell.iter().all(|field| step::FIELDS.contains(&field.as_str())), "{shell:?}");
}
