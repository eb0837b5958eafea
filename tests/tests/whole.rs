//! Snapshots of whole machines, with a real guest that writes to two disks.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, is_root};

/// Writes a word to the beginning of both of the guest's disks.
fn write(suite: &Suite, machine: &str, word: &str) -> Result<()> {
    let command = format!(
        "for d in a b; do printf {word} | dd of=/dev/vd$d conv=notrunc 2>/dev/null; done; sync; echo wrote-{word}-$((6*7))"
    );
    suite.guest_runs(machine, &command, &format!("wrote-{word}-42")).map(drop)
}

/// Boots it; what the guest reads from both is this word.
fn boots_with(suite: &Suite, machine: &str, word: &str) -> Result<()> {
    suite.ok(&["vm", "start", machine])?;
    suite.expect_anew(machine, "skep-guest ready")?;
    let command = format!("for d in a b; do echo $d-$(head -c {} /dev/vd$d); done; echo read-$((6*7))", word.len());
    let said = suite.guest_runs(machine, &command, "read-42")?;
    ensure!(["a", "b"].iter().all(|disk| said.contains(&format!("{disk}-{word}\r"))), "{said}");
    Ok(())
}

#[test]
fn a_machine_is_snapshotted_broken_brought_back_and_cloned_into_two() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    for (disk, kind) in [("one", "raw"), ("two", "qcow2")] {
        suite.ok(&["disk", "create", disk, "--size", "16M", "--kind", kind])?;
    }
    suite.define("m", &["--disk", "one", "--disk", "two"])?;
    suite.ok(&["nic", "create", "eth", "--machine", "m"])?;
    suite.boot("m")?;
    write(&suite, "m", "first")?;
    // While it runs: both disks, and the settings.
    let made = suite.json(&["vm", "snapshot", "create", "m", "before"])?;
    ensure!(
        made[0]["disks"] == serde_json::json!(["one", "two"]) || made[0]["disks"] == serde_json::json!(["two", "one"]),
        "{made:?}"
    );
    let (_, message) = suite.fails(&["vm", "snapshot", "create", "m", "before"])?;
    ensure!(message.contains("snapshot before of machine m"), "{message}");
    write(&suite, "m", "worse")?;
    let (_, message) = suite.fails(&["vm", "snapshot", "rollback", "m", "before"])?;
    ensure!(message.contains("machine m"), "{message}");
    let (_, message) = suite.fails(&["vm", "clone", "m", "early", "--snapshot", "before"])?;
    ensure!(message.contains("could still write to it"), "{message}");
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "set", "m", "--cpus", "2", "--description", "broken"])?;

    // A part of it does not go alone, and other disks than then are refused.
    let (_, message) = suite.fails(&["disk", "snapshot", "delete", "one", "before"])?;
    ensure!(message.contains("skep vm snapshot delete m before"), "{message}");
    suite.ok(&["disk", "create", "three", "--size", "1M"])?;
    suite.ok(&["vm", "set", "m", "--disk", "one", "--disk", "two", "--disk", "three"])?;
    let (_, message) = suite.fails(&["vm", "snapshot", "rollback", "m", "before"])?;
    ensure!(message.contains("it did not have disk three then"), "{message}");
    suite.ok(&["vm", "set", "m", "--disk", "one", "--disk", "two"])?;
    suite.ok(&["vm", "snapshot", "rollback", "m", "before"])?;
    let shown = suite.json(&["vm", "show", "m"])?;
    ensure!(shown[0]["cpus"] == 1 && shown[0]["nics"].as_array().is_some_and(|nics| nics.len() == 1), "{shown:?}");
    boots_with(&suite, "m", "first")?;
    write(&suite, "m", "other")?;
    suite.ok(&["vm", "kill", "m"])?;

    // Two of it, each with disks and a NIC of its own; and the original as it is.
    for copy in ["c1", "c2"] {
        suite.ok(&["vm", "clone", "m", copy, "--snapshot", "before"])?;
        boots_with(&suite, copy, "first")?;
        write(&suite, copy, copy)?;
    }
    let macs: Vec<String> = suite.json(&["nic", "list"])?.iter().map(|nic| nic["mac"].to_string()).collect();
    ensure!(macs.len() == 3 && macs[0] != macs[1] && macs[1] != macs[2] && macs[0] != macs[2], "{macs:?}");
    boots_with(&suite, "m", "other")?;
    for machine in ["m", "c1", "c2"] {
        suite.ok(&["vm", "kill", machine])?;
    }
    let listed = suite.json(&["vm", "snapshot", "list", "m"])?;
    ensure!(listed.len() == 1 && listed[0]["name"] == "before", "{listed:?}");
    suite.ok(&["vm", "snapshot", "delete", "m", "before"])?;
    ensure!(
        suite.json(&["vm", "snapshot", "list", "m"])?.is_empty() && suite.json(&["disk", "snapshot", "list", "one"])?.is_empty()
    );
    boots_with(&suite, "c1", "c1")?;
    suite.ok(&["vm", "kill", "c1"])?;
    // Nothing stays of a machine with snapshots either.
    suite.ok(&["vm", "snapshot", "create", "m", "again"])?;
    for machine in ["m", "c1", "c2"] {
        suite.ok(&["vm", "delete", machine, "--disks"])?;
    }
    for disk in ["three", "kernel", "initrd"] {
        suite.ok(&["disk", "delete", disk])?;
    }
    for dir in ["disks", "firmware"] {
        let left: Vec<_> = std::fs::read_dir(suite.state.join(dir))?.flatten().map(|e| e.file_name()).collect();
        ensure!(left.is_empty(), "{dir}: {left:?}");
    }
    suite.finish()
}
