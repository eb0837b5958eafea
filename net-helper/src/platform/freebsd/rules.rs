//! The rules that stand between a switch and everything else, for pf(4). Pure.
//!
//! Those of a switch are in an anchor of its own, `skep/` and its bridge's name, so that they come and go as a whole and touch no rule of
//! the administrator's. All are such that the first that fits decides (`quick`): what his rules that stand before the call let through
//! or drop so is his.
//!
//! Before 15 pf sees the frames of bridges, too, by default, at members and at the bridge (`net.link.bridge.pfil_*`): so what goes from
//! guest to guest is let through wherever it is seen.

mod six;

use super::GROUP;
use skep_proto::net::{Gateway, PortForward, Reach};
use skep_proto::{IfName, Subnet, Transport};
use skep_sys::pf::{Action, Address, Direction, End, Family, Rule};
use std::net::Ipv4Addr;

pub use six::net as net6;

/// The anchor in which all of ours are, of every suite.
pub const ANCHOR: &str = "skep";
/// How the main rules call them.
pub const CALL: &str = "skep/*";
/// How the names of anchors end whose switches have no way out.
const HOST_ONLY: &str = "-host";
/// How the names of those end that say: this host forwards packets, pf is on, its main rules call ours, because we made it so.
pub const ONLY: &str = "only";
pub const ON: &str = "on";
pub const CALLS: &str = "calls";

/// Link-local addresses: guests find their services there, each at his own port. None of it is for the outside.
const LINK_LOCAL: Address = Address::Net(Ipv4Addr::new(169, 254, 0, 0), 16);
const MULTICAST: Address = Address::Net(Ipv4Addr::new(224, 0, 0, 0), 4);
const BROADCAST: Address = Address::Net(Ipv4Addr::BROADCAST, 32);

/// The group that taps on a bridge are in.
pub fn taps(bridge: &IfName) -> String {
    format!("{bridge}t")
}

/// The anchor of a switch.
pub fn anchor_of(bridge: &IfName, reach: Reach) -> String {
    match reach {
        Reach::Out => format!("{ANCHOR}/{bridge}"),
        Reach::Host => format!("{ANCHOR}/{bridge}{HOST_ONLY}"),
    }
}

/// The switch's bridge, if an anchor of [`ANCHOR`] is that of a switch of any suite; and whether it has a way out.
pub fn bridge_of(anchor: &str) -> Option<(IfName, bool)> {
    let (name, out) = anchor.strip_suffix(HOST_ONLY).map_or((anchor, true), |name| (name, false));
    let number = name.strip_prefix("sk")?.split_at_checked(4)?.1.strip_prefix('b')?;
    number.parse::<u16>().ok()?;
    Some((name.parse().ok()?, out))
}

/// Whether an anchor of [`ANCHOR`] says what its end says, of whichever suite.
pub fn is_marker(anchor: &str, end: &str) -> bool {
    anchor.strip_prefix("sk").and_then(|rest| rest.split_at_checked(4)).is_some_and(|(_, rest)| rest == end)
}

fn rule(action: Action, direction: Direction) -> Rule {
    Rule { action, direction, family: Family::V4, ..Rule::default() }
}

fn drop(direction: Direction) -> Rule {
    rule(Action::Drop, direction)
}

fn pass(direction: Direction) -> Rule {
    rule(Action::Pass, direction)
}

fn on(rule: Rule, on: &str) -> Rule {
    Rule { on: on.to_owned(), ..rule }
}

fn elsewhere(rule: Rule) -> Rule {
    Rule { elsewhere: true, ..rule }
}

fn from(rule: Rule, from: End) -> Rule {
    Rule { from, ..rule }
}

fn to(rule: Rule, to: End) -> Rule {
    Rule { to, ..rule }
}

fn answered(rule: Rule) -> Rule {
    Rule { answers: true, ..rule }
}

/// A subnet's addresses.
pub fn net(subnet: Subnet) -> Address {
    Address::Net(subnet.net(), subnet.prefix())
}

/// `IPPROTO_TCP`, `IPPROTO_UDP`.
fn number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

fn at(address: Address, port: u16) -> End {
    End { port: Some(port), ..End::of(address) }
}

/// Which ports of the host's lead to a guest: of what comes from outside, not from the host itself or another switch. It gets a word by
/// which it is let through to him.
pub fn led(bridge: &IfName, forwards: &[PortForward]) -> Vec<Rule> {
    let lead = |PortForward { forward, guest }: &PortForward| {
        let to = forward.address.map_or(Address::Host, |address| Address::Net(address, 32));
        let rule = elsewhere(on(rule(Action::Rdr, Direction::Both), GROUP));
        Rule {
            protocol: number(forward.transport),
            to: at(to, forward.port.get()),
            other: Some((Address::Net(*guest, 32), Some(forward.guest_port.get()))),
            tag: bridge.to_string(),
            ..rule
        }
    };
    let own = (!forwards.is_empty()).then(|| on(rule(Action::NoRdr, Direction::Both), "lo"));
    own.into_iter().chain(forwards.iter().map(lead)).collect()
}

