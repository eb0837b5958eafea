//! VXLAN interfaces by ioctl (vxlan(4), net/if_vxlan.h); the layouts are the same from 13 to 15.

use super::net::{SIOCGDRVSPEC, SIOCIFCREATE2, about, control, driver, name, text};
use libc::{c_char, c_ulong};
use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

const VXLAN_CMD_GET_CONFIG: c_ulong = 0;

/// `VXLAN_PARAM_WITH_*`.
mod with {
    pub const VNI: u64 = 0x1;
    pub const LOCAL: [u64; 2] = [0x2, 0x4];
    pub const REMOTE: [u64; 2] = [0x8, 0x10];
    pub const PORTS: u64 = 0x20 | 0x40;
    pub const MULTICAST_IF: u64 = 0x400;
}

/// `union vxlan_sockaddr`, as bytes: `sockaddr_in` and `sockaddr_in6` differ in where the address begins.
#[repr(C)]
#[derive(Clone, Copy)]
struct Address {
    length: u8,
    family: u8,
    port: [u8; 2],
    rest: [u8; 24],
}

/// `struct ifvxlanparam`.
#[repr(C)]
struct Parameters {
    with: u64,
    vni: u32,
    local: Address,
    remote: Address,
    local_port: u16,
    remote_port: u16,
    ports: [u16; 2],
    multicast_if: [c_char; libc::IFNAMSIZ],
    table: [u32; 2],
    ttl: u8,
    learn: u8,
}

/// `struct ifvxlancfg`.
#[repr(C)]
struct Settings {
    vni: u32,
    local: Address,
    remote: Address,
    multicast_if: u32,
    table: [u32; 3],
    ports: [u16; 2],
    learn: u8,
    ttl: u8,
}

const _: () = {
    assert!(size_of::<Address>() == 28 && size_of::<Parameters>() == 104 && size_of::<Settings>() == 84);
    assert!(offset_of!(Parameters, local) == 12 && offset_of!(Parameters, multicast_if) == 76);
    assert!(offset_of!(Settings, multicast_if) == 60 && offset_of!(Settings, ports) == 76);
};

impl Address {
    const NONE: Self = Self { length: 0, family: 0, port: [0; 2], rest: [0; 24] };

    /// `scope`: the interface of a link-local address.
    fn new(address: IpAddr, scope: u32) -> Self {
        let mut rest = [0; 24];
        let (length, family, at, octets) = match address {
            IpAddr::V4(v4) => (16, libc::AF_INET, 0, v4.octets().to_vec()),
            // After the flow.
            IpAddr::V6(v6) => (28, libc::AF_INET6, 4, v6.octets().to_vec()),
        };
        let octets = octets.into_iter().chain(scope.to_ne_bytes());
        for (to, from) in rest.iter_mut().skip(at).zip(octets) {
            *to = from;
        }
        Self { length, family: family as u8, port: [0; 2], rest }
    }

    fn scope(&self) -> u32 {
        let scope = self.rest.last_chunk().filter(|_| i32::from(self.family) == libc::AF_INET6);
        scope.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn get(&self) -> Option<IpAddr> {
        let [a, b, c, d, rest @ ..] = &self.rest;
        match i32::from(self.family) {
            libc::AF_INET => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
            libc::AF_INET6 => rest.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
            _ => None,
        }
    }
}

/// What a VXLAN interface is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Number of the network.
    pub vni: u32,
    /// This host's address.
    pub local: IpAddr,
    /// The other host's, or a group's.
    pub remote: IpAddr,
    /// UDP port at this end.
    pub local_port: u16,
    /// UDP port at the other.
    pub remote_port: u16,
    /// Index of the interface of both addresses, if they are link-local; else 0.
    pub scope: u32,
}

/// Makes one; says what it is called. A `group` is joined on that interface once this one is set up.
pub fn create(socket: BorrowedFd<'_>, vxlan: &Vxlan, group: Option<&str>) -> io::Result<String> {
    let of = |address: IpAddr, [v4, v6]: [u64; 2]| if address.is_ipv4() { v4 } else { v6 };
    let mut parameters = Parameters {
        with: with::VNI | with::PORTS | of(vxlan.local, with::LOCAL) | of(vxlan.remote, with::REMOTE),
        vni: vxlan.vni,
        local: Address::new(vxlan.local, vxlan.scope),
        remote: Address::new(vxlan.remote, vxlan.scope),
        local_port: vxlan.local_port,
        remote_port: vxlan.remote_port,
        ports: [0; 2],
        multicast_if: [0; libc::IFNAMSIZ],
        table: [0; 2],
        ttl: 0,
        learn: 0,
    };
    if let Some(interface) = group {
        parameters.with |= with::MULTICAST_IF;
        parameters.multicast_if = name(interface)?;
    }
    let mut request = about("vxlan")?;
    request.ifr_ifru.ifru_data = (&raw mut parameters).cast();
    control(socket, SIOCIFCREATE2, &mut request)?;
    Ok(text(&request.ifr_name))
}

/// What one is set to, and the index of the interface on which it has joined its group, if it is up and has. None: it is set to
/// something else than from one address to another.
pub fn settings(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Option<(Vxlan, u32)>> {
    let mut settings = Settings {
        vni: 0,
        local: Address::NONE,
        remote: Address::NONE,
        multicast_if: 0,
        table: [0; 3],
        ports: [0; 2],
        learn: 0,
        ttl: 0,
    };
    driver(socket, SIOCGDRVSPEC, interface, VXLAN_CMD_GET_CONFIG, &mut settings)?;
    let port = |address: &Address| u16::from_be_bytes(address.port);
    let (Some(local), Some(remote)) = (settings.local.get(), settings.remote.get()) else { return Ok(None) };
    let (local_port, remote_port) = (port(&settings.local), port(&settings.remote));
    let vxlan = Vxlan { vni: settings.vni, local, remote, local_port, remote_port, scope: settings.local.scope() };
    Ok(Some((vxlan, settings.multicast_if)))
}
