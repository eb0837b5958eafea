//! FreeBSD only.

pub mod inet6;
pub mod net;
pub mod netgraph;
pub mod pf;
pub mod vxlan;
pub mod wg;

pub mod ask;
pub mod bpf;
pub mod cpu;
pub mod devfs;
pub mod ggate;
pub mod jail;
pub mod process;
pub mod rctl;
pub mod routes;
pub mod vmm;
pub mod zfs;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Process id at the other end of a UNIX socket (`cr_pid` of `LOCAL_PEERCRED`, unix(4), FreeBSD 13).
pub fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<i32> {
    const SOL_LOCAL: libc::c_int = 0;
    // SAFETY: an all-zero xucred is a valid value of that plain C struct.
    let mut cred: libc::xucred = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::xucred>() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `size` bytes into `cred`, both live locals.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), SOL_LOCAL, libc::LOCAL_PEERCRED, (&raw mut cred).cast(), &raw mut size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: cr_pid shares its union with a pointer that the kernel never gives to user space; any bits are a valid pid_t.
    Ok(unsafe { cred.cr_pid__c_anonymous_union.cr_pid })
}

/// Makes a terminal and its other side (pts(4)), without the library that has openpty(3): its number is another from release to release.
pub fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, open};
    use nix::pty::{grantpt, posix_openpt, ptsname, unlockpt};
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    // SAFETY: ptsname(3) fills a buffer of the library's, which nix copies at once; no other thread of a program of ours calls it.
    let name = unsafe { ptsname(&master)? };
    Ok((master.into(), open(name.as_str(), flags, nix::sys::stat::Mode::empty())?))
}

/// Has this process killed when its parent ends (`PROC_PDEATHSIG_CTL`, procctl(2)).
pub fn die_with_parent() -> io::Result<()> {
    let mut signal: libc::c_int = libc::SIGKILL;
    // SAFETY: procctl(2) reads one int through the pointer, which is to a live local.
    let result = unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_PDEATHSIG_CTL, (&raw mut signal).cast()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connects a UNIX socket by a path relative to an open directory (connectat(2)).
pub fn connectat(dir: BorrowedFd<'_>, socket: BorrowedFd<'_>, address: &nix::sys::socket::UnixAddr) -> io::Result<()> {
    use nix::sys::socket::SockaddrLike;
    unsafe extern "C" {
        // The libc crate lacks it (sys/socket.h).
        fn connectat(fd: libc::c_int, s: libc::c_int, name: *const libc::sockaddr, namelen: libc::socklen_t) -> libc::c_int;
    }
    // SAFETY: the address is a live sockaddr_un of the length that goes with it.
    let result = unsafe { connectat(dir.as_raw_fd(), socket.as_raw_fd(), address.as_ptr().cast(), address.len()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel knows this sysctl(3) name: a loaded module or a compiled-in feature shows itself so.
pub fn has_sysctl(name: &std::ffi::CStr) -> bool {
    // SAFETY: the name ends in NUL; no value is read or written.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null(), 0) };
    // A name for others below it has no value of its own.
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EISDIR)
}

/// An integer of sysctl(3), by its name.
pub fn sysctl_number(name: &std::ffi::CStr) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>();
    let at = (&raw mut value).cast();
    // SAFETY: the name ends in NUL; at most `size` bytes, those of a live local, are written.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), at, &raw mut size, std::ptr::null(), 0) };
    match size {
        _ if result != 0 => Err(io::Error::last_os_error()),
        4 => Ok(value),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Sets an integer of sysctl(3), by its name.
pub fn set_sysctl_number(name: &std::ffi::CStr, value: i32) -> io::Result<()> {
    let new = (&raw const value).cast();
    // SAFETY: the name ends in NUL; as many bytes are read as the live local has, and nothing is written.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), new, size_of::<i32>()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel has this module, loaded or compiled in (modfind(2)).
pub fn has_module(name: &std::ffi::CStr) -> bool {
    unsafe extern "C" {
        // The libc crate lacks it (sys/module.h).
        fn modfind(name: *const libc::c_char) -> libc::c_int;
    }
    // SAFETY: the name ends in NUL and is read only.
    unsafe { modfind(name.as_ptr()) >= 0 }
}

/// The interface that an open tap(4) is (`TAPGIFNAME`). Fails for any other descriptor.
pub fn tap_name(tap: BorrowedFd<'_>) -> io::Result<String> {
    const TAPGIFNAME: libc::c_ulong = 0x4020_745d;
    // struct ifreq: the name, then a union that is not used here.
    let mut request = [0u8; 32];
    // SAFETY: the request writes a struct ifreq, whose size it encodes: 32 bytes, a live local.
    if unsafe { libc::ioctl(tap.as_raw_fd(), TAPGIFNAME, request.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8(name.to_vec()).map_err(io::Error::other)
}

/// `kern.osreldate`: 1302001 is 13.2.
pub fn release_date() -> io::Result<i32> {
    const CTL_KERN: libc::c_int = 1;
    const KERN_OSRELDATE: libc::c_int = 24;
    let bytes = ask::sysctl(&[CTL_KERN, KERN_OSRELDATE])?;
    let bytes: Option<[u8; 4]> = bytes.get(..4).and_then(|b| b.try_into().ok());
    bytes.map(i32::from_ne_bytes).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}
