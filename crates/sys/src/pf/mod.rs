//! Rules of pf(4), as its kernel part takes them (netpfil/pf/pf.h, pf_nv.c of FreeBSD): pure. Requests are in `freebsd::pf`.

pub mod nvlist;

use nvlist::List;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What rules are kept in (`PF_RULESET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruleset {
    /// Normalisation.
    Scrub = 0,
    /// What passes.
    Filter = 1,
    /// Addresses of those who send.
    Nat = 2,
    /// Both ways.
    Binat = 3,
    /// Addresses of those who receive.
    Rdr = 4,
}

impl Ruleset {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Scrub, Self::Filter, Self::Nat, Self::Binat, Self::Rdr];

    /// An action by which requests name it.
    pub const fn action(self) -> u8 {
        match self {
            Self::Scrub => 2,
            Self::Filter => Action::Pass as u8,
            Self::Nat => Action::Nat as u8,
            Self::Binat => 6,
            Self::Rdr => Action::Rdr as u8,
        }
    }
}

/// What is done (`PF_PASS` and its neighbours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// It passes.
    #[default]
    Pass = 0,
    /// It does not.
    Drop = 1,
    /// It gets another sender.
    Nat = 4,
    /// It keeps its sender.
    NoNat = 5,
    /// It gets another receiver.
    Rdr = 8,
    /// It keeps its receiver.
    NoRdr = 9,
}

/// Which way (`PF_INOUT` and its neighbours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Either.
    #[default]
    Both = 0,
    /// What comes in.
    In = 1,
    /// What goes out.
    Out = 2,
}

/// Which kind of packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Every one.
    #[default]
    Any = 0,
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 28,
}

/// Whose addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Address {
    /// Anybody's.
    #[default]
    Any,
    /// Those of a network.
    Net(Ipv4Addr, u8),
    /// Those of a network of IPv6.
    Net6(Ipv6Addr, u8),
    /// Every address that an interface of the host has at the moment (`(self)`).
    Host,
    /// The first address that this interface has at the moment.
    First(String),
}

/// `PF_ADDR_ADDRMASK`, `PF_ADDR_DYNIFTL`.
const ADDRESS_AND_MASK: u8 = 0;
const OF_INTERFACE: u8 = 2;
/// `PFI_AFLAG_NOALIAS`.
const NO_ALIAS: u8 = 8;

/// The fields of a `struct pf_addr_wrap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrap {
    /// The address, or the name of an interface.
    pub address: [u8; 16],
    /// The mask.
    pub mask: [u8; 16],
    /// Which of both.
    pub kind: u8,
    /// How it is meant.
    pub flags: u8,
}

impl Address {
    /// As the kernel has it.
    pub fn wrap(&self) -> Wrap {
        let wide = |four: [u8; 4]| {
            let mut wide = [0; 16];
            for (to, from) in wide.iter_mut().zip(four) {
                *to = from;
            }
            wide
        };
        let named = |name: &str, flags| {
            let mut address = [0; 16];
            // With a NUL at the end.
            for (to, from) in address.iter_mut().take(15).zip(name.bytes()) {
                *to = from;
            }
            Wrap { address, mask: [0xff; 16], kind: OF_INTERFACE, flags }
        };
        match self {
            Self::Any => Wrap { address: [0; 16], mask: [0; 16], kind: ADDRESS_AND_MASK, flags: 0 },
            Self::Net(net, prefix) => {
                let mask = u32::MAX.checked_shl(32 - u32::from((*prefix).min(32))).unwrap_or(0);
                let net = u32::from(*net) & mask;
                let of = |word: u32| wide(word.to_be_bytes());
                Wrap { address: of(net), mask: of(mask), kind: ADDRESS_AND_MASK, flags: 0 }
            }
            Self::Net6(net, prefix) => {
                let mask = u128::MAX.checked_shl(128 - u32::from((*prefix).min(128))).unwrap_or(0);
                let (address, mask) = ((net.to_bits() & mask).to_be_bytes(), mask.to_be_bytes());
                Wrap { address, mask, kind: ADDRESS_AND_MASK, flags: 0 }
            }
            Self::Host => named("self", 0),
            Self::First(name) => named(name, NO_ALIAS),
        }
    }

    fn list(&self) -> List {
        let Wrap { address, mask, kind, flags } = self.wrap();
        let of = |bytes: &[u8]| List::default().bytes("addr", bytes);
        let list = List::default().number("type", kind.into()).number("iflags", flags.into());
        let list = match self {
            // Both: the kernel keeps the name where it keeps an address.
            Self::Host => list.text("ifname", "self"),
            Self::First(name) => list.text("ifname", name),
            _ => list,
        };
        list.list("addr", of(&address)).list("mask", of(&mask))
    }
}

/// One end: addresses, and a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Whose.
    pub address: Address,
    /// All but those.
    pub not: bool,
    /// One port.
    pub port: Option<u16>,
}

