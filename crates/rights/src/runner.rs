//! The rights of a runner.

use crate::base::{CONNECTION, LISTENER};
use crate::table::*;

/// System calls of a runner beyond [`crate::BASE`] and those that its hypervisor inherits.
pub(crate) const CALLS: &[Syscalls] = &[
    Syscalls { names: &["clone:process", "wait4"], why: "starts the hypervisor, reaps it" },
    Syscalls { names: &["pidfd_open", "pidfd_send_signal"], why: "awaits its end, kills it" },
    Syscalls { names: &["sched_setaffinity"], why: "keeps a virtual CPU to one of the host's, before its guest runs" },
    Syscalls { names: &["prlimit64"], why: "the length of its hypervisor's files, when a disk becomes larger" },
    Syscalls {
        names: &["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "capget", "capset", "setrlimit"],
        why: "the tighter confinement that the hypervisor is put into",
    },
    Syscalls { names: &["unlink"], why: "takes kernel and initial RAM disk out of the cell when they have been read" },
    Syscalls { names: &["ioctl"], why: "inherited by hypervisors with KVM; others are denied it by their own list" },
];

/// All of them.
const TABLE_CALLS: &[Syscalls] =
    &joined::<{ CALLS.len() + super::hypervisor::CALLS.len() }>(CALLS, super::hypervisor::CALLS, "inherited by the hypervisor");

/// All of them in a cell that shares directories of the host.
pub(crate) const SHARES_CALLS: &[Syscalls] = &joined::<{ TABLE_CALLS.len() + super::hypervisor::SHARE_CALLS.len() }>(
    TABLE_CALLS,
    super::hypervisor::SHARE_CALLS,
    "inherited by the hypervisor of a cell that shares directories",
);

/// All of them in a cell with iSCSI disks.
pub(crate) const REMOTE_CALLS: &[Syscalls] = &joined::<{ TABLE_CALLS.len() + super::hypervisor::REMOTE_ONLY.len() }>(
    TABLE_CALLS,
    super::hypervisor::REMOTE_ONLY,
    "inherited by the hypervisor of a cell with iSCSI disks",
);

const PASSED: &[&str] =
    &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FTRUNCATE", "IOCTL", "EVENT", "FPATHCONF", "MMAP_RW", "FCNTL"];
const FILE: &[&str] = &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FTRUNCATE", "EVENT", "FPATHCONF", "MMAP_RW"];
/// What a hypervisor does with a device that is its guest's disk.
pub(crate) const DEVICE: &[&str] = &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "IOCTL", "EVENT", "FPATHCONF"];
/// FreeBSD's: DIOCGFLUSH, DIOCGDELETE, DIOCGMEDIASIZE, DIOCGSECTORSIZE, DIOCGSTRIPESIZE, DIOCGSTRIPEOFFSET, DIOCGIDENT, DIOCGATTR.
pub(crate) const DISK_IOCTLS: &[u64] =
    &[0x2000_6487, 0x8010_6488, 0x4008_6481, 0x4004_6480, 0x4008_648b, 0x4008_648c, 0x4100_6489, 0xc148_648e];
/// FreeBSD's: TAPGIFNAME, FIONBIO, VMIO_SIOCSIFFLAGS (FREEBSD.md 27, FREEBSD15.md 13).
pub(crate) const TAP_IOCTLS: &[u64] = &[0x4020_745d, 0x8004_667e, 0x2004_5600];
/// FreeBSD's: TIOCGETA, TIOCSETA, TIOCSETAW, TIOCSETAF, TIOCGWINSZ, FIONBIO, FIODGNAME.
const LINE_IOCTLS: &[u64] = &[0x402c_7413, 0x802c_7414, 0x802c_7415, 0x802c_7416, 0x4008_7468, 0x8004_667e, 0x8010_6678];

