//! FreeBSD: ioctls on a socket, which work in capability mode, and a process outside of it ([`outside`]) for what does not.
//!
//! A tap is made as `tapN`, opened and renamed, by the part outside, so that it bears the same name as on Linux; its device stays `/dev/tapN`. bhyve sees neither:
//! it opens the inherited descriptor by a name of the cell's own. The tap stays when it is closed, though down, and is deleted by
//! `DeleteTap`, or made anew. An instance's interfaces are in the group `skep`.
//!
//! Making and naming are two requests. So that nothing stays when the helper is killed between them, the first thing that a new
//! interface gets is a description that says what it will be called, by which [`NetHost::sweep`] finds it.
//!
//! A switch that is a subnet has rules of pf(4) in an anchor of its own ([`subnets`]), by requests that work in capability mode, too. What
//! its guests may send at all is held to by a program of bpf in a node of netgraph, between the tap and whatever that is a member of: pf
//! sees nothing of a frame but what is in it.
//!
//! There is no request that has the host not listen on an interface, as there is on Linux: a bridge takes no IPv6 address by itself, but
//! the host answers guests on it for its other addresses unless a firewall forbids it.

pub mod outside;
pub mod rules;
mod subnets;
mod tunnels;

use super::{Counters, HostError, Link, NetHost, Route, Switch};
use crate::key::{KeyError, PrivateKey};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use outside::Outside;
use skep_proto::net::{Gateway, Own, PortForward};
use skep_proto::tunnel::{PublicKey, Tunnel};
use skep_proto::{Forward, IfName, InstanceId, Subnet6, Text, Transport};
use skep_rights::net::{ADDRESS_IOCTLS, ADDRESS6_IOCTLS, INTERFACE_IOCTLS, PF_IOCTLS};
use skep_sys::freebsd::{inet6, net, pf};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Every interface that skep made is in it.
const GROUP: &str = "skep";
/// What a new interface's description begins with, before the name that it will have.
const MAKING: &str = "skep makes ";
/// Groups that do not tell a kind.
const OTHER_GROUPS: [&str; 3] = ["all", "egress", GROUP];

/// The limits that the table puts on a descriptor are the requests that are made on it.
const fn same(mut allowed: &[u64], mut made: &[nix::libc::c_ulong]) -> bool {
    if allowed.len() != made.len() {
        return false;
    }
    while let ([one, rest @ ..], [other, others @ ..]) = (allowed, made) {
        if *one != *other {
            return false;
        }
        (allowed, made) = (rest, others);
    }
    true
}
const _: () = assert!(same(INTERFACE_IOCTLS, &net::REQUESTS));
const _: () = assert!(same(ADDRESS_IOCTLS, &net::ADDRESS_REQUESTS));
const _: () = assert!(same(ADDRESS6_IOCTLS, &inet6::REQUESTS));
const _: () = assert!(same(PF_IOCTLS, &pf::REQUESTS));

/// The network of the jail, or host, that this process began in.
#[derive(Debug)]
pub struct Host {
    socket: OwnedFd,
    /// For addresses of IPv4, which take a socket of that family.
    addresses: OwnedFd,
    /// For those of IPv6; none: the kernel does not speak it.
    addresses6: Option<OwnedFd>,
    /// This host's key of WireGuard, or why there is none.
    key: Result<PrivateKey, String>,
    public: Option<PublicKey>,
    outside: Option<Outside>,
    /// /dev/pf, once it was needed.
    rules: Option<OwnedFd>,
    /// The hardware addresses of guests that are kept to their own.
    own: BTreeMap<String, [u8; 6]>,
}

impl Host {
    /// Opens the socket. The process has to stay root: the kernel asks for it at each request.
    pub fn acquire(identity: &mut Option<(u32, u32)>) -> Result<Self, HostError> {
        *identity = None;
        let open = |family| socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        let of = |family| open(family).map_err(HostError::step("open a socket"));
        let (socket, addresses) = (of(AddressFamily::Unix)?, of(AddressFamily::Inet)?);
        let (addresses6, key) = (open(AddressFamily::Inet6).ok(), Err(KeyError::None.to_string()));
        Ok(Self { socket, addresses, addresses6, key, public: None, outside: None, rules: None, own: BTreeMap::new() })
    }

