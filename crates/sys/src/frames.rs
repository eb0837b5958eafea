//! Filters of frames (bpf(4), socket(7) `SO_ATTACH_FILTER`): what of a NIC's traffic reaches guest-services, and what it may send.

pub mod six;

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where guests find their services.
pub const ADDRESS: u32 = 0xa9fe_a9fe;
/// The hardware address that it has there.
pub const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x45, 0x50, 0x01];

/// The address of the same services on switches with an IPv6 network: the link-local one of [`MAC`].
pub const ADDRESS6: [u32; 4] = [0xfe80_0000, 0, 0x0053_4bff, 0xfe45_5001];

/// One instruction: code, steps if true, steps if false, constant. The same on both systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Step {
    /// As the kernel has it in memory.
    pub fn bytes(&self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [a, b, self.if_true, self.if_false, c, d, e, f]
    }
}

const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
/// A half word beyond the register X.
const HALF_AT_X: u16 = 0x48;
/// X is four times the low half of a byte: the length of an IPv4 header.
const HEADER_TO_X: u16 = 0xb1;
const IF_EQUAL: u16 = 0x15;
const IF_ANY_BIT: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// As many bytes as any frame has.
const WHOLE: u32 = 0x4_0000;

const fn step(code: u16, k: u32) -> Step {
    Step { code, if_true: 0, if_false: 0, k }
}

const fn test(code: u16, k: u32, if_true: u8, if_false: u8) -> Step {
    Step { code, if_true, if_false, k }
}

/// ARP that asks for the address, IPv4 to it, and UDP to DHCP's port of servers wherever it is sent. Frames with a VLAN's tag have
/// another type; where the kernel keeps tags elsewhere (Linux), [`crate::linux::packet`] refuses them before.
pub const FROM_GUEST: [Step; 16] = [
    step(HALF, 12),
    test(IF_EQUAL, 0x0806, 0, 2),
    step(WORD, 38),
    test(IF_EQUAL, ADDRESS, 11, 10),
    test(IF_EQUAL, 0x0800, 0, 9),
    step(WORD, 30),
    test(IF_EQUAL, ADDRESS, 8, 0),
    step(BYTE, 23),
    test(IF_EQUAL, 17, 0, 5),
    // Not of a later fragment, where what looks like a port is none.
    step(HALF, 20),
    test(IF_ANY_BIT, 0x1fff, 3, 0),
    step(HEADER_TO_X, 14),
    step(HALF_AT_X, 16),
    test(IF_EQUAL, 67, 1, 0),
    step(RETURN, 0),
    step(RETURN, WHOLE),
];

/// The same, and of IPv6 what is for the services' address, the questions that routers answer, and the questions and answers of neighbours;
/// each right behind its header.
pub const FROM_GUEST_6: [Step; 31] = [
    step(HALF, 12),
    test(IF_EQUAL, 0x0806, 0, 2),
    step(WORD, 38),
    test(IF_EQUAL, ADDRESS, 26, 25),
    test(IF_EQUAL, 0x0800, 0, 9),
    step(WORD, 30),
    test(IF_EQUAL, ADDRESS, 23, 0),
    step(BYTE, 23),
    test(IF_EQUAL, 17, 0, 20),
    step(HALF, 20),
    test(IF_ANY_BIT, 0x1fff, 18, 0),
    step(HEADER_TO_X, 14),
    step(HALF_AT_X, 16),
    test(IF_EQUAL, 67, 16, 15),
    test(IF_EQUAL, 0x86dd, 0, 14),
    // ICMPv6: router solicitation, neighbour solicitation and advertisement.
    step(BYTE, 20),
    test(IF_EQUAL, 58, 0, 4),
    step(BYTE, 54),
    test(IF_EQUAL, 133, 11, 0),
    test(IF_EQUAL, 135, 10, 0),
    test(IF_EQUAL, 136, 9, 8),
    step(WORD, 38),
    test(IF_EQUAL, ADDRESS6[0], 0, 6),
    step(WORD, 42),
    test(IF_EQUAL, ADDRESS6[1], 0, 4),
    step(WORD, 46),
    test(IF_EQUAL, ADDRESS6[2], 0, 2),
    step(WORD, 50),
    test(IF_EQUAL, ADDRESS6[3], 1, 0),
    step(RETURN, 0),
    step(RETURN, WHOLE),
];

/// Frames from its own hardware address to one receiver: what is for several would go to all of a bridge.
pub const TO_GUEST: [Step; 8] = [
    step(BYTE, 0),
    test(IF_ANY_BIT, 1, 4, 0),
    step(WORD, 6),
    test(IF_EQUAL, high(MAC), 0, 2),
    step(HALF, 10),
    test(IF_EQUAL, low(MAC), 1, 0),
    step(RETURN, 0),
    step(RETURN, WHOLE),
];

