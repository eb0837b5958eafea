//! The rights of the hypervisor: a guest that has taken it over has these, and no more.

use crate::table::*;

const CELL: &[Namespace] =
    &[Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup];

/// System calls of QEMU beyond [`crate::BASE`]: those that it was seen to make under every device that is offered, and those that the C
/// library may choose in their place.
pub(crate) const CALLS: &[Syscalls] = &[
    Syscalls { names: &["execve"], why: "the runner's child becomes it" },
    Syscalls { names: &["mmap:exec", "mprotect:exec"], why: "libraries, and translated code of the guest (software emulation)" },
    Syscalls {
        names: &[
            "access",
            "open",
            "openat",
            "stat",
            "lstat",
            "newfstatat",
            "statx",
            "statfs",
            "fstatfs",
            "readlink",
            "readlinkat",
            "getcwd",
            "chdir",
        ],
        why: "libraries, firmware and its configuration, at its start",
    },
    Syscalls {
        names: &["clone:thread", "set_tid_address", "arch_prctl", "sched_setaffinity:absent"],
        why: "threads of its virtual CPUs",
    },
    Syscalls {
        names: &["preadv", "preadv2", "pwritev", "pwritev2", "fdatasync", "fsync", "fallocate", "ftruncate"],
        why: "disks",
    },
    Syscalls { names: &["signalfd4", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait"], why: "its main loop" },
    Syscalls { names: &["memfd_create"], why: "buffers of the display" },
    Syscalls { names: &["mlockall"], why: "memory that stays in RAM, of a machine that asks for that; others may lock 64 KiB" },
    Syscalls {
        names: &["uname", "sysinfo", "time", "getrusage", "prlimit64:read", "dup2"],
        why: "what it asks about its host, and its descriptors put at their numbers",
    },
    Syscalls { names: &["seccomp", "prctl:confine"], why: "its own filter, put on over this one; names of its threads" },
    Syscalls {
        names: &[
            "io_uring_setup:absent",
            "set_mempolicy:absent",
            "get_mempolicy:absent",
            "sched_setscheduler:absent",
            "sched_getscheduler:absent",
            "mbind:absent",
        ],
        why: "answered as if the kernel had none: it goes on without",
    },
];

/// What QEMU needs besides where it shares directories: each call was seen, or is what the C library may choose in its place.
pub(crate) const SHARE_CALLS: &[Syscalls] = &[Syscalls {
    names: &[
        "getdents64",
        "mkdirat",
        "mknodat:file",
        "unlinkat",
        "renameat",
        "renameat2",
        "linkat",
        "utimensat",
        "fchmod:private",
    ],
    why: "files and directories of shares",
}];

/// The same of paths.
const SHARE: PathRule = PathRule {
    place: Place::Exact("/share"),
    access: Access::Files,
    why: "the directories of the host that the machine shares; mounts say which of them can be written",
};

/// What QEMU needs besides for iSCSI disks: it connects to a socket of its cell, anew when who served it has died. Nothing else listens there.
pub(crate) const REMOTE_ONLY: &[Syscalls] = &[Syscalls {
    names: &["socket:unix", "connect"],
    why: "the cell's sockets of iSCSI disks; the cell has no other, since it shares no directory",
}];

/// Ioctls of QEMU.
pub(crate) const IOCTLS: &[(u64, &str)] = &[
    (0x8004_54d2, "TUNGETIFF: which kind of tap it was given"),
    (0x8004_54cf, "TUNGETFEATURES: what taps can"),
    (0x8004_54d7, "TUNGETVNETHDRSZ: size of the header before each frame"),
    (0x4004_54d8, "TUNSETVNETHDRSZ: likewise"),
    (0x4004_54d0, "TUNSETOFFLOAD: which checksums the guest takes over"),
    (0x4004_54d4, "TUNSETSNDBUF: frames that may wait"),
    (0x4004_54dc, "TUNSETVNETLE: byte order of that header"),
    (0x4004_54de, "TUNSETVNETBE: likewise"),
    (0x5401, "TCGETS: whether a descriptor is a terminal"),
    (0x8008_1272, "BLKGETSIZE64: size of a disk that is a device"),
    (0x1268, "BLKSSZGET: its sector size"),
    (0x127b, "BLKPBSZGET: likewise"),
    (0x541b, "FIONREAD: bytes that wait"),
    (0x5421, "FIONBIO: not to wait"),
];

const ROOT: &[PathRule] = &[
    PathRule { place: Place::Exact("/usr/bin/qemu-system-x86_64"), access: Access::Execute, why: "itself" },
    PathRule { place: Place::Exact("/usr/lib"), access: Access::Execute, why: "libraries" },
    PathRule { place: Place::Exact("/usr/lib64"), access: Access::Execute, why: "libraries" },
    PathRule { place: Place::Exact("/lib"), access: Access::Execute, why: "libraries" },
    PathRule { place: Place::Exact("/lib64"), access: Access::Execute, why: "libraries" },
    PathRule { place: Place::Exact("/usr/share"), access: Access::Read, why: "firmware" },
    PathRule { place: Place::Exact("/etc/localtime"), access: Access::Read, why: "the time zone of clocks at local time" },
    PathRule { place: Place::Exact("/run"), access: Access::Read, why: "configuration, kernel, initial RAM disk" },
    PathRule { place: Place::Exact("/dev/null"), access: Access::ReadWriteFile, why: "input and output that nobody has" },
    PathRule { place: Place::Exact("/dev/urandom"), access: Access::ReadWriteFile, why: "the guest's random numbers" },
    PathRule {
        place: Place::Exact("/dev/kvm"),
        access: Access::ReadWriteFile,
        why: "hardware acceleration; only in cells that have it",
    },
];

const DESCRIPTORS: &[Descriptor] = &[
    Descriptor {
        name: "qmp",
        kind: FdKind::Unix,
        most: Most::N(4),
        rights: &["READ", "WRITE", "EVENT"],
        ioctls: &[],
        why: "the runner speaks to it; screens and debuggers that it was given over this",
    },
    Descriptor {
        name: "serial line",
        kind: FdKind::Line,
        most: Most::N(8),
        rights: &["READ", "WRITE", "EVENT", "IOCTL", "FCNTL", "FSTAT", "SEEK", "FSYNC", "FTRUNCATE", "FPATHCONF", "MMAP_RW"],
        ioctls: &[],
        why: "the guest's serial ports",
    },
    Descriptor {
        name: "standard error",
        kind: FdKind::Pipe,
        most: Most::N(2),
        // bhyve limits its standard descriptors to these itself.
        rights: &["WRITE", "SEEK", "FCNTL", "FSTAT", "EVENT", "IOCTL"],
        ioctls: &[],
        why: "its last words, read by the runner",
    },
    Descriptor {
        name: "wake-ups",
        kind: FdKind::Pipe,
        most: Most::N(2),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve: both ends of a pipe of its own",
    },
    Descriptor {
        name: "vmm instance",
        kind: FdKind::Device("vmm/"),
        most: Most::N(2),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve: the machine's memory and processors (vmm(4))",
    },
    Descriptor {
        name: "vmm control",
        kind: FdKind::Device("vmmctl"),
        most: Most::N(1),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve, FreeBSD 15 and later: it made the instance through it",
    },
    Descriptor {
        name: "kvm",
        kind: FdKind::Device("kvm"),
        most: Most::Many,
        rights: UNLIMITED,
        ioctls: &[],
        why: "QEMU, in cells that have it: the processor, and the machine and its virtual CPUs that were made through it",
    },
    Descriptor {
        name: "random",
        kind: FdKind::Device("random"),
        most: Most::N(1),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve: the guest's random numbers",
    },
    Descriptor {
        name: "sound",
        kind: FdKind::Device("dsp"),
        most: Most::N(2),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve: the host's sound device that the machine plays to, and that it records from",
    },
    Descriptor {
        name: "screen",
        kind: FdKind::Inet,
        most: Most::N(2),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve before FreeBSD 15: listens on the loopback of a network stack that holds nothing else; the runner connects",
    },
    Descriptor {
        name: "screen's socket",
        kind: FdKind::Listener,
        most: Most::N(1),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve, FreeBSD 15 and later: listens in the cell's /tmp; the runner connects",
    },
    Descriptor {
        name: "channel",
        kind: FdKind::Unix,
        most: Most::N(4),
        rights: &["ACCEPT", "EVENT", "READ", "WRITE"],
        ioctls: &[],
        why: "a client of a channel: given over QMP, or accepted by bhyve",
    },
    Descriptor {
        name: "channel's socket",
        kind: FdKind::Listener,
        most: Most::N(4),
        rights: &["ACCEPT", "EVENT", "READ", "WRITE"],
        ioctls: &[],
        why: "bhyve: listens in the cell's /tmp; the runner connects",
    },
    Descriptor { name: "null", kind: FdKind::Null, most: Most::N(1), rights: &["READ"], ioctls: &[], why: "standard input" },
    Descriptor {
        name: "disk",
        kind: FdKind::File("disks"),
        most: Most::Many,
        rights: &["FSYNC", "IOCTL", "READ", "SEEK", "WRITE", "FSTAT", "EVENT", "FPATHCONF"],
        ioctls: super::runner::DISK_IOCTLS,
        why: "opened and locked by storage-helper; itself or a copy under another number",
    },
    Descriptor {
        name: "remote disk",
        kind: FdKind::Unix,
        most: Most::N(16),
        rights: &["READ", "WRITE", "EVENT"],
        ioctls: &[],
        why: "an iSCSI disk: its iscsi-initiator is at the other end",
    },
    Descriptor {
        name: "volume",
        kind: FdKind::DeviceBelow("volumes"),
        most: Most::Many,
        rights: &["FSYNC", "IOCTL", "READ", "SEEK", "WRITE", "FSTAT", "EVENT", "FPATHCONF"],
        ioctls: super::runner::DISK_IOCTLS,
        why: "FreeBSD: a disk that is a ZFS volume, likewise",
    },
    Descriptor {
        name: "served disk",
        kind: FdKind::Device("skep/"),
        most: Most::Many,
        rights: super::runner::DEVICE,
        ioctls: super::runner::DISK_IOCTLS,
        why: "FreeBSD: a QCOW2 disk, served by a disk-server",
    },
    Descriptor {
        name: "variable store",
        kind: FdKind::File("firmware"),
        most: Most::N(2),
        rights: &["READ", "WRITE", "SEEK", "FSTAT", "MMAP_RW"],
        ioctls: &[],
        why: "what UEFI keeps",
    },
    Descriptor {
        name: "tap",
        kind: FdKind::Device("net/tun"),
        most: Most::Many,
        rights: &["EVENT", "READ", "WRITE", "IOCTL", "FSTAT"],
        ioctls: super::runner::TAP_IOCTLS,
        why: "made by net-helper",
    },
    Descriptor {
        name: "firmware",
        kind: FdKind::File("cell"),
        most: Most::Many,
        rights: &["READ", "SEEK", "FSTAT", "MMAP_R"],
        ioctls: &[],
        why: "UEFI code, from the cell's root",
    },
    Descriptor {
        name: "events",
        kind: FdKind::Event,
        most: Most::Many,
        rights: UNLIMITED,
        ioctls: &[],
        why: "its own wake-ups, timers and signals",
    },
    Descriptor {
        name: "memory",
        kind: FdKind::Memory,
        most: Most::Many,
        rights: &["READ", "WRITE", "MMAP_RW", "FTRUNCATE"],
        ioctls: &[],
        why: "buffers of the display, which it makes itself",
    },
];

const CONST_TABLE: Process = Process {
    name: "hypervisor",
    program: "qemu-system-x86_64",
    task: "runs the guest",
    uid: Uid::PerMachine,
    namespaces: CELL,
    capabilities: &[],
    network: Network::None,
    descriptors: DESCRIPTORS,
    paths: Paths::Only(ROOT),
    syscalls: CALLS,
    ioctls: IOCTLS,
    max_descriptors: 512,
    operations: &[],
    freebsd: FreeBsd {
        capability_mode: false,
        root: Root::InOldCells,
        note: "bhyve enters capability mode itself when the guest runs; before that the jail confines it",
    },
};

/// Most directories of the host that a machine shares; the cell has them at `/share/0` and so on.
pub const SHARES: usize = 4;

/// A node of devfs(5) that a cell shows (FreeBSD).
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// As rules of devfs(8) have it.
    pub pattern: &'static str,
    /// Whether it becomes the machine's uid's, with mode 0660, where that runs bhyve (FreeBSD 15 and later).
    pub owned: bool,
    /// What for.
    pub why: &'static str,
}

const fn node(pattern: &'static str, owned: bool, why: &'static str) -> Node {
    Node { pattern, owned, why }
}

/// All that a cell's devfs shows; everything else is hidden.
pub static NODES: &[Node] = &[
    node("null", false, "input and output that nobody has"),
    node("random", false, "the guest's random numbers"),
    node("fd", false, "fdescfs(5): disks and the serial line by number"),
    node("fd/*", false, "likewise"),
    node("tapfd*", false, "taps by number, under a name that bhyve takes for a tap's"),
    node("pts", false, "the serial line, which the runner makes"),
    node("pts/*", false, "likewise"),
    node("vmm", false, "the directory of instances"),
    node("vmm.io", false, "likewise"),
    node("vmmctl", true, "makes the machine's instance (FreeBSD 15 and later)"),
    node("vmm/*", true, "the machine's instance; the kernel shows a jail no other"),
    node("vmm.io/*", true, "its firmware and devices in memory"),
];

/// Shown beside [`NODES`] in the cell of a machine that has sound devices of the host: those, by their numbers ([`sound`]).
pub const SOUND: Node = node("dsp*", true, "sound devices of the host that the machine has");

/// Patterns of a sound device (sound(4)): before 14 the kernel makes a node `dspN.…` for whoever opens `dspN`.
pub fn sound(number: u8) -> [String; 2] {
    [format!("dsp{number}"), format!("dsp{number}.*")]
}

/// Whether it is the name of a sound device's node, or a pattern of [`sound`].
pub fn is_sound(name: &str) -> bool {
    let number = name.strip_prefix("dsp").map(|rest| rest.split_once('.').map_or(rest, |(number, _)| number));
    number.is_some_and(|digits| digits.parse::<u8>().is_ok_and(|n| n.to_string() == digits))
}

/// The declared node with this pattern.
pub fn node_of(pattern: &str) -> Option<&'static Node> {
    let known = NODES.iter().find(|node| node.pattern == pattern);
    known.or(if is_sound(pattern) { Some(&SOUND) } else { None })
}

