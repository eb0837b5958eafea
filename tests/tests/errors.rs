//! What goes wrong says what, where and what to do, and leaves nothing half-made.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, guest, is_root, platform, skip};
use std::process::Command;

fn suite() -> Result<Suite> {
    Suite::start(if is_root() { Mode::Root } else { Mode::User })
}

/// `skep` with these arguments fails with this code and says all of this.
fn refused(suite: &Suite, args: &[&str], code: i32, says: &[&str]) -> Result<()> {
    let (got, message) = suite.fails(args)?;
    let missing: Vec<_> = says.iter().filter(|s| !message.contains(**s)).collect();
    ensure!(got == code && missing.is_empty(), "skep {}: exit {got}, lacks {missing:?}: {message}", args.join(" "));
    Ok(())
}

#[test]
fn bad_names_sizes_and_objects_are_named_with_their_limits() -> Result<()> {
    let suite = suite()?;
    let disk = |size| ["disk", "create", "d", "--size", size];
    refused(&suite, &disk("511"), 8, &["disk d", "size_bytes", "511 is no multiple of 512"])?;
    refused(&suite, &disk("1K"), 8, &["disk d", "size", "1024 bytes", "1048576"])?;
    refused(&suite, &disk("65T"), 8, &["disk d", "size", "71468255805440", "70368744177664"])?;
    refused(&suite, &["vm", "show", "nobody"], 3, &["nobody"])?;
    let create = |flag, value| ["vm", "create", "m", flag, value];
    refused(&suite, &create("--cpus", "0"), 8, &["settings.cpus", "0 is not 1 to 64"])?;
    refused(&suite, &create("--memory", "1M"), 8, &["settings.memory_mib", "1 is not 16 to 1048576"])?;
    refused(&suite, &create("--disk", "nodisk"), 3, &["nodisk"])?;
    refused(&suite, &["vm", "create", "-", "--cpus", "1"], 8, &["name", "a machine name has 1 to 63", "not \"-\""])?;
    for args in [&["create", "z", "--size", "1M"][..], &["import", "z", "/etc/hosts"]] {
        // Of a suite that was given no dataset; on Linux there are none to give.
        refused(&suite, &[&["disk"], args, &["--kind", "zvol"]].concat(), 11, &["disk z", "use raw or qcow2"])?;
    }
    suite.ok(&["vm", "create", "m"])?;
    refused(&suite, &["vm", "create", "m"], 4, &["machine m"])?;
    suite.ok(&["disk", "create", "d", "--size", "1M"])?;
    refused(&suite, &["disk", "create", "d", "--size", "1M"], 4, &["disk d"])?;
    refused(&suite, &["disk", "snapshot", "create", "d", "../s"], 8, &["name", "1 to 63 of the characters", "not \"../s\""])?;
    refused(&suite, &["disk", "snapshot", "rollback", "d", "s"], 3, &["snapshot s of disk d"])?;
    refused(&suite, &["disk", "resize", "d", "--size", "512"], 8, &["disk d"])?;
    suite.ok(&["vm", "set", "m", "--disk", "d"])?;
    refused(&suite, &["disk", "delete", "d"], 5, &["disk d"])?;
    suite.ok(&["disk", "create", "e", "--size", "1M"])?;
    refused(&suite, &["disk", "rename", "e", "d"], 4, &["disk d", "name"])?;
    refused(&suite, &["disk", "rename", "e", "../d"], 8, &["name", "1 to 63 of the characters", "not \"../d\""])?;
    for name in ["g", "h"] {
        suite.ok(&["group", "create", name])?;
        suite.ok(&["user", "create", name, "--no-password"])?;
    }
    for kind in ["group", "user"] {
        refused(&suite, &[kind, "rename", "g", "h"], 4, &[&format!("{kind} h"), "name"])?;
        refused(&suite, &[kind, "rename", "g", "../g"], 8, &["name", "1 to 63 of the characters", "not \"../g\""])?;
        refused(&suite, &[kind, "rename", "no", "i"], 3, &[&format!("{kind} no")])?;
        let id = suite.json(&[kind, "rename", "g", "i"])?.remove(0)["id"].clone();
        let all = suite.json(&[kind, "list"])?;
        ensure!(id.is_string() && all.iter().any(|one| one["id"] == id && one["name"] == "i"), "{id}: {all:?}");
    }
    refused(&suite, &["disk", "snapshot", "rename", "d", "s", "t"], 3, &["snapshot s of disk d"])?;
    refused(&suite, &["vm", "snapshot", "rename", "m", "s", "t"], 3, &["snapshot s of machine m"])?;
    suite.ok(&["group", "rename", "default", "first"])?;
    suite.ok(&["group", "add", "h", "m"])?;
    ensure!(suite.ok(&["group", "remove", "m"])?.contains("first"));
    let long = "x".repeat(257);
    refused(&suite, &["disk", "set", "e", "--description", &long], 8, &["description", "257 bytes; at most 256"])?;
    suite.finish()
}

