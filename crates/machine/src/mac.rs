//! Ethernet addresses of virtual NICs.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A unicast, locally administered Ethernet address (IEEE 802: bit 0 of the first byte clear, bit 1 set), so that no
/// virtual NIC can carry the address of a piece of hardware. Checked when decoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 6]", into = "[u8; 6]")]
pub struct Mac([u8; 6]);

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    /// Not six pairs of hexadecimal digits.
    #[error("Ethernet address is not written as six pairs of hexadecimal digits; write it like 02:00:5e:10:00:01")]
    Form,
    /// A multicast address.
    #[error("Ethernet address {0} is a multicast address; the first byte must be even")]
    Multicast(String),
    /// The address of somebody's hardware.
    #[error("Ethernet address {0} is not locally administered; begin it with 02, 06, 0a or 0e, or a first byte of that kind")]
    Universal(String),
}

impl Mac {
    /// Checks the two bits.
    pub fn new(bytes: [u8; 6]) -> Result<Self, BadMac> {
        let [first, ..] = bytes;
        match first & 3 {
            2 => Ok(Self(bytes)),
            0 => Err(BadMac::Universal(Self(bytes).to_string())),
            _ => Err(BadMac::Multicast(Self(bytes).to_string())),
        }
    }
    /// `02:` and the low 40 bits of a NIC's id: stable, and random where the id is.
    pub const fn from_id(id: u128) -> Self {
        let [.., a, b, c, d, e] = id.to_be_bytes();
        Self([2, a, b, c, d, e])
    }
    /// Its bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl Default for Mac {
    /// `02:00:00:00:00:00`.
    fn default() -> Self {
        Self::from_id(0)
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = BadMac;
    fn try_from(bytes: [u8; 6]) -> Result<Self, BadMac> {
        Self::new(bytes)
    }
}

impl From<Mac> for [u8; 6] {
    fn from(mac: Mac) -> Self {
        mac.0
    }
}

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = pair.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or(BadMac::Form)?;
        }
        if pairs.next().is_some() { Err(BadMac::Form) } else { Self::new(bytes) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
