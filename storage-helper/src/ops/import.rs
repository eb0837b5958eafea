//! Filling a new disk from a stream. Everything from the first byte on is done in the job's child.

use super::disk::{check_absent, file_name, object, virtual_size};
use super::incoming::{Incoming, fill};
use super::volume;
use crate::format::{MAX_SIZE, SECTOR, header, header::PREFIX, image, packed, vhd, vhdx, vmdk};
use crate::job::{Jobs, Made, Making, Progress, Task, Work};
use crate::store::{At, Part, Store, nameless};
use skep_proto::storage::{DiskKind, ImportDisk, JobStarted, Packing, SourceFormat};
use skep_proto::{Reason, Refusal, TraceId};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Cursor, Read};
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
    // Formats with tables can be read only as a whole, so they are put aside before they are converted.
    let converts = call.kind != DiskKind::Qcow2 && call.format != SourceFormat::Raw;
    let spool = if converts { Some(nameless(dir, &format!("{}.spool", call.disk)).at(&object, "create")?) } else { None };
    let (making, file) = match call.kind {
        DiskKind::Zvol => (Making::Volume, volume::begin(store, call.disk)?),
        DiskKind::Raw | DiskKind::Qcow2 | DiskKind::Iscsi => {
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
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let made = if self.call.kind == DiskKind::Zvol { "volume" } else { "disk" };
        let mut list = vec![("stream", self.stream.as_fd()), (made, self.file.as_fd())];
        list.extend(self.spool.iter().map(|spool| ("spool", spool.as_fd())));
        list
    }

    fn run(self, progress: &mut Progress<'_>) -> Result<Made, Refusal> {
        let Import { file, call, object, .. } = &self;
        progress.total = call.expect;
        let mut disk = Disk { file, object, call, written: 0 };
        let (taken, sum) = self.take(progress, &mut disk)?;
        let size = match (taken.format, &self.spool) {
            (SourceFormat::Detect | SourceFormat::Raw, _) => self.without_footer(&taken)?,
            (format, Some(spool)) => convert(format, spool, &mut disk, progress)?,
            (_, None) => {
                file.set_len(taken.bytes).at(object, "set the size")?;
                image::check(file).map_err(|e| e.into_refusal(object))?.size
            }
        };
        disk.check(size)?;
        match call.kind {
            DiskKind::Qcow2 | DiskKind::Iscsi => {}
            DiskKind::Raw => set_raw_size(object, file, size)?,
            // The parent cuts it to its size, and then everything is on the disk.
            DiskKind::Zvol => return Ok(Made { sha256: Some(sum), size: Some(checked_size(object, size)?) }),
        }
        file.sync_all().at(object, "sync")?;
        Ok(Made { sha256: Some(sum), size: None })
    }
}

/// What was in a stream: raw, if its format is `Detect`.
struct Taken {
    format: SourceFormat,
    bytes: u64,
}

