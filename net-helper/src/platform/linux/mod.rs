//! Linux: rtnetlink(7) and tuntap.

mod addresses;
mod forwarding;
mod listeners;
mod netlink;
mod node;
mod rates;
mod rules;
mod vxlan;
mod wireguard;

use super::{Counters, HostError, Link, NetHost, Route, Switch};
use crate::key::{KeyError, PrivateKey};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeBooleanOptionFlags, BridgeBooleanOptions, BridgeStpState, In6AddrGenMode,
    InetDevConf, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use skep_proto::net::{Gateway, Own, PortForward};
use skep_proto::tunnel::{Far, PORT, PublicKey, Tunnel};
use skep_proto::{Forward, HOST_LINK_LOCAL, IfName, InstanceId, Rates, Subnet6, Text, Transport};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use vxlan::Settings;

/// The device that taps are made of.
const TUN: &str = "/dev/net/tun";

/// The network namespace that this process began in.
#[derive(Debug)]
pub struct Host {
    route: netlink::Route,
    filter: Option<netlink::Filter>,
    listeners: listeners::Listeners,
    generic: Option<wireguard::Generic>,
    /// This host's key of WireGuard, or why there is none.
    key: Result<PrivateKey, String>,
    public: Option<PublicKey>,
}

impl Host {
    /// Opens the netlink socket; nothing else needs to be open. With an identity to become, it also sees to it that this identity can
    /// open [`TUN`].
    pub fn acquire(identity: &mut Option<(u32, u32)>) -> Result<Self, HostError> {
        if let Some((uid, gid)) = *identity {
            node::own_tun(uid, gid)?;
        }
        let route = netlink::Route::open().map_err(HostError::step("open the netlink socket"))?;
        // A kernel without it has no switches that are subnets.
        let listeners = listeners::Listeners::open().map_err(HostError::step("open the netlink socket of sock_diag"))?;
        let (filter, generic) = (netlink::Filter::open().ok(), wireguard::Generic::open().ok());
        Ok(Self { route, filter, listeners, generic, key: Err(KeyError::None.to_string()), public: None })
    }

    /// With this host's key of WireGuard, or without.
    #[must_use]
    pub fn with_key(self, key: Result<PrivateKey, KeyError>) -> Self {
        Self { key: key.map_err(|why| why.to_string()), ..self }
    }

    /// This kernel has no netgraph.
    #[allow(clippy::unnecessary_wraps)]
    pub fn with_outside(self, _program: &Path, _instance: InstanceId, _uplinks: &[IfName]) -> Result<Self, HostError> {
        Ok(self)
    }

