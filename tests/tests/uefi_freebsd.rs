//! UEFI in bhyve: the firmware boots the guest's disk by itself and finds at each start what it kept at the last.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, PATIENCE, Suite, is_root, platform, skip};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Stdio;

/// How often the firmware was started with the variable store of the suite's only machine. It counts that in there itself, in `MTC`: the
/// upper half of UEFI's monotonic counter.
fn starts(suite: &Suite) -> Result<u32> {
    let store = std::fs::read_dir(suite.state.join("firmware"))?.next().context("no variable store")??;
    let bytes = std::fs::read(store.path())?;
    let name: Vec<u8> = "MTC\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Before a name are 60 bytes, which begin with 0x55aa and the state: 0x3f is one that holds. After it is the value.
    let is_it = |at: &usize| bytes[*at..].starts_with(&name) && bytes[at - 60..].starts_with(&[0xaa, 0x55, 0x3f]);
    let at = (60..bytes.len()).rev().find(is_it).context("the firmware wrote nothing to its store")? + name.len();
    Ok(u32::from_le_bytes(bytes.get(at..at + 4).context("cut off")?.try_into()?))
}

/// What a viewer of the screen is greeted with.
fn greeting(suite: &Suite) -> Result<String> {
    let mut relay = suite.command(&["vm", "vnc", "m", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("no output")?).read_line(&mut line)?;
    let address = line.split_whitespace().last().context("no address")?;
    let mut greeting = [0; 11];
    TcpStream::connect(address).with_context(|| line.clone())?.read_exact(&mut greeting)?;
    relay.kill()?;
    relay.wait()?;
    Ok(String::from_utf8_lossy(&greeting).into_owned())
}

#[test]
fn a_machine_boots_by_uefi_and_keeps_what_its_firmware_writes() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    if let Some(why) = platform::no_uefi() {
        skip!("{why}");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["disk", "clone", "guest", "root"])?;
    suite.ok(&["vm", "create", "m", "--memory", "256M", "--disk", "root"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "echo by-$(sysctl -n machdep.bootmethod)-", "by-UEFI-")?;
    ensure!(starts(&suite)? == 1);
    suite.ok(&["audit"])?;
    ensure!(greeting(&suite)? == "RFB 003.008");
    suite.guest_runs("m", platform::REBOOT, "skep-guest ready")?;
    ensure!(starts(&suite)? == 2, "what was kept is not there after a reboot");
    suite.guest_runs("m", platform::POWER_OFF, platform::POWERED_OFF)?;
    suite.ok(&["events", "--after", "0", "--until", "stopped", "--timeout", PATIENCE])?;
    ensure!(suite.state_of("m")? == "stopped");
    suite.boot("m")?;
    ensure!(starts(&suite)? == 3, "what was kept is not there at the next start");
    // The power button, which the firmware's tables describe to the guest.
    suite.ok(&["vm", "stop", "m"])?;
    ensure!(suite.state_of("m")? == "stopped");
    // The same disk by the other way, which leaves the store alone.
    suite.ok(&["vm", "set", "m", "--loader"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "echo by-$(sysctl -n machdep.bootmethod)-", "by-BIOS-")?;
    ensure!(starts(&suite)? == 3);
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    ensure!(std::fs::read_dir(suite.state.join("firmware"))?.next().is_none(), "the store stays");
    suite.finish()
}