/// See the module.
pub static TABLE: Process = CONST_TABLE;

const KVM_CALLS: &[Syscalls] =
    &joined::<{ CALLS.len() + 1 }>(CALLS, &[Syscalls { names: &["ioctl"], why: "" }], "KVM has about a hundred requests");

/// The same for a cell with `/dev/kvm`: a declared exception.
pub static TABLE_KVM: Process = Process { syscalls: KVM_CALLS, ..CONST_TABLE };

const REMOTE_CALLS: &[Syscalls] =
    &joined::<{ CALLS.len() + REMOTE_ONLY.len() }>(CALLS, REMOTE_ONLY, "the cell's sockets of iSCSI disks");

/// For a cell with iSCSI disks: a declared exception.
pub static TABLE_REMOTE: Process = Process { syscalls: REMOTE_CALLS, ..CONST_TABLE };

const KVM_REMOTE_CALLS: &[Syscalls] =
    &joined::<{ KVM_CALLS.len() + REMOTE_ONLY.len() }>(KVM_CALLS, REMOTE_ONLY, "the cell's sockets of iSCSI disks");

/// For a cell with both.
pub static TABLE_KVM_REMOTE: Process = Process { syscalls: KVM_REMOTE_CALLS, ..CONST_TABLE };

const SHARES_CALLS: &[Syscalls] =
    &joined::<{ CALLS.len() + SHARE_CALLS.len() }>(CALLS, SHARE_CALLS, "files and directories of shares");

