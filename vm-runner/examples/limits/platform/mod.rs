//! Control groups are Linux's.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::main;

/// Elsewhere there is nothing to try.
#[cfg(not(target_os = "linux"))]
pub fn main() {}
