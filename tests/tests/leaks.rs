//! Nothing leaks: descriptors of every lasting process and files of the suite, compared before and after.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::held::{SERVICES, Watched};
use skep_tests::{Mode, Suite, guest, is_root};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Stdio;

fn suite() -> Result<Suite> {
    Suite::start(if is_root() { Mode::Root } else { Mode::User })
}

/// Kills a process and waits until it has ended.
fn end(pid: i32) -> Result<()> {
    let process = skep_sys::linux::pidfd(pid)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

/// An import whose client goes away in its middle.
fn import_cut(suite: &Suite, name: &str) -> Result<()> {
    let mut client = suite.command(&["disk", "import", name, "-"]).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stream) = client.stdin.take() {
        stream.write_all(&vec![7u8; 8 << 20])?;
        client.kill()?;
    }
    client.wait()?;
    Ok(())
}

/// Everything that an administrator does with a machine, and much that fails.
fn whole_life(suite: &Suite, turn: u32) -> Result<()> {
    suite.import_guest()?;
    let kernel = guest()?.join("kernel");
    suite.fails(&["disk", "import", "wrong", &kernel.to_string_lossy(), "--sha256", &"00".repeat(32)])?;
    suite.fails(&["disk", "import", "kernel", &kernel.to_string_lossy()])?;
    // The name of one before it is free when all of that is gone.
    import_cut(suite, &format!("cut-{turn}"))?;
    suite.ok(&["disk", "create", "data", "--size", "8M"])?;
    suite.ok(&["disk", "resize", "data", "--size", "16M"])?;
    suite.ok(&["disk", "clone", "data", "copy"])?;
    suite.fails(&["disk", "clone", "data", "copy"])?;
    suite.define("m", &["--disk", "data"])?;
    suite.fails(&["vm", "create", "m"])?;
    if suite.mode == Mode::Root {
        suite.ok(&["switch", "create", "lan"])?;
        suite.fails(&["switch", "create", "lan"])?;
        suite.fails(&["switch", "create", "bad", "--uplink", "no-such-link"])?;
        suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m"])?;
    }
    suite.boot("m")?;
    suite.fails(&["vm", "start", "m"])?;
    suite.fails(&["vm", "delete", "m"])?;
    suite.fails(&["disk", "delete", "data"])?;
    suite.guest_runs("m", "echo held-$((6*7))", "held-42")?;
    let mut watcher = suite.command(&["vm", "console", "m", "--read-only", "--expect", "never"]).stdout(Stdio::null()).spawn()?;
    suite.ok(&["vm", "pause", "m"])?;
    suite.ok(&["vm", "resume", "m"])?;
    suite.ok(&["vm", "stats", "m"])?;
    suite.ok(&["vm", "log", "m"])?;
    suite.ok(&["vm", "set", "m", "--description", "life"])?;
    suite.guest_runs("m", "reboot -f", "skep-guest ready")?;
    watcher.kill()?;
    watcher.wait()?;
    suite.ok(&["vm", "stop", "m"])?;
    suite.ok(&["vm", "clone", "m", "n"])?;
    suite.boot("n")?;
    suite.ok(&["vm", "kill", "n"])?;
    for machine in ["m", "n"] {
        suite.ok(&["vm", "delete", machine, "--disks"])?;
    }
    if suite.mode == Mode::Root {
        for nic in suite.json(&["nic", "list"])? {
            suite.ok(&["nic", "delete", nic["name"].as_str().unwrap_or_default()])?;
        }
        suite.ok(&["switch", "delete", "lan"])?;
    }
    for disk in ["copy", "kernel", "initrd"] {
        suite.ok(&["disk", "delete", disk])?;
    }
    Ok(())
}

#[test]
fn a_whole_life_leaves_every_descriptor_and_file_as_before() -> Result<()> {
    let suite = suite()?;
    // What is opened at its first use stays: connections of the broker to its helpers.
    whole_life(&suite, 0)?;
    let watched = Watched::begin(&suite, &[])?;
    whole_life(&suite, 1)?;
    watched.check("a life")?;
    suite.finish()
}

#[test]
fn kills_leave_every_descriptor_and_file_as_before() -> Result<()> {
    let suite = suite()?;
    suite.import_guest()?;
    suite.ok(&["disk", "create", "data", "--size", "8M"])?;
    suite.define("m", &["--disk", "data"])?;
    if suite.mode == Mode::Root {
        suite.ok(&["switch", "create", "lan"])?;
        suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m"])?;
    }
    let few = |turn: usize| {
        suite.guest_runs("m", &format!("echo life-{turn}-$((6*7))"), &format!("life-{turn}-42"))?;
        suite.ok(&["vm", "stats", "m"])?;
        suite.ok(&["disk", "list"])?;
        suite.fails(&["vm", "start", "m"]).map(drop)
    };
    suite.boot("m")?;
    few(0)?;
    // While it runs, its own processes live on, too.
    let more = ["runner", "console-proxy"];
    let mut watched = Watched::begin(&suite, &more)?;
    for (turn, service) in SERVICES.iter().chain(&["console-proxy"]).enumerate() {
        end(suite.pids(service)?[0])?;
        suite.up()?;
        few(turn + 1)?;
        watched.replaced(service, &more)?;
        watched.check(&format!("{service} was killed"))?;
    }
    suite.ok(&["vm", "kill", "m"])?;
    let watched = Watched::begin(&suite, &[])?;
    for process in ["runner", "hypervisor"] {
        suite.boot("m")?;
        let pids = suite.pids(process)?;
        ensure!(pids.len() == 1, "{process}: {pids:?}");
        let token = last_token(&suite, process)?;
        end(pids[0])?;
        suite.ok(&["events", "--after", &token, "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
        watched.check(&format!("{process} was killed"))?;
    }
    suite.finish()
}

/// The token of the newest event: of one that is made for this.
fn last_token(suite: &Suite, mark: &str) -> Result<String> {
    let name = format!("mark-{mark}");
    suite.ok(&["vm", "create", &name])?;
    suite.ok(&["vm", "rename", &name, "mark"])?;
    suite.ok(&["vm", "delete", "mark"])?;
    let events = suite.json(&["events", "--after", "0", "--until", &name, "--timeout", skep_tests::PATIENCE])?;
    Ok(events.last().map_or(0, |event| event["token"].as_u64().unwrap_or(0)).to_string())
}
