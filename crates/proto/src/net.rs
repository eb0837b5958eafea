//! net-helper: bridges, taps, tunnels and pairs of this instance, by netlink or ioctl.

use crate::{
    Forward, IfName, MachineId, NicId, NoFds, OneFd, Rates, Subnet, Subnet6, SwitchId, UpTo,
    names::Text,
    protocol::protocol,
    tunnel::{PublicKey, Tunnel},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// Makes a switch, or brings an existing one to this state: bridge there and up, uplink a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSwitch {
    /// Which.
    pub switch: SwitchId,
    /// Its number on this host; gives the bridge's name ([`IfName::bridge`]).
    pub number: u16,
    /// The host's interface that becomes a member.
    pub uplink: Option<IfName>,
}

/// Deletes a switch. One that is not there is no error; one with taps, tunnels or ends of pairs on it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSwitch {
    /// Its number.
    pub number: u16,
}

/// Makes a tap on a switch, up. It lives as long as its descriptor is held (Linux) or until [`DeleteTap`]; one that nobody holds is
/// made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTap {
    /// For which machine.
    pub machine: MachineId,
    /// For which NIC of it.
    pub nic: NicId,
    /// Its number on this host; gives the tap's name ([`IfName::tap`]).
    pub number: u16,
    /// Number of the switch that it joins; none: it is connected to nothing.
    pub switch: Option<u16>,
}

/// Brings a tap to this state, on another switch or on none: it is down while it moves, so that no frame goes to either meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveTap {
    /// The tap's number.
    pub number: u16,
    /// Number of the switch.
    pub switch: Option<u16>,
    /// No frame goes between it and others of the switch that are so, too.
    pub isolated: bool,
}

/// Deletes a tap. One that is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTap {
    /// Its number.
    pub number: u16,
}

/// Makes a switch's tunnel to the same switch on other hosts (VXLAN), or brings an existing one to this state: a member of the switch,
/// up. There is one for each switch at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTunnel {
    /// Of which switch.
    pub switch: SwitchId,
    /// The switch's number; gives the tunnel's name ([`IfName::tunnel`]).
    pub number: u16,
    /// From where to where.
    pub tunnel: Tunnel,
}

/// Asks for this host's key of WireGuard, which is the same for all tunnels. Refused as unsupported where the kernel has none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {}

/// See [`HostKey`]; the private one stays in the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeyed {
    /// The public one.
    pub key: PublicKey,
}

/// Deletes a switch's tunnel. One that is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTunnel {
    /// The switch's number.
    pub number: u16,
}

/// Makes a pair of interfaces, or brings an existing one to this state: what goes into one end comes out of the other (veth, epair).
/// Both ends are up, and each is a member of a switch or of none. A pair that would close a loop of switches is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePair {
    /// Its number on this host; gives the ends' names ([`IfName::pair`]).
    pub number: u16,
    /// Number of the switch that each end is a member of.
    pub switches: [Option<u16>; 2],
}

/// Deletes a pair, both ends. One that is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePair {
    /// Its number.
    pub number: u16,
}

/// Lists the interfaces of this instance (`own`) or those of the host that switches may have as uplinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInterfaces {
    /// This instance's, or else the host's that its administrator gave.
    pub own: bool,
    /// Begin after the interface with this index; 0 for the first page.
    pub after: u32,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Index in the kernel.
    pub index: u32,
    /// Name.
    pub name: IfName,
    /// Whether it is up.
    pub up: bool,
    /// Name of the bridge that it is a member of.
    pub bridge: Option<IfName>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Kind as the kernel says: bridge, tun, veth, …; empty for hardware.
    pub kind: Text<16>,
}

/// A page of interfaces; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfacePage {
    /// At most 50, by index.
    pub interfaces: Vec<Interface>,
}

/// Name that an interface got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: IfName,
}

/// As [`CreateSwitch`], of a bridge of netgraph's (FreeBSD): no interface of the host's, so that the host itself is not on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGraphSwitch {
    /// Which.
    pub switch: SwitchId,
    /// Its number on this host; gives the bridge's name.
    pub number: u16,
    /// The host's interface that becomes a member.
    pub uplink: Option<IfName>,
}

/// Asks how much has gone through taps. Those that are not there, or that the kernel does not count, are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountTaps {
    /// Their numbers, at most [`COUNTED`].
    pub numbers: Vec<u16>,
}

/// Most taps of one [`CountTaps`]: with 53 bytes each they fit into a record.
pub const COUNTED: usize = 64;

/// What has gone through a tap since it was made, as its guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapCount {
    /// The tap's number.
    pub number: u16,
    /// Bytes that the guest received.
    pub rx_bytes: u64,
    /// Frames that it received.
    pub rx_packets: u64,
    /// Bytes that the guest sent.
    pub tx_bytes: u64,
    /// Frames that it sent.
    pub tx_packets: u64,
}

