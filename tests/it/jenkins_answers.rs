//! Whatever answers in Jenkins' place is survived, and told apart by what is to be done about it.

use std::time::Duration;

use recoverd::domain::survey::{Gap, GapReason, Kind};
use recoverd::jenkins::rest::{Credentials, Fault as Wrong, RemoteApi, RestSettings};
use tokio::net::TcpListener;

use crate::jenkins_rest::{api, settings, tour};
use crate::jenkins_server::{API_TOKEN, Class, Fault, JenkinsServer, USER};

fn gap(folder: &str, because: GapReason) -> Gap {
    Gap { folder: recoverd::domain::job::JobPath::parse(folder).ok(), because }
}

#[tokio::test]
async fn each_fault_of_an_answer_is_told_with_its_remedy_and_without_a_secret() {
    let server = JenkinsServer::spawn().await;
    server.jenkins().create_project("acme/web", &["main"]);
    let table = [
        (Fault::LoginPage, "page", false, "probably a login"),
        (Fault::Status(401), "unauthorized", false, "set `user` and `api_token`"),
        (Fault::Status(403), "forbidden", false, "grant it Overall/Read"),
        (Fault::Status(404), "not_found", false, "with its context path"),
        (Fault::Status(400), "status", false, "answered 400"),
        (Fault::Status(429), "status", true, "answered 429"),
        (Fault::Status(500), "status", true, "wait if Jenkins is starting"),
        (Fault::Status(503), "status", true, "answered 503"),
        (Fault::Truncated, "syntax", true, "look for a proxy that cuts or changes it"),
        (Fault::Cut, "broken", true, "look for a proxy that cuts it"),
        (Fault::Bomb(200 * 1024 * 1024), "too_large", false, "over 16777216 bytes"),
        (Fault::FalseGzip, "compression", true, "look for a proxy that changes it"),
        (
            Fault::Redirect("https://elsewhere.example/login?from=x".into()),
            "redirect",
            false,
            "https://elsewhere.example,",
        ),
        (Fault::Redirect("//elsewhere.example/".into()), "redirect", false, "http://elsewhere.example,"),
        (Fault::Redirect("\u{1}".into()), "redirect", false, "leads to nowhere"),
        (Fault::Body("{}".into()), "foreign", false, "the answer lacks `jobs`"),
        (Fault::Body("[]".into()), "foreign", false, "check that `url` is Jenkins"),
        (Fault::Body("{\"jobs\":[}".into()), "syntax", true, "line 1, column 10"),
        (Fault::Body("jobs".into()), "syntax", true, "line 1, column 1"),
    ];
    for (fault, reason, retryable, remedy) in table {
        let shown = format!("{fault:?}");
        server.fault(fault);
        let error = tour(&api(&server)).await.unwrap_err();
        assert_eq!((error.fault.reason(), error.fault.is_retryable()), (reason, retryable), "{shown}: {error}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("{}api/json: ", server.url())) && said.contains(remedy), "{shown}: {said}");
        for text in [said, format!("{error:?}")] {
            assert!(!text.contains(API_TOKEN) && !text.contains("tree="), "{shown}: {text}");
        }
    }
    server.heal();
    assert_eq!(tour(&api(&server)).await.unwrap().0.len(), 3, "and then all is well again");
}

#[tokio::test]
async fn credentials_are_never_taken_to_another_origin_but_along_within_it() {
    let (server, stranger) = (JenkinsServer::spawn().await, JenkinsServer::spawn().await);
    server.jenkins().create(Class::FreeStyle, "plain");
    server.fault(Fault::Redirect(format!("{}api/json?tree=jobs", stranger.url())));
    let error = tour(&api(&server)).await.unwrap_err();
    let to = format!("http://{}", stranger.address);
    assert_eq!(error.fault, Wrong::Redirect { to });
    assert_eq!(stranger.take_requests(), [""; 0], "it must not even be asked");

    // A front end that sends to the real context path.
    let mut moved = settings(&server);
    moved.url = format!("http://{}/old/", server.address).parse().unwrap();
    server.heal();
    server.redirect_old_context_path();
    let (items, _) = tour(&RemoteApi::new(moved).unwrap()).await.unwrap();
    assert_eq!(items.len(), 1);

    server.fault(Fault::Redirect(format!("{}api/json", server.url())));
    let error = tour(&api(&server)).await.unwrap_err();
    assert!(matches!(error.fault, Wrong::Redirect { .. }), "in circles: {error}");
    assert!(server.take_requests().len() < 20);
}

#[tokio::test]
async fn who_we_are_and_may_see_is_told_apart() {
    let server = JenkinsServer::spawn().await;
    let introduced = api(&server).introduce().await.unwrap();
    assert_eq!((introduced.user.as_str(), introduced.is_anonymous), (USER, false));
    assert_eq!(introduced.version.as_deref(), Some("2.541.1"));
    assert!(introduced.clock.is_some());

    let mut nobody = settings(&server);
    nobody.credentials = None;
    let nobody = RemoteApi::new(nobody).unwrap();
    assert!(nobody.introduce().await.unwrap().is_anonymous);
    let error = tour(&nobody).await.unwrap_err();
    assert_eq!(error.fault, Wrong::Forbidden { permission: Some("Overall/Read".to_owned()) });
    server.jenkins().anonymous_may_read = true;
    assert!(tour(&nobody).await.is_ok());

    let mut wrong = settings(&server);
    wrong.credentials = Some(Credentials { user: USER.to_owned(), api_token: "11not-it".into() });
    let wrong = RemoteApi::new(wrong).unwrap();
    assert_eq!(tour(&wrong).await.unwrap_err().fault, Wrong::Unauthorized);
    assert_eq!(wrong.introduce().await.unwrap_err().fault, Wrong::Unauthorized);

    server.jenkins().locked_out.insert(USER.to_owned());
    assert!(matches!(tour(&api(&server)).await.unwrap_err().fault, Wrong::Forbidden { .. }));
    assert_eq!(api(&server).introduce().await.unwrap().user, USER, "everybody may know who he is");
}

#[tokio::test]
async fn where_nothing_listens_or_nobody_answers_is_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = JenkinsServer::spawn().await;
    let table = [
        (format!("http://{nobody}/"), "unreachable"),
        ("http://no-such-host.invalid/".to_owned(), "unreachable"),
        (format!("http://{}/", silent.local_addr().unwrap()), "timeout"),
        (format!("https://{}/", server.address), "unreachable"),
    ];
    for (url, reason) in table {
        let mut settings = RestSettings::new(url.parse().unwrap());
        settings.patience = Duration::from_millis(300);
        let error = tour(&RemoteApi::new(settings).unwrap()).await.unwrap_err();
        assert_eq!(error.fault.reason(), reason, "{error}");
        assert!(error.fault.is_retryable());
    }
}

