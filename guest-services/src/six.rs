//! IPv6 of one port: the switch's network is advertised (RFC 4861, RFC 8106), its DNS is where neighbour discovery finds it, and whether
//! the guest has the address that is made of its hardware address is asked of it. We are no router, and say so: what is advertised is
//! whose addresses are on the link. Pure.
//!
//! No packet with a header between IPv6's own and what it carries is looked into, nor a fragment: nobody needs one here (RFC 6980).

use crate::Now;
use crate::dns;
use crate::port::Identity;
use crate::wire::{self, Packet6};
use skep_proto::services::{ADDRESS6, MAC};
use skep_proto::{Subnet6, link_local};
use smoltcp::wire::UdpPacket;
use std::net::Ipv6Addr;
use std::time::Duration;

/// Numbers of protocols (IANA).
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMP: u8 = 58;
/// Messages of neighbour discovery, and the only limit of hops with which they are heard: no router sends them on.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ON_LINK: u8 = 255;
/// Options of these.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RESOLVERS: u8 = 25;
const DOMAINS: u8 = 31;

/// All nodes of a link.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// How long what is advertised holds: the network (with which new connections are made, and at all), and DNS. It is advertised again
/// long before.
const PREFERRED_SECONDS: u32 = 14_400;
const VALID_SECONDS: u32 = 86_400;
const RESOLVER_SECONDS: u32 = 3 * LATEST.as_secs() as u32;
/// Between two advertisements that nobody asked for: after each of the first, and then something between.
const FIRST: (u8, Duration) = (3, Duration::from_secs(16));
const EARLIEST: Duration = Duration::from_secs(200);
const LATEST: Duration = Duration::from_secs(600);
/// Questions in a row after which a guest that answers none does not have the address.
const PATIENCE: u8 = 3;

/// See the module.
#[derive(Debug)]
pub struct Six {
    net: Subnet6,
    /// Addresses of the guest: on the link, and on the network.
    link: Ipv6Addr,
    own: Ipv6Addr,
    /// When something is advertised without being asked for.
    next: Now,
    /// How often that was.
    sent: u8,
    /// Questions whether it has the address, since the last answer.
    asked: u8,
    /// Whether it has it.
    has: bool,
}

