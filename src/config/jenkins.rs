//! `[[jenkins]]`: the controllers and what counts of their jobs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Auth;
use super::listen;
use super::secret::Secret;
use super::span;
use crate::domain::rules::Mode;
use crate::domain::status::Verdict;

/// One Jenkins. Who changes it: everybody; without any, only this host can report builds, as controller `default`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct JenkinsSettings {
    /// Its name in the webhook's address, in the tag `controller` and as the checks' host. 1 to 64 of a-z, A-Z, 0-9, `_`,
    /// `.`, `-`. Two that differ by case alone are refused, since Datadog would mix their jobs.
    pub name: String,
    /// Its address, with the context path: for the tag `jenkins_url`, for links, and with `api_token` for asking it.
    /// Default: none. A slash is added at the end.
    #[serde(default)]
    pub url: Option<String>,
    /// Secrets that its webhooks bring; any of them does, so that one can be replaced at leisure. Default: none.
    /// Fewer than 16 characters are warned of.
    #[serde(default)]
    pub tokens: Vec<Secret>,
    /// File of further tokens, one a line. Default: none.
    #[serde(default)]
    pub tokens_file: Option<PathBuf>,
    /// The user that `api_token` belongs to. Default: none. Needs Overall/Read and Job/Read and no more.
    #[serde(default)]
    pub user: Option<String>,
    /// API token by which Jenkins is asked for what webhooks do not tell. Default: none, and Jenkins is asked nothing. With
    /// one, `tokens` may be left out: webhooks are then refused. Who changes it: whoever replaces it in Jenkins.
    #[serde(default)]
    pub api_token: Option<Secret>,
    /// File that holds the API token. Default: none.
    #[serde(default)]
    pub api_token_file: Option<PathBuf>,
    /// Time between two looks at all jobs. Default: 60s. From 1s to 1d; 0 is never. Raise it where Jenkins takes long to
    /// answer.
    #[serde(default = "JenkinsSettings::default_poll_interval", with = "span")]
    pub poll_interval: Duration,
    /// `none` believes everybody who reaches the address. Default: `token`.
    #[serde(default)]
    pub auth: Auth,
    /// Address for documents as raw TCP, one a connection. Default: none, and off. It carries no token, so that any other
    /// address than a loopback one is refused unless `auth` is `none`. Who changes it: whoever has endpoints of protocol TCP.
    #[serde(default, deserialize_with = "listen::optional")]
    pub tcp_listen: Option<SocketAddr>,
    /// The same for UDP, one document a datagram.
    #[serde(default, deserialize_with = "listen::optional")]
    pub udp_listen: Option<SocketAddr>,
    /// Globs of projects whose children are branches. Default: none, and what the webhook says decides.
    #[serde(default)]
    pub multibranch: Vec<String>,
    /// Globs of folders whose children are jobs, for where a job called like the branch that it builds makes its folder
    /// look like a project. Wins over `multibranch`. Default: none.
    #[serde(default)]
    pub folders: Vec<String>,
    /// Globs of the jobs that count. Default: none, for all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Globs of jobs that do not count, even if included. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Tags, `key:value`, on every check, metric and event of this controller. Default: none.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What holds for some jobs; the first that matches decides. Default: none.
    #[serde(default)]
    pub rules: Vec<RuleSettings>,
}

/// One `[[jenkins.rules]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RuleSettings {
    /// Glob of the jobs that it is about: `acme/web`, `acme/*` (one level), `acme/**` (all below).
    pub jobs: String,
    /// Globs of the branches that count. Default: none, for all.
    #[serde(default)]
    pub branches: Vec<String>,
    /// `latest`: the most recently created decisive build of any counted branch. `worst`: the worst of the branches.
    /// Default: `latest`.
    #[serde(default, with = "ModeName")]
    pub mode: Mode,
    /// What a result means for the status: `ok`, `warning`, `critical`, or `hold` to leave it as it is. Default: UNSTABLE
    /// is warning, FAILURE critical, ABORTED and `NOT_BUILT` hold.
    #[serde(default)]
    pub results: BTreeMap<String, Verdict>,
    /// Tags, `key:value`, on everything of these jobs. Default: none.
    #[serde(default)]
    pub tags: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Mode", rename_all = "lowercase")]
enum ModeName {
    Latest,
    Worst,
}

impl JenkinsSettings {
    pub(super) const POLL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

    fn default_poll_interval() -> Duration {
        Duration::from_mins(1)
    }

    pub(super) fn template() -> Self {
        let one = || vec![String::new()];
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            name: String::new(),
            url: Some(String::new()),
            tokens: vec![Secret::new("")],
            tokens_file: Some(PathBuf::new()),
            user: Some(String::new()),
            api_token: Some(Secret::new("")),
            api_token_file: Some(PathBuf::new()),
            poll_interval: Self::default_poll_interval(),
            auth: Auth::Token,
            tcp_listen: Some(loopback),
            udp_listen: Some(loopback),
            multibranch: one(),
            folders: one(),
            include: one(),
            exclude: one(),
            tags: one(),
            rules: vec![RuleSettings {
                jobs: String::new(),
                branches: one(),
                mode: Mode::Latest,
                results: BTreeMap::new(),
                tags: one(),
            }],
        }
    }
}
