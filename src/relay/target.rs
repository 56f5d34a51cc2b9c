//! What a request's address and headers tell: which project, which key, which door. Pure.

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderName, Uri};

use crate::machinery::http1::Fields;
use crate::sentry::envelope::Kind;

const SENTRY_AUTH: HeaderName = HeaderName::from_static("x-sentry-auth");

/// Where a request goes, as its own words have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Empty when there is none.
    pub(super) project: &'a str,
    /// What there may be tags in.
    pub(super) kind: Option<Kind>,
    /// By which door it comes in at Sentry, for what is not an envelope: `minidump`, `security`, …
    pub(super) door: &'a str,
    /// The DSN's public key, of which limits and routes are told apart. An envelope may have it inside instead.
    pub(super) key: Option<Box<str>>,
}

impl<'a> Target<'a> {
    pub(super) fn of(uri: &'a Uri, fields: &Fields) -> Self {
        let mut segments = uri.path().split('/').filter(|segment| !segment.is_empty()).skip(1);
        let project = segments.next().unwrap_or_default();
        let (door, further) = (segments.next().unwrap_or_default(), segments.next());
        let kind = match (door, further) {
            ("envelope", None) => Some(Kind::Envelope),
            ("store", None) => Some(Kind::Store),
            _ => None,
        };
        // `/api/{project}/unreal/{key}/`, `/api/{project}/cron/{monitor}/{key}/`
        let in_path = match door {
            "unreal" => further,
            "cron" => segments.next(),
            _ => None,
        };
        let in_path = in_path.map(Into::into);
        let key = in_header(fields).or_else(|| in_query(uri.query()?)).or(in_path);
        Self { project, kind, door, key: key.filter(|key| is_key(key)) }
    }

    /// The number of a project that events are sent to. Below `/api/0/` is what people ask.
    pub(super) fn project_number(&self) -> Option<u64> {
        let is_plain = self.project.bytes().all(|byte| byte.is_ascii_digit());
        self.project.parse().ok().filter(|number| is_plain && *number > 0)
    }

    /// The door's name, or a word for what is none: others choose what they ask for.
    pub(super) fn door_label(&self) -> &'static str {
        DOORS.into_iter().find(|known| *known == self.door && self.project_number().is_some()).unwrap_or(NO_DOOR)
    }
}

/// The label of all that is none of them.
pub(super) const NO_DOOR: &str = "other";

/// What Sentry takes events in by.
pub(super) const DOORS: [&str; 11] = [
    "envelope",
    "store",
    "minidump",
    "security",
    "csp-report",
    "nel",
    "events",
    "unreal",
    "cron",
    "otlp",
    "integration",
];

fn is_key(key: &str) -> bool {
    (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `X-Sentry-Auth: Sentry sentry_version=7, sentry_key=KEY, …`, the same as `Authorization`, or the user of `Basic`.
fn in_header(fields: &Fields) -> Option<Box<str>> {
    for name in [SENTRY_AUTH, AUTHORIZATION] {
        let Some((scheme, rest)) = fields.texts(&name).next().and_then(|value| value.split_once(' ')) else {
            continue;
        };
        if scheme.eq_ignore_ascii_case("sentry") {
            let key = rest.split(',').find_map(|pair| pair.trim().strip_prefix("sentry_key="));
            return key.map(|key| key.trim().into());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
            return String::from_utf8(pair).ok()?.split(':').next().map(Into::into);
        }
    }
    None
}

fn in_query(query: &str) -> Option<Box<str>> {
    query.split('&').find_map(|pair| pair.strip_prefix("sentry_key=")).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address and a header, and the project, kind and key in them.
    type Case<'a> = (&'a str, Option<(&'static str, &'a str)>, &'a str, Option<Kind>, Option<&'a str>);

    #[test]
    fn project_door_and_key_are_found_wherever_an_sdk_puts_them() {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("abc:secret"));
        let table: [Case<'_>; 11] = [
            ("/api/7/envelope/?sentry_key=abc&sentry_version=7", None, "7", Some(Kind::Envelope), Some("abc")),
            (
                "/api/7/envelope",
                Some(("x-sentry-auth", "Sentry sentry_key=abc, sentry_version=7")),
                "7",
                Some(Kind::Envelope),
                Some("abc"),
            ),
            (
                "/api/7/store/",
                Some(("authorization", "Sentry sentry_version=7,sentry_key=abc")),
                "7",
                Some(Kind::Store),
                Some("abc"),
            ),
            ("/api/7/store/", Some(("authorization", &basic)), "7", Some(Kind::Store), Some("abc")),
            ("/api/7/unreal/abc/", None, "7", None, Some("abc")),
            ("/api/7/cron/nightly/abc/", None, "7", None, Some("abc")),
            ("/api/7/cron/nightly/", None, "7", None, None),
            ("/api/7/minidump/?sentry_key=a%0Ab", None, "7", None, None),
            ("/api/7/envelope/more/", None, "7", None, None),
            ("/api/0/organizations/", None, "0", None, None),
            ("/api/", None, "", None, None),
        ];
        for (uri, header, project, kind, key) in table {
            let headers = header.into_iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect();
            let parsed: Uri = uri.parse().unwrap();
            let target = Target::of(&parsed, &headers);
            assert_eq!((target.project, target.kind, target.key.as_deref()), (project, kind, key), "{uri}");
        }
    }

    #[test]
    fn what_is_no_project_and_no_door_is_no_label() {
        let table = [
            ("/api/42/store/", Some(42), "store"),
            ("/api/42/../", Some(42), "other"),
            ("/api/+42/store/", None, "other"),
            ("/api/99999999999999999999/store/", None, "other"),
            ("/api/a%7Cb/store/", None, "other"),
            ("/api/0/store/", None, "other"),
            ("/api/", None, "other"),
        ];
        for (path, project, door) in table {
            let uri: Uri = path.parse().unwrap();
            let target = Target::of(&uri, &Fields::default());
            assert_eq!((target.project_number(), target.door_label()), (project, door), "{path}");
        }
    }
}
