//! What switches that are subnets need of the part outside: /dev/pf and /dev/bpf, which are opened by name; what guests may send, which
//! messages of netgraph say; whether the host forwards packets, and its routes, which are sysctl(3)s that capability mode refuses; and
//! sockets to resolvers and servers, since it refuses connect(2), too.

use super::sender::{HOOKS, Sender, Step, path, step};
use super::{Ask, Outside, PAGE, Said};
use crate::platform::{HostError, Route, begin};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
use skep_proto::net::Own;
use skep_proto::{Forward, IfName, Transport, link_local};
use skep_rights::net::OUTSIDE;
use skep_sys::frames::{ALL, from_own};
use skep_sys::freebsd::{bpf, netgraph, routes, set_sysctl_number, sysctl_number};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub const OPEN_RULES: &str = "open /dev/pf (kldload pf)";
pub const OPEN_PORT: &str = "open its frames (bpf)";
pub const GUARD: &str = "keep a guest to his own addresses (kldload ng_ether ng_bpf)";
pub const FORWARD: &str = "forward packets (net.inet.ip.forwarding)";
pub const ROUTES: &str = "list routes";
pub const TAKEN: &str = "ask who has a port";
pub const CONNECT: &str = "connect";

/// Whether the host forwards packets of IPv4 (inet(4)).
const FORWARDING: &CStr = c"net.inet.ip.forwarding";

/// Hooks of a tap's filter: to its guest, and to the host's side.
const GUEST: &str = "guest";
const HOST: &str = "host";

impl Outside {
    /// Opens /dev/pf, with the rights that rules need.
    pub fn open_rules(&self) -> Result<OwnedFd, HostError> {
        self.ask_for_one(&Ask::OpenRules, OPEN_RULES)
    }

    /// Opens the frames that come in at a tap and are for guests' services; `v6`: of IPv6, too.
    pub fn open_port(&self, tap: &IfName, v6: bool) -> Result<OwnedFd, HostError> {
        self.ask_for_one(&Ask::OpenPort(tap.clone(), v6), OPEN_PORT)
    }

    fn ask_for_one(&self, ask: &Ask, step: &'static str) -> Result<OwnedFd, HostError> {
        let (_, fds) = self.ask_for(ask, 1)?;
        fds.into_iter().next().ok_or_else(|| HostError::step(step)(Errno::EBADF))
    }

    /// Keeps the guest of a tap to his own addresses, or lets him go; of a tap that is not there, only the latter.
    pub fn guard(&self, tap: &IfName, own: Option<&Own>) -> Result<(), HostError> {
        self.ask(&Ask::Guard(tap.clone(), own.copied())).map(drop)
    }

    /// Whether the host forwards packets of IPv4; after having it do so, or not.
    pub fn forward(&self, set: Option<bool>) -> Result<bool, HostError> {
        match self.ask_for(&Ask::Forward(set), 0)?.0 {
            Said::Is(forwards) => Ok(forwards),
            _ => Err(HostError::step(FORWARD)(Errno::EBADMSG)),
        }
    }

    /// Whether a socket of the host's has a port.
    pub fn is_taken(&self, forward: &Forward) -> Result<bool, HostError> {
        match self.ask_for(&Ask::IsTaken(*forward), 0)?.0 {
            Said::Is(taken) => Ok(taken),
            _ => Err(HostError::step(TAKEN)(Errno::EBADMSG)),
        }
    }

    /// A socket that is connected to a server, or is about to be.
    pub fn connect(&self, transport: Transport, to: SocketAddr) -> Result<OwnedFd, HostError> {
        self.ask_for_one(&Ask::Connect(transport, to), CONNECT)
    }

    /// IPv4 routes of the host.
    pub fn routes(&self) -> Result<Vec<Route>, HostError> {
        let page = |said| if let Said::Routes(page) = said { Some(page) } else { None };
        let all = self.pages(Ask::Routes, page)?;
        Ok(all.into_iter().map(|(net, prefix, index)| Route { net, prefix, index }).collect())
    }

    /// IPv6 routes of the host: net, prefix, index of the interface.
    pub fn routes6(&self) -> Result<Vec<(Ipv6Addr, u8, u32)>, HostError> {
        self.pages(Ask::Routes6, |said| if let Said::Routes6(page) = said { Some(page) } else { None })
    }

