//! What the spawner says to a disk-server: arguments; and what this tells it: counters.

use crate::DiskRates;
use crate::storage::DiskKind;
use serde::{Deserialize, Serialize};

/// What is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOrder {
    /// Number of the device.
    pub unit: u32,
    /// Bytes that the device has, and the disk has to have.
    pub size: u64,
    /// Nobody writes to it.
    pub read_only: bool,
    /// Bytes that a QCOW2 disk's file may come to have.
    pub file_limit: u64,
    /// What it is held to.
    pub rates: DiskRates,
    /// Its files, in the order of their descriptors: the one that is written, then what each stands on. An iSCSI disk has none, and is one of that kind.
    pub kinds: Vec<DiskKind>,
}

impl DiskOrder {
    /// As a command line, the program's name left out.
    pub fn to_args(&self) -> Vec<String> {
        let DiskRates { read_bps, write_bps, read_iops, write_iops } = self.rates;
        let numbers = [self.unit.into(), self.size, self.file_limit, read_bps, write_bps, read_iops, write_iops];
        let kinds = self.kinds.iter().map(|kind| match kind {
            DiskKind::Qcow2 => "qcow2",
            DiskKind::Iscsi => "iscsi",
            DiskKind::Raw | DiskKind::Zvol => "raw",
        });
        let mode = if self.read_only { "ro" } else { "rw" };
        numbers.iter().map(u64::to_string).chain([mode.to_owned()]).chain(kinds.map(str::to_owned)).collect()
    }

    /// From a command line, the program's name left out.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut number = || args.next()?.parse::<u64>().ok();
        let (unit, size, file_limit) = (u32::try_from(number()?).ok()?, number()?, number()?);
        let rates = DiskRates { read_bps: number()?, write_bps: number()?, read_iops: number()?, write_iops: number()? };
        let read_only = match args.next()?.as_str() {
            "ro" => true,
            "rw" => false,
            _ => return None,
        };
        let kind = |word: String| match word.as_str() {
            "qcow2" => Some(DiskKind::Qcow2),
            "raw" => Some(DiskKind::Raw),
            "iscsi" => Some(DiskKind::Iscsi),
            _ => None,
        };
        let kinds = args.map(kind).collect::<Option<Vec<_>>>().filter(|kinds| !kinds.is_empty())?;
        Some(Self { unit, size, read_only, file_limit, rates, kinds })
    }
}

/// What has been read from a served disk and written to it, in requests that were answered without an error. Its disk-server keeps it in a file
/// of the spawner's, which survives both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounts {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub read_ops: u64,
    /// Writes.
    pub write_ops: u64,
}

impl DiskCounts {
    /// Bytes of such a file.
    pub const BYTES: usize = 32;

    /// From a file's bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [read_bytes, write_bytes, read_ops, write_ops] =
            std::array::from_fn(|n| bytes.as_chunks().0.get(n).map_or(0, |number| u64::from_le_bytes(*number)));
        Self { read_bytes, write_bytes, read_ops, write_ops }
    }

    /// As a file's bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { read_bytes, write_bytes, read_ops, write_ops } = self;
        let mut bytes = [0; Self::BYTES];
        for (place, number) in bytes.as_chunks_mut().0.iter_mut().zip([read_bytes, write_bytes, read_ops, write_ops]) {
            *place = number.to_le_bytes();
        }
        bytes
    }

    /// Counts a request of so many bytes.
    pub fn count(&mut self, writes: bool, bytes: u64) {
        let (all, ops) = match writes {
            true => (&mut self.write_bytes, &mut self.write_ops),
            false => (&mut self.read_bytes, &mut self.read_ops),
        };
        *all = all.saturating_add(bytes);
        *ops = ops.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_went() {
        let rates = DiskRates { read_bps: 1, write_bps: 2, read_iops: 3, write_iops: 4 };
        for kinds in [vec![DiskKind::Iscsi], vec![DiskKind::Qcow2], vec![DiskKind::Qcow2, DiskKind::Qcow2, DiskKind::Raw]] {
            for read_only in [true, false] {
                let order = DiskOrder { unit: 7, size: 1 << 30, read_only, file_limit: 1 << 31, rates, kinds: kinds.clone() };
                assert_eq!(DiskOrder::parse(order.to_args().into_iter()), Some(order));
            }
        }
        let wrong: [&[&str]; 4] = [&[], &["0"; 8], &["0", "1", "1", "0", "0", "0", "0", "rw"], &["x"; 9]];
        for args in wrong {
            assert_eq!(DiskOrder::parse(args.iter().map(|arg| (*arg).to_owned())), None);
        }
    }

    #[test]
    fn counters_go_on_where_they_were() {
        let mut counts = DiskCounts::from_bytes(&[0; DiskCounts::BYTES]);
        assert_eq!(counts, DiskCounts::default());
        counts.count(false, 512);
        counts.count(true, 4096);
        counts = DiskCounts::from_bytes(&counts.to_bytes());
        counts.count(true, u64::MAX);
        let want = DiskCounts { read_bytes: 512, write_bytes: u64::MAX, read_ops: 1, write_ops: 2 };
        assert_eq!(DiskCounts::from_bytes(&want.to_bytes()), counts);
        assert_eq!(counts, want);
    }
}
