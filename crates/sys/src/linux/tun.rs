//! Taps (Documentation/networking/tuntap.rst).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `TUNSETIFF`: makes a tap called `name`, which lives as long as `tun`, an open `/dev/net/tun`. Frames have a virtio header and no
/// packet information. `EBUSY` if the name is taken; `EPERM` without `CAP_NET_ADMIN`.
pub fn set_tap(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // The kernel's field is a short; the sign bit is one of the flags.
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: FLAGS as libc::c_short },
    };
    // The last byte stays NUL.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['\0', '%']) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is a live local.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
