//! What webhooks missed is mended, what is gone is closed, and what sends no webhook is known all the same: each status
//! ends as Jenkins itself shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::registry::Registry;
use recoverd::domain::build::Timestamp;
use recoverd::domain::record::{Closed, JobRecord};
use recoverd::domain::rules::{ControllerRules, Mode, Policy, Rulebook};
use recoverd::domain::silence::{Cause, Silence};
use recoverd::domain::status::Status::{Critical, Ok, Warning};
use recoverd::domain::survey::{Item, Kind};
use recoverd::jenkins::document::{self, Extent, Reading};
use recoverd::machinery::clock::Clock;
use recoverd::machinery::health::Health;
use recoverd::store::{Entry, Look, Sighting, Store, StoreMetrics};

use crate::jenkins_server::{Class, Fault, JenkinsServer, Phase, Waiting};
use crate::stage::{Stage, key};
use crate::world::{CREATED, CRITICAL, OK, PATIENCE, World, completed, main_controller, recoverd};

#[tokio::test]
async fn without_any_webhook_the_whole_tree_is_right_after_the_first_look() {
    let mut stage = Stage::spawn().await;
    {
        let mut jenkins = stage.jenkins();
        jenkins.create(Class::FreeStyle, "nightly");
        jenkins.create(Class::Matrix, "matrix");
        jenkins.create(Class::External, "external");
        jenkins.create(Class::Pipeline, "a/b/c/d/e/f/deep");
        jenkins.create(Class::Pipeline, "deploy/main");
        jenkins.create(Class::Pipeline, "deploy/new");
        jenkins.create(Class::OrganizationFolder, "acme");
        jenkins.create_project("acme/web", &["main", "feature/x", "gone"]);
        jenkins.create_project("acme/api", &["main"]);
        jenkins.create(Class::FreeStyle, "off");
        jenkins.build("nightly", "FAILURE");
        jenkins.build("nightly", "ABORTED");
        jenkins.build("nightly", "NOT_BUILT");
        jenkins.begin("nightly");
        jenkins.build("matrix", "UNSTABLE");
        jenkins.build("external", "SUCCESS");
        jenkins.build("a/b/c/d/e/f/deep", "SUCCESS");
        jenkins.build("deploy/main", "FAILURE");
        jenkins.build("acme/web/feature%2Fx", "FAILURE");
        jenkins.build("acme/web/main", "SUCCESS");
        jenkins.build("acme/web/gone", "FAILURE");
        jenkins.kill_branch("acme/web/gone");
        jenkins.build("acme/api/main", "ABORTED");
        jenkins.build("off", "FAILURE");
        jenkins.disable("off", true);
    }
    assert!(stage.look().await, "{:?}", stage.trouble());
    let expected = [
        ("a/b/c/d/e/f/deep", (Ok, 1)),
        ("acme/web", (Ok, 1)),
        ("deploy/main", (Critical, 1)),
        ("external", (Ok, 1)),
        ("matrix", (Warning, 1)),
        ("nightly", (Critical, 1)),
    ];
    let expected: BTreeMap<String, _> = expected.map(|(job, status)| (job.to_owned(), status)).into();
    assert_eq!(stage.statuses(), expected);
    for job in ["deploy/new", "acme/api"] {
        assert!(stage.watched().contains(&job.to_owned()), "{job} is known although nothing has decided yet");
    }
    assert_eq!(stage.entry("off"), None, "nobody waits for a job that is disabled");
    assert_eq!(stage.trouble(), None);
    let heard = stage.heard().await;
    assert_eq!(heard.checks.len(), expected.len(), "{:?}", heard.checks);
    for (job, (status, _)) in &expected {
        assert_eq!(heard.checks[job], [*status as u8], "{job}");
    }
}

#[tokio::test]
async fn what_was_so_before_anybody_looked_is_a_status_and_no_news() {
    let mut stage = Stage::spawn().await;
    {
        let mut jenkins = stage.jenkins();
        jenkins.create(Class::FreeStyle, "old");
        jenkins.create(Class::FreeStyle, "young");
        jenkins.build("old", "FAILURE");
        jenkins.now += 90 * 24 * 3_600_000;
        jenkins.build("young", "FAILURE");
    }
    assert!(stage.look().await);
    let heard = stage.heard().await;
    assert_eq!((&*heard.checks["old"], &*heard.checks["young"]), (&[CRITICAL][..], &[CRITICAL][..]));
    let events: Vec<&str> = heard.events.iter().map(|event| event.title.as_str()).collect();
    assert_eq!(events, ["young failed"]);
    let counted: Vec<(&str, bool)> = heard
        .metrics
        .iter()
        .filter(|metric| metric.name.starts_with("jenkins.job.") && metric.name != "jenkins.job.currently_building")
        .map(|metric| (metric.name.as_str(), metric.tags.contains(&"job:young".to_owned())))
        .collect();
    let of_young = ["started", "completed", "duration", "feedbacktime"];
    assert_eq!(counted, of_young.map(|name| (format!("jenkins.job.{name}").leak() as &str, true)));
}

