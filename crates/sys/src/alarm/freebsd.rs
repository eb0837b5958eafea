//! A timer that can be waited for like any descriptor (kqueue(2), `EVFILT_TIMER`).

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One timer; readable when it has rung.
#[derive(Debug)]
pub struct Alarm(Kqueue);

impl Alarm {
    /// One that is not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Kqueue::new()?))
    }
    /// Rings once, after `wait`.
    pub fn set(&self, wait: Duration) -> io::Result<()> {
        let ms = isize::try_from(wait.as_millis()).unwrap_or(isize::MAX);
        self.change(EvFlags::EV_ADD | EvFlags::EV_ONESHOT, ms)
    }
    /// Does not ring any more.
    pub fn clear(&self) -> io::Result<()> {
        match self.change(EvFlags::EV_DELETE, 0) {
            // It was not set, or has rung and is waiting to be read.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn change(&self, flags: EvFlags, ms: isize) -> io::Result<()> {
        let timer = KEvent::new(0, EventFilter::EVFILT_TIMER, flags, FilterFlag::empty(), ms, 0);
        self.0.kevent(&[timer], &mut [], None)?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
