//! A machine that the previous build started is adopted by this one. `SKEP_PREVIOUS` names the directory of the previous programs
//! (of another clone: `target/debug`).
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::held::SERVICES;
use skep_tests::{Mode, Suite, is_root, programs, skip};
use std::os::fd::AsFd;
use std::path::Path;

/// Kills processes, all before any of their parents can start them again, and waits until they have ended.
fn end(pids: &[i32]) -> Result<()> {
    let processes = pids.iter().map(|pid| skep_sys::linux::pidfd(*pid)).collect::<std::io::Result<Vec<_>>>()?;
    for pid in pids {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    for process in processes {
        nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    }
    Ok(())
}

fn adopted(mode: Mode, previous: &Path, killed: bool) -> Result<()> {
    let mut suite = Suite::start_with(mode, previous)?;
    suite.import_guest()?;
    suite.ok(&["disk", "create", "data", "--size", "8M"])?;
    suite.define("m", &["--disk", "data"])?;
    if mode == Mode::Root {
        suite.ok(&["switch", "create", "lan"])?;
        suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m"])?;
    }
    suite.boot("m")?;
    let before = suite.json(&["vm", "stats", "m"])?;
    let version = suite.pids("hypervisor")?;
    if killed {
        let supervisor = std::fs::read_to_string(suite.run.join("up.pid"))?.trim().parse()?;
        let mut pids = vec![supervisor];
        for service in SERVICES {
            pids.extend(suite.pids(service)?);
        }
        // The supervisor's end takes its services along, as far as they are still there.
        end(&pids)?;
    } else {
        suite.ok(&["down", "--keep-machines"])?;
    }

    suite.upgrade(&programs());
    suite.up()?;
    ensure!(suite.state_of("m")? == "running", "not adopted");
    ensure!(suite.pids("hypervisor")? == version, "another hypervisor");
    suite.guest_runs("m", "echo adopted-$((6*7))", "adopted-42")?;
    ensure!(suite.ok(&["vm", "log", "m"])?.contains("skep-guest ready"), "the log is not the machine's");
    let after = suite.json(&["vm", "stats", "m"])?;
    let cpu = |stats: &[serde_json::Value]| stats.first().and_then(|s| s["cpu_ns"].as_u64()).context("no CPU time");
    ensure!(cpu(&after)? > cpu(&before)?, "{before:?} {after:?}");
    // A new console-proxy at the old runner's line; the old runner starts the hypervisor anew.
    end(&suite.pids("console-proxy")?)?;
    suite.guest_runs("m", "echo again-$((6*7))", "again-42")?;
    suite.ok(&["vm", "pause", "m"])?;
    suite.ok(&["vm", "resume", "m"])?;
    suite.ok(&["vm", "set", "m", "--memory", "160M"])?;
    suite.guest_runs("m", "reboot -f", "skep-guest ready")?;
    suite.guest_runs("m", "echo mem-$(( $(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1000 ))-", "mem-1")?;
    suite.ok(&["vm", "stop", "m"])?;
    ensure!(suite.state_of("m")? == "stopped");
    // Started anew, it is this build's.
    suite.boot("m")?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    suite.finish()
}

#[test]
fn a_machine_of_the_previous_build_is_adopted_after_an_orderly_end() -> Result<()> {
    let Some(previous) = std::env::var_os("SKEP_PREVIOUS") else { skip!("SKEP_PREVIOUS names no previous build") };
    adopted(if is_root() { Mode::Root } else { Mode::User }, Path::new(&previous), false)
}

#[test]
fn a_machine_of_the_previous_build_is_adopted_after_kills() -> Result<()> {
    let Some(previous) = std::env::var_os("SKEP_PREVIOUS") else { skip!("SKEP_PREVIOUS names no previous build") };
    adopted(if is_root() { Mode::Root } else { Mode::User }, Path::new(&previous), true)
}

#[test]
fn a_machine_of_an_ordinary_users_previous_build_is_adopted() -> Result<()> {
    let Some(previous) = std::env::var_os("SKEP_PREVIOUS") else { skip!("SKEP_PREVIOUS names no previous build") };
    adopted(Mode::User, Path::new(&previous), false)
}
