//! What differs between the hosts: sharing blocks, names of file systems, where the firmware's template lies, narrowing of
//! descriptors, confinement of a job.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub use freebsd::*;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;
