//! iSCSI disks, with a real target (tgt) and a real guest.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::iscsi::{LUN, NAME, Target};
use skep_tests::platform::{REBOOT, end};
use skep_tests::{Mode, PATIENCE, Suite, is_root, skip};
use std::os::unix::fs::FileExt;

/// One whose administrator lets portals be on this host.
fn suite() -> Result<Suite> {
    let suite = Suite::prepare(Mode::Root)?;
    suite.ok(&["up", "--iscsi-portals", "127.0.0.1"])?;
    Ok(suite)
}

fn create<'a>(name: &'a str, portal: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["disk", "create", name, "--iscsi", NAME, "--portal", portal];
    let lun = if more.contains(&"--lun") { &[][..] } else { &["--lun", LUN] };
    [&args[..], lun, more].concat()
}

/// A command by which the guest writes a word at a block of its first disk.
fn write(word: &str, block: u32) -> String {
    format!("echo {word} | dd of=/dev/vda bs=512 seek={block} conv=sync,notrunc,fsync 2>/dev/null; echo {word}-$?-$((6*7))")
}

fn writes(suite: &Suite, word: &str, block: u32) -> Result<()> {
    suite.guest_runs("m", &write(word, block), &format!("{word}-0-42")).map(drop)
}

fn reads(suite: &Suite, word: &str, block: u32, turn: &str) -> Result<()> {
    let command =
        format!("dd if=/dev/vda bs=512 skip={block} count=1 iflag=direct 2>/dev/null | head -n 1; echo {turn}-$((6*7))");
    let said = suite.guest_runs("m", &command, &format!("{turn}-42"))?;
    ensure!(said.contains(word), "{word} is not there: {said}");
    Ok(())
}

fn has(target: &Target, word: &str, block: u64) -> Result<()> {
    let mut bytes = vec![0; word.len()];
    std::fs::File::open(target.file())?.read_exact_at(&mut bytes, block * 512)?;
    ensure!(bytes == word.as_bytes(), "{:?} instead of {word}", String::from_utf8_lossy(&bytes));
    Ok(())
}

