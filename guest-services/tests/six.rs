//! IPv6 of a port, byte by byte. Frames are written and read by hand: nothing of what is tested helps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wire;

use skep_guest_services::{BadPort, Identity, Names, Port, World};
use skep_proto::services::{AddPort, MAC, Subnet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use wire::{AT, GUEST, added, ethernet, hex, one, payload, question, refused, sum, world};

/// The network, the guest's two addresses, and where services are.
const NET: &str = "fd12:3456:789a:1::/64";
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0x5054, 0x00ff, 0xfe01, 0x0203);
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0x00ff, 0xfe01, 0x0203);
const US: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0053, 0x4bff, 0xfe45, 0x5001);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0x5eff, 0xfe00, 0x5311);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];

fn six(port: AddPort) -> AddPort {
    let v6 = Some(NET.parse().unwrap());
    AddPort { subnet: Subnet { v6, ..port.subnet.clone() }, ..port }
}

fn port() -> Port {
    Port::new(Identity::new(16, six(added())).unwrap(), None)
}

/// A packet of the guest's.
fn packet(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, carried: &[u8]) -> Vec<u8> {
    let length = (carried.len() as u16).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next, hops], &from.octets(), &to.octets()].concat();
    ethernet(GROUP, 0x86dd, &[&header, carried].concat())
}

fn sealed(from: Ipv6Addr, to: Ipv6Addr, next: u8, at: usize, mut carried: Vec<u8>) -> Vec<u8> {
    let length = (carried.len() as u32).to_be_bytes();
    let found = sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, next], &carried]);
    carried[at..at + 2].copy_from_slice(&found.to_be_bytes());
    carried
}

fn icmp(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    packet(from, to, 58, 255, &sealed(from, to, 58, 2, message.to_vec()))
}

fn asks_routers(from: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    icmp(from, ROUTERS, &[&[133, 0, 0, 0, 0, 0, 0, 0], options].concat())
}

fn asks(from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    icmp(from, ALL, &[&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat())
}

fn tells(from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    icmp(from, US, &[&[136, 0, 0, 0, 0x60, 0, 0, 0], &target.octets()[..]].concat())
}

/// Checks a packet of ours, checksum included: protocol, hops, receiver, what it carries.
fn ours(frame: &[u8]) -> (u8, u8, Ipv6Addr, &[u8]) {
    assert_eq!(frame[..14], [&GUEST[..], &MAC, &[0x86, 0xdd]].concat());
    let bytes = payload(frame);
    assert_eq!(bytes[..4], [0x60, 0, 0, 0]);
    assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])), bytes.len() - 40);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
    assert_eq!(address(8), US);
    let carried = &bytes[40..];
    let length = (carried.len() as u32).to_be_bytes();
    assert_eq!(sum(&[&bytes[8..40], &length, &[0, 0, 0, bytes[6]], carried]), 0, "checksum");
    (bytes[6], bytes[7], address(24), carried)
}

/// A message of ICMPv6 of ours, but for its checksum.
fn message(frame: &[u8]) -> (Ipv6Addr, Vec<u8>) {
    let (58, 255, to, bytes) = ours(frame) else { panic!("no message of ours") };
    (to, [&bytes[..2], &bytes[4..]].concat())
}

#[test]
fn an_advertisement_byte_by_byte() {
    let (mut port, mut world) = (port(), world());
    let own = [&[1, 1][..], &GUEST].concat();
    let frame = one(&mut port, &mut world, &asks_routers(LINK, &own));
    let wanted = hex("8600 40000000 00000000 00000000 \
         0101 02534b455001 \
         0501 0000 000005dc \
         0304 40c0 00015180 00003840 00000000 fd123456789a0001 0000000000000000 \
         1903 0000 00000708 fe800000000000000053 4bfffe455001 \
         1f02 0000 00000708 036c616e 00000000");
    assert_eq!(message(&frame), (LINK, wanted.clone()));
    // Who has no address yet is told with all others, who are none.
    for from in [OWN, NOBODY] {
        let frame = one(&mut port, &mut world, &asks_routers(from, &[]));
        assert_eq!(message(&frame), (if from == NOBODY { ALL } else { from }, wanted.clone()));
    }
    // A domain of several labels.
    let mut long = six(added());
    long.subnet.domain = "net.internal".parse().unwrap();
    let mut port = Port::new(Identity::new(16, long).unwrap(), None);
    let (_, told) = message(&one(&mut port, &mut world, &asks_routers(LINK, &[])));
    assert_eq!(told[told.len() - 24..], hex("1f03 0000 00000708 036e6574 08696e7465726e616c 000000")[..]);
}

