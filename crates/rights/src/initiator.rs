//! The rights of iscsi-initiator: the process that is between a machine's hypervisor and an iSCSI target.

use crate::base::{CONNECTION, LISTENER, WORDS};
use crate::table::*;

const fn made(name: &'static str, kind: FdKind, most: Most, rights: &'static [&'static str], why: &'static str) -> Descriptor {
    Descriptor { name, kind, most, rights, ioctls: &[], why }
}

/// See the module.
pub static TABLE: Process = Process {
    name: "iscsi-initiator",
    program: "skep-iscsi-initiator",
    task: "asks an iSCSI target for what the hypervisor of one machine asks of one disk, over connections that net-helper makes for it",
    uid: Uid::PerInitiator,
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
        made("null", FdKind::Null, Most::N(3), &["READ", "WRITE"], "standard ones"),
        WORDS,
        made("report", FdKind::Unix, Most::N(1), &["WRITE"], "tells that it is ready; then closed"),
        made(
            "door",
            FdKind::Listener,
            Most::N(1),
            LISTENER.rights,
            "in the machine's cell; the runner made it, the hypervisor connects to it",
        ),
        made(
            "hypervisor",
            FdKind::Unix,
            Most::N(1),
            &["READ", "WRITE", "EVENT"],
            "accepted from the door; FreeBSD: from its disk-server, through which it is asked",
        ),
        made(
            "target",
            FdKind::Inet,
            Most::N(2),
            &["READ", "WRITE", "EVENT", "GETSOCKOPT", "GETPEERNAME"],
            "a TCP socket to the disk's portal, made by net-helper; the next one while the former goes",
        ),
        made("watcher", FdKind::Unix, Most::N(4), UNLIMITED, "told when the session is lost"),
        made(
            "alarm",
            FdKind::Event,
            Most::N(1),
            &["READ", "WRITE", "EVENT", "KQUEUE_EVENT", "KQUEUE_CHANGE"],
            "a target that is silent is asked whether it is there",
        ),
    ],
    paths: Paths::Only(&[]),
    syscalls: &[Syscalls {
        names: &["sendmsg:absent"],
        why: "it could name an address; records without descriptors need only sendto, without an address",
    }],
    ioctls: &[],
    max_descriptors: 64,
    operations: &[
        Operation {
            name: "Attach",
            does: "logs in to the target over a socket that comes along",
            test: "a_guest_writes_to_an_iscsi_disk",
        },
        Operation { name: "Watch", does: "hands out a stream of events", test: "an_iscsi_target_that_goes_comes_back" },
    ],
    freebsd: FreeBsd {
        capability_mode: true,
        root: Root::Never,
        note: "bhyve has no disk that is a socket: it is asked by a disk-server, in one jail with it, and ends with that",
    },
};
