//! Packet sockets (packet(7)): the frames of one interface.

use crate::frames::{FROM_GUEST, FROM_GUEST_6, Step, UNTAGGED};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `SOL_PACKET`, `PACKET_IGNORE_OUTGOING` (linux/if_packet.h), which the libc crate lacks.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A non-blocking socket that gets what a guest sends to its services over the interface with this index, and sends to it. Its filter
/// is locked, and was there before the first frame. `v6`: of IPv6, too. Takes `CAP_NET_RAW`.
pub fn port(interface_index: u32, v6: bool) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Of no protocol: until it is bound nothing is received.
    // SAFETY: three integers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let from_guest = if v6 { &FROM_GUEST_6[..] } else { &FROM_GUEST[..] };
    let mut steps = [&UNTAGGED[..], from_guest].concat();
    // Read only; its layout is that of a `sock_filter`.
    let program = libc::sock_fprog { len: steps.len() as libc::c_ushort, filter: steps.as_mut_ptr().cast() };
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1)?;
    set(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1)?;
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface_index.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a live local of the length that goes with it.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound != 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

const _: () = assert!(size_of::<Step>() == size_of::<libc::sock_filter>());

/// Whether a descriptor is a packet socket with whole frames whose filter is locked.
pub fn is_port(fd: BorrowedFd<'_>) -> bool {
    let is = |option, value| get(fd, option).is_ok_and(|found| found == value);
    is(libc::SO_DOMAIN, libc::AF_PACKET) && is(libc::SO_TYPE, libc::SOCK_RAW) && is(libc::SO_LOCK_FILTER, 1)
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: setsockopt(2) reads `size` bytes of the live value, which is of the option's type; a filter's steps live on in the caller.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: at most `size` bytes are written into a live local.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut size) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