impl End {
    /// These addresses.
    pub fn of(address: Address) -> Self {
        Self { address, ..Self::default() }
    }
    /// All others.
    pub fn but(address: Address) -> Self {
        Self { address, not: true, port: None }
    }

    fn list(&self) -> List {
        /// `PF_OP_EQ`.
        const EQUAL: u64 = 2;
        let port = u64::from(self.port.unwrap_or(0).to_be());
        let ports = [port, port];
        let list = List::default().list("addr", self.address.list()).numbers("port", &ports);
        list.number("neg", self.not.into()).number("port_op", if self.port.is_some() { EQUAL } else { 0 })
    }
}

/// A rule. Those that stand first decide (`quick`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// Which way.
    pub direction: Direction,
    /// At this interface, or group of interfaces; empty: at all.
    pub on: String,
    /// At all others.
    pub elsewhere: bool,
    /// Which kind.
    pub family: Family,
    /// `IPPROTO_*`; 0: every one.
    pub protocol: u8,
    /// Of ICMP this type only.
    pub icmp: Option<u8>,
    /// From whom.
    pub from: End,
    /// To whom.
    pub to: End,
    /// Answers pass, too.
    pub answers: bool,
    /// Puts this word on it, for rules that are asked later.
    pub tag: String,
    /// Only with this word on it.
    pub tagged: String,
    /// Of [`Action::Nat`] and [`Action::Rdr`]: the other address, and of [`Action::Rdr`] the port.
    pub other: Option<(Address, Option<u16>)>,
    /// Has the rules of these anchors asked.
    pub call: String,
}

impl Rule {
    /// For `DIOCADDRULENV`.
    pub fn pack(&self, anchor: &str, ticket: u32, pool_ticket: u32) -> Vec<u8> {
        let list = List::default().number("ticket", ticket.into()).number("pool_ticket", pool_ticket.into());
        list.text("anchor", anchor).text("anchor_call", &self.call).list("rule", self.list()).pack()
    }

    fn list(&self) -> List {
        /// `PFTM_OLD_MAX`: as many as 13 has; later kernels take less than they have.
        const TIMEOUTS: usize = 20;
        /// `PF_POOL_ROUNDROBIN`: among the addresses of an interface, of which there is one.
        const IN_TURN: u64 = 4;
        /// `PF_NAT_PROXY_PORT_LOW`, `_HIGH` (sbin/pfctl).
        const PORTS: [u64; 2] = [50_001, 65_535];
        /// `TH_SYN`, `TH_ACK`.
        const SYN: u64 = 2;
        const ACK: u64 = 0x10;
        let none = -1i64;
        let nothing = |list: List, names: &[&str]| names.iter().fold(list, |list, name| list.number(name, 0));
        let texts = |list: List, names: &[&str]| names.iter().fold(list, |list, name| list.text(name, ""));
        let (opts, ports) = match &self.other {
            Some((_, Some(port))) => (0, [u64::from(*port), 0]),
            Some((Address::First(_) | Address::Host, None)) => (IN_TURN, PORTS),
            Some(_) => (0, PORTS),
            None => (0, [0, 0]),
        };
        let pool = List::default().bytes("key", &[0; 16]).number("tblidx", none.cast_unsigned());
        let pool = pool.numbers("proxy_port", &ports).number("opts", opts);
        // As pfctl(8) does: a connection begins with its first packet.
        let (flags, of) = if self.answers && matches!(self.protocol, 0 | 6) { (SYN, SYN | ACK) } else { (0, 0) };
        let who = || List::default().numbers("uid", &[0, 0]).numbers("gid", &[0, 0]).number("op", 0);
        let list = List::default().number("nr", 0).list("src", self.from.list()).list("dst", self.to.list());
        let list = list.text("label", "skep").text("ifname", &self.on);
        let list = list.text("tagname", &self.tag).text("match_tagname", &self.tagged);
        let list = texts(list, &["qname", "pqname", "overload_tblname"]);
        let list = list.list("rpool", pool).number("os_fingerprint", 0).number("rtableid", none.cast_unsigned());
        let list = list.numbers("timeout", &[0; TIMEOUTS]);
        let list = nothing(list, &["max_states", "max_src_nodes", "max_src_states", "max_src_conn"]);
        let list = nothing(list, &["max_src_conn_rate.limit", "max_src_conn_rate.seconds", "prob", "cuid", "cpid"]);
        let list = nothing(list, &["return_icmp", "return_icmp6", "max_mss", "scrub_flags"]);
        let list = list.list("uid", who()).list("gid", who()).number("rule_flag", 0);
        let list = list.number("action", self.action as u64).number("direction", self.direction as u64);
        let list = nothing(list, &["log", "logif"]).number("quick", u64::from(self.call.is_empty()));
        let list = list.number("ifnot", self.elsewhere.into());
        let list = nothing(list, &["match_tag_not", "natpass"]).number("keep_state", self.answers.into());
        let list = list.number("af", self.family as u64).number("proto", self.protocol.into());
        // One more than the type: 0 is every one.
        let list = list.number("type", self.icmp.map_or(0, |icmp| u64::from(icmp) + 1)).number("code", 0);
        let list = list.number("flags", flags).number("flagset", of);
        let list = nothing(list, &["min_ttl", "allow_opts", "rt", "return_ttl", "tos", "set_tos", "flush", "prio"]);
        list.numbers("set_prio", &[0, 0])
    }
}

