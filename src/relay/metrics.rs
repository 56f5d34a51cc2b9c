//! The counters of this room; its head lists them.
//!
//! `recoverd_relay_requests_total` by upstream and status, `recoverd_relay_upstream_seconds`, `recoverd_relay_rate_limits_total`,
//! `recoverd_relay_held_back_total` and `recoverd_relay_upstream_broken` by upstream, `recoverd_relay_items_total` by category and
//! outcome, `recoverd_relay_passed_total`, `recoverd_relay_unattributed_total` and `recoverd_relay_refused_total` by reason.
//! `recoverd_relay_received_total` by door. Of the spool, by upstream: `recoverd_relay_spooled_total`,
//! `recoverd_relay_spool_refused_total`, `recoverd_relay_spool_retries_total` and `recoverd_relay_spool_dropped_total` by reason,
//! `recoverd_relay_spool_delivered_total`, `recoverd_relay_spool_bytes` and `recoverd_relay_spool_entries`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::intake::NO_ROOM;
use super::target::{DOORS, NO_DOOR};
use crate::domain::pod::{Attribution, Unattributable};
use crate::machinery::spool::Held;
use crate::sentry::envelope::Report;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    upstream: Arc<str>,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    upstream: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sort {
    category: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    upstream: Arc<str>,
    reason: &'static str,
}

const ENRICHED_EVENT: Sort = Sort { category: "event", outcome: "enriched" };

const STATUSES: [&str; 6] = ["2xx", "3xx", "4xx", "429", "5xx", "none"];

/// Numbers of the relay.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    requests: Family<Asked, Counter>,
    seconds: Family<To, Histogram, fn() -> Histogram>,
    limited: Family<To, Counter>,
    held_back: Family<To, Counter>,
    broken: Family<To, Gauge>,
    items: Family<Sort, Counter>,
    passed: Family<Because, Counter>,
    unattributed: Family<Because, Counter>,
    refused: Family<Because, Counter>,
    /// By the doors, and what is none of them.
    received: [Counter; DOORS.len() + 1],
    /// Of all items nearly all are these.
    enriched_events: Counter,
    kept: Family<Fate, Counter>,
    not_kept: Family<Fate, Counter>,
    retried: Family<Fate, Counter>,
    dropped: Family<Fate, Counter>,
    delivered: Family<To, Counter>,
    bytes: Family<To, Gauge>,
    entries: Family<To, Gauge>,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
}

