//! What recoverd promises, one file a promise, against real peers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test says by failing what is wrong"
)]

mod agent_comes_and_goes;
mod artifacts;
mod bugsink;
mod commands;
mod doctor;
mod floors;
mod hooks;
mod ingest;
mod jenkins_answers;
mod jenkins_catches_up;
mod jenkins_decides;
mod jenkins_loses_webhooks;
mod jenkins_rest;
mod jenkins_server;
mod kubernetes_server;
mod obeys_rules;
mod other_senders;
mod pods_are_followed;
mod raw_listeners;
mod readme;
mod refuses;
mod relay_attributes;
mod relay_forwards;
mod relay_outlives;
mod relay_refuses;
mod relay_sdks;
mod sentry_alerts;
mod sentry_errors;
mod sentry_hooks;
mod sentry_looks;
mod sentry_rest;
mod sentry_server;
mod shows_itself;
mod stage;
mod starts_and_stops;
mod store_heals;
mod survives_sigkill;
mod tee;
mod telemetry;
mod tells_datadog;
mod tls;
mod world;
