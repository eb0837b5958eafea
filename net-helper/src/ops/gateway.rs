//! Gateways: the host on a switch, with the rules that keep it apart; and what guests' services need.

use super::{Place, bridge_of, foreign, refused, unlisted};
use crate::platform::{HostError, NetHost, Switch};
use nix::errno::Errno;
use skep_proto::net::{CheckPort, Done, FORWARDED, OpenPort, Reach, SetGateway};
use skep_proto::services::MAX_RESOLVERS;
use skep_proto::{IfName, OneFd, Reason, Refusal, Transport, UpTo, overlap, overlap6};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

/// Gives a switch a gateway, or takes it. Rules are there before the address, and go after it. After a step that failed there is none.
pub fn set((host, instance): Place<'_>, call: &SetGateway) -> Result<Done, Refusal> {
    let bridge = bridge_of(host, instance, call.number)?;
    let name = &bridge.name;
    let Some(gateway) = &call.gateway else {
        if bridge.switch() == Some(Switch::Bridge) {
            take((host, instance), name).map_err(refused(name))?;
        }
        return Ok(Done {});
    };
    if bridge.switch() != Some(Switch::Bridge) {
        return Err(foreign(&bridge, "bridge that the host can be on"));
    }
    if let Some(why) = host.no_subnets() {
        return Err(Refusal::new(Reason::Unsupported, format_args!("switch {}", call.number)).field("kind").note(why));
    }
    let subnet = gateway.subnet;
    let stray = call.forwards.iter().find(|f| gateway.reach != Reach::Out || !subnet.is_guest(f.guest));
    if stray.is_some() || call.forwards.len() > FORWARDED {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {}", call.number)).field("forwards");
        return Err(match stray {
            Some(forward) => refusal.note(format_args!("{} is no guest's who reaches what the host reaches", forward.guest)),
            None => refusal.note(format_args!("{} of them; at most {FORWARDED}", call.forwards.len())),
        });
    }
    let links = host.links().map_err(unlisted)?;
    if let Some(member) = links.iter().find(|link| link.bridge == Some(bridge.index) && !link.name.is_of(instance)) {
        let refusal = Refusal::new(Reason::InUse, format_args!("switch {}", call.number)).field("uplink");
        return Err(refusal.note(format_args!("{} is on it: its network is no subnet of ours", member.name)));
    }
    for route in host.routes().map_err(unlisted)? {
        if route.index != bridge.index && overlap((subnet.net(), subnet.prefix()), (route.net, route.prefix)) {
            let (net, field) = (format!("{}/{}", route.net, route.prefix), "subnet");
            return Err(overlapping(host, call.number, field, &net, route.index)?);
        }
    }
    if let Some(subnet6) = gateway.subnet6 {
        six_is_spoken(host, format_args!("switch {}", call.number))?;
        for (net, prefix, index) in host.routes6().map_err(unlisted)? {
            if index != bridge.index && overlap6((subnet6.net(), subnet6.prefix()), (net, prefix)) {
                return Err(overlapping(host, call.number, "subnet6", &format!("{net}/{prefix}"), index)?);
            }
        }
    }
    let steps = host
        .guard(instance, name, Some((gateway, &call.forwards)))
        .and_then(|()| host.set_address(name, Some((subnet.gateway(), subnet.prefix()))))
        .and_then(|()| host.set_address6(name, gateway.subnet6))
        .and_then(|()| host.forward(instance));
    steps.map_err(|failed| {
        let refusal = refused(name)(failed);
        match take((host, instance), name) {
            Ok(()) => refusal,
            Err(error) => {
                let note = format!("{}; {name} was left changed: {error}", refusal.note);
                refusal.note(note)
            }
        }
    })?;
    Ok(Done {})
}

/// Takes a bridge's gateway; none is no error.
pub fn take((host, instance): Place<'_>, bridge: &IfName) -> Result<(), HostError> {
    host.set_address(bridge, None)?;
    host.set_address6(bridge, None)?;
    host.guard(instance, bridge, None)?;
    host.forward(instance)
}

/// Takes what outlived a bridge that is no more.
pub fn forget((host, instance): Place<'_>, bridge: &IfName) -> Result<(), HostError> {
    host.guard(instance, bridge, None)?;
    host.forward(instance)
}

/// Why this subnet cannot be.
fn overlapping(host: &mut dyn NetHost, number: u16, field: &str, net: &str, index: u32) -> Result<Refusal, Refusal> {
    let links = host.links().map_err(unlisted)?;
    let through = links.iter().find(|link| link.index == index).map_or("another interface", |link| link.name.as_str());
    let refusal = Refusal::new(Reason::InUse, format_args!("switch {number}")).field(field);
    Ok(refusal.note(format_args!("the host reaches {net} through {through}")))
}

/// Refuses IPv6 where nothing would keep guests to their own addresses.
pub fn six_is_spoken(host: &mut dyn NetHost, object: impl Display) -> Result<(), Refusal> {
    match host.no_subnets6() {
        Some(why) => Err(Refusal::new(Reason::Unsupported, object).field("subnet6").note(why)),
        None => Ok(()),
    }
}

/// Whether a port of the host's is free to lead to a guest.
pub fn check_port(host: &mut dyn NetHost, call: &CheckPort) -> Result<Done, Refusal> {
    let object = format!("port {}/{}", call.forward.port, call.forward.transport);
    let failed = |e: HostError| Refusal::io(&object, e.step, &e.error);
    match host.listener(&call.forward).map_err(failed)? {
        None => Ok(Done {}),
        Some(address) => {
            let note = format_args!("the host listens on it at {address}, and would hear nothing more");
            Err(Refusal::new(Reason::InUse, &object).note(note))
        }
    }
}

/// Opens the frames of a tap's guest.
pub fn open_port((host, instance): Place<'_>, call: &OpenPort) -> Result<OneFd, Refusal> {
    let name = IfName::tap(instance, call.number);
    if call.v6 {
        six_is_spoken(host, format_args!("interface {name}"))?;
    }
    match host.link(&name).map_err(refused(&name))? {
        Some(tap) if tap.is_tap() => Ok([host.open_port(&tap, call.v6).map_err(refused(&name))?]),
        Some(link) => Err(foreign(&link, "tap")),
        None => Err(Refusal::new(Reason::NotFound, format_args!("interface {name}"))),
    }
}

/// Opens a socket to each resolver. One that the host does not reach is left out.
pub fn open_resolvers(host: &mut dyn NetHost, resolvers: &[IpAddr]) -> Result<UpTo<MAX_RESOLVERS>, Refusal> {
    let mut sockets = Vec::new();
    for resolver in resolvers.iter().take(MAX_RESOLVERS) {
        match host.connect(Transport::Udp, SocketAddr::new(*resolver, 53)) {
            Ok(socket) => sockets.push(socket),
            Err(e) if matches!(e.error.raw_os_error().map(Errno::from_raw), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => {}
            Err(e) => return Err(Refusal::io(format_args!("resolver {resolver}"), e.step, &e.error)),
        }
    }
    Ok(UpTo(sockets))
}
