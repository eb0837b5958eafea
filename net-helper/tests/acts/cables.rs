//! Tunnels and pairs.

use super::{Net7, bridge};
use crate::support::frames::{frame, hear, receive, send};
use crate::support::{GUARDS_TUNNELS, INDICES_RETURN, KINDS, Served, ask, host as the_host, instance};
use skep_net_helper::key::PrivateKey;
use skep_net_helper::platform::{NetHost, Switch};
use skep_proto::net::{CreatePair, CreateTunnel, DeletePair, DeleteSwitch, DeleteTap, DeleteTunnel, HostKey};
use skep_proto::tunnel::{Far, PublicKey, Tunnel};
use skep_proto::{IfName, Reason, Refusal, SwitchId};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// The other host's, as we play it.
const THERE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const PORT: u16 = 4790;

fn vxlan(number: u16) -> String {
    IfName::tunnel(instance(), number).to_string()
}

fn tunnel(vni: u32, far: Far) -> Tunnel {
    let local = HERE.to_string().parse().unwrap();
    Tunnel { vni: vni.to_string().parse().unwrap(), local, far, port: PORT.try_into().unwrap(), peer_key: None }
}

fn host(far: Ipv4Addr) -> Far {
    Far::Host(far.to_string().parse().unwrap())
}

fn group() -> Far {
    Far::Group { address: GROUP.to_string().parse().unwrap(), uplink: "up0".parse().unwrap() }
}

impl Net7 {
    /// A network of the host's, `up0`, where it has the address `HERE`; what is written to the descriptor comes from another host.
    fn underlay(&mut self) -> OwnedFd {
        let outside = self.network.outside("up0");
        self.host.set_up(&"up0".parse().unwrap(), true).unwrap();
        self.network.address("up0", HERE);
        outside
    }

    fn tunnel(&mut self, number: u16, tunnel: Tunnel) -> Result<IfName, Refusal> {
        ask(&mut self.client, CreateTunnel { switch: SwitchId::random(), number, tunnel }).map(|(reply, [])| reply.name)
    }

    fn pair(&mut self, number: u16, switches: [Option<u16>; 2]) -> Result<[IfName; 2], Refusal> {
        ask(&mut self.client, CreatePair { number, switches }).map(|(reply, [])| reply.ends)
    }
}

