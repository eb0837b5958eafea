//! How bhyve ends is told apart by its exit status: each way that there is, brought about by the kernel itself.

#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_sys::freebsd::vmm::{How, suspend};
use skep_tests::{Mode, PATIENCE, Suite, is_root, skip};
use std::fs::File;
use std::os::fd::AsFd;

/// The instance of the suite's only machine.
fn instance(suite: &Suite) -> Result<File> {
    let mark = format!("sk{}", suite.instance());
    let of_ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&mark);
    let node = std::fs::read_dir("/dev/vmm")?.flatten().find(of_ours).context("no vmm instance of the suite")?;
    Ok(File::options().read(true).write(true).open(node.path())?)
}

#[test]
fn reset_power_off_halt_and_triple_fault_are_told_apart() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    suspend(instance(&suite)?.as_fd(), How::Reset)?;
    suite.expect_anew("m", "skep-guest ready")?;
    ensure!(suite.state_of("m")? == "running", "0: it is started anew");
    let mut after = 0;
    let mut ends = |how: How, state: &str, note: &str| -> Result<()> {
        if suite.state_of("m")? != "running" {
            suite.boot("m")?;
        }
        suspend(instance(&suite)?.as_fd(), how)?;
        let token = after.to_string();
        let seen = suite.json(&["events", "--after", &token, "--until", state, "--timeout", PATIENCE])?;
        after = seen.last().and_then(|event| event["token"].as_u64()).context("events have tokens")?;
        ensure!(suite.state_of("m")? == state, "{how:?}");
        let show = suite.json(&["vm", "show", "m"])?;
        let said = show[0]["note"].as_str().unwrap_or_default().to_owned();
        ensure!(said.contains(note), "{how:?}: {said:?} has no {note:?}");
        ensure!(suite.pids("hypervisor")?.is_empty());
        Ok(())
    };
    ends(How::PowerOff, "stopped", "")?;
    ends(How::Halt, "stopped", "")?;
    ends(How::TripleFault, "failed", "panicked")?;
    suite.finish()
}
