//! The child's side of a job, and how it is started.

use crate::store::At;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skep_proto::storage::JobRecord;
use skep_proto::{MAX_RECORD, Reason, Refusal, wire};
use skep_rights::storage::JOB;
use skep_sys::child::{Child, Forked, fork};
use skep_sys::{fd, msg, process, sock};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Progress is told each time this many bytes are done.
const STEP: u64 = 16 << 20;
/// How long an answer may take that is waited for; milliseconds, as a rule.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the work came to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Made {
    /// SHA-256 of what was read, if the work counts one.
    pub sha256: Option<[u8; 32]>,
    /// How large a volume is to be, which the child cannot say to the kernel itself.
    pub size: Option<u64>,
}

/// What a child does.
pub trait Work {
    /// The descriptors that it needs, each with its line of the job's table; all others are closed.
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)>;
    /// Does it.
    fn run(self, progress: &mut Progress<'_>) -> Result<Made, Refusal>;
}

/// Tells the client how far the work is.
#[derive(Debug)]
pub struct Progress<'a> {
    channel: BorrowedFd<'a>,
    /// Bytes to do; 0 if unknown.
    pub total: u64,
    done: u64,
    told: u64,
}

impl Progress<'_> {
    /// So many bytes more are done.
    pub fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        if self.done - self.told < STEP {
            return;
        }
        self.told = self.done;
        let record = JobRecord::Progress { done: self.done, total: self.total };
        if let Ok(bytes) = wire::encode(&record) {
            // Waits for a client that reads slowly. If it is gone, the parent knows and ends us.
            let _ = msg::send(self.channel, &bytes, &[], None);
        }
    }
}

/// Starts a child; its result comes over the socket.
pub(super) fn start<W: Work>(work: W, channel: BorrowedFd<'_>) -> std::io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = sock::seqpacket_pair()?;
    match fork()? {
        Forked::Parent(child) => {
            limit("job's result", ours.as_fd())?;
            if let Some(process) = child.held() {
                limit("job's process", process)?;
            }
            Ok((child, ours))
        }
        Forked::Child => {
            // Nothing may leave this function here: it would run on as a second helper.
            let result = catch_unwind(AssertUnwindSafe(|| in_child(work, channel, theirs.as_fd())));
            let died = || Err(Refusal::new(Reason::Internal, "job").note("it failed unexpectedly"));
            if let Ok(bytes) = wire::encode(&result.unwrap_or_else(|_| died())) {
                let _ = msg::send(theirs.as_fd(), &bytes, &[], None);
            }
            process::exit_now(0)
        }
    }
}

/// Limits a descriptor that the helper keeps to its line of the table.
pub(super) fn limit(line: &'static str, fd: BorrowedFd<'_>) -> std::io::Result<()> {
    skep_sandbox::limit_one(&skep_rights::storage::TABLE, line, fd).map_err(|e| std::io::Error::other(e.to_string()))
}

fn in_child<W: Work>(work: W, channel: BorrowedFd<'_>, result: BorrowedFd<'_>) -> Result<Made, Refusal> {
    let mut held = work.held();
    held.extend([("channel", channel), ("channel", result)]);
    confine(&held)?;
    work.run(&mut Progress { channel, total: 0, done: 0, told: 0 })
}

/// Keeps these descriptors, with the rights of their lines, and what a job may call.
fn confine(held: &[(&'static str, BorrowedFd<'_>)]) -> Result<(), Refusal> {
    let keep: Vec<_> = held.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    fd::close_all_but(&keep).at("job", "close other descriptors")?;
    let limited = held.iter().try_for_each(|(line, fd)| skep_sandbox::limit_one(&JOB, line, *fd));
    limited.and_then(|()| skep_sandbox::tighten(&JOB)).map_err(|e| Refusal::new(Reason::Internal, "job").note(e))
}

/// Has a child that holds only `held` work out an answer of at most a record, and waits for it: for what is done at once, on bytes that
/// may be hostile.
pub fn ask<T: Serialize + DeserializeOwned>(
    object: &str, held: &[(&'static str, BorrowedFd<'_>)], work: impl FnOnce() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let (ours, theirs) = sock::seqpacket_pair().at(object, "make a channel")?;
    match fork().at(object, "fork")? {
        Forked::Parent(child) => {
            drop(theirs);
            let answer = msg::recv(ours.as_fd(), MAX_RECORD, 0, Some(Instant::now() + PATIENCE));
            drop(child);
            let refuse = |note: String| Refusal::new(Reason::Internal, object).note(note);
            match answer {
                Ok(record) => wire::decode(&record.bytes).unwrap_or_else(|e| Err(refuse(format!("its process sent {e}")))),
                Err(msg::RecvError::Closed) => Err(refuse("its process was killed".to_owned())),
                Err(msg::RecvError::TimedOut) => Err(Refusal::new(Reason::Timeout, object)),
                Err(e) => Err(refuse(e.to_string())),
            }
        }
        Forked::Child => {
            // Nothing may leave this function here: it would run on as a second helper.
            let result = catch_unwind(AssertUnwindSafe(|| {
                confine(&[held, &[("channel", theirs.as_fd())]].concat())?;
                work()
            }));
            let died = || Err(Refusal::new(Reason::Internal, object).note("its process failed unexpectedly"));
            if let Ok(bytes) = wire::encode(&result.unwrap_or_else(|_| died())) {
                let _ = msg::send(theirs.as_fd(), &bytes, &[], None);
            }
            process::exit_now(0)
        }
    }
}

/// What a child sent last, if it sent anything.
pub(super) fn outcome(result: BorrowedFd<'_>) -> Result<Made, Refusal> {
    let refuse = |note: String| Refusal::new(Reason::Internal, "job").note(note);
    match msg::recv(result, MAX_RECORD, 0, Some(Instant::now())) {
        Ok(record) => wire::decode(&record.bytes).map_err(|e| refuse(format!("its process sent {e}")))?,
        Err(msg::RecvError::Closed) => Err(refuse("its process was killed".to_owned())),
        Err(e) => Err(refuse(e.to_string())),
    }
}
