//! `POST /sentry/{integration}`: one webhook of Sentry's each, signed; and `POST /sentry/{integration}/{token}` for the old
//! plugin, which signs nothing. Sentry waits a second for the answer: it is verified, read, stored and answered.
//!
//! Metrics: `recoverd_sentry_webhooks_received_total` by integration, `recoverd_sentry_webhooks_refused_total` by integration
//! and reason (`unauthorized`, `stale_timestamp`, `bad_request`, `too_large`, `timeout`, `too_many_requests`, `not_stored`;
//! with an empty integration, where no configured one was addressed, `not_found`, `method_not_allowed`,
//! `too_many_requests`), `recoverd_sentry_webhooks_accepted_total` by integration, resource and what it was (`changed`,
//! `duplicate`, `stale`, `ignored`), `recoverd_sentry_webhooks_ignored_total` by integration and reason.

mod metrics;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;

use super::answer::answer;
use super::auth::{Access, token_in};
use super::body;
use super::pace::Pace;
use super::problem::Problem;
use crate::domain::build::Timestamp;
use crate::domain::sentry::IntegrationName;
use crate::jenkins::document::Extent;
use crate::machinery::clock::Clock;
use crate::pipeline::Pipeline;
use crate::sentry::webhook::{self, Reading, Resource, Secrets, Signature};
pub use metrics::HookMetrics;

const RESOURCE: &str = "sentry-hook-resource";
const SIGNATURE: &str = "sentry-hook-signature";
const TIMESTAMP: &str = "sentry-hook-timestamp";

/// What the listener needs for Sentry.
#[derive(Debug)]
pub struct Hooks {
    pub integrations: BTreeMap<String, Integration>,
    pub pipeline: Pipeline,
    pub pace: Pace,
    pub clock: Clock,
    /// Of a longer body nothing can be told, for its signature is of all of it.
    pub max_body_bytes: usize,
    /// From the beginning of a body to its end.
    pub body_time: Duration,
    pub metrics: HookMetrics,
}

/// One integration, as the door sees it.
#[derive(Debug)]
pub struct Integration {
    pub name: IntegrationName,
    pub secrets: Secrets,
    /// Who may post what is never signed. When it is open, everybody may post everything.
    pub access: Access,
}

/// A router without a fallback, to be merged with one that has it.
pub fn router(hooks: Hooks) -> Router {
    Router::new()
        .route("/sentry/{integration}", post(receive))
        .route("/sentry/{integration}/", post(receive))
        .route("/sentry/{integration}/{token}", post(receive_with_token))
        .route("/sentry/{integration}/{token}/", post(receive_with_token))
        .method_not_allowed_fallback(another_method)
        .with_state(Arc::new(hooks))
}

async fn receive(
    State(hooks): State<Arc<Hooks>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    // What is not UTF-8 names no integration.
    let Ok(Path(integration)) = path else { return Err(hooks.refuse(peer, Problem::NoSuchSender).await) };
    hooks.receive(peer, &integration, None, request).await
}

async fn receive_with_token(
    State(hooks): State<Arc<Hooks>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(Path((integration, token))) = path else { return Err(hooks.refuse(peer, Problem::NoSuchSender).await) };
    hooks.receive(peer, &integration, Some(&token), request).await
}

async fn another_method(State(hooks): State<Arc<Hooks>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Problem {
    hooks.refuse(peer, Problem::MethodNotAllowed).await
}

impl Hooks {
    async fn receive(
        &self,
        peer: SocketAddr,
        integration: &str,
        token: Option<&str>,
        request: Request,
    ) -> Result<Response, Problem> {
        let Some(integration) = self.integrations.get(integration) else {
            return Err(self.refuse(peer, Problem::NoSuchSender).await);
        };
        let name = integration.name.as_str();
        self.metrics.count_arrival(name);
        let answered = async {
            self.pace.pass(peer).await?;
            self.take(integration, peer, token, request).await
        };
        answered.await.inspect_err(|problem| self.metrics.count_refusal(name, problem))
    }

    async fn take(
        &self,
        integration: &Integration,
        peer: SocketAddr,
        token: Option<&str>,
        request: Request,
    ) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let proof = integration.proof(headers, || {
            let in_query = token_in(parts.uri.query());
            let in_url: Vec<&str> = token.into_iter().chain(in_query.as_deref()).collect();
            integration.access.admits(peer.ip(), headers, &in_url)
        })?;
        let received = body::read(body, self.max_body_bytes, self.body_time).await?;
        if received.extent == Extent::CutOff {
            return Err(Problem::TooLargeToKnow { limit: self.max_body_bytes });
        }
        integration.verify(&proof, &received.bytes)?;
        let resource = resource(headers);
        let at = self.time(headers, &proof)?;
        let read = webhook::read(resource, &received.bytes, at);
        // The connection's buffer is free while this one is being stored.
        drop(received);
        let reading = read.map_err(|error| Problem::BadRequest(error.to_string()))?;
        let (was, because) = match reading {
            Reading::Told(occurrence) => {
                let heard = self.pipeline.hear(integration.name.clone(), *occurrence).await;
                (heard.map_err(|_| Problem::NotStored)?.as_str(), None)
            }
            Reading::Ignored(because) => ("ignored", Some(because.as_str())),
        };
        self.metrics.count(integration.name.as_str(), resource, was, because);
        Ok(answer(StatusCode::OK, was, because))
    }

    /// When what is told was so. The plugin does not say.
    fn time(&self, headers: &HeaderMap, proof: &Proof) -> Result<Timestamp, Problem> {
        let now = self.clock.now();
        match (headers.get(TIMESTAMP), proof) {
            (None, Proof::Needless) | (_, Proof::Token) => Ok(now),
            (None, Proof::Signature(_)) => Err(Problem::NotOfNow),
            (Some(said), _) => said.to_str().ok().and_then(|said| webhook::fresh(said, now)).ok_or(Problem::NotOfNow),
        }
    }

    /// Refuses what addresses no configured integration, at the source's pace, which has the last word.
    async fn refuse(&self, peer: SocketAddr, problem: Problem) -> Problem {
        let problem = self.pace.pass(peer).await.err().unwrap_or(problem);
        self.metrics.count_refusal("", &problem);
        problem
    }
}

/// By what a webhook is let in.
enum Proof {
    /// To be compared with the body.
    Signature(Signature),
    Token,
    /// Everybody is believed.
    Needless,
}

impl Integration {
    /// What may let this webhook in, before its body is read. A token opens nothing that Sentry signs.
    fn proof(&self, headers: &HeaderMap, has_token: impl FnOnce() -> bool) -> Result<Proof, Problem> {
        if matches!(self.access, Access::Open) {
            return Ok(Proof::Needless);
        }
        if !headers.contains_key(RESOURCE) {
            return if has_token() { Ok(Proof::Token) } else { Err(Problem::Unauthorized) };
        }
        let signature = headers.get(SIGNATURE).and_then(|header| Signature::parse(header.as_bytes()));
        signature.map(Proof::Signature).ok_or(Problem::Unsigned)
    }

    fn verify(&self, proof: &Proof, body: &[u8]) -> Result<(), Problem> {
        match proof {
            Proof::Signature(signature) if !self.secrets.made(signature, body) => Err(Problem::Unsigned),
            Proof::Signature(_) | Proof::Token | Proof::Needless => Ok(()),
        }
    }
}

fn resource(headers: &HeaderMap) -> Resource {
    match headers.get(RESOURCE) {
        None => Resource::Plugin,
        Some(word) => Resource::read(word.to_str().unwrap_or_default()),
    }
}
