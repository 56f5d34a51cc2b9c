//! What holds for every body, sound or not, whoever sent it.

use recoverd::jenkins::document::{Extent, Reading, read};

pub fn check(body: &[u8]) {
    let whole = read(body, Extent::Whole);
    assert_eq!(whole, read(body, Extent::Whole), "reading twice gives the same twice");
    match &whole {
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 300 && !message.contains(char::is_control), "{message:?}");
            _ = read(body, Extent::CutOff);
        }
        Ok(document) => {
            // Nothing marks the end of a form.
            if body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"<") {
                let same = read(body, Extent::CutOff);
                assert_eq!(Ok(document), same.as_ref(), "a whole document is whole, whatever one calls it");
            }
            // A different place for each input, the same for the same input.
            let cut = body.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte)) % body.len();
            let part = read(&body[..cut], Extent::CutOff).map(|document| document.reading);
            match (&document.reading, part) {
                (Reading::Report(report), Ok(Reading::Report(part))) => {
                    assert!(!report.job.as_str().is_empty() && report.number > 0);
                    assert_eq!((part.number, part.progress), (report.number, report.progress), "cut at {cut}");
                }
                (Reading::Report(_), Ok(part)) => panic!("cut at {cut}: {part:?}"),
                (Reading::Gone(gone), Ok(part)) => assert_eq!(Reading::Gone(gone.clone()), part, "cut at {cut}"),
                (Reading::Ignored(_), Ok(Reading::Gone(part))) => panic!("cut at {cut}: {part:?}"),
                (Reading::Ignored(_), Ok(_)) | (_, Err(_)) => {}
            }
        }
    }
}
