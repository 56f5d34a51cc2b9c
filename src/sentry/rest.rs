//! Sentry's REST API: the issues and metric alerts of one organization that are open, and how one of them stands.
//!
//! Whatever answers is taken for hostile: every answer has a limit in size, items and time, a list one in pages. Of a
//! `Link` header the cursor alone is taken; no address that an answer names is asked, no redirect followed, and the token
//! goes to the configured address and nowhere else. One question is under way at a time, and Sentry's rate limits are kept.

mod answer;
mod error;
mod link;
mod pages;
mod shown;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::domain::build::Timestamp;
use crate::machinery::answer::is_this_host;
use crate::machinery::retry;

use answer::Answer;
pub use error::{Fault, RestError};
pub use pages::{Page, Pages};
pub use shown::{Incident, Issue, Project, Rule};

/// Which organization of which Sentry is asked, and as whom.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// Sentry's root. A slash at the end is not needed.
    pub url: Url,
    /// Its slug.
    pub organization: String,
    /// Of an internal integration, or of a user.
    pub api_token: SecretString,
    /// For one answer, from connecting to its last byte.
    pub patience: Duration,
    /// For a whole list, with all that it has to wait for rate limits.
    pub list_time: Duration,
}

impl RestSettings {
    const PATIENCE: Duration = Duration::from_secs(30);
    const LIST_TIME: Duration = Duration::from_mins(10);

    pub fn new(url: Url, organization: String, api_token: SecretString) -> Self {
        Self { url, organization, api_token, patience: Self::PATIENCE, list_time: Self::LIST_TIME }
    }
}

/// One organization's API. Cheap to clone; clones share connections and what is known of rate limits.
#[derive(Clone, Debug)]
pub struct RemoteApi {
    client: Client,
    settings: RestSettings,
    /// Until when the window of requests is used up.
    exhausted: Arc<Mutex<Option<Instant>>>,
}

/// An answer, and when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<T> {
    pub thing: T,
    /// By Sentry's clock, so that it stands in one order with what webhooks tell, and never too late: what the answer says
    /// was so then, or has become so since. `None` when Sentry does not say what time it is.
    pub asked: Option<Timestamp>,
}

/// How often a question is put again that came too soon.
const REPEATS: u32 = 3;
/// Longer than this no question waits for a rate limit; a whole look does.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
const FIRST_WAIT: Duration = Duration::from_secs(1);

impl RemoteApi {
    const CONNECT_TIME: Duration = Duration::from_secs(10);

    /// Proxies are taken from the environment, but for a Sentry on this very host.
    ///
    /// # Errors
    /// When the machine's certificates or the proxy's address cannot be read.
    pub fn new(settings: RestSettings) -> Result<Self, RestError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let mut client = Client::builder()
            .user_agent(concat!("recoverd/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(Policy::none())
            .connect_timeout(Self::CONNECT_TIME.min(settings.patience))
            .timeout(settings.patience);
        if is_this_host(&settings.url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| answer::not_sent(&settings.url, &error, settings.patience))?;
        Ok(Self { client, settings, exhausted: Arc::default() })
    }

    /// All unresolved issues that had an event within the last 90 days, Sentry's longest span, of every project that the
    /// token may see (`OrganizationGroupIndexEndpoint`).
    pub fn unresolved(&self) -> Pages<'_, Issue> {
        // -1 is every project; without it, those of the token's own teams.
        let query = [("query", "is:unresolved"), ("project", "-1"), ("sort", "date"), ("collapse", "stats")];
        Pages::new(self, "issues", &query, shown::issues)
    }

    /// All metric alerts that are not resolved (`OrganizationIncidentIndexEndpoint`; a Sentry that keeps them as open
    /// periods of issues answers here in the same words, `WorkflowEngineIncidentSerializer`).
    /// The token needs `project:read` or `org:read`; `alerts:read` is not enough (`IncidentPermission` in Sentry).
    pub fn open_incidents(&self) -> Pages<'_, Incident> {
        Pages::new(self, "incidents", &[("status", "open"), ("project", "-1")], shown::incidents)
    }

    /// One issue, whatever its status. One that was merged is answered with that which it was merged into, of another id.
    ///
    /// # Errors
    /// As every question; [`Fault::NotFound`] when there is no such issue, or it is not ours to see.
    pub async fn issue(&self, id: u64) -> Result<Dated<Issue>, RestError> {
        let answer = self.ask(&["issues", &id.to_string()], &[], self.deadline()).await?;
        let thing = shown::issue(&answer.body).map_err(|fault| answer.refuse(fault))?;
        Ok(Dated { thing, asked: answer.asked })
    }

    /// One metric alert's incident by its `identifier`, which counts within the organization.
    ///
    /// # Errors
    /// As of [`Self::issue`].
    pub async fn incident(&self, identifier: u64) -> Result<Dated<Incident>, RestError> {
        let answer = self.ask(&["incidents", &identifier.to_string()], &[], self.deadline()).await?;
        let thing = shown::incident(&answer.body).map_err(|fault| answer.refuse(fault))?;
        if thing.identifier != identifier {
            return Err(answer.refuse(Fault::Foreign { what: "the metric alert that was asked for" }));
        }
        Ok(Dated { thing, asked: answer.asked })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.list_time
    }

    /// Asks below the organization, as soon as rate limits allow.
    async fn ask(&self, below: &[&str], query: &[(&str, &str)], deadline: Instant) -> Result<Answer, RestError> {
        let mut url = self.settings.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let root = ["api", "0", "organizations", &self.settings.organization];
            // Without the slash at the end Sentry redirects.
            segments.pop_if_empty().extend(root).extend(below).push("");
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        timeout_at(deadline, self.insist(&url)).await.unwrap_or_else(|_| {
            let fault = Fault::Endless { after: self.settings.list_time };
            Err(RestError { at: crate::machinery::answer::address(&url), fault })
        })
    }

    async fn insist(&self, url: &Url) -> Result<Answer, RestError> {
        let mut refused = 0;
        loop {
            let exhausted = *self.exhausted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(until) = exhausted {
                sleep_until(until).await;
            }
            let error = match self.ask_once(url).await {
                Ok(answer) => {
                    *self.exhausted.lock().unwrap_or_else(PoisonError::into_inner) = answer.exhausted_until;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let Fault::RateLimited { retry_after } = error.fault else { return Err(error) };
            refused += 1;
            let wait = retry_after.unwrap_or_default().max(retry::backoff(FIRST_WAIT, LONGEST_WAIT, refused));
            if refused > REPEATS || wait > LONGEST_WAIT {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn ask_once(&self, url: &Url) -> Result<Answer, RestError> {
        let request = self.client.get(url.clone()).bearer_auth(self.settings.api_token.expose_secret());
        let patience = self.settings.patience;
        let sent = Instant::now();
        let response = request.send().await.map_err(|error| answer::not_sent(url, &error, patience))?;
        Answer::read(url, response, sent, patience).await
    }
}
