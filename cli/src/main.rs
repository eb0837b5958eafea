//! The `skep` command.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod client;
mod commands;
mod error;
mod installed;
mod operation;
mod output;
mod pci;
mod people;
mod places;
mod platform;
mod remote;
mod secret;
mod size;
mod templates;
mod up;
mod view;

use args::Args;
use clap::Parser;
use error::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(wrong) => return usage(&wrong),
    };
    let output = Output { json: args.global.json, quiet: args.global.quiet };
    match commands::run(args, output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// Prints help and version, and says what is wrong with a command line.
fn usage(wrong: &clap::Error) -> ExitCode {
    let json = std::env::args().any(|arg| arg == "--json");
    if !wrong.use_stderr() || !json {
        let _ = wrong.print();
        return ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2));
    }
    let message = wrong.render().to_string();
    let first = message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let failure =
        Failure { exit: 2, reason: "USAGE".into(), message: first, advice: "see `skep help`".into(), ..Failure::default() };
    Output { json, quiet: false }.failure(&failure);
    ExitCode::from(2)
}
