//! The `recoverd` command: everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use recoverd::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::environment() {
        Ok(environment) => cli::run(cli, &environment).into(),
        Err(failed) => failed.into(),
    }
}
