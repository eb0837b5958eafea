//! What bhyve's machines alone can be without or with: tables, exits, registers, a screen that is waited for; as a guest finds it.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::viewer::Viewer;
use skep_tests::{Mode, PATIENCE, Suite, is_root, platform, skip, zone};
use std::time::{Duration, Instant, SystemTime};

/// When the guest was booted, by the clock that its kernel read then and takes for UTC, less the time by ours.
fn guests_clock(suite: &Suite) -> Result<i64> {
    let said = suite.guest_runs("m", "echo booted $(sysctl -n kern.boottime) end-$((6*7))", "end-42")?;
    let seconds = said.rsplit_once("{ sec = ").and_then(|(_, rest)| rest.split(',').next()?.parse::<i64>().ok());
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(seconds.with_context(|| said.clone())? - i64::try_from(ours.as_secs())?)
}

#[test]
fn a_guest_waits_for_its_viewer_and_shows_him_a_screen_of_the_size_that_was_said() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let board = ["--clock", "local", "--strict-msr", "on", "--exit-on-halt", "off"];
    suite.define("m", &board)?;
    let screen = ["--screen", "on", "--screen-size", "800x600", "--screen-wait", "on", "--keyboard", "de"];
    suite.ok(&[&["vm", "set", "m"], &screen[..]].concat())?;
    // Whatever zone this host is in: its cells have its own, and then another.
    let ours = suite.state.join("cell/root/etc/localtime");
    ensure!(std::fs::read("/etc/localtime").ok() == std::fs::read(&ours).ok(), "the cell has another zone than the host");
    if ours.exists() {
        std::fs::remove_file(&ours)?;
    }
    std::fs::create_dir_all(ours.parent().context("no directory")?)?;
    std::fs::write(&ours, zone::file())?;
    suite.ok(&["vm", "start", "m"])?;
    // Its loader has run before bhyve began to wait; its kernel has said nothing.
    let said = suite.ok(&["vm", "log", "m"])?;
    ensure!(!said.contains("Copyright (c)"), "it did not wait: {said}");
    let first = Viewer::join(&suite, "m")?;
    ensure!(first.size == (800, 600));
    first.leave();
    suite.expect("m", "skep-guest ready")?;
    let mut viewer = Viewer::join(&suite, "m")?;
    ensure!(viewer.size == (800, 600), "another viewer");

    // On a German keyboard `z` is what is `y` on the American one: 0x35, not 0x1a. Without a firmware the controller does not translate
    // that, and the guest takes it for another key with this number: `/`, not `[`.
    suite.guest_runs("m", "exec 5</dev/kbd0; keyboard-on; echo reads-$((6*7))", "reads-42")?;
    viewer.types('z'.into())?;
    suite.guest_runs("m", "echo key:$(dd bs=1 count=1 <&5 2>/dev/null); exec 5<&-", "key:/")?;
    viewer.leave();

    let east = guests_clock(&suite)?;
    ensure!((east - zone::EAST).abs() < 1800, "its clock is {east} s before UTC");
    // A register that no processor has: the guest is told by a fault, where by default it reads nothing.
    suite.guest_runs("m", "/usr/sbin/cpucontrol -m 0x1234 /dev/cpuctl0; echo fault-$?", "fault-1")?;
    // Halted, it keeps its processor, as far as others leave it one.
    let busy = platform::busy(&suite, "m", 3)?;
    ensure!(busy.of_possible > 0.7, "it used no more of a processor: {busy:?}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_serial_port_is_no_faster_than_was_said() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &["--serial", "2,speed=9600"])?;
    suite.ok(&["vm", "start", "m"])?;
    suite.expect("m", "skep-guest ready")?;
    // 4860 bytes, ten bits each. Before it is open the port hears nothing.
    let line = "0123456789".repeat(8);
    let answer = format!(
        "exec 6<>/dev/cuau1; (while read -r n; do i=0; while [ $i -lt $n ]; do echo {line}; i=$((i+1)); done; echo all-$n; done) <&6 >&6 & echo there-$((6*7))"
    );
    suite.guest_runs("m", &answer, "there-42")?;
    let begun = Instant::now();
    suite.ok(&["vm", "console", "m", "--port", "2", "--send", "60", "--expect", "all-60", "--timeout", PATIENCE])?;
    ensure!(begun.elapsed() > Duration::from_secs(4), "{:?} for 5 s of bytes", begun.elapsed());
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

/// FreeBSD's own kernel does not start without tables: what it says is that it found none.
#[test]
fn a_guest_finds_no_tables_where_none_were_wanted() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &["--acpi", "off"])?;
    suite.ok(&["vm", "start", "m"])?;
    suite.expect("m", "requires a local APIC")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
