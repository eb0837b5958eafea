//! Making and enlarging QCOW2 images.

use super::header::{Header, MAGIC};
use super::{MAX_SIZE, image};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Clusters of 64 KiB.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// The L1 table of every image that we make is long enough for the largest disk (1 MiB, a hole until it is used), so that an image
/// grows by one number.
const L1_ENTRIES: u64 = MAX_SIZE / (CLUSTER * (CLUSTER / 8));

/// Makes `file`, which is empty, an empty image of `size` bytes: version 3, no feature. In this order: header, refcount table,
/// refcount block, L1 table.
pub fn create(file: &File, size: u64) -> io::Result<()> {
    let (table, block, l1) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
    let clusters = 3 + (L1_ENTRIES * 8).div_ceil(CLUSTER);
    let mut header = Vec::with_capacity(112);
    header.extend(MAGIC);
    header.extend(3u32.to_be_bytes());
    header.extend([0; 12]); // no backing file
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend([0; 4]); // no encryption
    header.extend((L1_ENTRIES as u32).to_be_bytes());
    header.extend(l1.to_be_bytes());
    header.extend(table.to_be_bytes());
    header.extend(1u32.to_be_bytes()); // clusters of the refcount table
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no features
    header.extend(4u32.to_be_bytes()); // refcounts of 2^4 bits
    header.extend(104u32.to_be_bytes()); // length of the header
    header.extend([0; 8]); // no extensions
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header, 0)?;
    file.write_all_at(&block.to_be_bytes(), table)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    file.write_all_at(&counts, block)
}

/// The largest disk that an image can become in place: as far as the clusters of its L1 table reach.
pub fn most(header: &Header) -> u64 {
    let cluster = header.cluster();
    let entries = (u64::from(header.l1_entries) * 8).next_multiple_of(cluster).min(32 << 20) / 8;
    entries.saturating_mul(cluster * (cluster / 8)).min(MAX_SIZE)
}

/// Enlarges an image to `size` bytes, at most [`most`]. Nothing but the header is believed. Cut short, it has its old size.
pub fn grow(file: &File, size: u64) -> Result<(), image::ImageError> {
    let header = image::header(file)?;
    let cluster = header.cluster();
    let old = u64::from(header.l1_entries);
    let new = size.div_ceil(cluster * (cluster / 8)).max(old);
    // The rest of the table's last cluster is the table's, whatever is in it.
    let zeros = vec![0; usize::try_from((new - old) * 8).map_err(io::Error::other)?];
    file.write_all_at(&zeros, header.l1_offset + old * 8)?;
    file.sync_all()?;
    let entries = u32::try_from(new).map_err(io::Error::other)?;
    file.write_all_at(&entries.to_be_bytes(), 36)?;
    file.sync_all()?;
    Ok(file.write_all_at(&size.to_be_bytes(), 24)?)
}
