//! Switches that are subnets, on FreeBSD: a real guest gets address, name and metadata, and reaches what it may.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root, skip};
use std::process::{Child, Command, Stdio};

/// A host beyond this one: a jail with a network of its own, and a server in it.
struct Beyond {
    name: String,
    host_end: String,
    server: Child,
}

/// Its address, and this host's beside it.
const BEYOND: &str = "198.51.100.2";
const HOST: &str = "198.51.100.1";

fn run(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, args) = words.split_first().context("a command")?;
    let output = Command::new(program).args(args).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

impl Beyond {
    fn new(suite: &Suite) -> Result<Self> {
        let name = format!("skt{}", suite.instance());
        run(&format!("jail -c name={name} path=/ vnet persist"))?;
        let host_end = run("ifconfig epair create")?.trim().to_owned();
        let other = host_end.strip_suffix('a').map(|stem| format!("{stem}b")).context("an end of a pair")?;
        run(&format!("ifconfig {other} vnet {name}"))?;
        run(&format!("ifconfig {host_end} inet {HOST}/24 up"))?;
        run(&format!("jexec {name} ifconfig {other} inet {BEYOND}/24 up"))?;
        // It says who asks.
        let script = format!("while :; do echo beyond-the-nat | nc -v -N -l {BEYOND} 80; done");
        let server =
            Command::new("jexec").args([&name, "/bin/sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { name, host_end, server })
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = run(&format!("jail -r {}", self.name));
        let _ = self.server.wait();
        let _ = run(&format!("ifconfig {} destroy", self.host_end));
    }
}

/// Has the guest ask a server for something, and say what it said.
fn http(address: &str, path: &str) -> String {
    format!("echo \"GET {path} HTTP/1.0\" >/tmp/q; echo >>/tmp/q; /usr/bin/nc -w 10 {address} 80 </tmp/q; echo")
}

/// Why no switch can be a subnet here.
fn no_subnets() -> Result<Option<String>> {
    let theirs = match run("pfctl -s nat") {
        Err(error) => return Ok(Some(format!("pf(4): {error}"))),
        Ok(nat) => nat + &run("pfctl -s rules")?,
    };
    let others = !theirs.trim().is_empty() && !theirs.contains("skep/");
    Ok(others.then(|| "pf(4) has rules of the administrator's, which do not call skep's".to_owned()))
}

#[test]
fn a_guest_of_a_nat_switch_gets_address_name_and_metadata() -> Result<()> {
    if !is_root() {
        skip!("only root makes jails");
    }
    if let Some(why) = no_subnets()? {
        skip!("{why}");
    }
    let suite = Suite::start(Mode::Root)?;
    let beyond = Beyond::new(&suite)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "net", "--kind", "nat", "--subnet", "10.99.7.0/24"])?;
    suite.define("web1", &[])?;
    suite.ok(&["nic", "create", "web1", "--switch", "net", "--machine", "web1"])?;
    suite.boot("web1")?;
    suite.guest_runs("web1", "lease >/dev/null 2>&1; echo leased-$?", "leased-0")?;
    suite.guest_runs("web1", "ifconfig vtnet0 inet", "inet 10.99.7.2 netmask 0xffffff00")?;
    // A name, the host's own, and its metadata.
    suite.guest_runs("web1", "/usr/bin/getent hosts web1.net.internal", "10.99.7.2")?;
    suite.guest_runs("web1", "echo i am $(hostname)", "i am web1")?;
    let id = suite.json(&["vm", "show", "web1"])?[0]["id"].as_str().context("an id")?.to_owned();
    suite.guest_runs("web1", &http("169.254.169.254", "/latest/meta-data/instance-id"), &id)?;
    // Its router answers an echo; what the host reaches answers, and the host does not.
    suite.guest_runs("web1", "ping -c1 -t10 10.99.7.1", "1 packets received")?;
    suite.guest_runs("web1", &http(BEYOND, "/"), "beyond-the-nat")?;
    let listener = std::net::TcpListener::bind((HOST, 0))?;
    let port = listener.local_addr()?.port();
    suite.guest_runs("web1", &format!("/usr/bin/nc -w 3 -z {HOST} {port} || echo kept-$((40+2))"), "kept-42")?;
    // Its services, and what makes rules, may be killed at any time.
    let before = suite.pids("guest-services")?;
    ensure!(before.len() == 1, "{before:?}");
    end(before[0])?;
    suite.ok(&["events", "--after", "0", "--until", "leased", "--timeout", skep_tests::PATIENCE])?;
    for pid in suite.pids("net-helper")? {
        end(pid)?;
    }
    suite.guest_runs("web1", &http(BEYOND, "/"), "beyond-the-nat")?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "kill", "web1"])?;
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    suite.ok(&["nic", "delete", "web1"])?;
    suite.ok(&["switch", "delete", "net"])?;
    let anchors = run("pfctl -s Anchors -v")?;
    // The kernel forgets the one around them when it frees the rules that called it.
    ensure!(!anchors.contains("skep/"), "{anchors}");
    drop(beyond);
    suite.finish()
}

