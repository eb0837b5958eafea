//! Descriptors: inherited ones taken over, flags, memory files.

use nix::fcntl::{FcntlArg, FdFlag, OFlag, SealFlag, fcntl};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes over an inherited descriptor by number. Fails if it is not open or is one of the standard three.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the borrow lasts for one fcntl call, which fails cleanly on a number that is not open.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(probe, FcntlArg::F_GETFD)?;
    // SAFETY: it is open, and by contract of our programs an inherited number is named once, at the start of main.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(owned.as_fd(), true)?;
    Ok(owned)
}

/// Has a child that executes a program not get the inherited descriptor `number`. Fails if it is not open or is one of the standard
/// three.
pub fn keep_from_children(number: RawFd) -> io::Result<()> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the borrow lasts for one fcntl call, which fails cleanly on a number that is not open.
    set_cloexec(unsafe { BorrowedFd::borrow_raw(number) }, true)
}

/// A value and the descriptors that it opened and keeps without showing them, as a library does with its files.
#[derive(Debug)]
pub struct Opened<T> {
    value: T,
    numbers: Vec<RawFd>,
}

impl<T> Opened<T> {
    /// Makes the value, in a process of one thread that holds few descriptors (numbers below 1,024).
    pub fn by<E>(make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let open = || (3..1024).filter(|n| is_open(*n)).collect::<Vec<RawFd>>();
        let before = open();
        let value = make()?;
        let numbers = open().into_iter().filter(|n| !before.contains(n)).collect();
        Ok(Self { value, numbers })
    }
    /// Its descriptors; it must not be asked to close one of them while they are in use.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        // SAFETY: the value opened them and keeps them as long as it lives, by the contract of this type.
        self.numbers.iter().map(|n| unsafe { BorrowedFd::borrow_raw(*n) }).collect()
    }
    /// The value.
    pub fn into_inner(self) -> T {
        self.value
    }
}

/// How many descriptors this process has, of those below 1,024.
pub fn count() -> usize {
    (0..1024).filter(|number| is_open(*number)).count()
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: the borrow lasts for one fcntl call, which fails cleanly on a number that is not open.
    fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD).is_ok()
}

/// Sets or clears close-on-exec.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Sets or clears non-blocking.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Puts `fd` at exactly `number`, inheritable: for a child between fork and exec.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    if fd.as_raw_fd() == number {
        return set_cloexec(fd, false);
    }
    // SAFETY: dup2 takes two integers; what stood at `number` in this child is closed on purpose.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts each of `plan` at its number, inheritable, and closes everything else above the standard three: for a child between fork and
/// exec. Sources and targets may overlap.
pub fn arrange(plan: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
    let above = plan.iter().map(|(_, number)| number + 1).max().unwrap_or(3).max(3);
    let mut spare = Vec::new();
    for (fd, _) in plan {
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: the kernel has just made this descriptor for us.
        spare.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    for (fd, (_, number)) in spare.iter().zip(plan) {
        place(fd.as_fd(), *number)?;
    }
    drop(spare);
    close_all_but(&plan.iter().map(|(_, number)| *number).collect::<Vec<_>>())
}

/// An anonymous memory file.
pub fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    make_memory_file(name, 0)
}

/// One that holds these bytes, and which nobody can change any more.
pub fn sealed_memory_file(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::from(make_memory_file(name, libc::MFD_ALLOW_SEALING)?);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALED | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// Whether a descriptor is a memory file whose bytes nobody can change any more.
pub fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SEALED))
}

const SEALED: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

fn make_memory_file(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: memfd_create(2) reads a NUL-terminated name, which a CStr is.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: memfd_create has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor above the standard three that is not in `keep`, in this process.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut next = 3;
    for fd in keep {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: close_range(2) takes three integers; owners of these numbers are gone (called between fork and exec, or at the
    // very start of main).
    let result = unsafe { libc::close_range(first as libc::c_uint, last as libc::c_uint, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
