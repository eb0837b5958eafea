//! Disk formats. [`header`] is pure and looks at nothing but bytes; [`image`] reads open files, in a child that holds only its
//! descriptors; [`make`] writes, and believes nothing but a checked header.

pub mod header;
pub mod image;
pub mod make;

/// Smallest disk that is made.
pub const MIN_SIZE: u64 = 1 << 20;
/// Largest disk.
pub const MAX_SIZE: u64 = 64 << 40;
/// Sizes are multiples of this.
pub const SECTOR: u64 = 512;
