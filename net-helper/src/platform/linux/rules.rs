//! The rules that stand between a switch and everything else, as messages to nf_tables. Pure.
//!
//! A table for each switch, named as its bridge, so that it comes and goes as a whole and touches no rule of the administrator's. Its
//! chains run beside his: what his drop stays dropped.

mod six;
pub mod tunnel;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, Immediate, InetHookNumber, Meta, MetaKey,
    NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict,
    VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use skep_proto::net::{Gateway, Own, PortForward, Reach};
use skep_proto::services::{ADDRESS, MAC};
use skep_proto::{IfName, InstanceId, Rate, Transport};
use std::net::Ipv4Addr;

/// Messages of one transaction, each with its flags.
pub type Messages = Vec<(NetfilterMessage, u16)>;

/// Numbers of linux/netfilter.h and linux/netfilter/nf_tables.h.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `IPS_DST_NAT`: where it goes was changed on its way.
const LED: u32 = 1 << 5;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;
/// Where an IPv4 header has its addresses.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// Priorities of chains: those of `dstnat`, `filter` and `srcnat`.
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// That of `filter` for frames (`NF_BR_PRI_FILTER_BRIDGED`).
const BRIDGED: i32 = -200;
/// Link-local addresses: guests find their services there, each at his own port. None of it is for the outside.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 0, 0), 16);

/// A rule under way.
#[derive(Default)]
struct Rule(Vec<Expressions>);

impl Rule {
    fn meta(mut self, key: MetaKey, operator: Operator, value: Vec<u8>) -> Self {
        self.0.push(Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)]));
        self.compare(operator, value)
    }

    fn compare(mut self, operator: Operator, value: Vec<u8>) -> Self {
        let data = Cmp::Data(DataAttribute::Value(value));
        self.0.push(Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), data]));
        self
    }

    fn mask(mut self, mask: [u8; 4]) -> Self {
        self.0.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(4),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
        ]));
        self
    }

    /// Takes these bytes, to be compared.
    fn at(mut self, base: u32, offset: u32, length: u32) -> Self {
        self.0.push(Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ]));
        self
    }

    /// Came in at this interface.
    fn from(self, name: &IfName) -> Self {
        self.meta(MetaKey::Iifname, Operator::Equal, whole(name))
    }
    /// Goes out at this interface, or at another one.
    fn to(self, operator: Operator, name: &IfName) -> Self {
        self.meta(MetaKey::Oifname, operator, whole(name))
    }
    fn v4(self) -> Self {
        self.meta(MetaKey::Nfproto, Operator::Equal, vec![NFPROTO_IPV4])
    }
    /// The address at `offset` of the IPv4 header is in the net, or is not.
    fn address(mut self, offset: u32, operator: Operator, (net, prefix): (Ipv4Addr, u8)) -> Self {
        self = self.v4().at(NETWORK_HEADER, offset, 4);
        let mask = mask(prefix);
        self.mask(mask.octets()).compare(operator, (net & mask).octets().to_vec())
    }
    /// Belongs to a connection that was let through before.
    fn known(self) -> Self {
        self.connection(CT_STATE, ESTABLISHED | RELATED)
    }
    /// Belongs to a connection of which the kernel says one of these.
    fn connection(mut self, key: u32, bits: u32) -> Self {
        self.0.push(other("ct", [(1, u32::from(Register::Reg1)), (2, key)]));
        // They are in the host's order.
        self.mask(bits.to_ne_bytes()).compare(Operator::NotEqual, vec![0; 4])
    }
    /// Goes to this port.
    fn port(self, transport: Transport, port: u16) -> Self {
        // `IPPROTO_TCP`, `IPPROTO_UDP`.
        let number = match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        self.meta(MetaKey::L4Proto, Operator::Equal, vec![number])
            .at(TRANSPORT_HEADER, 2, 2)
            .compare(Operator::Equal, port.to_be_bytes().to_vec())
    }
    /// Goes to the host itself, by whichever of its addresses, but those of the loopback.
    fn for_the_host(mut self) -> Self {
        /// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, `RTN_LOCAL` (linux/netfilter/nf_tables.h, linux/rtnetlink.h).
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);
        self.0.push(other("fib", [(1, u32::from(Register::Reg1)), (2, ADDRESS_TYPE), (3, OF_DESTINATION)]));
        self.compare(Operator::Equal, LOCAL.to_ne_bytes().to_vec()).address(DESTINATION, Operator::NotEqual, LOOPBACK)
    }
    /// Changes where it goes.
    fn lead(mut self, to: Ipv4Addr, port: u16) -> Self {
        /// `NFT_NAT_DNAT` (linux/netfilter/nf_tables.h).
        const DNAT: u32 = 1;
        let values = [(Register::Reg1, to.octets().to_vec()), (Register::Reg2, port.to_be_bytes().to_vec())];
        for (register, value) in values {
            let data = Immediate::Data(DataAttribute::Value(value));
            self.0.push(Expressions::Immediate(vec![Immediate::DestinationRegister(register), data]));
        }
        let (address, port) = (u32::from(Register::Reg1), u32::from(Register::Reg2));
        self.0.push(other("nat", [(1, DNAT), (2, u32::from(NFPROTO_IPV4)), (3, address), (5, port)]));
        self
    }
    /// Is more than this.
    fn over(mut self, rate: Rate) -> Self {
        /// `NFT_LIMIT_PKT_BYTES`, `NFT_LIMIT_F_INV`.
        const BYTES: u32 = 1;
        const OVER: u32 = 1;
        /// Of a guest that was quiet the kernel lets through a second's worth, and this: the largest frame that a tap takes, whatever
        /// the rate.
        const BURST: u32 = 128 << 10;
        let attributes = [
            (1, rate.bytes().to_be_bytes().to_vec()),
            // In this many seconds.
            (2, 1u64.to_be_bytes().to_vec()),
            (3, BURST.to_be_bytes().to_vec()),
            (4, BYTES.to_be_bytes().to_vec()),
            (5, OVER.to_be_bytes().to_vec()),
        ];
        let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect();
        self.0.push(Expressions::Other { expression_type: "limit".to_owned(), attributes });
        self
    }
    fn verdict(mut self, code: u32) -> Self {
        let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(code))]);
        self.0.push(Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)]));
        self
    }
    fn accept(self) -> Self {
        self.verdict(NF_ACCEPT)
    }
    fn drop(self) -> Self {
        self.verdict(NF_DROP)
    }
    fn masquerade(mut self) -> Self {
        self.0.push(Expressions::Other { expression_type: "masq".to_owned(), attributes: Vec::new() });
        self
    }
}

