//! The table of a tunnel: the kernel's tunnels take what comes from anybody, a guest of a host-only switch, too, or a program of the host's.

use super::{FILTER, Messages, NETWORK_HEADER, NFPROTO_IPV4, Operator, Rule, SOURCE, TRANSPORT_HEADER, Table, none, whole};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{InetHookNumber, MetaKey};
use skep_proto::tunnel::{Far, PORT, Tunnel};
use skep_proto::{IfName, Transport};
use std::net::IpAddr;

/// Of what is for this network, only what is from the other end comes to the tunnel; of a group's, only what comes in where the group is.
pub fn guard(name: &IfName, tunnel: &Tunnel) -> Messages {
    use Operator::{Equal, NotEqual};
    /// Where its number is behind the UDP datagram's ports (RFC 7348), and an IPv6 header its source (RFC 8200).
    const VNI: u32 = 12;
    const SOURCE6: u32 = 8;
    const NFPROTO_IPV6: u8 = 10;
    let family = if tunnel.local.get().is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    let of_it = || {
        let [_, vni @ ..] = tunnel.vni.get().to_be_bytes();
        Rule::default().port(Transport::Udp, tunnel.port.get()).at(TRANSPORT_HEADER, VNI, 3).compare(Equal, vni.to_vec())
    };
    let own = |rule: Rule| rule.meta(MetaKey::Nfproto, Equal, vec![family]);
    let strangers = match &tunnel.far {
        Far::Host(far) => match far.get() {
            IpAddr::V4(v4) => own(of_it()).at(NETWORK_HEADER, SOURCE, 4).compare(NotEqual, v4.octets().to_vec()),
            IpAddr::V6(v6) => own(of_it()).at(NETWORK_HEADER, SOURCE6, 16).compare(NotEqual, v6.octets().to_vec()),
        },
        Far::Group { uplink, .. } => of_it().meta(MetaKey::Iifname, NotEqual, whole(uplink)),
    };
    Table::new(NetfilterProtoFamily::Inet, name.as_str())
        .chain("input", "filter", InetHookNumber::LocalIn, FILTER, vec![strangers.drop()])
        .messages
}

/// Of what came out of WireGuard, which is from the other host, only what is for the tunnel comes to this one.
pub fn guard_beneath(name: &IfName) -> Messages {
    /// `IPPROTO_UDP`, and where a datagram has the port that it goes to.
    const UDP: u8 = 17;
    const TO: u32 = 2;
    let inside = || Rule::default().from(&name.beneath());
    let others = inside().meta(MetaKey::L4Proto, Operator::NotEqual, vec![UDP]);
    let elsewhere = inside().at(TRANSPORT_HEADER, TO, 2).compare(Operator::NotEqual, PORT.to_be_bytes().to_vec());
    Table::new(NetfilterProtoFamily::Inet, name.as_str())
        .chain("input", "filter", InetHookNumber::LocalIn, FILTER, vec![others.drop(), elsewhere.drop()])
        .messages
}

/// Deletes it; it need not be there.
pub fn no_guard(name: &IfName) -> Messages {
    none(name.as_str())
}
