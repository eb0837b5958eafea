//! What a guest sends: frames of all kinds, and what stands in those that reach a parser.

use skep_guest_services::{Identity, Names, Port, World};
use skep_proto::services::{ADDRESS, ADDRESS6, AddPort, Document, MAC, Subnet};
use skep_proto::{MachineId, NicId, Subnet6, Text, link_local};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 7);

/// Bytes as a list of events: a kind, a length of two bytes, as many bytes.
pub fn guest(bytes: &[u8]) {
    let mut scene = Scene::new();
    let mut rest = bytes;
    while let Some((&[kind, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (what, next) = after.split_at(length);
        scene.event(kind, what);
        rest = next;
    }
    scene.end();
}

/// One kind of event, as [`guest`] reads it.
pub fn event(kind: u8, what: &[u8]) -> Vec<u8> {
    let length = u16::try_from(what.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind], &length[..], what].concat()
}

struct Scene {
    port: Port,
    world: World,
    now: Duration,
    /// Sequence numbers of the two connections, to HTTP and DNS.
    tcp: [Option<(u32, u32)>; 2],
    asked: Vec<u8>,
}

fn packet(to: Ipv4Addr, from: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let ip = [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, protocol, 0, 0], &from.octets(), &to.octets(), payload].concat();
    [&MAC[..], &GUEST, &[8, 0], &ip].concat()
}

fn udp(to: (Ipv4Addr, u16), from: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let header = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    packet(to.0, from.0, 17, &[&header, payload].concat())
}

fn net6() -> Subnet6 {
    Subnet6::drawn(0x1234_5678_9abc_def0)
}

/// A packet of IPv6: what it carries, between whom, and then that.
fn packet6(what: &[u8]) -> Vec<u8> {
    let (&[next, who], carried) = what.split_first_chunk::<2>().unwrap_or((&[58, 0], &[]));
    let own = net6().of(GUEST);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let from = [link_local(GUEST), own, Ipv6Addr::UNSPECIFIED, ADDRESS6];
    let to = [all, ADDRESS6, own, net6().gateway()];
    let pick = |from: [Ipv6Addr; 4], which: u8| from.get(usize::from(which % 4)).copied().unwrap_or(own);
    let length = u16::try_from(carried.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next, 255]].concat();
    let addresses = [pick(from, who).octets(), pick(to, who / 4).octets()].concat();
    [&MAC[..], &GUEST, &[0x86, 0xdd], &header, &addresses, carried].concat()
}

