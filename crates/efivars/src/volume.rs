//! The firmware volume around the variables.

use crate::bytes::{array, length, u16_at, u32_at, u64_at};
use crate::guid::Guid;
use crate::record::Kind;
use crate::text::hex;
use std::ops::Range;

/// What makes an image unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}: {why}")]
pub struct Damage {
    /// Which part.
    pub what: &'static str,
    /// Where it begins.
    pub at: usize,
    /// What is wrong with it.
    pub why: String,
}

/// A damage; the offset counts from the image's beginning.
pub fn damage<T>(what: &'static str, at: usize, why: impl ToString) -> Result<T, Damage> {
    Err(Damage { what, at, why: why.to_string() })
}

/// `gEfiSystemNvDataFvGuid`: the volume holds variables.
const VOLUME: Guid = Guid::from_fields(0xfff1_2b8d, 0x7696, 0x4c8b, *b"\xa9\x85\x27\x47\x07\x5b\x4f\x50");
/// `gEfiAuthenticatedVariableGuid`, `gEfiVariableGuid`.
const AUTHENTICATED: Guid = Guid::from_fields(0xaaf3_2c78, 0x947b, 0x439a, *b"\xa1\x80\x2e\x14\x4e\xc3\x77\x92");
const PLAIN: Guid = Guid::from_fields(0xddcf_3616, 0x3275, 0x4164, *b"\x98\xb6\xfe\x85\x70\x7f\xfe\x7d");
/// `gEdkiiWorkingBlockSignatureGuid`.
const WORKING: Guid = Guid::from_fields(0x9e58_292b, 0x7c68, 0x497d, *b"\xa0\xce\x65\x00\xfd\x9f\x1b\x95");

/// Bytes of the volume's header without its block map; most that it may have with it.
const HEADER: usize = 56;
const HEADER_MOST: usize = 4096;
/// Bytes of the variables' header.
const STORE_HEADER: usize = 28;
/// The working block begins at a multiple of this.
const PAGE: usize = 4096;

/// Where what is in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The layout of variables.
    pub kind: Kind,
    /// Where they are.
    pub region: Range<usize>,
    /// Whether the firmware was interrupted while it rewrote them, and will finish that first.
    pub unfinished: bool,
}

impl Layout {
    /// Reads and checks the headers.
    pub fn parse(image: &[u8]) -> Result<Self, Damage> {
        if image.len() > crate::MAX_IMAGE {
            return damage("the image", 0, format_args!("it has {} bytes; {} is the most", image.len(), crate::MAX_IMAGE));
        }
        let (start, end) = volume(image)?;
        let (kind, region) = variables(image, start, end)?;
        let unfinished = unfinished(image.get(..end).unwrap_or_default(), region.end);
        Ok(Self { kind, region, unfinished })
    }
}

/// Where the volume's header ends, and the volume.
fn volume(image: &[u8]) -> Result<(usize, usize), Damage> {
    let what = "the volume's header";
    let Some((guid, size, signature, header)) = (|| {
        Some((Guid(array(image, 16)?), length(u64_at(image, 32)?), array::<4>(image, 40)?, usize::from(u16_at(image, 48)?)))
    })()
    .filter(|_| image.len() >= HEADER) else {
        return damage(what, 0, format_args!("the image has only {} bytes", image.len()));
    };
    if signature != *b"_FVH" {
        return damage(what, 40, format_args!("{} stands where _FVH should", hex(&signature, 4)));
    }
    if guid != VOLUME {
        return damage(what, 16, format_args!("the volume is {guid}, which holds no variables; {VOLUME} does"));
    }
    if !(HEADER + 8..=HEADER_MOST).contains(&header) || !header.is_multiple_of(4) || header > image.len() {
        return damage(what, 48, format_args!("it says that it has {header} bytes"));
    }
    if size > image.len() || size < header {
        return damage(what, 32, format_args!("it says that the volume has {size} bytes; the image has {}", image.len()));
    }
    let bytes = image.get(..header).unwrap_or_default();
    let sum = crate::bytes::units(bytes).fold(0u16, u16::wrapping_add);
    if sum != 0 {
        return damage(what, 50, format_args!("its checksum is off by {sum:#06x}"));
    }
    let mut blocks = 0u64;
    let map = bytes.get(HEADER..).unwrap_or_default();
    for entry in map.as_chunks::<8>().0 {
        let (Some(count), Some(each)) = (u32_at(entry, 0), u32_at(entry, 4)) else { break };
        if (count, each) == (0, 0) {
            break;
        }
        blocks = blocks.saturating_add(u64::from(count) * u64::from(each));
    }
    if length(blocks) != size {
        return damage(what, HEADER, format_args!("its blocks come to {blocks} bytes, the volume to {size}"));
    }
    Ok((header, size))
}

/// The variables' layout and place.
fn variables(image: &[u8], at: usize, end: usize) -> Result<(Kind, Range<usize>), Damage> {
    let what = "the variables' header";
    let header = image.get(at..end).and_then(|rest| rest.get(..STORE_HEADER)).unwrap_or_default();
    let Some((guid, size, [format, state])) =
        (|| Some((Guid(array(header, 0)?), length(u32_at(header, 16)?.into()), array(header, 20)?)))()
    else {
        return damage(what, at, "it is cut off");
    };
    let kind = match guid {
        AUTHENTICATED => Kind::Authenticated,
        PLAIN => Kind::Plain,
        other => return damage(what, at, format_args!("the layout {other} is unknown")),
    };
    if size > end - at || size < STORE_HEADER {
        return damage(what, at + 16, format_args!("it says that there are {size} bytes; {} are there", end - at));
    }
    // Formatted, and healthy.
    if (format, state) != (0x5a, 0xfe) {
        return damage(what, at + 20, format_args!("its state is {format:02x} {state:02x}; 5a fe is expected"));
    }
    Ok((kind, (at + STORE_HEADER).next_multiple_of(4)..at + size))
}

/// Whether the working block, which lies somewhere behind the variables, holds a write that the firmware will carry on with: it was
/// put aside, and has not yet reached its place.
fn unfinished(volume: &[u8], from: usize) -> bool {
    const QUEUE: usize = 32;
    const ENTRY: usize = 40;
    let blocks = (from.next_multiple_of(PAGE)..volume.len()).step_by(PAGE);
    let Some(at) = blocks.into_iter().find(|at| array(volume, *at).map(Guid) == Some(WORKING)) else { return false };
    let block = volume.get(at..).unwrap_or_default();
    let size = u64_at(block, 24).map_or(0, length);
    let Some(queue) = block.get(QUEUE..).map(|rest| rest.get(..size).unwrap_or(rest)) else { return false };
    let mut at = 0;
    // All flags are valid when they are 0. A header that is not allocated is the end.
    while let Some(flags) = queue.get(at).filter(|flags| *flags & 1 == 0) {
        let numbers = u64_at(queue, at.saturating_add(24)).zip(u64_at(queue, at.saturating_add(32)));
        let Some((writes, private)) = numbers.map(|(writes, private)| (length(writes), length(private))) else { return false };
        let record = ENTRY.saturating_add(private);
        if *flags & 4 != 0 {
            let mut records = (0..writes).map_while(|n| queue.get(at.checked_add(ENTRY)?.checked_add(n.checked_mul(record)?)?));
            return records.any(|record| record & 2 == 0 && record & 4 != 0);
        }
        at = at.saturating_add(ENTRY).saturating_add(writes.saturating_mul(record));
    }
    false
}
