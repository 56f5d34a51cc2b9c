//! Datadog, as a party that recoverd talks to: the Agent's DogStatsD socket, and what may be written on it.
//!
//! Metrics, all of them counters:
//!
//! | name | labels | counts |
//! |---|---|---|
//! | `recoverd_datadog_sent_total` | `kind` | signals that the socket took |
//! | `recoverd_datadog_dropped_total` | `kind`, `reason` | signals that were not sent: `away`, `slow`, `too_large`, `not_finite` |
//! | `recoverd_datadog_datagrams_total` | | datagrams sent |
//! | `recoverd_datadog_bytes_total` | | bytes in the datagrams sent |
//! | `recoverd_datadog_rebuilds_total` | | connections made anew: the Agent restarted, moved or failed |
//! | `recoverd_datadog_shortened_total` | `kind` | signals whose text was cut to fit |
//!
//! `kind` is `check`, `event` or `metric`. By UDP, sent is not received.

pub mod agent;
mod datagram;
pub mod decode;
mod examine;
mod link;
pub mod metrics;
mod names;
pub mod sanitise;
pub mod target;

pub use agent::{AgentSettings, AgentSink, Delivery, Trouble};
pub use examine::{NoAgent, Readership, examine};
pub use metrics::AgentMetrics;
pub use target::{AgentTarget, DatagramLimit};
