//! The rights of vm-runner.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "vm-runner",
    program: "skep-vm-runner",
    task: "makes cells, and sweeps what is left of them",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[(Capability::SetUid, "a cell has the uid of its machine"), (Capability::SetGid, "likewise"), (Capability::Kill, "ends cells, which have other uids")],
    network: Network::None,
    descriptors: &[],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 1024,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, note: "" },
};
