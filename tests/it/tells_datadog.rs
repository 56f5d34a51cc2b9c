//! What Datadog hears of a build: checks, events and metrics, at the names and units that its own plugin uses.

use recoverd::datadog::decode::Datagram;

use crate::world::{CREATED, CRITICAL, OK, World, completed};

#[tokio::test]
async fn a_change_of_status_is_an_event_with_the_builds_link() {
    let world = World::spawn().await;
    world.build("acme/web", 1, "SUCCESS").await;
    world.build("acme/web", 2, "FAILURE").await;
    let failed = world.agent.next_event().await;
    assert_eq!(failed.title, "acme/web failed", "a job that starts out well is no event");
    assert_eq!(failed.text, "acme/web #2: FAILURE\nhttps://ci.example.org/job/acme/job/web/2/");
    assert_eq!(failed.alert.as_deref(), Some("error"));
    assert_eq!(failed.host.as_deref(), Some("main"));
    assert_eq!(failed.aggregation_key.as_deref(), Some("jenkins.job.status main:acme/web"));
    assert!(failed.tags.contains(&"result:FAILURE".to_owned()), "{:?}", failed.tags);
    world.build("acme/web", 3, "FAILURE").await;
    world.build("acme/web", 4, "SUCCESS").await;
    let recovered = world.agent.next_event().await;
    assert_eq!((recovered.title.as_str(), recovered.alert.as_deref()), ("acme/web recovered", Some("success")));
    world.finish().await;
}

#[tokio::test]
async fn metrics_have_the_names_and_units_of_datadogs_own_plugin() {
    let world = World::spawn().await;
    let mut queued = completed("acme/web", 1, "SUCCESS");
    queued["build"]["phase"] = "QUEUED".into();
    queued["build"]["timestamp"] = (CREATED + 60_000 - 7_000).into();
    queued["build"]["duration"] = 0.into();
    queued["build"].as_object_mut().unwrap().remove("status");
    world.post(queued.to_string()).await;
    let mut started = queued.clone();
    started["build"]["phase"] = "STARTED".into();
    started["build"]["timestamp"] = (CREATED + 60_000).into();
    world.post(started.to_string()).await;

    // Builds are a minute apart, and take half of one: well, bad, bad, well.
    for (number, result) in [(1, "SUCCESS"), (2, "FAILURE"), (3, "FAILURE"), (4, "SUCCESS")] {
        world.build("acme/web", number, result).await;
    }
    let expected = [
        ("jenkins.job.started", 1.0, "c"),
        ("jenkins.job.waiting", 7.0, "g"),
        ("jenkins.job.completed", 1.0, "c"),
        ("jenkins.job.duration", 30.0, "g"),
        ("jenkins.job.leadtime", 30.0, "g"),
        ("jenkins.job.completed", 1.0, "c"),
        ("jenkins.job.duration", 30.0, "g"),
        ("jenkins.job.mtbf", 60.0, "g"),
        ("jenkins.job.feedbacktime", 30.0, "g"),
        ("jenkins.job.completed", 1.0, "c"),
        ("jenkins.job.duration", 30.0, "g"),
        ("jenkins.job.mtbf", 120.0, "g"),
        ("jenkins.job.feedbacktime", 30.0, "g"),
        ("jenkins.job.completed", 1.0, "c"),
        ("jenkins.job.duration", 30.0, "g"),
        ("jenkins.job.mttr", 120.0, "g"),
        ("jenkins.job.leadtime", 150.0, "g"),
        ("jenkins.job.cycletime", 180.0, "g"),
    ];
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        for datagram in world.agent.next().await {
            if let Datagram::Metric(metric) = datagram {
                heard.push((metric.name, metric.values[0], metric.metric_type));
            }
        }
    }
    let heard: Vec<(&str, f64, &str)> = heard.iter().map(|(name, value, kind)| (&**name, *value, &**kind)).collect();
    assert_eq!(heard, expected);
    // The second telling of a build counts nothing.
    let mut finalized = completed("acme/web", 4, "SUCCESS");
    finalized["build"]["phase"] = "FINALIZED".into();
    assert_eq!(world.post(finalized.to_string()).await.1, "duplicate");
    world.build("acme/other", 1, "SUCCESS").await;
    let next = world.agent.next_metric("jenkins.job.completed").await;
    assert!(next.tags.contains(&"job:acme/other".to_owned()), "{:?}", next.tags);
    world.finish().await;
}

