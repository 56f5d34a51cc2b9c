//! Reads a body up to a limit, and lets what is over it go by: a sender that is cut off would send it all again.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::problem::Problem;
use crate::jenkins::document::Extent;

/// The part of a body that was kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) extent: Extent,
}

/// More than this is not even let go by.
const MOST: usize = 256 * 1024 * 1024;

impl Received {
    /// A datagram, which came whole.
    pub(super) fn datagram(mut bytes: Bytes, limit: usize) -> Self {
        let extent = if bytes.len() > limit { Extent::CutOff } else { Extent::Whole };
        bytes.truncate(limit);
        Self { bytes, extent }
    }
}

/// A body that stalls or breaks off behind the limit is as good as one that ended there.
///
/// # Errors
/// When a body within the limit takes longer than `time`, or the peer breaks off.
pub(super) async fn read(mut body: Body, limit: usize, time: Duration) -> Result<Received, Problem> {
    let mut kept = Kept::new(limit);
    let fill = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken_off())?.into_data() else { continue };
            if !kept.take(data) {
                break;
            }
        }
        Ok(())
    };
    let ended = tokio::time::timeout(time, fill).await;
    kept.received(ended.unwrap_or(Err(Problem::Timeout)))
}

/// The same of a stream that ends when its sender closes it.
///
/// # Errors
/// As of [`read`].
pub(super) async fn read_stream(
    mut stream: impl AsyncRead + Unpin,
    limit: usize,
    time: Duration,
) -> Result<Received, Problem> {
    let mut kept = Kept::new(limit);
    let fill = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            let read = stream.read_buf(&mut buffer).await.map_err(|_| broken_off())?;
            if read == 0 || !kept.take(buffer.split().freeze()) {
                return Ok(());
            }
        }
    };
    let ended = tokio::time::timeout(time, fill).await;
    kept.received(ended.unwrap_or(Err(Problem::Timeout)))
}

/// Room for most documents.
const CHUNK: usize = 4 * 1024;

fn broken_off() -> Problem {
    Problem::BadRequest("the body ended early".to_owned())
}

/// Nearly every body is one frame, which needs no copy.
struct Kept {
    limit: usize,
    first: Option<Bytes>,
    more: BytesMut,
    gone_by: usize,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { limit, first: None, more: BytesMut::new(), gone_by: 0 }
    }

    /// `false` when enough has gone by.
    fn take(&mut self, mut data: Bytes) -> bool {
        let room = self.limit - self.more.len() - self.first.as_ref().map_or(0, Bytes::len);
        self.gone_by += data.len().saturating_sub(room);
        data.truncate(room);
        match self.first.take() {
            None if self.more.is_empty() => self.first = Some(data),
            None => self.more.extend_from_slice(&data),
            Some(beginning) => {
                self.more.extend_from_slice(&beginning);
                self.more.extend_from_slice(&data);
            }
        }
        self.gone_by <= MOST
    }

    fn received(self, ended: Result<(), Problem>) -> Result<Received, Problem> {
        let extent = if self.gone_by == 0 { Extent::Whole } else { Extent::CutOff };
        if extent == Extent::Whole {
            ended?;
        }
        Ok(Received { bytes: self.first.unwrap_or_else(|| self.more.freeze()), extent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&'static str]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(futures_util::stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_that_stalls_counts_when_it_was_over_the_limit() {
        let stalled = |beginning: &'static str| {
            let chunk = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(beginning.as_bytes()))]);
            Body::from_stream(futures_util::StreamExt::chain(chunk, futures_util::stream::pending()))
        };
        let time = Duration::from_millis(20);
        let received = read(stalled("abcdef"), 4, time).await.unwrap();
        assert_eq!((received.bytes.as_ref(), received.extent), (b"abcd".as_slice(), Extent::CutOff));
        assert_eq!(read(stalled("abc"), 4, time).await.unwrap_err(), Problem::Timeout);
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end_and_a_datagram_has_one() {
        let table = [("abc", "abc", true), ("abcd", "abcd", true), ("abcdef", "abcd", false), ("", "", true)];
        for (sent, kept, whole) in table {
            let stream = read_stream(sent.as_bytes(), 4, Duration::from_secs(5)).await.unwrap();
            let datagram = Received::datagram(Bytes::from_static(sent.as_bytes()), 4);
            for received in [stream, datagram] {
                let expected = (kept.as_bytes(), whole);
                assert_eq!((received.bytes.as_ref(), received.extent == Extent::Whole), expected, "{sent}");
            }
        }
        let (silent, _held_open) = tokio::io::duplex(64);
        let stalled = read_stream(silent, 4, Duration::from_millis(20)).await;
        assert_eq!(stalled.unwrap_err(), Problem::Timeout);
    }

    #[tokio::test]
    async fn what_is_over_the_limit_goes_by() {
        let table: [(&[&'static str], &str, bool); 6] = [
            (&["abc"], "abc", true),
            (&["ab", "cd"], "abcd", true),
            (&["a", "b", "c"], "abc", true),
            (&["abcdef"], "abcd", false),
            (&["abc", "def", "ghi"], "abcd", false),
            (&[], "", true),
        ];
        for (chunks, kept, whole) in table {
            let received = read(frames(chunks), 4, Duration::from_secs(5)).await.unwrap();
            assert_eq!(
                (received.bytes.as_ref(), received.extent == Extent::Whole),
                (kept.as_bytes(), whole),
                "{chunks:?}"
            );
        }
    }
}
