//! Filling a new disk from a stream. Everything from the first byte on is done in the job's child.

use super::disk::{check_absent, file_name, object, virtual_size};
use super::volume;
use crate::format::{
    MAX_SIZE, SECTOR,
    header::{MAGIC, PREFIX},
    image,
};
use crate::job::{Jobs, Made, Making, Progress, Task, Work};
use crate::store::{At, Part, Store, nameless};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use sha2::{Digest, Sha256};
use skep_proto::storage::{DiskKind, ImportDisk, JobStarted, SourceFormat};
use skep_proto::upload::Pieces;
use skep_proto::{Reason, Refusal, TraceId};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Bytes that are read from the stream at a time.
const PIECE: usize = 256 * 1024;
/// Runs of zeros of this length, aligned, are not written.
const BLOCK: usize = 4096;

/// [`ImportDisk`].
pub fn start(store: &Store, jobs: &mut Jobs, trace: TraceId, call: ImportDisk, fds: [OwnedFd; 2]) -> Result<JobStarted, Refusal> {
    let [stream, channel] = fds;
    let (stream, object, dir) = (File::from(stream), object(call.disk), store.disks.as_fd());
    if call.kind == DiskKind::Zvol {
        store.volumes(&object)?;
    }
    let kind = stream.metadata().at(&object, "stat the stream")?.file_type();
    if !(kind.is_file() || kind.is_fifo() || kind.is_socket()) {
        return Err(Refusal::new(Reason::InvalidValue, object)
            .field("stream")
            .note("a pipe, a socket or a regular file is expected"));
    }
    if call.expect > call.limit {
        let note = format_args!("{} bytes; at most {} are permitted", call.expect, call.limit);
        return Err(Refusal::new(Reason::TooLarge, object).field("expect").note(note));
    }
    jobs.check(call.disk, channel.as_fd())?;
    check_absent(store, jobs, call.disk)?;
    // QCOW2 can be read only as a whole, so it is put aside before it is unpacked.
    let may_unpack = call.kind != DiskKind::Qcow2 && call.format != SourceFormat::Raw;
    let spool = if may_unpack { Some(nameless(dir, &format!("{}.spool", call.disk)).at(&object, "create")?) } else { None };
    let (making, file) = match call.kind {
        DiskKind::Zvol => (Making::Volume, volume::begin(store, call.disk)?),
        DiskKind::Raw | DiskKind::Qcow2 => {
            let (part, file) = Part::begin(dir, &file_name(call.disk, call.kind)?).at(&object, "create")?;
            (Making::File(part), file)
        }
    };
    let task = Task { disk: call.disk, kind: call.kind, making, channel, trace };
    jobs.begin(store, task, Import { stream, file, spool, call, object })?;
    Ok(JobStarted {})
}

struct Import {
    stream: File,
    file: File,
    spool: Option<File>,
    call: ImportDisk,
    object: String,
}

impl Work for Import {
    fn held(&self) -> Vec<BorrowedFd<'_>> {
        let mut list = vec![self.stream.as_fd(), self.file.as_fd()];
        list.extend(self.spool.iter().map(AsFd::as_fd));
        list
    }

    fn run(self, progress: &mut Progress<'_>) -> Result<Made, Refusal> {
        let Import { stream, file, spool, call, object } = &self;
        progress.total = call.expect;
        let mut buffer = vec![0; PIECE];
        let mut stream = Pieces::new(Waiting(stream));
        let mut n = fill(&mut stream, &mut buffer).map_err(|e| cut(object, &e))?;
        let first = buffer.get(..n).unwrap_or_default();
        let qcow2 = self.is_qcow2(first)?;
        let unpack = spool.as_ref().filter(|_| qcow2);
        if unpack.is_some() && call.expect != 0 {
            progress.total += virtual_size(first.get(..PREFIX).unwrap_or(first));
        }
        let mut hash = Sha256::new();
        let mut read = 0u64;
        while n > 0 {
            let piece = buffer.get(..n).unwrap_or_default();
            if read.saturating_add(n as u64) > call.limit {
                let note = format_args!("the stream has more than the {} bytes that are permitted", call.limit);
                return Err(Refusal::new(Reason::TooLarge, object).field("limit").note(note));
            }
            hash.update(piece);
            match unpack {
                Some(spool) => spool.write_all_at(piece, read).at(object, "write")?,
                None => put(file, read, piece).at(object, "write")?,
            }
            read += n as u64;
            progress.advance(n as u64);
            n = fill(&mut stream, &mut buffer).map_err(|e| cut(object, &e))?;
        }
        let sum: [u8; 32] = hash.finalize().into();
        self.check_end(read, &sum)?;
        let mut size = read;
        if let Some(spool) = unpack {
            let take = |at: u64, piece: &[u8]| {
                progress.advance(piece.len() as u64);
                put(file, at, piece).at(object, "write")
            };
            size = image::unpack(spool, take).map_err(|e| e.into_refusal(object))?.size;
        }
        match call.kind {
            DiskKind::Qcow2 => {
                file.set_len(read).at(object, "set the size")?;
                image::check(file).map_err(|e| e.into_refusal(object))?;
            }
            DiskKind::Raw => set_raw_size(object, file, size)?,
            // The parent cuts it to its size, and then everything is on the disk.
            DiskKind::Zvol => return Ok(Made { sha256: Some(sum), size: Some(checked_size(object, size)?) }),
        }
        file.sync_all().at(object, "sync")?;
        Ok(Made { sha256: Some(sum), size: None })
    }
}