#[test]
fn bad_settings_are_named_with_their_limits() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["vm", "create", "m"])?;
    let set = |flag, value| ["vm", "set", "m", flag, value];
    for (flag, value, says) in [
        ("--tasks", "15", "limits.tasks is 15: it must be 16 to 65536"),
        ("--cpus-allowed", "0-1024", "not \"0-1024\""),
        ("--cpus-allowed", "0-1024", "numbers from 0 to 1023"),
        ("--write-iops", "100000001", "limits.write_iops is 100000001: it must be 1 to 100000000"),
        ("--priority", "20", "20 is not -20 to 19"),
        ("--serial", "2,speed=1", "a speed of 1 is none of 0 (as fast as it goes), 300"),
    ] {
        refused(&suite, &set(flag, value), 8, &[says])?;
    }
    refused(&suite, &["vm", "set", "m", "--serial", "2", "--serial", "2,nolog"], 8, &["serial", "port 2 is there twice"])?;
    for nic in 0..4 {
        suite.ok(&["nic", "create", &format!("n{nic}"), "--machine", "m"])?;
    }
    refused(&suite, &["nic", "create", "n4", "--machine", "m"], 9, &["machine m", "a machine has at most 4 NICs"])?;
    suite.finish()
}

#[test]
fn a_wiped_disk_has_nothing_of_what_was_in_it() -> Result<()> {
    let suite = suite()?;
    let image = suite.dir().join("image");
    std::fs::write(&image, vec![7; 1 << 20])?;
    let image = image.to_string_lossy().into_owned();
    suite.ok(&["disk", "import", "d", &image])?;
    suite.ok(&["disk", "rename", "d", "old"])?;
    let before = suite.json(&["disk", "list"])?;
    ensure!(before.len() == 1 && before[0]["name"] == "old" && before[0]["size"] == 1 << 20, "{before:?}");
    let shown = suite.json(&["disk", "wipe", "old"])?;
    ensure!(shown.iter().all(|d| d["size"] == 1 << 20 && d["sha256"] == ""), "{shown:?}");
    // What it occupies: a hole is less than what was there, however that was packed.
    let used = |disks: &[serde_json::Value]| disks[0]["allocated"].as_u64().context("no allocated");
    let after = suite.json(&["disk", "show", "old"])?;
    ensure!(used(&before)? > used(&after)?, "{before:?}, wiped: {after:?}");
    let mut files = std::fs::read_dir(suite.state.join("disks"))?;
    let file = std::fs::read(files.next().context("no file")??.path())?;
    ensure!(file.len() == 1 << 20 && file.iter().all(|byte| *byte == 0) && files.next().is_none());
    suite.finish()
}

