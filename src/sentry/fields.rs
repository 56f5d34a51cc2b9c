//! Fields as Sentry writes them, in answers and in webhooks alike. A value of the wrong kind counts as absent. Pure.

use serde::de::{MapAccess, SeqAccess};

use crate::domain::build::Timestamp;
use crate::machinery::lenient::{Fill, Scalar, element, scalar};

/// Of each text, in characters.
const MAX_TEXT: usize = 1_000;
/// A cut link leads elsewhere, so a longer one is none.
const MAX_LINK: usize = 2_048;
const MAX_PROJECTS: usize = 100;

/// Not blank, and cut to a thousand characters.
pub(super) fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<String>, A::Error> {
    Ok(scalar(map)?.text().filter(|text| !text.trim().is_empty()).map(|text| cut(&text)))
}

pub(super) fn time<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Timestamp>, A::Error> {
    Ok(scalar(map)?.text().and_then(|text| timestamp(&text)))
}

/// Ids are positive numbers, written as text or as they are.
pub(super) fn number<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u64>, A::Error> {
    let number = match scalar(map)? {
        Scalar::Integer(number) => u64::try_from(number).ok(),
        Scalar::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Scalar::Text(_) | Scalar::Nothing | Scalar::Flag(_) => None,
    };
    Ok(number.filter(|number| *number > 0))
}

/// An address that people can follow.
pub(super) fn link<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<String>, A::Error> {
    let is_link = |text: &str| {
        (text.starts_with("https://") || text.starts_with("http://"))
            && text.len() <= MAX_LINK
            && !text.contains(|c: char| c.is_control() || c.is_whitespace())
    };
    Ok(scalar(map)?.text().filter(|text| is_link(text)).map(std::borrow::Cow::into_owned))
}

/// A time as Sentry writes it, `2026-11-24T15:26:00.123456Z`.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp::from_millis(time.timestamp_millis()))
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// A list of slugs.
pub(super) struct Slugs<'s>(pub(super) &'s mut Vec<String>);

impl<'de> Fill<'de> for Slugs<'_> {
    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(slug) = element(&mut list)? {
            self.0.extend(slug.text().filter(|_| self.0.len() < MAX_PROJECTS).map(|slug| cut(&slug)));
        }
        Ok(())
    }
}
