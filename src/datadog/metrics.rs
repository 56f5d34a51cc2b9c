//! The counters of this room; its head lists them.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::domain::signal::Signal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "a label's value is the variant's name")]
pub(super) enum Kind {
    check,
    event,
    metric,
}

impl Kind {
    const ALL: [Self; 3] = [Self::check, Self::event, Self::metric];

    pub(super) fn of(signal: &Signal) -> Self {
        match signal {
            Signal::Check(_) => Self::check,
            Signal::Event(_) => Self::event,
            Signal::Metric(_) => Self::metric,
        }
    }
}

/// Why a signal was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "a label's value is the variant's name")]
pub(super) enum Reason {
    /// No Agent there.
    away,
    /// The Agent does not read as fast as recoverd writes.
    slow,
    /// Does not fit, although every text in it was cut.
    too_large,
    /// Not a number, or not a finite one.
    not_finite,
}

impl Reason {
    const ALL: [Self; 4] = [Self::away, Self::slow, Self::too_large, Self::not_finite];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Loss {
    kind: Kind,
    reason: Reason,
}

#[derive(Clone, Debug, Default)]
struct PerKind {
    check: Counter,
    event: Counter,
    metric: Counter,
}

impl PerKind {
    /// Looked up once, because a lookup for every datagram would cost more than the count.
    fn of(family: &Family<OfKind, Counter>) -> Self {
        let [check, event, metric] = Kind::ALL.map(|kind| family.get_or_create_owned(&OfKind { kind }));
        Self { check, event, metric }
    }

    fn get(&self, kind: Kind) -> &Counter {
        match kind {
            Kind::check => &self.check,
            Kind::event => &self.event,
            Kind::metric => &self.metric,
        }
    }
}

/// The counters of the Agent's sink. The default counts, but is shown nowhere.
#[derive(Clone, Debug, Default)]
pub struct AgentMetrics {
    sent: PerKind,
    shortened: PerKind,
    dropped: Family<Loss, Counter>,
    datagrams: Counter,
    bytes: Counter,
    rebuilds: Counter,
}

impl AgentMetrics {
    /// Every series exists from the start, at nought, so that an alert can watch it.
    pub fn register(registry: &mut Registry) -> Self {
        let (sent, shortened) = (Family::default(), Family::default());
        let metrics = Self { sent: PerKind::of(&sent), shortened: PerKind::of(&shortened), ..Self::default() };
        for kind in Kind::ALL {
            for reason in Reason::ALL {
                metrics.dropped.get_or_create_owned(&Loss { kind, reason });
            }
        }
        registry.register("recoverd_datadog_sent", "Signals that the Agent's socket took", sent);
        registry.register("recoverd_datadog_shortened", "Signals whose text was cut to fit", shortened);
        registry.register("recoverd_datadog_dropped", "Signals that were not sent, by reason", metrics.dropped.clone());
        registry.register("recoverd_datadog_datagrams", "Datagrams sent", metrics.datagrams.clone());
        registry.register("recoverd_datadog_bytes", "Bytes in the datagrams sent", metrics.bytes.clone());
        registry.register("recoverd_datadog_rebuilds", "Connections made anew", metrics.rebuilds.clone());
        metrics
    }

    /// One datagram, with these signals, of which some were shortened.
    pub(super) fn sent(&self, bytes: usize, signals: &[(Kind, bool)]) {
        self.datagrams.inc();
        self.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        for (kind, shortened) in signals {
            self.sent.get(*kind).inc();
            if *shortened {
                self.shortened.get(*kind).inc();
            }
        }
    }

    pub(super) fn dropped(&self, kind: Kind, reason: Reason) {
        self.dropped.get_or_create(&Loss { kind, reason }).inc();
    }

    pub(super) fn rebuilt(&self) {
        self.rebuilds.inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let mut registry = Registry::default();
        let metrics = AgentMetrics::register(&mut registry);
        metrics.sent(70, &[(Kind::check, true)]);
        let mut shown = String::new();
        encode(&mut shown, &registry).unwrap();
        for line in [
            "recoverd_datadog_sent_total{kind=\"check\"} 1",
            "recoverd_datadog_shortened_total{kind=\"check\"} 1",
            "recoverd_datadog_sent_total{kind=\"event\"} 0",
            "recoverd_datadog_dropped_total{kind=\"metric\",reason=\"not_finite\"} 0",
            "recoverd_datadog_datagrams_total 1",
            "recoverd_datadog_bytes_total 70",
            "recoverd_datadog_rebuilds_total 0",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
    }
}
