//! What goes into one datagram: a signal's words made safe, and cut until they fit. Pure.
//!
//! The lengths follow the `dogstatsd` crate, which writes each field that it is given and nothing else.

use std::borrow::Cow;

use super::sanitise;
use super::target::DatagramLimit;
use crate::domain::signal::{Alert, Check, Event, Measure, Metric, Tag};

/// Room for an ellipsis, without which an event would have no text at all.
const LEAST_TEXT: usize = '…'.len_utf8();

/// Does not fit, however short its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

#[derive(Debug, PartialEq)]
pub(super) struct CheckWords<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) host: Cow<'a, str>,
    /// Empty: there is none.
    pub(super) message: Cow<'a, str>,
    pub(super) shortened: bool,
    /// Of the whole datagram.
    pub(super) bytes: usize,
}

#[derive(Debug, PartialEq)]
pub(super) struct EventWords<'a> {
    pub(super) title: Cow<'a, str>,
    pub(super) text: Cow<'a, str>,
    pub(super) seconds: Option<u64>,
    pub(super) host: Cow<'a, str>,
    /// Empty: there is none.
    pub(super) key: Cow<'a, str>,
    pub(super) shortened: bool,
    /// Of the whole datagram.
    pub(super) bytes: usize,
}

/// All tags in one piece, as they stand on the wire. The buffer is lent, so that a round of sending allocates it once.
pub(super) fn join_tags<'a>(buffer: &'a mut String, tags: &[Tag]) -> &'a str {
    buffer.clear();
    for tag in tags {
        let before = buffer.len();
        if before > 0 {
            buffer.push(',');
        }
        if !sanitise::push_tag(buffer, tag) {
            buffer.truncate(before);
        }
    }
    buffer
}

/// The message is cut, never the tags: they are what a check is known by.
pub(super) fn check<'a>(check: &'a Check, tags: &str, limit: DatagramLimit) -> Result<CheckWords<'a>, TooLarge> {
    let name = sanitise::check_name(check.name);
    let host = sanitise::host(&check.host);
    let message = sanitise::message(&check.message);
    let fixed = "_sc|".len() + name.len() + "|0|h:".len() + host.len() + tag_bytes(tags);
    let room = limit.bytes().checked_sub(fixed).ok_or(TooLarge)?;
    let (message, shortened) = cut(message, room.saturating_sub("|m:".len()));
    let bytes = fixed + if message.is_empty() { 0 } else { "|m:".len() + message.len() };
    Ok(CheckWords { name, host, message, shortened, bytes })
}

/// The text is cut first, then the title.
pub(super) fn event<'a>(event: &'a Event, tags: &str, limit: DatagramLimit) -> Result<EventWords<'a>, TooLarge> {
    let title = sanitise::title(&event.title);
    let text = match sanitise::text(&event.text) {
        empty if empty.is_empty() => title.clone(),
        text => text,
    };
    let host = sanitise::host(&event.host);
    let key = sanitise::aggregation_key(&event.aggregation_key);
    let seconds = sanitise::seconds(event.at.as_seconds());
    let fixed = "_e{,}:||h:".len()
        + host.len()
        + "|t:".len()
        + alert_bytes(event.alert)
        + seconds.map_or(0, |seconds| "|d:".len() + digits(seconds))
        + if key.is_empty() { 0 } else { "|k:".len() + key.len() }
        + tag_bytes(tags);
    // Reckoned with the lengths before the cut, which have as many digits or more.
    let lengths = digits(title.len()) + digits(text.len());
    let room = limit.bytes().checked_sub(fixed + lengths).ok_or(TooLarge)?;
    let least_text = text.len().min(LEAST_TEXT);
    let (title, title_cut) = cut(title, room.saturating_sub(least_text));
    let (text, text_cut) = cut(text, room.saturating_sub(title.len()));
    if title.is_empty() || text.is_empty() {
        return Err(TooLarge);
    }
    let bytes = fixed + digits(title.len()) + digits(text.len()) + title.len() + text.len();
    Ok(EventWords { title, text, seconds, host, key, shortened: title_cut || text_cut, bytes })
}

fn cut(clean: Cow<'_, str>, room: usize) -> (Cow<'_, str>, bool) {
    if clean.len() <= room { (clean, false) } else { (sanitise::shorten(&clean, room).into_owned().into(), true) }
}

/// A `name:value|type`, which has nothing to cut.
pub(super) fn metric_bytes(name: &str, value: &str, tags: &str) -> usize {
    name.len() + ":|c".len() + value.len() + tag_bytes(tags)
}

/// Writes a sample and the newline that sets it apart from the next.
pub(super) fn push_sample(out: &mut String, metric: &Metric, value: &str, tags: &str) {
    let kind = match metric.measure {
        Measure::Count(_) => "c",
        Measure::Gauge(_) => "g",
    };
    let (mark, name) = (if tags.is_empty() { "" } else { "|#" }, metric.name.as_str());
    for part in [name, ":", value, "|", kind, mark, tags, "\n"] {
        out.push_str(part);
    }
}

fn alert_bytes(alert: Alert) -> usize {
    match alert {
        Alert::Error => "error".len(),
        Alert::Warning => "warning".len(),
        Alert::Success => "success".len(),
        Alert::Info => "info".len(),
    }
}

fn tag_bytes(tags: &str) -> usize {
    if tags.is_empty() { 0 } else { "|#".len() + tags.len() }
}

fn digits(number: impl TryInto<u64>) -> usize {
    let number: u64 = number.try_into().unwrap_or(u64::MAX);
    number.checked_ilog10().map_or(1, |log| usize::try_from(log).unwrap_or(0) + 1)
}
