//! The variables of UEFI firmware say what a machine boots.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, guest, is_root};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What a guest's kernel is told by the disk that it was read from.
const MARKS: [&str; 2] = ["m=one", "m=two"];

/// A suite with the machine `efi`, which has two disks that boot.
fn suite() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let image = std::fs::read(guest()?.join("disk.img"))?;
    let word = b"console=ttyS0 quiet";
    let at = image.windows(word.len()).position(|bytes| bytes == word).context("no command line in the image")?;
    for mark in MARKS {
        let mut image = image.clone();
        // As long as "quiet", and so the kernel prints it, too.
        image[at + word.len() - mark.len()..at + word.len()].copy_from_slice(mark.as_bytes());
        let path = suite.dir().join(mark);
        std::fs::write(&path, image)?;
        suite.ok(&["disk", "import", &mark[2..], &path.to_string_lossy()])?;
        std::fs::remove_file(path)?;
    }
    suite.ok(&["vm", "create", "efi", "--memory", "256M", "--screen", "off", "--disk", "one", "--disk", "two"])?;
    Ok(suite)
}

/// Starts the machine; from which disk its kernel came.
fn boots(suite: &Suite) -> Result<&'static str> {
    suite.ok(&["vm", "start", "efi"])?;
    // Soon after the kernel's command line.
    let seen = ["vm", "console", "efi", "--from-now", "--expect", "] Memory: ", "--timeout", skep_tests::PATIENCE];
    let seen = suite.ok(&seen)?;
    MARKS.into_iter().find(|mark| seen.contains(mark)).with_context(|| format!("neither disk: {seen}"))
}

fn kill(suite: &Suite) -> Result<()> {
    suite.ok(&["vm", "kill", "efi"]).map(drop)
}

fn firmware(suite: &Suite, args: &[&str]) -> Result<String> {
    suite.ok(&[&["vm", "firmware"], args].concat())
}

/// What a variable says.
fn meaning(suite: &Suite, variable: &str) -> Result<String> {
    let shown = suite.json(&["vm", "firmware", "show", "efi", variable])?;
    Ok(shown[0]["meaning"].as_str().context("no meaning")?.to_owned())
}

/// The machine's store.
fn store(suite: &Suite) -> Result<PathBuf> {
    let id = suite.json(&["vm", "show", "efi"])?;
    Ok(suite.state.join(format!("firmware/{}.vars", id[0]["id"].as_str().context("no id")?)))
}

#[test]
fn a_machine_boots_what_its_variables_say() -> Result<()> {
    let suite = suite()?;
    ensure!(boots(&suite)? == "m=one", "the first disk comes first");
    // While it runs they can be read; the firmware has found both disks.
    let list = firmware(&suite, &["list", "efi"])?;
    ensure!(list.contains("BootOrder") && list.contains("PciRoot(0x0)/Pci(0x8,0x0)"), "{list}");
    ensure!(list.contains("PciRoot(0x0)/Pci(0x9,0x0)"), "{list}");
    println!("{list}");
    kill(&suite)?;

    firmware(&suite, &["boot-order", "efi", "disk:two,disk:one"])?;
    let order = meaning(&suite, "BootOrder")?;
    ensure!(boots(&suite)? == "m=two", "the order is {order}");
    kill(&suite)?;
    let kept = meaning(&suite, "BootOrder")?;
    ensure!(kept == order, "the firmware made {kept} of {order}");

    // Once.
    let entry = order.split(',').nth(1).context("one entry")?;
    firmware(&suite, &["boot-next", "efi", entry])?;
    ensure!(meaning(&suite, "BootNext")? == entry);
    ensure!(boots(&suite)? == "m=one", "next was {entry}");
    kill(&suite)?;
    let (code, message) = suite.fails(&["vm", "firmware", "show", "efi", "BootNext"])?;
    ensure!(code == 3 && message.contains("BootNext"), "{code} {message}");
    ensure!(meaning(&suite, "BootOrder")? == order);

    firmware(&suite, &["reset", "efi"])?;
    ensure!(boots(&suite)? == "m=one", "the first disk comes first again");
    kill(&suite)?;
    suite.finish()
}

