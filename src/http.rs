//! The door: bytes from outside become domain types here, and answers become bytes. Nothing is decided here.

pub mod admin;
mod answer;
pub mod auth;
mod body;
pub mod jenkins;
pub mod pace;
mod problem;
pub mod relay;
pub mod sentry;
