//! VHDX images, as they may come from anywhere: fixed and dynamic ones that were closed properly (\[MS-VHDX\]). To be called in a child that
//! holds only its descriptors.

use super::MAX_SIZE;
use super::field::{Named, array, le32, le64, read};
use super::header::Flaw;
use super::image::ImageError;
use skep_proto::Refusal;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The first bytes of a file.
pub const MAGIC: [u8; 8] = *b"vhdxfile";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Bytes of a block that are read at a time.
const PIECE: usize = 1 << 20;
/// Entries of the block table that are read at a time.
const ENTRIES: u64 = 8 << 10;

/// A GUID as it lies in the file.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

const BLOCK_TABLE: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
const METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const LOGICAL_SECTOR: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
const PHYSICAL_SECTOR: [u8; 16] = guid(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);
const DISK_ID: [u8; 16] = guid(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
const PARENT: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c]);

/// CRC-32C (Castagnoli) of `bytes`, those of the sum itself taken as zero.
fn crc32c(bytes: &[u8], sum_at: usize) -> u32 {
    let in_sum = sum_at..sum_at + 4;
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let all = bytes.iter().enumerate().map(|(at, byte)| if in_sum.contains(&at) { 0 } else { *byte });
    !all.fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

fn summed(bytes: &[u8], signature: &[u8; 4], what: &'static str) -> Result<bool, Flaw> {
    Ok(bytes.starts_with(signature) && le32(bytes, 4, what)? == crc32c(bytes, 4))
}

/// Looks at both headers; the newer good one counts. One with a log was not closed properly.
fn check_header(file: &File, len: u64) -> Result<(), ImageError> {
    const NAME: &str = "header";
    let mut newest: Option<(u64, [u8; 16], u16)> = None;
    for at in [64 * KIB, 128 * KIB] {
        let bytes = read(file, len, at, 4 * KIB, NAME)?;
        if summed(&bytes, b"head", NAME)? {
            let header = (le64(&bytes, 8, NAME)?, array(&bytes, 48, NAME)?, u16::from_le_bytes(array(&bytes, 66, NAME)?));
            newest = newest.filter(|other| other.0 >= header.0).or(Some(header));
        }
    }
    match newest {
        None => Err(Flaw::Wrong(NAME, "is damaged, and so is its copy").into()),
        Some((_, _, version)) if version != 1 => Err(Flaw::Wrong(NAME, "has a version that is not known (1 is)").into()),
        Some((_, log, _)) if log != [0; 16] => Err(Flaw::Marked("dirty").into()),
        Some(_) => Ok(()),
    }
}

/// Where something is in the file: offset and length.
type Place = (u64, u64);

/// An entry of 32 bytes: a GUID, and what follows.
type Entry = ([u8; 16], [u8; 16]);

/// Reads entries.
fn entries(bytes: &[u8], from: usize, count: usize, what: &'static str) -> Result<Vec<Entry>, Flaw> {
    let one = |number: usize| Ok((array(bytes, from + number * 32, what)?, array(bytes, from + number * 32 + 16, what)?));
    (0..count).map(one).collect()
}

/// Finds the block table and the metadata.
fn regions(file: &File, len: u64) -> Result<(Place, Place), ImageError> {
    const NAME: &str = "region table";
    let (mut table, mut metadata) = (None, None);
    let mut found = None;
    for at in [192 * KIB, 256 * KIB] {
        let bytes = read(file, len, at, 64 * KIB, NAME)?;
        if summed(&bytes, b"regi", NAME)? {
            found = Some(bytes);
            break;
        }
    }
    let bytes = found.ok_or(Flaw::Wrong(NAME, "is damaged, and so is its copy"))?;
    let count = usize::try_from(le32(&bytes, 8, NAME)?).unwrap_or(usize::MAX);
    if count > 2047 {
        return Err(Flaw::Wrong(NAME, "is absurdly long").into());
    }
    for (id, rest) in entries(&bytes, 16, count, NAME)? {
        let place = (le64(&rest, 0, NAME)?, u64::from(le32(&rest, 8, NAME)?));
        match id {
            BLOCK_TABLE => table = Some(place),
            METADATA => metadata = Some(place),
            _ if le32(&rest, 12, NAME)? & 1 == 1 => return Err(Flaw::Wrong(NAME, "needs regions that are not known").into()),
            _ => {}
        }
    }
    Ok((table.ok_or(Flaw::Wrong(NAME, "names no block table"))?, metadata.ok_or(Flaw::Wrong(NAME, "names no metadata"))?))
}

/// What the metadata say, checked.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    size: u64,
    block: u64,
    /// Blocks between two entries of the table that are for bitmaps.
    chunk: u64,
}

