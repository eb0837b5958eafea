//! Mounts by descriptor: a process that may not pass the host's directories can still be given one as its root.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A detached copy of the mount that the current directory is in, with the current directory as its root (`OPEN_TREE_CLONE`,
/// open_tree(2)). It goes when the descriptor is closed, unless it was attached.
pub fn clone_here() -> io::Result<OwnedFd> {
    clone_of(c".")
}

/// The same for one file or directory by path (not following into mounts below it).
pub fn clone_of(path: &CStr) -> io::Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, path, 0)
}

/// The same for an opened directory (`O_PATH` will do). `EINVAL`: in this user namespace, what is mounted below it may not be left out.
pub fn clone_at(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_tree(dir.as_raw_fd(), c"", libc::AT_EMPTY_PATH as libc::c_uint)
}

fn open_tree(dir: RawFd, path: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let flags = flags | OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path is NUL-terminated; the rest are integers.
    let fd = checked(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached mount at `path`, relative to the current directory (move_mount(2)).
pub fn attach(tree: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: both paths are NUL-terminated; the rest are integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    checked(result).map(|_| ())
}

/// What a mount forbids.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forbid {
    /// Writing.
    pub write: bool,
    /// Executing files.
    pub exec: bool,
    /// Using device nodes.
    pub devices: bool,
    /// Following symbolic links.
    pub links: bool,
}

/// Sets what a mount forbids, beside set-user-id files (mount_setattr(2)). Nothing that it forbade before is allowed again.
pub fn forbid(tree: BorrowedFd<'_>, what: Forbid) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const MOUNT_ATTR_NOSUID: u64 = 2;
    const MOUNT_ATTR_NODEV: u64 = 4;
    const MOUNT_ATTR_NOEXEC: u64 = 8;
    const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
    let pick = |on: bool, flag: u64| if on { flag } else { 0 };
    let attr = MountAttr {
        set: MOUNT_ATTR_NOSUID
            | pick(what.write, MOUNT_ATTR_RDONLY)
            | pick(what.exec, MOUNT_ATTR_NOEXEC)
            | pick(what.devices, MOUNT_ATTR_NODEV)
            | pick(what.links, MOUNT_ATTR_NOSYMFOLLOW),
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    // SAFETY: the path is NUL-terminated, `attr` is a live local of the size that is given with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint,
            (&raw const attr).cast::<libc::c_void>(),
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(|_| ())
}
