//! Our own documents, for a step at the end of a Pipeline (`post { always { … } }`) or of any script: JSON, or a form as
//! `curl --data-urlencode` writes it, which needs no quoting. README documents the fields. Pure.

use std::borrow::Cow;

// The crate, and not our own room of addresses.
use ::url::form_urlencoded;

use super::document::fields::Fields;
use super::document::json::Collector as _;
use super::document::value::{Value, capped};
use super::document::{Extent, PayloadError, Reading};
use super::{branch, url};
use crate::domain::build::{BuildReport, Created, Outcome, Progress};
use crate::domain::job::JobPath;

/// Every field, in the order of README.
pub const FIELDS: [&str; 10] =
    ["job", "url", "number", "result", "timestamp", "duration", "branch", "multibranch", "commit", "node"];

/// What stands for a build that has begun and has no result yet.
const BEGUN: [&str; 3] = ["RUNNING", "STARTED", "INPROGRESS"];

pub(super) fn conclude(fields: &Fields<'_>, extent: Extent) -> Result<Reading, PayloadError> {
    let absent = |error| match error {
        PayloadError::Missing { field } => PayloadError::MissingInStep { field },
        other => other,
    };
    let job = job(fields, extent).map_err(absent)?;
    let number = fields.build_number("number", extent).map_err(absent)?;
    let result = fields.required("result", extent).map_err(absent)?;
    let has_begun = BEGUN.iter().any(|word| result.eq_ignore_ascii_case(word));
    // The build is not quite at its end yet: whoever tells more of it later is right.
    let progress = if has_begun { Progress::Running } else { Progress::Completed(Outcome::read(result)) };
    let scm_branch = fields.text("branch").map(|name| branch::without_remote(name, &job));
    Ok(BuildReport {
        parent_holds: branch::parent_holds(&job, scm_branch, fields.get("multibranch").as_truth()),
        created: fields.get("timestamp").as_moment().map(Created::exactly),
        duration: fields.get("duration").as_duration().filter(|_| !has_begun),
        scm_branch: scm_branch.map(capped),
        commit: fields.get("commit").as_kept_text(),
        node: fields.get("node").as_kept_text(),
        link: fields.get("url").as_link(),
        ..BuildReport::new(job, number, progress)
    }
    .into())
}

/// `JOB_NAME` is the full name of a job, as it is on disk.
fn job(fields: &Fields<'_>, extent: Extent) -> Result<JobPath, PayloadError> {
    if let Some(job) = fields.text("job").and_then(|name| JobPath::parse(name).ok()) {
        return Ok(job);
    }
    fields.text("url").and_then(url::job_path).ok_or(PayloadError::absent("job", extent))
}

/// Whether a body is a form, by the name that it begins with.
pub(super) fn is_form(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| FIELDS.contains(&name))
}

