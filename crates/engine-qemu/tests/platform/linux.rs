use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};

/// A tap of that name, or `None` without the right to make one.
pub fn tap(name: &str) -> Option<OwnedFd> {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").ok()?;
    skep_sys::linux::tun::set_tap(tun.as_fd(), name).ok().map(|()| tun.into())
}
