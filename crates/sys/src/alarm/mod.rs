//! A timer that can be waited for like any descriptor.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::Alarm;
#[cfg(target_os = "linux")]
pub use linux::Alarm;
