//! A timer that can be waited for like any descriptor (timerfd_create(2)).

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// One timer; readable when it has rung.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// One that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }
    /// Rings once, after `wait`.
    pub fn set(&self, wait: Duration) -> io::Result<()> {
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        Ok(self.0.set(once, TimerSetTimeFlags::empty())?)
    }
    /// Does not ring any more.
    pub fn clear(&self) -> io::Result<()> {
        Ok(self.0.unset()?)
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
