//! Any process may be killed with -9: it is started again, machines run on, nothing leaks.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use skep_tests::{Mode, Suite, is_root, skip};

/// Kills a process and waits until it has ended.
fn end(pid: i32) -> Result<()> {
    let process = skep_sys::linux::pidfd(pid)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

const SERVICES: [&str; 6] = ["api-frontend", "broker", "storage-helper", "net-helper", "vm-runner", "console-proxy"];

#[test]
fn each_service_killed_while_a_machine_runs_comes_back_and_the_machine_runs_on() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "lan"])?;
    suite.define("m", &[])?;
    suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m"])?;
    suite.boot("m")?;
    for (turn, service) in SERVICES.iter().enumerate() {
        let before = suite.pids(service)?;
        ensure!(before.len() == 1, "{service}: {before:?}");
        end(before[0])?;
        suite.up()?;
        let answer = format!("alive-{turn}-{}", 7 * turn);
        let command = format!("echo alive-{turn}-$((7*{turn}))");
        suite.guest_runs("m", &command, &answer)?;
        ensure!(suite.state_of("m")? == "running", "after {service}");
        let after = suite.pids(service)?;
        ensure!(after.len() == 1 && after != before, "{service}: {before:?} {after:?}");
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "stop", "m"])?;
    suite.finish()
}

#[test]
fn a_runner_killed_takes_its_machine_along_and_nothing_stays() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    let pids = suite.pids("runner")?;
    ensure!(pids.len() == 1, "{pids:?}");
    end(pids[0])?;
    suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", "60"])?;
    ensure!(suite.pids("hypervisor")?.is_empty());
    suite.boot("m")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_supervisor_killed_is_followed_by_another_that_adopts_the_machine() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    let lock = std::fs::read_to_string(suite.run.join("up.pid"))?;
    end(lock.trim().parse()?)?;
    suite.up()?;
    suite.guest_runs("m", "echo adopted-$((40+2))", "adopted-42")?;
    ensure!(suite.state_of("m")? == "running");
    let stats = suite.json(&["vm", "stats", "m"])?;
    ensure!(stats[0]["cpu_ns"].as_u64().is_some_and(|ns| ns > 0), "{stats:?}");
    suite.ok(&["vm", "stop", "m"])?;
    suite.finish()
}
