//! Who listens on a port of the host's (sock_diag(7)).

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use skep_proto::{Forward, Transport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

/// Numbers of linux/sock_diag.h, linux/netlink.h and net/tcp_states.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const LISTEN: u32 = 10;
/// That of a UDP socket that hears everybody.
const CLOSE: u32 = 7;
const HEADER: usize = 16;
/// The kernel sends at most this at once.
const BUFFER: usize = 64 << 10;

/// A socket for such questions, connected to the kernel.
pub struct Listeners {
    socket: Socket,
    seq: u32,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listeners({})", self.seq)
    }
}

impl AsFd for Listeners {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listeners {
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(&socket.as_fd(), ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket, seq: 0 })
    }

    /// The address of a socket that would hear what comes to this port, if there is one.
    pub fn on(&mut self, forward: &Forward) -> io::Result<Option<IpAddr>> {
        for family in [libc_family(false), libc_family(true)] {
            self.seq = self.seq.wrapping_add(1);
            self.socket.send(&request(self.seq, family, forward.transport), 0)?;
            let mut found = None;
            while !self.part(forward, &mut found)? {}
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Takes a part of the answer. True: that was the last.
    fn part(&self, forward: &Forward, found: &mut Option<IpAddr>) -> io::Result<bool> {
        let mut buffer = Vec::with_capacity(BUFFER);
        self.socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let [a, b, c, d, kind_a, kind_b, _, _, s0, s1, s2, s3, ..] = *header;
            let length = u32::from_ne_bytes([a, b, c, d]) as usize;
            let message = rest.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            // The rest of an earlier answer that was given up.
            if u32::from_ne_bytes([s0, s1, s2, s3]) != self.seq {
                continue;
            }
            match u16::from_ne_bytes([kind_a, kind_b]) {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let code = message.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    // A kernel without such sockets: nobody listens on them.
                    return if code == -nix::libc::ENOENT { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => *found = found.or_else(|| heard(message, forward)),
            }
        }
        Ok(false)
    }
}

fn libc_family(v6: bool) -> u8 {
    // `AF_INET`, `AF_INET6`.
    if v6 { 10 } else { 2 }
}

/// `inet_diag_req_v2` for all sockets that listen, behind its header.
fn request(seq: u32, family: u8, transport: Transport) -> Vec<u8> {
    let (protocol, state) = match transport {
        Transport::Tcp => (6, LISTEN),
        Transport::Udp => (17, CLOSE),
    };
    let mut body = vec![family, protocol, 0, 0];
    body.extend((1u32 << state).to_ne_bytes());
    // Of whichever addresses and ports (`inet_diag_sockid`).
    body.resize(8 + 48, 0);
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(HEADER + body.len()).unwrap_or(0).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// The address of a socket (`inet_diag_msg`) that would hear what comes to this port.
fn heard(message: &[u8], forward: &Forward) -> Option<IpAddr> {
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    if port != forward.port.get() {
        return None;
    }
    let address: [u8; 16] = *message.get(8..)?.first_chunk()?;
    let address = if *message.first()? == libc_family(true) {
        IpAddr::from(Ipv6Addr::from(address))
    } else {
        IpAddr::from(Ipv4Addr::from(*address.first_chunk()?))
    };
    let meets = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || (!v4.is_loopback() && forward.address.is_none_or(|wanted| wanted == v4)),
        // One for all of both kinds; whether it is for IPv6 alone is not asked.
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    meets.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(v6: bool, port: u16, address: &[u8]) -> Vec<u8> {
        let mut bytes = vec![libc_family(v6), 10, 0, 0];
        bytes.extend(port.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(address);
        bytes.resize(72, 0);
        bytes
    }

    #[test]
    fn a_socket_hears_its_own_port_and_addresses() {
        let all: Forward = "80:8080".parse().unwrap();
        let one: Forward = "192.0.2.1:80:8080".parse().unwrap();
        for (message, by_all, by_one) in [
            (message(false, 80, &[0; 4]), true, true),
            (message(false, 81, &[0; 4]), false, false),
            (message(false, 80, &[127, 0, 0, 1]), false, false),
            (message(false, 80, &[192, 0, 2, 1]), true, true),
            (message(false, 80, &[192, 0, 2, 2]), true, false),
            (message(true, 80, &[0; 16]), true, true),
            (message(true, 80, &[0x20, 1, 0xd, 0xb8]), false, false),
        ] {
            assert_eq!((heard(&message, &all).is_some(), heard(&message, &one).is_some()), (by_all, by_one), "{message:?}");
        }
        for length in 0..24 {
            assert_eq!(heard(&message(false, 80, &[0; 4])[..length], &all), None);
        }
    }

    #[test]
    fn listeners_are_found() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let udp = std::net::UdpSocket::bind("[::]:0").unwrap();
        let udp_port = udp.local_addr().unwrap().port();
        let mut listeners = Listeners::open().unwrap();
        let mut on = |text: String| listeners.on(&text.parse().unwrap()).unwrap();
        assert_eq!(on(format!("{port}:1")), Some(Ipv4Addr::UNSPECIFIED.into()));
        assert_eq!(on(format!("192.0.2.9:{port}:1/tcp")), Some(Ipv4Addr::UNSPECIFIED.into()));
        assert_eq!(on(format!("{udp_port}:1/udp")), Some(Ipv6Addr::UNSPECIFIED.into()));
        drop((listener, udp));
        assert_eq!(on(format!("{port}:1")), None);
        assert_eq!(on(format!("{udp_port}:1/udp")), None);
    }
}
