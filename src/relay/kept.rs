//! A request such as it can be sent again: now, or out of the spool.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::machinery::http1::Fields;

/// All of a request but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// As they go on.
    pub(super) fields: Fields,
    /// The DSN's public key, or nothing.
    pub(super) key: Box<str>,
    /// By which name limits speak of what is in it; none twice.
    pub(super) categories: Vec<Cow<'static, str>>,
}

/// The form on disk. What is added comes behind the rest, with another [`FORM`].
#[derive(Deserialize, Serialize)]
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a [u8])>,
    key: &'a str,
    categories: Vec<&'a str>,
}

const FORM: u8 = 1;

impl Letter {
    /// What Sentry limits together, as a number.
    pub(super) fn lane(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(self.key.as_bytes());
        for category in &self.categories {
            sum.update(b"\0");
            sum.update(category.as_bytes());
        }
        sum.finalize()
    }

    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let headers = self.fields.iter().map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
        let headers = headers.collect::<Option<_>>()?;
        let head = Head {
            method: self.method.as_str(),
            target: self.uri.path_and_query()?.as_str(),
            headers,
            key: &self.key,
            categories: self.categories.iter().map(AsRef::as_ref).collect(),
        };
        postcard::to_extend(&head, vec![FORM]).ok()
    }

    /// `None` when it is of no form that is known here.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head: Head<'_> = match bytes {
            [FORM, rest @ ..] => postcard::from_bytes(rest).ok()?,
            _ => return None,
        };
        let mut fields = Fields::default();
        for (name, value) in head.headers {
            let (name, value) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value));
            fields.push(&name.ok()?, value.ok()?);
        }
        Some(Self {
            method: head.method.parse().ok()?,
            uri: head.target.parse().ok()?,
            fields,
            key: head.key.into(),
            categories: head.categories.into_iter().map(|category| category.to_owned().into()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn a_letter_comes_back_as_it_was_put_away() {
        let twice = HeaderName::from_static("x-twice");
        let headers =
            [(CONTENT_TYPE, &b"application/x-sentry-envelope"[..]), (twice.clone(), b"a"), (twice, b"\xFF b")];
        let letter = Letter {
            method: Method::POST,
            uri: Uri::from_static("/api/7/envelope/?sentry_key=a%20b"),
            fields: headers.into_iter().collect(),
            key: "abc".into(),
            categories: vec!["error".into(), "attachment".into()],
        };
        let bytes = letter.encode().unwrap();
        assert_eq!(Letter::decode(&bytes).unwrap(), letter);
        for end in 0..bytes.len() {
            assert_eq!(Letter::decode(&bytes[..end]), None, "{end} bytes of it");
        }
        assert_eq!(Letter::decode(&[&[FORM + 1], &bytes[1..]].concat()), None, "a form that is yet to come");
        let other = Letter { key: "abd".into(), ..letter.clone() };
        assert_ne!(letter.lane(), other.lane());
    }
}
