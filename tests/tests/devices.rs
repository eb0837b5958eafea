//! Devices that a machine can have beside the usual ones, as its guest finds them, in a whole suite.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

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
    suite.ok(&["disk", "create", "fast", "--size", "8M"])?;
    let fast = ["--disk", "fast,nocache,sync,slot=20"];
    suite.define("m", &[&["--disk", "scsi,scsi", "--disk", "sata,ahci", "--disk", "initrd,cd"], &fast[..]].concat())?;
    let show = suite.json(&["vm", "show", "m"])?;
    let disks: Vec<_> = show[0]["disks"].as_array().into_iter().flatten().collect();
    let said: Vec<_> = disks.iter().map(|d| (d["controller"].as_str().unwrap_or_default(), d["read_only"] == true)).collect();
    ensure!(said == [("virtio_scsi", false), ("ahci", false), ("ahci_cd", true), ("virtio_blk", false)], "{said:?}");
    ensure!(
        (&disks[3]["no_cache"], &disks[3]["sync"], &disks[3]["slot"]) == (&true.into(), &true.into(), &20.into()),
        "{show:?}"
    );
    suite.boot("m")?;
    let write = "until [ -b /dev/sda ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/sda bs=1M count=2 conv=fsync 2>/dev/null; echo written-$?";
    suite.guest_runs("m", write, "written-0")?;
    let stats = suite.json(&["vm", "stats", "m"])?;
    ensure!(stats[0]["disks"][0]["write_bytes"] == 2 << 20, "{stats:?}");
    // Where it was put, with a cache that keeps no write back, and past the host's.
    suite.guest_runs("m", "cat /sys/bus/pci/devices/0000:00:14.0/virtio*/block/*/queue/write_cache", "write through")?;
    if is_root() {
        let id = suite.json(&["disk", "show", "fast"])?[0]["id"].as_str().context("no id")?.to_owned();
        ensure!(open_flags(suite.pids("hypervisor")?[0], &id)?.iter().any(|flags| flags & 0o40000 != 0), "no O_DIRECT");
    }
    let (_, message) = suite.fails(&["vm", "set", "m", "--disk", "sata,ahci,slot=9"])?;
    ensure!(message.contains("its controller has"), "{message}");
    suite.ok(&["vm", "kill", "m"])?;
    let (code, message) = suite.fails(&["vm", "set", "m", "--disk", "scsi,floppy"])?;
    ensure!(code == 2 || message.contains("none of virtio, nvme, ahci, cd, scsi, ro, nocache"), "{code} {message}");
    suite.finish()
}

