//! How a machine's life goes: reboots, ends, pauses, edits.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use skep_tests::{Mode, PATIENCE, Suite, is_root, platform};

fn booted() -> Result<Suite> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    Ok(suite)
}

/// Waits for an event of the machine whose detail holds `text`, from the beginning of the log.
fn event(suite: &Suite, text: &str) -> Result<()> {
    suite.ok(&["events", "--after", "0", "--until", text, "--timeout", PATIENCE]).map(drop)
}

#[test]
fn a_guest_that_reboots_is_started_anew_and_one_that_powers_off_is_stopped() -> Result<()> {
    let suite = booted()?;
    suite.guest_runs("m", platform::REBOOT, "skep-guest ready")?;
    event(&suite, "reboot")?;
    ensure!(suite.state_of("m")? == "running");
    suite.guest_runs("m", platform::POWER_OFF, platform::POWERED_OFF)?;
    event(&suite, "stopped")?;
    ensure!(suite.state_of("m")? == "stopped");
    suite.finish()
}

#[test]
fn the_power_button_stops_the_guest_and_reset_restarts_it() -> Result<()> {
    let suite = booted()?;
    suite.ok(&["vm", "reset", "m"])?;
    suite.expect_anew("m", "skep-guest ready")?;
    suite.ok(&["vm", "reboot", "m"])?;
    suite.expect_anew("m", "skep-guest ready")?;
    suite.ok(&["vm", "stop", "m"])?;
    ensure!(suite.state_of("m")? == "stopped");
    let (code, message) = suite.fails(&["vm", "stop", "m"])?;
    ensure!(code == 5 && message.contains("m"), "{code} {message}");
    suite.finish()
}

#[test]
fn all_that_run_are_stopped_at_once_and_whoever_does_not_listen_is_ended() -> Result<()> {
    let suite = booted()?;
    suite.define("n", &[])?;
    suite.boot("n")?;
    suite.define("idle", &[])?;
    let out = suite.ok(&["vm", "stop", "--all", "--timeout", "120s"])?;
    ensure!(out.contains("machine m: stopped") && out.contains("machine n: stopped") && !out.contains("idle"), "{out}");
    ensure!(suite.ok(&["vm", "stop", "--all"])?.is_empty(), "nothing runs any more");
    suite.boot("m")?;
    // One that is paused cannot hear its power button; bhyve has no pause.
    let deaf = suite.skep(&["vm", "pause", "m"])?.status.success();
    let out = suite.ok(&["vm", "stop", "--all", "--force", "--timeout", "120s"])?;
    let how = if deaf { "machine m: ended" } else { "machine m: stopped" };
    ensure!(out.contains(how) && suite.state_of("m")? == "stopped", "{out}");
    for wrong in [&["vm", "stop"][..], &["vm", "stop", "m", "--all"], &["vm", "stop", "m", "--timeout", "soon"]] {
        ensure!(suite.fails(wrong)?.0 == 2, "skep {wrong:?}");
    }
    suite.finish()
}

#[test]
fn the_broker_keeps_the_time_of_a_guest_that_does_not_listen_and_ends_it_by_force() -> Result<()> {
    let suite = booted()?;
    suite.guest_runs("m", platform::DEAF, "deaf-0")?;
    // Without force it runs on. The time is its own.
    suite.ok(&["vm", "set", "m", "--stop-timeout", "1s"])?;
    let (code, message) = suite.fails(&["vm", "stop", "m"])?;
    ensure!(code == 10 && message.contains("in its time") && suite.state_of("m")? == "running", "{code} {message}");
    suite.guest_runs("m", "echo still-$((40+2))", "still-42")?;
    // What is cancelled is not forced.
    let stop = |timeout: &str| suite.json(&["vm", "stop", "m", "--force", "--no-wait", "--timeout", timeout]);
    let id = |begun: &[Value]| begun.first().and_then(|op| op["id"].as_str()).map(str::to_owned).context("no operation");
    let begun = id(&stop("24h")?)?;
    suite.ok(&["op", "cancel", &begun])?;
    event(&suite, "cancelled")?;
    ensure!(suite.state_of("m")? == "running");
    // Nobody is there when its time is over: neither the client, nor the broker that was asked.
    let begun = id(&stop("3s")?)?;
    platform::end(*suite.pids("broker")?.first().context("no broker in the audit")?)?;
    suite.up()?;
    event(&suite, "stopped: ended by force")?;
    suite.ok(&["op", "show", &begun, "--wait"])?;
    ensure!(suite.state_of("m")? == "stopped");
    let (code, message) = suite.fails(&["vm", "stop", "m", "--timeout", "25h"])?;
    ensure!(code == 8 && message.contains("timeout") && message.contains("86400"), "{code} {message}");
    for wrong in ["0s", "25h"] {
        let (code, message) = suite.fails(&["vm", "set", "m", "--stop-timeout", wrong])?;
        ensure!(code == 8 && message.contains("86400"), "{wrong}: {code} {message}");
    }
    suite.finish()
}

/// What is told of machines after this event, to the next one that runs.
fn until_running(suite: &Suite, token: &str) -> Result<Vec<Value>> {
    suite.json(&["events", "--object", "machine", "--after", token, "--until", "running", "--timeout", PATIENCE])
}

