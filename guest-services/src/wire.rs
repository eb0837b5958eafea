//! Frames that are sent: Ethernet, ARP, IPv4 with UDP, IPv6.

use skep_proto::services::{ADDRESS, ADDRESS6, MAC};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes before what an Ethernet frame carries.
pub const ETHERNET: usize = 14;
/// Bytes before what UDP carries, over IPv4 and over IPv6.
const UDP: usize = 28;
const UDP6: usize = 48;
/// Its number (IANA).
const UDP_NUMBER: u8 = 17;

/// An Ethernet frame of ours with `length` bytes, which `fill` writes.
pub fn ethernet(to: [u8; 6], protocol: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET + length];
    let repr = EthernetRepr { src_addr: EthernetAddress(MAC), dst_addr: EthernetAddress(to), ethertype: protocol };
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    repr.emit(&mut frame);
    fill(frame.payload_mut());
    bytes
}

/// Says to `mac` that the address is ours.
pub fn arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(MAC),
        source_protocol_addr: ADDRESS,
        target_hardware_addr: EthernetAddress(mac),
        target_protocol_addr: ip,
    };
    ethernet(mac, EthernetProtocol::Arp, repr.buffer_len(), |bytes| repr.emit(&mut ArpPacket::new_unchecked(bytes)))
}

/// A datagram of ours. `None`: it is larger than a datagram can be.
pub fn udp(mac: [u8; 6], from: u16, to: (Ipv4Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: from, dst_port: to.1 };
    let ip = Ipv4Repr {
        src_addr: ADDRESS,
        dst_addr: to.0,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    u16::try_from(UDP + payload.len()).ok()?;
    let fill = |bytes: &mut [u8]| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        ip.emit(&mut packet, &checksums);
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        udp.emit(&mut datagram, &from, &to, payload.len(), |bytes| bytes.copy_from_slice(payload), &checksums);
    };
    Some(ethernet(mac, EthernetProtocol::Ipv4, UDP + payload.len(), fill))
}

/// Bytes that fit into a datagram within so large a packet.
pub fn udp_room(mtu: u16) -> usize {
    usize::from(mtu).saturating_sub(UDP)
}

/// The same over IPv6.
pub fn udp_room6(mtu: u16) -> usize {
    usize::from(mtu).saturating_sub(UDP6)
}

/// A packet of IPv6, without headers between its own and what it carries.
#[derive(Debug, Clone, Copy)]
pub struct Packet6<'a> {
    /// From whom.
    pub from: Ipv6Addr,
    /// To whom.
    pub to: Ipv6Addr,
    /// Number of what it carries, or of a header before that.
    pub next: u8,
    /// Hops that it may still make.
    pub hops: u8,
    /// What it carries.
    pub payload: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

impl<'a> Packet6<'a> {
    /// Reads what an Ethernet frame carries; what stands behind the packet is padding.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[first, _, _, _, high, low, next, hops], rest) = bytes.split_first_chunk::<8>()?;
        let (from, rest) = rest.split_first_chunk::<16>()?;
        let (to, rest) = rest.split_first_chunk::<16>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (payload, whole) = (rest.get(..length)?, bytes.get(..HEADER6 + length)?);
        (first >> 4 == 6).then_some(Self { from: (*from).into(), to: (*to).into(), next, hops, payload, whole })
    }
}

/// Bytes of its header.
const HEADER6: usize = 40;

/// A frame with such a packet of ours.
pub fn packet6(mac: [u8; 6], to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    // None of ours is longer than the MTU of its switch.
    let length = u16::try_from(payload.len()).unwrap_or(0);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(ADDRESS6.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    ethernet(mac, EthernetProtocol::Ipv6, packet.len(), |bytes| bytes.copy_from_slice(&packet))
}

/// Writes the checksum of what such a packet carries, at this place (RFC 8200, 8.1).
pub fn seal(payload: &mut [u8], at: usize, to: Ipv6Addr, next: u8) {
    let pairs = |bytes: &[u8]| bytes.chunks(2).map(|pair| u64::from(word(pair))).sum::<u64>();
    let mut sum = pairs(&ADDRESS6.octets()) + pairs(&to.octets()) + payload.len() as u64 + u64::from(next) + pairs(payload);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Of UDP it would say that there is none.
    let sum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
    if let Some(place) = payload.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

fn word(pair: &[u8]) -> u16 {
    match *pair {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    }
}

/// A datagram of ours over IPv6. `None`: it is larger than a datagram can be.
pub fn udp6(mac: [u8; 6], from: u16, to: (Ipv6Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).ok()?;
    let mut datagram = [from.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    datagram.extend(payload);
    seal(&mut datagram, 6, to.0, UDP_NUMBER);
    Some(packet6(mac, to.0, UDP_NUMBER, 64, &datagram))
}