#[test]
fn a_guest_reads_a_disk_that_is_read_only_and_cannot_write_to_it() -> Result<()> {
    let suite = suite()?;
    let file = suite.dir().join("file");
    let held = [&b"held-by-nobody\n"[..], &[b'.'; (1 << 20) - 15]].concat();
    std::fs::write(&file, &held)?;
    // QEMU's NVMe does not tell its guest, whose writes fail all the same.
    let seats =
        [("on-virtio", "virtio", "/dev/vda", 1), ("on-scsi", "scsi", "/dev/sda", 1), ("on-nvme", "nvme", "/dev/nvme0n1", 0)];
    let mut args = Vec::new();
    for (name, controller, ..) in seats {
        suite.ok(&["disk", "import", name, &file.to_string_lossy()])?;
        args.extend(["--disk".to_owned(), format!("{name},{controller},ro")]);
    }
    // One beside them that is not: the guest can write.
    suite.ok(&["disk", "create", "free", "--size", "1M"])?;
    args.extend(["--disk".to_owned(), "free".to_owned()]);
    suite.define("m", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    suite.boot("m")?;
    for (name, _, device, told) in seats {
        suite.guest_runs("m", &format!("until [ -b {device} ]; do sleep 0.1; done; head -n 1 {device}"), "held-by-nobody")?;
        let block = device.trim_start_matches("/dev/");
        suite.guest_runs("m", &format!("echo {name}-is-$(cat /sys/block/{block}/ro)"), &format!("{name}-is-{told}"))?;
        let write = format!("dd if=/dev/zero of={device} bs=4096 count=1 conv=fsync,notrunc 2>/dev/null; echo {name}-$?");
        suite.guest_runs("m", &write, &format!("{name}-1"))?;
        // Nor when its kernel is told that it may: the disk itself refuses.
        suite.guest_runs("m", &format!("blockdev --setrw {device}; {write}"), &format!("{name}-1"))?;
    }
    suite.guest_runs(
        "m",
        "dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync,notrunc 2>/dev/null; echo free-$?",
        "free-0",
    )?;
    if is_root() {
        let id = suite.json(&["disk", "show", "on-virtio"])?[0]["id"].as_str().context("no id")?.to_owned();
        let flags = open_flags(suite.pids("hypervisor")?[0], &id)?;
        ensure!(!flags.is_empty() && flags.iter().all(|flags| flags & 0o3 == 0), "opened for more than reading: {flags:?}");
    }
    suite.ok(&["vm", "kill", "m"])?;
    for (name, ..) in seats {
        let out = suite.dir().join(name);
        suite.ok(&["disk", "export", name, &out.to_string_lossy()])?;
        ensure!(std::fs::read(&out)? == held, "{name} was written to");
    }
    suite.finish()
}

/// The flags of a process's descriptors of a file that has this in its name (proc(5), fdinfo).
fn open_flags(pid: i32, name: &str) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if !std::fs::read_link(entry.path()).is_ok_and(|path| path.to_string_lossy().contains(name)) {
            continue;
        }
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).context("no flags")?;
        all.push(u32::from_str_radix(flags.trim(), 8)?);
    }
    Ok(all)
}

#[test]
fn several_disks_hang_on_a_controller_with_a_name() -> Result<()> {
    let suite = suite()?;
    for (name, size) in [("a", "8M"), ("b", "12M"), ("c", "16M"), ("d", "20M"), ("e", "24M")] {
        suite.ok(&["disk", "create", name, "--size", size])?;
    }
    let controllers = ["--controller", "sata,ahci", "--controller", "fast,nvme,slot=9", "--controller", "bus,scsi"];
    let disks = ["--disk", "a,on=sata,port=3", "--disk", "b,on=fast", "--disk", "c,on=fast", "--disk", "d,on=bus", "--disk"];
    suite.define("m", &[&controllers[..], &disks, &["initrd,on=bus,cd", "--disk", "e,on=bus,port=5"]].concat())?;
    let show = suite.json(&["vm", "show", "m"])?;
    let seats: Vec<_> = show[0]["disks"].as_array().into_iter().flatten().map(|d| (&d["on"], &d["port"])).collect();
    let want = [("sata", 3), ("fast", 0), ("fast", 1), ("bus", 0), ("bus", 1), ("bus", 5)];
    ensure!(seats.iter().zip(want).all(|((on, port), (bus, at))| **on == bus && **port == at), "{show:?}");
    ensure!(show[0]["pci"] == serde_json::json!({"fast": 9, "sata": 20, "bus": 21, "rng": 3, "screen": 2, "usb": 4}), "{show:?}");
    suite.boot("m")?;
    // Each by its controller's place, its seat, and its size in sectors. The guest's kernel has no driver for AHCI: of that it sees the
    // controller.
    let wait = "cd /sys/bus/pci/devices; until [ -b /dev/nvme0n2 ] && [ -b /dev/sr0 ] && ls 0000:00:15.0/virtio*/host*/target*/*:0:5:0/block; do sleep 0.1; done; echo there-$((6*7))";
    suite.guest_runs("m", wait, "there-42")?;
    let sizes = "echo $(cat 0000:00:09.0/nvme/nvme*/nvme*n1/size 0000:00:09.0/nvme/nvme*/nvme*n2/size 0000:00:15.0/virtio*/host*/target*/*:0:0:0/block/*/size 0000:00:15.0/virtio*/host*/target*/*:0:5:0/block/*/size 0000:00:14.0/class)-end";
    let mut want: Vec<String> = [12, 16, 20, 24].iter().map(|mib: &u32| (mib * 2048).to_string()).collect();
    want.push("0x010601".to_owned());
    suite.guest_runs("m", sizes, &format!("{}-end", want.join(" ")))?;
    suite.guest_runs("m", "ls -d 0000:00:15.0/virtio*/host*/target*/*:0:1:0/block/sr0 >/dev/null; echo cd-$?", "cd-0")?;
    if is_root() {
        suite.ok(&["audit"])?;
    }
    suite.ok(&["vm", "kill", "m"])?;
    for (setting, value, wrong) in [
        ("--controller", "sata,ide", "none of ahci, scsi, nvme, virtio"),
        ("--controller", "sata,ahci,slot=31", "not 1 to 30"),
        ("--disk", "a,on=none", "the machine has no controller none"),
        ("--disk", "a,on=fast,cd", "controller fast holds no CDs"),
        ("--disk", "a,on=sata,port=6", "0 to 5"),
        ("--disk", "a,port=1", "`on` names none"),
    ] {
        let (_, message) = suite.fails(&["vm", "set", "m", setting, value])?;
        ensure!(message.contains(wrong), "{setting} {value}: {message}");
    }
    let (_, message) = suite.fails(&["vm", "set", "m", "--no-controllers"])?;
    ensure!(message.contains("which goes"), "{message}");
    suite.ok(&["vm", "set", "m", "--no-controllers", "--disk", "a"])?;
    suite.finish()
}

