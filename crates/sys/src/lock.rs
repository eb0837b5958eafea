//! Locks of whole files that show who holds them (`F_SETLK`, `F_GETLK`: fcntl(2)). A lock ends with its process, whatever ends that.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn whole(kind: libc::c_int) -> libc::flock {
    // SAFETY: an all-zero flock is a valid value of that plain C struct: from the beginning, to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

fn ask(fd: BorrowedFd<'_>, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the pointer is to a live flock, which these three commands take.
        if unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut *lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes the lock; false if another process has it. The file must be open for writing. Closing any descriptor of the file in this
/// process gives the lock back.
pub fn take(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match ask(fd, libc::F_SETLK, &mut whole(libc::F_WRLCK as libc::c_int)) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until nobody has the lock. The file may be open for reading only.
pub fn wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    ask(fd, libc::F_SETLKW, &mut whole(libc::F_RDLCK as libc::c_int))?;
    ask(fd, libc::F_SETLK, &mut whole(libc::F_UNLCK as libc::c_int))
}

/// The process that has the lock.
pub fn holder(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut lock = whole(libc::F_WRLCK as libc::c_int);
    ask(fd, libc::F_GETLK, &mut lock)?;
    Ok((lock.l_type != whole(libc::F_UNLCK as libc::c_int).l_type).then_some(lock.l_pid))
}