    /// Lines of the table.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let filter = self.filter.iter().map(|filter| ("rules", filter.as_fd()));
        let generic = self.generic.iter().map(|generic| ("generic", generic.as_fd()));
        filter.chain(generic).chain([("netlink", self.route.as_fd()), ("listeners", self.listeners.as_fd())]).collect()
    }

    /// Changes the interface called `name`.
    fn set(&mut self, name: &IfName, step: &'static str, change: impl FnOnce(&mut LinkMessage)) -> Result<(), HostError> {
        let mut message = named(name);
        change(&mut message);
        self.route.ask(Message::SetLink(message), NLM_F_ACK).map(drop).map_err(HostError::step(step))
    }

    fn get(&mut self, name: &IfName) -> io::Result<Option<Link>> {
        // The kernel also looks among alternative names.
        Ok(self.get_all(name)?.into_iter().filter_map(link).find(|link| link.name == *name))
    }

    fn get_all(&mut self, name: &IfName) -> io::Result<Vec<LinkMessage>> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.messages(message)
    }

    /// What the kernel says of one interface; nothing if it is not there.
    fn messages(&mut self, message: LinkMessage) -> io::Result<Vec<LinkMessage>> {
        match self.route.links(Message::GetLink(message), NLM_F_ACK) {
            Err(e) if e.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(Vec::new()),
            result => result,
        }
    }

    /// Makes an interface, down.
    fn make(&mut self, name: &IfName, kind: InfoKind, data: InfoData, step: &'static str) -> Result<(), HostError> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.route.ask(Message::NewLink(message), flags).map(drop).map_err(HostError::step(step))
    }

    fn filter(&mut self) -> Result<&mut netlink::Filter, HostError> {
        self.filter.as_mut().ok_or_else(|| HostError::step("ask nf_tables, which this kernel has not")(Errno::EOPNOTSUPP))
    }

    /// Names of the tables of nf_tables that are there.
    pub fn tables(&mut self) -> Result<Vec<String>, HostError> {
        let tables = self.filter()?.ask(rules::list(), NLM_F_DUMP).map_err(HostError::step("list tables of nf_tables"))?;
        Ok(tables.iter().filter_map(rules::name).map(str::to_owned).collect())
    }

    /// Makes a bridge ready for the host to be on it.
    ///
    /// Its hardware address is one of its own: else it would be the lowest of its ports', and change under those who are connected
    /// whenever somebody comes or goes. And frames to some addresses (IEEE 802.1D) no rule of a bridge's is asked about: it is not to learn
    /// from them who is where, or a guest would have what is for his neighbour come to himself.
    fn settle(&mut self, bridge: &IfName) -> Result<(), HostError> {
        let flag = BridgeBooleanOptionFlags::NoLinkLocalLearn;
        let data = vec![InfoBridge::MultiBoolOpt(BridgeBooleanOptions { value: flag, mask: flag })];
        let mut message = named(bridge);
        message.attributes.push(LinkAttribute::Address(mac_of(bridge).to_vec()));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))]));
        let step = HostError::step("give it an address of its own (and no_linklocal_learn)");
        self.route.ask(Message::NewLink(message), NLM_F_ACK).map(drop).map_err(step)
    }

    fn set_master(&mut self, port: &IfName, bridge: u32, step: &'static str) -> Result<(), HostError> {
        self.set(port, step, |message| message.attributes.push(LinkAttribute::Controller(bridge)))
    }
}

