//! The looks at Sentry, wired.

use prometheus_client::registry::Registry;

use super::StartError;
use crate::config::Settings;
use crate::machinery::clock::Clock;
use crate::machinery::health::Health;
use crate::machinery::supervise::Supervisor;
use crate::sentry::rest::RemoteApi;
use crate::sentry_catch_up::{SentryCatchUp, SentryCatchUpMetrics, Watch};
use crate::store::Store;

/// Asks every Sentry for which there is an API token.
pub(super) fn start(
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
