//! Talks to a running recoverd's admin listener.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::Misuse;
use crate::config::{Secret, Settings};

/// Where the running recoverd is.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Address of the admin listener; without it the one in the settings.
    #[arg(long, value_name = "URL")]
    admin: Option<Url>,
    /// A file that holds an admin token, for another machine's recoverd; without it the first one in the settings.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) struct AdminApi {
    client: Client,
    root: Url,
    token: Option<SecretString>,
}

impl AdminArgs {
    pub(super) fn connect(&self, settings: &Settings) -> anyhow::Result<AdminApi> {
        let root = match &self.admin {
            Some(url) => url.clone(),
            None => Url::parse(&format!("http://{}/", reachable(settings.admin.listen)))?,
        };
        let token = match &self.token_file {
            Some(file) => Some(read_token(file)?),
            None => settings.admin.tokens.first().map(Secret::to_secret_string),
        };
        Ok(AdminApi { client: client(&root)?, root, token })
    }
}

impl AdminApi {
    /// `Ok(None)` when there is no such thing.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Option<Response>> {
        self.send(self.request(Method::GET, path, query)?).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> anyhow::Result<Option<Response>> {
        self.send(self.request(Method::DELETE, path, &[])?).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.root.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(["api", "v1"]).extend(path),
            Err(()) => return Err(Misuse(format!("{} is no address of an admin listener", self.root)).into()),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Option<Response>> {
        let unreachable = || format!("no recoverd answers at {}; is `recoverd serve` running there?", self.root);
        let response = request.send().await.map_err(reqwest::Error::without_url).with_context(unreachable)?;
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED if self.token.is_some() => bail!(
                "{} does not know this admin token: give one of its own with --token-file, or as the first of \
                 `admin.tokens`",
                self.root
            ),
            StatusCode::UNAUTHORIZED => {
                bail!("{} wants an admin token: give one with --token-file, or set `admin.tokens`", self.root)
            }
            status => bail!("{} answered {status}: {}", self.root, detail(response).await),
        }
    }
}

/// What a refusal says in its `detail`.
pub(super) async fn detail(response: Response) -> String {
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    super::table::harmless(body.get("detail").and_then(serde_json::Value::as_str).unwrap_or("no reason given"))
}

/// For requests to `root`. What is on this machine is asked directly, whatever proxy is set: it would see the tokens.
pub(super) fn client(root: &Url) -> anyhow::Result<Client> {
    let mut client = Client::builder().timeout(Duration::from_mins(1)).redirect(reqwest::redirect::Policy::none());
    let host = root.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()) {
        client = client.no_proxy();
    }
    Ok(client.build()?)
}

pub(super) fn read_token(file: &std::path::Path) -> anyhow::Result<SecretString> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| Misuse(format!("cannot read the token in {shown}")))?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    Ok(first.ok_or_else(|| Misuse(format!("{shown} holds no token")))?.to_owned().into())
}

/// A listener on every address is reached by the loopback's.
pub(super) fn reachable(mut listen: std::net::SocketAddr) -> std::net::SocketAddr {
    if listen.ip().is_unspecified() {
        let loopback: std::net::IpAddr =
            if listen.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        listen.set_ip(loopback);
    }
    listen
}
