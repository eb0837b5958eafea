//! Any process may be killed with -9: it is started again, machines run on, nothing leaks.

use anyhow::{Context, Result, ensure};
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root, skip};
use std::io::Write;

const SERVICES: [&str; 6] = ["api-frontend", "broker", "storage-helper", "net-helper", "vm-runner", "console-proxy"];

#[test]
fn each_service_killed_while_a_machine_runs_comes_back_and_the_machine_runs_on() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "lan"])?;
    suite.define("m", &[])?;
    suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m"])?;
    suite.boot("m")?;
    for (turn, service) in SERVICES.iter().enumerate() {
        let before = suite.pids(service)?;
        ensure!(before.len() == 1, "{service}: {before:?}");
        end(before[0])?;
        suite.up()?;
        let answer = format!("alive-{turn}-{}", 7 * turn);
        let command = format!("echo alive-{turn}-$((7*{turn}))");
        suite.guest_runs("m", &command, &answer)?;
        ensure!(suite.state_of("m")? == "running", "after {service}");
        let after = suite.pids(service)?;
        ensure!(after.len() == 1 && after != before, "{service}: {before:?} {after:?}");
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "stop", "m"])?;
    suite.finish()
}

#[test]
fn a_runner_killed_takes_its_machine_along_and_nothing_stays() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    let pids = suite.pids("runner")?;
    ensure!(pids.len() == 1, "{pids:?}");
    end(pids[0])?;
    suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
    ensure!(suite.pids("hypervisor")?.is_empty());
    suite.boot("m")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_supervisor_killed_is_followed_by_another_that_adopts_the_machine() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    let lock = std::fs::read_to_string(suite.run.join("up.pid"))?;
    end(lock.trim().parse()?)?;
    suite.up()?;
    suite.guest_runs("m", "echo adopted-$((40+2))", "adopted-42")?;
    ensure!(suite.state_of("m")? == "running");
    let stats = suite.json(&["vm", "stats", "m"])?;
    ensure!(stats[0]["cpu_ns"].as_u64().is_some_and(|ns| ns > 0), "{stats:?}");
    suite.ok(&["vm", "stop", "m"])?;
    suite.finish()
}

#[test]
fn an_import_that_loses_a_process_on_its_way_fails_and_leaves_nothing() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    for dies in ["storage-helper", "api-frontend", "broker", "client"] {
        let fifo = suite.dir().join(dies);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
        std::fs::set_permissions(&fifo, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        // A pipe's length is not known before its end.
        let mut import = suite.command(&["disk", "import", dies, &fifo.to_string_lossy()]).spawn()?;
        let mut stream = std::fs::OpenOptions::new().write(true).open(&fifo)?;
        // More than all pipes and sockets on the way hold: the helper has some of it when this has been written.
        stream.write_all(&vec![7u8; 32 << 20])?;
        if dies == "client" {
            import.kill()?;
        } else {
            end(suite.pids(dies)?[0])?;
            suite.up()?;
        }
        // The reader is gone; whether the rest can still be written does not matter.
        let _ = stream.write_all(&vec![7u8; 32 << 20]);
        drop(stream);
        ensure!(!import.wait()?.success(), "{dies}: the import succeeded");
        let operations = suite.json(&["op", "list"])?;
        let object = format!("disk {dies}");
        let id = operations.iter().find(|op| op["object"] == object).and_then(|op| op["id"].as_str());
        suite.fails(&["op", "show", id.context("no operation")?, "--wait"])?;
        ensure!(suite.json(&["disk", "list"])?.is_empty(), "{dies}: a disk is left");
        let left: Vec<_> = std::fs::read_dir(suite.state.join("disks"))?.flatten().map(|e| e.file_name()).collect();
        ensure!(left.is_empty(), "{dies}: {left:?}");
        suite.ok(&["disk", "create", dies, "--size", "1M"])?;
        suite.ok(&["disk", "delete", dies])?;
    }
    suite.finish()
}

#[test]
fn a_start_whose_broker_or_spawner_dies_ends_in_a_state_that_is_true() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    for service in ["broker", "vm-runner", "storage-helper"] {
        let pid = suite.pids(service)?[0];
        let mut start = suite.command(&["vm", "start", "m"]).spawn()?;
        end(pid)?;
        start.wait()?;
        suite.up()?;
        // Whatever came of it: what is said is what is there, and the machine can be used.
        let running = suite.state_of("m")? == "running";
        if !running {
            suite.ok(&["vm", "start", "m"])?;
        }
        // Only then: while it starts, bhyve has its tables compiled by processes of the same name.
        suite.expect("m", "skep-guest ready")?;
        ensure!(suite.pids("hypervisor")?.len() == 1, "after {service}");
        suite.ok(&["vm", "kill", "m"])?;
        ensure!(suite.pids("hypervisor")?.is_empty() && suite.pids("runner")?.is_empty(), "after {service}");
    }
    suite.finish()
}
