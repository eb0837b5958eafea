//! Landlock: the paths of the table, no TCP, no abstract sockets, no signals to others (landlock(7)). ABI 2 is the floor.

use crate::{EnterError, Scene};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use skep_rights::{Access, Capability, Paths, Place, Process};
use std::io;
use std::path::PathBuf;

/// The newest ABI that is made use of.
const NEWEST: ABI = ABI::V6;

fn error<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> EnterError {
    move |e| EnterError::Failed { step, error: io::Error::other(e.to_string()) }
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        Access::ReadWriteFile => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
        Access::ReadWrite => {
            AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
        }
        Access::Files => {
            use AccessFs::{MakeDir, MakeReg, ReadDir, ReadFile, Refer, RemoveDir, RemoveFile, Truncate, WriteFile};
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
        }
        Access::Execute => AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute,
    }
}

pub fn restrict(table: &Process, scene: &Scene) -> Result<(), EnterError> {
    let Paths::Only(rules) = table.paths else { return Ok(()) };
    let unsupported = |e: landlock::RulesetError| EnterError::Unsupported(format!("Landlock ABI 2 (Linux 5.19) is needed: {e}"));
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))
        .map_err(unsupported)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(error("landlock: files"))?
        .handle_access(AccessNet::from_all(NEWEST) & !connects(table))
        .map_err(error("landlock: network"))?
        .scope(scopes(table))
        .map_err(error("landlock: scopes"))?;
    let mut ruleset = ruleset.create().map_err(error("landlock: create"))?;
    for rule in rules {
        let path = match rule.place {
            Place::State(below) => scene.state.join(below),
            Place::Run(below) => scene.run.join(below),
            Place::Exact(path) => PathBuf::from(path),
        };
        // A path that is not there needs no rule: nothing there can be allowed.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let is_file = !std::fs::metadata(&path).is_ok_and(|m| m.is_dir());
        let wanted = rights(rule.access);
        let wanted = if is_file { wanted & AccessFs::from_file(NEWEST) } else { wanted };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, wanted)).map_err(error("landlock: rule"))?;
    }
    let RestrictionStatus { ruleset: status, no_new_privs, .. } = ruleset.restrict_self().map_err(error("landlock: restrict"))?;
    if status == RulesetStatus::NotEnforced || !no_new_privs {
        return Err(EnterError::Unconfirmed("landlock"));
    }
    Ok(())
}

/// Who makes connections of TCP for others must be able to.
fn connects(table: &Process) -> BitFlags<AccessNet> {
    let names = table.syscalls.iter().flat_map(|group| group.names);
    if names.into_iter().any(|name| *name == "socket:tcp") { AccessNet::ConnectTcp.into() } else { BitFlags::empty() }
}

/// A process that signals cells cannot give the signal scope up.
fn scopes(table: &Process) -> BitFlags<Scope> {
    let kills = table.capabilities.iter().any(|(c, _)| *c == Capability::Kill);
    if kills { Scope::AbstractUnixSocket.into() } else { Scope::from_all(NEWEST) }
}
