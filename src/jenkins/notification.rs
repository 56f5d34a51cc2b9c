//! The Notification plugin's documents (`com.tikal.hudson.plugins.notification`, every version), and those of builds that
//! the `CloudEvents` plugin sends, which are alike. Pure.
//!
//! A document is read as a stream into a `draft` and nothing that is not needed is kept, so that a log of any size
//! costs no memory, and a body that was cut off inside its log still tells of its build: everything that identifies a
//! build comes before the log.

mod draft;
mod xml;

use super::document::{Extent, PayloadError};
pub(super) use draft::{Draft, Section};

/// Whether the XML document came to its end.
pub(super) fn read_xml<'a>(text: &'a str, extent: Extent, draft: &mut Draft<'a>) -> Result<bool, PayloadError> {
    xml::read(text, extent, draft)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::domain::build::{BuildReport, Created, Outcome, Progress, Timestamp};
    use crate::domain::job::JobPath;
    use crate::domain::projects::Source;
    use crate::domain::rules::Children;
    use crate::jenkins::document::{self, Document, Extent, IgnoredBecause, PayloadError, Reading, Sender};

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jenkins/", $name)).as_slice()
        };
    }

    fn read(body: &[u8], extent: Extent) -> Result<Reading, PayloadError> {
        let Document { sender, reading } = document::read(body, extent)?;
        assert!(matches!(sender, Sender::Notification | Sender::CloudEvents), "{sender:?}");
        Ok(reading)
    }

    fn report(body: &[u8], extent: Extent) -> BuildReport {
        match read(body, extent) {
            Ok(Reading::Report(report)) => *report,
            other => panic!("{other:?} from {}", String::from_utf8_lossy(body)),
        }
    }

    /// What the shortest documents say: a top-level job and nothing optional.
    fn bare(job: &str, number: u64, progress: Progress) -> BuildReport {
        BuildReport::new(JobPath::parse(job).unwrap(), number, progress)
    }

    const BRANCHES: Option<(Source, Children)> = Some((Source::Inferred, Children::Branches));

    fn full() -> BuildReport {
        BuildReport {
            created: Some(Created::exactly(Timestamp::from_millis(1_750_000_000_000))),
            duration: Some(Duration::from_secs(90)),
            scm_branch: Some("spin".to_owned()),
            commit: Some("89abcdef0123456789abcdef0123456789abcdef".to_owned()),
            link: Some("https://jenkins.example.org/job/laundry/job/wash%20&%20fold/61/".to_owned()),
            ..bare("laundry/wash & fold", 61, Progress::Completed(Outcome::Failure))
        }
    }

    #[test]
    fn every_version_of_the_plugin_is_understood() {
        let linked = |link: &str| Some(link.to_owned());
        let table = [
            (fixture!("finished-without-full-url.json"), bare("nightly", 31, Progress::Completed(Outcome::Success))),
            (
                fixture!("started-without-status.json"),
                BuildReport {
                    link: linked("http://jenkins.example.org:8080/job/nightly/32/"),
                    ..bare("nightly", 32, Progress::Running)
                },
            ),
            (
                fixture!("finalized.json"),
                BuildReport {
                    link: linked("http://jenkins.example.org:8080/job/nightly/32/"),
                    ..bare("nightly", 32, Progress::Finalized(Outcome::Success))
                },
            ),
            (
                fixture!("completed-empty-scm.json"),
                BuildReport {
                    link: linked("http://jenkins.example.org:8080/job/deploy-staging/9/"),
                    ..bare("deploy-staging", 9, Progress::Completed(Outcome::Success))
                },
            ),
            (
                fixture!("completed-without-duration.json"),
                BuildReport {
                    created: Some(Created::at_most(Created::LONGEST_BUILD, Timestamp::from_millis(1_730_000_000_000))),
                    link: linked("http://jenkins.example.org/job/Release%20the%20kraken/77/"),
                    ..bare("Release the kraken", 77, Progress::Completed(Outcome::Failure))
                },
            ),
            (
                fixture!("completed-unstable-with-parameters.json"),
                BuildReport {
                    scm_branch: Some("trunk".to_owned()),
                    commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
                    link: linked("http://jenkins.example.org:8080/job/recipes/2048/"),
                    ..bare("recipes", 2048, Progress::Completed(Outcome::Unstable))
                },
            ),
            (
                fixture!("started-with-illegal-status.json"),
                BuildReport {
                    link: linked("http://jenkins.example.org/job/interpreter/512"),
                    ..bare("interpreter", 512, Progress::Running)
                },
            ),
            (
                fixture!("finalized-unknown-status-without-url.json"),
                BuildReport {
                    link: linked("https://jenkins.example.org/ci/job/qa/job/QA-storage-unit/404/"),
                    ..bare("qa/QA-storage-unit", 404, Progress::Finalized(Outcome::Unknown))
                },
            ),
            (
                fixture!("folder-job-under-context-path.json"),
                BuildReport {
                    node: Some("linux-7".to_owned()),
                    link: linked("https://build.example.org/jenkins/east/job/retail/job/smoke/88/"),
                    ..bare("retail/smoke", 88, Progress::Completed(Outcome::Success))
                },
            ),
            (fixture!("full.json"), full()),
        ];
        for (body, expected) in table {
            assert_eq!(report(body, Extent::Whole), expected);
        }
    }

    #[test]
    fn a_branch_a_pull_request_and_an_event_of_another_plugin_are_understood() {
        let linked = |link: &str| Some(link.to_owned());
        let table = [
            (
                fixture!("branch-finalized.json"),
                BuildReport {
                    parent_holds: BRANCHES,
                    created: Some(Created::at_most(
                        Created::AFTER_COMPLETION,
                        Timestamp::from_millis(1_750_000_170_000),
                    )),
                    duration: Some(Duration::from_secs(30)),
                    scm_branch: Some("feature/bleach".to_owned()),
                    commit: Some("fedcba9876543210fedcba9876543210fedcba98".to_owned()),
                    link: linked("https://jenkins.example.org/job/laundry/job/drum/job/feature%252Fbleach/5/"),
                    ..bare("laundry/drum/feature%2Fbleach", 5, Progress::Finalized(Outcome::Success))
                },
            ),
            (
                fixture!("pull-request-aborted.json"),
                BuildReport {
                    parent_holds: BRANCHES,
                    created: Some(Created::exactly(Timestamp::from_millis(1_750_000_296_000))),
                    duration: Some(Duration::from_secs(4)),
                    link: linked("https://jenkins.example.org/job/laundry/job/drum/job/PR-41/2/"),
                    ..bare("laundry/drum/PR-41", 2, Progress::Completed(Outcome::Aborted))
                },
            ),
            (
                fixture!("cloudevents-completed.json"),
                BuildReport {
                    created: Some(Created::exactly(Timestamp::from_millis(1_740_000_000_000))),
                    duration: Some(Duration::from_secs(5)),
                    scm_branch: Some("main".to_owned()),
                    commit: Some("00112233445566778899aabbccddeeff00112233".to_owned()),
                    link: linked("http://jenkins.example.org/job/rinse/3/"),
                    ..bare("rinse", 3, Progress::Completed(Outcome::Success))
                },
            ),
        ];
        for (body, expected) in table {
            assert_eq!(report(body, Extent::Whole), expected);
        }
    }

    #[test]
    fn a_build_reads_alike_as_json_and_as_xml() {
        assert_eq!(report(fixture!("full.json"), Extent::Whole), full());
        assert_eq!(report(fixture!("full.xml"), Extent::Whole), full());
    }

    #[test]
    fn a_huge_log_that_was_cut_off_does_not_cost_the_event() {
        for body in [fixture!("cut-off-in-log.json"), fixture!("cut-off-in-log.xml")] {
            let body = body.trim_ascii_end();
            assert_eq!(report(body, Extent::CutOff), full());
            assert!(matches!(read(body, Extent::Whole), Err(PayloadError::Syntax { .. })));
        }
    }

    #[test]
    fn the_job_comes_from_the_first_url_there_is_and_from_the_name_last() {
        let table = [
            (r#""url":"job/a/","name":"b","build":{"url":"job/c/1/""#, "a"),
            (r#""url":"","name":"b","build":{"url":"job/f/job/c/1/","full_url":"http://h/job/d/1/""#, "f/c"),
            (r#""url":"aUrl","name":"b","build":{"full_url":"http://h/x/job/f/job/d/1/""#, "f/d"),
            (r#""name":" b ","build":{"full_url":"http://h/""#, "b"),
            (r#""name":"100%","build":{"url":null"#, "100%"),
        ];
        for (fields, expected) in table {
            let body = format!(r#"{{{fields},"number":1,"phase":"QUEUED"}}}}"#);
            assert_eq!(report(body.as_bytes(), Extent::Whole).job.as_str(), expected, "{fields}");
        }
    }

    #[test]
    fn a_phase_is_read_in_any_case_and_what_tells_nothing_is_ignored() {
        let ignored = |because| Ok(Reading::Ignored(because));
        let running = |progress| Ok(Reading::from(bare("a", 1, progress)));
        let table = [
            (r#""phase":"queued""#, running(Progress::Running)),
            (r#""phase":"STARTED","status":"SUCCESS""#, running(Progress::Running)),
            (r#""phase":"STARTED","status":{}"#, running(Progress::Running)),
            (r#""phase":"Completed","status":"failed""#, running(Progress::Completed(Outcome::Failure))),
            (r#""phase":"FINISHED","status":"ABORTED""#, running(Progress::Completed(Outcome::Aborted))),
            (r#""phase":"finalized","status":"Not_Built""#, running(Progress::Finalized(Outcome::NotBuilt))),
            (r#""phase":"FINALIZED","status":"WOBBLY""#, running(Progress::Finalized(Outcome::Unknown))),
            (r#""phase":"COMPLETED""#, ignored(IgnoredBecause::NoResult)),
            (r#""phase":"FINALIZED","status":null"#, ignored(IgnoredBecause::NoResult)),
            (r#""phase":"FINISHED","status":"""#, ignored(IgnoredBecause::NoResult)),
            (r#""phase":"NONE","status":"SUCCESS""#, ignored(IgnoredBecause::NoPhase)),
            (r#""phase":"PAUSED","status":"SUCCESS""#, ignored(IgnoredBecause::UnknownPhase)),
        ];
        for (fields, expected) in table {
            let body = format!(r#"{{"url":"job/a/","build":{{"number":1,{fields}}}}}"#);
            assert_eq!(read(body.as_bytes(), Extent::Whole), expected, "{fields}");
        }
    }

    #[test]
    fn a_body_that_is_no_notification_is_refused_with_the_reason() {
        let missing = |field| PayloadError::Missing { field };
        let table = [
            ("{}", missing("build")),
            (r#"{"build":null}"#, missing("build")),
            (r#"{"build":"x"}"#, PayloadError::WrongKind { field: "build", expected: "an object" }),
            (r#"{"build":[]}"#, PayloadError::WrongKind { field: "build", expected: "an object" }),
            (r#"{"url":"job/a/","build":{}}"#, missing("build.phase")),
            (r#"{"url":"job/a/","build":{"number":1,"status":"SUCCESS"}}"#, missing("build.phase")),
            (r#"{"url":"job/a/","build":{"phase":"STARTED"}}"#, missing("build.number")),
            (r#"{"build":{"phase":"STARTED","number":1}}"#, missing("url")),
            (r#"{"name":"///","build":{"phase":"STARTED","number":1}}"#, missing("url")),
            (
                r#"{"name":"a","url":{},"build":{"phase":"STARTED","number":1}}"#,
                PayloadError::WrongKind { field: "url", expected: "a text" },
            ),
            (
                r#"{"url":"job/a/","build":{"phase":{},"number":1}}"#,
                PayloadError::WrongKind { field: "build.phase", expected: "a text or a number" },
            ),
            (
                r#"{"url":"job/a/","build":{"phase":"FINALIZED","status":[],"number":1}}"#,
                PayloadError::WrongKind { field: "build.status", expected: "a text or a number" },
            ),
        ];
        for (body, expected) in table {
            assert_eq!(read(body.as_bytes(), Extent::Whole), Err(expected), "{body:?}");
        }
    }

    #[test]
    fn a_body_cut_off_too_early_says_what_is_missing() {
        let table = [
            (r#"{"url":"job/a/""#, "build"),
            (r#"{"url":"job/a/","build":{"number":1"#, "build.phase"),
            // It may have been 12.
            (r#"{"url":"job/a/","build":{"phase":"STARTED","number":1"#, "build.number"),
            (r#"{"url":"job/a/","build":{"phase":"FINALIZED","number":1,"stat"#, "build.status"),
            // The URL may have followed.
            (r#"{"name":"main","build":{"phase":"STARTED","number":1,"#, "url"),
            ("<job><url>job/a/</url><build><phase>STARTED</phase><number>1", "build.number"),
            ("<job><url>job/a/</url><build><phase>STARTED</phase><number>1</num", "build.number"),
            ("<job", "build"),
        ];
        for (body, field) in table {
            assert_eq!(read(body.as_bytes(), Extent::CutOff), Err(PayloadError::CutOff { field }), "{body}");
        }
    }

    /// Any document that the plugin could send, in either format.
    fn document() -> impl Strategy<Value = String> {
        let url = prop_oneof![Just(None), "job/[a-z]{1,3}/job/[a-z%]{1,4}/".prop_map(Some)];
        let phase = prop_oneof!["QUEUED|STARTED|COMPLETED|FINALIZED", "[A-Z]{3}"];
        let status = proptest::option::of("SUCCESS|FAILURE|WOBBLY");
        let time = proptest::option::of(any::<i64>());
        (url, any::<bool>(), 0_u64..20_000, phase, status, time, ".{0,40}", any::<bool>()).prop_map(
            |(url, top_level, number, phase, status, time, log, is_json)| {
                let path = url.as_deref().unwrap_or("job/fallback/");
                let mut build = vec![
                    ("full_url", "fullUrl", format!("http://h/ctx/{path}{number}/")),
                    ("number", "number", number.to_string()),
                    ("phase", "phase", phase),
                ];
                build.extend(time.map(|time| ("timestamp", "timestamp", time.to_string())));
                build.extend(status.map(|status| ("status", "status", status)));
                build.push(("url", "url", format!("{path}{number}/")));
                build.push(("log", "log", log));
                let top = url.filter(|_| top_level);
                if is_json {
                    let text = |text: &str| serde_json::to_string(text).unwrap();
                    let bare = |key: &str| matches!(key, "number" | "timestamp");
                    let write = |(key, _, value): &(&str, &str, String)| {
                        format!("{}:{}", text(key), if bare(key) { value.clone() } else { text(value) })
                    };
                    let top = top.map(|url| format!("{}:{},", text("url"), text(&url))).unwrap_or_default();
                    let build = build.iter().map(write).collect::<Vec<_>>().join(" ,");
                    format!(r#"{{"name":"main",{top}"build":{{{build}}}}}"#)
                } else {
                    let element =
                        |key: &str, value: &str| format!("<{key}>{}</{key}>", quick_xml::escape::escape(value));
                    let top = top.map(|url| element("url", &url)).unwrap_or_default();
                    let build: String = build.iter().map(|(_, key, value)| element(key, value)).collect();
                    format!("<job><name>main</name>{top}<build>{build}</build></job>")
                }
            },
        )
    }

    proptest! {
        /// For all documents, cut anywhere: what is left tells of the same build or of none.
        #[test]
        fn a_cut_never_makes_another_build(document in document()) {
            let whole = read(document.as_bytes(), Extent::Whole);
            prop_assert_eq!(read(document.as_bytes(), Extent::CutOff), whole.clone());
            for cut in 0..document.len() {
                let part = read(&document.as_bytes()[..cut], Extent::CutOff);
                match (&whole, part) {
                    (_, Err(error)) => prop_assert!(
                        matches!(error, PayloadError::Empty | PayloadError::CutOff { .. } | PayloadError::WrongKind { .. }),
                        "cut at {}: {}", cut, error
                    ),
                    (Ok(Reading::Report(whole)), Ok(Reading::Report(part))) => {
                        prop_assert_eq!((&part.job, part.number, part.progress), (&whole.job, whole.number, whole.progress));
                        prop_assert!(part.created.is_none_or(|created| Some(created) == whole.created));
                    }
                    (whole, part) => prop_assert_eq!(part.as_ref(), whole.as_ref(), "cut at {}", cut),
                }
            }
        }
    }
}
