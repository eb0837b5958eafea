//! bhyve's side of a machine, as pure code: model to a bhyve_config(5) file, exit to a verdict.
//!
//! bhyve(8) passes over keys that it does not know without a word, so only keys of one typed table ([`Key`]) can be written, each only
//! for the releases that have it. Disks, serial ports and the variable store are inherited descriptors, opened through fdescfs
//! (`/dev/fd/N`); taps are names that the cell's devfs points at descriptors.
//!
//! The file's descriptor shares its offset with every earlier reader: rewind it before each start, or bhyve reads an empty file.
#![forbid(unsafe_code)]

mod ended;
mod keys;
mod machine;
mod names;

pub use ended::ended;
pub use keys::{Key, Pci, Unwritable, items};
pub use machine::{Error, argv, boot_path, configure, largest_screen};
pub use names::{Names, ScreenAddress, item_file};
pub use skep_machine::{Ended, Exit};

/// The hypervisor in the cell.
pub const BINARY: &str = "/usr/sbin/bhyve";
/// UEFI firmware in the cell's root (package edk2-bhyve): its code alone. bhyve puts the variable store right below it, where this code
/// looks for one; BHYVE_UEFI.fd has a store of its own there, read-only, and keeps nothing.
pub const UEFI_CODE: &str = "/usr/local/share/uefi-firmware/BHYVE_UEFI_CODE.fd";
/// What a new variable store is copied from, on the host.
pub const UEFI_VARS: &str = "/usr/local/share/uefi-firmware/BHYVE_UEFI_VARS.fd";

/// A release of FreeBSD, as far as its bhyve differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BhyveRelease {
    /// 13.2 and later 13.
    V13,
    /// 14.
    V14,
    /// 15 and later.
    V15,
}

impl BhyveRelease {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V13, Self::V14, Self::V15];

    /// From `kern.osreldate`; `None` for what is older than 13.2.
    pub const fn from_osreldate(date: u32) -> Option<Self> {
        match date {
            0..1_302_000 => None,
            1_302_000..1_400_000 => Some(Self::V13),
            1_400_000..1_500_000 => Some(Self::V14),
            _ => Some(Self::V15),
        }
    }
}
