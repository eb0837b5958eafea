//! Frames that are sent: Ethernet, ARP, IPv4 with UDP.

use skep_proto::services::{ADDRESS, MAC};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::Ipv4Addr;

/// Bytes before what an Ethernet frame carries.
pub const ETHERNET: usize = 14;
/// Bytes before what UDP carries.
const UDP: usize = 28;

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
