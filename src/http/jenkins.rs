//! `POST /jenkins/{controller}` and `POST /jenkins/{controller}/{token}`: one document of any sender each. And the raw
//! protocols, which have neither address nor token.
//!
//! Metrics: `recoverd_webhooks_received_total` by controller, `recoverd_webhooks_refused_total` by controller and reason
//! (`unauthorized`, `bad_request`, `too_large`, `timeout`, `too_many_requests`, `not_stored`; with an empty controller,
//! where no configured one was addressed, `not_found`, `method_not_allowed`, `too_many_requests`),
//! `recoverd_webhooks_accepted_total` by controller and what it was (`started`, `finished`, `corrected`, `duplicate`,
//! `stale`, `closed`, `ignored`, `filtered`), `recoverd_documents_total` by controller, sender and protocol,
//! `recoverd_webhooks_held_total`, `recoverd_webhooks_unknown_results_total` and `recoverd_webhooks_cut_total` by
//! controller.

pub mod intake;
pub mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;

use super::answer::answer;
use super::auth::{Access, token_in};
use super::body;
use super::problem::Problem;
use crate::domain::job::ControllerName;
use crate::jenkins::document::Extent;
use intake::{Intake, Protocol, Taken};

/// What the webhook listener needs.
#[derive(Debug)]
pub struct Webhooks {
    pub controllers: BTreeMap<String, Controller>,
    pub intake: Intake,
}

/// One Jenkins, as the door sees it.
#[derive(Debug)]
pub struct Controller {
    pub name: ControllerName,
    pub access: Access,
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
    let Ok(Path(controller)) = path else { return Err(webhooks.refuse(peer, Problem::NoSuchSender).await) };
    webhooks.receive(peer, &controller, None, request).await
}

async fn receive_with_token(
    State(webhooks): State<Arc<Webhooks>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(Path((controller, token))) = path else { return Err(webhooks.refuse(peer, Problem::NoSuchSender).await) };
    webhooks.receive(peer, &controller, Some(&token), request).await
}

async fn nowhere(State(webhooks): State<Arc<Webhooks>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Problem {
    webhooks.refuse(peer, Problem::NoSuchSender).await
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
            return Err(self.refuse(peer, Problem::NoSuchSender).await);
        };
        let name = controller.name.as_str();
        self.intake.count_arrival(name);
        let in_query = token_in(request.uri().query());
        let in_url: Vec<&str> = token.into_iter().chain(in_query.as_deref()).collect();
        let admitted = controller.access.admits(peer.ip(), request.headers(), &in_url);
        let answered = async {
            self.intake.pace.pass(peer).await.and(if admitted { Ok(()) } else { Err(Problem::Unauthorized) })?;
            self.take(controller, request.into_body()).await
        };
        answered.await.inspect_err(|problem| self.intake.count_refusal(name, problem))
    }

    async fn take(&self, controller: &Controller, body: Body) -> Result<Response, Problem> {
        let received = body::read(body, self.intake.max_body_bytes, self.intake.body_time).await?;
        let Taken { was, because, extent } = self.intake.take(&controller.name, received, Protocol::Http).await?;
        Ok(match (because, extent) {
            (Some(_), _) | (None, Extent::Whole) => answer(StatusCode::OK, was, because),
            (None, Extent::CutOff) => {
                answer(StatusCode::ACCEPTED, was, Some("the body was over the limit; its beginning counts"))
            }
        })
    }

    /// Refuses what addresses no configured controller, at the source's pace, which has the last word.
    async fn refuse(&self, peer: SocketAddr, problem: Problem) -> Problem {
        let problem = self.intake.pace.pass(peer).await.err().unwrap_or(problem);
        self.intake.count_refusal("", &problem);
        problem
    }
}
