//! Switches with an IPv6 network: what guests may send to each other and to the host. Frames are written by hand.

use crate::acts::{Net7, bridge, tap};
use crate::support::frames::{receive, send};
use crate::support::{ask, frames_of, rules};
use nix::errno::Errno;
use skep_net_helper::platform::NetHost;
use skep_proto::net::{CreateSwitch, Gateway, GuardTap, OpenPort, Own, Reach, SetGateway};
use skep_proto::services::{ADDRESS6, MAC};
use skep_proto::{Reason, SwitchId};
use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

const NET: &str = "fd12:3456:789a:1::/64";
const EVIL: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];
const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x33];
/// Made of these by hand (RFC 4291): on the network, and on the link.
const EVIL_NET: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0x00ff, 0xfe00, 0x22);
const EVIL_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 0x22);
const OTHER_NET: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0x00ff, 0xfe00, 0x33);
const OTHER_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 0x33);
const HOST: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, 1);
const HOST_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A network of a host that can have subnets.
fn spoken() -> Option<Net7> {
    let mut net = Net7::routed()?;
    assert_eq!(net.host.no_subnets6(), None);
    Some(net)
}

fn sum(parts: &[&[u8]]) -> [u8; 2] {
    let all = parts.concat();
    let mut sum: u32 = all.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A packet from this hardware address to all.
fn packet(mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr, next: u8, carried: &[u8]) -> Vec<u8> {
    let length = u16::try_from(carried.len()).unwrap().to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next, 255], &from.octets(), &to.octets()].concat();
    [&ALL_MAC[..], &mac, &[0x86, 0xdd], &header, carried].concat()
}

fn sealed(from: Ipv6Addr, to: Ipv6Addr, next: u8, at: usize, mut carried: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(carried.len()).unwrap().to_be_bytes();
    let found = sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, next], &carried]);
    carried[at..at + 2].copy_from_slice(&found);
    carried
}

fn icmp(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    packet(EVIL, from, to, 58, &sealed(from, to, 58, 2, message.to_vec()))
}

fn udp(from: Ipv6Addr, to: Ipv6Addr, ports: [u16; 2], text: &str) -> Vec<u8> {
    let length = u16::try_from(8 + text.len()).unwrap();
    let header = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    sealed(from, to, 17, 6, [&header, text.as_bytes()].concat())
}

fn datagram(from: Ipv6Addr, to: Ipv6Addr, ports: [u16; 2], text: &str) -> Vec<u8> {
    packet(EVIL, from, to, 17, &udp(from, to, ports, text))
}

fn asks(from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    icmp(from, ALL, &[&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat())
}

fn tells(from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    icmp(from, ALL, &[&[136, 0, 0, 0, 0x20, 0, 0, 0], &target.octets()[..], options].concat())
}

/// A router's word, whose network is nobody's.
fn advertises(from: Ipv6Addr) -> Vec<u8> {
    let prefix = [&[3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xfd, 0x66][..], &[0; 14]].concat();
    icmp(from, ALL, &[&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], &prefix[..]].concat())
}

fn redirects() -> Vec<u8> {
    icmp(EVIL_LINK, ALL, &[&[137, 0, 0, 0, 0, 0, 0, 0], &EVIL_LINK.octets()[..], &OTHER_NET.octets()].concat())
}

/// The same behind another header, whose first byte is set here.
fn behind(next: u8, header: &[u8], frame: &[u8]) -> Vec<u8> {
    let whole = [&[frame[20]], &header[1..], &frame[54..]].concat();
    let (from, to): ([u8; 16], [u8; 16]) = (frame[22..38].try_into().unwrap(), frame[38..54].try_into().unwrap());
    packet(EVIL, from.into(), to.into(), next, &whole)
}

fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

fn gateway(net: &mut Net7, reach: Reach, subnet6: Option<&str>) {
    let subnet6 = subnet6.map(|text| text.parse().unwrap());
    let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach, subnet6 });
    ask(&mut net.client, SetGateway { number: 0, gateway, forwards: vec![] }).unwrap();
}

fn guard(net: &mut Net7) {
    let own = Some(Own { mac: EVIL, address: [10, 64, 7, 2].into(), subnet6: Some(NET.parse().unwrap()) });
    ask(&mut net.client, GuardTap { number: 1, own }).unwrap();
}

/// Whether the switch's bridge has an address. (`fe80::1` is the loopback's on FreeBSD, too.)
fn has(net: &mut Net7, address: Ipv6Addr) -> bool {
    net.host.owners(address.into()).unwrap().contains(&bridge(0).parse().unwrap())
}

