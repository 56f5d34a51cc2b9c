//! recoverd makes Jenkins alerts in Datadog recover by themselves.
//!
//! Six floors; an import points down or stays in its room. `ARCHITECTURE.md` draws them.

pub mod app;
pub mod catch_up;
pub mod cli;
pub mod config;
pub mod datadog;
pub mod domain;
pub mod http;
pub mod jenkins;
pub mod kubernetes;
pub mod machinery;
pub mod pipeline;
pub mod relay;
pub mod resend;
pub mod sentry;
pub mod sentry_catch_up;
pub mod store;
pub mod telemetry;

/// Each webhook makes and drops some hundred small things on several threads, which the C libraries' allocators, musl's
/// above all, are slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
