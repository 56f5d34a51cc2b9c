//! Who may come in. Tokens are compared as digests and in constant time, all of them, whichever fits.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// Who a route lets in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever knows one of the tokens.
    Tokens(Tokens),
    /// Whoever is on this machine.
    LoopbackOnly,
    /// Everybody.
    Open,
}

/// SHA-256 of each token: a comparison then tells nothing of a token's length.
#[derive(Clone, Default)]
pub struct Tokens(Vec<[u8; 32]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} tokens", self.0.len())
    }
}

impl Tokens {
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a SecretString>) -> Self {
        Self(tokens.into_iter().map(|token| Sha256::digest(token.expose_secret()).into()).collect())
    }

    fn know(&self, presented: &[u8]) -> Choice {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.iter().fold(Choice::from(0), |known, token| known | token.ct_eq(&presented))
    }
}

impl Access {
    /// `in_url` is what the path or the query held.
    pub fn admits(&self, peer: IpAddr, headers: &HeaderMap, in_url: &[&str]) -> bool {
        let tokens = match self {
            Self::Open => return true,
            Self::LoopbackOnly => {
                return peer.to_canonical().is_loopback() && names_this_machine(headers) && !is_a_web_pages(headers);
            }
            Self::Tokens(tokens) => tokens,
        };
        let in_headers = in_headers(headers);
        let presented = in_url.iter().map(|token| token.as_bytes()).chain(in_headers.iter().map(Vec::as_slice));
        presented.fold(Choice::from(0), |known, token| known | tokens.know(token)).into()
    }
}

/// A web page can make a browser on this machine ask, under a name of the page's own that it has bent to loopback: such
/// a request does not call us by an address.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(authority) = host.to_str().unwrap_or_default().parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

/// A web page can also post across origins, without asking first; but the browser says so.
fn is_a_web_pages(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none" && site != b"same-origin")
}

/// The tokens that `Authorization` may carry: `Bearer`, or either half of `Basic`, as a URL's `token@` gives the user.
fn in_headers(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Vec::new() };
    let Some((scheme, credentials)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Vec::new();
    };
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return vec![credentials.as_bytes().to_vec()];
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Vec::new();
    }
    let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(credentials) else { return Vec::new() };
    match pair.iter().position(|byte| *byte == b':') {
        Some(colon) => {
            let (user, password) = pair.split_at(colon);
            vec![user.to_vec(), password.get(1..).unwrap_or_default().to_vec()]
        }
        None => vec![pair],
    }
}

/// The value of `token` in a query.
pub(super) fn token_in(query: Option<&str>) -> Option<String> {
    let raw = query?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    let spaced = raw.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_is_taken_wherever_jenkins_can_put_it() {
        let access = Access::Tokens(Tokens::new(&["first-secret".into(), "second-secret".into()]));
        let peer = [127, 0, 0, 1].into();
        let basic = |pair: &str| headers(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)));
        let table: [(HeaderMap, &[&str], bool); 13] = [
            (HeaderMap::new(), &["first-secret"], true),
            (HeaderMap::new(), &["second-secret"], true),
            (HeaderMap::new(), &["wrong", "second-secret"], true),
            (HeaderMap::new(), &["first-secre"], false),
            (HeaderMap::new(), &[""], false),
            (HeaderMap::new(), &[], false),
            (headers("Bearer second-secret"), &[], true),
            (headers("bearer first-secret"), &[], true),
            (headers("Bearer wrong"), &[], false),
            (basic("jenkins:first-secret"), &[], true),
            (basic("first-secret:"), &[], true),
            (basic("jenkins:wrong"), &[], false),
            (headers("Basic %%%"), &[], false),
        ];
        for (headers, in_url, expected) in table {
            assert_eq!(access.admits(peer, &headers, in_url), expected, "{headers:?} {in_url:?}");
        }
    }

    #[test]
    fn loopback_stands_in_for_a_token_where_none_is_set() {
        let table = [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)];
        for (peer, expected) in table {
            let admitted = Access::LoopbackOnly.admits(peer.parse().unwrap(), &HeaderMap::new(), &[]);
            assert_eq!(admitted, expected, "{peer}");
        }
    }

    #[test]
    fn a_browser_led_here_by_another_name_is_not_this_machine() {
        let table = [
            ("127.0.0.1:8081", true),
            ("[::1]:8081", true),
            ("localhost:8081", true),
            ("LOCALHOST", true),
            ("rebound.example:8081", false),
            ("127.0.0.1.example", false),
            ("", false),
        ];
        for (host, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            let peer = "127.0.0.1".parse().unwrap();
            assert_eq!(Access::LoopbackOnly.admits(peer, &headers, &[]), expected, "{host:?}");
        }
    }

    #[test]
    fn a_browser_that_posts_for_another_page_is_not_this_machine() {
        let table = [
            ("origin", "http://evil.example", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("accept", "*/*", true),
        ];
        for (name, value, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(Access::LoopbackOnly.admits([127, 0, 0, 1].into(), &headers, &[]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn tokens_do_not_show_themselves() {
        let access = Access::Tokens(Tokens::new(&["first-secret".into()]));
        assert_eq!(format!("{access:?}"), "Tokens(1 tokens)");
    }

    #[test]
    fn a_token_is_found_in_the_query_and_decoded() {
        let table = [
            (Some("token=abc"), Some("abc")),
            (Some("a=b&token=a%2Fb"), Some("a/b")),
            (Some("xtoken=abc"), None),
            (Some(""), None),
            (None, None),
        ];
        for (query, expected) in table {
            assert_eq!(token_in(query).as_deref(), expected, "{query:?}");
        }
    }
}
