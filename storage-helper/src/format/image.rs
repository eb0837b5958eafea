//! Reading QCOW2 images that may be hostile. To be called in a child that holds only its descriptors.

use super::header::{Flaw, Header, PREFIX};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use skep_proto::Refusal;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why an image could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its bytes are wrong.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Who takes the data has refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ImageError {
    /// As a refusal about `object`.
    pub fn into_refusal(self, object: &str) -> Refusal {
        match self {
            ImageError::Flaw(flaw) => Refusal::new(flaw.reason(), object).note(flaw),
            ImageError::Io(e) => Refusal::io(object, "image", &e),
            ImageError::Refused(refusal) => refusal,
        }
    }
}

/// Reads and checks the header of a file.
pub fn header(file: &File) -> Result<Header, ImageError> {
    let len = file.metadata()?.len();
    let mut prefix = vec![0; PREFIX.min(usize::try_from(len).unwrap_or(PREFIX))];
    file.read_exact_at(&mut prefix, 0)?;
    Ok(Header::parse(&prefix, len)?)
}

/// Where a cluster's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: what is under the image, or zeros.
    Absent,
    /// Nowhere: zeros, whatever is under the image.
    Zero,
    /// In the file at this offset.
    Plain(u64),
    /// Deflated in the file: offset and length.
    Packed(u64, u64),
}

/// Reads one entry of an L2 table.
pub(super) fn place(header: &Header, entry: u64) -> Result<Place, Flaw> {
    const COPIED: u64 = 1 << 63;
    const PACKED: u64 = 1 << 62;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    const ZERO: u64 = 1;
    if entry & PACKED != 0 {
        let bits = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << bits) - 1);
        let sectors = ((entry & (PACKED - 1)) >> bits) + 1;
        return Ok(Place::Packed(offset, sectors * 512 - offset % 512));
    }
    let offset = entry & OFFSET;
    if entry & !(COPIED | OFFSET | ZERO) != 0 || (entry & ZERO != 0 && header.version < 3) {
        return Err(Flaw::Wrong("L2 table", "has entries with reserved bits"));
    }
    if !offset.is_multiple_of(header.cluster()) {
        return Err(Flaw::Wrong("data", "does not begin at a cluster"));
    }
    Ok(match (entry & ZERO != 0, offset) {
        (true, _) => Place::Zero,
        (false, 0) => Place::Absent,
        (false, offset) => Place::Plain(offset),
    })
}

/// Deflate packs no better than this.
pub(super) const MAX_RATIO: u64 = 1032;

/// Gives `visit` each cluster that holds data: its offset in the disk, how many of its bytes belong to the disk, where it is in the
/// file. Data beyond the end of the file is a flaw (QEMU would read zeros). So is more data than the file can hold: entries that
/// all name the same cluster would fill the host's disk.
fn walk(
    file: &File, header: &Header, mut visit: impl FnMut(u64, u64, Place) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let (len, cluster) = (file.metadata()?.len(), header.cluster());
    let mut l1 = vec![0; usize::try_from(u64::from(header.l1_entries) * 8).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut l1, header.l1_offset)?;
    header.check_l1(&l1, len)?;
    let mut l2 = vec![0; usize::try_from(cluster).unwrap_or(usize::MAX)];
    let covered = cluster * (cluster / 8);
    let (mut plain, mut packed) = (0u64, 0u64);
    for (entry, base) in l1.as_chunks().0.iter().zip((0..header.size).step_by(usize::try_from(covered).unwrap_or(usize::MAX))) {
        let offset = u64::from_be_bytes(*entry) & !(1 << 63);
        if offset == 0 {
            continue;
        }
        file.read_exact_at(&mut l2, offset)?;
        for (entry, at) in l2.as_chunks().0.iter().zip((base..header.size).step_by(l2.len())) {
            let place = place(header, u64::from_be_bytes(*entry))?;
            let length = cluster.min(header.size - at);
            let end = match place {
                Place::Absent | Place::Zero => continue,
                Place::Plain(offset) => {
                    plain = plain.saturating_add(length);
                    offset.checked_add(length)
                }
                Place::Packed(offset, _) => {
                    packed = packed.saturating_add(length);
                    offset.checked_add(1)
                }
            };
            if end.is_none_or(|end| end > len) {
                return Err(Flaw::Truncated("data").into());
            }
            if plain > len || packed > len.saturating_mul(MAX_RATIO) {
                return Err(Flaw::Wrong("L2 tables", "name the same data again and again").into());
            }
            visit(at, length, place)?;
        }
    }
    Ok(())
}

