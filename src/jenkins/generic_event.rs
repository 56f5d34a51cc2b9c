//! The Generic Event plugin's documents (`io.jenkins.plugins.generic.event`, all versions): one address for a whole
//! controller, of each build and of each item that comes, goes or moves. Pure.
//!
//! The keys of an event stand in alphabetical order, `data` before `source` and `type`: one that was cut off says too
//! little. What an event's own `url` says comes from the page on which somebody clicked, and is not used.

use chrono::DateTime;

use super::document::fields::Fields;
use super::document::{Extent, IgnoredBecause, PayloadError, Reading};
use super::{branch, url};
use crate::domain::build::{BuildReport, Created, Outcome, Progress, Timestamp};
use crate::domain::job::JobPath;
use crate::domain::removal::Removal;

pub(super) fn conclude(fields: &Fields<'_>, extent: Extent) -> Result<Reading, PayloadError> {
    match fields.required("type", extent)? {
        "run.initialize" | "run.started" => run(fields, extent, None),
        "run.completed" => run(fields, extent, Some(Progress::Completed)),
        "run.finalized" => run(fields, extent, Some(Progress::Finalized)),
        "run.deleted" => Ok(Reading::Ignored(IgnoredBecause::BuildDeleted)),
        "item.created" | "item.updated" => Ok(Reading::Ignored(IgnoredBecause::NotABuild)),
        "item.deleted" => removal(fields, extent, item(fields, extent)?, None),
        // A rename is a change of location too, and what lies in a folder that moves has an event each.
        "item.locationChanged" => {
            let from = path(fields.required("metaData.oldName", extent)?, "metaData.oldName", extent)?;
            let to = path(fields.required("metaData.newName", extent)?, "metaData.newName", extent)?;
            removal(fields, extent, from, Some(to))
        }
        _ => Ok(Reading::Ignored(IgnoredBecause::UnknownEvent)),
    }
}

/// `ended` makes the progress of a build that has come to its end; without it, it runs.
fn run(fields: &Fields<'_>, extent: Extent, ended: Option<fn(Outcome) -> Progress>) -> Result<Reading, PayloadError> {
    let target = url::target(fields.required("source", extent)?).ok_or(PayloadError::absent("source", extent))?;
    if target.is_part {
        return Ok(Reading::Ignored(IgnoredBecause::PartOfABuild));
    }
    let number = fields.build_number("data.number", extent)?;
    let progress = match ended {
        None => Progress::Running,
        Some(_) if extent == Extent::Whole && !fields.has("data.result") => {
            return Ok(Reading::Ignored(IgnoredBecause::NoResult));
        }
        Some(ended) => ended(Outcome::read(fields.required("data.result", extent)?)),
    };
    let job = target.job;
    Ok(BuildReport {
        // Pipelines tell it for certain (`WorkflowRunData`), other builds not at all.
        parent_holds: branch::parent_holds(&job, None, fields.get("data._multiBranch").as_truth()),
        // `Run.getTimeInMillis`, whatever the event.
        created: fields.get("data.timestamp").as_moment().map(Created::exactly),
        duration: fields.get("data.duration").as_duration(),
        // Of builds that run on one node as a whole (`AbstractBuild.getBuiltOnStr`).
        node: fields.get("data.builtOn").as_kept_text(),
        ..BuildReport::new(job, number, progress)
    }
    .into())
}

/// An item's full name (`AbstractItem.getFullName`), or its own in that of its parent.
fn item(fields: &Fields<'_>, extent: Extent) -> Result<JobPath, PayloadError> {
    if let Some(name) = fields.text("data.fullName") {
        return path(name, "data.fullName", extent);
    }
    let name = path(fields.required("data.name", extent)?, "data.fullName", extent)?;
    let parent = fields.text("source").and_then(url::job_path);
    Ok(parent.map_or(name.clone(), |parent| parent.child(name.as_str())))
}

fn path(name: &str, field: &'static str, extent: Extent) -> Result<JobPath, PayloadError> {
    JobPath::parse(name).map_err(|_| PayloadError::absent(field, extent))
}

fn removal(fields: &Fields<'_>, extent: Extent, path: JobPath, to: Option<JobPath>) -> Result<Reading, PayloadError> {
    let at = match (fields.text("time"), extent) {
        (Some(time), _) => moment(time),
        (None, Extent::Whole) => None,
        // It may have followed, and without it more would be taken for gone.
        (None, Extent::CutOff) => return Err(PayloadError::CutOff { field: "time" }),
    };
    Ok(Reading::Gone(Removal { path, to, at }))
}