/// What came.
#[derive(Debug)]
pub enum Heard<'a> {
    /// Something that gets these frames.
    Answered(Vec<Vec<u8>>),
    /// A question of DNS: from this address and port.
    Question((Ipv6Addr, u16), &'a [u8]),
    /// A packet with a segment of TCP for DNS.
    Segment(&'a [u8]),
}

impl Six {
    /// One whose guest has said nothing yet. It is told at once.
    pub fn new(identity: &Identity) -> Option<Self> {
        let net = identity.subnet.v6?;
        let (link, own) = (link_local(identity.mac), net.of(identity.mac));
        Some(Self { net, link, own, next: Duration::ZERO, sent: 0, asked: 0, has: false })
    }

    /// The same guest, described anew: told anew, too, but known.
    pub fn succeed(&mut self, before: &Self) {
        if (self.net, self.link) == (before.net, before.link) {
            (self.asked, self.has) = (before.asked, before.has);
        }
    }

    /// The guest's address on the network, while it has it.
    pub fn address(&self) -> Option<Ipv6Addr> {
        self.has.then_some(self.own)
    }

    /// When [`Six::poll`] has something to do.
    pub fn wakes(&self) -> Now {
        self.next
    }

    /// Takes what an Ethernet frame carries.
    pub fn take<'a>(&mut self, identity: &Identity, bytes: &'a [u8]) -> Option<Heard<'a>> {
        let packet = Packet6::read(bytes)?;
        let (from, to) = (packet.from, packet.to);
        let by_it = from == self.link || from == self.own;
        match packet.next {
            ICMP if packet.hops == ON_LINK => self.discovery(identity, &packet, by_it).map(Heard::Answered),
            UDP if by_it && to == ADDRESS6 => {
                let datagram = UdpPacket::new_checked(packet.payload).ok()?;
                let question = (from, datagram.src_port());
                (datagram.dst_port() == dns::PORT).then(|| Heard::Question(question, datagram.payload()))
            }
            TCP if by_it && to == ADDRESS6 => {
                let port = packet.payload.get(2..)?.first_chunk()?;
                (u16::from_be_bytes(*port) == dns::PORT).then_some(Heard::Segment(packet.whole))
            }
            _ => None,
        }
    }

    fn discovery(&mut self, identity: &Identity, packet: &Packet6<'_>, by_it: bool) -> Option<Vec<Vec<u8>>> {
        let (&[kind, code, _, _, _, _, _, _], rest) = packet.payload.split_first_chunk::<8>()?;
        let by_nobody = packet.from.is_unspecified();
        if code != 0 || !by_it && !by_nobody {
            return None;
        }
        if kind == ROUTER_SOLICITATION {
            check_options(rest)?;
            let to = if by_it { packet.from } else { ALL };
            return Some(vec![self.advertisement(identity, to)]);
        }
        let (target, options) = rest.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from(*target);
        check_options(options)?;
        match kind {
            NEIGHBOUR_SOLICITATION if by_nobody => {
                // Whether anybody has the address that it is about to take; nobody can.
                self.hear(target == self.own);
                Some(Vec::new())
            }
            NEIGHBOUR_SOLICITATION => {
                self.hear(packet.from == self.own);
                // Others answer for themselves.
                Some(if target == ADDRESS6 { vec![presence(identity, packet.from)] } else { Vec::new() })
            }
            NEIGHBOUR_ADVERTISEMENT if by_it => {
                self.hear(target == self.own);
                Some(Vec::new())
            }
            _ => None,
        }
    }

    fn hear(&mut self, has: bool) {
        if has {
            (self.asked, self.has) = (0, true);
        }
    }

    /// Advertises, and asks, what nobody asked for, if it is time. `random` cannot be guessed.
    pub fn poll(&mut self, identity: &Identity, now: Now, random: impl FnOnce() -> u64) -> Vec<Vec<u8>> {
        if now < self.next {
            return Vec::new();
        }
        self.sent = self.sent.saturating_add(1);
        let pause = if self.sent < FIRST.0 {
            FIRST.1
        } else {
            EARLIEST + Duration::from_millis(random() % (LATEST - EARLIEST).as_millis() as u64)
        };
        self.next = now + pause;
        self.has &= self.asked < PATIENCE;
        self.asked = self.asked.saturating_add(1).min(PATIENCE);
        vec![self.advertisement(identity, ALL), self.question(identity)]
    }

    /// A router advertisement of who is no router.
    fn advertisement(&self, identity: &Identity, to: Ipv6Addr) -> Vec<u8> {
        /// Hops of packets; the time for which we are a router, and two that are left to the guest: none.
        const HEAD: [u8; 12] = [64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        /// On the link; addresses are made of it.
        const FLAGS: u8 = 0x80 | 0x40;
        let mut message = HEAD.to_vec();
        message.extend([SOURCE, 1]);
        message.extend(MAC);
        message.extend([MTU, 1, 0, 0]);
        message.extend(u32::from(identity.subnet.mtu).to_be_bytes());
        message.extend([PREFIX, 4, self.net.prefix(), FLAGS]);
        message.extend(VALID_SECONDS.to_be_bytes());
        message.extend(PREFERRED_SECONDS.to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.net.net().octets());
        message.extend([RESOLVERS, 3, 0, 0]);
        message.extend(RESOLVER_SECONDS.to_be_bytes());
        message.extend(ADDRESS6.octets());
        let mut name: Vec<u8> = Vec::new();
        for label in identity.subnet.domain.as_str().split('.').filter(|label| !label.is_empty()) {
            // Labels of a domain have 63 bytes at most, as [`Identity`] has it.
            name.extend(u8::try_from(label.len()));
            name.extend(label.bytes());
        }
        name.push(0);
        name.resize(name.len().next_multiple_of(8), 0);
        message.push(DOMAINS);
        message.extend(u8::try_from(1 + name.len() / 8));
        message.extend([0, 0]);
        message.extend(RESOLVER_SECONDS.to_be_bytes());
        message.extend(name);
        icmp(identity, to, ROUTER_ADVERTISEMENT, &message)
    }

    /// Asks the guest whether it has its address.
    fn question(&self, identity: &Identity) -> Vec<u8> {
        let group = 0xff02 << 112 | 1 << 32 | 0xff << 24 | self.own.to_bits() & 0xff_ffff;
        let message = [&[0; 4][..], &self.own.octets(), &[SOURCE, 1], &MAC].concat();
        icmp(identity, Ipv6Addr::from_bits(group), NEIGHBOUR_SOLICITATION, &message)
    }
}

/// Says to a guest where services are.
fn presence(identity: &Identity, to: Ipv6Addr) -> Vec<u8> {
    /// It was asked for, and in place of what was known.
    const FLAGS: [u8; 4] = [0x60, 0, 0, 0];
    let message = [&FLAGS[..], &ADDRESS6.octets(), &[TARGET, 1], &MAC].concat();
    icmp(identity, to, NEIGHBOUR_ADVERTISEMENT, &message)
}

/// A message of ICMPv6 of ours, with a code of 0.
fn icmp(identity: &Identity, to: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], rest].concat();
    wire::seal(&mut message, 2, to, ICMP);
    wire::packet6(identity.mac, to, ICMP, ON_LINK, &message)
}

/// `None`: one of these options is none, and with it the whole message.
fn check_options(mut rest: &[u8]) -> Option<()> {
    while let [_, words, ..] = *rest {
        if words == 0 {
            return None;
        }
        rest = rest.get(8 * usize::from(words)..)?;
    }
    rest.is_empty().then_some(())
}
