//! Frames in, frames out, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wire;

use skep_guest_services::{Identity, Names, Port, World};
use skep_proto::Text;
use skep_proto::services::{AddPort, MAC, ServiceEvent};
use std::net::Ipv4Addr;
use std::time::Duration;
use wire::*;

#[test]
fn who_asks_for_our_hardware_address_is_told() {
    let (mut port, mut world) = (port(), world());
    let wanted = "52540001020302534b4550010806 00010800060400 02 02534b455001a9fea9fe 525400010203 0a5a0007";
    assert_eq!(one(&mut port, &mut world, &arp(GUEST, OWN, US)), hex(wanted));
    // Without an address yet; for a probe of ours, the answer is for nobody.
    assert_eq!(payload(&one(&mut port, &mut world, &arp(GUEST, Ipv4Addr::UNSPECIFIED, US)))[24..], [0; 4]);
    for (mac, from, to) in [
        ([0x52, 0x54, 0, 1, 2, 4], OWN, US),
        (GUEST, "10.90.0.8".parse().unwrap(), US),
        (GUEST, US, US),
        (GUEST, OWN, "10.90.0.1".parse().unwrap()),
    ] {
        refused(&mut port, &mut world, &arp(mac, from, to));
    }
    let mut reply = arp(GUEST, OWN, US);
    reply[21] = 2;
    refused(&mut port, &mut world, &reply);
    for end in 0..42 {
        refused(&mut port, &mut world, &arp(GUEST, OWN, US)[..end]);
    }
}

/// A message of DHCP: its type and what else it says.
fn dhcp(kind: u8, ciaddr: [u8; 4], broadcast: bool, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, if broadcast { 0x80 } else { 0 }, 0];
    bytes.extend(ciaddr);
    bytes.extend([0; 12]);
    bytes.extend(GUEST);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

fn from_nobody(message: &[u8]) -> Vec<u8> {
    udp([0xff; 6], (Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), message)
}

/// Option `code` of a message of DHCP.
fn option(message: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = &message[240..];
    while let [first, length, ..] = *rest {
        if first == 255 {
            return None;
        }
        let value = &rest[2..2 + usize::from(length)];
        if first == code {
            return Some(value);
        }
        rest = &rest[2 + usize::from(length)..];
    }
    None
}

const WANTED: [u8; 6] = [50, 4, 10, 90, 0, 7];
const SERVER: [u8; 6] = [54, 4, 169, 254, 169, 254];
const NO: [u8; 4] = [0; 4];

#[test]
fn an_offer_byte_by_byte() {
    let (mut port, mut world) = (port(), world());
    let frame = one(&mut port, &mut world, &from_nobody(&dhcp(1, NO, false, &[61, 7, 1, 82, 84, 0, 1, 2, 3])));
    // To the client's hardware address, which has not got the address yet.
    assert_eq!(frame[..14], hex("525400010203 02534b455001 0800"));
    let (from, to, message) = datagram(&frame);
    assert_eq!((from, to), ((US, 67), (OWN, 68)));
    let mut wanted = hex("02010600 deadbeef 00000000 00000000 0a5a0007 00000000 00000000 525400010203");
    wanted.resize(236, 0);
    wanted.extend(hex(
        "63825363 0104ffffff00 03040a5a0001 0604a9fea9fe 0c0457656231 0f036c616e 1a0205dc 1c040a5a00ff 330400000e10 350102 3604a9fea9fe \
         3a0400000708 3b0400000c4e 3d0701525400010203 790e 20a9fea9fe00000000 000a5a0001 ff",
    ));
    wanted.resize(wanted.len().max(300), 0);
    assert_eq!(message, wanted);
    assert!(!port.leased && port.events().is_empty());
}

