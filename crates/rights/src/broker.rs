//! The rights of broker.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "broker",
    program: "skep-broker",
    task: "decides: users, rights, the life of machines; the only client of the helpers",
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
