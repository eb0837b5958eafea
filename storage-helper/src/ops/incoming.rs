//! The stream of an import as it comes: counted, summed up, within its limit.

use crate::job::Progress;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use sha2::{Digest, Sha256};
use skep_proto::storage::ImportDisk;
use skep_proto::upload::Pieces;
use skep_proto::{Reason, Refusal};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// Reads it. An error of [`Read::read`] is followed by [`Incoming::failed`], which says more.
pub struct Incoming<'a, 'b> {
    pieces: Pieces<Waiting<'a>>,
    progress: &'a mut Progress<'b>,
    /// Bytes that are to be done after it.
    later: &'a Cell<u64>,
    call: &'a ImportDisk,
    object: &'a str,
    hash: Sha256,
    read: u64,
    failed: Option<Refusal>,
}

impl<'a, 'b> Incoming<'a, 'b> {
    /// Reads `stream`, which is told as `progress` of its length and of what comes `later`.
    pub fn new(
        stream: &'a File, progress: &'a mut Progress<'b>, later: &'a Cell<u64>, call: &'a ImportDisk, object: &'a str,
    ) -> Self {
        Self { pieces: Pieces::new(Waiting(stream)), progress, later, call, object, hash: Sha256::new(), read: 0, failed: None }
    }

    /// Why it could not be read, if it could not.
    pub fn failed(&mut self) -> Result<(), Refusal> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Reads the end mark, and gives the checksum, if the stream was whole and the right one.
    pub fn end(mut self) -> Result<[u8; 32], Refusal> {
        match self.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Refusal::new(Reason::BadImage, self.object).note("something follows its end")),
            Err(e) => return Err(self.failed.unwrap_or_else(|| cut(self.object, &e))),
        }
        let sum = self.hash.finalize().into();
        check_end(self.call, self.object, self.read, &sum)?;
        Ok(sum)
    }
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.pieces.read(buffer).inspect_err(|e| self.failed = Some(cut(self.object, e)))?;
        if self.read.saturating_add(got as u64) > self.call.limit {
            let note = format_args!("the stream has more than the {} bytes that are permitted", self.call.limit);
            self.failed = Some(Refusal::new(Reason::TooLarge, self.object).field("limit").note(note));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.hash.update(buffer.get(..got).unwrap_or_default());
        self.read += got as u64;
        if self.call.expect != 0 {
            self.progress.total = self.call.expect.saturating_add(self.later.get());
        }
        self.progress.advance(got as u64);
        Ok(got)
    }
}

fn check_end(call: &ImportDisk, object: &str, read: u64, sum: &[u8; 32]) -> Result<(), Refusal> {
    if read == 0 {
        return Err(Refusal::new(Reason::BadImage, object).note("the stream is empty"));
    }
    if call.expect != 0 && read != call.expect {
        let note = format_args!("{read} bytes came where {} were announced", call.expect);
        return Err(Refusal::new(Reason::BadImage, object).field("expect").note(note));
    }
    match &call.sha256 {
        Some(wanted) if wanted != sum => {
            let note = format_args!("SHA-256 of the stream is {}, expected was {}", hex(sum), hex(wanted));
            Err(Refusal::new(Reason::ChecksumMismatch, object).field("sha256").note(note))
        }
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A stream, which may be non-blocking.
struct Waiting<'a>(&'a File);

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(self.0, buffer) {
                Err(Errno::EAGAIN) => {
                    nix::poll::poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                }
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Reads until `buffer` is full or the stream ends; gives the number of bytes.
pub fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// Why a stream could not be read: most often its sender is gone.
fn cut(object: &str, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::new(Reason::Cancelled, object).note("the upload was cut off before its end"),
        _ => Refusal::io(object, "read the stream", error),
    }
}
