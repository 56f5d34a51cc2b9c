//! What Sentry does not want for a while, by key and category, so that it need not be asked. Pure: the time is handed in.
//!
//! `X-Sentry-Rate-Limits: 60:error;transaction:organization:reason, 2700::key` (develop.sentry.dev, "Rate limiting").

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::HeaderName;
use http::header::RETRY_AFTER;

use crate::machinery::http1::Fields;
use crate::sentry::envelope::Category;

/// The name of the header.
pub const HEADER: HeaderName = HeaderName::from_static("x-sentry-rate-limits");

/// Keys beyond this are not remembered: Sentry is asked, and says no itself.
const MOST_KEYS: usize = 4_096;
/// Categories of one key.
const MOST_CATEGORIES: usize = 32;
/// Nothing is believed for longer than this: who is limited by mistake is let in again.
const LONGEST: Duration = Duration::from_hours(24);
/// What a 429 without a word on how long means (develop.sentry.dev).
const USUAL: Duration = Duration::from_mins(1);

/// What has no certain name is never held back: SDKs do not send again, and Sentry says itself what it does not want.
const UNSURE: &str = "unknown";

/// By which name limits speak of items (develop.sentry.dev, "Rate limiting", data categories).
pub(super) fn name(category: Category) -> &'static str {
    match category {
        Category::Event => "error",
        Category::Transaction => "transaction",
        Category::Feedback => "feedback",
        Category::Log => "log_item",
        Category::Attachment => "attachment",
        Category::Session | Category::Sessions => "session",
        Category::CheckIn => "monitor",
        Category::Profile => "profile",
        Category::Replay => "replay",
        Category::Span => "span",
        Category::Metric => "metric_bucket",
        Category::TraceMetric => "trace_metric",
        // Sentry has two for profile chunks, by their platform, counts the reports toward none, and knows what is new.
        Category::ProfileChunk | Category::UserReport | Category::ClientReport | Category::Other => UNSURE,
    }
}

/// All that is limited at present.
#[derive(Debug, Default)]
pub(super) struct Limits(HashMap<Box<str>, Vec<(Box<str>, Instant)>>);

/// What an answer asks for. An empty category is all of them.
pub(super) fn asked(is_429: bool, told: &Fields) -> Vec<(Box<str>, Duration)> {
    let (mut asked, mut is_of_a_part) = (Vec::new(), false);
    for limit in told.texts(&HEADER).flat_map(|line| line.split(',')).take(MOST_CATEGORIES) {
        let mut fields = limit.trim().split(':');
        let Some(seconds) = fields.next().and_then(|raw| raw.trim().parse::<f64>().ok()) else { continue };
        if !seconds.is_finite() || seconds <= 0.0 {
            continue;
        }
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
        let categories = fields.next().unwrap_or_default();
        // A limit on one namespace of metrics is none on the rest.
        let is_partial = fields.nth(2).is_some_and(|namespaces| !namespaces.trim().is_empty());
        is_of_a_part |= is_partial;
        if !is_partial {
            asked.extend(categories.split(';').take(MOST_CATEGORIES).map(|category| (category.trim().into(), time)));
        }
    }
    if asked.is_empty() && is_429 && !is_of_a_part {
        asked.push(("".into(), retry_after(told).unwrap_or(USUAL).min(LONGEST)));
    }
    asked
}

