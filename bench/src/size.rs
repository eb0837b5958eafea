//! Memory, as the kernel shares it out among the processes that map it (PSS).

use crate::api::Api;
use crate::platform;
use crate::report::{Outcome, Row};
use crate::suite;
use anyhow::Result;
use skep_tests::Suite;

/// MiB.
const RESTING: f64 = 40.0;
const MACHINE: f64 = 3.0;
/// Starts of the machine, of which the median counts.
const TIMES: usize = 5;

pub fn run() -> Result<Outcome> {
    if let Some(why) = platform::cannot_weigh() {
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let suite = suite::start()?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    // A suite that has worked before is not smaller than a new one.
    api.start("m")?;
    api.kill("m")?;
    let mut rest = Vec::new();
    let mut parts: [Vec<f64>; 4] = Default::default();
    for _ in 0..TIMES {
        let before = services(&suite)?;
        api.start("m")?;
        let cell = platform::cell(&suite)?;
        let (runner, console) = (mib(&[cell.runner])?, mib(&[cell.console])?);
        let growth = services(&suite)? - before;
        api.kill("m")?;
        rest.push(before);
        for (part, value) in parts.iter_mut().zip([runner + console + growth, runner, console, growth]) {
            part.push(value);
        }
    }
    let each = platform::services(&suite)?.into_iter().map(|(pid, name)| Ok((name, mib(&[pid])?))).collect::<Result<Vec<_>>>()?;
    drop(api);
    suite::stop(suite)?;
    let mut rows = vec![Row::size("all services at rest", median(rest), Some(RESTING)).of(TIMES)];
    rows.extend(each.into_iter().map(|(name, size)| Row::size(format!("at rest: {name}"), size, None)));
    let names = [
        "a running machine beside its hypervisor",
        "machine: runner",
        "machine: console-proxy",
        "machine: growth of the services",
    ];
    for ((name, part), limit) in names.into_iter().zip(parts).zip([Some(MACHINE), None, None, None]) {
        rows.push(Row::size(name, median(part), limit).of(TIMES));
    }
    Ok(Outcome::Rows(rows))
}

fn services(suite: &Suite) -> Result<f64> {
    mib(&platform::services(suite)?.iter().map(|(pid, _)| *pid).collect::<Vec<_>>())
}

fn mib(pids: &[i32]) -> Result<f64> {
    let sizes = pids.iter().map(|pid| platform::pss(*pid)).collect::<Result<Vec<u64>>>()?;
    Ok(sizes.iter().sum::<u64>() as f64 / f64::from(1 << 20))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