#[test]
fn a_client_takes_its_address_renews_it_and_leaves() {
    let (mut port, mut world) = (port(), world());
    let kind = |frame: &[u8]| option(datagram(frame).2, 53).unwrap()[0];
    // Selecting.
    let taken = from_nobody(&dhcp(3, NO, true, &[&WANTED[..], &SERVER].concat()));
    let ack = one(&mut port, &mut world, &taken);
    assert_eq!((kind(&ack), ack[..6].to_vec(), datagram(&ack).1), (5, vec![0xff; 6], (Ipv4Addr::BROADCAST, 68)));
    assert!(port.leased);
    assert_eq!(port.events(), [ServiceEvent::Leased(NIC)]);
    // A client that does nothing else is not heard of all the time, but after a while.
    one(&mut port, &mut world, &taken);
    assert_eq!(port.events(), []);
    port.frame(&mut world, AT + Duration::from_secs(10), &taken);
    assert_eq!(port.events(), [ServiceEvent::Leased(NIC)]);
    // Init-reboot.
    assert_eq!(kind(&one(&mut port, &mut world, &from_nobody(&dhcp(3, NO, false, &WANTED)))), 5);
    // Renewing: unicast, and so is the answer.
    let renewing = udp(MAC, (OWN, 68), (US, 67), &dhcp(3, OWN.octets(), false, &[]));
    let ack = one(&mut port, &mut world, &renewing);
    assert_eq!((kind(&ack), datagram(&ack).1, &ack[..6]), (5, (OWN, 68), &GUEST[..]));
    // Leaving, and asking only for the rest.
    assert!(port.frame(&mut world, AT, &udp(MAC, (OWN, 68), (US, 67), &dhcp(7, OWN.octets(), false, &SERVER))).is_empty());
    assert!(!port.leased);
    let ack =
        one(&mut port, &mut world, &udp([0xff; 6], (OWN, 68), (Ipv4Addr::BROADCAST, 67), &dhcp(8, OWN.octets(), false, &[])));
    let (_, to, message) = datagram(&ack);
    assert_eq!((kind(&ack), to, &message[16..20], option(message, 51)), (5, (OWN, 68), &NO[..], None));
    assert!(!port.leased && option(message, 6).is_some());
}

#[test]
fn who_wants_another_address_is_told_so() {
    let (mut port, mut world) = (port(), world());
    let other = [50, 4, 10, 90, 0, 8];
    let foreign = Ipv4Addr::new(192, 168, 1, 2);
    for request in [
        from_nobody(&dhcp(3, NO, false, &other)),
        from_nobody(&dhcp(3, NO, false, &[&other[..], &SERVER].concat())),
        // Rebinding, with an address from another network.
        udp([0xff; 6], (foreign, 68), (Ipv4Addr::BROADCAST, 67), &dhcp(3, foreign.octets(), false, &[])),
    ] {
        let nak = one(&mut port, &mut world, &request);
        let (_, to, message) = datagram(&nak);
        assert_eq!((to, &nak[..6]), ((Ipv4Addr::BROADCAST, 68), &[0xff; 6][..]));
        assert_eq!((option(message, 53), &message[16..20]), (Some(&[6][..]), &NO[..]));
    }
    assert!(!port.leased && port.events().is_empty());
    // Another server's offer was taken: that is no business of ours.
    let frame = from_nobody(&dhcp(3, NO, false, &[&WANTED[..], &[54, 4, 10, 90, 0, 1]].concat()));
    assert!(port.frame(&mut world, AT, &frame).is_empty() && !port.leased);
}

#[test]
fn messages_of_others_and_damaged_ones_are_not_answered() {
    let (mut port, mut world) = (port(), world());
    let good = dhcp(1, NO, false, &[]);
    let damage = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        from_nobody(&bad)
    };
    // A reply, another kind of network, a hardware address too long to be read or not its own, a relay's, another cookie.
    for (at, value) in [(0, 2), (1, 6), (2, 255), (2, 17), (2, 5), (28, 0), (33, 9), (24, 1), (236, 0), (242, 0)] {
        refused(&mut port, &mut world, &damage(at, value));
    }
    for end in 0..good.len() {
        let frame = from_nobody(&good[..end]);
        // Without the mark of the end the options are there all the same.
        assert_eq!(port.frame(&mut world, AT, &frame).is_empty(), end < good.len() - 1, "{end}");
    }
    let mut frame = from_nobody(&good);
    frame[6] = 0x50;
    refused(&mut port, &mut world, &frame);
}

