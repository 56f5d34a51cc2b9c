use std::os::unix::net::UnixListener;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::datadog::decode::{self, Datagram, decode};
use crate::datadog::sanitise::TAG_CHARS;
use crate::domain::build::Timestamp;
use crate::domain::signal::{Check, Event, JOB_STATUS, Metric, MetricName, Tag, tag};

/// A Unix socket that stands for the Agent's, and our connection to it.
struct Wire {
    agent: UnixDatagram,
    link: Link,
    _home: TempDir,
}

impl Wire {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("dsd.socket");
        let agent = UnixDatagram::bind(&path).unwrap();
        agent.set_nonblocking(true).unwrap();
        Self { agent, link: Link::to_socket(&path).unwrap(), _home: home }
    }

    /// What the Agent reads from all that one signal causes; `None` when it is too large to be sent.
    fn carry(&mut self, signal: &Signal, limit: usize) -> Option<Datagram> {
        let sent = match self.link.send(signal, &[], DatagramLimit::parse(limit).unwrap()) {
            Ok(sent) => sent,
            Err(SendError::TooLarge) => return None,
            Err(error) => panic!("{error:?}"),
        };
        let mut buffer = vec![0; 65_536];
        let length = self.agent.recv(&mut buffer).unwrap();
        assert_eq!(self.agent.recv(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(length, sent.bytes, "the length was reckoned wrong");
        assert!(length <= limit, "{length} > {limit}");
        let mut read = decode(&buffer[..length]).unwrap();
        assert_eq!(read.len(), 1, "{read:?}");
        read.pop()
    }

    fn carry_check(&mut self, check: &Check, limit: usize) -> Option<decode::Check> {
        match self.carry(&Signal::Check(check.clone()), limit)? {
            Datagram::Check(check) => Some(check),
            other => panic!("{other:?}"),
        }
    }
}

/// Text of someone who knows the wire.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<String>(),
        4 => proptest::sample::select(vec![
            "|", "\n", "\r\n", ",", "#", ":", "_sc|x|0", "\n_sc|forged|0", "|h:evil", "|#host:evil", "|m:forged", "|d:1",
            "host:evil", "card:high", "dd.internal.card:high", "\\n", "\\", "n", "_e{1,1}:a|b", "|k:x", "|t:error",
            "\u{202e}", "\u{200b}", "\u{feff}", "\u{2028}", "\u{85}", "\0", "\u{1b}[31m", "ü", "日本", "🦀", " ", "/",
        ]).prop_map(str::to_owned),
        1 => (any::<char>(), 0..10_000_usize).prop_map(|(c, times)| c.to_string().repeat(times)),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn is_tag(tag: &str) -> bool {
    tag.starts_with(char::is_alphabetic)
        && tag.chars().count() <= TAG_CHARS
        && tag.chars().all(|c| c.is_alphanumeric() || "_-:./".contains(c))
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte))
}

fn keys(tags: &[String]) -> Vec<&str> {
    tags.iter().map(|tag| tag.split(':').next().unwrap()).collect()
}

