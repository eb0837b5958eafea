//! Disks that are ZFS volumes: what the operations on disks do to them.

use super::disk::{check_absent, check_loss, lock, object};
use crate::job::Jobs;
use crate::store::{Store, hand_out};
use crate::zfs::{Stage, Volume, whole_blocks};
use nix::fcntl::OFlag;
use skep_proto::storage::{CloneDisk, CreateDisk, DeleteDisk, DiskOpened, DiskState, JobDone, OpenDisk, ResizeDisk, WipeDisk};
use skep_proto::{DiskId, OneFd, Reason, Refusal};
use std::fs::File;

/// Opens one and locks it: whoever holds the descriptor holds the lock.
fn open_locked(store: &Store, disk: DiskId, flags: OFlag, shared: bool) -> Result<(Volume, File), Refusal> {
    let object = object(disk);
    let volumes = store.volumes(&object)?;
    let volume = volumes.find(disk)?;
    let device = volumes.open(disk, flags)?;
    lock(&object, &device, shared)?;
    Ok((volume, device))
}

/// Makes an empty one.
pub fn create(store: &Store, jobs: &Jobs, call: &CreateDisk) -> Result<DiskState, Refusal> {
    let object = object(call.disk);
    let volumes = store.volumes(&object)?;
    jobs.check_idle(call.disk)?;
    match volumes.look(call.disk)? {
        Some(there) if there.stage == Stage::Ready && there.size == whole_blocks(call.size) => return Ok(there.state()),
        Some(there) if there.stage == Stage::Ready => {
            let note = format_args!("it exists with {} bytes", there.size);
            return Err(Refusal::new(Reason::AlreadyExists, object).field("size_bytes").note(note));
        }
        _ => {}
    }
    check_absent(store, jobs, call.disk)?;
    Ok(volumes.create(call.disk, call.size, Stage::Ready)?.state())
}

/// Hands its device out.
pub fn open(store: &Store, call: &OpenDisk) -> Result<(DiskOpened, OneFd), Refusal> {
    let (volume, device) = open_locked(store, call.disk, super::disk::flags(call), call.read_only)?;
    Ok((DiskOpened { disk: volume.state(), most: 0 }, [hand_out("volume", &object(call.disk), device)?]))
}

/// Makes it larger, or smaller.
pub fn resize(store: &Store, call: &ResizeDisk) -> Result<DiskState, Refusal> {
    let (volume, _locked) = open_locked(store, call.disk, OFlag::O_RDONLY, false)?;
    let (object, size) = (object(call.disk), whole_blocks(call.size));
    check_loss(&object, volume.size, size, call.shrink)?;
    let volumes = store.volumes(&object)?;
    if size < volume.size && !volumes.snapshots(call.disk)?.is_empty() {
        return Err(Refusal::new(Reason::InUse, object).note("it has snapshots, and becomes no smaller with them"));
    }
    if size != volume.size {
        volumes.set_size(call.disk, size)?;
    }
    Ok(volumes.find(call.disk)?.state())
}

/// Destroys it and makes another, if nobody has it open and it has no snapshots. Cut off between the two, it is not there, and the next
/// attempt makes it.
pub fn wipe(store: &Store, call: &WipeDisk) -> Result<DiskState, Refusal> {
    let volumes = store.volumes(&object(call.disk))?;
    if volumes.look(call.disk)?.is_some() {
        if !volumes.snapshots(call.disk)?.is_empty() {
            return Err(Refusal::new(Reason::InUse, object(call.disk)).note("it has snapshots; delete them first"));
        }
        // As above.
        drop(open_locked(store, call.disk, OFlag::O_RDONLY, false)?);
        volumes.destroy(call.disk)?;
    }
    Ok(volumes.create(call.disk, call.size, Stage::Ready)?.state())
}

/// Destroys it, if nobody has it open.
pub fn delete(store: &Store, jobs: &Jobs, call: &DeleteDisk) -> Result<(), Refusal> {
    let object = object(call.disk);
    let volumes = store.volumes(&object)?;
    jobs.check_idle(call.disk)?;
    match volumes.look(call.disk)? {
        None => return Ok(()),
        // It must be closed again before it can be destroyed; nobody but this process hands it out.
        Some(there) if there.stage == Stage::Ready => drop(open_locked(store, call.disk, OFlag::O_RDONLY, false)?),
        Some(_) => {}
    }
    volumes.destroy(call.disk)
}

/// Copies one, at once: the copy shares its blocks. A snapshot stays as it is whoever writes.
pub fn copy(store: &Store, jobs: &Jobs, call: &CloneDisk) -> Result<JobDone, Refusal> {
    let _locked = match call.snapshot {
        Some(_) => None,
        None => Some(open_locked(store, call.from, OFlag::O_RDONLY, true)?),
    };
    check_absent(store, jobs, call.to)?;
    let volumes = store.volumes(&object(call.to))?;
    let made = volumes.copy(call.from, call.snapshot, call.to).inspect_err(|_| {
        // Nothing can be done about a failure here; the next start sweeps.
        let _ = volumes.destroy(call.to);
    })?;
    Ok(JobDone { disk: made.state(), sha256: None })
}

/// Begins one that a job fills, as large as a disk can be: it occupies what is written, and how large it is to be shows at the end.
pub fn begin(store: &Store, disk: DiskId) -> Result<File, Refusal> {
    let volumes = store.volumes(&object(disk))?;
    volumes.create(disk, crate::format::MAX_SIZE, Stage::Making)?;
    volumes.open(disk, OFlag::O_RDWR).inspect_err(|_| {
        // As above.
        let _ = volumes.destroy(disk);
    })
}
