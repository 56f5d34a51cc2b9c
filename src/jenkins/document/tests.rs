use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::build::{Created, Outcome, Progress, Timestamp};
use crate::domain::job::JobPath;
use crate::domain::projects::Source;
use crate::domain::rules::Children;

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jenkins"))
}

fn fixture(name: &str) -> Document {
    let body = std::fs::read(fixtures().join(name)).unwrap();
    read(&body, Extent::Whole).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_fixture_is_read_as_its_senders() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("cut-off") {
            continue;
        }
        let sender = match name.split('-').collect::<Vec<_>>()[..] {
            ["cloudevents", ..] => Sender::CloudEvents,
            ["generic", "event", ..] => Sender::GenericEvent,
            ["statistics", "gatherer", ..] => Sender::StatisticsGatherer,
            ["outbound", "webhook", ..] => Sender::OutboundWebhook,
            ["step" | "step.json", ..] => Sender::Step,
            _ => Sender::Notification,
        };
        assert_eq!(fixture(&name).sender, sender, "{name}");
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
}

fn path(raw: &str) -> JobPath {
    JobPath::parse(raw).unwrap()
}

const fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

const BEGAN: Option<Created> = Some(Created::exactly(at(1_750_000_000_000)));

fn plain(job: &str, number: u64, progress: Progress) -> BuildReport {
    BuildReport::new(path(job), number, progress)
}

#[expect(clippy::unnecessary_wraps, reason = "a report may have none")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_plugin_that_knows_the_whole_controller_tells_what_it_knows_of_a_build() {
    let told = |children| Some((Source::Told, children));
    let table = [
        (
            "generic-event-run-started.json",
            BuildReport {
                parent_holds: told(Children::Branches),
                created: BEGAN,
                ..plain("laundry/drum/feature%2Fbleach", 5, Progress::Running)
            },
        ),
        (
            "generic-event-run-completed.json",
            BuildReport {
                parent_holds: told(Children::Jobs),
                created: BEGAN,
                duration: Some(Duration::from_secs(30)),
                ..plain("laundry/PR-7", 12, Progress::Completed(Outcome::Unstable))
            },
        ),
        (
            "generic-event-freestyle-finalized.json",
            BuildReport {
                created: BEGAN,
                duration: Some(Duration::from_secs(90)),
                node: text("linux-7"),
                ..plain("wash & fold", 61, Progress::Finalized(Outcome::Failure))
            },
        ),
        (
            "statistics-gatherer-started.json",
            BuildReport {
                created: BEGAN,
                scm_branch: text("spin"),
                commit: text("89abcdef0123456789abcdef0123456789abcdef"),
                node: text("linux-7"),
                ..plain("laundry/wash & fold", 61, Progress::Running)
            },
        ),
        (
            "statistics-gatherer-finalized.json",
            BuildReport {
                created: Some(Created::at_most(Created::AFTER_COMPLETION, at(1_750_000_000_902))),
                duration: Some(Duration::from_secs(90)),
                ..plain("laundry/wash & fold", 61, Progress::Finalized(Outcome::Failure))
            },
        ),
    ];
    for (name, expected) in table {
        assert_eq!(fixture(name).reading, expected.into(), "{name}");
    }
}