#[test]
fn a_tunnel_joins_its_switch_and_is_made_anew_when_it_should_differ() {
    let Some(mut net) = Net7::new() else { return };
    let _outside = net.underlay();
    let before = net.links().len();
    net.refused(Reason::NotFound, |n| n.tunnel(0, tunnel(7, host(THERE))).map(drop));
    net.switch(0, None).unwrap();
    net.switch(1, None).unwrap();
    assert_eq!(net.tunnel(0, tunnel(7, host(THERE))).unwrap().as_str(), vxlan(0));
    let (made, on) = (net.link(&vxlan(0)).unwrap(), net.link(&bridge(0)).unwrap());
    assert!(made.up && made.is_tunnel() && made.bridge == Some(on.index), "{made:?}");
    assert!(made.note.starts_with("skep nt7a: tunnel 7 of switch "), "{made:?}");
    assert_eq!(net.host.tunnel(&made.name).unwrap(), Some(tunnel(7, host(THERE))));
    // Again; then taken off and set down by somebody else.
    net.tunnel(0, tunnel(7, host(THERE))).unwrap();
    assert_eq!(net.link(&vxlan(0)).unwrap().index, made.index);
    net.host.leave(&made.name, &on.name).unwrap();
    net.host.set_up(&made.name, false).unwrap();
    net.tunnel(0, tunnel(7, host(THERE))).unwrap();
    let again = net.link(&vxlan(0)).unwrap();
    assert_eq!((again.index, again.bridge, again.up), (made.index, Some(on.index), true));
    // Another network, another host, a group.
    for other in [tunnel(8, host(THERE)), tunnel(8, host(Ipv4Addr::new(192, 0, 2, 3))), tunnel(8, group())] {
        let index = net.link(&vxlan(0)).unwrap().index;
        net.tunnel(0, other.clone()).unwrap();
        let link = net.link(&vxlan(0)).unwrap();
        assert_eq!((link.bridge, link.up, link.index != index || INDICES_RETURN), (Some(on.index), true, true));
        assert_eq!(net.host.tunnel(&link.name).unwrap(), Some(other));
    }
    // What another tunnel of this host has cannot be had, and the former stays, though made anew.
    net.tunnel(0, tunnel(8, host(THERE))).unwrap();
    net.tunnel(1, tunnel(9, host(THERE))).unwrap();
    let refusal = net.tunnel(1, tunnel(8, host(THERE))).unwrap_err();
    assert_eq!(refusal.reason, Reason::InUse, "{refusal}");
    let former = net.link(&vxlan(1)).unwrap();
    assert!(former.up && former.bridge == Some(net.link(&bridge(1)).unwrap().index), "{former:?}");
    assert_eq!(net.host.tunnel(&former.name).unwrap(), Some(tunnel(9, host(THERE))));
    // Each refusal for what is the host's.
    let far = |far, text| {
        let refusal = (Reason::InvalidValue, tunnel(7, far));
        (refusal, text)
    };
    for ((reason, tunnel), text) in [far(host(HERE), "itself"), far(Far::Host("2001:db8::1".parse().unwrap()), "IPv6")] {
        let refusal = net.refused(reason, |n| n.tunnel(1, tunnel).map(drop));
        assert!(refusal.note.as_str().contains(text), "{refusal}");
    }
    let elsewhere = Tunnel { local: "192.0.2.9".parse().unwrap(), ..tunnel(7, host(THERE)) };
    net.refused(Reason::PermissionDenied, |n| n.tunnel(1, elsewhere).map(drop));
    // A switch with a tunnel stays, and so does what is no tunnel.
    net.refused(Reason::InUse, |n| ask(&mut n.client, DeleteSwitch { number: 0 }).map(drop));
    net.switch(2, None).unwrap();
    net.host.make_bridge(&IfName::tunnel(instance(), 2), Switch::Bridge).unwrap();
    net.refused(Reason::AlreadyExists, |n| n.tunnel(2, tunnel(7, host(THERE))).map(drop));
    net.refused(Reason::AlreadyExists, |n| ask(&mut n.client, DeleteTunnel { number: 2 }).map(drop));
    net.host.delete(&IfName::tunnel(instance(), 2)).unwrap();
    for number in [0, 1, 2, 0, 1] {
        ask(&mut net.client, DeleteTunnel { number }).unwrap();
        ask(&mut net.client, DeleteSwitch { number }).unwrap();
    }
    assert_eq!(net.links().len(), before);
}

