//! What a machine shares: names become directories here and nowhere else.

use super::Spawner;
use crate::platform::{CellHost, SharePlan};
use nix::errno::Errno;
use skep_proto::{MachineId, Reason, Refusal, Share, ShareName};

impl Spawner {
    /// Looks each name up in the administrator's list.
    pub(super) fn shares(&self, machine: MachineId, wanted: &[Share]) -> Result<Vec<SharePlan>, Refusal> {
        let refuse =
            |reason, note: String| Err(Refusal::new(reason, format_args!("machine {machine}")).field("shares").note(note));
        if wanted.len() > skep_rights::hypervisor::SHARES {
            return refuse(Reason::InvalidValue, format!("at most {} are expected", skep_rights::hypervisor::SHARES));
        }
        let mut plans: Vec<SharePlan> = Vec::new();
        for Share { name, read_only } in wanted {
            let Some(dir) = self.shares.get(name) else {
                let note = "no directory of this host has that name: `skep up --shares` gives it one, `skep host show` lists those that have";
                return refuse(Reason::NotFound, format!("share {name}: {note}"));
            };
            if plans.iter().any(|plan| plan.name == *name) {
                return refuse(Reason::InvalidValue, format!("share {name} is there twice"));
            }
            if let (Some(why), false) = (self.host.only_reads(), read_only) {
                return refuse(Reason::Unsupported, format!("share {name}: {why}"));
            }
            plans.push(SharePlan { name: name.clone(), dir: dir.clone(), read_only: *read_only });
        }
        Ok(plans)
    }
}

/// Why a share cannot be had, of which a step failed with `errno`. The path stays untold: whoever asked knows names.
pub fn refused(machine: MachineId, name: &ShareName, errno: i32) -> Refusal {
    let (reason, note) = match Errno::from_raw(errno) {
        Errno::ENOENT => {
            (Reason::NotFound, "its directory is not there; make it, or give the name another by `skep up --shares`")
        }
        Errno::ENOTDIR => (Reason::InvalidValue, "it is not a directory; give the name another by `skep up --shares`"),
        Errno::ELOOP => (Reason::InvalidValue, "a part of its path is a symbolic link; give the real path to `skep up --shares`"),
        Errno::EACCES | Errno::EPERM => (
            Reason::PermissionDenied,
            "the machine's uid may not list the directory, or not pass one above it; change their modes",
        ),
        Errno::EINVAL => {
            (Reason::Unsupported, "another file system is mounted below its directory; share one that has none below")
        }
        Errno::ESTALE => (Reason::Conflict, "its directory was replaced just now; try again"),
        other => (Reason::Internal, other.desc()),
    };
    Refusal::new(reason, format_args!("machine {machine}"))
        .field("shares")
        .note(format_args!("share {name}: {note}"))
        .errno(errno)
}
