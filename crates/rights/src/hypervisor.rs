//! The rights of hypervisor.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "hypervisor",
    program: "qemu-system-x86_64",
    task: "runs the guest",
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