#[test]
fn a_tunnel_goes_through_wireguard_where_the_kernel_has_it() {
    let Some(mut net) = Net7::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let keyed = || the_host().with_key(PrivateKey::of(state.path()));
    let served = Served::new(keyed(), true);
    (net.client, net.host) = (served.client(), keyed());
    let _outside = net.underlay();
    net.switch(0, None).unwrap();
    let on = net.link(&bridge(0)).unwrap().index;
    let before = net.links();
    let peer: PublicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
    let through = |peer| Tunnel { peer_key: Some(peer), ..tunnel(7, host(THERE)) };
    let own = match ask(&mut net.client, HostKey {}) {
        Ok((keyed, [])) => keyed.key,
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::Unsupported, "{refusal}");
            let of_tunnel = net.refused(Reason::Unsupported, |n| n.tunnel(0, through(peer)).map(drop));
            for refusal in [&refusal, &of_tunnel] {
                assert!(refusal.note.as_str().contains("WireGuard"), "{refusal}");
            }
            println!("SKIP a_tunnel_goes_through_wireguard_where_the_kernel_has_it: {refusal}");
            return;
        }
    };
    assert_eq!(net.links(), before, "the interface of a moment stayed");
    net.refused(Reason::InvalidValue, |n| n.tunnel(0, through(own)).map(drop));
    net.refused(Reason::InvalidValue, |n| n.tunnel(0, Tunnel { far: group(), ..through(peer) }).map(drop));
    let name = net.tunnel(0, through(peer)).unwrap();
    let beneath = name.beneath();
    let both = |n: &mut Net7| (n.link(name.as_str()).unwrap(), n.link(beneath.as_str()).unwrap());
    let (above, under) = both(&mut net);
    assert!(above.up && above.is_tunnel() && above.bridge == Some(on), "{above:?}");
    assert!(under.up && under.is_wireguard() && under.bridge.is_none() && under.mtu == 1570, "{under:?}");
    assert_eq!(net.host.tunnel(&name).unwrap(), Some(through(peer)));
    assert_eq!(net.host.owners(own.address().into()).unwrap(), std::slice::from_ref(&beneath));
    net.tunnel(0, through(peer)).unwrap();
    let again = both(&mut net);
    assert_eq!((again.0.index, again.1.index), (above.index, under.index), "it was made anew without need");
    // Whatever a helper that was killed left is no tunnel, and is made whole: not said to be finished; nothing above; down; nothing beneath.
    for left in 0..4 {
        match left {
            0 => net.host.mark(&beneath, "skep makes it").unwrap(),
            1 => net.host.delete(&name).unwrap(),
            2 => net.host.set_up(&beneath, false).unwrap(),
            _ => net.host.delete(&beneath).unwrap(),
        }
        if left != 1 && net.link(name.as_str()).is_some() {
            assert_eq!(net.host.tunnel(&name).unwrap(), None, "{left}");
        }
        net.tunnel(0, through(peer)).unwrap();
        assert_eq!(net.host.tunnel(&name).unwrap(), Some(through(peer)), "{left}");
    }
    // Another host, and one without WireGuard, beneath which nothing stays; and back.
    let other = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".parse().unwrap();
    for wanted in [through(other), tunnel(7, host(THERE)), through(peer)] {
        net.tunnel(0, wanted.clone()).unwrap();
        assert_eq!(net.link(beneath.as_str()).is_some(), wanted.peer_key.is_some());
        assert_eq!(net.host.tunnel(&name).unwrap(), Some(wanted));
    }
    // What another has cannot be had, and the former is there again.
    net.switch(1, None).unwrap();
    net.tunnel(1, Tunnel { port: 4791.try_into().unwrap(), ..through(peer) }).unwrap();
    let refusal = net.tunnel(1, through(peer)).unwrap_err();
    assert_eq!(refusal.reason, Reason::InUse, "{refusal}");
    let former = Tunnel { port: 4791.try_into().unwrap(), ..through(peer) };
    assert_eq!(net.host.tunnel(&IfName::tunnel(instance(), 1)).unwrap(), Some(former));
    // What is beneath goes with it, and alone.
    net.host.delete(&IfName::tunnel(instance(), 1)).unwrap();
    for number in [0, 1, 0] {
        ask(&mut net.client, DeleteTunnel { number }).unwrap();
        ask(&mut net.client, DeleteSwitch { number }).unwrap();
    }
    assert_eq!(net.links().len(), before.len() - 1);
}

/// What kernels make of the settings of a tunnel between IPv6 addresses comes back the same.
#[test]
fn a_tunnel_has_ipv6_addresses_too() {
    let Some(mut net) = Net7::new() else { return };
    let name = IfName::tunnel(instance(), 3);
    let six = Tunnel {
        local: "2001:db8::1".parse().unwrap(),
        far: Far::Host("2001:db8::2".parse().unwrap()),
        ..tunnel(16_777_215, host(THERE))
    };
    net.host.make_tunnel(&name, &six).unwrap();
    assert_eq!(net.host.tunnel(&name).unwrap(), Some(six));
    net.host.delete(&name).unwrap();
    assert_eq!(net.link(name.as_str()), None);
}

