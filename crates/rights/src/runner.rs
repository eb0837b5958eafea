//! The rights of runner.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "runner",
    program: "skep-vm-runner",
    task: "first process of a cell: starts the hypervisor, reports how it ends",
    uid: Uid::PerMachine,
    namespaces: &[Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup],
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
