//! Layers that disks stand on, and their size.

use super::Runner;
use super::serve::{Answer, object};
use crate::platform::Engine;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use skep_machine::limits;
use skep_proto::cell::FdRole;
use skep_proto::runner::{DiskSwitch, Done, GrowDisk, LayerPlace};
use skep_proto::{MAX_FDS, Reason, Refusal, UpTo};
use skep_rights::runner::TABLE;
use std::os::fd::{AsFd, OwnedFd};

impl Runner {
    /// Keeps them for the hypervisor's next start.
    pub(super) fn keep_layers(&mut self, places: &[LayerPlace], UpTo(fds): UpTo<MAX_FDS>) -> Answer<Done> {
        let wrong = |note: &str| Err(Refusal::new(Reason::InvalidValue, object(self)).field("layers").note(note));
        if !Engine::LAYERS {
            return Err(Refusal::new(Reason::Unsupported, object(self)).field("layers").note("its disks stand on nothing"));
        }
        if places.len() != fds.len() {
            return wrong("as many places as descriptors are expected");
        }
        for (place, fd) in places.iter().zip(&fds) {
            if place.slot >= limits::DISKS || usize::from(place.at) >= limits::LAYERS {
                return wrong("there is no such place");
            }
            if mode(fd) != Some(OFlag::O_RDONLY) {
                return wrong("a file is expected, opened for reading only");
            }
            skep_sandbox::limit_one(&TABLE, "disk", fd.as_fd())
                .map_err(|e| Refusal::new(Reason::Internal, object(self)).note(e.to_string()))?;
        }
        for (place, fd) in places.iter().zip(fds) {
            self.kit.layers.retain(|(there, _)| there != place);
            self.kit.layers.push((*place, fd));
        }
        Ok((Done {}, []))
    }

    /// Has disks go on in other files.
    pub(super) fn switch_disks(&mut self, disks: &[DiskSwitch], UpTo(fds): UpTo<MAX_FDS>) -> Answer<Done> {
        let wrong = |note: &str| Refusal::new(Reason::InvalidValue, object(self)).field("disks").note(note);
        self.engine_up()?;
        let mut fds = fds.into_iter();
        let config = fds.next().ok_or_else(|| wrong("the configuration is missing"))?;
        self.check_config(&config)?;
        let tops: Vec<OwnedFd> = fds.collect();
        if tops.len() != disks.len() {
            return Err(wrong("as many disks as descriptors are expected"));
        }
        for (at, (disk, fd)) in disks.iter().zip(&tops).enumerate() {
            let has = |role: &FdRole| *role == FdRole::Disk(disk.slot);
            if disks.iter().take(at).any(|other| other.slot == disk.slot) || !self.kit.fds.iter().any(|(role, _)| has(role)) {
                return Err(wrong("there is no such disk, or it is there twice"));
            }
            let under = disk.at.checked_sub(1).map(|at| LayerPlace { slot: disk.slot, at });
            let kept = |place: LayerPlace| self.kit.layers.iter().any(|(there, _)| *there == place);
            if usize::from(disk.at) > limits::LAYERS || !under.is_some_and(kept) {
                return Err(wrong("what it is to stand on has not come"));
            }
            if mode(fd) != Some(OFlag::O_RDWR) {
                return Err(wrong("a file is expected, opened for reading and writing"));
            }
            skep_sandbox::limit_one(&TABLE, "disk", fd.as_fd())
                .map_err(|e| Refusal::new(Reason::Internal, object(self)).note(e.to_string()))?;
        }
        let due: Vec<(DiskSwitch, OwnedFd)> =
            disks.iter().copied().zip(tops).filter(|(disk, _)| self.switched.get(&disk.slot) != Some(&disk.top)).collect();
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        let switched = if due.is_empty() { Ok(()) } else { engine.switch_disks(&due) };
        // One that does not answer may have done it. What it is started with next reads right either way: the new files stand on the old.
        if switched.as_ref().is_err_and(|refusal| refusal.reason != Reason::Timeout) {
            return switched.map(|()| (Done {}, []));
        }
        self.put(FdRole::Config, config)?;
        for (disk, fd) in due {
            self.put(FdRole::Disk(disk.slot), fd)?;
            self.switched.insert(disk.slot, disk.top);
        }
        switched.map(|()| (Done {}, []))
    }
}

impl Runner {
    /// Has a disk become larger.
    pub(super) fn grow_disk(&mut self, disk: &GrowDisk) -> Answer<Done> {
        let wrong = |field: &str, note: &str| Refusal::new(Reason::InvalidValue, object(self)).field(field).note(note);
        self.engine_up()?;
        if !self.kit.fds.iter().any(|(role, _)| *role == FdRole::Disk(disk.slot)) {
            return Err(wrong("slot", "there is no such disk"));
        }
        if disk.size == 0 || !disk.size.is_multiple_of(512) {
            return Err(wrong("size", "a multiple of 512 is expected"));
        }
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        let grown = engine.grow_disk(disk.slot, disk.size, disk.most);
        // One that does not answer may have done it. The one that a reboot starts needs the room, too.
        if grown.as_ref().is_ok() || grown.as_ref().is_err_and(|refusal| refusal.reason == Reason::Timeout) {
            self.kit.file_limit = self.kit.file_limit.max(disk.most);
        }
        grown.map(|()| (Done {}, []))
    }
}

/// How a file is open; none: it is no file.
fn mode(fd: &OwnedFd) -> Option<OFlag> {
    let file = fstat(fd).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.ok().filter(|_| file).map(|flags| flags & OFlag::O_ACCMODE)
}
