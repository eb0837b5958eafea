//! guest-services: one for each switch that has a subnet. It answers guests: DHCP, DNS, metadata.
//!
//! It speaks to ports, not to the switch: each NIC's frames come to it by a packet descriptor of their own, so that who asks is known by
//! where he is plugged in, never by an address that he wrote.

use crate::{MachineId, NicId, NoFds, OneFd, Subnet6, UpTo, link_local, names::Text, protocol::protocol};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The address at which guests find all of it (DHCP's server identifier, DNS, metadata).
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The hardware address that it answers with: locally administered, "SKEP" and one.
pub const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x45, 0x50, 0x01];
/// Its address on switches with an IPv6 network, from which that is advertised and where DNS is, too.
pub const ADDRESS6: Ipv6Addr = link_local(MAC);
/// Bytes of a [`Document`] when encoded, at most.
pub const MAX_DOCUMENT: usize = 256 << 10;
/// Seconds that an address is leased for. It stays the NIC's as long as the NIC is on the switch; guests ask again for what else changes.
pub const LEASE_SECONDS: u32 = 3600;
/// Upstream resolvers at most.
pub const MAX_RESOLVERS: usize = 3;

/// The subnet of a switch, as a guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Length of its prefix, 8 to 30.
    pub prefix: u8,
    /// The host's address, which is the way out; none: there is no way out.
    pub router: Option<Ipv4Addr>,
    /// Domain of the names on it.
    pub domain: Text<63>,
    /// Bytes in a packet at most.
    pub mtu: u16,
    /// Its IPv6 network, which is advertised; none: IPv6 is not spoken.
    pub v6: Option<Subnet6>,
}

/// Serves a NIC from now on, or serves it otherwise than before. Descriptors: its frames (a packet socket or bpf(4) device that is
/// bound to its tap, with a filter that is locked), then, if `document`, a sealed memory file with the [`Document`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPort {
    /// Which.
    pub nic: NicId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its hardware address; frames from another are not answered.
    pub mac: [u8; 6],
    /// The address that is its own on this switch.
    pub address: Ipv4Addr,
    /// Its host name, which DNS knows on this switch.
    pub host: Text<63>,
    /// What it is told of the switch.
    pub subnet: Subnet,
    /// Whether a document comes with it.
    pub document: bool,
}

/// Serves a NIC no more. One that is not served is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovePort {
    /// Which.
    pub nic: NicId,
}

/// Gives the sockets over which names that are not the switch's are asked for: connected UDP sockets, which can send nowhere else. They
/// replace those from before; none: such names are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetResolvers {}

/// Lists the NICs that are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPorts {
    /// Begin after this one.
    pub after: Option<NicId>,
}

/// A NIC that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Which.
    pub nic: NicId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address on the switch's IPv6 network, while its guest answers for it.
    pub address6: Option<Ipv6Addr>,
    /// Whether it has taken the address, since it is served.
    pub leased: bool,
    /// Whether it has phoned home, since it is served.
    pub home: bool,
    /// Frames that were answered or counted.
    pub frames: u64,
    /// Frames that were passed over: malformed, from another hardware address, or too many.
    pub refused: u64,
}

/// A page of them; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPage {
    /// At most 64, by id.
    pub ports: Vec<Port>,
}

/// Tells each [`ServiceEvent`] from now on as one record. Descriptor: a seqpacket socket; the process can send none itself, since a call that
/// sends descriptors could name an address, too. A reader that does not keep up is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {}

/// One record of [`Watch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceEvent {
    /// A guest has taken its address (DHCPACK was sent; renewals are not told).
    Leased(NicId),
    /// A guest says that it has done what its user data asked for.
    Home(NicId),
}

/// What a guest may ask about itself, and nobody else may: encoded by postcard in a memory file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What cloud-init takes as the machine's identity: another one, and the guest configures itself anew.
    pub instance: Text<63>,
    /// Host name.
    pub host: Text<63>,
    /// Public SSH keys, one line each.
    pub keys: Vec<String>,
    /// The user's data, as he gave it.
    pub user_data: Vec<u8>,
    /// The template's data.
    pub vendor_data: Vec<u8>,
    /// Network configuration, version 2, as YAML.
    pub network: String,
}

impl Document {
    /// As bytes; at most [`MAX_DOCUMENT`].
    pub fn encode(&self) -> Result<Vec<u8>, BadDocument> {
        let bytes = postcard::to_stdvec(self).map_err(|_| BadDocument::Malformed)?;
        if bytes.len() > MAX_DOCUMENT { Err(BadDocument::TooLong) } else { Ok(bytes) }
    }

    /// From exactly these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(BadDocument::TooLong);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((document, [])) => Ok(document),
            _ => Err(BadDocument::Malformed),
        }
    }
}

/// Bytes that are no [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// More than [`MAX_DOCUMENT`].
    #[error("a document of more than {MAX_DOCUMENT} bytes")]
    TooLong,
    /// Truncated, with something behind its end, or with a value out of its range.
    #[error("a document that does not decode")]
    Malformed,
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of guest-services; its only client is the broker, over `RUN/switch/UUID.sock`.
    Services = "guest-services", version 2, oldest 2, ServicesRequest {
        0 AddPort [UpTo<2>] => Done [NoFds];
        1 RemovePort [NoFds] => Done [NoFds];
        2 SetResolvers [UpTo<3>] => Done [NoFds];
        3 ListPorts [NoFds] => PortPage [NoFds];
        4 Watch [OneFd] => Done [NoFds];
    }
}
