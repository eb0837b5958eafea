//! VHD images, as they may come from anywhere: fixed and dynamic ones (Microsoft, Virtual Hard Disk Image Format Specification 1.0). To be
//! called in a child that holds only its descriptors.

use super::MAX_SIZE;
use super::field::{Named, array, be32, be64, read};
use super::header::Flaw;
use super::image::ImageError;
use skep_proto::Refusal;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The first bytes of a footer; of a dynamic disk's file, too.
pub const MAGIC: [u8; 8] = *b"conectix";
/// Bytes of a footer.
pub const FOOTER: u64 = 512;
const SECTOR: u64 = 512;
/// Bytes of a block that are read at a time; 16 bytes of its bitmap.
const PIECE: usize = 64 << 10;
/// Entries of the block table that are read at a time.
const ENTRIES: u64 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    /// Where its header is.
    Dynamic(u64),
}

/// What a footer says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footer {
    size: u64,
    kind: Kind,
}

/// The sum of all bytes but those of the sum itself, each bit turned.
fn checksum(bytes: &[u8], sum_at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    !sum(bytes.get(..sum_at).unwrap_or_default()).wrapping_add(sum(bytes.get(sum_at + 4..).unwrap_or_default()))
}

impl Footer {
    fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        const NAME: &str = "footer";
        if !bytes.starts_with(&MAGIC) {
            return Err(Flaw::Wrong(NAME, "is none of a VHD"));
        }
        if be32(bytes, 64, NAME)? != checksum(bytes, 64) {
            return Err(Flaw::Wrong(NAME, "has a wrong checksum"));
        }
        if be32(bytes, 12, NAME)? >> 16 != 1 {
            return Err(Flaw::Wrong(NAME, "has a version that is not known (1 is)"));
        }
        let size = be64(bytes, 48, NAME)?;
        if !(1..=MAX_SIZE).contains(&size) || !size.is_multiple_of(SECTOR) {
            return Err(Flaw::Size(size));
        }
        let kind = match be32(bytes, 60, NAME)? {
            2 => Kind::Fixed,
            3 => Kind::Dynamic(be64(bytes, 16, NAME)?),
            4 => return Err(Flaw::NamesFile("a parent disk")),
            _ => return Err(Flaw::Wrong(NAME, "has a type that is not known (fixed and dynamic are)")),
        };
        Ok(Self { size, kind })
    }
}

/// The size of the disk, if the first or last bytes of a file are a footer.
pub fn size(footer: &[u8]) -> Option<u64> {
    Footer::parse(footer).ok().map(|footer| footer.size)
}

/// The size of a fixed disk whose file, of `len` bytes, ends with these.
pub fn fixed(last: &[u8], len: u64) -> Option<u64> {
    let footer = Footer::parse(last).ok()?;
    (footer.kind == Kind::Fixed && Some(footer.size) == len.checked_sub(FOOTER)).then_some(footer.size)
}

/// What the header of a dynamic disk says, checked.
struct Dynamic {
    table: u64,
    block: u64,
}

impl Dynamic {
    fn read(file: &File, len: u64, at: u64, size: u64) -> Result<Self, ImageError> {
        const NAME: &str = "header";
        let bytes = read(file, len, at, 1024, NAME)?;
        if array(&bytes, 0, NAME)? != *b"cxsparse" {
            return Err(Flaw::Wrong(NAME, "is none of a dynamic VHD").into());
        }
        if be32(&bytes, 36, NAME)? != checksum(&bytes, 36) {
            return Err(Flaw::Wrong(NAME, "has a wrong checksum").into());
        }
        let block = u64::from(be32(&bytes, 32, NAME)?);
        if !(PIECE as u64..=256 << 20).contains(&block) || !block.is_power_of_two() {
            return Err(Flaw::Wrong(NAME, "states a size of blocks that is not possible").into());
        }
        if u64::from(be32(&bytes, 28, NAME)?) < size.div_ceil(block) {
            return Err(Flaw::Wrong("block table", "is too short for the size of its disk").into());
        }
        Ok(Self { table: be64(&bytes, 16, NAME)?, block })
    }
}

