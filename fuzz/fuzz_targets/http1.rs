#![no_main]
//! For all bytes that follow a head of HTTP/1.1: no panic, the body and where it ends are the same however they are cut, and
//! nothing is given out twice or held back.

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use recoverd::machinery::http1::{Chunked, Extent, Next};

/// The body, how many bytes are left behind it, and whether it came to an end; an error says nothing of either.
fn read(mut extent: Extent, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), ()> {
    let (mut body, mut read) = (Vec::new(), BytesMut::new());
    for (at, chunk) in (1_usize..).zip(bytes.chunks(piece)) {
        read.extend_from_slice(chunk);
        loop {
            match extent.take(&mut read).map_err(|_| ())? {
                Next::Piece(piece) => {
                    assert!(!piece.is_empty());
                    body.extend_from_slice(&piece);
                }
                Next::End => {
                    assert!(extent.is_over());
                    let behind = bytes.len() - (at * piece.min(bytes.len())).min(bytes.len());
                    return Ok((body, read.len() + behind, true));
                }
                Next::Missing => break,
            }
        }
    }
    Ok((body, read.len(), extent.is_over()))
}

fuzz_target!(|input: (Option<u16>, u8, &[u8])| {
    let (length, piece, bytes) = input;
    let extent = || length.map_or(Extent::Chunked(Chunked::Size), |length| Extent::Length(length.into()));
    let whole = read(extent(), bytes, usize::MAX);
    assert_eq!(whole, read(extent(), bytes, usize::from(piece) + 1), "in pieces it is another");
    if let (Some(length), Ok((body, left, is_over))) = (length, whole) {
        assert_eq!(body, bytes[..bytes.len().min(length.into())]);
        assert_eq!((left, is_over), (bytes.len() - body.len(), bytes.len() >= length.into()));
    }
});
