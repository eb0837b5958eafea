//! The rights of image-fetcher: the process that fetches one image over https.

use crate::base::{LISTENER, NULL, REPORT, WORDS};
use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "image-fetcher",
    program: "skep-image-fetcher",
    task: "fetches one image over https, through connections that net-helper makes for it, into the pipe of its import",
    uid: Uid::PerFetch,
    namespaces: &[
        Namespace::User,
        Namespace::Mount,
        Namespace::Pid,
        Namespace::Net,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
    ],
    capabilities: &[],
    network: Network::None,
    descriptors: &[
        LISTENER,
        NULL,
        WORDS,
        REPORT,
        Descriptor {
            name: "channel",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "to the broker, who has connections made for it; its end ends the process",
        },
        Descriptor {
            name: "resolver",
            kind: FdKind::Inet,
            most: Most::N(4),
            rights: &["READ", "WRITE", "EVENT", "GETSOCKOPT", "GETPEERNAME"],
            ioctls: &[],
            why: "connected sockets, made by net-helper: UDP to the host's resolvers, and one of TCP to the server",
        },
        Descriptor {
            name: "certificates",
            kind: FdKind::Memory,
            most: Most::N(1),
            rights: &["READ", "SEEK"],
            ioctls: &[],
            why: "whom to trust, from the broker; read and closed",
        },
        Descriptor {
            name: "keys",
            kind: FdKind::Memory,
            most: Most::N(1),
            rights: &["READ", "SEEK"],
            ioctls: &[],
            why: "who must have signed the list of checksums or the image, from the broker; read and closed",
        },
        Descriptor {
            name: "import",
            kind: FdKind::Pipe,
            most: Most::N(1),
            rights: &["WRITE", "EVENT"],
            ioctls: &[],
            why: "what came goes to the import's job",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[Syscalls {
        names: &["sendmsg:absent"],
        why: "it could name an address to a resolver's socket; records without descriptors need only sendto, without an address",
    }],
    ioctls: &[],
    max_descriptors: 32,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, root: Root::Never, note: "and a uid of its own" },
};
