//! The Sentries that are asked for issues, and those that the relay hands events on to.

use std::sync::Arc;

use http::StatusCode;
use reqwest::Url;

use super::asking::PATIENCE;
use super::finding::{Finding, Verdict};
use crate::config::{Integration, Settings};
use crate::machinery::http1::Fields;
use crate::sentry::rest::{Fault, RemoteApi, RestSettings};
use crate::sentry::upstream::{Payload, Upstream, Way};

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

/// Whether each upstream of the relay answers anything at all. No event is sent.
pub(super) async fn upstreams(settings: Arc<Settings>) -> Vec<Finding> {
    let Some(plan) = settings.relay() else { return Vec::new() };
    let mut findings = Vec::with_capacity(plan.upstreams.len());
    for url in &plan.upstreams {
        findings.push(upstream(url, &plan.way).await);
    }
    findings
}

async fn upstream(url: &Url, way: &Way) -> Finding {
    let check = format!("relay {}", url.host_str().unwrap_or_default());
    let upstream = match Upstream::new(url, way) {
        Ok(upstream) => upstream,
        Err(error) => return Finding::failed(check, error.to_string(), "mend `relay.upstream`"),
    };
    let target = http::Uri::from_static("/api/0/");
    match upstream.send(&http::Method::GET, &target, &Fields::default(), Payload::held([])).await {
        Ok(response) if response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Finding::failed(check, "the proxy wants to know who asks", "put user and password into `relay.proxy`")
        }
        Ok(response) if response.status.is_server_error() => {
            Finding::failed(check, format!("{url} answered {}", response.status), "try again later")
        }
        Ok(_) => Finding::ok(check, format!("{url} is there")),
        Err(error) => Finding::failed(
            check,
            format!("{url}: {error}"),
            "check `relay.upstream`, and what lies between (DNS, proxy, firewall, `relay.ca_file`)",
        ),
    }
}
