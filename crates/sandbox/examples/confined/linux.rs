//! What only Linux has.

use crate::attempt;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// From now on the kernel refuses one system call.
pub fn refuse(call: &str) {
    let number = match call {
        "close_range" => libc::SYS_close_range,
        "unshare" => libc::SYS_unshare,
        "capset" => libc::SYS_capset,
        "setgroups" => libc::SYS_setgroups,
        "setresgid" => libc::SYS_setresgid,
        "setresuid" => libc::SYS_setresuid,
        "prlimit64" => libc::SYS_prlimit64,
        "prctl" => libc::SYS_prctl,
        "landlock_create_ruleset" => libc::SYS_landlock_create_ruleset,
        "landlock_add_rule" => libc::SYS_landlock_add_rule,
        "landlock_restrict_self" => libc::SYS_landlock_restrict_self,
        other => panic!("{other}?"),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(BTreeMap::from([(number, vec![])]), SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

pub fn attempts() {
    for (name, family, kind, protocol) in [
        ("netlink", AddressFamily::Netlink, SockType::Raw, Some(SockProtocol::NetlinkRoute)),
        ("packet", AddressFamily::Packet, SockType::Raw, None),
        ("vsock", AddressFamily::Vsock, SockType::Stream, None),
    ] {
        attempt(&format!("make a socket: {name}"), socket(family, kind, SockFlag::empty(), protocol));
    }
    attempt("make a user namespace", unshare(CloneFlags::CLONE_NEWUSER));
    attempt("mount", mount(None::<&str>, "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>));
    attempt("make a process", skep_sys::process::fork());
    attempt("see another process", skep_sys::linux::pidfd(1));
}
