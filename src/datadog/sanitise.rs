//! The one place where text from outside becomes safe for a datagram, or for Datadog's API. Pure.
//!
//! The Agent unescapes nothing, so a job's name with `|`, `,` or a newline in it could forge tags, a host or a whole
//! check. Text that needs no change is handed on as it is: all jobs are sent again at every round.

use std::borrow::Cow;

use crate::domain::job::stable_hash;
use crate::domain::signal::{Tag, tag};

/// Datadog keeps so many characters of a tag.
pub const TAG_CHARS: usize = 200;
/// Datadog shows so many characters of a check's message.
pub const MESSAGE_CHARS: usize = 500;
/// Datadog's limits for an event.
pub const TITLE_CHARS: usize = 500;
pub const TEXT_CHARS: usize = 4000;
pub const AGGREGATION_KEY_BYTES: usize = 100;
/// What a host name in DNS may have, and Datadog takes.
pub const HOST_BYTES: usize = 255;
pub const CHECK_NAME_BYTES: usize = 200;

/// Stands for a host or a check whose name has not one character that may be sent.
const NAMELESS: &str = "unknown";
const UNTITLED: &str = "(no title)";
const ELLIPSIS: char = '…';

/// Appends `key:value` as Datadog keeps it: a letter first, then letters, digits and `_-:./`, anything else an
/// underscore. Cut text ends in a digest of the whole, so that two long names stay two tags. Case is kept, although
/// Datadog folds it.
///
/// Returns false and appends nothing for a tag that the Agent would take for an order: `host` and `card` in any case,
/// and all of `dd.internal.` but recoverd's own `dd.internal.card:none`. An empty tag is nothing, too.
pub fn push_tag(out: &mut String, tag: &Tag) -> bool {
    let (key, value) = (tag.key.as_ref(), tag.value.as_ref());
    let plain = key.len() + 1 + value.len() <= TAG_CHARS
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte != b':' && is_tag_byte(byte))
        && value.bytes().all(is_tag_byte);
    if !plain {
        let cleaned = clean_tag(&tag.to_string());
        if cleaned.is_empty() || is_order(&cleaned) {
            return false;
        }
        out.push_str(&cleaned);
        return true;
    }
    if is_order_key(key) && !(key == tag::CARDINALITY && value == "none") {
        return false;
    }
    out.push_str(key);
    if !value.is_empty() {
        out.push(':');
        out.push_str(value);
    }
    true
}

/// [`push_tag`] for one tag that stands alone.
pub fn tag(tag: &Tag) -> Option<String> {
    let mut out = String::new();
    push_tag(&mut out, tag).then_some(out)
}

fn clean_tag(raw: &str) -> String {
    let mut clean = String::with_capacity(raw.len() + 2);
    for c in raw.chars() {
        let kept =
            if c.is_alphanumeric() && !is_hidden(c) || matches!(c, '_' | '-' | ':' | '.' | '/') { c } else { '_' };
        if clean.is_empty() && !kept.is_alphabetic() {
            clean.push_str("t_");
        }
        clean.push(kept);
    }
    // Datadog cuts the colon off.
    clean.truncate(clean.trim_end_matches(':').len());
    if clean.chars().count() > TAG_CHARS {
        let digest = digest(raw);
        let end = clean.char_indices().nth(TAG_CHARS - digest.len()).map_or(clean.len(), |(at, _)| at);
        clean.truncate(end);
        clean.push_str(&digest);
    }
    clean
}

fn is_tag_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'.' | b'/')
}

fn is_order(tag: &str) -> bool {
    let (key, value) = tag.split_once(':').unwrap_or((tag, ""));
    is_order_key(key) && !(key == tag::CARDINALITY && value == "none")
}

/// `extractTagsMetadata` in the Agent's `enrich.go` takes these out of the tags and obeys them.
fn is_order_key(key: &str) -> bool {
    const INTERNAL: &str = "dd.internal.";
    key.eq_ignore_ascii_case("host")
        || key.eq_ignore_ascii_case("card")
        || key.get(..INTERNAL.len()).is_some_and(|start| start.eq_ignore_ascii_case(INTERNAL))
}

