//! What Jenkins says, in its own words, made into what the domain knows. All but [`rest`] is pure.
//!
//! - [`notification`]: the Notification plugin's documents, JSON and XML, and the `CloudEvents` plugin's, which are alike.
//! - [`rest`]: what a controller tells when it is asked.

mod branch;
pub mod notification;
pub mod rest;
mod url;
