//! `[[sentry.integrations]]`, made ready for use.

use url::Url;

use super::{Checks, is_this_host, normalise};
use crate::config::access::Access;
use crate::config::secret::Secret;
use crate::config::{HookAuth, Integration, IntegrationSettings, span};
use crate::domain::sentry::IntegrationName;
use crate::domain::signal::Tag;
use crate::sentry::rest::RestSettings;

impl Checks<'_, '_> {
    pub(super) fn integration_secrets(&mut self, path: &str, integration: &mut IntegrationSettings) {
        let IntegrationSettings { secrets, secrets_file, tokens, tokens_file, api_token, api_token_file, .. } =
            integration;
        self.words(&format!("{path}.secrets"), "secret", secrets, secrets_file.as_deref());
        self.words(&format!("{path}.tokens"), "token", tokens, tokens_file.as_deref());
        self.secret(&format!("{path}.api_token"), api_token, api_token_file.as_deref());
    }

    /// `tags` are those of all that goes to Datadog.
    pub(super) fn integration(&mut self, path: &str, integration: &mut IntegrationSettings, tags: &[Tag]) {
        let name = match IntegrationName::parse(&integration.name) {
            Ok(name) => name,
            Err(error) => return self.wrong(&format!("{path}.name"), &error.to_string()),
        };
        let same = |other: &&Integration| other.name.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(other) = self.checked.integrations.iter().find(same) {
            let why = if other.name == name { "" } else { ", but for case, which Datadog ignores" };
            let other = other.name.clone();
            self.wrong(&format!("{path}.name"), &format!("another integration is called {other}{why}; rename one"));
        }
        let access = self.hook_access(path, &name, integration);
        if let Some(raw) = &integration.url {
            match normalise(raw, "https://sentry.io/") {
                Ok(url) => integration.url = Some(url),
                Err(why) => self.wrong(&format!("{path}.url"), &why),
            }
        }
        let api = self.sentry_api(path, integration);
        let poll_interval = Some(integration.poll_interval).filter(|interval| !interval.is_zero());
        if let Some(interval) = poll_interval {
            self.within(&format!("{path}.poll_interval"), interval, &IntegrationSettings::POLL, span::show);
        }
        let secrets = integration.secrets.iter().map(Secret::to_secret_string).collect();
        self.checked.rulebook.add_integration(name.clone(), tags.to_vec());
        self.checked.integrations.push(Integration { name, secrets, access, api, poll_interval });
    }

    fn hook_access(&mut self, path: &str, name: &IntegrationName, integration: &IntegrationSettings) -> Access {
        let IntegrationSettings { secrets, secrets_file, tokens, tokens_file, api_token, auth, .. } = integration;
        let has_files = secrets_file.is_some() || tokens_file.is_some();
        let has_words = !secrets.is_empty() || !tokens.is_empty();
        if *auth == HookAuth::None {
            if has_words {
                let why = "\"none\" contradicts the secrets or tokens that are set; remove either";
                self.wrong(&format!("{path}.auth"), why);
            }
            self.warn(format!(
                "integration {name}: `auth` is \"none\", so everybody who reaches the port speaks for Sentry"
            ));
            return Access::Open;
        }
        // What is wrong with a file has been said.
        if !has_words && !has_files && api_token.is_none() {
            self.wrong(
                &format!("{path}.secrets"),
                &format!(
                    "integration {name} has no secret, so none of its webhooks could be believed; set `secrets` or \
                     `secrets_file` to its client secret, or `auth = \"none\"` to believe everybody"
                ),
            );
        }
        Access::Tokens(tokens.iter().map(Secret::to_secret_string).collect())
    }

    fn sentry_api(&mut self, path: &str, integration: &mut IntegrationSettings) -> Option<RestSettings> {
        integration.organization.take_if(|organization| organization.trim().is_empty());
        let organization = integration.organization.as_deref().map(str::trim);
        let in_a_slug = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if organization.is_some_and(|slug| slug.len() > 100 || !slug.chars().all(in_a_slug)) {
            let why = "is not an organization's slug; copy what stands for it in Sentry's addresses, such as acme";
            self.wrong(&format!("{path}.organization"), why);
        }
        let token = integration.api_token.as_ref()?;
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "a token has printable ASCII characters and no spaces; copy it as Sentry shows it";
            self.wrong(&format!("{path}.api_token"), why);
        }
        if organization.is_none() {
            self.wrong(&format!("{path}.api_token"), "is of no use without its organization; set `organization`");
        }
        if integration.url.is_none() {
            let why = "is of no use without Sentry's address; set `url`, such as https://sentry.io/";
            self.wrong(&format!("{path}.api_token"), why);
        }
        // What is wrong with it has been said.
        let url = Url::parse(integration.url.as_deref()?).ok()?;
        if url.scheme() == "http" && !url.host_str().is_some_and(is_this_host) {
            let why = "goes over the network unencrypted, as `url` begins with http://; use https://";
            let warning = self.layers.named(&format!("{path}.api_token"), why);
            self.warn(warning);
        }
        Some(RestSettings::new(url, organization?.to_owned(), token.to_secret_string()))
    }
}
