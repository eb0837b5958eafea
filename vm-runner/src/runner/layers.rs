//! Layers that disks stand on.

use super::Runner;
use super::serve::{Answer, object};
use crate::platform::Engine;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use skep_machine::limits;
use skep_proto::runner::{Done, LayerPlace};
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
            if !is_to_read(fd) {
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
}

/// Whether it is a file that cannot be written.
fn is_to_read(fd: &OwnedFd) -> bool {
    let file = fstat(fd).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    file && flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDONLY)
}
