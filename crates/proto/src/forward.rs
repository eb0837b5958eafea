//! Ports of the host that lead to a guest.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host's that leads to a port of a guest's. As text `[ADDRESS:]PORT:GUEST_PORT[/tcp|/udp]`; ports are 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// What it carries.
    pub transport: Transport,
    /// Of this address of the host's; none: of all of them.
    pub address: Option<Ipv4Addr>,
    /// The host's port.
    pub port: Port,
    /// The guest's.
    pub guest_port: Port,
}

/// A port: not 0.
pub type Port = std::num::NonZeroU16;

impl Forward {
    /// Whether what comes to the host could be for both.
    pub fn meets(&self, other: &Self) -> bool {
        let both = self.address.zip(other.address).is_none_or(|(a, b)| a == b);
        (self.transport, self.port) == (other.transport, other.port) && both
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}:{}/{}", self.port, self.guest_port, self.transport)
    }
}

/// Text or a list that says no forwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadForward {
    /// Not of the form.
    #[error("[ADDRESS:]PORT:GUEST_PORT[/tcp|/udp] is expected, ports from 1 to 65535, as 8080:80 or 192.0.2.1:53:53/udp")]
    Form,
    /// An address that packets never come to from elsewhere.
    #[error("{0} is no address of this host's that others reach")]
    Address(Ipv4Addr),
    /// Two of a list could be meant by one packet.
    #[error("{0} and {1} are the same port of the host's")]
    Meet(Forward, Forward),
    /// Too many.
    #[error("{0} forwards; a NIC has at most {most}", most = Forwards::MOST)]
    Many(usize),
}

impl FromStr for Forward {
    type Err = BadForward;

    fn from_str(text: &str) -> Result<Self, BadForward> {
        let (ports, transport) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some(_) => return Err(BadForward::Form),
        };
        let (host, guest_port) = ports.rsplit_once(':').ok_or(BadForward::Form)?;
        let (address, port) = host.rsplit_once(':').map_or((None, host), |(address, port)| (Some(address), port));
        let address = address.map(str::parse).transpose().map_err(|_| BadForward::Form)?;
        let number = |text: &str| match text.as_bytes() {
            [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => text.parse().map_err(|_| BadForward::Form),
            _ => Err(BadForward::Form),
        };
        Self { transport, address, port: number(port)?, guest_port: number(guest_port)? }.checked()
    }
}

impl Forward {
    fn checked(self) -> Result<Self, BadForward> {
        let never = |a: &Ipv4Addr| a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_broadcast();
        self.address.filter(never).map_or(Ok(self), |address| Err(BadForward::Address(address)))
    }
}

/// The forwards of a NIC, of which no two are the same port. As text, between blanks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Forwards(Vec<Forward>);

impl Forwards {
    /// Of a NIC, at most.
    pub const MOST: usize = 16;

    /// If it is such a list.
    pub fn new(list: Vec<Forward>) -> Result<Self, BadForward> {
        if list.len() > Self::MOST {
            return Err(BadForward::Many(list.len()));
        }
        let mut before: Vec<Forward> = Vec::new();
        for forward in &list {
            if let Some(other) = before.iter().find(|other| other.meets(forward)) {
                return Err(BadForward::Meet(*other, *forward));
            }
            before.push(forward.checked()?);
        }
        Ok(Self(list))
    }
    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Forward> {
        self.0.iter()
    }
    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Forwards {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl fmt::Display for Forwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, forward)| write!(f, "{}{forward}", if n == 0 { "" } else { " " }))
    }
}

impl FromStr for Forwards {
    type Err = BadForward;

    fn from_str(text: &str) -> Result<Self, BadForward> {
        Self::new(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_forwards_is_read_as_it_is_written() {
        for (text, whole) in
            [("8080:80", "8080:80/tcp"), ("192.0.2.1:53:53/udp", "192.0.2.1:53:53/udp"), ("1:65535/tcp", "1:65535/tcp")]
        {
            let forward: Forward = text.parse().expect(text);
            assert_eq!(forward.to_string(), whole);
            assert_eq!(whole.parse(), Ok(forward));
        }
        for text in [
            "",
            "80",
            "0:80",
            "80:0",
            "65536:80",
            "+1:80",
            "01:80",
            "80:80/",
            "80:80/sctp",
            "a:1:2",
            "1.2.3.4.5:1:2",
            "::1:80:80",
            "1:2:3",
            "80:80/tcp/tcp",
        ] {
            assert_eq!(text.parse::<Forward>(), Err(BadForward::Form), "{text}");
        }
        for text in ["127.0.0.1:80:80", "0.0.0.0:80:80", "224.0.0.1:80:80", "255.255.255.255:80:80"] {
            assert!(matches!(text.parse::<Forward>(), Err(BadForward::Address(_))), "{text}");
        }
    }

    #[test]
    fn a_list_has_no_port_twice_and_bounds() {
        let list = |text: &str| text.parse::<Forwards>();
        assert!(list("80:80 80:81/udp 192.0.2.1:81:1 192.0.2.2:81:1").is_ok());
        assert!(matches!(list("80:80 80:81"), Err(BadForward::Meet(..))));
        assert!(matches!(list("80:80 192.0.2.1:80:81"), Err(BadForward::Meet(..))));
        let many = (1..=17).map(|n| format!("{n}:1")).collect::<Vec<_>>().join(" ");
        assert_eq!(list(&many), Err(BadForward::Many(17)));
        let twice = [Forward { transport: Transport::Tcp, address: None, port: Port::MIN, guest_port: Port::MIN }; 2];
        assert!(crate::wire::decode::<Forwards>(&crate::wire::encode(&twice.to_vec()).expect("fits")).is_err());
    }
}
