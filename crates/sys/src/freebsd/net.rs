//! Interfaces by ioctl (netintro(4), if_bridge(4), tap(4)): each function is one request on any open socket. Sizes and numbers are
//! those of 64-bit FreeBSD, the same from 13 to 15.

use libc::{c_char, c_ulong, c_void, ifconf, ifdrv, ifreq};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) const IN: c_ulong = 0x8000_0000;
pub(super) const OUT: c_ulong = 0x4000_0000;

pub(super) const fn request<T>(direction: c_ulong, number: u8) -> c_ulong {
    direction | (size_of::<T>() as c_ulong) << 16 | (b'i' as c_ulong) << 8 | number as c_ulong
}

const SIOCSIFFLAGS: c_ulong = request::<ifreq>(IN, 16);
const SIOCGIFFLAGS: c_ulong = request::<ifreq>(IN | OUT, 17);
const SIOCGIFINDEX: c_ulong = request::<ifreq>(IN | OUT, 32);
const SIOCGIFCONF: c_ulong = request::<ifconf>(IN | OUT, 36);
const SIOCSIFNAME: c_ulong = request::<ifreq>(IN, 40);
const SIOCSIFDESCR: c_ulong = request::<ifreq>(IN, 41);
const SIOCGIFDESCR: c_ulong = request::<ifreq>(IN | OUT, 42);
const SIOCGIFMTU: c_ulong = request::<ifreq>(IN | OUT, 51);
const SIOCSIFMTU: c_ulong = request::<ifreq>(IN, 52);
const SIOCIFDESTROY: c_ulong = request::<ifreq>(IN, 121);
const SIOCSDRVSPEC: c_ulong = request::<ifdrv>(IN, 123);
pub(super) const SIOCGDRVSPEC: c_ulong = request::<ifdrv>(IN | OUT, 123);
pub(super) const SIOCIFCREATE2: c_ulong = request::<ifreq>(IN | OUT, 124);
const SIOCAIFGROUP: c_ulong = request::<Group>(IN, 135);
const SIOCGIFGROUP: c_ulong = request::<Groups>(IN | OUT, 136);
const SIOCDIFGROUP: c_ulong = request::<Group>(IN, 137);

/// `struct ifaliasreq`.
#[repr(C)]
struct Alias {
    name: Name,
    address: libc::sockaddr_in,
    broadcast: libc::sockaddr_in,
    mask: libc::sockaddr_in,
    vhid: i32,
}
const SIOCAIFADDR: c_ulong = request::<Alias>(IN, 43);
const SIOCDIFADDR: c_ulong = request::<ifreq>(IN, 25);
const SIOCGIFNETMASK: c_ulong = request::<ifreq>(IN | OUT, 37);

/// Every request that net-helper makes on a socket of `AF_INET`.
pub const ADDRESS_REQUESTS: [c_ulong; 5] = [SIOCDIFADDR, SIOCGIFNETMASK, SIOCAIFADDR, super::wg::SIOCSWG, super::wg::SIOCGWG];

/// Every request that net-helper makes: what a limited socket must be left with.
pub const REQUESTS: [c_ulong; 16] = [
    SIOCSIFFLAGS,
    SIOCGIFFLAGS,
    SIOCGIFINDEX,
    SIOCGIFCONF,
    SIOCSIFNAME,
    SIOCSIFDESCR,
    SIOCGIFDESCR,
    SIOCGIFMTU,
    SIOCSIFMTU,
    SIOCIFDESTROY,
    SIOCSDRVSPEC,
    SIOCGDRVSPEC,
    SIOCIFCREATE2,
    SIOCAIFGROUP,
    SIOCGIFGROUP,
    SIOCDIFGROUP,
];

/// net/if_bridgevar.h.
const BRDGADD: c_ulong = 0;
const BRDGDEL: c_ulong = 1;
const BRDGGIFFLGS: c_ulong = 2;
const BRDGSIFFLGS: c_ulong = 3;
const BRDGGIFS: c_ulong = 6;
const BRDGSADDR: c_ulong = 8;
const BRDGDADDR: c_ulong = 11;
/// `IFBIF_PRIVATE`: no frame goes from one of these members to another.
const PRIVATE: u32 = 0x800;
/// `IFBAF_STATIC`.
const STATIC: u8 = 1;

