//! Files in an ISO image (ISO 9660, ECMA-119): where they are. Pure; what is read is hostile.

/// Bytes of a sector.
pub const SECTOR: u64 = 2048;
/// Where the volume's descriptors begin.
pub const DESCRIPTORS: u64 = 16 * SECTOR;
/// Bytes of a directory, at most.
pub const MOST: u64 = 4 << 20;

/// Where something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte in the image.
    pub at: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is a directory.
    pub directory: bool,
}

fn le32(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?).into())
}

/// A directory record without its name.
fn record(record: &[u8]) -> Option<Extent> {
    let flags = *record.get(25)?;
    // One that goes on in another record (0x80) is a file of 4 GiB, which no kernel is.
    (flags & 0x80 == 0).then_some(())?;
    Some(Extent { at: le32(record, 2)?.checked_mul(SECTOR)?, bytes: le32(record, 10)?, directory: flags & 2 != 0 })
}

/// The root directory, of the sector at [`DESCRIPTORS`].
pub fn root(descriptor: &[u8]) -> Option<Extent> {
    descriptor.starts_with(b"\x01CD001\x01").then_some(())?;
    record(descriptor.get(156..190)?).filter(|root| root.directory && root.bytes <= MOST)
}

/// The entry of a directory with this name. ISO 9660 has capital letters and versions (`VMLINUZ.;1`); neither is looked at.
pub fn find(directory: &[u8], name: &str) -> Option<Extent> {
    for sector in directory.chunks(SECTOR as usize) {
        let mut rest = sector;
        // A record does not go over a sector's end; zeros fill what is left of one.
        while let Some(length) = rest.first().map(|length| usize::from(*length)).filter(|length| *length >= 34) {
            let Some((this, after)) = rest.split_at_checked(length) else { break };
            rest = after;
            let named = this.get(32).map_or(0, |length| usize::from(*length));
            let Some(found) = this.get(33..33 + named) else { continue };
            let found = found.split(|byte| *byte == b';').next().unwrap_or_default();
            let found = found.strip_suffix(b".").unwrap_or(found);
            if found.eq_ignore_ascii_case(name.as_bytes()) {
                return record(this);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &[u8], sector: u32, bytes: u32, flags: u8) -> Vec<u8> {
        let mut record = vec![0; (33 + name.len()).next_multiple_of(2)];
        record[0] = u8::try_from(record.len()).unwrap();
        record[2..6].copy_from_slice(&sector.to_le_bytes());
        record[10..14].copy_from_slice(&bytes.to_le_bytes());
        (record[25], record[32]) = (flags, u8::try_from(name.len()).unwrap());
        record[33..33 + name.len()].copy_from_slice(name);
        record
    }

    #[test]
    fn files_are_found_by_their_names() {
        let mut descriptor = vec![0; 2048];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[156..190].copy_from_slice(&entry(&[0], 20, 4096, 2));
        assert_eq!(root(&descriptor), Some(Extent { at: 40_960, bytes: 4096, directory: true }));
        let mut directory = [entry(&[0], 20, 4096, 2), entry(&[1], 20, 4096, 2), entry(b"INSTALL.AMD", 22, 2048, 2)].concat();
        directory.resize(2048, 0);
        directory.extend(entry(b"VMLINUZ.;1", 30, 100, 0));
        directory.extend(entry(b"HUGE.;1", 30, 100, 0x80));
        assert_eq!(find(&directory, "install.amd").map(|e| (e.at, e.directory)), Some((45_056, true)));
        assert_eq!(find(&directory, "vmlinuz"), Some(Extent { at: 61_440, bytes: 100, directory: false }));
        assert_eq!((find(&directory, "vmlinu"), find(&directory, "huge"), root(&descriptor[1..])), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..4500), name in "[a-z.]{0,5}") {
            let _ = (root(&bytes), find(&bytes, &name));
        }
    }
}
