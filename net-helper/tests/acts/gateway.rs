//! Switches that are subnets: frames from a guest's tap and from the world outside.

use crate::acts::{Net7, tap};
use crate::support::frames::{frame, hear, receive, send};
use crate::support::{LOOPBACK, ask, forwarding, frames_of, rules};
use nix::errno::Errno;
use skep_net_helper::platform::NetHost;
use skep_proto::Reason;
use skep_proto::net::{
    CheckPort, DeleteSwitch, DeleteTap, Gateway, GuardTap, MoveTap, OpenPort, Own, PortForward, Reach, SetGateway,
};
use skep_proto::services::{ADDRESS, MAC};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 64, 7, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 64, 7, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];
const WORLD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

fn sum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum: u32 = pairs.sum();
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_else(|_| (sum as u16).wrapping_add(1))
}

fn ipv4(macs: ([u8; 6], [u8; 6]), protocol: u8, from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    header[2..4].copy_from_slice(&u16::try_from(20 + body.len()).unwrap().to_be_bytes());
    let check = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&check);
    [&macs.1[..], &macs.0, &[0x08, 0], &header, body].concat()
}

fn udp(macs: ([u8; 6], [u8; 6]), (from, from_port): (Ipv4Addr, u16), (to, port): (Ipv4Addr, u16), text: &str) -> Vec<u8> {
    let length = u16::try_from(8 + text.len()).unwrap().to_be_bytes();
    // No checksum: IPv4 allows it.
    let body = [&from_port.to_be_bytes()[..], &port.to_be_bytes(), &length, &[0, 0], text.as_bytes()].concat();
    ipv4(macs, 17, from, to, &body)
}

fn echo(macs: ([u8; 6], [u8; 6]), from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![8, 0, 0, 0, 0, 1, 0, 1];
    let check = sum(&body).to_be_bytes();
    body[2..4].copy_from_slice(&check);
    ipv4(macs, 1, from, to, &body)
}

fn arp(request: bool, (mac, ip): ([u8; 6], Ipv4Addr), (to_mac, to): ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let destination = if request { [0xff; 6] } else { to_mac };
    let kind = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, if request { 1 } else { 2 }];
    let mut bytes = [&destination[..], &mac, &kind, &mac, &ip.octets(), &to_mac, &to.octets()].concat();
    bytes.resize(60, 0);
    bytes
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn mac_at(frame: &[u8], at: usize) -> [u8; 6] {
    frame[at..at + 6].try_into().unwrap()
}

/// The next frame that is UDP or an answer to an echo, between these two; whoever is asked for by ARP meanwhile answers.
fn next(fd: &OwnedFd, own: ([u8; 6], Ipv4Addr)) -> (Ipv4Addr, Ipv4Addr, String, u16) {
    loop {
        let frame = receive(fd);
        if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == own.1.octets() {
            let asker: [u8; 4] = frame[28..32].try_into().unwrap();
            send(fd, &arp(false, own, (mac_at(&frame, 22), asker.into())));
        }
        if frame[12..14] != [8, 0] || !matches!((frame[23], frame[34]), (17, _) | (1, 0)) {
            continue;
        }
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        let text =
            if frame[23] == 1 { "echo".into() } else { String::from_utf8_lossy(&frame[42..]).trim_end_matches('\0').to_owned() };
        return (ip(26), ip(30), text, u16::from_be_bytes([frame[34], frame[35]]));
    }
}

/// The router's hardware address, as the guest learns it.
fn router(guest: &OwnedFd) -> [u8; 6] {
    send(guest, &arp(true, (GUEST_MAC, GUEST), ([0; 6], ROUTER)));
    loop {
        let frame = receive(guest);
        if frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == ROUTER.octets() {
            return mac_at(&frame, 22);
        }
    }
}

fn gateway(net: &mut Net7, reach: Reach) {
    let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach, subnet6: None });
    ask(&mut net.client, SetGateway { number: 0, gateway, forwards: vec![] }).unwrap();
}

