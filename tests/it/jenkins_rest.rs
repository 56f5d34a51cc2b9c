//! A controller is asked over its remote access API: everything in it is found, with `tree` queries alone.

use std::collections::BTreeMap;

use recoverd::domain::build::{Created, Outcome, Progress, Timestamp};
use recoverd::domain::job::JobPath;
use recoverd::domain::survey::{Executors, Item, Kind, Load, Nodes, Queue, Survey};
use recoverd::jenkins::document::{self, Extent, Reading};
use recoverd::jenkins::rest::{Credentials, RemoteApi, RestError, RestSettings};

use crate::jenkins_server::{API_TOKEN, Class, JenkinsServer, Phase, USER, Waiting};

pub fn settings(server: &JenkinsServer) -> RestSettings {
    let credentials = Credentials { user: USER.to_owned(), api_token: API_TOKEN.into() };
    RestSettings { credentials: Some(credentials), ..RestSettings::new(server.url().parse().unwrap()) }
}

pub fn api(server: &JenkinsServer) -> RemoteApi {
    RemoteApi::new(settings(server)).unwrap()
}

pub async fn tour(api: &RemoteApi) -> Result<(Vec<Item>, Survey), RestError> {
    let mut tour = api.tour();
    let mut found = Vec::new();
    while let Some(items) = tour.next().await? {
        found.extend(items);
    }
    Ok((found, tour.end()))
}

/// What a tour finds, which must be all, each item once.
async fn all(server: &JenkinsServer) -> BTreeMap<String, Item> {
    let (items, survey) = tour(&api(server)).await.unwrap();
    assert_eq!(survey.gaps, []);
    assert_eq!(survey.items, items.len() as u64);
    assert_eq!(survey.jobs, items.iter().filter(|item| item.kind == Kind::Job).count() as u64);
    let mut by_path = BTreeMap::new();
    for item in items {
        let outer = item.path.split_leaf().map(|(outer, _)| outer);
        assert!(outer.is_none_or(|outer| by_path.contains_key(outer.as_str())), "{} before its folder", item.path);
        assert!(by_path.insert(item.path.to_string(), item.clone()).is_none(), "{} twice", item.path);
    }
    by_path
}

#[tokio::test]
async fn every_kind_of_item_is_found_with_its_last_completed_build() {
    let server = JenkinsServer::spawn().await;
    let created = {
        let mut jenkins = server.jenkins();
        jenkins.create(Class::FreeStyle, "plain");
        jenkins.create(Class::Matrix, "matrix");
        jenkins.create(Class::External, "external");
        jenkins.create(Class::Folder, "empty");
        jenkins.create(Class::ForeignFolder, "catalogue");
        jenkins.create(Class::Pipeline, "catalogue/nightly");
        jenkins.create(Class::OrganizationFolder, "acme");
        jenkins.create_project("acme/web", &["main", "feature/x", "gone", "PR-7"]);
        jenkins.build("plain", "FAILURE");
        jenkins.build("external", "SUCCESS");
        jenkins.build("acme/web/main", "UNSTABLE");
        let lasting = jenkins.begin("plain");
        jenkins.build("plain", "SUCCESS");
        jenkins.begin("plain");
        jenkins.finish("plain", lasting, "ABORTED");
        jenkins.disable("acme/web/PR-7", true);
        jenkins.kill_branch("acme/web/gone");
        jenkins.last_completed("plain").unwrap().created
    };
    let found = all(&server).await;
    let table = [
        ("acme", Kind::Folder, false),
        ("acme/web", Kind::Project, false),
        ("acme/web/PR-7", Kind::Job, true),
        ("acme/web/feature%2Fx", Kind::Job, false),
        ("acme/web/gone", Kind::Job, true),
        ("acme/web/main", Kind::Job, false),
        ("catalogue", Kind::Folder, false),
        ("catalogue/nightly", Kind::Job, false),
        ("empty", Kind::Folder, false),
        ("external", Kind::Job, false),
        ("matrix", Kind::Job, false),
        ("plain", Kind::Job, false),
    ];
    let told: Vec<_> = found.iter().map(|(path, item)| (path.as_str(), item.kind, item.disabled)).collect();
    assert_eq!(told, table);
    // The highest number that has ended, not the last to end.
    let last = found["plain"].last.as_ref().unwrap();
    assert_eq!((last.number, last.progress), (3, Progress::Settled(Outcome::Success)));
    assert_eq!(last.created, Some(Created::exactly(Timestamp::from_millis(created))));
    assert_eq!(last.duration.map(|duration| duration.as_secs()), Some(30));
    assert_eq!((last.job.as_str(), last.node.as_deref()), ("plain", Some("linux-1")));
    assert_eq!(found["acme/web/main"].last.as_ref().unwrap().progress, Progress::Settled(Outcome::Unstable));
    assert_eq!(found["matrix"].last, None);
}

