//! Spans of time as people write them: `60s`, `1m30s`, or seconds as a number. Pure.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Reads `500ms`, `60s`, `5m`, `2h`, `1d` and sums of these; a bare number is seconds.
///
/// # Errors
/// One line that says what would be right.
pub(super) fn parse(raw: &str) -> Result<Duration, String> {
    let wrong = || format!("{raw:?} is not a span of time; write 60s, 5m, 1h30m or a number of seconds");
    let mut rest = raw.trim();
    if let Ok(seconds) = rest.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis = match unit.trim() {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60 * 1000),
            "h" => number.checked_mul(60 * 60 * 1000),
            "d" => number.checked_mul(24 * 60 * 60 * 1000),
            _ => None,
        };
        sum = millis.and_then(|millis| sum.checked_add(Duration::from_millis(millis))).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(sum)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a span of time such as \"60s\", or a number of seconds")]
    enum Written {
        Seconds(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        Written::Text(text) => parse(&text).map_err(serde::de::Error::custom),
    }
}

/// The same as [`parse`] reads, in seconds where that is exact.
pub(super) fn show(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}

pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(*span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_numbers_with_units() {
        let table = [
            ("60s", Some(60_000)),
            ("60", Some(60_000)),
            ("5m", Some(300_000)),
            ("1m30s", Some(90_000)),
            ("1h 30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("60 parsecs", None),
            ("-1s", None),
            ("1.5s", None),
            ("5m3", None),
            ("999999999999999999d", None),
            ("99999999999999999999s", None),
        ];
        for (raw, millis) in table {
            assert_eq!(parse(raw).ok(), millis.map(Duration::from_millis), "{raw:?}");
        }
    }
}
