//! acquire → limit → enter → serve, as types.
//!
//! A process acquires its descriptors, [`limit`] closes every other and takes away the rights that its table does not name, and
//! [`enter`] gives up everything else for good. `serve` takes a [`Sandboxed`], which only `enter` can make, so the order cannot be
//! wrong. A failure of any step is fatal: the caller ends.
#![forbid(unsafe_code)]

#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod host;
#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod host;

use skep_rights::Process;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

#[cfg(target_os = "linux")]
pub use host::{allow_oom_score, empty_bounding_set, seccomp};

/// Why a process is not in its sandbox.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// A descriptor that the table does not name.
    #[error("{0}: descriptor kind {1} is not in the table of rights")]
    Undeclared(&'static str, &'static str),
    /// A system call failed.
    #[error("{step}: {error}")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The kernel lacks something that the design needs.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel does not confirm what was just done.
    #[error("the kernel does not confirm: {0}")]
    Unconfirmed(&'static str),
}

/// Names a step for an error.
pub(crate) fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> EnterError {
    move |error| EnterError::Failed { step, error: error.into() }
}

/// Says what each held descriptor is.
pub trait Held {
    /// The name of its line in the table, for each.
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)>;
}

/// Where and as whom a process lives.
#[derive(Debug, Clone)]
pub struct Scene {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// The uid and gid to become. `None`: stay as started (ordinary user, or inside a cell that was made with it).
    pub identity: Option<(u32, u32)>,
    /// A further group, of one that becomes somebody (Linux).
    pub group: Option<u32>,
    /// The namespaces of the table were made by who started this process.
    pub in_cell: bool,
    /// End when the parent ends.
    pub with_parent: bool,
}

/// Descriptors without any right that the table does not name; all others are closed.
#[derive(Debug)]
pub struct Limited<T> {
    held: T,
    table: &'static Process,
}

/// Held descriptors of a process that has given up everything else.
pub struct Sandboxed<T>(T);

impl<T> fmt::Debug for Sandboxed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sandboxed")
    }
}
impl<T> Deref for Sandboxed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
impl<T> DerefMut for Sandboxed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
impl<T> Sandboxed<T> {
    /// The descriptors.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Closes every descriptor but the standard three and the held ones, and limits those to what `table` says.
pub fn limit<T: Held>(held: T, table: &'static Process) -> Result<Limited<T>, EnterError> {
    let list = held.held();
    for (name, fd) in &list {
        let Some(line) = table.descriptors.iter().find(|d| d.name == *name) else {
            return Err(EnterError::Undeclared(table.name, name));
        };
        host::limit(*fd, line)?;
    }
    let keep: Vec<_> = list.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    skep_sys::fd::close_all_but(&keep).map_err(failed("close other descriptors"))?;
    Ok(Limited { held, table })
}

/// Limits a descriptor that was opened after entering to the line `name` of `table`, before it is kept or sent.
pub fn limit_one(table: &'static Process, name: &'static str, fd: BorrowedFd<'_>) -> Result<(), EnterError> {
    let line = table.descriptors.iter().find(|d| d.name == name).ok_or(EnterError::Undeclared(table.name, name))?;
    host::limit(fd, line)
}

/// The same for the connections of a server, whose line is called `connection`: see `skep_ipc::Server::limiting`.
pub fn limit_connection(table: &'static Process, fd: BorrowedFd<'_>) -> io::Result<()> {
    limit_one(table, "connection", fd).map_err(|error| io::Error::other(error.to_string()))
}

/// Enters the sandbox of the table. The process must have one thread.
pub fn enter<T>(limited: Limited<T>, scene: &Scene) -> Result<Sandboxed<T>, EnterError> {
    host::enter(limited.table, scene)?;
    Ok(Sandboxed(limited.held))
}

/// Tightens a child of a sandboxed process to a smaller table: system calls only, everything else was given up before.
pub fn tighten(table: &'static Process) -> Result<(), EnterError> {
    host::tighten(table)
}