#[test]
fn iso_images_are_a_library_and_go_into_drives() -> Result<()> {
    let suite = suite()?;
    let image = suite.dir().join("disc.iso");
    std::fs::write(&image, [&[0; 4096][..], b"a disc of ours", &[0; 4082]].concat())?;
    let image = image.to_string_lossy().into_owned();
    suite.ok(&["iso", "import", "disc", &image])?;
    let listed = suite.json(&["iso", "list"])?;
    ensure!(listed.len() == 1 && listed[0]["name"] == "disc" && listed[0]["iso"] == true, "{listed:?}");
    let (_, message) = suite.fails(&["iso", "delete", "initrd"])?;
    ensure!(message.contains("it is no ISO image"), "{message}");
    let (_, message) = suite.fails(&["disk", "resize", "disc", "--size", "1M"])?;
    ensure!(message.contains("it stays as it is"), "{message}");
    suite.define("m", &["--controller", "bus,scsi"])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--disk", "disc"])?;
    ensure!(message.contains("which machines only read"), "{message}");
    suite.ok(&["iso", "attach", "m", "disc", "--on", "bus"])?;
    suite.ok(&["iso", "rename", "disc", "ours"])?;
    ensure!(suite.json(&["iso", "show", "ours"])?[0]["machines"] == serde_json::json!(["m"]), "not attached");
    let (_, message) = suite.fails(&["iso", "delete", "ours"])?;
    ensure!(message.contains("machine m has it"), "{message}");
    suite.boot("m")?;
    let read = "until [ -b /dev/sr0 ]; do sleep 0.1; done; dd if=/dev/sr0 bs=2048 skip=2 count=1 2>/dev/null | grep -ao 'disc of [a-z]*'";
    suite.guest_runs("m", read, "disc of ours")?;
    suite.ok(&["iso", "eject", "m", "ours"])?;
    suite.guest_runs("m", "dd if=/dev/sr0 bs=2048 count=1 2>/dev/null; echo read-$?", "read-1")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "set", "m", "--no-disks"])?;
    suite.ok(&["iso", "delete", "ours"])?;
    ensure!(suite.json(&["iso", "list"])?.is_empty(), "it is still there");
    suite.finish()
}

