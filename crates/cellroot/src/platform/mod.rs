//! What a cell's root consists of, on each host.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "freebsd")]
pub use freebsd::*;
#[cfg(target_os = "linux")]
pub use linux::*;

/// Files of keyboard layouts, which belong there as far as they are installed.
pub fn keyboards() -> impl Iterator<Item = std::path::PathBuf> {
    skep_machine::layouts(LAYOUTS.0).iter().map(|name| std::path::Path::new(LAYOUTS.1).join(name))
}

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
