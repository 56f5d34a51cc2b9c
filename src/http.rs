//! The door: bytes from outside become domain types here, and answers become bytes. Nothing is decided here.

pub mod admin;
pub mod auth;
mod body;
pub mod jenkins;
mod problem;
pub mod relay;
