#![no_main]

use libfuzzer_sys::fuzz_target;
use recoverd::domain::build::Timestamp;
use recoverd::domain::sentry::Occurrence;
use recoverd::sentry::webhook::{Reading, Resource, Signature, fresh, read};

const RESOURCES: [Resource; 6] = [
    Resource::Issue,
    Resource::EventAlert,
    Resource::MetricAlert,
    Resource::Error,
    Resource::Comment,
    Resource::Plugin,
];

/// More than the longest text of any field, in bytes.
const LONGEST: usize = 4_000;

fuzz_target!(|body: &[u8]| {
    let at = Timestamp::from_millis(1_795_533_960_000);
    _ = Signature::parse(body);
    if let Ok(text) = std::str::from_utf8(body) {
        _ = fresh(text, at);
    }
    for resource in RESOURCES {
        let reading = read(resource, body, at);
        assert_eq!(reading, read(resource, body, at), "reading twice gives the same twice");
        match reading {
            Err(error) => {
                let message = error.to_string();
                assert!(message.len() < 300 && !message.contains(char::is_control), "{message:?}");
            }
            Ok(Reading::Ignored(_)) => {}
            Ok(Reading::Told(told)) => match *told {
                Occurrence::Issue(issue) => {
                    assert!(issue.id > 0 && issue.at == at);
                    assert!(issue.about.title.is_none_or(|title| title.len() <= LONGEST));
                }
                Occurrence::Alert(alert) => {
                    assert!(alert.rule > 0 && alert.identifier > 0 && alert.about.projects.len() <= 100);
                }
                Occurrence::Notice(notice) => {
                    assert!(!notice.id.is_empty() && notice.id.len() <= LONGEST + 65);
                    let link = notice.link.unwrap_or_default();
                    assert!(link.is_empty() || link.starts_with("http"), "{link:?}");
                }
            },
        }
    }
});