/// An expression that the library has not, of numbers.
fn other<const N: usize>(name: &str, attributes: [(u16, u32); N]) -> Expressions {
    let attributes = attributes.map(|(kind, value)| DefaultNla::new(kind, value.to_be_bytes().to_vec()));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.to_vec() }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// A name as the kernel compares it, all 16 bytes.
fn whole(name: &IfName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn message(family: NetfilterProtoFamily, message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// A table under way.
struct Table {
    family: NetfilterProtoFamily,
    name: String,
    messages: Messages,
}

impl Table {
    /// A new one, in place of one from before.
    fn new(family: NetfilterProtoFamily, name: &str) -> Self {
        let attributes = vec![TableAttribute::Name(name.to_owned())];
        let table = || TableMessage { attributes: attributes.clone() };
        let make = || (message(family, NfTablesMessage::NewTable(table())), NLM_F_CREATE);
        // So that there is one to delete.
        let messages = vec![make(), (message(family, NfTablesMessage::DeleteTable(table())), 0), make()];
        Self { family, name: name.to_owned(), messages }
    }

    /// Only that it is gone.
    fn gone(mut self) -> Messages {
        self.messages.truncate(2);
        self.messages
    }

    fn chain(mut self, name: &str, kind: &str, hook: InetHookNumber, priority: i32, rules: Vec<Rule>) -> Self {
        let attributes = vec![
            ChainAttribute::Table(self.name.clone()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority.cast_unsigned())]),
        ];
        self.messages.push((message(self.family, NfTablesMessage::NewChain(ChainMessage { attributes })), NLM_F_CREATE));
        for rule in rules {
            let attributes = vec![
                RuleAttribute::Table(self.name.clone()),
                RuleAttribute::Chain(name.to_owned()),
                RuleAttribute::Expressions(rule.0.into_iter().map(Into::into).collect()),
            ];
            let rule = message(self.family, NfTablesMessage::NewRule(RuleMessage { attributes }));
            self.messages.push((rule, NLM_F_CREATE | NLM_F_APPEND));
        }
        self
    }
}

