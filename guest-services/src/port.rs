//! One NIC: what comes from it, and what it gets.

use crate::dhcp::{self, Change};
use crate::dns;
use crate::forward::{Client, Forwarder, Via};
use crate::names::{self, BadName, Names};
use crate::six::{Heard, Six};
use crate::tcp::Stack;
use crate::token::Key;
use crate::wire::{self, ETHERNET};
use crate::{Now, metadata::Content};
use skep_proto::services::{ADDRESS, AddPort, Document, MAC, ServiceEvent, Subnet};
use skep_proto::{NicId, Text};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

/// Between two words of a guest that has taken its address: one that does nothing else must not drown the others'.
const QUIET: Duration = Duration::from_secs(10);

/// Frames to send back.
pub type Frames = Vec<Vec<u8>>;

/// What the ports of a switch share.
pub struct World {
    /// Names on it.
    pub names: Names,
    /// Questions that wait for a resolver's answer.
    pub forwarder: Forwarder,
    pub(crate) random: Box<dyn FnMut() -> u64>,
    pub(crate) key: Key,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("names", &self.names).field("forwarder", &self.forwarder).finish_non_exhaustive()
    }
}

impl World {
    /// One without names or resolvers. `random` cannot be guessed.
    pub fn new(mut random: Box<dyn FnMut() -> u64>) -> Self {
        let key = Key::new(&mut random);
        Self { names: Names::default(), forwarder: Forwarder::default(), random, key }
    }
}

/// Who is plugged in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Number of the port, never used again.
    pub token: u64,
    /// The NIC.
    pub nic: NicId,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name.
    pub host: Text<63>,
    /// What it is told of the switch.
    pub subnet: Subnet,
}

/// A port that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPort {
    /// A hardware address that a NIC cannot have.
    #[error("the hardware address is of a group, or all zero, or ours")]
    Mac,
    /// Length of the prefix.
    #[error("a prefix of 8 to 30 is expected")]
    Prefix,
    /// An address that a NIC cannot have.
    #[error("an address of a host, other than the router's, is expected")]
    Address,
    /// A router that cannot be reached.
    #[error("the router is not on the subnet")]
    Router,
    /// A name that DNS does not know.
    #[error("{0}: {BadName}")]
    Name(&'static str),
    /// Too small or large a packet.
    #[error("a packet of 576 (with IPv6 1,280) to 65,521 bytes is expected")]
    Mtu,
}

impl BadPort {
    /// The field at fault.
    pub fn field(self) -> &'static str {
        match self {
            BadPort::Mac => "mac",
            BadPort::Prefix => "prefix",
            BadPort::Address => "address",
            BadPort::Router => "router",
            BadPort::Name(field) => field,
            BadPort::Mtu => "mtu",
        }
    }
}

impl Identity {
    /// From what the broker says.
    pub fn new(token: u64, port: AddPort) -> Result<Self, BadPort> {
        let AddPort { nic, mac, address, host, subnet, .. } = port;
        let identity = Self { token, nic, mac, address, host, subnet };
        let subnet = &identity.subnet;
        let is_host = |address: Ipv4Addr| {
            let (own, mask) = (u32::from(address), u32::from(identity.mask()));
            own & !mask != 0 && own & !mask != !mask && !address.is_loopback() && !address.is_multicast() && address != ADDRESS
        };
        let good = [
            (mac[0] & 1 == 0 && mac != [0; 6] && mac != MAC, BadPort::Mac),
            ((8..=30).contains(&subnet.prefix), BadPort::Prefix),
            (is_host(address) && subnet.router != Some(address), BadPort::Address),
            (subnet.router.is_none_or(|router| is_host(router) && identity.contains(router)), BadPort::Router),
            (names::check(identity.host.as_str()).is_ok(), BadPort::Name("host")),
            (names::check(subnet.domain.as_str()).is_ok(), BadPort::Name("domain")),
            // An Ethernet frame of ours has 16 bits of length.
            ((576..=65_521).contains(&subnet.mtu) && (subnet.v6.is_none() || subnet.mtu >= 1280), BadPort::Mtu),
        ];
        match good.into_iter().find(|(good, _)| !good) {
            Some((_, bad)) => Err(bad),
            None => Ok(identity),
        }
    }

    /// The subnet's mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.subnet.prefix.min(32))).unwrap_or(0))
    }

    /// Whether an address is on its subnet.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address & self.mask()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Port {
    identity: Identity,
    content: Option<Rc<Content>>,
    stack: Option<Box<Stack>>,
    six: Option<Six>,
    /// Whether it has its address.
    pub leased: bool,
    /// Whether it has phoned home.
    pub home: bool,
    /// Frames that were answered or counted.
    pub frames: u64,
    /// Frames that were passed over.
    pub refused: u64,
    told: Option<Now>,
    events: Vec<ServiceEvent>,
}

