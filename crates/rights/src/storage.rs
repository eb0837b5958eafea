//! The rights of storage-helper.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "storage-helper",
    program: "skep-storage-helper",
    task: "keeps disks, variable stores and logs, and hands out open descriptors",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::None,
    descriptors: &[],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 1024,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, note: "" },
};