/// The table of a switch.
///
/// What comes from it reaches the host only where `reach` says so, and then never a link-local address or another switch, nor with an
/// address that is not the switch's; to it comes what was asked for from there.
pub fn switch(instance: InstanceId, bridge: &IfName, gateway: &Gateway, forwards: &[PortForward]) -> Messages {
    use Operator::{Equal, NotEqual};
    let net = (gateway.subnet.net(), gateway.subnet.prefix());
    let rule = Rule::default;
    let others = format!("sk{instance}b").into_bytes();
    let from = || rule().from(bridge);
    let to = || rule().to(Equal, bridge);
    let table = Table::new(NetfilterProtoFamily::Inet, &table_of(bridge, gateway.reach));
    // Frames to some addresses (IEEE 802.1D) a bridge passes up as having come in at the tap itself, where nothing is for the host.
    let at_a_tap = || rule().meta(MetaKey::Iifname, Equal, format!("sk{instance}t").into_bytes()).drop();
    let mut forward = vec![
        // Frames from port to port, where the kernel shows bridges' frames to these chains, too.
        from().to(Equal, bridge).accept(),
        from().address(SOURCE, NotEqual, net).drop(),
        from().address(DESTINATION, Equal, LINK_LOCAL).drop(),
        // The beginning of a name.
        from().meta(MetaKey::Oifname, Equal, others).drop(),
        from().meta(MetaKey::Nfproto, NotEqual, vec![NFPROTO_IPV4]).drop(),
        to().known().accept(),
        to().drop(),
    ];
    let received = gateway.subnet6.map(|subnet6| six::received(bridge, subnet6, gateway.reach));
    let (never, heard) = received.unwrap_or_default();
    match gateway.reach {
        Reach::Out => {
            /// `IPPROTO_ICMP`: guests may see whether their way out lives.
            const ICMP: u8 = 1;
            let mut input = vec![at_a_tap(), from().address(SOURCE, NotEqual, net).drop()];
            input.extend(never);
            input.extend([from().known().accept(), from().v4().meta(MetaKey::L4Proto, Equal, vec![ICMP]).accept()]);
            input.extend(heard);
            input.push(from().drop());
            // Of what comes from elsewhere or from the host itself; not of what guests of this switch send, who know each other's addresses.
            let lead = |forward: &PortForward, rule: Rule| {
                let PortForward { forward, guest } = forward;
                let to = match forward.address {
                    Some(address) => rule.address(DESTINATION, Equal, (address, 32)),
                    None => rule.v4().for_the_host(),
                };
                to.port(forward.transport, forward.port.get()).lead(*guest, forward.guest_port.get())
            };
            let from_elsewhere = || rule().meta(MetaKey::Iifname, NotEqual, whole(bridge));
            let led = |f: &PortForward| {
                let to = to().address(DESTINATION, Equal, (f.guest, 32)).port(f.forward.transport, f.forward.guest_port.get());
                to.connection(CT_STATUS, LED).accept()
            };
            // Before the last, which drops the rest.
            let last = forward.pop();
            forward.extend(forwards.iter().map(led).chain(last));
            let mut table = table;
            if !forwards.is_empty() {
                let arriving = forwards.iter().map(|forward| lead(forward, from_elsewhere())).collect();
                let own = forwards.iter().map(|forward| lead(forward, rule())).collect();
                table = table.chain("prerouting", "nat", InetHookNumber::PreRouting, DSTNAT, arriving).chain(
                    "output",
                    "nat",
                    InetHookNumber::LocalOut,
                    DSTNAT,
                    own,
                );
            }
            let leave = vec![rule().address(SOURCE, Equal, net).to(NotEqual, bridge).masquerade()];
            table
                .chain("input", "filter", InetHookNumber::LocalIn, FILTER, input)
                .chain("forward", "filter", InetHookNumber::Forward, FILTER, forward)
                .chain("postrouting", "nat", InetHookNumber::PostRouting, SRCNAT, leave)
                .messages
        }
        Reach::Host => {
            forward.insert(1, from().drop());
            table
                .chain("input", "filter", InetHookNumber::LocalIn, FILTER, [at_a_tap()].into_iter().chain(never).collect())
                .chain("forward", "filter", InetHookNumber::Forward, FILTER, forward)
                .messages
        }
    }
}

