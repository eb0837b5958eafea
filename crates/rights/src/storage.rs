//! The rights of storage-helper and of its jobs.

use crate::table::*;

/// `FICLONE` (ioctl_ficlone(2)).
const FICLONE: u64 = 0x4004_9409;

/// What bhyve asks of a disk (sys/disk.h): FLUSH, DELETE, MEDIASIZE, SECTORSIZE, STRIPESIZE, STRIPEOFFSET, IDENT, ATTR. It limits
/// its descriptors to these itself, which fails if they are not held.
const DIOCG: &[u64] = &[0x2000_6487, 0x8010_6488, 0x4008_6481, 0x4004_6480, 0x4008_648b, 0x4008_648c, 0x4100_6489, 0xc148_648e];
/// Rights of a directory whose files the helper makes, opens, renames, lists and deletes, and all that is done with the files.
const DIRECTORY: &[&str] = &[
    "LOOKUP",
    "READ",
    "WRITE",
    "SEEK",
    "CREATE",
    "FTRUNCATE",
    "FSYNC",
    "FSTAT",
    "FSTATFS",
    "FLOCK",
    "FCNTL",
    "FPATHCONF",
    "EVENT",
    "UNLINKAT",
    "RENAMEAT_SOURCE",
    "RENAMEAT_TARGET",
    "IOCTL",
    "MMAP_RW",
];
/// `_IOWR('Z', n, struct zfs_iocparm)` (sys/zfs_ioctl_compat.h of FreeBSD): statistics, next dataset, next snapshot, set properties,
/// create, destroy, roll back, promote, snapshot, destroy snapshots, clone. (Permissions are given away before.)
const ZFS: &[u64] =
    &[zfs(0x12), zfs(0x14), zfs(0x15), zfs(0x16), zfs(0x17), zfs(0x18), zfs(0x19), zfs(0x22), zfs(0x23), zfs(0x3b), zfs(0x42)];
const fn zfs(number: u64) -> u64 {
    0xc018_5a00 | number
}

/// Rights of its listener.
const SERVED: &[&str] = &["ACCEPT", "EVENT", "GETSOCKOPT", "SETSOCKOPT", "READ", "WRITE"];
/// Rights of what a hypervisor does with a disk.
const DISK: &[&str] = &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FPATHCONF", "EVENT", "FLOCK", "IOCTL"];
/// And of what makes one.
const MADE: &[&str] = &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FPATHCONF", "EVENT", "FLOCK", "IOCTL", "FTRUNCATE"];
/// Rights of what a hypervisor does with a variable store.
const VARS: &[&str] = &["READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FPATHCONF", "EVENT", "FLOCK", "MMAP_RW"];