#[test]
fn devices_are_where_they_were_put() -> Result<()> {
    let suite = suite()?;
    let screen = ["--screen-size", "1280x1024", "--keyboard", "de", "--tablet", "off"];
    let rest = ["--fw-cfg", "opt/org.example/a=50% of b, c", "--place", "rng=30", "--place", "screen=1"];
    suite.define("m", &[&screen[..], &rest].concat())?;
    for (place, wrong) in [
        ("rng=1", "places.rng is 1: it must be another than that of screen"),
        ("rng=31", "not 1 to 30"),
        ("lpc=3", "a device is screen"),
        ("disk0=9", "its place is the disk's or NIC's own"),
    ] {
        let (_, message) = suite.fails(&["vm", "set", "m", "--place", "screen=1", "--place", place])?;
        ensure!(message.contains(wrong), "{place}: {message}");
    }
    if is_root() {
        suite.ok(&["nic", "create", "eth", "--model", "e1000", "--slot", "21", "--machine", "m"])?;
        let (_, message) = suite.fails(&["nic", "set", "eth", "--slot", "30"])?;
        ensure!(message.contains("places.nic0 is 30: it must be another than that of rng"), "{message}");
    }
    let show = suite.json(&["vm", "show", "m"])?;
    let mut pci = serde_json::json!({"screen": 1, "rng": 30});
    if is_root() {
        pci["nic0"] = 21.into();
    }
    ensure!(show[0]["pci"] == pci, "{show:?}");
    let drawn = serde_json::json!({"width": 1280, "height": 1024, "wait": false, "keyboard": "de", "tablet": false});
    ensure!(show[0]["screen_properties"] == drawn, "{show:?}");
    suite.boot("m")?;
    // Display, virtio's random numbers; nothing where they usually are, and no tablet.
    let classes = "cd /sys/bus/pci/devices; for d in 01 02 03 04 1e; do echo $d:$(cat 0000:00:$d.0/class 2>/dev/null); done; echo end-$((6*7))";
    let seen = suite.guest_runs("m", classes, "end-42")?;
    for want in ["01:0x030000", "02:", "03:", "04:", "1e:0x00ff00"] {
        ensure!(seen.lines().any(|line| line.trim_start_matches("# ").trim() == want), "{want}: {seen}");
    }
    if is_root() {
        suite.guest_runs("m", "cat /sys/bus/pci/devices/0000:00:15.0/device", "0x100e")?;
    }
    suite.guest_runs("m", "cat /sys/firmware/qemu_fw_cfg/by_name/opt/org.example/a/raw; echo", "50% of b, c")?;
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    // What this hypervisor has not is said with its field and its reason, and nothing starts.
    for (setting, value, wrong) in [
        ("--keyboard", "uk", "screen.keyboard asks for the layout uk"),
        ("--screen-wait", "on", "holds no guest until somebody looks"),
        ("--host-bridge", "amd", "Intel's always"),
        ("--exit-on-halt", "off", "halt_poll_ns"),
        ("--strict-msr", "on", "ignore_msrs"),
        ("--x2apic", "on", "begins as an xAPIC"),
        ("--acpi", "off", "makes tables of its own"),
    ] {
        let name = setting.trim_start_matches('-');
        suite.define(name, &[setting, value])?;
        let (_, message) = suite.fails(&["vm", "start", name])?;
        ensure!(message.contains(wrong), "{setting}: {message}");
        suite.ok(&["vm", "delete", name])?;
    }
    let host = suite.json(&["host", "show"])?;
    let has = |list: &str, word: &str| host[0][list].as_array().is_some_and(|all| all.iter().any(|v| *v == word));
    ensure!(has("abilities", "fw-cfg") && has("keyboards", "de-ch") && !has("abilities", "screen-wait"), "{host:?}");
    suite.ok(&["vm", "set", "m", "--no-fw-cfg", "--no-places", "--keyboard", "none"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    ensure!(show[0]["fw_cfg"] == serde_json::json!({}) && show[0]["pci"]["rng"] == 3, "{show:?}");
    suite.finish()
}

#[test]
fn devices_are_functions_of_one_device_number() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["disk", "create", "first", "--size", "8M"])?;
    suite.ok(&["disk", "create", "other", "--size", "12M"])?;
    let disks = ["--disk", "first,slot=20", "--disk", "other,slot=20.2", "--controller", "sata,ahci,slot=20.3"];
    suite.define("m", &[&disks[..], &["--place", "rng=20.7", "--tablet", "off"]].concat())?;
    let show = suite.json(&["vm", "show", "m"])?;
    let pci = serde_json::json!({"screen": 2, "disk0": 20, "disk1": "20.2", "sata": "20.3", "rng": "20.7"});
    ensure!(show[0]["pci"] == pci && show[0]["disks"][1]["slot"] == "20.2", "{show:?}");
    for (setting, value, wrong) in [
        ("--place", "rng=20.2", "places.disk1 is 20.2: it must be another than that of rng"),
        ("--place", "rng=21.1", "nothing is at 21"),
        ("--place", "rng=20.8", "8 is not 0 to 7"),
        ("--place", "rng=31.1", "31 is not 1 to 30"),
        ("--disk", "other,slot=20.2", "function 0 something has: nothing is at 20"),
    ] {
        let (_, message) = suite.fails(&["vm", "set", "m", setting, value])?;
        ensure!(message.contains(wrong), "{setting} {value}: {message}");
    }
    if is_root() {
        suite.ok(&["nic", "create", "eth", "--slot", "20.1", "--machine", "m"])?;
    }
    suite.boot("m")?;
    // What the guest finds there: its kernel looks for others only where the first says that there are some.
    let devices = "cd /sys/bus/pci/devices; for d in 0000:00:14.*; do echo $d:$(cat $d/class $d/virtio*/block/*/size 2>/dev/null); done; echo end-$((6*7))";
    let seen = suite.guest_runs("m", devices, "end-42")?;
    let sectors = |mib: u32| format!("0x010000 {}", mib * 2048);
    let mut want = vec![(0, sectors(8)), (2, sectors(12)), (3, "0x010601".to_owned()), (7, "0x00ff00".to_owned())];
    want.extend(is_root().then(|| (1, "0x020000".to_owned())));
    for (function, what) in &want {
        let line = format!("0000:00:14.{function}:{what}");
        ensure!(seen.lines().any(|said| said.trim_start_matches("# ").trim() == line), "{line}: {seen}");
    }
    suite.ok(&["vm", "kill", "m"])?;
    if is_root() {
        suite.ok(&["nic", "set", "eth", "--slot", "0"])?;
        ensure!(suite.json(&["vm", "show", "m"])?[0]["pci"]["nic0"] == 16, "not where it usually is");
    }
    // The first cannot go while others are there; all go at once.
    suite.ok(&["vm", "set", "m", "--no-places", "--no-controllers", "--disk", "other,slot=20"])?;
    ensure!(suite.json(&["vm", "show", "m"])?[0]["pci"]["disk0"] == 20, "not alone there");
    suite.finish()
}

