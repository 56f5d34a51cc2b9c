//! The Statistics Gatherer plugin's documents (`org.jenkins.plugins.statistics.gatherer`, 1.0 to 2.0): one address for a
//! whole controller. Of a build it tells the start, with the node, and the end, without it. Pure.

use super::document::fields::Fields;
use super::document::{Extent, IgnoredBecause, PayloadError, Reading};
use super::{branch, url};
use crate::domain::build::{BuildReport, Created, Outcome, Progress};
use crate::domain::job::JobPath;
use crate::domain::removal::Removal;

pub(super) fn conclude(fields: &Fields<'_>, extent: Extent) -> Result<Reading, PayloadError> {
    let is_build = fields.has("number") || fields.has("fullJobName") || fields.has("result");
    // What tells of a build deletes no job, whatever else it says behind that.
    if let Some(status) = fields.text("status").filter(|_| !is_build) {
        return item(fields, status, extent);
    }
    if extent == Extent::Whole && !is_build {
        return Ok(Reading::Ignored(IgnoredBecause::NotABuild));
    }
    let target = fields.text("buildUrl").and_then(url::target);
    if target.as_ref().is_some_and(|target| target.is_part) {
        return Ok(Reading::Ignored(IgnoredBecause::PartOfABuild));
    }
    let name = fields.text("fullJobName").and_then(|name| JobPath::parse(name).ok());
    let job = name.or(target.map(|target| target.job)).ok_or(PayloadError::absent("fullJobName", extent))?;
    let number = fields.build_number("number", extent)?;
    let result = fields.required("result", extent)?;
    let has_ended = !result.eq_ignore_ascii_case("INPROGRESS");
    let duration = fields.get("duration").as_duration().filter(|_| has_ended);
    let created = if has_ended {
        // The moment of sending. A start in the same document is that moment too (`BuildStats`), and no start.
        let sent = fields.get("endTime").as_moment();
        sent.map(|sent| match duration {
            Some(duration) => Created::at_most(Created::AFTER_COMPLETION, sent.minus(duration)),
            None => Created::at_most(Created::LONGEST_BUILD, sent),
        })
    } else {
        fields.get("startTime").as_moment().map(Created::exactly)
    };
    let scm_branch = fields.text("scmInfo.branch").map(|name| branch::without_remote(name, &job));
    Ok(BuildReport {
        parent_holds: branch::parent_holds(&job, scm_branch, None),
        created,
        duration,
        scm_branch: scm_branch.map(super::document::value::capped),
        commit: fields.get("scmInfo.commit").as_kept_text(),
        node: fields.get("slaveInfo.slaveName").as_kept_text(),
        ..BuildReport::new(
            job,
            number,
            if has_ended { Progress::Finalized(Outcome::read(result)) } else { Progress::Running },
        )
    }
    .into())
}

