//! How frames are read and written.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::Frames;
#[cfg(target_os = "linux")]
pub use linux::Frames;
