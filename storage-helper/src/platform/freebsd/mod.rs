//! FreeBSD.

mod zfs;

pub use zfs::volumes;

use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Where the template of UEFI variables lies below `STATE/cell` (edk2-bhyve).
pub const VARS_TEMPLATE: &str = "root/usr/local/share/uefi-firmware/BHYVE_UEFI_VARS.fd";

/// Why there are no volumes.
pub const NO_VOLUMES: &str = "the suite was started without a ZFS dataset (`skep up --zfs-dataset POOL/NAME`); use raw or qcow2";

/// FreeBSD has no request of its own for this: copy_file_range(2) shares blocks where ZFS can, and does not say whether it did.
pub fn reflink(_to: BorrowedFd<'_>, _from: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Before 14 there is no call for that, and nothing here runs from QCOW2 images.
pub fn punch(_file: &File, _part: Range<u64>) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// bhyve's own flags are lost at a descriptor that is opened already (fdescfs(5)): `nocache` is `O_DIRECT`, `sync` is `O_SYNC`.
pub fn cache_flags(no_cache: bool, sync: bool) -> OFlag {
    let one = |on, flag| if on { flag } else { OFlag::empty() };
    one(no_cache, OFlag::O_DIRECT) | one(sync, OFlag::O_SYNC)
}

/// It was opened so.
pub fn set_cache(_file: BorrowedFd<'_>, _no_cache: bool) -> io::Result<()> {
    Ok(())
}

/// Type of the file system of `fd` (statfs(2)).
pub fn filesystem(fd: BorrowedFd<'_>) -> io::Result<String> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type_name().to_owned())
}
