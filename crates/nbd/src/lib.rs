//! NBD: how disks are asked for what is in them by whoever reads it over a socket — QEMU of iscsi-initiator, and the gate of a disk-server
//! (FreeBSD) of its reader or of iscsi-initiator. One export; simple replies.
//!
//! Source: the NBD project's doc/proto.md.
#![forbid(unsafe_code)]

mod client;
mod server;

pub use client::{Export, NotNbd, errno};
pub use server::{Client, Over, Request};

/// Bytes of one request, at most.
pub const MOST: u32 = 1 << 20;

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const OPTION: &[u8] = b"IHAVEOPT";
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// The option that asks for the export, without further haggling.
const EXPORT_NAME: u32 = 1;
/// Flags of a handshake: fixed newstyle, no zeroes behind what is known anyway.
const BOTH: u32 = 3;
const READ: u16 = 0;
const WRITE: u16 = 1;
const GOODBYE: u16 = 2;
const FLUSH: u16 = 3;

/// Numbers of errors on the wire.
pub mod error {
    /// Not permitted.
    pub const PERM: u32 = 1;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// No such thing can be asked.
    pub const INVAL: u32 = 22;
    /// No room.
    pub const NOSPC: u32 = 28;
}

/// A disk's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block: u32,
}

impl Geometry {
    /// Bytes.
    pub fn size(self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block))
    }
}
