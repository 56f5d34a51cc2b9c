//! What types alone cannot say: which settings contradict each other, and which are allowed but unwise.

mod relay;
mod sentry;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;

use ::sentry::types::{Dsn, ParseDsnError};
use url::Url;

use super::access::{Access, Auth, Controller};
use super::jenkins::{JenkinsSettings, RuleSettings};
use super::layers::Layers;
use super::schema::{nearest, plain};
use super::secret::{self, Secret};
use super::{DatadogSettings, Integration, KubernetesSettings, Settings, WebhookSettings, span};
use crate::datadog::{AgentSettings, AgentTarget, DatagramLimit};
use crate::domain::build::Outcome;
use crate::domain::job::ControllerName;
use crate::domain::rules::{ControllerRules, Globs, Policy, Rulebook};
use crate::domain::signal::{Tag, tag};
use crate::jenkins::rest::{Credentials, RestSettings};
use crate::relay::Plan;

/// Shorter ones can be tried out. `openssl rand -hex 16` makes one of 32.
const SHORT_TOKEN: usize = 16;

/// The settings made ready for use.
#[derive(Clone, Debug, Default)]
pub(super) struct Checked {
    pub(super) rulebook: Rulebook,
    pub(super) controllers: Vec<Controller>,
    pub(super) integrations: Vec<Integration>,
    pub(super) warnings: Vec<String>,
    /// Present whenever the settings are right.
    pub(super) agent: Option<AgentSettings>,
    /// Absent when it is switched off.
    pub(super) relay: Option<Plan>,
    pub(super) api_server: Option<Url>,
}

/// Reads the secret files into `settings`, checks the whole, and adds what is wrong to `layers`.
pub(super) fn check(settings: &mut Settings, layers: &mut Layers<'_>) -> Checked {
    let mut checks = Checks { layers, checked: Checked::default() };
    checks.secrets(settings);
    checks.listeners(settings);
    checks.datadog(&mut settings.datadog);
    checks.dsn(settings);
    checks.log(&settings.log.level);
    checks.kubernetes(&mut settings.kubernetes);
    checks.relay(settings);
    if settings.data_dir.as_os_str().is_empty() {
        checks.wrong("data_dir", "is empty; name a directory, such as \"data\"");
    }
    checks.within("shutdown_deadline", settings.shutdown_deadline, &Settings::SHUTDOWN, span::show);
    let WebhookSettings { max_body_bytes, max_connections, max_connections_per_peer, .. } = settings.webhooks;
    checks.within("webhooks.max_body_bytes", max_body_bytes, &WebhookSettings::BODY_BYTES, count);
    checks.connections("webhooks", max_connections, max_connections_per_peer);
    let tags = checks.tags("datadog.tags", &settings.datadog.tags);
    for (index, jenkins) in settings.jenkins.iter_mut().enumerate() {
        checks.jenkins(&format!("jenkins[{index}]"), jenkins, &tags);
    }
    for (index, integration) in settings.sentry.integrations.iter_mut().enumerate() {
        checks.integration(&format!("sentry.integrations[{index}]"), integration, &tags);
    }
    if settings.jenkins.is_empty() {
        checks.nobody_configured(settings, tags);
    }
    checks.checked
}

struct Checks<'a, 'b> {
    layers: &'a mut Layers<'b>,
    checked: Checked,
}

impl Checks<'_, '_> {
    fn wrong(&mut self, path: &str, why: &str) {
        self.layers.problem(path, why);
    }

    fn warn(&mut self, warning: String) {
        self.checked.warnings.push(warning);
    }

    fn kubernetes(&mut self, kubernetes: &mut KubernetesSettings) {
        kubernetes.api_server.take_if(|raw| raw.trim().is_empty());
        let Some(raw) = kubernetes.api_server.clone() else { return };
        match normalise(&raw, "https://kubernetes.default.svc/") {
            Ok(url) => {
                self.checked.api_server = Url::parse(&url).ok();
                kubernetes.api_server = Some(url);
            }
            Err(why) => self.wrong("kubernetes.api_server", &why),
        }
    }

