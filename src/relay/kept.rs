//! A request such as it can be sent again: now, or out of the spool.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

/// All of a request but its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// As they go on.
    pub(super) headers: HeaderMap,
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
        let head = Head {
            method: self.method.as_str(),
            target: self.uri.path_and_query()?.as_str(),
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
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
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for (name, value) in head.headers {
            let (name, value) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value));
            headers.try_append(name.ok()?, value.ok()?).ok()?;
        }
        Some(Self {
            method: head.method.parse().ok()?,
            uri: head.target.parse().ok()?,
            headers,
            key: head.key.into(),
            categories: head.categories.into_iter().map(|category| category.to_owned().into()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_back_as_it_was_put_away() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/x-sentry-envelope"));
        headers.append("x-twice", HeaderValue::from_static("a"));
        headers.append("x-twice", HeaderValue::from_bytes(b"\xFF b").unwrap());
        let letter = Letter {
            method: Method::POST,
            uri: Uri::from_static("/api/7/envelope/?sentry_key=a%20b"),
            headers,
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