/// Frames of the guest's until one has this text.
fn heard(fd: &OwnedFd, last: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let frame = receive(fd);
        if frame[6..12] == EVIL {
            let end = frame.windows(last.len()).any(|window| window == last.as_bytes());
            all.push(frame);
            if end {
                return all;
            }
        }
    }
}

#[test]
fn a_guest_is_nobody_elses_neighbour_and_no_router() {
    let Some(mut net) = spoken() else { return };
    net.switch(0, None).unwrap();
    let (evil, other) = (net.tap(1, Some(0)).unwrap(), net.tap(2, Some(0)).unwrap());
    guard(&mut net);
    guard(&mut net);
    let extension = [0, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |offset: u16, more: u16| [&[0, 0][..], &(offset << 3 | more).to_be_bytes(), &[0, 0, 0, 7]].concat();
    let dhcp = datagram(EVIL_NET, ALL, [547, 546], "DHCP");
    let mut tagged = advertises(EVIL_LINK);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x00]);
    let mut another = advertises(EVIL_LINK);
    another[6..12].copy_from_slice(&OTHER);
    let mut forbidden = vec![
        // A router's words: plain, tagged, from whichever address, behind each header that there is, in fragments of whichever size.
        advertises(EVIL_LINK),
        advertises(EVIL_NET),
        advertises(OTHER_LINK),
        advertises(HOST_LINK),
        advertises(NOBODY),
        advertises(ADDRESS6),
        another,
        tagged,
        redirects(),
        behind(44, &fragment(0, 0), &advertises(EVIL_LINK)),
        behind(44, &fragment(0, 1), &advertises(EVIL_LINK)),
        behind(44, &fragment(1, 0), &advertises(EVIL_LINK)),
        behind(44, &fragment(0, 1), &behind(60, &extension, &advertises(EVIL_LINK))),
        behind(0, &extension, &behind(60, &extension, &advertises(EVIL_LINK))),
        // Another's addresses, none, and what no guest has.
        datagram(OTHER_NET, ALL, [7, 7], "as the neighbour"),
        datagram(HOST, ALL, [7, 7], "as the host"),
        datagram(HOST_LINK, ALL, [7, 7], "as the host"),
        datagram(ADDRESS6, ALL, [7, 7], "as services"),
        datagram(NOBODY, ALL, [7, 7], "as nobody"),
        datagram("fd12:3456:789a:1::22".parse().unwrap(), ALL, [7, 7], "as chosen"),
        datagram("2001:db8::1".parse().unwrap(), ALL, [7, 7], "from beyond"),
        // Neighbours: who the neighbour and the host are, and where he is himself.
        tells(EVIL_NET, OTHER_NET, &option(2, EVIL)),
        tells(EVIL_NET, HOST, &option(2, EVIL)),
        tells(EVIL_LINK, ADDRESS6, &option(2, EVIL)),
        tells(OTHER_NET, OTHER_NET, &option(2, EVIL)),
        tells(EVIL_NET, EVIL_NET, &option(2, OTHER)),
        tells(EVIL_NET, EVIL_NET, &[option(2, EVIL), option(2, OTHER)].concat()),
        tells(NOBODY, EVIL_NET, &option(2, EVIL)),
        asks(OTHER_NET, HOST, &option(1, EVIL)),
        asks(EVIL_NET, OTHER_NET, &option(1, OTHER)),
        asks(EVIL_NET, OTHER_NET, &[option(14, EVIL), option(1, OTHER)].concat()),
        // Looks whether anybody has an address that is not to be his.
        asks(NOBODY, OTHER_NET, &[]),
        asks(NOBODY, HOST, &[]),
        // DHCP, whole and in pieces; groups; and what services have seen.
        dhcp.clone(),
        datagram(EVIL_NET, ALL, [9, 546], "as a server"),
        datagram(EVIL_NET, ALL, [546, 547], "as a client"),
        behind(44, &fragment(0, 1), &dhcp),
        behind(44, &fragment(0, 0), &dhcp),
        icmp(EVIL_LINK, ALL, &[131, 0, 0, 0, 0, 0, 0, 0]),
        icmp(EVIL_LINK, ALL, &[130, 0, 0, 0, 0, 0, 0, 0]),
        icmp(EVIL_LINK, ALL, &[133, 0, 0, 0, 0, 0, 0, 0]),
        icmp(NOBODY, ALL, &[133, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for next in [0, 43, 50, 51, 59, 60, 135, 139, 140, 253] {
        forbidden.push(behind(next, &extension, &advertises(EVIL_LINK)));
        forbidden.push(behind(next, &extension, &datagram(EVIL_NET, ALL, [7, 7], "behind a header")));
    }
    let mut own = datagram(EVIL_NET, ALL, [7, 7], "to services, by their hardware address");
    own[..6].copy_from_slice(&MAC);
    forbidden.push(own);
    for length in 14..advertises(EVIL_LINK).len() {
        forbidden.push(advertises(EVIL_LINK)[..length].to_vec());
    }
    // What he may: and it comes in this order, with nothing between.
    let allowed = [
        asks(NOBODY, EVIL_NET, &option(14, [1, 2, 3, 4, 5, 6])),
        asks(NOBODY, EVIL_LINK, &[]),
        asks(EVIL_NET, OTHER_NET, &option(1, EVIL)),
        asks(EVIL_LINK, OTHER_LINK, &[]),
        tells(EVIL_NET, EVIL_NET, &option(2, EVIL)),
        tells(EVIL_LINK, EVIL_NET, &[]),
        icmp(EVIL_NET, OTHER_NET, &[128, 0, 0, 0, 0, 1, 0, 1]),
        icmp(EVIL_NET, OTHER_NET, &[129, 0, 0, 0, 0, 1, 0, 1]),
        icmp(EVIL_NET, OTHER_NET, &[1, 4, 0, 0, 0, 0, 0, 0]),
        packet(EVIL, EVIL_NET, OTHER_NET, 6, &[0, 7, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 7, 0, 0, 0, 0]),
        behind(44, &fragment(0, 1), &datagram(EVIL_NET, OTHER_NET, [7, 7], "the first of two")),
        // What stands there is no port.
        behind(44, &fragment(3, 0), &dhcp),
        datagram(EVIL_LINK, OTHER_LINK, [7, 7], "his own, on the link"),
        datagram(EVIL_NET, OTHER_NET, [7, 7], "his own!"),
    ];
    // Where a frame is shorter than the least one it is filled up.
    let whole = |frame: &[u8]| frame[..54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]))].to_vec();
    // What stands between the switch and the host stands between no guests, where it sees what goes from one to the other, too.
    for reach in [None, Some(Reach::Out), Some(Reach::Host)] {
        if let Some(reach) = reach {
            gateway(&mut net, reach, Some(NET));
        }
        // There pieces are put together first, and of these no datagram has all.
        let is_piece = |frame: &[u8]| frame[20] == 44;
        let allowed: Vec<Vec<u8>> = allowed.iter().filter(|frame| reach.is_none() || !is_piece(frame)).cloned().collect();
        for frame in forbidden.iter().chain(&allowed) {
            send(&evil, frame);
        }
        let seen: Vec<_> = heard(&other, "his own!").iter().map(|frame| whole(frame)).collect();
        assert_eq!(seen, allowed, "{reach:?}");
    }
}