#[test]
fn hostile_images_are_refused_and_leave_nothing() -> Result<()> {
    let suite = suite()?;
    let file = |name: &str| suite.dir().join(name).to_string_lossy().into_owned();
    let qemu_img = |args: &[&str]| Command::new("qemu-img").args(args).output();
    if qemu_img(&["--version"]).is_err() {
        skip!("qemu-img is not installed");
    }
    qemu_img(&["create", "-q", "-f", "qcow2", &file("base.qcow2"), "16M"])?;
    qemu_img(&["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", &file("backed.qcow2"), "16M"])?;
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &format!("data_file={}", file("data")), &file("data.qcow2"), "16M"])?;
    let whole = std::fs::read(file("base.qcow2"))?;
    std::fs::write(file("cut.qcow2"), &whole[..200])?;
    let mut wild = whole.clone();
    wild[24..32].fill(0xff);
    std::fs::write(file("wild.qcow2"), wild)?;
    refused(&suite, &["disk", "import", "a", &file("backed.qcow2")], 8, &["names another file"])?;
    refused(&suite, &["disk", "import", "b", &file("data.qcow2")], 8, &["names another file"])?;
    refused(&suite, &["disk", "import", "c", &file("cut.qcow2")], 8, &["image"])?;
    refused(&suite, &["disk", "import", "d", &file("wild.qcow2")], 8, &["disk d", "18446744073709551615"])?;
    let wrong = "00".repeat(32);
    refused(&suite, &["disk", "import", "e", &file("base.qcow2"), "--sha256", &wrong], 8, &["checksum"])?;
    ensure!(suite.json(&["disk", "list"])?.is_empty());
    ensure!(std::fs::read_dir(suite.state.join("disks"))?.next().is_none(), "files stay in disks/");
    suite.ok(&["disk", "import", "f", &file("base.qcow2"), "--kind", "qcow2"])?;
    suite.finish()
}

#[test]
fn a_running_machines_disk_cannot_be_deleted_cloned_or_given_away() -> Result<()> {
    let suite = suite()?;
    suite.import_guest()?;
    suite.ok(&["disk", "create", "data", "--size", "8M"])?;
    suite.define("a", &["--disk", "data"])?;
    suite.define("b", &["--disk", "data"])?;
    suite.boot("a")?;
    refused(&suite, &["vm", "start", "b"], 5, &["data"])?;
    refused(&suite, &["disk", "delete", "data"], 5, &["data"])?;
    refused(&suite, &["disk", "clone", "data", "copy"], 5, &["data"])?;
    refused(&suite, &["vm", "delete", "a"], 5, &["machine a"])?;
    suite.ok(&["vm", "kill", "a"])?;
    suite.ok(&["disk", "clone", "data", "copy"])?;
    suite.finish()
}

#[test]
fn a_missing_hypervisor_or_firmware_is_said_and_nothing_starts() -> Result<()> {
    let suite = suite()?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.ok(&["vm", "create", "efi"])?;
    let firmware = suite.state.join("cell/root").join(platform::FIRMWARE);
    // Not every host has it.
    ensure!(std::fs::remove_file(&firmware).is_ok() || !firmware.exists());
    refused(&suite, &["vm", "start", "efi"], 11, &["firmware", "skep doctor"])?;
    std::fs::remove_file(suite.state.join("cell/root").join(platform::HYPERVISOR))?;
    refused(&suite, &["vm", "start", "m"], 11, &["hypervisor", "skep doctor"])?;
    ensure!(suite.state_of("m")? != "running");
    suite.finish()
}

#[test]
fn a_full_disk_fails_the_import_and_leaves_nothing() -> Result<()> {
    if !is_root() {
        skip!("mounts a small file system, so root");
    }
    let suite = Suite::prepare(Mode::Root)?;
    let disks = suite.state.join("disks");
    std::fs::create_dir(&disks)?;
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "skep-test"]).arg(&disks).status()?;
    ensure!(mount.success());
    suite.up()?;
    let result = (|| {
        refused(&suite, &["disk", "import", "k", &guest()?.join("disk.img").to_string_lossy()], 9, &["disk k", "space"])?;
        ensure!(std::fs::read_dir(&disks)?.next().is_none(), "files stay in disks/");
        ensure!(suite.json(&["disk", "list"])?.is_empty());
        suite.ok(&["disk", "create", "small", "--size", "1M"]).map(drop)
    })();
    suite.ok(&["down"])?;
    let unmount = Command::new("umount").arg(&disks).status()?;
    result?;
    ensure!(unmount.success());
    suite.finish()
}

