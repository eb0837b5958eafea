//! NICs of running machines, as real guests see them.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::frames::Capture;
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root, skip};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Instant;

/// Has the guest of a machine ask for its NIC's address; says which it is.
fn lease(suite: &Suite, machine: &str, nic: &str) -> Result<Ipv4Addr> {
    let address = suite.json(&["nic", "show", nic])?[0]["address"].as_str().context("an address")?.to_owned();
    let ask = "udhcpc -i eth0 -q -n -f && echo has $(ip -4 -o address show eth0 | awk '{print $4}')";
    suite.guest_runs(machine, ask, &format!("has {address}/24"))?;
    Ok(address.parse()?)
}

/// Bytes per second that the guest receives of so many.
fn receives(suite: &Suite, host: Ipv4Addr, bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind((host, 0))?;
    let port = listener.local_addr()?.port();
    let sent = std::thread::spawn(move || -> Result<Instant> {
        let (mut guest, _) = listener.accept()?;
        // What is asked for is of no matter, but what stays unread would end the connection.
        let mut asked = BufReader::new(guest.try_clone()?).lines();
        while asked.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let begun = Instant::now();
        write!(guest, "HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
        std::io::copy(&mut std::io::repeat(7).take(bytes), &mut guest)?;
        Ok(begun)
    });
    suite.guest_runs("m", &format!("wget -qO- http://{host}:{port}/ | wc -c"), &bytes.to_string())?;
    let begun = sent.join().ok().context("the sender")??;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}

/// Bytes per second that it sends of so many.
fn sends(suite: &Suite, host: Ipv4Addr, bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind((host, 0))?;
    let port = listener.local_addr()?.port();
    let heard = std::thread::spawn(move || -> Result<f64> {
        let (guest, _) = listener.accept()?;
        let begun = Instant::now();
        let got = std::io::copy(&mut guest.take(bytes), &mut std::io::sink())?;
        ensure!(got == bytes, "{got} of {bytes} bytes");
        Ok(bytes as f64 / begun.elapsed().as_secs_f64())
    });
    suite.guest_runs("m", &format!("head -c {bytes} /dev/zero | nc {host} {port}; echo sent-$((40+2))"), "sent-42")?;
    heard.join().ok().context("the receiver")?
}

#[test]
fn rates_of_a_nic_act_on_its_running_guest_each_way() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "lab", "--kind", "host-only"])?;
    suite.define("m", &[])?;
    suite.ok(&["nic", "create", "m0", "--switch", "lab", "--machine", "m"])?;
    let (code, said) = suite.fails(&["nic", "set", "m0", "--rate-in", "1K"])?;
    ensure!(code == 8 && said.contains("64000 to 100000000000"), "{code} {said}");
    suite.boot("m")?;
    let [a, b, c, _] = lease(&suite, "m", "m0")?.octets();
    // This host on the guest's switch.
    let host = Ipv4Addr::new(a, b, c, 1);
    let free = (receives(&suite, host, 8 << 20)?, sends(&suite, host, 8 << 20)?);
    // A tenth of the slower way, both ways, while it runs. Of what it sends, one second's worth goes at once.
    let rate = free.0.min(free.1) / 10.0;
    let bits = format!("{}", (rate * 8.0) as u64);
    let some = (rate * 5.0) as u64;
    let shown = suite.json(&["nic", "set", "m0", "--rate-in", &bits, "--rate-out", &bits])?;
    ensure!([&shown[0]["rate_in"], &shown[0]["rate_out"]].iter().all(|shown| shown.as_u64() == bits.parse().ok()), "{shown:?}");
    let held = (receives(&suite, host, some)?, sends(&suite, host, some)?);
    println!("free {free:?}, to be {rate}, held {held:?}");
    for held in [held.0, held.1] {
        ensure!((0.3..1.8).contains(&(held / rate)), "{held} where {rate} was asked for");
    }
    // One way only; then neither.
    suite.ok(&["nic", "set", "m0", "--rate-in", "0"])?;
    let inward = receives(&suite, host, 8 << 20)?;
    ensure!(inward > 4.0 * rate, "{inward} where nothing was asked for, {rate} before");
    // They are there at the next start, and nothing else is.
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["nic", "set", "m0", "--rate-in", &bits, "--rate-out", "0"])?;
    suite.boot("m")?;
    lease(&suite, "m", "m0")?;
    let (held, outward) = (receives(&suite, host, some)?, sends(&suite, host, 8 << 20)?);
    ensure!((0.3..1.8).contains(&(held / rate)) && outward > 4.0 * rate, "{held}, {outward} where {rate} was asked for");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

/// Whether one guest reaches an address.
fn reaches(suite: &Suite, machine: &str, address: &str, yes: bool) -> Result<()> {
    let (count, wait) = if yes { (1, 20) } else { (3, 1) };
    let line = format!("ping -c{count} -W{wait} {address} >/dev/null && echo there-$((40+2)) || echo nobody-$((40+2))");
    suite.guest_runs(machine, &line, if yes { "there-42" } else { "nobody-42" })?;
    Ok(())
}

fn text(value: &serde_json::Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().context("a text")?.to_owned())
}