#[test]
fn only_what_is_its_own_and_for_us_is_taken() {
    let (mut port, mut world) = (port(), world());
    let question = question("web1.lan", 1);
    let good = udp(MAC, (OWN, 4000), (US, 53), &question);
    assert_eq!(port.frame(&mut world, AT, &good).len(), 1);
    // By way of the router.
    let mut routed = good.clone();
    routed[..6].copy_from_slice(&[0x52, 0x54, 0, 0xff, 0xff, 1]);
    assert_eq!(port.frame(&mut world, AT, &routed).len(), 1);
    let (other, beside) = ("10.90.0.8".parse().unwrap(), Ipv4Addr::new(169, 254, 169, 253));
    for bad in [
        udp(MAC, (other, 4000), (US, 53), &question),
        udp(MAC, (OWN, 4000), (beside, 53), &question),
        udp(MAC, (OWN, 4000), (US, 54), &question),
        ip(MAC, OWN, US, 1, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ip(MAC, other, US, 6, &[0; 20]),
    ] {
        refused(&mut port, &mut world, &bad);
    }
    // A piece of a packet, a first and a later one; IPv6; another type.
    for (at, value) in [(20, 0x20), (21, 1), (14, 0x65), (12, 0x86)] {
        let mut bad = good.clone();
        bad[at] = value;
        refused(&mut port, &mut world, &bad);
    }
    // Without checksums, as a guest leaves them to its NIC.
    let mut bare = good.clone();
    (bare[24], bare[25], bare[40], bare[41]) = (0, 0, 0xaa, 0xbb);
    assert_eq!(port.frame(&mut world, AT, &bare).len(), 1);
    for end in 0..good.len() {
        assert!(port.frame(&mut world, AT, &good[..end]).is_empty(), "{end}");
    }
}

/// What DNS says: code, number of answers, the bytes.
fn asked(port: &mut Port, world: &mut World, question: &[u8]) -> (u8, u16, Vec<u8>) {
    let frame = one(port, world, &udp(MAC, (OWN, 4000), (US, 53), question));
    let (from, to, answer) = datagram(&frame);
    assert_eq!((from, to), ((US, 53), (OWN, 4000)));
    assert_eq!(answer[..2], question[..2]);
    (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]]), answer.to_vec())
}

#[test]
fn names_of_the_switch_are_answered() {
    let (mut port, mut world) = (port(), world());
    let (_, _, answer) = asked(&mut port, &mut world, &question("wEb1.LAN", 1));
    let wanted = "abcd 8580 0001 0001 0000 0000 0477456231034c414e00 0001 0001 c00c 0001 0001 0000001e 0004 0a5a0007";
    assert_eq!(answer, hex(wanted));
    let mut ask = |name: &str, kind| {
        let (code, count, _) = asked(&mut port, &mut world, &question(name, kind));
        (code, count)
    };
    assert_eq!(ask("web1", 1), (0, 1));
    assert_eq!(ask("db_2.lan", 1), (0, 2));
    assert_eq!(ask("db_2.lan", 255), (0, 2));
    // No IPv6, and no mail; but there is such a name.
    assert_eq!((ask("web1.lan", 28), ask("web1", 15), ask("lan", 6)), ((0, 0), (0, 0), (0, 0)));
    assert_eq!((ask("nobody.lan", 1), ask("web1.web1.lan", 1), ask("nobody", 28)), ((3, 0), (3, 0), (3, 0)));
    assert_eq!(ask("7.0.90.10.in-addr.arpa", 12), (0, 1));
    assert_eq!((ask("7.0.90.10.in-addr.arpa", 1), ask("6.0.90.10.in-addr.arpa", 12)), ((0, 0), (3, 0)));
    // Those of others are refused while there are no resolvers; and so are transfers and another class.
    assert_eq!((ask("example.org", 1), ask("xlan", 15), ask("web1.lan", 252)), ((5, 0), (5, 0), (5, 0)));
    assert_eq!((ask("1.0.0.127.in-addr.arpa", 12), ask("", 2)), ((5, 0), (5, 0)));
    let (_, _, answer) = asked(&mut port, &mut world, &question("8.0.90.10.in-addr.arpa", 12));
    assert!(answer.ends_with(b"\x04db_2\x03lan\0"));
}

