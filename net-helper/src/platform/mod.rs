//! What is asked of the kernel, the same on both.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::{Host, other_role};
#[cfg(target_os = "linux")]
pub use linux::{Host, other_role};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use skep_proto::net::{Gateway, Own, PortForward};
use skep_proto::tunnel::{PublicKey, Tunnel};
use skep_proto::{Forward, IfName, InstanceId, Rates, Subnet6, Text, Transport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// An interface, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: IfName,
    /// Kind as the kernel says; empty for hardware.
    pub kind: Text<16>,
    /// Up.
    pub up: bool,
    /// A loopback.
    pub loopback: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge (or bond, or the like) that it is a member of.
    pub bridge: Option<u32>,
    /// No frame goes between it and other members of its bridge that are so, too.
    pub isolated: bool,
    /// Somebody has it open, if it is a tap.
    pub held: bool,
    /// Alias or description, for people.
    pub note: String,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.switch().is_some()
    }
    /// Which kind of switch it is, if it is one.
    pub fn switch(&self) -> Option<Switch> {
        match self.kind.as_str() {
            "bridge" => Some(Switch::Bridge),
            "ng_bridge" => Some(Switch::Netgraph),
            _ => None,
        }
    }
    /// Whether it is a tap: Linux calls them `tun`.
    pub fn is_tap(&self) -> bool {
        matches!(self.kind.as_str(), "tap" | "tun")
    }
    /// Whether it is a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.kind.as_str() == "vxlan"
    }
    /// Whether it is an interface of WireGuard: FreeBSD calls them `wg`.
    pub fn is_wireguard(&self) -> bool {
        matches!(self.kind.as_str(), "wireguard" | "wg")
    }
    /// Whether it is an end of a pair: FreeBSD calls them `epair`.
    pub fn is_end(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "epair")
    }
}

/// What switches are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// An interface that is a bridge.
    Bridge,
    /// A bridge of netgraph's: no interface, so that the host itself is not on it.
    Netgraph,
}

/// MTU of interfaces of WireGuard beneath tunnels, in bytes: a guest's 1500 in VXLAN over IPv6. What is too long for the network between
/// the hosts is cut there, as without WireGuard.
const WIREGUARD_MTU: u32 = 1570;

/// What an interface of WireGuard beneath a tunnel is for, as its note: the kernel does not know all of it.
fn written(name: &IfName, tunnel: &Tunnel) -> String {
    format!("{name}: {tunnel}")
}

/// The same, back.
fn wrote(name: &IfName, note: &str) -> Option<(Tunnel, PublicKey)> {
    let tunnel: Tunnel = note.strip_prefix(name.as_str())?.strip_prefix(": ")?.parse().ok()?;
    let key = tunnel.peer_key?;
    Some((tunnel, key))
}

/// What has gone through an interface, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes that the host received.
    pub rx_bytes: u64,
    /// Frames that it received.
    pub rx_packets: u64,
    /// Bytes that it sent.
    pub tx_bytes: u64,
    /// Frames that it sent.
    pub tx_packets: u64,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub net: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Index of the interface.
    pub index: u32,
}

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub struct HostError {
    /// What was being done.
    pub step: &'static str,
    /// Why it failed.
    pub error: io::Error,
}

impl HostError {
    /// Names a step.
    pub fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self { step, error: error.into() }
    }
}

