//! The rights of api-frontend.

use crate::table::*;

/// See the module.
pub static TABLE: Process = Process {
    name: "api-frontend",
    program: "skep-api-frontend",
    task: "speaks gRPC and TLS to clients and turns each call into one message to the broker",
    uid: Uid::Own,
    namespaces: &[Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::Host("listens on TCP when --listen is given"),
    descriptors: &[],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 1024,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, note: "" },
};
