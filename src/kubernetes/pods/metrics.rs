//! `recoverd_kubernetes_pods`, `recoverd_kubernetes_lists_total`, `recoverd_kubernetes_events_total` by kind and
//! `recoverd_kubernetes_failures_total` by reason.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// Numbers of the watch.
#[derive(Clone, Debug, Default)]
pub struct PodMetrics {
    pods: Gauge,
    lists: Counter,
    events: Family<OfKind, Counter>,
    failures: Family<Because, Counter>,
}

impl PodMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_kubernetes_pods", "Pods of this node that are there", new.pods.clone());
        let help = "Times that all pods of this node were listed";
        registry.register("recoverd_kubernetes_lists", help, new.lists.clone());
        let help = "What the API server told of pods";
        registry.register("recoverd_kubernetes_events", help, new.events.clone());
        let help = "Times that the API server told nothing, or broke off";
        registry.register("recoverd_kubernetes_failures", help, new.failures.clone());
        for kind in ["applied", "deleted"] {
            drop(new.events.get_or_create(&OfKind { kind }));
        }
        for reason in ["unreachable", "forbidden", "gone"] {
            drop(new.failures.get_or_create(&Because { reason }));
        }
        new
    }

    pub(super) fn known(&self, pods: usize) {
        self.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    pub(super) fn listed(&self) {
        self.lists.inc();
    }

    pub(super) fn told(&self, kind: &'static str) {
        self.events.get_or_create(&OfKind { kind }).inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Because { reason }).inc();
    }
}