#[tokio::test]
async fn the_newest_builds_and_the_last_decisive_ones_are_told_of_one_job() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        jenkins.create_project("acme/web", &["feature/x"]);
        for result in ["UNSTABLE", "SUCCESS", "FAILURE"] {
            jenkins.build("acme/web/feature%2Fx", result);
        }
        for _ in 0..30 {
            jenkins.build("acme/web/feature%2Fx", "ABORTED");
        }
        jenkins.begin("acme/web/feature%2Fx");
    }
    let builds = api(&server).builds(&JobPath::parse("acme/web/feature%2Fx").unwrap()).await.unwrap();
    let numbers: Vec<_> = builds.iter().map(|build| build.number).collect();
    assert_eq!(numbers, (15..=34).rev().chain([3, 2, 1]).collect::<Vec<_>>());
    assert_eq!((builds[0].progress, builds[0].duration), (Progress::Running, None));
    assert_eq!(builds[1].progress, Progress::Settled(Outcome::Aborted));
    assert_eq!(builds[20].progress, Progress::Settled(Outcome::Failure));
    let decisive = server.jenkins().last_decisive("acme/web/feature%2Fx").unwrap().number;
    assert_eq!(builds[20].number, decisive, "however many aborted ones came after it");
}

#[tokio::test]
async fn the_load_counts_what_waits_and_what_runs() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        jenkins.queue = vec![Waiting::Blocked, Waiting::Stuck, Waiting::Pending, Waiting::Quiet, Waiting::Buildable];
        jenkins.agents.insert("windows-1".to_owned(), false);
        jenkins.create(Class::Pipeline, "deploy");
        jenkins.begin("deploy");
    }
    let expected = Load {
        queue: Queue { size: 5, buildable: 2, pending: 1, stuck: 1, blocked: 1 },
        executors: Executors { count: 4, free: 3, in_use: 1 },
        nodes: Nodes { count: 3, online: 2, offline: 1 },
        building: 1,
    };
    assert_eq!(api(&server).load().await.unwrap(), expected);
}

#[tokio::test]
async fn a_build_is_the_same_whether_a_webhook_or_the_api_tells_it() {
    let server = JenkinsServer::spawn().await;
    server.jenkins().create_project("acme/web", &["feature/x"]);
    server.jenkins().create(Class::FreeStyle, "über build");
    for (job, results) in [("acme/web/feature%2Fx", ["SUCCESS", "FAILURE"]), ("über build", ["UNSTABLE", "ABORTED"])] {
        for result in results {
            server.jenkins().build(job, result);
        }
        let told = api(&server).builds(&JobPath::parse(job).unwrap()).await.unwrap();
        assert_eq!(told.first().map(|told| told.number), server.jenkins().last_build(job).map(|build| build.number));
        for told in told {
            let documents = server.jenkins().documents(job, told.number);
            let completed = server.jenkins().document(job, told.number, Phase::Completed);
            assert!(documents.contains(&completed));
            for document in documents {
                let read = document::read(document.to_string().as_bytes(), Extent::Whole);
                let Reading::Report(sent) = read.unwrap().reading else { panic!("{document}") };
                assert_eq!((&sent.job, sent.number), (&told.job, told.number));
                let created = told.created.unwrap();
                assert!(sent.created.unwrap().agrees_with(created), "{document}: {sent:?} {created:?}");
                if document == completed {
                    assert_eq!((sent.created, sent.duration), (told.created, told.duration));
                    assert_eq!(sent.progress.outcome(), told.progress.outcome());
                }
            }
        }
    }
}

#[tokio::test]
async fn a_job_that_was_moved_or_made_anew_is_shown_as_it_is_now() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        jenkins.create(Class::FreeStyle, "old/job");
        jenkins.create(Class::FreeStyle, "again");
        for job in ["old/job", "again", "again"] {
            jenkins.build(job, "FAILURE");
        }
        jenkins.rename("old/job", "new/name");
        jenkins.reset_numbers("again");
        jenkins.build("again", "SUCCESS");
    }
    let found = all(&server).await;
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), ["again", "new", "new/name", "old"]);
    assert_eq!(found["new/name"].last.as_ref().unwrap().number, 1);
    let again = found["again"].last.as_ref().unwrap();
    assert_eq!((again.number, again.progress), (1, Progress::Settled(Outcome::Success)));
}

#[tokio::test]
async fn a_large_controller_is_asked_page_by_page_and_for_no_more_than_is_needed() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        for job in 0..1_000 {
            jenkins.create(Class::FreeStyle, &format!("job-{job}"));
        }
        for project in 0..80 {
            let branches: Vec<String> = (0..40).map(|branch| format!("feature/{branch}")).collect();
            let branches: Vec<&str> = branches.iter().map(String::as_str).collect();
            jenkins.create_project(&format!("acme/project-{project}"), &branches);
        }
        let branches: Vec<String> = (0..500).map(|branch| format!("b{branch}")).collect();
        let branches: Vec<&str> = branches.iter().map(String::as_str).collect();
        jenkins.create_project("acme/monorepo", &branches);
        for job in jenkins.jobs() {
            jenkins.build(&job, "SUCCESS");
        }
    }
    let found = all(&server).await;
    assert_eq!(found.values().filter(|item| item.kind == Kind::Job).count(), 1_000 + 80 * 40 + 500);
    let requests = server.take_requests();
    assert!(requests.iter().all(|request| request.contains("?tree=jobs[")), "{requests:?}");
    // Nobody asks for each folder by itself.
    assert!(requests.len() < 40, "{}", requests.len());
    let each = server.answered_bytes() / found.len();
    assert!(each < 500, "{each} bytes for each item");

    let api = api(&server);
    let mut tour = api.tour();
    let mut largest = 0;
    while let Some(items) = tour.next().await.unwrap() {
        largest = largest.max(items.len());
    }
    assert!(largest <= 5_000, "{largest} items at once");
}
