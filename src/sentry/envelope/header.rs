//! The header of an envelope, and of an item: one line each, a JSON object. Pure.

use std::ops::Range;

use url::Url;

use super::json::{Bracket, Malformed, Scanner, Text};
use super::report::Category;

/// More than a key or a project has.
const LONGEST_NAME: usize = 64;

/// The DSN that an envelope names in its header, by which an SDK behind a tunnel authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderDsn {
    /// Letters, digits, `-` and `_`, 64 at most.
    pub public_key: Box<str>,
    /// Likewise.
    pub project: Box<str>,
}

impl HeaderDsn {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let project = url.path_segments()?.rfind(|segment| !segment.is_empty())?;
        let (public_key, project) = (name(url.username())?, name(project)?);
        Some(Self { public_key, project })
    }
}

fn name(text: &str) -> Option<Box<str>> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ((1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_allowed)).then(|| text.into())
}

/// What the header of an envelope tells us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EnvelopeHeader {
    pub(super) event_id: Option<Box<str>>,
    pub(super) dsn: Option<HeaderDsn>,
}

impl EnvelopeHeader {
    pub(super) fn read(line: &[u8]) -> Result<Self, Malformed> {
        let (mut event_id, mut dsn) = (Once::default(), Once::default());
        let mut scanner = utf8(line)?;
        let mut more = !scanner.open(Bracket::Object)?.is_empty;
        while more {
            let key = scanner.key()?;
            if key.is(b"event_id") {
                event_id.set(scanner.text()?);
            } else if key.is(b"dsn") {
                dsn.set(scanner.text()?);
            } else {
                scanner.skip()?;
            }
            more = scanner.more(Bracket::Object)?;
        }
        scanner.end()?;
        let dsn = dsn.only().flatten().and_then(Text::decoded).and_then(|text| HeaderDsn::parse(&text));
        Ok(Self { event_id: event_id.only().flatten().and_then(self::event_id), dsn })
    }
}

/// An event's id, if it is one: hex, maybe with dashes.
pub(super) fn event_id(text: Text<'_>) -> Option<Box<str>> {
    let id = text.decoded()?;
    let is_allowed = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    ((32..=36).contains(&id.len()) && id.bytes().all(is_allowed)).then(|| (*id).into())
}

/// What the header of an item tells us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ItemHeader {
    pub(super) category: Category,
    /// Without one the payload is a line.
    pub(super) length: Option<Length>,
    /// The type is there twice.
    pub(super) is_ambiguous: bool,
}

/// An item's length, and where in the line its digits are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) bytes: u64,
    pub(super) digits: Range<usize>,
}

impl ItemHeader {
    /// # Errors
    /// When there is no telling where the item ends.
    pub(super) fn read(line: &[u8]) -> Result<Self, Malformed> {
        let (mut kind, mut length) = (Once::default(), Once::default());
        let mut scanner = utf8(line)?;
        let mut more = !scanner.open(Bracket::Object)?.is_empty;
        while more {
            let key = scanner.key()?;
            if key.is(b"type") {
                kind.set(scanner.text()?);
            } else if key.is(b"length") {
                let number = scanner.scalar()?;
                let digits = scanner.at() - number.len()..scanner.at();
                length.set(match number {
                    b"null" => None,
                    number => Some(Length { bytes: whole_number(number)?, digits }),
                });
            } else {
                scanner.skip()?;
            }
            more = scanner.more(Bracket::Object)?;
        }
        scanner.end()?;
        let is_ambiguous = matches!(kind, Once::Twice);
        let kind = kind.only().flatten().and_then(Text::decoded);
        let length = if matches!(length, Once::Twice) { return Err(Malformed) } else { length.only().flatten() };
        Ok(Self { category: kind.as_deref().map_or(Category::Other, Category::of), length, is_ambiguous })
    }
}

fn whole_number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.starts_with(b"0") && digits.len() > 1 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

fn utf8(line: &[u8]) -> Result<Scanner<'_>, Malformed> {
    if std::str::from_utf8(line).is_ok() { Ok(Scanner::new(line)) } else { Err(Malformed) }
}

/// A value that counts only if its key is there once.
#[derive(Default)]
enum Once<T> {
    #[default]
    Never,
    Value(T),
    Twice,
}

impl<T> Once<T> {
    fn set(&mut self, value: T) {
        *self = if matches!(self, Self::Never) { Self::Value(value) } else { Self::Twice };
    }

    fn only(self) -> Option<T> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }
}