/// Sums 16-bit words as IP does.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0))).sum();
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// An Ethernet frame with an IPv4 packet of UDP.
fn udp(from: Ipv4Addr, to_mac: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + 8 + payload.len()).unwrap();
    let mut ip = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 1, 0, 0, 64, 17, 0, 0], &from.octets(), &HERE.octets()].concat();
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    // Without a checksum of its own.
    let udp = [&50_000u16.to_be_bytes()[..], &PORT.to_be_bytes(), &(length - 20).to_be_bytes(), &[0, 0]].concat();
    [to_mac, &THERE_MAC, &[8, 0], &ip, &udp, payload].concat()
}

/// The frame that came in a VXLAN packet, with the packet's VNI and the address that it was sent to.
fn unwrapped(frame: &[u8]) -> Option<(u32, Ipv4Addr, &[u8])> {
    let ip = frame.strip_prefix(&frame[..12])?.strip_prefix(&[8, 0])?;
    let header = usize::from(ip[0] & 0xf) * 4;
    let udp = ip.get(header..)?;
    (ip[9] == 17 && udp[2..4] == PORT.to_be_bytes()).then(|| {
        let vxlan = &udp[8..];
        let vni = u32::from_be_bytes([0, vxlan[4], vxlan[5], vxlan[6]]);
        (vni, Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]), &vxlan[8..])
    })
}

/// What comes out to the other host: answers the host's question for its address, and gives the first frame of ours.
fn comes_out(outside: &OwnedFd) -> (u32, Ipv4Addr, Vec<u8>, Vec<u8>) {
    loop {
        let got = receive(outside);
        if got[12..14] == [0x08, 0x06] && got[20..22] == [0, 1] && got[38..42] == THERE.octets() {
            let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &THERE_MAC, &THERE.octets(), &got[22..28], &HERE.octets()].concat();
            let mut reply = [&got[6..12], &THERE_MAC, &[0x08, 0x06], &body].concat();
            reply.resize(60, 0);
            send(outside, &reply);
        } else if let Some((vni, to, inner)) = unwrapped(&got)
            && inner[12..14] == [0x88, 0xb5]
        {
            return (vni, to, inner.to_vec(), got[6..12].to_vec());
        }
    }
}

#[test]
fn a_switch_spans_hosts_by_its_tunnel() {
    let Some(mut net) = Net7::new() else { return };
    let outside = net.underlay();
    net.switch(0, None).unwrap();
    net.tunnel(0, tunnel(70_000, host(THERE))).unwrap();
    let guest = net.tap(0, Some(0)).unwrap();
    send(&guest, &frame("to the other host"));
    let (vni, to, inner, mac) = comes_out(&outside);
    assert_eq!((vni, to, inner), (70_000, THERE, frame("to the other host")));
    // And back; of another network nothing.
    let wrap = |vni: u32, text| [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), &frame(text)].concat();
    send(&outside, &udp(THERE, &mac, &wrap(70_001, "of another network")));
    if GUARDS_TUNNELS {
        send(&outside, &udp(Ipv4Addr::new(192, 0, 2, 3), &mac, &wrap(70_000, "from a stranger")));
    }
    send(&outside, &udp(THERE, &mac, &wrap(70_000, "from the other host")));
    assert_eq!(hear(&guest, |_| ()), "from the other host");
    ask(&mut net.client, DeleteTunnel { number: 0 }).unwrap();
    drop(guest);
    ask(&mut net.client, DeleteTap { number: 0 }).unwrap();
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
}

