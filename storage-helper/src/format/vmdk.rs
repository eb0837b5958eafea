//! VMDK images that are one file, as they may come from anywhere: `monolithicSparse` and `streamOptimized` (VMware, Virtual Disk Format 1.1).
//! To be called in a child that holds only its descriptors.

use super::MAX_SIZE;
use super::field::{Named, array, le32, le64, read};
use super::header::Flaw;
use super::image::ImageError;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use skep_proto::Refusal;
use std::fs::File;

/// The first bytes of a file with data.
pub const MAGIC: [u8; 4] = *b"KDMV";
/// The first bytes of a file that only names others.
pub const TEXT: &[u8] = b"# Disk DescriptorFile";
const SECTOR: u64 = 512;
/// "The directory is where the footer at the end says."
const AT_END: u64 = u64::MAX;
/// Grains of a table.
const GRAINS: u64 = 512;
/// Sectors of a grain, at most.
const MAX_GRAIN: u64 = 4096;
/// Sectors of a descriptor, at most.
const MAX_DESCRIPTOR: u64 = 2048;
/// Bytes of the directory that are read at a time.
const PIECE: u64 = 64 << 10;

/// What a header says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Bytes that the guest sees.
    size: u64,
    /// Bytes of a grain.
    grain: u64,
    /// Where the text is, and its length, in bytes.
    descriptor: (u64, u64),
    /// Where the directory is, in sectors.
    directory: u64,
    /// Grains are deflated, each behind a marker.
    packed: bool,
    /// Entry 1 means zeros.
    zeroed: bool,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        const HEADER: &str = "header";
        const ZEROED: u32 = 1 << 2;
        const PACKED: u32 = 1 << 16;
        const MARKERS: u32 = 1 << 17;
        if !bytes.starts_with(&MAGIC) {
            return Err(Flaw::Wrong(HEADER, "is none of a VMDK"));
        }
        if !(1..=3).contains(&le32(bytes, 4, HEADER)?) {
            return Err(Flaw::Wrong(HEADER, "has a version that is not known (1 to 3 are)"));
        }
        let flags = le32(bytes, 8, HEADER)?;
        let (capacity, grain) = (le64(bytes, 12, HEADER)?, le64(bytes, 20, HEADER)?);
        let size = capacity.saturating_mul(SECTOR);
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(Flaw::Size(size));
        }
        if !(8..=MAX_GRAIN).contains(&grain) || !grain.is_power_of_two() {
            return Err(Flaw::Wrong(HEADER, "states a size of grains that is not possible"));
        }
        if u64::from(le32(bytes, 44, HEADER)?) != GRAINS {
            return Err(Flaw::Wrong(HEADER, "states tables that have not 512 entries"));
        }
        // Line ends, which a transfer as text would have changed.
        if array::<4>(bytes, 73, HEADER)? != *b"\n \r\n" {
            return Err(Flaw::Wrong("line ends", "were changed by a transfer as text"));
        }
        let (packed, markers) = (flags & PACKED != 0, flags & MARKERS != 0);
        let algorithm = u16::from_le_bytes(array(bytes, 77, HEADER)?);
        if packed != markers || algorithm != u16::from(packed) {
            return Err(Flaw::Wrong(HEADER, "states a compression that is not known"));
        }
        let (at, length) = (le64(bytes, 28, HEADER)?, le64(bytes, 36, HEADER)?);
        if length > MAX_DESCRIPTOR {
            return Err(Flaw::Wrong("descriptor", "is absurdly long"));
        }
        let descriptor = (at.checked_mul(SECTOR).ok_or(Flaw::Truncated("descriptor"))?, length * SECTOR);
        let directory = le64(bytes, 56, HEADER)?;
        Ok(Self { size, grain: grain * SECTOR, descriptor, directory, packed, zeroed: flags & ZEROED != 0 })
    }

    /// The same of the footer, if the directory is said there.
    fn with_footer(self, file: &File, len: u64) -> Result<Self, ImageError> {
        if self.directory != AT_END {
            return Ok(self);
        }
        // The footer, and a marker of the end.
        let at = len.checked_sub(2 * SECTOR).ok_or(Flaw::Truncated("footer"))?;
        let footer = Self::parse(&read(file, len, at, SECTOR, "footer")?).map_err(|flaw| match flaw {
            Flaw::Wrong("header", what) => Flaw::Wrong("footer", what),
            flaw => flaw,
        })?;
        if footer.directory == AT_END || (footer.size, footer.grain, footer.packed) != (self.size, self.grain, self.packed) {
            return Err(Flaw::Wrong("footer", "contradicts the header").into());
        }
        Ok(footer)
    }
}

/// Checks that the text says nothing of other files.
fn check_descriptor(text: &[u8]) -> Result<(), Flaw> {
    let text = String::from_utf8_lossy(text);
    let lines = || text.split(['\n', '\0']).map(str::trim);
    let value = |key: &str| {
        let of = |line: &str| {
            Some(line.split_once('=').filter(|(k, _)| k.trim().eq_ignore_ascii_case(key))?.1.trim().trim_matches('"').to_owned())
        };
        lines().find_map(of)
    };
    if value("parentCID").is_some_and(|parent| !parent.eq_ignore_ascii_case("ffffffff")) || value("parentFileNameHint").is_some()
    {
        return Err(Flaw::NamesFile("a parent disk"));
    }
    match value("createType").as_deref() {
        Some("monolithicSparse" | "streamOptimized") => {}
        Some(_) => return Err(Flaw::NamesFile("other files: `qemu-img convert -O qcow2 IN OUT` makes one of them")),
        None => return Err(Flaw::Wrong("descriptor", "does not say what kind of disk it is")),
    }
    let extents: Vec<_> =
        lines().filter(|line| ["RW ", "RDONLY ", "NOACCESS "].iter().any(|access| line.starts_with(access))).collect();
    match extents[..] {
        [one] if one.split_whitespace().nth(2) == Some("SPARSE") => Ok(()),
        _ => Err(Flaw::NamesFile("other files")),
    }
}

