//! Switches that are subnets: real guests get addresses, names and metadata, and reach what they may.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::beyond::Beyond;
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root, skip};

/// Has the guest ask for an address.
fn lease(suite: &Suite, name: &str, address: &str) -> Result<()> {
    let got = format!("has {address}/24");
    suite.guest_runs(name, "udhcpc -i eth0 -q -n -f && echo has $(ip -4 -o address show eth0 | awk '{print $4}')", &got)?;
    Ok(())
}

#[test]
fn guests_of_a_nat_switch_get_address_name_and_metadata() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let beyond = Beyond::new(&suite)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "net", "--kind", "nat", "--subnet", "10.99.7.0/24"])?;
    for (name, address) in [("web1", "10.99.7.2"), ("web2", "10.99.7.3")] {
        suite.define(name, &[])?;
        suite.ok(&["nic", "create", name, "--switch", "net", "--machine", name])?;
        suite.boot(name)?;
        lease(&suite, name, address)?;
    }
    // A name of each, the host's own, and its metadata.
    suite.guest_runs("web1", "nslookup web2.net.internal | grep -o 'Address: 10.*'", "Address: 10.99.7.3")?;
    suite.guest_runs("web1", "echo i am $(hostname)", "i am web1")?;
    let id = suite.json(&["vm", "show", "web1"])?[0]["id"].as_str().context("an id")?.to_owned();
    suite.guest_runs("web1", "wget -qO- http://169.254.169.254/latest/meta-data/instance-id; echo", &id)?;
    // Its neighbour, and what the host reaches; not the host.
    suite.guest_runs("web1", "ping -c1 -W5 10.99.7.3 | grep -o '1 packets received'", "1 packets received")?;
    suite.guest_runs("web1", &format!("wget -qO- http://{}/", beyond.address), "beyond-the-nat")?;
    suite.guest_runs("web1", &format!("wget -T3 -qO- http://{}:22/ || echo kept-$((40+2))", beyond.host), "kept-42")?;
    // Its services may be killed at any time.
    let before = suite.pids("guest-services")?;
    ensure!(before.len() == 1, "{before:?}");
    end(before[0])?;
    suite.ok(&["events", "--after", "0", "--until", "leased", "--timeout", skep_tests::PATIENCE])?;
    lease(&suite, "web2", "10.99.7.3")?;
    suite.guest_runs("web2", &format!("wget -qO- http://{}/", beyond.address), "beyond-the-nat")?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    for name in ["web1", "web2"] {
        suite.ok(&["vm", "kill", name])?;
    }
    drop(beyond);
    suite.finish()
}

#[test]
fn a_guest_is_launched_and_phones_home() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let image = skep_tests::guest()?.join("disk.img");
    suite.ok(&["disk", "import", "guest", &image.to_string_lossy()])?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = suite.dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let key = write("id.pub", "# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here\n")?;
    let data = write("user-data", "echo told-$((6*7)) >/tmp/told\n")?;
    let (_, message) = suite.fails(&["launch", "guest", "web1", "--ssh-key", &write("id", "-----BEGIN PRIVATE KEY-----\n")?])?;
    ensure!(message.contains("private key"), "{message}");
    suite.fails(&["launch", "nothing", "web1"])?;
    suite.fails(&["launch", "guest", "web1", "--size", "1M"])?;
    ensure!(suite.json(&["disk", "list"])?.len() == 1, "a refused launch left something");

    // One command; it ends when the guest has done what it was told.
    suite.ok(&["launch", "guest", "web1", "--ssh-key", &key, "--user-data", &data, "--memory", "256M"])?;
    suite.guest_runs("web1", "cat /tmp/told", "told-42")?;
    suite.guest_runs("web1", "wget -qO- http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key", "me@here")?;
    let switches = suite.json(&["switch", "list"])?;
    ensure!(switches.len() == 1 && switches[0]["name"] == "default" && switches[0]["kind"] == "nat", "{switches:?}");
    let nic = suite.json(&["nic", "show", "web1"])?;
    ensure!(nic[0]["address"].as_str().is_some_and(|a| a.starts_with("10.")), "{nic:?}");
    // What a machine is started from is not written to, and what was launched is a machine as others are.
    suite.ok(&["vm", "kill", "web1"])?;
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    ensure!(suite.json(&["disk", "list"])?.len() == 1 && suite.json(&["nic", "list"])?.is_empty());

    // A launch that is given up while its guest is away leaves a machine; one that fails before leaves nothing.
    let begun = suite.json(&["launch", "guest", "web2", "--switch", "none-such", "--no-wait"]);
    ensure!(begun.is_err(), "a switch that is not there");
    ensure!(suite.json(&["vm", "list"])?.is_empty());
    suite.ok(&["switch", "delete", "default"])?;
    suite.finish()
}

#[test]
fn a_switch_of_netgraph_is_freebsds_alone() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let (code, message) = suite.fails(&["switch", "create", "lan", "--kind", "netgraph"])?;
    ensure!(code != 0 && message.contains("which FreeBSD alone has"), "{code} {message}");
    ensure!(suite.json(&["switch", "list"])?.is_empty());
    suite.finish()
}
