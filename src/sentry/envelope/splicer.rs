//! The way through a body, item by item, however it is cut into pieces. Pure.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use super::header::{self, EnvelopeHeader, HeaderDsn, ItemHeader, Length};
use super::payload::{Edit, Reading};
use super::report::{Category, Outcome, PassedBecause, Report};
use super::tags::Tags;
use super::{Kind, LARGEST_ITEM};

/// The longest line that is taken for a header, in bytes. SDKs write some hundred.
const LONGEST_HEADER: usize = 64 << 10;

/// So many items of an envelope are looked into. Sentry takes one event, or one list of logs.
const MOST_ITEMS: usize = 100;

/// Takes a body in pieces, gives it back in pieces. How it is cut makes no difference.
#[derive(Debug)]
pub struct Splicer {
    tags: Arc<Tags>,
    state: State,
    /// What has come and cannot be decided yet: a header, and the payload that goes with it.
    held: BytesMut,
    enough: Enough,
    looked_into: usize,
    dsn: Option<HeaderDsn>,
    report: Report,
}

#[derive(Debug)]
enum State {
    /// At the header of the envelope.
    Start,
    /// At the header of an item, or at the end.
    Header,
    /// At the header of an item that is looked into.
    LookedInto { category: Category, header: usize, length: Option<Length> },
    /// Within a payload that is not.
    Passing { category: Category, reason: PassedBecause, left: u64 },
    /// Within a payload that is not, and is a line.
    PassingLine,
    /// All that is left is passed on.
    Lost,
    /// At the beginning of a `store/` body.
    Store,
}

/// How much has to be held until something can be decided.
#[derive(Debug)]
enum Enough {
    Bytes(usize),
    /// Up to the end of a line, or as many bytes.
    Line(usize),
}

impl Splicer {
    /// With no tags nothing is changed, but all is counted.
    pub fn new(kind: Kind, tags: Arc<Tags>) -> Self {
        let state = match kind {
            Kind::Envelope => State::Start,
            Kind::Store => State::Store,
        };
        Self {
            tags,
            state,
            held: BytesMut::new(),
            enough: Enough::Bytes(0),
            looked_into: 0,
            dsn: None,
            report: Report::default(),
        }
    }

