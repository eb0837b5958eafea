//! The client's side: asks one thing after the other, and waits for each answer. What the server says is held against what was asked.

use crate::{BOTH, EXPORT_NAME, FLUSH, GREETING, MOST, OPTION, READ, REPLY, REQUEST, WRITE, error};
use std::io::{self, Read, Write};

/// A server that does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not speak NBD as asked")]
pub struct NotNbd;

impl From<NotNbd> for io::Error {
    fn from(wrong: NotNbd) -> Self {
        Self::new(io::ErrorKind::InvalidData, wrong)
    }
}

/// What a server serves.
#[derive(Debug)]
pub struct Export<S> {
    stream: S,
    size: u64,
    handle: u64,
}

fn array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// So much of it in one request.
fn piece(left: usize) -> usize {
    left.min(MOST as usize)
}

impl<S: Read + Write> Export<S> {
    /// Waits for the server's greeting, and takes the export that it has.
    pub fn open(mut stream: S) -> io::Result<Self> {
        let greeting: [u8; GREETING.len()] = array(&mut stream)?;
        if greeting.as_slice() != GREETING {
            return Err(NotNbd.into());
        }
        let asked = [&BOTH.to_be_bytes()[..], OPTION, &EXPORT_NAME.to_be_bytes(), &[0; 4]].concat();
        stream.write_all(&asked)?;
        let size = u64::from_be_bytes(array(&mut stream)?);
        let _flags: [u8; 2] = array(&mut stream)?;
        Ok(Self { stream, size, handle: 0 })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn ask(&mut self, kind: u16, at: u64, length: usize, data: &[u8]) -> io::Result<()> {
        self.handle += 1;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let head: [&[u8]; 6] = [
            &REQUEST.to_be_bytes(),
            &[0; 2],
            &kind.to_be_bytes(),
            &self.handle.to_be_bytes(),
            &at.to_be_bytes(),
            &length.to_be_bytes(),
        ];
        self.stream.write_all(&head.concat())?;
        self.stream.write_all(data)
    }

    /// The number of an error, or 0.
    fn answer(&mut self) -> io::Result<u32> {
        let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
        let magic = number(array(&mut self.stream)?);
        let error = number(array(&mut self.stream)?);
        let handle = u64::from_be_bytes(array(&mut self.stream)?);
        if magic != REPLY || handle != self.handle { Err(NotNbd.into()) } else { Ok(error) }
    }

    /// Reads; an `Err` is the stream's end, or the server's fault, and the export of no further use. `Ok`: 0, or a number of [`error`], or one that
    /// the server made up.
    pub fn read(&mut self, mut bytes: &mut [u8], mut at: u64) -> io::Result<u32> {
        while !bytes.is_empty() {
            let (first, rest) = bytes.split_at_mut(piece(bytes.len()));
            self.ask(READ, at, first.len(), &[])?;
            match self.answer()? {
                0 => self.stream.read_exact(first)?,
                error => return Ok(error),
            }
            at = at.saturating_add(first.len() as u64);
            bytes = rest;
        }
        Ok(0)
    }

    /// Writes, likewise.
    pub fn write(&mut self, mut bytes: &[u8], mut at: u64) -> io::Result<u32> {
        while !bytes.is_empty() {
            let (first, rest) = bytes.split_at(piece(bytes.len()));
            self.ask(WRITE, at, first.len(), first)?;
            match self.answer()? {
                0 => {}
                error => return Ok(error),
            }
            at = at.saturating_add(first.len() as u64);
            bytes = rest;
        }
        Ok(0)
    }

    /// Brings all that was written onto the medium, likewise.
    pub fn flush(&mut self) -> io::Result<u32> {
        self.ask(FLUSH, 0, 0, &[])?;
        self.answer()
    }
}

/// What a number of [`error`] is here: that of errno(2).
pub fn errno(error: u32) -> i32 {
    match error {
        0 | error::PERM | error::INVAL | error::NOSPC => i32::try_from(error).unwrap_or(0),
        _ => error::IO as i32,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Client, Geometry, Request};
    use std::os::unix::net::UnixStream;

    /// Serves what is in `disk` until the other end hangs up; gives it back.
    fn serve(mut stream: UnixStream, mut disk: Vec<u8>, read_only: bool) -> (Vec<u8>, usize) {
        let mut client = Client::new(Geometry { blocks: disk.len() as u64 / 512, block: 512 }, read_only);
        let mut buffer = vec![0; 100_000];
        let mut requests = 0;
        loop {
            stream.write_all(client.pending()).unwrap();
            client.sent(client.pending().len());
            let Ok(length @ 1..) = stream.read(&mut buffer) else { return (disk, requests) };
            client.feed(&buffer[..length]);
            while let Some(request) = client.asked().unwrap() {
                requests += 1;
                match request {
                    Request::Read { handle, at, length } => {
                        let at = at as usize;
                        client.answer(handle, 0, &disk[at..at + length as usize]);
                    }
                    Request::Write { handle, at, data, .. } => {
                        let at = at as usize;
                        disk[at..at + data.len()].copy_from_slice(&data);
                        client.answer(handle, 0, &[]);
                    }
                    Request::Flush { handle } => client.answer(handle, error::NOSPC, &[]),
                }
            }
        }
    }

    #[test]
    fn a_server_of_ours_is_understood_whatever_the_length() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || serve(theirs, vec![7; 4 << 20], false));
        let mut export = Export::open(ours).unwrap();
        assert_eq!(export.size(), 4 << 20);
        let long: Vec<u8> = (0..5 << 19).map(|n| (n % 251) as u8).collect();
        assert_eq!(export.write(&long, 512).unwrap(), 0);
        let mut read = vec![0; long.len() + 1024];
        assert_eq!(export.read(&mut read, 0).unwrap(), 0);
        assert!(read[..512] == [7; 512] && read[512..][..long.len()] == long && read[512 + long.len()..] == [7; 512]);
        assert_eq!(export.read(&mut [0; 1024], (4 << 20) - 512).unwrap(), error::INVAL);
        assert_eq!(export.flush().unwrap(), error::NOSPC);
        drop(export);
        let (disk, requests) = serving.join().unwrap();
        // 3 pieces each way, and one that was refused before anybody saw it.
        assert!(disk[512..][..long.len()] == long && requests == 7, "{requests}");
    }

    #[test]
    fn what_is_read_only_says_so_and_a_stranger_is_no_server() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || serve(theirs, vec![7; 4096], true));
        let mut export = Export::open(ours).unwrap();
        assert_eq!(export.write(&[1; 512], 0).unwrap(), error::PERM);
        drop(export);
        assert!(serving.join().unwrap().0 == [7; 4096]);
        for said in [&b"HTTP/1.1 400 Bad Request"[..], [GREETING, &[0; 10], &[9; 40]].concat().as_slice()] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let failed = Export::open(ours).and_then(|mut export| export.read(&mut [0; 512], 0));
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!([0, 1, 22, 28, 5, 108, u32::MAX].map(errno), [0, 1, 22, 28, 5, 5, 5]);
    }
}