#[test]
fn one_trace_id_runs_through_every_process_of_one_action() -> Result<()> {
    let suite = suite()?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    let started = suite.json(&["vm", "start", "m"])?;
    let trace = started[0]["trace"].as_str().unwrap_or_default().to_owned();
    ensure!(trace.len() == 16, "{started:?}");
    for service in ["api-frontend", "broker", "storage-helper", "vm-runner"] {
        let log = std::fs::read_to_string(suite.state.join(format!("logs/{service}.log")))?;
        ensure!(log.contains(&trace), "trace {trace} is not in {service}.log:\n{log}");
    }
    let acts = suite.ok(&["audit", "log"])?;
    ensure!(acts.lines().any(|l| l.contains(&trace) && l.contains("MakeCell")), "{acts}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_doctor_in_a_chroot_advises_to_leave_it() -> Result<()> {
    if !is_root() || !platform::NAMESPACES {
        skip!("makes a chroot without namespaces, so it needs root, on a host that has them");
    }
    let dir = tempfile::tempdir()?;
    let mount = Command::new("mount").args(["--bind", "/"]).arg(dir.path()).status()?;
    ensure!(mount.success());
    let skep = skep_tests::programs().join("skep");
    let output = Command::new("chroot").arg(dir.path()).arg(skep).args(["--json", "doctor"]).output();
    let unmount = Command::new("umount").arg(dir.path()).status()?;
    let said = String::from_utf8_lossy(&output?.stdout).into_owned();
    ensure!(unmount.success());
    let line = said.lines().find(|line| line.contains("user namespaces")).unwrap_or_default();
    ensure!(line.contains("chroot") && !line.contains("sysctl"), "{said}");
    Ok(())
}

#[test]
fn a_switch_gets_only_uplinks_that_the_starter_of_the_suite_gave() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::prepare(Mode::Root)?;
    let tap = platform::HostTap::make()?;
    let name = tap.name.clone();
    suite.up()?;
    refused(&suite, &["switch", "create", "wan", "--uplink", &name], 6, &[&name, "--uplinks"])?;
    ensure!(suite.json(&["switch", "list"])?.is_empty());
    let (_, message) = suite.fails(&["up", "--uplinks", &name])?;
    ensure!(message.contains("up already"), "{message}");
    suite.ok(&["down"])?;
    suite.ok(&["up", "--uplinks", &name])?;
    let uplinks = suite.json(&["host", "show"])?[0]["uplinks"].clone();
    ensure!(uplinks.as_array().is_some_and(|all| all.len() == 1) && uplinks[0]["name"] == name, "{uplinks}");
    suite.ok(&["switch", "create", "wan", "--uplink", &name])?;
    // It is kept for later starts, until it is taken back.
    suite.ok(&["down"])?;
    suite.up()?;
    suite.ok(&["switch", "delete", "wan"])?;
    // Taken from a switch, it is another's to have; what may not be had leaves all as it was.
    suite.ok(&["switch", "create", "lan"])?;
    suite.ok(&["switch", "create", "wan", "--uplink", &name])?;
    refused(&suite, &["switch", "set", "lan", "--uplink", &name], 5, &[&name, "member"])?;
    suite.ok(&["switch", "set", "wan", "--uplink", "none", "--description", "to the world"])?;
    suite.ok(&["switch", "set", "lan", "--uplink", &name])?;
    let shown = suite.json(&["switch", "show", "wan"])?;
    ensure!(shown.iter().all(|s| s["uplink"] == "" && s["description"] == "to the world"), "{shown:?}");
    suite.ok(&["switch", "rename", "lan", "office"])?;
    suite.ok(&["nic", "create", "n", "--switch", "office"])?;
    suite.ok(&["nic", "set", "n", "--switch", "wan", "--mac", "02:00:5e:00:53:07"])?;
    suite.ok(&["nic", "clone", "n", "n2"])?;
    suite.ok(&["nic", "rename", "n", "n1"])?;
    let shown = suite.json(&["nic", "list"])?;
    let seen: Vec<_> =
        shown.iter().map(|n| (n["name"].as_str(), n["switch"].as_str(), n["mac"] == "02:00:5e:00:53:07")).collect();
    ensure!(seen == [(Some("n1"), Some("wan"), true), (Some("n2"), Some("wan"), false)], "{shown:?}");
    for nic in ["n1", "n2"] {
        suite.ok(&["nic", "delete", nic])?;
    }
    for switch in ["office", "wan"] {
        suite.ok(&["switch", "delete", switch])?;
    }
    suite.ok(&["down"])?;
    suite.ok(&["up", "--uplinks", "none"])?;
    refused(&suite, &["switch", "create", "wan", "--uplink", &name], 6, &[&name])?;
    ensure!(suite.json(&["host", "show"])?[0]["uplinks"] == serde_json::json!([]));
    drop(tap);
    suite.finish()
}
