//! By what a webhook is known for genuine: HMAC-SHA256 of the body as it was received, with the integration's client
//! secret, in lower-case hexadecimal (`SentryApp.build_signature`).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

/// What stands in `Sentry-Hook-Signature`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 32]);

impl fmt::Debug for Signature {
    /// Whoever reads a log could send the body that belongs to it once more.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Signature(<redacted>)")
    }
}

impl Signature {
    /// `None` for anything but 64 lower-case hexadecimal digits, as Sentry writes them.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        let (pairs, rest) = header.as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (digit(*high)? << 4) | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The client secrets of one integration, any of which a body may be signed with, so that one can be replaced at leisure.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} secrets", self.0.len())
    }
}

impl Secrets {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        // A key of any length is one.
        let keyed = |secret: &SecretString| Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok();
        Self(secrets.into_iter().filter_map(keyed).collect())
    }

    /// As Sentry would with the first of them; `None` when there is none.
    pub fn sign(&self, body: &[u8]) -> Option<String> {
        let code = self.0.first()?.clone().chain_update(body).finalize().into_bytes();
        Some(code.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}")))
    }

    /// Whether one of them made this signature of `body`. All are tried, whichever fits.
    pub fn made(&self, signature: &Signature, body: &[u8]) -> bool {
        let tries = self.0.iter().map(|keyed| {
            let ours: [u8; 32] = keyed.clone().chain_update(body).finalize().into_bytes().into();
            ours.ct_eq(&signature.0)
        });
        tries.fold(Choice::from(0), |made, fits| made | fits).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, 4.3.
    const KEY: &str = "Jefe";
    const DATA: &[u8] = b"what do ya want for nothing?";
    const CODE: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn a_signature_is_of_the_very_bytes_and_of_one_of_the_secrets() {
        let secrets = |secrets: &[&str]| Secrets::new(&secrets.iter().map(|&s| s.into()).collect::<Vec<_>>());
        let table: [(&[&str], &[u8], bool); 7] = [
            (&[KEY], DATA, true),
            (&["another", KEY], DATA, true),
            (&[KEY, "another"], DATA, true),
            (&["another"], DATA, false),
            (&[], DATA, false),
            (&[KEY], b"what do ya want for nothing? ", false),
            (&[KEY], b"", false),
        ];
        let signature = Signature::parse(CODE.as_bytes()).unwrap();
        for (known, body, expected) in table {
            assert_eq!(secrets(known).made(&signature, body), expected, "{known:?}");
        }
        assert_eq!(secrets(&[KEY, "another"]).sign(DATA).as_deref(), Some(CODE));
        assert_eq!(secrets(&[]).sign(DATA), None);
    }

    #[test]
    fn only_what_sentry_writes_is_a_signature() {
        let table = [
            (CODE.to_owned(), true),
            (CODE.to_uppercase(), false),
            (CODE[..62].to_owned(), false),
            (CODE[..63].to_owned(), false),
            (format!("{CODE}0"), false),
            (format!("{CODE}00"), false),
            (format!("sha256={CODE}"), false),
            (format!(" {}", &CODE[1..]), false),
            (CODE.replace('5', "g"), false),
            (String::new(), false),
        ];
        for (header, expected) in table {
            assert_eq!(Signature::parse(header.as_bytes()).is_some(), expected, "{header}");
        }
    }

    #[test]
    fn neither_shows_itself() {
        let secrets = Secrets::new(&[KEY.into()]);
        assert_eq!(format!("{secrets:?}"), "1 secrets");
        let signature = Signature::parse(CODE.as_bytes()).unwrap();
        assert_eq!(format!("{signature:?}"), "Signature(<redacted>)");
    }
}
