//! What Kubernetes tells.

pub mod cluster;
pub mod downward;
pub mod pods;
