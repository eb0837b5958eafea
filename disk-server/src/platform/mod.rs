//! What differs between hosts: QEMU reads QCOW2 itself.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::serve;
#[cfg(target_os = "linux")]
pub use linux::serve;
