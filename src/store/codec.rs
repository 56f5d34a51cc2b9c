//! How a record looks on disk: one byte for the version of the form, then the form.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The only form there is so far.
pub(super) const VERSION: u8 = 1;

/// Why stored bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("it is written in form {0}, which this version of recoverd does not know: run the newer one that wrote it")]
    Version(u8),
    #[error("a damaged record")]
    Damaged(#[source] postcard::Error),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    // Room for nearly every record at once.
    let mut bytes = Vec::with_capacity(512);
    bytes.push(VERSION);
    postcard::to_extend(value, bytes).map_err(CodecError::Damaged)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, form)) => postcard::from_bytes(form).map_err(CodecError::Damaged),
        Some((&version, _)) => Err(CodecError::Version(version)),
        None => Err(CodecError::Damaged(postcard::Error::DeserializeUnexpectedEnd)),
    }
}
