//! Virtual CPUs, as many and arranged as was said, with a real guest, whose disks and NICs come and go between its starts.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, platform, skip};
use std::collections::BTreeMap;

/// Where a machine's disks and NICs are, by their names.
fn places(suite: &Suite) -> Result<BTreeMap<String, u64>> {
    let shown = &suite.json(&["vm", "show", "m"])?[0];
    let mut places = BTreeMap::new();
    for kind in ["disk", "nic"] {
        for (turn, device) in shown[format!("{kind}s")].as_array().into_iter().flatten().enumerate() {
            let place = shown["pci"][format!("{kind}{turn}")].as_u64().with_context(|| shown.to_string())?;
            places.insert(device[kind].as_str().context("no name")?.to_owned(), place);
        }
    }
    Ok(places)
}

/// Has the guest say that there is something at these places and no others, and what is there of which this is known.
fn finds(suite: &Suite, places: &BTreeMap<String, u64>, known: &[(&str, String)]) -> Result<()> {
    let mut slots: Vec<u64> = places.values().copied().collect();
    slots.sort_unstable();
    let slots: Vec<String> = slots.iter().map(u64::to_string).collect();
    suite.guest_runs("m", platform::PLACES, &format!("at {} here", slots.join(" ")))?;
    for (name, what) in known {
        let Some(look) = places.get(*name).and_then(|place| platform::look_at(*place)) else { continue };
        suite.guest_runs("m", &look, &format!("has {what} here"))?;
    }
    Ok(())
}

#[test]
fn a_guest_has_the_cpus_that_were_said_arranged_as_was_said() -> Result<()> {
    if !is_root()
        && let Some(why) = platform::ORDINARY_USER
    {
        skip!("{why}");
    }
    if let Some(most) = platform::most_cpus()
        && most < 4
    {
        skip!("this host's hypervisor gives a machine {most} CPUs at most");
    }
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    for (name, size) in [("a", "4M"), ("b", "8M"), ("c", "12M"), ("d", "16M")] {
        suite.ok(&["disk", "create", name, "--size", size])?;
    }
    suite.define("m", &["--cpus", "3", "--disk", "a", "--disk", "b", "--disk", "c"])?;
    let mut known = vec![("b", (8 * 2048).to_string()), ("c", (12 * 2048).to_string())];
    // Only root's suite has taps.
    if is_root() {
        suite.ok(&["nic", "create", "first", "--machine", "m"])?;
        let nic = suite.json(&["nic", "create", "second", "--machine", "m"])?;
        known.push(("second", nic[0]["mac"].as_str().context("no address")?.to_owned()));
    }
    suite.boot("m")?;
    suite.guest_runs("m", platform::COUNT_CPUS, "3 in 3 cores")?;
    let before = places(&suite)?;
    finds(&suite, &before, &known)?;
    suite.ok(&["vm", "kill", "m"])?;

    // The first that can go goes, and the others change their turns.
    let root = before.keys().find(|name| *name == "m-root").map(|root| ["--disk", root.as_str()]);
    let disks: Vec<&str> = root.iter().flatten().copied().chain(["--disk", "c", "--disk", "b"]).collect();
    suite.ok(&[&["vm", "set", "m"], &disks[..]].concat())?;
    if is_root() {
        suite.ok(&["nic", "detach", "first"])?;
    }
    let said = suite.ok(&["vm", "set", "m", "--topology", "cores=2,threads=2"])?;
    ensure!(said.contains("topology") && said.contains("cpus"), "{said}");
    let shown = &suite.json(&["vm", "show", "m"])?[0];
    ensure!(shown["cpus"] == 4, "{shown}");
    ensure!(shown["topology"] == serde_json::json!({"sockets": 1, "cores": 2, "threads": 2}), "{shown}");
    suite.boot("m")?;
    suite.guest_runs("m", platform::COUNT_CPUS, "4 in 2 cores")?;
    let rest: BTreeMap<_, _> = before.iter().filter(|(name, _)| !["a", "first"].contains(&name.as_str())).collect();
    let now = places(&suite)?;
    ensure!(now.iter().collect::<BTreeMap<_, _>>() == rest, "{before:?}, then {now:?}");
    finds(&suite, &now, &known)?;
    suite.ok(&["vm", "kill", "m"])?;

    // Who comes gets what is free: what had been theirs that went.
    suite.ok(&[&["vm", "set", "m"], &disks[..], &["--disk", "d"]].concat())?;
    if is_root() {
        suite.ok(&["nic", "create", "third", "--machine", "m"])?;
    }
    let last = places(&suite)?;
    ensure!(last.get("d") == before.get("a") && last.get("third") == before.get("first"), "{before:?}, then {last:?}");
    ensure!(now.iter().all(|(name, place)| last.get(name) == Some(place)), "{now:?}, then {last:?}");

    let (code, said) = suite.fails(&["vm", "set", "m", "--cpus", "3"])?;
    ensure!(code == 8 && said.contains("1 sockets x 2 cores x 2 threads") && said.contains("3 CPUs"), "{code} {said}");
    let (code, said) = suite.fails(&["vm", "set", "m", "--cpus", "4", "--topology", "sockets=3"])?;
    ensure!(code == 8 && said.contains("topology"), "{code} {said}");
    suite.ok(&["vm", "set", "m", "--topology", "none", "--cpus", "2"])?;
    let shown = &suite.json(&["vm", "show", "m"])?[0];
    ensure!(shown["cpus"] == 2 && shown["topology"].is_null(), "{shown}");
    suite.finish()
}

#[test]
fn more_cpus_than_a_machine_of_this_host_can_have_are_refused_when_they_are_set() -> Result<()> {
    if !is_root()
        && let Some(why) = platform::ORDINARY_USER
    {
        skip!("{why}");
    }
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let host = suite.json(&["host", "show"])?;
    let most = host[0]["machine_cpus"].as_u64().context("no number")?;
    if let Some(said) = platform::most_cpus() {
        ensure!(most == u64::from(said).min(64), "{most}, and the kernel says {said}");
    }
    suite.ok(&["vm", "create", "m", "--cpus", &most.to_string()])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--cpus", &(most + 1).to_string()])?;
    let limit = if most < 64 { format!("gives a machine at most {most}: ") } else { "1 to 64".to_owned() };
    ensure!(message.contains("cpus") && message.contains(&limit), "{message}");
    let (width, height) = host[0]["machine_screen"].as_str().and_then(|size| size.split_once('x')).context("no size")?;
    suite.ok(&["vm", "set", "m", "--screen-size", &format!("{width}x{height}")])?;
    let (_, message) = suite.fails(&["vm", "set", "m", "--screen-size", &format!("{}x{height}", width.parse::<u32>()? + 1)])?;
    ensure!(message.contains("screen"), "{message}");
    suite.finish()
}
