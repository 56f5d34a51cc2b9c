//! What a request's address and headers tell: which project, which key, which door. Pure.

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::sentry::envelope::Kind;

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
    pub(super) key: Option<String>,
}

impl<'a> Target<'a> {
    pub(super) fn of(uri: &'a Uri, headers: &HeaderMap) -> Self {
        let mut segments = uri.path().split('/').filter(|segment| !segment.is_empty()).skip(1);
        let project = segments.next().unwrap_or_default();
        let (door, further) = (segments.next().unwrap_or_default(), segments.next());
        let kind = match (door, further) {
            ("envelope", None) => Some(Kind::Envelope),
            ("store", None) => Some(Kind::Store),
            _ => None,
        };
        // `/api/{project}/unreal/{key}/`
        let in_path = further.filter(|_| door == "unreal").map(str::to_owned);
        let key = in_header(headers).or_else(|| in_query(uri.query()?)).or(in_path);
        Self { project, kind, door, key: key.filter(|key| is_key(key)) }
    }

    #[cfg(test)]
    /// A project's number, or a word for what is none: others choose what they ask for.
    pub(super) fn project_label(&self) -> &'a str {
        let is_plain = self.project.len() <= 20 && !self.project.is_empty();
        if is_plain && self.project.bytes().all(|byte| byte.is_ascii_digit()) { self.project } else { "other" }
    }
}

fn is_key(key: &str) -> bool {
    (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `X-Sentry-Auth: Sentry sentry_version=7, sentry_key=KEY, …`, the same as `Authorization`, or the user of `Basic`.
fn in_header(headers: &HeaderMap) -> Option<String> {
    for name in [http::HeaderName::from_static("x-sentry-auth"), AUTHORIZATION] {
        let Some((scheme, rest)) = headers.get(name).and_then(|value| value.to_str().ok()?.split_once(' ')) else {
            continue;
        };
        if scheme.eq_ignore_ascii_case("sentry") {
            let key = rest.split(',').find_map(|pair| pair.trim().strip_prefix("sentry_key="));
            return key.map(|key| key.trim().to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
            return String::from_utf8(pair).ok()?.split(':').next().map(str::to_owned);
        }
    }
    None
}

fn in_query(query: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix("sentry_key=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address and a header, and the project, kind and key in them.
    type Case<'a> = (&'a str, Option<(&'static str, &'a str)>, &'a str, Option<Kind>, Option<&'a str>);

    #[test]
    fn project_door_and_key_are_found_wherever_an_sdk_puts_them() {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("abc:secret"));
        let table: [Case<'_>; 9] = [
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
            ("/api/7/minidump/?sentry_key=a%0Ab", None, "7", None, None),
            ("/api/7/envelope/more/", None, "7", None, None),
            ("/api/0/organizations/", None, "0", None, None),
            ("/api/", None, "", None, None),
        ];
        for (uri, header, project, kind, key) in table {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            let parsed: Uri = uri.parse().unwrap();
            let target = Target::of(&parsed, &headers);
            assert_eq!((target.project, target.kind, target.key.as_deref()), (project, kind, key), "{uri}");
        }
    }

    #[test]
    fn a_project_that_is_no_number_is_no_label() {
        for (path, label) in [("/api/42/store/", "42"), ("/api/a%7Cb/store/", "other"), ("/api/", "other")] {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(Target::of(&uri, &HeaderMap::new()).project_label(), label, "{path}");
        }
    }
}
