//! Serial ports beside the first, scripts that are played into them, and a debugger, in a whole suite.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

fn suite() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    Ok(suite)
}

#[test]
fn each_serial_port_has_a_console_a_log_and_its_script() -> Result<()> {
    let suite = suite()?;
    suite.define("m", &["--serial", "2,speed=9600", "--serial", "4,nolog"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    let want = serde_json::json!([
        {"port": 1, "speed": null, "log": true}, {"port": 2, "speed": 9600, "log": true}, {"port": 4, "speed": null, "log": false},
    ]);
    ensure!(show[0]["serial"] == want, "{show:?}");
    for (port, wrong) in
        [("5", "port 5 is not 1 to 4"), ("2,speed=9601", "a speed of 9601 is none of"), ("2,fast", "`fast` is neither")]
    {
        let (_, message) = suite.fails(&["vm", "set", "m", "--serial", port])?;
        ensure!(message.contains(wrong), "{port}: {message}");
    }
    let (_, message) = suite.fails(&["vm", "set", "m", "--serial", "2", "--serial", "2,nolog"])?;
    ensure!(message.contains("port 2 is there twice"), "{message}");
    suite.boot("m")?;
    // A program behind each of the others, which says its name to who asks.
    for (port, line) in [("2", "ttyS1"), ("4", "ttyS3")] {
        let program = format!(
            "(while read -r l; do echo \"$l of {line}: $((6*7))\"; done) </dev/{line} >/dev/{line} & echo there-$((6*{port}))-"
        );
        suite.guest_runs("m", &program, &format!("there-{}-", 6 * port.parse::<u32>()?))?;
        let said = format!("name of {line}: 42");
        let all = ["vm", "console", "m", "--port", port, "--send", "name", "--expect", &said, "--timeout", skep_tests::PATIENCE];
        suite.ok(&all)?;
    }
    let (_, message) = suite.fails(&["vm", "console", "m", "--port", "3", "--expect", "x"])?;
    ensure!(message.contains("serial port 3 of machine m") && message.contains("it runs with 1, 2, 4"), "{message}");
    ensure!(suite.ok(&["vm", "log", "m", "--port", "2"])?.contains("name of ttyS1: 42"), "not logged");
    ensure!(!suite.ok(&["vm", "log", "m", "--port", "4"])?.contains("name of"), "logged");
    ensure!(!suite.ok(&["vm", "log", "m"])?.contains("name of ttyS1: 42"), "in another port's log");

    // A script: every step in its time.
    let script = suite.dir().join("script");
    std::fs::write(
        &script,
        "# asks twice\ntimeout 60s\nsend \"first\"\nexpect \"first of ttyS1: 42\"\ntype \"sec\"\ntype \"ond\\r\"\nexpect 50s \"second of ttyS1\"\n",
    )?;
    let script = script.to_string_lossy().into_owned();
    let played = suite.json(&["vm", "play", "m", &script, "--port", "2"])?;
    let steps: Vec<_> = played.iter().filter(|one| one["step"].is_string()).map(|one| (&one["line"], &one["step"])).collect();
    let want = [(3, "send"), (4, "expect"), (5, "type"), (6, "type"), (7, "expect")];
    ensure!(steps.iter().zip(want).all(|((l, s), (line, step))| **l == line && **s == step) && steps.len() == 5, "{played:?}");
    // One that does not come is said with its line, one that is wrong before anything is typed.
    std::fs::write(&script, "send \"third\"\nexpect \"third of\"\nexpect 1s \"fourth of\"\n")?;
    let (code, message) = suite.fails(&["vm", "play", "m", &script, "--port", "2"])?;
    ensure!(code != 2 && message.contains("line 3") && message.contains("`fourth of` did not come in 1s"), "{code} {message}");
    std::fs::write(&script, "send \"never\"\nwait\n")?;
    let (_, message) = suite.fails(&["vm", "play", "m", &script, "--port", "2"])?;
    ensure!(message.contains("line 2") && message.contains("`wait` is none of"), "{message}");
    ensure!(!suite.ok(&["vm", "log", "m", "--port", "2"])?.contains("never"), "it was begun");

    // Another console-proxy has all lines again.
    if is_root() {
        skep_tests::platform::end(suite.pids("console-proxy")?[0])?;
        let again = [
            "vm",
            "console",
            "m",
            "--port",
            "2",
            "--send",
            "again",
            "--expect",
            "again of ttyS1",
            "--timeout",
            skep_tests::PATIENCE,
        ];
        suite.ok(&again)?;
        suite.ok(&["audit"])?;
    }
    let changed = suite.json(&["vm", "set", "m", "--no-serial"])?;
    ensure!(changed[0]["changes"][0]["field"] == "serial", "{changed:?}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

/// A command of gdb's remote protocol, and the answer.
fn gdb(stream: &mut UnixStream, command: &str) -> Result<String> {
    let sum = command.bytes().fold(0u8, u8::wrapping_add);
    stream.write_all(format!("${command}#{sum:02x}").as_bytes())?;
    let mut text = Vec::new();
    let mut bytes = std::io::BufReader::new(stream.try_clone()?).bytes();
    let mut next = || bytes.next().context("it ended")?.context("read");
    while next()? != b'$' {}
    loop {
        match next()? {
            b'#' => break,
            byte => text.push(byte),
        }
    }
    let _ = (next()?, next()?);
    stream.write_all(b"+")?;
    Ok(String::from_utf8(text)?)
}

#[test]
fn gdb_is_joined_to_a_machine_that_allows_it() -> Result<()> {
    let suite = suite()?;
    suite.define("m", &[])?;
    let (_, message) = suite.fails(&["vm", "gdb", "m"])?;
    ensure!(message.contains("gdb is off") && message.contains("--gdb on"), "{message}");
    suite.ok(&["vm", "set", "m", "--gdb", "wait"])?;
    suite.ok(&["vm", "start", "m"])?;
    suite.ok(&["events", "--after", "0", "--until", "paused", "--timeout", skep_tests::PATIENCE])?;
    let path = suite.dir().join("m.gdb");
    let mut relay = suite.command(&["vm", "gdb", "m", "--unix", &path.to_string_lossy()]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line.trim() == path.to_string_lossy(), "{line}");
    let mut stub = UnixStream::connect(&path)?;
    ensure!(gdb(&mut stub, "?")?.starts_with("T05"));
    // The reset vector: a far jump.
    ensure!(gdb(&mut stub, "mfffffff0,1")? == "ea");
    if is_root() {
        suite.ok(&["audit"])?;
    }
    ensure!(gdb(&mut stub, "D")? == "OK");
    suite.ok(&["vm", "console", "m", "--expect", "skep-guest ready", "--timeout", skep_tests::PATIENCE])?;
    relay.kill()?;
    relay.wait()?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
