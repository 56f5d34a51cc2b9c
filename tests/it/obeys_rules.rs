//! What the operator set for jobs and branches is what Datadog hears; and a job always has one tag set.

use crate::world::{CRITICAL, OK, WARNING, World, completed, main_controller};

/// Tags as the Agent gets them, sorted.
fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort();
    tags
}

#[tokio::test]
async fn a_failure_on_one_branch_and_a_success_on_another_meet_in_one_check() {
    let world = World::spawn().await;
    let mut failed = completed("acme/web/feature%2Flogin", 7, "FAILURE");
    failed["build"]["node_name"] = "linux-1".into();
    world.post(failed.to_string()).await;
    let bad = world.agent.expect("acme/web", CRITICAL).await;
    let mut passed = completed("acme/web/main", 43, "SUCCESS");
    passed["build"]["node_name"] = "windows-3".into();
    world.post(passed.to_string()).await;
    let good = world.agent.expect("acme/web", OK).await;

    let tags = ["controller:main", "dd.internal.card:none", "jenkins_url:https://ci.example.org/", "job:acme/web"];
    assert_eq!(sorted(bad.tags), tags);
    assert_eq!(sorted(good.tags), tags);
    assert_eq!((bad.host.as_deref(), good.host.as_deref()), (Some("main"), Some("main")));
    assert_eq!(bad.message.as_deref(), Some("acme/web #7 on feature/login: FAILURE"));
    world.finish().await;
}

#[tokio::test]
async fn an_aborted_build_holds_and_a_late_duplicate_changes_nothing() {
    let world = World::spawn().await;
    world.build("nightly", 1, "FAILURE").await;
    world.agent.expect("nightly", CRITICAL).await;
    world.build("nightly", 2, "ABORTED").await;
    assert_eq!(world.agent.next_check("nightly").await.status, CRITICAL);
    world.build("nightly", 3, "SUCCESS").await;
    world.agent.expect("nightly", OK).await;
    assert_eq!(world.post(completed("nightly", 1, "FAILURE").to_string()).await.1, "duplicate");
    let mut finalized = completed("nightly", 1, "FAILURE");
    finalized["build"]["phase"] = "FINALIZED".into();
    assert_eq!(world.post(finalized.to_string()).await.1, "duplicate");
    for _ in 0..2 {
        assert_eq!(world.agent.next_check("nightly").await.status, OK, "two rounds later it is still well");
    }
    world.finish().await;
}

#[tokio::test]
async fn the_first_rule_that_matches_sets_branches_mode_results_and_tags() {
    let rules = r#"
multibranch = ["acme/*"]
exclude = ["scratch/**"]
[[jenkins.rules]]
jobs = "acme/web"
branches = ["main", "release/*"]
mode = "worst"
results = { UNSTABLE = "ok", aborted = "warning" }
tags = ["team:web"]
[[jenkins.rules]]
jobs = "acme/*"
tags = ["team:other"]
"#;
    let world = World::with(&format!("{}{rules}", main_controller())).await;

    world.build("acme/web/PR-7", 1, "FAILURE").await;
    world.build("acme/web/main", 2, "UNSTABLE").await;
    let check = world.agent.next_check("acme/web").await;
    assert_eq!(check.status, OK, "a pull request pages nobody, and unstable is well here");
    assert!(check.tags.contains(&"team:web".to_owned()) && !check.tags.contains(&"team:other".to_owned()));
    world.build("acme/web/release%2F1.2", 3, "FAILURE").await;
    world.agent.expect("acme/web", CRITICAL).await;
    world.build("acme/web/main", 4, "SUCCESS").await;
    assert_eq!(world.agent.next_check("acme/web").await.status, CRITICAL, "the worst branch decides");
    world.build("acme/web/release%2F1.2", 5, "ABORTED").await;
    world.agent.expect("acme/web", WARNING).await;

    assert_eq!(world.post(completed("scratch/x", 1, "FAILURE").to_string()).await.1, "filtered");
    world.build("acme/api/main", 1, "FAILURE").await;
    let check = world.agent.expect("acme/api", CRITICAL).await;
    assert!(check.tags.contains(&"team:other".to_owned()));
    let (status, _) = world.get("/api/v1/jobs/main/scratch/x").await;
    assert_eq!(status, 404);
    world.finish().await;
}

