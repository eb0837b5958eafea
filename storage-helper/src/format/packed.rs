//! Streams that are packed: what they are, and the reader of what is in them. To be used in a child that holds only its descriptors.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use skep_proto::storage::Packing;
use std::io::{self, BufRead, BufReader, Read};

/// As many bytes of a stream as [`detect`] wants to see.
pub const PREFIX: usize = 6;
/// KiB that unpacking xz may need: `xz -9` has a dictionary of 64 MiB.
const XZ_MEMORY: u32 = 200 << 10;
/// Bytes of a zstd window: as many as `zstd -d` takes without being told to take more.
const ZSTD_WINDOW: u64 = 128 << 20;

/// What a stream that begins so is packed with.
pub fn detect(prefix: &[u8]) -> Packing {
    const KNOWN: [(&[u8], Packing); 4] = [
        (b"\x1f\x8b\x08", Packing::Gzip),
        (b"\xfd7zXZ\0", Packing::Xz),
        (b"\x28\xb5\x2f\xfd", Packing::Zstd),
        (b"BZh", Packing::Bzip2),
    ];
    KNOWN.iter().find(|(magic, _)| prefix.starts_with(magic)).map_or(Packing::None, |(_, packing)| *packing)
}

/// What it is called.
pub fn name(packing: Packing) -> &'static str {
    match packing {
        Packing::Detect | Packing::None => "unpacked",
        Packing::Gzip => "gzip",
        Packing::Xz => "xz",
        Packing::Zstd => "zstd",
        Packing::Bzip2 => "bzip2",
    }
}

/// Reads what is in a stream, to the end of the last part where it has several.
pub fn unpack<'a>(packing: Packing, stream: impl Read + 'a) -> Box<dyn Read + 'a> {
    match packing {
        Packing::Detect | Packing::None => Box::new(stream),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stream)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(stream, true, XZ_MEMORY)),
        Packing::Zstd => Box::new(Zstd::new(stream)),
        Packing::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(stream)),
    }
}

/// Frames of zstd, one after the other; each with its checksum, if it has one.
struct Zstd<R> {
    stream: BufReader<R>,
    decoder: FrameDecoder,
    /// A frame is being read.
    within: bool,
}

impl<R: Read> Zstd<R> {
    fn new(stream: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        Self { stream: BufReader::with_capacity(64 << 10, stream), decoder, within: false }
    }

    /// Begins the next frame that has data. `false`: there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.stream.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.stream) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.stream).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }

    fn check_sum(&self) -> io::Result<()> {
        let (said, is) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if said.is_some() && said != is { Err(io::Error::other("a frame has a wrong checksum")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.stream, BlockDecodingStrategy::UptoBlocks(1)).map_err(io::Error::other)?;
            }
            let got = self.decoder.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            self.check_sum()?;
            self.within = false;
        }
    }
}
