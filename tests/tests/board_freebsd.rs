//! What bhyve's machines alone can be without or with: tables, exits, registers, a screen that is waited for; as a guest finds it.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, skip};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// Width and height, as a viewer is told them; it stays no longer.
fn screen(suite: &Suite) -> Result<(u16, u16)> {
    let mut relay = suite.command(&["vm", "vnc", "m", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("no output")?).read_line(&mut line)?;
    let mut viewer = TcpStream::connect(line.split_whitespace().last().context("no address")?)?;
    // RFC 6143, 7.1 to 7.3: version; security types, of which none; shared.
    let read = |viewer: &mut TcpStream, count: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        viewer.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    ensure!(read(&mut viewer, 12)? == b"RFB 003.008\n");
    viewer.write_all(b"RFB 003.008\n")?;
    let types = read(&mut viewer, 1)?[0];
    ensure!(read(&mut viewer, types.into())?.contains(&1), "no viewer without a password");
    viewer.write_all(&[1])?;
    ensure!(read(&mut viewer, 4)? == [0; 4], "refused");
    viewer.write_all(&[1])?;
    let size = read(&mut viewer, 4)?;
    relay.kill()?;
    relay.wait()?;
    Ok((u16::from_be_bytes([size[0], size[1]]), u16::from_be_bytes([size[2], size[3]])))
}

#[test]
fn a_guest_waits_for_its_viewer_and_shows_him_a_screen_of_the_size_that_was_said() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.ok(&["vm", "set", "m", "--screen", "on", "--screen-size", "800x600", "--screen-wait", "on"])?;
    suite.ok(&["vm", "start", "m"])?;
    // Its loader has run before bhyve began to wait; its kernel has said nothing.
    let said = suite.ok(&["vm", "log", "m"])?;
    ensure!(!said.contains("Copyright (c)"), "it did not wait: {said}");
    ensure!(screen(&suite)? == (800, 600));
    suite.expect("m", "skep-guest ready")?;
    ensure!(screen(&suite)? == (800, 600), "another viewer");
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