type Name = [c_char; libc::IFNAMSIZ];

/// `struct ifgroupreq` with a group's name.
#[repr(C)]
struct Group {
    name: Name,
    length: u32,
    /// What stands next is a union with a pointer, and aligned for one.
    gap: u32,
    group: Name,
}

/// `struct ifgroupreq` with room for the names of groups; as large as the above.
#[repr(C)]
struct Groups {
    name: Name,
    length: u32,
    groups: *mut Name,
    unused: u64,
}

/// `struct ifbreq`: a member of a bridge; its name and flags are of interest here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Member {
    name: Name,
    flags: u32,
    rest: [u32; 15],
}

/// `struct ifbareq`: where a hardware address is.
#[repr(C)]
struct Whereabouts {
    name: Name,
    expires: c_ulong,
    flags: u8,
    mac: [u8; 6],
    vlan: u16,
}

/// `struct ifbifconf`: room for members.
#[repr(C)]
struct Members {
    length: u32,
    members: *mut Member,
}

const _: () = assert!(
    size_of::<Group>() == 40
        && size_of::<Groups>() == 40
        && size_of::<Member>() == 80
        && size_of::<Members>() == 16
        && size_of::<Whereabouts>() == 40
);

/// An interface's name for the kernel, which wants a NUL within 16 bytes.
pub(super) fn name(text: &str) -> io::Result<Name> {
    let mut name: Name = [0; libc::IFNAMSIZ];
    if text.is_empty() || text.len() >= name.len() || text.contains('\0') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in name.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    Ok(name)
}

/// A name from the kernel.
pub(super) fn text(name: &[c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn about(interface: &str) -> io::Result<ifreq> {
    Ok(ifreq { ifr_name: name(interface)?, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_cap: [0; 2] } })
}

/// What the buffer of an ifreq is for.
fn with_buffer(interface: &str, buffer: &mut [u8]) -> io::Result<ifreq> {
    let mut request = about(interface)?;
    request.ifr_ifru.ifru_buffer = libc::ifreq_buffer { length: buffer.len(), buffer: buffer.as_mut_ptr().cast() };
    Ok(request)
}

/// One request. `T` is the struct that `number` is made for, and every pointer in it leads to as much live memory as it says there.
pub(super) fn control<T>(socket: BorrowedFd<'_>, number: c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: see above; all callers are in this file, inet6.rs, vxlan.rs and wg.rs.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes an interface of a cloned kind (`tap`, `bridge`, `epair`: its end a); says what it is called.
pub fn create(socket: BorrowedFd<'_>, kind: &str) -> io::Result<String> {
    let mut request = about(kind)?;
    control(socket, SIOCIFCREATE2, &mut request)?;
    Ok(text(&request.ifr_name))
}

/// Deletes a cloned interface, and with one end of a pair the other. A tap must be closed, or this waits for it.
pub fn destroy(socket: BorrowedFd<'_>, interface: &str) -> io::Result<()> {
    control(socket, SIOCIFDESTROY, &mut about(interface)?)
}

/// Gives an interface another name.
pub fn rename(socket: BorrowedFd<'_>, interface: &str, to: &str) -> io::Result<()> {
    let mut to = name(to)?;
    let mut request = about(interface)?;
    request.ifr_ifru.ifru_data = to.as_mut_ptr();
    control(socket, SIOCSIFNAME, &mut request)
}

/// Sets the description, at most 1023 bytes by default (`net.ifdescr_maxlen`).
pub fn describe(socket: BorrowedFd<'_>, interface: &str, description: &str) -> io::Result<()> {
    let mut bytes = [description.as_bytes(), &[0]].concat();
    control(socket, SIOCSIFDESCR, &mut with_buffer(interface, &mut bytes)?)
}

/// The description; empty if it has none, or none that fits in 255 bytes.
pub fn description(socket: BorrowedFd<'_>, interface: &str) -> io::Result<String> {
    let mut bytes = [0; 256];
    match control(socket, SIOCGIFDESCR, &mut with_buffer(interface, &mut bytes)?) {
        Err(e) if e.raw_os_error() == Some(libc::ENOMSG) => Ok(String::new()),
        Err(e) => Err(e),
        Ok(()) => Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()),
    }
}

/// Puts an interface into a group.
pub fn join_group(socket: BorrowedFd<'_>, interface: &str, group: &str) -> io::Result<()> {
    control(socket, SIOCAIFGROUP, &mut Group { name: name(interface)?, length: 0, gap: 0, group: name(group)? })
}

/// Takes an interface out of a group.
pub fn leave_group(socket: BorrowedFd<'_>, interface: &str, group: &str) -> io::Result<()> {
    control(socket, SIOCDIFGROUP, &mut Group { name: name(interface)?, length: 0, gap: 0, group: name(group)? })
}

/// The groups of an interface; the kernel puts each cloned one into that of its kind.
pub fn groups(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Vec<String>> {
    let mut names: [Name; 32] = [[0; libc::IFNAMSIZ]; 32];
    let mut request =
        Groups { name: name(interface)?, length: size_of_val(&names) as u32, groups: names.as_mut_ptr(), unused: 0 };
    control(socket, SIOCGIFGROUP, &mut request)?;
    let count = request.length as usize / size_of::<Name>();
    Ok(names.iter().take(count).map(|name| text(name)).filter(|name| !name.is_empty()).collect())
}

/// `IFF_*`, the low half.
pub fn flags(socket: BorrowedFd<'_>, interface: &str) -> io::Result<i32> {
    let mut request = about(interface)?;
    control(socket, SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the request fills this member in; any bits are valid.
    let [low, _] = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(low.cast_unsigned()))
}

/// Sets `IFF_UP`, or takes it away.
pub fn set_up(socket: BorrowedFd<'_>, interface: &str, up: bool) -> io::Result<()> {
    let mut request = about(interface)?;
    control(socket, SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the request fills this member in; any bits are valid.
    let [low, high] = unsafe { request.ifr_ifru.ifru_flags };
    let flag = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = [if up { low | flag } else { low & !flag }, high];
    control(socket, SIOCSIFFLAGS, &mut request)
}

const fn inet(address: u32) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_len: 16,
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: address.to_be() },
        sin_zero: [0; 8],
    }
}

