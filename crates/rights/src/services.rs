//! The rights of guest-services: the process that answers guests' DHCP, DNS and metadata, and advertises IPv6 networks.

use crate::base::{CONNECTION, LISTENER, NULL, REPORT, WORDS};
use crate::table::*;

/// FreeBSD's: BIOCGBLEN (net/bpf.h), by which a bpf(4) device is told from any other, and which says how much a read gives.
pub(crate) const FRAME_IOCTLS: &[u64] = &[0x4004_4266];

/// See the module.
pub static TABLE: Process = Process {
    name: "guest-services",
    program: "skep-guest-services",
    task: "answers the DHCP, DNS and metadata of a switch's guests, each by the port that it is plugged in, and advertises its IPv6 network",
    uid: Uid::PerSwitch,
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
        CONNECTION,
        NULL,
        WORDS,
        REPORT,
        Descriptor {
            name: "frames",
            kind: FdKind::Packet,
            most: Most::Many,
            rights: &["READ", "WRITE", "EVENT", "IOCTL"],
            ioctls: FRAME_IOCTLS,
            why: "one for each NIC, bound to its tap by net-helper, with a filter that is locked",
        },
        Descriptor {
            name: "resolver",
            kind: FdKind::Inet,
            most: Most::N(3),
            rights: &["READ", "WRITE", "EVENT", "GETSOCKOPT", "GETPEERNAME"],
            ioctls: &[],
            why: "connected UDP sockets, made by net-helper: names that are not the switch's are asked for over them",
        },
        Descriptor {
            name: "document",
            kind: FdKind::Memory,
            most: Most::N(1),
            rights: &["READ", "SEEK"],
            ioctls: &[],
            why: "what a guest may ask about itself, from the broker; read and closed",
        },
        Descriptor {
            name: "watcher",
            kind: FdKind::Unix,
            most: Most::N(8),
            rights: UNLIMITED,
            ioctls: &[],
            why: "told what happens",
        },
        Descriptor {
            name: "alarm",
            kind: FdKind::Event,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT", "KQUEUE_EVENT", "KQUEUE_CHANGE"],
            ioctls: &[],
            why: "retransmissions, questions that nobody answers, and what is advertised now and then",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[Syscalls {
        names: &["sendmsg:absent"],
        why: "it could name an address to a packet socket or a resolver's; records without descriptors need only sendto, without an address",
    }],
    ioctls: &[],
    max_descriptors: 1152,
    operations: &[
        Operation {
            name: "AddPort",
            does: "answers a NIC's frames from then on",
            test: "a_real_client_gets_its_lease_its_names_and_its_metadata",
        },
        Operation { name: "RemovePort", does: "answers them no more", test: "a_port_that_is_removed_is_silent" },
        Operation { name: "SetResolvers", does: "asks other resolvers", test: "names_of_others_are_asked_of_the_resolvers" },
        Operation { name: "ListPorts", does: "nothing", test: "ports_are_listed_in_pages" },
        Operation {
            name: "Watch",
            does: "hands out a stream of events",
            test: "a_real_client_gets_its_lease_its_names_and_its_metadata",
        },
    ],
    freebsd: FreeBsd { capability_mode: true, root: Root::Never, note: "and a uid of its own" },
};
