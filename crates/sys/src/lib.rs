//! System calls that the libraries lack, as safe functions over owned descriptors. The only crate with `unsafe`.
#![allow(unsafe_code)]

pub mod alarm;
pub mod changes;
pub mod child;
pub mod fd;
pub mod frames;
pub mod lock;
pub mod msg;
pub mod pf;
pub mod process;
pub mod sock;

#[cfg(target_os = "freebsd")]
pub mod freebsd;
#[cfg(target_os = "linux")]
pub mod linux;