/// A `struct ifreq` with an IPv4 address.
#[repr(C)]
struct WithAddress {
    name: Name,
    address: libc::sockaddr_in,
}

const _: () = assert!(size_of::<WithAddress>() == size_of::<ifreq>());

/// Gives an interface an IPv4 address. The socket must be one of `AF_INET`.
pub fn add_address(socket: BorrowedFd<'_>, interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let address = u32::from(address);
    let mut alias =
        Alias { name: name(interface)?, address: inet(address), broadcast: inet(address | !mask), mask: inet(mask), vhid: 0 };
    control(socket, SIOCAIFADDR, &mut alias)
}

/// Takes an IPv4 address of an interface. The socket must be one of `AF_INET`.
pub fn delete_address(socket: BorrowedFd<'_>, interface: &str, address: Ipv4Addr) -> io::Result<()> {
    control(socket, SIOCDIFADDR, &mut WithAddress { name: name(interface)?, address: inet(address.into()) })
}

/// The length of the prefix of an IPv4 address of an interface. The socket must be one of `AF_INET`.
pub fn prefix(socket: BorrowedFd<'_>, interface: &str, address: Ipv4Addr) -> io::Result<u32> {
    let mut request = WithAddress { name: name(interface)?, address: inet(address.into()) };
    control(socket, SIOCGIFNETMASK, &mut request)?;
    Ok(request.address.sin_addr.s_addr.count_ones())
}

/// Its index.
pub fn index(socket: BorrowedFd<'_>, interface: &str) -> io::Result<u32> {
    let mut request = about(interface)?;
    control(socket, SIOCGIFINDEX, &mut request)?;
    // SAFETY: the request fills this member in; any bits are valid.
    let index = unsafe { request.ifr_ifru.ifru_index };
    Ok(u32::from(index.cast_unsigned()))
}

