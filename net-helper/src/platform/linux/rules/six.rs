//! IPv6 on a switch, as rules: what guests may send is a list that FreeBSD's filters are made of, too ([`six::sent`]).

use super::{NETWORK_HEADER, Operator, Rule, TRANSPORT_HEADER};
use netlink_packet_netfilter::nftables::MetaKey;
use skep_proto::net::{Own, Reach};
use skep_proto::{IfName, Subnet6, link_local};
use skep_sys::frames::six;

/// `NFPROTO_IPV6` (linux/netfilter.h).
const NFPROTO_IPV6: u8 = 10;
/// Where the header has its sender.
const SOURCE: u32 = 8;
/// The first half of link-local addresses.
const LINK_LOCAL: [u8; 8] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];

/// What of a guest's IPv6 comes to the switch; what is left over is to be dropped.
pub fn sent(tap: &IfName, own: &Own, net: Subnet6) -> Vec<Rule> {
    use Operator::{Equal, NotEqual};
    let rule = |line: six::Line| {
        let type_is = Rule::default().from(tap).meta(MetaKey::EtherTypeProtocol, Equal, six::ETHERTYPE.to_be_bytes().to_vec());
        let looked = line.looks.into_iter().fold(type_is, |rule, look| {
            let rule = rule.at(NETWORK_HEADER, look.at.into(), look.value.len() as u32);
            let rule = look.mask.into_iter().fold(rule, Rule::mask);
            rule.compare(if look.equal { Equal } else { NotEqual }, look.value)
        });
        if line.passes { looked.accept() } else { looked.drop() }
    };
    six::sent(own.mac, [net.of(own.mac), link_local(own.mac)]).into_iter().map(rule).collect()
}

/// What comes to the host: first what is never for it, and then what is, where nothing else may be.
pub fn received(bridge: &IfName, net: Subnet6, reach: Reach) -> (Vec<Rule>, Vec<Rule>) {
    use Operator::{Equal, NotEqual};
    let from = || Rule::default().from(bridge).meta(MetaKey::Nfproto, Equal, vec![NFPROTO_IPV6]);
    let says = |kind: u8| {
        let message = from().meta(MetaKey::L4Proto, Equal, vec![six::ICMP]);
        message.at(TRANSPORT_HEADER, 0, 1).compare(Equal, vec![kind])
    };
    // The host takes no router's word from a switch of its own.
    let routers = [six::ROUTER_ADVERTISEMENT, six::REDIRECT].map(|kind| says(kind).drop()).into_iter();
    match reach {
        Reach::Host => (routers.collect(), Vec::new()),
        Reach::Out => {
            let half = |rule: Rule, half: &[u8]| rule.at(NETWORK_HEADER, SOURCE, 8).compare(NotEqual, half.to_vec());
            let [a, b, c, d, e, f, g, h, ..] = net.net().octets();
            let strangers = half(half(from(), &[a, b, c, d, e, f, g, h]), &LINK_LOCAL).drop();
            let [echo, _] = six::ECHOES;
            let heard = [echo, six::QUESTION, six::ANSWER].map(|kind| says(kind).accept());
            (routers.chain([strangers]).collect(), heard.into())
        }
    }
}
