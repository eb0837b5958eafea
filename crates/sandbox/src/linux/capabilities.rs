//! Capabilities: what the table names is kept, everything else goes from every set.

use crate::{EnterError, failed};
use caps::{CapSet, Capability, CapsHashSet};
use skep_rights::{Capability as Named, Process};
use std::io;

fn error(step: &'static str) -> impl FnOnce(caps::errors::CapsError) -> EnterError {
    move |e| EnterError::Failed { step, error: io::Error::other(e.to_string()) }
}

fn wanted(table: &Process) -> CapsHashSet {
    let known = |named: &Named| match named {
        Named::NetAdmin => Capability::CAP_NET_ADMIN,
        Named::NetRaw => Capability::CAP_NET_RAW,
        Named::SetUid => Capability::CAP_SETUID,
        Named::SetGid => Capability::CAP_SETGID,
        Named::Kill => Capability::CAP_KILL,
    };
    table.capabilities.iter().map(|(named, _)| known(named)).collect()
}

/// While it still may: takes everything else out of the bounding set, and has the change of uid leave the permitted set alone.
pub fn bound(table: &Process) -> Result<(), EnterError> {
    let held = caps::read(None, CapSet::Permitted).map_err(error("read capabilities"))?;
    if held.contains(&Capability::CAP_SETPCAP) {
        let wanted = wanted(table);
        let bounding = caps::read(None, CapSet::Bounding).map_err(error("read the bounding set"))?;
        for capability in bounding.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(error("drop from the bounding set"))?;
        }
    }
    caps::securebits::set_keepcaps(true).map_err(error("keep capabilities"))
}

/// Does something without a capability that is held, which is there again afterwards; without it from the start, likewise.
fn without<T>(capability: Capability, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let io = |e: caps::errors::CapsError| io::Error::other(e.to_string());
    let held = caps::has_cap(None, CapSet::Effective, capability).map_err(io)?;
    if held {
        caps::drop(None, CapSet::Effective, capability).map_err(io)?;
    }
    let result = act();
    if held {
        caps::raise(None, CapSet::Effective, capability).map_err(io)?;
    }
    result
}

/// While it still may (CAP_SYS_RESOURCE): has this process, and all that come of it, be allowed without any capability to take an
/// `oom_score_adj` from `least` on (proc(5)); what it has stays. The kernel keeps as the least one what somebody with the capability
/// wrote last, so the one that stays is written without it.
pub fn allow_oom_score(least: i16) -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let own: i16 = std::fs::read_to_string(FILE)?.trim().parse().map_err(io::Error::other)?;
    std::fs::write(FILE, least.min(own).to_string())?;
    without(Capability::CAP_SYS_RESOURCE, || std::fs::write(FILE, own.to_string()))
}

/// Empties the bounding set of a process that becomes another program, which will not have the capability for that any more.
pub fn empty_bounding_set() -> Result<(), EnterError> {
    for capability in caps::read(None, CapSet::Bounding).map_err(error("read the bounding set"))? {
        caps::drop(None, CapSet::Bounding, capability).map_err(error("drop from the bounding set"))?;
    }
    Ok(())
}

/// After the change of uid: the declared ones that are held, and nothing else. An ordinary user's process holds none of the host's;
/// those of its own user namespace go, too.
pub fn keep(table: &Process) -> Result<(), EnterError> {
    let held = caps::read(None, CapSet::Permitted).map_err(error("read capabilities"))?;
    let rooted = nix::unistd::geteuid().is_root() || !in_own_user_namespace();
    let kept: CapsHashSet = if rooted { held.intersection(&wanted(table)).copied().collect() } else { CapsHashSet::new() };
    caps::clear(None, CapSet::Inheritable).map_err(error("clear the inheritable set"))?;
    caps::set(None, CapSet::Effective, &kept).map_err(error("set the effective set"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(error("set the permitted set"))?;
    match caps::clear(None, CapSet::Ambient) {
        Ok(()) => {}
        Err(e) => return Err(EnterError::Failed { step: "clear the ambient set", error: io::Error::other(e.to_string()) }),
    }
    caps::securebits::set_keepcaps(false).map_err(error("keep capabilities"))?;
    let now = caps::read(None, CapSet::Permitted).map_err(error("read capabilities"))?;
    if now == kept { Ok(()) } else { Err(EnterError::Unconfirmed("capabilities")) }
}

/// Whether the uid map is not the initial one, which maps all.
fn in_own_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(failed("uid_map"));
    map.is_ok_and(|text| !text.split_whitespace().eq(["0", "0", "4294967295"]))
}
