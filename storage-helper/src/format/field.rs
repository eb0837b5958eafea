//! Numbers in bytes, and how much of a file its tables may name.

use super::header::Flaw;
use super::image::ImageError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// `N` bytes at `at`; `what` ends before them.
pub fn array<const N: usize>(bytes: &[u8], at: usize, what: &'static str) -> Result<[u8; N], Flaw> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Flaw::Truncated(what))
}

/// A little-endian number of 4 bytes.
pub fn le32(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, Flaw> {
    array(bytes, at, what).map(u32::from_le_bytes)
}

/// A little-endian number of 8 bytes.
pub fn le64(bytes: &[u8], at: usize, what: &'static str) -> Result<u64, Flaw> {
    array(bytes, at, what).map(u64::from_le_bytes)
}

/// A big-endian number of 4 bytes.
pub fn be32(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, Flaw> {
    array(bytes, at, what).map(u32::from_be_bytes)
}

/// A big-endian number of 8 bytes.
pub fn be64(bytes: &[u8], at: usize, what: &'static str) -> Result<u64, Flaw> {
    array(bytes, at, what).map(u64::from_be_bytes)
}

/// Reads `length` bytes at `at` of a file of `len` bytes; `what` is there. The caller has bounded `length`.
pub fn read(file: &File, len: u64, at: u64, length: u64, what: &'static str) -> Result<Vec<u8>, ImageError> {
    if at.checked_add(length).is_none_or(|end| end > len) {
        return Err(Flaw::Truncated(what).into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Deflate packs no better than this.
pub const MAX_RATIO: u64 = 1032;

/// Counts what tables have named. More than the file can hold is a flaw: entries that all name the same data would fill the host's disk.
#[derive(Debug)]
pub struct Named {
    len: u64,
    plain: u64,
    packed: u64,
}

impl Named {
    /// Nothing yet, of a file of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self { len, plain: 0, packed: 0 }
    }

    /// `length` bytes at `at`, which are in the file.
    pub fn plain(&mut self, at: u64, length: u64) -> Result<(), Flaw> {
        self.plain = self.plain.saturating_add(length);
        if at.checked_add(length).is_none_or(|end| end > self.len) {
            return Err(Flaw::Truncated("data"));
        }
        self.bounded()
    }

    /// `length` bytes that are packed in the file.
    pub fn packed(&mut self, length: u64) -> Result<(), Flaw> {
        self.packed = self.packed.saturating_add(length);
        self.bounded()
    }

    fn bounded(&self) -> Result<(), Flaw> {
        if self.plain > self.len || self.packed > self.len.saturating_mul(MAX_RATIO) {
            return Err(Flaw::Wrong("tables", "name the same data again and again"));
        }
        Ok(())
    }
}
