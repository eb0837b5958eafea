//! Logs of machines and of the suite's processes, read and followed.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A command that goes on, and the lines that it prints.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn new(suite: &Suite, args: &[&str]) -> Result<Self> {
        let mut child = suite.command(args).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, lines })
    }

    /// The next line with this text. The test's own time limit ends a wait in vain.
    fn until(&mut self, text: &str) -> Result<String> {
        for line in self.lines.by_ref() {
            let line = line?;
            if line.contains(text) {
                return Ok(line);
            }
        }
        anyhow::bail!("it ended without {text}")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds between two outputs of the guest.
const BETWEEN: Duration = Duration::from_secs(10);

/// `42-told` has been seen: what comes 10 s later is told apart from it by its time.
fn since_a_time(suite: &Suite, serial: &mut Following) -> Result<()> {
    let told = Instant::now();
    suite.guest_runs("web1", &format!("sleep {}; echo $((6*7))-later", BETWEEN.as_secs()), "42-later")?;
    serial.until("42-later")?;
    loop {
        // When this begins is known as exactly as the command is fast.
        let age = Duration::from_secs((told.elapsed() - BETWEEN / 2).as_secs());
        let text = suite.ok(&["vm", "log", "web1", "--since", &format!("{}s", age.as_secs())])?;
        ensure!(!text.contains("42-told"), "{text}");
        if told.elapsed() - age < BETWEEN {
            ensure!(text.contains("42-later"), "{text}");
            break;
        }
    }
    let all = suite.ok(&["vm", "log", "web1", "--since", "1h"])?;
    ensure!(all.contains("42-told") && all == suite.ok(&["vm", "log", "web1"])?, "{all}");
    Ok(())
}

#[test]
fn logs_are_cut_and_followed() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("web1", &[])?;
    // From before its first start on.
    let mut serial = Following::new(&suite, &["vm", "log", "web1", "--follow"])?;
    let mut broker = Following::new(&suite, &["--json", "log", "broker", "--follow", "--tail", "1"])?;
    broker.until("broker")?;
    suite.boot("web1")?;
    serial.until("skep-guest ready")?;
    suite.guest_runs("web1", "echo $((6*7))-told", "42-told")?;
    serial.until("42-told")?;
    since_a_time(&suite, &mut serial)?;
    let line = broker.until("MachineAct")?;
    let line: serde_json::Value = serde_json::from_str(&line)?;
    ensure!(line["service"] == "broker" && line["time"].as_str().is_some_and(|time| time.len() == 27), "{line}");
    // The last lines only; and an audit with a follower on.
    ensure!(suite.ok(&["vm", "log", "web1", "--tail", "2"])?.lines().count() == 2);
    ensure!(suite.ok(&["vm", "log", "web1", "--tail", "0"])?.is_empty());
    let all = suite.ok(&["log", "--tail", "1000"])?;
    ensure!(all.contains("api-frontend") || all.contains("Machines.Start"), "{all}");
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "kill", "web1"])?;
    // It goes on over the machine's end, and ends with the machine.
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    while serial.lines.next().is_some() {}
    ensure!(serial.child.wait()?.success());
    drop(broker);
    suite.finish()
}

/// Of the first that is listed.
fn id(suite: &Suite, what: &str) -> Result<String> {
    let list = suite.json(&[what, "list"])?;
    Ok(list.first().and_then(|one| one["id"].as_str()).context("no id")?.to_owned())
}

#[test]
fn what_is_said_in_cells_is_read_and_followed() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("web1", &[])?;
    if is_root() {
        suite.ok(&["switch", "create", "net", "--kind", "nat"])?;
        suite.ok(&["nic", "create", "web1", "--switch", "net", "--machine", "web1"])?;
    }
    // From before there is one.
    let mut proxy = Following::new(&suite, &["--json", "log", "console-proxy", "--follow"])?;
    suite.boot("web1")?;
    let its = format!(" console-proxy info machine {}: ", id(&suite, "vm")?);
    let line: serde_json::Value = serde_json::from_str(&proxy.until("AttachSerial for")?)?;
    ensure!(line["service"] == "console-proxy" && line["line"].as_str().is_some_and(|line| line.contains(&its)), "{line}");
    let all = suite.ok(&["log", "console-proxy", "--since", "1h", "--tail", "1000"])?;
    ensure!(all.contains(&format!("{its}serves")) && all.lines().all(|line| line.contains(&its)), "{all}");
    ensure!(suite.ok(&["log", "console-proxy", "--tail", "1"])?.lines().count() == 1);
    if is_root() {
        let its = format!(" guest-services info switch {}: ", id(&suite, "switch")?);
        let all = suite.ok(&["log", "guest-services", "--since", "1h"])?;
        ensure!(all.contains(&format!("{its}serves")) && all.contains("AddPort for"), "{all}");
        ensure!(all.lines().all(|line| line.contains(&its)), "{all}");
    }
    // All are one, by their times.
    let merged = suite.ok(&["log", "--tail", "10000"])?;
    ensure!(merged.contains(&its) && merged.contains(" vm-runner info "), "{merged}");
    // Whoever is the spawner: it is heard. One was read already.
    let attached =
        || Ok::<_, anyhow::Error>(suite.ok(&["log", "console-proxy", "--tail", "1000"])?.matches("AttachSerial for").count());
    let before = attached()?;
    skep_tests::platform::end(*suite.pids("vm-runner")?.first().context("no spawner")?)?;
    suite.up()?;
    suite.guest_runs("web1", "echo $((6*7))-again", "42-again")?;
    for _ in 0..before {
        proxy.until("AttachSerial for")?;
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    drop(proxy);
    suite.ok(&["vm", "kill", "web1"])?;
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    let left: Vec<_> = std::fs::read_dir(suite.run.join("console"))?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.iter().all(|name| !name.to_string_lossy().contains("console-proxy")), "{left:?}");
    suite.finish()
}