impl RelayMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let (received, items) = (Family::<By, Counter>::default(), Family::<Sort, Counter>::default());
        let mut doors = DOORS.into_iter();
        let of_doors =
            std::array::from_fn(|_| received.get_or_create_owned(&By { door: doors.next().unwrap_or(NO_DOOR) }));
        let new = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            limited: Family::default(),
            held_back: Family::default(),
            broken: Family::default(),
            enriched_events: items.get_or_create_owned(&ENRICHED_EVENT),
            items,
            passed: Family::default(),
            unattributed: Family::default(),
            refused: Family::default(),
            received: of_doors,
            kept: Family::default(),
            not_kept: Family::default(),
            retried: Family::default(),
            dropped: Family::default(),
            delivered: Family::default(),
            bytes: Family::default(),
            entries: Family::default(),
        };
        let help = "Requests that an upstream was asked, by the status that it answered";
        registry.register("recoverd_relay_requests", help, new.requests.clone());
        let help = "Time until the head of an upstream's answer";
        registry.register("recoverd_relay_upstream_seconds", help, new.seconds.clone());
        let help = "Answers of an upstream that limit a rate";
        registry.register("recoverd_relay_rate_limits", help, new.limited.clone());
        let help = "Requests answered with 429 for a limit that was known";
        registry.register("recoverd_relay_held_back", help, new.held_back.clone());
        let help = "Whether an upstream is not asked for failing too often";
        registry.register("recoverd_relay_upstream_broken", help, new.broken.clone());
        let help = "Items of envelopes, by what became of them";
        registry.register("recoverd_relay_items", help, new.items.clone());
        let help = "Bodies that were not looked into, as they could not be decoded";
        registry.register("recoverd_relay_passed", help, new.passed.clone());
        let help = "Bodies whose pod is not known";
        registry.register("recoverd_relay_unattributed", help, new.unattributed.clone());
        registry.register("recoverd_relay_refused", "Requests that were not taken", new.refused.clone());
        let help = "Requests that came in, by the door at Sentry that they are for";
        registry.register("recoverd_relay_received", help, received);
        let help = "Requests kept on disk, by why they could not be sent at once";
        registry.register("recoverd_relay_spooled", help, new.kept.clone());
        let help = "Requests that could neither be sent nor kept";
        registry.register("recoverd_relay_spool_refused", help, new.not_kept.clone());
        let help = "Times that a kept request could not be sent yet";
        registry.register("recoverd_relay_spool_retries", help, new.retried.clone());
        let help = "Kept requests that were given up";
        registry.register("recoverd_relay_spool_dropped", help, new.dropped.clone());
        let help = "Kept requests that an upstream has taken";
        registry.register("recoverd_relay_spool_delivered", help, new.delivered.clone());
        registry.register("recoverd_relay_spool_bytes", "Room on disk that kept requests take", new.bytes.clone());
        registry.register("recoverd_relay_spool_entries", "Kept requests", new.entries.clone());
        for reason in Unattributable::ALL {
            drop(new.unattributed.get_or_create(&Because { reason: reason.as_str() }));
        }
        for reason in ["unknown_coding", "malformed", "truncated", "too_large", "bomb", NO_ROOM] {
            drop(new.passed.get_or_create(&Because { reason }));
        }
        drop(new.refused.get_or_create(&Because { reason: "not_kept" }));
        new
    }

    pub(super) fn upstream(&self, name: &str) -> PerUpstream {
        let upstream: Arc<str> = name.into();
        let to = To { upstream: upstream.clone() };
        let all = [
            (&self.kept, &["status", "unreachable", "timeout", "broken", "not_asked", "unreadable", "left"][..]),
            (&self.not_kept, &["full", "disk_full", "unwritable", "too_many"]),
            (&self.retried, &["limited", "status", "unreachable", "timeout", "broken", "not_asked", "unreadable"]),
            (&self.dropped, &["expired", "damaged", "bad_request", "unauthorized", "too_large", "rejected"]),
        ];
        for (family, reasons) in all {
            for &reason in reasons {
                drop(family.get_or_create(&Fate { upstream: upstream.clone(), reason }));
            }
        }
        PerUpstream {
            kept: self.kept.clone(),
            not_kept: self.not_kept.clone(),
            retried: self.retried.clone(),
            dropped: self.dropped.clone(),
            delivered: self.delivered.get_or_create_owned(&to),
            bytes: self.bytes.get_or_create_owned(&to),
            entries: self.entries.get_or_create_owned(&to),
            requests: STATUSES
                .map(|status| self.requests.get_or_create_owned(&Asked { upstream: upstream.clone(), status })),
            seconds: self.seconds.get_or_create_owned(&to),
            limited: self.limited.get_or_create_owned(&to),
            held_back: self.held_back.get_or_create_owned(&to),
            broken: self.broken.get_or_create_owned(&to),
            upstream,
        }
    }

    pub(super) fn received(&self, door: &'static str) {
        let place = DOORS.iter().position(|known| *known == door).unwrap_or(DOORS.len());
        if let Some(received) = self.received.get(place) {
            received.inc();
        }
    }

    pub(super) fn items(&self, report: &Report) {
        for (item, count) in &report.items {
            let sort = Sort { category: item.category.as_str(), outcome: item.outcome.as_str() };
            if sort == ENRICHED_EVENT {
                self.enriched_events.inc_by(*count);
            } else {
                self.items.get_or_create(&sort).inc_by(*count);
            }
        }
    }

    pub(super) fn attributed(&self, whose: &Attribution) {
        if let Attribution::Unknown(reason) = whose {
            self.unattributed.get_or_create(&Because { reason: reason.as_str() }).inc();
        }
    }

    pub(super) fn passed(&self, reason: &'static str) {
        self.passed.get_or_create(&Because { reason }).inc();
    }

    /// A request was not taken, for a reason that the door knows.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Because { reason }).inc();
    }
}

/// What is counted of one upstream, looked up once.
#[derive(Debug)]
pub(super) struct PerUpstream {
    upstream: Arc<str>,
    requests: [Counter; STATUSES.len()],
    seconds: Histogram,
    limited: Counter,
    held_back: Counter,
    broken: Gauge,
    kept: Family<Fate, Counter>,
    not_kept: Family<Fate, Counter>,
    retried: Family<Fate, Counter>,
    dropped: Family<Fate, Counter>,
    delivered: Counter,
    bytes: Gauge,
    entries: Gauge,
}

impl PerUpstream {
    pub(super) fn answered(&self, status: StatusCode, time: Duration) {
        let [success, redirect, refused, limited, failed, _] = &self.requests;
        let of_status = match status.as_u16() {
            429 => limited,
            500.. => failed,
            400.. => refused,
            300.. => redirect,
            _ => success,
        };
        of_status.inc();
        self.seconds.observe(time.as_secs_f64());
    }

    pub(super) fn not_answered(&self, time: Duration) {
        let [.., none] = &self.requests;
        none.inc();
        self.seconds.observe(time.as_secs_f64());
    }

    pub(super) fn limited(&self) {
        self.limited.inc();
    }

    pub(super) fn held_back(&self) {
        self.held_back.inc();
    }

    pub(super) fn broken(&self, broken: bool) {
        self.broken.set(broken.into());
    }

    pub(super) fn kept(&self, reason: &'static str) {
        self.kept.get_or_create(&self.fate(reason)).inc();
    }

    pub(super) fn not_kept(&self, reason: &'static str) {
        self.not_kept.get_or_create(&self.fate(reason)).inc();
    }

    pub(super) fn retried(&self, reason: &'static str) {
        self.retried.get_or_create(&self.fate(reason)).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&self.fate(reason)).inc();
    }

    pub(super) fn delivered(&self) {
        self.delivered.inc();
    }

    pub(super) fn holds(&self, held: Held) {
        self.entries.set(i64::try_from(held.entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
    }

    fn fate(&self, reason: &'static str) -> Fate {
        Fate { upstream: self.upstream.clone(), reason }
    }
}