/// Gives `take` all data of an image, in the order of the disk; what it is not given is zero. Gives the disk's size.
pub fn unpack(file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<(), Refusal>) -> Result<u64, ImageError> {
    let len = file.metadata()?.len();
    let end = len.checked_sub(FOOTER).ok_or(Flaw::Truncated("footer"))?;
    let footer = Footer::parse(&read(file, len, end, FOOTER, "footer")?)?;
    let mut buffer = vec![0; PIECE];
    let Kind::Dynamic(header) = footer.kind else {
        if footer.size > end {
            return Err(Flaw::Truncated("data").into());
        }
        for at in (0..footer.size).step_by(PIECE) {
            let piece =
                buffer.get_mut(..usize::try_from(footer.size - at).map_or(PIECE, |left| left.min(PIECE))).unwrap_or_default();
            file.read_exact_at(piece, at)?;
            take(at, piece)?;
        }
        return Ok(footer.size);
    };
    let header = Dynamic::read(file, len, header, footer.size)?;
    // A bit for each sector, in whole sectors.
    let bitmap = (header.block / SECTOR / 8).next_multiple_of(SECTOR);
    let blocks = footer.size.div_ceil(header.block);
    let mut named = Named::new(len);
    for first in (0..blocks).step_by(ENTRIES as usize) {
        let table = read(file, len, header.table.saturating_add(first * 4), ENTRIES.min(blocks - first) * 4, "block table")?;
        for (entry, number) in table.as_chunks().0.iter().zip(first..) {
            let entry = u32::from_be_bytes(*entry);
            if entry == u32::MAX {
                continue;
            }
            let (at, from) = (number * header.block, u64::from(entry) * SECTOR);
            let length = header.block.min(footer.size - at);
            named.plain(from, bitmap + length)?;
            let bits = read(file, len, from, bitmap, "bitmaps")?;
            for (within, bits) in (0..length).step_by(PIECE).zip(bits.chunks(PIECE / 512 / 8)) {
                let piece =
                    buffer.get_mut(..usize::try_from(length - within).map_or(PIECE, |left| left.min(PIECE))).unwrap_or_default();
                file.read_exact_at(piece, from + bitmap + within)?;
                clear(piece, bits);
                take(at + within, piece)?;
            }
        }
    }
    Ok(footer.size)
}

/// Sectors whose bit is not set were never written.
fn clear(piece: &mut [u8], bits: &[u8]) {
    let set = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0));
    for (sector, _) in piece.chunks_mut(512).zip(set).filter(|(_, set)| !set) {
        sector.fill(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn footer(kind: u32, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[13] = 1;
        bytes[48..56].copy_from_slice(&size.to_be_bytes());
        bytes[60..64].copy_from_slice(&kind.to_be_bytes());
        let sum = checksum(&bytes, 64);
        bytes[64..68].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn footers_are_told_apart() {
        assert_eq!(Footer::parse(&footer(2, 1024)), Ok(Footer { size: 1024, kind: Kind::Fixed }));
        assert_eq!(fixed(&footer(2, 1024), 1536), Some(1024));
        assert_eq!(fixed(&footer(2, 1024), 2048), None);
        assert_eq!(fixed(&footer(3, 1024), 1536), None);
        assert_eq!(Footer::parse(&footer(4, 1024)), Err(Flaw::NamesFile("a parent disk")));
        assert_eq!(Footer::parse(&footer(2, 0)), Err(Flaw::Size(0)));
        assert!(matches!(Footer::parse(&footer(7, 512)), Err(Flaw::Wrong("footer", _))));
        let mut damaged = footer(2, 1024);
        damaged[100] ^= 1;
        assert_eq!(Footer::parse(&damaged), Err(Flaw::Wrong("footer", "has a wrong checksum")));
    }

    #[test]
    fn sectors_that_were_never_written_are_zero() {
        let mut piece = vec![7; 4 * 512];
        clear(&mut piece, &[0b1010_0000]);
        let seen: Vec<u8> = piece.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(seen, [7, 0, 7, 0]);
    }
}