/// A switch with a guest, and the world outside, which the host reaches.
fn world(net: &mut Net7) -> (OwnedFd, OwnedFd) {
    let outside = net.network.outside("out0");
    net.network.address("out0", HOST);
    // As an uplink it is set up.
    net.network.up("out0");
    net.network.up(LOOPBACK);
    net.switch(0, None).unwrap();
    (outside, net.tap(1, Some(0)).unwrap())
}

#[test]
fn guests_of_a_nat_switch_reach_what_the_host_reaches_and_not_the_host() {
    let Some(mut net) = Net7::routed() else { return };
    let (outside, guest) = world(&mut net);
    // On Linux a new network begins as the first one is at the moment.
    forwarding(Some(false));
    // Twice: it is a state, not an act.
    gateway(&mut net, Reach::Out);
    gateway(&mut net, Reach::Out);
    assert!(forwarding(None));
    let to_router = (GUEST_MAC, router(&guest));

    // Out, in the host's name; and back.
    send(&guest, &udp(to_router, (GUEST, 1000), (WORLD, 7), "out"));
    let (from, to, text, port) = next(&outside, (WORLD_MAC, WORLD));
    assert_eq!((from, to, text.as_str()), (HOST, WORLD, "out"));
    let host_mac = net.network.mac("out0");
    send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 7), (HOST, port), "back"));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)), (WORLD, GUEST, "back".into(), 7));

    // Nothing of the host, by none of its addresses, but an echo; each is over when the echo is answered.
    let host = UdpSocket::bind("0.0.0.0:9999").unwrap();
    host.set_nonblocking(true).unwrap();
    for to in [ROUTER, HOST, Ipv4Addr::new(10, 64, 7, 255)] {
        send(&guest, &udp(to_router, (GUEST, 1000), (to, 9999), "hello, host"));
    }
    send(&guest, &echo(to_router, GUEST, ROUTER));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "echo");
    assert_eq!(host.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // What the host asks for itself is answered.
    host.send_to(b"hello, guest", (GUEST, 5)).unwrap();
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)), (ROUTER, GUEST, "hello, guest".into(), 9999));
    send(&guest, &udp(to_router, (GUEST, 5), (ROUTER, 9999), "hello, asker"));
    send(&guest, &echo(to_router, GUEST, ROUTER));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "echo");
    let mut buffer = [0; 64];
    let got = host.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"hello, asker");

    // Frames that a bridge passes up where they came in are not the host's either (IEEE 802.1D, LLDP).
    for group in [[0x01, 0x80, 0xc2, 0, 0, 3], [0x01, 0x80, 0xc2, 0, 0, 0x0e]] {
        send(&guest, &udp((GUEST_MAC, group), (Ipv4Addr::UNSPECIFIED, 1000), (Ipv4Addr::BROADCAST, 9999), "past the bridge"));
    }
    send(&guest, &echo(to_router, GUEST, ROUTER));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "echo");
    assert_eq!(host.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);

    // Not with another's address, nor to link-local ones; the first that comes out is the one that may.
    send(&guest, &udp(to_router, (Ipv4Addr::new(10, 64, 9, 9), 1000), (WORLD, 7), "forged"));
    send(&guest, &udp(to_router, (WORLD, 1000), (WORLD, 7), "forged"));
    send(&guest, &udp(to_router, (GUEST, 1000), (Ipv4Addr::new(169, 254, 169, 254), 80), "the host's metadata"));
    send(&guest, &udp(to_router, (GUEST, 1001), (WORLD, 7), "allowed"));
    assert_eq!(next(&outside, (WORLD_MAC, WORLD)).2, "allowed");

    // Nobody comes in unasked, and the host forwards for nobody else.
    send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 7), (GUEST, 22), "unasked"));
    send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 7), (HOST, port), "asked for"));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "asked for");
    let other = net.network.outside("out1");
    net.network.address("out1", Ipv4Addr::new(198, 51, 100, 1));
    net.network.up("out1");
    send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 7), (Ipv4Addr::new(198, 51, 100, 9), 7), "through"));
    host.send_to(b"own", (Ipv4Addr::new(198, 51, 100, 9), 7)).unwrap();
    assert_eq!(next(&other, (WORLD_MAC, Ipv4Addr::new(198, 51, 100, 9))).2, "own");

    // All of it goes with the switch.
    drop(guest);
    ask(&mut net.client, DeleteTap { number: 1 }).unwrap();
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
    assert!(!forwarding(None));
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
}

