//! The doors of the running recoverd: whether they are open, and to whom.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::{Client, RequestBuilder, StatusCode, Url};

use super::asking::answer;
use super::finding::Finding;
use crate::cli::admin_api::reachable;
use crate::config::{Access, Controller, Integration, Secret, Settings};
use crate::machinery::clock::Clock;
use crate::sentry::webhook::Secrets;

const START: &str = "start `recoverd serve`, or see in its log why it ended";
const RESTART: &str = "restart `recoverd serve`: settings are read at its start";
const STOP: &str = "stop it, or set another port";

/// Sends a document that says nothing, as Jenkins would send one that does.
pub(super) async fn of_controller(settings: &Settings, controller: &Controller) -> Finding {
    let check = format!("webhooks {}", controller.name);
    let listen = settings.webhooks.listen;
    let token = match &controller.access {
        Access::Tokens(tokens) => match tokens.first() {
            None => return Finding::skipped(check, "it has no token: it is asked, and may not report"),
            token => token.cloned().map(|token| Secret::new(secrecy::ExposeSecret::expose_secret(&token))),
        },
        Access::LoopbackOnly if !settings.integrations().is_empty() => {
            return Finding::skipped(
                check,
                "there is no [[jenkins]], and Sentry's webhooks have addresses of their own",
            );
        }
        Access::LoopbackOnly if !listen.ip().is_loopback() && !listen.ip().is_unspecified() => {
            let found = format!("{listen} refuses everybody: without a [[jenkins]] only 127.0.0.1 is let in");
            return Finding::failed(check, found, "add a [[jenkins]] with a name and tokens");
        }
        Access::LoopbackOnly | Access::Open => None,
    };
    let rulebook = settings.rulebook();
    let url = rulebook.of(&controller.name).and_then(|rules| rules.url.as_deref());
    let door = Door {
        check,
        listen,
        path: format!("jenkins/{}", controller.name),
        whose: "controller",
        name: controller.name.as_str(),
        proof: "token",
        sender: "Jenkins",
        host: url.and_then(|url| host_of(&Url::parse(url).ok()?)),
    };
    door.try_it(|client, url| {
        let request = client.post(url).body(r#"{"build":{"phase":"NONE"}}"#);
        if let Some(token) = &token { request.bearer_auth(token.expose()) } else { request }
    })
    .await
}

/// The same as Sentry would.
pub(super) async fn of_integration(settings: &Settings, integration: &Integration) -> Finding {
    const BODY: &str = "{}";
    let check = format!("sentry {} webhooks", integration.name);
    let signature = Secrets::new(&integration.secrets).sign(BODY.as_bytes());
    if signature.is_none() && !matches!(integration.access, Access::Open) {
        return Finding::skipped(check, "it has no secret: nothing that Sentry signs is taken");
    }
    let door = Door {
        check,
        listen: settings.webhooks.listen,
        path: format!("sentry/{}", integration.name),
        whose: "integration",
        name: integration.name.as_str(),
        proof: "secret",
        sender: "Sentry",
        host: integration.api.as_ref().and_then(|api| host_of(&api.url)),
    };
    let now = Clock::system().now().as_seconds().to_string();
    door.try_it(|client, url| {
        let request = client.post(url).body(BODY).header("sentry-hook-resource", "installation");
        let request = request.header("sentry-hook-timestamp", now);
        if let Some(signature) = &signature { request.header("sentry-hook-signature", signature) } else { request }
    })
    .await
}

/// The relay's, for applications. No event is sent.
pub(super) async fn of_relay(settings: Arc<Settings>) -> Vec<Finding> {
    const CHECK: &str = "relay";
    let listen = settings.relay.listen;
    vec![match knock(listen, "", Client::get).await {
        Knock::Nowhere => Finding::skipped(CHECK, "`relay.listen` takes any free port, so it cannot be asked"),
        Knock::Nobody(at, why) => Finding::warning(CHECK, format!("nobody takes events at {at}: {why}"), START),
        // What does not begin with `/api/` it has no place for.
        Knock::Ours(_, StatusCode::NOT_FOUND) => Finding::ok(CHECK, format!("{listen} takes events")),
        Knock::Ours(at, _) | Knock::Foreign(at) => {
            Finding::failed(CHECK, format!("something else answers at {at}, the `relay.listen`"), STOP)
        }
    }]
}

/// One address for webhooks.
struct Door<'a> {
    check: String,
    listen: SocketAddr,
    path: String,
    whose: &'static str,
    name: &'a str,
    /// What opens it.
    proof: &'static str,
    sender: &'static str,
    /// Where the sender is, if that is known.
    host: Option<String>,
}

impl Door<'_> {
    async fn try_it(self, ask: impl FnOnce(&Client, Url) -> RequestBuilder) -> Finding {
        let Self { check, listen, path, whose, name, proof, .. } = &self;
        match knock(*listen, path, ask).await {
            Knock::Nowhere => Finding::skipped(check, "`webhooks.listen` takes any free port, so it cannot be asked"),
            Knock::Nobody(at, why) => Finding::warning(check, format!("nobody takes them at {at}: {why}"), START),
            Knock::Ours(_, StatusCode::OK) => self.taken(),
            Knock::Ours(at, StatusCode::UNAUTHORIZED) => Finding::failed(
                check,
                format!("{at} refuses this {whose}'s {proof}, so it runs with other settings"),
                RESTART,
            ),
            Knock::Ours(at, StatusCode::NOT_FOUND) => {
                Finding::failed(check, format!("{at} knows no {whose} {name}, so it runs with other settings"), RESTART)
            }
            Knock::Ours(at, status) => {
                Finding::failed(check, format!("{at} answered {status}"), "look into recoverd's log")
            }
            Knock::Foreign(at) => {
                Finding::failed(check, format!("something else answers at {at}, the `webhooks.listen`"), STOP)
            }
        }
    }

    /// They come in from here; that they do from where the sender is, only that could say.
    fn taken(self) -> Finding {
        let Self { check, listen, proof, sender, host, .. } = self;
        match host.filter(|host| is_elsewhere(host)) {
            Some(host) if listen.ip().is_loopback() => Finding::warning(
                check,
                format!("{listen} takes them, but from this machine alone, and {sender} is {host}"),
                format!(
                    "set `webhooks.listen` to an address that {sender} reaches, unless something on this machine passes \
                     them on"
                ),
            ),
            _ => Finding::ok(check, format!("{listen} takes them with the right {proof}")),
        }
    }
}

fn host_of(url: &Url) -> Option<String> {
    url.host().map(|host| host.to_string())
}

fn is_elsewhere(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
}

/// What became of a knock at a door, and where that was.
enum Knock {
    /// It has no address before it is opened.
    Nowhere,
    Nobody(SocketAddr, String),
    Ours(SocketAddr, StatusCode),
    Foreign(SocketAddr),
}

async fn knock(listen: SocketAddr, path: &str, ask: impl FnOnce(&Client, Url) -> RequestBuilder) -> Knock {
    let at = reachable(listen);
    let url = Url::parse(&format!("http://{at}/{path}")).ok().filter(|_| at.port() != 0);
    let Some(url) = url else { return Knock::Nowhere };
    let response = match answer(&url, ask).await {
        Ok(response) => response,
        Err(why) => return Knock::Nobody(at, why),
    };
    let status = response.status();
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    let is_ours = body.get("result").is_some() || body.get("detail").is_some();
    if is_ours { Knock::Ours(at, status) } else { Knock::Foreign(at) }
}
