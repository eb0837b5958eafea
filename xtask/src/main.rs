//! Chores of the tree: `cargo xtask tidy | proto | rights | errors | freebsd-bundle`.
//!
//! * `tidy`: holds the tree against its rules; exit code 1 and a line for each that is broken.
//! * `proto`: holds the API's definition against buf's standard rules, and against what clients were built with; `--write` adds what is new
//!   to the latter. `tidy` does the same.
//! * `rights`, `errors`: print docs/rights.md and docs/errors.md; with `--write` they are written.
//! * `freebsd-bundle DIR [--release]`: programs and tests that a bare FreeBSD host runs with `DIR/run-tests`.
#![forbid(unsafe_code)]

mod bundle;
mod errors;
mod proto;
mod rights;
mod source;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The top of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tidy"] => return told("tidy", &tidy::problems(&root())?),
        ["proto"] => return told("proto", &proto::problems(&root())?),
        ["proto", "--write"] => proto::write(&root())?,
        ["freebsd-bundle", dir] => bundle::make(Path::new(dir), false)?,
        ["freebsd-bundle", dir, "--release"] => bundle::make(Path::new(dir), true)?,
        ["rights"] => print!("{}", rights::page()),
        ["errors"] => print!("{}", errors::page()),
        ["rights", "--write"] => write("docs/rights.md", &rights::page())?,
        ["errors", "--write"] => write("docs/errors.md", &errors::page())?,
        _ => bail!(
            "usage: cargo xtask tidy | proto [--write] | rights [--write] | errors [--write] | freebsd-bundle DIR [--release]"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::unnecessary_wraps)]
fn told(what: &str, problems: &[String]) -> Result<ExitCode> {
    for problem in problems {
        println!("{problem}");
    }
    println!("{what}: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(name: &str, text: &str) -> Result<()> {
    std::fs::write(root().join(name), text).with_context(|| name.to_owned())
}
