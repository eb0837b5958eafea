//! The QCOW2 header as bytes (docs/interop/qcow2.rst of QEMU): what it says, and whether we accept it. Pure.

use super::MAX_SIZE;
use skep_proto::Reason;

/// The first bytes of every QCOW2 file.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// As many bytes of a file as [`Header::parse`] wants to see: all header extensions lie within.
pub const PREFIX: usize = 64 * 1024;
/// Longest L1 table, in bytes; QEMU's own limit.
const MAX_L1: u64 = 32 << 20;
/// Longest refcount table, in bytes; QEMU's own limit.
const MAX_REFTABLE: u64 = 8 << 20;

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Another format.
    #[error("it is not a QCOW2 image")]
    NotQcow2,
    /// The file is cut off.
    #[error("the file ends before its {0}: it is truncated")]
    Truncated(&'static str),
    /// Neither version 2 nor 3.
    #[error("QCOW2 version {0} is not known (2 and 3 are)")]
    Version(u32),
    /// It refers to a file beside it.
    #[error("it names {0}")]
    NamesFile(&'static str),
    /// Encrypted by LUKS or AES.
    #[error("it is encrypted")]
    Encrypted,
    /// It was not closed properly.
    #[error("it is marked {0}; mend it first: `qemu-img check -r all FILE`")]
    Marked(&'static str),
    /// Incompatible features that we do not know or accept.
    #[error("it needs the QCOW2 features {0:#x}, which are not supported; `qemu-img convert` makes an image without them")]
    Features(u64),
    /// Cluster size.
    #[error("its clusters have 2^{0} bytes; 2^9 to 2^21 are permitted")]
    ClusterBits(u32),
    /// Size of the disk.
    #[error("its disk has {0} bytes; 1 to {MAX_SIZE} are permitted")]
    Size(u64),
    /// A table or field that contradicts the rest.
    #[error("its {0} {1}")]
    Wrong(&'static str, &'static str),
    /// Snapshots inside of the image.
    #[error("it has {0} internal snapshots; import it as raw, or convert it first: `qemu-img convert -O qcow2 IN OUT`")]
    Snapshots(u32),
}

impl Flaw {
    /// The stable reason for it.
    pub fn reason(&self) -> Reason {
        match self {
            Flaw::NamesFile(_) => Reason::NamesOtherFile,
            Flaw::Size(size) if *size > MAX_SIZE => Reason::TooLarge,
            _ => Reason::BadImage,
        }
    }
}

/// What a header says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Clusters have 2 to the power of this many bytes; 9 to 21.
    pub cluster_bits: u32,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Where the L1 table begins; a multiple of the cluster size, within the file.
    pub l1_offset: u64,
    /// Entries of the L1 table, 8 bytes each, all within the file.
    pub l1_entries: u32,
    /// Internal snapshots.
    pub snapshots: u32,
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, Flaw> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map(|b| u32::from_be_bytes(*b)).ok_or(Flaw::Truncated("header"))
}

fn be64(bytes: &[u8], at: usize) -> Result<u64, Flaw> {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map(|b| u64::from_be_bytes(*b)).ok_or(Flaw::Truncated("header"))
}

impl Header {
    /// Reads and checks a header. `prefix` is how the file begins ([`PREFIX`] bytes, or all if there are fewer), `file_len` how
    /// long it is.
    pub fn parse(prefix: &[u8], file_len: u64) -> Result<Header, Flaw> {
        if !prefix.starts_with(&MAGIC) {
            return Err(Flaw::NotQcow2);
        }
        let version = be32(prefix, 4)?;
        if !(2..=3).contains(&version) {
            return Err(Flaw::Version(version));
        }
        if be64(prefix, 8)? != 0 || be32(prefix, 16)? != 0 {
            return Err(Flaw::NamesFile("a backing file"));
        }
        let cluster_bits = be32(prefix, 20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Flaw::ClusterBits(cluster_bits));
        }
        let cluster = 1u64 << cluster_bits;
        let size = be64(prefix, 24)?;
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(Flaw::Size(size));
        }
        if be32(prefix, 32)? != 0 {
            return Err(Flaw::Encrypted);
        }
        let header_length = if version == 2 { 72 } else { Self::check_v3(prefix, cluster)? };
        check_extensions(prefix, header_length, cluster)?;

        let (l1_entries, l1_offset) = (be32(prefix, 36)?, be64(prefix, 40)?);
        let l1_bytes = u64::from(l1_entries) * 8;
        check_table("L1 table", l1_offset, l1_bytes, MAX_L1, cluster, file_len)?;
        // One L2 table fills a cluster with entries of 8 bytes, each for one cluster.
        if u64::from(l1_entries) < size.div_ceil(cluster * (cluster / 8)) {
            return Err(Flaw::Wrong("L1 table", "is too short for the size of its disk"));
        }
        let (reftable, reftable_clusters) = (be64(prefix, 48)?, be32(prefix, 56)?);
        if reftable_clusters == 0 {
            return Err(Flaw::Wrong("refcount table", "is empty"));
        }
        check_table("refcount table", reftable, u64::from(reftable_clusters) * cluster, MAX_REFTABLE, cluster, file_len)?;
        Ok(Header { version, cluster_bits, size, l1_offset, l1_entries, snapshots: be32(prefix, 60)? })
    }

    /// The fields that version 3 added. Gives the length of the header.
    fn check_v3(prefix: &[u8], cluster: u64) -> Result<usize, Flaw> {
        const DIRTY: u64 = 1;
        const CORRUPT: u64 = 2;
        const DATA_FILE: u64 = 4;
        let features = be64(prefix, 72)?;
        if features & DATA_FILE != 0 {
            return Err(Flaw::NamesFile("an external data file"));
        }
        if features & CORRUPT != 0 {
            return Err(Flaw::Marked("corrupt"));
        }
        if features & DIRTY != 0 {
            return Err(Flaw::Marked("dirty"));
        }
        if features != 0 {
            return Err(Flaw::Features(features));
        }
        if be32(prefix, 96)? > 6 {
            return Err(Flaw::Wrong("refcount width", "is more than 64 bits"));
        }
        let length = be32(prefix, 100)?;
        if length < 104 || length % 8 != 0 || u64::from(length) > cluster {
            return Err(Flaw::Wrong("header", "states an impossible length"));
        }
        if length > 104 && prefix.get(104).copied().ok_or(Flaw::Truncated("header"))? != 0 {
            return Err(Flaw::Features(8));
        }
        usize::try_from(length).map_err(|_| Flaw::Wrong("header", "states an impossible length"))
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Checks entries of the L1 table (big-endian, as they lie in the file): each L2 table is aligned and within the file.
    pub fn check_l1(&self, entries: &[u8], file_len: u64) -> Result<(), Flaw> {
        const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
        const COPIED: u64 = 1 << 63;
        for entry in entries.as_chunks().0 {
            let entry = u64::from_be_bytes(*entry);
            let offset = entry & OFFSET;
            if entry & !(OFFSET | COPIED) != 0 {
                return Err(Flaw::Wrong("L1 table", "has entries with reserved bits"));
            }
            if !offset.is_multiple_of(self.cluster()) {
                return Err(Flaw::Wrong("L2 table", "does not begin at a cluster"));
            }
            if offset != 0 && offset.checked_add(self.cluster()).is_none_or(|end| end > file_len) {
                return Err(Flaw::Truncated("L2 tables"));
            }
        }
        Ok(())
    }
}

