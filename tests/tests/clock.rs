//! A machine's clock is in the host's time zone where that was asked for.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, zone};
use std::fs;
use std::time::SystemTime;

/// The clock that the guest's kernel read when it was booted, and takes for UTC, less the time by ours, in seconds.
fn guests_clock(suite: &Suite, name: &str) -> Result<i64> {
    let said = suite.guest_runs(name, "echo clock $(date +%s) end-$((6*7))", "end-42")?;
    let numbers = said.split("clock ").filter_map(|rest| rest.split(' ').next()?.parse::<i64>().ok());
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(numbers.last().with_context(|| said.clone())? - i64::try_from(ours.as_secs())?)
}

#[test]
fn a_guests_clock_is_at_utc_or_at_the_hosts_local_time() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    // Whatever zone this host is in: its cells have its own, and then another.
    let ours = suite.state.join("cell/root/etc/localtime");
    ensure!(fs::read("/etc/localtime").ok() == fs::read(&ours).ok(), "the cell has another zone than the host");
    if ours.exists() {
        fs::remove_file(&ours)?;
    }
    fs::create_dir_all(ours.parent().context("no directory")?)?;
    fs::write(&ours, zone::file())?;
    for (name, clock, east) in [("here", "local", zone::EAST), ("there", "utc", 0)] {
        suite.define(name, &["--clock", clock])?;
        suite.boot(name)?;
        let clock = guests_clock(&suite, name)?;
        // The rest is what the machines of this host take.
        ensure!((clock - east).abs() < 1800, "{name}: its clock is {clock} s before UTC");
    }
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "here"])?;
    suite.ok(&["vm", "kill", "there"])?;
    suite.finish()
}
