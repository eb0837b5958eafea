//! The variable store of UEFI firmware that is built from edk2 (OVMF, bhyve's): read, changed and written again. Pure; no I/O.
//!
//! * [`Store`] is an image's variables. A guest writes them, so every length is checked, and a damaged image is refused as [`Damage`].
//! * [`boot`] reads and sets which entry is booted.
//! * [`path`] prints where a boot entry leads to, and makes the beginnings of such paths.
//!
//! An image is a firmware volume (PI specification, volume 3) that holds a header, the variables one after the other, and, behind
//! them, the space in which the firmware puts what it rewrites aside (fault tolerant write). Everything but the variables stays as it
//! is, byte for byte; so do variables that nobody changes.
#![forbid(unsafe_code)]

pub mod boot;
mod bytes;
mod guid;
pub mod path;
mod record;
mod store;
mod text;
mod volume;

pub use guid::Guid;
pub use record::{Variable, attribute};
pub use store::{Change, Store};
pub use volume::Damage;

/// Bytes of the largest image that is read; real ones have 128 to 528 KiB.
pub const MAX_IMAGE: usize = 16 << 20;
