//! `POST /jenkins/{controller}` and `POST /jenkins/{controller}/{token}`: one build's document each.
//!
//! Metrics: `recoverd_webhooks_received_total` by controller, `recoverd_webhooks_refused_total` by controller and reason
//! (`unauthorized`, `bad_request`, `too_large`, `timeout`, `too_many_requests`, `not_stored`; with an empty controller,
//! where no configured one was addressed, `not_found`, `method_not_allowed`, `too_many_requests`),
//! `recoverd_webhooks_accepted_total` by controller and what it was (`started`, `finished`, `corrected`, `duplicate`,
//! `stale`, `ignored`, `filtered`), `recoverd_webhooks_held_total`, `recoverd_webhooks_unknown_results_total` and
//! `recoverd_webhooks_cut_total` by controller, `recoverd_webhooks_delayed_total`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::auth::Access;
use super::body;
use super::problem::Problem;
use crate::domain::build::Outcome;
use crate::domain::history::Novelty;
use crate::domain::job::ControllerName;
use crate::jenkins::notification::{self, Extent, Reading};
use crate::machinery::throttle::Throttle;
use crate::pipeline::Pipeline;

/// What the webhook listener needs.
#[derive(Debug)]
pub struct Webhooks {
    pub controllers: BTreeMap<String, Controller>,
    pub pipeline: Pipeline,
    pub throttle: Throttle,
    /// Bytes of a body that are looked at. Of a longer one the beginning counts, if it says which build it is about.
    pub max_body_bytes: usize,
    /// From the head of a request to the end of its body.
    pub body_time: Duration,
    pub metrics: WebhookMetrics,
}

/// One Jenkins, as the door sees it.
#[derive(Debug)]
pub struct Controller {
    pub name: ControllerName,
    pub access: Access,
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

#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    received: Family<Of, Counter>,
    refused: Family<Refused, Counter>,
    accepted: Family<Accepted, Counter>,
    held: Family<Of, Counter>,
    unknown_results: Family<Of, Counter>,
    cut: Family<Of, Counter>,
    delayed: Counter,
}

impl WebhookMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("recoverd_webhooks_received", "Requests to a controller's address", new.received.clone());
        registry.register("recoverd_webhooks_refused", "Requests that got no 2xx", new.refused.clone());
        registry.register("recoverd_webhooks_accepted", "Documents that got a 2xx", new.accepted.clone());
        registry.register("recoverd_webhooks_held", "Results that left their job as it was", new.held.clone());
        let help = "Results that are no Jenkins result; they hold";
        registry.register("recoverd_webhooks_unknown_results", help, new.unknown_results.clone());
        registry.register("recoverd_webhooks_cut", "Bodies over the limit whose beginning counted", new.cut.clone());
        registry.register("recoverd_webhooks_delayed", "Requests slowed down by the rate limit", new.delayed.clone());
        new
    }
}

pub fn router(webhooks: Webhooks) -> Router {
    Router::new()
        .route("/jenkins/{controller}", post(receive))
        .route("/jenkins/{controller}/", post(receive))
        .route("/jenkins/{controller}/{token}", post(receive_with_token))
        .route("/jenkins/{controller}/{token}/", post(receive_with_token))
        .fallback(nowhere)
        .method_not_allowed_fallback(another_method)
        .with_state(Arc::new(webhooks))
}

async fn receive(
    State(webhooks): State<Arc<Webhooks>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    // What is not UTF-8 names no controller.
    let Ok(Path(controller)) = path else { return Err(webhooks.refuse(peer, Problem::NotFound).await) };
    webhooks.receive(peer, &controller, None, request).await
}

async fn receive_with_token(
    State(webhooks): State<Arc<Webhooks>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(Path((controller, token))) = path else { return Err(webhooks.refuse(peer, Problem::NotFound).await) };
    webhooks.receive(peer, &controller, Some(&token), request).await
}