#[test]
fn what_is_no_question_of_its_own_is_refused() {
    let (mut port, mut world) = (port(), world());
    let routers = asks_routers(LINK, &[]);
    let wrong = |at: usize, byte: u8| {
        let mut frame = routers.clone();
        frame[14 + at] = byte;
        frame
    };
    let segment = [&[0, 80, 0, 80][..], &[0; 16]].concat();
    for frame in [
        // Another version, limit of hops, code; not as long as it says.
        wrong(0, 0x40),
        wrong(7, 254),
        wrong(41, 1),
        wrong(5, 9),
        // Options that are none: of no length, and longer than what there is.
        asks_routers(LINK, &[1, 0, 0, 0, 0, 0, 0, 0]),
        asks_routers(LINK, &[1, 2, 0, 0, 0, 0, 0, 0]),
        asks_routers(LINK, &[1]),
        asks(OWN, US, &[1, 0, 0, 0, 0, 0, 0, 0]),
        // By another's address, and ours.
        asks_routers(NEIGHBOUR, &[]),
        asks_routers(US, &[]),
        asks(NEIGHBOUR, US, &[]),
        tells(NEIGHBOUR, NEIGHBOUR),
        tells(NOBODY, OWN),
        // What guests do not say, and echoes.
        icmp(LINK, ALL, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        icmp(LINK, ALL, &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &OWN.octets(), &OWN.octets()].concat()),
        icmp(LINK, US, &[128, 0, 0, 0, 0, 1, 0, 1]),
        // Behind another header: of hops, of a fragment, of destinations.
        packet(LINK, ROUTERS, 0, 255, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &payload(&routers)[40..]].concat()),
        packet(LINK, ROUTERS, 44, 255, &[&[58, 0, 0, 0, 0, 0, 0, 7][..], &payload(&routers)[40..]].concat()),
        packet(LINK, ROUTERS, 60, 255, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &payload(&routers)[40..]].concat()),
        // To other ports, and to others.
        packet(OWN, US, 6, 64, &segment),
        packet(OWN, US, 17, 64, &[9, 9, 0, 80, 0, 8, 0, 0]),
        packet(OWN, NEIGHBOUR, 17, 64, &[9, 9, 0, 53, 0, 8, 0, 0]),
        packet(NEIGHBOUR, US, 17, 64, &[9, 9, 0, 53, 0, 8, 0, 0]),
    ] {
        refused(&mut port, &mut world, &frame);
    }
    for whole in [routers.clone(), asks(OWN, US, &[&[1, 1][..], &GUEST].concat()), tells(OWN, OWN)] {
        for end in 0..whole.len() {
            refused(&mut port, &mut world, &whole[..end]);
        }
    }
    assert_eq!(port.address6(), None);
    // Where there is no such network, nothing of it is heard.
    let mut plain = wire::port();
    refused(&mut plain, &mut world, &routers);
    assert_eq!((plain.wakes(), plain.address6()), (None, None));
}

#[test]
fn services_are_found_by_their_address() {
    let (mut port, mut world) = (port(), world());
    let own = [&[1, 1][..], &GUEST].concat();
    let presence = [&[136, 0, 0x60, 0, 0, 0][..], &US.octets(), &[2, 1], &MAC].concat();
    for from in [LINK, OWN] {
        assert_eq!(message(&one(&mut port, &mut world, &asks(from, US, &own))), (from, presence.clone()));
    }
    // Who asks for a neighbour, or would have our address, hears nothing of us.
    for frame in [asks(OWN, NEIGHBOUR, &own), asks(NOBODY, US, &[])] {
        assert!(port.frame(&mut world, AT, &frame).is_empty());
    }
    assert_eq!(port.refused, 0);
}

