//! How a record looks on disk: one byte for the version of the form, then the form.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::projects::Source;
use crate::domain::record::{JobRecord, past};
use crate::domain::rules::Children;
use crate::domain::sentry::record::SentryRecord;

/// The form that is written. All before it are read.
pub(super) const VERSION: u8 = 2;

/// What is stored, and how form 1 wrote it.
pub(super) trait Stored: Serialize + DeserializeOwned {
    type First: DeserializeOwned + Into<Self>;
}

impl Stored for JobRecord {
    type First = past::First;
}

impl Stored for (Source, Children) {
    type First = Self;
}

impl Stored for SentryRecord {
    type First = Self;
}

/// Why stored bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("it is written in form {0}, which this version of recoverd does not know: run the newer one that wrote it")]
    Version(u8),
    #[error("a damaged record")]
    Damaged(#[source] postcard::Error),
}

pub(super) fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    // Room for nearly every record at once.
    let mut bytes = Vec::with_capacity(512);
    bytes.push(VERSION);
    postcard::to_extend(value, bytes).map_err(CodecError::Damaged)
}

pub(super) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, form)) => postcard::from_bytes(form).map_err(CodecError::Damaged),
        Some((1, form)) => postcard::from_bytes::<T::First>(form).map(Into::into).map_err(CodecError::Damaged),
        Some((&version, _)) => Err(CodecError::Version(version)),
        None => Err(CodecError::Damaged(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::announcement::{Because, Level};
    use crate::domain::build::{Outcome, Timestamp, Webhook};
    use crate::domain::job::JobPath;
    use crate::domain::record::Closed;
    use crate::domain::rules::Policy;
    use crate::domain::sentry::record::{AlertRecord, Ended, IssueRecord, NoticeRecord, ProjectRecord};
    use crate::domain::sentry::tally::Tally;
    use crate::domain::sentry::{
        self, AlertReport, AlertState, AlertText, IssueReport, IssueState, IssueText, Notice, NoticeKind,
    };
    use crate::domain::status::Status;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Two branches' builds, as the version that wrote form 1 left them on disk: what it wrote, and not what is thought of it.
    const BRANCHES: &str = "01020b6665617475726525324678010280f3b284ce67000001b0e3b284ce67011e80cab5ee0102030\
                            46d61696e0101c0c9ab84ce67000001f0b9ab84ce67011e80cab5ee01010101";

    #[test]
    fn a_record_of_form_1_is_read_with_all_that_it_holds() {
        let record: JobRecord = decode(&bytes(&format!("{BRANCHES}02010080a99e85ce670000"))).unwrap();
        let level = Level::of(&record, Policy::usual()).unwrap();
        let because =
            Because::Build { branch: "feature%2Fx".to_owned(), number: 2, outcome: Outcome::Failure, node: None };
        assert_eq!((level.status, level.because), (Status::Critical, because));
        let announced = record.announced().unwrap();
        assert_eq!((announced.before, announced.confirmed), (Some(Status::Ok), false));
        let [build] = record.branch("main").unwrap().builds() else { panic!("{record:?}") };
        assert_eq!(build.created.latest, Timestamp::from_millis(1_780_000_060_000));
        assert_eq!(build.queued, Some(Timestamp::from_millis(1_780_000_059_000)));
        assert_eq!(build.duration, Some(Duration::from_millis(30_500)));
        assert_eq!(build.webhook, Webhook::Came, "there was no other way");
        let again = encode(&record).unwrap();
        assert_eq!(again[0], VERSION);
        assert_eq!(decode::<JobRecord>(&again).unwrap(), record);
    }

    #[test]
    fn a_closed_record_of_form_1_was_closed_when_that_was_announced() {
        let tail = "00010280a99e85ce670001050861636d652f6e6577";
        let record: JobRecord = decode(&bytes(&format!("{BRANCHES}{tail}"))).unwrap();
        assert_eq!(record.closed(), Some(&Closed::Renamed(JobPath::parse("acme/new").unwrap())));
        assert_eq!(record.closed_at(), Some(Timestamp::from_millis(1_780_001_000_000)));
    }

    #[test]
    fn what_a_parent_holds_is_written_as_ever() {
        let known: (Source, Children) = decode(&bytes("010000")).unwrap();
        assert_eq!(known, (Source::Inferred, Children::Branches));
        assert_eq!(encode(&known).unwrap(), bytes("020000"));
    }

    /// One of each kind, with a value in nearly every field.
    fn of_sentry() -> [SentryRecord; 4] {
        let (now, at) = (Timestamp::from_millis(1_790_000_000_000), Timestamp::from_millis(1_789_999_990_000));
        let text = |text: &str| Some(text.to_owned());
        let (project, title, culprit, link) =
            (text("web"), text("ValueError"), text("app.views"), text("https://s.test/1"));
        let about = IssueText {
            project: project.clone(),
            short_id: text("WEB-1"),
            level: Some(sentry::Level::Fatal),
            title: title.clone(),
            culprit: culprit.clone(),
            link: link.clone(),
        };
        let report = IssueReport { id: 1, state: IssueState::Open, action: "created", at, about };
        let mut issue = IssueRecord::new(&report, now);
        issue.announce(1, now);
        let mut tally = Tally::default();
        tally.put(1, &issue);
        issue.end(Ended::Merged(7), Some(now), now);
        issue.announce(1, now);
        let mut project_record = ProjectRecord::default();
        project_record.announce("web", &tally, now);
        let about =
            AlertText { name: text("p95"), projects: vec!["web".to_owned()], text: text("slow"), link: link.clone() };
        let report = AlertReport { rule: 7, identifier: 31, state: AlertState::Critical, at, about };
        let mut alert = AlertRecord::default();
        alert.take(&report, now);
        alert.announce(7, now);
        let (id, pod_name) = ("9ec7:5".to_owned(), text("web-1"));
        let notice = Notice {
            kind: NoticeKind::Comment,
            id,
            at,
            issue: Some(1),
            project,
            level: Some(sentry::Level::Info),
            title,
            culprit,
            link,
            rule: text("5"),
            pod_name,
            pod_namespace: text("shop"),
        };
        let notice = NoticeRecord { notice, touched: now, told: true };
        [
            SentryRecord::Issue(issue),
            SentryRecord::Project(project_record),
            SentryRecord::Alert(alert),
            SentryRecord::Notice(notice),
        ]
    }

    /// Whoever changes a field finds it here, and needs a new form: or else what is stored would be passed over as damaged.
    #[test]
    fn what_sentry_told_is_written_as_ever() {
        let written = [
            "02000280b083c5986880b083c59868010377656201055745422d310105010a56616c75654572726f7201096170702e766965\
             7773011068747470733a2f2f732e746573742f310101070100010280b083c5986800010377656201055745422d3100",
            "020101000001020080b083c598680001037765620000",
            "0202011fe09382c598680380b083c59868e09382c59868010370393501037765620104736c6f77011068747470733a2f2f73\
             2e746573742f3101020080b083c598680000010370393500",
            "02030206396563373a35e09382c59868010101037765620102010a56616c75654572726f7201096170702e76696577730110\
             68747470733a2f2f732e746573742f3101013501057765622d31010473686f7080b083c5986801",
        ];
        for (record, written) in of_sentry().iter().zip(written) {
            assert_eq!(encode(record).unwrap(), bytes(written), "{record:?}");
            assert_eq!(decode::<SentryRecord>(&bytes(written)).unwrap(), *record);
        }
    }

    #[test]
    fn a_newer_form_is_refused_and_what_is_none_is_damaged() {
        assert!(matches!(decode::<JobRecord>(&[VERSION + 1, 0, 0]), Err(CodecError::Version(_))));
        for damaged in [&[][..], &[0], &[1], &[VERSION], &[1, 0xff]] {
            let error = decode::<JobRecord>(damaged).unwrap_err();
            let expected = damaged.first() == Some(&0);
            assert_eq!(matches!(error, CodecError::Version(_)), expected, "{damaged:?}");
        }
    }
}