/// Its MTU in bytes.
pub fn mtu(socket: BorrowedFd<'_>, interface: &str) -> io::Result<u32> {
    let mut request = about(interface)?;
    control(socket, SIOCGIFMTU, &mut request)?;
    // SAFETY: the request fills this member in; any bits are valid.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u32::try_from(mtu).unwrap_or(0))
}

/// Sets its MTU.
pub fn set_mtu(socket: BorrowedFd<'_>, interface: &str, bytes: u32) -> io::Result<()> {
    let mut request = about(interface)?;
    request.ifr_ifru.ifru_mtu = i32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    control(socket, SIOCSIFMTU, &mut request)
}

/// Names of all interfaces.
pub fn list(socket: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = addresses(socket)?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Each interface with each of its addresses; of another kind, or missing: none. (getifaddrs(3) is refused in capability mode.)
pub fn addresses(socket: BorrowedFd<'_>) -> io::Result<Vec<(String, Option<IpAddr>)>> {
    let mut buffer = vec![0u8; 32 << 10];
    let used = loop {
        let length = libc::c_int::try_from(buffer.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut request =
            ifconf { ifc_len: length, ifc_ifcu: libc::__c_anonymous_ifc_ifcu { ifcu_buf: buffer.as_mut_ptr().cast() } };
        control(socket, SIOCGIFCONF, &mut request)?;
        // The kernel says nothing when the list does not fit: half a buffer left is proof that it does.
        let used = usize::try_from(request.ifc_len).unwrap_or(0);
        if used < buffer.len() / 2 {
            break used;
        }
        buffer.resize(buffer.len() * 2, 0);
    };
    let mut found = Vec::new();
    let mut rest = buffer.get(..used).unwrap_or_default();
    // An entry is a name of 16 bytes and an address, whose first byte is its length, of 16 bytes or more; one for each address.
    while let Some((name, address)) = rest.split_at_checked(libc::IFNAMSIZ) {
        let name: Vec<c_char> = name.iter().map(|c| *c as c_char).collect();
        let name = text(&name);
        if !name.is_empty() {
            found.push((name, ip(address)));
        }
        let length = address.first().map_or(0, |length| usize::from(*length)).max(size_of::<libc::sockaddr>());
        rest = address.get(length..).unwrap_or_default();
    }
    Ok(found)
}

/// The address of a `sockaddr_in` or `sockaddr_in6`.
fn ip(sockaddr: &[u8]) -> Option<IpAddr> {
    match i32::from(*sockaddr.get(1)?) {
        libc::AF_INET => Some(Ipv4Addr::from(*sockaddr.get(4..)?.first_chunk::<4>()?).into()),
        libc::AF_INET6 => {
            let [a, b, mut c, mut d, rest @ ..] = *sockaddr.get(8..)?.first_chunk::<16>()?;
            // The kernel keeps the interface's index in a link-local one.
            if (a, b & 0xc0) == (0xfe, 0x80) {
                (c, d) = (0, 0);
            }
            let mut octets = [0; 16];
            for (to, from) in octets.iter_mut().zip([a, b, c, d].into_iter().chain(rest)) {
                *to = from;
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// A command of the driver, for which `argument` is made.
pub(super) fn driver<T>(
    socket: BorrowedFd<'_>, number: c_ulong, interface: &str, command: c_ulong, argument: &mut T,
) -> io::Result<()> {
    let data: *mut c_void = std::ptr::from_mut(argument).cast();
    control(socket, number, &mut ifdrv { ifd_name: name(interface)?, ifd_cmd: command, ifd_len: size_of::<T>(), ifd_data: data })
}

/// Makes an interface a member of a bridge. `EBUSY` if it is one of another.
pub fn add_member(socket: BorrowedFd<'_>, bridge_name: &str, member: &str) -> io::Result<()> {
    driver(socket, SIOCSDRVSPEC, bridge_name, BRDGADD, &mut Member { name: name(member)?, flags: 0, rest: [0; 15] })
}

/// Takes a member off a bridge. `ENOENT` if it is none.
pub fn delete_member(socket: BorrowedFd<'_>, bridge_name: &str, member: &str) -> io::Result<()> {
    driver(socket, SIOCSDRVSPEC, bridge_name, BRDGDEL, &mut Member { name: name(member)?, flags: 0, rest: [0; 15] })
}

/// Has no frame go from a member of a bridge to others that are so, too; or takes that back. `ENOENT` if it is no member.
pub fn set_private(socket: BorrowedFd<'_>, bridge_name: &str, member: &str, private: bool) -> io::Result<()> {
    let mut argument = Member { name: name(member)?, flags: 0, rest: [0; 15] };
    driver(socket, SIOCGDRVSPEC, bridge_name, BRDGGIFFLGS, &mut argument)?;
    argument.flags = if private { argument.flags | PRIVATE } else { argument.flags & !PRIVATE };
    driver(socket, SIOCSDRVSPEC, bridge_name, BRDGSIFFLGS, &mut argument)
}

/// Has a bridge know that a hardware address is at this member and nowhere else, for as long as it is a member.
pub fn settle(socket: BorrowedFd<'_>, bridge_name: &str, member: &str, mac: [u8; 6]) -> io::Result<()> {
    unsettle(socket, bridge_name, mac)?;
    // Frames without a tag are of VLAN 1 before 15, and of none since; where one is not the other it is no harm.
    for vlan in [1, 0] {
        let mut argument = Whereabouts { name: name(member)?, expires: 0, flags: STATIC, mac, vlan };
        driver(socket, SIOCSDRVSPEC, bridge_name, BRDGSADDR, &mut argument)?;
    }
    Ok(())
}

/// Has a bridge forget where a hardware address is.
pub fn unsettle(socket: BorrowedFd<'_>, bridge_name: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut argument = Whereabouts { name: [0; libc::IFNAMSIZ], expires: 0, flags: 0, mac, vlan: 0 };
    match driver(socket, SIOCSDRVSPEC, bridge_name, BRDGDADDR, &mut argument) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// The members of a bridge.
pub fn members(socket: BorrowedFd<'_>, bridge_name: &str) -> io::Result<Vec<String>> {
    Ok(members_apart(socket, bridge_name)?.into_iter().map(|(name, _)| name).collect())
}

/// The members of a bridge, each with whether it is private ([`set_private`]).
pub fn members_apart(socket: BorrowedFd<'_>, bridge_name: &str) -> io::Result<Vec<(String, bool)>> {
    let mut room = 64;
    loop {
        let mut members = vec![Member { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 15] }; room];
        let length = u32::try_from(size_of_val(members.as_slice())).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut argument = Members { length, members: members.as_mut_ptr() };
        driver(socket, SIOCGDRVSPEC, bridge_name, BRDGGIFS, &mut argument)?;
        let count = argument.length as usize / size_of::<Member>();
        if count < room {
            return Ok(members.iter().take(count).map(|member| (text(&member.name), member.flags & PRIVATE != 0)).collect());
        }
        room *= 2;
    }
}

/// What has gone through an interface (`struct ifmibdata`, net/if_mib.h; the same from 13 to 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that came in.
    pub in_bytes: u64,
    /// Packets that came in.
    pub in_packets: u64,
    /// Bytes that went out.
    pub out_bytes: u64,
    /// Packets that went out.
    pub out_packets: u64,
}

/// Counters of the interface with this index and name; none: there is no such interface. Refused in capability mode.
pub fn counters(index: u32, interface: &str) -> io::Result<Option<Counted>> {
    const NETLINK_GENERIC: i32 = 0;
    const IFMIB_IFDATA: i32 = 2;
    const IFDATA_GENERAL: i32 = 1;
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let name = [libc::CTL_NET, libc::PF_LINK, NETLINK_GENERIC, IFMIB_IFDATA, index, IFDATA_GENERAL];
    let bytes = match super::ask::sysctl(&name) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        bytes => bytes?,
    };
    Ok(counted(&bytes, interface))
}

fn counted(bytes: &[u8], interface: &str) -> Option<Counted> {
    // The index may be another's by now.
    let name = bytes.get(..libc::IFNAMSIZ)?.split(|byte| *byte == 0).next()?;
    if name != interface.as_bytes() {
        return None;
    }
    let number = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Counted { in_packets: number(80)?, out_packets: number(96)?, in_bytes: number(120)?, out_bytes: number(128)? })
}
