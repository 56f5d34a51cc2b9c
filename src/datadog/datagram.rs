//! What goes into one datagram: a signal's words made safe, and cut until they fit. Pure.
//!
//! The lengths follow the `dogstatsd` crate, which writes each field that it is given and nothing else.

use std::borrow::Cow;

use super::sanitise;
use super::target::DatagramLimit;
use crate::domain::signal::{Alert, Check, Event, Measure, Metric, Tag};
use crate::domain::status::Status;

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
pub(super) fn join_tags(buffer: &mut String, tags: &[Tag]) {
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
        + alert_word(event.alert).len()
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

/// Writes a check as the crate would, and the newline that sets it apart from the next message.
pub(super) fn push_check(out: &mut String, status: Status, words: &CheckWords<'_>, tags: &str) {
    let status = match status {
        Status::Ok => "0",
        Status::Warning => "1",
        Status::Critical => "2",
    };
    push(out, &["_sc|", &words.name, "|", status, "|h:", &words.host]);
    push_tags(out, tags);
    if !words.message.is_empty() {
        push(out, &["|m:", &words.message]);
    }
    out.push('\n');
}

/// Writes an event as the crate would, and the newline.
pub(super) fn push_event(out: &mut String, alert: Alert, words: &EventWords<'_>, tags: &str) {
    let EventWords { title, text, host, key, .. } = words;
    push(out, &["_e{", &title.len().to_string(), ",", &text.len().to_string(), "}:", title, "|", text]);
    if let Some(seconds) = words.seconds {
        push(out, &["|d:", &seconds.to_string()]);
    }
    push(out, &["|h:", host]);
    if !key.is_empty() {
        push(out, &["|k:", key]);
    }
    push(out, &["|t:", alert_word(alert)]);
    push_tags(out, tags);
    out.push('\n');
}

/// Writes a sample as the crate would, and the newline.
pub(super) fn push_sample(out: &mut String, metric: &Metric, value: &str, tags: &str) {
    let kind = match metric.measure {
        Measure::Count(_) => "c",
        Measure::Gauge(_) => "g",
    };
    push(out, &[metric.name.as_str(), ":", value, "|", kind]);
    push_tags(out, tags);
    out.push('\n');
}

fn push_tags(out: &mut String, tags: &str) {
    if !tags.is_empty() {
        push(out, &["|#", tags]);
    }
}

fn push(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
}

fn alert_word(alert: Alert) -> &'static str {
    match alert {
        Alert::Error => "error",
        Alert::Warning => "warning",
        Alert::Success => "success",
        Alert::Info => "info",
    }
}

fn tag_bytes(tags: &str) -> usize {
    if tags.is_empty() { 0 } else { "|#".len() + tags.len() }
}

fn digits(number: impl TryInto<u64>) -> usize {
    let number: u64 = number.try_into().unwrap_or(u64::MAX);
    number.checked_ilog10().map_or(1, |log| usize::try_from(log).unwrap_or(0) + 1)
}