#[test]
fn variables_are_written_read_and_copied_with_their_machine() -> Result<()> {
    let suite = suite()?;
    let name = "Note-c0ffee00-93ca-11d2-aa0d-00e098032b8c";
    let data: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
    let file = suite.dir().join("data");
    std::fs::write(&file, &data)?;
    let path = file.to_string_lossy().into_owned();
    firmware(&suite, &["set", "efi", name, "--file", &path])?;
    firmware(&suite, &["set", "efi", "Timeout", "--hex", "03 00"])?;
    ensure!(meaning(&suite, "Timeout")? == "3 s");
    ensure!(suite.skep(&["vm", "firmware", "show", "efi", name, "--file", "-"])?.stdout == data);
    ensure!(suite.json(&["vm", "firmware", "list", "efi"])?.iter().any(|v| v["name"] == name && v["size"] == 5000));
    suite.ok(&["vm", "clone", "efi", "copy"])?;
    ensure!(suite.skep(&["vm", "firmware", "show", "copy", name, "--file", "-"])?.stdout == data);
    firmware(&suite, &["delete", "efi", name])?;
    let refused: [(&[&str], i32, &str); 6] = [
        (&["delete", "efi", name], 3, "Note-c0ffee00"),
        (&["set", "efi", "Timeout", "--hex", "0"], 8, "two hexadecimal digits"),
        (&["set", "efi", "Timeout", "--hex", "00", "--attributes", "0x47"], 8, "attributes"),
        (&["boot-order", "efi", "disk:three"], 3, "disk three"),
        (&["boot-order", "efi", "disk:two"], 3, "machine's start"),
        (&["boot-next", "efi", "zzzz"], 8, "disk:NAME"),
    ];
    for (args, code, word) in refused {
        let (was, message) = suite.fails(&[&["vm", "firmware"], args].concat())?;
        ensure!(was == code && message.contains(word), "{args:?}: {was} {message}");
    }
    let events = suite.ok(&["events", "--after", "0", "--until", "firmware changed", "--timeout", "10"])?;
    ensure!(events.contains("firmware changed"), "{events}");
    suite.finish()
}

#[test]
fn a_store_that_is_in_use_or_ruined_is_refused_and_reset_mends_it() -> Result<()> {
    let suite = suite()?;
    suite.ok(&["vm", "start", "efi"])?;
    for args in [&["boot-order", "efi", "0001"][..], &["set", "efi", "Timeout", "--hex", "0000"], &["reset", "efi"]] {
        let (code, message) = suite.fails(&[&["vm", "firmware"], args].concat())?;
        ensure!(code == 5 && message.contains("stop it first"), "{args:?}: {code} {message}");
    }
    ensure!(suite.state_of("efi")? == "running");
    kill(&suite)?;
    let path = store(&suite)?;
    // What a guest, or a hypervisor that was taken over, may leave.
    let file = std::fs::OpenOptions::new().write(true).open(&path)?;
    file.write_all_at(&[0x5a; 540_672], 0)?;
    for args in [&["list", "efi"][..], &["set", "efi", "Timeout", "--hex", "0000"], &["boot-next", "efi", "0001"]] {
        let (code, message) = suite.fails(&[&["vm", "firmware"], args].concat())?;
        ensure!(code == 5 && message.contains("reset"), "{args:?}: {code} {message}");
    }
    ensure!(std::fs::read(&path)?.iter().all(|byte| *byte == 0x5a), "it was written to");
    ensure!(suite.state_of("efi")? == "stopped");
    firmware(&suite, &["reset", "efi"])?;
    firmware(&suite, &["set", "efi", "Timeout", "--hex", "0000"])?;
    // A helper that dies while it is asked is asked again; all or nothing is the store in any case.
    let pid = suite.pids("storage-helper")?[0];
    let mut set = suite.command(&["vm", "firmware", "set", "efi", "Timeout", "--hex", "0700"]).spawn()?;
    end(pid)?;
    let done = set.wait()?.success();
    suite.up()?;
    let now = meaning(&suite, "Timeout")?;
    ensure!(now == "7 s" || now == "0 s" && !done, "{now}, done: {done}");
    ensure!(boots(&suite)? == "m=one");
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    kill(&suite)?;
    suite.finish()
}
