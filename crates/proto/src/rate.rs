//! How much may go through a NIC, and to and from a disk.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::ops::RangeInclusive;

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

/// How much goes to and from a disk in a second, for each machine that has it; 0: as much as goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskRates {
    /// Bytes read.
    pub read_bps: u64,
    /// Bytes written.
    pub write_bps: u64,
    /// Reads.
    pub read_iops: u64,
    /// Writes.
    pub write_iops: u64,
}

/// A rate of a disk that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{value} in a second; {least} to {most} are possible, or 0: no limit")]
pub struct BadDiskRate {
    /// Which: `read_bps`, say.
    pub field: &'static str,
    value: u64,
    least: u64,
    most: u64,
}

impl DiskRates {
    /// Bytes in a second: a guest that asks for a MiB at once gets it before it gives the disk up for dead (30 s).
    pub const BPS: RangeInclusive<u64> = 65_536..=1_000_000_000_000;
    /// Reads or writes in a second: a full queue of virtio-blk (256) is worked off in that time.
    pub const IOPS: RangeInclusive<u64> = 10..=100_000_000;

    /// Refuses what is out of bounds.
    pub fn check(self) -> Result<(), BadDiskRate> {
        let Self { read_bps, write_bps, read_iops, write_iops } = self;
        let all = [
            ("read_bps", read_bps, Self::BPS),
            ("write_bps", write_bps, Self::BPS),
            ("read_iops", read_iops, Self::IOPS),
            ("write_iops", write_iops, Self::IOPS),
        ];
        match all.into_iter().find(|(_, value, range)| *value > 0 && !range.contains(value)) {
            Some((field, value, range)) => Err(BadDiskRate { field, value, least: *range.start(), most: *range.end() }),
            None => Ok(()),
        }
    }
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

    #[test]
    fn rates_of_a_disk_have_bounds() {
        assert_eq!(DiskRates::default().check(), Ok(()));
        for (value, bps, iops) in [
            (1, false, false),
            (9, false, false),
            (10, false, true),
            (65_535, false, true),
            (65_536, true, true),
            (1 << 40, false, false),
        ] {
            let field = |rates: DiskRates| rates.check().err().map(|bad| bad.field);
            let of = |field, good: bool| (!good).then_some(field);
            assert_eq!(field(DiskRates { read_bps: value, ..DiskRates::default() }), of("read_bps", bps), "{value}");
            assert_eq!(field(DiskRates { write_bps: value, ..DiskRates::default() }), of("write_bps", bps), "{value}");
            assert_eq!(field(DiskRates { read_iops: value, ..DiskRates::default() }), of("read_iops", iops), "{value}");
            assert_eq!(field(DiskRates { write_iops: value, ..DiskRates::default() }), of("write_iops", iops), "{value}");
        }
    }
}
