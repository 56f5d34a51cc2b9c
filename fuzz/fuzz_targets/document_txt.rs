#![no_main]

mod document;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|body: &[u8]| -> Corpus {
    if matches!(body.trim_ascii_start().first(), None | Some(b'{' | b'<')) {
        return Corpus::Reject;
    }
    document::check(body);
    Corpus::Keep
});