/// The time of an event, in seconds since midnight.
fn second_of_day(event: &Value) -> Result<f64> {
    let time = event["time"].as_str().and_then(|time| time.split_once('T')).context("no time")?.1;
    let parts = time.trim_end_matches('Z').split(':').map(|part| Ok(part.parse::<f64>()?)).collect::<Result<Vec<_>>>()?;
    Ok(parts.iter().fold(0.0, |all, part| all * 60.0 + part))
}

#[test]
fn one_that_dies_is_started_again_and_those_that_start_with_the_host_have_their_turns() -> Result<()> {
    let suite = booted()?;
    suite.define("first", &["--autostart", "on", "--start-order", "1", "--start-delay", "3s"])?;
    suite.define("second", &["--autostart", "on", "--start-order", "2"])?;
    // Whatever was defined otherwise does not start, and one that cannot start keeps no other from it.
    suite.define("broken", &["--autostart", "on", "--tpm", "on"])?;
    suite.ok(&["vm", "set", "m", "--restart", "on-failure"])?;
    let shown = suite.json(&["vm", "show", "second"])?;
    ensure!(shown[0]["upkeep"]["order"] == 2 && shown[0]["upkeep"]["restart"] == "never", "{shown:?}");
    let pid = *suite.pids("hypervisor")?.first().context("no hypervisor in the audit")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let told = suite.json(&["events", "--after", "0", "--until", "again in 1 s", "--timeout", PATIENCE])?;
    let token = told.last().and_then(|event| event["token"].as_u64()).context("an event has no token")?.to_string();
    let token = until_running(&suite, &token)?.last().map(|event| event["token"].to_string()).context("no event")?;
    suite.ok(&["vm", "kill", "m"])?;
    ensure!(suite.state_of("m")? == "stopped", "what its user ends stays so");
    let (code, message) = suite.fails(&["vm", "start", "--autostart"])?;
    ensure!(code != 0 && message.contains("broken") && message.contains("tpm"), "{code} {message}");
    let states = ["m", "first", "second", "broken"].map(|name| suite.state_of(name).unwrap_or_default());
    ensure!(states == ["stopped", "running", "running", "stopped"], "{states:?}");
    // From the one's running to the next one's turn its delay passes.
    let first = until_running(&suite, &token)?.pop().context("no event")?;
    let events = until_running(&suite, &first["token"].to_string())?;
    let turn = events.iter().find(|event| event["detail"] == "starting").context("no turn")?;
    ensure!(first["name"] == "first" && turn["name"] == "second", "{first} {events:?}");
    let waited = (second_of_day(turn)? - second_of_day(&first)?).rem_euclid(86_400.0);
    ensure!((3.0..43_200.0).contains(&waited), "{waited} s from {first} to {turn}");
    suite.expect("second", "skep-guest ready")?;
    let out = suite.ok(&["vm", "stop", "--all", "--timeout", "120s"])?;
    let at = |text: &str| out.find(text).with_context(|| out.clone());
    ensure!(at("machine second: ")? < at("machine first: ")?, "{out}");
    for (option, value) in [("--start-order", "10000"), ("--start-delay", "2h")] {
        let (code, message) = suite.fails(&["vm", "set", "m", option, value])?;
        ensure!(code == 8, "{option} {value}: {code} {message}");
    }
    suite.finish()
}

#[test]
fn a_paused_machine_stands_still_and_goes_on() -> Result<()> {
    let suite = booted()?;
    if !platform::PAUSES {
        let (code, message) = suite.fails(&["vm", "pause", "m"])?;
        ensure!(code != 2 && message.contains("bhyve cannot do that"), "{code} {message}");
        ensure!(suite.state_of("m")? == "running");
        suite.ok(&["vm", "kill", "m"])?;
        return suite.finish();
    }
    suite.ok(&["vm", "pause", "m"])?;
    ensure!(suite.state_of("m")? == "paused");
    suite.ok(&["vm", "resume", "m"])?;
    suite.guest_runs("m", "echo on-$((2*21))", "on-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn a_hypervisor_that_is_killed_is_a_crash_with_its_reason_and_leaves_nothing() -> Result<()> {
    let suite = booted()?;
    let pid = *suite.pids("hypervisor")?.first().context("no hypervisor in the audit")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    event(&suite, "failed")?;
    ensure!(suite.state_of("m")? == "failed");
    let show = suite.json(&["vm", "show", "m"])?;
    let note = show[0]["note"].as_str().unwrap_or_default().to_owned();
    ensure!(note.contains("signal 9") || note.contains("SIGKILL") || note.contains("137"), "{note}");
    suite.boot("m")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn an_edit_of_a_running_machine_says_what_applies_now_and_what_at_the_next_start() -> Result<()> {
    let suite = booted()?;
    suite.guest_runs("m", platform::MEMORY, "mem-8-")?;
    let out = suite.ok(&["vm", "set", "m", "--memory", "160M", "--description", "hello"])?;
    ensure!(out.contains("next start") && out.contains("now"), "{out}");
    suite.guest_runs("m", platform::REBOOT, "skep-guest ready")?;
    suite.guest_runs("m", platform::MEMORY, "mem-10-")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