    /// Takes the next bytes, of any number, and appends to `out` what is ready: slices of them, and of what was held.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut Vec<Bytes>) {
        while !chunk.is_empty() {
            if self.held.is_empty() {
                let done = self.go(&chunk, false, out);
                self.held.extend_from_slice(chunk.get(done..).unwrap_or_default());
                return;
            }
            let (take, is_enough) = self.enough.of(self.held.len(), &chunk);
            self.held.extend_from_slice(&chunk.split_to(take));
            if is_enough {
                let held = self.held.split().freeze();
                let done = self.go(&held, false, out);
                let rest = held.slice(done..);
                drop(held);
                self.held = rest.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
            }
        }
    }

    /// Takes the last bytes, or none, and appends to `out` what is still held: the body has ended. A body that is whole is
    /// best given here, for then nothing of it is copied.
    pub fn finish(mut self, last: Bytes, out: &mut Vec<Bytes>) -> Report {
        if self.held.is_empty() {
            self.go(&last, true, out);
        } else {
            self.push(last, out);
            let held = self.held.split().freeze();
            self.go(&held, true, out);
        }
        self.report
    }

    /// Passes on what is held, and all that comes behind it, as it came: whoever has to keep it has no room.
    pub fn let_go(&mut self, out: &mut Vec<Bytes>) {
        if self.held.is_empty() {
            return;
        }
        out.push(std::mem::take(&mut self.held).freeze());
        let category = match self.state {
            State::LookedInto { category, .. } => category,
            State::Store => Category::Event,
            _ => Category::Other,
        };
        self.lose(category, PassedBecause::NoRoom);
    }

    /// What is held, in bytes of memory.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Whether the envelope's header has been read, or there is none.
    pub fn is_past_header(&self) -> bool {
        !matches!(self.state, State::Start)
    }

    /// The DSN in the envelope's header, once that has been read.
    pub fn dsn(&self) -> Option<&HeaderDsn> {
        self.dsn.as_ref()
    }

    /// Goes on through `bytes`, which begin where the state says, and returns how many of them went to `out`. The others have
    /// to come again, with more behind them. If they are the `last`, all go out.
    fn go(&mut self, bytes: &Bytes, last: bool, out: &mut Vec<Bytes>) -> usize {
        let mut way = Way { bytes, last, at: 0, sent: 0, out };
        while !way.rest().is_empty() || (last && !matches!(self.state, State::Header | State::Lost)) {
            let goes_on = match self.state {
                State::Start => self.start(&mut way),
                State::Header => self.header(&mut way),
                State::LookedInto { category, header, ref length } => {
                    let length = length.clone();
                    self.look_into(&mut way, category, header, length.as_ref())
                }
                State::Passing { category, reason, left } => self.pass(&mut way, category, reason, left),
                State::PassingLine => {
                    let end = memchr(b'\n', way.rest());
                    way.at += end.map_or(way.rest().len(), |end| end + 1);
                    if end.is_some() || last {
                        self.state = State::Header;
                    }
                    true
                }
                State::Lost => {
                    way.at = bytes.len();
                    true
                }
                State::Store => self.store(&mut way),
            };
            if !goes_on {
                break;
            }
        }
        way.send(way.at);
        way.at
    }

    fn start(&mut self, way: &mut Way<'_>) -> bool {
        let (line, end) = match way.header() {
            Line::Whole(line, end) => (line, end),
            Line::Partial => return self.hold(Enough::Line(LONGEST_HEADER + 1)),
            Line::TooLong => return self.lose(Category::Other, PassedBecause::OddHeader),
        };
        let Ok(header) = EnvelopeHeader::read(line) else {
            return self.lose(Category::Other, PassedBecause::OddHeader);
        };
        self.report.event_id = header.event_id;
        self.dsn = header.dsn;
        self.state = State::Header;
        way.at = end;
        true
    }

    fn header(&mut self, way: &mut Way<'_>) -> bool {
        let (line, end) = match way.header() {
            Line::Whole(line, end) => (line, end),
            Line::Partial => return self.hold(Enough::Line(LONGEST_HEADER + 1)),
            Line::TooLong => return self.lose(Category::Other, PassedBecause::OddHeader),
        };
        // Sentry takes empty lines between items.
        if line.trim_ascii().is_empty() {
            way.at = end;
            return true;
        }
        let Ok(header) = ItemHeader::read(line) else {
            return self.lose(Category::Other, PassedBecause::OddHeader);
        };
        let category = header.category;
        let is_too_large = header.length.as_ref().is_some_and(|length| length.bytes > LARGEST_ITEM as u64);
        let reason = match () {
            () if header.is_ambiguous => PassedBecause::OddHeader,
            () if !category.takes_tags() => PassedBecause::OtherKind,
            () if is_too_large => PassedBecause::TooLarge,
            () if self.looked_into == MOST_ITEMS => PassedBecause::TooMany,
            () => {
                self.looked_into += 1;
                self.state = State::LookedInto { category, header: end - way.at, length: header.length };
                return true;
            }
        };
        way.at = end;
        self.state = State::PassingLine;
        if let Some(length) = header.length {
            self.state = State::Passing { category, reason, left: length.bytes };
        } else {
            self.report.count(category, None, Outcome::Passed(reason));
        }
        true
    }

    fn look_into(&mut self, way: &mut Way<'_>, category: Category, header: usize, length: Option<&Length>) -> bool {
        let start = way.at + header;
        let rest = way.part(start..way.bytes.len());
        let end = match length {
            Some(length) => {
                // What is too large is not looked into, so this is a place.
                let end = start.saturating_add(usize::try_from(length.bytes).unwrap_or(usize::MAX));
                match way.bytes.get(end) {
                    Some(b'\n') => end,
                    Some(_) => return self.lose(category, PassedBecause::WrongLength),
                    None if !way.last => return self.hold(Enough::Bytes(end - way.at + 1)),
                    None if end == way.bytes.len() => end,
                    None => return self.lose(category, PassedBecause::Truncated),
                }
            }
            None => match memchr(b'\n', rest.get(..=LARGEST_ITEM).unwrap_or(rest)) {
                Some(end) => start + end,
                None if rest.len() > LARGEST_ITEM => {
                    self.report.count(category, None, Outcome::Passed(PassedBecause::TooLarge));
                    self.state = State::PassingLine;
                    way.at = start;
                    return true;
                }
                None if way.last => way.bytes.len(),
                None => return self.hold(Enough::Line(header + LARGEST_ITEM + 1)),
            },
        };
        let payload = way.part(start..end);
        let Reading { edits, outcome, level, event_id } = Reading::of(payload, category, &self.tags);
        self.report.count(category, level, outcome);
        if self.report.event_id.is_none() {
            self.report.event_id = event_id.and_then(header::event_id);
        }
        let added = edits.iter().map(Edit::added).sum::<u64>();
        if let Some(length) = length.filter(|_| added > 0) {
            let text = Bytes::copy_from_slice(itoa::Buffer::new().format(payload.len() as u64 + added).as_bytes());
            let digits = Edit { place: length.digits.clone(), text };
            self.report.added += digits.added();
            way.edit(way.at, digits);
        }
        for edit in edits {
            way.edit(start, edit);
        }
        self.report.added += added;
        way.at = (end + 1).min(way.bytes.len());
        self.state = State::Header;
        true
    }

    fn pass(&mut self, way: &mut Way<'_>, category: Category, reason: PassedBecause, left: u64) -> bool {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(way.rest().len());
        way.at += here;
        let left = left - here as u64;
        self.state = State::Passing { category, reason, left };
        match way.rest().first() {
            Some(b'\n') => {
                way.at += 1;
                self.end_of_passed(category, reason)
            }
            Some(_) => self.lose(category, PassedBecause::WrongLength),
            None if !way.last => false,
            None if left == 0 => self.end_of_passed(category, reason),
            None => self.lose(category, PassedBecause::Truncated),
        }
    }

    fn end_of_passed(&mut self, category: Category, reason: PassedBecause) -> bool {
        self.report.count(category, None, Outcome::Passed(reason));
        self.state = State::Header;
        true
    }

    fn store(&mut self, way: &mut Way<'_>) -> bool {
        if way.bytes.len() > LARGEST_ITEM {
            return self.lose(Category::Event, PassedBecause::TooLarge);
        }
        if !way.last {
            return self.hold(Enough::Bytes(LARGEST_ITEM + 1));
        }
        let Reading { edits, outcome, level, event_id } = Reading::of(way.bytes, Category::Event, &self.tags);
        self.report.count(Category::Event, level, outcome);
        self.report.event_id = event_id.and_then(header::event_id);
        for edit in edits {
            self.report.added += edit.added();
            way.edit(0, edit);
        }
        self.state = State::Lost;
        true
    }

    /// Nothing can be said of this item, nor of what comes after it.
    fn lose(&mut self, category: Category, reason: PassedBecause) -> bool {
        self.report.count(category, None, Outcome::Passed(reason));
        self.state = State::Lost;
        true
    }

    fn hold(&mut self, enough: Enough) -> bool {
        self.enough = enough;
        false
    }
}