#[test]
fn guests_of_a_host_only_switch_reach_the_host_and_nothing_beyond() {
    let Some(mut net) = Net7::routed() else { return };
    let (outside, guest) = world(&mut net);
    gateway(&mut net, Reach::Host);
    let to_router = (GUEST_MAC, router(&guest));
    let host = UdpSocket::bind("0.0.0.0:9999").unwrap();
    send(&guest, &udp(to_router, (GUEST, 1000), (ROUTER, 9999), "hello"));
    let mut buffer = [0; 64];
    let (got, from) = host.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..got], from), (&b"hello"[..], (GUEST, 1000).into()));
    send(&guest, &udp(to_router, (GUEST, 1000), (WORLD, 7), "out"));
    send(&guest, &echo(to_router, GUEST, ROUTER));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "echo");
    host.send_to(b"own", (WORLD, 7)).unwrap();
    assert_eq!(next(&outside, (WORLD_MAC, WORLD)).2, "own");
    // Without a gateway it is a plain switch again.
    ask(&mut net.client, SetGateway { number: 0, gateway: None, forwards: vec![] }).unwrap();
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
    let addresses = net.host.owners(ROUTER.into());
    assert!(addresses.unwrap().is_empty());
}

#[test]
fn a_guarded_guest_sends_only_as_who_he_is() {
    let Some(mut net) = Net7::routed() else { return };
    net.switch(0, None).unwrap();
    let (guest, other) = (net.tap(1, Some(0)).unwrap(), net.tap(2, Some(0)).unwrap());
    let own = Some(Own { mac: GUEST_MAC, address: GUEST, subnet6: None });
    ask(&mut net.client, GuardTap { number: 1, own }).unwrap();
    ask(&mut net.client, GuardTap { number: 1, own }).unwrap();
    let to = Ipv4Addr::new(10, 64, 7, 3);
    let all = |from: [u8; 6]| (from, [0xff; 6]);
    let (zero, forged) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 64, 7, 9));
    let mut tagged = udp(all(GUEST_MAC), (forged, 1), (to, 7), "of another VLAN");
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let v6 = [&[0xff; 6][..], &GUEST_MAC, &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 0, 58, 255], &[0; 40]].concat();
    for frame in [
        udp(all(WORLD_MAC), (GUEST, 1), (to, 7), "another's hardware address"),
        udp(all(GUEST_MAC), (forged, 1), (to, 7), "another's address"),
        udp(all(GUEST_MAC), (ROUTER, 1), (to, 7), "the router's address"),
        udp(all(GUEST_MAC), (GUEST, 67), (to, 68), "as a DHCP server"),
        udp(all(GUEST_MAC), (zero, 67), (to, 68), "as a DHCP server without an address"),
        udp(all(GUEST_MAC), (GUEST, 1067), (to, 68), "as a DHCP server from another port"),
        udp(all(GUEST_MAC), (zero, 68), (Ipv4Addr::BROADCAST, 67), "what services have seen"),
        udp(all(GUEST_MAC), (zero, 1), (to, 7), "without an address"),
        udp((GUEST_MAC, MAC), (GUEST, 1), (to, 7), "to services, by their hardware address"),
        udp(all(GUEST_MAC), (GUEST, 1), (ADDRESS, 53), "to services, by their address"),
        arp(true, (GUEST_MAC, GUEST), ([0; 6], ADDRESS)),
        arp(true, (GUEST_MAC, zero), ([0; 6], to)),
        arp(true, (GUEST_MAC, ROUTER), ([0; 6], to)),
        arp(true, (WORLD_MAC, GUEST), ([0; 6], to)),
        tagged,
        v6,
        udp(all(GUEST_MAC), (GUEST, 1), (to, 7), "his own"),
        arp(true, (GUEST_MAC, GUEST), ([0; 6], to)),
        arp(true, (GUEST_MAC, zero), ([0; 6], GUEST)),
    ] {
        send(&guest, &frame);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = receive(&other);
        // The kernel's own frames have other senders.
        if [GUEST_MAC, WORLD_MAC].contains(&mac_at(&frame, 6)) {
            let text = String::from_utf8_lossy(&frame[42..]).trim_end_matches('\0').to_owned();
            seen.push(if frame[12..14] == [8, 6] { "arp".to_owned() } else { text });
        }
    }
    assert_eq!(seen, ["his own", "arp", "arp"]);
    // Others are not held to it; nor is he, when it is taken back; and it ends with the tap.
    send(&other, &udp(all(WORLD_MAC), (forged, 1), (to, 7), "free"));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "free");
    ask(&mut net.client, GuardTap { number: 1, own: None }).unwrap();
    send(&guest, &udp(all(GUEST_MAC), (forged, 1), (to, 7), "free, too"));
    assert_eq!(next(&other, (WORLD_MAC, WORLD)).2, "free, too");
    ask(&mut net.client, GuardTap { number: 1, own }).unwrap();
    drop(guest);
    ask(&mut net.client, DeleteTap { number: 1 }).unwrap();
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
    net.refused(Reason::NotFound, |n| ask(&mut n.client, GuardTap { number: 1, own }).map(drop));
}