/// The name of a switch's table: its bridge's, and for one with a way out no more than that.
fn table_of(bridge: &IfName, reach: Reach) -> String {
    match reach {
        Reach::Out => bridge.as_str().to_owned(),
        Reach::Host => format!("{bridge}{HOST_ONLY}"),
    }
}

/// How the names of tables end whose switches have no way out.
const HOST_ONLY: &str = "-host";

/// The switch's bridge, if a table is that of a switch of any suite; and whether it has a way out.
pub fn bridge_of(table: &str) -> Option<(IfName, bool)> {
    let (name, out) = table.strip_suffix(HOST_ONLY).map_or((table, true), |name| (name, false));
    let number = name.strip_prefix("sk")?.split_at_checked(4)?.1.strip_prefix('b')?;
    number.parse::<u16>().ok()?;
    Some((name.parse().ok()?, out))
}

/// Deletes a switch's table, whichever it has; it need not have one.
pub fn no_switch(bridge: &IfName) -> Messages {
    [Reach::Out, Reach::Host].into_iter().flat_map(|reach| none(&table_of(bridge, reach))).collect()
}

/// The name of the table that says: this host forwards packets because we made it so, and only ours.
pub fn marker(instance: InstanceId) -> String {
    format!("sk{instance}only")
}

/// Whether a table says so, of whichever suite.
pub fn is_marker(table: &str) -> bool {
    table.strip_prefix("sk").and_then(|rest| rest.split_at_checked(4)).is_some_and(|(_, rest)| rest == "only")
}

/// The table by that name.
pub fn only_ours(instance: InstanceId) -> Messages {
    // Of every suite's: each has rules of its own.
    let ours = || b"sk".to_vec();
    let kind = || {
        let mut kind = b"bridge".to_vec();
        kind.resize(16, 0);
        kind
    };
    let rules = vec![
        // Frames within another's bridge, where the kernel shows them to these chains, too: they are not forwarded by the host.
        Rule::default().meta(MetaKey::Iifkind, Operator::Equal, kind()).meta(MetaKey::Oifkind, Operator::Equal, kind()).accept(),
        Rule::default()
            .meta(MetaKey::Iifname, Operator::NotEqual, ours())
            .meta(MetaKey::Oifname, Operator::NotEqual, ours())
            .drop(),
    ];
    let table = Table::new(NetfilterProtoFamily::Inet, &marker(instance));
    table.chain("forward", "filter", InetHookNumber::Forward, FILTER, rules).messages
}

/// Deletes a table, which need not be there.
pub fn none(name: &str) -> Messages {
    Table::new(NetfilterProtoFamily::Inet, name).gone()
}

