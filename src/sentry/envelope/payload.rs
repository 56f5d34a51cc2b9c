//! Where in an item's payload tags belong. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::LARGEST_ITEM;
use super::json::{Bracket, Inside, Malformed, Scanner, Text};
use super::report::{Category, Level, Outcome, PassedBecause};
use super::tags::{Form, Present, Tags};

/// Bytes to put in place of others, which are none or a `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) place: Range<usize>,
    pub(super) text: Bytes,
}

impl Edit {
    /// How many bytes longer it makes the payload: never less than none.
    pub(super) fn added(&self) -> u64 {
        self.text.len().saturating_sub(self.place.len()) as u64
    }
}

/// What a payload says, and what to do to it.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    /// From front to back, none over another.
    pub(super) edits: Vec<Edit>,
    pub(super) outcome: Outcome,
    /// Of an event.
    pub(super) level: Option<Level>,
    pub(super) event_id: Option<Text<'a>>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(payload: &'a [u8], category: Category, tags: &Tags) -> Self {
        let mut reader = Reader { tags, scanner: Scanner::new(payload), room: room(payload), edits: Vec::new() };
        let mut about = About::default();
        // The former is much faster, and mostly so.
        let is_utf8 = payload.is_ascii() || std::str::from_utf8(payload).is_ok();
        let read = match category {
            _ if !is_utf8 => Err(PassedBecause::Malformed),
            Category::Log => reader.log(),
            _ => reader.event(&mut about),
        };
        let mut edits = reader.edits;
        let outcome = match read {
            Ok(()) if tags.is_empty() => Outcome::Passed(PassedBecause::NoTags),
            Ok(()) if edits.is_empty() => Outcome::AlreadyTagged,
            Ok(()) => Outcome::Enriched,
            Err(reason) => Outcome::Passed(reason),
        };
        if outcome != Outcome::Enriched {
            edits.clear();
        }
        let is_read = category == Category::Event && outcome != Outcome::Passed(PassedBecause::Malformed);
        let level =
            is_read.then(|| about.level.map_or(Level::Error, |level| level.plain().map_or(Level::Error, Level::of)));
        Self { edits, outcome, level, event_id: about.event_id }
    }
}

/// How many bytes may be added.
fn room(payload: &[u8]) -> usize {
    LARGEST_ITEM.saturating_sub(payload.len())
}

impl From<Malformed> for PassedBecause {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What is told of an event.
#[derive(Default)]
struct About<'a> {
    level: Option<Text<'a>>,
    event_id: Option<Text<'a>>,
}

struct Reader<'a, 't> {
    tags: &'t Tags,
    scanner: Scanner<'a>,
    room: usize,
    edits: Vec<Edit>,
}