/// In seconds; a date is not read, which Sentry does not send.
pub(super) fn retry_after(told: &Fields) -> Option<Duration> {
    let seconds: f64 = told.texts(&RETRY_AFTER).next()?.trim().parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds.ceil()).ok()?.min(LONGEST))
}

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn learn(&mut self, key: &str, asked: Vec<(Box<str>, Duration)>, now: Instant) {
        if !self.0.contains_key(key) && self.0.len() >= MOST_KEYS {
            self.forget(now);
            if self.0.len() >= MOST_KEYS {
                return;
            }
        }
        let limits = self.0.entry(key.into()).or_default();
        for (category, time) in asked {
            let until = now + time;
            if let Some((_, known)) = limits.iter_mut().find(|(known, _)| *known == category) {
                *known = (*known).max(until);
            } else if limits.len() < MOST_CATEGORIES {
                limits.push((category, until));
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, limits| {
            limits.retain(|(_, until)| *until > now);
            !limits.is_empty()
        });
    }

    /// What is limited of this key, in the words of [`HEADER`]. Without it an SDK would take a 429 for a limit on everything.
    pub(super) fn told(&self, key: &str, now: Instant) -> String {
        let limits = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        let seconds = |until: &Instant| until.saturating_duration_since(now).as_secs() + 1;
        let told = limits.iter().map(|(category, until)| format!("{}:{category}:key", seconds(until)));
        told.collect::<Vec<_>>().join(", ")
    }

    /// How long all of these categories are limited yet; `None` when one of them is not, or may not be. No category at all is limited only by
    /// what limits everything.
    pub(super) fn hold(&mut self, key: &str, categories: &[&str], now: Instant) -> Option<Duration> {
        if categories.contains(&UNSURE) {
            return None;
        }
        let limits = self.0.get_mut(key)?;
        limits.retain(|(_, until)| *until > now);
        if limits.is_empty() {
            self.0.remove(key);
            return None;
        }
        let until = |wanted: &str| {
            let covers = |category: &str| category.is_empty() || category == wanted;
            limits.iter().filter(|(category, _)| covers(category)).map(|(_, until)| *until).max()
        };
        let first = match categories {
            [] => until(""),
            _ => categories.iter().map(|category| until(category)).collect::<Option<Vec<_>>>()?.into_iter().min(),
        };
        first.map(|until| until - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was a 429, and its headers.
    type Told = (bool, &'static [(&'static str, &'static str)]);

    /// What was told, what is asked, after how many seconds, and for how many more it is held.
    type Case = (&'static [Told], &'static [&'static str], u64, Option<u64>);

    fn headers(pairs: &[(&'static str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect()
    }

    fn held(limits: &[Told], categories: &[&str], after: u64) -> Option<u64> {
        let (mut known, now) = (Limits::default(), Instant::now());
        for (is_429, pairs) in limits {
            known.learn("key", asked(*is_429, &headers(pairs)), now);
        }
        known.hold("key", categories, now + Duration::from_secs(after)).map(|left| left.as_secs())
    }

    #[test]
    fn limits_hold_for_their_categories_and_their_time() {
        let some: &[Told] = &[(false, &[("x-sentry-rate-limits", "60:error;transaction:key, 10:session:project:x")])];
        let all: &[Told] = &[(true, &[("retry-after", "7")])];
        let bare: &[Told] = &[(true, &[])];
        let odd: &[Told] = &[(
            false,
            &[
                ("x-sentry-rate-limits", "NaN:error, -1:error, x:error, inf:error, 60:metric_bucket:o:r:custom"),
                ("retry-after", "9"),
            ],
        )];
        let of_a_part: &[Told] =
            &[(true, &[("x-sentry-rate-limits", "60:metric_bucket:o:r:custom"), ("retry-after", "60")])];
        let table: [Case; 17] = [
            (all, &[UNSURE], 0, None),
            (all, &["error", UNSURE], 0, None),
            (&[(true, &[("retry-after", "10000000000000000000")])], &["error"], 0, Some(24 * 60 * 60)),
            (of_a_part, &["error"], 0, None),
            (of_a_part, &["metric_bucket"], 0, None),
            (some, &["error"], 0, Some(60)),
            (some, &["error"], 59, Some(1)),
            (some, &["error"], 60, None),
            (some, &["error", "session"], 0, Some(10)),
            (some, &["error", "attachment"], 0, None),
            (some, &[], 0, None),
            (all, &["error"], 0, Some(7)),
            (all, &[], 0, Some(7)),
            (bare, &["x"], 0, Some(60)),
            (odd, &["error"], 0, None),
            (odd, &["metric_bucket"], 0, None),
            (&[], &["error"], 0, None),
        ];
        for (limits, categories, after, expected) in table {
            assert_eq!(held(limits, categories, after), expected, "{limits:?} {categories:?} after {after}");
        }
    }

    #[test]
    fn what_sentry_may_take_is_not_held_back_by_the_name_of_another() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let names = ["profile", "metric_bucket", "feedback", "internal", "error", "trace_metric", "default"];
        limits.learn("key", names.map(|name| (name.into(), USUAL)).into(), now);
        let table = [
            (Category::ProfileChunk, false),
            (Category::UserReport, false),
            (Category::ClientReport, false),
            (Category::Other, false),
            (Category::Span, false),
            (Category::Profile, true),
            (Category::Metric, true),
            (Category::TraceMetric, true),
            (Category::Feedback, true),
            (Category::Event, true),
        ];
        for (category, is_held) in table {
            assert_eq!(limits.hold("key", &[name(category)], now).is_some(), is_held, "{category:?}");
        }
    }

    #[test]
    fn no_time_is_longer_than_is_believed() {
        for (asked, expected) in
            [("10000000000000000000", Some(LONGEST)), ("1.5", Some(Duration::from_secs(2))), ("-1", None)]
        {
            assert_eq!(retry_after(&headers(&[("retry-after", asked)])), expected, "{asked}");
        }
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for key in 0..=MOST_KEYS {
            limits.learn(&key.to_string(), vec![("".into(), USUAL)], now);
        }
        assert_eq!(limits.0.len(), MOST_KEYS);
        limits.learn("late", vec![("".into(), USUAL)], now + USUAL);
        assert_eq!(limits.0.len(), 1, "what is over makes room");
    }
}