#[test]
fn an_address_is_the_guests_as_long_as_it_answers_for_it() {
    let (mut port, mut world) = (port(), world());
    // By looking whether anybody has it; by asking from it; by answering.
    assert!(port.frame(&mut world, AT, &asks(NOBODY, LINK, &[])).is_empty() && port.address6().is_none());
    for frame in [asks(NOBODY, OWN, &[14, 1, 1, 2, 3, 4, 5, 6]), asks(OWN, NEIGHBOUR, &[]), tells(LINK, OWN)] {
        let mut port = self::port();
        assert!(port.frame(&mut world, AT, &frame).is_empty());
        assert_eq!((port.address6(), port.refused), (Some(OWN), 0));
    }
    // It is told at once, and asked; three times in a row, and then now and then.
    let mut now = Duration::ZERO;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let frames = port.poll(&mut world, now);
        let [told, asked] = &frames[..] else { panic!("{frames:02x?}") };
        assert_eq!((message(told).0, message(told).1[0]), (ALL, 134));
        let solicited = "ff02::1:ff01:203".parse().unwrap();
        let question = [&[135, 0, 0, 0, 0, 0][..], &OWN.octets(), &[1, 1], &MAC].concat();
        assert_eq!(message(asked), (solicited, question));
        let next = port.wakes().unwrap();
        assert!(port.poll(&mut world, next - Duration::from_millis(1)).is_empty());
        pauses.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(pauses[..2], [16, 16]);
    assert!(pauses[2..].iter().all(|pause| (200..=600).contains(pause)), "{pauses:?}");
    assert!(pauses[3..].iter().any(|pause| *pause != pauses[2]), "{pauses:?}");
    // One answer lost, or two, is none lost; after three it has left.
    port.frame(&mut world, now, &tells(OWN, OWN));
    let mut silent = 0;
    while port.address6() == Some(OWN) {
        let at = port.wakes().unwrap();
        port.poll(&mut world, at);
        silent += 1;
    }
    assert_eq!(silent, 4);
    // Described anew it is the same guest, and is told anew; with another network it is not.
    port.frame(&mut world, now, &tells(OWN, OWN));
    let again = self::port().succeed(&port);
    assert_eq!((again.address6(), again.wakes()), (Some(OWN), Some(Duration::ZERO)));
    let mut other = six(added());
    other.subnet.v6 = Some("fd12:3456:789a:2::/64".parse().unwrap());
    let other = Port::new(Identity::new(16, other).unwrap(), None).succeed(&port);
    assert_eq!(other.address6(), None);
}

fn named(world: &mut World) {
    let hosts: [(&str, IpAddr); 3] = [("web1", [10, 90, 0, 7].into()), ("web1", OWN.into()), ("db", NEIGHBOUR.into())];
    world.names = Names::new(hosts.into_iter());
}

/// A datagram of the guest's to DNS.
fn datagram(from: Ipv6Addr, port: u16, bytes: &[u8]) -> Vec<u8> {
    let length = (8 + bytes.len()) as u16;
    let header = [port.to_be_bytes(), 53u16.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    packet(from, US, 17, 64, &sealed(from, US, 17, 6, [&header, bytes].concat()))
}

/// What DNS answers: its code, and records by their bytes.
fn answered(port: &mut Port, world: &mut World, from: Ipv6Addr, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    let asked = question(name, kind);
    let frame = one(port, world, &datagram(from, 4321, &asked));
    let (17, 64, to, bytes) = ours(&frame) else { panic!("no datagram of ours") };
    assert_eq!((to, &bytes[..6]), (from, &[0, 53, 0x10, 0xe1, 0, bytes.len() as u8][..]));
    records(&bytes[8..], asked.len())
}

fn records(answer: &[u8], question: usize) -> (u8, Vec<Vec<u8>>) {
    let (mut rest, mut found) = (&answer[question..], Vec::new());
    for _ in 0..answer[7] {
        // A name that points to the question's.
        assert_eq!(rest[0] & 0xc0, 0xc0);
        let length = usize::from(rest[11]);
        found.push(rest[12..12 + length].to_vec());
        rest = &rest[12 + length..];
    }
    (answer[3] & 15, found)
}

#[test]
fn names_are_answered_over_ipv6_with_addresses_of_both_kinds() {
    let (mut port, mut world) = (port(), world());
    named(&mut world);
    let (a, ptr, aaaa) = (1, 12, 28);
    for from in [LINK, OWN] {
        assert_eq!(answered(&mut port, &mut world, from, "web1.lan", aaaa), (0, vec![OWN.octets().to_vec()]));
        assert_eq!(answered(&mut port, &mut world, from, "web1", a), (0, vec![vec![10, 90, 0, 7]]));
        assert_eq!(answered(&mut port, &mut world, from, "db", a), (0, vec![]));
        assert_eq!(answered(&mut port, &mut world, from, "nobody", aaaa), (3, vec![]));
    }
    let reverse = |address: Ipv6Addr| {
        let digits: Vec<String> = address.octets().iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4)).collect();
        format!("{}ip6.arpa", digits.concat())
    };
    let name = b"\x04web1\x03lan\0".to_vec();
    assert_eq!(answered(&mut port, &mut world, OWN, &reverse(OWN), ptr), (0, vec![name]));
    let free = "fd12:3456:789a:1::99".parse().unwrap();
    assert_eq!(answered(&mut port, &mut world, OWN, &reverse(free), ptr), (3, vec![]));
    // Others know of other networks: here, that there are no others.
    for other in [reverse(LINK), "d.f.ip6.arpa".into(), reverse(OWN).replacen('3', "33", 1)] {
        assert_eq!(answered(&mut port, &mut world, OWN, &other, ptr), (5, vec![]), "{other}");
    }
    // A resolver's answer comes back the same way.
    world.forwarder.set_resolvers(1);
    let asked = question("example.org", a);
    assert!(port.frame(&mut world, AT, &datagram(OWN, 999, &asked)).is_empty());
    let (_, mut answer) = world.forwarder.outgoing().pop().unwrap();
    answer[2] |= 0x80;
    let (client, bytes) = world.forwarder.reply(&answer).unwrap();
    let frames = port.answer(&mut world, AT, client.via, &bytes);
    let [frame] = &frames[..] else { panic!("{frames:02x?}") };
    let (17, 64, to, bytes) = ours(frame) else { panic!("no datagram of ours") };
    assert_eq!((to, &bytes[2..4], &bytes[8..10]), (OWN, &999u16.to_be_bytes()[..], &asked[..2]));
}