#[tokio::test]
async fn a_build_whose_webhook_was_lost_is_told_by_the_next_look_and_counted_once() {
    let mut stage = Stage::spawn().await;
    stage.jenkins().create(Class::FreeStyle, "acme/web");
    stage.jenkins().build("acme/web", "FAILURE");
    stage.post_all("acme/web", 1).await;
    assert!(stage.look().await);
    stage.jenkins().build("acme/web", "SUCCESS");
    assert!(stage.look().await);
    // It was only late.
    stage.post_all("acme/web", 2).await;
    stage.look_twice().await;
    assert_eq!(stage.statuses()["acme/web"], (Ok, 2));
    assert!(stage.metrics().contains("recoverd_builds_repaired_total{controller=\"main\"} 1\n"));
    let heard = stage.heard().await;
    let events: Vec<&str> = heard.events.iter().map(|event| event.title.as_str()).collect();
    assert_eq!(events, ["acme/web failed", "acme/web recovered"]);
    let completed = heard.metrics.iter().filter(|metric| metric.name == "jenkins.job.completed").count();
    assert_eq!(completed, 2);
}

#[tokio::test]
async fn a_result_that_jenkins_shows_outranks_a_webhook_that_said_otherwise() {
    let mut stage = Stage::spawn().await;
    stage.jenkins().create(Class::FreeStyle, "acme/web");
    stage.jenkins().build("acme/web", "SUCCESS");
    let mut wrong = stage.jenkins().document("acme/web", 1, Phase::Finalized);
    wrong["build"]["status"] = "FAILURE".into();
    stage.post(&wrong).await;
    assert_eq!(stage.statuses()["acme/web"], (Critical, 1));
    assert!(stage.look().await);
    stage.post(&wrong).await;
    assert_eq!(stage.statuses()["acme/web"], (Ok, 1));
}

#[tokio::test]
async fn an_older_build_that_ends_behind_an_aborted_one_decides_when_it_ends() {
    let mut stage = Stage::spawn().await;
    stage.jenkins().create(Class::Pipeline, "acme/web");
    stage.jenkins().build("acme/web", "SUCCESS");
    let slow = stage.jenkins().begin("acme/web");
    stage.jenkins().build("acme/web", "ABORTED");
    assert!(stage.look().await);
    assert_eq!(stage.statuses()["acme/web"], (Ok, 1));
    stage.jenkins().finish("acme/web", slow, "FAILURE");
    assert!(stage.look().await);
    assert_eq!(stage.statuses()["acme/web"], (Critical, 2));
}

#[tokio::test]
async fn what_is_unchanged_is_looked_at_without_a_write() {
    let mut stage = Stage::spawn().await;
    for job in 0..50 {
        let mut jenkins = stage.jenkins();
        jenkins.create(Class::FreeStyle, &format!("job-{job}"));
        jenkins.build(&format!("job-{job}"), ["SUCCESS", "ABORTED"][job % 2]);
    }
    assert!(stage.look().await);
    drop(stage.heard().await);
    let commits = |stage: &Stage| {
        let page = stage.metrics();
        page.lines().find(|line| line.starts_with("recoverd_store_commits_total")).unwrap().to_owned()
    };
    let before = commits(&stage);
    stage.server.take_requests();
    stage.look_twice().await;
    assert_eq!(commits(&stage), before);
    let asked_for_builds = |request: &String| request.contains("/job/job-");
    assert!(!stage.server.take_requests().iter().any(asked_for_builds), "nor are aborted jobs asked again");
}