    fn within<T: PartialOrd + Copy>(&mut self, path: &str, value: T, range: &RangeInclusive<T>, show: fn(T) -> String) {
        if !range.contains(&value) {
            let (from, to) = (show(*range.start()), show(*range.end()));
            self.wrong(path, &format!("{} is not from {from} to {to}", show(value)));
        }
    }

    /// More than any process has files for could not be counted.
    fn connections(&mut self, table: &str, all: NonZeroUsize, per_peer: NonZeroUsize) {
        for (key, value) in [("max_connections", all), ("max_connections_per_peer", per_peer)] {
            self.within(&format!("{table}.{key}"), value.get(), &(1..=1_000_000), count);
        }
    }

    fn secrets(&mut self, settings: &mut Settings) {
        let Settings { admin, jenkins, datadog, sentry, .. } = settings;
        self.tokens("admin", admin.auth, &mut admin.tokens, admin.tokens_file.as_deref());
        for (index, jenkins) in jenkins.iter_mut().enumerate() {
            let path = format!("jenkins[{index}]");
            self.tokens(&path, jenkins.auth, &mut jenkins.tokens, jenkins.tokens_file.as_deref());
            self.secret(&format!("{path}.api_token"), &mut jenkins.api_token, jenkins.api_token_file.as_deref());
        }
        self.secret("datadog.api_key", &mut datadog.api_key, datadog.api_key_file.as_deref());
        self.secret("sentry.dsn", &mut sentry.dsn, sentry.dsn_file.as_deref());
        for (index, integration) in sentry.integrations.iter_mut().enumerate() {
            self.integration_secrets(&format!("sentry.integrations[{index}]"), integration);
        }
    }

    /// The secret at `key`, or in the file at `key` with `_file` behind it. A blank one is none.
    fn secret(&mut self, key: &str, secret: &mut Option<Secret>, file: Option<&Path>) {
        let file_key = format!("{key}_file");
        if let Some(file) = file {
            if secret.is_none() || self.layers.outranks(&file_key, key) {
                match secret::read(file) {
                    Ok(read) => *secret = Some(read),
                    Err(why) => self.wrong(&file_key, &why),
                }
            } else if !self.layers.outranks(key, &file_key) {
                self.wrong(&file_key, &format!("`{}` is set as well; remove one of them", plain(key)));
            }
        }
        secret.take_if(|secret| secret.expose().trim().is_empty());
    }

    fn tokens(&mut self, table: &str, auth: Auth, tokens: &mut Vec<Secret>, file: Option<&Path>) {
        self.words(&format!("{table}.tokens"), "token", tokens, file);
        if auth == Auth::None && !tokens.is_empty() {
            let key = format!("{table}.auth");
            self.wrong(&key, "\"none\" contradicts the tokens that are set; remove either");
        }
    }

    /// The words at `key` by which somebody is let in, and those in the file at `key` with `_file` behind it.
    fn words(&mut self, key: &str, kind: &str, words: &mut Vec<Secret>, file: Option<&Path>) {
        for (index, word) in words.iter().enumerate() {
            self.word(&format!("{key}[{index}]"), kind, word);
        }
        let key = format!("{key}_file");
        match file.map(|file| secret::read_lines(file, kind)) {
            Some(Ok(more)) => {
                for word in &more {
                    self.word(&key, kind, word);
                }
                words.extend(more);
            }
            Some(Err(why)) => self.wrong(&key, &why),
            None => {}
        }
    }

