//! IPv6 addresses of interfaces by ioctl (inet6(4), netinet6/in6_var.h, nd6.h), on a socket of `AF_INET6`. Sizes and numbers are those of
//! 64-bit FreeBSD, the same from 13 to 15.

use super::net::{IN, OUT, control, name, request};
use libc::{c_char, c_ulong, sockaddr_in6};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;

type Name = [c_char; libc::IFNAMSIZ];

/// `struct in6_aliasreq`.
#[repr(C)]
struct Alias {
    name: Name,
    address: sockaddr_in6,
    other: sockaddr_in6,
    mask: sockaddr_in6,
    flags: i32,
    times: [i64; 2],
    lifetimes: [u32; 2],
    vhid: i32,
}

/// `struct in6_ifreq` with an address; what it has room for beside that are counters.
#[repr(C)]
struct WithAddress {
    name: Name,
    address: sockaddr_in6,
    rest: [u32; 61],
}

/// `struct in6_ndireq`: how neighbours are discovered on an interface; its flags are of interest here.
#[repr(C)]
struct Discovery {
    name: Name,
    before: [u32; 5],
    flags: u32,
    after: [u32; 8],
}

const _: () = assert!(size_of::<Alias>() == 136 && size_of::<WithAddress>() == 288 && size_of::<Discovery>() == 72);

const SIOCDIFADDR_IN6: c_ulong = request::<WithAddress>(IN, 25);
const SIOCAIFADDR_IN6: c_ulong = request::<Alias>(IN, 27);
const SIOCSIFINFO_FLAGS: c_ulong = request::<Discovery>(IN | OUT, 87);

/// Every request that net-helper makes on a socket of `AF_INET6`.
pub const REQUESTS: [c_ulong; 3] = [SIOCDIFADDR_IN6, SIOCAIFADDR_IN6, SIOCSIFINFO_FLAGS];

const fn inet6(address: Ipv6Addr) -> sockaddr_in6 {
    sockaddr_in6 {
        sin6_len: 28,
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: address.octets() },
        sin6_scope_id: 0,
    }
}

/// Gives an interface an IPv6 address with a prefix of /64, at once and for ever.
pub fn add_address(socket: BorrowedFd<'_>, interface: &str, address: Ipv6Addr) -> io::Result<()> {
    /// `IN6_IFF_NODAD`.
    const NODAD: i32 = 0x20;
    // SAFETY: an all-zero sockaddr_in6 is a valid value of that plain C struct.
    let none: sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mask = inet6(Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0));
    let (flags, times, lifetimes) = (NODAD, [0; 2], [u32::MAX; 2]);
    let address = inet6(address);
    let mut request = Alias { name: name(interface)?, address, other: none, mask, flags, times, lifetimes, vhid: 0 };
    control(socket, SIOCAIFADDR_IN6, &mut request)
}

/// Takes an IPv6 address of an interface; one that it has not is no error.
pub fn delete_address(socket: BorrowedFd<'_>, interface: &str, address: Ipv6Addr) -> io::Result<()> {
    let mut request = WithAddress { name: name(interface)?, address: inet6(address), rest: [0; 61] };
    match control(socket, SIOCDIFADDR_IN6, &mut request) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

/// Whether the host speaks IPv6 at an interface. It takes no router's word there, and has no address but those that it is given, which it
/// does not ask for whether somebody has them; those that it has already stay.
pub fn speak(socket: BorrowedFd<'_>, interface: &str, speaks: bool) -> io::Result<()> {
    /// `ND6_IFF_PERFORMNUD`, `ND6_IFF_IFDISABLED`, `ND6_IFF_NO_DAD`; without `ND6_IFF_ACCEPT_RTADV` and `ND6_IFF_AUTO_LINKLOCAL`.
    const SEES_WHO_LEFT: u32 = 1;
    const DISABLED: u32 = 8;
    const ASKS_NOBODY: u32 = 0x100;
    let flags = SEES_WHO_LEFT | ASKS_NOBODY | if speaks { 0 } else { DISABLED };
    control(socket, SIOCSIFINFO_FLAGS, &mut Discovery { name: name(interface)?, before: [0; 5], flags, after: [0; 8] })
}
