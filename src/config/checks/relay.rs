//! `[relay]`, made ready for use.

use std::net::SocketAddr;
use std::path::Path;

use url::Url;

use super::{Checks, count, is_ours, normalise};
use crate::config::{RelayMode, RelaySettings, Settings, span};
use crate::domain::pod::TagChoice;
use crate::relay::{Plan, Route, Whose};
use crate::sentry::upstream::{self, Way};

impl Checks<'_, '_> {
    pub(super) fn relay(&mut self, settings: &mut Settings) {
        let listeners = [
            ("webhooks.listen", settings.webhooks.listen),
            ("admin.listen", settings.admin.listen),
            ("relay.listen", settings.relay.listen),
        ];
        let own_dsn =
            settings.sentry.dsn.as_ref().and_then(|dsn| dsn.expose().trim().parse::<::sentry::types::Dsn>().ok());
        let relay = &mut settings.relay;
        self.within("relay.connect_timeout", relay.connect_timeout, &RelaySettings::CONNECT, span::show);
        self.within("relay.timeout", relay.timeout, &RelaySettings::TIMEOUT, span::show);
        self.within("relay.max_body_bytes", relay.max_body_bytes, &RelaySettings::BODY_BYTES, count);
        self.connections("relay", relay.max_connections, relay.max_connections_per_peer);
        self.within("relay.spool_max_bytes", relay.spool_max_bytes, &RelaySettings::SPOOL_BYTES, |bytes| {
            bytes.to_string()
        });
        self.within("relay.spool_max_age", relay.spool_max_age, &RelaySettings::SPOOL_AGE, span::show);
        let labels = self.choices("relay.labels", &relay.labels);
        let annotations = self.choices("relay.annotations", &relay.annotations);
        let authorities = relay.ca_file.as_deref().map(|file| self.authorities(file)).unwrap_or_default();
        relay.proxy.take_if(|proxy| proxy.expose().trim().is_empty());
        let proxy = relay.proxy.as_ref().and_then(|proxy| self.proxy(proxy.expose()));
        if !relay.enabled {
            return;
        }
        if let Some(dsn) = own_dsn
            && dsn.port() == relay.listen.port()
            && is_ours(dsn.host(), relay.listen)
        {
            let why = format!("leads to recoverd's own `relay.listen`, {}; name Sentry's host", relay.listen);
            self.wrong("sentry.dsn", &why);
        }
        let Some(raw) = relay.upstream.clone().filter(|raw| !raw.trim().is_empty()) else {
            let why =
                "is missing; set the address of your Sentry, such as https://sentry.example.com/, or `enabled = false`";
            return self.wrong("relay.upstream", why);
        };
        let Some(url) = self.upstream("relay.upstream", &raw, &listeners) else { return };
        relay.upstream = Some(url.to_string());
        let mut upstreams = vec![url];
        let mut routes = Vec::new();
        for (index, route) in relay.routes.iter_mut().enumerate() {
            let path = format!("relay.routes[{index}]");
            if route.projects.is_empty() && route.keys.is_empty() {
                self.wrong(&path, "takes nothing; set `projects` or `keys`");
            }
            let Some(url) = self.upstream(&format!("{path}.upstream"), &route.upstream, &listeners) else { continue };
            route.upstream = url.to_string();
            let at = upstreams.iter().position(|known| *known == url).unwrap_or_else(|| {
                upstreams.push(url);
                upstreams.len() - 1
            });
            routes.push(Route { projects: route.projects.clone(), keys: route.keys.clone(), upstream: at });
        }
        if relay.mode == RelayMode::Sidecar && !relay.listen.ip().is_loopback() {
            self.warn(format!(
                "`relay.listen` is {} but `relay.mode` is \"sidecar\": whoever reaches it sends events in this pod's name",
                relay.listen
            ));
        }
        if relay.mode == RelayMode::Daemonset && relay.listen.ip().is_loopback() {
            self.warn(format!(
                "`relay.listen` is {} but `relay.mode` is \"daemonset\": no other pod reaches it; set 0.0.0.0:{}",
                relay.listen,
                relay.listen.port()
            ));
        }
        self.checked.relay = Some(Plan {
            upstreams,
            routes,
            way: Way { connect_timeout: relay.connect_timeout, timeout: relay.timeout, authorities, proxy },
            whose: match relay.mode {
                RelayMode::Sidecar => Whose::OwnPod,
                RelayMode::Daemonset => Whose::PodsOfTheNode,
            },
            enrich: relay.enrich,
            tags: TagChoice { node: relay.node_name, labels, annotations },
            max_body_bytes: relay.max_body_bytes as u64,
            spool_max_bytes: relay.spool_max_bytes,
            spool_max_age: relay.spool_max_age,
        });
    }

    fn upstream(&mut self, path: &str, raw: &str, listeners: &[(&str, SocketAddr)]) -> Option<Url> {
        let url = match normalise(raw, "https://sentry.example.com/") {
            Ok(url) => Url::parse(&url).ok()?,
            Err(why) => {
                self.wrong(path, &why);
                return None;
            }
        };
        let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
        if let Some((key, listen)) =
            listeners.iter().find(|(_, listen)| listen.port() == port && is_ours(&host, *listen))
        {
            self.wrong(path, &format!("leads back to recoverd's own `{key}`, {listen}; name Sentry's host"));
            return None;
        }
        Some(url)
    }

    /// `name` or `name=tag`.
    fn choices(&mut self, path: &str, raw: &[String]) -> Vec<(String, String)> {
        let mut choices = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let (name, tag) = raw.split_once('=').unwrap_or((raw, raw));
            let (name, tag) = (name.trim(), tag.trim());
            if name.is_empty() || tag.is_empty() {
                self.wrong(&format!("{path}[{index}]"), &format!("{raw:?} names nothing; write label or label=tag"));
            } else if tag.starts_with("pod_") || tag == "node_name" {
                self.wrong(&format!("{path}[{index}]"), &format!("recoverd sets {tag} itself; choose another tag"));
            } else {
                choices.push((name.to_owned(), tag.to_owned()));
            }
        }
        choices
    }

    fn authorities(&mut self, file: &Path) -> Vec<upstream::Authority> {
        upstream::read_authorities(file).unwrap_or_else(|why| {
            self.wrong("relay.ca_file", &format!("cannot read certificates from {}: {why}", file.display()));
            Vec::new()
        })
    }

    fn proxy(&mut self, raw: &str) -> Option<upstream::Proxy> {
        let proxy = upstream::Proxy::parse(raw.trim());
        if proxy.is_none() {
            let why = "is not the address of an HTTP proxy, and no other kind is spoken to; write http://HOST:PORT, or \
                       http://USER:PASSWORD@HOST:PORT";
            self.wrong("relay.proxy", why);
        }
        proxy
    }
}
