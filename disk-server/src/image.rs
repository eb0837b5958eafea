//! The reader: an image and what it stands on, opened from descriptors alone.

use crate::qcow2::{Place, Qcow2, read_or_zeros};
use skep_nbd::{Client, Geometry, Over, Request, error};
use skep_proto::storage::DiskKind;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// Why an image is not served.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its metadata are wrong, or a system call failed.
    #[error("file {0} of its chain: {1}")]
    File(usize, io::Error),
    /// Only the lowest can be raw, and not the one that is written; a volume is no file.
    #[error("file {0} of its chain cannot be of that kind there")]
    Kind(usize),
    /// It has another size than the device.
    #[error("it has {0} bytes, and {1} are expected")]
    Size(u64, u64),
    /// There is none.
    #[error("no files came")]
    None,
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    /// Itself, then what it stands on.
    chain: Vec<Qcow2>,
    /// What all stand on, if it is raw.
    raw: Option<File>,
    read_only: bool,
}

impl Image {
    /// Opens it: the file that is written, then what each stands on. One that names another file is refused.
    pub fn open(files: Vec<(File, DiskKind)>, size: u64, read_only: bool) -> Result<Self, Unusable> {
        let (mut chain, mut raw) = (Vec::new(), None);
        for (at, (file, kind)) in files.into_iter().enumerate() {
            match kind {
                DiskKind::Qcow2 if raw.is_none() => chain.push(Qcow2::open(file).map_err(|e| Unusable::File(at, e))?),
                DiskKind::Raw if at > 0 && raw.is_none() => raw = Some(file),
                _ => return Err(Unusable::Kind(at)),
            }
        }
        match chain.first().map(Qcow2::size) {
            None => Err(Unusable::None),
            Some(has) if has != size => Err(Unusable::Size(has, size)),
            Some(_) => Ok(Self { chain, raw, read_only }),
        }
    }

    /// Reads from file `from` of the chain on.
    fn read(&mut self, from: usize, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
        let Some(top) = self.chain.get_mut(from) else {
            if let Some(raw) = &self.raw {
                return read_or_zeros(raw, bytes, at);
            }
            bytes.fill(0);
            return Ok(());
        };
        let (cluster, size) = (top.cluster(), top.size());
        while !bytes.is_empty() {
            let within = at % cluster;
            // One that stands on a smaller one reads zeros beyond it.
            let most = (cluster - within).min(size.saturating_sub(at));
            if most == 0 {
                bytes.fill(0);
                return Ok(());
            }
            let length = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at_mut(length);
            let top = self.chain.get_mut(from).ok_or(io::ErrorKind::NotFound)?;
            match top.place(at)? {
                Place::Under => self.read(from + 1, piece, at)?,
                Place::Zero => piece.fill(0),
                Place::Plain(offset) => read_or_zeros(top.file(), piece, offset.saturating_add(within))?,
                Place::Packed(offset, packed) => {
                    let whole = top.unpack(offset, packed)?;
                    let start = usize::try_from(within).map_err(io::Error::other)?;
                    piece.copy_from_slice(whole.get(start..start + length).ok_or(io::ErrorKind::InvalidData)?);
                }
            }
            bytes = rest;
            at += length as u64;
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        while !bytes.is_empty() {
            let top = self.chain.first_mut().ok_or(io::ErrorKind::NotFound)?;
            let (cluster, size) = (top.cluster(), top.size());
            let within = at % cluster;
            let length = usize::try_from(cluster - within).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            if let Some(offset) = top.own(at)? {
                top.file().write_all_at(piece, offset.saturating_add(within))?;
            } else {
                let begins = at - within;
                let mut whole = vec![0; usize::try_from(cluster).map_err(io::Error::other)?];
                if length < whole.len() {
                    let there = usize::try_from((size - begins).min(cluster)).unwrap_or(whole.len());
                    self.read(0, whole.get_mut(..there).unwrap_or_default(), begins)?;
                }
                let start = usize::try_from(within).map_err(io::Error::other)?;
                whole.get_mut(start..start + length).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(piece);
                self.chain.first_mut().ok_or(io::ErrorKind::NotFound)?.put(begins, &whole)?;
            }
            bytes = rest;
            at += length as u64;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.chain.first().map_or(0, Qcow2::size)
    }

    fn act(&mut self, request: Request, client: &mut Client) {
        let mut read = Vec::new();
        let (handle, done) = match request {
            Request::Read { handle, at, length } => {
                read.resize(length as usize, 0);
                (handle, self.read(0, &mut read, at))
            }
            Request::Write { handle, at, data, now } => {
                let written = self.write(&data, at);
                (handle, if now { written.and_then(|()| self.flush()) } else { written })
            }
            Request::Flush { handle } => (handle, self.flush()),
        };
        match done {
            Ok(()) => client.answer(handle, 0, &read),
            Err(e) => client.answer(handle, number(&e), &[]),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.chain.first().map_or(Ok(()), |top| top.file().sync_data())
    }

    /// Does what is asked over the stream, until it ends.
    pub fn serve(mut self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let mut client = Client::new(Geometry { blocks: self.size() / BLOCK, block: BLOCK as u32 }, self.read_only);
        let mut buffer = vec![0; GULP];
        loop {
            stream.write_all(client.pending())?;
            client.sent(client.pending().len());
            let length = match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(e) => return Err(e),
            };
            client.feed(buffer.get(..length).unwrap_or_default());
            loop {
                match client.asked() {
                    Ok(Some(request)) => self.act(request, &mut client),
                    Ok(None) => break,
                    Err(Over::Goodbye) => return Ok(()),
                    Err(over @ Over::Strange) => return Err(io::Error::new(io::ErrorKind::InvalidData, over)),
                }
            }
        }
    }
}

/// Bytes of a block of the device.
const BLOCK: u64 = 512;
/// Bytes that are read of the stream at a time.
const GULP: usize = 256 << 10;

/// What an error is called over the stream.
fn number(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => error::PERM,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => error::NOSPC,
        _ => error::IO,
    }
}
