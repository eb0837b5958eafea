//! The device of hardware acceleration: whether a machine may open it, and by what. Whether it runs guests only a boot shows, which is the
//! broker's.

use nix::unistd::{AccessFlags, access};
use std::fs::{Metadata, metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

const DEVICE: &str = "/dev/kvm";

/// See the module.
pub struct Kvm {
    /// Machines have uids of their own.
    rooted: bool,
    /// The group that may open the device, where not everybody may: the spawner has it, and so have those cells that have the device.
    group: Option<u32>,
}

/// The group that it takes to open it. Root's is none that a cell could have.
fn opens(meta: &Metadata) -> Option<u32> {
    (meta.mode() & 0o006 != 0o006 && meta.mode() & 0o060 == 0o060 && meta.gid() != 0).then(|| meta.gid())
}

impl Kvm {
    /// While the spawner can still take on a group.
    pub fn acquire(rooted: bool) -> Self {
        Self { rooted, group: metadata(DEVICE).ok().filter(|_| rooted).as_ref().and_then(opens) }
    }

    /// The group that the spawner is to take on.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Why no machine can open it; none: it can.
    pub fn lacks(&self) -> Option<String> {
        let meta = match metadata(DEVICE) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mend = "modprobe kvm_intel or kvm_amd, if the firmware lets the processor virtualise";
                return Some(format!("there is no {DEVICE}: {mend}"));
            }
            Err(e) => return Some(format!("{DEVICE}: {e}")),
        };
        if !self.rooted {
            let wrong = access(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).err();
            return wrong.map(|e| format!("you may not open {DEVICE} ({}): sudo usermod -aG kvm $USER", e.desc()));
        }
        match opens(&meta) {
            _ if meta.mode() & 0o006 == 0o006 => None,
            Some(group) if self.group == Some(group) => None,
            Some(_) => Some(format!("{DEVICE} is of another group than when the suite started: start it anew")),
            None => Some(format!(
                "machines have uids of their own, which may not open {DEVICE} (mode {:03o}, group {}): chgrp kvm {DEVICE}; chmod 660 {DEVICE}",
                meta.mode() & 0o777,
                meta.gid()
            )),
        }
    }
}
