//! Devices of bhyve, as a FreeBSD guest finds them, in a whole suite.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, PATIENCE, Suite, is_root, platform, skip};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the guest, which has this host's kernel and a few of its modules, can have this driver.
fn has_driver(driver: &str, module: &str) -> Result<bool> {
    let in_kernel = Command::new("kldstat").args(["-q", "-m", driver]).status().context("kldstat")?.success();
    Ok(in_kernel || Path::new(&format!("/boot/kernel/{module}.ko")).exists())
}

/// The first bytes of a disk, as the host has them.
fn first_bytes(suite: &Suite, disk: &str, count: usize) -> Result<Vec<u8>> {
    let shown = suite.json(&["disk", "show", disk])?;
    let id = shown.first().and_then(|v| v["id"].as_str()).context("no id in disk show")?;
    let mut bytes = vec![0; count];
    std::fs::File::open(suite.state.join(format!("disks/{id}.raw")))?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Gives the guest what its kernel lacks; what it has already is no failure.
fn load(suite: &Suite, module: &str) -> Result<()> {
    suite.guest_runs("m", &format!("kldload /boot/kernel/{module}.ko; echo tried-$((6*7))"), "tried-42").map(drop)
}

/// Has the guest's shell know how to say with which word a disk begins.
const LABEL: &str = "label() { set -- $(dd if=$1 bs=2048 count=1 2>/dev/null); echo $1; }";

/// Asks the guest's kernel at which port of its controller each AHCI disk and CD is, by the word that it begins with.
fn ports(suite: &Suite, want: &[&str]) -> Result<()> {
    let port = "port() { dmesg | while read -r d at c rest; do [ \"$d $at\" != \"$1 at\" ] || sysctl -n dev.ahcich.${c#ahcich}.%location; done; }";
    let each = "for d in ada0 ada1 ada2 cd0 cd1; do [ ! -e /dev/$d ] || echo \"$(label /dev/$d):$(port $d).\"; done; echo asked-$((6*7))";
    let said = suite.guest_runs("m", &format!("{port}; {each}"), "asked-42")?;
    for one in want {
        ensure!(said.contains(&format!("{one}.")), "no {one}: {said}");
    }
    Ok(())
}

#[test]
fn disks_hang_on_the_controller_that_was_asked_for() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    for name in ["sata", "fast"] {
        suite.ok(&["disk", "create", name, "--size", "8M"])?;
    }
    // Sectors of a CD have 2048 bytes.
    let text = suite.dir().join("text");
    for (name, size) in [("disc", 32768), ("one", 32768), ("two", 49152), ("more", 32768)] {
        std::fs::write(&text, format!("{:<size$}", format!("skep-on-{name}")))?;
        suite.ok(&["disk", "import", name, &text.to_string_lossy()])?;
    }
    let usual = ["--disk", "sata,ahci", "--disk", "disc,cd", "--disk", "fast,nvme"];
    let bus = ["--controller", "bus,ahci,slot=20", "--disk", "one,on=bus,port=1", "--disk", "two,on=bus,port=4"];
    suite.define("m", &[&usual[..], &bus, &["--disk", "more,on=bus,port=5,cd"]].concat())?;
    suite.boot("m")?;
    // Places stay what they are (crates/machine/src/place.rs): AHCI at 5, the fourth disk at 8 + 3.
    suite.guest_runs("m", "/usr/sbin/pciconf -l", "pci0:0:5:0:\tclass=0x0106")?;
    suite.guest_runs("m", "/usr/sbin/pciconf -l", "pci0:0:11:0:\tclass=0x0108")?;
    // Three disks hang on the controller that has a name and a place, each with what it holds, and is written to as itself.
    suite.guest_runs("m", "/usr/sbin/pciconf -l", "pci0:0:20:0:\tclass=0x0106")?;
    let write = "for d in /dev/ada?; do l=$(label $d); echo by-guest-${l:-blank} | dd of=$d bs=512 conv=sync 2>/dev/null; done";
    suite.guest_runs("m", &format!("{LABEL}; {write}; echo wrote-$((6*7))"), "wrote-42")?;
    for (disk, want) in [("sata", "by-guest-blank\n"), ("one", "by-guest-skep-on-one\n"), ("two", "by-guest-skep-on-two\n")] {
        let holds = first_bytes(&suite, disk, want.len())?;
        ensure!(holds == want.as_bytes(), "{disk} holds {}", String::from_utf8_lossy(&holds));
    }
    let all = ["by-guest-blank:channel=1", "skep-on-disc:channel=2"];
    let named = ["by-guest-skep-on-one:channel=1", "by-guest-skep-on-two:channel=4", "skep-on-more:channel=5"];
    ports(&suite, &[&all[..], &named].concat())?;
    suite.guest_runs("m", "dd if=/dev/zero of=/dev/cd0 bs=2048 count=1 2>/dev/null || echo refused-$((6*7))", "refused-42")?;
    // What it is by default: a register that no processor has is read as nothing, and a processor that has nothing to do is let go.
    suite.guest_runs("m", "/usr/sbin/cpucontrol -m 0x1234 /dev/cpuctl0; echo none-$?", "none-0")?;
    let busy = platform::busy(&suite, "m", 3)?;
    ensure!(busy.of_one < 0.6, "it used too much of a processor: {busy:?}");
    if has_driver("pci/nvme", "nvme")? {
        load(&suite, "nvme")?;
        load(&suite, "nvd")?;
        let write = "for d in /dev/nvd0 /dev/nda0; do [ ! -e $d ] || echo by-nvme | dd of=$d bs=512 conv=sync 2>/dev/null; done; echo done-$?";
        suite.guest_runs("m", write, "done-0")?;
        ensure!(first_bytes(&suite, "fast", 8)? == b"by-nvme\n", "what the guest wrote is not on its NVMe disk");
    } else {
        eprintln!("the NVMe disk was seen by its place only: this host has no nvme(4) for its guest");
    }
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    // One goes, a CD is ejected, and what is behind them stays at its port.
    let fewer = ["--disk", "m-root", "--disk", "disc,cd", "--disk", "one,on=bus,cd,ejected", "--disk", "two,on=bus"];
    suite.ok(&[&["vm", "set", "m"], &fewer[..], &["--disk", "more,on=bus,cd"]].concat())?;
    suite.boot("m")?;
    suite.guest_runs("m", &format!("{LABEL}; echo knows-$((6*7))"), "knows-42")?;
    ports(&suite, &["skep-on-disc:channel=2", "by-guest-skep-on-two:channel=4", "skep-on-more:channel=5"])?;
    suite.ok(&["vm", "kill", "m"])?;
    let several = ["--controller", "few,nvme", "--disk", "m-root", "--disk", "one,on=few", "--disk", "two,on=few"];
    suite.ok(&[&["vm", "set", "m"], &several[..]].concat())?;
    let (_, message) = suite.fails(&["vm", "start", "m"])?;
    ensure!(message.contains("several disks on few") && message.contains("one namespace"), "{message}");
    suite.finish()
}

