//! Jenkins' remote access API: what a controller knows by itself, asked for with `tree` queries alone.
//!
//! Whatever answers is taken for hostile: every answer has a limit in size, items and time, nothing that it says is
//! fetched, and credentials go to the configured address and nowhere else.
//!
//! Jenkins gives these answers no `ETag` (`hudson.model.Api.setHeaders`), so there is no asking whether something has
//! changed: an item that says what it said before is told by its fingerprint, and need not be merged.

mod answer;
mod error;
mod items;
mod kind;
mod load;
mod tour;
mod who;

use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::build::BuildReport;
use crate::domain::job::JobPath;
use crate::domain::survey::Load;
use crate::machinery::answer::is_this_host;

use answer::Answer;
pub use error::{Fault, RestError};
pub use tour::Tour;
pub use who::Introduction;

/// Where a controller is, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// Its root, with the context path. A slash at the end is not needed.
    pub url: Url,
    /// `None` asks as whoever Jenkins takes for anonymous.
    pub credentials: Option<Credentials>,
    /// For one answer, from connecting to its last byte.
    pub patience: Duration,
    /// For a whole [`Tour`].
    pub tour_time: Duration,
}

impl RestSettings {
    /// Jenkins reads each build's file when it is asked for the first time after a start, which takes a while.
    const PATIENCE: Duration = Duration::from_mins(1);
    const TOUR_TIME: Duration = Duration::from_mins(15);

    pub fn new(url: Url) -> Self {
        Self { url, credentials: None, patience: Self::PATIENCE, tour_time: Self::TOUR_TIME }
    }
}

/// A user of Jenkins and its API token.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: String,
    pub api_token: SecretString,
}

/// One controller's API. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct RemoteApi {
    client: Client,
    settings: RestSettings,
}

impl RemoteApi {
    /// More hops than this are a loop.
    const REDIRECTS: usize = 5;
    const CONNECT_TIME: Duration = Duration::from_secs(10);

    /// Proxies are taken from the environment, but for a Jenkins on this very host.
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
            .redirect(Policy::custom(|attempt| {
                let from = attempt.previous().first().map(Url::origin);
                let stays = from == Some(attempt.url().origin()) && attempt.previous().len() <= Self::REDIRECTS;
                if stays { attempt.follow() } else { attempt.stop() }
            }))
            .connect_timeout(Self::CONNECT_TIME.min(settings.patience))
            .timeout(settings.patience);
        if is_this_host(&settings.url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| answer::not_sent(&settings.url, &error, settings.patience))?;
        Ok(Self { client, settings })
    }

    /// A walk over everything that this user may see, page by page.
    pub fn tour(&self) -> Tour<'_> {
        Tour::new(self)
    }

    /// The newest builds of one job, newest first, and the last of each result that decides something, however many
    /// aborted ones came after it.
    ///
    /// # Errors
    /// As every question; [`Fault::NotFound`] when there is no such job, or it is not ours to see.
    pub async fn builds(&self, job: &JobPath) -> Result<Vec<BuildReport>, RestError> {
        let answer = self.ask(job.as_str().split('/'), items::BUILDS).await?;
        items::builds(job, &answer.body).map_err(|fault| answer.refuse(fault))
    }

    /// How busy it is.
    ///
    /// # Errors
    /// As every question.
    pub async fn load(&self) -> Result<Load, RestError> {
        let queue = self.ask_at(&["queue"], load::QUEUE).await?;
        let computers = self.ask_at(&["computer"], load::COMPUTERS).await?;
        let mut load = load::computers(&computers.body).map_err(|fault| computers.refuse(fault))?;
        load.queue = load::queue(&queue.body).map_err(|fault| queue.refuse(fault))?;
        Ok(load)
    }

    /// Whom Jenkins takes us for, and which Jenkins it is. Asks for what every user may see.
    ///
    /// # Errors
    /// As every question.
    pub async fn introduce(&self) -> Result<Introduction, RestError> {
        let answer = self.ask_at(&["whoAmI"], who::TREE).await?;
        who::read(&answer).map_err(|fault| answer.refuse(fault))
    }

    /// Asks the item of these names, or the top level, for `tree`.
    async fn ask(&self, names: impl Iterator<Item = &str>, tree: &str) -> Result<Answer, RestError> {
        let below: Vec<&str> = names.flat_map(|name| ["job", name]).collect();
        self.ask_at(&below, tree).await
    }

    async fn ask_at(&self, below: &[&str], tree: &str) -> Result<Answer, RestError> {
        let mut url = self.settings.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Each is encoded once: a `%` in a branch's name as well, which Jenkins keeps encoded.
            segments.pop_if_empty().extend(below).extend(["api", "json"]);
        }
        url.query_pairs_mut().append_pair("tree", tree);
        let mut request = self.client.get(url.clone());
        if let Some(Credentials { user, api_token }) = &self.settings.credentials {
            request = request.basic_auth(user, Some(api_token.expose_secret()));
        }
        let patience = self.settings.patience;
        let sent = request.send().await.map_err(|error| answer::not_sent(&url, &error, patience))?;
        Answer::read(&url, sent, patience).await
    }
}
