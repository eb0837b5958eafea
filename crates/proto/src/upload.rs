//! The bytes of an upload: pieces, each behind its length, then the end mark. A stream that ends without the mark was cut off, by
//! the death of whoever sent it too, and what came is never taken for the whole.

use std::io::{self, Read};

/// The end mark: the length of no piece.
pub const END: [u8; 4] = [0; 4];

/// What goes before a piece of this length. None: there is no such piece, and nothing may be sent.
pub fn header(length: usize) -> Option<[u8; 4]> {
    u32::try_from(length).ok().filter(|length| *length != 0).map(u32::to_be_bytes)
}

/// Reads the pieces as one stream. It ends at the end mark; without one reading fails with `UnexpectedEof`.
#[derive(Debug)]
pub struct Pieces<R> {
    inner: R,
    /// Bytes of the present piece that are to come.
    left: usize,
    over: bool,
}

impl<R: Read> Pieces<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, over: false }
    }

    fn begin_piece(&mut self) -> io::Result<()> {
        let mut length = END;
        self.inner.read_exact(&mut length)?;
        self.left = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        self.over = self.left == 0;
        Ok(())
    }
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.over {
            self.begin_piece()?;
        }
        let most = buffer.len().min(self.left);
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        match self.inner.read(buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                self.left -= got;
                Ok(got)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| [header(piece.len()).as_ref().map_or(&[][..], |h| h), piece].concat()).collect()
    }

    #[test]
    fn an_upload_is_whole_only_with_its_end_mark() {
        let whole = [wire(&[b"abc", b"", b"defgh"]), END.to_vec()].concat();
        let read = |bytes: &[u8]| {
            let mut all = Vec::new();
            Pieces::new(bytes).read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(&whole).expect("whole"), b"abcdefgh");
        assert_eq!(read(&[&whole[..], b"more"].concat()).expect("the mark ends it"), b"abcdefgh");
        for cut in 0..whole.len() {
            let error = read(whole.get(..cut).unwrap_or_default()).expect_err("cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        assert_eq!((header(0), header(258)), (None, Some([0, 0, 1, 2])));
    }
}
