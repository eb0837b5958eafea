//! Frames as a hostile guest makes them, and a look at all that goes over the host's interfaces (Linux). Written by hand: nothing of what
//! is tested helps.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt::RcvBufForce,
};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A hardware address.
pub type Mac = [u8; 6];
/// Everybody's.
pub const EVERYBODY: Mac = [0xff; 6];
/// Types of Ethernet frames.
pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const VLAN: u16 = 0x8100;
pub const IPV6: u16 = 0x86dd;

/// Somebody on a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Its hardware address.
    pub mac: Mac,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// As text.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// From text.
pub fn mac(text: &str) -> Result<Mac> {
    let bytes: Vec<u8> = text.trim().split(':').map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("six bytes")
}

/// An Ethernet frame.
pub fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// The same frame with a VLAN's tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &VLAN.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet. `fragment`: flags and offset.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let mut header =
        [&[0x45, 0, length[0], length[1], 0, 7, high, low, 64, protocol, 0, 0][..], &from.octets(), &to.octets()].concat();
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    [&header, payload].concat()
}

/// A datagram, without a checksum: IPv4 allows it.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// A frame with a datagram.
pub fn datagram(from: Who, to: Who, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ethernet(from.mac, to.mac, IPV4, &ipv4(from.ip, to.ip, 17, 0, &udp(ports.0, ports.1, payload)))
}

/// A segment of TCP with these flags and length of its header in words, without a checksum.
pub fn tcp(from: u16, to: u16, flags: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags, 2, 0, 0, 0, 0, 0], payload].concat()
}

/// An IPv6 packet with the most hops, in a frame from one hardware address to another; what is carried follows another header, or none.
pub fn packet6(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, next: u8, carried: &[u8]) -> Vec<u8> {
    let length = u16::try_from(carried.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x60, 0, 0, 0, length[0], length[1], next, 255][..], &from.octets(), &to.octets()].concat();
    ethernet(macs.0, macs.1, IPV6, &[&header, carried].concat())
}

/// A message of ICMPv6 with its checksum.
pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let head = [&from.octets()[..], &to.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &message].concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = head.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// What an ARP message says: `from` asks for, or tells, `to`.
pub fn arp(answer: bool, from: Who, to: Who) -> Vec<u8> {
    let head = [0, 1, 0x08, 0, 6, 4, 0, 1 + u8::from(answer)];
    [&head[..], &from.mac, &from.ip.octets(), &to.mac, &to.ip.octets()].concat()
}

/// A message of DHCP: its kind, hardware address and address of whom it claims to be from, an address given, further options.
pub fn dhcp(kind: u8, claims: Who, yours: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    // An offer and an acknowledgement are a server's.
    let op = if matches!(kind, 2 | 5 | 6) { 2 } else { 1 };
    let mut bytes = vec![op, 1, 6, 0, 0x5b, 0xe9, 0, kind, 0, 0, 0x80, 0];
    bytes.extend(claims.ip.octets());
    bytes.extend(yours.octets());
    bytes.extend([0; 8]);
    bytes.extend(claims.mac);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Bytes that are the same in each run, and look like none in particular.
pub struct Noise(u64);

impl Noise {
    /// Begins.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
    /// The next so many.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
    /// A number below this one.
    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
    fn next(&mut self) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}

/// A frame that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Index of the interface.
    pub index: usize,
    /// It went out there; of a tap: to its guest.
    pub out: bool,
    /// Its beginning.
    pub frame: Vec<u8>,
}

impl Seen {
    /// Whether these bytes are in it.
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.frame.windows(bytes.len()).any(|window| window == bytes)
    }
    /// Who sent it.
    pub fn sender(&self) -> String {
        let mac = self.frame.get(6..12).and_then(|mac| mac.try_into().ok());
        mac.map(text).unwrap_or_default()
    }
    /// The kind of a message of neighbour discovery, and its first address, if it has one.
    pub fn discovery(&self) -> Option<(u8, Option<Ipv6Addr>)> {
        let is = self.frame.get(12..14)? == IPV6.to_be_bytes() && *self.frame.get(20)? == 58;
        let target = self.frame.get(62..78).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        is.then(|| Some((*self.frame.get(54)?, target.map(Ipv6Addr::from)))).flatten()
    }
    /// The payload of a datagram from this port.
    pub fn datagram_from(&self, port: u16) -> Option<&[u8]> {
        let ip = self.frame.get(14..)?;
        let is = self.frame[12..14] == IPV4.to_be_bytes() && *ip.get(9)? == 17;
        let udp = ip.get(usize::from(ip[0] & 15) * 4..)?;
        (is && udp.get(..2)? == port.to_be_bytes()).then(|| udp.get(8..)).flatten()
    }
}

/// A capture of what goes over all of the host's interfaces.
pub struct Capture(OwnedFd);

impl Capture {
    /// From now on.
    pub fn begin() -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&socket.as_fd(), RcvBufForce, &(256 << 20))?;
        Ok(Self(socket))
    }

    /// The next frame, if there is one already.
    fn next(&self, buffer: &mut [u8]) -> Result<Option<Seen>> {
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), buffer) {
                Ok((got, Some(from))) => {
                    /// `PACKET_OUTGOING` (linux/if_packet.h).
                    const OUTGOING: u8 = 4;
                    let frame = buffer[..got].to_vec();
                    return Ok(Some(Seen { index: from.ifindex(), out: from.pkttype() == OUTGOING, frame }));
                }
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The frames until now.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let mut buffer = vec![0; 1 << 17];
        std::iter::from_fn(|| self.next(&mut buffer).transpose()).collect()
    }

    /// The frames until the first one that is meant, with it.
    pub fn until(&self, meant: impl Fn(&Seen) -> bool) -> Result<Vec<Seen>> {
        let (mut all, mut buffer): (Vec<Seen>, _) = (Vec::new(), vec![0; 1 << 17]);
        loop {
            let Some(seen) = self.next(&mut buffer)? else {
                let mut set = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(crate::PATIENCE.parse::<i32>()? * 1000)?;
                ensure!(poll(&mut set, patience)? == 1, "what was waited for was not seen, but {} frames", all.len());
                continue;
            };
            let done = meant(&seen);
            all.push(seen);
            if done {
                return Ok(all);
            }
        }
    }

    /// Of the frames until now over one of these interfaces, who sent them.
    pub fn senders(&self, interfaces: &[&str]) -> Result<BTreeSet<String>> {
        let indices = interfaces.iter().map(|name| index(name)).collect::<Result<Vec<_>>>()?;
        Ok(self.seen()?.iter().filter(|seen| indices.contains(&seen.index)).map(Seen::sender).collect())
    }
}

/// The index of an interface.
pub fn index(name: &str) -> Result<usize> {
    Ok(nix::net::if_::if_nametoindex(name).with_context(|| name.to_owned())? as usize)
}
