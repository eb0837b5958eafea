//! A child of a helper, made without exec: it lives no longer than its parent, and its end is never awaited for long.

use std::io;

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The parent; dropping the child ends it.
    Parent(Child),
    /// The child.
    Child,
}

/// A running child. When this is dropped it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    #[cfg(target_os = "linux")]
    pid: nix::unistd::Pid,
    #[cfg(target_os = "freebsd")]
    process: std::os::fd::OwnedFd,
}

/// fork(2) of a single-threaded process. The child is killed when the parent ends.
#[cfg(target_os = "linux")]
pub fn fork() -> io::Result<Forked> {
    let parent = nix::unistd::getpid();
    match crate::process::fork()? {
        crate::process::Fork::Parent(pid) => Ok(Forked::Parent(Child { pid: nix::unistd::Pid::from_raw(pid) })),
        crate::process::Fork::Child => {
            let bound = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            // The parent may have died before the line above.
            if bound.is_err() || nix::unistd::getppid() != parent {
                crate::process::exit_now(1);
            }
            Ok(Forked::Child)
        }
    }
}

/// pdfork(2) of a single-threaded process: works in capability mode, and closing the descriptor kills the child.
#[cfg(target_os = "freebsd")]
pub fn fork() -> io::Result<Forked> {
    use std::os::fd::FromRawFd;
    let mut fd: libc::c_int = -1;
    // SAFETY: pdfork(2) writes one descriptor number; our helpers are single-threaded, so the child's memory is consistent.
    match unsafe { libc::pdfork(&raw mut fd, libc::PD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: pdfork has just made this descriptor for us.
        _ => Ok(Forked::Parent(Child { process: unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) } })),
    }
}

impl Child {
    /// The descriptor that it hangs on, where it does (FreeBSD).
    pub fn held(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        #[cfg(target_os = "freebsd")]
        return Some(std::os::fd::AsFd::as_fd(&self.process));
        #[cfg(target_os = "linux")]
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Child {
    fn drop(&mut self) {
        // Until it is reaped here, the number cannot belong to anybody else.
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        while nix::sys::wait::waitpid(self.pid, None) == Err(nix::errno::Errno::EINTR) {}
    }
}

#[cfg(target_os = "freebsd")]
impl Drop for Child {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
        let _ = crate::freebsd::process::signal(self.process.as_fd(), libc::SIGKILL);
        // What it had open is closed when the descriptor hangs up, and not before: a volume could not be destroyed.
        let mut waits = [nix::poll::PollFd::new(self.process.as_fd(), nix::poll::PollFlags::empty())];
        while nix::poll::poll(&mut waits, nix::poll::PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    }
}