/// Why a frame is passed over: nobody is told, so there is nothing to say.
struct Refused;

type Taken = Result<Frames, Refused>;

impl Port {
    /// One that nothing has come from yet.
    pub fn new(identity: Identity, document: Option<Document>) -> Self {
        let content = document.map(|document| Rc::new(Content::new(&identity, document)));
        let (leased, home, frames, refused) = (false, false, 0, 0);
        let six = Six::new(&identity);
        Self { identity, content, stack: None, six, leased, home, frames, refused, told: None, events: Vec::new() }
    }

    /// The same NIC, described anew: it keeps what it has taken and done.
    #[must_use]
    pub fn succeed(mut self, before: &Port) -> Self {
        (self.frames, self.refused, self.home, self.told) = (before.frames, before.refused, before.home, before.told);
        let (new, old) = (&self.identity, &before.identity);
        self.leased = before.leased && (new.address, new.mac) == (old.address, old.mac);
        if let (Some(six), Some(before)) = (&mut self.six, &before.six) {
            six.succeed(before);
        }
        self
    }

    /// Who is plugged in.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its address on the switch's IPv6 network, while its guest answers for it.
    pub fn address6(&self) -> Option<Ipv6Addr> {
        self.six.as_ref().and_then(Six::address)
    }

    /// What has happened since this was asked last.
    pub fn events(&mut self) -> Vec<ServiceEvent> {
        std::mem::take(&mut self.events)
    }

    /// A frame that the kernel has cut, or that there was no room for.
    pub fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    /// When [`Port::poll`] has something to do.
    pub fn wakes(&self) -> Option<Now> {
        let stack = self.stack.as_ref().and_then(|stack| stack.wakes());
        stack.into_iter().chain(self.six.as_ref().map(Six::wakes)).min()
    }

    /// Takes a frame.
    pub fn frame(&mut self, world: &mut World, now: Now, frame: &[u8]) -> Frames {
        match self.take(world, now, frame) {
            Ok(frames) => {
                self.frames = self.frames.saturating_add(1);
                frames
            }
            Err(Refused) => {
                self.refuse();
                Vec::new()
            }
        }
    }

    fn take(&mut self, world: &mut World, now: Now, frame: &[u8]) -> Taken {
        let frame = EthernetFrame::new_checked(frame).map_err(|_| Refused)?;
        if frame.src_addr() != EthernetAddress(self.identity.mac) {
            return Err(Refused);
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.arp(frame.payload()),
            EthernetProtocol::Ipv4 => self.ip(world, now, frame.payload()),
            EthernetProtocol::Ipv6 => self.ip6(world, now, frame.payload()),
            _ => Err(Refused),
        }
    }