    fn word(&mut self, path: &str, kind: &str, word: &Secret) {
        let word = word.expose();
        if word.is_empty() {
            self.wrong(path, &format!("the {kind} is empty, which would let everybody in; remove it"));
        } else if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why =
                format!("a {kind} has printable ASCII characters and no spaces, or it could not stand in a header");
            self.wrong(path, &why);
        } else if word.len() < SHORT_TOKEN {
            let why = format!("a {kind} of fewer than {SHORT_TOKEN} characters can be guessed; make it longer");
            let warning = self.layers.named(path, &why);
            self.warn(warning);
        }
    }

    fn listeners(&mut self, settings: &Settings) {
        let (webhooks, admin) = (settings.webhooks.listen, settings.admin.listen);
        let mut tcp = vec![("webhooks.listen".to_owned(), webhooks), ("admin.listen".to_owned(), admin)];
        tcp.extend(settings.relay.enabled.then(|| ("relay.listen".to_owned(), settings.relay.listen)));
        let mut udp = Vec::new();
        for (index, jenkins) in settings.jenkins.iter().enumerate() {
            tcp.extend(jenkins.tcp_listen.map(|listen| (format!("jenkins[{index}].tcp_listen"), listen)));
            udp.extend(jenkins.udp_listen.map(|listen| (format!("jenkins[{index}].udp_listen"), listen)));
        }
        self.collisions(&tcp);
        self.collisions(&udp);
        match settings.admin.access() {
            Access::Open => self.warn(format!(
                "`admin.auth` is \"none\": everybody who reaches {admin} reads and changes what recoverd knows"
            )),
            Access::LoopbackOnly if !admin.ip().is_loopback() => {
                let whom = if admin.ip().is_unspecified() { "this host alone" } else { "nobody" };
                self.warn(format!(
                    "`admin.listen` is {admin} but there is no token: metrics and the API answer {whom}; set \
                     `admin.tokens_file`"
                ));
            }
            _ => {}
        }
    }

    fn collisions(&mut self, listeners: &[(String, SocketAddr)]) {
        for (index, (key, address)) in listeners.iter().enumerate() {
            if let Some((other, _)) = listeners.iter().take(index).find(|(_, other)| overlap(*address, *other)) {
                let other = plain(other);
                self.wrong(key, &format!("{address} is taken by `{other}`; choose another port"));
            }
        }
    }

    fn datadog(&mut self, datadog: &mut DatadogSettings) {
        match datadog.dogstatsd.trim().parse::<AgentTarget>() {
            Ok(target) => {
                let mut agent = AgentSettings::new(target);
                match datadog.max_datagram_bytes.map(DatagramLimit::parse) {
                    Some(Ok(limit)) => agent.limit = limit,
                    Some(Err(error)) => self.wrong("datadog.max_datagram_bytes", &error.to_string()),
                    None => {}
                }
                self.checked.agent = Some(agent);
            }
            Err(error) => self.wrong("datadog.dogstatsd", &error.to_string()),
        }
        datadog.dogstatsd = datadog.dogstatsd.trim().to_owned();
        datadog.site = datadog.site.trim().to_ascii_lowercase();
        let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if datadog.site.is_empty() || !datadog.site.chars().all(in_a_name) {
            self.wrong(
                "datadog.site",
                "is not the name of a site; write one such as datadoghq.com or us5.datadoghq.com",
            );
        }
        if let Some(raw) = &datadog.url {
            match normalise(raw, "https://api.datadoghq.com/") {
                Ok(url) => datadog.url = Some(url),
                Err(why) => self.wrong("datadog.url", &why),
            }
        }
        if datadog.api_key.as_ref().is_some_and(|key| !key.expose().bytes().all(|byte| byte.is_ascii_graphic())) {
            let why = "an API key has printable ASCII characters and no spaces; copy it as Datadog shows it";
            self.wrong("datadog.api_key", why);
        }
        self.within("datadog.resend_interval", datadog.resend_interval, &DatadogSettings::RESEND, span::show);
    }

    fn dsn(&mut self, settings: &Settings) {
        let Some(dsn) = &settings.sentry.dsn else { return };
        let dsn = match dsn.expose().trim().parse::<Dsn>() {
            Ok(dsn) => dsn,
            Err(error) => {
                let why = match error {
                    // The parser knows no more than that.
                    ParseDsnError::InvalidUrl => String::new(),
                    error => format!(" ({error})"),
                };
                let why = format!(
                    "not a DSN{why}; write https://KEY@HOST/PROJECT, as Sentry shows it among the project's client keys"
                );
                return self.wrong("sentry.dsn", &why);
            }
        };
        for (key, listen) in [("webhooks.listen", settings.webhooks.listen), ("admin.listen", settings.admin.listen)] {
            if listen.port() == dsn.port() && is_ours(dsn.host(), listen) {
                self.wrong(
                    "sentry.dsn",
                    &format!("leads back to recoverd's own `{key}`, {listen}; name Sentry's host"),
                );
            }
        }
    }

    fn log(&mut self, level: &str) {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let word = level.trim();
        // A lone word that is no level would be read as the name of a module, and all else fall silent.
        let is_word = !word.contains([',', '=', ':', '[']);
        if word.is_empty() || (is_word && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))) {
            let hint = nearest(word, LEVELS.into_iter()).map(|level| format!("; did you mean \"{level}\"?"));
            let hint = hint.unwrap_or_else(|| format!("; write one of {}", LEVELS.join(", ")));
            self.wrong("log.level", &format!("{word:?} is not a level{hint}"));
        } else if let Err(error) = tracing_subscriber::EnvFilter::try_new(word) {
            self.wrong("log.level", &format!("{word:?} cannot be read: {error}"));
        }
    }

    fn tags(&mut self, path: &str, raw: &[String]) -> Vec<Tag> {
        let mut tags = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let tag = Tag::parse(raw);
            let key = tag.key.to_lowercase();
            if key.is_empty() {
                self.wrong(&path, &format!("{raw:?} is not a tag; write key:value"));
            } else if key == "host" {
                self.wrong(
                    &path,
                    "a tag named host would move the check to that host and split its group; choose another name",
                );
            } else if tag::OF_JOBS.contains(&key.as_str()) {
                self.wrong(&path, &format!("recoverd sets the tag {key} itself; choose another name"));
            } else if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        tags
    }

    fn globs(&mut self, path: &str, patterns: &[String]) -> Globs {
        Globs::parse(patterns).unwrap_or_else(|error| {
            self.wrong(path, &error.to_string());
            Globs::default()
        })
    }

    fn jenkins(&mut self, path: &str, jenkins: &mut JenkinsSettings, common: &[Tag]) {
        let name = match ControllerName::parse(&jenkins.name) {
            Ok(name) => name,
            Err(error) => return self.wrong(&format!("{path}.name"), &error.to_string()),
        };
        let same = |other: &&Controller| other.name.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(other) = self.checked.controllers.iter().find(same) {
            let why = if other.name == name { "" } else { ", but for case, which Datadog ignores" };
            let other = other.name.clone();
            self.wrong(&format!("{path}.name"), &format!("another controller is called {other}{why}; rename one"));
        }
        if jenkins.auth == Auth::None {
            self.warn(format!(
                "controller {name}: `auth` is \"none\", so everybody who reaches the port sets its jobs"
            ));
        } else if jenkins.tokens.is_empty() && jenkins.tokens_file.is_none() && jenkins.api_token.is_none() {
            self.wrong(
                &format!("{path}.tokens"),
                &format!(
                    "controller {name} has no token, so nobody could report its builds; set `tokens` or `tokens_file`, \
                     or `auth = \"none\"` to believe everybody"
                ),
            );
        }
        self.raw(path, jenkins);
        if let Some(raw) = &jenkins.url {
            match normalise(raw, "https://jenkins.example.com/") {
                Ok(url) => jenkins.url = Some(url),
                Err(why) => self.wrong(&format!("{path}.url"), &why),
            }
        }
        let mut tags = common.to_vec();
        for tag in self.tags(&format!("{path}.tags"), &jenkins.tags) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        let mut rules = ControllerRules::default();
        rules.url = jenkins.url.as_deref().map(Into::into);
        rules.tags = tags;
        rules.folders = self.globs(&format!("{path}.folders"), &jenkins.folders);
        rules.multibranch = self.globs(&format!("{path}.multibranch"), &jenkins.multibranch);
        rules.include = self.globs(&format!("{path}.include"), &jenkins.include);
        rules.exclude = self.globs(&format!("{path}.exclude"), &jenkins.exclude);
        for (index, rule) in jenkins.rules.iter().enumerate() {
            let path = format!("{path}.rules[{index}]");
            let policy = self.policy(&path, rule);
            if let Err(error) = rules.add_rule(&rule.jobs, policy) {
                self.wrong(&format!("{path}.jobs"), &error.to_string());
            }
        }
        let access = match Access::of(jenkins.auth, &jenkins.tokens) {
            // It is asked, and need not report: then nobody may in its name.
            Access::LoopbackOnly => Access::Tokens(Vec::new()),
            access => access,
        };
        let api = self.api(path, jenkins);
        let poll_interval = Some(jenkins.poll_interval).filter(|interval| !interval.is_zero());
        if let Some(interval) = poll_interval {
            self.within(&format!("{path}.poll_interval"), interval, &JenkinsSettings::POLL, span::show);
        }
        self.checked.rulebook.add(name.clone(), rules);
        let (tcp, udp) = (jenkins.tcp_listen, jenkins.udp_listen);
        self.checked.controllers.push(Controller { name, access, api, poll_interval, tcp, udp });
    }

    /// What comes raw brings no token.
    fn raw(&mut self, path: &str, jenkins: &JenkinsSettings) {
        for (key, listen) in [("tcp_listen", jenkins.tcp_listen), ("udp_listen", jenkins.udp_listen)] {
            let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) else { continue };
            if jenkins.auth == Auth::None {
                self.warn(format!(
                    "controller {}: `{key}` is {listen}, so everybody who reaches it sets its jobs",
                    jenkins.name
                ));
            } else {
                let why = format!(
                    "whoever reaches {listen} needs no token there; listen on 127.0.0.1, or set `auth = \"none\"` to believe \
                     everybody"
                );
                self.wrong(&format!("{path}.{key}"), &why);
            }
        }
    }

    fn api(&mut self, path: &str, jenkins: &mut JenkinsSettings) -> Option<RestSettings> {
        jenkins.user.take_if(|user| user.trim().is_empty());
        let (user, api_token) = match (&jenkins.user, &jenkins.api_token) {
            (None, None) => return None,
            (Some(user), Some(token)) => (user.trim().to_owned(), token),
            (Some(_), None) => {
                let why = "has no API token; set `api_token` or `api_token_file`, or remove it";
                self.wrong(&format!("{path}.user"), why);
                return None;
            }
            (None, Some(_)) => {
                self.wrong(&format!("{path}.api_token"), "belongs to a user of Jenkins; set `user`");
                return None;
            }
        };
        if user.contains(':') || user.chars().any(char::is_control) {
            self.wrong(&format!("{path}.user"), "has a colon or a control character, which no user's id has");
        }
        if !api_token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "an API token has printable ASCII characters and no spaces; copy it as Jenkins shows it";
            self.wrong(&format!("{path}.api_token"), why);
        }
        let Some(url) = &jenkins.url else {
            self.wrong(&format!("{path}.api_token"), "is of no use without Jenkins' address; set `url`");
            return None;
        };
        // What is wrong with it has been said.
        let url = Url::parse(url).ok()?;
        if url.scheme() == "http" && !url.host_str().is_some_and(is_this_host) {
            let why = "goes over the network unencrypted, as `url` begins with http://; use https://";
            let warning = self.layers.named(&format!("{path}.api_token"), why);
            self.warn(warning);
        }
        let credentials = Some(Credentials { user, api_token: api_token.to_secret_string() });
        Some(RestSettings { credentials, ..RestSettings::new(url) })
    }

    fn policy(&mut self, path: &str, rule: &RuleSettings) -> Policy {
        let branches = self.globs(&format!("{path}.branches"), &rule.branches);
        let mut results = Vec::with_capacity(rule.results.len());
        for (word, verdict) in &rule.results {
            let path = format!("{path}.results.{word}");
            let outcome = Outcome::read(word);
            if outcome == Outcome::Unknown {
                let known = || Outcome::ALL.into_iter().filter(|known| *known != Outcome::Unknown).map(Outcome::as_str);
                let hint = nearest(&word.to_uppercase(), known()).map(|name| format!("; did you mean {name}?"));
                let hint = hint.unwrap_or_else(|| format!("; they are {}", known().collect::<Vec<_>>().join(", ")));
                self.wrong(&path, &format!("Jenkins has no such result{hint}"));
            } else if results.iter().any(|(known, _)| *known == outcome) {
                self.wrong(&path, "this result stands there twice; remove one");
            } else {
                results.push((outcome, *verdict));
            }
        }
        let branches = Some(branches).filter(|globs| !globs.is_empty());
        Policy { mode: rule.mode, branches, results, tags: self.tags(&format!("{path}.tags"), &rule.tags) }
    }

    /// Without any `[[jenkins]]`, a Jenkins on this host can be tried out at once, and nobody else gets in.
    fn nobody_configured(&mut self, settings: &Settings, tags: Vec<Tag>) {
        let Ok(name) = ControllerName::parse(Settings::DEFAULT_CONTROLLER) else { return };
        let mut rules = ControllerRules::default();
        rules.tags = tags;
        self.checked.rulebook.add(name.clone(), rules);
        let access = Access::LoopbackOnly;
        let controller = Controller { name, access, api: None, poll_interval: None, tcp: None, udp: None };
        self.checked.controllers.push(controller);
        let listen = settings.webhooks.listen;
        // Where there is a Sentry, it is what is listened for.
        if !listen.ip().is_loopback() && settings.sentry.integrations.is_empty() {
            let whose = if listen.ip().is_unspecified() { "webhooks from other hosts" } else { "all webhooks" };
            self.warn(format!(
                "`webhooks.listen` is {listen} but there is no [[jenkins]]: {whose} are refused; add one with a name and \
                 tokens"
            ));
        }
    }
}