impl Import {
    /// Whether the stream, which begins with `first`, is to be read as QCOW2.
    fn is_qcow2(&self, first: &[u8]) -> Result<bool, Refusal> {
        let begins = first.starts_with(&MAGIC);
        let refuse = |note: &str| Err(Refusal::new(Reason::BadImage, &self.object).field("format").note(note));
        match (self.call.format, self.call.kind) {
            (SourceFormat::Qcow2, _) if !begins => refuse("the stream is not QCOW2"),
            (SourceFormat::Raw, DiskKind::Qcow2) => refuse("a qcow2 disk cannot be filled from raw; import it as a raw disk"),
            (SourceFormat::Detect, DiskKind::Qcow2) if !begins => refuse(
                "the stream is not QCOW2: import it as a raw disk, or convert it first: `qemu-img convert -O qcow2 IN OUT`",
            ),
            (SourceFormat::Raw, _) => Ok(false),
            (SourceFormat::Detect | SourceFormat::Qcow2, _) => Ok(begins),
        }
    }

    /// Whether the stream was whole and the right one.
    fn check_end(&self, read: u64, sum: &[u8; 32]) -> Result<(), Refusal> {
        let expect = self.call.expect;
        if read == 0 {
            return Err(Refusal::new(Reason::BadImage, &self.object).note("the stream is empty"));
        }
        if expect != 0 && read != expect {
            let note = format_args!("{read} bytes came where {expect} were announced");
            return Err(Refusal::new(Reason::BadImage, &self.object).field("expect").note(note));
        }
        match &self.call.sha256 {
            Some(wanted) if wanted != sum => {
                let note = format_args!("SHA-256 of the stream is {}, expected was {}", hex(sum), hex(wanted));
                Err(Refusal::new(Reason::ChecksumMismatch, &self.object).field("sha256").note(note))
            }
            _ => Ok(()),
        }
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
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest)? {
            0 => break,
            more => n += more,
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

/// Writes what is not zero.
fn put(file: &File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut run: Option<(usize, usize)> = None;
    let flush = |run: Option<(usize, usize)>| match run.and_then(|(from, to)| Some((from, bytes.get(from..to)?))) {
        Some((from, data)) => file.write_all_at(data, at + from as u64),
        None => Ok(()),
    };
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let (from, to) = (index * BLOCK, index * BLOCK + block.len());
        if ZEROS.starts_with(block) {
            flush(run.take())?;
        } else {
            run = Some((run.map_or(from, |(first, _)| first), to));
        }
    }
    flush(run)
}

/// A raw disk is whole sectors.
fn set_raw_size(object: &str, file: &File, size: u64) -> Result<(), Refusal> {
    file.set_len(checked_size(object, size)?.next_multiple_of(SECTOR)).at(object, "set the size")
}

/// Refuses a size that no import may have.
pub fn checked_size(object: &str, size: u64) -> Result<u64, Refusal> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(size);
    }
    let note = format_args!("{size} bytes; 1 to {MAX_SIZE} (64 TiB) are permitted");
    Err(Refusal::new(Reason::TooLarge, object).note(note))
}