const fn passed(name: &'static str, kind: FdKind, most: Most, why: &'static str) -> Descriptor {
    Descriptor { name, kind, most, rights: PASSED, ioctls: &[], why }
}

/// What it makes itself.
const fn made(name: &'static str, kind: FdKind, most: Most, why: &'static str) -> Descriptor {
    Descriptor { name, kind, most, rights: UNLIMITED, ioctls: &[], why }
}

const fn op(name: &'static str, does: &'static str, test: &'static str) -> Operation {
    Operation { name, does, test }
}

const PATHS: &[PathRule] = &[
    PathRule { place: Place::Exact("/run"), access: Access::ReadWrite, why: "writes what the hypervisor reads at its start" },
    PathRule { place: Place::Exact("/usr"), access: Access::Execute, why: "the hypervisor" },
    PathRule { place: Place::Exact("/lib"), access: Access::Execute, why: "likewise" },
    PathRule { place: Place::Exact("/lib64"), access: Access::Execute, why: "likewise" },
    PathRule { place: Place::Exact("/dev/null"), access: Access::ReadWriteFile, why: "the hypervisor's standard input" },
    PathRule { place: Place::Exact("/dev/urandom"), access: Access::ReadWriteFile, why: "the hypervisor's" },
    PathRule { place: Place::Exact("/dev/kvm"), access: Access::ReadWriteFile, why: "the hypervisor's, in cells that have it" },
    PathRule { place: Place::Exact("/etc/localtime"), access: Access::Read, why: "the hypervisor's: the time zone of its clock" },
];

