//! Interfaces of WireGuard by ioctl (wg(4), dev/wg/if_wg.h); the layouts are the same from 13.2 to 15.

use super::net::{control, name, request};
use crate::pf::nvlist::{self, List};
use libc::{c_char, c_ulong};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

/// `struct wg_data_io`: a packed list.
#[repr(C)]
struct Data {
    name: [c_char; libc::IFNAMSIZ],
    data: *mut u8,
    size: usize,
}

const _: () = assert!(size_of::<Data>() == 32);

pub(super) const SIOCSWG: c_ulong = request::<Data>(super::net::IN | super::net::OUT, 210);
pub(super) const SIOCGWG: c_ulong = request::<Data>(super::net::IN | super::net::OUT, 211);

/// The other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: [u8; 32],
    /// Where it is.
    pub endpoint: SocketAddr,
    /// The address that it has inside.
    pub inside: Ipv6Addr,
}

/// What an interface is set to. Whoever may set it is told the private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Wg {
    /// UDP port at this end.
    pub port: u16,
    /// The key.
    pub private: [u8; 32],
    /// What the kernel made of it.
    pub public: [u8; 32],
    /// Keys of all other ends.
    pub peers: Vec<[u8; 32]>,
}

fn endpoint(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [&[16, libc::AF_INET as u8][..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => [&[28, libc::AF_INET6 as u8][..], &port, &[0; 4], &v6.ip().octets(), &[0; 4]].concat(),
    }
}

/// Gives an interface its key, and an other end in place of all. The socket must be one of `AF_INET`.
pub fn set(socket: BorrowedFd<'_>, interface: &str, private: &[u8; 32], to: Option<(u16, &Peer)>) -> io::Result<()> {
    let mut list = List::default().bytes("private-key", private);
    if let Some((port, peer)) = to {
        let inside = List::default().bytes("ipv6", &peer.inside.octets()).number("cidr", 128);
        let other = List::default().bytes("public-key", &peer.key).bytes("endpoint", &endpoint(peer.endpoint));
        list = list.number("listen-port", port.into()).flag("replace-peers", true);
        list = list.lists("peers", vec![other.lists("allowed-ips", vec![inside])]);
    }
    let mut packed = list.pack();
    let mut request = Data { name: name(interface)?, data: packed.as_mut_ptr(), size: packed.len() };
    control(socket, SIOCSWG, &mut request)
}

/// What it is set to; none: it has no key. The socket must be one of `AF_INET`.
pub fn get(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Option<Wg>> {
    let mut size = 4096;
    let packed = loop {
        let mut room = vec![0; size];
        let mut request = Data { name: name(interface)?, data: room.as_mut_ptr(), size };
        match control(socket, SIOCGWG, &mut request) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && size < 1 << 20 => size *= 4,
            result => {
                result?;
                room.truncate(request.size);
                break room;
            }
        }
    };
    let key = |name| nvlist::find_bytes(&packed, name).and_then(|key| <[u8; 32]>::try_from(key).ok());
    let (Some(private), Some(public)) = (key("private-key"), key("public-key")) else { return Ok(None) };
    let port = nvlist::find_number(&packed, "listen-port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let peers = nvlist::all_bytes(&packed, "peers", "public-key").into_iter().filter_map(|key| key.try_into().ok());
    Ok(Some(Wg { port, private, public, peers: peers.collect() }))
}
