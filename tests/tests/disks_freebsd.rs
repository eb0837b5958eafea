//! Disks of kind QCOW2 on FreeBSD, where bhyve reads none: what serves them, with a real guest.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::{disk_counters, served_disks};
use skep_tests::{Mode, Suite, guest, is_root, platform, qcow2, skip};
use std::process::Command;
use std::time::{Duration, Instant};

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
    ensure!(served_disks(&suite) == 3, "{} devices", served_disks(&suite));
    let audit = suite.ok(&["audit"])?;
    ensure!(audit.contains(" 0 differ"), "{audit}");
    ensure!(audit.matches("disk-server").count() >= 3 && audit.matches("disk-reader").count() >= 3, "{audit}");

    let write = |word: &str| format!("echo {word} | dd of=/dev/vtbd1 conv=sync 2>/dev/null; echo wrote-$?");
    let read = "set -- $(dd if=/dev/vtbd1 count=1 2>/dev/null); echo read:$1";
    suite.guest_runs("a", &write("kept"), "wrote-0")?;
    suite.ok(&["down", "--keep-machines"])?;
    suite.ok(&["up"])?;
    ensure!(suite.state_of("a")? == "running" && served_disks(&suite) == 3);
    suite.guest_runs("a", read, "read:kept")?;
    // Nothing waits for who serves it when the machine is killed, nor is anything left.
    suite.ok(&["vm", "kill", "a"])?;
    ensure!(served_disks(&suite) == 1, "{} devices", served_disks(&suite));

    suite.ok(&["disk", "set", "data", "--write-bps", "1M"])?;
    suite.boot("a")?;
    suite.guest_runs("a", read, "read:kept")?;
    let begun = Instant::now();
    suite.guest_runs("a", "dd if=/dev/zero of=/dev/vtbd1 bs=1m count=6 oseek=1 2>/dev/null; echo wrote-$?", "wrote-0")?;
    ensure!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    // Who serves it counts, from its machine's start on: a sector was read, and 6 MiB were written.
    let counted = disk_counters(&suite, "a", 1)?;
    ensure!(counted.write_bytes >= 6 << 20 && counted.write_bytes < 8 << 20 && counted.write_ops >= 6, "{counted:?}");
    ensure!(counted.read_bytes >= 512 && counted.read_ops >= 1, "{counted:?}");
    ensure!(disk_counters(&suite, "a", 0)?.read_bytes > 1 << 20, "a kernel was loaded from it");

    // Either of those that serve it dies while the guest writes: it waits until others have taken over.
    for who in ["disk-server", "disk-reader"] {
        let data = suite.pids(who)?.into_iter().find(|pid| {
            let shown = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output();
            shown.is_ok_and(|shown| String::from_utf8_lossy(&shown.stdout).contains(&(64u64 << 20).to_string()))
        });
        // Three seconds, at its rate.
        let busy = "dd if=/dev/zero of=/dev/vtbd1 bs=1m count=3 oseek=1 2>/dev/null";
        let busy = format!("({busy}; echo {who}-$?-$((6*7))) & echo begun-{who}-$((6*7))");
        suite.guest_runs("a", &busy, &format!("begun-{who}-42"))?;
        platform::end(data.with_context(|| format!("no {who}"))?)?;
        suite.expect("a", &format!("{who}-0-42"))?;
        ensure!(served_disks(&suite) == 3, "{} devices", served_disks(&suite));
    }
    suite.guest_runs("a", read, "read:kept").context("after its server's death")?;
    // The next one counts on.
    let later = disk_counters(&suite, "a", 1)?;
    ensure!(later.write_bytes >= counted.write_bytes + (6 << 20) && later.read_ops > counted.read_ops, "{counted:?} {later:?}");
    suite.guest_runs("b", "echo alive-$((6*7))", "alive-42")?;
    let log = suite.ok(&["log", "disk-server", "--since", "1h", "--tail", "1000"])?;
    ensure!(log.contains(&format!("serves {} bytes for reading and writing", 64u64 << 20)), "{log}");
    ensure!(log.lines().all(|line| line.contains(" disk-server ") && line.contains(" disk ")), "{log}");
    suite.ok(&["vm", "kill", "a"])?;
    suite.ok(&["vm", "kill", "b"])?;
    ensure!(served_disks(&suite) == 0, "{} devices", served_disks(&suite));
    Ok(())
}
