//! Takes a body in as it comes: decodes it, splices tags into it, and keeps the other version as long as it may be needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::Instant;

use super::Refusal;
use super::pile::{Closed, Pile, Room};
use super::target::Target;
use crate::machinery::http1::Fields;
use crate::sentry::encoding::{Codings, DecodeError, DecodeLimits, Decoder};
use crate::sentry::envelope::{Report, Splicer, Tags};

/// For a body of any size, …
const PATIENCE: Duration = Duration::from_secs(30);
/// … and so many bytes a second more.
const SLOWEST: u64 = 16 << 10;
/// Of so much nothing may show before all of it has come.
const AT_ONCE: u64 = 128 << 10;

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
    inner: Option<Inner>,
    undecodable: Option<&'static str>,
    wants_key: bool,
    ready: Vec<Bytes>,
}

/// What is looked into.
struct Inner {
    decoder: Option<Decoder>,
    splicer: Splicer,
    spliced: Pile,
    last: Bytes,
}

impl Intake {
    pub(super) fn new(target: &Target<'_>, fields: &Fields, tags: &Arc<Tags>, limit: u64, room: &Room) -> Self {
        let kind = target.kind;
        let announced = fields.texts(&CONTENT_LENGTH).next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let values = fields.all(&CONTENT_ENCODING).map(|value| std::str::from_utf8(value).unwrap_or("?"));
        let codings = kind.is_some().then(|| Codings::of(values)).flatten();
        let inner = kind.zip(codings.as_ref()).map(|(kind, codings)| Inner {
            decoder: (!codings.is_identity())
                .then(|| Decoder::new(codings, DecodeLimits { bytes: limit.max(1 << 20), ..DecodeLimits::default() })),
            splicer: Splicer::new(kind, tags.clone()),
            spliced: Pile::new(room),
            last: Bytes::new(),
        });
        let is_raw = inner.as_ref().is_none_or(|inner| inner.decoder.is_some());
        Self {
            limit,
            announced,
            received: 0,
            raw: is_raw.then(|| Pile::new(room)),
            undecodable: (kind.is_some() && codings.is_none()).then_some("unknown_coding"),
            inner,
            wants_key: target.key.is_none(),
            ready: Vec::new(),
        }
    }

    /// # Errors
    /// When it is too large, too slow, ends early, or there is no room for it.
    pub(super) async fn take<B: Body<Data = Bytes> + Unpin>(&mut self, mut body: B) -> Result<(), Refusal> {
        if self.announced > self.limit {
            return Err(Refusal::TooLarge { limit: self.limit });
        }
        let begun = Instant::now();
        while !body.is_end_stream() {
            let coming = self.received.max(self.announced.min(AT_ONCE));
            let until = begun + PATIENCE + Duration::from_secs(coming / SLOWEST);
            let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| Refusal::Slow)?;
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
                    match decoder.next() {
                        Ok(Some(piece)) => inner.step(piece, &mut self.ready).await?,
                        Ok(None) => return Ok(()),
                        Err(error) => {
                            self.give_up(error);
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// It goes on as it came.
    fn give_up(&mut self, error: DecodeError) {
        self.undecodable = Some(error.reason());
        self.inner = None;
    }

    /// # Errors
    /// When there is no room for it.
    pub(super) async fn finish(mut self) -> Result<Taken, Refusal> {
        let ended = self.inner.as_mut().and_then(|inner| inner.decoder.take()).map(Decoder::finish);
        if let Some(Err(error)) = ended {
            self.give_up(error);
        }
        self.settle().await.map_err(|error| {
            tracing::warn!(%error, "a large body cannot be written to disk");
            Refusal::NotKept
        })
    }

    async fn settle(self) -> std::io::Result<Taken> {
        let Self { raw, inner, undecodable, wants_key, mut ready, .. } = self;
        let (mut report, mut key, mut spliced) = (None, None, None);
        if let Some(Inner { mut splicer, spliced: mut pile, mut last, .. }) = inner {
            if wants_key {
                splicer.push(std::mem::take(&mut last), &mut ready);
                key = splicer.dsn().map(|dsn| dsn.public_key.clone());
            }
            report = Some(splicer.finish(last, &mut ready));
            for piece in ready.drain(..) {
                pile.push(piece).await?;
            }
            spliced = Some(pile);
        }
        let is_changed = report.as_ref().is_some_and(Report::is_changed);
        let (pile, is_decoded) = match (raw, spliced) {
            (Some(_), Some(spliced)) if is_changed => (spliced, true),
            (Some(raw), _) => (raw, false),
            (None, Some(spliced)) => (spliced, false),
            (None, None) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        };
        let body = pile.close().await?;
        Ok(Taken { body, is_decoded, report, key, undecodable })
    }
}

impl Inner {
    /// What came last stays out until more comes: a body that is one piece is spliced without a copy.
    async fn step(&mut self, piece: Bytes, ready: &mut Vec<Bytes>) -> std::io::Result<()> {
        let before = std::mem::replace(&mut self.last, piece);
        if before.is_empty() {
            return Ok(());
        }
        self.splicer.push(before, ready);
        for piece in ready.drain(..) {
            self.spliced.push(piece).await?;
        }
        Ok(())
    }
}