/// Which connections are forgotten, for `DIOCKILLSTATESNV`: those of a family from one end to another; with `nat`, before their sender got
/// another address.
pub fn forgotten(family: Family, from: &End, to: &End, nat: bool) -> Vec<u8> {
    let all = List::default().number("id", 0).number("creatorid", 0).number("direction", 0);
    let list = List::default().list("cmp", all).number("af", family as u64).number("proto", 0);
    let list = list.list("src", from.list()).list("dst", to.list()).text("ifname", "").text("label", "");
    list.flag("kill_match", false).flag("nat", nat).pack()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_masked_and_an_interface_named_twice() {
        let net = Address::Net(Ipv4Addr::new(10, 64, 7, 9), 24).wrap();
        assert_eq!((&net.address[..5], &net.mask[..5]), (&[10, 64, 7, 0, 0][..], &[255, 255, 255, 0, 0][..]));
        assert_eq!(Address::Net(Ipv4Addr::new(10, 64, 7, 9), 0).wrap().mask, [0; 16]);
        assert_eq!(Address::Net(Ipv4Addr::new(10, 64, 7, 9), 99).wrap().mask[..4], [255; 4]);
        let six = Address::Net6("fd12:3456:789a:1::9".parse().unwrap(), 64).wrap();
        assert_eq!((six.address[..8].to_vec(), &six.address[8..]), (vec![0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a, 0, 1], &[0; 8][..]));
        assert_eq!((&six.mask[..8], &six.mask[8..]), (&[0xff; 8][..], &[0; 8][..]));
        assert_eq!(Address::Net6(Ipv6Addr::LOCALHOST, 0).wrap().mask, [0; 16]);
        let first = Address::First("em0".into()).wrap();
        assert_eq!((&first.address[..4], first.mask, first.flags), (&b"em0\0"[..], [0xff; 16], NO_ALIAS));
        assert_eq!(Address::First("a name that is too long".into()).wrap().address[15], 0);
        let packed = Address::Host.list().pack();
        assert_eq!(nvlist::find_text(&packed, "ifname").as_deref(), Some("self"));
    }

    #[test]
    fn a_rule_has_what_the_kernel_asks_for() {
        let rule = Rule { call: "skep/*".into(), ..Rule::default() };
        let packed = rule.pack("an anchor", 1, 2);
        assert_eq!(nvlist::find_text(&packed, "anchor").as_deref(), Some("an anchor"));
        assert_eq!(nvlist::find_text(&packed, "anchor_call").as_deref(), Some("skep/*"));
        let all = rule.list().pack();
        let has = |name: &str| all.windows(name.len() + 1).any(|bytes| bytes == [name.as_bytes(), &[0]].concat());
        // Each is asked for by pf_nvrule_to_krule, of one release or another.
        for name in [
            "nr",
            "src",
            "dst",
            "label",
            "ifname",
            "qname",
            "pqname",
            "tagname",
            "match_tagname",
            "overload_tblname",
            "rpool",
            "os_fingerprint",
            "rtableid",
            "timeout",
            "max_states",
            "max_src_nodes",
            "max_src_states",
            "max_src_conn",
            "max_src_conn_rate.limit",
            "max_src_conn_rate.seconds",
            "prob",
            "cuid",
            "cpid",
            "return_icmp",
            "return_icmp6",
            "max_mss",
            "scrub_flags",
            "uid",
            "gid",
            "rule_flag",
            "action",
            "direction",
            "log",
            "logif",
            "quick",
            "ifnot",
            "match_tag_not",
            "natpass",
            "keep_state",
            "af",
            "proto",
            "type",
            "code",
            "flags",
            "flagset",
            "min_ttl",
            "allow_opts",
            "rt",
            "return_ttl",
            "tos",
            "set_tos",
            "flush",
            "prio",
            "set_prio",
            "key",
            "tblidx",
            "proxy_port",
            "opts",
            "op",
            "port",
            "neg",
            "port_op",
            "addr",
            "mask",
            "type",
            "iflags",
        ] {
            assert!(has(name), "{name}");
        }
    }
}