/// Has the guest, which has nothing but its shell, say a word for each PCI device whose line fits.
fn devices(fits: &str, word: &str) -> String {
    format!("/usr/sbin/pciconf -l | while read -r line; do case $line in {fits}) echo {word}-$((6*7));; esac; done")
}

#[test]
fn devices_are_where_they_were_put() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    for name in ["sata", "fast"] {
        suite.ok(&["disk", "create", name, "--size", "8M"])?;
    }
    let disks = ["--disk", "sata,ahci,sync", "--disk", "fast,nocache,sync,slot=20"];
    let screen = ["--screen-size", "1280x720", "--keyboard", "de", "--tablet", "off"];
    let board = ["--clock", "local", "--host-bridge", "amd", "--x2apic", "on", "--exit-on-pause", "off"];
    let places = ["--place", "ahci=21", "--place", "rng=30"];
    suite.define("m", &[&disks[..], &board, &places].concat())?;
    suite.ok(&[&["vm", "set", "m", "--screen", "on"], &screen[..]].concat())?;
    suite.ok(&["nic", "create", "eth", "--model", "e1000", "--slot", "22", "--machine", "m"])?;
    let (_, message) = suite.fails(&["nic", "set", "eth", "--slot", "21"])?;
    ensure!(message.contains("places.nic0 is 21: it must be another than that of ahci"), "{message}");
    suite.boot("m")?;
    // AMD's bridge, a disk of its own, SATA, Intel 82545, random numbers; nothing where those usually are.
    for (place, word) in
        [("0", "vendor=0x1022"), ("20", "vendor=0x1af4"), ("21", "class=0x0106"), ("22", "vendor=0x8086"), ("30", "")]
    {
        suite.guest_runs("m", &devices(&format!("*pci0:0:{place}:0:*{word}*"), "found"), "found-42")?;
    }
    let look = devices("*pci0:0:3:0:*|*pci0:0:4:0:*|*pci0:0:5:0:*", "usual") + "; echo looked-$((6*7))";
    let said = suite.guest_runs("m", &look, "looked-42")?;
    ensure!(!said.contains("usual-42"), "{said}");
    suite.guest_runs("m", "echo written-through | dd of=/dev/ada0 bs=512 conv=sync 2>/dev/null; echo wrote-$?", "wrote-0")?;
    ensure!(first_bytes(&suite, "sata", 15)? == b"written-through", "what the guest wrote is not on its SATA disk");
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    for (settings, wrong) in [
        (&["--bios"][..], "only inside a UEFI firmware"),
        (&["--screen", "on", "--keyboard", "en-gb"], "screen.keyboard asks for the layout en-gb"),
    ] {
        suite.define("wrong", &[])?;
        suite.ok(&[&["vm", "set", "wrong"], settings].concat())?;
        let (_, message) = suite.fails(&["vm", "start", "wrong"])?;
        ensure!(message.contains(wrong), "{settings:?}: {message}");
        suite.ok(&["vm", "delete", "wrong", "--disks"])?;
    }
    suite.finish()
}