#[test]
fn two_switches_never_see_a_frame_of_each_other() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let mut all = Vec::new();
    for (switch, name, address) in [("left", "a", "10.5.0.1"), ("right", "b", "10.5.0.2")] {
        let bridge = text(&suite.json(&["switch", "create", switch])?[0], "bridge")?;
        suite.define(name, &[])?;
        let nic = suite.json(&["nic", "create", name, "--switch", switch, "--machine", name])?;
        all.push((bridge, text(&nic[0], "tap")?, text(&nic[0], "mac")?));
        suite.boot(name)?;
        suite.guest_runs(name, &format!("ip link set eth0 up; ip addr add {address}/24 dev eth0; echo set-$?"), "set-0")?;
    }
    let [(left, a, a_mac), (right, b, b_mac)] = &all[..] else { anyhow::bail!("two of each") };
    // Each asks for the other, who is not there.
    let apart = || -> Result<()> {
        for (name, other) in [("a", "10.5.0.2"), ("b", "10.5.0.1")] {
            suite.guest_runs(name, "ip neigh flush dev eth0; echo flushed-$?", "flushed-0")?;
            reaches(&suite, name, other, false)?;
        }
        Ok(())
    };
    for turn in 0..2 {
        let capture = [Capture::begin()?, Capture::begin()?];
        apart()?;
        let (seen, of) = (capture[0].senders(&[left, a])?, capture[1].senders(&[right, b])?);
        ensure!(seen.contains(a_mac) && !seen.contains(b_mac), "turn {turn}: left saw {seen:?}");
        ensure!(of.contains(b_mac) && !of.contains(a_mac), "turn {turn}: right saw {of:?}");
        // On one switch each hears the other, while both run.
        suite.ok(&["nic", "set", "b", "--switch", "left"])?;
        reaches(&suite, "a", "10.5.0.2", true)?;
        // And then no more.
        suite.ok(&["nic", "set", "b", "--switch", "right"])?;
    }
    for name in ["a", "b"] {
        suite.ok(&["vm", "kill", name])?;
    }
    suite.finish()
}

#[test]
fn a_nic_moves_while_its_guest_runs() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    for (switch, kind) in [("one", "nat"), ("two", "host-only"), ("plain", "internal")] {
        suite.ok(&["switch", "create", switch, "--kind", kind])?;
    }
    for name in ["m", "n"] {
        suite.define(name, &[])?;
        suite.ok(&["nic", "create", name, "--switch", if name == "m" { "one" } else { "two" }, "--machine", name])?;
        suite.boot(name)?;
    }
    let (first, n) = (lease(&suite, "m", "m")?, lease(&suite, "n", "n")?);
    let services = suite.pids("guest-services")?;
    ensure!(services.len() == 2, "{services:?}");
    suite.guest_runs("m", "changes=$(cat /sys/class/net/eth0/carrier_changes); echo kept-$?", "kept-0")?;
    // What a device is cannot be changed while it is in use; where its cable leads can.
    suite.fails(&["nic", "set", "m", "--mac", "02:00:5e:00:53:01"])?;
    let moved = suite.json(&["nic", "set", "m", "--switch", "two"])?;
    let second = text(&moved[0], "address")?;
    ensure!(second != first.to_string() && moved[0]["switch"] == "two", "{moved:?}");
    suite.guest_runs("m", "echo cable-$(($(cat /sys/class/net/eth0/carrier_changes) - changes))", "cable-2")?;
    // With its former address it reaches nobody; with the one that it is given, its neighbour and its services.
    suite.guest_runs("m", &format!("ip route add {n}/32 dev eth0; echo routed-$?"), "routed-0")?;
    reaches(&suite, "m", &n.to_string(), false)?;
    ensure!(lease(&suite, "m", "m")?.to_string() == second);
    reaches(&suite, "m", &n.to_string(), true)?;
    suite.guest_runs("m", "wget -qO- http://169.254.169.254/latest/meta-data/local-ipv4; echo", &second)?;
    suite.guest_runs("m", "nslookup n.two.internal | grep -o 'Address: 10.*'", &format!("Address: {n}"))?;

    // Apart from each other, both still reach their services and the host.
    let gateway = text(&suite.json(&["switch", "show", "two"])?[0], "subnet")?.replace(".0/24", ".1");
    for name in ["m", "n"] {
        suite.ok(&["nic", "set", name, "--isolated", "on"])?;
    }
    reaches(&suite, "m", &n.to_string(), false)?;
    reaches(&suite, "m", &gateway, true)?;
    suite.guest_runs("m", "wget -qO- http://169.254.169.254/latest/meta-data/hostname; echo", "m")?;
    suite.ok(&["nic", "set", "n", "--isolated", "off"])?;
    reaches(&suite, "m", &n.to_string(), true)?;

    // To a switch without a subnet, to none, and back; net-helper may die on the way.
    suite.ok(&["nic", "set", "m", "--switch", "plain"])?;
    reaches(&suite, "m", &n.to_string(), false)?;
    suite.ok(&["nic", "set", "m", "--switch", "none"])?;
    for pid in suite.pids("net-helper")? {
        end(pid)?;
    }
    suite.ok(&["nic", "set", "m", "--switch", "two", "--address", &second])?;
    ensure!(lease(&suite, "m", "m")?.to_string() == second);
    reaches(&suite, "m", &n.to_string(), true)?;
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    for name in ["m", "n"] {
        suite.ok(&["vm", "kill", name])?;
    }
    suite.finish()
}
