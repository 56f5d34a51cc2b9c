//! Reads a body up to a limit, and lets what is over it go by: a sender that is cut off would send it all again.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::problem::Problem;
use crate::jenkins::notification::Extent;

/// The part of a body that was kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) extent: Extent,
}

/// More than this is not even let go by.
const MOST: usize = 256 * 1024 * 1024;

/// A body that stalls or breaks off behind the limit is as good as one that ended there.
///
/// # Errors
/// When a body within the limit takes longer than `time`, or the peer breaks off.
pub(super) async fn read(body: Body, limit: usize, time: Duration) -> Result<Received, Problem> {
    let mut kept = Kept::default();
    let ended = tokio::time::timeout(time, kept.fill(body, limit)).await;
    if kept.gone_by == 0 {
        ended.unwrap_or(Err(Problem::Timeout))?;
    }
    let extent = if kept.gone_by == 0 { Extent::Whole } else { Extent::CutOff };
    Ok(Received { bytes: kept.first.unwrap_or_else(|| kept.more.freeze()), extent })
}

/// Nearly every body is one frame, which needs no copy.
#[derive(Default)]
struct Kept {
    first: Option<Bytes>,
    more: BytesMut,
    gone_by: usize,
}

impl Kept {
    async fn fill(&mut self, mut body: Body, limit: usize) -> Result<(), Problem> {
        let broken_off = |_| Problem::BadRequest("the body ended early".to_owned());
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame.map_err(broken_off)?.into_data() else { continue };
            let room = limit - self.more.len() - self.first.as_ref().map_or(0, Bytes::len);
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
            if self.gone_by > MOST {
                break;
            }
        }
        Ok(())
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
