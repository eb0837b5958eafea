//! Layers that stand on one another, read as one. To be called in a child that holds only its descriptors: each may be hostile.

use super::header::{Flaw, Header};
use super::image::{self, ImageError, MAX_RATIO, Place, Reader, place};
use super::make::Writer;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use skep_proto::storage::DiskKind;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a layer has at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing: what is under it counts.
    Nothing,
    Zeros,
    Data,
}

/// One of them.
pub struct Layer<'a> {
    size: u64,
    file: &'a File,
    format: Format<'a>,
}

enum Format<'a> {
    Raw,
    Qcow2(Box<Qcow2<'a>>),
}

struct Qcow2<'a> {
    header: Header,
    len: u64,
    l1: Vec<u8>,
    /// The L2 table that was looked at last, by its place in the L1 table.
    l2: Option<(u64, Vec<u8>)>,
    reader: Reader<'a>,
    /// The deflated cluster that was read last, by its place on the disk.
    inflated: Option<(u64, Vec<u8>)>,
    /// Bytes that were read so far, plain and deflated.
    given: (u64, u64),
}

impl<'a> Layer<'a> {
    /// Looks at its header.
    pub fn open(file: &'a File, kind: DiskKind) -> Result<Self, ImageError> {
        let len = file.metadata()?.len();
        if kind != DiskKind::Qcow2 {
            return Ok(Self { size: len, file, format: Format::Raw });
        }
        let header = image::header(file)?;
        let mut l1 = vec![0; usize::try_from(u64::from(header.l1_entries) * 8).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut l1, header.l1_offset)?;
        header.check_l1(&l1, len)?;
        let reader = Reader::new(file, &header)?;
        let qcow2 = Qcow2 { header, len, l1, l2: None, reader, inflated: None, given: (0, 0) };
        Ok(Self { size: header.size, file, format: Format::Qcow2(Box::new(qcow2)) })
    }

    /// Bytes of its disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it has at `at`, and for how many bytes that holds, at most `most`.
    fn look(&mut self, at: u64, most: u64) -> Result<(Has, u64), ImageError> {
        let Some(left) = self.size.checked_sub(at).filter(|left| *left > 0) else { return Ok((Has::Nothing, most)) };
        let most = most.min(left);
        match &mut self.format {
            Format::Raw => Ok(look_raw(self.file, at, most)?),
            Format::Qcow2(qcow2) => qcow2.look(self.file, at, most),
        }
    }

    /// Reads what it was seen to have.
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        match &mut self.format {
            Format::Raw => Ok(self.file.read_exact_at(buffer, at)?),
            Format::Qcow2(qcow2) => qcow2.read(self.file, at, buffer),
        }
    }
}

/// Holes are zeros: nothing is ever under a raw layer.
fn look_raw(file: &File, at: u64, most: u64) -> io::Result<(Has, u64)> {
    let seek = |whence| lseek(file, i64::try_from(at).unwrap_or(i64::MAX), whence);
    match seek(Whence::SeekData) {
        Ok(data) => match u64::try_from(data).unwrap_or(at).saturating_sub(at) {
            0 => {
                let hole = seek(Whence::SeekHole).ok().and_then(|hole| u64::try_from(hole).ok());
                Ok((Has::Data, hole.map_or(most, |hole| hole.saturating_sub(at)).clamp(1, most)))
            }
            zeros => Ok((Has::Zeros, zeros.min(most))),
        },
        Err(Errno::ENXIO) => Ok((Has::Zeros, most)),
        // A file system that knows no holes.
        Err(Errno::EINVAL | Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok((Has::Data, most)),
        Err(e) => Err(e.into()),
    }
}

impl Qcow2<'_> {
    /// The entry for the cluster at `at`; none: it has no L2 table.
    fn entry(&mut self, file: &File, at: u64) -> Result<Option<Place>, ImageError> {
        let cluster = self.header.cluster();
        let table = at / cluster / (cluster / 8);
        if self.l2.as_ref().is_none_or(|(of, _)| *of != table) {
            let place = usize::try_from(table * 8).unwrap_or(usize::MAX);
            let entry = self.l1.get(place..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_be_bytes);
            let offset = entry & !(1 << 63);
            if offset == 0 {
                return Ok(None);
            }
            let mut l2 = vec![0; usize::try_from(cluster).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut l2, offset)?;
            self.l2 = Some((table, l2));
        }
        let place_in = usize::try_from(at / cluster % (cluster / 8) * 8).unwrap_or(usize::MAX);
        let entry = self.l2.as_ref().and_then(|(_, l2)| l2.get(place_in..)?.first_chunk().copied());
        Ok(Some(place(&self.header, u64::from_be_bytes(entry.unwrap_or_default()))?))
    }

    fn look(&mut self, file: &File, at: u64, most: u64) -> Result<(Has, u64), ImageError> {
        let cluster = self.header.cluster();
        let to_end_of = |unit: u64| (unit - at % unit).min(most);
        Ok(match self.entry(file, at)? {
            None => (Has::Nothing, to_end_of(cluster * (cluster / 8))),
            Some(Place::Absent) => (Has::Nothing, to_end_of(cluster)),
            Some(Place::Zero) => (Has::Zeros, to_end_of(cluster)),
            Some(Place::Plain(_) | Place::Packed(..)) => (Has::Data, to_end_of(cluster)),
        })
    }

    /// Within one cluster.
    fn read(&mut self, file: &File, at: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        let cluster = self.header.cluster();
        let (within, length) = (at % cluster, buffer.len() as u64);
        match self.entry(file, at)? {
            Some(Place::Plain(offset)) => {
                self.given.0 = self.given.0.saturating_add(length);
                if offset.checked_add(within + length).is_none_or(|end| end > self.len) {
                    return Err(Flaw::Truncated("data").into());
                }
                file.read_exact_at(buffer, offset + within)?;
            }
            Some(place @ Place::Packed(..)) => {
                self.given.1 = self.given.1.saturating_add(length);
                let number = at / cluster;
                if self.inflated.as_ref().is_none_or(|(of, _)| *of != number) {
                    self.inflated = Some((number, self.reader.read(place, cluster)?.to_vec()));
                }
                let within = usize::try_from(within).unwrap_or(usize::MAX);
                let bytes = self.inflated.as_ref().and_then(|(_, bytes)| bytes.get(within..within + buffer.len()));
                buffer.copy_from_slice(bytes.ok_or(Flaw::Truncated("data"))?);
            }
            _ => buffer.fill(0),
        }
        // Entries that all name the same cluster would fill the host's disk.
        if self.given.0 > self.len || self.given.1 > self.len.saturating_mul(MAX_RATIO) {
            return Err(Flaw::Wrong("L2 tables", "name the same data again and again").into());
        }
        Ok(())
    }
}