/// A segment of the guest's, without a checksum.
fn segment(from: Ipv6Addr, to_port: u16, numbers: (u32, u32), flags: u8, bytes: &[u8]) -> Vec<u8> {
    let ports = [5555u16.to_be_bytes(), to_port.to_be_bytes()].concat();
    let numbers = [numbers.0.to_be_bytes(), numbers.1.to_be_bytes()].concat();
    packet(from, US, 6, 64, &[&ports, &numbers, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0][..], bytes].concat())
}

#[test]
fn names_are_answered_over_tcp_and_nothing_else_is_there() {
    let (mut port, mut world) = (port(), world());
    named(&mut world);
    let answer = one(&mut port, &mut world, &segment(OWN, 53, (99, 0), 2, &[]));
    let (6, _, OWN, bytes) = ours(&answer) else { panic!("no segment of ours") };
    assert_eq!((&bytes[..4], bytes[13]), (&[0, 53, 0x15, 0xb3][..], 0x12));
    let number = u32::from_be_bytes(bytes[4..8].try_into().unwrap()).wrapping_add(1);
    assert!(port.frame(&mut world, AT, &segment(OWN, 53, (100, number), 16, &[])).is_empty());
    let asked = question("web1", 28);
    let framed = [&(asked.len() as u16).to_be_bytes()[..], &asked].concat();
    let frames = port.frame(&mut world, AT, &segment(OWN, 53, (100, number), 24, &framed));
    let said: Vec<u8> = frames.iter().flat_map(|frame| ours(frame).3[20..].to_vec()).collect();
    assert_eq!(records(&said[2..], asked.len()), (0, vec![OWN.octets().to_vec()]));
    // Not metadata, which have but one address.
    refused(&mut port, &mut world, &segment(OWN, 80, (99, 0), 2, &[]));
    // In pieces of any length a segment ends nothing.
    let whole = segment(OWN, 53, (7, 0), 2, &[]);
    for end in 54..whole.len() {
        let mut cut = whole[..end].to_vec();
        cut[18..20].copy_from_slice(&((end - 54) as u16).to_be_bytes());
        port.frame(&mut world, AT, &cut);
    }
}

#[test]
fn a_switch_with_ipv6_has_packets_as_long_as_that_needs() {
    let mut short = six(added());
    short.subnet.mtu = 1279;
    assert_eq!(Identity::new(16, short.clone()).unwrap_err(), BadPort::Mtu);
    short.subnet.v6 = None;
    Identity::new(16, short).unwrap();
}