#[test]
fn whoever_is_set_up_job_by_job_tells_what_it_knows_of_a_build() {
    let table = [
        (
            "cloudevents-started.json",
            BuildReport {
                created: Some(Created::exactly(at(1_740_000_000_000))),
                link: text("http://jenkins.example.org/job/rinse/3/"),
                ..plain("rinse", 3, Progress::Running)
            },
        ),
        (
            "cloudevents-structured-finalized.json",
            BuildReport {
                created: Some(Created::at_most(Created::AFTER_COMPLETION, at(1_740_000_000_400))),
                duration: Some(Duration::from_secs(5)),
                link: text("http://jenkins.example.org/job/rinse/3/"),
                ..plain("rinse", 3, Progress::Finalized(Outcome::Success))
            },
        ),
        (
            "outbound-webhook-unstable.json",
            BuildReport {
                link: text("https://jenkins.example.org/job/laundry/job/tumble%20dryer/16/"),
                ..plain("laundry/tumble dryer", 16, Progress::Completed(Outcome::Unstable))
            },
        ),
        (
            "step.json",
            BuildReport {
                parent_holds: Some((Source::Told, Children::Branches)),
                created: BEGAN,
                duration: Some(Duration::from_millis(29_500)),
                scm_branch: text("feature/bleach"),
                commit: text("fedcba9876543210fedcba9876543210fedcba98"),
                node: text("linux-7"),
                link: text("https://jenkins.example.org/job/laundry/job/drum/job/feature%252Fbleach/5/"),
                ..plain("laundry/drum/feature%2Fbleach", 5, Progress::Completed(Outcome::Failure))
            },
        ),
        (
            "step-form.txt",
            BuildReport {
                created: BEGAN,
                duration: Some(Duration::from_secs(90)),
                node: text("built-in"),
                link: text("https://jenkins.example.org/job/laundry/job/wash%20&%20fold/61/"),
                ..plain("laundry/wash & fold", 61, Progress::Completed(Outcome::Success))
            },
        ),
    ];
    for (name, expected) in table {
        assert_eq!(fixture(name).reading, expected.into(), "{name}");
    }
}

#[test]
fn an_item_that_goes_is_gone_and_what_is_no_build_is_let_go_by() {
    let gone = |from: &str, to: Option<&str>, millis| {
        Reading::Gone(Removal { path: path(from), to: to.map(path), at: Some(at(millis)) })
    };
    let table = [
        ("generic-event-item-deleted.json", gone("laundry/drum/feature%2Fbleach", None, 1_750_003_200_250)),
        ("generic-event-item-location-changed.json", gone("laundry", Some("cleaning"), 1_750_005_000_000)),
        ("statistics-gatherer-job-deleted.json", gone("laundry/wash & fold", None, 1_750_007_000_000)),
        ("generic-event-item-created.json", Reading::Ignored(IgnoredBecause::NotABuild)),
        ("generic-event-matrix-axis-completed.json", Reading::Ignored(IgnoredBecause::PartOfABuild)),
        ("statistics-gatherer-queue-left.json", Reading::Ignored(IgnoredBecause::NotABuild)),
        ("cloudevents-job-created.json", Reading::Ignored(IgnoredBecause::NotABuild)),
    ];
    for (name, expected) in table {
        assert_eq!(fixture(name).reading, expected, "{name}");
    }
}

#[test]
fn one_build_is_one_build_whoever_tells_of_it() {
    let created = |name: &str| match fixture(name).reading {
        Reading::Report(report) => (report.job.to_string(), report.number, report.created.unwrap()),
        other => panic!("{name}: {other:?}"),
    };
    let together = [
        ["full.json", "statistics-gatherer-started.json"],
        ["full.xml", "statistics-gatherer-finalized.json"],
        ["full.json", "step-form.txt"],
        ["generic-event-run-started.json", "step.json"],
        ["cloudevents-completed.json", "cloudevents-structured-finalized.json"],
    ];
    for [one, other] in together {
        let ((one_job, one_number, one_time), (other_job, other_number, other_time)) = (created(one), created(other));
        assert_eq!((&one_job, one_number), (&other_job, other_number), "{one} {other}");
        assert!(one_time.agrees_with(other_time), "{one} {other}");
    }
}

#[test]
fn what_is_no_document_at_all_is_refused_with_the_reason() {
    let unrecognised = |byte| PayloadError::Unrecognised { first: FirstByte(byte) };
    let table = [
        ("", PayloadError::Empty),
        (" \r\n\t", PayloadError::Empty),
        ("\u{FEFF}", PayloadError::Empty),
        ("[1]", unrecognised(b'[')),
        ("\"text\"", unrecognised(b'"')),
        ("\u{1b}[31m", unrecognised(0x1b)),
        ("garbage", unrecognised(b'g')),
        ("payload=%7B%7D", unrecognised(b'p')),
        ("job", unrecognised(b'j')),
    ];
    for (body, expected) in table {
        assert_eq!(read(body.as_bytes(), Extent::Whole), Err(expected), "{body:?}");
    }
}