    /// With this host's key of WireGuard, or without.
    #[must_use]
    pub fn with_key(self, key: Result<PrivateKey, KeyError>) -> Self {
        Self { key: key.map_err(|why| why.to_string()), ..self }
    }

    fn outside(&self) -> Result<&Outside, HostError> {
        let missing = || HostError::step("start the part outside of capability mode")(Errno::EOPNOTSUPP);
        self.outside.as_ref().ok_or_else(missing)
    }

    /// Starts the part outside of capability mode, this program itself: without it there are no taps, nor switches of netgraph.
    pub fn with_outside(self, program: &Path, instance: InstanceId, uplinks: &[IfName]) -> Result<Self, HostError> {
        let outside =
            Outside::start(program, instance, uplinks).map_err(HostError::step("start the part outside of capability mode"))?;
        Ok(Self { outside: Some(outside), ..self })
    }

    /// Who can change this switch, if it is one of netgraph.
    fn graph_of(&self, switch: &IfName) -> Result<Option<&Outside>, HostError> {
        let Some(graph) = &self.outside else { return Ok(None) };
        Ok(graph.bridges()?.iter().any(|bridge| bridge.name == *switch).then_some(graph))
    }

    /// Switches of netgraph among `links`: they themselves, and what is on them.
    fn add_graph(&self, links: &mut Vec<Link>) -> Result<(), HostError> {
        let Some(graph) = &self.outside else { return Ok(()) };
        for bridge in graph.bridges()? {
            // Their numbers are other numbers than those of interfaces.
            let index = bridge.id | 1 << 31;
            // A node has no "." in its name.
            let is_on = |link: &Link| bridge.members.iter().any(|on| on.as_str() == link.name.as_str().replace('.', "_"));
            links.iter_mut().filter(|link| is_on(link)).for_each(|link| link.bridge = Some(index));
            let (kind, note) = (Text::lossy("ng_bridge"), String::new());
            let (up, loopback, held, mtu) = (true, false, false, 1500);
            links.push(Link { index, name: bridge.name, kind, up, loopback, mtu, bridge: None, isolated: false, held, note });
        }
        Ok(())
    }

