//! IPv6 on a switch: who may send what. A guest has two addresses, both made of his hardware address, so that nobody has to learn which
//! are his; and he is no router.
//!
//! What stands between IPv6's header and what it carries could hide any of this from a filter (RFC 7113), so that nothing may stand there
//! but a fragment's header before UDP.
//!
//! One list, of which both filters are made: rules of nf_tables (Linux, by net-helper), and steps of bpf (FreeBSD, [`steps`]).

use super::{AND, BYTE, HALF, IF_EQUAL, RETURN, Step, WHOLE, WORD, step, test};
use std::net::Ipv6Addr;

/// Type of Ethernet frames.
pub const ETHERTYPE: u16 = 0x86dd;
/// Numbers of protocols (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
/// ICMPv6.
pub const ICMP: u8 = 58;
/// Messages of ICMPv6 (RFC 4443, RFC 4861).
const ERRORS: [u8; 4] = [1, 2, 3, 4];
/// Of an echo its question, and its answer.
pub const ECHOES: [u8; 2] = [128, 129];
/// A router's word.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// A neighbour's question.
pub const QUESTION: u8 = 135;
/// A neighbour's answer.
pub const ANSWER: u8 = 136;
/// A router's word of another router.
pub const REDIRECT: u8 = 137;
/// Options of a question and of an answer that say a hardware address.
const SENDER: u8 = 1;
const TARGET: u8 = 2;
/// Places in the header, and what stands right behind it.
const LENGTH: u8 = 4;
const NEXT: u8 = 6;
const SOURCE: u8 = 8;
const CARRIED: u8 = 40;
const CARRIED_TARGET: u8 = CARRIED + 8;
const CARRIED_OPTION: u8 = CARRIED + 24;
const IN_FRAGMENT: u8 = CARRIED + 8;
/// Ports of DHCPv6's clients and servers.
const CLIENTS: u16 = 546;
const SERVERS: u16 = 547;

/// A look at some bytes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Where they begin, counted from the IPv6 header's first byte.
    pub at: u8,
    /// Of four bytes these bits alone are looked at.
    pub mask: Option<[u8; 4]>,
    /// What they are compared with: as many bytes as these.
    pub value: Vec<u8>,
    /// Whether they must be the same, or must not.
    pub equal: bool,
}

/// What happens to a packet of IPv6 at which every look is right; the first line of a list that fits decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The looks.
    pub looks: Vec<Look>,
    /// It comes to the switch, or it does not.
    pub passes: bool,
}

impl Line {
    fn look(mut self, at: u8, value: &[u8], equal: bool) -> Self {
        self.looks.push(Look { at, mask: None, value: value.to_vec(), equal });
        self
    }
    fn with(self, at: u8, value: &[u8]) -> Self {
        self.look(at, value, true)
    }
    fn without(self, at: u8, address: Ipv6Addr) -> Self {
        self.look(at, &address.octets(), false)
    }
    fn passes(self) -> Self {
        Self { passes: true, ..self }
    }
}

fn carries(next: u8) -> Line {
    Line::default().with(NEXT, &[next])
}

fn says(kind: u8) -> Line {
    carries(ICMP).with(CARRIED, &[kind])
}

/// What of the IPv6 of a guest with this hardware address and these addresses, on the network and on the link, comes to his switch; what
/// is left over does not.
pub fn sent(mac: [u8; 6], [here, link]: [Ipv6Addr; 2]) -> Vec<Line> {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let looks = |target: Ipv6Addr| says(QUESTION).with(SOURCE, &nobody.octets()).with(CARRIED_TARGET, &target.octets());
    // The whole of a datagram, or the first of its fragments: no later one reaches the ports.
    let first = || {
        let mut fragment = carries(FRAGMENT).with(CARRIED, &[UDP, 0, 0, 0]);
        fragment.looks.iter_mut().filter(|look| look.at == CARRIED).for_each(|look| look.mask = Some([0xff, 0, 0xff, 0xf8]));
        fragment
    };
    let ports = |(at, port): (u8, u16)| {
        let port = port.to_be_bytes();
        [carries(UDP).with(CARRIED + at, &port), first().with(IN_FRAGMENT + at, &port)]
    };
    let mut lines = vec![
        Line::default().without(SOURCE, here).without(SOURCE, link).without(SOURCE, nobody),
        // Without an address yet he looks whether anybody has his; a look for another's would make him give it up.
        looks(here).passes(),
        looks(link).passes(),
        Line::default().with(SOURCE, &nobody.octets()),
        carries(TCP).passes(),
    ];
    // No DHCP, as of IPv4: nobody serves it.
    lines.extend([(0, SERVERS), (2, SERVERS), (2, CLIENTS)].into_iter().flat_map(ports));
    lines.push(carries(UDP).passes());
    lines.push(carries(FRAGMENT).with(CARRIED, &[UDP]).passes());
    lines.extend(ERRORS.into_iter().chain(ECHOES).map(|kind| says(kind).passes()));
    // He answers for himself, and says nobody's hardware address but his own: there is that option alone, or none.
    lines.push(says(ANSWER).without(CARRIED_TARGET, here).without(CARRIED_TARGET, link));
    for (kind, option) in [(QUESTION, SENDER), (ANSWER, TARGET)] {
        let address = [&[option, 1][..], &mac].concat();
        lines.push(says(kind).with(LENGTH, &24u16.to_be_bytes()).passes());
        lines.push(says(kind).with(LENGTH, &32u16.to_be_bytes()).with(CARRIED_OPTION, &address).passes());
    }
    lines
}