#[test]
fn a_subnet_that_the_host_reaches_otherwise_is_refused() {
    let Some(mut net) = Net7::routed() else { return };
    let _outside = net.network.outside("out0");
    net.network.address("out0", Ipv4Addr::new(10, 64, 7, 200));
    net.network.up("out0");
    net.switch(0, None).unwrap();
    let gateway = Some(Gateway { subnet: "10.64.0.0/16".parse().unwrap(), reach: Reach::Out, subnet6: None });
    // What the helper needs for it is open from then on.
    ask(&mut net.client, SetGateway { number: 0, gateway: None, forwards: vec![] }).unwrap();
    // Nor is a switch that others' network is on a subnet of ours.
    let _up0 = net.network.outside("up0");
    net.switch(1, Some("up0")).unwrap();
    let own = Some(Gateway { subnet: "10.65.0.0/24".parse().unwrap(), reach: Reach::Out, subnet6: None });
    net.refused(Reason::InUse, |n| ask(&mut n.client, SetGateway { number: 1, gateway: own, forwards: vec![] }).map(drop));
    let refusal =
        net.refused(Reason::InUse, |n| ask(&mut n.client, SetGateway { number: 0, gateway, forwards: vec![] }).map(drop));
    assert_eq!(refusal.field.as_str(), "subnet");
    assert!(refusal.note.as_str().contains("10.64.7.0/24 through out0"), "{refusal}");
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
    net.refused(Reason::NotFound, |n| ask(&mut n.client, SetGateway { number: 5, gateway, forwards: vec![] }).map(drop));
    net.refused(Reason::NotFound, |n| ask(&mut n.client, SetGateway { number: 5, gateway: None, forwards: vec![] }).map(drop));
}

#[test]
fn a_port_shows_what_is_for_services_and_nothing_else() {
    let Some(mut net) = Net7::new() else { return };
    net.refused(Reason::NotFound, |n| ask(&mut n.client, OpenPort { number: 1, v6: false }).map(drop));
    let (_outside, guest) = world(&mut net);
    let (_, [port]) = ask(&mut net.client, OpenPort { number: 1, v6: false }).unwrap();
    let macs = (GUEST_MAC, [0xff; 6]);
    let service = Ipv4Addr::new(169, 254, 169, 254);
    send(&guest, &udp(macs, (GUEST, 5353), (WORLD, 5353), "not for services"));
    send(&guest, &udp(macs, (GUEST, 5353), (service, 53), "a question"));
    send(&guest, &udp(macs, (Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), "discover"));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let mut set = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&port), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut set, 20_000u16), Ok(1), "no frame came");
        let mut buffer = vec![0; 128 << 10];
        match nix::unistd::read(&port, &mut buffer) {
            Ok(got) => seen.extend(frames_of(&buffer[..got]).map(|frame| text_of(&frame[42..]))),
            Err(Errno::EAGAIN) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(seen, ["a question", "discover"]);
    // What is written to it comes to the guest alone.
    nix::unistd::write(&port, &udp((MAC, GUEST_MAC), (service, 53), (GUEST, 5353), "an answer")).unwrap();
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)).2, "an answer");
}

