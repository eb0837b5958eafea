//! Capsicum rights as the kernel writes them (sys/capsicum.h): two words of bits. Several names stand for more than one bit.

/// What of a held pair of words no line gives: names for each, most bits first.
pub fn names(held: [u64; 2]) -> Vec<String> {
    let mut rest = bits(held);
    let mut names = Vec::new();
    if RIGHTS.iter().all(|(_, value)| within(pair(*value), rest)) {
        return vec!["ALL".to_owned()];
    }
    for (name, value) in RIGHTS {
        let value = pair(*value);
        if rest != [0, 0] && value != [0, 0] && within(value, rest) {
            names.push((*name).to_owned());
            rest = without(rest, value);
        }
    }
    if rest != [0, 0] {
        names.push(format!("{:#x} {:#x}", rest[0], rest[1]));
    }
    names
}

/// The bits that all these names give together.
pub fn mask(names: &[&str]) -> [u64; 2] {
    if names == skep_rights::UNLIMITED {
        return [BITS, BITS];
    }
    names.iter().filter_map(|name| RIGHTS.iter().find(|(known, _)| known == name)).fold([0, 0], |[a, b], (_, value)| {
        let [c, d] = pair(*value);
        [a | c, b | d]
    })
}

/// Bits of `held` that `allowed` lacks.
pub fn without(held: [u64; 2], allowed: [u64; 2]) -> [u64; 2] {
    [held[0] & !allowed[0], held[1] & !allowed[1]]
}

/// The words without the marks of version and index.
pub fn bits(held: [u64; 2]) -> [u64; 2] {
    [held[0] & BITS, held[1] & BITS]
}

fn within(one: [u64; 2], other: [u64; 2]) -> bool {
    without(one, other) == [0, 0]
}

/// A constant of sys/capsicum.h carries the number of its word in bits 57 to 61.
fn pair(value: u64) -> [u64; 2] {
    if value >> 57 & 1 == 1 { [value & BITS, 0] } else { [0, value & BITS] }
}

const BITS: u64 = (1 << 57) - 1;
const W0: u64 = 1 << 57;
const W1: u64 = 1 << 58;
const READ: u64 = W0 | 0x1;
const WRITE: u64 = W0 | 0x2;
const SEEK: u64 = W0 | 0xc;
const MMAP: u64 = W0 | 0x10;
const LOOKUP: u64 = W0 | 0x400;

/// Names of rights(4) without `CAP_`. Names of more bits come first, so that few names say what is held.
const RIGHTS: &[(&str, u64)] = &[
    ("MMAP_RW", MMAP | SEEK | READ | WRITE),
    ("MMAP_R", MMAP | SEEK | READ),
    ("PREAD", SEEK | READ),
    ("PWRITE", SEEK | WRITE),
    ("SEEK", SEEK),
    ("FCHMODAT", LOOKUP | 0x2000),
    ("FCHOWNAT", LOOKUP | 0x4000),
    ("FSTATAT", LOOKUP | 0x8_0000),
    ("LINKAT_TARGET", LOOKUP | 0x40_0000),
    ("MKDIRAT", LOOKUP | 0x80_0000),
    ("MKFIFOAT", LOOKUP | 0x100_0000),
    ("MKNODAT", LOOKUP | 0x200_0000),
    ("RENAMEAT_SOURCE", LOOKUP | 0x400_0000),
    ("SYMLINKAT", LOOKUP | 0x800_0000),
    ("UNLINKAT", LOOKUP | 0x1000_0000),
    ("BINDAT", LOOKUP | 0x80_0000_0000),
    ("CONNECTAT", LOOKUP | 0x100_0000_0000),
    ("LINKAT_SOURCE", LOOKUP | 0x200_0000_0000),
    ("RENAMEAT_TARGET", LOOKUP | 0x400_0000_0000),
    ("READ", READ),
    ("WRITE", WRITE),
    ("MMAP", MMAP),
    ("MMAP_X", W0 | 0x20),
    ("CREATE", W0 | 0x40),
    ("FEXECVE", W0 | 0x80),
    ("FSYNC", W0 | 0x100),
    ("FTRUNCATE", W0 | 0x200),
    ("LOOKUP", LOOKUP),
    ("FCHDIR", W0 | 0x800),
    ("FCHFLAGS", W0 | 0x1000),
    ("FCHMOD", W0 | 0x2000),
    ("FCHOWN", W0 | 0x4000),
    ("FCNTL", W0 | 0x8000),
    ("FLOCK", W0 | 0x1_0000),
    ("FPATHCONF", W0 | 0x2_0000),
    ("FSCK", W0 | 0x4_0000),
    ("FSTAT", W0 | 0x8_0000),
    ("FSTATFS", W0 | 0x10_0000),
    ("FUTIMES", W0 | 0x20_0000),
    ("ACCEPT", W0 | 0x2000_0000),
    ("BIND", W0 | 0x4000_0000),
    ("CONNECT", W0 | 0x8000_0000),
    ("GETPEERNAME", W0 | 0x1_0000_0000),
    ("GETSOCKNAME", W0 | 0x2_0000_0000),
    ("GETSOCKOPT", W0 | 0x4_0000_0000),
    ("LISTEN", W0 | 0x8_0000_0000),
    ("PEELOFF", W0 | 0x10_0000_0000),
    ("SETSOCKOPT", W0 | 0x20_0000_0000),
    ("SHUTDOWN", W0 | 0x40_0000_0000),
    ("KQUEUE", W1 | 0x10_0040),
    ("MAC_GET", W1 | 0x1),
    ("MAC_SET", W1 | 0x2),
    ("EVENT", W1 | 0x20),
    ("KQUEUE_EVENT", W1 | 0x40),
    ("IOCTL", W1 | 0x80),
    ("TTYHOOK", W1 | 0x100),
    ("PDGETPID", W1 | 0x200),
    ("PDWAIT", W1 | 0x400),
    ("PDKILL", W1 | 0x800),
    ("EXTATTR_DELETE", W1 | 0x1000),
    ("EXTATTR_GET", W1 | 0x2000),
    ("EXTATTR_LIST", W1 | 0x4000),
    ("EXTATTR_SET", W1 | 0x8000),
    ("ACL_CHECK", W1 | 0x1_0000),
    ("ACL_DELETE", W1 | 0x2_0000),
    ("ACL_GET", W1 | 0x4_0000),
    ("ACL_SET", W1 | 0x8_0000),
    ("KQUEUE_CHANGE", W1 | 0x10_0000),
];

#[cfg(test)]
mod tests {
    use super::{RIGHTS, mask, names, without};

    #[test]
    fn names_and_bits_go_both_ways() {
        assert_eq!(names(mask(&["READ", "EVENT", "UNLINKAT"])), ["UNLINKAT", "READ", "EVENT"]);
        assert_eq!(names(without(mask(&["PREAD", "IOCTL"]), mask(&["PREAD"]))), ["IOCTL"]);
        for (name, _) in RIGHTS {
            assert_eq!(names(mask(&[name])), [*name]);
        }
    }

    #[test]
    fn every_right_of_the_tables_is_known() {
        for line in skep_rights::ALL.iter().flat_map(|table| table.descriptors) {
            for right in line.rights {
                let known = RIGHTS.iter().any(|(known, _)| known == right) || line.rights == skep_rights::UNLIMITED;
                assert!(known, "{}: {right}", line.name);
            }
        }
    }
}
