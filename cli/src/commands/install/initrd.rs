//! Files for an initial RAM disk. Linux unpacks one archive after the other, whatever each is packed with: the vendor's, then ours.
//! Source: Linux's Documentation/driver-api/early-userspace/buffer-format.rst.

/// Between archives there may be zeros, up to a multiple of 4 bytes; of 512, so that a disk holds it whole.
const UNIT: usize = 512;

/// The vendor's initial RAM disk with one more file in its root.
pub fn with_file(mut initrd: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    initrd.resize(initrd.len().next_multiple_of(UNIT), 0);
    // A regular file of root's that he alone reads: there may be passwords in it.
    entry(&mut initrd, name, 0o100_600, data);
    entry(&mut initrd, "TRAILER!!!", 0, &[]);
    initrd.resize(initrd.len().next_multiple_of(UNIT), 0);
    initrd
}

/// One entry in the format `newc` of cpio(5).
fn entry(to: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let named = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    // inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), bytes of the name, checksum.
    let fields = [u32::from(mode > 0), mode, 0, 0, 1, 0, size, 0, 0, 0, 0, named, 0];
    to.extend_from_slice(b"070701");
    fields.iter().for_each(|field| to.extend_from_slice(format!("{field:08x}").as_bytes()));
    to.extend_from_slice(name.as_bytes());
    to.push(0);
    to.resize(to.len().next_multiple_of(4), 0);
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_answers_come_after_what_the_vendor_has() {
        let made = with_file(b"vendor's".to_vec(), "preseed.cfg", b"d-i x\n");
        assert!(made.starts_with(b"vendor's\0") && made.len() == 1024);
        let ours = std::str::from_utf8(&made[512..]).unwrap();
        let head = "0707010000000100008180000000000000000000000001000000000000000600000000000000000000000000000000\
                    0000000c00000000preseed.cfg\0";
        assert!(ours.starts_with(&format!("{}\0\0\0d-i x\n\0\0070701", head.trim_end_matches('\0'))), "{ours:?}");
        assert!(ours.contains("TRAILER!!!\0"));
    }
}
