//! The rights of disk-server: two processes that serve one disk as a device of the host, for bhyve. Of an iSCSI disk, the second is
//! iscsi-initiator.

use crate::base::{LISTENER, NULL, REPORT, WORDS};
use crate::table::*;

/// `G_GATE_CMD_START` and `G_GATE_CMD_DONE` (sys/geom/gate/g_gate.h): takes a request, and answers it. None that makes, changes or takes
/// away a device.
pub(crate) const SERVE: &[u64] = &[0xc038_6d04, 0xc038_6d05];

/// Ends of the stream between the two.
const STREAM: Descriptor = Descriptor {
    name: "stream",
    kind: FdKind::Unix,
    most: Most::N(1),
    rights: &["READ", "WRITE"],
    ioctls: &[],
    why: "requests go from the gate to the reader (an iSCSI disk: to iscsi-initiator), results back",
};

/// The gate.
pub static TABLE: Process = Process {
    name: "disk-server",
    program: "skep-disk-server",
    task: "FreeBSD: takes the kernel's requests for one disk, holds them to its rates, and has its reader or its iscsi-initiator do them; parses nothing",
    uid: Uid::PerMachine,
    namespaces: &[],
    capabilities: &[],
    network: Network::None,
    descriptors: &[
        LISTENER,
        NULL,
        WORDS,
        STREAM,
        REPORT,
        Descriptor {
            name: "control",
            kind: FdKind::Device("ggctl"),
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: SERVE,
            why: "the kernel's requests; it could answer those for other such devices of the host, too, which is why it parses nothing",
        },
        Descriptor {
            name: "device",
            kind: FdKind::Device("skep/"),
            most: Most::N(1),
            rights: &["FSTAT"],
            ioctls: &[],
            why: "kept open, so that the host never looks at what the guest wrote there",
        },
        Descriptor {
            name: "counts",
            kind: FdKind::File("cell"),
            most: Most::N(1),
            rights: &["READ", "WRITE", "SEEK"],
            ioctls: &[],
            why: "how much was read and written, which the spawner reads; its files can have 32 bytes and no more",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 32,
    operations: &[],
    freebsd: FreeBsd {
        capability_mode: true,
        root: Root::Never,
        note: "with the uid of its machine's console-proxy, or of its disk's iscsi-initiator, in a jail of its own",
    },
};

/// The reader.
pub static READER: Process = Process {
    name: "disk-reader",
    task: "FreeBSD: reads and writes one QCOW2 disk through descriptors of its files; whatever is in them, it reaches nothing else",
    descriptors: &[
        NULL,
        WORDS,
        STREAM,
        REPORT,
        Descriptor {
            name: "file",
            kind: FdKind::File("disks"),
            most: Most::N(17),
            rights: &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FTRUNCATE", "FPATHCONF", "FCNTL"],
            ioctls: &[],
            why: "the disk's file, and what it stands on, those opened for reading alone by storage-helper",
        },
    ],
    ..TABLE
};
