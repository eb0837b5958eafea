//! Linux.

use crate::zfs::Volumes;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use skep_service::{Start, StartError};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Where the template of UEFI variables lies below `STATE/cell` (Debian's ovmf).
pub const VARS_TEMPLATE: &str = "root/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Why there are no volumes.
pub const NO_VOLUMES: &str = "ZFS volumes are FreeBSD's; use raw or qcow2";

/// Linux has none.
pub fn volumes(_start: &Start, _dataset: &str) -> Result<Volumes, StartError> {
    Err(StartError::Flags(format!("--zfs-dataset: {NO_VOLUMES}")))
}

/// QEMU writes through for itself, and refuses a descriptor with `O_SYNC` (util/osdep.c, qemu_dup_flags).
pub fn cache_flags(_no_cache: bool, _sync: bool) -> OFlag {
    OFlag::empty()
}

/// From version 9.1 QEMU wants `O_DIRECT` on the descriptor just as it is to be on its own (monitor/fds.c).
pub fn set_cache(file: BorrowedFd<'_>, no_cache: bool) -> io::Result<()> {
    if !no_cache {
        return Ok(());
    }
    let now = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(now | OFlag::O_DIRECT))?;
    Ok(())
}

/// Takes the blocks of a part of a file away: it reads as zeros.
pub fn punch(file: &File, part: Range<u64>) -> io::Result<()> {
    let of = |bytes| i64::try_from(bytes).map_err(io::Error::other);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, of(part.start)?, of(part.end.saturating_sub(part.start))?)?)
}

/// Makes `to` share all blocks of `from`.
pub fn reflink(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<()> {
    skep_sys::linux::reflink(to, from)
}

/// Type of the file system of `fd`: its name if it is a usual one, else its number (statfs(2)).
pub fn filesystem(fd: BorrowedFd<'_>) -> io::Result<String> {
    use nix::sys::statfs::*;
    const NAMES: [(FsType, &str); 7] = [
        (EXT4_SUPER_MAGIC, "ext4"),
        (XFS_SUPER_MAGIC, "xfs"),
        (BTRFS_SUPER_MAGIC, "btrfs"),
        (TMPFS_MAGIC, "tmpfs"),
        (OVERLAYFS_SUPER_MAGIC, "overlay"),
        (NFS_SUPER_MAGIC, "nfs"),
        (FsType(0x2fc1_2fc1), "zfs"),
    ];
    let kind = fstatfs(fd)?.filesystem_type();
    let known = NAMES.iter().find(|(known, _)| *known == kind);
    Ok(known.map_or_else(|| format!("{:#x}", kind.0), |(_, name)| (*name).to_owned()))
}