/// Why a stream could not be taken in.
enum Failed {
    Refused(Refusal),
    Unpacking(io::Error),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Import {
    /// Takes all of the stream in, unpacked: into the disk, or aside.
    fn take(&self, progress: &mut Progress<'_>, disk: &mut Disk<'_>) -> Result<(Taken, [u8; 32]), Refusal> {
        let Import { stream, call, object, .. } = self;
        let later = Cell::new(0);
        let mut incoming = Incoming::new(stream, progress, &later, call, object);
        let mut first = vec![0; packed::PREFIX];
        let got = fill(&mut incoming, &mut first);
        incoming.failed()?;
        first.truncate(got.at(object, "read the stream")?);
        let packing = self.packing(&first)?;
        let taken = self.unpack(packed::unpack(packing, Cursor::new(first).chain(&mut incoming)), disk, &later);
        // What the stream itself says comes first.
        incoming.failed()?;
        let taken = taken.map_err(|e| match e {
            Failed::Refused(refusal) => refusal,
            Failed::Unpacking(e) => {
                let note = format_args!("as {} it does not unpack: {e}", packed::name(packing));
                Refusal::new(Reason::BadImage, object).field("packing").note(note)
            }
        })?;
        let sum = incoming.end()?;
        if taken.bytes == 0 {
            return Err(Refusal::new(Reason::BadImage, object).note("nothing is in it"));
        }
        Ok((taken, sum))
    }

    /// What the stream, which begins with `first`, is packed with.
    fn packing(&self, first: &[u8]) -> Result<Packing, Refusal> {
        let found = packed::detect(first);
        match self.call.packing {
            Packing::Detect if self.call.format == SourceFormat::Raw => Ok(Packing::None),
            Packing::Detect => Ok(found),
            Packing::None => Ok(Packing::None),
            named if named == found => Ok(named),
            named => {
                let note = format_args!("the stream is not {}", packed::name(named));
                Err(Refusal::new(Reason::BadImage, &self.object).field("packing").note(note))
            }
        }
    }

    fn unpack(&self, mut stream: impl Read, disk: &mut Disk<'_>, later: &Cell<u64>) -> Result<Taken, Failed> {
        let Import { call, object, .. } = self;
        let mut buffer = vec![0; PIECE];
        let mut n = fill(&mut stream, &mut buffer).map_err(Failed::Unpacking)?;
        let first = buffer.get(..n).unwrap_or_default();
        let format = self.format(first)?;
        let aside = self.spool.as_ref().filter(|_| !matches!(format, SourceFormat::Detect | SourceFormat::Raw));
        if aside.is_some() {
            later.set(announced(format, first.get(..PREFIX).unwrap_or(first)));
        }
        let mut bytes = 0u64;
        while n > 0 {
            let piece = buffer.get(..n).unwrap_or_default();
            let end = bytes.saturating_add(n as u64);
            if (aside.is_some() || call.kind == DiskKind::Qcow2) && end > call.limit {
                let note = format_args!("what is in the stream has more than the {} bytes that are permitted", call.limit);
                return Err(Refusal::new(Reason::TooLarge, object).field("limit").note(note).into());
            }
            match aside {
                Some(spool) => spool.write_all_at(piece, bytes).at(object, "write")?,
                None => disk.put(bytes, piece)?,
            }
            bytes = end;
            n = fill(&mut stream, &mut buffer).map_err(Failed::Unpacking)?;
        }
        Ok(Taken { format, bytes })
    }

    /// As what the unpacked stream, which begins with `first`, is to be read. `Detect`: as raw, but for a footer that it may end with.
    fn format(&self, first: &[u8]) -> Result<SourceFormat, Refusal> {
        use SourceFormat as F;
        let refuse = |note: &str| Err(Refusal::new(Reason::BadImage, &self.object).field("format").note(note));
        let begins = |format| match format {
            F::Qcow2 => first.starts_with(&header::MAGIC),
            F::Vmdk => first.starts_with(&vmdk::MAGIC) || first.starts_with(vmdk::TEXT),
            F::Vhd => first.starts_with(&vhd::MAGIC),
            F::Vhdx => first.starts_with(&vhdx::MAGIC),
            F::Raw | F::Detect => true,
        };
        let format = match self.call.format {
            F::Detect => [F::Qcow2, F::Vmdk, F::Vhd, F::Vhdx].into_iter().find(|format| begins(*format)).unwrap_or(F::Detect),
            // A fixed one ends with what others begin with.
            F::Vhd => F::Vhd,
            named if !begins(named) => return refuse(&format!("the stream is not {}", word(named))),
            named => named,
        };
        match (format, self.call.kind) {
            (F::Qcow2, _) | (_, DiskKind::Raw | DiskKind::Zvol | DiskKind::Iscsi) => Ok(format),
            (F::Raw, _) => refuse("a qcow2 disk cannot be filled from raw; import it as a raw disk"),
            _ => refuse(
                "the stream is not QCOW2: import it as a raw disk, or convert it first: `qemu-img convert -O qcow2 IN OUT`",
            ),
        }
    }

    /// The size of a raw disk: without the footer, if it is a fixed VHD.
    fn without_footer(&self, taken: &Taken) -> Result<u64, Refusal> {
        let mut last = [0; vhd::FOOTER as usize];
        let end = taken.bytes.checked_sub(vhd::FOOTER).filter(|_| taken.format == SourceFormat::Detect);
        // Zeros at the end were not written, so there may be less.
        let read = end.map(|end| self.file.read_exact_at(&mut last, end));
        let size = read.and_then(Result::ok).and_then(|()| vhd::fixed(&last, taken.bytes));
        let Some((size, end)) = size.zip(end) else { return Ok(taken.bytes) };
        self.file.write_all_at(&[0; vhd::FOOTER as usize], end).at(&self.object, "write")?;
        Ok(size)
    }
}

fn word(format: SourceFormat) -> &'static str {
    match format {
        SourceFormat::Detect | SourceFormat::Raw => "raw",
        SourceFormat::Qcow2 => "QCOW2",
        SourceFormat::Vmdk => "VMDK",
        SourceFormat::Vhd => "VHD",
        SourceFormat::Vhdx => "VHDX",
    }
}

