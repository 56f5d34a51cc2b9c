//! Takes a body in as it comes: decodes it, splices tags into it, and keeps the other version as long as it may be needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::Instant;

use super::Refusal;
use super::pile::{Closed, Pile, Room, Share};
use super::target::Target;
use crate::machinery::http1::Fields;
use crate::sentry::encoding::{Codings, DecodeLimits, Decoder};
use crate::sentry::envelope::{Kind, Report, Splicer, Tags};

/// For a body of any size, …
const PATIENCE: Duration = Duration::from_secs(30);
/// … and so many bytes a second more.
const SLOWEST: u64 = 16 << 10;
/// Of so much nothing may show before all of it has come.
const AT_ONCE: u64 = 128 << 10;
/// An event with tags is given out in no more.
const USUAL_PIECES: usize = 8;
/// Why nobody looked into a body, as a metric's label: decoding it would take memory that others have.
pub(super) const NO_ROOM: &str = "no_room";

/// A body that has come whole.
pub(super) struct Taken {
    pub(super) body: Closed,
    /// It is no longer in the coding that it came in.
    pub(super) is_decoded: bool,
    /// Of what there may be tags in.
    pub(super) report: Option<Report>,
    /// The key in the envelope's header.
    pub(super) key: Option<Box<str>>,
    /// Why nobody looked into it.
    pub(super) undecodable: Option<&'static str>,
}

/// A body on its way in.
pub(super) struct Intake {
    limit: u64,
    announced: u64,
    received: u64,
    /// As it came, if it came encoded or is of no interest.
    raw: Option<Pile>,
    inner: Option<Box<Inner>>,
    undecodable: Option<&'static str>,
    wants_key: bool,
    /// The one in the envelope's header, as soon as it is known that it is wanted.
    key: Option<Box<str>>,
    ready: Vec<Bytes>,
}

/// What is looked into.
struct Inner {
    decoder: Option<Decoder>,
    splicer: Splicer,
    spliced: Pile,
    last: Bytes,
    /// Of what decoder and splicer hold, and the last piece.
    share: Share,
}

impl Intake {
    pub(super) fn new(target: &Target<'_>, fields: &Fields, tags: &Arc<Tags>, limit: u64, room: &Room) -> Self {
        let kind = target.kind;
        let announced = fields.texts(&CONTENT_LENGTH).next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let values = fields.all(&CONTENT_ENCODING).map(|value| std::str::from_utf8(value).unwrap_or("?"));
        let codings = kind.is_some().then(|| Codings::of(values)).flatten();
        let inner = |(kind, codings): (Kind, &Codings)| Inner {
            decoder: (!codings.is_identity())
                .then(|| Decoder::new(codings, DecodeLimits { bytes: limit.max(1 << 20), ..DecodeLimits::default() })),
            splicer: Splicer::new(kind, tags.clone()),
            spliced: Pile::new(room),
            last: Bytes::new(),
            share: room.share(),
        };
        let inner = kind.zip(codings.as_ref()).map(inner).map(Box::new);
        let is_raw = inner.as_ref().is_none_or(|inner| inner.decoder.is_some());
        Self {
            limit,
            announced,
            received: 0,
            raw: is_raw.then(|| Pile::new(room)),
            undecodable: (kind.is_some() && codings.is_none()).then_some("unknown_coding"),
            inner,
            wants_key: target.key.is_none(),
            key: None,
            ready: Vec::with_capacity(USUAL_PIECES),
        }
    }

    /// # Errors
    /// When it is too large, too slow, ends early, or there is no room for it.
    pub(super) async fn take<B: Body<Data = Bytes> + Unpin>(&mut self, mut body: B) -> Result<(), Refusal> {
        if self.announced > self.limit {
            return Err(Refusal::TooLarge { limit: self.limit });
        }
        let mut begun = None;
        while !body.is_end_stream() {
            // Most have come with their head.
            let frame = if let Some(frame) = body.frame().now_or_never() {
                frame
            } else {
                let coming = self.received.max(self.announced.min(AT_ONCE));
                let begun = *begun.get_or_insert_with(Instant::now);
                let mut until = begun + PATIENCE + Duration::from_secs(coming / SLOWEST);
                if self.received > 0 {
                    // What has come takes room that others need, so nobody may fall silent for as long as a slow one has.
                    until = until.min(Instant::now() + PATIENCE);
                }
                tokio::time::timeout_at(until, body.frame()).await.map_err(|_| Refusal::Slow)?
            };
            let Some(frame) = frame else { break };
            let Ok(chunk) = frame.map_err(|_| Refusal::BrokenOff)?.into_data() else { continue };
            self.received += chunk.len() as u64;
            if self.received > self.limit {
                return Err(Refusal::TooLarge { limit: self.limit });
            }
            self.push(chunk).await.map_err(|error| {
                tracing::warn!(%error, "a large body cannot be written to disk");
                Refusal::NotKept
            })?;
        }
        Ok(())
    }