const SHARES_ROOT: &[PathRule] = &with::<_, { ROOT.len() + 1 }>(ROOT, SHARE);

const SHARE_DESCRIPTORS: &[Descriptor] = &with::<_, { DESCRIPTORS.len() + 2 }>(
    &with::<_, { DESCRIPTORS.len() + 1 }>(
        DESCRIPTORS,
        Descriptor {
            name: "share",
            kind: FdKind::Shared,
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "the directories of the host that the machine shares, and what of them the guest has open",
        },
    ),
    Descriptor {
        name: "look-ups",
        kind: FdKind::Unix,
        most: Most::N(2),
        rights: UNLIMITED,
        ioctls: &[],
        why: "bhyve: asks its two processes about users and groups",
    },
);

const CONST_SHARES: Process = Process { descriptors: SHARE_DESCRIPTORS, paths: Paths::Only(SHARES_ROOT), ..CONST_TABLE };

/// For a cell that shares directories of the host: a declared exception.
pub static TABLE_SHARES: Process = Process { syscalls: SHARES_CALLS, ..CONST_SHARES };

const KVM_SHARES_CALLS: &[Syscalls] =
    &joined::<{ KVM_CALLS.len() + SHARE_CALLS.len() }>(KVM_CALLS, SHARE_CALLS, "files and directories of shares");