impl NetHost for Host {
    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let links = self.route.links(Message::GetLink(message), NLM_F_DUMP).map_err(HostError::step("list interfaces"))?;
        Ok(links.into_iter().filter_map(link).collect())
    }

    fn link(&mut self, name: &IfName) -> Result<Option<Link>, HostError> {
        self.get(name).map_err(HostError::step("look at it"))
    }

    fn counters(&mut self, name: &IfName) -> Result<Option<Counters>, HostError> {
        let messages = self.messages(named(name)).map_err(HostError::step("read its counters"))?;
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        Ok(attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(s) => {
                Some(Counters { rx_bytes: s.rx_bytes, rx_packets: s.rx_packets, tx_bytes: s.tx_bytes, tx_packets: s.tx_packets })
            }
            _ => None,
        }))
    }

    fn make_bridge(&mut self, name: &IfName, kind: Switch) -> Result<(), HostError> {
        if kind == Switch::Netgraph {
            return Err(HostError::step("make a switch of netgraph, which FreeBSD alone has")(Errno::EOPNOTSUPP));
        }
        // Members forward at once: there is no spanning tree to wait for.
        let data = InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)]);
        self.make(name, InfoKind::Bridge, data, "make a bridge")
    }

    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError> {
        let tun = File::options().read(true).write(true).open(TUN).map_err(HostError::step("open /dev/net/tun"))?;
        skep_sys::linux::tun::set_tap(tun.as_fd(), name.as_str()).map_err(HostError::step("make a tap (TUNSETIFF)"))?;
        Ok(tun.into())
    }

    fn make_tunnel(&mut self, name: &IfName, tunnel: &Tunnel) -> Result<(), HostError> {
        const STEP: &str = "make a tunnel";
        // To one host all goes there, whoever says that somebody is elsewhere.
        let group = matches!(tunnel.far, Far::Group { .. });
        let mut data = vec![InfoVxlan::Id(tunnel.vni.get()), InfoVxlan::Learning(group)];
        if let Some(peer) = &tunnel.peer_key {
            let (own, index) = wireguard::make(self, name, tunnel, peer)?;
            data.extend([InfoVxlan::Port(PORT), InfoVxlan::Local6(own.address()), InfoVxlan::Group6(peer.address())]);
            data.push(InfoVxlan::Link(index));
            let made = self.make(name, InfoKind::Vxlan, InfoData::Vxlan(data), STEP);
            return made.and_then(|()| wireguard::finish(self, name, tunnel)).inspect_err(|_| {
                let _ = self.delete(name);
                let _ = self.delete(&name.beneath());
            });
        }
        data.push(InfoVxlan::Port(tunnel.port.get()));
        data.push(match tunnel.local.get() {
            IpAddr::V4(v4) => InfoVxlan::Local(v4),
            IpAddr::V6(v6) => InfoVxlan::Local6(v6),
        });
        data.push(match tunnel.far.address() {
            IpAddr::V4(v4) => InfoVxlan::Group(v4),
            IpAddr::V6(v6) => InfoVxlan::Group6(v6),
        });
        if let Far::Group { uplink, .. } = &tunnel.far {
            let found = self.get(uplink).map_err(HostError::step(STEP))?;
            data.push(InfoVxlan::Link(found.ok_or_else(|| HostError::step(STEP)(Errno::ENODEV))?.index));
        }
        self.make(name, InfoKind::Vxlan, InfoData::Vxlan(data), STEP)
    }

    fn guard_tunnel(&mut self, name: &IfName, tunnel: Option<&Tunnel>) -> Result<(), HostError> {
        let messages = match tunnel {
            Some(tunnel) if tunnel.peer_key.is_some() => rules::tunnel::guard_beneath(name),
            Some(tunnel) => rules::tunnel::guard(name, tunnel),
            None if self.filter.is_none() => return Ok(()),
            None => rules::tunnel::no_guard(name),
        };
        self.filter()?.all(messages).map_err(HostError::step("keep strangers from the tunnel (nf_tables)"))
    }

    fn tunnel(&mut self, name: &IfName) -> Result<Option<Tunnel>, HostError> {
        let step = || HostError::step("look at the tunnel");
        let found = self.get_all(name).map_err(step())?;
        let infos = found.into_iter().flat_map(|message| message.attributes).find_map(|attribute| {
            let LinkAttribute::LinkInfo(infos) = attribute else { return None };
            infos.into_iter().find_map(|info| if let LinkInfo::Data(InfoData::Vxlan(data)) = info { Some(data) } else { None })
        });
        let settings = infos.map(Settings::new).unwrap_or_default();
        let uplink = match settings.link {
            None => None,
            Some(index) => self.links()?.into_iter().find(|link| link.index == index).map(|link| link.name),
        };
        if uplink.as_ref() == Some(&name.beneath()) {
            return wireguard::tunnel(self, name, &settings);
        }
        Ok(settings.tunnel(uplink))
    }

    fn host_key(&mut self, instance: InstanceId) -> Result<PublicKey, HostError> {
        wireguard::host_key(self, instance)
    }

    fn make_pair(&mut self, ends: &[IfName; 2]) -> Result<(), HostError> {
        let [a, b] = ends;
        self.make(a, InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(named(b))), "make a pair")
    }

    fn owners(&mut self, address: IpAddr) -> Result<Vec<IfName>, HostError> {
        let all = self.route.ask(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP);
        let all = all.map_err(HostError::step("list addresses"))?;
        let own = |message: &AddressMessage| {
            let local =
                message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
            // On a point-to-point interface this one is the other end's.
            let other =
                message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
            local.or(other) == Some(address)
        };
        let indices: Vec<u32> = all
            .iter()
            .filter_map(|message| if let Message::NewAddress(message) = message { Some(message) } else { None })
            .filter(|message| own(message))
            .map(|message| message.header.index)
            .collect();
        Ok(self.links()?.into_iter().filter(|link| indices.contains(&link.index)).map(|link| link.name).collect())
    }

    fn no_subnets(&mut self) -> Option<&'static str> {
        self.filter.is_none().then_some("this kernel has no nf_tables, whose rules keep a subnet apart")
    }

    fn connect(&mut self, transport: Transport, to: SocketAddr) -> Result<OwnedFd, HostError> {
        super::begin(transport, to).map_err(HostError::step("connect"))
    }

    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        addresses::routes(self)
    }

    fn set_address(&mut self, bridge: &IfName, address: Option<(Ipv4Addr, u8)>) -> Result<(), HostError> {
        let wanted: Vec<_> = address.into_iter().map(|(ip, prefix)| (ip.into(), prefix)).collect();
        addresses::set(self, bridge, AddressFamily::Inet, &wanted)
    }

    fn no_subnets6(&mut self) -> Option<&'static str> {
        None
    }

    fn routes6(&mut self) -> Result<Vec<(Ipv6Addr, u8, u32)>, HostError> {
        addresses::routes6(self)
    }

    fn set_address6(&mut self, bridge: &IfName, subnet: Option<Subnet6>) -> Result<(), HostError> {
        let on = |subnet: Subnet6| [subnet.gateway(), HOST_LINK_LOCAL].map(|ip| (ip.into(), subnet.prefix()));
        let wanted: Vec<_> = subnet.into_iter().flat_map(on).collect();
        addresses::set(self, bridge, AddressFamily::Inet6, &wanted)
    }

    fn guard(
        &mut self, instance: InstanceId, bridge: &IfName, gateway: Option<(&Gateway, &[PortForward])>,
    ) -> Result<(), HostError> {
        let messages = match gateway {
            // Of what it was before nothing stays.
            Some((gateway, forwards)) => [rules::no_switch(bridge), rules::switch(instance, bridge, gateway, forwards)].concat(),
            None if self.filter.is_none() => return Ok(()),
            None => rules::no_switch(bridge),
        };
        if gateway.is_some() {
            self.settle(bridge)?;
        }
        self.filter()?.all(messages).map_err(HostError::step("set its rules (nf_tables)"))
    }

    fn forward(&mut self, instance: InstanceId) -> Result<(), HostError> {
        forwarding::bring(self, instance)
    }

    fn listener(&mut self, forward: &Forward) -> Result<Option<IpAddr>, HostError> {
        self.listeners.on(forward).map_err(HostError::step("ask who listens (sock_diag)"))
    }

    fn guard_tap(&mut self, tap: &IfName, own: Option<&Own>) -> Result<(), HostError> {
        let messages = match own {
            Some(own) => rules::tap(tap, own),
            None if self.filter.is_none() => return Ok(()),
            None => rules::no_tap(tap),
        };
        self.filter()?.all(messages).map_err(HostError::step("keep a guest to its own addresses (nf_tables)"))
    }

    fn limit_tap(&mut self, tap: &IfName, rates: Rates) -> Result<(), HostError> {
        const STEP: &str = "limit what its guest receives (tc-tbf)";
        let messages = match rates.outward {
            Some(rate) => rules::rate(tap, rate),
            None if self.filter.is_none() => Vec::new(),
            None => rules::no_rate(tap),
        };
        if !messages.is_empty() {
            self.filter()?.all(messages).map_err(HostError::step("limit what its guest sends (nf_tables)"))?;
        }
        let index = self.get(tap).map_err(HostError::step(STEP))?.map(|link| link.index);
        let (message, flags) = match (index, rates.inward) {
            (Some(index), Some(rate)) => {
                (Message::NewQueueDiscipline(rates::bucket(index, rate)), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            }
            (Some(index), None) => (Message::DelQueueDiscipline(rates::root(index)), NLM_F_ACK),
            (None, Some(_)) => return Err(HostError::step(STEP)(Errno::ENODEV)),
            (None, None) => return Ok(()),
        };
        match self.route.ask(message, flags) {
            // There was none.
            Err(e)
                if rates.inward.is_none()
                    && matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::EINVAL)) =>
            {
                Ok(())
            }
            result => result.map(drop).map_err(HostError::step(STEP)),
        }
    }

    fn sweep(&mut self, instance: InstanceId) -> Result<(), HostError> {
        self.delete(&IfName::keying(instance))?;
        if self.filter.is_none() {
            return Ok(());
        }
        let taps = format!("sk{instance}t");
        for table in self.tables()? {
            if let Some((bridge, _)) = rules::bridge_of(&table).filter(|(bridge, _)| bridge.is_of(instance)) {
                if self.link(&bridge)?.is_none() {
                    self.guard(instance, &bridge, None)?;
                }
            } else if let Ok(tap) = rules::tap_of(&table).parse::<IfName>()
                && table.starts_with(&taps)
                && self.link(&tap)?.is_none()
            {
                self.guard_tap(&tap, None)?;
                self.limit_tap(&tap, Rates::default())?;
            }
        }
        self.forward(instance)
    }

    fn open_port(&mut self, tap: &Link, v6: bool) -> Result<OwnedFd, HostError> {
        skep_sys::linux::packet::port(tap.index, v6).map_err(HostError::step("open a packet socket"))
    }

    fn delete(&mut self, name: &IfName) -> Result<(), HostError> {
        match self.route.ask(Message::DelLink(named(name)), NLM_F_ACK) {
            Err(e) if e.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(()),
            result => result.map(drop).map_err(HostError::step("delete it")),
        }
    }

    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError> {
        // Without an IPv6 address of its own, answering ARP only for addresses of this interface (there are none), and with the strict
        // reverse path filter, which drops every packet on an interface without addresses: a guest does not reach the host this way.
        let mut v4 = InetDevConf::default();
        (v4.arp_ignore, v4.rp_filter) = (1, 1);
        let deaf = vec![
            AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(v4)]),
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
        ];
        self.set(name, "mark it", |message| {
            message.attributes.extend([LinkAttribute::IfAlias(note.to_owned()), LinkAttribute::AfSpecUnspec(deaf)]);
        })
    }

    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError> {
        self.set(name, if up { "set it up" } else { "set it down" }, |message| {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        })
    }

    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        let step = "make it a member of the bridge";
        let found = self.get(bridge).map_err(HostError::step(step))?;
        let bridge = found.ok_or_else(|| HostError::step(step)(Errno::ENODEV))?;
        self.set_master(port, bridge.index, step)
    }

    fn isolate(&mut self, port: &IfName, isolated: bool) -> Result<(), HostError> {
        let data = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(isolated)]);
        let mut message = named(port);
        // The bridge's part of it, which a change of the interface itself would pass over.
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)]));
        let step = HostError::step("keep it apart from others of its switch");
        self.route.ask(Message::NewLink(message), NLM_F_ACK).map(drop).map_err(step)
    }

    fn leave(&mut self, port: &IfName, _bridge: &IfName) -> Result<(), HostError> {
        self.set_master(port, 0, "release it from the bridge")
    }
}

