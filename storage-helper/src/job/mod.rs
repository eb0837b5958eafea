//! Long work, and work on hostile bytes: each in a child that holds only its own descriptors and may call little.
//!
//! A job's child reports progress on the job's channel and its result on a socket that only the parent reads. The parent names the
//! file, cleans up and sends the last record: the child, whatever became of it, can do none of these. The end of the child shows as
//! the end of its socket; the end of the client as the end of the channel, and kills the child.

mod child;

pub use child::{Made, Progress, Work, ask};

use crate::ops::disk::{object, state};
use crate::ops::import::checked_size;
use crate::store::{At, Part, Store};
use nix::poll::PollFlags;
use skep_ipc::Watch;
use skep_proto::storage::{DiskKind, JobDone, JobRecord};
use skep_proto::{DiskId, Reason, Refusal, TraceId, wire};
use skep_sys::{child::Child, msg};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Most jobs at a time.
const MAX_JOBS: usize = 8;

/// A disk in the making.
#[derive(Debug)]
struct Job {
    number: u64,
    trace: TraceId,
    disk: DiskId,
    kind: DiskKind,
    channel: OwnedFd,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The child works. Dropping it ends it.
    Running { child: Child, result: OwnedFd, making: Making },
    /// The last record waits until the client takes it.
    Ending(Vec<u8>),
    /// Nothing is left to do.
    Over,
}

/// Where a job's disk is in the making.
#[derive(Debug)]
pub enum Making {
    /// In a file that has no name of its own yet.
    File(Part),
    /// In a volume that is marked so.
    Volume,
}

impl Making {
    /// It failed.
    fn discard(self, store: &Store, disk: DiskId) {
        match (self, &store.volumes) {
            (Making::File(part), _) => part.discard(store.disks.as_fd()),
            // Nothing can be done about a failure here; the next start sweeps.
            (Making::Volume, Some(volumes)) => drop(volumes.destroy(disk)),
            (Making::Volume, None) => {}
        }
    }
}

/// What a job makes, and for whom.
#[derive(Debug)]
pub struct Task {
    /// The disk that it makes.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
    /// The file or volume in the making.
    pub making: Making,
    /// The job's channel.
    pub channel: OwnedFd,
    /// In which user action.
    pub trace: TraceId,
}

/// A job that has ended, for the log.
#[derive(Debug)]
pub struct Ended {
    /// In which user action.
    pub trace: TraceId,
    /// The disk.
    pub disk: DiskId,
    /// How it ended.
    pub result: Result<(), Refusal>,
}

/// The jobs that run.
#[derive(Debug, Default)]
pub struct Jobs {
    list: Vec<Job>,
    started: u64,
}

impl Jobs {
    /// Refuses a disk that a job is making.
    pub fn check_idle(&self, disk: DiskId) -> Result<(), Refusal> {
        let busy = self.list.iter().any(|job| job.disk == disk && matches!(job.phase, Phase::Running { .. }));
        if busy { Err(Refusal::new(Reason::InUse, object(disk)).note("a job is making it")) } else { Ok(()) }
    }

    /// Refuses a job more than there may be, and a channel that is not one; limits the channel. To be called before anything is made.
    pub fn check(&self, disk: DiskId, channel: BorrowedFd<'_>) -> Result<(), Refusal> {
        use nix::sys::socket::{SockType, getsockopt, sockopt};
        if self.list.len() >= MAX_JOBS {
            return Err(Refusal::new(Reason::LimitReached, object(disk)).note(format_args!("{MAX_JOBS} jobs run already")));
        }
        match getsockopt(&channel, sockopt::SockType) {
            Ok(SockType::SeqPacket) => {
                child::limit("job's channel", channel).map_err(|e| Refusal::io(object(disk), "limit the channel", &e))
            }
            _ => Err(Refusal::new(Reason::InvalidValue, object(disk)).field("channel").note("a seqpacket socket is expected")),
        }
    }

    /// Starts a job. If that fails, nothing of its file is left.
    pub fn begin<W: Work>(&mut self, store: &Store, task: Task, work: W) -> Result<(), Refusal> {
        let Task { disk, kind, making, channel, trace } = task;
        let (child, result) = match child::start(work, channel.as_fd()) {
            Ok(started) => started,
            Err(e) => {
                making.discard(store, disk);
                return Err(Refusal::io(object(disk), "fork", &e));
            }
        };
        self.add(trace, disk, kind, channel, Phase::Running { child, result, making });
        Ok(())
    }

