//! The rights of vm-runner's spawner.

use crate::base::{CONNECTION, LISTENER, LOG, LOG_OF_ACTS, READY, SYSLOG};
use crate::table::*;

/// What it does itself, and what its children do until they are confined in turn.
const CALLS: &[Syscalls] = &[
    Syscalls {
        names: &["socket:unix", "connect", "bind", "listen", "chmod", "fchmodat"],
        why: "sockets of runners and console-proxies; finds out who listens",
    },
    Syscalls {
        names: &["unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "getdents64", "faccessat", "faccessat2"],
        why: "sweeps sockets, makes and removes control groups",
    },
    Syscalls { names: &["mknodat:pipe"], why: "what it starts beside runners says what is logged through a pipe each" },
    Syscalls {
        names: &["setsid", "setgroups", "setresgid", "setresuid"],
        why: "a cell gets the uid of its machine; a second list refuses every other uid and gid. Where a group may open `/dev/kvm`, and not everybody, the spawner has it from its start, and cells with the device keep it",
    },
    Syscalls {
        names: &["sched_setaffinity", "setpriority"],
        why: "a cell runs on the CPUs, and yields to others or goes before them, as its machine's limits say; runner and hypervisor cannot take it back",
    },
    Syscalls { names: &["unshare", "sethostname"], why: "a cell gets namespaces of its own" },
    Syscalls {
        names: &["mount", "umount2", "open_tree", "move_mount", "mount_setattr", "pivot_root", "fchdir"],
        why: "a cell gets a root of its own; in the spawner itself the kernel refuses them for want of a capability",
    },
];

const ALL_CALLS: &[Syscalls] = &joined::<{ CALLS.len() + super::runner::SHARES_CALLS.len() }>(
    CALLS,
    super::runner::SHARES_CALLS,
    "it and its children, down to the hypervisor: filters are inherited",
);

const fn op(name: &'static str, does: &'static str, test: &'static str) -> Operation {
    Operation { name, does, test }
}

/// See the module.
pub static TABLE: Process = Process {
    name: "vm-runner",
    program: "skep-vm-runner",
    task: "makes cells, and sweeps what is left of them",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[
        (Capability::SetUid, "a cell has the uid of its machine"),
        (Capability::SetGid, "likewise"),
        (Capability::Kill, "ends cells, which have other uids"),
    ],
    network: Network::None,
    descriptors: &[
        READY,
        LOG_OF_ACTS,
        LOG,
        SYSLOG,
        LISTENER,
        CONNECTION,
        Descriptor {
            name: "logs of cells",
            kind: FdKind::File("logs"),
            most: Most::N(10),
            rights: LOG.rights,
            ioctls: &[],
            why: "what console-proxies say, guest-services and whatever else has a cell of its own: a log for each kind, and the one before it",
        },
        Descriptor {
            name: "ear",
            kind: FdKind::Fifo("console"),
            most: Most::Many,
            rights: &["READ", "EVENT"],
            ioctls: &[],
            why: "what one of them says; it is never waited for",
        },
        Descriptor {
            name: "mouth",
            kind: FdKind::Fifo("console"),
            most: Most::N(2),
            rights: &["WRITE", "EVENT"],
            ioctls: &[],
            why: "the other end, on its way to who speaks",
        },
        Descriptor {
            name: "alarm",
            kind: FdKind::Event,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT", "KQUEUE_EVENT", "KQUEUE_CHANGE"],
            ioctls: &[],
            why: "who has said too much is listened to again",
        },
        Descriptor {
            name: "cell directory",
            kind: FdKind::Directory("cell"),
            most: Most::N(1),
            rights: &["LOOKUP", "READ", "FSTAT", "FSTATAT"],
            ioctls: &[],
            why: "the prepared root of all cells; never handed on",
        },
        Descriptor {
            name: "dev",
            kind: FdKind::Directory("/dev"),
            most: Most::N(1),
            rights: &["IOCTL", "READ", "FSTAT"],
            // DEVFSIO_RADD, DEVFSIO_RDEL, DEVFSIO_RGETNEXT, DEVFSIO_SGETNEXT.
            ioctls: &[0xc0ec_4400, 0x8004_4401, 0xc0ec_4404, 0xc002_440c],
            why: "FreeBSD: rules of devfs for cells",
        },
        Descriptor {
            name: "control",
            kind: FdKind::Device("ggctl"),
            most: Most::N(2),
            rights: &["IOCTL"],
            ioctls: super::disk::SERVE,
            why: "FreeBSD: makes and takes away the device of a served disk, opened for that alone; what a disk-server gets can do neither",
        },
        Descriptor {
            name: "served disk",
            kind: FdKind::Device("skep/"),
            most: Most::N(2),
            rights: super::runner::DEVICE,
            ioctls: super::runner::DISK_IOCTLS,
            why: "FreeBSD: such a device, on its way to disk-server and cell",
        },
    ],
    paths: Paths::Unrestricted(
        "mount(2) is refused inside a Landlock domain, and cells are made of mounts; its uid, three capabilities and the uids of machines, the only ones that it may take on, confine it",
    ),
    syscalls: ALL_CALLS,
    ioctls: &[],
    // One for each process that it hears: more than slots. What it starts can have no more: guest-services have one for each NIC.
    max_descriptors: 4096,
    operations: &[
        op(
            "MakeCell",
            "starts a runner with a root, namespaces, uid and control group of its own",
            "boots_answers_and_powers_off",
        ),
        op("StartServices", "starts a switch's guest-services likewise", "guests_of_a_nat_switch_get_address_name_and_metadata"),
        op("StartFetcher", "starts an image-fetcher likewise", "an_image_is_fetched_from_an_address"),
        op("StartInitiator", "starts an iscsi-initiator likewise", "a_guest_writes_to_an_iscsi_disk"),
        op(
            "StartDiskServer",
            "FreeBSD: makes a device, and starts a disk-server likewise, which answers for it",
            "a_machine_boots_from_a_qcow2_disk_upon_an_image",
        ),
        op("StartConsole", "starts a console-proxy likewise", "a_killed_console_proxy_is_replaced"),
        op("KillCell", "kills every process of a cell and its console-proxy", "kill_cell_leaves_nothing_alive"),
        op("SweepCell", "removes sockets and control groups of a dead cell", "a_killed_runner_leaves_only_what_a_sweep_removes"),
        op("ListCells", "nothing", "a_killed_runner_leaves_only_what_a_sweep_removes"),
        op("CellUsage", "nothing", "limits_act"),
        op("Facilities", "nothing", "facilities_are_told"),
    ],
    freebsd: FreeBsd {
        capability_mode: false,
        root: Root::Always,
        note: "jail_set(2), mounts and devfs rules are refused in capability mode; it holds root for them",
    },
};
