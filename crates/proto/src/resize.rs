//! Of storage-helper's messages those about sizes of disks.

use crate::{DiskId, storage::DiskKind};
use serde::{Deserialize, Serialize};

/// Makes a disk that nobody has open larger; or smaller, if that is said: its last bytes are lost, and read as zeros if it grows again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeDisk {
    /// Which.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
    /// The new size in bytes; a multiple of 512.
    pub size: u64,
    /// Whether it may become smaller.
    pub shrink: bool,
}

/// Asks whether a disk may become larger that its hypervisor has open, which makes it so itself. Nothing is done to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MayGrow {
    /// Which.
    pub disk: DiskId,
    /// Its kind; a volume is refused.
    pub kind: DiskKind,
    /// The new size in bytes; a multiple of 512, not smaller than the present one.
    pub size: u64,
}

/// See [`MayGrow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Bytes that its file may then come to have.
    pub most: u64,
}
