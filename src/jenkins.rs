//! What Jenkins says, in its own words, made into what the domain knows. All but [`rest`] is pure.
//!
//! - [`document`]: whatever a sender posts; whose it is shows by its shape.
//! - `notification`: the Notification plugin's documents, JSON and XML, and the `CloudEvents` plugin's, which are alike.
//! - `generic_event`: the Generic Event plugin's, of builds and of items.
//! - `statistics_gatherer`: the Statistics Gatherer plugin's, of builds and of deleted jobs.
//! - `outbound_webhook`: the Outbound `WebHook` plugin's.
//! - [`rest`]: what a controller tells when it is asked.
//! - [`step`]: our own, for a step at the end of a Pipeline.

mod branch;
pub mod document;
mod generic_event;
mod notification;
mod outbound_webhook;
pub mod rest;
mod statistics_gatherer;
pub mod step;
mod url;