fn line_ends(text: &str) -> usize {
    text.chars().filter(|c| is_line_end(*c)).count()
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// For all jobs, hosts and messages: one datagram with one check, its tags and host ours, its message one line.
    #[test]
    fn nothing_in_a_check_is_forged(job in hostile(), url in hostile(), host in hostile(), message in hostile(), limit in 512..9000_usize) {
        let check = Check {
            name: JOB_STATUS,
            status: Status::Warning,
            host,
            tags: vec![
                Tag::new(tag::JOB, job.as_str()),
                Tag::new(tag::CONTROLLER, "main"),
                Tag::new(tag::JENKINS_URL, url.as_str()),
                Tag::new(tag::CARDINALITY, "none"),
            ]
            .into(),
            message,
        };
        let Some(read) = Wire::new().carry_check(&check, limit) else {
            let tag_bytes: usize = check.tags.iter().filter_map(sanitise::tag).map(|tag| tag.len() + 1).sum();
            prop_assert!(tag_bytes + sanitise::host(&check.host).len() + 30 > limit);
            return Ok(());
        };
        prop_assert_eq!(&read.name, JOB_STATUS);
        prop_assert_eq!(read.status, 1);
        prop_assert_eq!(read.timestamp, None);
        prop_assert!(read.host.as_deref().is_some_and(is_host), "{:?}", read.host);
        prop_assert_eq!(keys(&read.tags), [tag::JOB, tag::CONTROLLER, tag::JENKINS_URL, tag::CARDINALITY]);
        prop_assert!(read.tags.iter().all(|tag| is_tag(tag)), "{:?}", read.tags);
        prop_assert_eq!(&read.tags[3], "dd.internal.card:none");
        prop_assert!(read.message.iter().all(|message| !message.is_empty() && !message.chars().any(char::is_control)));
    }

    /// For all tags of an operator: each is one tag or none, and none gives the Agent an order.
    #[test]
    fn an_operators_tag_orders_the_agent_nothing(raw in proptest::collection::vec(hostile(), 0..5), key in hostile()) {
        let mut tags: Vec<Tag> = raw.iter().map(|raw| Tag::parse(raw)).collect();
        tags.push(Tag { key: key.into(), value: "x".into() });
        let given = tags.len();
        let check = Check { name: JOB_STATUS, status: Status::Ok, host: "ci".into(), tags: tags.into(), message: String::new() };
        let Some(read) = Wire::new().carry_check(&check, 8192) else { return Ok(()) };
        prop_assert!(read.tags.len() <= given);
        for tag in &read.tags {
            let key = tag.split(':').next().unwrap().to_lowercase();
            prop_assert!(is_tag(tag) && key != "host" && key != "card" && !key.starts_with("dd.internal."), "{tag:?}");
        }
        prop_assert_eq!(read.host.as_deref(), Some("ci"));
        prop_assert_eq!(read.message, None);
    }

    /// For all titles and texts: the datagram is one event, its lengths cut it back into both, and the text has no
    /// line that was not there.
    #[test]
    fn nothing_in_an_event_is_forged(title in hostile(), text in hostile(), host in hostile(), key in hostile(), branch in hostile(), limit in 512..9000_usize) {
        let event = Event {
            title,
            text,
            at: Timestamp::from_millis(1_700_000_000_000),
            host,
            aggregation_key: key,
            alert: Alert::Error,
            tags: vec![Tag::new(tag::JOB, "a"), Tag::new(tag::BRANCH, branch.as_str())].into(),
        };
        let carried = Wire::new().carry(&Signal::Event(event.clone()), limit);
        let Some(Datagram::Event(read)) = carried else {
            prop_assert!(limit < 2000, "{carried:?}");
            return Ok(());
        };
        prop_assert!(!read.title.is_empty() && !read.title.chars().any(char::is_control), "{:?}", read.title);
        let replaced_by_title = read.text == read.title;
        prop_assert!(replaced_by_title || read.text.matches('\n').count() <= line_ends(&event.text), "{:?}", read.text);
        prop_assert!(!read.text.is_empty() && !read.text.chars().any(|c| c.is_control() && c != '\n'));
        prop_assert_eq!(read.timestamp, Some(1_700_000_000));
        prop_assert_eq!(read.alert.as_deref(), Some("error"));
        prop_assert_eq!((&read.priority, &read.source), (&None, &None));
        prop_assert!(read.host.as_deref().is_some_and(is_host));
        prop_assert!(read.aggregation_key.iter().all(|key| !key.is_empty() && key.len() <= 100));
        prop_assert_eq!(keys(&read.tags), [tag::JOB, tag::BRANCH]);
    }

    /// For all values and tags: one sample of that value, or none when it is no finite number.
    #[test]
    fn nothing_in_a_metric_is_forged(value in any::<f64>(), node in hostile()) {
        let metric = Metric {
            name: MetricName::JobDuration,
            measure: Measure::Gauge(value),
            tags: [Tag::new(tag::NODE, node.as_str())].into(),
        };
        let mut wire = Wire::new();
        if value.is_finite() {
            let Some(Datagram::Metric(read)) = wire.carry(&Signal::Metric(metric), 1432) else { panic!() };
            prop_assert_eq!(read.values, [value]);
            prop_assert_eq!(read.metric_type, "g");
            prop_assert_eq!(keys(&read.tags), [tag::NODE]);
        } else {
            let sent = wire.link.send(&Signal::Metric(metric), &[], DatagramLimit::parse(1432).unwrap());
            prop_assert!(matches!(sent, Err(SendError::NotFinite)));
        }
    }
}