#[test]
fn a_nic_is_what_it_was_made_or_set_to() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.ok(&["vm", "create", "m"])?;
    suite.ok(&["nic", "create", "a", "--machine", "m"])?;
    suite.ok(&["nic", "create", "b", "--model", "e1000", "--slot", "16"])?;
    let (_, message) = suite.fails(&["nic", "attach", "b", "m"])?;
    ensure!(message.contains("places.nic1 is 16: it must be another than that of nic0"), "{message}");
    suite.ok(&["nic", "set", "b", "--slot", "0"])?;
    suite.ok(&["nic", "attach", "b", "m"])?;
    suite.ok(&["nic", "set", "a", "--model", "e1000"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    let models: Vec<_> = show[0]["nics"].as_array().into_iter().flatten().map(|nic| nic["model"].clone()).collect();
    ensure!(models == ["e1000", "e1000"] && show[0]["pci"]["nic1"] == 17, "{show:?}");
    let (code, _) = suite.fails(&["nic", "set", "a"])?;
    ensure!(code == 2, "{code}");
    suite.finish()
}

/// A boot sector that writes to the first serial port: at its end 512 bytes and the mark of one that can be booted.
fn boot_sector(text: &str) -> Vec<u8> {
    let code = [
        0x31, 0xc0, 0x8e, 0xd8, 0xfc, 0xbe, 0x20, 0x7c, // ds:si is what follows the code
        0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, // until the port takes a byte
        0xac, 0x84, 0xc0, 0x74, 0x06, // the next, until there is none
        0xba, 0xf8, 0x03, 0xee, 0xeb, 0xed, // out with it
        0xf4, 0xeb, 0xfd, // halt
    ];
    let mut sector = vec![0; 1 << 20];
    sector[..code.len()].copy_from_slice(&code);
    sector[32..32 + text.len()].copy_from_slice(text.as_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn a_bios_boots_the_first_disk() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let path = suite.dir().join("sector");
    std::fs::write(&path, boot_sector("skep-by-bios\r\n"))?;
    suite.ok(&["disk", "import", "first", &path.to_string_lossy()])?;
    std::fs::remove_file(&path)?;
    suite.ok(&["disk", "create", "second", "--size", "1M"])?;
    suite.ok(&["vm", "create", "b", "--bios", "--memory", "64M", "--disk", "first,nvme", "--disk", "second"])?;
    ensure!(suite.json(&["vm", "show", "b"])?[0]["boot"] == "bios");
    suite.ok(&["vm", "start", "b"])?;
    suite.expect("b", "skep-by-bios")?;
    suite.ok(&["vm", "kill", "b"])?;
    suite.finish()
}

#[test]
fn a_cd_is_taken_out_while_the_guest_runs() -> Result<()> {
    let suite = suite()?;
    for name in ["disc", "setup"] {
        let path = suite.dir().join(name);
        std::fs::write(&path, format!("{name:<32768}"))?;
        suite.ok(&["disk", "import", name, &path.to_string_lossy()])?;
        std::fs::remove_file(&path)?;
    }
    suite.define("m", &["--controller", "bus,scsi", "--disk", "disc,cd", "--disk", "setup,on=bus,cd,eject-once"])?;
    let drives = || -> Result<Vec<bool>> {
        let show = suite.json(&["vm", "show", "m"])?;
        Ok(show[0]["disks"].as_array().into_iter().flatten().map(|disk| disk["ejected"] == true).collect())
    };
    let pending = || -> Result<String> { Ok(suite.json(&["vm", "show", "m"])?[0]["pending"].to_string()) };
    ensure!(drives()? == [false, false]);
    suite.boot("m")?;
    // From the next boot on.
    ensure!((drives()?, pending()?) == (vec![false, true], "[\"disks[1]\"]".to_owned()), "{:?} {}", drives()?, pending()?);
    // This run's guest has it still. Of AHCI its kernel has no driver: the other drive it does not see.
    let read = "until [ -b /dev/sr0 ]; do sleep 0.1; done; dd if=/dev/sr0 bs=2048 count=1 | tr a-z A-Z";
    suite.guest_runs("m", read, "SETUP")?;
    let id = suite.json(&["disk", "show", "disc"])?[0]["id"].as_str().context("no id")?.to_owned();
    let open = |suite: &Suite| Ok::<_, anyhow::Error>(open_flags(suite.pids("hypervisor")?[0], &id)?.len());
    let before = if is_root() { open(&suite)? } else { 0 };
    suite.ok(&["vm", "eject", "m", "disc"])?;
    ensure!(!is_root() || open(&suite)? < before, "the drive holds it still");
    ensure!((drives()?, pending()?) == (vec![true, true], "[\"disks[1]\"]".to_owned()), "{:?} {}", drives()?, pending()?);
    let (_, message) = suite.fails(&["vm", "eject", "m", "initrd"])?;
    ensure!(message.contains("does not have it"), "{message}");
    suite.guest_runs("m", skep_tests::platform::REBOOT, "skep-guest ready")?;
    suite.ok(&["vm", "eject", "m", "disc"])?;
    // The next run's finds the drive, and nothing in it.
    suite.guest_runs("m", read, "No medium found")?;
    ensure!(pending()? == "[]", "{}", pending()?);
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "start", "m"])?;
    suite.ok(&["vm", "kill", "m"])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--disk", "disc,nvme,ejected"])?;
    ensure!(message.contains("only a CD"), "{message}");
    suite.finish()
}

