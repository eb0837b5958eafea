//! Linux: namespaces, uid, capabilities, no_new_privs, Landlock, seccomp; then the kernel is asked whether it is so.

mod capabilities;
mod landlock;
mod namespaces;
pub mod seccomp;

pub use capabilities::{allow_oom_score, empty_bounding_set};

use crate::{EnterError, Scene, failed};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid};
use skep_rights::{Descriptor, Process};
use std::os::fd::BorrowedFd;

/// Linux has no rights of descriptors beyond how they were opened.
#[allow(clippy::unnecessary_wraps)]
pub fn limit(_fd: BorrowedFd<'_>, _line: &Descriptor) -> Result<(), EnterError> {
    Ok(())
}

pub fn enter(table: &'static Process, scene: &Scene) -> Result<(), EnterError> {
    let parent = getppid();
    let filter = seccomp::compile(table)?;
    if !scene.in_cell {
        namespaces::leave_the_hosts(table)?;
    }
    capabilities::bound(table)?;
    if let Some((uid, gid)) = scene.identity {
        become_user(uid, gid, scene.group)?;
    }
    capabilities::keep(table)?;
    for (what, limit) in [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, table.max_descriptors)] {
        setrlimit(what, limit, limit).map_err(failed("setrlimit"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
    if scene.with_parent {
        // Cleared by a change of uid, so it comes after; the parent may have died before.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(failed("pdeathsig"))?;
        if getppid() != parent {
            return Err(EnterError::Unconfirmed("the supervisor lives"));
        }
    }
    landlock::restrict(table, scene)?;
    seccomp::install(&filter)?;
    confirm(table, scene)
}

pub fn tighten(table: &'static Process) -> Result<(), EnterError> {
    seccomp::install(&seccomp::compile(table)?)
}

fn become_user(uid: u32, gid: u32, group: Option<u32>) -> Result<(), EnterError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(group.map(Gid::from_raw).as_slice()).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))
}

/// Asks the kernel for what can still be asked with the system calls that are left.
fn confirm(table: &Process, scene: &Scene) -> Result<(), EnterError> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if scene.identity.is_some_and(|wanted| wanted != (uid, gid)) {
        return Err(EnterError::Unconfirmed("uid"));
    }
    // No table allows this call, so only a working filter gives this answer.
    if nix::unistd::getsid(None) != Err(nix::errno::Errno::EPERM) {
        return Err(EnterError::Unconfirmed(table.name));
    }
    Ok(())
}