#[test]
fn ipv6_reaches_of_the_host_what_ipv4_reaches() {
    let Some(mut net) = spoken() else { return };
    net.switch(0, None).unwrap();
    // He is held to nothing: what he may say to the host is another table's to say.
    let guest = net.tap(1, Some(0)).unwrap();
    for reach in [Reach::Host, Reach::Out] {
        gateway(&mut net, reach, Some(NET));
        gateway(&mut net, reach, Some(NET));
        for address in [HOST, HOST_LINK] {
            assert!(has(&mut net, address));
        }
        let host = UdpSocket::bind((HOST, 9999)).unwrap();
        host.set_nonblocking(true).unwrap();
        let to_host = |mut frame: Vec<u8>| {
            frame[..6].copy_from_slice(&net.network.mac(&bridge(0)));
            send(&guest, &frame);
        };
        // Until this is answered. The kernel makes an address ready in its own time, and then says something on the bridge, whatever.
        let echo = |number: u8| {
            let ask = || to_host(icmp(EVIL_NET, HOST, &[128, 0, 0, 0, 0, 1, 0, number]));
            ask();
            loop {
                let frame = receive(&guest);
                match (&frame[12..14], frame[20], frame.get(54)) {
                    ([0x86, 0xdd], 58, Some(135)) if frame[62..78] == EVIL_NET.octets() => {
                        let told = [&[136, 0, 0, 0, 0x60, 0, 0, 0], &EVIL_NET.octets()[..], &option(2, EVIL)].concat();
                        to_host(icmp(EVIL_NET, HOST, &told));
                    }
                    ([0x86, 0xdd], 58, Some(129)) if frame[61] == number => break,
                    ([0x86, 0xdd], 58, Some(129)) => {}
                    _ => ask(),
                }
            }
        };
        echo(1 + reach as u8);
        to_host(datagram(EVIL_NET, HOST, [1000, 9999], "hello, host"));
        if reach == Reach::Out {
            // The tap's own hardware address is the host's, too.
            let mut frame = datagram(EVIL_NET, HOST, [1000, 9999], "hello, tap");
            frame[..6].copy_from_slice(&net.network.mac(&tap(1)));
            send(&guest, &frame);
        }
        to_host(advertises(EVIL_LINK));
        to_host(icmp("2001:db8::1".parse().unwrap(), HOST, &[128, 0, 0, 0, 0, 7, 0, 7]));
        // All of that has come when this is answered, or never does.
        echo(11 + reach as u8);
        let mut buffer = [0; 64];
        match reach {
            Reach::Host => assert_eq!(host.recv(&mut buffer).unwrap(), 11),
            Reach::Out => assert_eq!(host.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock),
        }
        let stray = "fd66::".parse::<Ipv6Addr>().unwrap();
        assert!(net.host.routes6().unwrap().iter().all(|(address, ..)| *address != stray), "the host heard a guest as a router");
        // What the host asks for itself is answered.
        host.send_to(b"hello, guest", (EVIL_NET, 5)).unwrap();
        heard_by(&guest, "hello, guest");
        to_host(datagram(EVIL_NET, HOST, [5, 9999], "hello, asker"));
        host.set_nonblocking(false).unwrap();
        let got = host.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"hello, asker");
    }
    // A bridge that is brought to its state again keeps it; without the network the host is not there.
    ask(&mut net.client, CreateSwitch { switch: SwitchId::random(), number: 0, uplink: None }).unwrap();
    assert!(has(&mut net, HOST) && has(&mut net, HOST_LINK));
    gateway(&mut net, Reach::Out, None);
    assert!(!has(&mut net, HOST) && !has(&mut net, HOST_LINK));
    ask(&mut net.client, SetGateway { number: 0, gateway: None, forwards: vec![] }).unwrap();
    assert_eq!(rules(&mut net.host), [] as [String; 0]);
}

