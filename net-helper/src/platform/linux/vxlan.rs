//! Settings of tunnels, as the kernel shows them.

use netlink_packet_route::link::InfoVxlan;
use skep_proto::IfName;
use skep_proto::tunnel::{Far, GroupAddress, HostAddress, Tunnel, Vni};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

/// What matters of a VXLAN interface's settings.
#[derive(Debug, Default)]
pub struct Settings {
    vni: Option<u32>,
    local: Option<IpAddr>,
    far: Option<IpAddr>,
    port: Option<u16>,
    /// Index of the interface that it goes through.
    pub link: Option<u32>,
}

impl Settings {
    /// As the kernel says them.
    pub fn new(infos: Vec<InfoVxlan>) -> Self {
        let mut settings = Self::default();
        for info in infos {
            match info {
                InfoVxlan::Id(vni) => settings.vni = Some(vni),
                InfoVxlan::Local(v4) => settings.local = Some(v4.into()),
                InfoVxlan::Local6(v6) => settings.local = Some(v6.into()),
                InfoVxlan::Group(v4) => settings.far = Some(v4.into()),
                InfoVxlan::Group6(v6) => settings.far = Some(v6.into()),
                InfoVxlan::Port(port) => settings.port = Some(port),
                InfoVxlan::Link(index) if index != 0 => settings.link = Some(index),
                _ => {}
            }
        }
        settings
    }

    /// As one that we would make, if it is.
    pub fn tunnel(&self, uplink: Option<IfName>) -> Option<Tunnel> {
        let far = match (self.far?, uplink) {
            (address, Some(uplink)) if address.is_multicast() => Far::Group { address: GroupAddress::new(address).ok()?, uplink },
            (address, None) => Far::Host(HostAddress::new(address).ok()?),
            _ => return None,
        };
        let (vni, local) = (Vni::new(self.vni?).ok()?, HostAddress::new(self.local?).ok()?);
        Some(Tunnel { vni, local, far, port: NonZeroU16::new(self.port?)?, peer_key: None })
    }

    /// Whether it is this network, from one of these addresses to the other.
    pub fn is(&self, vni: Vni, local: Ipv6Addr, far: Ipv6Addr, port: u16) -> bool {
        let Self { vni: number, local: from, far: to, port: by, link: _ } = *self;
        (number, from, to, by) == (Some(vni.get()), Some(local.into()), Some(far.into()), Some(port))
    }
}