#[test]
fn a_message_shows_only_a_harmless_first_character() {
    let shown = |byte| PayloadError::Unrecognised { first: FirstByte(byte) }.to_string();
    assert!(shown(b'[').starts_with("the body begins with `[`: "), "{}", shown(b'['));
    assert!(shown(0x1f).starts_with("the body begins with the byte 0x1f: "), "{}", shown(0x1f));
}

#[test]
fn the_first_mark_tells_the_sender_whatever_follows() {
    let table = [
        (r#"{"build":{"number":1,"phase":"STARTED"},"url":"job/a/","job":"b"}"#, Sender::Notification),
        (r#"{"url":"job/a/","build":{"fullUrl":null,"number":1,"phase":"STARTED"}}"#, Sender::CloudEvents),
        (
            r#"{"specversion":"1.0","source":"job/a","data":{"url":"job/a/","build":{"number":1,"phase":"STARTED"}}}"#,
            Sender::CloudEvents,
        ),
        (r#"{"job":"a","number":1,"result":"SUCCESS","build":{"number":2,"phase":"STARTED"}}"#, Sender::Step),
        (r#"{"number":1,"result":"SUCCESS","job":"a","fullJobName":"b"}"#, Sender::Step),
        (r#"{"number":1,"result":"SUCCESS","fullJobName":"a","job":"b"}"#, Sender::StatisticsGatherer),
        (r#"{"number":1,"result":"SUCCESS","url":"job/a/1/"}"#, Sender::Step),
        (r#"{"data":{"number":1},"job":"b","source":"job/a/","type":"run.started"}"#, Sender::GenericEvent),
        (r#"{"event":"start","job":"b","buildUrl":"job/a/1/"}"#, Sender::OutboundWebhook),
    ];
    for (body, sender) in table {
        let document = read(body.as_bytes(), Extent::Whole);
        match document.as_ref().map(|document| (document.sender, &document.reading)) {
            Ok((found, Reading::Report(report))) => {
                assert_eq!((found, report.job.as_str(), report.number), (sender, "a", 1), "{body}");
            }
            other => panic!("{other:?} from {body}"),
        }
    }
}

#[test]
fn an_event_of_the_cloudevents_plugin_that_is_of_no_build_is_let_go_by() {
    let table = [
        r#"{"userId":"x","status":"CREATED","name":"a","displayName":"a","url":"job/a/","createdDate":1,"configFile":""}"#,
        r#"{"ciUrl":"http://h/","displayName":"a","entryTime":1,"jenkinsQueueId":7,"status":"ENTERED_WAITING"}"#,
        r#"{"nodeName":"linux-1","numExecutors":2,"status":"online"}"#,
        r#"{"specversion":"1.0","type":"org.jenkinsci.job.created","source":"job/a","data":{"name":"a","url":"job/a/"}}"#,
    ];
    for body in table {
        let reading = read(body.as_bytes(), Extent::Whole).map(|document| document.reading);
        let expected = [IgnoredBecause::NotABuild, IgnoredBecause::UnknownEvent].map(Reading::Ignored);
        assert!(reading.as_ref().is_ok_and(|reading| expected.contains(reading)), "{reading:?} from {body}");
    }
}

#[test]
fn a_comma_behind_the_last_field_is_forgiven_to_whoever_may_write_by_hand() {
    let body = "{\"job\":\"a\",\"number\":1,\"result\":\"FAILURE\" , }\n";
    let whole = read(body.as_bytes(), Extent::Whole).unwrap();
    assert_eq!(whole, read(&body.replace(", }", "}").into_bytes(), Extent::Whole).unwrap());
    let syntax = PayloadError::Syntax { format: Format::Json, line: 1, column: 12 };
    assert_eq!(read(br#"{"job":"a",,}"#, Extent::Whole), Err(syntax));
    let notification = br#"{"url":"job/a/","build":{"number":1,"phase":"STARTED"},}"#;
    assert!(matches!(read(notification, Extent::Whole), Err(PayloadError::Syntax { .. })));
}

/// Any document that one of the other senders could send, its fields in any order.
fn document() -> impl Strategy<Value = String> {
    let number = 0_u64..20_000;
    let result = prop_oneof!["SUCCESS|FAILURE|WOBBLY|INPROGRESS", Just(String::new())];
    let time = any::<i64>();
    let job = "[a-z]{1,3}/[a-z%]{1,4}";
    let fields = (0..5_u8, job, number, result, time, any::<Option<bool>>(), "[a-zA-Z \"\\\\é]{0,20}");
    let document = fields.prop_map(|(sender, job, number, result, time, told, noise)| {
        let url = format!("job/{}/", job.replace('%', "%25").replace('/', "/job/"));
        match sender {
            0 => json!({
                "data": { "number": number, "result": result, "timestamp": time, "_multiBranch": told, "x": noise },
                "source": url,
                "time": noise,
                "type": if result.is_empty() { "run.started" } else { "run.completed" },
            }),
            1 => json!({
                "data": { "fullName": job, "name": noise },
                "metaData": { "oldName": format!("{job}x"), "newName": job },
                "time": "2022-02-06T13:48:15.333+0800",
                "type": if told.is_some() { "item.deleted" } else { "item.locationChanged" },
            }),
            2 => json!({
                "fullJobName": job, "buildUrl": format!("{url}{number}/"), "number": number, "result": result,
                "startTime": time, "endTime": time, "slaveInfo": { "slaveName": noise }, "parameters": { "job": noise },
            }),
            3 => json!({
                "buildName": noise, "buildUrl": format!("{url}{number}/"), "event": result.to_lowercase(),
            }),
            _ => json!({
                "job": job, "number": number, "result": result, "timestamp": time, "multibranch": told, "x": noise,
            }),
        }
    });
    (document, any::<proptest::sample::Index>()).prop_map(|(document, first)| {
        let fields: Vec<_> = document.as_object().unwrap().iter().collect();
        let mut turned = fields.clone();
        turned.rotate_left(first.index(fields.len()));
        let written: Vec<String> = turned.iter().map(|(key, value)| format!("{:?}:{value}", key.as_str())).collect();
        format!("{{{}}}", written.join(" ,"))
    })
}

proptest! {
    /// For all documents of the other senders, cut anywhere: what is left tells of the same build or removal, or of none.
    #[test]
    fn a_cut_never_makes_another_document(document in document()) {
        let whole = read(document.as_bytes(), Extent::Whole);
        prop_assert_eq!(read(document.as_bytes(), Extent::CutOff), whole.clone());
        for cut in 1..document.len() {
            let Ok(part) = read(&document.as_bytes()[..cut], Extent::CutOff) else { continue };
            let Ok(whole) = &whole else { panic!("{whole:?} cut at {cut} gives {part:?}") };
            prop_assert_eq!(part.sender, whole.sender);
            match (&whole.reading, &part.reading) {
                (Reading::Report(whole), Reading::Report(part)) => {
                    prop_assert_eq!((&part.job, part.number, part.progress), (&whole.job, whole.number, whole.progress));
                }
                (whole, part) => prop_assert_eq!(part, whole, "cut at {}", cut),
            }
        }
    }

    /// For all bytes: an answer, the same one twice.
    #[test]
    fn no_bytes_make_it_panic(begin in "([{<]|job=|\\{\"(data|job|fullJobName|event)\":)?", body in any::<Vec<u8>>()) {
        let body = [begin.as_bytes(), &body].concat();
        for extent in [Extent::Whole, Extent::CutOff] {
            prop_assert_eq!(read(&body, extent), read(&body, extent));
        }
    }

    /// For all near-documents: a message of one printable line.
    #[test]
    fn a_message_is_one_short_line(body in "[{<][{}<>\"/:,a-z&;!\\[\\]\u{1b}\n0-9]{0,40}|.{0,40}") {
        if let Err(error) = read(body.as_bytes(), Extent::Whole) {
            let message = error.to_string();
            prop_assert!(message.len() < 200 && !message.contains(char::is_control), "{message:?}");
        }
    }
}
