#![no_main]
//! For all bytes under all codings: no panic, no more than the caps allow, and the same however they are cut.

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use recoverd::sentry::encoding::{Codings, DecodeError, DecodeLimits, Decoder};

const LIMITS: DecodeLimits = DecodeLimits { bytes: 2 << 20, ratio: 50 };
const CODINGS: [&str; 6] = ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate"];

fn decode(codings: &Codings, body: &[u8], piece: usize) -> (Vec<u8>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(codings, LIMITS);
    let mut text = Vec::new();
    for chunk in body.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next() {
                Ok(Some(piece)) => {
                    assert!((1..=64 << 10).contains(&piece.len()));
                    text.extend_from_slice(&piece);
                    assert!(text.len() as u64 <= LIMITS.bytes, "over the cap");
                }
                Ok(None) => break,
                Err(error) => return (text, Err(error)),
            }
        }
    }
    (text, decoder.finish())
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (coding, piece, body) = input;
    let codings = Codings::of([CODINGS[usize::from(coding) % CODINGS.len()]]).expect("all are known");
    let (text, whole) = decode(&codings, body, usize::MAX);
    let (parts, cut) = decode(&codings, body, usize::from(piece) + 1);
    // Beyond the first MiB, how much may come out depends on how much has come in.
    if whole.is_ok() && text.len() <= 1 << 20 {
        assert_eq!((text, whole), (parts, cut), "in pieces it is another");
    }
});
