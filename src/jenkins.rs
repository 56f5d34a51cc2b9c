//! What Jenkins says, in its own words, made into what the domain knows. Everything in here is pure.
//!
//! - [`notification`]: the Notification plugin's documents, JSON and XML, and the `CloudEvents` plugin's, which are alike.

mod branch;
pub mod notification;
mod url;