#[test]
fn a_tunnel_to_a_group_sends_to_all_of_it() {
    let Some(mut net) = Net7::new() else { return };
    let outside = net.underlay();
    net.switch(0, None).unwrap();
    net.tunnel(0, tunnel(71, group())).unwrap();
    let guest = net.tap(0, Some(0)).unwrap();
    send(&guest, &frame("to all"));
    let (vni, to, inner, _) = comes_out(&outside);
    assert_eq!((vni, to, inner), (71, GROUP, frame("to all")));
    for (uplink, reason) in [("spare0", Reason::PermissionDenied), ("eth9", Reason::NotFound)] {
        let far = Far::Group { address: GROUP.to_string().parse().unwrap(), uplink: uplink.parse().unwrap() };
        net.refused(reason, |n| n.tunnel(0, tunnel(71, far)).map(drop));
    }
}

#[test]
fn a_pair_carries_frames_from_switch_to_switch() {
    let Some(mut net) = Net7::new() else { return };
    let before = net.links();
    (0..3).for_each(|number| drop(net.switch(number, None).unwrap()));
    let (a, b, near_b) = (net.tap(0, Some(0)).unwrap(), net.tap(1, Some(1)).unwrap(), net.tap(2, Some(1)).unwrap());
    let ends = net.pair(5, [Some(0), Some(1)]).unwrap();
    assert_eq!(ends, IfName::pair(instance(), 5));
    for (end, number) in ends.iter().zip(0..) {
        let (link, on) = (net.link(end.as_str()).unwrap(), net.link(&bridge(number)).unwrap());
        assert_eq!((link.kind.as_str(), link.up, link.bridge), (KINDS.1, true, Some(on.index)));
        assert_eq!(link.note, "skep nt7a: pair 5");
    }
    send(&a, &frame("across"));
    assert_eq!(hear(&b, |_| ()), "across");
    assert_eq!(hear(&near_b, |_| ()), "across");
    // Again, the same; then elsewhere, and nowhere.
    let index = net.link(ends[0].as_str()).unwrap().index;
    net.pair(5, [Some(0), Some(1)]).unwrap();
    net.pair(5, [Some(0), Some(2)]).unwrap();
    net.pair(5, [None, Some(2)]).unwrap();
    assert_eq!(net.link(ends[0].as_str()).unwrap().bridge, None);
    assert_eq!(net.link(ends[1].as_str()).unwrap().bridge, Some(net.link(&bridge(2)).unwrap().index));
    assert_eq!(net.link(ends[0].as_str()).unwrap().index, index);
    send(&a, &frame("not across"));
    send(&near_b, &frame("from near"));
    assert_eq!(hear(&b, |_| ()), "from near");
    // No loops: a switch with itself, two pairs between two, three switches in a ring.
    net.pair(5, [Some(0), Some(1)]).unwrap();
    net.pair(6, [Some(1), Some(2)]).unwrap();
    for loops in [[Some(0), Some(0)], [Some(1), Some(0)], [Some(0), Some(2)]] {
        let refusal = net.refused(Reason::InvalidValue, |n| n.pair(7, loops).map(drop));
        assert!(refusal.note.as_str().contains("joined already"), "{refusal}");
    }
    net.refused(Reason::NotFound, |n| n.pair(7, [Some(0), Some(9)]).map(drop));
    // A switch with an end on it stays, and so does what is no end.
    net.refused(Reason::InUse, |n| ask(&mut n.client, DeleteSwitch { number: 2 }).map(drop));
    net.host.make_bridge(&IfName::pair(instance(), 8)[1], Switch::Bridge).unwrap();
    net.refused(Reason::AlreadyExists, |n| n.pair(8, [None, None]).map(drop));
    net.refused(Reason::AlreadyExists, |n| ask(&mut n.client, DeletePair { number: 8 }).map(drop));
    net.host.delete(&IfName::pair(instance(), 8)[1]).unwrap();
    drop((a, b, near_b));
    for number in 0..3 {
        ask(&mut net.client, skep_proto::net::DeleteTap { number }).unwrap();
    }
    for number in [5, 6, 5] {
        ask(&mut net.client, DeletePair { number }).unwrap();
    }
    for number in 0..3 {
        ask(&mut net.client, DeleteSwitch { number }).unwrap();
    }
    assert_eq!(net.links(), before);
}
