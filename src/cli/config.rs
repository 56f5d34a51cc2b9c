//! `recoverd config check|show`.

use anstream::{eprintln, println};
use clap::{Args, Subcommand};

use super::{Exit, refuse};
use crate::config::{ConfigError, Settings};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Read the settings and say what is wrong with them. Exits with 2 if anything is.
    #[command(after_help = "Example: recoverd config check --config recoverd.toml")]
    Check(Output),
    /// The settings in force, from the file, the environment and the defaults, without secrets.
    #[command(after_help = "Example: recoverd config show --json")]
    Show(Output),
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(super) fn run(self, outcome: Result<Settings, ConfigError>) -> Exit {
        match (self, outcome) {
            (Self::Check(Output { json: true }), Err(error)) => {
                println!("{}", serde_json::json!({ "ok": false, "error": error.to_string() }));
                Exit::Usage
            }
            (_, Err(error)) => refuse(&error),
            (Self::Check(Output { json }), Ok(settings)) => {
                let warnings = settings.warnings();
                if json {
                    println!("{}", serde_json::json!({ "ok": true, "warnings": warnings }));
                } else {
                    for warning in warnings {
                        eprintln!("warning: {warning}");
                    }
                    println!("the settings are good");
                }
                Exit::Success
            }
            (Self::Show(Output { json }), Ok(settings)) => {
                if json {
                    println!("{}", serde_json::to_string_pretty(&settings.redacted()).unwrap_or_default());
                } else {
                    println!("{}", settings.redacted_toml().trim_end());
                }
                Exit::Success
            }
        }
    }
}
