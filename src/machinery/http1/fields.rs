//! The header fields of a message, in the order and with the names in which they came: few enough that to look through all of
//! them takes less than a table would.

use std::fmt;
use std::ops::Range;

use http::HeaderName;

/// Names and values, of which a reader of HTTP has seen that they are such.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// Where in the text.
#[derive(Clone)]
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

impl Fields {
    /// What httparse has `found` in a head; `None` when that is of another text.
    pub fn read(head: &[u8], found: &[httparse::Header<'_>]) -> Option<Self> {
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
            let end = start.checked_add(part.len()).filter(|end| *end <= head.len())?;
            Some(start..end)
        };
        let mut new = Self { text: Vec::with_capacity(head.len() + 64), lines: Vec::with_capacity(found.len() + 2) };
        new.text.extend_from_slice(head);
        for header in found {
            // An empty value may lie anywhere.
            let value = if header.value.is_empty() { 0..0 } else { place(header.value)? };
            new.lines.push(Line { name: place(header.name.as_bytes())?, value });
        }
        Some(new)
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.part(&line.name), self.part(&line.value)))
    }

    /// The values of a name.
    pub fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let name = name.as_str();
        self.lines.iter().filter(move |line| self.is(line, name)).map(|line| self.part(&line.value))
    }

    /// The first one.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Those that are text.
    pub fn texts(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.all(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Appends one. The `value` must be such as a header may have: no control characters.
    pub fn push(&mut self, name: &HeaderName, value: impl AsRef<[u8]>) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_str().as_bytes());
        let middle = self.text.len();
        self.text.extend_from_slice(value.as_ref());
        self.lines.push(Line { name: start..middle, value: middle..self.text.len() });
    }

    /// Removes all of a name; whether there was any.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        let (before, name) = (self.lines.len(), name.as_str());
        self.retain(|known| !is_same(known, name));
        self.lines.len() < before
    }

    /// Removes all but those with such a name.
    pub fn retain(&mut self, is_wanted: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| is_wanted(text.get(line.name.clone()).unwrap_or_default()));
    }

    fn is(&self, line: &Line, name: &str) -> bool {
        // Most are told apart by that.
        line.name.len() == name.len() && is_same(self.part(&line.name), name)
    }

    fn part(&self, place: &Range<usize>) -> &[u8] {
        self.text.get(place.clone()).unwrap_or_default()
    }
}

/// Names are the same however they are written. `name` is in small letters.
pub fn is_same(written: &[u8], name: &str) -> bool {
    written.eq_ignore_ascii_case(name.as_bytes())
}

impl fmt::Debug for Fields {
    /// Without the values, among which there are secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl<V: AsRef<[u8]>> FromIterator<(HeaderName, V)> for Fields {
    fn from_iter<T: IntoIterator<Item = (HeaderName, V)>>(all: T) -> Self {
        let mut new = Self::default();
        all.into_iter().for_each(|(name, value)| new.push(&name, value));
        new
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HOST, VIA};

    use super::*;

    #[test]
    fn fields_are_found_by_any_spelling_and_keep_their_own() {
        let text = b"GET / HTTP/1.1\r\nHOST: a\r\nvia: 1.1 x\r\nEmpty:\r\nVia: 1.1 \xFF\r\n\r\n";
        let mut room = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut room);
        request.parse(text).unwrap();
        let mut fields = Fields::read(text, request.headers).unwrap();
        assert_eq!(fields.get(&HOST), Some(&b"a"[..]));
        assert_eq!(fields.all(&VIA).count(), 2);
        assert_eq!(fields.texts(&VIA).collect::<Vec<_>>(), ["1.1 x"]);
        assert!(fields.remove(&VIA) && !fields.remove(&VIA) && !fields.contains(&ACCEPT));
        fields.push(&ACCEPT, "*");
        let left: Vec<(&[u8], &[u8])> = fields.iter().collect();
        assert_eq!(left, [(&b"HOST"[..], &b"a"[..]), (b"Empty", b""), (b"accept", b"*")]);
        assert_eq!(format!("{fields:?}"), r#"["HOST", "Empty", "accept"]"#);
    }

    #[test]
    fn what_lies_elsewhere_is_no_field_of_a_head() {
        let header = httparse::Header { name: "a", value: b"b" };
        assert_eq!(Fields::read(b"", &[header]), None);
    }
}
