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
