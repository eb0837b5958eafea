//! Serial ports beside the first, and scripts that are played into them, with a guest of bhyve.
#![cfg(target_os = "freebsd")]

use anyhow::{Result, ensure};
use skep_tests::{Mode, PATIENCE, Suite, is_root, platform, skip};

fn suite() -> Result<Suite> {
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    Ok(suite)
}

/// Has the guest start a program behind a port, which answers each line with what it heard. The guest counts the ports that it finds, so the
/// fourth may be its third.
fn answers(suite: &Suite, port: u8, devices: &str) -> Result<()> {
    let find = format!("for d in {devices}; do [ ! -e /dev/$d ] || break; done");
    let program = format!("(while read -r l; do echo \"$l of port {port}: $((6*7))\"; done) </dev/$d >/dev/$d &");
    suite.guest_runs("m", &format!("{find}; {program} echo there-{port}-$((6*7))"), &format!("there-{port}-42")).map(drop)
}

/// Asks it.
fn says(suite: &Suite, port: u8, word: &str) -> Result<()> {
    let (port, said) = (port.to_string(), format!("{word} of port {port}: 42"));
    suite.ok(&["vm", "console", "m", "--port", &port, "--send", word, "--expect", &said, "--timeout", PATIENCE]).map(drop)
}

#[test]
fn each_serial_port_has_a_console_a_log_and_its_script() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = suite()?;
    suite.define("m", &["--serial", "2,speed=9600", "--serial", "4,nolog"])?;
    let show = suite.json(&["vm", "show", "m"])?;
    let want = serde_json::json!([
        {"port": 1, "speed": null, "log": true}, {"port": 2, "speed": 9600, "log": true}, {"port": 4, "speed": null, "log": false},
    ]);
    ensure!(show[0]["serial"] == want, "{show:?}");
    suite.boot("m")?;
    for (port, devices) in [(2, "cuau1"), (4, "cuau3 cuau2")] {
        answers(&suite, port, devices)?;
        says(&suite, port, "name")?;
    }
    let (_, message) = suite.fails(&["vm", "console", "m", "--port", "3", "--expect", "x"])?;
    ensure!(message.contains("serial port 3 of machine m") && message.contains("it runs with 1, 2, 4"), "{message}");
    ensure!(suite.ok(&["vm", "log", "m", "--port", "2"])?.contains("name of port 2: 42"), "not logged");
    ensure!(!suite.ok(&["vm", "log", "m", "--port", "4"])?.contains("name of"), "logged");
    ensure!(!suite.ok(&["vm", "log", "m"])?.contains("name of port 2: 42"), "in another port's log");

    // A script: every step in its time.
    let path = suite.dir().join("script");
    let script = path.to_string_lossy().into_owned();
    let steps =
        "send \"first\"\nexpect \"first of port 2: 42\"\ntype \"sec\"\ntype \"ond\\r\"\nexpect 500s \"second of port 2: 42\"\n";
    std::fs::write(&path, format!("# asks twice\ntimeout 600s\n{steps}"))?;
    let played = suite.json(&["vm", "play", "m", &script, "--port", "2"])?;
    let steps: Vec<_> = played.iter().filter(|one| one["step"].is_string()).map(|one| (&one["line"], &one["step"])).collect();
    let want = [(3, "send"), (4, "expect"), (5, "type"), (6, "type"), (7, "expect")];
    ensure!(steps.iter().zip(want).all(|((l, s), (line, step))| **l == line && **s == step) && steps.len() == 5, "{played:?}");
    // One that does not come is said with its line.
    std::fs::write(&path, "send \"third\"\nexpect 600s \"third of\"\nexpect 1s \"fourth of\"\n")?;
    let (code, message) = suite.fails(&["vm", "play", "m", &script, "--port", "2"])?;
    ensure!(code != 2 && message.contains("line 3") && message.contains("`fourth of` did not come in 1s"), "{code} {message}");

    // Another console-proxy has all lines again.
    platform::end(suite.pids("console-proxy")?[0])?;
    says(&suite, 2, "again")?;
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn four_serial_ports_carry_bytes_both_ways() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    let suite = suite()?;
    suite.define("m", &["--serial", "2", "--serial", "3,nolog", "--serial", "4"])?;
    suite.boot("m")?;
    for (port, device) in [(2, "cuau1"), (3, "cuau2"), (4, "cuau3")] {
        answers(&suite, port, device)?;
    }
    // All at once: no byte of one comes out of another.
    for (port, word) in [(4, "delta"), (2, "beta"), (3, "gamma"), (2, "zeta")] {
        says(&suite, port, word)?;
    }
    for (port, words) in [("2", &["beta", "zeta"][..]), ("3", &[]), ("4", &["delta"])] {
        let log = suite.ok(&["vm", "log", "m", "--port", port])?;
        for word in ["beta", "gamma", "delta", "zeta"] {
            ensure!(log.contains(&format!("{word} of port {port}: 42")) == words.contains(&word), "{port}: {log}");
        }
    }
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