/// Whether a table of `bytes` at `offset` is aligned, not absurd, and within the file.
fn check_table(what: &'static str, offset: u64, bytes: u64, most: u64, cluster: u64, file_len: u64) -> Result<(), Flaw> {
    if bytes > most {
        return Err(Flaw::Wrong(what, "is absurdly long"));
    }
    if !offset.is_multiple_of(cluster) || offset == 0 {
        return Err(Flaw::Wrong(what, "does not begin at a cluster of its own"));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > file_len) {
        return Err(Flaw::Truncated(what));
    }
    Ok(())
}

/// Walks the header extensions, which end with type 0 or with the first cluster.
fn check_extensions(prefix: &[u8], header_length: usize, cluster: u64) -> Result<(), Flaw> {
    const DATA_FILE: u32 = 0x4441_5441;
    const ENCRYPTION: u32 = 0x0537_be77;
    let area = usize::try_from(cluster).unwrap_or(usize::MAX).min(prefix.len());
    let mut at = header_length;
    while at.saturating_add(8) <= area {
        let (kind, length) = (be32(prefix, at)?, be32(prefix, at + 4)?);
        match kind {
            0 => return Ok(()),
            DATA_FILE => return Err(Flaw::NamesFile("an external data file")),
            ENCRYPTION => return Err(Flaw::Encrypted),
            _ => {}
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = (at + 8).checked_add(length).filter(|end| *end <= area);
        at = end.ok_or(Flaw::Wrong("header", "has an extension that leaves the first cluster"))?.next_multiple_of(8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// A good version 3 header of a 1 GiB disk in a file of 4 clusters: header, refcount table, refcount block, L1 table.
    fn good() -> Vec<u8> {
        let mut b = vec![0u8; 4 * 65536];
        b[..4].copy_from_slice(&MAGIC);
        b[7] = 3;
        b[23] = 16;
        b[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        b[36..40].copy_from_slice(&2u32.to_be_bytes());
        b[40..48].copy_from_slice(&(3u64 * 65536).to_be_bytes());
        b[48..56].copy_from_slice(&65536u64.to_be_bytes());
        b[56..60].copy_from_slice(&1u32.to_be_bytes());
        b[99] = 4;
        b[103] = 104;
        b
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Header, Flaw> {
        let mut b = good();
        b[at..at + bytes.len()].copy_from_slice(bytes);
        Header::parse(&b[..PREFIX], b.len() as u64)
    }

    #[test]
    fn good_header_is_read() {
        let header = with(0, &[]).unwrap();
        assert_eq!((header.size, header.cluster(), header.l1_entries), (1 << 30, 65536, 2));
    }

    #[test]
    fn each_flaw_is_named() {
        assert_eq!(with(0, b"KDMV"), Err(Flaw::NotQcow2));
        assert_eq!(with(7, &[4]), Err(Flaw::Version(4)));
        assert_eq!(with(15, &[1]), Err(Flaw::NamesFile("a backing file")));
        assert_eq!(with(19, &[1]), Err(Flaw::NamesFile("a backing file")));
        assert_eq!(with(23, &[8]), Err(Flaw::ClusterBits(8)));
        assert_eq!(with(23, &[22]), Err(Flaw::ClusterBits(22)));
        assert_eq!(with(24, &[0xff; 8]), Err(Flaw::Size(u64::MAX)));
        assert_eq!(with(24, &[0; 8]), Err(Flaw::Size(0)));
        assert_eq!(with(35, &[2]), Err(Flaw::Encrypted));
        assert_eq!(with(79, &[1]), Err(Flaw::Marked("dirty")));
        assert_eq!(with(79, &[2]), Err(Flaw::Marked("corrupt")));
        assert_eq!(with(79, &[4]), Err(Flaw::NamesFile("an external data file")));
        assert_eq!(with(79, &[16]), Err(Flaw::Features(16)));
        assert_eq!(with(103, &[112, 1]), Err(Flaw::Features(8)));
        assert_eq!(with(104, &0x4441_5441u32.to_be_bytes()), Err(Flaw::NamesFile("an external data file")));
        assert_eq!(with(104, &0x0537_be77u32.to_be_bytes()), Err(Flaw::Encrypted));
        assert!(matches!(with(104, &[1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff]), Err(Flaw::Wrong("header", _))));
        assert!(matches!(with(36, &[0xff; 4]), Err(Flaw::Wrong("L1 table", _))));
        assert!(matches!(with(36, &[0, 0, 0, 1]), Err(Flaw::Wrong("L1 table", _))));
        assert!(matches!(with(47, &[1]), Err(Flaw::Wrong("L1 table", _))));
        assert_eq!(with(40, &(4u64 << 16).to_be_bytes()), Err(Flaw::Truncated("L1 table")));
        assert_eq!(with(40, &0xffff_ffff_ffff_0000u64.to_be_bytes()), Err(Flaw::Truncated("L1 table")));
        assert_eq!(with(56, &[0; 4]), Err(Flaw::Wrong("refcount table", "is empty")));
        assert!(matches!(with(56, &[0xff; 4]), Err(Flaw::Wrong("refcount table", _))));
        assert_eq!(with(0, &[]).unwrap().check_l1(&(9u64 << 16).to_be_bytes(), 4 << 16), Err(Flaw::Truncated("L2 tables")));
        assert!(matches!(with(0, &[]).unwrap().check_l1(&[0, 0, 0, 0, 0, 0, 0, 1], 4 << 16), Err(Flaw::Wrong("L1 table", _))));
        assert!(matches!(with(0, &[]).unwrap().check_l1(&512u64.to_be_bytes(), 4 << 16), Err(Flaw::Wrong("L2 table", _))));
    }

    #[test]
    fn every_shorter_file_is_refused() {
        let b = good();
        for len in (0..200).chain([1000, 65535, 65536, 131_072, 196_608, 196_623]) {
            assert!(Header::parse(&b[..len.min(PREFIX)], len as u64).is_err(), "{len}");
        }
        assert!(Header::parse(&b[..PREFIX], 196_624).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in any::<bool>(), len in any::<u64>()) {
            if magic && bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            }
            if let Ok(header) = Header::parse(&bytes, len) {
                prop_assert!(header.size <= MAX_SIZE);
                let _ = header.check_l1(&bytes, len);
            }
        }
        #[test]
        fn a_good_header_with_any_change_is_judged(at in 0usize..160, new in any::<[u8; 8]>()) {
            if let Ok(header) = with(at, &new) {
                prop_assert!(header.l1_offset + u64::from(header.l1_entries) * 8 <= 4 * 65536);
            }
        }
    }
}