#[tokio::test]
async fn every_status_is_sent_again_each_interval_and_after_a_restart() {
    let world = World::spawn().await;
    world.build("weekly", 1, "FAILURE").await;
    for _ in 0..3 {
        assert_eq!(world.agent.next_check("weekly").await.status, CRITICAL);
    }
    let world = world.restarted().await;
    assert_eq!(world.agent.next_check("weekly").await.status, CRITICAL);
    world.build("weekly", 2, "SUCCESS").await;
    world.agent.expect("weekly", OK).await;
    let recovered = world.agent.next_event().await;
    assert_eq!(recovered.title, "weekly recovered", "what was announced before the restart is known after it");
    world.finish().await;
}

/// Names that try to forge fields, tags, hosts or whole messages, all the way from the webhook to the Agent's grammar.
#[tokio::test]
async fn a_hostile_name_makes_no_field_and_no_message_of_its_own() {
    let world = World::spawn().await;
    // No round comes in between: each message is one of the build that was just posted.
    let rarely = world.text().replace("resend_interval = \"1s\"", "resend_interval = \"1h\"");
    let world = world.restarted_with(rarely).await;
    let first_round = async {
        while !world.get("/metrics").await.1.contains("recoverd_rounds_total 1\n") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, first_round).await.expect("there is a first round");
    let names = [
        "a|h:forged|#env:prod",
        "a\n_sc|forged|0",
        "a,env:prod,b",
        "#a:b",
        "a|m:x\r\n_e{1,1}:a|b",
        "\u{202e}gnp.exe",
        "\u{1b}[31mred",
        "日本語/ジョブ",
        "  spaces  ",
        "host:forged",
    ];
    let long = "ж".repeat(10_000);
    for name in names.into_iter().chain([long.as_str()]) {
        // As Jenkins encodes it in a URL.
        let url: String = name.bytes().map(percent_encoding::percent_encode_byte).collect();
        let mut document = completed("x", 1, "FAILURE");
        document["name"] = name.into();
        document["url"] = format!("job/{url}/").into();
        document["build"]["url"] = format!("job/{url}/1/").into();
        let (status, result) = world.post(document.to_string()).await;
        assert_eq!((status, result.as_str()), (200, "finished"), "{name:?}");
        // A build's signals travel together: one check, one event, its samples, and nothing forged among them.
        let (mut checks, mut events, mut samples) = (Vec::new(), 0, 0);
        while checks.is_empty() || events == 0 || samples == 0 {
            for message in world.agent.next().await {
                match message {
                    Datagram::Check(check) => checks.push(check),
                    Datagram::Event(_) => events += 1,
                    Datagram::Metric(metric) => {
                        samples += 1;
                        assert!(
                            metric.name.starts_with("jenkins.job.") && metric.tags.len() == 5,
                            "{name:?}: {metric:?}"
                        );
                    }
                }
            }
        }
        assert_eq!((checks.len(), events), (1, 1), "{name:?}");
        let check = checks.remove(0);
        let keys: Vec<&str> = check.tags.iter().map(|tag| tag.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["job", "controller", "dd.internal.card", "jenkins_url"], "{name:?}");
        assert_eq!(check.host.as_deref(), Some("main"), "{name:?}");
        assert_eq!(check.name, "jenkins.job.status");
        assert_eq!(check.status, CRITICAL, "{name:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn jobs_that_datadog_cannot_tell_apart_are_counted() {
    let world = World::spawn().await;
    for job in ["Team/My App", "team/my_app", "team/other"] {
        world.build(job, 1, "SUCCESS").await;
    }
    let counted = async {
        while !world.get("/metrics").await.1.contains("recoverd_jobs_colliding 1\n") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, counted).await.expect("one job too many goes by that name");
    world.finish().await;
}
