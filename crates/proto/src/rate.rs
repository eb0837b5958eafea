//! How much may go through a NIC.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// Bits per second: enough for a frame now and then, and no more than there are interfaces for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// A rate that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bits per second; {least} to {most} are possible", least = Rate::LEAST, most = Rate::MOST)]
pub struct BadRate(u64);

impl Rate {
    /// The least, in bits per second.
    pub const LEAST: u64 = 64_000;
    /// The most.
    pub const MOST: u64 = 100_000_000_000;

    /// If it is one.
    pub fn new(bits: u64) -> Result<Self, BadRate> {
        if (Self::LEAST..=Self::MOST).contains(&bits) { Ok(Self(bits)) } else { Err(BadRate(bits)) }
    }
    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Bytes per second.
    pub const fn bytes(self) -> u64 {
        self.0 / 8
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bit/s", self.0)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// The rates of a NIC, each way; none: as much as goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Of what its guest receives.
    pub inward: Option<Rate>,
    /// Of what it sends.
    pub outward: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_bounds() {
        for (bits, good) in [(0, false), (63_999, false), (64_000, true), (100_000_000_000, true), (100_000_000_001, false)] {
            assert_eq!(Rate::new(bits).is_ok(), good, "{bits}");
        }
        let bytes = crate::wire::encode(&10u64).expect("fits");
        assert!(crate::wire::decode::<Rate>(&bytes).is_err());
    }
}
