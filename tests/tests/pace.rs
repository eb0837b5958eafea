//! Disks that are held to rates, with a real guest that reads and writes.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::platform::REBOOT;
use skep_tests::{Mode, Suite, is_root};
use std::time::{Duration, Instant};

/// Bytes that the guest moves at a time.
const MOVED: u32 = 4 << 20;
/// What it is held to: the time is then 16 s, less what goes at once (a tenth of a second's).
const RATE: u32 = 256 << 10;
/// What it takes at least, however much of the guest's own work is left out.
const HELD: Duration = Duration::from_secs(14);

fn timed(suite: &Suite, command: &str, answer: &str) -> Result<Duration> {
    let begun = Instant::now();
    suite.guest_runs("m", command, answer)?;
    Ok(begun.elapsed())
}

/// By pieces, too: of what the guest's cache makes one request, all goes once its turn has come.
fn writes(suite: &Suite, turn: u32) -> Result<Duration> {
    let count = MOVED >> 16;
    let command = format!(
        "dd if=/dev/zero of=/dev/vda bs=64k count={count} oflag=direct conv=fsync 2>/dev/null; echo wrote-{turn}-$((6*7))"
    );
    timed(suite, &command, &format!("wrote-{turn}-42"))
}

/// By pieces that the guest's cache has none of.
fn reads(suite: &Suite, turn: u32, piece: &str, count: u32) -> Result<Duration> {
    let command =
        format!("dd if=/dev/vda of=/dev/null iflag=direct bs={piece} count={count} 2>/dev/null; echo read-$?-{turn}-$((6*7))");
    timed(suite, &command, &format!("read-0-{turn}-42"))
}

#[test]
fn a_disk_of_a_running_guest_is_held_to_its_rates() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.ok(&["disk", "create", "root", "--size", "64M", "--kind", "qcow2"])?;
    suite.define("m", &["--disk", "root"])?;
    for (rate, bound) in [("--read-bps", "65536 to 1000000000000"), ("--write-iops", "10 to 100000000")] {
        let (code, said) = suite.fails(&["disk", "set", "root", rate, "9"])?;
        ensure!(code == 8 && said.contains(bound), "{code} {said}");
    }
    suite.boot("m")?;
    let free = (writes(&suite, 1)?, reads(&suite, 1, "64k", MOVED >> 16)?);
    let rate = RATE.to_string();

    // Each way by itself, while it runs.
    let shown = suite.json(&["disk", "set", "root", "--write-bps", &rate])?;
    ensure!(shown[0]["rates"]["write_bps"] == RATE && shown[0]["rates"]["read_bps"].is_null(), "{shown:?}");
    let held = (writes(&suite, 2)?, reads(&suite, 2, "64k", MOVED >> 16)?);
    println!("free {free:?}, writes held {held:?}");
    ensure!(held.0 > HELD && free.0 < HELD, "{:?} where {HELD:?} is the least, {:?} before", held.0, free.0);
    ensure!(held.1 < HELD, "reads took {:?}, and were held to nothing", held.1);

    // The file that it goes on in is held likewise; so is the hypervisor that a reboot starts.
    suite.ok(&["disk", "set", "root", "--write-bps", "0", "--read-iops", "10"])?;
    suite.ok(&["disk", "snapshot", "create", "root", "one"])?;
    let some = reads(&suite, 3, "4k", 160)?;
    ensure!(some > HELD, "160 reads took {some:?}, 10 in a second");
    let free = writes(&suite, 3)?;
    ensure!(free < HELD, "writes took {free:?}, and were held to nothing");
    suite.ok(&["disk", "set", "root", "--read-iops", "0", "--read-bps", &rate])?;
    let args = ["vm", "console", "m", "--from-now", "--send", REBOOT, "--expect", "skep-guest ready"];
    suite.ok(&[&args[..], &["--timeout", skep_tests::PATIENCE]].concat())?;
    let again = reads(&suite, 4, "64k", MOVED >> 16)?;
    ensure!(again > HELD, "reads took {again:?} after a reboot");
    // What is taken back lets all through.
    suite.ok(&["disk", "set", "root", "--read-bps", "0"])?;
    let free = reads(&suite, 5, "64k", MOVED >> 16)?;
    ensure!(free < HELD, "reads took {free:?}, and were held to nothing");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