#[tokio::test]
async fn a_job_that_is_gone_is_closed_by_the_second_look_with_one_ok() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "gone", "off", "old-name", "folder/moved"] {
        let mut jenkins = stage.jenkins();
        jenkins.create(Class::FreeStyle, job);
        // Numbers differ, or two of them could be taken for one.
        jenkins.build(job, "FAILURE");
    }
    stage.look_twice().await;
    {
        let mut jenkins = stage.jenkins();
        jenkins.delete("gone");
        jenkins.disable("off", true);
        jenkins.rename("old-name", "new-name");
        jenkins.rename("folder/moved", "elsewhere/moved");
    }
    assert!(stage.look().await);
    assert!(stage.watched().contains(&"gone".to_owned()), "one look may have been mistaken");
    assert!(stage.look().await);
    let path = |job| key(job).job;
    let table = [
        ("gone", Some(Closed::Deleted), "gone: no longer watched, deleted in Jenkins"),
        ("off", Some(Closed::Disabled), "off: no longer watched, disabled in Jenkins"),
        (
            "old-name",
            Some(Closed::Renamed(path("new-name"))),
            "old-name: no longer watched, renamed in Jenkins, now new-name",
        ),
        (
            "folder/moved",
            Some(Closed::Renamed(path("elsewhere/moved"))),
            "folder/moved: no longer watched, renamed in Jenkins, now elsewhere/moved",
        ),
        ("a", None, "a #1: FAILURE"),
        ("new-name", None, "new-name #1: FAILURE"),
    ];
    for (job, closed, _) in &table {
        assert_eq!(stage.closed(job), *closed, "{job}");
    }
    stage.look_twice().await;
    let heard = stage.heard().await;
    for (job, closed, message) in table {
        assert_eq!(heard.messages[job], message, "{job}");
        let expected: &[u8] = if closed.is_some() { &[CRITICAL, OK] } else { &[CRITICAL] };
        assert_eq!(heard.checks[job], expected, "{job}");
    }
    let page = stage.metrics();
    for line in [
        r#"recoverd_jobs_closed_total{controller="main",reason="deleted"} 1"#,
        r#"recoverd_jobs_closed_total{controller="main",reason="disabled"} 1"#,
        r#"recoverd_jobs_closed_total{controller="main",reason="renamed"} 2"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn a_job_that_is_enabled_or_seen_again_reopens_with_its_status() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "off", "hidden"] {
        stage.jenkins().create(Class::FreeStyle, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    stage.jenkins().disable("off", true);
    stage.jenkins().hidden.insert("hidden".to_owned());
    stage.look_twice().await;
    assert_eq!(stage.statuses().len(), 2);
    stage.jenkins().disable("off", false);
    stage.jenkins().hidden.clear();
    assert!(stage.look().await);
    assert_eq!(stage.statuses().len(), 4);
    let heard = stage.heard().await;
    for job in ["off", "hidden"] {
        assert_eq!(heard.checks[job], [CRITICAL, OK, CRITICAL], "{job}");
    }
    let failed = heard.events.iter().filter(|event| event.title.ends_with(" failed")).count();
    assert_eq!(failed, 4, "it did not fail a second time: {:?}", heard.events);
}

#[tokio::test]
async fn a_renamed_job_keeps_what_decided_before_its_aborted_builds() {
    let mut stage = Stage::spawn().await;
    stage.jenkins().create(Class::FreeStyle, "a");
    stage.jenkins().create(Class::FreeStyle, "b");
    stage.jenkins().build("a", "FAILURE");
    for _ in 0..30 {
        stage.jenkins().build("a", "ABORTED");
    }
    stage.jenkins().build("b", "SUCCESS");
    stage.look_twice().await;
    stage.jenkins().rename("a", "c");
    // Builds before the last are not told any more.
    stage.server.fault_at("job/c/", Fault::Status(404));
    assert!(stage.look().await);
    assert_eq!(stage.statuses().get("c"), None);
    assert!(stage.look().await);
    assert_eq!(stage.statuses()["c"], (Critical, 1));
}

#[tokio::test]
async fn a_late_document_does_not_bring_a_deleted_job_back_for_good() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "gone"] {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    let known = stage.jenkins().document("gone", 1, Phase::Finalized);
    stage.jenkins().build("gone", "FAILURE");
    let unknown = stage.jenkins().document("gone", 2, Phase::Finalized);
    stage.jenkins().delete("gone");
    stage.look_twice().await;
    assert_eq!(stage.closed("gone"), Some(Closed::Deleted));
    stage.post(&known).await;
    assert_eq!(stage.closed("gone"), Some(Closed::Deleted), "that build is remembered");
    stage.post(&unknown).await;
    assert_eq!(stage.closed("gone"), None);
    stage.look_twice().await;
    assert_eq!(stage.closed("gone"), Some(Closed::Deleted));
    assert_eq!(stage.heard().await.checks["gone"], [CRITICAL, OK, CRITICAL, OK]);
}

