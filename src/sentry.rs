//! What Sentry's SDKs and servers say to each other. Pure.
//!
//! - [`envelope`]: what an SDK posts, as slices of the received bytes, with tags spliced in.
//! - [`encoding`]: the same, out of gzip and its like.

pub mod encoding;
pub mod envelope;
