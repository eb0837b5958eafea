//! IPv6 on a switch: who may send what. A guest has two addresses, both made of his hardware address, so that nobody has to learn which
//! are his; and he is no router.
//!
//! What stands between IPv6's header and what it carries could hide any of this from a rule (RFC 7113), so that nothing may stand there
//! but a fragment's header before UDP.

use super::{NETWORK_HEADER, Operator, Rule, TRANSPORT_HEADER};
use netlink_packet_netfilter::nftables::MetaKey;
use skep_proto::net::{Own, Reach};
use skep_proto::{IfName, Subnet6, link_local};
use std::net::Ipv6Addr;

/// `NFPROTO_IPV6` (linux/netfilter.h).
const NFPROTO_IPV6: u8 = 10;
/// Type of Ethernet frames.
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Numbers of protocols (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP: u8 = 58;
/// Messages of ICMPv6 (RFC 4443, RFC 4861).
const ERRORS: [u8; 4] = [1, 2, 3, 4];
const ECHOES: [u8; 2] = [128, 129];
const ROUTER_ADVERTISEMENT: u8 = 134;
const QUESTION: u8 = 135;
const ANSWER: u8 = 136;
const REDIRECT: u8 = 137;
/// Options of a question and of an answer that say a hardware address.
const SENDER: u8 = 1;
const TARGET: u8 = 2;
/// Places in the header, and what stands right behind it.
const LENGTH: u32 = 4;
const NEXT: u32 = 6;
const SOURCE: u32 = 8;
const CARRIED: u32 = 40;
const CARRIED_TARGET: u32 = CARRIED + 8;
const CARRIED_OPTION: u32 = CARRIED + 24;
const IN_FRAGMENT: u32 = CARRIED + 8;
/// Ports of DHCPv6's clients and servers.
const CLIENTS: u16 = 546;
const SERVERS: u16 = 547;
/// The first half of link-local addresses.
const LINK_LOCAL: [u8; 8] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];

/// What of a guest's IPv6 comes to the switch; what is left over is to be dropped.
pub fn sent(tap: &IfName, own: &Own, net: Subnet6) -> Vec<Rule> {
    use Operator::{Equal, NotEqual};
    let (here, link, nobody) = (net.of(own.mac), link_local(own.mac), Ipv6Addr::UNSPECIFIED);
    let six = || Rule::default().from(tap).meta(MetaKey::EtherTypeProtocol, Equal, IPV6.to_vec());
    let is = |rule: Rule, at, value: &[u8]| {
        let length = value.len() as u32;
        rule.at(NETWORK_HEADER, at, length).compare(Equal, value.to_vec())
    };
    let is_not = |rule: Rule, at, address: Ipv6Addr| rule.at(NETWORK_HEADER, at, 16).compare(NotEqual, address.octets().to_vec());
    let carries = |next: u8| is(six(), NEXT, &[next]);
    let says = |kind: u8| is(carries(ICMP), CARRIED, &[kind]);
    let looks = |target: Ipv6Addr| is(is(says(QUESTION), SOURCE, &nobody.octets()), CARRIED_TARGET, &target.octets());
    // The whole of a datagram, or the first of its fragments: no later one reaches the ports.
    let first = || {
        let fragment = carries(FRAGMENT).at(NETWORK_HEADER, CARRIED, 4);
        fragment.mask([0xff, 0, 0xff, 0xf8]).compare(Equal, vec![UDP, 0, 0, 0])
    };
    let ports = |at: u32, port: u16| {
        let port = port.to_be_bytes();
        [is(carries(UDP), CARRIED + at, &port).drop(), is(first(), IN_FRAGMENT + at, &port).drop()]
    };
    let mut rules = vec![
        is_not(is_not(is_not(six(), SOURCE, here), SOURCE, link), SOURCE, nobody).drop(),
        // Without an address yet he looks whether anybody has his; a look for another's would make him give it up.
        looks(here).accept(),
        looks(link).accept(),
        is(six(), SOURCE, &nobody.octets()).drop(),
        carries(TCP).accept(),
    ];
    // No DHCP, as of IPv4: nobody serves it.
    rules.extend([(0, SERVERS), (2, SERVERS), (2, CLIENTS)].into_iter().flat_map(|(at, port)| ports(at, port)));
    rules.push(carries(UDP).accept());
    rules.push(is(carries(FRAGMENT), CARRIED, &[UDP]).accept());
    rules.extend(ERRORS.into_iter().chain(ECHOES).map(|kind| says(kind).accept()));
    // He answers for himself, and says nobody's hardware address but his own: there is that option alone, or none.
    rules.push(is_not(is_not(says(ANSWER), CARRIED_TARGET, here), CARRIED_TARGET, link).drop());
    for (kind, option) in [(QUESTION, SENDER), (ANSWER, TARGET)] {
        let address = [&[option, 1][..], &own.mac].concat();
        rules.push(is(says(kind), LENGTH, &24u16.to_be_bytes()).accept());
        rules.push(is(is(says(kind), LENGTH, &32u16.to_be_bytes()), CARRIED_OPTION, &address).accept());
    }
    rules
}

/// What comes to the host: first what is never for it, and then what is, where nothing else may be.
pub fn received(bridge: &IfName, net: Subnet6, reach: Reach) -> (Vec<Rule>, Vec<Rule>) {
    use Operator::{Equal, NotEqual};
    let six = || Rule::default().from(bridge).meta(MetaKey::Nfproto, Equal, vec![NFPROTO_IPV6]);
    let says = |kind: u8| {
        let message = six().meta(MetaKey::L4Proto, Equal, vec![ICMP]);
        message.at(TRANSPORT_HEADER, 0, 1).compare(Equal, vec![kind])
    };
    // The host takes no router's word from a switch of its own.
    let routers = [ROUTER_ADVERTISEMENT, REDIRECT].map(|kind| says(kind).drop()).into_iter();
    match reach {
        Reach::Host => (routers.collect(), Vec::new()),
        Reach::Out => {
            let half = |rule: Rule, half: &[u8]| rule.at(NETWORK_HEADER, SOURCE, 8).compare(NotEqual, half.to_vec());
            let [a, b, c, d, e, f, g, h, ..] = net.net().octets();
            let strangers = half(half(six(), &[a, b, c, d, e, f, g, h]), &LINK_LOCAL).drop();
            let [echo, _] = ECHOES;
            let heard = [echo, QUESTION, ANSWER].map(|kind| says(kind).accept());
            (routers.chain([strangers]).collect(), heard.into())
        }
    }
}