/// A host's name in the characters that every Agent takes: `A-Z a-z 0-9 _ . -` and space. Never empty.
pub fn host(raw: &str) -> Cow<'_, str> {
    name(raw, HOST_BYTES, '-', |byte| byte == b' ')
}

/// A check's name: `A-Z a-z 0-9 _ . -`. Never empty.
pub fn check_name(raw: &str) -> Cow<'_, str> {
    name(raw, CHECK_NAME_BYTES, '_', |_| false)
}

fn name(raw: &str, max_bytes: usize, instead: char, also: impl Fn(u8) -> bool) -> Cow<'_, str> {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') || also(byte);
    let raw = raw.trim();
    if raw.is_empty() {
        return NAMELESS.into();
    }
    if raw.len() <= max_bytes && raw.bytes().all(kept) {
        return raw.into();
    }
    let mut clean: String = raw.chars().map(|c| if u8::try_from(c).is_ok_and(&kept) { c } else { instead }).collect();
    if clean.len() > max_bytes {
        let digest = digest(raw);
        clean.truncate(max_bytes - digest.len());
        clean.push_str(&digest);
    }
    clean.into()
}

/// A check's message: one line without `|`, which would end it.
pub fn message(raw: &str) -> Cow<'_, str> {
    line(raw, MESSAGE_CHARS)
}

/// An event's key. Keys that differ keep differing when they are cut.
pub fn aggregation_key(raw: &str) -> Cow<'_, str> {
    let clean = line(raw, usize::MAX);
    if clean.len() <= AGGREGATION_KEY_BYTES {
        return clean;
    }
    let mut clean = clean.into_owned();
    let digest = digest(raw);
    clean.truncate(clean.floor_char_boundary(AGGREGATION_KEY_BYTES - digest.len()));
    clean.push_str(&digest);
    clean.into()
}

fn line(raw: &str, max_chars: usize) -> Cow<'_, str> {
    let raw = raw.trim();
    if raw.len() <= max_chars && raw.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'|') {
        return raw.into();
    }
    let seen = raw.chars().filter(|c| !is_hidden(*c)).map(|c| match c {
        '|' => '¦',
        c if c.is_control() || is_line_end(c) => ' ',
        c => c,
    });
    bounded(seen, max_chars, String::push).into()
}

/// An event's title: one line, never empty. A `|` is harmless here, because the lengths tell where it ends.
pub fn title(raw: &str) -> Cow<'_, str> {
    let clean = escaped(raw, TITLE_CHARS, " ");
    if clean.is_empty() { UNTITLED.into() } else { clean }
}

/// An event's text, its newlines as the two characters that the Agent turns back into one. May be empty, which Agent
/// Data Plane refuses: send the title for it.
pub fn text(raw: &str) -> Cow<'_, str> {
    escaped(raw, TEXT_CHARS, "\\n")
}

fn escaped<'a>(raw: &'a str, max_chars: usize, newline: &str) -> Cow<'a, str> {
    let raw = raw.trim();
    if raw.len() <= max_chars && raw.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
        return raw.into();
    }
    let mut after_return = false;
    let seen = raw.chars().filter(move |c| {
        let second_half = *c == '\n' && after_return;
        after_return = *c == '\r';
        !second_half && !is_hidden(*c)
    });
    bounded(seen, max_chars, |clean, c| match c {
        c if is_line_end(c) => clean.push_str(newline),
        c if c.is_control() => clean.push(' '),
        // The Agent would make a newline of this pair, and knows no way to escape it.
        'n' if clean.ends_with('\\') => {
            clean.pop();
            clean.push_str("＼n");
        }
        c => clean.push(c),
    })
    .into()
}

