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
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header(size, l1, table, 1), 0)?;
    file.write_all_at(&block.to_be_bytes(), table)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    file.write_all_at(&counts, block)
}

/// The header of an image of `size` bytes, whose L1 table and refcount table are at these places; the latter has so many clusters.
fn header(size: u64, l1: u64, table: u64, table_clusters: u32) -> Vec<u8> {
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
    header.extend(table_clusters.to_be_bytes());
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no features
    header.extend(4u32.to_be_bytes()); // refcounts of 2^4 bits
    header.extend(104u32.to_be_bytes()); // length of the header
    header.extend([0; 8]); // no extensions
    header
}

/// An image that is written from its beginning to its end.
pub struct Writer<'a> {
    file: &'a File,
    size: u64,
    /// The next cluster that nothing is in.
    next: u64,
    l1: Vec<u8>,
    /// The L2 table that is being filled, by its place in the L1 table.
    l2: Option<(u64, Vec<u8>)>,
}

impl<'a> Writer<'a> {
    /// Bytes that are given at a time.
    pub const PIECE: u64 = CLUSTER;
    const COPIED: u64 = 1 << 63;
    const ZERO: u64 = 1;

    /// Begins with `file`, which is empty. Only [`Writer::finish`] makes it an image.
    pub fn begin(file: &'a File, size: u64) -> Self {
        let l1 = vec![0; (L1_ENTRIES * 8) as usize];
        Self { file, size, next: CLUSTER + L1_ENTRIES * 8, l1, l2: None }
    }

    /// The cluster at `at` of the disk holds these bytes, at most [`Writer::PIECE`].
    pub fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let entry = self.next | Self::COPIED;
        self.file.write_all_at(bytes, self.next)?;
        self.next += CLUSTER;
        self.entry(at, entry)
    }

    /// It holds zeros, whatever is under the image.
    pub fn zero(&mut self, at: u64) -> io::Result<()> {
        self.entry(at, Self::ZERO)
    }

    fn entry(&mut self, at: u64, entry: u64) -> io::Result<()> {
        let (table, place) = (at / CLUSTER / (CLUSTER / 8), at / CLUSTER % (CLUSTER / 8) * 8);
        if self.l2.as_ref().is_none_or(|(of, _)| *of != table) {
            self.flush()?;
            self.l2 = Some((table, vec![0; CLUSTER as usize]));
        }
        if let Some((_, l2)) = &mut self.l2
            && let Some(slot) = usize::try_from(place).ok().and_then(|place| l2.get_mut(place..place + 8))
        {
            slot.copy_from_slice(&entry.to_be_bytes());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some((table, l2)) = self.l2.take() else { return Ok(()) };
        self.file.write_all_at(&l2, self.next)?;
        let place = usize::try_from(table * 8).map_err(io::Error::other)?;
        let slot = self.l1.get_mut(place..place + 8).ok_or(io::ErrorKind::InvalidInput)?;
        slot.copy_from_slice(&(self.next | Self::COPIED).to_be_bytes());
        self.next += CLUSTER;
        Ok(())
    }

    /// Writes what makes it an image: L1 table, counts, and last the header.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.write_all_at(&self.l1, CLUSTER)?;
        let used = self.next / CLUSTER;
        let (mut blocks, mut table) = (0, 0);
        loop {
            let (b, t) = ((used + blocks + table).div_ceil(CLUSTER / 2), (blocks * 8).div_ceil(CLUSTER).max(1));
            if (b, t) == (blocks, table) {
                break;
            }
            (blocks, table) = (b, t);
        }
        let first_block = used + table;
        let places: Vec<u8> = (first_block..first_block + blocks).flat_map(|at| (at * CLUSTER).to_be_bytes()).collect();
        let end = (first_block + blocks) * CLUSTER;
        self.file.set_len(end)?;
        self.file.write_all_at(&places, used * CLUSTER)?;
        let mut left = used + table + blocks;
        for block in first_block..first_block + blocks {
            let here = left.min(CLUSTER / 2);
            let counts: Vec<u8> = (0..here).flat_map(|_| 1u16.to_be_bytes()).collect();
            self.file.write_all_at(&counts, block * CLUSTER)?;
            left -= here;
        }
        let table_clusters = u32::try_from(table).map_err(io::Error::other)?;
        self.file.write_all_at(&header(self.size, CLUSTER, used * CLUSTER, table_clusters), 0)
    }
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
