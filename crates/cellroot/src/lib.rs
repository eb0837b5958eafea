//! The root of all cells: the hypervisor, the libraries and firmware that it needs, the runner, and nothing else; and a smaller one
//! for console-proxies.
//!
//! [`prepare`] builds `STATE/cell/root` and `STATE/cell/console` from what is installed (or unpacked below a prefix), beside the old one, and puts it in place by
//! one rename. The old one stays as long as a cell is in it. Everything in it belongs to who built it and can be written by nobody else; cells see it read-only. A manifest of the
//! inputs makes the next call a matter of some fifty `stat(2)`.
#![forbid(unsafe_code)]

mod build;
mod closure;
mod elf;
mod manifest;
mod platform;

pub use platform::{HYPERVISOR, LAYOUTS, UEFI};

use nix::fcntl::{Flock, FlockArg};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the prepared root of machines below `STATE/cell`.
pub const ROOT: &str = "root";
/// Name of that of console-proxies, which hold nothing but the program and its libraries.
pub const CONSOLE_ROOT: &str = "console";
/// Name of the manifest below `STATE/cell`.
pub const MANIFEST: &str = "manifest";
/// Where our own programs lie inside the root.
pub const PROGRAMS: &str = "/skep";

/// Where things are taken from and put to.
#[derive(Debug, Clone)]
pub struct Config {
    /// STATE.
    pub state: PathBuf,
    /// Directories that stand for `/`, searched in this order before `/` itself (`STATE/pkg`, where packages were unpacked).
    pub prefixes: Vec<PathBuf>,
    /// Directory of `skep-vm-runner` and `skep-console-proxy`.
    pub programs: PathBuf,
}

/// A prepared root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Version of the hypervisor as its file says; `unknown` if it does not. `None`: it is not installed.
    pub hypervisor: Option<String>,
    /// Whether UEFI firmware is there.
    pub uefi: bool,
    /// Whether the hypervisor can share directories of the host (virtio-9p): its file says so.
    pub shares: bool,
    /// Whether it can hand a guest items of fw_cfg: likewise.
    pub fw_cfg: bool,
    /// What machines would miss.
    pub missing: Vec<Missing>,
    /// Files in the root.
    pub files: usize,
    /// Bytes in the root.
    pub bytes: u64,
    /// Whether it had to be built anew.
    pub rebuilt: bool,
}

/// Something that was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What it is for: `hypervisor`, `UEFI firmware`.
    pub what: String,
    /// The path that was looked for below every prefix.
    pub path: PathBuf,
    /// Names of the package that has it.
    pub package: &'static str,
    /// Whether no machine can run without it.
    pub required: bool,
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Somebody else could have put anything there.
    #[error("{}: it can be written by others (owner {owner}, mode {mode:o}); correct its owner and mode", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// A library that a program needs.
    #[error("{}: needs {library}, which is not installed; install its package again", program.display())]
    Library {
        /// Who needs it.
        program: PathBuf,
        /// Its name.
        library: String,
    },
    /// A program that is not one for this machine.
    #[error("{}: {why}", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One of ours.
    #[error("{}: not found; it belongs beside the skep command", .0.display())]
    OurProgram(PathBuf),
}

/// Removes what a suite's spawner made on the host at its start and may not remove itself (its control groups), once no cell of the
/// instance is left; while one is, this removes nothing of it. Called by root, when the suite ends.
pub fn forget(instance: &str) -> io::Result<()> {
    platform::forget(instance)
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { what, path, error }
}

/// Makes sure that `STATE/cell/root` is there and up to date. What is merely not installed is in the report, not an error.
pub fn prepare(config: &Config) -> Result<Report, Error> {
    let cell = config.state.join("cell");
    build::directory(&cell)?;
    // Two callers at a time (`skep up`, `skep doctor`): the second finds the work done.
    let lock = cell.join("lock");
    let file = std::fs::File::create(&lock).map_err(failed("make", &lock))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed("lock", &lock)(e.into()))?;
    let report = match manifest::still_true(config, &cell) {
        Some(report) => report,
        None => build::build(config, &cell)?,
    };
    build::sweep(&cell)?;
    Ok(report)
}

/// What the manifest in `STATE/cell` says, without looking whether it is still true. `None`: there is no root.
pub fn describe(cell: &Path) -> Option<Report> {
    if cell.join(ROOT).is_dir() { manifest::read(cell).map(|m| m.report) } else { None }
}
