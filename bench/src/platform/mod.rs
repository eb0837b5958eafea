//! What only one kernel shows.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::*;
#[cfg(target_os = "linux")]
pub use linux::*;

/// The processes of a machine that is the suite's only one.
#[derive(Debug)]
pub struct Cell {
    pub runner: i32,
    pub console: i32,
}
