//! IPv6 on a switch: what passes between it and the host. Nothing of it goes any further. What guests may send at all is held to before,
//! at their taps ([`skep_sys::frames::six`]).

use super::{End, Family, GROUP, Rule, answered, drop as drop_v4, elsewhere, from, on, pass as pass_v4, to};
use skep_proto::Subnet6;
use skep_proto::net::Reach;
use skep_sys::frames::six::{ANSWER, ECHOES, ICMP, QUESTION, REDIRECT, ROUTER_ADVERTISEMENT};
use skep_sys::pf::Address;
use skep_sys::pf::Direction::{self, Both, In, Out};
use std::net::Ipv6Addr;

/// Link-local addresses, and those of groups.
const LINK: Address = Address::Net6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
const GROUPS: Address = Address::Net6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// A network's addresses.
pub fn net(subnet: Subnet6) -> Address {
    Address::Net6(subnet.net(), subnet.prefix())
}

fn v6(rule: Rule) -> Rule {
    Rule { family: Family::V6, ..rule }
}

fn pass(direction: Direction) -> Rule {
    v6(pass_v4(direction))
}

fn drop(direction: Direction) -> Rule {
    v6(drop_v4(direction))
}

fn says(rule: Rule, message: u8) -> Rule {
    Rule { protocol: ICMP, icmp: Some(message), ..rule }
}

/// Where no IPv6 is spoken.
pub fn none(bridge: &str) -> Vec<Rule> {
    vec![on(drop(Both), bridge)]
}

/// Of the host a guest reaches what he reaches of it by IPv4.
pub fn switch(bridge: &str, taps: &str, subnet: Subnet6, reach: Reach) -> Vec<Rule> {
    let ours = || [net(subnet), LINK].map(End::of);
    let all = || [net(subnet), LINK, GROUPS].map(End::of);
    let host = || End::of(Address::Host);
    let at = |rule| on(rule, bridge);
    let between = |direction, to_whom: Vec<End>| {
        let pairs = ours().into_iter().flat_map(move |sender| to_whom.clone().into_iter().map(move |to| (sender.clone(), to)));
        pairs.map(move |(sender, receiver)| at(to(from(pass(direction), sender), receiver)))
    };
    let neighbours = |direction| {
        let asked = move |message| all().into_iter().map(move |to_whom| at(says(to(pass(direction), to_whom), message)));
        [QUESTION, ANSWER].into_iter().flat_map(asked)
    };
    // Before 15, where pf sees what bridges carry, at taps it is what goes from guest to guest.
    let mut rules = vec![on(to(drop(In), host()), taps)];
    rules.extend(all().map(|receiver| on(to(pass(In), receiver), taps)));
    rules.extend([on(drop(In), taps), on(pass(Out), taps)]);
    // The host takes no router's word from a switch of its own.
    rules.extend([ROUTER_ADVERTISEMENT, REDIRECT].map(|message| at(says(drop(In), message))));
    rules.extend(neighbours(In));
    match reach {
        Reach::Out => {
            let [echo, _] = ECHOES;
            rules.extend(ours().map(|sender| answered(at(says(to(from(pass(In), sender), host()), echo)))));
            rules.extend([host(), End::of(GROUPS)].map(|receiver| at(to(drop(In), receiver))));
        }
        Reach::Host => {
            rules.extend(ours().map(|sender| answered(at(to(from(pass(In), sender), host())))));
            rules.extend(ours().map(|sender| at(to(from(pass(In), sender), End::of(GROUPS)))));
        }
    }
    rules.extend(between(In, ours().into()));
    rules.push(at(drop(In)));
    rules.extend(neighbours(Out));
    // What the host asks for itself, and what it says to groups.
    rules.extend(ours().map(|receiver| answered(at(to(from(pass(Out), host()), receiver)))));
    rules.push(at(to(from(pass(Out), host()), End::of(GROUPS))));
    rules.extend(between(Out, all().into()));
    rules.extend([
        at(drop(Out)),
        // The host to itself.
        on(to(from(pass(Both), End::of(net(subnet))), host()), "lo"),
        // Nobody else has its addresses, and nothing of them leaves.
        elsewhere(on(from(drop(In), End::of(net(subnet))), GROUP)),
        elsewhere(at(from(drop(Out), End::of(net(subnet))))),
    ]);
    rules
}
