//! What a build's end tells of its branch's past. Pure.

use std::time::Duration;

use crate::domain::history::{Build, History};
use crate::domain::rules::Policy;
use crate::domain::status::Status;

/// What a build's end tells of its branch's past. Each is measured between creations, as Datadog's plugin does
/// (`DatadogBuildListener`), but over decisive builds only: an aborted build neither breaks nor repairs anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// A good build's, since the first bad one before it.
    pub recovered_after: Option<Duration>,
    /// A bad build's, since the last good one.
    pub failed_after: Option<Duration>,
    /// A good build's duration, with the trouble before it.
    pub lead: Option<Duration>,
    /// Between the ends of a good build and the good one before.
    pub cycle: Option<Duration>,
    /// A bad build's duration.
    pub feedback: Option<Duration>,
}

impl Timings {
    /// Those of `build`, which has just ended.
    pub(super) fn measure(history: &History, build: &Build, policy: &Policy) -> Self {
        let verdict = |build: &Build| policy.verdict(build.progress.outcome()?).status();
        let Some(status) = verdict(build) else { return Timings::default() };
        let is_good = |status: Status| status == Status::Ok;
        let mut before = history
            .builds()
            .iter()
            .skip_while(|other| *other != build)
            .skip(1)
            .filter_map(|other| Some((other, is_good(verdict(other)?))))
            .peekable();
        let since =
            |other: &Build| Some(build.created.latest.since(other.created.latest)).filter(|time| !time.is_zero());
        if !is_good(status) {
            let last_good = before.find(|(_, good)| *good).map(|(other, _)| other);
            return Timings { failed_after: last_good.and_then(since), feedback: build.duration, ..Timings::default() };
        }
        let mut trouble_began = None;
        while let Some((other, _)) = before.next_if(|(_, good)| !good) {
            trouble_began = Some(other);
        }
        let recovered_after = trouble_began.and_then(since);
        let last_good = before.next().and_then(|(other, _)| other.ended());
        Timings {
            recovered_after,
            lead: build.duration.map(|duration| duration.saturating_add(recovered_after.unwrap_or_default())),
            cycle: build.ended().zip(last_good).map(|(end, before)| end.since(before)).filter(|time| !time.is_zero()),
            ..Timings::default()
        }
    }
}
