//! How each host's kernel is asked.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(any(target_os = "freebsd", test))]
mod kinfo;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::Kernel;
#[cfg(target_os = "linux")]
pub use linux::Kernel;

use std::path::PathBuf;

/// A UNIX socket that listens, and who holds it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The path that it was bound to.
    pub path: PathBuf,
    /// The processes.
    pub pids: Vec<i32>,
}