/// Has the guest take up IPv6, ask for a router, and say which addresses it has.
const SIX: &str = "ifconfig vtnet0 inet6 -ifdisabled accept_rtadv auto_linklocal up; rtsol vtnet0; ifconfig vtnet0 inet6";

#[test]
fn guests_take_addresses_of_the_ipv6_network_of_their_switch_and_are_nobody_else() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    if let Some(why) = no_subnets()? {
        skip!("{why}");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let switch = suite.json(&["switch", "create", "net", "--kind", "nat", "--subnet", "10.99.8.0/24", "--subnet6", "auto"])?;
    let net = switch[0]["subnet6"].as_str().and_then(|net| net.strip_suffix("/64")).context("a network")?.to_owned();
    let router = format!("{net}1");
    let mut own = Vec::new();
    for name in ["web1", "web2"] {
        suite.define(name, &[])?;
        let nic = suite.json(&["nic", "create", name, "--switch", "net", "--machine", name])?;
        own.push(nic[0]["address6"].as_str().context("an address")?.to_owned());
        suite.boot(name)?;
        suite.guest_runs(name, "lease >/dev/null 2>&1; echo leased-$?", "leased-0")?;
    }
    let [web1, web2] = own.as_slice() else { anyhow::bail!("{own:?}") };
    for (name, address) in [("web1", web1), ("web2", web2)] {
        suite.guest_runs(name, SIX, &format!("inet6 {address} prefixlen 64"))?;
        // Nobody is a router of IPv6 here.
        suite.guest_runs(name, "route -n get -inet6 default >/dev/null 2>&1 || echo routers-$((0))", "routers-0")?;
    }
    let reaches = |name: &str, how: &str, to: &str, packets: u8| {
        suite.guest_runs(name, &format!("ping -6 -o -t20 {how} {to}"), &format!("{packets} packets received")).map(drop)
    };
    // Each other, and of the host an echo, as with IPv4; by name, too.
    reaches("web1", "", web2, 1)?;
    reaches("web2", "", web1, 1)?;
    reaches("web1", "", &router, 1)?;
    reaches("web1", "", "web2.net.internal", 1)?;
    ensure!(run(&format!("ping -6 -o -t20 {web2}"))?.contains("1 packets received"), "the host reaches its guest");
    let listener = std::net::TcpListener::bind((router.as_str(), 0))?;
    let port = listener.local_addr()?.port();
    suite.guest_runs("web1", &format!("/usr/bin/nc -6 -w 3 -z {router} {port} || echo kept-$((40+2))"), "kept-42")?;
    // With an address that is another's, or that he has chosen, he is heard by nobody.
    let chosen = format!("{net}77");
    for other in [web2, &chosen] {
        suite.guest_runs("web1", &format!("sysctl net.inet6.ip6.dad_count=0; ifconfig vtnet0 inet6 {other}/128 alias"), "# ")?;
        for to in [&router, web2].into_iter().filter(|to| *to != other) {
            let line = format!("ping -6 -c2 -t5 -S {other} {to}");
            suite.guest_runs("web1", &line, "0 packets received")?;
        }
        suite.guest_runs("web1", &format!("ifconfig vtnet0 inet6 {other} -alias; echo gone-$?"), "gone-0")?;
    }
    reaches("web1", "", web2, 1)?;
    ensure!(run(&format!("ping -6 -o -t20 {web2}"))?.contains("1 packets received"), "the host reaches its guest no more");
    // What answers and what makes rules may be killed at any time.
    for pid in [suite.pids("guest-services")?, suite.pids("net-helper")?].concat() {
        end(pid)?;
    }
    suite.guest_runs("web2", SIX, &format!("inet6 {web2} prefixlen 64"))?;
    reaches("web1", "", "web2.net.internal", 1)?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    for name in ["web1", "web2"] {
        suite.ok(&["vm", "kill", name])?;
        suite.ok(&["vm", "delete", name, "--disks"])?;
        suite.ok(&["nic", "delete", name])?;
    }
    suite.ok(&["switch", "delete", "net"])?;
    let anchors = run("pfctl -s Anchors -v")?;
    ensure!(!anchors.contains("skep/"), "{anchors}");
    suite.finish()
}