/// See [`CountTaps`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapCounts {
    /// In the order that was asked for.
    pub taps: Vec<TapCount>,
}

/// Gives a switch an address of the host's and what belongs to it, or takes both: the switch is a subnet then, and its guests reach what
/// `reach` says. One that overlaps anything that the host reaches otherwise is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetGateway {
    /// The switch's number.
    pub number: u16,
    /// None: the host is not on it, nor does it forward anything.
    pub gateway: Option<Gateway>,
    /// Ports of the host's that lead to guests on it, at most [`FORWARDED`]; none where guests reach the host alone.
    pub forwards: Vec<PortForward>,
}

/// Most forwards of one switch: with 16 bytes each they fit into a record.
pub const FORWARDED: usize = 256;

/// A port of the host's that leads to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// Which, and to which of his.
    pub forward: Forward,
    /// His address, on the switch's subnet.
    pub guest: Ipv4Addr,
}

/// Asks whether a port of the host's can lead to a guest: refused if a socket of the host listens there, which would hear nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPort {
    /// Which.
    pub forward: Forward,
}

/// The host on a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The subnet, whose first address is the host's.
    pub subnet: Subnet,
    /// What guests reach.
    pub reach: Reach,
    /// Its IPv6 network, whose first address is the host's. Guests reach each other on it, and of the host what `reach` says; nothing is
    /// forwarded, whatever `reach` is.
    pub subnet6: Option<Subnet6>,
}

/// What guests reach through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// The host itself, and nothing behind it.
    Host,
    /// What the host reaches, in its name (NAT); of the host itself nothing but an echo.
    Out,
}

/// Has a tap's guest send only as who he is, or as he likes. What [`CreateTap`] makes is as he likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardTap {
    /// The tap's number.
    pub number: u16,
    /// Who he is.
    pub own: Option<Own>,
}

/// Who a guest is on a subnet: of all frames that he sends, IPv4 and ARP from these addresses alone go on to the switch, and no answers of
/// a DHCP server; on one with an IPv6 network, IPv6 from the two addresses that are made of his hardware address, and no word of a router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Hardware address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// The switch's IPv6 network; none: no IPv6 at all.
    pub subnet6: Option<Subnet6>,
}

/// Limits how much goes through a tap, each way, or lifts the limits. What [`CreateTap`] makes has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitTap {
    /// The tap's number.
    pub number: u16,
    /// How much.
    pub rates: Rates,
}

/// Opens the frames that a guest sends to its services: a packet socket (Linux) or bpf(4) device that is bound to the tap and lets
/// through nothing else. Its filter cannot be taken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// The tap's number.
    pub number: u16,
    /// Of IPv6, too: neighbour discovery, and what is for services' address there.
    pub v6: bool,
}

/// Opens sockets to the resolvers that the host's administrator gave: UDP, connected, each can send to its resolver alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenResolvers {}

/// Begins a TCP connection to a server on the net. What is inside is refused: the host itself, its own networks and the suite's, and every
/// other address that is not public, but for those that the administrator named. The socket is non-blocking, and may still be connecting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectServer {
    /// To this address.
    pub address: IpAddr,
    /// And port.
    pub port: u16,
    /// It is the portal of an iSCSI target: such are only where the administrator named them, inside or not.
    pub portal: bool,
}

/// Names of a pair's ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairNamed {
    /// The names.
    pub ends: [IfName; 2],
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of net-helper; its only client is the broker.
    Net = "net-helper", version 10, oldest 10, NetRequest {
        0 CreateSwitch [NoFds] => Named [NoFds];
        1 DeleteSwitch [NoFds] => Done [NoFds];
        2 CreateTap [NoFds] => Named [OneFd];
        3 MoveTap [NoFds] => Done [NoFds];
        4 DeleteTap [NoFds] => Done [NoFds];
        5 ListInterfaces [NoFds] => InterfacePage [NoFds];
        6 CreateTunnel [NoFds] => Named [NoFds];
        7 DeleteTunnel [NoFds] => Done [NoFds];
        8 CreatePair [NoFds] => PairNamed [NoFds];
        9 DeletePair [NoFds] => Done [NoFds];
        10 CreateGraphSwitch [NoFds] => Named [NoFds];
        11 CountTaps [NoFds] => TapCounts [NoFds];
        12 SetGateway [NoFds] => Done [NoFds];
        13 OpenPort [NoFds] => Done [OneFd];
        14 OpenResolvers [NoFds] => Done [UpTo<3>];
        15 GuardTap [NoFds] => Done [NoFds];
        16 LimitTap [NoFds] => Done [NoFds];
        17 ConnectServer [NoFds] => Done [OneFd];
        18 CheckPort [NoFds] => Done [NoFds];
        19 HostKey [NoFds] => HostKeyed [NoFds];
    }
}