/// `2022-02-06T13:48:15.333+0800` (`InstantProcessor`).
fn moment(time: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.f%#z").ok()?;
    Some(Timestamp::from_millis(time.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::projects::Source;
    use crate::domain::rules::Children;
    use crate::jenkins::document::{self, Document, Sender};

    fn read(body: &str) -> Result<Reading, PayloadError> {
        let Document { sender, reading } = document::read(body.as_bytes(), Extent::Whole)?;
        assert_eq!(sender, Sender::GenericEvent, "{body}");
        Ok(reading)
    }

    fn gone(body: &str) -> Removal {
        match read(body) {
            Ok(Reading::Gone(removal)) => removal,
            other => panic!("{other:?} from {body}"),
        }
    }

    fn job(path: &str) -> JobPath {
        JobPath::parse(path).unwrap()
    }

    #[test]
    fn a_moment_has_an_offset_in_any_spelling() {
        let table = [
            ("2022-02-06T13:48:15.333+0800", Some(1_644_126_495_333)),
            ("2022-02-06T13:48:15.333+08:00", Some(1_644_126_495_333)),
            ("2022-02-06T05:48:15.333+0000", Some(1_644_126_495_333)),
            ("2022-02-06T05:48:15Z", Some(1_644_126_495_000)),
            ("2022-02-06T05:48:15", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(moment(text), expected.map(Timestamp::from_millis), "{text}");
        }
    }

    #[test]
    fn each_kind_of_event_says_something_else_of_the_same_build() {
        let report = |kind: &str, result: &str| {
            read(&format!(
                r#"{{"data":{{"number":7,"result":{result},"timestamp":1644126495293}},
                    "source":"job/acme/job/web/","type":"{kind}"}}"#
            ))
        };
        let table = [
            ("run.initialize", "null", Progress::Running),
            ("run.started", "\"FAILURE\"", Progress::Running),
            ("run.completed", "\"FAILURE\"", Progress::Completed(Outcome::Failure)),
            ("run.finalized", "\"SUCCESS\"", Progress::Finalized(Outcome::Success)),
        ];
        for (kind, result, progress) in table {
            let created = Some(Created::exactly(Timestamp::from_millis(1_644_126_495_293)));
            let expected = BuildReport { created, ..BuildReport::new(job("acme/web"), 7, progress) };
            assert_eq!(report(kind, result), Ok(expected.into()), "{kind}");
        }
        let table = [
            ("run.completed", IgnoredBecause::NoResult),
            ("run.deleted", IgnoredBecause::BuildDeleted),
            ("item.created", IgnoredBecause::NotABuild),
            ("item.updated", IgnoredBecause::NotABuild),
            ("node.online", IgnoredBecause::UnknownEvent),
        ];
        for (kind, because) in table {
            assert_eq!(report(kind, "null"), Ok(Reading::Ignored(because)), "{kind}");
        }
    }

    #[test]
    fn what_is_told_of_the_parent_is_certain_both_ways_and_else_inferred() {
        let holds = |leaf: &str, told: &str| {
            let body = format!(
                r#"{{"data":{{{told}"number":7}},"source":"job/acme/job/web/job/{leaf}/","type":"run.started"}}"#
            );
            match read(&body) {
                Ok(Reading::Report(report)) => report.parent_holds,
                other => panic!("{other:?} from {body}"),
            }
        };
        let table = [
            ("main", r#""_multiBranch":true,"#, Some((Source::Told, Children::Branches))),
            ("PR-7", r#""_multiBranch":false,"#, Some((Source::Told, Children::Jobs))),
            ("PR-7", "", Some((Source::Inferred, Children::Branches))),
            ("PR-7", r#""_multiBranch":{},"#, Some((Source::Inferred, Children::Branches))),
            ("main", r#""_multiBranch":null,"#, None),
        ];
        for (leaf, told, expected) in table {
            assert_eq!(holds(leaf, told), expected, "{leaf} {told}");
        }
    }

    #[test]
    fn a_part_of_a_build_is_no_build_of_its_job() {
        for source in ["job/matrix/AXIS=a,B=b/", "job/maven/org.example$core/"] {
            let body =
                format!(r#"{{"data":{{"number":7,"result":"FAILURE"}},"source":"{source}","type":"run.completed"}}"#);
            assert_eq!(read(&body), Ok(Reading::Ignored(IgnoredBecause::PartOfABuild)), "{source}");
        }
    }

    #[test]
    fn an_item_that_goes_is_named_in_full() {
        let at = Some(Timestamp::from_millis(1_644_126_495_333));
        let table = [
            (
                r#"{"fullName":"acme/web/feature%2Fx","name":"feature%2Fx"}"#,
                "job/acme/job/web/",
                "acme/web/feature%2Fx",
            ),
            (r#"{"name":"web"}"#, "job/acme/", "acme/web"),
            (r#"{"name":"web"}"#, "", "web"),
        ];
        for (data, source, expected) in table {
            let body = format!(
                r#"{{"data":{data},"source":"{source}","time":"2022-02-06T13:48:15.333+0800","type":"item.deleted"}}"#
            );
            assert_eq!(gone(&body), Removal { path: job(expected), to: None, at }, "{data}");
        }
        let moved = gone(
            r#"{"data":{"fullName":"team/site"},"metaData":{"newName":"team/site","oldName":"acme/web"},"source":"job/team/",
                "time":"never","type":"item.locationChanged"}"#,
        );
        assert_eq!(moved, Removal { path: job("acme/web"), to: Some(job("team/site")), at: None });
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |field| Err(PayloadError::Missing { field });
        let table = [
            (r#"{"data":{"number":7}}"#, missing("type")),
            (r#"{"data":{"number":7},"type":"run.started"}"#, missing("source")),
            (r#"{"data":{"number":7},"source":"","type":"run.started"}"#, missing("source")),
            (r#"{"type":"run.started","source":"job/a/"}"#, missing("data.number")),
            (r#"{"data":{"name":"/"},"type":"item.deleted"}"#, missing("data.fullName")),
            (r#"{"data":{"fullName":"a"},"type":"item.locationChanged"}"#, missing("metaData.oldName")),
            (
                r#"{"data":{"number":[]},"source":"job/a/","type":"run.started"}"#,
                Err(PayloadError::WrongKind { field: "data.number", expected: "a text or a number" }),
            ),
        ];
        for (body, expected) in table {
            assert_eq!(read(body), expected, "{body}");
        }
    }
}