fn bounded(seen: impl Iterator<Item = char>, max_chars: usize, mut push: impl FnMut(&mut String, char)) -> String {
    let mut clean = String::new();
    for (at, c) in seen.skip_while(|c| c.is_whitespace() || c.is_control()).enumerate() {
        if at >= max_chars {
            clean.truncate(clean.trim_end().len());
            clean.push(ELLIPSIS);
            return clean;
        }
        push(&mut clean, c);
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// At most so many bytes of text that is clean already, with an ellipsis where it was cut. Never cuts a character or
/// an escaped newline in two. Below the three bytes of an ellipsis there is nothing left.
pub fn shorten(clean: &str, max_bytes: usize) -> Cow<'_, str> {
    if clean.len() <= max_bytes {
        return clean.into();
    }
    let Some(room) = max_bytes.checked_sub(ELLIPSIS.len_utf8()) else { return "".into() };
    let (mut head, tail) = clean.split_at(clean.floor_char_boundary(room));
    if tail.starts_with('n') {
        head = head.strip_suffix('\\').unwrap_or(head);
    }
    format!("{}{ELLIPSIS}", head.trim_end()).into()
}

/// A metric's value; `None` when it is not a finite number, which Datadog has no use for.
pub fn number(value: f64) -> Option<String> {
    // `{:?}` goes over to an exponent where `{}` would write three hundred noughts.
    value.is_finite().then(|| format!("{value:?}"))
}

/// Seconds that fit where they are read: from 1970 to 2038.
pub fn seconds(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().filter(|seconds| (1..=u64::from(i32::MAX.unsigned_abs())).contains(seconds))
}

/// `-` and eight digits, of all of the text.
fn digest(raw: &str) -> String {
    let hash = stable_hash(raw);
    format!("-{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{0b}' | '\u{0c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Characters that take no room but turn, join or hide others: writing direction, zero width, fillers, tags.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(key: &str, value: &str) -> Option<String> {
        tag(&Tag { key: key.to_owned().into(), value: value.into() })
    }

    #[test]
    fn a_tag_is_written_as_datadog_would_keep_it() {
        let table = [
            ("job", "acme/web", "job:acme/web"),
            ("job", "Team/App", "job:Team/App"),
            ("job", "My Job", "job:My_Job"),
            ("job", "a|h:evil,b\n_sc|x|0", "job:a_h:evil_b__sc_x_0"),
            ("job", "Größe/проект/日本", "job:Größe/проект/日本"),
            ("job", "feature%2Fx", "job:feature_2Fx"),
            ("job", "a\u{202e}b\u{200b}c", "job:a_b_c"),
            ("jenkins_url", "https://ci.acme.io:8443/", "jenkins_url:https://ci.acme.io:8443/"),
            ("bare", "", "bare"),
            ("bare:", "", "bare"),
            ("2nd", "x", "t_2nd:x"),
            ("", "x", "t_:x"),
            ("#x", "y", "t__x:y"),
            ("dd.internal.card", "none", "dd.internal.card:none"),
            ("hostess", "x", "hostess:x"),
        ];
        for (key, value, expected) in table {
            assert_eq!(tagged(key, value).as_deref(), Some(expected), "{key:?} {value:?}");
        }
    }

    #[test]
    fn a_tag_that_the_agent_would_obey_is_dropped() {
        let table = [
            ("host", "x"),
            ("HoSt", "x"),
            ("host", ""),
            ("host", "ä"),
            ("host:a", "b c"),
            ("card", "high"),
            ("dd.internal.card", "high"),
            ("DD.internal.card", "none"),
            ("dd.internal.card:none", "x"),
            ("dd.internal.entity_id", "another-pod"),
            ("dd.internal.jmx_check_name", "x y"),
            ("", ""),
        ];
        for (key, value) in table {
            assert_eq!(tagged(key, value), None, "{key:?} {value:?}");
        }
    }

    #[test]
    fn two_long_names_stay_two_tags() {
        for beginning in ["x".repeat(10_000), "й".repeat(10_000), "x y".repeat(70)] {
            let one = tagged("job", &format!("{beginning}1")).unwrap();
            let two = tagged("job", &format!("{beginning}2")).unwrap();
            assert_ne!(one, two);
            assert_eq!(one.chars().count(), TAG_CHARS);
        }
        let whole = "x".repeat(TAG_CHARS - "job:".len());
        assert_eq!(tagged("job", &whole), Some(format!("job:{whole}")));
    }

    #[test]
    fn a_host_has_a_name_that_every_agent_takes() {
        let table = [("ci.acme-1_x", "ci.acme-1_x"), ("", "unknown"), (" \n", "unknown"), ("a|b\nä", "a-b--")];
        for (raw, expected) in table {
            assert_eq!(host(raw), expected, "{raw:?}");
        }
        assert_eq!(host(&"x".repeat(999)).len(), HOST_BYTES);
        assert_eq!(check_name("jenkins job|0"), "jenkins_job_0");
    }

    #[test]
    fn what_needs_no_change_is_not_copied() {
        for clean in [host("ci.acme"), check_name("a.b"), message("Build #7 (red)"), title("a | b"), text("a | b")] {
            assert!(matches!(clean, Cow::Borrowed(_)), "{clean}");
        }
    }

    #[test]
    fn a_message_is_one_line_that_ends_where_it_ends() {
        let table = [
            ("a|m:b\nc", "a¦m:b c"),
            ("C:\\new", "C:\\new"),
            ("\u{1b}[31mred\u{202e}", "[31mred"),
            ("a\u{200b}b\u{2028}c", "ab c"),
            ("\n", ""),
        ];
        for (raw, expected) in table {
            assert_eq!(message(raw), expected, "{raw:?}");
        }
        let long = message(&"ü".repeat(10_000)).into_owned();
        assert_eq!(long, format!("{}…", "ü".repeat(MESSAGE_CHARS)));
    }

    #[test]
    fn a_text_keeps_its_lines_and_gains_none() {
        let table = [
            ("a\nb\r\nc\rd", "a\\nb\\nc\\nd", "a b c d"),
            ("C:\\new", "C:＼new", "C:＼new"),
            ("\\\u{200b}n", "＼n", "＼n"),
            ("a\\\nb", "a\\\\nb", "a\\ b"),
            ("\\\\n", "\\＼n", "\\＼n"),
            ("tab\there", "tab here", "tab here"),
        ];
        for (raw, as_text, as_title) in table {
            assert_eq!(text(raw), as_text, "{raw:?}");
            assert_eq!(title(raw), as_title, "{raw:?}");
        }
        assert_eq!(title("\u{200b}\n"), "(no title)");
    }

    #[test]
    fn a_cut_splits_neither_a_character_nor_an_escape() {
        let table = [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "ab…"),
            ("ab\\ncdef", 6, "ab…"),
            ("aüüüü", 6, "aü…"),
            ("abcdef", 3, "…"),
            ("abcdef", 2, ""),
        ];
        for (raw, max_bytes, expected) in table {
            assert_eq!(shorten(raw, max_bytes), expected, "{raw} {max_bytes}");
        }
    }

    #[test]
    fn a_key_is_cut_but_stays_itself() {
        let (one, two) = (format!("{}1", "ü".repeat(99)), format!("{}2", "ü".repeat(99)));
        assert_ne!(aggregation_key(&one), aggregation_key(&two));
        assert!(aggregation_key(&one).len() <= AGGREGATION_KEY_BYTES);
        assert_eq!(aggregation_key("a|b"), "a¦b");
    }

    #[test]
    fn numbers_and_times_are_what_can_be_read() {
        let table =
            [(1.5, Some("1.5")), (0.0, Some("0.0")), (1e300, Some("1e300")), (f64::NAN, None), (f64::INFINITY, None)];
        for (value, expected) in table {
            assert_eq!(number(value).as_deref(), expected);
        }
        for (given, expected) in [(0, None), (-1, None), (1, Some(1)), (i64::from(i32::MAX) + 1, None)] {
            assert_eq!(seconds(given), expected);
        }
    }
}
