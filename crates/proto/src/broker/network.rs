//! Switches and NICs.

use super::{NicModel, Ref};
use crate::tunnel::Tunnel;
use crate::{Choice6, Forwards, IfName, NicId, NicName, Rate, Rates, Subnet, Subnet6, SwitchId, SwitchName, Text};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Makes a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchCreate {
    /// Its name.
    pub name: SwitchName,
    /// The host's interface that joins it; only of a plain one.
    pub uplink: Option<IfName>,
    /// What it is.
    pub kind: SwitchKind,
    /// Its subnet, if it is not plain; none: one that collides with nothing on the host.
    pub subnet: Option<Subnet>,
    /// To the same switch on other hosts; only of a plain one without an uplink.
    pub tunnel: Option<Tunnel>,
    /// Its IPv6 network beside its subnet; none: IPv6 is not spoken on it.
    pub subnet6: Option<Choice6>,
}

/// What a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SwitchKind {
    /// Its ports and its uplink, nothing else.
    Plain,
    /// A subnet with addresses for guests, on which the host is, and nothing beyond.
    HostOnly,
    /// A subnet with addresses for guests, who reach what the host reaches, in its name.
    Nat,
    /// As a plain one, made of ng_bridge(4): no interface of the host's, so that the host itself is not on it (FreeBSD).
    Netgraph,
}

impl SwitchKind {
    /// Whether it is a subnet.
    pub fn is_subnet(self) -> bool {
        matches!(self, Self::HostOnly | Self::Nat)
    }
}

/// Lists switches by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchList {
    /// Begin after this name.
    pub after: Option<SwitchName>,
}

/// Looks one switch up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchGet {
    /// Which.
    pub switch: Ref,
}

/// Changes a switch; what is absent stays. NICs that are connected stay so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchSet {
    /// Which.
    pub switch: Ref,
    /// Its new name.
    pub name: Option<SwitchName>,
    /// What its users say of it.
    pub description: Option<Text<256>>,
    /// The host's interface that joins it from now on; empty: none.
    pub uplink: Option<Text<15>>,
}

/// Deletes a switch that no NIC is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchDelete {
    /// Which.
    pub switch: Ref,
}

/// Opens a switch to a group, or closes it: operators of that group may connect NICs to it. NICs that are connected stay so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchOpen {
    /// Which.
    pub switch: Ref,
    /// To which group; none: to all.
    pub group: Option<Ref>,
    /// Whether it is open.
    pub open: bool,
}

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchView {
    /// Its id.
    pub id: SwitchId,
    /// Its name.
    pub name: SwitchName,
    /// Its bridge on the host.
    pub bridge: Text<15>,
    /// Its uplink; empty: none.
    pub uplink: Text<15>,
    /// NICs connected to it.
    pub nics: u32,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
    /// Open to every group.
    pub open: bool,
    /// Names of the groups that it is open to, at most 50.
    pub groups: Vec<Text<63>>,
    /// What its users say of it.
    pub description: Text<256>,
    /// What it is.
    pub kind: SwitchKind,
    /// Its subnet, if it is not plain.
    pub subnet: Option<Subnet>,
    /// To the same switch on other hosts.
    pub tunnel: Option<Tunnel>,
    /// Its IPv6 network.
    pub subnet6: Option<Subnet6>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchPage {
    /// As many as fit a record.
    pub switches: Vec<SwitchView>,
}

/// Makes a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicCreate {
    /// Its name.
    pub name: NicName,
    /// The switch that it is connected to.
    pub switch: Option<Ref>,
    /// Its MAC address; none: one made from its id.
    pub mac: Option<[u8; 6]>,
    /// The machine that gets it.
    pub machine: Option<Ref>,
    /// Its group, unless a machine gets it; none: the one that is there from the start.
    pub group: Option<Ref>,
    /// What it is to the guest.
    pub model: NicModel,
    /// Its place on PCI bus 0, 1 to 30; none: the usual one of its turn among the machine's NICs.
    pub slot: Option<u8>,
    /// Its address on its switch's subnet; none: the lowest that is free.
    pub address: Option<Ipv4Addr>,
    /// How much goes through it.
    pub rates: Rates,
    /// No frame goes between it and others on its switch that are isolated, too.
    pub isolated: bool,
    /// Ports of the host's that lead to its guest; only on a NAT switch.
    pub forwards: Forwards,
}

/// Gives a NIC to a stopped machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicAttach {
    /// Which.
    pub nic: Ref,
    /// Whose it becomes.
    pub machine: Ref,
}

/// Takes a NIC from its stopped machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicDetach {
    /// Which.
    pub nic: Ref,
}

/// Looks one NIC up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicGet {
    /// Which.
    pub nic: Ref,
}

/// Changes a NIC; what is absent stays. While a machine runs that has it, its switch, address, rates and isolation are changed there at once; MAC, model and
/// place can only be changed while it stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSet {
    /// Which.
    pub nic: Ref,
    /// Its new name.
    pub name: Option<NicName>,
    /// What its users say of it.
    pub description: Option<Text<256>>,
    /// The switch that it is connected to; empty: none.
    pub switch: Option<Ref>,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// What it is to the guest.
    pub model: Option<NicModel>,
    /// Its place on PCI bus 0; 0: the usual one.
    pub slot: Option<u8>,
    /// Its address on its switch's subnet.
    pub address: Option<Ipv4Addr>,
    /// How much its guest receives at most; no rate: as much as goes.
    pub rate_in: Option<Option<Rate>>,
    /// How much it sends at most, likewise.
    pub rate_out: Option<Option<Rate>>,
    /// See [`NicCreate::isolated`].
    pub isolated: Option<bool>,
    /// See [`NicCreate::forwards`]; in place of all that were there.
    pub forwards: Option<Forwards>,
}

/// Makes a NIC like another, with an address of its own and no machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicClone {
    /// The original.
    pub nic: Ref,
    /// Name of the copy.
    pub name: NicName,
}

/// Lists NICs by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicList {
    /// Begin after this name.
    pub after: Option<NicName>,
}

/// Deletes a NIC that no machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicDelete {
    /// Which.
    pub nic: Ref,
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicView {
    /// Its id.
    pub id: NicId,
    /// Its name.
    pub name: NicName,
    /// MAC address.
    pub mac: [u8; 6],
    /// Name of its switch; empty: none.
    pub switch: Text<63>,
    /// Name of its machine; empty: none.
    pub machine: Text<63>,
    /// Its tap on the host.
    pub tap: Text<15>,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
    /// Name of its group.
    pub group: Text<63>,
    /// What it is to the guest.
    pub model: NicModel,
    /// Its chosen place on PCI bus 0; none: the usual one.
    pub slot: Option<u8>,
    /// What its users say of it.
    pub description: Text<256>,
    /// Its address on its switch's subnet; none: the switch is no subnet.
    pub address: Option<Ipv4Addr>,
    /// How much goes through it.
    pub rates: Rates,
    /// See [`NicCreate::isolated`].
    pub isolated: bool,
    /// See [`NicCreate::forwards`].
    pub forwards: Forwards,
    /// Its address on its switch's IPv6 network, made of its MAC address; none: there is no such network.
    pub address6: Option<Ipv6Addr>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicPage {
    /// As many as fit a record.
    pub nics: Vec<NicView>,
}
