//! Making QCOW2 images smaller.

use super::header::{Flaw, Header};
use super::image::{self, ImageError, Place, place};
use crate::platform;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Pieces that are taken out of one image at most: some seconds of work, whatever its tables say.
const MOST: usize = 1 << 20;

/// Makes an image smaller, `size` bytes. What it has beyond stays its own, emptied: it takes no room, and reads as zeros if the image grows again.
/// Nothing but the header is believed: whatever its tables say, only the image itself is written to. Cut short, the disk has its old size, and
/// zeros where it is to end.
pub fn shrink(file: &File, size: u64) -> Result<(), ImageError> {
    let header = image::header(file)?;
    if header.snapshots != 0 {
        return Err(Flaw::Snapshots(header.snapshots).into());
    }
    let mut pieces = 0usize;
    beyond(file, &header, size, |_| {
        pieces += 1;
        if pieces > MOST { Err(Flaw::Wrong("data", "is in too many pieces beyond the new end").into()) } else { Ok(()) }
    })?;
    let zero = u64::from(header.version >= 3);
    beyond(file, &header, size, |gone| match gone {
        Gone::Piece(part) => Ok(platform::punch(file, part)?),
        Gone::Entry(at) => Ok(file.write_all_at(&zero.to_be_bytes(), at)?),
    })?;
    file.sync_all()?;
    Ok(file.write_all_at(&size.to_be_bytes(), 24)?)
}

/// What holds data beyond a disk's new end.
enum Gone {
    /// A part of the file.
    Piece(Range<u64>),
    /// Deflated bytes, which share sectors with others: the table's entry at this offset, which names them.
    Entry(u64),
}

/// Gives `empty` all of that. Of the cluster that the new end is in it is a part.
fn beyond(
    file: &File, header: &Header, size: u64, mut empty: impl FnMut(Gone) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let (len, cluster) = (file.metadata()?.len(), header.cluster());
    let mut l1 = vec![0; usize::try_from(u64::from(header.l1_entries) * 8).map_err(io::Error::other)?];
    file.read_exact_at(&mut l1, header.l1_offset)?;
    header.check_l1(&l1, len)?;
    let mut l2 = vec![0; usize::try_from(cluster).map_err(io::Error::other)?];
    let covered = cluster * (cluster / 8);
    let mut piece: Range<u64> = 0..0;
    for (entry, base) in
        l1.as_chunks().0.iter().zip((0..header.size).step_by(usize::try_from(covered).map_err(io::Error::other)?))
    {
        let table = u64::from_be_bytes(*entry) & !(1 << 63);
        if table == 0 || base + covered <= size {
            continue;
        }
        file.read_exact_at(&mut l2, table)?;
        let entries = (table..).step_by(8).zip(l2.as_chunks().0);
        for ((place_of, entry), at) in entries.zip((base..header.size).step_by(l2.len())) {
            if at + cluster <= size {
                continue;
            }
            let kept = size.saturating_sub(at);
            match place(header, u64::from_be_bytes(*entry))? {
                Place::Absent | Place::Zero => {}
                Place::Packed(..) if kept > 0 => {
                    return Err(Flaw::Wrong("data", "is compressed across the new end; a multiple of 2 MiB cuts none").into());
                }
                Place::Packed(..) => empty(Gone::Entry(place_of))?,
                Place::Plain(offset) => {
                    let next = offset + kept..offset.saturating_add(cluster).min(len);
                    if next.start == piece.end {
                        piece.end = next.end;
                    } else {
                        if !piece.is_empty() {
                            empty(Gone::Piece(piece))?;
                        }
                        piece = next;
                    }
                }
            }
        }
    }
    if piece.is_empty() { Ok(()) } else { empty(Gone::Piece(piece)) }
}