async fn nowhere(State(webhooks): State<Arc<Webhooks>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Problem {
    webhooks.refuse(peer, Problem::NotFound).await
}

async fn another_method(State(webhooks): State<Arc<Webhooks>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Problem {
    webhooks.refuse(peer, Problem::MethodNotAllowed).await
}

impl Webhooks {
    async fn receive(
        &self,
        peer: SocketAddr,
        controller: &str,
        token: Option<&str>,
        request: Request,
    ) -> Result<Response, Problem> {
        let Some(controller) = self.controllers.get(controller) else {
            return Err(self.refuse(peer, Problem::NotFound).await);
        };
        let name = controller.name.as_str();
        self.metrics.received.get_or_create(&of(name)).inc();
        let in_query = token_in(request.uri().query());
        let in_url: Vec<&str> = token.into_iter().chain(in_query.as_deref()).collect();
        let admitted = controller.access.admits(peer.ip(), request.headers(), &in_url);
        self.pace(peer)
            .await
            .and(if admitted { Ok(()) } else { Err(Problem::Unauthorized) })
            .inspect_err(|problem| self.count_refusal(name, problem))?;
        self.take(controller, request.into_body()).await.inspect_err(|problem| self.count_refusal(name, problem))
    }

    async fn take(&self, controller: &Controller, body: Body) -> Result<Response, Problem> {
        let name = controller.name.as_str();
        let received = body::read(body, self.max_body_bytes, self.body_time).await?;
        let (read, extent) = (notification::read(&received.bytes, received.extent), received.extent);
        // The connection's buffer is free for the next document while this one is being stored.
        drop(received);
        let report = match read {
            Ok(Reading::Report(report)) => report,
            Ok(Reading::Ignored(why)) => {
                self.count_acceptance(name, "ignored");
                return Ok(answer(StatusCode::OK, "ignored", Some(why.as_str())));
            }
            Err(_) if extent == Extent::CutOff => return Err(Problem::TooLarge { limit: self.max_body_bytes }),
            Err(error) => return Err(Problem::BadRequest(error.to_string())),
        };
        let outcome = report.progress.outcome();
        let receipt = self.pipeline.accept(controller.name.clone(), report).await.map_err(|_| Problem::NotStored)?;
        let was = receipt.novelty.map_or("filtered", word);
        self.count_acceptance(name, was);
        if receipt.held && receipt.novelty == Some(Novelty::Finished) {
            self.metrics.held.get_or_create(&of(name)).inc();
        }
        if outcome == Some(Outcome::Unknown) {
            self.metrics.unknown_results.get_or_create(&of(name)).inc();
        }
        if extent == Extent::Whole {
            return Ok(answer(StatusCode::OK, was, None));
        }
        self.metrics.cut.get_or_create(&of(name)).inc();
        Ok(answer(StatusCode::ACCEPTED, was, Some("the body was over the limit; its beginning counts")))
    }

    /// Refuses what addresses no configured controller, at the source's pace, which has the last word.
    async fn refuse(&self, peer: SocketAddr, problem: Problem) -> Problem {
        let problem = self.pace(peer).await.err().unwrap_or(problem);
        // A label of its own for every name that somebody tries would be a way to fill the memory.
        self.count_refusal("", &problem);
        problem
    }

    /// Slows a source down, and refuses it only when it would have to wait too long.
    async fn pace(&self, peer: SocketAddr) -> Result<(), Problem> {
        match self.throttle.pass(peer.ip()).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.metrics.delayed.inc();
                Ok(())
            }
            Err(too_fast) => Err(Problem::TooManyRequests { retry_after: too_fast.retry_after }),
        }
    }

    fn count_refusal(&self, controller: &str, problem: &Problem) {
        self.metrics.refused.get_or_create(&refused(controller, problem)).inc();
    }

    fn count_acceptance(&self, controller: &str, was: &'static str) {
        self.metrics.accepted.get_or_create(&Accepted { controller: controller.to_owned(), was }).inc();
    }
}

fn of(controller: &str) -> Of {
    Of { controller: controller.to_owned() }
}

fn refused(controller: &str, problem: &Problem) -> Refused {
    Refused { controller: controller.to_owned(), reason: problem.reason() }
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

fn answer(status: StatusCode, result: &'static str, detail: Option<&str>) -> Response {
    let body = match detail {
        Some(detail) => json!({ "result": result, "detail": detail }).to_string(),
        None => format!("{{\"result\":\"{result}\"}}"),
    };
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The value of `token` in a query.
fn token_in(query: Option<&str>) -> Option<String> {
    let raw = query?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    let spaced = raw.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_the_query_and_decoded() {
        let table = [
            (Some("token=abc"), Some("abc")),
            (Some("a=b&token=a%2Fb"), Some("a/b")),
            (Some("xtoken=abc"), None),
            (Some(""), None),
            (None, None),
        ];
        for (query, expected) in table {
            assert_eq!(token_in(query).as_deref(), expected, "{query:?}");
        }
    }
}
