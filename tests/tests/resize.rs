//! Disks that become larger while their guest runs, and smaller by force, with a real guest.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::{REBOOT, end};
use skep_tests::{Mode, Suite, is_root};

const MIB: u64 = 1 << 20;

fn suite() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    Ok(suite)
}

fn resize(suite: &Suite, disk: &str, mib: u64) -> Result<()> {
    let made = suite.json(&["disk", "resize", disk, "--size", &format!("{mib}M")])?;
    ensure!(made[0]["size"] == mib * MIB, "{made:?}");
    Ok(())
}

/// The guest sees that a disk has so many MiB; `first` has it look.
fn sees(suite: &Suite, device: &str, mib: u64, first: &str) -> Result<()> {
    let (sectors, size) = (mib * 2048, format!("/sys/block/{device}/size"));
    let command = format!("{first} until [ $(cat {size}) = {sectors} ]; do sleep 0.1; done; echo {device}-{mib}-$((6*7))");
    suite.guest_runs("m", &command, &format!("{device}-{mib}-42")).map(drop)
}

/// Writes a word at a MiB of a disk of the guest's, and reads it from there.
fn keeps(suite: &Suite, device: &str, at: u64, word: &str) -> Result<()> {
    let command = format!(
        "printf {word} | dd of=/dev/{device} bs=1M seek={at} conv=notrunc,fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches; \
         echo kept-$?-$(dd if=/dev/{device} bs=1M skip={at} count=1 2>/dev/null | head -c {})-$((6*7))",
        word.len()
    );
    suite.guest_runs("m", &command, &format!("kept-0-{word}-42")).map(drop)
}

fn reboot(suite: &Suite) -> Result<()> {
    let args = ["vm", "console", "m", "--from-now", "--send", REBOOT, "--expect", "skep-guest ready"];
    suite.ok(&[&args[..], &["--timeout", skep_tests::PATIENCE]].concat()).map(drop)
}

fn start(suite: &Suite) -> Result<()> {
    suite.ok(&["vm", "start", "m"])?;
    suite.expect_anew("m", "skep-guest ready")
}

