//! What a cell's root consists of, on each host.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "freebsd")]
pub use freebsd::*;
#[cfg(target_os = "linux")]
pub use linux::*;

/// A file that belongs into the root.
pub struct Item {
    /// Where it is and will be.
    pub path: &'static str,
    /// What it is, in a report.
    pub what: &'static str,
    /// The package that has it; empty: nobody misses it.
    pub package: &'static str,
    /// An ELF file, to be taken with its libraries.
    pub program: bool,
    /// No machine runs without it.
    pub required: bool,
}