/// The size of the disk, as far as the first bytes of a file say it.
pub fn size(prefix: &[u8]) -> Option<u64> {
    Header::parse(prefix).ok().map(|header| header.size)
}

/// Gives `take` all data of an image, in the order of the disk; what it is not given is zero. Gives the disk's size.
pub fn unpack(file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<(), Refusal>) -> Result<u64, ImageError> {
    let len = file.metadata()?.len();
    let first = read(file, len, 0, SECTOR.min(len), "header")?;
    if first.starts_with(TEXT) {
        return Err(Flaw::NamesFile("other files, and has no data: `qemu-img convert -O qcow2 IN OUT` makes one of them").into());
    }
    let header = Header::parse(&first)?;
    if header.descriptor.0 == 0 {
        return Err(Flaw::Wrong("header", "names no descriptor: it is one of several files of a disk").into());
    }
    check_descriptor(&read(file, len, header.descriptor.0, header.descriptor.1, "descriptor")?)?;
    let header = header.with_footer(file, len)?;
    let mut grains = Grains {
        file,
        len,
        named: Named::new(len),
        packed: header.packed,
        buffer: vec![0; usize::try_from(header.grain).unwrap_or(0)],
    };
    let covered = header.grain * GRAINS;
    let tables = header.size.div_ceil(covered);
    let directory = header.directory.checked_mul(SECTOR).filter(|at| *at != 0).ok_or(Flaw::Wrong("directory", "is nowhere"))?;
    for from in (0..tables * 4).step_by(PIECE as usize) {
        let piece = read(file, len, directory.saturating_add(from), PIECE.min(tables * 4 - from), "directory")?;
        for (entry, base) in piece.as_chunks().0.iter().zip((from / 4..).map(|table| table * covered)) {
            let table = u64::from(u32::from_le_bytes(*entry)) * SECTOR;
            if table == 0 {
                continue;
            }
            let table = read(file, len, table, GRAINS * 4, "grain tables")?;
            for (entry, at) in table.as_chunks().0.iter().zip((base..header.size).step_by(grains.buffer.len().max(1))) {
                match u32::from_le_bytes(*entry) {
                    0 => {}
                    1 if header.zeroed => {}
                    sector => take(at, grains.read(u64::from(sector) * SECTOR, at, header.grain.min(header.size - at))?)?,
                }
            }
        }
    }
    Ok(header.size)
}

struct Grains<'a> {
    file: &'a File,
    len: u64,
    named: Named,
    packed: bool,
    buffer: Vec<u8>,
}

impl Grains<'_> {
    /// The first `length` bytes of the grain that is at `from` in the file, and belongs at `at` of the disk.
    fn read(&mut self, from: u64, at: u64, length: u64) -> Result<&[u8], ImageError> {
        use std::os::unix::fs::FileExt;
        const MARKER: u64 = 12;
        let wanted = usize::try_from(length).unwrap_or(0);
        if self.packed {
            self.named.packed(length)?;
            let marker = read(self.file, self.len, from, MARKER, "data")?;
            let (of, bytes) = (le64(&marker, 0, "data")?, u64::from(le32(&marker, 8, "data")?));
            if of.checked_mul(SECTOR) != Some(at) {
                return Err(Flaw::Wrong("grain tables", "name data that is for another place").into());
            }
            // What does not shrink grows by little.
            if bytes > 2 * self.buffer.len() as u64 + 1024 {
                return Err(Flaw::Wrong("data", "is longer than what it unpacks to").into());
            }
            let packed = read(self.file, self.len, from + MARKER, bytes, "data")?;
            let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
            let (status, _, written) = decompress(&mut DecompressorOxide::new(), &packed, &mut self.buffer, 0, flags);
            if status != TINFLStatus::Done || written < wanted {
                return Err(Flaw::Wrong("data", "does not decompress").into());
            }
        } else {
            self.named.plain(from, length)?;
            self.file.read_exact_at(self.buffer.get_mut(..wanted).unwrap_or_default(), from)?;
        }
        Ok(self.buffer.get(..wanted).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn descriptors_that_name_other_files_are_told_apart() {
        let good = "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 8 SPARSE \"a.vmdk\"\n\0\0";
        assert_eq!(check_descriptor(good.as_bytes()), Ok(()));
        for (from, to) in [
            ("ffffffff", "12345678"),
            ("monolithicSparse", "twoGbMaxExtentSparse"),
            ("RW 8 SPARSE \"a.vmdk\"", "RW 8 FLAT \"/etc/passwd\" 0"),
            ("RW 8 SPARSE \"a.vmdk\"", "RW 8 SPARSE \"a.vmdk\"\nRW 8 SPARSE \"b.vmdk\""),
            ("parentCID", "parentFileNameHint=\"/dev/sda\"\nparentCID"),
        ] {
            assert!(matches!(check_descriptor(good.replace(from, to).as_bytes()), Err(Flaw::NamesFile(_))), "{to}");
        }
        assert!(matches!(check_descriptor(b"nothing"), Err(Flaw::Wrong("descriptor", _))));
    }
}
