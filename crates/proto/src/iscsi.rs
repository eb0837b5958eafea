//! iscsi-initiator: one for each iSCSI disk that a running machine has, or that is being looked at. It has no network of its own: each
//! connection to the disk's portal comes from the broker.

use crate::names::Text;
use crate::protocol::protocol;
use crate::{NoFds, OneFd, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The port of a portal that is not named.
pub const PORT: u16 = 3260;
/// The largest number of a logical unit.
pub const MAX_LUN: u16 = 16_383;

/// The name of a target or initiator: `iqn.YYYY-MM.DOMAIN[:WORDS]`, `eui.` with 16 hexadecimal digits, or `naa.` with 16 or 32 (RFC 7143, 4.2.7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IscsiName(String);

/// Text that is no [`IscsiName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an iSCSI name is iqn.YYYY-MM.DOMAIN[:WORDS] of at most 223 bytes a-z, 0-9, '.', '-' and ':', or eui. or naa. with 16 (naa.: or 32) hexadecimal digits"
)]
pub struct BadIscsiName;

impl IscsiName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_iqn(rest: &str) -> bool {
    let (authority, words) = rest.split_once(':').map_or((rest, "x"), |(authority, words)| (authority, words));
    let (Some(year), Some(month), Some(domain)) = (authority.get(..4), authority.get(5..7), authority.get(8..)) else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let dashes = authority.as_bytes().get(4) == Some(&b'-') && authority.as_bytes().get(7) == Some(&b'.');
    let month = digits(month) && month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month));
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
    let label = |label: &str| !label.is_empty() && label.bytes().all(word);
    dashes
        && digits(year)
        && month
        && domain.split('.').all(label)
        && !words.is_empty()
        && words.bytes().all(|c| word(c) || c == b':')
}

impl FromStr for IscsiName {
    type Err = BadIscsiName;
    /// Capitals are taken, and made small: names differ in nothing else (RFC 3722).
    fn from_str(text: &str) -> Result<Self, BadIscsiName> {
        let text = text.to_ascii_lowercase();
        let hex =
            |digits: &str, lengths: &[usize]| lengths.contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
        let good = match text.split_once('.') {
            Some(("iqn", rest)) => text.len() <= 223 && is_iqn(rest),
            Some(("eui", digits)) => hex(digits, &[16]),
            Some(("naa", digits)) => hex(digits, &[16, 32]),
            _ => false,
        };
        if good { Ok(Self(text)) } else { Err(BadIscsiName) }
    }
}

/// Where a target is reached: `ADDRESS[:PORT]`, an IPv6 address in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Portal {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Text that is no [`Portal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a portal is ADDRESS[:PORT], an IPv6 address in brackets; names are not looked up")]
pub struct BadPortal;

impl FromStr for Portal {
    type Err = BadPortal;
    fn from_str(text: &str) -> Result<Self, BadPortal> {
        let (address, port): (IpAddr, _) = match text.strip_prefix('[') {
            Some(six) => {
                let (address, rest) = six.split_once(']').ok_or(BadPortal)?;
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| BadPortal)?;
                (address.into(), if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(BadPortal)?) })
            }
            None => {
                let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
                let address: std::net::Ipv4Addr = address.parse().map_err(|_| BadPortal)?;
                (address.into(), port)
            }
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| BadPortal))?;
        if port == 0 || address.is_unspecified() || address.is_multicast() { Err(BadPortal) } else { Ok(Self { address, port }) }
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
as_text!(IscsiName, Portal);

/// Who we are to a target, where it asks (CHAP, one way, MD5: RFC 7143, 12.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// The user.
    pub user: Text<223>,
    /// The secret.
    pub secret: Secret,
}

/// What is logged in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginOrder {
    /// Our own name.
    pub initiator: IscsiName,
    /// Our part of the session's id. The same for each login of one disk: a target then ends what is left of the former session first.
    pub isid: [u8; 6],
    /// Where; for what is said of it.
    pub portal: Portal,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: u16,
    /// If it is asked.
    pub chap: Option<Chap>,
}

/// Logs in over a connection that may still be being made, and looks at the unit. What the hypervisor asks is answered from then on. A former
/// session ends. Descriptor: a TCP socket to the portal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// To what.
    pub order: LoginOrder,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// See [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Bytes.
    pub size: u64,
    /// Bytes of a block.
    pub block: u32,
}

/// Has each change be told as a [`LinkEvent`]; a session that is not there, at once. Descriptor: one end of a seqpacket pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {}

/// One record of [`Watch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEvent {
    /// The session is gone, and why. What the hypervisor asks waits for another [`Attach`].
    Lost(Text<200>),
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of iscsi-initiator; its only client is the broker, over `RUN/console/UUID.sock` with the disk's id.
    Initiator = "iscsi-initiator", version 1, oldest 1, InitiatorRequest {
        0 Attach [OneFd] => Attached [NoFds];
        1 Watch [OneFd] => Done [NoFds];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_standard() {
        for good in [
            "iqn.2001-04.com.example",
            "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
            "IQN.2001-04.com.Example:X",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ] {
            assert_eq!(good.parse::<IscsiName>().unwrap().as_str(), good.to_ascii_lowercase(), "{good}");
        }
        let long = format!("iqn.2001-04.com.example:{}", "a".repeat(200));
        for wrong in [
            "",
            "iqn",
            "iqn.",
            "iqn.2001-13.com",
            "iqn.2001-4.com",
            "iqn.20x1-04.com",
            "iqn.2001-04.",
            "iqn.2001-04.com:",
            "iqn.2001-04.a..b",
            "iqn.2001-04.com:a b",
            "iqn.2001-04.com:ä",
            "eui.02",
            "eui.zz004567a425678d",
            "naa.1",
            "x.y",
            long.as_str(),
        ] {
            assert!(wrong.parse::<IscsiName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn portals_are_addresses() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1:3260"),
            ("192.0.2.1:860", "192.0.2.1:860"),
            ("[2001:db8::1]", "[2001:db8::1]:3260"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(text.parse::<Portal>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<Portal>(), text.parse());
        }
        for wrong in [
            "",
            "host",
            "host:3260",
            "192.0.2.1:0",
            "192.0.2.1:",
            "0.0.0.0",
            "[::1",
            "[::1]x",
            "::1",
            "224.0.0.1",
            "192.0.2.1:65536",
        ] {
            assert!(wrong.parse::<Portal>().is_err(), "{wrong}");
        }
    }
}