/// [`NetHost::connect`], for whoever is allowed connect(2).
fn begin(transport: Transport, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match transport {
        Transport::Udp => SockType::Datagram,
        Transport::Tcp => SockType::Stream,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if transport == Transport::Tcp {
        // What is sent is small, and each is waited for. Whoever gets it may set nothing.
        let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The kernel's network. Each method is one act: it is done, or nothing of it is.
pub trait NetHost {
    /// Every interface whose name is an [`IfName`], by index.
    fn links(&mut self) -> Result<Vec<Link>, HostError>;

    /// One of them.
    fn link(&mut self, name: &IfName) -> Result<Option<Link>, HostError> {
        Ok(self.links()?.into_iter().find(|link| link.name == *name))
    }

    /// What has gone through an interface; none if there is no such interface, or the kernel does not say.
    fn counters(&mut self, _name: &IfName) -> Result<Option<Counters>, HostError> {
        Ok(None)
    }

    /// Makes a bridge, down, without members and without spanning tree.
    fn make_bridge(&mut self, name: &IfName, kind: Switch) -> Result<(), HostError>;

    /// Makes a tap, down, and opens it. On Linux it ends with the descriptor.
    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError>;

    /// This host's public key of WireGuard.
    fn host_key(&mut self, _instance: InstanceId) -> Result<PublicKey, HostError> {
        Err(HostError::step("make an interface of WireGuard")(Errno::EOPNOTSUPP))
    }

    /// Makes a tunnel, down, with the interface of WireGuard beneath it, up, if it has one.
    fn make_tunnel(&mut self, name: &IfName, tunnel: &Tunnel) -> Result<(), HostError>;

    /// Has a tunnel take nothing but what is from its other end, whether or not it is there yet; or takes that back.
    fn guard_tunnel(&mut self, _name: &IfName, _tunnel: Option<&Tunnel>) -> Result<(), HostError> {
        Ok(())
    }

    /// What a tunnel is set to; none if that is nothing that [`Self::make_tunnel`] could have made.
    fn tunnel(&mut self, name: &IfName) -> Result<Option<Tunnel>, HostError>;

    /// Makes both ends of a pair, down.
    fn make_pair(&mut self, ends: &[IfName; 2]) -> Result<(), HostError>;

    /// The interfaces that have this address.
    fn owners(&mut self, address: IpAddr) -> Result<Vec<IfName>, HostError>;

    /// Removes what was half made when a helper of this instance ended: it has no name of ours yet, where making and naming are two acts
    /// (FreeBSD).
    fn sweep(&mut self, _instance: InstanceId) -> Result<(), HostError> {
        Ok(())
    }

    /// Deletes a bridge, which releases its members, a tap, a tunnel, or with one end both of a pair. One that is not there is no error.
    fn delete(&mut self, name: &IfName) -> Result<(), HostError>;

    /// Writes the note and, where the kernel can be told (Linux), has the host itself neither take an address on the interface nor
    /// listen to guests there.
    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError>;

    /// Sets it up or down.
    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError>;

    /// Makes `port`, which is a member of nothing, a member of `bridge`.
    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError>;

    /// Why no switch can be a subnet on this host; none: it can.
    fn no_subnets(&mut self) -> Option<&'static str> {
        Some("this host has no rules that keep it apart")
    }

    /// A socket of UDP that sends to `to` alone, or one of TCP whose connection to it has begun. Nothing was sent, and neither waits.
    fn connect(&mut self, _transport: Transport, _to: SocketAddr) -> Result<OwnedFd, HostError> {
        Err(HostError::step("connect")(Errno::EOPNOTSUPP))
    }

    /// IPv4 routes of the host, but for those by which it reaches everything.
    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        Err(HostError::step("list routes")(Errno::EOPNOTSUPP))
    }

    /// Gives a bridge this IPv4 address and no other, or none.
    fn set_address(&mut self, _bridge: &IfName, address: Option<(Ipv4Addr, u8)>) -> Result<(), HostError> {
        address.map_or(Ok(()), |_| Err(HostError::step("set its address")(Errno::EOPNOTSUPP)))
    }

    /// Why no subnet can have an IPv6 network on this host; none: it can.
    fn no_subnets6(&mut self) -> Option<&'static str> {
        Some("of IPv6 this host has no rules that keep guests apart; without subnet6 it is not spoken")
    }

    /// IPv6 routes of the host, but for those by which it reaches everything: net, prefix, index of the interface.
    fn routes6(&mut self) -> Result<Vec<(Ipv6Addr, u8, u32)>, HostError> {
        Err(HostError::step("list IPv6 routes")(Errno::EOPNOTSUPP))
    }

    /// Gives a bridge the host's two IPv6 addresses for this network and no others, or none.
    fn set_address6(&mut self, _bridge: &IfName, subnet: Option<Subnet6>) -> Result<(), HostError> {
        subnet.map_or(Ok(()), |_| Err(HostError::step("set its IPv6 address")(Errno::EOPNOTSUPP)))
    }

    /// Puts the rules of this gateway between a bridge and all else, in place of those from before, or takes them away.
    fn guard(
        &mut self, _instance: InstanceId, _bridge: &IfName, gateway: Option<(&Gateway, &[PortForward])>,
    ) -> Result<(), HostError> {
        gateway.map_or(Ok(()), |_| Err(HostError::step("set its rules")(Errno::EOPNOTSUPP)))
    }

    /// The address of a socket of the host's that would hear what comes to a port, if there is one.
    fn listener(&mut self, _forward: &Forward) -> Result<Option<IpAddr>, HostError> {
        Err(HostError::step("ask who listens")(Errno::EOPNOTSUPP))
    }

    /// Has the host forward packets if any gateway of this instance needs it. What was made so by us, and needs to be so no more, is as it
    /// was.
    fn forward(&mut self, _instance: InstanceId) -> Result<(), HostError> {
        Ok(())
    }

    /// Lets through of what comes in at a tap only what is from these addresses, or all.
    fn guard_tap(&mut self, _tap: &IfName, own: Option<&Own>) -> Result<(), HostError> {
        own.map_or(Ok(()), |_| Err(HostError::step("keep a guest to its own addresses")(Errno::EOPNOTSUPP)))
    }

    /// Limits how much goes through a tap, in place of what was before. To lift all limits the tap need not be there.
    fn limit_tap(&mut self, _tap: &IfName, rates: Rates) -> Result<(), HostError> {
        let none = rates == Rates::default();
        if none { Ok(()) } else { Err(HostError::step("limit what goes through a tap, which only Linux can")(Errno::EOPNOTSUPP)) }
    }

    /// Opens the frames that come in at a tap and are for guests' services; `v6`: of IPv6, too.
    fn open_port(&mut self, _tap: &Link, _v6: bool) -> Result<OwnedFd, HostError> {
        Err(HostError::step("open its frames")(Errno::EOPNOTSUPP))
    }

    /// Has no frame go between a member of a bridge and others that are so, too; or takes that back.
    fn isolate(&mut self, _port: &IfName, isolated: bool) -> Result<(), HostError> {
        if isolated {
            Err(HostError::step("keep it apart from others of its switch, which only Linux can")(Errno::EOPNOTSUPP))
        } else {
            Ok(())
        }
    }

    /// Releases `port` from `bridge`.
    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError>;
}