    /// A job that needed no child has ended.
    pub fn end(&mut self, trace: TraceId, channel: OwnedFd, done: JobDone) {
        let (disk, kind) = (done.disk.disk, done.disk.kind);
        if let Ok(bytes) = wire::encode(&JobRecord::Done(Ok(done))) {
            self.add(trace, disk, kind, channel, Phase::Ending(bytes));
        }
    }

    fn add(&mut self, trace: TraceId, disk: DiskId, kind: DiskKind, channel: OwnedFd, phase: Phase) {
        self.started += 1;
        self.list.push(Job { number: self.started, trace, disk, kind, channel, phase });
    }

    /// What to wait for.
    pub fn watched(&self) -> Vec<Watch<'_>> {
        let mut list = Vec::new();
        for job in &self.list {
            let (of_result, of_channel) = (job.number * 2, job.number * 2 + 1);
            match &job.phase {
                Phase::Running { result, .. } => {
                    list.push(Watch { fd: result.as_fd(), flags: PollFlags::POLLIN, token: of_result });
                    list.push(Watch { fd: job.channel.as_fd(), flags: PollFlags::POLLIN, token: of_channel });
                }
                Phase::Ending(_) => list.push(Watch { fd: job.channel.as_fd(), flags: PollFlags::POLLOUT, token: of_channel }),
                Phase::Over => {}
            }
        }
        list
    }

    /// A watched descriptor is ready. Gives a job that has ended.
    pub fn ready(&mut self, store: &Store, token: u64) -> Option<Ended> {
        let job = self.list.iter_mut().find(|job| job.number == token / 2)?;
        let ended = job.step(store, token.is_multiple_of(2));
        self.list.retain(|job| !matches!(job.phase, Phase::Over));
        ended
    }
}

impl Job {
    fn step(&mut self, store: &Store, from_child: bool) -> Option<Ended> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running { child: process, result, making } => {
                let said = if from_child {
                    child::outcome(result.as_fd())
                } else {
                    // The client has closed the channel, or sends, which it never may.
                    Err(Refusal::new(Reason::Cancelled, object(self.disk)))
                };
                drop(process);
                let finished = self.finish(store, making, said);
                let result = finished.as_ref().map(|_| ()).map_err(Clone::clone);
                self.phase = wire::encode(&JobRecord::Done(finished)).map_or(Phase::Over, Phase::Ending);
                Some(Ended { trace: self.trace, disk: self.disk, result })
            }
            Phase::Ending(bytes) if !from_child => {
                let sent = msg::send(self.channel.as_fd(), &bytes, &[], Some(Instant::now()));
                if sent.is_err_and(|e| e.kind() == std::io::ErrorKind::TimedOut) {
                    self.phase = Phase::Ending(bytes);
                }
                None
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Gives a good file its name and takes a bad one away. What the child says of its file is not believed but looked up.
    fn finish(&self, store: &Store, making: Making, said: Result<Made, Refusal>) -> Result<JobDone, Refusal> {
        let (dir, object) = (store.disks.as_fd(), object(self.disk));
        let seen = said.and_then(|made| match &making {
            Making::File(part) => {
                let file = part.reopen(dir).at(&object, "open")?;
                Ok((state(&object, self.disk, self.kind, &file)?, made.sha256))
            }
            Making::Volume => {
                // Of its size the child is believed, within what a disk may have: it could as well have written zeros.
                let size = checked_size(&object, made.size.unwrap_or(0))?;
                Ok((store.volumes(&object)?.finish(self.disk, Some(size))?.state(), made.sha256))
            }
        });
        match (seen, making) {
            (Ok((disk, sha256)), Making::File(part)) => part.commit(dir).at(&object, "finish").map(|()| JobDone { disk, sha256 }),
            (Ok((disk, sha256)), Making::Volume) => Ok(JobDone { disk, sha256 }),
            (Err(mut refusal), making) => {
                making.discard(store, self.disk);
                if refusal.object.as_str() == "job" {
                    refusal.object = skep_proto::Text::lossy(&object);
                }
                Err(refusal)
            }
        }
    }
}
