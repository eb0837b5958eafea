//! For fuzzing.

use crate::image::Image;
use skep_proto::storage::DiskKind;
use std::fs::File;
use std::io::{self, Read, Write};

/// Bytes of requests before those of an image.
const REQUESTS: usize = 256;

/// Requests, and nobody who waits for the answers.
struct Asked<'a>(&'a [u8]);

impl Read for Asked<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Asked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Any bytes are requests and an image, for which they are served.
pub fn served(bytes: &[u8]) {
    let Some((requests, bytes)) = bytes.split_at_checked(REQUESTS) else { return };
    let size = bytes.get(24..32).and_then(|size| size.first_chunk()).map_or(0, |size| u64::from_be_bytes(*size));
    let Ok(mut file) = skep_sys::fd::memory_file(c"skep-fuzz").map(File::from) else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let _ = Image::serve(Image::open(vec![(file, DiskKind::Qcow2)], size, false), &mut Asked(requests));
}
