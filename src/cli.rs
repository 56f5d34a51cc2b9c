//! The commands, one file each. Only here and in `main` is an error a story for people instead of a type.

mod admin_api;
mod config;
mod demo;
mod doctor;
mod issues;
mod jobs;
mod progress;
mod replay;
mod serve;
mod table;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::eprintln;
use clap::{Parser, Subcommand};

use crate::config::{self as settings, ConfigError, Environment, Settings};

/// Makes Jenkins alerts in Datadog recover by themselves.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = "Try it: recoverd demo")]
pub struct Cli {
    /// The settings' file; without it `recoverd.toml` of this directory, if there is one.
    #[arg(long, global = true, value_name = "FILE", env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive webhooks and tell Datadog.
    #[command(after_help = "Example: recoverd serve --config /etc/recoverd/recoverd.toml")]
    Serve,
    /// See it work: the real server, a built-in Agent that prints what arrives, and a Jenkins day.
    #[command(after_help = "Example: recoverd demo --exit")]
    Demo(demo::Demo),
    /// Look at all that recoverd stands between, and say what is wrong and what to do. Exits with 1 if anything failed.
    #[command(after_help = "Example: recoverd doctor --config /etc/recoverd/recoverd.toml")]
    Doctor(doctor::Doctor),
    /// Post saved webhook documents to a running recoverd.
    #[command(after_help = "Example: recoverd replay --controller main saved/*.json")]
    Replay(replay::Replay),
    /// What is known of jobs, from a running recoverd.
    #[command(subcommand, after_help = "Example: recoverd jobs list --status critical")]
    Jobs(jobs::Jobs),
    /// What is known of Sentry's issues and metric alerts, from a running recoverd.
    #[command(subcommand, after_help = "Example: recoverd issues list --status critical")]
    Issues(issues::Issues),
    /// The settings that are in force.
    #[command(subcommand, after_help = "Example: recoverd config check --config recoverd.toml")]
    Config(config::Config),
}

/// A command's end, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// It ran, and the answer is bad, or something failed.
    Failure,
    /// It could not run as asked: the command line or the settings are wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Usage => Self::from(2),
        }
    }
}

/// Runs one command to its end. `environment` is the process's, read once by `main`.
pub fn run(cli: Cli, environment: &Environment) -> Exit {
    let outcome = Settings::load(cli.config.as_deref(), environment);
    let result = match (cli.command, outcome) {
        (Command::Demo(demo), _) => demo.run(),
        (Command::Config(config), outcome) => return config.run(outcome),
        (Command::Doctor(doctor), outcome) => doctor.run(outcome, environment),
        (_, Err(error)) => return refuse(&error),
        (Command::Serve, Ok(settings)) => serve::run(&settings, environment),
        (Command::Replay(replay), Ok(settings)) => replay.run(&settings),
        (Command::Jobs(jobs), Ok(settings)) => jobs.run(&settings),
        (Command::Issues(issues), Ok(settings)) => issues.run(&settings),
    };
    result.unwrap_or_else(|error| {
        eprintln!("recoverd: {error:#}");
        if error.is::<Misuse>() { Exit::Usage } else { Exit::Failure }
    })
}

/// The process's environment, once for all.
///
/// The DogStatsD client appends `DD_ENV`, `DD_SERVICE` and `DD_VERSION` as tags to all it sends: a version among them
/// would make a new check of every job with each rollout. A process cannot safely change its own environment, so where
/// one of them is set recoverd starts anew without it, as the same process.
///
/// # Errors
/// When that start fails.
pub fn environment() -> Result<Environment, Exit> {
    let mut environment = settings::environment();
    // The command line's, not a setting.
    environment.remove(CONFIG_VARIABLE);
    if !APPENDED_AS_TAGS.iter().any(|name| environment.contains_key(*name)) {
        return Ok(environment);
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "recoverd".into());
    let failed = std::env::current_exe().map_or_else(std::convert::identity, |program| {
        let mut command = std::process::Command::new(program);
        command.arg0(name).args(arguments);
        for name in APPENDED_AS_TAGS {
            command.env_remove(name);
        }
        command.exec()
    });
    eprintln!("recoverd: cannot start anew without {}: {failed}; unset them", APPENDED_AS_TAGS.join(", "));
    Err(Exit::Failure)
}

const CONFIG_VARIABLE: &str = "RECOVERD_CONFIG";
const APPENDED_AS_TAGS: [&str; 3] = ["DD_ENV", "DD_SERVICE", "DD_VERSION"];

fn refuse(error: &ConfigError) -> Exit {
    eprintln!("{error}");
    Exit::Usage
}

/// What no command line should say, though it can be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// For the commands that only ask or post. What was left to a thread, a look at a disk or for a name, may hang for good, and
/// is not waited for.
fn block_on<T>(story: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(story);
    runtime.shutdown_background();
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_thread_that_hangs_keeps_no_command_from_its_end() {
        let began = Instant::now();
        let end = block_on(async {
            // Longer than the test may take, and no longer, as its process waits for nobody.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(20)));
            7
        });
        assert_eq!(end.unwrap(), 7);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}
