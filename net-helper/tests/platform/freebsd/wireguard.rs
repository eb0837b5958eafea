//! Another host, which is a jail with a network of its own, and what goes between both looked at.

use crate::acts::Net7;
use crate::support::frames::{receive, send};
use crate::support::{Served, ask, host, instance};
use skep_net_helper::key::PrivateKey;
use skep_net_helper::platform::NetHost;
use skep_proto::net::{CreateTunnel, DeleteSwitch, DeleteTap, DeleteTunnel, HostKey};
use skep_proto::tunnel::{Far, PublicKey, Tunnel};
use skep_proto::{Reason, SwitchId};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A guest's, by which what it sends is known.
const GUEST: [u8; 6] = [0x02, 0x73, 0x6b, 0x65, 0x70, 0x31];
/// Inside: the guest's address, and the other host's.
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];

fn sh(line: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Ends when it is dropped, and with it what is in it.
struct Jail(String);

impl Jail {
    fn run(&self, line: &str) -> String {
        sh(&format!("jexec {} {line}", self.0))
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = Command::new("jail").args(["-r", &self.0]).output();
    }
}

/// Has the guest ask who has the other host's address inside, until it is told.
fn asks(guest: &OwnedFd) {
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST, &INSIDE[0].octets(), &[0; 6], &INSIDE[1].octets()].concat();
    let mut question = [&[0xff; 6][..], &GUEST, &[0x08, 0x06], &arp].concat();
    question.resize(60, 0);
    send(guest, &question);
    loop {
        let got = receive(guest);
        if got[12..14] == [0x08, 0x06] && got[20..22] == [0, 2] && got[28..32] == INSIDE[1].octets() {
            return;
        }
    }
}

/// What passes `up0` meanwhile.
fn captured(file: &str, meanwhile: impl FnOnce()) -> Vec<u8> {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-i", "up0", "--immediate-mode", "-U", "-s0", "-w", file]).stderr(Stdio::piped());
    let mut tcpdump = tcpdump.spawn().unwrap();
    let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("listening on")));
    meanwhile();
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    std::fs::read(file).unwrap()
}

#[test]
fn what_goes_through_wireguard_is_read_by_nobody_on_the_way() {
    let Some(mut net) = Net7::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let served = Served::new(host().with_key(PrivateKey::of(state.path())), true);
    net.client = served.client();
    let own = match ask(&mut net.client, HostKey {}) {
        Ok((keyed, [])) => keyed.key,
        Err(refusal) => {
            assert!(refusal.reason == Reason::Unsupported && refusal.note.as_str().contains("kldload if_wg"), "{refusal}");
            println!("SKIP what_goes_through_wireguard_is_read_by_nobody_on_the_way: {refusal}");
            return;
        }
    };
    let jail = Jail(format!("skt{}", instance()));
    sh(&format!("jail -c name={} path=/ vnet persist", jail.0));
    let a = sh("ifconfig epair create");
    let b = format!("{}b", a.strip_suffix('a').unwrap());
    sh(&format!("ifconfig {a} name up0"));
    net.network.will_end("up0");
    sh(&format!("ifconfig {b} vnet {}", jail.0));
    sh(&format!("ifconfig up0 inet {HERE}/24 up"));
    jail.run(&format!("ifconfig {b} inet {THERE}/24 up"));

    net.switch(0, None).unwrap();
    let guest = net.tap(0, Some(0)).unwrap();
    let capture = state.path().join("capture").to_str().unwrap().to_owned();
    let tunnel = |peer_key| Tunnel {
        vni: "7".parse().unwrap(),
        local: HERE.to_string().parse().unwrap(),
        far: Far::Host(THERE.to_string().parse().unwrap()),
        port: 4789.try_into().unwrap(),
        peer_key,
    };
    // A jail can be given one, and not make one.
    let vxlan = |net: &mut Net7| {
        let made = sh("ifconfig vxlan create");
        sh(&format!("ifconfig {made} vnet {}", jail.0));
        net.network.will_end(&made);
        made
    };
    let is_read = |bytes: &[u8]| bytes.windows(6).any(|window| window == GUEST);

    // Without: everybody on the way reads it.
    ask(&mut net.client, CreateTunnel { switch: SwitchId::random(), number: 0, tunnel: tunnel(None) }).unwrap();
    let open = vxlan(&mut net);
    jail.run(&format!("ifconfig {open} vxlanid 7 vxlanlocal {THERE} vxlanremote {HERE}"));
    jail.run(&format!("ifconfig {open} inet {}/24 up", INSIDE[1]));
    let seen = captured(&capture, || asks(&guest));
    assert!(is_read(&seen), "{} bytes", seen.len());
    jail.run(&format!("ifconfig {open} down"));

    // With.
    let file = state.path().join("other.key").to_str().unwrap().to_owned();
    let other: PublicKey = sh(&format!("umask 077; wg genkey > {file}; wg pubkey < {file}")).parse().unwrap();
    let through = Tunnel { port: 51_820.try_into().unwrap(), ..tunnel(Some(other)) };
    ask(&mut net.client, CreateTunnel { switch: SwitchId::random(), number: 0, tunnel: through }).unwrap();
    let (ours, theirs) = (own.address(), other.address());
    let wg = jail.run("ifconfig wg create");
    jail.run(&format!(
        "wg set {wg} private-key {file} listen-port 51820 peer {own} endpoint {HERE}:51820 allowed-ips {ours}/128"
    ));
    jail.run(&format!("ifconfig {wg} inet6 {theirs}/64 mtu 1570 up"));
    jail.run(&format!("ifconfig {open} inet {} delete", INSIDE[1]));
    let sealed = vxlan(&mut net);
    jail.run(&format!("ifconfig {sealed} vxlanid 7 vxlanlocal {theirs}%{wg} vxlanremote {ours}%{wg}"));
    jail.run(&format!("ifconfig {sealed} inet {}/24 up", INSIDE[1]));
    let seen = captured(&capture, || asks(&guest));
    assert!(!is_read(&seen), "what the guest sent can be read");
    let packets = sh(&format!("tcpdump -n -r {capture} udp port 51820"));
    // Two make the session, two are the question and its answer.
    assert!(packets.lines().count() >= 4, "{packets}");
    assert!(net.host.owners(ours.into()).unwrap().len() == 1);

    ask(&mut net.client, DeleteTunnel { number: 0 }).unwrap();
    drop(guest);
    ask(&mut net.client, DeleteTap { number: 0 }).unwrap();
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
    drop(jail);
}
