//! What a tunnel between hosts is made of (VXLAN, RFC 7348): each part is valid by construction, and checked again when it is decoded.

use crate::names::IfName;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::{fmt, str::FromStr};

/// The port that IANA gave to VXLAN; Linux's own default, 8472, is older than that.
pub const PORT: u16 = 4789;
/// The port that WireGuard's own documents have.
pub const WIREGUARD_PORT: u16 = 51_820;

/// A part of a tunnel that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTunnel {
    /// Rules of its text.
    #[error("a tunnel is written as VNI LOCAL FAR PORT, and the interface if FAR is a group, or key=KEY")]
    Text,
    /// Rules of keys.
    #[error("a public key of WireGuard is 32 bytes in base64, as `wg pubkey` and `skep host show` write it")]
    Key,
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

/// A public key of WireGuard, written in base64. Whoever has the private one is the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// If it is one: nothing but zeroes is what the kernels say where there is none.
    pub fn new(bytes: [u8; 32]) -> Result<Self, BadTunnel> {
        if bytes == [0; 32] { Err(BadTunnel::Key) } else { Ok(Self(bytes)) }
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The address that whoever has it has inside of WireGuard: link-local, so that the kernels take what is for it on that interface
    /// alone, and made of the key, so that nobody has to choose one.
    pub fn address(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = BadTunnel;
    fn from_str(text: &str) -> Result<Self, BadTunnel> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| BadTunnel::Key)?;
        Self::new(bytes.try_into().map_err(|_| BadTunnel::Key)?)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(<[u8; 32]>::deserialize(d)?).map_err(D::Error::custom)
    }
}

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

/// What a key begins with in a tunnel's text.
const KEY: &str = "key=";

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
    /// UDP port, the same at both ends: of WireGuard, if the tunnel goes through that.
    pub port: NonZeroU16,
    /// The other host's key: what goes between both is encrypted by WireGuard, and nobody else can send. None to a group.
    pub peer_key: Option<PublicKey>,
}

impl Tunnel {
    /// Whether both ends are of one kind of address.
    pub const fn is_of_one_family(&self) -> bool {
        self.local.get().is_ipv4() == self.far.address().is_ipv4()
    }
}

/// `VNI LOCAL FAR PORT`, and the interface if it leads to a group, or `key=KEY` if it goes through WireGuard.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vni, local, far, port, peer_key } = self;
        write!(f, "{vni} {local} {} {port}", far.address())?;
        match far {
            Far::Host(_) => peer_key.iter().try_for_each(|key| write!(f, " {KEY}{key}")),
            Far::Group { uplink, .. } => write!(f, " {uplink}"),
        }
    }
}

impl FromStr for Tunnel {
    type Err = BadTunnel;
    fn from_str(text: &str) -> Result<Self, BadTunnel> {
        let words: Vec<&str> = text.split(' ').collect();
        let (words, peer_key) = match words.split_last().map(|(last, rest)| (last.strip_prefix(KEY), rest)) {
            Some((Some(key), rest)) if rest.len() == 4 => (rest, Some(key.parse()?)),
            _ => (&words[..], None),
        };
        let ([vni, local, far, port], uplink) = match words {
            [vni, local, far, port] => ([vni, local, far, port], None),
            [vni, local, far, port, uplink] => ([vni, local, far, port], Some(uplink)),
            _ => return Err(BadTunnel::Text),
        };
        let far = match uplink {
            None => Far::Host(far.parse()?),
            Some(uplink) => Far::Group { address: far.parse()?, uplink: uplink.parse().map_err(|_| BadTunnel::Text)? },
        };
        Ok(Self { vni: vni.parse()?, local: local.parse()?, far, port: port.parse().map_err(|_| BadTunnel::Text)?, peer_key })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{BadTunnel, GroupAddress, HostAddress, PublicKey, Tunnel, Vni};
    use std::fmt::Debug;
    use std::net::Ipv6Addr;
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

    /// Of wg(8)'s manual.
    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn a_key_is_32_bytes_in_base64() {
        let zeroes = "A".repeat(43) + "=";
        let bad = [&KEY[..43], &KEY[..40], "", &zeroes, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D=="];
        only::<PublicKey>(&[KEY], &bad);
        let key: PublicKey = KEY.parse().unwrap();
        assert_eq!(key.address(), "fe80::c532:103:9adb:a14b".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_tunnel_is_text() {
        let keyed = format!("7 192.0.2.1 198.51.100.2 51820 key={KEY}");
        for text in ["42 192.0.2.1 198.51.100.2 4789", "16777215 2001:db8::1 ff05::7 8472 eth1", &keyed] {
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
            "7 192.0.2.1 198.51.100.2 51820 key=",
            "7 192.0.2.1 198.51.100.2 51820 key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "7 192.0.2.1 239.1.1.1 51820 eth1 key=xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
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