#[tokio::test]
async fn a_tour_that_takes_too_long_ends() {
    let server = JenkinsServer::spawn().await;
    for folder in 0..50 {
        server.jenkins().create(Class::Folder, &format!("{folder}/a/b/c"));
    }
    server.fault(Fault::Slow(Duration::from_millis(50)));
    let mut settings = settings(&server);
    settings.tour_time = Duration::from_millis(300);
    let api = RemoteApi::new(settings).unwrap();
    let mut tour = api.tour();
    let error = loop {
        match tour.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("50 folders in 0.3 s at 20 a second"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.fault, Wrong::Endless { .. }), "{error}");
}

#[tokio::test]
async fn a_tree_without_a_bottom_or_in_circles_ends() {
    let server = JenkinsServer::spawn().await;
    server.jenkins().create(Class::Folder, "round");
    server.jenkins().make_bottomless("round");
    server.jenkins().create(Class::Pipeline, "sound");
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert_eq!(survey.gaps.len(), 1);
    assert_eq!(survey.gaps[0].because, GapReason::TooDeep);
    assert!(items.len() < 200 && server.take_requests().len() < 60, "{}", items.len());
    assert!(items.iter().any(|item| item.path.as_str() == "sound"));

    // Items that say they are somewhere else, or nothing at all.
    server.fault(Fault::Body(r#"{"jobs":[{"name":"a","fullName":"b/a"},{"name":".."},{"x":1},7]}"#.into()));
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert_eq!(items, []);
    let top = |because| Gap { folder: None, because };
    assert_eq!(survey.gaps, [top(GapReason::Astray), top(GapReason::Unreadable)]);
}

#[tokio::test]
async fn ten_thousand_folders_in_one_another_end() {
    let server = JenkinsServer::spawn().await;
    let deep = vec!["d"; 10_000].join("/");
    server.jenkins().create(Class::Folder, &deep);
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert!(items.len() <= 110, "{}", items.len());
    assert_eq!(survey.gaps[0].because, GapReason::TooDeep);
    assert!(!survey.is_complete());
    // The tree's own end would be as deep for its destructor.
    server.jenkins().flatten();
}

#[tokio::test]
async fn one_bad_folder_costs_no_other() {
    let server = JenkinsServer::spawn().await;
    {
        let mut jenkins = server.jenkins();
        for folder in ["a", "b", "c", "d", "e"] {
            jenkins.create(Class::Pipeline, &format!("{folder}/1/2/job"));
        }
    }
    server.fault_at("job/a/", Fault::Status(404));
    server.fault_at("job/b/", Fault::Status(403));
    server.fault_at("job/c/", Fault::Status(500));
    server.fault_at("job/d/", Fault::Truncated);
    let (items, survey) = tour(&api(&server)).await.unwrap();
    let mut gaps = survey.gaps.clone();
    gaps.sort_by_key(|gap| gap.folder.clone());
    let expected = [
        gap("a/1/2", GapReason::Refused),
        gap("b/1/2", GapReason::Refused),
        gap("c/1/2", GapReason::Unreadable),
        gap("d/1/2", GapReason::Unreadable),
    ];
    assert_eq!(gaps, expected);
    let jobs: Vec<_> = items.iter().filter(|item| item.kind == Kind::Job).map(|item| item.path.as_str()).collect();
    assert_eq!(jobs, ["e/1/2/job"]);
    // But who may see nothing at all any more, or finds a login, asks no further.
    server.fault_at("job/e/", Fault::Status(401));
    assert_eq!(tour(&api(&server)).await.unwrap_err().fault, Wrong::Unauthorized);
}

#[tokio::test]
async fn a_list_that_changes_while_it_is_read_is_read_anew() {
    let server = JenkinsServer::spawn().await;
    for job in 0..2_000 {
        server.jenkins().create(Class::FreeStyle, &format!("job-{job:04}"));
    }
    let api = api(&server);
    let mut tour = api.tour();
    let mut seen = std::collections::BTreeSet::new();
    let mut pages = 0;
    while let Some(items) = tour.next().await.unwrap() {
        seen.extend(items.into_iter().map(|item| item.path.to_string()));
        pages += 1;
        if pages == 1 {
            // All that follows moves one place up: the first of the next page would be overlooked.
            server.jenkins().delete("job-0000");
        }
    }
    let survey = tour.end();
    assert!(survey.is_complete(), "{:?}", survey.gaps);
    assert_eq!(seen.len(), 2_000);

    // A list that never stands still is read to its end, and what was not found in it may well be there.
    let mut tour = api.tour();
    let mut created = 0;
    while tour.next().await.unwrap().is_some() {
        created += 1;
        server.jenkins().create(Class::FreeStyle, &format!("a-{created}"));
    }
    assert_eq!(tour.end().gaps, [Gap { folder: None, because: GapReason::Restless }]);
}

#[tokio::test]
async fn items_that_jenkins_fails_to_write_hide_no_others() {
    let server = JenkinsServer::spawn().await;
    for job in 0..300 {
        server.jenkins().create(Class::FreeStyle, &format!("job-{job:03}"));
        server.jenkins().create(Class::FreeStyle, &format!("folder/job-{job:03}"));
    }
    for broken in ["job-007", "job-019", "job-020", "folder/job-003", "folder/job-099", "folder/job-100"] {
        server.jenkins().broken.insert(broken.to_owned());
    }
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert_eq!(items.len(), 601 - 6);
    assert_eq!(survey.gaps, []);
}

#[tokio::test]
async fn names_in_any_script_are_asked_for_and_found() {
    let names = [
        "日本語",
        "Größe",
        "с пробелом",
        "a+b",
        "100%",
        "a%2Fb",
        "feature%2Fx%23y",
        "\u{202e}evil",
        "a&b=c?d#e",
        "job",
        "api",
        "😀",
        "...",
        "~",
        "\u{301}",
    ];
    let server = JenkinsServer::spawn().await;
    for name in names {
        // The levels of one question end between the names.
        server.jenkins().create(Class::Pipeline, &format!("{name}/{name}/{name}/{name}"));
    }
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert_eq!(survey.gaps, []);
    assert_eq!(items.len(), names.len() * 4);
    for name in names {
        let full = format!("{name}/{name}/{name}/{name}");
        assert!(items.iter().any(|item| item.path.as_str() == full), "{full}");
    }
}

#[tokio::test]
async fn a_jenkins_that_tells_no_full_names_is_understood() {
    let server = JenkinsServer::spawn().await;
    server.jenkins().is_old = true;
    server.jenkins().create_project("acme/team/web", &["feature/x"]);
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert!(survey.is_complete());
    assert_eq!(items.last().unwrap().path.as_str(), "acme/team/web/feature%2Fx");
}

#[tokio::test]
async fn what_is_hidden_is_not_there() {
    let server = JenkinsServer::spawn().await;
    server.jenkins().create_project("acme/web", &["main"]);
    server.jenkins().create_project("secret/web", &["main"]);
    server.jenkins().hidden.insert("secret".to_owned());
    let (items, survey) = tour(&api(&server)).await.unwrap();
    assert!(survey.is_complete(), "there is no telling it from a Jenkins without it");
    assert_eq!(items.len(), 3);
}

#[tokio::test]
async fn the_clock_of_jenkins_is_told() {
    let server = JenkinsServer::spawn().await;
    let clock = async || tour(&api(&server)).await.unwrap().1.clock.unwrap();
    let here = clock().await;
    server.fault(Fault::ClockOff(86_400));
    let there = clock().await;
    let ahead = there.since(here).as_secs();
    assert!((86_340..86_460).contains(&ahead), "{ahead}");
}
