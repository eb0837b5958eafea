//! A port and its switch; frames written and read by hand: nothing of what is tested helps.
#![allow(dead_code)]

use skep_guest_services::{Identity, Names, Port, World};
use skep_proto::services::{ADDRESS, AddPort, Document, MAC, Subnet};
use skep_proto::{MachineId, NicId, Text};
use std::net::Ipv4Addr;
use std::time::Duration;

pub const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

pub const NIC: NicId = NicId::from_u128(5);
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 7);
pub const US: Ipv4Addr = ADDRESS;
pub const AT: Duration = Duration::from_secs(1);

pub fn added() -> AddPort {
    AddPort {
        nic: NIC,
        machine: MachineId::from_u128(9),
        mac: GUEST,
        address: OWN,
        host: Text::lossy("Web1"),
        subnet: Subnet {
            prefix: 24,
            router: Some("10.90.0.1".parse().unwrap()),
            domain: Text::lossy("lan"),
            mtu: 1500,
            v6: None,
        },
        document: false,
    }
}

pub fn port() -> Port {
    let document = Document {
        instance: Text::lossy("i-0123"),
        host: Text::lossy("web1"),
        keys: vec!["ssh-ed25519 AAAA me".into(), "ssh-rsa BBBB \"you\"".into()],
        user_data: vec![b'u'; 100_000],
        vendor_data: b"#cloud-config\n".to_vec(),
        network: "version: 2\n".into(),
    };
    Port::new(Identity::new(16, added()).unwrap(), Some(document))
}

pub fn world() -> World {
    let mut n = 0x1234_5678_9abc_def0u64;
    let random = move || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n.rotate_left(29)
    };
    let mut world = World::new(Box::new(random));
    let hosts = [("web1", OWN), ("db_2", "10.90.0.8".parse().unwrap()), ("db_2", "10.90.0.9".parse().unwrap())];
    world.names = Names::new(hosts.into_iter());
    world
}

/// What one frame gets.
pub fn one(port: &mut Port, world: &mut World, frame: &[u8]) -> Vec<u8> {
    let mut all = port.frame(world, AT, frame);
    assert_eq!(all.len(), 1, "{all:02x?}");
    all.remove(0)
}

pub fn refused(port: &mut Port, world: &mut World, frame: &[u8]) {
    let before = (port.frames, port.refused);
    assert!(port.frame(world, AT, frame).is_empty());
    assert_eq!((port.frames, port.refused), (before.0, before.1 + 1));
}

/// A question of DNS.
pub fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = hex("abcd 0100 0001 0000 0000 0000");
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub fn ethernet(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &GUEST, &kind.to_be_bytes(), payload].concat()
}

pub fn arp(mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let payload = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &from.octets(), &[0; 6], &to.octets()].concat();
    let mut frame = ethernet([0xff; 6], 0x0806, &payload);
    frame[6..12].copy_from_slice(&mac);
    frame
}

pub fn sum(parts: &[&[u8]]) -> u16 {
    let all = parts.concat();
    let words = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub fn ip(to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, protocol, 0, 0], &from.octets(), &to.octets()].concat();
    let sum = sum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(to_mac, 0x0800, &[&header, payload].concat())
}

pub fn udp(to_mac: [u8; 6], from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let header = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    ip(to_mac, from.0, to.0, 17, &[&header, payload].concat())
}

pub fn payload(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// Checks a packet of ours, checksums included: protocol, source, destination, what it carries.
fn packet(frame: &[u8]) -> (u8, Ipv4Addr, Ipv4Addr, &[u8]) {
    assert_eq!(frame[6..14], [&MAC[..], &[8, 0]].concat());
    let bytes = payload(frame);
    assert_eq!((bytes[0], sum(&[&bytes[..20]])), (0x45, 0));
    assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let carried = &bytes[20..];
    let length = (carried.len() as u16).to_be_bytes();
    assert_eq!(sum(&[&bytes[12..20], &[0, bytes[9]], &length, carried]), 0, "checksum");
    (bytes[9], address(12), address(16), carried)
}

/// A datagram of ours.
pub fn datagram(frame: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16), &[u8]) {
    let (17, from, to, bytes) = packet(frame) else { panic!("no UDP") };
    assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])), bytes.len());
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    ((from, number(0)), (to, number(2)), &bytes[8..])
}