/// See the module.
pub static TABLE: Process = Process {
    name: "storage-helper",
    program: "skep-storage-helper",
    task: "keeps disks, variable stores and logs, and hands out open descriptors",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::None,
    descriptors: &[
        crate::base::READY,
        Descriptor {
            name: "listener",
            kind: FdKind::Listener,
            most: Most::N(1),
            rights: SERVED,
            ioctls: &[],
            why: "the broker connects to it",
        },
        Descriptor { most: Most::N(32), ..crate::base::CONNECTION },
        Descriptor {
            name: "disks",
            kind: FdKind::Directory("disks"),
            most: Most::N(1),
            rights: DIRECTORY,
            ioctls: DIOCG,
            why: "disks are files in it",
        },
        Descriptor {
            name: "variable stores",
            kind: FdKind::Directory("firmware"),
            most: Most::N(1),
            rights: DIRECTORY,
            ioctls: &[],
            why: "variable stores of UEFI are files in it",
        },
        Descriptor {
            name: "logs",
            kind: FdKind::Directory("logs/machines"),
            most: Most::N(1),
            rights: DIRECTORY,
            ioctls: &[],
            why: "logs of machines are files in it",
        },
        Descriptor {
            name: "service logs",
            kind: FdKind::Directory("logs"),
            most: Most::N(1),
            rights: &["LOOKUP", "READ", "SEEK", "FSTAT", "FCNTL", "EVENT"],
            ioctls: &[],
            why: "the services' logs are read from it; those of acts are not its group's",
        },
        Descriptor {
            name: "root of cells",
            kind: FdKind::Directory("cell"),
            most: Most::N(1),
            rights: &["LOOKUP", "READ", "SEEK", "FSTAT", "FCNTL"],
            ioctls: &[],
            why: "the template of variable stores is read from it",
        },
        crate::base::LOG_OF_ACTS,
        crate::base::LOG,
        Descriptor {
            name: "syslog",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["WRITE", "EVENT"],
            ioctls: &[],
            why: "warnings go there, too",
        },
        Descriptor {
            name: "disk",
            kind: FdKind::File("disks"),
            most: Most::N(40),
            rights: DISK,
            ioctls: DIOCG,
            why: "a disk on its way to a hypervisor, or in the making",
        },
        Descriptor {
            name: "zfs",
            kind: FdKind::Device("zfs"),
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: ZFS,
            why: "FreeBSD: requests about volumes. They name any dataset; the kernel asks what the helper's uid was allowed (zfs-allow(8)): \
                  only what is below the suite's dataset",
        },
        Descriptor {
            name: "volumes",
            kind: FdKind::Directory("volumes"),
            most: Most::N(1),
            rights: &["LOOKUP", "READ", "WRITE", "SEEK", "FSYNC", "FSTAT", "FLOCK", "FCNTL", "FPATHCONF", "EVENT", "IOCTL"],
            ioctls: DIOCG,
            why: "FreeBSD: a devfs that shows the suite's volumes and nothing else; they are opened beneath it",
        },
        Descriptor {
            name: "volume",
            kind: FdKind::DeviceBelow("volumes"),
            most: Most::N(24),
            rights: DISK,
            ioctls: DIOCG,
            why: "FreeBSD: a volume on its way to a hypervisor, or in the making",
        },
        Descriptor {
            name: "variable store",
            kind: FdKind::File("firmware"),
            most: Most::N(4),
            rights: VARS,
            ioctls: &[],
            why: "on its way to a hypervisor, or while a child changes it",
        },
        Descriptor {
            name: "log",
            kind: FdKind::File("logs/machines"),
            most: Most::N(2),
            rights: &["READ", "WRITE", "SEEK", "FSTAT", "FTRUNCATE", "EVENT"],
            ioctls: &[],
            why: "on its way to its writer",
        },
        Descriptor {
            name: "log to read",
            kind: FdKind::File("logs"),
            most: Most::N(2),
            rights: &["READ", "SEEK", "FSTAT", "EVENT"],
            ioctls: &[],
            why: "a log of a machine or a service, on its way to its reader",
        },
        Descriptor {
            name: "watcher",
            kind: FdKind::Event,
            most: Most::N(1),
            rights: UNLIMITED,
            ioctls: &[],
            why: "Linux: wakes whoever follows a log; on its way with it",
        },
        Descriptor {
            name: "job's channel",
            kind: FdKind::Unix,
            most: Most::N(8),
            rights: &["READ", "WRITE", "EVENT", "GETSOCKOPT"],
            ioctls: &[],
            why: "the client of a job is told of its end",
        },
        Descriptor {
            name: "job's result",
            kind: FdKind::Unix,
            most: Most::N(9),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "the child of a job says how it ended",
        },
        Descriptor {
            name: "job's process",
            kind: FdKind::Process,
            most: Most::N(9),
            rights: &["PDKILL", "EVENT"],
            ioctls: &[],
            why: "closing it ends the child (FreeBSD)",
        },
    ],
    paths: Paths::Only(&[
        PathRule { place: Place::State("disks"), access: Access::ReadWrite, why: "disks" },
        PathRule { place: Place::State("firmware"), access: Access::ReadWrite, why: "variable stores" },
        PathRule { place: Place::State("logs/machines"), access: Access::ReadWrite, why: "logs of machines" },
        PathRule { place: Place::State("logs"), access: Access::Read, why: "logs of services" },
        PathRule { place: Place::State("cell"), access: Access::Read, why: "the template of variable stores" },
    ]),
    syscalls: &[
        Syscalls { names: &["openat", "unlinkat", "renameat", "renameat2", "getdents64"], why: "files of the held directories" },
        Syscalls { names: &["statx", "newfstatat", "fstatfs"], why: "sizes, times and free space" },
        Syscalls { names: &["ftruncate", "fsync", "flock"], why: "disks are made, enlarged and locked" },
        Syscalls { names: &["fallocate"], why: "what a disk loses that becomes smaller" },
        Syscalls { names: &["inotify_init1", "inotify_add_watch"], why: "wakes whoever follows a log" },
        Syscalls {
            names: &["clone:process", "wait4", "kill", "prctl:confine"],
            why: "jobs are children, which end with their parent",
        },
        Syscalls { names: &["seccomp", "copy_file_range"], why: "a job confines itself further, and copies" },
    ],
    ioctls: &[(FICLONE, "a copy shares the blocks of its source")],
    max_descriptors: 256,
    operations: &[
        Operation {
            name: "CreateDisk",
            does: "makes an empty file in disks, or a volume",
            test: "disks_are_made_once_and_listed",
        },
        Operation {
            name: "ImportDisk",
            does: "starts a child that fills a new file or volume from a stream",
            test: "import_keeps_or_unpacks_what_the_stream_holds",
        },
        Operation {
            name: "CloneDisk",
            does: "starts a child that copies a file; clones a volume",
            test: "clone_copies_data_and_keeps_holes",
        },
        Operation {
            name: "OpenDisk",
            does: "locks a file or volume and hands it out",
            test: "an_open_disk_is_locked_by_its_descriptor",
        },
        Operation {
            name: "OpenLayer",
            does: "opens a file that disks stand on, and hands out the descriptor, for reading only, with a shared lock",
            test: "layers_are_opened_for_reading_and_shared",
        },
        Operation {
            name: "MergeLayers",
            does: "makes one file of several that stand on one another, in a child that may call little",
            test: "layers_are_merged_into_one",
        },
        Operation {
            name: "ResizeDisk",
            does: "makes a file or volume larger, or cuts it",
            test: "disks_grow_and_shrink_only_if_that_is_said",
        },
        Operation { name: "MayGrow", does: "nothing", test: "a_disk_that_its_hypervisor_has_is_weighed" },
        Operation { name: "WipeDisk", does: "puts an empty file or volume in its place", test: "a_wiped_disk_reads_as_zeros" },
        Operation {
            name: "DeleteDisk",
            does: "deletes a file or volume that nobody has locked",
            test: "an_open_disk_is_locked_by_its_descriptor",
        },
        Operation { name: "ListDisks", does: "lists files and volumes", test: "disks_are_made_once_and_listed" },
        Operation {
            name: "OpenVars",
            does: "hands out a variable store, made from the template",
            test: "variable_stores_come_from_the_template",
        },
        Operation { name: "CloneVars", does: "copies a variable store", test: "variable_stores_come_from_the_template" },
        Operation {
            name: "OpenLogWriter",
            does: "makes and hands out both halves of a log",
            test: "logs_have_two_halves_older_first",
        },
        Operation {
            name: "OpenLogReader",
            does: "hands out what there is of a log, for reading",
            test: "logs_have_two_halves_older_first",
        },
        Operation {
            name: "OpenServiceLog",
            does: "hands out a service's log, for reading",
            test: "logs_of_services_are_read_and_followed",
        },
        Operation {
            name: "DeleteMachineFiles",
            does: "deletes a machine's variable store and logs",
            test: "variable_stores_come_from_the_template",
        },
        Operation { name: "Space", does: "asks the file system", test: "space_is_what_the_file_system_says" },
        Operation { name: "VolumeSpace", does: "asks ZFS", test: "volumes_are_made_once_and_listed" },
        Operation {
            name: "CreateSnapshot",
            does: "makes a snapshot of a volume",
            test: "a_volume_is_rolled_back_to_its_newest_snapshot",
        },
        Operation {
            name: "ListSnapshots",
            does: "lists snapshots of a volume",
            test: "a_volume_is_rolled_back_to_its_newest_snapshot",
        },
        Operation {
            name: "RollBackDisk",
            does: "brings a volume that nobody has open back to a snapshot",
            test: "a_volume_is_rolled_back_to_its_newest_snapshot",
        },
        Operation {
            name: "DeleteSnapshot",
            does: "destroys a snapshot of a volume",
            test: "a_volume_is_rolled_back_to_its_newest_snapshot",
        },
        Operation {
            name: "ListVars",
            does: "has a child read a variable store, or the template",
            test: "variables_are_listed_read_and_changed",
        },
        Operation { name: "ReadVar", does: "likewise", test: "variables_are_listed_read_and_changed" },
        Operation {
            name: "EditVars",
            does: "has a child write a variable store anew, of which nobody has the lock, and puts it in the old one's place; or deletes it",
            test: "variables_are_listed_read_and_changed",
        },
        Operation {
            name: "WhoseOrder",
            does: "nothing; looks at the mode of a variable store",
            test: "variables_are_listed_read_and_changed",
        },
    ],
    freebsd: FreeBsd {
        capability_mode: true,
        root: Root::Never,
        note: "with ZFS volumes, root has allowed its uid before: to make, destroy, copy, snapshot and roll back what is below one dataset",
    },
};

