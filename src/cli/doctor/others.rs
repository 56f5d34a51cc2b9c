//! The running recoverd, the Agent, Datadog's key, and Sentry.

use std::sync::Arc;

use reqwest::{Client, StatusCode, Url};
use sentry::types::Dsn;

use super::asking::answer;
use super::finding::{Finding, Verdict};
use crate::cli::admin_api::reachable;
use crate::config::Settings;
use crate::datadog::{Readership, examine};

/// What the parts of a running recoverd say of themselves.
pub(super) async fn recoverd(settings: Arc<Settings>) -> Vec<Finding> {
    const CHECK: &str = "recoverd";
    let at = reachable(settings.admin.listen);
    if at.port() == 0 {
        return vec![Finding::skipped(CHECK, "`admin.listen` takes any free port, so it cannot be asked")];
    }
    let Ok(url) = Url::parse(&format!("http://{at}/readyz")) else { return Vec::new() };
    let response = match answer(&url, Client::get).await {
        Ok(response) => response,
        Err(why) => {
            let remedy = "start `recoverd serve`, or see in its log why it ended";
            return vec![Finding::warning(CHECK, format!("it does not run, or not here: {at}, {why}"), remedy)];
        }
    };
    let known = matches!(response.status(), StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE);
    let text = response.text().await.unwrap_or_default();
    let parts: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    if !known || !parts.iter().any(|(part, _)| *part == "store") {
        let remedy = "stop it, or set another port";
        return vec![Finding::failed(CHECK, format!("something else answers at {at}, the `admin.listen`"), remedy)];
    }
    let troubled: Vec<_> = parts
        .iter()
        .filter(|(_, trouble)| *trouble != "ok")
        .map(|(part, trouble)| Finding::complaint(Verdict::Failed, CHECK, &format!("its part {part}: {trouble}")))
        .collect();
    if troubled.is_empty() {
        vec![Finding::ok(CHECK, format!("it runs, and all its parts are well ({at})"))]
    } else {
        troubled
    }
}

pub(super) async fn agent(settings: Arc<Settings>) -> Vec<Finding> {
    const CHECK: &str = "agent";
    let target = settings.agent().target;
    vec![match examine(&target).await {
        Ok(Readership::Reads) => Finding::ok(CHECK, format!("it reads {target}")),
        Ok(Readership::Unread) => {
            Finding::failed(CHECK, format!("something listens on {target}, and does not read it"), "restart the Agent")
        }
        Ok(Readership::Unknown) => Finding::ok(
            CHECK,
            format!("nobody says no at {target}; by UDP from afar no more can be known. Prefer the Agent's socket"),
        ),
        Err(error) => Finding::complaint(Verdict::Failed, CHECK, &error.to_string()),
    }]
}

/// `GET /api/v1/validate`, which Datadog has for this.
pub(super) async fn datadog_key(settings: Arc<Settings>) -> Vec<Finding> {
    const CHECK: &str = "datadog key";
    let datadog = &settings.datadog;
    let Some(key) = &datadog.api_key else {
        return vec![Finding::skipped(CHECK, "none is set, and none is needed: the Agent has its own")];
    };
    let root = datadog.url.clone().unwrap_or_else(|| format!("https://api.{}/", datadog.site));
    let url = match Url::parse(&root).and_then(|root| root.join("api/v1/validate")) {
        Ok(url) => url,
        Err(error) => {
            return vec![Finding::failed(CHECK, format!("{root} is no address: {error}"), "mend `datadog.url`")];
        }
    };
    let asked = answer(&url, |client, url| client.get(url).header("DD-API-KEY", key.expose())).await;
    vec![match asked {
        Err(why) => Finding::failed(
            CHECK,
            format!("{root} cannot be reached: {why}"),
            "check `datadog.site`, and what lies between (DNS, proxy, firewall)",
        ),
        Ok(response) => match response.status() {
            StatusCode::OK => Finding::ok(CHECK, format!("{root} knows it")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Finding::failed(
                CHECK,
                format!("{root} does not know it"),
                "set `datadog.api_key` to one of that site, or `datadog.site` to the key's",
            ),
            status => Finding::failed(CHECK, format!("{root} answered {status}"), "try again later"),
        },
    }]
}

/// No event is sent: whether the key is right, its first event shows.
pub(super) async fn sentry(settings: Arc<Settings>) -> Vec<Finding> {
    const CHECK: &str = "sentry";
    let Some(dsn) = &settings.sentry.dsn else {
        return vec![Finding::skipped(CHECK, "no `sentry.dsn` is set: recoverd's own errors go to its log alone")];
    };
    let parsed = dsn.expose().trim().parse::<Dsn>().ok();
    let root = parsed.and_then(|dsn| Url::parse(&format!("{}://{}:{}/", dsn.scheme(), dsn.host(), dsn.port())).ok());
    let Some(root) = root else {
        return vec![Finding::failed(CHECK, "its DSN has no address", "copy the DSN as Sentry shows it")];
    };
    let remedy = "check `sentry.dsn`, and what lies between (DNS, proxy, firewall)";
    vec![match answer(&root, Client::get).await {
        Ok(response) if response.status().is_server_error() => {
            let found = format!("{root}, where recoverd's own errors go, answered {}", response.status());
            Finding::failed(CHECK, found, "try again later")
        }
        Ok(_) => Finding::ok(CHECK, format!("{root} is there for recoverd's own errors")),
        Err(why) => {
            let found = format!("{root}, where recoverd's own errors go, cannot be reached: {why}");
            Finding::failed(CHECK, found, remedy)
        }
    }]
}
