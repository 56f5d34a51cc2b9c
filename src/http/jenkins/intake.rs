//! What becomes of a document, whichever way it came: read, stored, counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::domain::build::{BuildReport, Outcome};
use crate::domain::history::Novelty;
use crate::domain::job::ControllerName;
use crate::http::body::Received;
use crate::http::pace::Pace;
use crate::http::problem::Problem;
use crate::jenkins::document::{self, Document, Extent, Reading};
use crate::pipeline::Pipeline;

/// How documents are taken in. Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct Intake {
    pub pipeline: Pipeline,
    pub pace: Pace,
    /// Bytes of a document that are looked at. Of a longer one the beginning counts, if it says which build it is about.
    pub max_body_bytes: usize,
    /// From the beginning of a document to its end.
    pub body_time: Duration,
    pub metrics: WebhookMetrics,
}

/// What became of a document that is stored now, or needs not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) was: &'static str,
    /// Why it says nothing that counts.
    pub(super) because: Option<&'static str>,
    pub(super) extent: Extent,
}

/// By what a document came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tcp,
    Udp,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    controller: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    controller: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accepted {
    controller: String,
    was: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Understood {
    controller: String,
    sender: &'static str,
    protocol: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    received: Family<Of, Counter>,
    refused: Family<Refused, Counter>,
    accepted: Family<Accepted, Counter>,
    understood: Family<Understood, Counter>,
    held: Family<Of, Counter>,
    unknown_results: Family<Of, Counter>,
    cut: Family<Of, Counter>,
}

impl WebhookMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_webhooks_received", "Requests to a controller's address", new.received.clone());
        registry.register("recoverd_webhooks_refused", "Requests that got no 2xx", new.refused.clone());
        registry.register("recoverd_webhooks_accepted", "Documents that got a 2xx", new.accepted.clone());
        registry.register(
            "recoverd_documents",
            "Documents that were understood, by who sent them",
            new.understood.clone(),
        );
        registry.register("recoverd_webhooks_held", "Results that left their job as it was", new.held.clone());
        let help = "Results that are no Jenkins result; they hold";
        registry.register("recoverd_webhooks_unknown_results", help, new.unknown_results.clone());
        registry.register("recoverd_webhooks_cut", "Bodies over the limit whose beginning counted", new.cut.clone());
        new
    }
}

impl Intake {
    /// On `Ok` whatever the document says survives a crash of the node.
    pub(super) async fn take(
        &self,
        controller: &ControllerName,
        received: Received,
        protocol: Protocol,
    ) -> Result<Taken, Problem> {
        let (read, extent) = (document::read(&received.bytes, received.extent), received.extent);
        // The connection's buffer is free for the next document while this one is being stored.
        drop(received);
        let Document { sender, reading } = match read {
            Ok(document) => document,
            Err(_) if extent == Extent::CutOff => return Err(Problem::TooLarge { limit: self.max_body_bytes }),
            Err(error) => return Err(Problem::BadRequest(error.to_string())),
        };
        let name = controller.as_str();
        let (sender, protocol) = (sender.as_str(), protocol.as_str());
        let understood = Understood { controller: name.to_owned(), sender, protocol };
        self.metrics.understood.get_or_create(&understood).inc();
        let (was, because) = match reading {
            Reading::Report(report) => (self.report(controller, report).await?, None),
            Reading::Gone(gone) => {
                let found = self.pipeline.remove(controller.clone(), gone).await.map_err(|_| Problem::NotStored)?;
                if found { ("closed", None) } else { ("ignored", Some("no_such_job")) }
            }
            Reading::Ignored(because) => ("ignored", Some(because.as_str())),
        };
        self.metrics.accepted.get_or_create(&Accepted { controller: name.to_owned(), was }).inc();
        if extent == Extent::CutOff && because.is_none() {
            self.metrics.cut.get_or_create(&of(name)).inc();
        }
        Ok(Taken { was, because, extent })
    }

    async fn report(&self, controller: &ControllerName, report: Box<BuildReport>) -> Result<&'static str, Problem> {
        let name = controller.as_str();
        let outcome = report.progress.outcome();
        let receipt = self.pipeline.accept(controller.clone(), report).await.map_err(|_| Problem::NotStored)?;
        if receipt.held && receipt.novelty == Some(Novelty::Finished) {
            self.metrics.held.get_or_create(&of(name)).inc();
        }
        if outcome == Some(Outcome::Unknown) {
            self.metrics.unknown_results.get_or_create(&of(name)).inc();
        }
        Ok(receipt.novelty.map_or("filtered", word))
    }

    pub(super) fn count_arrival(&self, controller: &str) {
        self.metrics.received.get_or_create(&of(controller)).inc();
    }

    /// `controller` is empty for what addresses none: a label of its own for every name that somebody tries would be a way
    /// to fill the memory.
    pub(super) fn count_refusal(&self, controller: &str, problem: &Problem) {
        let refused = Refused { controller: controller.to_owned(), reason: problem.reason() };
        self.metrics.refused.get_or_create(&refused).inc();
    }
}

fn of(controller: &str) -> Of {
    Of { controller: controller.to_owned() }
}

fn word(novelty: Novelty) -> &'static str {
    match novelty {
        Novelty::Started => "started",
        Novelty::Finished => "finished",
        Novelty::Corrected => "corrected",
        Novelty::Duplicate => "duplicate",
        Novelty::Stale => "stale",
    }
}
