//! The Sentries that are asked for issues.

use super::asking::PATIENCE;
use super::finding::{Finding, Verdict};
use crate::config::Integration;
use crate::sentry::rest::{Fault, RemoteApi, RestSettings};

/// Whether an integration's API token sees issues and metric alerts.
pub(super) async fn integration(integration: &Integration) -> Finding {
    let check = format!("sentry {}", integration.name);
    let Some(api) = &integration.api else {
        return Finding::skipped(
            check,
            "it has no `api_token`: it is asked nothing, and a lost webhook is not noticed",
        );
    };
    let failed =
        |error: &dyn std::fmt::Display| Finding::complaint(Verdict::Failed, check.as_str(), &error.to_string());
    let (url, organization) = (api.url.to_string(), api.organization.clone());
    let settings = RestSettings { patience: PATIENCE, list_time: PATIENCE, ..api.clone() };
    let api = match RemoteApi::new(settings) {
        Ok(api) => api,
        Err(error) => return failed(&error),
    };
    if let Err(error) = api.unresolved().next().await {
        return failed(&error);
    }
    match api.open_incidents().next().await {
        Ok(_) => Finding::ok(check, format!("{url} shows the issues and metric alerts of {organization}")),
        Err(error) if error.fault == Fault::NotFound => {
            Finding::ok(check, format!("{url} shows the issues of {organization}; it has no metric alerts"))
        }
        Err(error) => {
            let found = format!("{url} shows the issues of {organization}, but not its metric alerts: {error}");
            Finding::complaint(Verdict::Warning, check, &found)
        }
    }
}
