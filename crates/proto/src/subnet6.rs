//! IPv6 networks of switches.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Bits of the prefix, always.
const PREFIX: u8 = 64;
/// The host's link-local address on a switch that has such a network.
pub const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A local IPv6 network of 64 bits (RFC 4193): `fd12:3456:789a:1::/64`. Its first address is the host's; each guest has the one that is
/// made of its hardware address (RFC 4291, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv6Addr", into = "Ipv6Addr")]
pub struct Subnet6(u64);

/// Why a text or an address is no [`Subnet6`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet6 {
    /// Not of this form.
    #[error("ADDRESS/64 is expected, such as fd12:3456:789a:1::/64")]
    Form,
    /// Another length: guests make addresses of 64 bits of their own.
    #[error("a prefix of /64 is expected")]
    Prefix,
    /// The address has bits behind the prefix.
    #[error("the network is {0}")]
    Host(Subnet6),
    /// Not a local one.
    #[error("a network within fd00::/8 (RFC 4193) is expected")]
    Public,
}

/// What a new switch's IPv6 network is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice6 {
    /// One drawn at random, that nothing on the host has.
    Auto,
    /// This one.
    This(Subnet6),
}

/// The lower half of the addresses of who has this hardware address (EUI-64, with its bit of the universe turned over).
const fn interface([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The link-local address that is made of a hardware address.
pub const fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80 << 112 | interface(mac) as u128)
}

/// Whether one of two networks holds the other, whatever bits are behind their prefixes.
pub fn overlap6((a, a_prefix): (Ipv6Addr, u8), (b, b_prefix): (Ipv6Addr, u8)) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(a_prefix.min(b_prefix).min(128))).unwrap_or(0);
    (a.to_bits() ^ b.to_bits()) & mask == 0
}

impl Subnet6 {
    /// The network that begins at this address.
    pub fn new(net: Ipv6Addr) -> Result<Self, BadSubnet6> {
        let [first, ..] = net.octets();
        if first != 0xfd {
            return Err(BadSubnet6::Public);
        }
        let found = Self((net.to_bits() >> 64) as u64);
        if found.net() == net { Ok(found) } else { Err(BadSubnet6::Host(found)) }
    }

    /// One of 2^56, by the upper bits of `random`.
    pub fn drawn(random: u64) -> Self {
        Self(0xfd << 56 | random >> 8)
    }

    /// Its address.
    pub fn net(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from(self.0) << 64)
    }
    /// Length of its prefix in bits.
    pub fn prefix(self) -> u8 {
        PREFIX
    }
    /// The host's address on it.
    pub fn gateway(self) -> Ipv6Addr {
        self.address(1)
    }
    /// The address on it of who has this hardware address.
    pub fn of(self, mac: [u8; 6]) -> Ipv6Addr {
        self.address(interface(mac))
    }
    /// Whether an address is on it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (address.to_bits() >> 64) as u64 == self.0
    }

    fn address(self, interface: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from(self.0) << 64 | u128::from(interface))
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{PREFIX}", self.net())
    }
}

impl FromStr for Subnet6 {
    type Err = BadSubnet6;
    fn from_str(text: &str) -> Result<Self, BadSubnet6> {
        let (net, prefix) = text.split_once('/').ok_or(BadSubnet6::Form)?;
        let net = net.parse().map_err(|_| BadSubnet6::Form)?;
        match prefix.parse() {
            Ok(PREFIX) => Self::new(net),
            Ok(0..=128) => Err(BadSubnet6::Prefix),
            _ => Err(BadSubnet6::Form),
        }
    }
}

impl TryFrom<Ipv6Addr> for Subnet6 {
    type Error = BadSubnet6;
    fn try_from(net: Ipv6Addr) -> Result<Self, BadSubnet6> {
        Self::new(net)
    }
}

impl From<Subnet6> for Ipv6Addr {
    fn from(subnet: Subnet6) -> Self {
        subnet.net()
    }
}

impl FromStr for Choice6 {
    type Err = BadSubnet6;
    fn from_str(text: &str) -> Result<Self, BadSubnet6> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::This) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_local_and_begins_at_its_address() {
        let net: Subnet6 = "fd12:3456:789a:1::/64".parse().unwrap();
        assert_eq!(net.to_string(), "fd12:3456:789a:1::/64");
        assert_eq!((net.gateway(), net.prefix()), (ip("fd12:3456:789a:1::1"), 64));
        assert_eq!(net.of([0x02, 0, 0x5e, 0, 0x53, 0x11]), ip("fd12:3456:789a:1:0:5eff:fe00:5311"));
        assert_eq!(link_local([0x52, 0x54, 0, 1, 2, 3]), ip("fe80::5054:ff:fe01:203"));
        assert!(net.contains(ip("fd12:3456:789a:1:ffff::")) && !net.contains(ip("fd12:3456:789a:2::1")));
        for (text, why) in [
            ("fd12::", BadSubnet6::Form),
            ("auto", BadSubnet6::Form),
            ("10.0.0.0/64", BadSubnet6::Form),
            ("fd12::/x", BadSubnet6::Form),
            ("fd12::/129", BadSubnet6::Form),
            ("fd12::/48", BadSubnet6::Prefix),
            ("fd12::/65", BadSubnet6::Prefix),
            ("fd12:3456:789a:1::1/64", BadSubnet6::Host(net)),
            ("fc00::/64", BadSubnet6::Public),
            ("fe80::/64", BadSubnet6::Public),
            ("2001:db8::/64", BadSubnet6::Public),
        ] {
            assert_eq!(text.parse::<Subnet6>(), Err(why), "{text}");
        }
        assert_eq!(("auto".parse(), "fd12:3456:789a:1::/64".parse()), (Ok(Choice6::Auto), Ok(Choice6::This(net))));
    }

    #[test]
    fn one_that_is_drawn_is_local() {
        for random in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let net = Subnet6::drawn(random);
            assert_eq!(Subnet6::new(net.net()), Ok(net));
        }
        assert_eq!(Subnet6::drawn(0x1234_5678_9abc_def0), "fd12:3456:789a:bcde::/64".parse().unwrap());
    }

    #[test]
    fn a_network_is_checked_when_it_is_decoded() {
        let bytes = postcard::to_stdvec(&ip("2001:db8::")).unwrap();
        assert!(postcard::from_bytes::<Subnet6>(&bytes).is_err());
        let net = Subnet6::drawn(7);
        assert_eq!(postcard::from_bytes::<Subnet6>(&postcard::to_stdvec(&net).unwrap()), Ok(net));
    }

    #[test]
    fn networks_overlap_if_one_holds_the_other() {
        let (net, other) = ((ip("fd12:3456:789a:1::"), 64), (ip("fd12:3456:789a:2::"), 64));
        assert!(overlap6(net, (ip("fd12::"), 8)) && overlap6((ip("fd12:3456:789a::"), 48), net) && overlap6(net, (ip("::"), 0)));
        assert!(overlap6(net, (ip("fd12:3456:789a:1::9"), 128)) && !overlap6(net, other) && !overlap6(net, (ip("fe80::"), 64)));
    }
}