pub(super) fn read_form(text: &str, extent: Extent) -> Result<Reading, PayloadError> {
    let text = match extent {
        Extent::Whole => text,
        // The last value may go on.
        Extent::CutOff => text.rsplit_once('&').map_or("", |(before, _)| before),
    };
    let mut fields = Fields::default();
    for (name, value) in form_urlencoded::parse(text.trim_ascii_end().as_bytes()) {
        if let Some(field) = FIELDS.iter().find(|field| **field == name) {
            fields.fill(field, Value::text(Cow::Owned(value.into_owned())));
        }
    }
    conclude(&fields, extent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::build::Timestamp;
    use crate::domain::projects::Source;
    use crate::domain::rules::Children;
    use crate::jenkins::document::{self, Document, Sender};

    fn read(body: &str) -> Result<Reading, PayloadError> {
        let Document { sender, reading } = document::read(body.as_bytes(), Extent::Whole)?;
        assert_eq!(sender, Sender::Step, "{body}");
        Ok(reading)
    }

    fn report(body: &str) -> BuildReport {
        match read(body) {
            Ok(Reading::Report(report)) => *report,
            other => panic!("{other:?} from {body}"),
        }
    }

    fn full() -> BuildReport {
        let job = JobPath::parse("acme/web/feature%2Fx").unwrap();
        BuildReport {
            parent_holds: Some((Source::Told, Children::Branches)),
            created: Some(Created::exactly(Timestamp::from_millis(1_750_000_000_000))),
            duration: Some(Duration::from_secs(90)),
            scm_branch: Some("feature/x".to_owned()),
            commit: Some("89abcdef".to_owned()),
            node: Some("linux 7".to_owned()),
            link: Some("https://ci.example.org/job/acme/job/web/job/feature%252Fx/7/".to_owned()),
            ..BuildReport::new(job, 7, Progress::Completed(Outcome::Unstable))
        }
    }

    #[test]
    fn json_and_a_form_say_the_same() {
        let json = r#"{"job":"acme/web/feature%2Fx","number":"7","result":"UNSTABLE","timestamp":1750000000000,
            "duration":90000,"branch":"feature/x","multibranch":true,"commit":"89abcdef","node":"linux 7",
            "url":"https://ci.example.org/job/acme/job/web/job/feature%252Fx/7/"}"#;
        assert_eq!(report(json), full());
        let form = "job=acme%2Fweb%2Ffeature%252Fx&number=7&result=unstable&timestamp=1750000000&duration=90000\
            &branch=feature%2Fx&multibranch=true&commit=89abcdef&node=linux+7\
            &url=https%3A%2F%2Fci.example.org%2Fjob%2Facme%2Fjob%2Fweb%2Fjob%2Ffeature%25252Fx%2F7%2F\n";
        assert_eq!(report(form), full());
    }

    #[test]
    fn the_shortest_says_which_build_and_how_it_ended() {
        let plain = |job: &str, progress| BuildReport::new(JobPath::parse(job).unwrap(), 7, progress);
        let failed = Progress::Completed(Outcome::Failure);
        let table = [
            (r#"{"job":"acme/web","number":7,"result":"FAILURE"}"#, plain("acme/web", failed)),
            (r#"{"job":"acme/web","number":7,"result":"failed","branch":null,"node":""}"#, plain("acme/web", failed)),
            (r#"{"job":"acme/web","number":7,"result":"RUNNING","duration":5}"#, plain("acme/web", Progress::Running)),
            ("number=7&result=FAILURE&job=acme/web", plain("acme/web", failed)),
            ("result=Started&number=7&job=acme/web&other=x", plain("acme/web", Progress::Running)),
            (
                r#"{"url":"job/acme/job/web/7/","number":7,"result":"WOBBLY"}"#,
                plain("acme/web", Progress::Completed(Outcome::Unknown)),
            ),
        ];
        for (body, expected) in table {
            assert_eq!(report(body), expected, "{body}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_needed() {
        let missing = |field| PayloadError::MissingInStep { field };
        let table = [
            (r#"{"job":"a"}"#, missing("number")),
            (r#"{"job":"a","number":7}"#, missing("result")),
            (r#"{"job":"a","number":7,"result":""}"#, missing("result")),
            (r#"{"number":7,"result":"SUCCESS"}"#, missing("job")),
            (r#"{"job":"/","number":7,"result":"SUCCESS"}"#, missing("job")),
            ("job=a&number=7", missing("result")),
            (
                "job=a&number=seven&result=SUCCESS",
                PayloadError::WrongKind { field: "number", expected: "a build's number" },
            ),
        ];
        for (body, expected) in table {
            assert_eq!(read(body), Err(expected), "{body}");
        }
    }

    #[test]
    fn of_a_form_that_was_cut_off_the_last_value_is_not_believed() {
        let cut = |body: &str| document::read(body.as_bytes(), Extent::CutOff).map(|document| document.reading);
        let ended = BuildReport::new(JobPath::parse("a").unwrap(), 7, Progress::Completed(Outcome::Failure));
        assert_eq!(cut("job=a&number=7&result=FAILURE&node=li"), Ok(ended.into()));
        assert_eq!(cut("job=a&number=7&result=FAILURE"), Err(PayloadError::CutOff { field: "result" }));
        assert_eq!(cut("job=a&result=FAILURE&number=7"), Err(PayloadError::CutOff { field: "number" }));
    }
}
