//! skep-bench: what skep costs, as ratios to floors that are measured in the same run. docs/performance.md says what each means.
//!
//! `skep-bench [--check] [--write FILE] [NAME...]`; `skep-bench bare-list SOCKET` is the floor of `list`, a process of its own, and
//! `skep-bench bare-libvirt FEW MANY` what scripts/libvirt runs.
#![forbid(unsafe_code)]

mod api;
mod clone;
mod helper_call;
mod list;
mod many;
mod platform;
mod report;
mod size;
mod stats;
mod suite;
mod vm_start;

use anyhow::{Context, Result, bail, ensure};
use report::Outcome;
use std::path::PathBuf;
use std::process::ExitCode;

/// A measurement.
type Bench = fn() -> Result<Outcome>;

const ALL: [(&str, Bench); 9] = [
    ("helper-call", helper_call::run),
    ("vm-start", vm_start::run),
    ("list", list::run),
    ("many", many::run),
    ("dhcp", platform::dhcp),
    ("launch", platform::launch),
    ("nat", platform::nat),
    ("clone", clone::run),
    ("size", size::run),
];

struct Args {
    check: bool,
    write: Option<PathBuf>,
    names: Vec<String>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args> {
    let mut parsed = Args { check: false, write: None, names: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => parsed.check = true,
            "--write" => parsed.write = Some(args.next().context("--write: a file is expected")?.into()),
            name if ALL.iter().any(|(known, _)| *known == name) => parsed.names.push(arg),
            _ => bail!("{arg}: usage: skep-bench [--check] [--write FILE] [{}]...", ALL.map(|(name, _)| name).join(" | ")),
        }
    }
    Ok(parsed)
}

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, socket] = args.as_slice()
        && mode == "bare-list"
    {
        return api::bare_list(socket.as_ref()).map(|()| ExitCode::SUCCESS);
    }
    if let [mode, few, many] = args.as_slice()
        && mode == "bare-libvirt"
    {
        return platform::bare_libvirt(few.parse()?, many.parse()?).map(|()| ExitCode::SUCCESS);
    }
    let args = parse(args.into_iter())?;
    ensure!(!cfg!(debug_assertions), "a debug build measures nothing of use: cargo run --release -p skep-bench");
    let mut outcomes = Vec::new();
    for (name, bench) in ALL {
        if args.names.is_empty() || args.names.iter().any(|wanted| wanted == name) {
            eprintln!("skep-bench: {name}");
            outcomes.push((name, bench().with_context(|| name.to_owned())?));
        }
    }
    let table = report::table(&outcomes);
    print!("{table}");
    if let Some(file) = &args.write {
        report::write(file, &table).with_context(|| file.display().to_string())?;
    }
    let met = outcomes.iter().all(|(_, outcome)| outcome.is_met());
    Ok(if args.check && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