/// Of items only the end counts, and only since the plugin tells their address.
fn item(fields: &Fields<'_>, status: &str, extent: Extent) -> Result<Reading, PayloadError> {
    if !status.eq_ignore_ascii_case("DELETED") {
        return Ok(Reading::Ignored(IgnoredBecause::NotABuild));
    }
    match (fields.text("jobUrl").and_then(url::job_path), fields.get("updatedDate").as_moment(), extent) {
        (Some(path), at @ Some(_), _) | (Some(path), at, Extent::Whole) => {
            Ok(Reading::Gone(Removal { path, to: None, at }))
        }
        (None, _, Extent::Whole) => Ok(Reading::Ignored(IgnoredBecause::NotABuild)),
        (_, _, Extent::CutOff) => Err(PayloadError::CutOff { field: "jobUrl" }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::build::Timestamp;
    use crate::jenkins::document::{self, Document, Sender};

    fn read(body: &str) -> Result<Reading, PayloadError> {
        let Document { sender, reading } = document::read(body.as_bytes(), Extent::Whole)?;
        assert_eq!(sender, Sender::StatisticsGatherer, "{body}");
        Ok(reading)
    }

    fn report(body: &str) -> BuildReport {
        match read(body) {
            Ok(Reading::Report(report)) => *report,
            other => panic!("{other:?} from {body}"),
        }
    }

    #[test]
    fn a_start_tells_when_and_an_end_how_long() {
        let sent = Timestamp::from_millis(1_750_000_090_000);
        let exactly = Some(Created::exactly(sent));
        let at_most = |slack, before| Some(Created::at_most(slack, before));
        let minute = Duration::from_mins(1);
        let table = [
            (r#""result":"INPROGRESS","startTime":1750000090000,"endTime":1750000099000"#, exactly),
            (r#""result":"INPROGRESS","startTime":1750000090"#, exactly),
            (
                r#""result":"FAILURE","startTime":1750000090000,"endTime":1750000090000,"duration":60000"#,
                at_most(Created::AFTER_COMPLETION, sent.minus(minute)),
            ),
            (r#""result":"FAILURE","endTime":1750000090000,"duration":0"#, at_most(Created::LONGEST_BUILD, sent)),
            (r#""result":"FAILURE""#, None),
        ];
        for (fields, expected) in table {
            let body = format!(r#"{{"fullJobName":"acme/web","number":7,{fields}}}"#);
            assert_eq!(report(&body).created, expected, "{fields}");
        }
    }

    #[test]
    fn what_tells_of_a_build_deletes_no_job() {
        let item = r#""ciUrl":"https://ci.example.org/","status":"DELETED","jobUrl":"job/acme/job/web/","updatedDate":1750000090000"#;
        assert!(matches!(read(&format!("{{{item}}}")), Ok(Reading::Gone(_))));
        let both = report(&format!(r#"{{"fullJobName":"acme/web","number":7,"result":"SUCCESS",{item}}}"#));
        assert_eq!((both.job.as_str(), both.number), ("acme/web", 7));
    }

    #[test]
    fn the_job_is_its_full_name_or_what_the_builds_url_says() {
        let table = [
            (r#""fullJobName":"acme/web/feature%2Fx","buildUrl":"aUrl""#, "acme/web/feature%2Fx"),
            (r#""jobName":"web","buildUrl":"job/acme/job/web/7/""#, "acme/web"),
            (r#""fullJobName":"","buildUrl":"job/acme/job/web/7/","ciUrl":"http://h/""#, "acme/web"),
        ];
        for (fields, expected) in table {
            let body = format!(r#"{{{fields},"number":7,"result":"SUCCESS"}}"#);
            assert_eq!(report(&body).job.as_str(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_no_build_is_let_go_by() {
        let table = [
            r#"{"entryTime":1469455391674,"jenkinsQueueId":1,"jobName":"a","queueCauses":[],"ciUrl":"http://h/"}"#,
            r#"{"startedBy":"SCM","status":"LEFT","jobName":"a","ciUrl":"http://h/","jenkinsQueueId":1}"#,
            r#"{"startTime":1469453903,"endTime":0,"buildStepType":"x","buildStepId":"x@1","buildUrl":"job/a/7/"}"#,
            r#"{"startTime":1469453903,"endTime":0,"buildUrl":"job/a/7/"}"#,
            r#"{"name":"a","createdDate":1469455391674,"ciUrl":"http://h/","status":"ACTIVE","configFile":"<x/>"}"#,
            // Which job of that name it was, nobody knows.
            r#"{"name":"a","updatedDate":1469455391674,"ciUrl":"http://h/","status":"DELETED"}"#,
        ];
        for body in table {
            assert_eq!(read(body), Ok(Reading::Ignored(IgnoredBecause::NotABuild)), "{body}");
        }
        let part = r#"{"fullJobName":"matrix/AXIS=a","buildUrl":"job/matrix/AXIS=a/7/","number":7,"result":"FAILURE"}"#;
        assert_eq!(read(part), Ok(Reading::Ignored(IgnoredBecause::PartOfABuild)));
    }

    #[test]
    fn a_deleted_job_is_gone() {
        let body = r#"{"name":"web","jobUrl":"job/acme/job/web/","updatedDate":1750000090000,"ciUrl":"http://h/",
            "status":"DELETED"}"#;
        let at = Some(Timestamp::from_millis(1_750_000_090_000));
        let expected = Removal { path: JobPath::parse("acme/web").unwrap(), to: None, at };
        assert_eq!(read(body), Ok(Reading::Gone(expected)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = [
            (r#"{"ciUrl":"http://h/","number":7,"result":"SUCCESS"}"#, "fullJobName"),
            (r#"{"fullJobName":"a","result":"SUCCESS"}"#, "number"),
            (r#"{"fullJobName":"a","number":7}"#, "result"),
        ];
        for (body, field) in table {
            assert_eq!(read(body), Err(PayloadError::Missing { field }), "{body}");
        }
    }
}
