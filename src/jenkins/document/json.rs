//! JSON, in one pass over the text, into whatever collects the fields of one sender. Pure.
//!
//! Values that are not needed are skipped without being built or unescaped, whatever their kind, size and depth:
//! `serde_json` skips in a loop, not by recursion. Values that are needed are at most three objects deep.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::value::Value;
use super::{Extent, Format, PayloadError};

/// What a key means in its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jenkins) enum Meaning<Section, Slot> {
    Field(Slot),
    Section(Section),
    Unneeded,
}

/// Collects the fields of a document. A section is an object that has fields of its own.
pub(in crate::jenkins) trait Collector<'a> {
    type Section: Copy;
    type Slot: Copy;

    fn meaning_of(section: Self::Section, key: &str) -> Meaning<Self::Section, Self::Slot>;

    /// A section begins, as the object that it should be or as something else.
    fn open(&mut self, section: Self::Section, is_object: bool);

    fn fill(&mut self, slot: Self::Slot, value: Value<'a>);
}

/// Whether the document came to its end. `section` is the outermost one.
pub(in crate::jenkins) fn read<'a, C: Collector<'a>>(
    text: &'a str,
    extent: Extent,
    section: C::Section,
    into: &mut C,
) -> Result<bool, PayloadError> {
    let text = match extent {
        Extent::Whole => text,
        // `42` may have been `4259`: of a number at the very end there is no telling whether it is all of it.
        Extent::CutOff => {
            text.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        }
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = Object { section, into }.deserialize(&mut deserializer);
    match outcome.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(true),
        Err(error) if error.is_eof() && extent == Extent::CutOff => Ok(false),
        Err(error) => Err(PayloadError::Syntax { format: Format::Json, line: error.line(), column: error.column() }),
    }
}

/// One section, wherever it stands.
struct Object<'c, S, C> {
    section: S,
    into: &'c mut C,
}

impl<'de, C: Collector<'de>> DeserializeSeed<'de> for Object<'_, C::Section, C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, C: Collector<'de>> Visitor<'de> for Object<'_, C::Section, C> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { section, into } = self;
        into.open(section, true);
        while let Some(meaning) = map.next_key_seed(Key::<C>(section))? {
            match meaning {
                Meaning::Field(slot) => {
                    let raw: &'de RawValue = map.next_value()?;
                    into.fill(slot, value(raw.get()));
                }
                Meaning::Section(section) => map.next_value_seed(Object { section, into: &mut *into })?,
                Meaning::Unneeded => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    /// Null is absence.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.into.open(self.section, false);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.into.open(self.section, false);
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.into.open(self.section, false);
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.into.open(self.section, false);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.into.open(self.section, false);
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.into.open(self.section, false);
        Ok(())
    }
}

/// A key, read without being kept.
struct Key<'a, C: Collector<'a>>(C::Section);

impl<'de, 'a, C: Collector<'a>> DeserializeSeed<'de> for Key<'a, C> {
    type Value = Meaning<C::Section, C::Slot>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'a, C: Collector<'a>> Visitor<'_> for Key<'a, C> {
    type Value = Meaning<C::Section, C::Slot>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(C::meaning_of(self.0, key))
    }
}