impl Scene {
    fn new() -> Self {
        let subnet = Subnet {
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 90, 0, 1)),
            domain: Text::lossy("lan"),
            mtu: 1500,
            v6: Some(net6()),
        };
        let (nic, machine, host) = (NicId::from_u128(5), MachineId::from_u128(9), Text::lossy("web1"));
        let added = AddPort { nic, machine, mac: GUEST, address: OWN, host, subnet, document: true };
        let document = Document {
            instance: Text::lossy("i-0123"),
            host: Text::lossy("web1"),
            keys: vec!["ssh-ed25519 AAAA me".into()],
            user_data: vec![b'u'; 5000],
            vendor_data: Vec::new(),
            network: "version: 2\n".into(),
        };
        let mut n = 0u64;
        let mut world = World::new(Box::new(move || {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            n.rotate_left(29)
        }));
        world.names = Names::new([("web1", OWN)].into_iter());
        world.forwarder.set_resolvers(2);
        let identity = Identity::new(16, added).expect("a good port");
        Self { port: Port::new(identity, Some(document)), world, now: Duration::ZERO, tcp: [None; 2], asked: Vec::new() }
    }

    fn event(&mut self, kind: u8, what: &[u8]) {
        match kind % 10 {
            0 => drop(self.frame(what)),
            1 => {
                let mut frame = what.to_vec();
                frame.resize(frame.len().max(14), 0);
                frame.splice(6..12, GUEST);
                self.frame(&frame);
            }
            2 => drop(self.frame(&udp((Ipv4Addr::BROADCAST, 67), (Ipv4Addr::UNSPECIFIED, 68), what))),
            3 => drop(self.frame(&udp((ADDRESS, 53), (OWN, 4000), what))),
            4 => self.say(0, 80, what),
            5 => self.say(1, 53, what),
            6 => {
                // What a resolver says, to the last question.
                let mut answer = what.to_vec();
                if let (Some(to), Some(from)) = (answer.get_mut(..2), self.asked.get(..2)) {
                    to.copy_from_slice(from);
                }
                if let Some((client, bytes)) = self.world.forwarder.reply(&answer) {
                    let frames = self.port.answer(&mut self.world, self.now, client.via, &bytes);
                    self.check(&frames);
                }
            }
            8 => drop(self.frame(&packet6(what))),
            9 => {
                let length = u16::try_from(8 + what.len()).unwrap_or(u16::MAX).to_be_bytes();
                let datagram = [&[17, 4, 9, 9, 0, 53][..], &length, &[0, 0], what].concat();
                drop(self.frame(&packet6(&datagram)));
            }
            _ => {
                self.now += Duration::from_millis(what.len() as u64 * 100);
                self.pass();
            }
        }
        if let Some((_, query)) = self.world.forwarder.outgoing().pop() {
            self.asked = query;
        }
    }

    fn frame(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let frames = self.port.frame(&mut self.world, self.now, frame);
        self.check(&frames);
        frames
    }

    fn check(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            assert!(frame.len() <= 1514, "{} bytes", frame.len());
            assert_eq!(frame.get(6..12), Some(&MAC[..]));
            assert!([&GUEST[..], &[0xff; 6]].contains(&frame.get(..6).expect("a frame")));
        }
    }

    /// Says it on a connection, which is made first.
    fn say(&mut self, which: usize, port: u16, what: &[u8]) {
        let segment = |flags: u8, sequence: u32, acknowledged: u32, payload: &[u8]| {
            let ports = [(40_000 + which as u16).to_be_bytes(), port.to_be_bytes()].concat();
            let numbers = [sequence.to_be_bytes(), acknowledged.to_be_bytes()].concat();
            packet(ADDRESS, OWN, 6, &[&ports, &numbers, &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0][..], payload].concat())
        };
        let known = self.tcp.get(which).copied().flatten();
        let (sequence, acknowledged) = known.unwrap_or_else(|| {
            let answer = self.frame(&segment(2, 99, 0, &[]));
            let number = answer.first().and_then(|frame| frame.get(38..42)?.try_into().ok()).map_or(0, u32::from_be_bytes);
            self.frame(&segment(16, 100, number.wrapping_add(1), &[]));
            (100, number.wrapping_add(1))
        });
        let answers = self.frame(&segment(24, sequence, acknowledged, what));
        let mut acknowledged = acknowledged;
        for answer in &answers {
            let header = answer.get(46).map_or(0, |byte| usize::from(byte >> 4) * 4);
            acknowledged = acknowledged.wrapping_add(answer.len().saturating_sub(34 + header) as u32);
        }
        let sequence = sequence.wrapping_add(what.len() as u32);
        self.frame(&segment(16, sequence, acknowledged, &[]));
        if let Some(slot) = self.tcp.get_mut(which) {
            *slot = Some((sequence, acknowledged));
        }
    }

    fn pass(&mut self) {
        let frames = self.port.poll(&mut self.world, self.now);
        self.check(&frames);
        for (client, bytes) in self.world.forwarder.poll(self.now) {
            let frames = self.port.answer(&mut self.world, self.now, client.via, &bytes);
            self.check(&frames);
        }
    }

    /// However it went, in the end nothing is left to be done but what is told now and then.
    fn end(&mut self) {
        for _ in 0..10_000 {
            let Some(at) = self.port.wakes().into_iter().chain(self.world.forwarder.wakes()).min() else { return };
            if at > self.now + Duration::from_secs(100) {
                return;
            }
            self.now = self.now.max(at);
            self.pass();
            self.world.forwarder.outgoing();
        }
        panic!("it never ends: {:?}", self.port);
    }
}