    fn pages<T>(&self, ask: fn(u32) -> Ask, page: impl Fn(Said) -> Option<Vec<T>>) -> Result<Vec<T>, HostError> {
        let mut all = Vec::new();
        loop {
            let after = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let Some(page) = page(self.ask_for(&ask(after), 0)?.0) else { return Ok(all) };
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }
}

/// Limited to what its line of the table says.
fn limited(step_name: &'static str, line: &'static str, fd: OwnedFd) -> Step<OwnedFd> {
    let limited = skep_sandbox::limit_one(&OUTSIDE, line, fd.as_fd());
    step(step_name, limited.map_err(|e| io::Error::other(e.to_string())))?;
    Ok(fd)
}

fn open(step_name: &'static str, device: &str) -> Step<OwnedFd> {
    let open = File::options().read(true).write(true).open(device);
    Ok(step(step_name, open)?.into())
}

pub(super) fn open_rules() -> Step<OwnedFd> {
    limited(OPEN_RULES, "pf", open(OPEN_RULES, "/dev/pf")?)
}

pub(super) fn forward(set: Option<bool>) -> Step<Said> {
    if let Some(on) = set {
        step(FORWARD, set_sysctl_number(FORWARDING, on.into()))?;
    }
    Ok(Said::Is(step(FORWARD, sysctl_number(FORWARDING))? != 0))
}

/// Whoever cannot be bound to a port is not alone there.
pub(super) fn is_taken(forward: &Forward) -> Step<Said> {
    let at = (forward.address.unwrap_or(Ipv4Addr::UNSPECIFIED), forward.port.get());
    let bound = match forward.transport {
        Transport::Udp => UdpSocket::bind(at).map(drop),
        // Without SO_REUSEADDR, which the standard library would set, and without listening.
        Transport::Tcp => {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = step(TAKEN, socket(AddressFamily::Inet, SockType::Stream, flags, None).map_err(Into::into))?;
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(at.0, at.1))).map_err(Into::into)
        }
    };
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Said::Is(true)),
        // An address that the host has not yet.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(Said::Is(false)),
        result => step(TAKEN, result).map(|()| Said::Is(false)),
    }
}

pub(super) fn connect(transport: Transport, to: SocketAddr) -> Step<OwnedFd> {
    limited(CONNECT, "server", step(CONNECT, begin(transport, to))?)
}

pub(super) fn list(after: u32) -> Step<Said> {
    let all = step(ROUTES, routes::routes())?;
    let page = all.into_iter().skip(after as usize).take(PAGE);
    Ok(Said::Routes(page.map(|route| (route.net, route.prefix, route.index)).collect()))
}

pub(super) fn list6(after: u32) -> Step<Said> {
    let all = step(ROUTES, routes::routes6())?;
    let page = all.into_iter().skip(after as usize).take(PAGE);
    Ok(Said::Routes6(page.map(|route| (route.net, route.prefix, route.index)).collect()))
}

impl Sender {
    pub(super) fn open_port(&self, tap: &IfName, v6: bool) -> Step<OwnedFd> {
        step(OPEN_PORT, self.named(tap, 't', IfName::tap))?;
        let device = open(OPEN_PORT, "/dev/bpf")?;
        step(OPEN_PORT, bpf::port(device.as_fd(), tap.as_str(), v6))?;
        limited(OPEN_PORT, "port", device)
    }

    /// What a guest sends goes through a node of bpf before it comes to whatever his tap is a member of; until that has its program it
    /// lets nothing through.
    pub(super) fn guard(&self, socket: BorrowedFd<'_>, tap: &IfName, own: Option<&Own>) -> Step<()> {
        step(GUARD, self.named(tap, 't', IfName::tap))?;
        let node = path(tap);
        let hooks = match netgraph::hooks(socket, &node) {
            Err(error) if own.is_none() && error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(()),
            hooks => step(HOOKS, hooks)?,
        };
        let guarded = hooks.iter().any(|hook| hook.name == "lower" && hook.peer.kind == "bpf");
        match (own, guarded) {
            (None, false) => Ok(()),
            (None, true) => step(GUARD, let_go(socket, &node)),
            (Some(own), true) => step(GUARD, hold(socket, &node, own)),
            (Some(own), false) => {
                let all = || -> io::Result<()> {
                    netgraph::make_peer(socket, &node, "bpf", "lower", GUEST)?;
                    hold(socket, &node, own)?;
                    netgraph::connect(socket, &node, "upper", &format!("{node}lower"), HOST)?;
                    // Frames keep the address of whoever sent them.
                    netgraph::send(socket, &node, netgraph::SET_SOURCE, &0u32.to_ne_bytes()).map(drop)
                };
                step(GUARD, all()).inspect_err(|_| {
                    // What stays lets nothing through.
                    let _ = let_go(socket, &node);
                })
            }
        }
    }
}

fn hold(socket: BorrowedFd<'_>, node: &str, own: &Own) -> io::Result<()> {
    let filter = format!("{node}lower");
    let v6 = own.subnet6.map(|net| [net.of(own.mac), link_local(own.mac)]);
    netgraph::filter(socket, &filter, GUEST, &from_own(own.mac, own.address, v6), HOST)?;
    // The other way everything goes; before it is joined there is no such hook.
    match netgraph::filter(socket, &filter, HOST, &ALL, GUEST) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    }
}

/// Its filter ends with its last hook.
fn let_go(socket: BorrowedFd<'_>, node: &str) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    };
    gone(netgraph::disconnect(socket, node, "upper"))?;
    gone(netgraph::disconnect(socket, node, "lower"))
}