fn metadata(bytes: &[u8]) -> Result<Disk, Flaw> {
    const NAME: &str = "metadata";
    if array(bytes, 0, NAME)? != *b"metadata" {
        return Err(Flaw::Wrong(NAME, "are none"));
    }
    let count = usize::from(u16::from_le_bytes(array(bytes, 10, NAME)?));
    if count > 2047 {
        return Err(Flaw::Wrong(NAME, "are absurdly many"));
    }
    let (mut parameters, mut size, mut sector) = (None, None, None);
    for (id, rest) in entries(bytes, 32, count, NAME)? {
        let at = usize::try_from(le32(&rest, 0, NAME)?).unwrap_or(usize::MAX);
        match id {
            FILE_PARAMETERS => parameters = Some((le32(bytes, at, NAME)?, le32(bytes, at.saturating_add(4), NAME)?)),
            DISK_SIZE => size = Some(le64(bytes, at, NAME)?),
            LOGICAL_SECTOR => sector = Some(u64::from(le32(bytes, at, NAME)?)),
            PARENT => return Err(Flaw::NamesFile("a parent disk")),
            PHYSICAL_SECTOR | DISK_ID => {}
            _ if le32(&rest, 8, NAME)? & 4 != 0 => return Err(Flaw::Wrong(NAME, "need items that are not known")),
            _ => {}
        }
    }
    let lacks = || Flaw::Wrong(NAME, "lack the size of the disk, of its blocks or of its sectors");
    let (block, flags) = parameters.ok_or_else(lacks)?;
    let (block, size, sector) = (u64::from(block), size.ok_or_else(lacks)?, sector.ok_or_else(lacks)?);
    if flags & 2 != 0 {
        return Err(Flaw::NamesFile("a parent disk"));
    }
    if !(MIB..=256 * MIB).contains(&block) || !block.is_power_of_two() {
        return Err(Flaw::Wrong(NAME, "state a size of blocks that is not possible"));
    }
    if sector != 512 && sector != 4096 {
        return Err(Flaw::Wrong(NAME, "state a size of sectors that is not possible"));
    }
    if !(1..=MAX_SIZE).contains(&size) || !size.is_multiple_of(512) {
        return Err(Flaw::Size(size));
    }
    Ok(Disk { size, block, chunk: (sector << 23) / block })
}

/// Where a block's data is; none: it is zero.
fn place(entry: u64) -> Result<Option<u64>, Flaw> {
    match entry & 7 {
        0..=3 => Ok(None),
        6 => Ok(Some(entry & !(MIB - 1))),
        7 => Err(Flaw::NamesFile("a parent disk")),
        _ => Err(Flaw::Wrong("block table", "has entries that are not known")),
    }
}

/// Gives `take` all data of an image, in the order of the disk; what it is not given is zero. Gives the disk's size.
pub fn unpack(file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<(), Refusal>) -> Result<u64, ImageError> {
    let len = file.metadata()?.len();
    if read(file, len, 0, 8.min(len), "header")? != MAGIC {
        return Err(Flaw::Wrong("header", "is none of a VHDX").into());
    }
    check_header(file, len)?;
    let (table, about) = regions(file, len)?;
    let disk = metadata(&read(file, len, about.0, about.1.min(MIB), "metadata")?)?;
    let blocks = disk.size.div_ceil(disk.block);
    // After each chunk of blocks an entry for a bitmap, which only differencing disks have.
    let wanted = blocks + (blocks - 1) / disk.chunk;
    if wanted.saturating_mul(8) > table.1 {
        return Err(Flaw::Wrong("block table", "is too short for the size of its disk").into());
    }
    let (mut named, mut buffer) = (Named::new(len), vec![0; PIECE]);
    for first in (0..wanted).step_by(ENTRIES as usize) {
        let piece = read(file, len, table.0.saturating_add(first * 8), ENTRIES.min(wanted - first) * 8, "block table")?;
        for (entry, number) in piece.as_chunks().0.iter().zip(first..) {
            let (chunk, within) = (number / (disk.chunk + 1), number % (disk.chunk + 1));
            if within == disk.chunk {
                continue;
            }
            let Some(from) = place(u64::from_le_bytes(*entry))? else { continue };
            let at = (chunk * disk.chunk + within) * disk.block;
            let length = disk.block.min(disk.size - at);
            named.plain(from, length)?;
            for within in (0..length).step_by(PIECE) {
                let piece =
                    buffer.get_mut(..usize::try_from(length - within).map_or(PIECE, |left| left.min(PIECE))).unwrap_or_default();
                file.read_exact_at(piece, from + within)?;
                take(at + within, piece)?;
            }
        }
    }
    Ok(disk.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_identities_are_those_of_the_specification() {
        // "123456789", with no place that is taken as zero: the check value of CRC-32C.
        assert_eq!(crc32c(b"123456789", 100), 0xe306_9283);
        assert_eq!(BLOCK_TABLE.first_chunk(), Some(&[0x66, 0x77, 0xc2, 0x2d]));
    }

    #[test]
    fn block_entries_are_told_apart() {
        assert_eq!(place(0), Ok(None));
        assert_eq!(place(3 << 20 | 6), Ok(Some(3 << 20)));
        assert_eq!(place(7), Err(Flaw::NamesFile("a parent disk")));
        assert!(matches!(place(5), Err(Flaw::Wrong(..))));
    }
}
