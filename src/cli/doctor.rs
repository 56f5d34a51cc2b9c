//! `recoverd doctor`: looks at everything that recoverd stands between, and says what is wrong and what to do.

mod asking;
mod doors;
mod finding;
mod jenkins;
mod others;
mod relay;
mod sentry;
mod store;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Serialize;
use tokio::task::{Id, JoinError, JoinSet};

use super::{Exit, block_on, progress, table};
use crate::config::{ConfigError, Environment, Settings};
use crate::kubernetes::downward;
use finding::{Finding, Verdict};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Nothing has failed.
    ok: bool,
    findings: Vec<Finding>,
}

/// No check takes longer; each has shorter limits of its own.
const PATIENCE: Duration = Duration::from_secs(30);

impl Doctor {
    pub(super) fn run(
        &self,
        outcome: Result<Settings, ConfigError>,
        environment: &Environment,
    ) -> anyhow::Result<Exit> {
        let settings = match outcome {
            Ok(settings) => settings,
            Err(error) => {
                let wrong = |line: &String| Finding::failed("settings", line.as_str(), "");
                self.print(error.lines().iter().map(wrong).collect());
                return Ok(Exit::Usage);
            }
        };
        let node = downward::from_environment(environment).node;
        let findings = block_on(examine(settings, node))?;
        let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
        self.print(findings);
        Ok(if failed { Exit::Failure } else { Exit::Success })
    }

    fn print(&self, findings: Vec<Finding>) {
        let count = |of: Verdict| findings.iter().filter(|finding| finding.verdict == of).count();
        let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
        if self.json {
            let report = Report { ok: failed == 0, findings };
            println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            return;
        }
        let rows: Vec<Vec<String>> = findings.iter().flat_map(Finding::rows).collect();
        table::print(&["verdict", "check", "found"], &rows, |column, cell| match (column, cell.trim_end()) {
            (0, "ok") => AnsiColor::Green.on_default(),
            (0, "warning") => AnsiColor::Yellow.on_default(),
            (0, "FAILED") => AnsiColor::Red.on_default().bold(),
            (0, "skipped") => Style::new().dimmed(),
            _ => Style::new(),
        });
        println!("{}", summary(failed, warnings));
    }
}

fn summary(failed: usize, warnings: usize) -> String {
    match (failed, warnings) {
        (0, 0) => "all is well".to_owned(),
        (0, 1) => "nothing failed, 1 warning".to_owned(),
        (0, warnings) => format!("nothing failed, {warnings} warnings"),
        (failed, 0) => format!("{failed} failed"),
        (failed, 1) => format!("{failed} failed, 1 warning"),
        (failed, warnings) => format!("{failed} failed, {warnings} warnings"),
    }
}

/// All checks at once; their findings in a fixed order.
async fn examine(settings: Settings, node: Option<String>) -> Vec<Finding> {
    begin(&Arc::new(settings), node).end().await
}

fn begin(settings: &Arc<Settings>, node: Option<String>) -> Checks {
    let mut checks = Checks { running: JoinSet::new(), begun: Vec::new() };
    let of_settings = of_settings(settings);
    checks.begin("settings", async { of_settings });
    checks.begin("store", store::look(settings.data_dir.clone()));
    checks.begin("recoverd", others::recoverd(settings.clone()));
    for controller in settings.controllers() {
        let (asked, settings) = (controller.clone(), settings.clone());
        checks.begin("jenkins", async move { jenkins::examine(&asked).await });
        let controller = controller.clone();
        checks.begin("webhooks", async move { vec![doors::of_controller(&settings, &controller).await] });
    }
    checks.begin("agent", others::agent(settings.clone()));
    checks.begin("datadog key", others::datadog_key(settings.clone()));
    checks.begin("sentry", others::sentry(settings.clone()));
    for integration in settings.integrations() {
        let (asked, settings) = (integration.clone(), settings.clone());
        checks.begin("sentry", async move { vec![sentry::integration(&asked).await] });
        let integration = integration.clone();
        checks.begin("sentry webhooks", async move { vec![doors::of_integration(&settings, &integration).await] });
    }
    if settings.relay().is_some() {
        checks.begin("relay", doors::of_relay(settings.clone()));
        checks.begin("relay", relay::upstreams(settings.clone()));
        checks.begin("relay spool", relay::spools(settings.clone()));
        checks.begin("relay pods", relay::pods(settings.clone(), node));
    }
    checks
}

fn of_settings(settings: &Settings) -> Vec<Finding> {
    match settings.warnings() {
        [] => vec![Finding::ok("settings", "they are good")],
        warnings => warnings.iter().map(|warning| Finding::warning("settings", warning, "")).collect(),
    }
}

/// What a thread has found. Nobody aborts one, so that it fails by a panic alone, which then is the check's.
fn whole<T>(looked: Result<T, JoinError>) -> T {
    looked.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

struct Checks {
    running: JoinSet<Vec<Finding>>,
    /// In the order in which they are told.
    begun: Vec<(Id, &'static str)>,
}

impl Checks {
    fn begin(&mut self, name: &'static str, check: impl Future<Output = Vec<Finding>> + Send + 'static) {
        let begun = self.running.spawn(async move {
            tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(|_| {
                let found = format!("it had no result after {} s", PATIENCE.as_secs());
                vec![Finding::failed(
                    name,
                    found,
                    "see whether this machine is overloaded, or its disk or network hangs",
                )]
            })
        });
        self.begun.push((begun.id(), name));
    }

    async fn end(mut self) -> Vec<Finding> {
        let progress = progress::bar(self.begun.len(), "checks");
        let mut done = HashMap::with_capacity(self.begun.len());
        while let Some(check) = self.running.join_next_with_id().await {
            // One that panicked leaves nothing, and the panic has told why.
            done.extend(check);
            progress.inc(1);
        }
        progress.finish_and_clear();
        let of = |(id, name)| done.remove(&id).unwrap_or_else(|| vec![broken_off(name)]);
        self.begun.into_iter().flat_map(of).collect()
    }
}

fn broken_off(name: &str) -> Finding {
    Finding::failed(
        name,
        "this check broke off, by a fault of recoverd's own",
        "report it, with what standard error says above",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_breaks_off_has_failed() {
        let mut checks = Checks { running: JoinSet::new(), begun: Vec::new() };
        checks.begin("one", async { vec![Finding::ok("one", "it is good")] });
        checks.begin("two", async { panic!("on purpose") });
        checks.begin("three", async { vec![Finding::ok("three", "so is this")] });
        let found = checks.end().await;
        let verdicts: Vec<_> = found.iter().map(|finding| (finding.check.as_str(), finding.verdict)).collect();
        assert_eq!(verdicts, [("one", Verdict::Ok), ("two", Verdict::Failed), ("three", Verdict::Ok)]);
    }

    #[tokio::test]
    async fn a_slow_jenkins_or_sentry_takes_nobody_elses_time() {
        let text = "[[sentry.integrations]]\nname = \"acme\"\nauth = \"none\"\n[[jenkins]]\nname = \"main\"\nauth = \"none\"\n";
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), text).unwrap();
        let settings = Settings::load(Some(file.path()), &Environment::default()).unwrap();
        let begun = begin(&Arc::new(settings), None).begun;
        let names: Vec<_> = begun.into_iter().map(|(_, name)| name).collect();
        for each in ["jenkins", "webhooks", "sentry", "sentry webhooks"] {
            assert!(names.contains(&each), "{each} has no patience of its own: {names:?}");
        }
    }
}
