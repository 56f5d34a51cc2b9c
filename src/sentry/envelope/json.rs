//! JSON as bytes: where its values begin and end, without making anything of them. Pure.
//!
//! It sees what decides where a value ends: strings, brackets, and at the level that is looked at commas and colons. What is
//! wrong inside a value that is skipped stays unseen, since nothing is written there. No recursion: depth costs nothing.

mod blocks;

use std::borrow::Cow;

use blocks::{Block, Strings};

/// The bytes are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A place in a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string with its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    quoted: &'a [u8],
    is_escaped: bool,
}

impl<'a> Text<'a> {
    /// Whether it says `plain`, which has nothing to escape, in whatever way.
    pub(super) fn is(self, plain: &[u8]) -> bool {
        match self.plain() {
            Some(bytes) => bytes == plain,
            None => self.decoded().is_some_and(|text| text.as_bytes() == plain),
        }
    }

    /// What stands between the quotes, unless there are escapes in it.
    pub(super) fn plain(&self) -> Option<&'a [u8]> {
        let inside = self.quoted.get(1..self.quoted.len().saturating_sub(1))?;
        (!self.is_escaped).then_some(inside)
    }

    /// What it says, unless that cannot be said in UTF-8.
    pub(super) fn decoded(self) -> Option<Cow<'a, str>> {
        match self.plain() {
            Some(plain) => std::str::from_utf8(plain).ok().map(Cow::Borrowed),
            None => serde_json::from_slice(self.quoted).ok().map(Cow::Owned),
        }
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The place in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space, where the scanner stands then.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                other => return Some(*other),
            }
        }
    }

    /// Goes behind the bracket that opens an object or list; behind its end, if there is nothing in it.
    pub(super) fn open(&mut self, bracket: Bracket) -> Result<Inside, Malformed> {
        self.expect(bracket.opening())?;
        let at = self.at;
        let is_empty = self.peek() == Some(bracket.closing());
        if is_empty {
            self.at += 1;
        }
        Ok(Inside { at, is_empty })
    }

    /// Behind a value in an object or list: goes behind the comma, or the closing bracket, and returns whether it was a comma.
    pub(super) fn more(&mut self, bracket: Bracket) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == bracket.closing() => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(Malformed),
        }
    }

    /// A key and its colon.
    pub(super) fn key(&mut self) -> Result<Text<'a>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// A value if it is a string, or else it is skipped.
    pub(super) fn text(&mut self) -> Result<Option<Text<'a>>, Malformed> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip().map(|()| None)
    }

    /// A value that is a number, `true`, `false` or `null`.
    pub(super) fn scalar(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.'));
        let scalar = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += scalar.len();
        match scalar {
            b"null" | b"true" | b"false" => Ok(scalar),
            [b'-', b'0'..=b'9', rest @ ..] | [b'0'..=b'9', rest @ ..] => {
                let is_number = !rest.iter().any(|byte| byte.is_ascii_lowercase() && *byte != b'e');
                if is_number { Ok(scalar) } else { Err(Malformed) }
            }
            _ => Err(Malformed),
        }
    }

    /// Any value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.skip_nested(),
            _ => self.scalar().map(drop),
        }
    }

    /// There is nothing but white space to the end.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(Malformed) }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn skip_nested(&mut self) -> Result<(), Malformed> {
        let (mut depth, mut strings) = (0_usize, Strings::default());
        loop {
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()).ok_or(Malformed)?;
            for (place, is_opening) in strings.brackets(Block::first(rest)) {
                // The first one opens.
                depth = if is_opening { depth + 1 } else { depth.saturating_sub(1) };
                if depth == 0 {
                    self.at += place + 1;
                    return Ok(());
                }
            }
            self.at += blocks::SIZE;
        }
    }

    /// A string, at its first quote.
    fn string(&mut self) -> Result<Text<'a>, Malformed> {
        let mut end = self.at + 1;
        let mut is_escaped = false;
        loop {
            end += plain_bytes(self.bytes.get(end..).unwrap_or_default());
            if *self.bytes.get(end).ok_or(Malformed)? == b'"' {
                break;
            }
            is_escaped = true;
            end += 2;
        }
        let quoted = self.bytes.get(self.at..=end).unwrap_or_default();
        self.at = end + 1;
        Ok(Text { quoted, is_escaped })
    }
}