const CONST_TABLE: Process = Process {
    name: "runner",
    program: "skep-vm-runner",
    task: "first process of a cell: starts the hypervisor, reports how it ends",
    uid: Uid::PerMachine,
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
        Descriptor { most: Most::N(2), ..LISTENER },
        CONNECTION,
        passed("null", FdKind::Null, Most::N(3), "standard input, output and error"),
        passed("report", FdKind::Unix, Most::N(2), "tells the spawner that it is ready; then closed"),
        Descriptor { rights: FILE, ..passed("configuration", FdKind::Memory, Most::N(1), "the hypervisor's, from the broker") },
        Descriptor {
            rights: FILE,
            ..passed("kernel", FdKind::Memory, Most::N(2), "kernel and initial RAM disk of a direct boot")
        },
        Descriptor { rights: FILE, ..passed("variable store", FdKind::File("firmware"), Most::N(1), "kept for the next start") },
        Descriptor { ioctls: DISK_IOCTLS, ..passed("disk", FdKind::File("disks"), Most::Many, "kept for the next start") },
        Descriptor {
            ioctls: DISK_IOCTLS,
            ..passed("volume", FdKind::DeviceBelow("volumes"), Most::Many, "FreeBSD: a disk that is a ZFS volume, kept likewise")
        },
        Descriptor {
            ioctls: DISK_IOCTLS,
            ..passed(
                "served disk",
                FdKind::Device("skep/"),
                Most::Many,
                "FreeBSD: a disk that a disk-server serves, kept likewise",
            )
        },
        Descriptor {
            ioctls: TAP_IOCTLS,
            ..passed("tap", FdKind::Device("net/tun"), Most::Many, "kept for the next start; it goes when this closes")
        },
        Descriptor { rights: FILE, ..passed("log", FdKind::File("logs"), Most::N(2), "the hypervisor's last words") },
        Descriptor {
            ioctls: LINE_IOCTLS,
            ..passed(
                "serial line",
                FdKind::Line,
                Most::N(8),
                "both ends of each, so that they outlive hypervisor and console-proxy",
            )
        },
        Descriptor {
            rights: &["READ", "WRITE", "EVENT", "KQUEUE_EVENT", "KQUEUE_CHANGE"],
            ..passed("alarm", FdKind::Event, Most::N(1), "a hypervisor that does not answer is given up")
        },
        made(
            "door",
            FdKind::Listener,
            Most::N(16),
            "the hypervisor connects to it for an iSCSI disk; the disk's iscsi-initiator accepts",
        ),
        made("hypervisor", FdKind::Process, Most::N(1), "awaits its end"),
        made("qmp", FdKind::Unix, Most::N(1), "speaks to it"),
        made("standard error", FdKind::Pipe, Most::N(2), "reads its last words; the other end for what is started next"),
        made("watcher", FdKind::Unix, Most::N(8), "told what happens"),
    ],
    paths: Paths::Only(PATHS),
    syscalls: TABLE_CALLS,
    ioctls: &[],
    max_descriptors: 512,
    operations: &[
        op("Status", "nothing", "boots_answers_and_powers_off"),
        op("Start", "starts the hypervisor", "boots_answers_and_powers_off"),
        op("PowerButton", "asks the guest to power off", "the_power_button_is_obeyed"),
        op("Kill", "ends the hypervisor", "killed_it_ends_at_once"),
        op("Reset", "ends the hypervisor and starts it anew", "reset_starts_it_anew"),
        op("Pause", "stops the virtual CPUs", "paused_it_says_nothing"),
        op("Resume", "lets them run", "paused_it_says_nothing"),
        op("Configure", "keeps a configuration for the next start", "a_reboot_starts_it_with_the_latest_configuration"),
        op("TakeSerial", "hands out the first serial line", "boots_answers_and_powers_off"),
        op("TakePort", "hands out a serial line by its number", "four_serial_ports_carry_bytes_both_ways"),
        op("ConnectGdb", "hands out a connection to the debugger's stub", "a_debugger_stops_reads_and_lets_run"),
        op("ConnectScreen", "hands out a connection to the screen", "the_screen_speaks_rfb"),
        op("Stats", "nothing", "counters_rise"),
        op("Watch", "hands out a stream of events", "boots_answers_and_powers_off"),
        op("Leave", "ends the cell", "boots_answers_and_powers_off"),
        op("SetLink", "pulls a NIC's cable, or plugs it in", "a_nic_moves_while_its_guest_runs"),
        op("Eject", "takes a CD out of its drive", "a_cd_is_taken_out_while_the_guest_runs"),
        op("LimitDisk", "holds a disk to rates", "a_disk_of_a_running_guest_is_held_to_its_rates"),
        op("GrowDisk", "has a disk become larger, and lets its file", "a_disk_grows_while_its_guest_runs"),
        op("KeepLayers", "keeps descriptors of layers that disks stand on", "machines_stand_on_one_image_at_once"),
        op("SwitchDisks", "has disks go on in other files", "a_disk_is_snapshotted_while_its_guest_writes"),
        op("ConnectChannel", "hands out a connection to a channel of the guest's", "a_channel_carries_bytes_both_ways"),
        op("TakeDoor", "hands out the socket that its hypervisor connects to for a disk", "a_guest_writes_to_an_iscsi_disk"),
    ],
    freebsd: FreeBsd {
        capability_mode: false,
        root: Root::InOldCells,
        note: "it starts programs, which capability mode forbids; the jail confines it",
    },
};

/// See the module.
pub static TABLE: Process = CONST_TABLE;

const SHARE: PathRule = PathRule {
    place: Place::Exact("/share"),
    access: Access::Files,
    why: "the hypervisor's: the directories that the machine shares",
};

const SHARES_PATHS: &[PathRule] = &with::<_, { PATHS.len() + 1 }>(PATHS, SHARE);

/// For a cell that shares directories of the host: its hypervisor cannot have more than its runner.
pub static TABLE_SHARES: Process = Process { syscalls: SHARES_CALLS, paths: Paths::Only(SHARES_PATHS), ..CONST_TABLE };

/// For a cell with iSCSI disks, likewise.
pub static TABLE_REMOTE: Process = Process { syscalls: REMOTE_CALLS, ..CONST_TABLE };
