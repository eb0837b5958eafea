//! The host's routes (route(4), `NET_RT_DUMP` of sysctl(3)). Refused in capability mode.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<A> {
    /// Where to.
    pub net: A,
    /// Length of its prefix.
    pub prefix: u8,
    /// Index of the interface; of a route to an address of the host itself the one that has it.
    pub index: u32,
}

/// `sizeof(struct rt_msghdr)`, and what is read of it.
const HEADER: usize = 152;
const INDEX: usize = 4;
const ADDRESSES: usize = 12;
/// `RTA_DST`, `RTA_GATEWAY`, `RTA_NETMASK` are the first three addresses.
const DESTINATION: usize = 0;
const GATEWAY: usize = 1;
const MASK: usize = 2;

/// All IPv4 routes.
pub fn routes() -> io::Result<Vec<Route<Ipv4Addr>>> {
    let v4 = |(net, prefix, index)| if let IpAddr::V4(net) = net { Some(Route { net, prefix, index }) } else { None };
    Ok(parse(&dump(libc::AF_INET)?).into_iter().filter_map(v4).collect())
}

/// All IPv6 routes.
pub fn routes6() -> io::Result<Vec<Route<Ipv6Addr>>> {
    let v6 = |(net, prefix, index)| if let IpAddr::V6(net) = net { Some(Route { net, prefix, index }) } else { None };
    Ok(parse(&dump(libc::AF_INET6)?).into_iter().filter_map(v6).collect())
}

fn dump(family: libc::c_int) -> io::Result<Vec<u8>> {
    const NET_RT_DUMP: libc::c_int = 1;
    super::ask::sysctl(&[libc::CTL_NET, libc::PF_ROUTE, 0, family, NET_RT_DUMP, 0])
}

/// Where to, length of the prefix, index.
type Parsed = (IpAddr, u8, u32);

fn parse(mut bytes: &[u8]) -> Vec<Parsed> {
    let mut found = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|length| usize::from(u16::from_ne_bytes(*length))) {
        let Some((message, rest)) = bytes.split_at_checked(length).filter(|_| length >= HEADER) else { break };
        found.extend(route(message));
        bytes = rest;
    }
    found
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn route(message: &[u8]) -> Option<Parsed> {
    let given = u32::from_ne_bytes(*message.get(ADDRESSES..)?.first_chunk()?);
    let mut rest = message.get(HEADER..)?;
    let mut all: [&[u8]; 3] = [&[]; 3];
    for (bit, address) in all.iter_mut().enumerate() {
        if given & 1 << bit != 0 {
            let length = usize::from(*rest.first()?);
            *address = rest.get(..length)?;
            // Each is padded; one of no length takes as much as one of a word.
            rest = rest.get(length.max(1).next_multiple_of(8)..).unwrap_or_default();
        }
    }
    let family = |address: &[u8]| address.get(1).map(|family| i32::from(*family));
    // Where a `sockaddr_in`, or a `sockaddr_in6`, has its address; in a mask it is at the same place.
    let (net, at, most) = match family(all[DESTINATION])? {
        libc::AF_INET => (IpAddr::from(*all[DESTINATION].get(4..)?.first_chunk::<4>()?), 4, 4),
        libc::AF_INET6 => (IpAddr::from(*all[DESTINATION].get(8..)?.first_chunk::<16>()?), 8, 16),
        _ => return None,
    };
    let prefix = if given & 1 << MASK == 0 {
        most as u8 * 8
    } else {
        // Masks may be cut after their last bit.
        all[MASK].iter().skip(at).take(most).map(|byte| byte.count_ones() as u8).sum()
    };
    // `sdl_index`.
    let of_address = if family(all[GATEWAY]) == Some(libc::AF_LINK) { half(all[GATEWAY], 2) } else { None };
    let index = of_address.filter(|index| *index != 0).or_else(|| half(message, INDEX))?;
    Some((net, prefix, index.into()))
}
