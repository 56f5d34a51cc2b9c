//! Faults reach Sentry, with the pod that they happened in. Each case is a process of its own, since logging is set up once.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use recoverd::config::{Environment, Settings, environment};
use recoverd::kubernetes::downward;
use recoverd::telemetry;

use crate::bugsink::Bugsink;

const POD: [(&str, &str); 3] = [("POD_NAME", "recoverd-0"), ("POD_NAMESPACE", "ci"), ("NODE_NAME", "node-7")];

/// Runs [`child`] with nothing in its environment but this.
fn in_a_child(variables: &[(&str, &str)]) -> Output {
    let me = std::env::current_exe().expect("this binary");
    let mut command = Command::new(me);
    command.args(["--exact", "telemetry::child", "--ignored", "--nocapture"]).env_clear();
    command.envs(variables.iter().copied()).output().expect("a child of this binary")
}

#[test]
#[ignore = "a process for the other tests, which start it"]
fn child() {
    let variables: Environment = environment();
    let settings = Settings::load(None, &variables).unwrap();
    let guard = telemetry::init(&settings.log, &settings.sentry, &downward::from_environment(&variables)).unwrap();
    tracing::info!("not a breadcrumb");
    tracing::warn!("the disk is nearly full");
    tracing::error!(job = "acme/web", "the disk is full");
    tracing::error!(target: "kube_client::client::builder", "one more attempt failed");
    // A thread that knows nothing of Sentry yet, as a runtime's worker.
    let worker = std::thread::spawn(|| {
        tracing::error!("a worker failed");
        panic!("a worker panicked");
    });
    let _ = worker.join();
    let begin = Instant::now();
    drop(guard);
    println!("flushed after {} ms", begin.elapsed().as_millis());
}

#[test]
fn what_a_library_says_of_each_attempt_is_not_in_the_log_unless_it_is_wanted() {
    for (level, is_there) in [("info", false), ("info,kube_client=error", true)] {
        let output = in_a_child(&[("RECOVERD_LOG__LEVEL", level)]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.contains("the disk is full"), "{log}");
        assert_eq!(log.contains("one more attempt failed"), is_there, "{level}: {log}");
    }
}

#[test]
fn a_fault_is_reported_with_its_pod() {
    let bugsink = Bugsink::start();
    let output = in_a_child(&[&POD[..], &[("SENTRY_DSN", &bugsink.dsn)]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let patience = Duration::from_secs(10);
    for message in ["the disk is full", "a worker failed", "a worker panicked"] {
        let event = bugsink.wait_for(patience, |event| event.message == message);
        for (key, value) in [("pod_name", "recoverd-0"), ("pod_namespace", "ci"), ("node_name", "node-7")] {
            assert_eq!(event.tag(key), Some(value), "{message}");
        }
        assert_eq!(event.raw["server_name"], "recoverd-0", "{message}");
        assert_eq!(event.raw["release"], concat!("recoverd@", env!("CARGO_PKG_VERSION")), "{message}");
    }
    let fault = bugsink.wait_for(patience, |event| event.message == "the disk is full");
    assert_eq!(fault.level, "error");
    let breadcrumbs = fault.raw["breadcrumbs"].to_string();
    assert!(breadcrumbs.contains("nearly full") && !breadcrumbs.contains("not a breadcrumb"), "{breadcrumbs}");
    assert!(fault.raw.to_string().contains("acme/web"), "{}", fault.raw);
    assert!(fault.raw.get("user").is_none_or(serde_json::Value::is_null), "{}", fault.raw["user"]);
    assert_eq!(bugsink.events().len(), 3);
}

#[test]
fn outside_kubernetes_no_pod_is_named() {
    let bugsink = Bugsink::start();
    let output = in_a_child(&[("SENTRY_DSN", &bugsink.dsn), ("POD_NAME", "")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event = bugsink.wait_for(Duration::from_secs(10), |event| event.message == "the disk is full");
    for key in ["pod_name", "pod_namespace", "node_name"] {
        assert_eq!(event.tag(key), None);
    }
    assert!(event.raw["server_name"].as_str().is_some_and(|name| !name.is_empty()));
}

#[test]
fn a_sentry_that_does_not_answer_delays_the_end_by_two_seconds_at_most() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dsn = format!("http://key@{}/1", silent.local_addr().unwrap());
    let output = in_a_child(&[("SENTRY_DSN", &dsn)]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let waited = stdout.split("flushed after ").nth(1).and_then(|rest| rest.split(' ').next());
    let waited: u64 = waited.expect("the child says how long").parse().unwrap();
    assert!((1_900..3_500).contains(&waited), "{waited} ms");
}

#[test]
fn without_a_dsn_faults_are_logged_and_nothing_is_waited_for() {
    let output = in_a_child(&[]);
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let fault = stderr.lines().find(|line| line.contains("the disk is full")).expect("a log line");
    let fault: serde_json::Value = serde_json::from_str(fault).expect("JSON, since this is no terminal");
    assert_eq!((fault["level"].as_str(), fault["job"].as_str()), (Some("ERROR"), Some("acme/web")));
}