#[tokio::test]
async fn what_an_operator_forgot_stays_so_until_its_next_build() {
    let mut stage = Stage::spawn().await;
    stage.jenkins().create(Class::Pipeline, "a");
    stage.jenkins().build("a", "FAILURE");
    assert!(stage.look().await);
    assert!(stage.store.close(key("a"), Closed::Forgotten).await.unwrap());
    drop(stage.heard().await);
    assert!(!stage.store.close(key("a"), Closed::Forgotten).await.unwrap(), "there is none any more");
    stage.look_twice().await;
    // Nor does a start bring it back, which looks at everything anew.
    stage.forget_what_was_shown();
    stage.clock.advance(JobRecord::REMEMBERED * 2);
    stage.store.review(vec![key("a")]).await.unwrap();
    stage.look_twice().await;
    assert_eq!(stage.closed("a"), Some(Closed::Forgotten));
    stage.jenkins().build("a", "FAILURE");
    assert!(stage.look().await);
    assert_eq!(stage.statuses()["a"], (Critical, 2));
}

#[tokio::test]
async fn what_has_ended_is_remembered_for_a_day_and_then_no_more() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "gone"] {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    stage.jenkins().delete("gone");
    stage.look_twice().await;
    drop(stage.heard().await);
    for (hours, is_there) in [(0, true), (23, true), (1, false)] {
        stage.clock.advance(Duration::from_hours(hours));
        stage.store.review(vec![key("gone")]).await.unwrap();
        assert_eq!(stage.entry("gone").is_some(), is_there, "{hours} h later");
    }
}

#[tokio::test]
async fn what_closes_a_job_while_jenkins_is_asked_stands() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b"] {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    // Jenkins says of itself that a job is deleted, while a list is on its way that still has it.
    stage.forget_what_was_shown();
    stage.server.fault(Fault::Slow(Duration::from_millis(300)));
    let store = stage.store.clone();
    let deleted = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        store.close(key("a"), Closed::Deleted).await.unwrap();
    };
    let (looked, ()) = tokio::join!(stage.look(), deleted);
    assert!(looked);
    assert_eq!(stage.closed("a"), Some(Closed::Deleted));
    // It was a mistake: Jenkins goes on to show it.
    stage.server.heal();
    stage.look_twice().await;
    assert_eq!(stage.statuses()["a"], (Critical, 1));
}

#[tokio::test]
async fn builds_that_jenkins_does_not_have_decide_nothing_any_longer() {
    let mut stage = Stage::spawn().await;
    for job in ["reset", "deleted", "forged"] {
        stage.jenkins().create(Class::Pipeline, job);
    }
    stage.jenkins().build("reset", "FAILURE");
    stage.jenkins().build("deleted", "SUCCESS");
    stage.jenkins().build("deleted", "FAILURE");
    stage.jenkins().build("forged", "SUCCESS");
    let mut forged = stage.jenkins().document("forged", 1, Phase::Completed);
    forged["build"]["number"] = 999_999.into();
    forged["build"]["status"] = "FAILURE".into();
    forged["build"]["timestamp"] = (forged["build"]["timestamp"].as_i64().unwrap() + 60_000).into();
    stage.post(&forged).await;
    stage.look_twice().await;
    stage.jenkins().reset_numbers("reset");
    stage.jenkins().item_mut("deleted").builds.pop();
    stage.look_twice().await;
    let expected = [("deleted", (Ok, 1)), ("forged", (Ok, 1))];
    assert_eq!(stage.statuses(), expected.map(|(job, status)| (job.to_owned(), status)).into());
    let heard = stage.heard().await;
    assert_eq!(heard.checks["reset"], [CRITICAL, OK]);
    assert_eq!(heard.messages["reset"], "reset: no build decides any more");
}

#[tokio::test]
async fn the_branches_that_are_gone_have_no_say_in_their_project() {
    let mut rules = ControllerRules::default();
    rules.add_rule("**", Policy { mode: Mode::Worst, ..Policy::default() }).unwrap();
    let mut stage = Stage::with(rules).await;
    stage.jenkins().create_project("acme/web", &["main", "PR-7", "PR-8"]);
    stage.jenkins().create_project("acme/one", &["only"]);
    for (branch, result) in [("main", "SUCCESS"), ("PR-7", "FAILURE"), ("PR-8", "UNSTABLE")] {
        stage.jenkins().build(&format!("acme/web/{branch}"), result);
    }
    stage.jenkins().build("acme/one/only", "FAILURE");
    stage.look_twice().await;
    assert_eq!(stage.statuses()["acme/web"].0, Critical);
    stage.jenkins().delete("acme/web/PR-7");
    stage.jenkins().kill_branch("acme/one/only");
    stage.look_twice().await;
    assert_eq!(stage.statuses()["acme/web"].0, Warning);
    stage.jenkins().kill_branch("acme/web/PR-8");
    stage.look_twice().await;
    assert_eq!(stage.statuses(), [("acme/web".to_owned(), (Ok, 1))].into());
    let heard = stage.heard().await;
    assert_eq!(heard.checks["acme/web"], [2, 1, 0]);
    assert_eq!(heard.checks["acme/one"], [CRITICAL, OK], "nothing decisive is left: one OK");
}

