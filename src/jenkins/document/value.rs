//! One value of a document, and what it says as a number, a moment or a span of time. Pure.

use std::borrow::Cow;
use std::time::Duration;

use super::{Extent, PayloadError};
use crate::domain::build::Timestamp;

/// One value, as its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::jenkins) enum Value<'a> {
    /// Missing, null or blank.
    #[default]
    Absent,
    /// Not blank. A number is its digits: some senders quote them, and XML and forms know no kinds.
    Text(Cow<'a, str>),
    Truth(bool),
    /// An object or a list.
    Other,
}

impl<'a> Value<'a> {
    pub(in crate::jenkins) fn text(text: Cow<'a, str>) -> Self {
        let trimmed = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        if trimmed.is_empty() { Self::Absent } else { Self::Text(trimmed) }
    }

    pub(in crate::jenkins) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Truth(_) | Self::Other => None,
        }
    }

    /// # Errors
    /// When nothing is there, or nothing that could be a text.
    pub(in crate::jenkins) fn required(&self, field: &'static str, extent: Extent) -> Result<&str, PayloadError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Absent => Err(PayloadError::absent(field, extent)),
            Self::Truth(_) | Self::Other => Err(PayloadError::WrongKind { field, expected: "a text or a number" }),
        }
    }

    /// # Errors
    /// When nothing is there, or not the number of a build.
    pub(in crate::jenkins) fn required_build_number(
        &self,
        field: &'static str,
        extent: Extent,
    ) -> Result<u64, PayloadError> {
        self.required(field, extent)?;
        self.as_build_number().ok_or(PayloadError::WrongKind { field, expected: "a build's number" })
    }

    pub(in crate::jenkins) fn as_integer(&self) -> Option<i64> {
        let text = self.as_text()?;
        text.strip_suffix(".0").unwrap_or(text).parse().ok()
    }

    /// Jenkins counts builds in a Java `int`, from 1.
    pub(in crate::jenkins) fn as_build_number(&self) -> Option<u64> {
        self.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0).map(u64::from)
    }

    pub(in crate::jenkins) fn as_truth(&self) -> Option<bool> {
        match self {
            Self::Truth(truth) => Some(*truth),
            Self::Text(text) => text.parse().ok(),
            Self::Absent | Self::Other => None,
        }
    }

    /// A moment in milliseconds since the Unix epoch, or in seconds, as a shell's `date +%s` says: what would be before
    /// March 1973 as milliseconds is seconds.
    pub(in crate::jenkins) fn as_moment(&self) -> Option<Timestamp> {
        let number = self.as_integer()?;
        let millis = if number < 100_000_000_000 { number.checked_mul(1000)? } else { number };
        Some(Timestamp::from_millis(millis)).filter(|moment| is_plausible(*moment))
    }

    /// A span of time in milliseconds.
    pub(in crate::jenkins) fn as_duration(&self) -> Option<Duration> {
        self.as_integer().and_then(plausible_duration)
    }

    /// Not longer than what may be kept.
    pub(in crate::jenkins) fn as_kept_text(&self) -> Option<String> {
        self.as_text().map(capped)
    }

    /// A link for people.
    pub(in crate::jenkins) fn as_link(&self) -> Option<String> {
        self.as_text().filter(|link| is_link(link)).map(str::to_owned)
    }
}

/// After 1970, and before the year 2200: what is later is no time, but perhaps nanoseconds.
pub(in crate::jenkins) fn is_plausible(moment: Timestamp) -> bool {
    const LATEST: Timestamp = Timestamp::from_millis(7_258_118_400_000);
    moment.as_millis() > 0 && moment <= LATEST
}

/// No build runs for a year.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Zero means that the build is still running, or that the plugin is older than 1.15.
fn plausible_duration(millis: i64) -> Option<Duration> {
    let duration = Duration::from_millis(u64::try_from(millis).ok()?);
    (!duration.is_zero() && duration <= LONGEST).then_some(duration)
}

const LONGEST_TEXT: usize = 1024;
const LONGEST_LINK: usize = 2048;

pub(in crate::jenkins) fn capped(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or(text).to_owned()
}

/// A cut link leads elsewhere, so a long one is none.
fn is_link(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= LONGEST_LINK
        && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_more_than_nothing_and_less_than_a_year() {
        let table = [
            (1, Some(Duration::from_millis(1))),
            (90_000, Some(Duration::from_secs(90))),
            (0, None),
            (-1, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ];
        for (millis, expected) in table {
            assert_eq!(plausible_duration(millis), expected, "{millis}");
        }
    }

    #[test]
    fn a_moment_is_told_in_milliseconds_or_in_seconds() {
        let table = [
            ("1750000090000", Some(1_750_000_090_000)),
            ("1750000090", Some(1_750_000_090_000)),
            ("1.0", Some(1_000)),
            ("0", None),
            ("-1750000090000", None),
            ("1750000090000000000", None),
            ("-9223372036854775808", None),
            ("9223372036854775807", None),
            ("soon", None),
        ];
        for (text, expected) in table {
            let moment = Value::text(text.into()).as_moment();
            assert_eq!(moment, expected.map(Timestamp::from_millis), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_a_long_link_is_none() {
        assert_eq!(capped(&"é".repeat(10_000)).len(), LONGEST_TEXT);
        assert_eq!(capped(&format!("x{}", "é".repeat(10_000))).len(), LONGEST_TEXT - 1);
        let table = [
            ("https://jenkins.example.org/job/a/1/".to_owned(), true),
            ("http://jenkins.example.org/".to_owned(), true),
            ("javascript:alert(1)".to_owned(), false),
            ("job/a/1/".to_owned(), false),
            ("https://jenkins.example.org/\n".to_owned() + "x", false),
            (format!("https://{}", "x".repeat(LONGEST_LINK)), false),
        ];
        for (link, expected) in table {
            assert_eq!(is_link(&link), expected, "{link:?}");
        }
    }
}
