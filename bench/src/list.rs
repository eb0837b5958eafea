//! Lists of machines: what one more machine costs, and what the command costs beside the call.

use crate::api::Api;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::{Context, Result, ensure};
use skep_tests::Suite;
use std::process::Command;
use std::time::Instant;

const FEW: usize = 10;
const MANY: usize = 1000;
/// Lists of each length, in the API and as processes.
const CALLS: usize = 100;
const PROCESSES: usize = 40;
/// The tolerance of "does not grow": noise, not a slope.
const LIMIT: f64 = 1.2;
const COMMAND_LIMIT: f64 = 3.0;

pub fn run() -> Result<Outcome> {
    let suite = suite::start()?;
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    let mut rows = Vec::new();
    let few = measure(&suite, &mut api, 0..FEW, &mut rows)?;
    let many = measure(&suite, &mut api, FEW..MANY, &mut rows)?;
    let growth = ratio(many.p50(), few.p50()) * FEW as f64 / MANY as f64;
    rows.insert(0, Row::ratio(format!("API, {MANY} machines; value: time per machine against {FEW}"), &many, growth, LIMIT));
    rows.insert(1, Row::floor(format!("API, {FEW} machines"), &few));
    drop(api);
    suite::stop(suite)?;
    Ok(Outcome::Rows(rows))
}

/// Adds machines, then times lists: the calls are given back, the processes become rows.
fn measure(suite: &Suite, api: &mut Api, more: std::ops::Range<usize>, rows: &mut Vec<Row>) -> Result<Samples> {
    let count = more.end;
    for number in more {
        api.create(&format!("machine-{number:04}"))?;
    }
    let mut calls = Samples::default();
    for _ in 0..CALLS {
        let from = Instant::now();
        let found = api.list()?;
        calls.add(from.elapsed());
        ensure!(found == count, "{found} machines listed of {count}");
    }
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for _ in 0..PROCESSES {
        process(suite.command(&["vm", "list"]), count, &mut ours)?;
        let mut floor = Command::new(std::env::current_exe()?);
        floor.arg("bare-list").arg(suite.run.join("api.sock"));
        process(floor, 1, &mut bare)?;
    }
    let value = ratio(ours.p50(), bare.p50());
    rows.push(Row::ratio(format!("`skep vm list`, {count} machines, a process"), &ours, value, COMMAND_LIMIT));
    rows.push(Row::floor(format!("floor: a bare gRPC client, {count} machines, a process"), &bare));
    Ok(calls)
}

/// Times a process from its start to its end; it must print at least so many lines.
fn process(mut command: Command, lines: usize, samples: &mut Samples) -> Result<()> {
    let from = Instant::now();
    let output = command.output().with_context(|| format!("{command:?}"))?;
    samples.add(from.elapsed());
    let printed = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    ensure!(output.status.success() && printed >= lines, "{command:?}: {}, {printed} lines", output.status);
    Ok(())
}
