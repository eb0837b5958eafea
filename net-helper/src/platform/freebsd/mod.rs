//! FreeBSD: ioctls on a socket, and taps opened beneath /dev; both work in capability mode.
//!
//! A tap is made as `tapN` and renamed, so that it bears the same name as on Linux; its device stays `/dev/tapN`. bhyve sees neither:
//! it opens the inherited descriptor by a name of the cell's own. The tap stays when it is closed, though down, and is deleted by
//! `DeleteTap`. An instance's interfaces are in the group `skep`.
//!
//! There is no request that has the host not listen on an interface, as there is on Linux: a bridge takes no IPv6 address by itself, but
//! the host answers guests on it for its other addresses unless a firewall forbids it.

use super::{HostError, Link, NetHost};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use skep_proto::{IfName, Text};
use skep_rights::net::{INTERFACE_IOCTLS, TABLE};
use skep_sys::freebsd::net;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Every interface that skep made is in it.
const GROUP: &str = "skep";
/// Groups that do not tell a kind.
const OTHER_GROUPS: [&str; 3] = ["all", "egress", GROUP];

// The limits that the table puts on the socket are the requests that are made on it.
const _: () = {
    assert!(INTERFACE_IOCTLS.len() == net::REQUESTS.len());
    let (mut allowed, mut made) = (INTERFACE_IOCTLS, net::REQUESTS.as_slice());
    while let ([one, rest @ ..], [other, others @ ..]) = (allowed, made) {
        assert!(*one == *other);
        (allowed, made) = (rest, others);
    }
};

/// The network of the jail, or host, that this process began in.
#[derive(Debug)]
pub struct Host {
    socket: OwnedFd,
    devices: OwnedFd,
}

impl Host {
    /// Opens the socket and /dev. The process has to stay root: the kernel asks for it at each request.
    pub fn acquire(identity: &mut Option<(u32, u32)>) -> Result<Self, HostError> {
        *identity = None;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        let devices = nix::fcntl::open("/dev", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        Ok(Self {
            socket: socket.map_err(HostError::step("open a socket"))?,
            devices: devices.map_err(HostError::step("open /dev"))?,
        })
    }

    /// Lines of the table.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("interfaces", self.socket.as_fd()), ("devices", self.devices.as_fd())]
    }

    /// What there is to know of the interface `text`; none if it went meanwhile, or if no message can carry its name.
    fn look(&self, text: &str, bridges: &BTreeMap<String, u32>) -> io::Result<Option<Link>> {
        let socket = self.socket.as_fd();
        let Ok(name) = text.parse::<IfName>() else { return Ok(None) };
        let found = (|| {
            let flags = net::flags(socket, text)?;
            let kind = net::groups(socket, text)?.into_iter().find(|group| !OTHER_GROUPS.contains(&group.as_str()));
            Ok(Link {
                index: net::index(socket, text)?,
                name,
                kind: Text::lossy(&kind.unwrap_or_default()),
                up: flags & nix::libc::IFF_UP != 0,
                loopback: flags & nix::libc::IFF_LOOPBACK != 0,
                mtu: net::mtu(socket, text)?,
                bridge: bridges.get(text).copied(),
                note: net::description(socket, text)?,
            })
        })();
        match found {
            Err(e) if is(&e, Errno::ENXIO) => Ok(None),
            result => result.map(Some),
        }
    }

    /// The index of the bridge of each member.
    fn bridges(&self, names: &[String]) -> io::Result<BTreeMap<String, u32>> {
        let socket = self.socket.as_fd();
        let members = |name: &str| -> io::Result<(u32, Vec<String>)> {
            let is_bridge = net::groups(socket, name)?.iter().any(|group| group == "bridge");
            Ok((net::index(socket, name)?, if is_bridge { net::members(socket, name)? } else { Vec::new() }))
        };
        let mut found = BTreeMap::new();
        for name in names {
            match members(name) {
                Ok((bridge, members)) => found.extend(members.into_iter().map(|member| (member, bridge))),
                // It went meanwhile.
                Err(e) if is(&e, Errno::ENXIO) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Gives a new interface its group and name.
    fn adopt(&self, made: &str, name: &IfName) -> Result<(), HostError> {
        let socket = self.socket.as_fd();
        net::join_group(socket, made, GROUP).map_err(HostError::step("put it into the group skep"))?;
        net::rename(socket, made, name.as_str()).map_err(HostError::step("name it"))
    }

    /// Takes back what was just made, and not yet renamed. That it cannot be would be news to whoever reads the list of interfaces.
    fn discard(&self, made: &str) {
        let _ = net::destroy(self.socket.as_fd(), made);
    }

    /// Opens the device of a new tap, with the rights that bhyve needs.
    fn open(&self, made: &str) -> Result<OwnedFd, HostError> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let tap = openat(self.devices.as_fd(), made, flags, Mode::empty()).map_err(HostError::step("open the tap"))?;
        let limited = skep_sandbox::limit_one(&TABLE, "tap", tap.as_fd());
        limited.map_err(|e| HostError { step: "limit the tap", error: io::Error::other(e.to_string()) })?;
        Ok(tap)
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

impl NetHost for Host {
    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let all = || -> io::Result<Vec<Link>> {
            let names = net::list(self.socket.as_fd())?;
            let bridges = self.bridges(&names)?;
            names.iter().filter_map(|name| self.look(name, &bridges).transpose()).collect()
        };
        all().map_err(HostError::step("list interfaces"))
    }

    fn make_bridge(&mut self, name: &IfName) -> Result<(), HostError> {
        let made = net::create(self.socket.as_fd(), "bridge").map_err(HostError::step("make a bridge"))?;
        self.adopt(&made, name).inspect_err(|_| self.discard(&made))
    }

    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError> {
        let made = net::create(self.socket.as_fd(), "tap").map_err(HostError::step("make a tap"))?;
        // The tap is closed before it is discarded: the descriptor does not leave the closure on failure.
        let all = || -> Result<OwnedFd, HostError> {
            let tap = self.open(&made)?;
            self.adopt(&made, name)?;
            Ok(tap)
        };
        all().inspect_err(|_| self.discard(&made))
    }

    fn delete(&mut self, name: &IfName) -> Result<(), HostError> {
        let (socket, name) = (self.socket.as_fd(), name.as_str());
        let gone = |result: io::Result<()>| match result {
            Err(e) if is(&e, Errno::ENXIO) => Ok(()),
            result => result.map_err(HostError::step("delete it")),
        };
        let open_tap = || -> io::Result<bool> {
            let is_tap = net::groups(socket, name)?.iter().any(|group| group == "tap");
            Ok(is_tap && net::flags(socket, name)? & nix::libc::IFF_RUNNING != 0)
        };
        match open_tap() {
            // The kernel would wait until whoever has it open closes it, and we with it.
            Ok(true) => Err(HostError::step("delete it while it is open")(Errno::EBUSY)),
            Ok(false) => gone(net::destroy(socket, name)),
            Err(e) => gone(Err(e)),
        }
    }

    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError> {
        net::describe(self.socket.as_fd(), name.as_str(), note).map_err(HostError::step("describe it"))
    }

    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError> {
        let step = if up { "set it up" } else { "set it down" };
        net::set_up(self.socket.as_fd(), name.as_str(), up).map_err(HostError::step(step))
    }

    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        let step = HostError::step("make it a member of the bridge");
        net::add_member(self.socket.as_fd(), bridge.as_str(), port.as_str()).map_err(step)
    }

    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        let step = HostError::step("release it from the bridge");
        net::delete_member(self.socket.as_fd(), bridge.as_str(), port.as_str()).map_err(step)
    }
}