#[tokio::test]
async fn a_job_that_turns_out_to_be_a_branch_moves_without_a_false_alert() {
    let world = World::spawn().await;
    // Nothing says yet that `main` is a branch.
    world.build("acme/web/main", 1, "FAILURE").await;
    world.agent.expect("acme/web/main", CRITICAL).await;
    // Its sibling shows it.
    world.build("acme/web/feature%2Fx", 2, "SUCCESS").await;
    let closing = world.agent.expect("acme/web/main", OK).await;
    assert!(closing.message.unwrap().contains("reported as acme/web"));
    world.agent.expect("acme/web", OK).await;
    let (_, list) = world.get("/api/v1/jobs").await;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let jobs: Vec<&str> = list["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    assert!(jobs.contains(&"acme/web"), "{jobs:?}");
    world.finish().await;
}

#[tokio::test]
async fn a_job_that_the_settings_leave_out_is_closed_with_one_ok_and_comes_back_when_they_take_it_in() {
    let world = World::spawn().await;
    world.build("acme/old", 1, "FAILURE").await;
    world.build("other", 1, "SUCCESS").await;
    world.agent.expect("acme/old", CRITICAL).await;

    let usual = world.text().to_owned();
    let without = format!("{usual}exclude = [\"acme/*\"]\n");
    let world = world.restarted_with(without).await;
    let closing = world.agent.expect("acme/old", OK).await;
    assert!(closing.message.unwrap().contains("left out by the configuration"));
    let mut others = 0;
    while others < 3 {
        for datagram in world.agent.next().await {
            if let recoverd::datadog::decode::Datagram::Check(check) = datagram {
                assert!(!check.tags.contains(&"job:acme/old".to_owned()), "one OK, then silence");
                others += 1;
            }
        }
    }
    let world = world.restarted_with(usual).await;
    world.agent.expect("acme/old", CRITICAL).await;
    world.finish().await;
}

#[tokio::test]
async fn a_rule_that_changes_what_a_result_means_tells_so_after_the_restart() {
    let world = World::spawn().await;
    world.build("acme/web", 1, "UNSTABLE").await;
    world.agent.expect("acme/web", WARNING).await;
    let text =
        format!("{}[[jenkins.rules]]\njobs = \"acme/*\"\nresults = {{ UNSTABLE = \"critical\" }}\n", world.text());
    let world = world.restarted_with(text).await;
    world.agent.expect("acme/web", CRITICAL).await;
    let event = world.agent.next_event().await;
    assert_eq!(event.title, "acme/web failed");
    world.finish().await;
}

#[tokio::test]
async fn a_folder_that_was_taken_for_a_project_comes_apart_when_the_settings_name_it() {
    let world = World::spawn().await;
    world.build("deploy/other", 1, "FAILURE").await;
    // Called like the branch that it builds, it looks like a branch of its folder.
    let mut misleading = completed("deploy/main", 2, "SUCCESS");
    misleading["build"]["scm"] = serde_json::json!({ "branch": "origin/main" });
    world.post(misleading.to_string()).await;
    world.agent.expect("deploy", OK).await;
    let text = format!("{}folders = [\"deploy\"]\n", world.text());
    let world = world.restarted_with(text).await;
    let other = world.agent.expect("deploy/other", CRITICAL).await;
    assert_eq!(other.message.as_deref(), Some("deploy/other #1: FAILURE"), "its failure was kept");
    world.agent.expect("deploy/main", OK).await;
    world.finish().await;
}
