//! Filters of frames (bpf(4), socket(7) `SO_ATTACH_FILTER`): what of a NIC's traffic reaches guest-services, and what it may send.

/// Where guests find their services.
pub const ADDRESS: u32 = 0xa9fe_a9fe;
/// The hardware address that it has there.
pub const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x45, 0x50, 0x01];

/// One instruction: code, steps if true, steps if false, constant. The same on both systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
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

/// Frames from its own hardware address.
pub const TO_GUEST: [Step; 6] = [
    step(WORD, 6),
    test(IF_EQUAL, u32::from_be_bytes([MAC[0], MAC[1], MAC[2], MAC[3]]), 0, 2),
    step(HALF, 10),
    test(IF_EQUAL, (MAC[4] as u32) << 8 | MAC[5] as u32, 1, 0),
    step(RETURN, 0),
    step(RETURN, WHOLE),
];

/// For Linux, before the others: a frame whose tag of a VLAN the kernel has taken out (`SKF_AD_VLAN_TAG_PRESENT`) is refused.
pub const UNTAGGED: [Step; 3] = [step(WORD, 0xffff_f030), test(IF_EQUAL, 0, 1, 0), step(RETURN, 0)];

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernels do with it; `None` where they would read beyond the end, which lets nothing through.
    fn run(program: &[Step], frame: &[u8]) -> Option<u32> {
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
    fn only_frames_of_its_own_are_sent() {
        let from = |mac: [u8; 6]| run(&TO_GUEST, &[&[0xff; 6], &mac[..], &[8, 0]].concat());
        assert_eq!(from(MAC), Some(WHOLE));
        for bit in 0..48 {
            let mut other = MAC;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(from(other), Some(0));
        }
    }
}
