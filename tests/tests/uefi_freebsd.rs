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

/// Where storage-helper finds the variables of a new machine, below the suite's state.
const TEMPLATE: &str = "cell/root/usr/local/share/uefi-firmware/BHYVE_UEFI_VARS.fd";
/// Variables as edk2 keeps them, for hosts without the firmware: the file is the same, whoever booted with it.
const VARIABLES: &[u8] = include_bytes!("../../fuzz/corpus/variables/authenticated");

/// What the firmware makes for a disk with this device number on the PCI bus: UEFI 2.10, 3.1.3 and 10.3.
fn boot_entry(device: u8) -> String {
    let path = [0x02, 0x01, 0x0c, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 0x01, 0x01, 0x06, 0, 0, device, 0x7f, 0xff, 0x04, 0];
    let length = [u8::try_from(path.len()).unwrap_or(0), 0];
    let all = [&[1, 0, 0, 0][..], &length, b"d\0i\0s\0k\0\0\0", &path].concat();
    all.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_variables_of_a_bhyve_machine_are_listed_changed_and_reset() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let suite = Suite::start(Mode::Root)?;
    let template = suite.state.join(TEMPLATE);
    if !template.exists() {
        std::fs::create_dir_all(template.parent().context("no directory")?)?;
        std::fs::write(&template, VARIABLES)?;
    }
    for name in ["one", "two", "cd"] {
        suite.ok(&["disk", "create", name, "--size", "1M"])?;
    }
    suite.ok(&["vm", "create", "m", "--disk", "one", "--disk", "two,ahci", "--disk", "cd,nvme"])?;
    let firmware = |args: &[&str]| suite.ok(&[&["vm", "firmware"], args].concat());
    let meaning = |variable: &str| -> Result<String> {
        let shown = suite.json(&["vm", "firmware", "show", "m", variable])?;
        Ok(shown[0]["meaning"].as_str().context("no meaning")?.to_owned())
    };
    let new = firmware(&["list", "m"])?;
    // As bhyve's firmware would name them: virtio at 8, NVMe at 8 + 2.
    firmware(&["set", "m", "Boot0001", "--hex", &boot_entry(8)])?;
    firmware(&["set", "m", "Boot0002", "--hex", &boot_entry(10)])?;
    ensure!(meaning("Boot0002")? == "disk  PciRoot(0x0)/Pci(0xa,0x0)", "{}", meaning("Boot0002")?);
    let list = firmware(&["list", "m"])?;
    ensure!(list.contains("PciRoot(0x0)/Pci(0x8,0x0)") && list.contains("PciRoot(0x0)/Pci(0xa,0x0)"), "{list}");
    firmware(&["boot-order", "m", "disk:cd,disk:one"])?;
    let order = meaning("BootOrder")?;
    ensure!(order.starts_with("0002,0001"), "{order}");
    firmware(&["boot-next", "m", "disk:one"])?;
    ensure!(meaning("BootNext")? == "0001" && meaning("BootOrder")? == order);
    firmware(&["boot-next", "m", "--none"])?;
    let refused: [(&[&str], i32, &str); 3] = [
        (&["show", "m", "BootNext"], 3, "BootNext"),
        // Of a disk at AHCI's first port nobody made an entry.
        (&["boot-order", "m", "disk:two"], 3, "no entry leads to the disk itself"),
        (&["boot-order", "m", "0042"], 3, "0042"),
    ];
    for (args, code, word) in refused {
        let (was, message) = suite.fails(&[&["vm", "firmware"], args].concat())?;
        ensure!(was == code && message.contains(word), "{args:?}: {was} {message}");
    }
    // A copy has them.
    suite.ok(&["vm", "clone", "m", "copy"])?;
    let copied = suite.json(&["vm", "firmware", "show", "copy", "BootOrder"])?;
    ensure!(copied[0]["meaning"] == order.as_str(), "{copied:?}");
    let stores = || -> Result<usize> { Ok(std::fs::read_dir(suite.state.join("firmware"))?.count()) };
    ensure!(stores()? == 2);
    firmware(&["reset", "m"])?;
    ensure!(stores()? == 1, "the store stays");
    ensure!(firmware(&["list", "m"])? == new, "they are not those of a new machine");
    suite.ok(&["audit"])?;
    // A machine that boots without firmware has none.
    suite.ok(&["vm", "set", "m", "--loader"])?;
    let (_, message) = suite.fails(&["vm", "firmware", "list", "m"])?;
    ensure!(message.contains("without UEFI firmware"), "{message}");
    suite.finish()
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