    async fn push(&mut self, chunk: Bytes) -> std::io::Result<()> {
        if let Some(raw) = &mut self.raw {
            raw.push(chunk.clone()).await?;
        }
        let Some(inner) = &mut self.inner else { return Ok(()) };
        match &mut inner.decoder {
            None => inner.step(chunk, &mut self.ready).await,
            Some(decoder) => {
                decoder.push(chunk);
                loop {
                    let Some(decoder) = &mut inner.decoder else { return Ok(()) };
                    let reason = match decoder.next() {
                        Ok(Some(piece)) => match inner.step(piece, &mut self.ready).await {
                            Ok(()) => continue,
                            // As it came there is room for it.
                            Err(_) => NO_ROOM,
                        },
                        Ok(None) if inner.has_room() => return Ok(()),
                        Ok(None) => NO_ROOM,
                        Err(error) => error.reason(),
                    };
                    self.give_up(reason);
                    return Ok(());
                }
            }
        }
    }

    /// It goes on as it came.
    fn give_up(&mut self, reason: &'static str) {
        self.undecodable = Some(reason);
        if let Some(inner) = self.inner.take().filter(|_| self.wants_key) {
            self.key = inner.key();
        }
    }

    /// # Errors
    /// When there is no room for it.
    pub(super) async fn finish(mut self) -> Result<Taken, Refusal> {
        let ended = self.inner.as_mut().and_then(|inner| inner.decoder.take()).map(Decoder::finish);
        if let Some(Err(error)) = ended {
            self.give_up(error.reason());
        }
        self.settle().await.map_err(|error| {
            tracing::warn!(%error, "a large body cannot be written to disk");
            Refusal::NotKept
        })
    }

    async fn settle(mut self) -> std::io::Result<Taken> {
        let (mut report, mut spliced) = (None, None);
        if let Some(mut inner) = self.inner.take() {
            if self.wants_key {
                inner.splicer.push(std::mem::take(&mut inner.last), &mut self.ready);
                self.key = inner.key();
            }
            match inner.end(self.raw.is_none(), &mut self.ready).await {
                Ok(ended) => (report, spliced) = (Some(ended.0), ended.1),
                Err(_) if self.raw.is_some() => self.undecodable = Some(NO_ROOM),
                Err(error) => return Err(error),
            }
        }
        let Self { raw, key, undecodable, .. } = self;
        let (body, is_decoded) = match (spliced, raw) {
            (Some(spliced), raw) => (spliced, raw.is_some()),
            (None, Some(raw)) => (raw.close().await?, false),
            (None, None) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        };
        Ok(Taken { body, is_decoded, report, key, undecodable })
    }
}

impl Inner {
    /// In the envelope's header, if that has come.
    fn key(&self) -> Option<Box<str>> {
        self.splicer.dsn().map(|dsn| dsn.public_key.clone())
    }

    /// What was found, and the body if any of it has changed or it is the only one.
    async fn end(self, is_only: bool, ready: &mut Vec<Bytes>) -> std::io::Result<(Report, Option<Closed>)> {
        let Self { splicer, spliced, last, share, .. } = self;
        let report = splicer.finish(last, ready);
        drop(share);
        if !is_only && !report.is_changed() {
            return Ok((report, None));
        }
        Ok((report, Some(spliced.close_with(ready).await?)))
    }

    /// Takes as large a share as it holds now, if there is one.
    fn has_room(&mut self) -> bool {
        let decoder = self.decoder.as_ref().map_or(0, Decoder::held);
        self.share.covers(decoder + self.splicer.held() + self.last.len())
    }