/// The client's side of a connection. What it sends has no checksum.
pub struct Tcp {
    ports: (u16, u16),
    next: u32,
    expected: u32,
    pub received: Vec<u8>,
    pub closed: bool,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Tcp {
    fn segment(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend(self.next.to_be_bytes());
        bytes.extend(self.expected.to_be_bytes());
        bytes.extend([0x50, flags, 0xff, 0xff, 0xaa, 0xbb, 0, 0]);
        bytes.extend(payload);
        ip([0x52, 0x54, 0, 0xff, 0xff, 1], OWN, ADDRESS, 6, &bytes)
    }

    /// Sends the first segment; none: it was refused.
    pub fn syn(port: &mut Port, world: &mut World, now: Duration, from: u16, to: u16) -> Option<Self> {
        let mut tcp = Self { ports: (from, to), next: 0xffff_fff0, expected: 0, received: Vec::new(), closed: false };
        let answer = port.frame(world, now, &tcp.segment(SYN, &[]));
        let [answer] = &answer[..] else { panic!("{answer:02x?}") };
        let (6, _, _, bytes) = packet(answer) else { panic!("no TCP") };
        tcp.next = tcp.next.wrapping_add(1);
        assert_eq!(bytes[8..12], tcp.next.to_be_bytes());
        tcp.expected = u32::from_be_bytes(bytes[4..8].try_into().unwrap()).wrapping_add(1);
        (bytes[13] == SYN | ACK).then_some(tcp)
    }

    pub fn connect(port: &mut Port, world: &mut World, now: Duration, from: u16, to: u16) -> Self {
        let tcp = Self::syn(port, world, now, from, to).expect("it is accepted");
        assert!(port.frame(world, now, &tcp.segment(ACK, &[])).is_empty());
        tcp
    }

    pub fn send(&mut self, port: &mut Port, world: &mut World, now: Duration, bytes: &[u8]) {
        for piece in bytes.chunks(3000) {
            let frames = port.frame(world, now, &self.segment(ACK | 8, piece));
            self.next = self.next.wrapping_add(piece.len() as u32);
            self.take(port, world, now, frames);
        }
    }

    /// Takes frames, and acknowledges until nothing more comes.
    pub fn take(&mut self, port: &mut Port, world: &mut World, now: Duration, mut frames: Vec<Vec<u8>>) {
        while !frames.is_empty() {
            let mut more = false;
            for frame in &frames {
                assert!(frame.len() <= 1514, "{} bytes", frame.len());
                let (6, _, _, bytes) = packet(frame) else { panic!("no TCP") };
                let flags = bytes[13];
                if flags & RST != 0 {
                    self.closed = true;
                    return;
                }
                assert_eq!(bytes[4..8], self.expected.to_be_bytes());
                let data = &bytes[usize::from(bytes[12] >> 4) * 4..];
                self.received.extend(data);
                self.expected = self.expected.wrapping_add(data.len() as u32 + u32::from(flags & FIN));
                self.closed |= flags & FIN != 0;
                more |= !data.is_empty() || flags & FIN != 0;
            }
            if !more {
                return;
            }
            frames = port.frame(world, now, &self.segment(ACK, &[]));
        }
    }

    /// Closes this side once the other has closed, too: all that was said.
    pub fn drain(mut self, port: &mut Port, world: &mut World, now: Duration) -> Vec<u8> {
        assert!(self.closed, "it goes on");
        let frames = port.frame(world, now, &self.segment(FIN | ACK, &[]));
        self.next = self.next.wrapping_add(1);
        self.take(port, world, now, frames);
        self.received
    }
}