/// Whether only one of the two can be had.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same
}

fn count(value: usize) -> String {
    value.to_string()
}

/// The address with a slash at its end. `such_as` is shown to whoever writes something else.
fn normalise(raw: &str, such_as: &str) -> Result<String, String> {
    // What stands before an @ may be a password, and what follows the path a key.
    let shown = if raw.contains(['@', '?', '#']) { "it".to_owned() } else { format!("{raw:?}") };
    let whole = format!("write it whole, such as {such_as}");
    let no_address = || format!("{shown} does not start with http:// or https:// and a host; {whole}");
    let mut url = Url::parse(raw.trim()).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => no_address(),
        error => format!("{shown} is not an address ({error}); {whole}"),
    })?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(no_address());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which would show in every tag and link; remove it".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        let what = if url.query().is_some() { "query, from its `?` on" } else { "fragment, from its `#` on" };
        return Err(format!("has a {what}; leave only the address, such as {such_as}"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url.into())
}

/// Whether a host, by its name alone, is where `listen` accepts.
fn is_ours(host: &str, listen: SocketAddr) -> bool {
    address(host).is_some_and(|address| {
        let local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        address == listen.ip() || (local(address) && local(listen.ip()))
    })
}

fn is_this_host(host: &str) -> bool {
    address(host).is_some_and(|address| address.is_loopback())
}

/// The address that a host's name is, if it needs no looking up.
fn address(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().ok().map(|address: IpAddr| address.to_canonical())
}