#[test]
fn a_message_is_shortened_before_a_tag_is() {
    let check = Check {
        name: JOB_STATUS,
        status: Status::Critical,
        host: "main".into(),
        tags: vec![Tag::new(tag::JOB, "x".repeat(190)), Tag::new(tag::JENKINS_URL, "y".repeat(180))].into(),
        message: "ü".repeat(400),
    };
    let mut wire = Wire::new();
    let whole = wire.carry_check(&check, 8192).unwrap();
    let cut = wire.carry_check(&check, 512).unwrap();
    assert_eq!(cut.tags, whole.tags);
    assert_eq!(whole.message, Some("ü".repeat(400)));
    assert!(cut.message.unwrap().ends_with("ü…"));
    let tags = (0..10).map(|number| Tag::new(tag::JOB, format!("{number}{}", "x".repeat(150)))).collect();
    assert_eq!(wire.carry_check(&Check { tags, ..check }, 1432), None);
}

#[test]
fn a_count_is_a_count() {
    let metric = Metric { name: MetricName::JobCompleted, measure: Measure::Count(3), tags: [].into() };
    let read = Wire::new().carry(&Signal::Metric(metric), 1432).unwrap();
    let expected = decode::Metric {
        name: "jenkins.job.completed".into(),
        values: vec![3.0],
        metric_type: "c".into(),
        tags: vec![],
    };
    assert_eq!(read, Datagram::Metric(expected));
}

#[test]
fn an_event_too_long_loses_text_first_and_then_title() {
    let event = |title: usize, text: usize| {
        Signal::Event(Event {
            title: "T".repeat(title),
            text: "x\n".repeat(text),
            at: Timestamp::from_millis(0),
            host: "main".into(),
            aggregation_key: String::new(),
            alert: Alert::Info,
            tags: vec![Tag::new(tag::JOB, "j".repeat(150))].into(),
        })
    };
    let mut wire = Wire::new();
    let Some(Datagram::Event(read)) = wire.carry(&event(100, 900), 512) else { panic!() };
    assert_eq!(read.title, "T".repeat(100));
    assert!(read.text.ends_with("x…") || read.text.ends_with("\n…"), "{}", read.text);
    let Some(Datagram::Event(read)) = wire.carry(&event(490, 900), 512) else { panic!() };
    assert!(read.title.ends_with("T…"));
    assert_eq!(read.text, "…");
    let Some(Datagram::Event(read)) = wire.carry(&event(5, 0), 512) else { panic!() };
    assert_eq!((read.text, read.timestamp), ("TTTTT".to_owned(), None));
}

/// The crate binds to the path that it cannot connect to. Through a descriptor it cannot.
#[test]
fn the_crate_cannot_make_a_socket_in_the_agents_place() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("dsd.socket");
    let agent = UnixDatagram::bind(&path).unwrap();
    let door = File::options().read(true).custom_flags(O_PATH).open(&path).unwrap();
    let through = format!("/proc/self/fd/{}", door.as_raw_fd());
    drop(agent);
    for unlink in [false, true] {
        if unlink {
            std::fs::remove_file(&path).unwrap();
        }
        let mut options = OptionsBuilder::new();
        assert!(Client::new(options.socket_path(Some(through.clone())).build()).is_err());
        assert_eq!(path.exists(), !unlink);
    }
}