/// Writes what the first `merged` of `layers` (the topmost first) hold into `file`, which is empty, as an image of the topmost one's size.
pub fn merge(layers: &mut [Layer<'_>], merged: usize, file: &File, mut told: impl FnMut(u64)) -> Result<(), ImageError> {
    let size = layers.first().map_or(0, |top| top.size);
    let mut out = Writer::begin(file, size);
    let mut buffer = vec![0; usize::try_from(Writer::PIECE).unwrap_or(usize::MAX)];
    let mut at = 0;
    while at < size {
        let end = (at + Writer::PIECE).min(size);
        // How far none of them has anything.
        let whole = merged >= layers.len();
        let nothing = empty(layers.get_mut(..merged).unwrap_or_default(), at, size - at, whole)?;
        if at + nothing >= end {
            let next = if at + nothing == size { size } else { (at + nothing) / Writer::PIECE * Writer::PIECE };
            told(next - at);
            at = next;
            continue;
        }
        let piece = buffer.get_mut(..usize::try_from(end - at).unwrap_or(usize::MAX)).unwrap_or_default();
        fill(layers, at, piece)?;
        match (piece.iter().all(|byte| *byte == 0), whole) {
            (true, false) => out.zero(at)?,
            (true, true) => {}
            (false, _) => out.data(at, piece)?,
        }
        told(end - at);
        at = end;
    }
    Ok(out.finish()?)
}

/// For how many bytes from `at` on, at most `most`, nothing of them is to be written. `whole`: nothing is under them, so neither are zeros.
fn empty(layers: &mut [Layer<'_>], at: u64, most: u64, whole: bool) -> Result<u64, ImageError> {
    let mut so_far = most;
    for layer in layers {
        match layer.look(at, so_far)? {
            (Has::Nothing, length) if at + length == layer.size => {}
            (Has::Nothing, length) => so_far = so_far.min(length),
            (Has::Zeros, length) if whole => return Ok(so_far.min(length)),
            _ => return Ok(0),
        }
    }
    Ok(so_far)
}

/// Reads a piece of the whole.
fn fill(layers: &mut [Layer<'_>], at: u64, piece: &mut [u8]) -> Result<(), ImageError> {
    let mut done = 0;
    while let Some(rest) = piece.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let (here, mut length) = (at + done as u64, rest.len() as u64);
        let mut filled = false;
        for layer in &mut *layers {
            let (has, holds) = layer.look(here, length)?;
            length = length.min(holds);
            let part = rest.get_mut(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or_default();
            match has {
                Has::Nothing => continue,
                Has::Zeros => part.fill(0),
                Has::Data => layer.read(here, part)?,
            }
            filled = true;
            break;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !filled {
            rest.get_mut(..length).unwrap_or_default().fill(0);
        }
        done += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::format::make;
    use proptest::prelude::*;

    fn file() -> File {
        File::from(skep_sys::fd::memory_file(c"layer").unwrap())
    }

    /// An image that has this at these places, in pieces.
    fn image(size: u64, pieces: &[(u64, Option<u8>)]) -> File {
        let file = file();
        let mut out = Writer::begin(&file, size);
        for (at, byte) in pieces {
            match byte {
                Some(byte) => out.data(at * Writer::PIECE, &[*byte; Writer::PIECE as usize]).unwrap(),
                None => out.zero(at * Writer::PIECE).unwrap(),
            }
        }
        out.finish().unwrap();
        file
    }

    fn merged(files: &[(&File, DiskKind)], count: usize) -> Result<File, ImageError> {
        let mut layers = files.iter().map(|(file, kind)| Layer::open(file, *kind)).collect::<Result<Vec<_>, _>>()?;
        let out = file();
        merge(&mut layers, count, &out, |_| {})?;
        Ok(out)
    }

    /// What a disk holds that stands on these, a byte for each piece.
    fn seen(files: &[(&File, DiskKind)], size: u64) -> Vec<u8> {
        let mut layers: Vec<_> = files.iter().map(|(file, kind)| Layer::open(file, *kind).unwrap()).collect();
        let pieces = (0..size).step_by(Writer::PIECE as usize);
        let mut one = |at| {
            let mut buffer = vec![1; Writer::PIECE.min(size - at) as usize];
            fill(&mut layers, at, &mut buffer).unwrap();
            assert!(buffer.iter().all(|byte| *byte == buffer[0]));
            buffer[0]
        };
        pieces.map(&mut one).collect()
    }

    #[test]
    fn an_image_that_stands_on_a_smaller_one_reads_zeros_beyond_it() {
        let raw = file();
        raw.write_all_at(&[9; 65536], 65536).unwrap();
        let top = image(4 * 65536 + 512, &[(0, Some(7)), (4, Some(8))]);
        let chain = [(&top, DiskKind::Qcow2), (&raw, DiskKind::Raw)];
        assert_eq!(seen(&chain, 4 * 65536 + 512), [7, 9, 0, 0, 8]);
        let whole = merged(&chain, 2).unwrap();
        assert_eq!(seen(&[(&whole, DiskKind::Qcow2)], 4 * 65536 + 512), [7, 9, 0, 0, 8]);
    }

    #[test]
    fn an_image_that_names_a_file_under_it_is_refused() {
        let top = file();
        make::create(&top, 1 << 20).unwrap();
        top.write_all_at(&[1], 15).unwrap();
        assert!(matches!(merged(&[(&top, DiskKind::Qcow2)], 1), Err(ImageError::Flaw(Flaw::NamesFile(_)))));
    }

    #[test]
    fn entries_that_all_name_one_cluster_end_the_merge() {
        let mut l2 = vec![0; 8192 * 8];
        for entry in l2.as_chunks_mut().0 {
            *entry = (65536u64 | 1 << 63).to_be_bytes();
        }
        let top = image(512 << 20, &[(0, Some(3))]);
        let end = top.metadata().unwrap().len();
        top.write_all_at(&l2, end).unwrap();
        top.write_all_at(&(end | 1 << 63).to_be_bytes(), 65536).unwrap();
        let refused = merged(&[(&top, DiskKind::Qcow2)], 1);
        assert!(matches!(refused, Err(ImageError::Flaw(Flaw::Wrong(..)))), "{refused:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_is_merged_reads_as_it_did_before(
            layers in proptest::collection::vec(proptest::collection::btree_map(0u64..20, proptest::option::of(1u8..9), 0..9), 2..5),
            sizes in proptest::collection::vec(1u64..20, 5), count in 1usize..5,
        ) {
            let mut size = 0;
            let sizes: Vec<u64> = sizes.iter().map(|more| { size += more; size * 65536 }).collect();
            let files: Vec<_> = layers.iter().rev().zip(sizes.iter().take(layers.len()).rev()).map(|(pieces, size)| {
                let pieces: Vec<_> = pieces.iter().map(|(at, byte)| (*at, *byte)).filter(|(at, _)| (at + 1) * 65536 <= *size).collect();
                image(*size, &pieces)
            }).collect();
            let chain: Vec<_> = files.iter().map(|file| (file, DiskKind::Qcow2)).collect();
            let size = sizes[layers.len() - 1];
            let count = count.min(chain.len());
            let out = merged(&chain, count).unwrap();
            let mut less = vec![(&out, DiskKind::Qcow2)];
            less.extend(&chain[count..]);
            prop_assert_eq!(seen(&less, size), seen(&chain, size));
            prop_assert!(image::check(&out).is_ok());
        }
    }
}