/// FreeBSD: what lib9p makes before bhyve enters capability mode, for the names of users (system.pwd) and of groups (system.grp),
/// libcasper(3). Cells without shares have none.
pub static LOOK_UPS: Process = Process {
    name: "look-ups",
    program: "bhyve",
    task: "answers the hypervisor's questions about users or groups, from the cell's own lists, where it shares directories (FreeBSD)",
    descriptors: &[
        Descriptor {
            name: "hypervisor",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: UNLIMITED,
            ioctls: &[],
            why: "its questions",
        },
        Descriptor {
            name: "list",
            kind: FdKind::CellFile("/etc/pwd.db"),
            most: Most::N(1),
            rights: UNLIMITED,
            ioctls: &[],
            why: "the cell's list of users, which has nobody in it",
        },
        Descriptor {
            name: "casper",
            kind: FdKind::Process,
            most: Most::N(1),
            rights: UNLIMITED,
            ioctls: &[],
            why: "libcasper(3) keeps the descriptor by which it was started",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    freebsd: FreeBsd { note: "the jail confines it: libcasper(3) gives such services no capability mode", ..CONST_TABLE.freebsd },
    ..CONST_TABLE
};

/// What it calls itself (setproctitle(3)), after its program's name.
pub const LOOK_UP_TITLES: [&str; 2] = ["system.pwd", "system.grp"];

/// For a cell with both.
pub static TABLE_KVM_SHARES: Process = Process { syscalls: KVM_SHARES_CALLS, ..CONST_SHARES };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_devices_by_their_numbers_are_shown_beside_the_nodes() {
        for name in ["dsp0", "dsp12.*", "dsp0.vp1"] {
            assert!(is_sound(name), "{name}");
        }
        for name in ["dsp", "dsp*", "dsp256", "dsp01", "dsp.*", "mixer0", "dspx"] {
            assert!(!is_sound(name), "{name}");
        }
        assert_eq!(node_of("dsp3").map(|node| node.pattern), Some("dsp*"));
        assert!(node_of("mem").is_none());
    }
}
