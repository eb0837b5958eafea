//! Namespaces of a service. (Those of a cell are made by the spawner.)

use crate::{EnterError, failed};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use skep_rights::{Namespace, Network, Process};

/// Leaves the host's namespaces for new, empty ones. Without root, a user namespace makes that possible.
pub fn leave_the_hosts(table: &Process) -> Result<(), EnterError> {
    let mut flags = CloneFlags::empty();
    for namespace in table.namespaces {
        flags |= match namespace {
            Namespace::Net if matches!(table.network, Network::Host(_)) => CloneFlags::empty(),
            Namespace::Net => CloneFlags::CLONE_NEWNET,
            Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
            Namespace::Uts => CloneFlags::CLONE_NEWUTS,
            Namespace::User | Namespace::Mount | Namespace::Pid | Namespace::Cgroup => CloneFlags::empty(),
        };
    }
    if !geteuid().is_root() {
        let (uid, gid) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER).map_err(failed("user namespace (is kernel.unprivileged_userns_clone off?)"))?;
        map_self(uid.as_raw(), gid.as_raw())?;
    }
    unshare(flags).map_err(failed("unshare namespaces"))
}

/// Maps one uid and gid to themselves, and nothing else.
fn map_self(uid: u32, gid: u32) -> Result<(), EnterError> {
    std::fs::write("/proc/self/setgroups", "deny").map_err(failed("setgroups deny"))?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(failed("uid_map"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(failed("gid_map"))
}