/// Bytes that a disk will have, as far as the first bytes of its image say it.
fn announced(format: SourceFormat, first: &[u8]) -> u64 {
    match format {
        SourceFormat::Qcow2 => virtual_size(first),
        SourceFormat::Vmdk => vmdk::size(first).unwrap_or(0),
        SourceFormat::Vhd => first.get(..vhd::FOOTER as usize).and_then(vhd::size).unwrap_or(0),
        SourceFormat::Detect | SourceFormat::Raw | SourceFormat::Vhdx => 0,
    }
}

/// Writes what an image that was put aside holds; gives the disk's size.
fn convert(format: SourceFormat, spool: &File, disk: &mut Disk<'_>, progress: &mut Progress<'_>) -> Result<u64, Refusal> {
    let object = disk.object;
    let take = |at: u64, piece: &[u8]| {
        progress.advance(piece.len() as u64);
        disk.put(at, piece)
    };
    let size = match format {
        SourceFormat::Vmdk => vmdk::unpack(spool, take),
        SourceFormat::Vhd => vhd::unpack(spool, take),
        SourceFormat::Vhdx => vhdx::unpack(spool, take),
        SourceFormat::Detect | SourceFormat::Raw | SourceFormat::Qcow2 => image::unpack(spool, take).map(|header| header.size),
    };
    size.map_err(|e| e.into_refusal(object))
}

/// The disk in the making.
struct Disk<'a> {
    file: &'a File,
    object: &'a str,
    call: &'a ImportDisk,
    /// Bytes that were written to it.
    written: u64,
}

impl Disk<'_> {
    /// Refuses a size that it may not have.
    fn check(&self, size: u64) -> Result<(), Refusal> {
        if size <= self.call.most {
            return Ok(());
        }
        let note = format_args!("the disk has more than the {} bytes that it may have", self.call.most);
        Err(Refusal::new(Reason::TooLarge, self.object).field("most").note(note))
    }

    /// Writes a piece of it, but for its zeros.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Refusal> {
        if self.call.kind != DiskKind::Qcow2 {
            self.check(at.saturating_add(bytes.len() as u64))?;
        }
        self.written = self.written.saturating_add(put(self.file, at, bytes).at(self.object, "write")?);
        if self.written > self.call.limit {
            let note = format_args!("its data have more than the {} bytes that are permitted", self.call.limit);
            return Err(Refusal::new(Reason::TooLarge, self.object).field("limit").note(note));
        }
        Ok(())
    }
}

/// Writes what is not zero; gives how many bytes that were.
fn put(file: &File, at: u64, bytes: &[u8]) -> std::io::Result<u64> {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let (mut run, mut written): (Option<(usize, usize)>, u64) = (None, 0);
    let mut flush = |run: Option<(usize, usize)>| match run.and_then(|(from, to)| Some((from, bytes.get(from..to)?))) {
        Some((from, data)) => {
            written += data.len() as u64;
            file.write_all_at(data, at + from as u64)
        }
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
    flush(run)?;
    Ok(written)
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
