//! The structure that each request to `/dev/zfs` carries (`zfs_cmd_t`), as bytes: the fields that are used here, which have stood at the
//! same places since OpenZFS 2.0. Its pointers are set where the request is made.

use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of a command: more than any release's structure has.
pub const ROOM: usize = 16 << 10;

/// The requests that are made, by number. The table of rights holds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request {
    Stats = 0x12,
    NextDataset = 0x14,
    NextSnapshot = 0x15,
    SetProperties = 0x16,
    Create = 0x17,
    Destroy = 0x18,
    RollBack = 0x19,
    Promote = 0x22,
    Snapshot = 0x23,
    Allow = 0x28,
    DestroySnapshots = 0x3b,
    Clone = 0x42,
}

const NAME: usize = 1024;
const COOKIE: usize = 3400;

/// The kernel, or one that is made up for a test.
pub trait Kernel {
    /// Makes a request. Gives the packed list of the answer, empty if there is none.
    fn request(&self, request: Request, command: &mut Command, source: &[u8]) -> io::Result<Vec<u8>>;

    /// The open `/dev/zfs`.
    fn held(&self) -> Option<BorrowedFd<'_>>;
}

/// The structure.
#[derive(Debug, Clone)]
pub struct Command(Box<[u8]>);

impl Command {
    /// About a dataset, volume or snapshot.
    pub fn about(name: &str) -> Self {
        let mut bytes = vec![0; ROOM].into_boxed_slice();
        // Names are at most 255 bytes long; see `names`.
        for (place, byte) in bytes.iter_mut().take(NAME - 1).zip(name.bytes()) {
            *place = byte;
        }
        Self(bytes)
    }

    /// Whom it is about: requests for the next of a list write it here.
    pub fn name(&self) -> Option<&str> {
        let name = self.0.get(..NAME)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(name.get(..end)?).ok()
    }

    /// Where in a list it is.
    pub fn cookie(&self) -> u64 {
        let bytes = self.0.get(COOKIE..COOKIE + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }

    /// Where in a list to go on.
    #[must_use]
    pub fn from(mut self, cookie: u64) -> Self {
        if let Some(place) = self.0.get_mut(COOKIE..COOKIE + 8) {
            place.copy_from_slice(&cookie.to_ne_bytes());
        }
        self
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// How many bytes the answer's list had, or would have needed.
    pub fn answered(&self) -> usize {
        const SIZE: usize = 1048;
        const FILLED: usize = 1056;
        let word = |at: usize| self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
        // A boolean of 32 bits.
        if word(FILLED) & 0xffff_ffff == 0 { 0 } else { usize::try_from(word(SIZE)).unwrap_or(usize::MAX) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_has_them() {
        let mut command = Command::about("pool/skep").from(7);
        assert_eq!((command.name(), command.cookie(), command.answered()), (Some("pool/skep"), 7, 0));
        assert_eq!(command.bytes()[..10], *b"pool/skep\0");
        assert_eq!(command.bytes()[3400], 7);
        command.bytes()[1048..1052].copy_from_slice(&900u32.to_ne_bytes());
        assert_eq!(command.answered(), 0);
        command.bytes()[1056] = 1;
        assert_eq!(command.answered(), 900);
        command.bytes()[..1024].fill(b'x');
        assert_eq!(command.name(), None);
        command.bytes()[0] = 0xff;
        command.bytes()[1] = 0;
        assert_eq!(command.name(), None);
    }
}
