//! The rights of api-frontend.

use crate::base::{LISTENER, LOG, LOOP_CONNECTION, SYSLOG};
use crate::table::*;

/// Rights of a listening TCP socket; accepted ones inherit them.
const TCP: &[&str] =
    &["ACCEPT", "EVENT", "FCNTL", "READ", "WRITE", "GETSOCKOPT", "SETSOCKOPT", "GETPEERNAME", "GETSOCKNAME", "SHUTDOWN"];

/// See the module.
pub static TABLE: Process = Process {
    name: "api-frontend",
    program: "skep-api-frontend",
    task: "speaks gRPC and TLS to clients and turns each call into one message to the broker",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    // A listening socket stays in the namespace that it was made in.
    network: Network::None,
    descriptors: &[
        LISTENER,
        LOOP_CONNECTION,
        LOG,
        SYSLOG,
        Descriptor {
            name: "remote listener",
            kind: FdKind::Inet,
            most: Most::N(1),
            rights: TCP,
            ioctls: &[],
            why: "with --listen: TLS clients are accepted from it; the process can make no other internet socket",
        },
        Descriptor {
            name: "remote connection",
            kind: FdKind::Inet,
            most: Most::Many,
            rights: TCP,
            ioctls: &[],
            why: "accepted from the remote listener, or from that for metrics",
        },
        Descriptor {
            name: "metrics listener",
            kind: FdKind::Inet,
            most: Most::N(1),
            rights: TCP,
            ioctls: &[],
            why: "with --metrics: whoever reads metrics is accepted from it",
        },
        Descriptor {
            name: "RUN",
            kind: FdKind::Directory("RUN"),
            most: Most::N(1),
            rights: &["LOOKUP", "CONNECTAT", "READ", "WRITE", "EVENT", "GETSOCKOPT", "SETSOCKOPT", "SHUTDOWN"],
            ioctls: &[],
            why: "the broker's socket is connected to beneath it",
        },
        Descriptor {
            name: "broker session",
            kind: FdKind::Unix,
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "one for each call in progress, in the name of its client",
        },
        Descriptor {
            name: "stream",
            kind: FdKind::Unix,
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "one end of a console, screen, watch or import, from the broker",
        },
        Descriptor {
            name: "import",
            kind: FdKind::Pipe,
            most: Most::Many,
            rights: &["WRITE", "EVENT", "FSTAT"],
            ioctls: &[],
            why: "the end of a pipe that an imported image is written to",
        },
        Descriptor {
            name: "exported disk",
            kind: FdKind::File("disks"),
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "a disk, read-only, while a client reads it",
        },
        Descriptor {
            name: "exported volume",
            kind: FdKind::DeviceBelow("volumes"),
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "FreeBSD: a disk that is a ZFS volume, likewise",
        },
        Descriptor {
            name: "machine log",
            kind: FdKind::File("logs"),
            most: Most::Many,
            rights: &["READ", "SEEK", "FSTAT", "EVENT"],
            ioctls: &[],
            why: "a log of a machine or a service, read-only, while a client reads it",
        },
        Descriptor {
            name: "watcher",
            kind: FdKind::Event,
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "wakes a client's stream when the log that it follows has grown",
        },
        Descriptor {
            name: "ready",
            kind: FdKind::Pipe,
            most: Most::N(1),
            rights: &["WRITE"],
            ioctls: &[],
            why: "one byte to the supervisor when clients can be served; then closed",
        },
        Descriptor { name: "event loop", kind: FdKind::Event, most: Most::N(4), rights: UNLIMITED, ioctls: &[], why: "tokio's" },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[Syscalls { names: &["socket:unix", "connect"], why: "a session with the broker for each call in progress" }],
    ioctls: &[],
    max_descriptors: 1024,
    // It serves clients, not a protocol of the suite.
    operations: &[],
    freebsd: FreeBsd {
        capability_mode: true,
        root: Root::Never,
        note: "connectat(2) beneath the descriptor of RUN reaches the broker's socket",
    },
};