/// The same as steps of bpf, which know nothing yet of a whole Ethernet frame of this type. A frame that ends before what is to be looked
/// at does not pass.
pub(super) fn steps(lines: &[Line]) -> Vec<Step> {
    let mut all: Vec<Step> = lines.iter().flat_map(line).collect();
    all.push(step(RETURN, 0));
    all
}

/// A comparison under way, which leads on, to the next look, or to the next line.
#[derive(Clone, Copy)]
enum To {
    Next,
    Look(usize),
    Line,
}

fn line(line: &Line) -> Vec<Step> {
    const HEADER: u32 = 14;
    let mut placed: Vec<(usize, Step, To, To)> = Vec::new();
    for (number, look) in line.looks.iter().enumerate() {
        let (mut at, mut rest) = (HEADER + u32::from(look.at), look.value.as_slice());
        while !rest.is_empty() {
            let (code, size) = match rest.len() {
                4.. => (WORD, 4),
                2.. => (HALF, 2),
                _ => (BYTE, 1),
            };
            let (value, later) = rest.split_at(size);
            let value = value.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
            placed.push((number, step(code, at), To::Next, To::Next));
            if let Some(mask) = look.mask {
                placed.push((number, step(AND, u32::from_be_bytes(mask)), To::Next, To::Next));
            }
            let (same, other) = match (look.equal, later.is_empty()) {
                (true, _) => (To::Next, To::Line),
                // Other bytes in one place are enough.
                (false, false) => (To::Next, To::Look(number + 1)),
                (false, true) => (To::Line, To::Next),
            };
            placed.push((number, step(IF_EQUAL, value), same, other));
            (at, rest) = (at + size as u32, later);
        }
    }
    // Each line has some dozens of steps, and leads forward.
    let skipped = |from: usize, to: To| {
        let found = match to {
            To::Next => from + 1,
            To::Look(number) => placed.iter().position(|(of, ..)| *of == number).unwrap_or(placed.len()),
            To::Line => placed.len() + 1,
        };
        u8::try_from(found.saturating_sub(from + 1)).unwrap_or(u8::MAX)
    };
    let steps = placed.iter().enumerate().map(|(from, (_, step, same, other))| {
        let jumps = step.code == IF_EQUAL;
        let leads = |to: To| if jumps { skipped(from, to) } else { 0 };
        test(step.code, step.k, leads(*same), leads(*other))
    });
    steps.chain([step(RETURN, if line.passes { WHOLE } else { 0 })]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
    const OWN: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfd12, 0, 0, 1, 0, 0xff, 0xfe00, 0x22), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0x22)];

    /// What a list says of a packet: nf_tables' way, where a look beyond the end is never right.
    fn decided(lines: &[Line], packet: &[u8]) -> bool {
        let right = |look: &Look| {
            let Some(found) = packet.get(usize::from(look.at)..usize::from(look.at) + look.value.len()) else { return false };
            let mask = look.mask.map_or(vec![0xff; found.len()], Vec::from);
            let found: Vec<u8> = found.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
            (found == look.value) == look.equal
        };
        lines.iter().find(|line| line.looks.iter().all(right)).is_some_and(|line| line.passes)
    }

    fn packet(from: Ipv6Addr, next: u8, carried: &[u8]) -> Vec<u8> {
        let length = (carried.len() as u16).to_be_bytes();
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        [&[0x60, 0, 0, 0][..], &length, &[next, 255], &from.octets(), &to.octets(), carried].concat()
    }

    /// Of every packet both ways of reading the list say the same, with each of its bytes as it is and otherwise.
    #[test]
    fn steps_say_what_the_list_says() {
        let lines = sent(MAC, OWN);
        let program = steps(&lines);
        assert!(program.len() < 480, "{} steps; the kernel takes 512, and IPv4 needs some, too", program.len());
        let message =
            |kind: u8, target: Ipv6Addr, option: &[u8]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), option].concat();
        let own = [&[2, 1][..], &MAC].concat();
        let mut packets = Vec::new();
        for from in [OWN[0], OWN[1], Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
            for kind in [1, 128, 129, 130, 133, 134, 135, 136, 137] {
                for target in OWN {
                    packets.push(packet(from, ICMP, &message(kind, target, &[])));
                    packets.push(packet(from, ICMP, &message(kind, target, &own)));
                    packets.push(packet(from, ICMP, &message(kind, target, &[&[1, 1][..], &MAC].concat())));
                }
            }
            for next in [0, TCP, UDP, 43, FRAGMENT, 60] {
                for ports in [[0, 7, 0, 7], [0, 7, 2, 34], [2, 35, 0, 7]] {
                    packets.push(packet(from, next, &[&ports[..], &[0; 16]].concat()));
                    packets.push(packet(from, next, &[&[UDP, 0, 0, 1, 0, 0, 0, 9][..], &ports, &[0; 8]].concat()));
                }
            }
        }
        let (mut passed, mut all) = (0, 0);
        for packet in packets {
            for at in 0..=packet.len() {
                let mut packet = packet.clone();
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= 0x41;
                }
                let frame = [&[0; 14][..], &packet].concat();
                let said = run(&program, &frame) == Some(WHOLE);
                assert_eq!(said, decided(&lines, &packet), "{packet:02x?}");
                (passed, all) = (passed + u32::from(said), all + 1);
            }
            // Cut, nothing passes that would not whole.
            for end in 0..packet.len() {
                let frame = [&[0; 14][..], &packet[..end]].concat();
                assert!(run(&program, &frame) != Some(WHOLE) || decided(&lines, &packet[..end]));
            }
        }
        assert!(passed > 1000 && all - passed > 1000, "{passed} of {all} pass");
    }
}