/// What passes between a switch and the rest.
///
/// What comes from it reaches the host only where the gateway says so, and then never a link-local address or another switch, nor with an
/// address that is not the switch's; to it comes what was asked for from there.
pub fn switch(bridge: &IfName, gateway: &Gateway, forwards: &[PortForward]) -> Vec<Rule> {
    use Direction::{Both, In, Out};
    let (taps, bridge) = (taps(bridge), bridge.as_str());
    let led = |PortForward { forward, guest }: &PortForward| {
        let to = to(pass(Out), at(Address::Net(*guest, 32), forward.guest_port.get()));
        answered(on(Rule { protocol: number(forward.transport), tagged: bridge.to_owned(), ..to }, bridge))
    };
    let ours = || End::of(net(gateway.subnet));
    let others = || End::but(net(gateway.subnet));
    let host = || End::of(Address::Host);
    // A member's own address is the host's, too; nothing that comes in so is for it.
    let mut rules = vec![
        on(to(drop(In), host()), &taps),
        on(to(drop(In), others()), &taps),
        on(from(drop(In), others()), bridge),
        on(to(drop(In), End::of(LINK_LOCAL)), bridge),
    ];
    let last = u32::from(gateway.subnet.net()) | !u32::MAX.checked_shl(32 - u32::from(gateway.subnet.prefix())).unwrap_or(0);
    let everybody = || [Address::Net(last.into(), 32), BROADCAST, MULTICAST].map(End::of);
    match gateway.reach {
        Reach::Out => {
            /// `IPPROTO_ICMP`, `ICMP_ECHO`: guests may see whether their way out lives.
            const ICMP: (u8, Option<u8>) = (1, Some(8));
            let (protocol, icmp) = ICMP;
            let echo = Rule { protocol, icmp, ..to(from(pass(In), ours()), host()) };
            rules.push(answered(on(echo, bridge)));
            rules.push(on(to(drop(In), host()), bridge));
            rules.extend(everybody().map(|all| on(to(drop(In), all), bridge)));
            rules.push(on(to(from(pass(In), ours()), ours()), bridge));
            rules.push(answered(on(from(pass(In), ours()), bridge)));
        }
        Reach::Host => {
            rules.push(answered(on(to(from(pass(In), ours()), host()), bridge)));
            rules.extend(everybody().map(|all| on(to(from(pass(In), ours()), all), bridge)));
            rules.push(on(to(from(pass(In), ours()), ours()), bridge));
        }
    }
    rules.extend(match gateway.subnet6 {
        Some(subnet6) => six::switch(bridge, &taps, subnet6, gateway.reach),
        None => six::none(bridge),
    });
    let mut led: Vec<Rule> = forwards.iter().map(led).collect();
    // Two ports may lead to one.
    led.sort_by_key(|rule| format!("{rule:?}"));
    led.dedup();
    rules.extend(led);
    rules.extend([
        on(drop(In), bridge),
        // What the host asks for itself; what goes from guest to guest; answers are let through before any rule is asked.
        answered(on(to(from(pass(Out), host()), ours()), bridge)),
        on(to(from(pass(Out), ours()), ours()), bridge),
        on(drop(Out), bridge),
        // The host to itself.
        on(to(from(pass(Both), ours()), host()), "lo"),
        // Nobody else has its addresses, and what leaves has the host's.
        elsewhere(on(from(drop(In), ours()), GROUP)),
        elsewhere(on(from(drop(Out), ours()), bridge)),
    ]);
    rules
}

/// Which sender's address what leaves a switch gets: of the interface that it leaves by, one of `outside`.
pub fn translation(gateway: &Gateway, outside: &[IfName]) -> Vec<Rule> {
    if gateway.reach != Reach::Out {
        return Vec::new();
    }
    let ours = || End::of(net(gateway.subnet));
    let keeps = on(from(rule(Action::NoNat, Direction::Both), ours()), GROUP);
    let gets = outside.iter().map(|name| {
        let rule = on(from(rule(Action::Nat, Direction::Both), ours()), name.as_str());
        Rule { other: Some((Address::First(name.as_str().to_owned()), None)), ..rule }
    });
    std::iter::once(keeps).chain(gets).collect()
}

/// That the host forwards nobody else's packets. Where it has a bridge of somebody else's, pf may see what goes through that: then
/// only at interfaces that have no part in one (`plain`).
pub fn only_ours(plain: Option<&[IfName]>) -> Vec<Rule> {
    let forwarded = || from(drop(Direction::Out), End::but(Address::Host));
    match plain {
        None => vec![elsewhere(on(forwarded(), GROUP))],
        // An anchor without rules would not be there, and so say nothing.
        Some(plain) => {
            let all = plain.iter().map(|name| on(forwarded(), name.as_str()));
            std::iter::once(on(forwarded(), NOWHERE)).chain(all).collect()
        }
    }
}

/// A name that no interface has.
const NOWHERE: &str = "skep-nowhere";

/// A rule that does nothing but be there.
pub fn marker() -> Vec<Rule> {
    vec![on(pass(Direction::Both), NOWHERE)]
}

/// What calls ours, as a main rule of each kind.
pub fn call(action: Action) -> Vec<Rule> {
    vec![Rule { action, call: CALL.to_owned(), ..Rule::default() }]
}
