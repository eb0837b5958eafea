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
    suite.define("m", &["--disk", "scsi,scsi", "--disk", "sata,ahci", "--disk", "initrd,cd"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    let disks: Vec<_> = show[0]["disks"].as_array().into_iter().flatten().collect();
    let said: Vec<_> = disks.iter().map(|d| (d["controller"].as_str().unwrap_or_default(), d["read_only"] == true)).collect();
    ensure!(said == [("virtio_scsi", false), ("ahci", false), ("ahci_cd", true)], "{said:?}");
    suite.boot("m")?;
    let write = "until [ -b /dev/sda ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/sda bs=1M count=2 conv=fsync 2>/dev/null; echo written-$?";
    suite.guest_runs("m", write, "written-0")?;
    let stats = suite.json(&["vm", "stats", "m"])?;
    ensure!(stats[0]["disks"][0]["write_bytes"] == 2 << 20, "{stats:?}");
    suite.ok(&["vm", "kill", "m"])?;
    let (code, message) = suite.fails(&["vm", "set", "m", "--disk", "scsi,floppy"])?;
    ensure!(code == 2 || message.contains("none of virtio, nvme, ahci, cd, scsi, ro"), "{code} {message}");
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