impl<'a> Reader<'a, '_> {
    /// An event, transaction or feedback: an object that may have `tags`.
    fn event(&mut self, about: &mut About<'a>) -> Result<(), PassedBecause> {
        let inside = self.scanner.open(Bracket::Object)?;
        let mut more = !inside.is_empty;
        let mut tagged = None;
        while more {
            let key = self.scanner.key()?;
            if key.is(b"tags") {
                let value = self.scanner;
                let told = if tagged.is_none() { self.tags() } else { Err(PassedBecause::DuplicateKey) };
                // The level comes maybe later, and counts.
                if told.is_err() {
                    self.scanner = value;
                    self.scanner.skip()?;
                }
                tagged = Some(told);
            } else if key.is(b"level") {
                about.level = self.scanner.text()?;
            } else if key.is(b"event_id") {
                about.event_id = self.scanner.text()?;
            } else {
                self.scanner.skip()?;
            }
            more = self.scanner.more(Bracket::Object)?;
        }
        self.scanner.end()?;
        tagged.unwrap_or_else(|| self.add_field("tags", Form::Map, inside))
    }

    /// A list of logs in an object, each of which may have `attributes`.
    fn log(&mut self) -> Result<(), PassedBecause> {
        let mut more = !self.scanner.open(Bracket::Object)?.is_empty;
        let mut is_listed = false;
        while more {
            if self.scanner.key()?.is(b"items") {
                if std::mem::replace(&mut is_listed, true) {
                    return Err(PassedBecause::DuplicateKey);
                }
                let mut more = !self.scanner.open(Bracket::List)?.is_empty;
                while more {
                    self.one_log()?;
                    more = self.scanner.more(Bracket::List)?;
                }
            } else {
                self.scanner.skip()?;
            }
            more = self.scanner.more(Bracket::Object)?;
        }
        self.scanner.end()?;
        if is_listed { Ok(()) } else { Err(PassedBecause::Malformed) }
    }

    fn one_log(&mut self) -> Result<(), PassedBecause> {
        let inside = self.scanner.open(Bracket::Object)?;
        let mut more = !inside.is_empty;
        let mut has_attributes = false;
        while more {
            if self.scanner.key()?.is(b"attributes") {
                if std::mem::replace(&mut has_attributes, true) {
                    return Err(PassedBecause::DuplicateKey);
                }
                match self.scanner.peek() {
                    Some(b'{') => self.map(Form::Attributes)?,
                    _ => self.null(Form::Attributes)?,
                }
            } else {
                self.scanner.skip()?;
            }
            more = self.scanner.more(Bracket::Object)?;
        }
        if has_attributes { Ok(()) } else { self.add_field("attributes", Form::Attributes, inside) }
    }

    /// The value of `tags`.
    fn tags(&mut self) -> Result<(), PassedBecause> {
        match self.scanner.peek() {
            Some(b'{') => self.map(Form::Map),
            Some(b'[') => self.pairs(),
            _ => self.null(Form::Map),
        }
    }

    fn map(&mut self, form: Form) -> Result<(), PassedBecause> {
        let inside = self.scanner.open(Bracket::Object)?;
        let mut more = !inside.is_empty;
        let mut present = 0;
        while more {
            let key = self.scanner.key()?;
            self.note(key, &mut present);
            self.scanner.skip()?;
            more = self.scanner.more(Bracket::Object)?;
        }
        self.add_missing(present, form, inside)
    }

    fn pairs(&mut self) -> Result<(), PassedBecause> {
        let inside = self.scanner.open(Bracket::List)?;
        let mut more = !inside.is_empty;
        let mut present = 0;
        while more {
            match self.scanner.peek() {
                Some(b'[') => self.pair(&mut present)?,
                Some(b'n') => _ = self.scanner.scalar()?,
                _ => return Err(PassedBecause::OddTags),
            }
            more = self.scanner.more(Bracket::List)?;
        }
        self.add_missing(present, Form::Pairs, inside)
    }

    fn pair(&mut self, present: &mut Present) -> Result<(), PassedBecause> {
        let mut more = !self.scanner.open(Bracket::List)?.is_empty;
        let mut is_key = true;
        while more {
            let text = self.scanner.text()?;
            if let Some(key) = text.filter(|_| is_key) {
                self.note(key, present);
            }
            is_key = false;
            more = self.scanner.more(Bracket::List)?;
        }
        Ok(())
    }

    /// A `null`, in whose place a map goes.
    fn null(&mut self, form: Form) -> Result<(), PassedBecause> {
        if self.scanner.peek() != Some(b'n') {
            return Err(PassedBecause::OddTags);
        }
        let start = self.scanner.at();
        self.scanner.scalar()?;
        match self.tags.missing(0, form) {
            Some(tags) => self.edit(start..self.scanner.at(), &["{", &tags, "}"]),
            None => Ok(()),
        }
    }

    fn note(&self, key: Text<'_>, present: &mut Present) {
        let place = match key.plain() {
            Some(key) => self.tags.place_of(key),
            None => key.decoded().and_then(|key| self.tags.place_of(key.as_bytes())),
        };
        if let Some(place) = place {
            *present |= 1 << place;
        }
    }

    fn add_field(&mut self, name: &str, form: Form, inside: Inside) -> Result<(), PassedBecause> {
        match self.tags.missing(0, form) {
            Some(tags) => self.edit(inside.at..inside.at, &["\"", name, "\":{", &tags, "}", comma(inside)]),
            None => Ok(()),
        }
    }

    fn add_missing(&mut self, present: Present, form: Form, inside: Inside) -> Result<(), PassedBecause> {
        match self.tags.missing(present, form) {
            Some(tags) => self.edit(inside.at..inside.at, &[&tags, comma(inside)]),
            None => Ok(()),
        }
    }

    fn edit(&mut self, place: Range<usize>, parts: &[&str]) -> Result<(), PassedBecause> {
        let text = parts.concat();
        let added = text.len().saturating_sub(place.len());
        self.room = self.room.checked_sub(added).ok_or(PassedBecause::WouldBeTooLarge)?;
        self.edits.push(Edit { place, text: text.into() });
        Ok(())
    }
}

/// What stands between the tags and what is there already.
fn comma(inside: Inside) -> &'static str {
    if inside.is_empty { "" } else { "," }
}