#[test]
fn a_program_in_the_guest_is_talked_with_over_a_channel() -> Result<()> {
    let suite = suite()?;
    suite.define("m", &["--sound", "on", "--channel", "org.example.a", "--channel", "org.example.b"])?;
    let (code, message) = suite.fails(&["vm", "channel", "m", "org.example.b"])?;
    ensure!(code == 5 && message.contains("does not run"), "{code} {message}");
    suite.boot("m")?;
    let card = "cat /sys/bus/pci/devices/0000:00:07.0/class";
    suite.guest_runs("m", card, "0x040300")?;
    let echo =
        "p=$(echo /dev/vport*p2); exec 5<>$p; while :; do if read -r l <&5; then echo \"got $l\" >&5; else sleep 0.1; fi; done &";
    suite.guest_runs("m", echo, "#")?;
    for word in ["first", "second"] {
        let mut talk = suite.command(&["vm", "channel", "m", "org.example.b", "--lines", "1", "--timeout", "60"]);
        let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        talk.stdin.take().context("no input")?.write_all(format!("{word}\n").as_bytes())?;
        let output = talk.wait_with_output()?;
        ensure!(output.status.success() && output.stdout == format!("got {word}\n").as_bytes(), "{output:?}");
        // Each end of the connection is closed before the next command is answered by the guest.
        suite.guest_runs("m", "echo $((6*7))-gone", "42-gone")?;
    }
    let mut talk = suite.command(&["vm", "channel", "m", "org.example.b", "--lines", "2", "--timeout", "120"]);
    let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut input, mut line) = (talk.stdin.take().context("no input")?, String::new());
    input.write_all(b"third\n")?;
    let mut answers = BufReader::new(talk.stdout.take().context("no output")?);
    answers.read_line(&mut line)?;
    // While it is connected: what everybody holds is declared, and another is told.
    suite.ok(&["audit"])?;
    let (code, message) = suite.fails(&["vm", "channel", "m", "org.example.b"])?;
    ensure!(code == 5 && message.contains("another client"), "{code} {message}");
    input.write_all(b"fourth\n")?;
    answers.read_line(&mut line)?;
    ensure!(talk.wait()?.success() && line == "got third\ngot fourth\n", "{line}");
    let (code, message) = suite.fails(&["vm", "channel", "m", "org.example.c"])?;
    ensure!(code == 3 && message.contains("org.example.a, org.example.b"), "{code} {message}");
    suite.ok(&["vm", "kill", "m"])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--channel", "a/b"])?;
    ensure!(message.contains("channels"), "{message}");
    suite.ok(&["vm", "set", "m", "--no-channels", "--tpm", "on"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    ensure!(show[0]["channels"] == serde_json::json!([]) && show[0]["sound"] == true && show[0]["tpm"] == true, "{show:?}");
    let (_, message) = suite.fails(&["vm", "start", "m"])?;
    ensure!(message.contains("tpm asks for a TPM") && message.contains("swtpm"), "{message}");
    suite.finish()
}
