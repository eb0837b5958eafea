//! The space that is left.

use crate::platform;
use crate::store::{At, Store};
use nix::sys::statvfs::fstatvfs;
use skep_proto::storage::SpaceState;
use skep_proto::{Refusal, Text};
use std::os::fd::AsFd;

/// `Space`.
pub fn space(store: &Store) -> Result<SpaceState, Refusal> {
    let stat = fstatvfs(&store.disks).at("disks", "statvfs")?;
    let filesystem = platform::filesystem(store.disks.as_fd()).at("disks", "statfs")?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Ok(SpaceState {
        total: bytes(stat.blocks()),
        free: bytes(stat.blocks_available()),
        filesystem: Text::lossy(&filesystem),
        reflink: store.reflink,
    })
}

/// `VolumeSpace`.
pub fn volumes(store: &Store) -> Result<SpaceState, Refusal> {
    store.volumes("volumes")?.space()
}
