//! What comes from Sentry, wired: its webhooks, and the looks at it.

use std::collections::BTreeMap;

use axum::Router;
use prometheus_client::registry::Registry;

use super::{BODY_TIME, StartError, access};
use crate::config::{Integration, Settings};
use crate::http::pace::Pace;
use crate::http::sentry::{self, HookMetrics, Hooks};
use crate::machinery::clock::Clock;
use crate::machinery::health::Health;
use crate::machinery::supervise::Supervisor;
use crate::pipeline::Pipeline;
use crate::sentry::rest::RemoteApi;
use crate::sentry::webhook::Secrets;
use crate::sentry_catch_up::{SentryCatchUp, SentryCatchUpMetrics, Watch};
use crate::store::Store;

/// Asks every Sentry for which there is an API token.
pub(super) fn look(
    settings: &Settings,
    store: &Store,
    clock: &Clock,
    health: &Health,
    registry: &mut Registry,
    supervisor: &Supervisor,
) -> Result<(), StartError> {
    let mut watches = Vec::new();
    for integration in settings.integrations() {
        let Some((api, every)) = integration.api.clone().zip(integration.poll_interval) else { continue };
        let name = integration.name.clone();
        let api = RemoteApi::new(api).map_err(|source| StartError::Sentry { integration: name.clone(), source })?;
        let health = health.optional(&format!("sentry {name}"));
        watches.push(Watch::new(name, api, clock.clone(), every, health));
    }
    let metrics = SentryCatchUpMetrics::register(registry);
    let catch_up = SentryCatchUp { store: store.clone(), clock: clock.clone(), metrics };
    supervisor.spawn("sentry-catch-up", catch_up.run(watches, supervisor.stop()));
    Ok(())
}

/// Where its webhooks come in.
pub(super) fn door(
    settings: &Settings,
    pipeline: &Pipeline,
    pace: &Pace,
    clock: &Clock,
    registry: &mut Registry,
) -> Router {
    sentry::router(Hooks {
        integrations: integrations(settings),
        pipeline: pipeline.clone(),
        pace: pace.clone(),
        clock: clock.clone(),
        max_body_bytes: settings.webhooks.max_body_bytes,
        body_time: BODY_TIME,
        metrics: HookMetrics::register(registry),
    })
}

fn integrations(settings: &Settings) -> BTreeMap<String, sentry::Integration> {
    let door = |integration: &Integration| {
        let (name, access) = (integration.name.clone(), access(&integration.access));
        (name.to_string(), sentry::Integration { name, secrets: Secrets::new(&integration.secrets), access })
    };
    settings.integrations().iter().map(door).collect()
}