/// The table of a tap whose guest is kept to his own addresses: of what he sends, IPv4, ARP and, where it is spoken, IPv6 from these go on
/// to the bridge.
pub fn tap(tap: &IfName, own: &Own) -> Messages {
    use Operator::{Equal, NotEqual};
    /// Places in an Ethernet frame, in an ARP message and in a UDP datagram's header.
    const RECEIVER: u32 = 0;
    const SENDER: u32 = 6;
    const ARP_SENDER: u32 = 8;
    const ARP_ADDRESS: u32 = 14;
    const ARP_WANTED: u32 = 24;
    const SOURCE_PORT: u32 = 0;
    const DESTINATION_PORT: u32 = 2;
    const IPV4: [u8; 2] = [0x08, 0x00];
    const ARP: [u8; 2] = [0x08, 0x06];
    const UDP: u8 = 17;
    let from = || Rule::default().from(tap);
    let arp = |offset, operator, value: &[u8]| {
        let length = if value.len() == 6 { 6 } else { 4 };
        from()
            .meta(MetaKey::EtherTypeProtocol, Equal, ARP.to_vec())
            .at(NETWORK_HEADER, offset, length)
            .compare(operator, value.to_vec())
    };
    let ipv4 = || from().meta(MetaKey::EtherTypeProtocol, Equal, IPV4.to_vec());
    let port = |offset, port: u16| {
        let udp = ipv4().meta(MetaKey::L4Proto, Equal, vec![UDP]);
        udp.at(TRANSPORT_HEADER, offset, 2).compare(Equal, port.to_be_bytes().to_vec()).drop()
    };
    let address = own.address.octets();
    let (net, prefix) = LINK_LOCAL;
    let mut rules = vec![
        from().at(LINK_HEADER, SENDER, 6).compare(NotEqual, own.mac.to_vec()).drop(),
        // What is for his services they have seen already, at the tap; nobody else is to.
        from().at(LINK_HEADER, RECEIVER, 6).compare(Equal, MAC.to_vec()).drop(),
        ipv4().at(NETWORK_HEADER, DESTINATION, 4).mask(mask(prefix).octets()).compare(Equal, net.octets().to_vec()).drop(),
        arp(ARP_WANTED, Equal, &ADDRESS.octets()).drop(),
        // DHCP likewise; and what clients of it listen to comes from there alone.
        port(SOURCE_PORT, 67),
        port(DESTINATION_PORT, 67),
        port(DESTINATION_PORT, 68),
        arp(ARP_SENDER, NotEqual, &own.mac).drop(),
        // A probe (RFC 5227) has no address yet; one for another's would make him give it up.
        arp(ARP_ADDRESS, Equal, &address).accept(),
        arp(ARP_ADDRESS, NotEqual, &[0; 4]).drop(),
        arp(ARP_WANTED, NotEqual, &address).drop(),
        from().meta(MetaKey::EtherTypeProtocol, Equal, ARP.to_vec()).accept(),
        ipv4().at(NETWORK_HEADER, SOURCE, 4).compare(NotEqual, address.to_vec()).drop(),
        ipv4().accept(),
    ];
    rules.extend(own.subnet6.into_iter().flat_map(|subnet6| six::sent(tap, own, subnet6)));
    rules.push(from().drop());
    Table::new(NetfilterProtoFamily::Bridge, tap.as_str())
        .chain("sent", "filter", InetHookNumber::PreRouting, BRIDGED, rules)
        .messages
}

/// Deletes a tap's table, which need not be there.
pub fn no_tap(tap: &IfName) -> Messages {
    Table::new(NetfilterProtoFamily::Bridge, tap.as_str()).gone()
}

/// How the names of tables end that hold guests to a rate.
const RATE: &str = "-rate";

/// The table of a tap whose guest sends no more than this to the switch; before anything else is asked of what he sends.
pub fn rate(tap: &IfName, rate: Rate) -> Messages {
    let rules = vec![Rule::default().from(tap).over(rate).drop()];
    Table::new(NetfilterProtoFamily::Bridge, &format!("{tap}{RATE}"))
        .chain("sent", "filter", InetHookNumber::PreRouting, BRIDGED - 1, rules)
        .messages
}

/// Deletes it; it need not be there.
pub fn no_rate(tap: &IfName) -> Messages {
    Table::new(NetfilterProtoFamily::Bridge, &format!("{tap}{RATE}")).gone()
}

/// The name of a tap, if a table is that of a tap.
pub fn tap_of(table: &str) -> &str {
    table.strip_suffix(RATE).unwrap_or(table)
}

/// Asks for all tables.
pub fn list() -> NetfilterMessage {
    message(NetfilterProtoFamily::Unspec, NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() }))
}

/// The name of a table, in an answer to [`list`].
pub fn name(answer: &NetfilterMessage) -> Option<&str> {
    let netlink_packet_netfilter::NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &answer.inner else {
        return None;
    };
    table.attributes.iter().find_map(|a| if let TableAttribute::Name(name) = a { Some(name.as_str()) } else { None })
}
