//! What a tunnel between hosts is made of (VXLAN, RFC 7348): each part is valid by construction, and checked again when it is decoded.

use crate::names::IfName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::{fmt, str::FromStr};

/// The port that IANA gave to VXLAN; Linux's own default, 8472, is older than that.
pub const PORT: u16 = 4789;

/// A part of a tunnel that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTunnel {
    /// Rules of its text.
    #[error("a tunnel is written as VNI LOCAL FAR PORT, and the interface if FAR is a group")]
    Text,
    /// Rules of network numbers.
    #[error("a VXLAN network has a number from 1 to 16777215")]
    Vni,
    /// Rules of a host's address.
    #[error("an address that a host has on a network is expected: not a group's, not a loopback, not link-local")]
    Host,
    /// Rules of a group's address.
    #[error("a multicast address is expected, and of IPv6 one that reaches beyond the link")]
    Group,
}

macro_rules! checked {
    ($name:ident, $inner:ty, $error:expr, $check:expr) => {
        impl $name {
            /// If it is valid.
            pub fn new(value: $inner) -> Result<Self, BadTunnel> {
                let check: fn(&$inner) -> bool = $check;
                if check(&value) { Ok(Self(value)) } else { Err($error) }
            }
            /// The value.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = BadTunnel;
            fn from_str(text: &str) -> Result<Self, BadTunnel> {
                text.parse().map_err(|_| $error).and_then(Self::new)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(s)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(<$inner>::deserialize(d)?).map_err(D::Error::custom)
            }
        }
    };
}

/// Number of a virtual network: the same on every host that it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);
checked!(Vni, u32, BadTunnel::Vni, |number| (1..1 << 24).contains(number));

/// An address that one host has. A loopback is none: whoever may make tunnels could send to whatever listens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostAddress(IpAddr);
checked!(HostAddress, IpAddr, BadTunnel::Host, |address| {
    let common = !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    common
        && match address {
            IpAddr::V4(v4) => *v4 != Ipv4Addr::BROADCAST && !v4.is_link_local() && v4.octets()[0] != 0,
            // A link-local address means nothing without its link.
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        }
});

/// A multicast address, which several hosts listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupAddress(IpAddr);
checked!(GroupAddress, IpAddr, BadTunnel::Group, |address| match address {
    IpAddr::V4(v4) => v4.is_multicast(),
    // The low half of the second byte is the scope (RFC 4291): 1 is the interface, 2 the link.
    IpAddr::V6(v6) => v6.is_multicast() && v6.octets()[1] & 0xf > 2,
});

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Far {
    /// To one other host.
    Host(HostAddress),
    /// To every host in a group.
    Group {
        /// The group.
        address: GroupAddress,
        /// The host's interface on which the group is joined.
        uplink: IfName,
    },
}

impl Far {
    /// Its address.
    pub const fn address(&self) -> IpAddr {
        match self {
            Far::Host(address) => address.get(),
            Far::Group { address, .. } => address.get(),
        }
    }
}

/// A tunnel of one network. Frames of a guest are up to 50 bytes (IPv6: 70) longer in it: where the network between the hosts carries
/// 1500, guests of a switch with a group should use 1450 (1430); to a single host long packets are sent in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Which network.
    pub vni: Vni,
    /// This host's address.
    pub local: HostAddress,
    /// The other end.
    pub far: Far,
    /// UDP port, the same at both ends.
    pub port: NonZeroU16,
}

impl Tunnel {
    /// Whether both ends are of one kind of address.
    pub const fn is_of_one_family(&self) -> bool {
        self.local.get().is_ipv4() == self.far.address().is_ipv4()
    }
}

/// `VNI LOCAL FAR PORT`, and the interface if it leads to a group.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vni, local, far, port } = self;
        write!(f, "{vni} {local} {} {port}", far.address())?;
        match far {
            Far::Host(_) => Ok(()),
            Far::Group { uplink, .. } => write!(f, " {uplink}"),
        }
    }
}

impl FromStr for Tunnel {
    type Err = BadTunnel;
    fn from_str(text: &str) -> Result<Self, BadTunnel> {
        let words: Vec<&str> = text.split(' ').collect();
        let ([vni, local, far, port], uplink) = match &words[..] {
            [vni, local, far, port] => ([vni, local, far, port], None),
            [vni, local, far, port, uplink] => ([vni, local, far, port], Some(uplink)),
            _ => return Err(BadTunnel::Text),
        };
        let far = match uplink {
            None => Far::Host(far.parse()?),
            Some(uplink) => Far::Group { address: far.parse()?, uplink: uplink.parse().map_err(|_| BadTunnel::Text)? },
        };
        Ok(Self { vni: vni.parse()?, local: local.parse()?, far, port: port.parse().map_err(|_| BadTunnel::Text)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{BadTunnel, GroupAddress, HostAddress, Tunnel, Vni};
    use std::fmt::Debug;
    use std::str::FromStr;

    fn only<T: FromStr<Err = BadTunnel> + Debug>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(text.parse::<T>().is_ok(), "{text}");
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_tunnel_are_checked() {
        only::<Vni>(&["1", "16777215"], &["0", "16777216", "-1", "", "x"]);
        let not_a_host = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.3.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
            "::",
            "::1",
            "fe80::1",
            "ff05::1",
            "::ffff:192.0.2.1",
            "192.0.2.1/24",
            "eth0",
            "",
        ];
        only::<HostAddress>(&["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"], &not_a_host);
        only::<GroupAddress>(&["239.1.2.3", "224.0.0.251", "ff05::1", "ff0e::9"], &["192.0.2.1", "ff02::1", "ff01::1", "::", ""]);
    }

    #[test]
    fn a_tunnel_is_text() {
        for text in ["42 192.0.2.1 198.51.100.2 4789", "16777215 2001:db8::1 ff05::7 8472 eth1"] {
            assert_eq!(text.parse::<Tunnel>().unwrap().to_string(), text);
        }
        let wrong = [
            "",
            "42",
            "42 192.0.2.1 198.51.100.2",
            "42 192.0.2.1 198.51.100.2 0",
            "42 192.0.2.1 198.51.100.2 4789 eth1",
            "42 192.0.2.1 239.1.1.1 4789",
            "42 192.0.2.1 239.1.1.1 4789 eth1 eth2",
            "42 127.0.0.1 198.51.100.2 4789",
            "0 192.0.2.1 198.51.100.2 4789",
        ];
        for text in wrong {
            assert!(text.parse::<Tunnel>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_decoded_is_checked_too() {
        use crate::wire::{decode, encode};
        use std::net::IpAddr;
        assert_eq!(decode::<Vni>(&encode(&7u32).unwrap()).unwrap(), Vni(7));
        assert!(decode::<Vni>(&encode(&(1u32 << 24)).unwrap()).is_err());
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(decode::<HostAddress>(&encode(&loopback).unwrap()).is_err());
        assert!(decode::<GroupAddress>(&encode(&loopback).unwrap()).is_err());
    }
}