    fn arp(&self, bytes: &[u8]) -> Taken {
        let packet = ArpPacket::new_checked(bytes).map_err(|_| Refused)?;
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(mac),
            source_protocol_addr: from,
            target_protocol_addr: ADDRESS,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return Err(Refused);
        };
        // Without an address it may look whether anybody has ours (RFC 5227).
        if mac != self.identity.mac || from != self.identity.address && !from.is_unspecified() {
            return Err(Refused);
        }
        Ok(vec![wire::arp(mac, from)])
    }

    /// Checksums are not looked at: a guest leaves them to a NIC that is none. What is damaged on the way was damaged in this host's memory.
    fn ip(&mut self, world: &mut World, now: Now, bytes: &[u8]) -> Taken {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Refused)?;
        if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
            return Err(Refused);
        }
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        if packet.next_header() == IpProtocol::Udp {
            let datagram = UdpPacket::new_checked(packet.payload()).map_err(|_| Refused)?;
            // Whose it is stands in the message; who has another address yet must be told so.
            if datagram.dst_port() == dhcp::PORT && (to == ADDRESS || to.is_broadcast()) {
                return self.dhcp(now, datagram.payload());
            }
            if datagram.dst_port() == dns::PORT && to == ADDRESS && from == self.identity.address {
                let client = Client { port: self.identity.token, via: Via::Udp(datagram.src_port()) };
                return match dns::ask(&self.identity, world, now, client, datagram.payload()) {
                    dns::Answer::Now(bytes) => Ok(self.datagram(dns::PORT, datagram.src_port(), &bytes)),
                    dns::Answer::Later => Ok(Vec::new()),
                    dns::Answer::Nothing => Err(Refused),
                };
            }
        } else if packet.next_header() == IpProtocol::Tcp && to == ADDRESS && from == self.identity.address {
            let bytes = bytes.get(..usize::from(packet.total_len())).ok_or(Refused)?;
            return Ok(self.tcp(world, now, Some(bytes)));
        }
        Err(Refused)
    }

    fn ip6(&mut self, world: &mut World, now: Now, bytes: &[u8]) -> Taken {
        let six = self.six.as_mut().ok_or(Refused)?;
        match six.take(&self.identity, bytes).ok_or(Refused)? {
            Heard::Answered(frames) => Ok(frames),
            Heard::Question((from, port), question) => {
                let client = Client { port: self.identity.token, via: Via::Udp6(from, port) };
                match dns::ask(&self.identity, world, now, client, question) {
                    dns::Answer::Now(bytes) => Ok(self.datagram6((from, port), &bytes)),
                    dns::Answer::Later => Ok(Vec::new()),
                    dns::Answer::Nothing => Err(Refused),
                }
            }
            Heard::Segment(packet) => Ok(self.tcp(world, now, Some(packet))),
        }
    }

    fn datagram6(&self, to: (Ipv6Addr, u16), bytes: &[u8]) -> Frames {
        wire::udp6(self.identity.mac, dns::PORT, to, bytes).into_iter().collect()
    }

    fn datagram(&self, from: u16, to: u16, bytes: &[u8]) -> Frames {
        wire::udp(self.identity.mac, from, (self.identity.address, to), bytes).into_iter().collect()
    }

    fn dhcp(&mut self, now: Now, bytes: &[u8]) -> Taken {
        let outcome = dhcp::answer(&self.identity, bytes).ok_or(Refused)?;
        match outcome.change {
            Change::Nothing => {}
            Change::Left => self.leased = false,
            Change::Renewed => self.leased = true,
            Change::Taken => {
                self.leased = true;
                if self.told.is_none_or(|told| now >= told + QUIET) {
                    self.told = Some(now);
                    self.events.push(ServiceEvent::Leased(self.identity.nic));
                }
            }
        }
        let Some(reply) = outcome.reply else { return Ok(Vec::new()) };
        let (mac, to) = reply.to.map_or(([0xff; 6], Ipv4Addr::BROADCAST), |to| (self.identity.mac, to));
        Ok(wire::udp(mac, dhcp::PORT, (to, reply.port), &reply.bytes).into_iter().collect())
    }

    /// Does what must be done by now.
    pub fn poll(&mut self, world: &mut World, now: Now) -> Frames {
        let mut frames = match &mut self.six {
            Some(six) => six.poll(&self.identity, now, || (world.random)()),
            None => Vec::new(),
        };
        if self.stack.as_ref().and_then(|stack| stack.wakes()).is_some_and(|at| at <= now) {
            frames.extend(self.tcp(world, now, None));
        }
        frames
    }

    /// A resolver's answer to one of its questions.
    pub fn answer(&mut self, world: &mut World, now: Now, via: Via, bytes: &[u8]) -> Frames {
        match via {
            Via::Udp(port) => self.datagram(dns::PORT, port, bytes),
            Via::Udp6(from, port) => self.datagram6((from, port), bytes),
            Via::Tcp(connection) => match &mut self.stack {
                Some(stack) => {
                    stack.answer(connection, bytes);
                    self.tcp(world, now, None)
                }
                None => Vec::new(),
            },
        }
    }

    fn tcp(&mut self, world: &mut World, now: Now, packet: Option<&[u8]>) -> Frames {
        let mut stack = match self.stack.take() {
            Some(stack) => stack,
            None => Box::new(Stack::new(&self.identity, now, (world.random)())),
        };
        let mut home = false;
        let packets = stack.turn(&self.identity, world, self.content.as_deref(), now, packet, &mut home);
        if home && !self.home {
            self.home = true;
            self.events.push(ServiceEvent::Home(self.identity.nic));
        }
        // Who has no connection needs no memory for one.
        self.stack = (!stack.is_idle()).then_some(stack);
        let mac = self.identity.mac;
        let frame = |packet: Vec<u8>| {
            let six = packet.first().is_some_and(|first| first >> 4 == 6);
            let protocol = if six { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 };
            wire::ethernet(mac, protocol, packet.len(), |to| to.copy_from_slice(&packet))
        };
        packets.into_iter().map(frame).collect()
    }
}

/// Bytes of the largest frame of ours.
pub fn largest_frame(mtu: u16) -> usize {
    ETHERNET + usize::from(mtu)
}