const fn high([a, b, c, d, ..]: [u8; 6]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

const fn low([.., a, b]: [u8; 6]) -> u32 {
    (a as u32) << 8 | b as u32
}

/// Every frame.
pub const ALL: [Step; 1] = [step(RETURN, WHOLE)];

/// Where a step leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    Kind,
    Ip,
    Probe,
    Drop,
    Pass,
    Six,
    Lines,
}

/// What a guest may send to his switch: IPv4 and ARP from his own addresses; nothing that is for his services, which have seen it, and
/// no DHCP. Where he has IPv6 addresses, of that what [`six::sent`] says; else none. (On Linux it is a table of rules that says the same.)
pub fn from_own(mac: [u8; 6], address: Ipv4Addr, v6: Option<[Ipv6Addr; 2]>) -> Vec<Step> {
    use To::{Drop, Ip, Kind, Lines, Next, Pass, Probe, Six};
    let own = u32::from(address);
    let load = |code, k| (Next, step(code, k), Next, Next);
    let equal = |k, yes, no| (Next, step(IF_EQUAL, k), yes, no);
    let at = |label, (_, step, yes, no)| (label, step, yes, no);
    let steps = [
        load(WORD, 6),
        equal(high(mac), Next, Drop),
        load(HALF, 10),
        equal(low(mac), Next, Drop),
        // To services, by their hardware address.
        load(WORD, 0),
        equal(high(MAC), Next, Kind),
        load(HALF, 4),
        equal(low(MAC), Drop, Kind),
        at(Kind, load(HALF, 12)),
        equal(0x0806, Next, Ip),
        // ARP: not about services; from himself.
        load(WORD, 38),
        equal(ADDRESS, Drop, Next),
        load(WORD, 22),
        equal(high(mac), Next, Drop),
        load(HALF, 26),
        equal(low(mac), Next, Drop),
        load(WORD, 28),
        equal(own, Pass, Next),
        // A probe (RFC 5227) has no address yet; one for another's would make him give it up.
        equal(0, Probe, Drop),
        at(Probe, load(WORD, 38)),
        equal(own, Pass, Drop),
        at(Ip, equal(0x0800, Next, Six)),
        load(WORD, 26),
        equal(own, Next, Drop),
        load(WORD, 30),
        load(AND, 0xffff_0000),
        equal(ADDRESS & 0xffff_0000, Drop, Next),
        load(BYTE, 23),
        equal(17, Next, Pass),
        // Not of a later fragment, where what looks like a port is none.
        load(HALF, 20),
        (Next, step(IF_ANY_BIT, 0x1fff), Pass, Next),
        load(HEADER_TO_X, 14),
        load(HALF_AT_X, 14),
        equal(67, Drop, Next),
        load(HALF_AT_X, 16),
        equal(67, Drop, Next),
        equal(68, Drop, Pass),
        at(Drop, load(RETURN, 0)),
        at(Pass, load(RETURN, WHOLE)),
        // Its type is still at hand.
        at(Six, equal(six::ETHERTYPE.into(), Lines, Next)),
        load(RETURN, 0),
    ];
    let skipped = |from: usize, to: To| {
        let found = match to {
            Next => None,
            Lines => Some(steps.len()),
            to => steps.iter().position(|(label, ..)| *label == to),
        };
        // The program has fewer than 256 steps, and each leads forward.
        found.map_or(0, |found| found.saturating_sub(from + 1) as u8)
    };
    let placed = steps.iter().enumerate().map(|(from, (_, step, yes, no))| Step {
        if_true: skipped(from, *yes),
        if_false: skipped(from, *no),
        ..*step
    });
    let lines = v6.map(|own| six::sent(mac, own)).unwrap_or_default();
    placed.chain(six::steps(&lines)).collect()
}

