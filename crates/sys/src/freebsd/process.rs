//! Process descriptors (pdfork(2)): to wait for and to signal without numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The parent: the child's process id, and a descriptor that hangs up (`POLLHUP`) when it ends. Closing it kills the child.
    Parent(i32, OwnedFd),
    /// The child.
    Child,
}

/// pdfork(2) of a single-threaded process.
pub fn fork() -> io::Result<Fork> {
    let mut fd: libc::c_int = -1;
    // SAFETY: pdfork(2) writes one descriptor number; our helpers are single-threaded, so the child's memory is consistent.
    match unsafe { libc::pdfork(&raw mut fd, libc::PD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        // SAFETY: pdfork has just made this descriptor for us.
        pid => Ok(Fork::Parent(pid, unsafe { OwnedFd::from_raw_fd(fd) })),
    }
}

/// Has the kernel spare this process, and all that it starts from now on, when memory and swap run out (`PROC_SPROTECT`, procctl(2)).
/// Root's, outside of a jail.
pub fn protect() -> io::Result<()> {
    // sys/procctl.h: PPROT_SET | PPROT_INHERIT.
    let mut operation: libc::c_int = 1 | 0x20;
    // SAFETY: procctl(2) reads one int through the pointer, which is to a live local; 0 is this process.
    let result = unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_SPROTECT, (&raw mut operation).cast()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals the process (pdkill(2)).
pub fn signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: two integers.
    if unsafe { libc::pdkill(process.as_raw_fd(), signal) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
