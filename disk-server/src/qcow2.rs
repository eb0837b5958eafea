//! One QCOW2 file (docs/interop/qcow2.rst of QEMU), read and written. Whoever wrote it may be hostile: what is not known is refused, and no
//! number in it is believed to fit. Nothing is kept back: tables are in the file when a write returns.

use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const COPIED: u64 = 1 << 63;
const PACKED: u64 = 1 << 62;
const ZERO: u64 = 1;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Longest tables, in bytes; QEMU's own limits.
const MOST_L1: u64 = 32 << 20;
const MOST_COUNTS: u64 = 8 << 20;
/// Bytes of L2 tables that are remembered.
const REMEMBERED: u64 = 32 << 20;

/// What is wrong with a file.
pub fn flaw(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads; what lies behind the end of the file is zero.
pub fn read_or_zeros(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => {
                bytes.fill(0);
                return Ok(());
            }
            Ok(got) => {
                bytes = bytes.get_mut(got..).unwrap_or_default();
                at = at.saturating_add(got as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect()
}

/// Where a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In what is under the file.
    Under,
    /// Nowhere: it is zero.
    Zero,
    /// Here, from this byte on.
    Plain(u64),
    /// Deflated here: offset and length.
    Packed(u64, u64),
}

/// See the module.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    version: u32,
    cluster: u64,
    size: u64,
    l1_at: u64,
    l1: Vec<u64>,
    /// L2 tables by their place in the L1 table.
    l2: HashMap<usize, Vec<u64>>,
    counts_at: u64,
    /// Where blocks of reference counts are.
    counts: Vec<u64>,
    /// A count has 2 to the power of this many bits.
    count_order: u32,
    /// The next cluster that nothing is in: behind everything.
    next: u64,
}

impl Qcow2 {
    /// Opens one.
    pub fn open(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut head = [0; 112];
        file.read_exact_at(head.get_mut(..72).unwrap_or_default(), 0)?;
        let of32 = |head: &[u8; 112], at: usize| -> u32 {
            head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
        };
        let version = of32(&head, 4);
        if of32(&head, 0) != u32::from_be_bytes(*b"QFI\xfb") || !(2..=3).contains(&version) {
            return Err(flaw("it is no QCOW2 of version 2 or 3"));
        }
        if version == 3 {
            file.read_exact_at(head.get_mut(..104).unwrap_or_default(), 0)?;
        }
        let of64 = |at: usize| -> u64 { u64::from(of32(&head, at)) << 32 | u64::from(of32(&head, at + 4)) };
        let of32 = |at| of32(&head, at);
        if of64(8) != 0 || of32(16) != 0 {
            return Err(flaw("it names another file"));
        }
        if of32(32) != 0 {
            return Err(flaw("it is encrypted"));
        }
        // Version 3: no incompatible feature is known, those of dirty and corrupt files included.
        if of64(72) != 0 {
            return Err(flaw("it needs a feature that is not known"));
        }
        // Writing would make what these say wrong.
        if of64(88) != 0 {
            return Err(flaw("it has features which whoever writes has to know"));
        }
        if of32(60) != 0 {
            return Err(flaw("it has snapshots inside"));
        }
        let bits = of32(20);
        if !(9..=21).contains(&bits) {
            return Err(flaw("its clusters are too small or too large"));
        }
        let (cluster, size) = (1u64 << bits, of64(24));
        let (entries, l1_at) = (of32(36), of64(40));
        let (count_clusters, counts_at) = (of32(56), of64(48));
        let count_order = if version == 3 { of32(96) } else { 4 };
        if count_order > 6 {
            return Err(flaw("its reference counts are too wide"));
        }
        let table = |at: u64, bytes: u64, most: u64| -> io::Result<Vec<u64>> {
            if bytes == 0
                || bytes > most
                || at == 0
                || !at.is_multiple_of(cluster)
                || at.checked_add(bytes).is_none_or(|end| end > len)
            {
                return Err(flaw("one of its tables is not where it should be"));
            }
            let mut read = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            file.read_exact_at(&mut read, at)?;
            Ok(numbers(&read))
        };
        let l1 = table(l1_at, u64::from(entries) * 8, MOST_L1)?;
        let counts = table(counts_at, u64::from(count_clusters) * cluster, MOST_COUNTS)?;
        if u64::from(entries) < size.div_ceil(cluster * (cluster / 8)) {
            return Err(flaw("its L1 table is too short for its size"));
        }
        let next = len.next_multiple_of(cluster);
        Ok(Self { file, version, cluster, size, l1_at, l1, l2: HashMap::new(), counts_at, counts, count_order, next })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the entry of the cluster at `at` of the disk is: in which table, and there.
    fn entry_of(&self, at: u64) -> io::Result<(usize, usize)> {
        let number = at / self.cluster;
        let each = self.cluster / 8;
        let both = (usize::try_from(number / each), usize::try_from(number % each));
        match both {
            (Ok(table), Ok(entry)) if at < self.size => Ok((table, entry)),
            _ => Err(flaw("it lies behind the end")),
        }
    }

    fn entry(&mut self, at: u64) -> io::Result<u64> {
        let (table, entry) = self.entry_of(at)?;
        if !self.l2.contains_key(&table) {
            let l1 = self.l1.get(table).copied().unwrap_or(0);
            if l1 & !(OFFSET | COPIED) != 0 || !(l1 & OFFSET).is_multiple_of(self.cluster) {
                return Err(flaw("an L2 table is not where it could be"));
            }
            if l1 & OFFSET == 0 {
                return Ok(0);
            }
            let mut bytes = vec![0; usize::try_from(self.cluster).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, l1 & OFFSET)?;
            self.remember(table, numbers(&bytes));
        }
        Ok(self.l2.get(&table).and_then(|l2| l2.get(entry)).copied().unwrap_or(0))
    }

    fn remember(&mut self, table: usize, l2: Vec<u64>) {
        if self.l2.len() as u64 * self.cluster >= REMEMBERED {
            self.l2.clear();
        }
        self.l2.insert(table, l2);
    }

    fn place_of(&self, entry: u64) -> io::Result<Place> {
        if entry & PACKED != 0 {
            let bits = 62 - (self.cluster.trailing_zeros() - 8);
            let offset = entry & ((1 << bits) - 1);
            let sectors = ((entry & (PACKED - 1)) >> bits) + 1;
            return Ok(Place::Packed(offset, sectors * 512 - offset % 512));
        }
        let offset = entry & OFFSET;
        if entry & !(COPIED | OFFSET | ZERO) != 0 || entry & ZERO != 0 && self.version < 3 {
            return Err(flaw("an entry has bits that are not known"));
        }
        if !offset.is_multiple_of(self.cluster) {
            return Err(flaw("a cluster is not where it could be"));
        }
        Ok(match (entry & ZERO != 0, offset) {
            (true, _) => Place::Zero,
            (false, 0) => Place::Under,
            (false, offset) => Place::Plain(offset),
        })
    }

    /// Where the cluster at `at` of the disk is.
    pub fn place(&mut self, at: u64) -> io::Result<Place> {
        let entry = self.entry(at)?;
        self.place_of(entry)
    }

    /// A deflated cluster.
    pub fn unpack(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = length.min(self.file.metadata()?.len().saturating_sub(offset));
        let mut packed = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut packed, offset)?;
        let mut bytes = vec![0; usize::try_from(self.cluster).map_err(io::Error::other)?];
        let mut state = DecompressorOxide::new();
        let (_, _, written) = decompress(&mut state, &packed, &mut bytes, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        // What follows in the last sector may look like more.
        if written == bytes.len() { Ok(bytes) } else { Err(flaw("a cluster does not decompress")) }
    }

    /// Where the cluster at `at` of the disk can be written in place.
    pub fn own(&mut self, at: u64) -> io::Result<Option<u64>> {
        let entry = self.entry(at)?;
        Ok(match self.place_of(entry)? {
            Place::Plain(offset) if entry & COPIED != 0 => Some(offset),
            _ => None,
        })
    }

    /// Gives the cluster at `at` of the disk a place of its own, with these bytes, a whole cluster.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (table, number) = self.entry_of(at)?;
        let old = self.entry(at)?;
        let place = self.place_of(old)?;
        // The table first, so that nothing is lost in between.
        let l1 = self.l1.get(table).copied().unwrap_or(0);
        let table_at = if l1 & OFFSET == 0 || l1 & COPIED == 0 {
            let fresh = self.take(1)?;
            let l2 = self.l2.get(&table).cloned().unwrap_or_else(|| vec![0; bytes.len() / 8]);
            let raw: Vec<u8> = l2.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            self.file.write_all_at(&raw, fresh)?;
            self.file.write_all_at(&(fresh | COPIED).to_be_bytes(), self.l1_at + table as u64 * 8)?;
            *self.l1.get_mut(table).ok_or_else(|| flaw("its L1 table is too short"))? = fresh | COPIED;
            self.remember(table, l2);
            fresh
        } else {
            l1 & OFFSET
        };
        // One that is zero may have a place already.
        let offset = match place {
            Place::Zero if old & OFFSET != 0 && old & COPIED != 0 => old & OFFSET,
            _ => self.take(1)?,
        };
        self.file.write_all_at(bytes, offset)?;
        self.file.write_all_at(&(offset | COPIED).to_be_bytes(), table_at + number as u64 * 8)?;
        // Allocation may have let the tables be forgotten.
        if let Some(entry) = self.l2.get_mut(&table).and_then(|l2| l2.get_mut(number)) {
            *entry = offset | COPIED;
        }
        if let Place::Packed(from, length) = place {
            let first = from / self.cluster;
            let last = (from & !511).saturating_add((length + from % 512).saturating_sub(1)) / self.cluster;
            for cluster in first..=last {
                self.count(cluster, -1)?;
            }
        }
        Ok(())
    }

    /// Clusters at the end of the file, which are counted as used once.
    fn take(&mut self, clusters: u64) -> io::Result<u64> {
        let each = (self.cluster * 8) >> self.count_order;
        loop {
            let first = self.next / self.cluster;
            // The block that counts the first that none counts is that cluster itself.
            let missing = (first..first.saturating_add(clusters)).find(|cluster| {
                let block = usize::try_from(cluster / each).unwrap_or(usize::MAX);
                self.counts.get(block).is_none_or(|at| *at == 0)
            });
            let Some(missing) = missing else {
                self.next = self.next.checked_add(clusters * self.cluster).ok_or_else(|| flaw("it is full"))?;
                for cluster in first..first + clusters {
                    self.count(cluster, 1)?;
                }
                return Ok(first * self.cluster);
            };
            let block = usize::try_from(missing / each).map_err(io::Error::other)?;
            if block >= self.counts.len() {
                self.more_counts(block)?;
                continue;
            }
            let at = first * self.cluster;
            self.next = at.checked_add(self.cluster).ok_or_else(|| flaw("it is full"))?;
            self.file.write_all_at(&vec![0; usize::try_from(self.cluster).map_err(io::Error::other)?], at)?;
            self.file.write_all_at(&at.to_be_bytes(), self.counts_at + block as u64 * 8)?;
            if let Some(place) = self.counts.get_mut(block) {
                *place = at;
            }
            self.count(first, 1)?;
        }
    }

    /// A longer table of blocks, behind everything, with room for `block` at least.
    fn more_counts(&mut self, block: usize) -> io::Result<()> {
        let each = (self.cluster * 8) >> self.count_order;
        let old = (self.counts_at, self.counts.len() as u64 * 8 / self.cluster);
        let entries = (block as u64 + 8) * 2;
        let clusters = (entries * 8).div_ceil(self.cluster);
        if clusters * self.cluster > MOST_COUNTS {
            return Err(flaw("it is full"));
        }
        let start = self.next;
        let first = start / self.cluster;
        // Its own clusters, then the blocks that count it and themselves; none of these has a block so far, or some have.
        let mut counts = self.counts.clone();
        counts.resize(usize::try_from(clusters * self.cluster / 8).map_err(io::Error::other)?, 0);
        let mut next = first + clusters;
        let mut made = Vec::new();
        let mut counted = first;
        while counted < next {
            let place = usize::try_from(counted / each).map_err(io::Error::other)?;
            let entry = counts.get_mut(place).ok_or_else(|| flaw("it is full"))?;
            if *entry == 0 {
                *entry = next * self.cluster;
                made.push(next);
                next += 1;
            }
            counted += 1;
        }
        let zeros = vec![0; usize::try_from(self.cluster).map_err(io::Error::other)?];
        for cluster in &made {
            self.file.write_all_at(&zeros, cluster * self.cluster)?;
        }
        let raw: Vec<u8> = counts.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.file.write_all_at(&raw, start)?;
        (self.counts, self.next) = (counts, next * self.cluster);
        for cluster in first..next {
            self.count(cluster, 1)?;
        }
        let number = u32::try_from(clusters).map_err(io::Error::other)?;
        let head: Vec<u8> = start.to_be_bytes().into_iter().chain(number.to_be_bytes()).collect();
        self.file.write_all_at(&head, 48)?;
        self.counts_at = start;
        for cluster in 0..old.1 {
            self.count(old.0 / self.cluster + cluster, -1)?;
        }
        Ok(())
    }

    /// Adds to the count of a cluster, as far as it goes.
    fn count(&mut self, cluster: u64, by: i64) -> io::Result<()> {
        let bits = 1u64 << self.count_order;
        let each = self.cluster * 8 / bits;
        let block = usize::try_from(cluster / each).ok().and_then(|block| self.counts.get(block).copied()).unwrap_or(0);
        if block == 0 || !block.is_multiple_of(self.cluster) {
            return Err(flaw("a block of reference counts is not where it could be"));
        }
        let bit = cluster % each * bits;
        let at = block.checked_add(bit / 8).ok_or_else(|| flaw("a block of reference counts is not where it could be"))?;
        let width = usize::try_from(bits.div_ceil(8)).map_err(io::Error::other)?;
        let mut bytes = [0; 8];
        let place = bytes.get_mut(8 - width..).unwrap_or_default();
        self.file.read_exact_at(place, at)?;
        let whole = u64::from_be_bytes(bytes);
        // Counts of less than a byte begin at its lowest bit.
        let (shift, most) = if bits < 8 { (bit % 8, (1 << bits) - 1) } else { (0, u64::MAX >> (64 - bits)) };
        let count = (whole >> shift & most).saturating_add_signed(by).min(most);
        let whole = whole & !(most << shift) | count << shift;
        self.file.write_all_at(whole.to_be_bytes().get(8 - width..).unwrap_or_default(), at)
    }
}