#[test]
fn isolated_taps_hear_all_but_each_other() {
    let Some(mut net) = Net7::new() else { return };
    net.switch(0, None).unwrap();
    let (a, b, open) = (net.tap(1, Some(0)).unwrap(), net.tap(2, Some(0)).unwrap(), net.tap(3, Some(0)).unwrap());
    for number in [1, 2] {
        for isolated in [true, true] {
            ask(&mut net.client, MoveTap { number, switch: Some(0), isolated }).unwrap();
        }
    }
    assert!(net.link(&tap(1)).unwrap().isolated && !net.link(&tap(3)).unwrap().isolated);
    send(&a, &frame("apart"));
    assert_eq!(hear(&open, |_| ()), "apart");
    send(&open, &frame("for both"));
    assert_eq!((hear(&a, |_| ()), hear(&b, |_| ())), ("for both".into(), "for both".into()));
    ask(&mut net.client, MoveTap { number: 1, switch: Some(0), isolated: false }).unwrap();
    send(&a, &frame("together"));
    assert_eq!(hear(&b, |_| ()), "together");
    assert!(!net.link(&tap(1)).unwrap().isolated);
}

/// A port of the host's leads to a guest, for whoever is outside; his answers come from that port.
#[test]
fn a_port_of_the_host_leads_to_a_guest() {
    let Some(mut net) = Net7::routed() else { return };
    let (outside, guest) = world(&mut net);
    forwarding(Some(false));
    let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach: Reach::Out, subnet6: None });
    let led = |text: &str| PortForward { forward: text.parse().unwrap(), guest: GUEST };
    let forwards = vec![led("8053:53/udp"), led("192.0.2.1:8054:53/udp"), led("192.0.2.77:8055:53/udp")];
    ask(&mut net.client, SetGateway { number: 0, gateway, forwards }).unwrap();
    let to_router = (GUEST_MAC, router(&guest));
    let host_mac = net.network.mac("out0");
    let ask_host = |port: u16, text: &str| send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 4000), (HOST, port), text));
    ask_host(8055, "another address");
    ask_host(8056, "another port");
    send(&outside, &udp((WORLD_MAC, host_mac), (WORLD, 4000), (GUEST, 53), "past the port"));
    ask_host(8053, "question");
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)), (WORLD, GUEST, "question".into(), 4000));
    send(&guest, &udp(to_router, (GUEST, 53), (WORLD, 4000), "answer"));
    assert_eq!(next(&outside, (WORLD_MAC, WORLD)), (HOST, WORLD, "answer".into(), 8053));
    // From another port: pf(4) of FreeBSD 13 drops what would be the connection from before once it is led to the same guest.
    let other = (WORLD, 4001);
    send(&outside, &udp((WORLD_MAC, host_mac), other, (HOST, 8054), "by its address"));
    assert_eq!(next(&guest, (GUEST_MAC, GUEST)), (WORLD, GUEST, "by its address".into(), 4001));
    // A port that somebody listens on is told from one that is free.
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let check = |n: &mut Net7, text: String| ask(&mut n.client, CheckPort { forward: text.parse().unwrap() }).map(drop);
    net.refused(Reason::InUse, |n| check(n, format!("{port}:53/udp")));
    check(&mut net, format!("{port}:53/tcp")).unwrap();
    drop(taken);
    check(&mut net, format!("{port}:53/udp")).unwrap();
    drop(guest);
    ask(&mut net.client, DeleteTap { number: 1 }).unwrap();
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
}
