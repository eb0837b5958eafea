//! The rights of net-helper.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "net-helper",
    program: "skep-net-helper",
    task: "makes bridges and taps",
    uid: Uid::Own,
    namespaces: &[Namespace::Ipc, Namespace::Uts],
    capabilities: &[(Capability::NetAdmin, "bridges and taps are made with it")],
    network: Network::Host("interfaces of the host are its task"),
    descriptors: &[],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 1024,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, note: "" },
};
