//! What the spawner says to a disk-server: arguments.

use crate::DiskRates;
use crate::storage::DiskKind;

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
}