/// A child of storage-helper that reads what may be hostile: it can open nothing, and hands nothing out.
pub static JOB: Process = Process {
    name: "storage-job",
    program: "skep-storage-helper",
    task: "fills or copies one disk, or reads or writes one variable store, through descriptors that it already holds",
    descriptors: &[
        Descriptor {
            name: "stream",
            kind: FdKind::Pipe,
            most: Most::N(1),
            rights: &["READ", "EVENT", "FSTAT"],
            ioctls: &[],
            why: "what is imported: a pipe, a socket or a file",
        },
        Descriptor {
            name: "disk",
            kind: FdKind::File("disks"),
            most: Most::N(17),
            rights: MADE,
            ioctls: DIOCG,
            why: "the source or the layers, and what is made of it",
        },
        Descriptor {
            name: "spool",
            kind: FdKind::Nameless("disks"),
            most: Most::N(1),
            rights: MADE,
            ioctls: &[],
            why: "an image on its way, which can only be read as a whole",
        },
        Descriptor {
            name: "volume",
            kind: FdKind::DeviceBelow("volumes"),
            most: Most::N(1),
            rights: DISK,
            ioctls: DIOCG,
            why: "FreeBSD: what is made, if it is a volume",
        },
        Descriptor {
            name: "variable store",
            kind: FdKind::File("firmware"),
            most: Most::N(2),
            rights: VARS,
            ioctls: &[],
            why: "instead of all these: what a guest wrote, and what is made of it",
        },
        Descriptor {
            name: "channel",
            kind: FdKind::Unix,
            most: Most::N(2),
            rights: &["WRITE", "EVENT"],
            ioctls: &[],
            why: "progress goes to the client, the result to the parent",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[
        Syscalls { names: &["statx", "newfstatat"], why: "sizes" },
        Syscalls { names: &["ftruncate", "fsync", "copy_file_range"], why: "the disk that it makes" },
    ],
    ioctls: &[(FICLONE, "a copy shares the blocks of its source")],
    max_descriptors: 256,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, root: Root::Never, note: "and its descriptors are limited to these lines" },
    ..TABLE
};
