//! Disk formats. [`header`] is pure and looks at nothing but bytes; [`image`] (QCOW2), [`layers`] (QCOW2 and raw), [`vmdk`], [`vhd`] and [`vhdx`]
//! read open files, [`packed`] streams, in a child that holds only its descriptors; [`make`] and [`cut`] write, and believe nothing but a checked header.

pub mod cut;
pub mod field;
pub mod header;
pub mod image;
pub mod layers;
pub mod make;
pub mod packed;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

/// Smallest disk that is made.
pub const MIN_SIZE: u64 = 1 << 20;
/// Largest disk.
pub const MAX_SIZE: u64 = 64 << 40;
/// Sizes are multiples of this.
pub const SECTOR: u64 = 512;