#[test]
fn a_path_that_is_not_the_agents_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    let _stream = UnixListener::bind(at("stream")).unwrap();
    drop(UnixDatagram::bind(at("dead")).unwrap());
    let table = [
        ("absent", "mount its directory"),
        ("absent/dsd.socket", "mount its directory"),
        ("file", "is not a socket"),
        ("stream", "is a stream socket"),
        ("dead", "is the Agent running?"),
    ];
    for (name, expected) in table {
        let Err(error) = Link::to_socket(&at(name)) else { panic!("{name}") };
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    assert!(!at("absent").exists());
}

/// A child of this test, because a process's own environment cannot be changed safely.
#[test]
fn a_variable_that_would_tag_every_check_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("dsd.socket");
    let _agent = UnixDatagram::bind(&path).unwrap();
    for name in TAGGING_VARIABLES {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "datadog::link::tests::refuses_in_a_child", "--ignored"]);
        let output = child.env(name, "1.2.3").env("RECOVERD_TEST_SOCKET", &path).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{name}: {shown}");
    }
}

#[test]
#[ignore = "runs as a child of the test above"]
#[expect(clippy::disallowed_methods, reason = "how the parent tells its child")]
fn refuses_in_a_child() {
    let path = PathBuf::from(std::env::var_os("RECOVERD_TEST_SOCKET").unwrap());
    assert!(matches!(Link::to_socket(&path), Err(LinkError::Tagging(_))));
    let refused = Link::to_any_address(&["127.0.0.1:9".parse().unwrap()], "127.0.0.1");
    assert!(matches!(refused, Err(LinkError::Tagging(_))));
}

#[test]
fn the_samples_of_one_build_travel_together_as_far_as_they_fit() {
    let tags: std::sync::Arc<[Tag]> = [Tag::new(tag::JOB, "acme/web"), Tag::new(tag::RESULT, "SUCCESS")].into();
    let sample = |name, measure| Signal::Metric(Metric { name, measure, tags: tags.clone() });
    let mut signals = vec![sample(MetricName::JobCompleted, Measure::Count(1))];
    signals.extend((0..20).map(|seconds| sample(MetricName::JobDuration, Measure::Gauge(f64::from(seconds)))));
    // The same tags, but another build's.
    let other = [Tag::new(tag::JOB, "acme/web"), Tag::new(tag::RESULT, "SUCCESS")].into();
    let stranger = Metric { name: MetricName::JobStarted, measure: Measure::Count(1), tags: other };
    signals.push(Signal::Metric(stranger));

    let mut wire = Wire::new();
    let (mut rest, mut read, mut datagrams) = (signals.as_slice(), Vec::new(), 0);
    while let Some((first, behind)) = rest.split_first() {
        let sent = wire.link.send(first, behind, DatagramLimit::parse(512).unwrap()).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = wire.agent.recv(&mut buffer).unwrap();
        assert_eq!(length, sent.bytes, "the length was reckoned wrong");
        assert!(length <= 512, "{length}");
        let messages = decode(&buffer[..length]).unwrap();
        assert_eq!(messages.len(), sent.signals.len());
        read.extend(messages);
        rest = &rest[sent.signals.len()..];
        datagrams += 1;
    }
    let names = |datagram: &Datagram| match datagram {
        Datagram::Metric(metric) => (metric.name.clone(), metric.values.clone(), metric.tags.clone()),
        other => panic!("{other:?}"),
    };
    let expected = |name: &str, value: f64| {
        (name.to_owned(), vec![value], vec!["job:acme/web".to_owned(), "result:SUCCESS".to_owned()])
    };
    let mut wanted = vec![expected("jenkins.job.completed", 1.0)];
    wanted.extend((0..20).map(|seconds| expected("jenkins.job.duration", f64::from(seconds))));
    wanted.push(expected("jenkins.job.started", 1.0));
    assert_eq!(read.iter().map(names).collect::<Vec<_>>(), wanted);
    assert!(datagrams < 7, "{datagrams} datagrams for {} samples", wanted.len());
}
