//! Taps for the machine under test, where the host has them.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::tap;
#[cfg(target_os = "linux")]
pub use linux::tap;