/// The program has no other role here.
pub fn other_role(_arguments: &[String]) -> Option<Result<(), std::convert::Infallible>> {
    None
}

/// A bridge's own hardware address, the same whenever it is made: of its name, as FNV-1a has it, and never one of a guest's, which skep
/// begins with 02.
fn mac_of(bridge: &IfName) -> [u8; 6] {
    let hash = bridge
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x06, a, b, c, d, e]
}

fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
    message
}

/// What we want to know of an interface; none if its name is not one that a message can carry.
fn link(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let (mut name, mut kind, mut mtu, mut bridge, mut note) = (None, Text::default(), 0, None, String::new());
    let mut isolated = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::Controller(index) if index != 0 => bridge = Some(index),
            LinkAttribute::IfAlias(text) => note = text,
            LinkAttribute::LinkInfo(infos) => {
                isolated = infos.iter().any(|info| {
                    matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(port)) if port.contains(&InfoBridgePort::Isolated(true)))
                });
                let found = infos
                    .into_iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None });
                kind = found.map(|text| Text::lossy(&text)).unwrap_or_default();
            }
            _ => {}
        }
    }
    let (up, loopback) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::Loopback));
    // A tap that nobody holds is gone.
    let held = kind.as_str() == "tun";
    Some(Link { index: message.header.index, name: name?, kind, up, loopback, mtu, bridge, isolated, held, note })
}