impl Enough {
    /// How much to take of a chunk when so much is held, and whether that is enough.
    fn of(&self, held: usize, chunk: &[u8]) -> (usize, bool) {
        let missing = match self {
            Self::Bytes(bytes) | Self::Line(bytes) => bytes.saturating_sub(held),
        };
        let taken = chunk.get(..missing).unwrap_or(chunk);
        match self {
            Self::Line(_) if let Some(end) = memchr(b'\n', taken) => (end + 1, true),
            _ => (taken.len(), taken.len() == missing),
        }
    }
}

/// A walk through bytes, of which those that it has passed go out.
struct Way<'a> {
    bytes: &'a Bytes,
    /// There are no more.
    last: bool,
    at: usize,
    /// Up to where they have gone out.
    sent: usize,
    out: &'a mut Vec<Bytes>,
}

/// The line that a header should be.
enum Line<'a> {
    /// Without its end, and the place behind that.
    Whole(&'a [u8], usize),
    /// There is more of it to come.
    Partial,
    TooLong,
}

impl<'a> Way<'a> {
    fn part(&self, place: Range<usize>) -> &'a [u8] {
        self.bytes.get(place).unwrap_or_default()
    }

    fn rest(&self) -> &'a [u8] {
        self.part(self.at..self.bytes.len())
    }

    fn header(&self) -> Line<'a> {
        let rest = self.rest();
        let looked_at = rest.get(..=LONGEST_HEADER).unwrap_or(rest);
        match memchr(b'\n', looked_at) {
            Some(end) => Line::Whole(self.part(self.at..self.at + end), self.at + end + 1),
            None if rest.len() > LONGEST_HEADER => Line::TooLong,
            None if self.last => Line::Whole(rest, self.bytes.len()),
            None => Line::Partial,
        }
    }

    fn send(&mut self, end: usize) {
        if end > self.sent {
            self.out.push(self.bytes.slice(self.sent..end));
            self.sent = end;
        }
    }

    /// `base`: where the place of the edit counts from.
    fn edit(&mut self, base: usize, edit: Edit) {
        self.send(base + edit.place.start);
        self.out.push(edit.text);
        self.sent = base + edit.place.end;
    }
}