fn nothing_is_left(suite: &Suite) -> Result<()> {
    let sockets: Vec<_> = std::fs::read_dir(suite.run.join("console"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(sockets.is_empty() && suite.pids("iscsi-initiator")?.is_empty(), "a process is left, or its socket: {sockets:?}");
    Ok(())
}

#[test]
fn a_guest_writes_to_an_iscsi_disk() -> Result<()> {
    if !is_root() {
        skip!("tgtd needs root");
    }
    let suite = suite()?;
    let target = Target::start(suite.dir(), None)?;
    let portal = target.portal();
    std::fs::OpenOptions::new().write(true).open(target.file())?.write_all_at(b"before\n", 7 * 512)?;
    let made = suite.json(&create("san", &portal, &[]))?;
    ensure!(made[0]["kind"] == "iscsi" && made[0]["size"] == 16 << 20, "{made:?}");
    ensure!(made[0]["iscsi"]["target"] == NAME && made[0]["iscsi"]["portal"] == portal.as_str(), "{made:?}");
    nothing_is_left(&suite)?;

    suite.import_guest()?;
    suite.define("m", &["--disk", "san"])?;
    suite.boot("m")?;
    let audit = suite.skep(&["audit"])?;
    let text = String::from_utf8_lossy(&audit.stdout).into_owned();
    ensure!(audit.status.success() && text.contains("iscsi-initiator"), "{text}");
    reads(&suite, "before", 7, "first")?;
    writes(&suite, "one", 100)?;
    has(&target, "one\n", 100)?;

    // Killed while the guest writes: it waits a moment, and notices nothing.
    let busy = "dd if=/dev/zero of=/dev/vda bs=64k seek=16 count=200 conv=fsync 2>/dev/null; echo zeroes-$?-$((6*7))";
    suite.guest_runs("m", &format!("({busy}) & echo begun-$((6*7))"), "begun-42")?;
    end(*suite.pids("iscsi-initiator")?.first().context("no initiator")?)?;
    suite.expect("m", "zeroes-0-42")?;
    writes(&suite, "two", 101)?;
    has(&target, "two\n", 101)?;
    ensure!(suite.pids("iscsi-initiator")?.len() == 1, "more than one");
    let log = suite.ok(&["log", "iscsi-initiator", "--since", "1h", "--tail", "1000"])?;
    let said = format!(" iscsi-initiator info disk {}: ", made[0]["id"].as_str().context("no id")?);
    ensure!(
        log.contains(&format!("{said}serves")) && log.contains("Attach for") && log.lines().all(|line| line.contains(&said)),
        "{log}"
    );

    // Another hypervisor, after a reboot.
    let args = ["vm", "console", "m", "--from-now", "--send", REBOOT, "--expect", "skep-guest ready", "--timeout", PATIENCE];
    suite.ok(&args)?;
    reads(&suite, "two", 101, "again")?;

    // Nobody else has it meanwhile, and nothing is done to it that would be done to a file.
    suite.define("other", &["--disk", "san,ro"])?;
    let (code, said) = suite.fails(&["vm", "start", "other"])?;
    ensure!(said.contains("by machine m"), "{code} {said}");
    suite.ok(&["vm", "delete", "other"])?;
    suite.ok(&["vm", "kill", "m"])?;
    let out = suite.dir().join("out").to_string_lossy().into_owned();
    for args in [
        &["disk", "resize", "san", "--size", "32M"][..],
        &["disk", "snapshot", "create", "san", "s"],
        &["vm", "snapshot", "create", "m", "s"],
        &["disk", "clone", "san", "copy"],
        &["disk", "wipe", "san"],
        &["disk", "export", "san", &out],
    ] {
        let (_, said) = suite.fails(args)?;
        ensure!(said.contains("it is an iSCSI disk"), "{args:?}: {said}");
    }
    nothing_is_left(&suite)?;

    // Read-only is what the machine says, and its hypervisor has no say in it.
    suite.ok(&["vm", "set", "m", "--disk", "san,ro"])?;
    suite.boot("m")?;
    reads(&suite, "one", 100, "ro")?;
    let failed =
        "echo three | dd of=/dev/vda bs=512 conv=sync,notrunc,fsync 2>/dev/null; test $? -ne 0; echo refused-$?-$((6*7))";
    suite.guest_runs("m", failed, "refused-0-42")?;
    suite.ok(&["vm", "kill", "m"])?;

    // Deleted, it is forgotten, and the target has what it had.
    suite.ok(&["vm", "delete", "m"])?;
    suite.ok(&["disk", "delete", "san"])?;
    ensure!(suite.json(&["disk", "list"])?.iter().all(|disk| disk["kind"] != "iscsi"), "it is there still");
    has(&target, "two\n", 101)?;
    nothing_is_left(&suite)?;
    drop(target);
    suite.finish()
}

#[test]
fn what_is_no_iscsi_disk_is_refused_with_the_reason() -> Result<()> {
    if !is_root() {
        skip!("tgtd needs root");
    }
    let suite = suite()?;
    let target = Target::start(suite.dir(), None)?;
    let portal = target.portal();
    let refused = |args: &[&str], why: &str| -> Result<()> {
        let (_, said) = suite.fails(args)?;
        ensure!(said.contains(why), "{args:?}: {said}");
        ensure!(suite.json(&["disk", "list"])?.is_empty(), "{args:?} left a disk");
        nothing_is_left(&suite)
    };
    refused(&create("a", &portal, &["--lun", "0"]), "its LUN 0 is no disk")?;
    refused(&create("a", &portal, &["--lun", "7"]), "it has no LUN 7")?;
    refused(&create("a", &portal, &["--lun", "20000"]), "20000 is not 0 to 16383")?;
    refused(&create("a", "127.0.0.1:1", &[]), "refused")?;
    refused(&create("a", "127.0.0.2", &[]), "skep up --iscsi-portals")?;
    refused(&create("a", "example.org", &[]), "a portal is ADDRESS[:PORT]")?;
    refused(&["disk", "create", "a", "--iscsi", "iqn.2001-04.com.example:none", "--portal", &portal], "it has no such target")?;
    refused(&["disk", "create", "a", "--iscsi", "disk", "--portal", &portal], "an iSCSI name is")?;
    // Somebody who speaks something else, and somebody who says nothing more.
    let other = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = other.local_addr()?.to_string();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        other
            .accept()
            .and_then(|(mut socket, _)| socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html></html>"))
    });
    refused(&create("a", &address, &[]), "target iqn")?;
    server.join().map_err(|_| anyhow::anyhow!("the server"))??;
    suite.ok(&create("a", &portal, &[]))?;
    let (_, said) = suite.fails(&create("b", &portal, &[]))?;
    ensure!(said.contains("two disks of one unit"), "{said}");
    let (_, said) = suite.fails(&["vm", "create", "m", "--disk", "a", "--share", "x"])?;
    ensure!(said.contains("one or the other") || said.contains("share"), "{said}");
    suite.ok(&["disk", "delete", "a"])?;
    drop(target);
    suite.finish()
}

#[test]
fn chap_lets_in_who_knows_the_secret_and_nobody_else_hears_of_it() -> Result<()> {
    if !is_root() {
        skip!("tgtd needs root");
    }
    let suite = suite()?;
    let (secret, wrong) = ("a-secret-of-24-characters", "another-secret-of-it");
    let target = Target::start(suite.dir(), Some(("joe", secret)))?;
    let portal = target.portal();
    let file = |name: &str, text: &str| -> Result<String> {
        let path = suite.dir().join(name);
        std::fs::write(&path, format!("{text}\n"))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let (good, bad) = (file("good", secret)?, file("bad", wrong)?);
    let (_, said) = suite.fails(&create("san", &portal, &[]))?;
    ensure!(said.contains("--chap-user"), "{said}");
    let (_, said) = suite.fails(&create("san", &portal, &["--chap-user", "joe", "--chap-secret-file", &bad]))?;
    ensure!(said.contains("it refuses the user or the secret of CHAP") && !said.contains(wrong), "{said}");
    let made = suite.json(&create("san", &portal, &["--chap-user", "joe", "--chap-secret-file", &good]))?;
    ensure!(made[0]["iscsi"]["chap_user"] == "joe" && !format!("{made:?}").contains(secret), "{made:?}");
    suite.import_guest()?;
    suite.define("m", &["--disk", "san"])?;
    suite.boot("m")?;
    writes(&suite, "known", 9)?;
    has(&target, "known\n", 9)?;
    let told = [
        suite.ok(&["disk", "show", "san"])?,
        suite.logs(),
        suite.ok(&["events", "--after", "0", "--until", "created", "--timeout", "10"])?,
    ];
    ensure!(told.iter().all(|text| !text.contains(secret) && !text.contains(wrong)), "the secret is told");
    suite.ok(&["vm", "kill", "m"])?;
    drop(target);
    suite.finish()
}

#[test]
fn an_iscsi_target_that_goes_comes_back() -> Result<()> {
    if !is_root() {
        skip!("tgtd needs root");
    }
    let suite = suite()?;
    let mut target = Target::start(suite.dir(), None)?;
    suite.ok(&create("san", &target.portal(), &[]))?;
    suite.import_guest()?;
    suite.define("m", &["--disk", "san"])?;
    suite.boot("m")?;
    writes(&suite, "one", 1)?;
    for (turn, word) in ["two", "three"].into_iter().enumerate() {
        target.stop();
        suite.guest_runs("m", &format!("({}) & echo begun-{turn}-$((6*7))", write(word, 2)), &format!("begun-{turn}-42"))?;
        if turn == 1 {
            // Whoever would log in again dies meanwhile.
            end(suite.pids("broker")?[0])?;
            suite.up()?;
        }
        suite.ok(&["events", "--after", "0", "--until", "lost", "--timeout", PATIENCE])?;
        target.serve()?;
        suite.expect("m", &format!("{word}-0-42"))?;
        has(&target, word, 2)?;
    }
    // It cannot be started without it, and says why.
    suite.ok(&["vm", "kill", "m"])?;
    target.stop();
    let (_, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(said.contains("disk san") && said.contains("refused"), "{said}");
    nothing_is_left(&suite)?;
    target.serve()?;
    suite.boot("m")?;
    reads(&suite, "three", 2, "back")?;
    // All of it is swept when the suite goes.
    drop(target);
    suite.finish()
}
