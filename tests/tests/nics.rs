//! NICs of running machines, as real guests see them.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
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
