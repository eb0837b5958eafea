//! Snapshots: of volumes. Files have none.

use super::disk::{lock, object};
use crate::job::Jobs;
use crate::store::Store;
use crate::zfs::Volumes;
use nix::fcntl::OFlag;
use skep_proto::storage::{
    CreateSnapshot, DeleteSnapshot, DiskKind, DiskState, Done, ListSnapshots, RollBackDisk, SnapshotPage, SnapshotState,
};
use skep_proto::{DiskId, Reason, Refusal};

/// Most snapshots on one page of a list.
const PAGE: usize = 100;

fn volumes(store: &Store, disk: DiskId, kind: DiskKind) -> Result<&Volumes, Refusal> {
    match kind {
        DiskKind::Zvol => store.volumes(&object(disk)),
        DiskKind::Raw | DiskKind::Qcow2 | DiskKind::Iscsi => Err(Refusal::new(Reason::Unsupported, object(disk))
            .field("kind")
            .note("only ZFS volumes (kind zvol) have snapshots; copy the disk instead")),
    }
}

/// [`CreateSnapshot`].
pub fn create(store: &Store, jobs: &Jobs, call: &CreateSnapshot) -> Result<SnapshotState, Refusal> {
    let volumes = volumes(store, call.disk, call.kind)?;
    jobs.check_idle(call.disk)?;
    volumes.snapshot(call.disk, call.snapshot)
}

/// [`ListSnapshots`].
pub fn list(store: &Store, call: &ListSnapshots) -> Result<SnapshotPage, Refusal> {
    let mut snapshots = volumes(store, call.disk, call.kind)?.snapshots(call.disk)?;
    snapshots.retain(|state| call.after.is_none_or(|after| state.snapshot > after));
    snapshots.truncate(PAGE);
    Ok(SnapshotPage { snapshots })
}

/// [`RollBackDisk`]. The kernel would roll an open volume back, too, under whoever has it open: the lock says whether somebody has.
pub fn roll_back(store: &Store, call: &RollBackDisk) -> Result<DiskState, Refusal> {
    let volumes = volumes(store, call.disk, call.kind)?;
    volumes.find(call.disk)?;
    let device = volumes.open(call.disk, OFlag::O_RDONLY)?;
    lock(&object(call.disk), &device, false)?;
    Ok(volumes.roll_back(call.disk, call.snapshot)?.state())
}

/// [`DeleteSnapshot`].
pub fn delete(store: &Store, call: &DeleteSnapshot) -> Result<Done, Refusal> {
    volumes(store, call.disk, call.kind)?.delete_snapshot(call.disk, call.snapshot)?;
    Ok(Done {})
}
