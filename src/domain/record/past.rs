//! Records as earlier versions wrote them, to be read once and written anew. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Announced, Closed, Closing, JobRecord};
use crate::domain::build::{Created, Progress, Timestamp, Webhook};
use crate::domain::history::{Build, History};

/// Form 1, of versions that knew of builds by webhooks alone.
#[derive(Debug, Deserialize)]
pub struct First {
    branches: BTreeMap<String, FirstHistory>,
    announced: Option<Announced>,
    closed: Option<Closed>,
}

#[derive(Debug, Deserialize)]
struct FirstHistory {
    builds: Vec<FirstBuild>,
}

#[derive(Debug, Deserialize)]
struct FirstBuild {
    number: u64,
    created: Created,
    queued: Option<Timestamp>,
    duration: Option<Duration>,
    progress: Progress,
}

impl From<First> for JobRecord {
    fn from(First { branches, announced, closed }: First) -> Self {
        let branches = branches.into_iter().map(|(leaf, history)| (leaf, history.into())).collect();
        // When it was closed was not noted. That the last word of it was then is near enough.
        let at = announced.map_or(Timestamp::from_millis(0), |announced| announced.at);
        Self { branches, announced, closed: closed.map(|why| Closing { why, at }), unlisted: false }
    }
}

impl From<FirstHistory> for History {
    fn from(history: FirstHistory) -> Self {
        History::of_sorted(history.builds.into_iter().map(Build::from).collect())
    }
}

impl From<FirstBuild> for Build {
    fn from(FirstBuild { number, created, queued, duration, progress }: FirstBuild) -> Self {
        Self { number, created, queued, duration, progress, webhook: Webhook::Came, node: None }
    }
}