fn heard_by(fd: &OwnedFd, text: &str) {
    while !receive(fd).windows(text.len()).any(|window| window == text.as_bytes()) {}
}

#[test]
fn a_network_of_ipv6_that_the_host_reaches_otherwise_is_refused() {
    let Some(mut net) = spoken() else { return };
    for number in [0, 1] {
        net.switch(number, None).unwrap();
        let _ = net.tap(10 + number, Some(number));
    }
    let call = |number: u16, four: &str, six: &str| {
        let gateway = Gateway { subnet: four.parse().unwrap(), reach: Reach::Out, subnet6: Some(six.parse().unwrap()) };
        SetGateway { number, gateway: Some(gateway), forwards: vec![] }
    };
    ask(&mut net.client, call(0, "10.64.7.0/24", NET)).unwrap();
    let refusal = net.refused(Reason::InUse, |n| ask(&mut n.client, call(1, "10.64.8.0/24", NET)).map(drop));
    assert_eq!(refusal.field.as_str(), "subnet6");
    assert!(refusal.note.as_str().contains(&format!("{NET} through {}", bridge(0))), "{refusal}");
    ask(&mut net.client, call(1, "10.64.8.0/24", "fd12:3456:789a:2::/64")).unwrap();
}

#[test]
fn a_port_shows_what_of_ipv6_services_answer_where_it_is_spoken() {
    let Some(mut net) = spoken() else { return };
    net.switch(0, None).unwrap();
    let guest = net.tap(1, Some(0)).unwrap();
    let ports = [false, true].map(|v6| ask(&mut net.client, OpenPort { number: 1, v6 }).map(|(_, [port])| port).unwrap());
    for frame in [
        datagram(EVIL_NET, OTHER_NET, [7, 7], "for the neighbour"),
        icmp(EVIL_NET, ADDRESS6, &[128, 0, 0, 0, 0, 1, 0, 1]),
        icmp(EVIL_LINK, ALL, &[133, 0, 0, 0, 0, 0, 0, 0]),
        asks(NOBODY, EVIL_NET, &[]),
        datagram(EVIL_NET, ADDRESS6, [7, 53], "a question"),
    ] {
        send(&guest, &frame);
    }
    // As much as a bpf(4) device wants to be asked for.
    let mut buffer = vec![0; 128 << 10];
    let mut seen = Vec::new();
    while seen.last() != Some(&17) {
        let mut set = [nix::poll::PollFd::new(ports[1].as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut set, 20_000u16), Ok(1), "no frame came");
        match nix::unistd::read(&ports[1], &mut buffer) {
            Ok(got) => seen.extend(frames_of(&buffer[..got]).map(|frame| if frame[20] == 58 { frame[54] } else { frame[20] })),
            Err(Errno::EAGAIN) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(seen, [133, 135, 17]);
    assert_eq!(nix::unistd::read(&ports[0], &mut buffer), Err(Errno::EAGAIN));
}