#[tokio::test]
async fn what_jenkins_says_of_a_parent_outranks_what_its_childrens_webhooks_looked_like() {
    let mut stage = Stage::spawn().await;
    {
        let mut jenkins = stage.jenkins();
        // A folder in which one job is called like the branch that it builds.
        jenkins.create(Class::Pipeline, "deploy/main");
        jenkins.create(Class::Pipeline, "deploy/other");
        // A project whose branches do not look like it.
        jenkins.create(Class::MultiBranch, "acme/web");
        jenkins.create(Class::FreeStyle, "acme/web/a");
        jenkins.create(Class::FreeStyle, "acme/web/b");
        jenkins.build("deploy/other", "FAILURE");
        jenkins.build("deploy/main", "SUCCESS");
        jenkins.build("acme/web/a", "FAILURE");
        jenkins.build("acme/web/b", "SUCCESS");
    }
    for job in ["deploy/other", "deploy/main", "acme/web/a", "acme/web/b"] {
        let completed = stage.jenkins().document(job, 1, Phase::Completed);
        stage.post(&completed).await;
    }
    let inferred = ["acme/web/a", "acme/web/b", "deploy"];
    assert_eq!(stage.statuses().into_keys().collect::<Vec<_>>(), inferred);
    assert!(stage.look().await);
    let expected = [("acme/web", (Ok, 1)), ("deploy/main", (Ok, 1)), ("deploy/other", (Critical, 1))];
    assert_eq!(stage.statuses(), expected.map(|(job, status)| (job.to_owned(), status)).into());
    // What looks like a branch again changes nothing any more.
    stage.jenkins().build("deploy/main", "SUCCESS");
    stage.post_all("deploy/main", 2).await;
    stage.look_twice().await;
    assert_eq!(stage.statuses()["deploy/main"], (Ok, 2));
    let heard = stage.heard().await;
    let told = [
        ("deploy", &[CRITICAL, OK, OK][..]),
        ("acme/web/a", &[CRITICAL, OK]),
        ("acme/web/b", &[OK, OK]),
        ("acme/web", &[OK]),
        ("deploy/other", &[CRITICAL]),
    ];
    for (job, told) in told {
        let mut checks = heard.checks[job].clone();
        // The news of each build repeats the status.
        if job != "deploy" && job != "acme/web/b" {
            checks.dedup();
        }
        assert_eq!(checks, told, "{job}");
    }
    let alerts: Vec<&str> =
        heard.events.iter().map(|event| event.title.as_str()).filter(|title| title.ends_with("failed")).collect();
    assert_eq!(alerts, ["deploy failed", "acme/web/a failed"], "nothing failed when it moved");
}

