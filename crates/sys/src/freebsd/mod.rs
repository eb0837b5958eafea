//! FreeBSD only.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Process id at the other end of a UNIX socket (`cr_pid` of `LOCAL_PEERCRED`, unix(4), FreeBSD 13).
pub fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<i32> {
    const SOL_LOCAL: libc::c_int = 0;
    // SAFETY: an all-zero xucred is a valid value of that plain C struct.
    let mut cred: libc::xucred = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::xucred>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `size` bytes into `cred`, both live locals.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), SOL_LOCAL, libc::LOCAL_PEERCRED, (&raw mut cred).cast(), &raw mut size)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: cr_pid shares its union with a pointer that the kernel never gives to user space; any bits are a valid pid_t.
    Ok(unsafe { cred.cr_pid__c_anonymous_union.cr_pid })
}

/// Has this process killed when its parent ends (`PROC_PDEATHSIG_CTL`, procctl(2)).
pub fn die_with_parent() -> io::Result<()> {
    let mut signal: libc::c_int = libc::SIGKILL;
    // SAFETY: procctl(2) reads one int through the pointer, which is to a live local.
    let result = unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_PDEATHSIG_CTL, (&raw mut signal).cast()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
