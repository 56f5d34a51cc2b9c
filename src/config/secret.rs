//! Secrets, and the files that they may stand in. A secret has no way to a log line, a page or `config show`.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::layers::kind;

/// Text that is shown as `<redacted>`, however it is asked for.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for the comparison or the request that needs it and nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The same secret, to hand on.
    pub fn to_secret_string(&self) -> SecretString {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<redacted>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Unlike a `String`'s, the error never holds what was found: a password of digits, unquoted, is a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::new(text)),
            other => Err(serde::de::Error::custom(format!("expected a string, found {}", kind(&other)))),
        }
    }
}

/// No secret is longer, and a device or a log that a path leads to by mistake is not read to its end.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A secret from its file, without white space at its ends.
///
/// # Errors
/// One line that names the path and what to do.
pub(super) fn read(path: &Path) -> Result<Secret, String> {
    let text = read_text(path)?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(Secret::new(line)),
        (None, _) => Err(format!("{} is empty; write the secret into it", path.display())),
        (Some(_), Some(_)) => Err(format!("{} has more than one line; leave only the secret in it", path.display())),
    }
}

/// The secrets of a file, each a `kind`, one a line; blank lines do not count.
///
/// # Errors
/// One line that names the path and what to do.
pub(super) fn read_lines(path: &Path, kind: &str) -> Result<Vec<Secret>, String> {
    let text = read_text(path)?;
    let secrets: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::new).collect();
    if secrets.is_empty() {
        return Err(format!("{} is empty; write one {kind} a line into it", path.display()));
    }
    Ok(secrets)
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 <= MAX_FILE_BYTES => Ok(text),
        Ok(_) => Err(format!("{} is larger than 64 KiB, which no secret is; check the path", path.display())),
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::NotFound => "create it or remove the key",
                ErrorKind::PermissionDenied => "let the user that runs recoverd read it",
                ErrorKind::InvalidData => "it must be UTF-8 text",
                ErrorKind::IsADirectory => "name the file in it",
                _ => "check the path",
            };
            Err(format!("cannot read {}: {error}; {remedy}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_prints_a_secret_shows_it() {
        let secret = Secret::new("marker");
        assert_eq!(format!("{secret:?} {secret:#?}"), "<redacted> <redacted>");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""<redacted>""#);
        assert_eq!(secret.expose(), "marker");
    }
}
