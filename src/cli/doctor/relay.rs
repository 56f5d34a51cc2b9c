//! The Sentries that the relay hands events on to, what waits for them on disk, and who tells it of this node's pods.

use std::sync::Arc;

use futures_util::future::join_all;
use http::StatusCode;
use reqwest::Url;

use super::asking::PATIENCE;
use super::finding::{Finding, Verdict};
use super::jenkins::about;
use crate::config::Settings;
use crate::kubernetes::pods;
use crate::machinery::clock::Clock;
use crate::machinery::http1::Fields;
use crate::relay::{self, Whose};
use crate::sentry::upstream::{Payload, Upstream, Way};

/// Whether each upstream of the relay answers anything at all. No event is sent.
pub(super) async fn upstreams(settings: Arc<Settings>) -> Vec<Finding> {
    let Some(plan) = settings.relay() else { return Vec::new() };
    // One that hangs must not keep what the others say.
    let (connect_timeout, timeout) = (plan.way.connect_timeout.min(PATIENCE), plan.way.timeout.min(PATIENCE));
    let way = Way { connect_timeout, timeout, ..plan.way.clone() };
    join_all(plan.upstreams.iter().map(|url| upstream(url, &way))).await
}

async fn upstream(url: &Url, way: &Way) -> Finding {
    let upstream = match Upstream::new(url, way) {
        Ok(upstream) => upstream,
        Err(error) => return Finding::failed("relay", format!("{url}: {error}"), "mend `relay.upstream`"),
    };
    let check = format!("relay {}", upstream.name());
    let target = http::Uri::from_static("/api/0/");
    match upstream.send(&http::Method::GET, &target, &Fields::default(), Payload::held(&[])).await {
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

/// What could not be handed on yet.
pub(super) async fn spools(settings: Arc<Settings>) -> Vec<Finding> {
    let looking = tokio::task::spawn_blocking(move || {
        let upstreams = settings.relay().map_or(&[][..], |plan| &plan.upstreams);
        upstreams.iter().map(|url| spool(&settings, url)).collect()
    });
    super::whole(looking.await)
}

fn spool(settings: &Settings, url: &Url) -> Finding {
    const CHECK: &str = "relay spool";
    match relay::kept_for(&settings.data_dir.join(relay::DIRECTORY), url) {
        Ok(None) => Finding::ok(CHECK, format!("nothing waits for {url}")),
        Ok(Some((entries, oldest))) => {
            let age = about(Clock::system().now().since(oldest));
            let found = format!("requests that wait on disk for {url}: {entries}, the oldest for {age}");
            let limit = about(settings.relay.spool_max_age);
            Finding::warning(CHECK, found, format!("see why it does not take them: after {limit} they are dropped"))
        }
        Err(error) => {
            let found = format!("what waits on disk for {url} cannot be seen: {error}");
            Finding::failed(CHECK, found, "run doctor as the user that runs recoverd")
        }
    }
}

/// Whether there is anybody to ask whose an event is.
pub(super) async fn pods(settings: Arc<Settings>, node: Option<String>) -> Vec<Finding> {
    const CHECK: &str = "relay pods";
    if settings.relay().is_none_or(|plan| plan.whose != Whose::PodsOfTheNode) {
        return Vec::new();
    }
    let Some(node) = node else {
        let remedy = "set NODE_NAME by the Downward API, `fieldRef: {fieldPath: spec.nodeName}`";
        return vec![Finding::failed(CHECK, "the name of this node is not known", remedy)];
    };
    // With two of them among the crates, whoever does not name one panics. A second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match pods::examine(settings.api_server(), &node).await {
        Ok(()) => vec![Finding::ok(CHECK, format!("the API server tells of those on {node}"))],
        Err(why) => vec![Finding::complaint(Verdict::Failed, CHECK, &why)],
    }
}
