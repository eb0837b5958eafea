//! Disks of kind QCOW2 on FreeBSD, where bhyve reads none: what serves them, with a real guest.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, guest, is_root, platform, qcow2, skip};
use std::process::Command;
use std::time::{Duration, Instant};

/// Devices of a suite's disks.
fn devices(suite: &Suite) -> usize {
    let all = std::fs::read_dir("/dev/skep").into_iter().flatten().filter_map(Result::ok);
    let instance = std::fs::read_to_string(suite.state.join("instance")).unwrap_or_default();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(instance.trim())).count()
}

#[test]
fn a_machine_boots_from_a_qcow2_disk_upon_an_image() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let _ = Command::new("kldload").args(["-n", "geom_gate"]).status();
    if !std::path::Path::new("/dev/ggctl").exists() {
        skip!("this host has no geom_gate");
    }
    let suite = Suite::start(Mode::Root)?;
    let image = suite.dir().join("base.qcow2");
    qcow2::of_raw(&guest()?.join("disk.img"), &image)?;
    suite.ok(&["image", "import", "base", "--kind", "qcow2", &image.to_string_lossy()])?;
    for name in ["a", "b"] {
        suite.ok(&["disk", "clone", "base", name])?;
        suite.ok(&["vm", "create", name, "--memory", "128M", "--loader", "--screen", "off", "--disk", name])?;
    }
    suite.ok(&["disk", "create", "data", "--size", "64M", "--kind", "qcow2"])?;
    suite.ok(&["vm", "set", "a", "--disk", "a", "--disk", "data"])?;
    suite.boot("a")?;
    suite.boot("b")?;
    ensure!(devices(&suite) == 3, "{} devices", devices(&suite));
    let audit = suite.ok(&["audit"])?;
    ensure!(audit.contains(" 0 differ"), "{audit}");
    ensure!(audit.matches("disk-server").count() >= 3 && audit.matches("disk-reader").count() >= 3, "{audit}");

    let write = |word: &str| format!("echo {word} | dd of=/dev/vtbd1 conv=sync 2>/dev/null; echo wrote-$?");
    let read = "set -- $(dd if=/dev/vtbd1 count=1 2>/dev/null); echo read:$1";
    suite.guest_runs("a", &write("kept"), "wrote-0")?;
    suite.ok(&["down", "--keep-machines"])?;
    suite.ok(&["up"])?;
    ensure!(suite.state_of("a")? == "running" && devices(&suite) == 3);
    suite.guest_runs("a", read, "read:kept")?;
    // Nothing waits for who serves it when the machine is killed, nor is anything left.
    suite.ok(&["vm", "kill", "a"])?;
    ensure!(devices(&suite) == 1, "{} devices", devices(&suite));

    suite.ok(&["disk", "set", "data", "--write-bps", "1M"])?;
    suite.boot("a")?;
    suite.guest_runs("a", read, "read:kept")?;
    let begun = Instant::now();
    suite.guest_runs("a", "dd if=/dev/zero of=/dev/vtbd1 bs=1m count=6 oseek=1 2>/dev/null; echo wrote-$?", "wrote-0")?;
    ensure!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());

    // Its server dies: its machine loses a disk, and goes at once when it is told; the other's goes on.
    for pid in suite.pids("disk-server")? {
        let shown = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output()?;
        if String::from_utf8_lossy(&shown.stdout).contains(&(64u64 << 20).to_string()) {
            platform::end(pid)?;
            break;
        }
    }
    suite.guest_runs("b", "echo alive-$((6*7))", "alive-42")?;
    suite.ok(&["vm", "kill", "a"])?;
    suite.ok(&["vm", "kill", "b"])?;
    ensure!(devices(&suite) == 0, "{} devices", devices(&suite));
    suite.boot("a")?;
    suite.guest_runs("a", read, "read:kept").context("after its server's death")?;
    suite.ok(&["vm", "kill", "a"])?;
    Ok(())
}