/// For Linux, before the others: a frame whose tag of a VLAN the kernel has taken out (`SKF_AD_VLAN_TAG_PRESENT`) is refused.
pub const UNTAGGED: [Step; 3] = [step(WORD, 0xffff_f030), test(IF_EQUAL, 0, 1, 0), step(RETURN, 0)];

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernels do with it; `None` where they would read beyond the end, which lets nothing through.
    pub(super) fn run(program: &[Step], frame: &[u8]) -> Option<u32> {
        let load = |at: usize, size: usize| Some(frame.get(at..at + size)?.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)));
        let (mut a, mut x, mut at) = (0, 0, 0);
        loop {
            let Step { code, if_true, if_false, k } = *program.get(at).expect("within the program");
            let jump = |yes: bool| usize::from(if yes { if_true } else { if_false });
            match code {
                WORD => a = load(k as usize, 4)?,
                HALF => a = load(k as usize, 2)?,
                BYTE => a = load(k as usize, 1)?,
                HALF_AT_X => a = load((k + x) as usize, 2)?,
                HEADER_TO_X => x = load(k as usize, 1)? % 16 * 4,
                IF_EQUAL => at += jump(a == k),
                IF_ANY_BIT => at += jump(a & k != 0),
                AND => a &= k,
                RETURN => return Some(k),
                _ => panic!("code {code:#x}"),
            }
            at += 1;
        }
    }

    fn ip(to: [u8; 4], protocol: u8, fragment: u16, options: usize, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45 + (options / 4) as u8, 0, 0, 40, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 0, 0, 0, 0]);
        frame.extend(to);
        frame.extend(vec![0; options]);
        frame.extend([0, 68]);
        frame.extend(port.to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    #[test]
    fn what_is_for_us_passes_and_nothing_else() {
        let passes = |frame: &[u8]| run(&FROM_GUEST, frame) == Some(WHOLE);
        let us = [169, 254, 169, 254];
        assert!(passes(&ip(us, 6, 0, 0, 80)) && passes(&ip(us, 17, 3, 8, 53)) && passes(&ip(us, 1, 0, 0, 0)));
        assert!(passes(&ip([255; 4], 17, 0, 0, 67)) && passes(&ip([10, 0, 0, 1], 17, 0x4000, 20, 67)));
        assert!(!passes(&ip([255; 4], 17, 0, 0, 68)) && !passes(&ip([255; 4], 6, 0, 0, 67)));
        assert!(!passes(&ip([255; 4], 17, 1, 0, 67)) && !passes(&ip([169, 254, 169, 253], 17, 0, 0, 53)));
        let arp = |to: [u8; 4]| [&[0; 12], &[8, 6][..], &[0; 24], &to].concat();
        assert!(passes(&arp(us)) && !passes(&arp([10, 0, 0, 1])));
        let mut tagged = ip(us, 6, 0, 0, 80);
        tagged.splice(12..12, [0x81, 0, 0, 1]);
        assert!(!passes(&tagged));
        for end in 0..44 {
            assert!(!passes(&ip([255; 4], 17, 0, 8, 67)[..end]));
        }
    }

    #[test]
    fn of_ipv6_only_what_services_answer_passes_and_only_where_it_is_spoken() {
        let passes = |frame: &[u8]| run(&FROM_GUEST_6, frame) == Some(WHOLE);
        let six = |to: [u32; 4], next: u8, first: u8| {
            let to = to.map(u32::to_be_bytes).concat();
            [&[0; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, next, 255], &[0; 16], &to, &[first, 0, 0, 0, 0, 0, 0, 0]].concat()
        };
        let all = [0xff02_0000, 0, 0, 1];
        for kind in 0..=255 {
            assert_eq!(passes(&six(all, 58, kind)), matches!(kind, 133 | 135 | 136), "{kind}");
            assert_eq!(passes(&six(ADDRESS6, 58, kind)), matches!(kind, 133 | 135 | 136), "{kind}");
        }
        for next in (0..=255).filter(|next| *next != 58) {
            assert!(passes(&six(ADDRESS6, next, 0)) && !passes(&six(all, next, 133)));
        }
        for word in 0..4 {
            let mut other = ADDRESS6;
            other[word] ^= 1;
            assert!(!passes(&six(other, 17, 0)));
        }
        // Where it is not, none of this does; and what is of IPv4 passes here as there.
        assert_eq!(run(&FROM_GUEST, &six(all, 58, 133)), Some(0));
        assert_eq!(run(&FROM_GUEST, &six(ADDRESS6, 17, 0)), Some(0));
        let us = [169, 254, 169, 254];
        let arp = [&[0; 12], &[8, 6][..], &[0; 24], &us].concat();
        for frame in [ip(us, 6, 0, 0, 80), ip([255; 4], 17, 0, 8, 67), ip([255; 4], 17, 1, 0, 67), ip([255; 4], 6, 0, 0, 67), arp]
        {
            assert_eq!(run(&FROM_GUEST_6, &frame), run(&FROM_GUEST, &frame), "{frame:x?}");
        }
        assert!((0..54).all(|end| !passes(&six(ADDRESS6, 58, 133)[..end])));
    }

    #[test]
    fn only_frames_of_its_own_are_sent() {
        let sent = |to: [u8; 6], mac: [u8; 6]| run(&TO_GUEST, &[&to, &mac[..], &[8, 0]].concat());
        let from = |mac| sent([2, 0, 0, 0, 0, 7], mac);
        assert_eq!(from(MAC), Some(WHOLE));
        assert_eq!((sent([0xff; 6], MAC), sent([1, 0, 0x5e, 0, 0, 1], MAC)), (Some(0), Some(0)));
        for bit in 0..48 {
            let mut other = MAC;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(from(other), Some(0));
        }
    }
    #[test]
    fn a_guest_sends_only_as_who_he_is() {
        let (mac, own, other) = ([2, 0, 0, 0, 0, 0x22], [10, 64, 7, 2], [10, 64, 7, 9]);
        let program = from_own(mac, own.into(), None);
        let passes = |frame: &[u8]| run(&program, frame) == Some(WHOLE);
        let ip = |to_mac: [u8; 6], from: [u8; 4], to: [u8; 4], protocol, fragment, ports: [u16; 2]| {
            let mut frame = ip(to, protocol, fragment, 4, ports[1]);
            frame[..6].copy_from_slice(&to_mac);
            frame[6..12].copy_from_slice(&mac);
            frame[26..30].copy_from_slice(&from);
            frame[38..40].copy_from_slice(&ports[0].to_be_bytes());
            frame
        };
        let (all, world) = ([0xff; 6], [192, 0, 2, 9]);
        assert!(passes(&ip(all, own, world, 17, 0, [1, 7])) && passes(&ip(all, own, other, 6, 0, [67, 68])));
        assert!(
            passes(&ip(all, own, world, 17, 5, [67, 68]))
                && passes(&ip([2, 0x53, 0x4b, 0x45, 0x50, 2], own, world, 1, 0, [0, 0]))
        );
        for wrong in [
            ip(all, other, world, 17, 0, [1, 7]),
            ip(all, [0; 4], [255; 4], 17, 0, [68, 67]),
            ip(all, own, world, 17, 0, [67, 9]),
            ip(all, own, world, 17, 0, [9, 67]),
            ip(all, own, world, 17, 0, [9, 68]),
            ip(all, own, [169, 254, 169, 254], 6, 0, [9, 80]),
            ip(all, own, [169, 254, 1, 1], 6, 0, [9, 80]),
            ip(MAC, own, world, 17, 0, [1, 7]),
        ] {
            assert!(!passes(&wrong), "{wrong:x?}");
        }
        let mut forged = ip(all, own, world, 17, 0, [1, 7]);
        forged[11] ^= 1;
        assert!(!passes(&forged));
        for kind in [[0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [0, 60]] {
            let mut frame = ip(all, own, world, 6, 0, [1, 7]);
            frame[12..14].copy_from_slice(&kind);
            assert!(!passes(&frame));
        }
        let arp = |mac: [u8; 6], sender: [u8; 6], from: [u8; 4], to: [u8; 4]| {
            [&all[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &sender, &from, &[0; 6], &to].concat()
        };
        assert!(passes(&arp(mac, mac, own, other)) && passes(&arp(mac, mac, own, own)) && passes(&arp(mac, mac, [0; 4], own)));
        for (sender, from, to) in [(MAC, own, other), (mac, other, own), (mac, [0; 4], other), (mac, own, [169, 254, 169, 254])] {
            assert!(!passes(&arp(mac, sender, from, to)), "{sender:x?} {from:?} {to:?}");
        }
        assert!(!passes(&arp(MAC, mac, own, other)));
        // Where he has addresses of IPv6, the same holds of all this, and of his hardware address in IPv6.
        let addresses = ["fd12::ff:fe00:22", "fe80::ff:fe00:22"].map(|text| text.parse().expect("an address"));
        let both = from_own(mac, own.into(), Some(addresses));
        for frame in [ip(all, own, world, 17, 0, [1, 7]), ip(all, other, world, 17, 0, [1, 7]), arp(mac, mac, own, other)] {
            assert_eq!(run(&both, &frame), run(&program, &frame), "{frame:x?}");
        }
        let six = |to: [u8; 6], mac: [u8; 6], from: std::net::Ipv6Addr| {
            let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64];
            [&to[..], &mac, &header, &from.octets(), &addresses[0].octets(), &[0; 20]].concat()
        };
        for from in addresses {
            assert_eq!(run(&both, &six(all, mac, from)), Some(WHOLE));
            for wrong in [six(MAC, mac, from), six(all, MAC, from)] {
                assert_eq!(run(&both, &wrong), Some(0));
            }
            assert_eq!(run(&program, &six(all, mac, from)), Some(0));
        }
        assert_eq!(run(&both, &six(all, mac, "fd12::1".parse().expect("an address"))), Some(0));
        // What is cut short is let through by no step.
        let whole = ip(all, own, world, 17, 0, [1, 7]);
        assert!((0..42).all(|end| !passes(&whole[..end])));
        assert!(program.len() < 256 && program.iter().all(|step| step.bytes().len() == 8));
    }
}