/// What holds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    Object,
    List,
}

impl Bracket {
    fn opening(self) -> u8 {
        match self {
            Self::Object => b'{',
            Self::List => b'[',
        }
    }

    fn closing(self) -> u8 {
        match self {
            Self::Object => b'}',
            Self::List => b']',
        }
    }
}

/// The inside of an object or list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside {
    /// Right behind the opening bracket.
    pub(super) at: usize,
    pub(super) is_empty: bool,
}

/// How many bytes there are before a quote, a backslash, or the end.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut plain = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let found = bytes_equal(word, b'"') | bytes_equal(word, b'\\');
        if found != 0 {
            return plain + found.trailing_zeros() as usize / 8;
        }
        plain += 8;
    }
    plain + rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len())
}

/// The highest bit of the lowest byte that equals `byte`; there may be bits above it that mean nothing.
fn bytes_equal(word: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let same_is_zero = word ^ u64::from_le_bytes([byte; 8]);
    same_is_zero.wrapping_sub(LOW) & !same_is_zero & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_ends() {
        let table: &[(&str, Option<usize>)] = &[
            ("null", Some(4)),
            ("-12.5e+3,", Some(8)),
            ("1e400 ", Some(5)),
            (r#""a\"b" "#, Some(6)),
            (r#""a\\"x"#, Some(5)),
            (r#""\ud800""#, Some(8)),
            (r#"{"a":"}","b":[1,{"c":"\\"}]},"#, Some(28)),
            ("[[],[]]]", Some(7)),
            (r#""longer than eight bytes, by far" "#, Some(33)),
            ("nul", None),
            ("NaN", None),
            ("-", None),
            ("1d", None),
            ("", None),
            (r#""a"#, None),
            (r#""a\"#, None),
            (r#""a\""#, None),
            ("[[]", None),
            (r#"{"a":"}"#, None),
        ];
        for (text, end) in table {
            let mut scanner = Scanner::new(text.as_bytes());
            assert_eq!(scanner.skip().ok().map(|()| scanner.at()), *end, "{text}");
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let mut scanner = Scanner::new(deep.as_bytes());
        assert_eq!(scanner.skip(), Ok(()));
        assert_eq!(scanner.end(), Ok(()));
    }

    #[test]
    fn plain_bytes_end_at_the_first_quote_or_backslash_wherever_it_is() {
        for length in 0..40 {
            for place in 0..=length {
                // 0xA2 and 0x21 differ from a quote in one bit.
                let mut bytes: Vec<u8> = b"\xA2!#[]".iter().copied().cycle().take(length).collect();
                assert_eq!(plain_bytes(&bytes), length);
                bytes.insert(place, if place % 2 == 0 { b'"' } else { b'\\' });
                bytes.push(b'"');
                assert_eq!(plain_bytes(&bytes), place, "{length}");
            }
        }
    }

    #[test]
    fn a_text_is_what_it_says_however_it_is_written() {
        let table = [
            (r#""tags""#, true),
            (r#""\u0074ags""#, true),
            (r#""t\u0061\u0067s""#, true),
            (r#""Tags""#, false),
            (r#""tags\ud800""#, false),
            (r#""\tags""#, false),
            (r#""tags\u0000""#, false),
            (r#""""#, false),
        ];
        for (text, is) in table {
            let text = Scanner::new(text.as_bytes()).text().unwrap().unwrap();
            assert_eq!(text.is(b"tags"), is, "{text:?}");
        }
    }
}
