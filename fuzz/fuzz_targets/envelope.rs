#![no_main]
//! For all bodies, however they are cut: what goes out is what came in, with tags, lengths and nothing else between.

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use recoverd::sentry::envelope::{Kind, Splicer, Tags, splice};

fuzz_target!(|input: (Vec<u16>, bool, &[u8])| {
    let (cuts, is_store, body) = input;
    let kind = if is_store { Kind::Store } else { Kind::Envelope };
    let tags = Arc::new(Tags::new([("pod_name", "web-1"), ("pod_namespace", "shop")]));
    let body = Bytes::copy_from_slice(body);

    let mut whole = Vec::new();
    let report = splice(kind, tags.clone(), body.clone(), &mut whole);
    let (mut at, mut removed, mut written) = (0, 0, 0);
    for piece in &whole {
        let place = (piece.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
        if place >= body.len() {
            written += piece.len();
            continue;
        }
        // What came in, in its order. What is missing between is a length, or a null where the tags are now.
        assert!(place >= at, "a byte goes out twice");
        let missing = &body[at..place];
        assert!(missing.iter().all(u8::is_ascii_digit) || missing == b"null", "lost: {missing:?}");
        removed += missing.len();
        at = place + piece.len();
    }
    assert_eq!(at, body.len(), "the end is lost");
    assert_eq!((written - removed) as u64, report.added);

    let mut splicer = Splicer::new(kind, tags);
    let (mut out, mut rest) = (Vec::new(), body.clone());
    for cut in cuts {
        let piece = rest.split_to(usize::from(cut).min(rest.len()));
        splicer.push(Bytes::copy_from_slice(&piece), &mut out);
    }
    let again = splicer.finish(Bytes::copy_from_slice(&rest), &mut out);
    assert_eq!(out.concat(), whole.concat(), "in pieces it is another");
    assert_eq!(again, report);

    let mut untouched = Vec::new();
    let plain = splice(kind, Arc::default(), body.clone(), &mut untouched);
    assert_eq!((untouched.concat(), plain.added), (body.to_vec(), 0), "without tags nothing changes");
});
