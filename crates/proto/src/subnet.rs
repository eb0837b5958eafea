//! Subnets of switches.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Networks in which a switch's subnet may be: RFC 1918 and RFC 6598, which nobody reaches from outside.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// A private IPv4 network with a prefix of 16 to 29 bits: `10.1.2.0/24`. Its first host is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv4Addr, u8)", into = "(Ipv4Addr, u8)")]
pub struct Subnet {
    net: u32,
    prefix: u8,
}

/// Why a text or a pair is no [`Subnet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Not of this form.
    #[error("ADDRESS/PREFIX is expected, such as 10.1.2.0/24")]
    Form,
    /// Too many hosts, or too few.
    #[error("a prefix of /16 to /29 is expected")]
    Prefix,
    /// The address has bits behind the prefix.
    #[error("the network is {0}")]
    Host(Subnet),
    /// Not in a private network.
    #[error("a network within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10 is expected")]
    Public,
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Whether one of two networks holds the other, whatever bits are behind their prefixes.
pub fn overlap((a, a_prefix): (Ipv4Addr, u8), (b, b_prefix): (Ipv4Addr, u8)) -> bool {
    let mask = mask(a_prefix.min(b_prefix));
    u32::from(a) & mask == u32::from(b) & mask
}

impl Subnet {
    /// The network of `prefix` bits that begins at `net`.
    pub fn new(net: Ipv4Addr, prefix: u8) -> Result<Self, BadSubnet> {
        if !(16..=29).contains(&prefix) {
            return Err(BadSubnet::Prefix);
        }
        if !PRIVATE.iter().any(|(private, bits)| prefix >= *bits && overlap((net, *bits), (*private, *bits))) {
            return Err(BadSubnet::Public);
        }
        let found = Self { net: u32::from(net) & mask(prefix), prefix };
        if found.net == u32::from(net) { Ok(found) } else { Err(BadSubnet::Host(found)) }
    }

    /// Its address.
    pub fn net(self) -> Ipv4Addr {
        self.net.into()
    }
    /// Length of its prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }
    /// The host's address on it.
    pub fn gateway(self) -> Ipv4Addr {
        (self.net + 1).into()
    }
    /// Addresses that guests can have, in their order.
    pub fn guests(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.net + 2..self.net | !mask(self.prefix)).map(Into::into)
    }
    /// Whether a guest can have this address.
    pub fn is_guest(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !mask(self.prefix);
        u32::from(address) & mask(self.prefix) == self.net && host > 1 && host < !mask(self.prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;
    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        let (net, prefix) = text.split_once('/').ok_or(BadSubnet::Form)?;
        let prefix = prefix.parse().map_err(|_| BadSubnet::Form)?;
        Self::new(net.parse().map_err(|_| BadSubnet::Form)?, prefix)
    }
}

impl TryFrom<(Ipv4Addr, u8)> for Subnet {
    type Error = BadSubnet;
    fn try_from((net, prefix): (Ipv4Addr, u8)) -> Result<Self, BadSubnet> {
        Self::new(net, prefix)
    }
}

impl From<Subnet> for (Ipv4Addr, u8) {
    fn from(subnet: Subnet) -> Self {
        (subnet.net(), subnet.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_private_and_begins_at_its_network() {
        let subnet: Subnet = "10.1.2.0/24".parse().unwrap();
        assert_eq!(subnet.to_string(), "10.1.2.0/24");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(subnet.guests().next(), Some(Ipv4Addr::new(10, 1, 2, 2)));
        assert_eq!(subnet.guests().last(), Some(Ipv4Addr::new(10, 1, 2, 254)));
        assert_eq!("192.168.7.8/29".parse::<Subnet>().unwrap().guests().count(), 5);
        for (address, is) in [([10, 1, 2, 2], true), ([10, 1, 2, 1], false), ([10, 1, 2, 255], false), ([10, 1, 3, 2], false)] {
            assert_eq!(subnet.is_guest(address.into()), is);
        }
        for (text, why) in [
            ("10.1.2.0", BadSubnet::Form),
            ("10.1.2/24", BadSubnet::Form),
            ("10.1.2.0/2x", BadSubnet::Form),
            ("10.1.2.0/30", BadSubnet::Prefix),
            ("10.0.0.0/15", BadSubnet::Prefix),
            ("10.1.2.1/24", BadSubnet::Host(subnet)),
            ("172.32.0.0/16", BadSubnet::Public),
            ("169.254.0.0/16", BadSubnet::Public),
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_subnet_is_checked_when_it_is_decoded() {
        let bytes = postcard::to_stdvec(&(Ipv4Addr::new(8, 8, 8, 0), 24u8)).unwrap();
        assert!(postcard::from_bytes::<Subnet>(&bytes).is_err());
        let subnet: Subnet = "100.64.3.0/24".parse().unwrap();
        assert_eq!(postcard::from_bytes::<Subnet>(&postcard::to_stdvec(&subnet).unwrap()), Ok(subnet));
    }

    #[test]
    fn networks_overlap_if_one_holds_the_other() {
        let net = |a, b, c, d, prefix| (Ipv4Addr::new(a, b, c, d), prefix);
        assert!(overlap(net(10, 1, 2, 1, 24), net(10, 0, 0, 0, 8)));
        assert!(overlap(net(10, 0, 0, 0, 8), net(10, 1, 2, 1, 24)));
        assert!(overlap(net(10, 1, 2, 1, 24), net(10, 1, 2, 3, 32)));
        assert!(!overlap(net(10, 1, 2, 1, 24), net(10, 1, 3, 1, 24)));
        assert!(overlap(net(10, 1, 2, 1, 24), net(0, 0, 0, 0, 0)));
    }
}
