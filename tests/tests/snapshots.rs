//! Snapshots of disks that are files, with a real guest that writes.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::{REBOOT, end};
use skep_tests::{Mode, Suite, is_root};

const SIZE: &str = "64M";

fn suite() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    Ok(suite)
}

/// Writes a word at a MiB of the guest's disk.
fn write(suite: &Suite, machine: &str, at: u32, word: &str) -> Result<()> {
    let command =
        format!("printf {word} | dd of=/dev/vda bs=1M seek={at} conv=notrunc 2>/dev/null; sync; echo wrote-{at}-$((6*7))");
    suite.guest_runs(machine, &command, &format!("wrote-{at}-42")).map(drop)
}

/// What the guest reads there is this word.
fn reads(suite: &Suite, machine: &str, at: u32, word: &str) -> Result<()> {
    let length = word.len();
    let command = format!("echo read-{at}-$(dd if=/dev/vda bs=1M skip={at} count=1 2>/dev/null | head -c {length})-$((6*7))");
    suite.guest_runs(machine, &command, &format!("read-{at}-{word}-42")).map(drop)
}

fn reboot(suite: &Suite, machine: &str) -> Result<()> {
    let args = ["vm", "console", machine, "--from-now", "--send", REBOOT, "--expect", "skep-guest ready"];
    suite.ok(&[&args[..], &["--timeout", skep_tests::PATIENCE]].concat()).map(drop)
}

fn kind(suite: &Suite, disk: &str) -> Result<String> {
    let shown = suite.json(&["disk", "show", disk])?;
    Ok(shown[0]["kind"].as_str().context("no kind")?.to_owned())
}

fn start(suite: &Suite, machine: &str) -> Result<()> {
    suite.ok(&["vm", "start", machine])?;
    suite.expect_anew(machine, "skep-guest ready")
}

#[test]
fn a_disk_is_snapshotted_while_its_guest_writes() -> Result<()> {
    let suite = suite()?;
    for (name, kept) in [("raw", "raw"), ("qcow2", "qcow2")] {
        suite.ok(&["disk", "create", name, "--size", SIZE, "--kind", kept])?;
        suite.define(name, &["--disk", name])?;
        suite.boot(name)?;
        write(&suite, name, 1, "first")?;
        suite.ok(&["disk", "snapshot", "create", name, "one"])?;
        ensure!(kind(&suite, name)? == "qcow2");
        write(&suite, name, 1, "later")?;
        suite.ok(&["disk", "snapshot", "create", name, "two"])?;
        write(&suite, name, 2, "after")?;
        // The hypervisor that is started anew goes on in the same file.
        reboot(&suite, name)?;
        reads(&suite, name, 1, "later")?;
        reads(&suite, name, 2, "after")?;
        write(&suite, name, 3, "third")?;
        let audit = suite.skep(&["audit"])?;
        ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
        let (_, message) = suite.fails(&["disk", "snapshot", "rollback", name, "one"])?;
        ensure!(message.contains("runs"), "{message}");
        suite.ok(&["vm", "kill", name])?;
        start(&suite, name)?;
        reads(&suite, name, 3, "third")?;
        suite.ok(&["vm", "kill", name])?;

        suite.ok(&["disk", "snapshot", "rollback", name, "two"])?;
        start(&suite, name)?;
        reads(&suite, name, 1, "later")?;
        reads(&suite, name, 2, "")?;
        suite.ok(&["vm", "kill", name])?;
        // To one that is not the newest.
        suite.ok(&["disk", "snapshot", "rollback", name, "one"])?;
        start(&suite, name)?;
        reads(&suite, name, 1, "first")?;
        suite.ok(&["vm", "kill", name])?;
        let listed = suite.json(&["disk", "snapshot", "list", name])?;
        ensure!(listed.len() == 2 && listed.iter().all(|s| s["size"] == 64 << 20), "{listed:?}");
        let (_, message) = suite.fails(&["disk", "delete", name])?;
        ensure!(message.contains("it has snapshots") || message.contains("has it"), "{message}");
        suite.ok(&["vm", "delete", name, "--disks"])?;
    }
    for name in ["kernel", "initrd"] {
        suite.ok(&["disk", "delete", name])?;
    }
    let left: Vec<_> = std::fs::read_dir(suite.state.join("disks"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(left.is_empty(), "{left:?}");
    suite.finish()
}

#[test]
fn a_snapshot_is_cloned_once_no_hypervisor_can_write_to_it() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["disk", "create", "root", "--size", SIZE])?;
    suite.define("m", &["--disk", "root"])?;
    suite.boot("m")?;
    write(&suite, "m", 1, "first")?;
    suite.ok(&["disk", "snapshot", "create", "root", "one"])?;
    write(&suite, "m", 1, "later")?;
    let (_, message) = suite.fails(&["disk", "clone", "root", "copy", "--snapshot", "one"])?;
    ensure!(message.contains("could still write to it"), "{message}");
    suite.ok(&["disk", "clone", "root", "full", "--snapshot", "one", "--full"])?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["disk", "clone", "root", "copy", "--snapshot", "one"])?;
    // The original and its snapshots can go.
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    for disk in ["copy", "full"] {
        suite.define(disk, &["--disk", disk])?;
        suite.boot(disk)?;
        reads(&suite, disk, 1, "first")?;
        suite.ok(&["vm", "kill", disk])?;
        suite.ok(&["vm", "delete", disk, "--disks"])?;
    }
    suite.finish()
}

#[test]
fn a_snapshot_that_loses_a_process_on_its_way_loses_no_data() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["disk", "create", "root", "--size", SIZE])?;
    suite.define("m", &["--disk", "root"])?;
    suite.boot("m")?;
    for (turn, service) in (1..).zip(["storage-helper", "broker", "api-frontend", "vm-runner", "broker", "storage-helper"]) {
        write(&suite, "m", turn, &format!("before-{turn}"))?;
        let pid = suite.pids(service)?[0];
        let mut taking = suite.command(&["disk", "snapshot", "create", "root", &format!("s{turn}")]).spawn()?;
        end(pid)?;
        taking.wait()?;
        suite.up()?;
        // Whatever came of it, what was written is there, before a reboot and after it.
        for at in 1..=turn {
            reads(&suite, "m", at, &format!("before-{at}"))?;
        }
        write(&suite, "m", turn + 10, &format!("after-{turn}"))?;
        // By the runner alone, and with what the broker believes.
        if turn % 2 == 0 {
            reboot(&suite, "m")?;
        } else {
            suite.ok(&["vm", "kill", "m"])?;
            start(&suite, "m")?;
        }
        for at in 1..=turn {
            reads(&suite, "m", at, &format!("before-{at}"))?;
            reads(&suite, "m", at + 10, &format!("after-{at}"))?;
        }
    }
    // The runner, and with it the hypervisor.
    let mut taking = suite.command(&["disk", "snapshot", "create", "root", "last"]).spawn()?;
    end(suite.pids("runner")?[0])?;
    taking.wait()?;
    suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
    start(&suite, "m")?;
    for at in 1..=6 {
        reads(&suite, "m", at, &format!("before-{at}"))?;
    }
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    suite.finish()
}
