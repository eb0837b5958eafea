//! For fuzzing.

use crate::image::Image;
use skep_proto::storage::DiskKind;
use std::fs::File;
use std::io::{self, Read, Write};

/// Bytes of requests before those of an image.
const REQUESTS: usize = 256;
/// What a client says first: it takes the export.
const GREETING: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0";

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

/// One of 24 bytes: what, from where on, how much.
fn request(bytes: &[u8; 24]) -> Vec<u8> {
    let [act, at, length] =
        std::array::from_fn(|n| bytes.as_chunks::<8>().0.get(n).map_or(0, |place| u64::from_le_bytes(*place)));
    // To read, to write, to flush.
    let kind = [0u8, 1, 3].get((act % 3) as usize).copied().unwrap_or(0);
    let length = if kind == 3 { 0 } else { length as u32 };
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, kind], &[0; 8], &at.to_be_bytes(), &length.to_be_bytes()];
    let data = if kind == 1 { vec![7; length.min(skep_nbd::MOST) as usize] } else { Vec::new() };
    [head.concat(), data].concat()
}

/// Any bytes are requests and an image, for which they are served.
pub fn served(bytes: &[u8]) {
    let Some((requests, bytes)) = bytes.split_at_checked(REQUESTS) else { return };
    let size = bytes.get(24..32).and_then(|size| size.first_chunk()).map_or(0, |size| u64::from_be_bytes(*size));
    let Ok(mut file) = skep_sys::fd::memory_file(c"skep-fuzz").map(File::from) else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(image) = Image::open(vec![(file, DiskKind::Qcow2)], size, false) else { return };
    let requests: Vec<u8> = requests.as_chunks().0.iter().flat_map(request).collect();
    let _ = image.serve(&mut Asked(&[GREETING, requests.as_slice()].concat()));
}
