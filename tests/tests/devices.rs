//! Devices that a machine can have beside the usual ones, as its guest finds them, in a whole suite.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, is_root};

fn suite() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    Ok(suite)
}

#[test]
fn disks_hang_on_the_controller_that_was_asked_for() -> Result<()> {
    let suite = suite()?;
    for name in ["scsi", "sata"] {
        suite.ok(&["disk", "create", name, "--size", "8M"])?;
    }
    suite.define("m", &["--disk", "scsi,scsi", "--disk", "sata,ahci", "--disk", "initrd,cd"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    let disks: Vec<_> = show[0]["disks"].as_array().into_iter().flatten().collect();
    let said: Vec<_> = disks.iter().map(|d| (d["controller"].as_str().unwrap_or_default(), d["read_only"] == true)).collect();
    ensure!(said == [("virtio_scsi", false), ("ahci", false), ("ahci_cd", true)], "{said:?}");
    suite.boot("m")?;
    suite.guest_runs("m", "dd if=/dev/zero of=/dev/sda bs=1M count=2 conv=fsync 2>/dev/null; echo written-$?", "written-0")?;
    let stats = suite.json(&["vm", "stats", "m"])?;
    ensure!(stats[0]["disks"][0]["write_bytes"] == 2 << 20, "{stats:?}");
    suite.ok(&["vm", "kill", "m"])?;
    let (code, message) = suite.fails(&["vm", "set", "m", "--disk", "scsi,floppy"])?;
    ensure!(code == 2 || message.contains("none of virtio, nvme, ahci, cd, scsi, ro"), "{code} {message}");
    suite.finish()
}
