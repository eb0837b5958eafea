//! Limits of machines on Linux, from the command to the kernel; what the host cannot do is refused with the reason.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, skip};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn status(pid: &str, field: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?.trim().to_owned())
}

#[test]
fn limits_go_from_the_command_to_the_kernel() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    let host = suite.json(&["host", "show"])?;
    let offered = host.first().and_then(|v| v["limits"].as_array()).context("no limits in host show")?.clone();
    let can = |limit: &str| offered.iter().any(|l| l == limit);
    let own = status("self", "Cpus_allowed_list:")?;
    let cpu = own.split([',', '-']).next().context("no CPU")?;
    let mut more = vec!["--cpus-allowed", cpu];
    if can("priority") {
        more.extend(["--priority", "4"]);
    }
    if can("tasks") {
        more.extend(["--tasks", "90"]);
    }
    if can("memory") {
        more.extend(["--memory-limit", "1G"]);
    }
    suite.define("m", &more)?;
    suite.boot("m")?;
    let [hypervisor] = suite.pids("hypervisor")?[..] else { anyhow::bail!("one hypervisor") };
    ensure!(status(&hypervisor.to_string(), "Cpus_allowed_list:")? == cpu);
    let stat = std::fs::read_to_string(format!("/proc/{hypervisor}/stat"))?;
    let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16)).context("no nice value")?;
    ensure!(nice == if can("priority") { "4" } else { "0" }, "{nice}");
    let shown = suite.json(&["vm", "show", "m"])?;
    let limits = shown.first().map(|v| v["limits"].clone()).context("no machine")?;
    ensure!(limits["cpus"] == cpu && limits["wired"].is_null(), "{limits}");
    ensure!(!can("tasks") || limits["tasks"] == 90, "{limits}");
    // A running cell keeps what it was made with.
    let said = suite.ok(&["vm", "set", "m", "--cpus-allowed", "all", "--tasks", "0"])?;
    ensure!(said.contains("limits.cpus applies at the next start"), "{said}");

    let cases = [
        ("pcpu", "50", "use cpu_percent"),
        ("wired", "on", "CAP_SYS_RESOURCE"),
        ("protect", "on", "CAP_SYS_RESOURCE"),
        ("priority", "-3", "CAP_SYS_RESOURCE"),
        ("cpus-allowed", "1023", "CPU 1023 is none of"),
        ("write-iops", "100", "version 2 of control groups"),
    ];
    // What the host can do is seen in a guest of its own (vm-runner's tests of limits).
    let needed = [("write-iops", "rates"), ("priority", "raise"), ("wired", "wired"), ("protect", "protect")];
    let offered = |option: &str| needed.iter().any(|(of, limit)| *of == option && can(limit));
    for (option, value, reason) in cases.into_iter().filter(|(option, ..)| !offered(option)) {
        suite.define(option, &[&format!("--{option}"), value])?;
        let (_, said) = suite.fails(&["vm", "start", option])?;
        ensure!(said.contains(reason) && said.contains("limits."), "--{option} {value}: {said}");
        suite.ok(&["vm", "delete", option])?;
    }
    for (option, value, reason) in
        [("--cpus-allowed", "3-1", "0-1,3"), ("--pin", "0", "0:2,1:3"), ("--tasks", "3", "16 to 65536")]
    {
        let (code, said) = suite.fails(&["vm", "set", "m", option, value])?;
        ensure!(code == 8 && said.contains(reason), "{option} {value}: {code} {said}");
    }
    suite.finish()
}

#[test]
fn a_virtual_cpu_keeps_to_its_cpu_of_the_host() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    let all = status("self", "Cpus_allowed_list:")?;
    let cpu = all.split([',', '-']).next_back().context("no CPU")?;
    suite.define("m", &["--cpus", "2", "--pin", &format!("1:{cpu}")])?;
    // QEMU's threads have no names: one of them, and no other, is kept to that CPU.
    let pinned = || -> Result<()> {
        let [hypervisor] = suite.pids("hypervisor")?[..] else { anyhow::bail!("one hypervisor") };
        let mut list = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{hypervisor}/task"))? {
            list.push(status(&format!("{hypervisor}/task/{}", thread?.file_name().to_string_lossy()), "Cpus_allowed_list:")?);
        }
        let (kept, free) = list.iter().partition::<Vec<_>, _>(|allowed| *allowed == cpu);
        ensure!(kept.len() == 1 && free.iter().all(|allowed| **allowed == all), "{list:?}, of {all}");
        Ok(())
    };
    if all == cpu {
        skip!("this host has one CPU");
    }
    suite.boot("m")?;
    pinned()?;
    // Its successor, too.
    suite.ok(&["vm", "reset", "m"])?;
    suite.expect_anew("m", "skep-guest ready")?;
    pinned().context("after a reset")?;
    suite.ok(&["vm", "kill", "m"])?;
    let (code, said) = suite.fails(&["vm", "set", "m", "--pin", "2:0"])?;
    ensure!(code == 8 && said.contains("limits.pins"), "{code} {said}");
    suite.ok(&["vm", "set", "m", "--pin", "0:1023"])?;
    let (_, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(said.contains("CPU 1023 is none of"), "{said}");
    suite.finish()
}

/// What the kernel counted in an interval, and how long that was: of a guest that would take all it can get.
#[test]
fn a_busy_guest_is_held_to_its_share() -> Result<()> {
    const PERCENT: f64 = 20.0;
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    let host = suite.json(&["host", "show"])?;
    let offered = host.first().and_then(|v| v["limits"].as_array()).context("no limits in host show")?.clone();
    if !offered.iter().any(|limit| limit == "cpu") {
        skip!("no control group of this host holds a process to a share");
    }
    suite.define("m", &["--cpu-percent", "20"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "(while :; do :; done) & echo busy-$?", "busy-0")?;
    let mut command = suite.command(&["--json", "vm", "stats", "m", "--watch", "--interval", "1s"]);
    let mut watch = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    let mut read = || -> Result<(f64, f64)> {
        let line: serde_json::Value = serde_json::from_str(&lines.next().context("the watch ended")??)?;
        let used = line["cpu_ns"].as_f64().context("no cpu_ns")?;
        // 2026-11-28T08:07:11.903722Z: seconds of its day.
        let clock = line["time"].as_str().and_then(|time| time.get(11..)?.strip_suffix('Z')).context("no time")?;
        let parts = clock.split(':').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        Ok((used / 1e9, parts.iter().fold(0.0, |seconds, part| seconds * 60.0 + part)))
    };
    // It gets no more in any interval. On a host with others on it, it may get less; not in all of them.
    let mut most: f64 = 0.0;
    let mut before = read()?;
    for _ in 0..60 {
        let now = read()?;
        let share = 100.0 * (now.0 - before.0) / (now.1 - before.1).rem_euclid(86_400.0);
        ensure!(share < PERCENT * 1.2, "{share} %");
        most = most.max(share);
        before = now;
        if most > PERCENT * 0.8 {
            break;
        }
    }
    watch.kill()?;
    watch.wait()?;
    ensure!(most > PERCENT * 0.8, "{most} % at most");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
