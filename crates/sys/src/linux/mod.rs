//! Linux only.

pub mod mount;
pub mod packet;

pub mod tun;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor of the process at the other end of a UNIX socket (`SO_PEERPIDFD`, Linux 6.5): immune to reuse of its number.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: RawFd = -1;
    let mut size = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `size` bytes into `fd`, both live locals.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of a process (pidfd_open(2)); readable when it has ended.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal through a process descriptor (pidfd_send_signal(2)).
pub fn pidfd_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed, the rest are integers.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Soft and hard `RLIMIT_FSIZE` of another process of ours (prlimit(2)).
fn file_limits(pid: i32) -> io::Result<libc::rlimit64> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written into a live local of the right type, and no new one is read.
    let result = unsafe { libc::prlimit64(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &raw mut now) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(now) }
}

/// Bytes that a file of another process of ours may come to have by its doing: the soft limit.
pub fn file_limit(pid: i32) -> io::Result<u64> {
    file_limits(pid).map(|now| now.rlim_cur)
}

/// Sets that; `EINVAL`: the bound above it, which stays, is lower.
pub fn set_file_limit(pid: i32, bytes: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: bytes, ..file_limits(pid)? };
    // SAFETY: the new limit is a live local of the right type, and no old one is written.
    let result = unsafe { libc::prlimit64(pid, libc::RLIMIT_FSIZE, &raw const new, std::ptr::null_mut()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `to` share all blocks of `from` (`FICLONE`, ioctl_ficlone(2)). Both are regular files of one file system that can.
pub fn reflink(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes an integer, the number of the source's descriptor.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Protocol of a socket that another process holds (`UNIX-STREAM`, `NETLINK`, `TCP`), by its `/proc/PID/fd/N`: the attribute
/// `system.sockprotoname` that the kernel gives every socket, whatever network namespace it is of.
pub fn socket_protocol(path: &std::ffi::CStr) -> io::Result<String> {
    let mut buffer = [0u8; 64];
    // SAFETY: both strings end in NUL, and at most `buffer.len()` bytes are written into a live local.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let name = buffer.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

/// The version of Landlock that the kernel has (landlock_create_ruleset(2) with `LANDLOCK_CREATE_RULESET_VERSION`).
pub fn landlock_abi() -> io::Result<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with that flag the call takes a null pointer and size 0, and makes nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION) };
    if abi < 0 { Err(io::Error::last_os_error()) } else { Ok(abi) }
}
