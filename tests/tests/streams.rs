//! Console and screen with real clients: several watchers, one keyboard, a VNC viewer.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, skip};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn booted() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    Ok(suite)
}

#[test]
fn a_real_vnc_viewer_sees_the_screen() -> Result<()> {
    // 127: unpacked by a user whose system lacks its libraries.
    if !Command::new("vncsnapshot").output().is_ok_and(|o| o.status.code() != Some(127)) {
        skip!("vncsnapshot is not installed");
    }
    let suite = booted()?;
    let mut relay = suite.command(&["vm", "vnc", "m", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(relay.stdout.take().context("no output")?).read_line(&mut line)?;
    let port: u16 = line.trim().rsplit(':').next().and_then(|p| p.trim().parse().ok()).with_context(|| line.clone())?;
    let picture = suite.dir().join("screen.jpg");
    // Two viewers, one after the other.
    for _ in 0..2 {
        // vncsnapshot takes display numbers: 5900 less.
        let display = format!("127.0.0.1:{}", i32::from(port) - 5900);
        let output = Command::new("vncsnapshot").args(["-quiet", &display]).arg(&picture).output()?;
        ensure!(output.status.success(), "{}{}", line, String::from_utf8_lossy(&output.stderr));
        let bytes = std::fs::read(&picture)?;
        ensure!(bytes.starts_with(&[0xff, 0xd8]) && bytes.len() > 1000, "not a picture: {} bytes", bytes.len());
        std::fs::remove_file(&picture)?;
    }
    relay.kill()?;
    relay.wait()?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn many_watch_the_console_and_one_types() -> Result<()> {
    let suite = booted()?;
    let console = |more: &[&str]| {
        let args = [&["vm", "console", "m", "--from-now", "--timeout", skep_tests::PATIENCE], more].concat();
        suite.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    // Two who watch, and one who holds the keyboard while he waits for what never comes by itself.
    let watchers = [console(&["--read-only", "--expect", "said-42"])?, console(&["--read-only", "--expect", "said-42"])?];
    let mut holder = console(&["--send", "echo hold", "--expect", "said-42"])?;
    // Another may not type, unless he takes the keyboard over.
    suite.ok(&["events", "--after", "0", "--until", "running", "--timeout", "10"])?;
    let taken = suite.ok(&[
        "vm",
        "console",
        "m",
        "--take",
        "--send",
        "echo said-$((6*7))",
        "--expect",
        "said-42",
        "--timeout",
        skep_tests::PATIENCE,
    ])?;
    ensure!(taken.contains("said-42"));
    for watcher in watchers {
        let output = watcher.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(holder.wait()?.success());
    let log = suite.ok(&["vm", "log", "m"])?;
    ensure!(log.contains("said-42"), "not in the log: {log}");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