/// Reads clusters.
pub(super) struct Reader<'a> {
    file: &'a File,
    len: u64,
    packed: Vec<u8>,
    cluster: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a File, header: &Header) -> io::Result<Self> {
        let cluster = vec![0; usize::try_from(header.cluster()).map_err(io::Error::other)?];
        Ok(Self { file, len: file.metadata()?.len(), packed: Vec::new(), cluster })
    }

    /// The first `length` bytes of the cluster at `place`.
    pub(super) fn read(&mut self, place: Place, length: u64) -> Result<&[u8], ImageError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match place {
            Place::Absent | Place::Zero => return Ok(&[]),
            Place::Plain(offset) => {
                let wanted = self.cluster.get_mut(..length).unwrap_or_default();
                self.file.read_exact_at(wanted, offset)?;
            }
            Place::Packed(offset, packed) => {
                // The length is in whole sectors, and the file may end within the last one.
                let packed = packed.min(self.len.saturating_sub(offset));
                self.packed.resize(usize::try_from(packed).unwrap_or(0), 0);
                self.file.read_exact_at(&mut self.packed, offset)?;
                let mut state = DecompressorOxide::new();
                let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
                let (status, _, written) = decompress(&mut state, &self.packed, &mut self.cluster, 0, flags);
                // What follows in the last sector may look like more.
                let good = matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput) && written == self.cluster.len();
                if !good {
                    return Err(Flaw::Wrong("data", "does not decompress").into());
                }
            }
        }
        Ok(self.cluster.get(..length).unwrap_or_default())
    }
}

/// Checks a whole image that is to be kept as it is: all metadata, and all compressed data.
pub fn check(file: &File) -> Result<Header, ImageError> {
    let header = header(file)?;
    if header.snapshots != 0 {
        return Err(Flaw::Snapshots(header.snapshots).into());
    }
    let mut reader = Reader::new(file, &header)?;
    walk(file, &header, |_, length, place| match place {
        Place::Packed(..) => reader.read(place, length).map(drop),
        Place::Absent | Place::Zero | Place::Plain(_) => Ok(()),
    })?;
    Ok(header)
}

/// Gives `take` all data of an image, in the order of the disk; what it is not given is zero.
pub fn unpack(file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<(), Refusal>) -> Result<Header, ImageError> {
    let header = header(file)?;
    let mut reader = Reader::new(file, &header)?;
    walk(file, &header, |at, length, place| Ok(take(at, reader.read(place, length)?)?))?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// An image of 8 clusters of 512 bytes: header, refcount table, refcount block, L1 table, L2 table, data, deflated data.
    fn small() -> Vec<u8> {
        let mut image = vec![0; 8 * 512];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb\0\0\0\x03");
        put(20, &9u32.to_be_bytes());
        put(24, &32768u64.to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &(3u64 * 512).to_be_bytes());
        put(48, &512u64.to_be_bytes());
        put(56, &1u32.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        put(3 * 512, &((1 << 63) | (4u64 * 512)).to_be_bytes());
        put(4 * 512, &((1 << 63) | (5u64 * 512)).to_be_bytes());
        put(4 * 512 + 16, &((1 << 62) | (6u64 * 512)).to_be_bytes());
        put(5 * 512, &[7; 512]);
        put(6 * 512, &miniz_oxide::deflate::compress_to_vec(&[9; 512], 6));
        image
    }

    fn unpacked(image: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, ImageError> {
        let file = File::from(skep_sys::fd::memory_file(c"image")?);
        file.write_all_at(image, 0)?;
        let mut data = Vec::new();
        unpack(&file, |at, bytes| {
            data.push((at, bytes.to_vec()));
            Ok(())
        })?;
        Ok(data)
    }

    #[test]
    fn plain_and_deflated_clusters_are_read() {
        assert_eq!(unpacked(&small()).unwrap(), [(0, vec![7; 512]), (1024, vec![9; 512])]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn any_change_is_read_or_refused(changes in proptest::collection::vec((0usize..8 * 512, any::<u8>()), 1..6), cut in 0usize..8 * 512) {
            let mut image = small();
            for (at, byte) in changes {
                image[at] = byte;
            }
            for image in [&image[..], &image[..cut]] {
                match unpacked(image) {
                    Ok(data) => prop_assert!(data.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 1033 * image.len()),
                    Err(error) => prop_assert!(matches!(error, ImageError::Flaw(_) | ImageError::Io(_))),
                }
            }
        }
    }
}
