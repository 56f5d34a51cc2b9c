//! What is counted of Sentry's webhooks; their names are in the room's head.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::http::problem::Problem;
use crate::sentry::webhook::Resource;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    integration: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    integration: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accepted {
    integration: String,
    resource: &'static str,
    was: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct HookMetrics {
    received: Family<Of, Counter>,
    refused: Family<Because, Counter>,
    accepted: Family<Accepted, Counter>,
    ignored: Family<Because, Counter>,
}

impl HookMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let help = "Requests to a Sentry integration's address";
        registry.register("recoverd_sentry_webhooks_received", help, new.received.clone());
        let help = "Requests for Sentry's webhooks that got no 2xx";
        registry.register("recoverd_sentry_webhooks_refused", help, new.refused.clone());
        registry.register(
            "recoverd_sentry_webhooks_accepted",
            "Sentry's webhooks that got a 2xx",
            new.accepted.clone(),
        );
        let help = "Sentry's webhooks that say nothing that counts";
        registry.register("recoverd_sentry_webhooks_ignored", help, new.ignored.clone());
        new
    }

    pub(super) fn count_arrival(&self, integration: &str) {
        self.received.get_or_create(&Of { integration: integration.to_owned() }).inc();
    }

    /// `integration` is empty for what addresses none, as not every name that somebody tries may have a label of its own.
    pub(super) fn count_refusal(&self, integration: &str, problem: &Problem) {
        let refused = Because { integration: integration.to_owned(), reason: problem.reason() };
        self.refused.get_or_create(&refused).inc();
    }

    pub(super) fn count(
        &self,
        integration: &str,
        resource: Resource,
        was: &'static str,
        because: Option<&'static str>,
    ) {
        let accepted = Accepted { integration: integration.to_owned(), resource: resource.as_str(), was };
        self.accepted.get_or_create(&accepted).inc();
        if let Some(reason) = because {
            self.ignored.get_or_create(&Because { integration: integration.to_owned(), reason }).inc();
        }
    }
}
