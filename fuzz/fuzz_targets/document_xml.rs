#![no_main]

mod document;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|body: &[u8]| -> Corpus {
    if !body.trim_ascii_start().starts_with(b"<") {
        return Corpus::Reject;
    }
    document::check(body);
    Corpus::Keep
});
