//! FreeBSD.

mod bare;

pub use bare::Bare;

use super::Cell;
use crate::report::Outcome;
use anyhow::{Result, bail};
use skep_tests::{Suite, is_root};

const NO_PSS: &str = "this kernel does not share memory out among processes (no PSS)";

/// Why the memory of processes cannot be seen here.
pub fn cannot_weigh() -> Option<&'static str> {
    Some(NO_PSS)
}

/// One line about the machine.
pub fn facts() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let uname = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let who = if is_root() { "root" } else { "an ordinary user" };
    format!("Machine: {cores} cores, FreeBSD {uname}; measured as {who}.")
}

/// The cores that this process may run on.
pub fn cores() -> Result<Vec<usize>> {
    Ok(skep_sys::freebsd::cpu::allowed()?)
}

/// Has a process run on these cores only.
pub fn place(pid: i32, cores: &[usize]) -> Result<()> {
    Ok(skep_sys::freebsd::cpu::place(pid, cores)?)
}

/// How many threads this process has: it starts none.
pub fn threads() -> Result<usize> {
    Ok(1)
}

/// See [`cannot_weigh`].
pub fn pss(_pid: i32) -> Result<u64> {
    bail!(NO_PSS)
}

/// See [`cannot_weigh`].
pub fn services(_suite: &Suite) -> Result<Vec<(i32, String)>> {
    bail!(NO_PSS)
}

/// See [`cannot_weigh`].
pub fn cell(_suite: &Suite) -> Result<Cell> {
    bail!(NO_PSS)
}

/// libvirt's calls, beside ours.
pub fn libvirt(_few: usize, _many: usize) -> Result<(crate::many::Measured, crate::many::Measured)> {
    anyhow::bail!("it is measured on Linux")
}

/// The process that measures them.
pub fn bare_libvirt(_few: usize, _many: usize) -> Result<()> {
    anyhow::bail!("it is measured on Linux")
}

/// Launches are measured where the network is made by hand beside it.
pub fn launch() -> Result<Outcome> {
    Ok(Outcome::Skipped("it is measured on Linux".into()))
}

/// See [`launch`].
pub fn nat() -> Result<Outcome> {
    launch()
}

/// See [`launch`].
pub fn dhcp() -> Result<Outcome> {
    launch()
}
