//! Switches that span hosts, and NICs that are on none, as real guests see them.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::beyond::{Beyond, run};
use skep_tests::platform::{end, has_link, set_address};
use skep_tests::{Mode, Suite, is_root, skip};

/// Waits until the guest has an answer from an address.
fn answered(suite: &Suite, machine: &str, address: &str) -> Result<()> {
    let line = format!("until ping -c1 -W2 {address} >/dev/null; do :; done; echo there-$((40+2))");
    suite.guest_runs(machine, &line, "there-42").map(drop)
}

#[test]
fn a_guest_shares_a_switch_with_another_host() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let beyond = Beyond::new(&suite)?;
    suite.import_guest()?;
    // One that no other test has.
    let vni = (1 + (std::process::id() & 0x7f_ffff)).to_string();
    let create = ["switch", "create", "far", "--vni", &vni, "--local", &beyond.host, "--peer", &beyond.address];
    // Only from an address of an interface that the starter of the suite gave.
    let (code, message) = suite.fails(&create)?;
    ensure!(code == 6 && message.contains("--uplinks"), "{code}: {message}");
    ensure!(suite.json(&["switch", "list"])?.is_empty(), "a refused switch stayed");
    suite.ok(&["down"])?;
    suite.ok(&["up", "--uplinks", &format!("skt{}a", suite.instance())])?;
    let (_, message) = suite.fails(&["switch", "create", "far", "--kind", "vxlan"])?;
    ensure!(message.contains("VXLAN"), "{message}");
    let (_, message) = suite.fails(&[&create[..], &["--kind", "nat"]].concat())?;
    ensure!(message.contains("VXLAN"), "{message}");
    let (_, message) = suite.fails(&[&create[..7], &["--peer", "127.0.0.1"]].concat())?;
    ensure!(message.contains("remote"), "{message}");
    let made = suite.json(&create)?;
    let tunnel = serde_json::json!({"vni": vni.parse::<u32>()?, "local": beyond.host, "remote": beyond.address, "port": 4789, "group_interface": "", "peer_key": ""});
    ensure!(made[0]["kind"] == "vxlan" && made[0]["tunnel"] == tunnel, "{made:?}");
    // Through WireGuard only with the other host's key, and where the kernel has it.
    let own = suite.json(&["host", "show"])?[0]["wireguard_key"].as_str().context("a key, or none")?.to_owned();
    let key = if own.is_empty() { "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=" } else { &own };
    let (_, message) = suite.fails(&[&["switch", "create", "safe"], &create[3..], &["--peer-key", key]].concat())?;
    ensure!(message.contains(if own.is_empty() { "WireGuard" } else { "own key" }), "{message}");
    let (_, message) = suite.fails(&["switch", "set", "far", "--uplink", "eth0"])?;
    ensure!(message.contains("no uplink"), "{message}");

    // The other host, which is none of skep's, has a tunnel of its own.
    beyond.run(&format!("ip link add vx0 type vxlan id {vni} local {} remote {} dstport 4789", beyond.address, beyond.host))?;
    beyond.run("ip addr add 10.77.1.2/24 dev vx0")?;
    beyond.run("ip link set vx0 up")?;
    suite.define("m", &[])?;
    suite.ok(&["nic", "create", "m", "--switch", "far", "--machine", "m"])?;
    suite.boot("m")?;
    suite.guest_runs("m", &set_address("10.77.1.1/24"), "set-0")?;
    answered(&suite, "m", "10.77.1.2")?;

    // Broker and helper may be killed; what is gone from the host comes back.
    for name in ["broker", "net-helper"] {
        for pid in suite.pids(name)? {
            end(pid)?;
        }
        suite.up()?;
        ensure!(suite.json(&["switch", "show", "far"])?[0]["tunnel"] == tunnel);
        answered(&suite, "m", "10.77.1.2")?;
    }
    let link = made[0]["bridge"].as_str().context("a bridge")?.replace('b', "v");
    let link = if has_link(&link)? { link } else { format!("sk{}v0", suite.instance()) };
    run(&format!("ip link delete {link}"))?;
    for pid in suite.pids("net-helper")? {
        end(pid)?;
    }
    suite.up()?;
    answered(&suite, "m", "10.77.1.2")?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));

    // A suite of skep's on the other host, in place of that: a guest there and the one here reach each other, with frames in pieces, too.
    beyond.run("ip link delete vx0")?;
    let other = Suite::prepare(Mode::Root)?;
    beyond.starts(&other)?;
    other.ok(&["switch", "create", "near", "--vni", &vni, "--local", &beyond.address, "--peer", &beyond.host])?;
    other.import_guest()?;
    other.define("n", &[])?;
    other.ok(&["nic", "create", "n", "--switch", "near", "--machine", "n"])?;
    other.boot("n")?;
    other.guest_runs("n", &set_address("10.77.1.3/24"), "set-0")?;
    answered(&other, "n", "10.77.1.1")?;
    answered(&suite, "m", "-s1472 10.77.1.3")?;
    other.ok(&["vm", "kill", "n"])?;
    other.finish()?;

    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m"])?;
    suite.ok(&["nic", "delete", "m"])?;
    suite.ok(&["switch", "delete", "far"])?;
    ensure!(!has_link(&link)?, "{link} stayed");
    drop(beyond);
    suite.finish()
}

#[test]
fn a_nic_on_no_switch_has_a_cable_to_nobody() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    let nic = suite.json(&["nic", "create", "m", "--switch", "none", "--machine", "m"])?;
    ensure!(nic[0]["switch"] == "" && suite.json(&["switch", "list"])?.is_empty(), "{nic:?}");
    suite.boot("m")?;
    suite.guest_runs("m", "ip link set eth0 up; echo carrier-$(cat /sys/class/net/eth0/carrier)", "carrier-1")?;
    let tap = nic[0]["tap"].as_str().context("a tap")?;
    let shown = run(&format!("ip -o link show {tap}"))?;
    ensure!(shown.contains("UP") && !shown.contains("master"), "{shown}");
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