#[tokio::test]
async fn a_jenkins_that_shows_too_little_closes_nothing_and_is_named() {
    let mut stage = Stage::spawn().await;
    let jobs: Vec<String> = (0..6).map(|job| format!("acme/job-{job}")).collect();
    for job in &jobs {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    let before = stage.statuses();
    let deep = format!("{}{}", r#"{"_class":"x.Folder","name":"a","jobs":["#.repeat(10_000), "]}".repeat(10_000));
    let elsewhere = r#"{"jobs":[{"_class":"x.Folder","name":"a","fullName":"b","jobs":[]}]}"#.to_owned();
    let table: Vec<(Option<Fault>, &str)> = vec![
        (Some(Fault::Status(401)), "401, user or token is wrong"),
        (Some(Fault::Status(403)), "403, this user may not see it"),
        (Some(Fault::Status(404)), "404, there is nothing"),
        (Some(Fault::Status(503)), "answered 503"),
        (Some(Fault::LoginPage), "a page instead of JSON, probably a login"),
        (Some(Fault::Redirect("https://elsewhere.example/".into())), "leads to https://elsewhere.example"),
        (Some(Fault::Truncated), "the answer is cut off"),
        (Some(Fault::Bomb(17 * 1024 * 1024)), "over 16777216 bytes"),
        (Some(Fault::Body("{}".into())), "the answer lacks"),
        (Some(Fault::Body(r#"{"jobs":[]}"#.into())), "it shows 0 of the 6 jobs that are known, so none is closed"),
        (Some(Fault::Body(format!("{{\"jobs\":[{deep}]}}"))), "cannot be seen into"),
        (Some(Fault::Body(elsewhere)), "says that it belongs elsewhere"),
        (None, "it shows 2 of the 6 jobs that are known, so none is closed: grant the user Job/Read"),
    ];
    for (fault, named) in table {
        match fault.clone() {
            Some(fault) => stage.server.fault(fault),
            None => stage.jenkins().hidden.extend(jobs[..4].iter().cloned()),
        }
        for _ in 0..3 {
            stage.look().await;
        }
        let trouble = stage.trouble().unwrap_or_else(|| panic!("{fault:?} is not named"));
        assert!(trouble.contains(named), "{fault:?}: {trouble}");
        assert_eq!(stage.statuses(), before, "{fault:?}");
        stage.server.heal();
        stage.jenkins().hidden.clear();
        assert!(stage.look().await, "it heals by itself");
        assert_eq!(stage.trouble(), None, "{fault:?}");
        assert!(stage.health.is_ready());
    }
    assert_eq!(stage.statuses(), before);
    let heard = stage.heard().await;
    assert!(heard.checks.values().all(|checks| *checks == [CRITICAL]), "{:?}", heard.checks);
}

#[tokio::test]
async fn a_part_that_cannot_be_seen_into_keeps_its_jobs_and_the_others_are_closed() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "c", "d", "locked/x/y/z/job", "locked/x/y/z/also"] {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    stage.server.fault_at("job/locked/job/x/job/y", Fault::Status(403));
    stage.jenkins().delete("a");
    stage.look_twice().await;
    assert_eq!(stage.closed("a"), Some(Closed::Deleted));
    assert_eq!(stage.closed("locked/x/y/z/job"), None);
    let trouble = stage.trouble().unwrap();
    assert!(trouble.contains("1 of its folders cannot be seen into"), "{trouble}");
}

#[tokio::test]
async fn a_job_that_is_built_and_not_shown_is_closed_once_and_never_again() {
    let mut stage = Stage::spawn().await;
    for job in ["a", "b", "secret"] {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
        stage.post_all(job, 1).await;
    }
    stage.jenkins().hidden.insert("secret".to_owned());
    stage.look_twice().await;
    assert_eq!(stage.closed("secret"), Some(Closed::Deleted));
    let number = stage.jenkins().build("secret", "FAILURE");
    stage.post_all("secret", number).await;
    stage.look_twice().await;
    stage.look_twice().await;
    assert_eq!(stage.statuses()["secret"], (Critical, 2), "its webhooks show that it is there");
    let trouble = stage.trouble().unwrap();
    assert!(trouble.contains("does not show 1 jobs that are built, secret for one"), "{trouble}");
    // Once it is shown and then gone, it is gone.
    stage.jenkins().hidden.clear();
    assert!(stage.look().await);
    assert_eq!(stage.trouble(), None);
    stage.jenkins().delete("secret");
    stage.look_twice().await;
    assert_eq!(stage.closed("secret"), Some(Closed::Deleted));
}

#[tokio::test]
async fn a_clock_a_day_off_is_named_and_breaks_no_status() {
    const DAY: i64 = 24 * 3_600_000;
    for off in [-DAY, DAY] {
        let mut stage = Stage::spawn().await;
        stage.jenkins().now += 2 * DAY;
        stage.tick();
        stage.jenkins().now += off;
        for job in ["a", "b"] {
            stage.jenkins().create(Class::Pipeline, job);
        }
        // The clock runs on, a day off.
        let ours = |stage: &Stage| stage.clock.advance(Duration::from_mins(2));
        for (result, expected) in [("SUCCESS", Ok), ("FAILURE", Critical), ("ABORTED", Critical), ("SUCCESS", Ok)] {
            let number = stage.jenkins().build("a", result);
            let documents = stage.jenkins().documents("a", number);
            ours(&stage);
            assert!(stage.look_with_clocks_apart().await);
            for document in documents {
                stage.post_with_clocks_apart(&document).await;
            }
            assert!(stage.look_with_clocks_apart().await);
            assert_eq!(stage.statuses()["a"].0, expected, "{off} {result}");
        }
        let trouble = stage.trouble().unwrap();
        let which = if off > 0 { "min ahead of" } else { "min behind" };
        assert!(trouble.contains(which), "{trouble}");
        let heard = stage.heard().await;
        let completed = heard.metrics.iter().filter(|metric| metric.name == "jenkins.job.completed").count();
        assert_eq!(completed, 4, "each build is counted, and once");
    }
}

#[tokio::test]
async fn a_controller_tells_how_busy_it_is_at_the_names_of_datadogs_plugin() {
    let mut stage = Stage::spawn().await;
    {
        let mut jenkins = stage.jenkins();
        jenkins.create_project("acme/web", &["main", "x"]);
        jenkins.create(Class::FreeStyle, "nightly");
        jenkins.begin("nightly");
        jenkins.agents.insert("linux-2".to_owned(), false);
        jenkins.queue = vec![Waiting::Blocked, Waiting::Buildable, Waiting::Stuck, Waiting::Pending, Waiting::Quiet];
    }
    assert!(stage.look().await);
    let metrics = stage.heard().await.metrics.clone();
    let told: BTreeMap<&str, f64> = metrics.iter().map(|metric| (metric.name.as_str(), metric.values[0])).collect();
    let expected = [
        ("jenkins.executor.count", 4.0),
        ("jenkins.executor.free", 3.0),
        ("jenkins.executor.in_use", 1.0),
        ("jenkins.job.currently_building", 1.0),
        ("jenkins.node.count", 3.0),
        ("jenkins.node.offline", 1.0),
        ("jenkins.node.online", 2.0),
        ("jenkins.project.count", 3.0),
        ("jenkins.queue.blocked", 1.0),
        ("jenkins.queue.buildable", 2.0),
        ("jenkins.queue.pending", 1.0),
        ("jenkins.queue.size", 5.0),
        ("jenkins.queue.stuck", 1.0),
    ];
    assert_eq!(told, expected.into());
    let url = format!("jenkins_url:{}", stage.server.url());
    for metric in &metrics {
        assert_eq!(metric.metric_type, "g");
        assert!(metric.tags.contains(&url) && metric.tags.contains(&"controller:main".to_owned()), "{metric:?}");
    }
    stage.server.fault_at("queue/", Fault::Status(403));
    assert!(stage.look().await, "its jobs are followed all the same");
    assert!(stage.trouble().unwrap().contains("its queue and nodes cannot be read"));
}

#[tokio::test]
async fn a_shrunken_list_is_believed_after_a_day_and_an_empty_one_never() {
    let mut stage = Stage::spawn().await;
    let jobs: Vec<String> = (0..6).map(|job| format!("job-{job}")).collect();
    for job in &jobs {
        stage.jenkins().create(Class::Pipeline, job);
        stage.jenkins().build(job, "FAILURE");
    }
    stage.look_twice().await;
    for (shown, left) in [(0, 6), (2, 2)] {
        stage.jenkins().hidden = jobs[shown..].iter().cloned().collect();
        stage.look_twice().await;
        assert_eq!(stage.statuses().len(), 6, "{shown} shown");
        assert!(stage.metrics().contains(&format!("recoverd_jobs_missing{{controller=\"main\"}} {}\n", 6 - shown)));
        tokio::time::pause();
        tokio::time::advance(Duration::from_hours(24)).await;
        tokio::time::resume();
        stage.look_twice().await;
        assert_eq!(stage.statuses().len(), left, "{shown} shown for a day");
        stage.jenkins().hidden.clear();
        assert!(stage.look().await);
    }
}

#[tokio::test]
async fn a_job_whose_webhooks_do_not_come_is_silent_until_one_does() {
    let mut stage = Stage::spawn().await;
    for job in ["spoken", "never", "stopped", "first"] {
        stage.jenkins().create(Class::FreeStyle, job);
    }
    for job in ["never", "stopped"] {
        stage.jenkins().build(job, "SUCCESS");
    }
    assert!(stage.look().await);
    let silent = |stage: &Stage| {
        let entries = stage.store.page(None, 100).unwrap();
        let now = stage.clock.now();
        let cause = |entry: &Entry| Some((entry.key.job.to_string(), Silence::of(&entry.record, now)?.cause));
        entries.iter().filter_map(cause).collect::<BTreeMap<_, _>>()
    };
    let later = Duration::from_hours(1);
    stage.clock.advance(later);
    assert_eq!(silent(&stage), BTreeMap::new(), "where no webhook comes at all, none is missed");
    stage.jenkins().now += 3_600_000;
    stage.post_all("stopped", 1).await;
    for job in ["spoken", "never", "stopped", "first"] {
        stage.jenkins().build(job, "SUCCESS");
    }
    stage.post_all("spoken", 1).await;
    assert!(stage.look().await);
    assert_eq!(silent(&stage), BTreeMap::new(), "they may be on their way");
    stage.clock.advance(later);
    let expected = [("first", Cause::FirstBuild), ("never", Cause::NoEndpoint), ("stopped", Cause::Stopped)];
    assert_eq!(silent(&stage), expected.map(|(job, cause)| (job.to_owned(), cause)).into());
    stage.jenkins().now += 3_600_000;
    // It comes again with the next build of one, and too late from another.
    stage.jenkins().build("stopped", "SUCCESS");
    stage.post_all("stopped", 3).await;
    stage.post_all("never", 2).await;
    stage.look_twice().await;
    stage.clock.advance(later);
    assert_eq!(silent(&stage).into_keys().collect::<Vec<_>>(), ["first"]);
}

/// All of recoverd, with a Jenkins that fails, heals, and is away at the next start.
#[tokio::test]
async fn a_jenkins_in_trouble_shows_in_readyz_and_leaves_the_rest_alone() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        jenkins.create(Class::Pipeline, "deploy/main");
        jenkins.create_project("acme/web", &["main"]);
        jenkins.build("acme/web/main", "FAILURE");
    }
    let world = World::with(&server.settings("main")).await;
    world.agent.expect("acme/web", CRITICAL).await;
    server.fault(Fault::LoginPage);
    let (status, lines) = readyz(&world, "probably a login").await;
    assert_eq!(status, 200, "webhooks are taken all the same");
    assert!(lines.contains("\nstore: ok\n"), "{lines}");
    // What Jenkins said of its folders holds although it says nothing now, and after a start.
    let world = world.restarted().await;
    readyz(&world, "probably a login").await;
    server.jenkins().build("deploy/main", "FAILURE");
    let looks_like_a_branch = server.jenkins().document("deploy/main", 1, Phase::Completed);
    assert_eq!(world.post(looks_like_a_branch.to_string()).await.0, 200);
    world.agent.expect("deploy/main", CRITICAL).await;
    server.jenkins().build("deploy/main", "SUCCESS");
    server.heal();
    world.agent.expect("deploy/main", OK).await;
    readyz(&world, "jenkins main: ok").await;
    world.finish().await;
}

/// Waits until `/readyz` says this.
async fn readyz(world: &World, words: &str) -> (u16, String) {
    let said = async {
        loop {
            let answer = world.get("/readyz").await;
            if answer.1.contains(words) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("/readyz never said {words}"))
}

#[tokio::test]
async fn silent_jobs_are_listed_with_what_is_probably_wrong() {
    let directory = tempfile::tempdir().unwrap();
    remember_a_silent_job(&directory.path().join("data")).await;
    let world = World::on(directory, &main_controller()).await;
    let admin = world.admin_url("/");
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(recoverd());
        let output = command.args(["jobs", "list", "--admin", &admin]).args(arguments).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let list = run(&["--silent"]).await;
    let row = "main        acme/web  #8     2026-05-28T20:35:10Z  earlier webhooks came: save its endpoint anew";
    assert!(list.contains(row), "{list}");
    assert!(!list.contains("spoken"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--silent", "--json"]).await).unwrap();
    assert_eq!(json["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(json["jobs"][0]["silent"]["cause"], "stopped");
    assert_eq!(json["jobs"][0]["silent"]["number"], 8);
    let counted = async {
        while !world.get("/metrics").await.1.contains("recoverd_jobs_silent 1\n") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("one job is silent");
    world.build("acme/web", 9, "SUCCESS").await;
    assert_eq!(run(&["--silent"]).await, "none of 2 jobs is silent\n");
    world.finish().await;
}

/// A store in which one job's webhooks came once, and then no more.
async fn remember_a_silent_job(data: &std::path::Path) {
    let mut rulebook = Rulebook::default();
    rulebook.add(key("x").controller, ControllerRules::default());
    let clock = Clock::manual(Timestamp::from_millis(CREATED + 450_000));
    let metrics = StoreMetrics::register(&mut Registry::default());
    let health = Health::default().required("store");
    let (store, mut news) = Store::open(data, rulebook.into(), clock.clone(), health, metrics).unwrap();
    for (job, number) in [("acme/web", 7), ("spoken", 8)] {
        let document = completed(job, number, "SUCCESS").to_string();
        let Reading::Report(report) = document::read(document.as_bytes(), Extent::Whole).unwrap().reading else {
            panic!("not a build: {document}");
        };
        store.take(key("x").controller, report).await.unwrap();
    }
    clock.advance(Duration::from_mins(1));
    let now = clock.now();
    let look = Look { controller: key("x").controller, asked: now, clock: now, fresh: Duration::ZERO };
    let document = completed("acme/web", 8, "SUCCESS").to_string();
    let Reading::Report(shown) = document::read(document.as_bytes(), Extent::Whole).unwrap().reading else {
        panic!("not a build: {document}");
    };
    let path = key("acme/web").job;
    let item = Item { path, kind: Kind::Job, disabled: false, last: Some((*shown).clone()), hides_last: false };
    store.sight(look, vec![Sighting { item, builds: vec![*shown], decisive: None }]).await.unwrap();
    drop(store);
    while news.recv().await.is_some() {}
}
