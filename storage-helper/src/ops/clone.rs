//! Copying disks.

use super::disk::{check_absent, file_name, lock, object, open_existing};
use super::volume;
use crate::job::{Jobs, Made, Making, Progress, Task, Work};
use crate::platform;
use crate::store::{At, Part, Store};
use nix::errno::Errno;
use nix::fcntl::{OFlag, copy_file_range};
use nix::unistd::{Whence, lseek};
use skep_proto::storage::{CloneDisk, DiskKind, JobStarted};
use skep_proto::{OneFd, Reason, Refusal, TraceId};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

/// Bytes that are copied at a time.
const PIECE: u64 = 8 << 20;

/// [`CloneDisk`].
pub fn start(store: &Store, jobs: &mut Jobs, trace: TraceId, call: &CloneDisk, fds: OneFd) -> Result<JobStarted, Refusal> {
    let [channel] = fds;
    if call.kind == DiskKind::Zvol {
        jobs.check(call.to, channel.as_fd())?;
        let done = volume::copy(store, jobs, call)?;
        jobs.end(trace, channel, done);
        return Ok(JobStarted {});
    }
    let (source, object) = (object(call.from), object(call.to));
    if call.snapshot.is_some() {
        return Err(Refusal::new(Reason::Unsupported, source).field("snapshot").note("a file has none"));
    }
    let name = file_name(call.to, call.kind)?;
    let from = open_existing(store, call.from, call.kind, OFlag::O_RDONLY)?;
    // Held until the copy is done, so that nobody begins to write meanwhile.
    lock(&source, &from, true)?;
    jobs.check(call.to, channel.as_fd())?;
    check_absent(store, jobs, call.to)?;
    let (part, to) = Part::begin(store.disks.as_fd(), &name).at(&object, "create")?;
    let task = Task { disk: call.to, kind: call.kind, making: Making::File(part), channel, trace };
    jobs.begin(store, task, Clone { from, to, object })?;
    Ok(JobStarted {})
}

struct Clone {
    from: File,
    to: File,
    object: String,
}

impl Work for Clone {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("disk", self.from.as_fd()), ("disk", self.to.as_fd())]
    }

    fn run(self, progress: &mut Progress<'_>) -> Result<Made, Refusal> {
        if platform::reflink(self.to.as_fd(), self.from.as_fd()).is_err() {
            self.copy_data(progress).at(&self.object, "copy")?;
        }
        self.to.sync_all().at(&self.object, "sync")?;
        Ok(Made::default())
    }
}

impl Clone {
    /// Copies what is allocated.
    fn copy_data(&self, progress: &mut Progress<'_>) -> io::Result<()> {
        let size = self.from.metadata()?.len();
        self.to.set_len(size)?;
        progress.total = size;
        let mut at = 0;
        while let Some((from, to)) = self.next_data(at, size)? {
            progress.advance(from - at);
            self.copy_range(from, to, progress)?;
            at = to;
        }
        Ok(())
    }

    /// Where data begins and ends at or after `at`.
    fn next_data(&self, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        let seek = |at: u64, whence| lseek(&self.from, i64::try_from(at).unwrap_or(i64::MAX), whence);
        let whole = (at < size).then_some((at, size));
        match seek(at, Whence::SeekData) {
            Ok(from) => {
                let from = u64::try_from(from).unwrap_or(at);
                let to = seek(from, Whence::SeekHole).map_or(size, |to| u64::try_from(to).unwrap_or(size));
                Ok((from < size && to > from).then_some((from, to.min(size))))
            }
            Err(Errno::ENXIO) => Ok(None),
            // A file system that knows no holes.
            Err(Errno::EINVAL | Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok(whole),
            Err(e) => Err(e.into()),
        }
    }

    fn copy_range(&self, from: u64, to: u64, progress: &mut Progress<'_>) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let n = (to - at).min(PIECE);
            let offset = i64::try_from(at).map_err(io::Error::other)?;
            let (mut source, mut target) = (offset, offset);
            let length = usize::try_from(n).map_err(io::Error::other)?;
            let copied = match copy_file_range(&self.from, Some(&mut source), &self.to, Some(&mut target), length) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(copied) => copied as u64,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOSYS | Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP) => self.copy_by_hand(at, length)?,
                Err(e) => return Err(e.into()),
            };
            at += copied;
            progress.advance(copied);
        }
        Ok(())
    }

    fn copy_by_hand(&self, at: u64, length: usize) -> io::Result<u64> {
        let mut buffer = vec![0; length];
        self.from.read_exact_at(&mut buffer, at)?;
        self.to.write_all_at(&buffer, at)?;
        Ok(length as u64)
    }
}
