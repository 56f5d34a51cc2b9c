//! The Outbound `WebHook` plugin's documents (`outbound-webhook`): which build, and one word for what became of it. Pure.

use super::document::fields::Fields;
use super::document::{Extent, IgnoredBecause, PayloadError, Reading};
use super::{branch, url};
use crate::domain::build::{BuildReport, Outcome, Progress};

pub(super) fn conclude(fields: &Fields<'_>, extent: Extent) -> Result<Reading, PayloadError> {
    let progress = match fields.required("event", extent)? {
        "start" => Progress::Running,
        word @ ("success" | "failure" | "unstable") => Progress::Completed(Outcome::read(word)),
        _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownEvent)),
    };
    // The number is in the URL alone: a build may be called anything.
    let target = url::target(fields.required("buildUrl", extent)?);
    let wrong = PayloadError::WrongKind { field: "buildUrl", expected: "a build's URL" };
    let (job, number) = target.and_then(|target| Some((target.job, target.build?))).ok_or(wrong)?;
    Ok(BuildReport {
        parent_holds: branch::parent_holds(&job, None, None),
        link: fields.get("buildUrl").as_link(),
        ..BuildReport::new(job, number, progress)
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::JobPath;
    use crate::jenkins::document::{self, Document, Sender};

    #[test]
    fn an_event_is_a_start_a_result_or_nothing_of_ours() {
        let read = |event: &str, url: &str| {
            let body =
                format!(r##"{{"buildName":"#16","buildUrl":{url:?},"event":"{event}","projectName":"test job"}}"##);
            document::read(body.as_bytes(), Extent::Whole)
        };
        let url = "http://h/jenkins/job/acme/job/test%20job/16/";
        let table = [
            ("start", Progress::Running),
            ("success", Progress::Completed(Outcome::Success)),
            ("failure", Progress::Completed(Outcome::Failure)),
            ("unstable", Progress::Completed(Outcome::Unstable)),
        ];
        for (event, progress) in table {
            let link = Some(url.to_owned());
            let report =
                BuildReport { link, ..BuildReport::new(JobPath::parse("acme/test job").unwrap(), 16, progress) };
            let expected = Document { sender: Sender::OutboundWebhook, reading: report.into() };
            assert_eq!(read(event, url), Ok(expected), "{event}");
        }
        let unknown = read("pipeline", url).map(|document| document.reading);
        assert_eq!(unknown, Ok(Reading::Ignored(IgnoredBecause::UnknownEvent)));
        for url in ["", "http://h/", "http://h/job/acme/", "http://h/job/acme/AXIS=a/16/"] {
            assert!(read("success", url).is_err(), "{url}");
        }
    }
}
