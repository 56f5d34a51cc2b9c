#![no_main]
//! For all bytes that follow a head of HTTP/1.1: no panic, the body and where it ends are the same however they are cut, and
//! nothing is given out twice or held back. For all bytes that are a head: its fields are those that were read, and such as a
//! header may have.

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use recoverd::machinery::http1::{Chunked, Extent, Fields, Next};

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

fn fields(head: &[u8]) {
    let mut room = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut room);
    let Ok(httparse::Status::Complete(length)) = request.parse(head) else { return };
    let mut fields = Fields::read(&head[..length], request.headers).unwrap();
    let found: Vec<(&[u8], &[u8])> = request.headers.iter().map(|one| (one.name.as_bytes(), one.value)).collect();
    assert_eq!(fields.iter().collect::<Vec<_>>(), found);
    for (name, value) in found {
        let name = http::HeaderName::from_bytes(name).expect("it could not be sent on");
        http::HeaderValue::from_bytes(value).expect("it could not be sent on");
        let all = request.headers.iter().filter(|one| one.name.eq_ignore_ascii_case(name.as_str()));
        assert!(fields.all(&name).eq(all.map(|one| one.value)) || !fields.contains(&name));
        fields.remove(&name);
        assert!(!fields.contains(&name));
    }
    assert_eq!(fields.iter().count(), 0);
}

fuzz_target!(|input: (Option<u16>, u8, &[u8])| {
    let (length, piece, bytes) = input;
    fields(bytes);
    let extent = || length.map_or(Extent::Chunked(Chunked::Size), |length| Extent::Length(length.into()));
    let whole = read(extent(), bytes, usize::MAX);
    assert_eq!(whole, read(extent(), bytes, usize::from(piece) + 1), "in pieces it is another");
    if let (Some(length), Ok((body, left, is_over))) = (length, whole) {
        assert_eq!(body, bytes[..bytes.len().min(length.into())]);
        assert_eq!((left, is_over), (bytes.len() - body.len(), bytes.len() >= length.into()));
    }
});
