//! What the kernel says about each process of the suite, held against its table of rights.
//!
//! The kernel alone is asked (`/proc` on Linux, sysctl on FreeBSD), never the suite: a taken-over process cannot answer for itself.
//! Processes are found by what they cannot hide: who holds the listening socket in RUN, who lives in a runner's pid namespace or jail.
//!
//! * [`run`]: the whole suite; [`process`]: one process against one table.
//! * [`acts`]: the records of privileged acts.
#![forbid(unsafe_code)]

pub mod acts;
mod assign;
mod check;
pub mod facts;
mod find;
mod platform;
mod print;
mod proofs;
mod report;

pub use proofs::PROOFS;
pub use report::{Descriptor, Line, Process, Report, Totals, Verdict};

use skep_proto::InstanceId;
use skep_service::Ids;
use std::io;
use std::path::{Path, PathBuf};

/// Which suite, and how it was started.
#[derive(Debug, Clone)]
pub struct Options {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// Marks what the suite owns on the host.
    pub instance: InstanceId,
    /// Its uids; none: an ordinary user started it.
    pub ids: Option<Ids>,
    /// Only this process (`broker`), or the processes of this machine (its id, or the beginning of it).
    pub only: Option<String>,
}

impl Options {
    /// Of the suite that keeps its things in `state`: its mark (`STATE/instance`) and its uids (`STATE/ids`, if root started it) are
    /// read from there.
    pub fn of(state: &Path, run: &Path, only: Option<String>) -> Result<Self, Error> {
        let instance = read(&state.join("instance"))?.ok_or_else(|| Error::NoSuite(state.to_path_buf()))?;
        let instance = instance.parse().map_err(|error| Error::Declared(state.join("instance"), format!("{error}")))?;
        let ids = read(&state.join("ids"))?.map(|text| Ids::parse(&text));
        let ids = ids.transpose().map_err(|error| Error::Declared(state.join("ids"), error))?;
        Ok(Self { state: state.to_path_buf(), run: run.to_path_buf(), instance, ids, only })
    }
}

/// The one line of a small file; nothing if there is none.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::kernel(path.display())(error)),
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not let itself be asked.
    #[error("{what}: {error}")]
    Kernel {
        /// What was being read.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// There is no suite.
    #[error("{0}: no suite was started here")]
    NoSuite(PathBuf),
    /// What was declared at the start cannot be read.
    #[error("{0}: {1}")]
    Declared(PathBuf, String),
    /// `only` names nothing that is declared or runs.
    #[error("{0}: neither a process of the suite nor the id of a machine that runs")]
    NotFound(String),
}

impl Error {
    /// Names what was being read.
    pub(crate) fn kernel(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |error| Error::Kernel { what: what.to_string(), error }
    }
}

/// Asks the kernel about every process of the suite. A process that ends meanwhile is no error: it is left out, or, if it is a
/// declared service, reported as missing.
pub fn run(options: &Options) -> Result<Report, Error> {
    find::run(options)
}

/// Holds one process against one table. `None`: it has ended.
pub fn process(pid: i32, table: &'static skep_rights::Process, options: &Options) -> Result<Option<Process>, Error> {
    let kernel = platform::Kernel::open(options)?;
    let Some(facts) = kernel.facts(pid)? else { return Ok(None) };
    let subject = find::Subject { table, name: table.name.into(), machine: None, pid, notes: Vec::new() };
    Ok(Some(check::process(&subject, &facts, &[], options)))
}