#[test]
fn what_is_no_question_gets_an_error_or_nothing() {
    let (mut port, mut world) = (port(), world());
    let good = question("web1.lan", 1);
    let changed = |at: usize, value: u8| {
        let mut changed = good.clone();
        changed[at] = value;
        changed
    };
    // Two questions, none, another operation, a name that is cut.
    assert_eq!(asked(&mut port, &mut world, &changed(5, 2)).0, 1);
    assert_eq!(asked(&mut port, &mut world, &changed(5, 0)).0, 1);
    assert_eq!(asked(&mut port, &mut world, &changed(2, 0x29)).0, 4);
    assert_eq!(asked(&mut port, &mut world, &changed(12, 63)).0, 1);
    // A pointer to itself.
    assert_eq!(asked(&mut port, &mut world, &[&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()).0, 1);
    // EDNS of a version that is yet to come.
    let edns = |version| [&good[..10], &[0, 1], &good[12..], &[0, 0, 41, 4, 208, 0, version, 0, 0, 0, 0]].concat();
    let (code, count, answer) = asked(&mut port, &mut world, &edns(1));
    assert_eq!((code, count), (0, 0));
    assert!(answer.ends_with(&[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]), "{answer:02x?}");
    assert_eq!(asked(&mut port, &mut world, &edns(0)).1, 1);
    // An answer, or too little.
    for nothing in [changed(2, 0x81), good[..11].to_vec(), vec![0; 5000]] {
        refused(&mut port, &mut world, &udp(MAC, (OWN, 4000), (US, 53), &nothing));
    }
}

#[test]
fn an_answer_that_is_too_long_is_marked_as_cut() {
    let (mut port, mut world) = (port(), world());
    world.names = Names::new((1..60).map(|n| ("many", Ipv4Addr::new(10, 90, 0, n))));
    let (_, count, answer) = asked(&mut port, &mut world, &question("many.lan", 1));
    assert_eq!((count, answer[2] & 2, answer.len()), (0, 2, 26));
    let good = question("many.lan", 1);
    let edns = [&good[..10], &[0, 1], &good[12..], &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(asked(&mut port, &mut world, &edns).1, 59);
}

#[test]
fn others_names_are_asked_of_resolvers_one_after_the_other() {
    let (mut port, mut world) = (port(), world());
    world.forwarder.set_resolvers(2);
    let ask = udp(MAC, (OWN, 4000), (US, 53), &question("Example.org", 1));
    assert!(port.frame(&mut world, AT, &ask).is_empty());
    let [(0, first)] = &world.forwarder.outgoing()[..] else { panic!() };
    let (id, sent) = (first[..2].to_vec(), first[2..].to_vec());
    assert_eq!(sent, question("Example.org", 1)[2..]);
    assert_ne!(id, [0xab, 0xcd]);
    let answer = |id: &[u8], name: &str| {
        let mut answer = [id, &question(name, 1)[2..], &hex("c00c00010001000000050004c0000221")].concat();
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
        answer
    };
    // Another id, another question, no answer at all, and what is cut.
    let good = answer(&id, "example.ORG");
    for bad in [answer(&[id[0], id[1] ^ 1], "example.org"), answer(&id, "example.com"), first.clone(), good[..28].to_vec()] {
        assert_eq!(world.forwarder.reply(&bad), None);
    }
    // The first is silent.
    let late = world.forwarder.wakes().unwrap();
    assert!(world.forwarder.poll(late - Duration::from_millis(1)).is_empty() && world.forwarder.outgoing().is_empty());
    assert!(world.forwarder.poll(late).is_empty());
    let [(1, second)] = &world.forwarder.outgoing()[..] else { panic!() };
    assert_eq!(second, first);
    let (client, bytes) = world.forwarder.reply(&good).unwrap();
    assert_eq!(client.port, 16);
    let frames = port.answer(&mut world, AT, client.via, &bytes);
    let (_, to, said) = datagram(&frames[0]);
    assert_eq!((to, said), ((OWN, 4000), &answer(&[0xab, 0xcd], "example.ORG")[..]));
    // Once only.
    assert_eq!((world.forwarder.reply(&good), world.forwarder.wakes()), (None, None));
}

#[test]
fn silence_of_all_is_an_error_and_a_port_waits_for_so_many_only() {
    let (mut port, mut world) = (port(), world());
    world.forwarder.set_resolvers(1);
    let ask = |n: u16| udp(MAC, (OWN, 4000 + n), (US, 53), &question("example.org", 1));
    for n in 0..32 {
        assert!(port.frame(&mut world, AT, &ask(n)).is_empty());
    }
    let full = one(&mut port, &mut world, &ask(32));
    assert_eq!(datagram(&full).2[3] & 15, 2);
    // Another port's are still taken.
    let mut other = Port::new(Identity::new(17, added()).unwrap(), None);
    assert!(other.frame(&mut world, AT, &ask(0)).is_empty());
    assert_eq!(world.forwarder.outgoing().len(), 33);
    world.forwarder.forget(17);
    let mut failed = Vec::new();
    while let Some(at) = world.forwarder.wakes() {
        failed.extend(world.forwarder.poll(at));
    }
    // Each was asked once more.
    assert_eq!((failed.len(), world.forwarder.outgoing().len()), (32, 32));
    assert!(failed.iter().all(|(client, bytes)| client.port == 16 && bytes[..2] == [0xab, 0xcd] && bytes[3] & 15 == 2));
    assert!(port.frame(&mut world, AT, &ask(0)).is_empty());
}

#[test]
fn a_port_is_what_its_network_allows() {
    let with = |change: &dyn Fn(&mut AddPort)| {
        let mut port = added();
        change(&mut port);
        Identity::new(16, port).map(|_| ()).map_err(|bad| bad.field())
    };
    assert_eq!(with(&|_| {}), Ok(()));
    assert_eq!(with(&|p| p.subnet.router = None), Ok(()));
    assert_eq!(with(&|p| p.mac = [0x53, 0x54, 0, 1, 2, 3]), Err("mac"));
    assert_eq!(with(&|p| p.mac = MAC), Err("mac"));
    assert_eq!(with(&|p| p.subnet.prefix = 31), Err("prefix"));
    assert_eq!(with(&|p| p.subnet.prefix = 0), Err("prefix"));
    for address in ["10.90.0.0", "10.90.0.255", "10.90.0.1", "127.0.0.1", "224.0.0.1", "169.254.169.254"] {
        assert_eq!(with(&|p| p.address = address.parse().unwrap()), Err("address"), "{address}");
    }
    assert_eq!(with(&|p| p.subnet.router = Some("10.91.0.1".parse().unwrap())), Err("router"));
    assert_eq!(with(&|p| p.host = Text::lossy("a b")), Err("host"));
    assert_eq!(with(&|p| p.subnet.domain = Text::default()), Err("domain"));
    assert_eq!(with(&|p| p.subnet.mtu = 575), Err("mtu"));
}