#[test]
fn a_guest_reads_its_items_of_fw_cfg() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &["--fw-cfg", "opt/org.example/a=50% of b, c=d", "--fw-cfg", "opt/b=#e"])?;
    let shown = suite.json(&["host", "show"])?;
    let has = |list: &str| shown[0][list].as_array().is_some_and(|all| all.iter().any(|one| one == "fw-cfg"));
    // The host's own word, beside ours.
    let bhyve = std::fs::read("/usr/sbin/bhyve")?;
    let knows = bhyve.windows(11).any(|bytes| bytes == b"-f [name=]<");
    ensure!(has("abilities") == knows, "{shown:?}");
    if !knows {
        let (_, message) = suite.fails(&["vm", "start", "m"])?;
        ensure!(message.contains("that is installed has none to give"), "{message}");
        return suite.finish();
    }
    suite.boot("m")?;
    // Each begins and ends a line of its own: no byte is added. Before and after a reboot, which the runner makes of its own files.
    for turn in ["once", "again"] {
        let said = suite.guest_runs("m", &format!("fw-cfg; echo {turn}-$((6*7))"), &format!("{turn}-42"))?.replace('\r', "");
        let said = said.rsplit_once(&format!("echo {turn}-")).context("no echo")?.1;
        for want in ["\nopt/org.example/a=50% of b, c=d\n", "\nopt/b=#e\n"] {
            ensure!(said.contains(want), "{said:?}");
        }
        let reboot = ["vm", "console", "m", "--from-now", "--send", platform::REBOOT, "--expect", "skep-guest ready"];
        suite.ok(&[&reboot[..], &["--timeout", PATIENCE]].concat())?;
    }
    // No list of processes has what is in them.
    let pid = suite.pids("hypervisor")?.into_iter().next().context("no hypervisor")?;
    let line = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output()?;
    let line = String::from_utf8_lossy(&line.stdout).into_owned();
    ensure!(line.contains("bhyve") && !line.contains("50%"), "{line}");
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    // A machine without any has no such device.
    suite.ok(&["vm", "set", "m", "--no-fw-cfg"])?;
    suite.boot("m")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_cd_is_taken_out_between_two_boots_only() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let text = suite.dir().join("cd");
    std::fs::write(&text, format!("{:<32768}", "skep-on-cd"))?;
    suite.ok(&["disk", "import", "disc", &text.to_string_lossy()])?;
    suite.define("m", &["--disk", "disc,cd,eject-once"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "[ -e /dev/cd0 ] && echo there-$((6*7))", "there-42")?;
    let (_, message) = suite.fails(&["vm", "eject", "m", "disc"])?;
    ensure!(message.contains("cannot take a CD out while it runs"), "{message}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "[ -e /dev/cd0 ] || echo gone-$((6*7))", "gone-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

/// Whether the guest has what this is made of. The host's kernel may hold the file system; the guest has its kernel.
fn reads_cds() -> bool {
    Path::new("/sbin/mount_cd9660").exists() && has_driver("cd9660", "cd9660").unwrap_or(false)
}

#[test]
fn iso_images_are_a_library_and_go_into_drives() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let (tree, image) = (suite.dir().join("tree"), suite.dir().join("disc.iso"));
    std::fs::create_dir(&tree)?;
    std::fs::write(tree.join("readme"), "read from a disc of ours\n")?;
    let made = Command::new("makefs").args(["-t", "cd9660", "-o", "rockridge,label=OURS"]).arg(&image).arg(&tree).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    suite.ok(&["iso", "import", "disc", &image.to_string_lossy()])?;
    let listed = suite.json(&["iso", "list"])?;
    ensure!(listed.len() == 1 && listed[0]["name"] == "disc" && listed[0]["iso"] == true, "{listed:?}");
    let (_, message) = suite.fails(&["iso", "delete", "guest"])?;
    ensure!(message.contains("it is no ISO image"), "{message}");
    suite.define("m", &[])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--disk", "m-root", "--disk", "disc"])?;
    ensure!(message.contains("which machines only read"), "{message}");
    suite.ok(&["iso", "attach", "m", "disc"])?;
    suite.ok(&["iso", "rename", "disc", "ours"])?;
    ensure!(suite.json(&["iso", "show", "ours"])?[0]["machines"] == serde_json::json!(["m"]), "not attached");
    suite.boot("m")?;
    // The volume's label at its place (ECMA-119, 8.4), and what is in it.
    let label = "case $(dd if=/dev/cd0 bs=2048 skip=16 count=1 2>/dev/null) in *CD001*OURS*) echo label-$((6*7));; esac";
    suite.guest_runs("m", label, "label-42")?;
    if reads_cds() {
        suite.guest_runs("m", "mount -t cd9660 -o ro /dev/cd0 /mnt && cat /mnt/readme && umount /mnt; echo read-$?", "read-0")?;
        let said = suite.ok(&["vm", "log", "m", "--tail", "5"])?;
        ensure!(said.contains("read from a disc of ours"), "{said}");
    }
    suite.guest_runs("m", "dd if=/dev/zero of=/dev/cd0 bs=2048 count=1 2>/dev/null || echo refused-$((6*7))", "refused-42")?;
    let (_, message) = suite.fails(&["iso", "eject", "m", "ours"])?;
    ensure!(message.contains("cannot take a CD out while it runs"), "{message}");
    suite.ok(&["vm", "kill", "m"])?;
    // Out of a drive that stands still, and in again for one boot: at the guest's own reboot it is gone.
    suite.ok(&["iso", "eject", "m", "ours"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "[ -e /dev/cd0 ] || echo none-$((6*7))", "none-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["iso", "attach", "m", "ours", "--eject-once"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "[ -e /dev/cd0 ] && echo there-$((6*7))", "there-42")?;
    let reboot = ["vm", "console", "m", "--from-now", "--send", platform::REBOOT, "--expect", "skep-guest ready"];
    suite.ok(&[&reboot[..], &["--timeout", PATIENCE]].concat())?;
    suite.guest_runs("m", "[ -e /dev/cd0 ] || echo gone-$((6*7))", "gone-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    let (_, message) = suite.fails(&["iso", "delete", "ours"])?;
    ensure!(message.contains("machine m has it"), "{message}");
    suite.ok(&["vm", "set", "m", "--disk", "m-root"])?;
    suite.ok(&["iso", "delete", "ours"])?;
    ensure!(suite.json(&["iso", "list"])?.is_empty(), "it is still there");
    suite.finish()
}

#[test]
fn a_program_in_the_guest_is_talked_with_over_a_channel() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    if !has_driver("virtio_pci/vtcon", "virtio_console")? {
        skip!("this host has no virtio_console(4) for its guest");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &["--channel", "org.example.a", "--channel", "org.example.b"])?;
    let (code, message) = suite.fails(&["vm", "channel", "m", "org.example.b"])?;
    ensure!(code == 5 && message.contains("does not run"), "{code} {message}");
    suite.boot("m")?;
    load(&suite, "virtio_console")?;
    // Its terminal repeats what comes before anybody reads it.
    let answer =
        "(while read -r l; do echo \"got $l\"; done) </dev/vtcon/org.example.b >/dev/vtcon/org.example.b & echo $((6*7))-on";
    suite.guest_runs("m", answer, "42-on")?;
    for word in ["first", "second"] {
        let mut talk = suite.command(&["vm", "channel", "m", "org.example.b", "--lines", "2", "--timeout", "120"]);
        let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        talk.stdin.take().context("no input")?.write_all(format!("{word}\n").as_bytes())?;
        let output = talk.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        ensure!(output.status.success() && said == format!("{word}\ngot {word}\n"), "{output:?}");
    }
    let (code, message) = suite.fails(&["vm", "channel", "m", "org.example.c"])?;
    ensure!(code == 3 && message.contains("org.example.a, org.example.b"), "{code} {message}");
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_machine_plays_on_a_sound_device_of_the_host() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &["--sound", "on"])?;
    let (_, message) = suite.fails(&["vm", "start", "m"])?;
    ensure!(message.contains("sound_out") && message.contains("skep host show"), "{message}");
    suite.ok(&["vm", "set", "m", "--sound-out", "dsp200"])?;
    let (_, message) = suite.fails(&["vm", "start", "m"])?;
    ensure!(message.contains("dsp200"), "{message}");
    let shown = suite.json(&["host", "show"])?;
    let devices = shown[0]["sound_devices"].as_array().context("no list of sound devices")?;
    let Some(device) = devices.iter().find(|device| device["plays"] == true && device["records"] == true) else {
        skip!("this host has no sound device that plays and records: kldload snd_hda");
    };
    let name = device["name"].as_str().context("a device without a name")?;
    suite.ok(&["vm", "set", "m", "--sound-out", name, "--sound-in", name])?;
    suite.boot("m")?;
    suite.guest_runs("m", &self::devices("*pci0:0:7:0:*class=0x0403*", "found"), "found-42")?;
    if has_driver("pci/snd_hda", "snd_hda")? {
        load(&suite, "sound")?;
        load(&suite, "snd_hda")?;
        suite.guest_runs("m", "dd if=/dev/random of=/dev/dsp0 bs=4096 count=10 2>/dev/null; echo played-$?", "played-0")?;
        suite.guest_runs("m", "dd if=/dev/dsp0 of=/dev/null bs=4096 count=2 2>/dev/null; echo recorded-$?", "recorded-0")?;
    }
    // Other sound devices, and the mixer, are not in its cell.
    let audit = suite.ok(&["audit"])?;
    ensure!(audit.contains(name), "{audit}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn two_machines_on_a_switch_of_netgraph_reach_each_other() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "lan", "--kind", "netgraph"])?;
    suite.two_reach_each_other()?;
    suite.ok(&["audit"])?;
    // It comes back with the suite, and what was on it is on it again.
    suite.ok(&["down", "--keep-machines"])?;
    suite.up()?;
    suite.guest_runs("b", &platform::ping("10.9.9.1"), "ping-0")?;
    suite.ok(&["vm", "kill", "a"])?;
    suite.ok(&["vm", "kill", "b"])?;
    suite.finish()
}
