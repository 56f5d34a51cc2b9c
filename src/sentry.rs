//! What Sentry's SDKs and servers say to each other. Pure but for [`rest`] and [`upstream`].
//!
//! - [`envelope`]: what an SDK posts, as slices of the received bytes, with tags spliced in.
//! - [`encoding`]: the same, out of gzip and its like.
//! - [`rest`]: what a Sentry knows of an organization, asked for.
//! - [`webhook`]: what a Sentry posts of its own accord, and by what it is known for genuine.
//! - [`upstream`]: the Sentry behind the relay.

pub mod encoding;
pub mod envelope;
mod fields;
pub mod rest;
pub mod upstream;
pub mod webhook;
