//! A QCOW2 image of a raw one (docs/interop/qcow2.rst of QEMU), for hosts that have no qemu-img.

use anyhow::{Result, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const CLUSTER: usize = 65536;
/// Reference counts of two bytes in a block.
const COUNTED: u64 = (CLUSTER / 2) as u64;

/// Writes it; what is zero has no place in it.
pub fn of_raw(raw: &Path, to: &Path) -> Result<()> {
    let (mut from, mut to) = (File::open(raw)?, File::create(to)?);
    let size = from.metadata()?.len();
    let clusters = size.div_ceil(CLUSTER as u64);
    let tables = clusters.div_ceil((CLUSTER / 8) as u64);
    // The header, the table of blocks of reference counts, the one block, the L1 table, L2 tables, data.
    let (counts, block, l1, l2) = (1u64, 2u64, 3u64, 4u64);
    let place = |cluster: u64| cluster * CLUSTER as u64;
    let mut next = l2 + tables;
    let mut entries = Vec::new();
    let mut piece = vec![0; CLUSTER];
    for _ in 0..clusters {
        piece.fill(0);
        let most = (CLUSTER as u64).min(size - place(entries.len() as u64)) as usize;
        from.read_exact(&mut piece[..most])?;
        if piece.iter().all(|byte| *byte == 0) {
            entries.push(0);
            continue;
        }
        to.seek(SeekFrom::Start(place(next)))?;
        to.write_all(&piece)?;
        entries.push(place(next) | 1 << 63);
        next += 1;
    }
    ensure!(next <= COUNTED && tables <= (CLUSTER / 8) as u64, "{} is too large for this", raw.display());
    let mut put = |at: u64, bytes: Vec<u8>| -> Result<()> {
        to.seek(SeekFrom::Start(at))?;
        Ok(to.write_all(&bytes)?)
    };
    let words = |list: &[u64]| list.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    put(place(l2), words(&entries))?;
    put(place(l1), words(&(0..tables).map(|table| place(l2 + table) | 1 << 63).collect::<Vec<_>>()))?;
    put(place(block), (0..next).flat_map(|_| 1u16.to_be_bytes()).collect())?;
    put(place(counts), words(&[place(block)]))?;
    let header: [u32; 18] = [
        0x5146_49fb,
        2,
        0,
        0,
        0,
        16,
        (size >> 32) as u32,
        size as u32,
        0,
        tables as u32,
        0,
        place(l1) as u32,
        0,
        place(counts) as u32,
        1,
        0,
        0,
        0,
    ];
    put(0, header.iter().flat_map(|word| word.to_be_bytes()).collect())
}
