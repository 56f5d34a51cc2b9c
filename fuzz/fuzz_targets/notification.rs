//! What holds for every body, sound or not.

use recoverd::jenkins::notification::{Extent, Reading, read};

pub fn check(body: &[u8]) {
    let whole = read(body, Extent::Whole);
    assert_eq!(whole, read(body, Extent::Whole), "reading twice gives the same twice");
    match &whole {
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 300 && !message.contains(char::is_control), "{message:?}");
            _ = read(body, Extent::CutOff);
        }
        Ok(reading) => {
            assert_eq!(Ok(reading), read(body, Extent::CutOff).as_ref(), "a whole document is whole, whatever one calls it");
            if let Reading::Report(report) = reading {
                assert!(!report.job.as_str().is_empty() && report.number > 0);
                // A different place for each input, the same for the same input.
                let cut = body.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte)) % body.len();
                match read(&body[..cut], Extent::CutOff) {
                    Ok(Reading::Report(part)) => {
                        assert_eq!((part.number, part.progress), (report.number, report.progress), "cut at {cut}");
                    }
                    Ok(Reading::Ignored(because)) => panic!("cut at {cut}: {because:?}"),
                    Err(_) => {}
                }
            }
        }
    }
}