    /// Lines of the table.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("interfaces", self.socket.as_fd()), ("addresses", self.addresses.as_fd())];
        held.extend(self.addresses6.iter().map(|socket| ("addresses6", socket.as_fd())));
        held.extend(self.outside.iter().map(|outside| ("outside", outside.as_fd())));
        held
    }

    /// What there is to know of the interface `text`; none if it went meanwhile, or if no message can carry its name.
    fn look(&self, text: &str, bridges: &BTreeMap<String, (u32, bool)>) -> io::Result<Option<Link>> {
        let socket = self.socket.as_fd();
        let Ok(name) = text.parse::<IfName>() else { return Ok(None) };
        let found = (|| {
            let flags = net::flags(socket, text)?;
            let kind = net::groups(socket, text)?.into_iter().find(|group| !OTHER_GROUPS.contains(&group.as_str()));
            let kind = kind.unwrap_or_default();
            Ok(Link {
                index: net::index(socket, text)?,
                name,
                kind: Text::lossy(&kind),
                // An open tap runs.
                held: kind == "tap" && flags & nix::libc::IFF_RUNNING != 0,
                up: flags & nix::libc::IFF_UP != 0,
                loopback: flags & nix::libc::IFF_LOOPBACK != 0,
                mtu: net::mtu(socket, text)?,
                bridge: bridges.get(text).map(|(bridge, _)| *bridge),
                isolated: bridges.get(text).is_some_and(|(_, apart)| *apart),
                note: net::description(socket, text)?,
            })
        })();
        match found {
            Err(e) if is(&e, Errno::ENXIO) => Ok(None),
            result => result.map(Some),
        }
    }

    /// The index of the bridge of each member, and whether it is kept apart there.
    fn bridges(&self, names: &[String]) -> io::Result<BTreeMap<String, (u32, bool)>> {
        let socket = self.socket.as_fd();
        let members = |name: &str| -> io::Result<(u32, Vec<(String, bool)>)> {
            let is_bridge = net::groups(socket, name)?.iter().any(|group| group == "bridge");
            Ok((net::index(socket, name)?, if is_bridge { net::members_apart(socket, name)? } else { Vec::new() }))
        };
        let mut found = BTreeMap::new();
        for name in names {
            match members(name) {
                Ok((bridge, members)) => {
                    found.extend(members.into_iter().map(|(member, apart)| (member, (bridge, apart))));
                }
                // It went meanwhile.
                Err(e) if is(&e, Errno::ENXIO) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Gives a new interface its mark, group and name.
    fn adopt(&self, made: &str, name: &IfName) -> Result<(), HostError> {
        adopt(self.socket.as_fd(), made, name)
    }

    /// Takes back what was just made, and not yet renamed. That it cannot be would be news to whoever reads the list of interfaces.
    fn discard(&self, made: &str) {
        let _ = net::destroy(self.socket.as_fd(), made);
    }
}

/// The step at which a new interface gets its mark.
const DESCRIBE: &str = "describe it";
/// Its group.
const ENTER_GROUP: &str = "put it into the group skep";
/// Its name.
const NAME: &str = "name it";

/// Gives a new interface its mark, group and name.
fn adopt(socket: BorrowedFd<'_>, made: &str, name: &IfName) -> Result<(), HostError> {
    net::describe(socket, made, &format!("{MAKING}{name}")).map_err(HostError::step(DESCRIBE))?;
    net::join_group(socket, made, GROUP).map_err(HostError::step(ENTER_GROUP))?;
    net::rename(socket, made, name.as_str()).map_err(HostError::step(NAME))
}

/// The program in its other role, if its arguments ask for that.
pub fn other_role(arguments: &[String]) -> Option<Result<(), outside::sender::Error>> {
    arguments.split_first().filter(|(first, _)| *first == outside::ROLE).map(|(_, rest)| outside::sender::run(rest))
}

/// What requests of ours can make.
const KINDS: [&str; 5] = ["bridge", "tap", "vxlan", "epair", "wg"];

/// The failure to make an interface. Of a kind that the kernel does not know, because the module is not loaded, it says `EINVAL`.
fn unmade(step: &'static str, missing: &'static str) -> impl FnOnce(io::Error) -> HostError {
    move |error| if is(&error, Errno::EINVAL) { HostError::step(missing)(Errno::EOPNOTSUPP) } else { HostError { step, error } }
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
        let mut links = all().map_err(HostError::step("list interfaces"))?;
        self.add_graph(&mut links)?;
        Ok(links)
    }

    /// By the part outside: capability mode refuses the request, and an interface's own (`SIOCGIFDATA`) is not there.
    fn counters(&mut self, name: &IfName) -> Result<Option<Counters>, HostError> {
        let Some(outside) = &self.outside else { return Ok(None) };
        match net::index(self.socket.as_fd(), name.as_str()) {
            Ok(index) => outside.count(name, index),
            Err(e) if is(&e, Errno::ENXIO) => Ok(None),
            Err(e) => Err(HostError::step("read its counters")(e)),
        }
    }

    fn make_bridge(&mut self, name: &IfName, kind: Switch) -> Result<(), HostError> {
        if kind == Switch::Netgraph {
            return self.outside()?.make(name);
        }
        let made = net::create(self.socket.as_fd(), "bridge");
        let made = made.map_err(unmade("make a bridge", "make a bridge (kldload if_bridge)"))?;
        self.adopt(&made, name).inspect_err(|_| self.discard(&made))
    }

    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError> {
        self.outside()?.make_tap(name)
    }

    fn make_tunnel(&mut self, name: &IfName, tunnel: &Tunnel) -> Result<(), HostError> {
        self.make_a_tunnel(name, tunnel)
    }

    fn tunnel(&mut self, name: &IfName) -> Result<Option<Tunnel>, HostError> {
        self.look_at_tunnel(name)
    }

    fn host_key(&mut self, instance: InstanceId) -> Result<PublicKey, HostError> {
        self.public_key(instance)
    }

    fn make_pair(&mut self, ends: &[IfName; 2]) -> Result<(), HostError> {
        let made = net::create(self.socket.as_fd(), "epair");
        let made = made.map_err(unmade("make a pair", "make a pair (kldload if_epair)"))?;
        let [a, b] = ends;
        let all = || -> Result<(), HostError> {
            let other = made.strip_suffix('a').map(|stem| format!("{stem}b"));
            let other = other.ok_or_else(|| HostError::step("make a pair")(Errno::ENXIO))?;
            self.adopt(&made, a)?;
            self.adopt(&other, b)
        };
        // One end takes the other along. If nothing has its first name any more, it has its second.
        all().inspect_err(|_| match net::destroy(self.socket.as_fd(), &made) {
            Err(e) if is(&e, Errno::ENXIO) => self.discard(a.as_str()),
            _ => {}
        })
    }

    fn owners(&mut self, address: IpAddr) -> Result<Vec<IfName>, HostError> {
        let all = net::addresses(self.socket.as_fd()).map_err(HostError::step("list addresses"))?;
        Ok(all.into_iter().filter(|(_, found)| *found == Some(address)).filter_map(|(name, _)| name.parse().ok()).collect())
    }

    fn sweep(&mut self, instance: InstanceId) -> Result<(), HostError> {
        let socket = self.socket.as_fd();
        let half_made = |name: &String| -> io::Result<bool> {
            let note = net::description(socket, name)?;
            let wanted = note.strip_prefix(MAKING).and_then(|wanted| wanted.parse::<IfName>().ok());
            let ours = wanted.is_some_and(|wanted| wanted.is_of(instance) && wanted.as_str() != name);
            // What the host's administrator described so is no interface that a request can make.
            Ok(ours && net::groups(socket, name)?.iter().any(|group| KINDS.contains(&group.as_str())))
        };
        let names = net::list(socket).map_err(HostError::step("list interfaces"))?;
        let mut left: Vec<IfName> = Vec::new();
        for name in &names {
            match half_made(name) {
                Ok(true) => left.extend(name.parse()),
                // It went meanwhile.
                Err(e) if !is(&e, Errno::ENXIO) => return Err(HostError { step: "read what it is for", error: e }),
                _ => {}
            }
        }
        left.push(IfName::keying(instance));
        left.iter().try_for_each(|name| self.delete(name))?;
        self.sweep_rules(instance)
    }

    fn no_subnets(&mut self) -> Option<&'static str> {
        self.why_no_subnets()
    }

    fn connect(&mut self, transport: Transport, to: SocketAddr) -> Result<OwnedFd, HostError> {
        self.outside()?.connect(transport, to)
    }

    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        // A part of the world, but for halves of it: VPNs have a default route in two parts.
        Ok(self.outside()?.routes()?.into_iter().filter(|route| route.prefix >= 8).collect())
    }

    fn set_address(&mut self, bridge: &IfName, address: Option<(Ipv4Addr, u8)>) -> Result<(), HostError> {
        self.address(bridge, address)
    }

    fn no_subnets6(&mut self) -> Option<&'static str> {
        self.addresses6.is_none().then_some("this kernel does not speak IPv6")
    }

    fn routes6(&mut self) -> Result<Vec<(Ipv6Addr, u8, u32)>, HostError> {
        Ok(self.outside()?.routes6()?.into_iter().filter(|(_, prefix, _)| *prefix >= 8).collect())
    }

    fn set_address6(&mut self, bridge: &IfName, subnet: Option<Subnet6>) -> Result<(), HostError> {
        self.address6(bridge, subnet)
    }

    fn guard(
        &mut self, instance: InstanceId, bridge: &IfName, gateway: Option<(&Gateway, &[PortForward])>,
    ) -> Result<(), HostError> {
        self.guard_switch(instance, bridge, gateway)
    }

    fn listener(&mut self, forward: &Forward) -> Result<Option<IpAddr>, HostError> {
        let address = forward.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        Ok(self.outside()?.is_taken(forward)?.then_some(address.into()))
    }

    fn forward(&mut self, instance: InstanceId) -> Result<(), HostError> {
        self.forward_if_needed(instance)
    }

    fn guard_tap(&mut self, tap: &IfName, own: Option<&Own>) -> Result<(), HostError> {
        self.guard_port(tap, own)
    }

    fn open_port(&mut self, tap: &Link, v6: bool) -> Result<OwnedFd, HostError> {
        self.outside()?.open_port(&tap.name, v6)
    }

    fn isolate(&mut self, port: &IfName, isolated: bool) -> Result<(), HostError> {
        let step = || HostError::step("keep it apart from others of its switch");
        match self.bridge_of_port(port).map_err(step())? {
            Some(bridge) => net::set_private(self.socket.as_fd(), &bridge, port.as_str(), isolated).map_err(step()),
            None if isolated => Err(HostError::step("keep it apart on a switch of netgraph")(Errno::EOPNOTSUPP)),
            None => Ok(()),
        }
    }

    fn delete(&mut self, name: &IfName) -> Result<(), HostError> {
        if let Some(graph) = self.graph_of(name)? {
            return graph.remove(name);
        }
        let (socket, name) = (self.socket.as_fd(), name.as_str());
        let gone = |result: io::Result<()>| match result {
            Err(e) if is(&e, Errno::ENXIO) => Ok(()),
            result => result.map_err(HostError::step("delete it")),
        };
        let open_tap = || -> io::Result<bool> {
            let is_tap = net::groups(socket, name)?.iter().any(|group| group == "tap");
            Ok(is_tap && net::flags(socket, name)? & nix::libc::IFF_RUNNING != 0)
        };
        let deleted = match open_tap() {
            // The kernel would wait until whoever has it open closes it, and we with it.
            Ok(true) => Err(HostError::step("delete it while it is open")(Errno::EBUSY)),
            Ok(false) => gone(net::destroy(socket, name)),
            Err(e) => gone(Err(e)),
        };
        deleted.map(|()| {
            self.own.remove(name);
        })
    }

    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError> {
        // A node has a name, and no more to be said of it.
        if self.graph_of(name)?.is_some() {
            return Ok(());
        }
        net::describe(self.socket.as_fd(), name.as_str(), note).map_err(HostError::step("describe it"))
    }

    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError> {
        if self.graph_of(name)?.is_some() {
            return Ok(());
        }
        let step = if up { "set it up" } else { "set it down" };
        let (socket, text) = (self.socket.as_fd(), name.as_str());
        let all = || -> io::Result<()> {
            net::set_up(socket, text, up)?;
            // A tunnel that cannot be opened says so to the console only, and does not run: another has its network, or its port with
            // another kind of address (a group's takes the port of all of the host's addresses).
            let idle = up && net::flags(socket, text)? & nix::libc::IFF_RUNNING == 0;
            if idle && net::groups(socket, text)?.iter().any(|group| group == "vxlan") {
                net::set_up(socket, text, false)?;
                return Err(Errno::EADDRINUSE.into());
            }
            Ok(())
        };
        all().map_err(HostError::step(step))
    }

    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        if let Some(graph) = self.graph_of(bridge)? {
            return graph.join(port, bridge);
        }
        let group = rules::taps(bridge);
        let (socket, bridge, name, port) = (self.socket.as_fd(), bridge.as_str(), port, port.as_str());
        let all = || -> io::Result<()> {
            // All members of a bridge have one MTU: the first one's. What is ours can follow, what is the host's cannot.
            let (wanted, mtu) = (net::mtu(socket, bridge)?, net::mtu(socket, port)?);
            let groups = net::groups(socket, port)?;
            let ours = groups.iter().any(|group| group == GROUP);
            if wanted != mtu && !net::members(socket, bridge)?.is_empty() {
                if !ours {
                    return Err(io::Error::other(format!("its MTU is {mtu}, that of the bridge's members {wanted}")));
                }
                net::set_mtu(socket, port, wanted)?;
            }
            net::add_member(socket, bridge, port)?;
            let rest = || -> io::Result<()> {
                if ours && groups.iter().any(|group| group == "tap") && !groups.contains(&group) {
                    net::join_group(socket, port, &group)?;
                }
                self.settle(name, bridge)
            };
            rest().inspect_err(|_| {
                let _ = net::delete_member(socket, bridge, port);
            })
        };
        all().map_err(HostError::step("make it a member of the bridge"))
    }

    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        if let Some(graph) = self.graph_of(bridge)? {
            return graph.leave(port, bridge);
        }
        let step = HostError::step("release it from the bridge");
        let (socket, group, bridge, port) = (self.socket.as_fd(), rules::taps(bridge), bridge.as_str(), port.as_str());
        let all = || -> io::Result<()> {
            let was_in = match net::leave_group(socket, port, &group) {
                // It is no tap of ours.
                Err(e) if is(&e, Errno::ENOENT) => false,
                result => result.map(|()| true)?,
            };
            net::delete_member(socket, bridge, port).inspect_err(|_| {
                if was_in {
                    let _ = net::join_group(socket, port, &group);
                }
            })
        };
        all().map_err(step)
    }
}
