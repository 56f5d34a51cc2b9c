//! What Kubernetes tells.

pub mod downward;
