//! `recoverd replay FILE…`: posts saved documents as Jenkins would.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anstream::{eprintln, println};
use anyhow::Context as _;
use clap::Args;
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::admin_api::{client, detail, reachable, read_token};
use super::table::harmless;
use super::{Exit, Misuse, block_on, progress};
use crate::config::{Secret, Settings};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Documents, one a file; `-` reads one from standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose documents they are; without it the only Jenkins in the settings.
    #[arg(long, value_name = "NAME")]
    controller: Option<String>,
    /// Address of the webhook listener; without it the one in the settings.
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// A file that holds the controller's token; without it the first one in the settings.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// One JSON object a line for each document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    file: String,
    /// The HTTP status; absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// What became of it, or why it was refused.
    result: String,
    #[serde(skip)]
    accepted: bool,
}

impl Replay {
    pub(super) fn run(self, settings: &Settings) -> anyhow::Result<Exit> {
        block_on(self.post_all(settings))?
    }

    async fn post_all(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let controllers = settings.controllers();
        let controller = match (&self.controller, controllers) {
            (Some(name), _) => name.clone(),
            (None, [only]) => only.name.to_string(),
            (None, _) => {
                let why = "there are several controllers in the settings: say which with --controller";
                return Err(Misuse(why.to_owned()).into());
            }
        };
        let token = if let Some(file) = &self.token_file {
            Some(read_token(file)?)
        } else {
            let configured = settings.jenkins.iter().find(|jenkins| jenkins.name == controller);
            configured.and_then(|jenkins| jenkins.tokens.first()).map(Secret::to_secret_string)
        };
        let mut url = match &self.url {
            Some(url) => url.clone(),
            None => Url::parse(&format!("http://{}/", reachable(settings.webhooks.listen)))?,
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["jenkins", &controller]);
        } else {
            return Err(Misuse("--url is no address of a webhook listener".to_owned()).into());
        }
        let client = client(&url)?;
        let progress = progress::bar(self.files.len(), "documents");
        let mut refused = 0_usize;
        for file in &self.files {
            let outcome = match read(file) {
                Ok(body) => {
                    let mut request = client.post(url.clone()).body(body);
                    if let Some(token) = &token {
                        request = request.bearer_auth(token.expose_secret());
                    }
                    outcome(file, &controller, request.send().await).await
                }
                Err(error) => {
                    Outcome { file: shown(file), status: None, result: format!("{error:#}"), accepted: false }
                }
            };
            refused += usize::from(!outcome.accepted);
            progress.suspend(|| self.print(&outcome));
            progress.inc(1);
        }
        progress.finish_and_clear();
        if refused > 0 {
            eprintln!("{refused} of {} were not accepted", self.files.len());
            return Ok(Exit::Failure);
        }
        Ok(Exit::Success)
    }

    fn print(&self, outcome: &Outcome) {
        if self.json {
            println!("{}", serde_json::to_string(outcome).unwrap_or_default());
        } else {
            println!("{}: {}", outcome.file, outcome.result);
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).context("cannot be read")?;
        return Ok(body);
    }
    std::fs::read(file).context("cannot be read")
}

/// A file's name, as the terminal may have it.
fn shown(file: &Path) -> String {
    harmless(&file.to_string_lossy())
}

async fn outcome(file: &Path, controller: &str, sent: Result<reqwest::Response, reqwest::Error>) -> Outcome {
    let file = shown(file);
    match sent {
        Ok(response) if response.status().is_success() => {
            let status = Some(response.status().as_u16());
            let body: serde_json::Value = response.json().await.unwrap_or_default();
            let result = body.get("result").and_then(serde_json::Value::as_str).unwrap_or("accepted");
            Outcome { file, status, result: harmless(result), accepted: true }
        }
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            let status = response.status();
            let controller = harmless(controller);
            let result =
                format!("refused with {status}: this recoverd has no controller {controller}, see --controller");
            Outcome { file, status: Some(status.as_u16()), result, accepted: false }
        }
        Ok(response) => {
            let status = response.status();
            let result = format!("refused with {status}: {}", detail(response).await);
            Outcome { file, status: Some(status.as_u16()), result, accepted: false }
        }
        Err(error) => {
            let error = error.without_url();
            let result = format!("no answer: {error}; is `recoverd serve` running there?");
            Outcome { file, status: None, result, accepted: false }
        }
    }
}