/// Bytes that a file of the hypervisor's may come to have.
fn limit(suite: &Suite) -> Result<u64> {
    let pid = *suite.pids("hypervisor")?.first().context("no hypervisor")?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size")).context("no such limit")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

#[test]
fn a_disk_grows_while_its_guest_runs() -> Result<()> {
    let suite = suite()?;
    for (name, kind) in [("raw", "raw"), ("qcow2", "qcow2"), ("scsi", "raw"), ("nvme", "raw")] {
        suite.ok(&["disk", "create", name, "--size", "64M", "--kind", kind])?;
    }
    suite.define("m", &["--disk", "raw", "--disk", "qcow2", "--disk", "scsi,scsi", "--disk", "nvme,nvme"])?;
    suite.boot("m")?;
    // 64 MiB, a sixteenth of that, and 64 MiB: what it may grow to lies far beyond.
    ensure!(limit(&suite)? == (64 + 4 + 64) * MIB, "{}", limit(&suite)?);
    for (disk, device) in [("raw", "vda"), ("qcow2", "vdb")] {
        keeps(&suite, device, 63, "before")?;
        resize(&suite, disk, 256)?;
        sees(&suite, device, 256, "")?;
        keeps(&suite, device, 255, "beyond")?;
    }
    // No more than the largest of them needs.
    ensure!(limit(&suite)? == (256 + 16 + 64) * MIB, "{}", limit(&suite)?);
    // A SCSI disk when its guest looks again; an NVMe disk not before it is stopped.
    resize(&suite, "scsi", 80)?;
    sees(&suite, "sda", 80, "echo 1 >/sys/block/sda/device/rescan;")?;
    ensure!(limit(&suite)? == (256 + 16 + 64) * MIB, "{}", limit(&suite)?);
    let (code, message) = suite.fails(&["disk", "resize", "nvme", "--size", "80M"])?;
    ensure!(code == 5 && message.contains("NVMe"), "{code} {message}");
    for force in [&[][..], &["--force"]] {
        let (code, message) = suite.fails(&[&["disk", "resize", "raw", "--size", "128M"], force].concat())?;
        ensure!(code == 5 && message.contains("machine m runs"), "{code} {message}");
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));

    // Also the file that a snapshot has it go on in, and the hypervisor that a reboot starts.
    suite.ok(&["disk", "snapshot", "create", "raw", "one"])?;
    resize(&suite, "raw", 512)?;
    sees(&suite, "vda", 512, "")?;
    reboot(&suite)?;
    ensure!(limit(&suite)? == (512 + 32 + 64) * MIB, "{}", limit(&suite)?);
    sees(&suite, "vda", 512, "")?;
    keeps(&suite, "vda", 500, "again")?;
    resize(&suite, "qcow2", 300)?;
    sees(&suite, "vdb", 300, "")?;
    suite.ok(&["vm", "kill", "m"])?;

    // By force, and not with snapshots, nor of what stands on another file.
    let (code, message) = suite.fails(&["disk", "resize", "qcow2", "--size", "64M"])?;
    ensure!(code == 8 && message.contains(&format!("the last {} bytes would be lost", 236 * MIB)), "{code} {message}");
    let (code, message) = suite.fails(&["disk", "resize", "raw", "--size", "64M", "--force"])?;
    ensure!(code == 5 && message.contains("it has snapshots"), "{code} {message}");
    suite.ok(&["disk", "snapshot", "delete", "raw", "one"])?;
    let (code, message) = suite.fails(&["disk", "resize", "raw", "--size", "64M", "--force"])?;
    ensure!(code == 5 && message.contains("--full"), "{code} {message}");
    for (disk, mib) in [("qcow2", 64), ("scsi", 40)] {
        suite.ok(&["disk", "resize", disk, "--size", &format!("{mib}M"), "--force"])?;
    }
    start(&suite)?;
    // What it lost does not come back when it grows again.
    sees(&suite, "vdb", 64, "")?;
    sees(&suite, "sda", 40, "")?;
    resize(&suite, "qcow2", 300)?;
    sees(&suite, "vdb", 300, "")?;
    let command = "echo at-$(dd if=/dev/vdb bs=1M skip=63 count=1 2>/dev/null | head -c 6)\
                   -$(dd if=/dev/vdb bs=1M skip=255 count=1 2>/dev/null | head -c 6 | tr -d '\\000')-$((6*7))";
    suite.guest_runs("m", command, "at-before--42")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    suite.finish()
}

#[test]
fn a_growth_that_loses_a_process_on_its_way_is_whole_or_nothing() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["disk", "create", "root", "--size", "64M"])?;
    suite.define("m", &["--disk", "root"])?;
    suite.boot("m")?;
    let shown = || -> Result<u64> {
        let all = suite.json(&["disk", "show", "root"])?;
        Ok(all[0]["size"].as_u64().context("no size")? / MIB)
    };
    let mut mib = 64;
    for service in ["storage-helper", "broker", "api-frontend", "vm-runner", "broker", "storage-helper"] {
        mib += 16;
        let pid = suite.pids(service)?[0];
        let mut growing = suite.command(&["disk", "resize", "root", "--size", &format!("{mib}M")]).spawn()?;
        end(pid)?;
        growing.wait()?;
        suite.up()?;
        // Whatever came of it, the guest has what the list says.
        let now = shown()?;
        ensure!(now == mib || now == mib - 16, "{now} after {service}");
        sees(&suite, "vda", now, "")?;
        keeps(&suite, "vda", now - 1, service)?;
        resize(&suite, "root", mib)?;
        sees(&suite, "vda", mib, "")?;
        keeps(&suite, "vda", mib - 1, "end")?;
    }
    // The runner, and with it the hypervisor.
    let mut growing = suite.command(&["disk", "resize", "root", "--size", "256M"]).spawn()?;
    end(suite.pids("runner")?[0])?;
    growing.wait()?;
    suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
    start(&suite)?;
    let now = shown()?;
    ensure!(now == mib || now == 256, "{now}");
    sees(&suite, "vda", now, "")?;
    keeps(&suite, "vda", now - 1, "last")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    suite.finish()
}
