//! What catch-up counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::amendment::{Amendment, What};
use crate::domain::job::ControllerName;
use crate::domain::record::Closed;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Of {
    pub(super) controller: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Because {
    pub(super) controller: String,
    pub(super) reason: &'static str,
}

/// Numbers of all controllers that are asked.
#[derive(Clone, Debug, Default)]
pub struct CatchUpMetrics {
    pub(super) surveys: Family<Of, Counter>,
    pub(super) failures: Family<Because, Counter>,
    pub(super) seconds: Family<Of, Gauge<f64, AtomicU64>>,
    pub(super) gaps: Family<Of, Gauge>,
    pub(super) missing: Family<Of, Gauge>,
    pub(super) repaired: Family<Of, Counter>,
    pub(super) withdrawn: Family<Of, Counter>,
    pub(super) dropped: Family<Of, Counter>,
    pub(super) closed: Family<Because, Counter>,
}

impl CatchUpMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_surveys", "Looks at a whole controller", new.surveys.clone());
        let help = "Looks that came to no end, and questions about a controller's load without an answer";
        registry.register("recoverd_survey_failures", help, new.failures.clone());
        registry.register("recoverd_survey_seconds", "How long the last look took", new.seconds.clone());
        let help = "Folders that the last look could not see into; at most 20 are counted";
        registry.register("recoverd_survey_gaps", help, new.gaps.clone());
        let help = "Watched jobs that the last look has not shown; they are closed once it is believed";
        registry.register("recoverd_jobs_missing", help, new.missing.clone());
        registry.register("recoverd_jobs_closed", "Jobs closed for what Jenkins shows", new.closed.clone());
        let help = "Builds of known jobs whose end was learned by looking";
        registry.register("recoverd_builds_repaired", help, new.repaired.clone());
        let help = "Times that builds were given up which Jenkins does not have";
        registry.register("recoverd_builds_withdrawn", help, new.withdrawn.clone());
        let help = "Branches given up which Jenkins does not have";
        registry.register("recoverd_branches_dropped", help, new.dropped.clone());
        new
    }

    /// Shows a controller before anything has happened to it.
    pub(super) fn show(&self, controller: &ControllerName) {
        let of = Of { controller: controller.to_string() };
        for counters in [&self.surveys, &self.repaired, &self.withdrawn, &self.dropped] {
            drop(counters.get_or_create(&of));
        }
        for gauges in [&self.gaps, &self.missing] {
            drop(gauges.get_or_create(&of));
        }
        drop(self.seconds.get_or_create(&of));
        let because = |reason| Because { controller: controller.to_string(), reason };
        drop(self.failures.get_or_create(&because("unreachable")));
        drop(self.closed.get_or_create(&because(Closed::Deleted.as_str())));
    }

    pub(super) fn count(&self, mended: &Amendment) {
        let controller = mended.key.controller.to_string();
        match &mended.what {
            What::Close(why) => self.closed.get_or_create(&Because { controller, reason: why.as_str() }).inc(),
            What::Drop { .. } => self.dropped.get_or_create(&Of { controller }).inc(),
            What::Withdraw { .. } => self.withdrawn.get_or_create(&Of { controller }).inc(),
        };
    }
}