/// What one JSON value says. It is kept as it was written until here, so that a number out of all range
/// (`1e400`) is a wrong number and not the end of the document.
fn value(raw: &str) -> Value<'_> {
    match raw.as_bytes() {
        b"null" => Value::Absent,
        [b'"', ..] if !raw.contains('\\') => Value::text(Cow::Borrowed(raw.trim_matches('"'))),
        [b'"', ..] => serde_json::from_str(raw).map_or(Value::Other, |text| Value::text(Cow::Owned(text))),
        [b'-' | b'0'..=b'9', ..] => Value::text(Cow::Borrowed(raw)),
        b"true" => Value::Truth(true),
        b"false" => Value::Truth(false),
        _ => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::build::{BuildReport, Progress};
    use crate::jenkins::document::{self, Extent, Format, PayloadError, Reading};

    fn read(body: impl AsRef<[u8]>) -> Result<Reading, PayloadError> {
        document::read(body.as_ref(), Extent::Whole).map(|document| document.reading)
    }

    fn report(body: impl AsRef<[u8]>) -> BuildReport {
        match read(body.as_ref()) {
            Ok(Reading::Report(report)) => *report,
            other => panic!("{other:?} from {}", String::from_utf8_lossy(body.as_ref())),
        }
    }

    #[test]
    fn what_is_optional_or_unneeded_may_be_of_any_kind() {
        let table = [
            r#""scm":null"#,
            r#""scm":"git""#,
            r#""scm":[{"branch":"main"}]"#,
            r#""scm":7"#,
            r#""scm":-7"#,
            r#""scm":7.5"#,
            r#""scm":true"#,
            r#""scm":{"branch":null,"commit":{}}"#,
            r#""scm":{"branch":["main"],"commit":false}"#,
            r#""timestamp":null,"duration":null"#,
            r#""timestamp":{},"duration":[]"#,
            r#""timestamp":1e400,"duration":-1e400"#,
            r#""timestamp":99999999999999999999,"duration":"soon""#,
            r#""timestamp":"","duration":" ""#,
            r#""node_name":"","full_url":" ""#,
        ];
        for fields in table {
            let given = report(format!(r#"{{"url":"job/a/","build":{{{fields},"number":1,"phase":"STARTED"}}}}"#));
            assert_eq!((given.number, given.created, given.duration), (1, None, None), "{fields}");
            assert_eq!((given.scm_branch, given.commit, given.node, given.link), (None, None, None, None), "{fields}");
        }
    }

    #[test]
    fn a_number_is_a_number_in_quotes_too() {
        let table = [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("\" 7 \"", Some(7)),
            ("7.0", Some(7)),
            ("4294967295", Some(4_294_967_295)),
            ("0", None),
            ("-7", None),
            ("7.5", None),
            ("7e3", None),
            ("1e400", None),
            ("4294967296", None),
            ("99999999999999999999", None),
            ("\"seven\"", None),
            ("\"\\ud800\"", None),
            ("true", None),
            ("{}", None),
            ("[7]", None),
        ];
        for (number, expected) in table {
            let given = read(format!(r#"{{"url":"job/a/","build":{{"number":{number},"phase":"STARTED"}}}}"#));
            match (given, expected) {
                (Ok(Reading::Report(given)), Some(expected)) => assert_eq!(given.number, expected),
                (Err(PayloadError::WrongKind { field: "build.number", .. }), None) => {}
                (given, _) => panic!("{number}: {given:?}"),
            }
        }
    }

    #[test]
    fn the_first_of_two_values_that_says_something_stays() {
        let given = report(
            r#"{"build":null,"url":"","url":"job/a/","url":"job/b/","build":{"number":null,"number":1,"number":2,
                "phase":"STARTED"},"build":{"number":3,"phase":"FINALIZED","status":"FAILURE"}}"#,
        );
        assert_eq!((given.job.as_str(), given.number, given.progress), ("a", 1, Progress::Running));
    }

    #[test]
    fn escapes_are_resolved_once() {
        let given = report(
            r#"{"\u0075rl":"job\/a\u0026b%2520c\/","build":{"number":1,"phase":"STARTED",
                "scm":{"branch":"origin\/\u00e9\"\\"}}}"#,
        );
        assert_eq!((given.job.as_str(), given.scm_branch.as_deref()), ("a&b%20c", Some("é\"\\")));
    }

    #[test]
    fn a_log_that_is_not_utf_8_costs_nothing() {
        let given = report(b"{\"url\":\"job/a/\",\"build\":{\"number\":1,\"phase\":\"STARTED\",\"log\":\"\xFF\xC3\"}}");
        assert_eq!(given.job.as_str(), "a");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = 400_000;
        let body = format!(
            r#"{{"x":{}{},"url":"job/a/","build":{{"number":1,"phase":"STARTED"}}}}"#,
            "[".repeat(deep),
            "]".repeat(deep)
        );
        assert_eq!(report(&body).job.as_str(), "a");
        let nested = format!(r#"{{"build":{}"#, r#"{"build":{"scm":"#.repeat(100_000));
        assert!(matches!(read(nested), Err(PayloadError::Syntax { .. })));
    }

    #[test]
    fn an_error_says_where_and_not_what() {
        let table = [
            ("{\"url\":\n \"s3cret\x1b\" oops", 2, 8),
            ("{\"s3cret\":1,}", 1, 13),
            ("{} {\"s3cret\":1}", 1, 4),
            ("{s3cret", 1, 2),
            ("{\"s3cret", 1, 8),
            ("{", 1, 1),
        ];
        for (body, line, column) in table {
            let error = read(body).unwrap_err();
            assert_eq!(error, PayloadError::Syntax { format: Format::Json, line, column }, "{body:?}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