    /// What came last stays out until more comes: a body that is one piece is spliced without a copy.
    async fn step(&mut self, piece: Bytes, ready: &mut Vec<Bytes>) -> std::io::Result<()> {
        let before = std::mem::replace(&mut self.last, piece);
        if before.is_empty() {
            return Ok(());
        }
        self.splicer.push(before, ready);
        if !self.has_room() {
            // A pile can go to disk, and what is held here cannot.
            self.splicer.push(std::mem::take(&mut self.last), ready);
            if !self.has_room() {
                self.splicer.let_go(ready);
                self.has_room();
            }
        }
        self.spliced.push_all(ready).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::{StreamExt as _, TryStreamExt as _, stream};
    use http::Uri;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::super::pile::FREE;
    use super::*;
    use crate::machinery::blocks::blocks;
    use crate::machinery::spool;
    use crate::sentry::envelope::{Category, Item, Outcome, PassedBecause};

    const MANY: usize = 20;
    const BOUND: usize = 4 << 20;

    async fn whole(body: spool::Body) -> Vec<u8> {
        match body {
            spool::Body::Held(pieces) => pieces.concat(),
            spool::Body::File(file, bytes) => {
                blocks(file, 0..bytes).map_ok(|block| block.to_vec()).try_concat().await.unwrap()
            }
        }
    }

    /// Many that send the `first` part of a body, and when all have, the `rest`.
    async fn stall(coding: &'static str, first: &[u8], rest: &[u8]) {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::of(directory.path().to_owned(), BOUND, 1 << 30);
        let uri = Uri::from_static("/api/7/envelope/?sentry_key=abc");
        let fields: Fields = [(CONTENT_ENCODING, coding)].into_iter().collect();
        let target = Target::of(&uri, &fields);
        let tags = Arc::new(Tags::new([("pod_name", "web-1")]));
        let mut stalled = Vec::new();
        for _ in 0..MANY {
            let mut intake = Intake::new(&target, &fields, &tags, 8 << 20, &room);
            for piece in first.chunks(64 << 10) {
                intake.push(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            stalled.push(intake);
        }
        let holds = |intake: &Intake| {
            let inner = intake.inner.as_ref();
            inner.map_or(0, |inner| {
                inner.splicer.held() + inner.last.len() + inner.decoder.as_ref().map_or(0, Decoder::held)
            })
        };
        let held: usize = stalled.iter().map(holds).sum();
        assert!((BOUND / 2..=BOUND + MANY * FREE).contains(&held), "{held} {coding}");
        let (mut tagged, mut passed) = (0, 0);
        for mut intake in stalled {
            intake.push(Bytes::copy_from_slice(rest)).await.unwrap();
            let taken = intake.finish().await.unwrap();
            let body = whole(taken.body.body()).await;
            let of = |outcome| Item { category: Category::Event, level: None, outcome };
            let no_room = of(Outcome::Passed(PassedBecause::NoRoom));
            let is_passed =
                taken.report.is_none_or(|report| report.items.contains_key(&no_room)) || taken.undecodable.is_some();
            if is_passed {
                assert!(body == [first, rest].concat(), "a byte has changed");
                passed += 1;
            } else {
                assert!(String::from_utf8(body).unwrap().contains(r#""tags":{"pod_name":"web-1"}"#));
                tagged += 1;
            }
        }
        assert!(tagged > 0 && passed > MANY / 2, "{tagged} {passed} {coding}");
        assert_eq!(room.held(), 0);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn without_room_for_it_with_tags_a_body_goes_on_as_it_came_to_whom_its_header_names() {
        let directory = tempfile::tempdir().unwrap();
        let header = r#"{"dsn":"https://abc@sentry.example.com/7"}"#;
        let noise: Vec<u8> = (0_u32..2 << 20).map(|n| (n.wrapping_mul(n ^ 0x9E37_79B1) >> 30) as u8).collect();
        let event = b"\n{\"type\":\"event\",\"length\":2}\n{}\n{\"type\":\"attachment\",\"length\":2097152}\n";
        let body = gzip(&[header.as_bytes(), event, &noise].concat());
        let uri = Uri::from_static("/api/7/envelope/");
        let fields: Fields = [(CONTENT_ENCODING, "gzip")].into_iter().collect();
        let tags = Arc::new(Tags::new([("pod_name", "web-1")]));
        assert!(body.len() < 1 << 20, "as it came it needs no disk");
        for (most, fits) in [(0, false), (64 << 20, true)] {
            let room = Room::of(directory.path().to_owned(), 64 << 20, most);
            let target = Target::of(&uri, &fields);
            let mut intake = Intake::new(&target, &fields, &tags, 8 << 20, &room);
            intake.push(Bytes::copy_from_slice(&body)).await.unwrap();
            let taken = intake.finish().await;
            let Ok(taken) = taken else { panic!("it is refused") };
            assert_eq!((taken.is_decoded, taken.undecodable), (fits, (!fits).then_some(NO_ROOM)));
            assert_eq!(taken.key.as_deref(), Some("abc"));
            assert_eq!(whole(taken.body.body()).await == body, !fits);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_is_not_waited_for_as_long_as_one_who_is_slow() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::of(directory.path().to_owned(), 64 << 20, 64 << 20);
        let uri = Uri::from_static("/api/7/minidump/?sentry_key=abc");
        let fields = Fields::default();
        let target = Target::of(&uri, &fields);
        let mut intake = Intake::new(&target, &fields, &Arc::default(), 64 << 20, &room);
        let block = Frame::data(Bytes::from(vec![0; 512 << 10]));
        let blocks =
            stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(Frame::data(block.data_ref().unwrap().clone()))));
        let slow = blocks.then(|block| async {
            tokio::time::sleep(PATIENCE * 9 / 10).await;
            block
        });
        let began = Instant::now();
        let body = StreamBody::new(Box::pin(slow.chain(stream::pending())));
        assert_eq!(intake.take(body).await, Err(Refusal::Slow));
        assert_eq!(began.elapsed(), PATIENCE * 9 / 10 * 20 + PATIENCE);
    }

    #[tokio::test]
    async fn however_many_stall_within_an_event_they_hold_no_more_than_there_is_room_for() {
        let payload = [b"{\"a\":\"" as &[u8], &vec![b'a'; 1_040_000], b"\"}"].concat();
        let header = format!("{{}}\n{{\"type\":\"event\",\"length\":{}}}\n", payload.len());
        let body = [header.as_bytes(), &payload].concat();
        let (first, rest) = body.split_at(body.len() - 10);
        stall("identity", first, rest).await;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(first).unwrap();
        encoder.flush().unwrap();
        let flushed = encoder.get_ref().len();
        encoder.write_all(rest).unwrap();
        let whole = encoder.finish().unwrap();
        stall("gzip", &whole[..flushed], &whole[flushed..]).await;
    }
}
