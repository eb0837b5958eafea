//! The host's addresses on bridges, and what it reaches.

use super::{Host, HostError};
use crate::platform::Route;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use nix::errno::Errno;
use skep_proto::IfName;
use std::net::{IpAddr, Ipv6Addr};

const STEP: &str = "set its address";
const STEP6: &str = "set its IPv6 address (not with ipv6.disable=1, nor with disable_ipv6 of net.ipv6.conf.default)";

/// Gives a bridge these addresses of a family, and no others of it.
pub fn set(host: &mut Host, bridge: &IfName, family: AddressFamily, wanted: &[(IpAddr, u8)]) -> Result<(), HostError> {
    let v6 = family == AddressFamily::Inet6;
    let step = || HostError::step(if v6 { STEP6 } else { STEP });
    let Some(link) = host.get(bridge).map_err(step())? else {
        return Err(step()(Errno::ENODEV.into()));
    };
    let all = host.route.ask(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP).map_err(step())?;
    let mut there = Vec::new();
    for message in all {
        let Message::NewAddress(message) = message else { continue };
        if message.header.index != link.index || message.header.family != family {
            continue;
        }
        // Of IPv6 the kernel says no other.
        let own = |a: &AddressAttribute| match a {
            AddressAttribute::Local(ip) => Some(*ip),
            AddressAttribute::Address(ip) if v6 => Some(*ip),
            _ => None,
        };
        let found = message.attributes.iter().find_map(own).map(|ip| (ip, message.header.prefix_len));
        match found.filter(|found| wanted.contains(found)) {
            Some(found) => there.push(found),
            None => host
                .route
                .ask(Message::DelAddress(message), NLM_F_ACK)
                .map(drop)
                .map_err(HostError::step("take its former address"))?,
        }
    }
    for &(ip, prefix) in wanted.iter().filter(|address| !there.contains(address)) {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.prefix_len = prefix;
        message.header.index = link.index;
        if v6 {
            // Whether anybody has it need not be asked: no guest can. And a bridge that nobody is on yet could not ask.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        host.route.ask(Message::NewAddress(message), flags).map(drop).map_err(step())?;
    }
    Ok(())
}

/// A part of the world that the host reaches.
type Reached = (IpAddr, u8, u32);

fn reached(host: &mut Host, family: AddressFamily) -> Result<Vec<Reached>, HostError> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    let answer = host.route.ask(Message::GetRoute(question), NLM_F_DUMP).map_err(HostError::step("list routes"))?;
    Ok(answer.into_iter().filter_map(|m| if let Message::NewRoute(m) = m { route(&m) } else { None }).collect())
}

/// Routes of IPv4.
pub fn routes(host: &mut Host) -> Result<Vec<Route>, HostError> {
    let v4 = |(ip, prefix, index)| if let IpAddr::V4(net) = ip { Some(Route { net, prefix, index }) } else { None };
    Ok(reached(host, AddressFamily::Inet)?.into_iter().filter_map(v4).collect())
}

/// Routes of IPv6: net, prefix, index of the interface.
pub fn routes6(host: &mut Host) -> Result<Vec<(Ipv6Addr, u8, u32)>, HostError> {
    let v6 = |(ip, prefix, index)| if let IpAddr::V6(net) = ip { Some((net, prefix, index)) } else { None };
    Ok(reached(host, AddressFamily::Inet6)?.into_iter().filter_map(v6).collect())
}

/// A route, if it leads to a part of the world only.
fn route(message: &RouteMessage) -> Option<Reached> {
    let prefix = message.header.destination_prefix_length;
    // Halves of the world (VPNs have them) are a default route in two parts.
    if message.header.kind != RouteType::Unicast || prefix < 8 {
        return None;
    }
    let net = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(net)) => Some(IpAddr::V4(*net)),
        RouteAttribute::Destination(RouteAddress::Inet6(net)) => Some(IpAddr::V6(*net)),
        _ => None,
    })?;
    let index = message.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None });
    Some((net, prefix, index.unwrap_or(0)))
}
