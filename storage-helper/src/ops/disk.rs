//! Disks: files in `STATE/disks`, named `UUID.raw` or `UUID.qcow2`; volumes are in [`volume`].

use super::volume;
use crate::format::{MAX_SIZE, MIN_SIZE, SECTOR, cut, header::Header, image, make};
use crate::job::Jobs;
use crate::platform;
use crate::store::{self, At, Store, hand_out, names, open_if_there, remove};
use crate::zfs::{Stage, Volumes};
use nix::fcntl::OFlag;
use skep_proto::storage::{
    CreateDisk, DeleteDisk, DiskKind, DiskOpened, DiskPage, DiskState, Done, Growth, ListDisks, MayGrow, OpenDisk, ResizeDisk,
    WipeDisk,
};
use skep_proto::{DiskId, OneFd, Reason, Refusal};
use std::fs::{File, Metadata, TryLockError};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Most disks on one page of a list.
const PAGE: usize = 100;

/// What a disk is called in refusals.
pub fn object(disk: DiskId) -> String {
    format!("disk {disk}")
}

fn ending(kind: DiskKind) -> Option<&'static str> {
    match kind {
        DiskKind::Raw => Some("raw"),
        DiskKind::Qcow2 => Some("qcow2"),
        DiskKind::Zvol | DiskKind::Iscsi => None,
    }
}

/// The name of a disk's file.
pub fn file_name(disk: DiskId, kind: DiskKind) -> Result<String, Refusal> {
    let what = if kind == DiskKind::Iscsi { "an iSCSI disk is kept by its target" } else { "a ZFS volume is no file" };
    let unsupported = || Refusal::new(Reason::Unsupported, object(disk)).field("kind").note(what);
    ending(kind).map(|ending| format!("{disk}.{ending}")).ok_or_else(unsupported)
}

/// Reads the name of a disk's file.
fn parse_name(name: &str) -> Option<(DiskId, DiskKind)> {
    let (id, end) = name.split_once('.')?;
    let kind = [DiskKind::Raw, DiskKind::Qcow2].into_iter().find(|kind| ending(*kind) == Some(end))?;
    Some((id.parse().ok()?, kind))
}

/// Refuses a size that no disk may have.
pub fn check_size(object: &str, size: u64) -> Result<(), Refusal> {
    let refuse = |reason, note: String| Err(Refusal::new(reason, object).field("size_bytes").note(note));
    if size > MAX_SIZE {
        refuse(Reason::TooLarge, format!("{size} bytes; at most {MAX_SIZE} (64 TiB) are permitted"))
    } else if size < MIN_SIZE {
        refuse(Reason::InvalidValue, format!("{size} bytes; at least {MIN_SIZE} (1 MiB) are needed"))
    } else if !size.is_multiple_of(SECTOR) {
        refuse(Reason::InvalidValue, format!("{size} bytes; it must be a multiple of {SECTOR}"))
    } else {
        Ok(())
    }
}

/// What an open disk is now.
pub fn state(object: &str, disk: DiskId, kind: DiskKind, file: &File) -> Result<DiskState, Refusal> {
    looked_at(object, disk, kind, file, &file.metadata().at(object, "stat")?)
}

/// The same of one whose metadata are known.
fn looked_at(object: &str, disk: DiskId, kind: DiskKind, file: &File, meta: &Metadata) -> Result<DiskState, Refusal> {
    let size = match kind {
        DiskKind::Qcow2 => image::header(file).map_err(|e| e.into_refusal(object))?.size,
        DiskKind::Raw | DiskKind::Zvol | DiskKind::Iscsi => meta.len(),
    };
    Ok(DiskState { disk, kind, size, allocated: meta.blocks().saturating_mul(512) })
}

/// Refuses to make a disk that is there already, of whatever kind, or is being made.
pub fn check_absent(store: &Store, jobs: &Jobs, disk: DiskId) -> Result<(), Refusal> {
    jobs.check_idle(disk)?;
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let there = open_if_there(store.disks.as_fd(), &file_name(disk, kind)?, OFlag::O_RDONLY).at(&object(disk), "look up")?;
        if there.is_some() {
            return Err(Refusal::new(Reason::AlreadyExists, object(disk)).note(format_args!("it exists as {kind:?}")));
        }
    }
    let Some(volumes) = &store.volumes else { return Ok(()) };
    match volumes.look(disk)? {
        Some(there) if there.stage == Stage::Ready => {
            Err(Refusal::new(Reason::AlreadyExists, object(disk)).note("it exists as Zvol"))
        }
        // No job makes it: an earlier one left it.
        Some(_) => volumes.destroy(disk),
        None => Ok(()),
    }
}

/// Opens an existing disk.
pub fn open_existing(store: &Store, disk: DiskId, kind: DiskKind, flags: OFlag) -> Result<File, Refusal> {
    let object = object(disk);
    let file = open_if_there(store.disks.as_fd(), &file_name(disk, kind)?, flags).at(&object, "open")?;
    file.ok_or_else(|| Refusal::new(Reason::NotFound, object).note(format_args!("as {kind:?}")))
}

/// Locks an open disk (flock(2)): whoever holds a copy of the descriptor holds the lock.
pub fn lock(object: &str, file: &File, shared: bool) -> Result<(), Refusal> {
    match if shared { file.try_lock_shared() } else { file.try_lock() } {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Refusal::new(Reason::InUse, object).note("somebody holds it open")),
        Err(TryLockError::Error(e)) => Err(Refusal::io(object, "lock", &e)),
    }
}

/// [`CreateDisk`].
pub fn create(store: &Store, jobs: &Jobs, call: &CreateDisk) -> Result<DiskState, Refusal> {
    let object = object(call.disk);
    check_size(&object, call.size)?;
    if call.kind == DiskKind::Zvol {
        return volume::create(store, jobs, call);
    }
    let name = file_name(call.disk, call.kind)?;
    if let Some(file) = open_if_there(store.disks.as_fd(), &name, OFlag::O_RDONLY).at(&object, "look up")? {
        let there = state(&object, call.disk, call.kind, &file)?;
        let note = format!("it exists with {} bytes", there.size);
        return if there.size == call.size {
            Ok(there)
        } else {
            Err(Refusal::new(Reason::AlreadyExists, object).field("size_bytes").note(note))
        };
    }
    check_absent(store, jobs, call.disk)?;
    let file = store::make(store.disks.as_fd(), &name, &object, |file| empty(&object, file, call.kind, call.size))?;
    state(&object, call.disk, call.kind, &file)
}

/// Makes a new file an empty disk.
fn empty(object: &str, file: &File, kind: DiskKind, size: u64) -> Result<(), Refusal> {
    match kind {
        DiskKind::Qcow2 => make::create(file, size).at(object, "write"),
        DiskKind::Raw | DiskKind::Zvol | DiskKind::Iscsi => file.set_len(size).at(object, "set the size"),
    }
}

/// [`WipeDisk`].
pub fn wipe(store: &Store, jobs: &Jobs, call: &WipeDisk) -> Result<DiskState, Refusal> {
    let object = object(call.disk);
    check_size(&object, call.size)?;
    jobs.check_idle(call.disk)?;
    if call.kind == DiskKind::Zvol {
        return volume::wipe(store, call);
    }
    let name = file_name(call.disk, call.kind)?;
    let former = open_if_there(store.disks.as_fd(), &name, OFlag::O_RDONLY).at(&object, "open")?;
    // Locked until another is in its place: who opens it meanwhile is refused.
    former.as_ref().map(|file| lock(&object, file, false)).transpose()?;
    let file = store::make_over(store.disks.as_fd(), &name, &object, |file| empty(&object, file, call.kind, call.size))?;
    state(&object, call.disk, call.kind, &file)
}

/// As it is to be opened for a hypervisor.
pub fn flags(call: &OpenDisk) -> OFlag {
    let access = if call.read_only { OFlag::O_RDONLY } else { OFlag::O_RDWR };
    access | platform::cache_flags(call.no_cache, call.sync)
}

/// [`OpenDisk`].
pub fn open(store: &Store, call: &OpenDisk) -> Result<(DiskOpened, OneFd), Refusal> {
    if call.kind == DiskKind::Zvol {
        return volume::open(store, call);
    }
    let file = open_existing(store, call.disk, call.kind, flags(call))?;
    lock(&object(call.disk), &file, call.read_only)?;
    opened(call.disk, call.kind, file, call.no_cache)
}

/// An open file on its way out.
pub fn opened(disk: DiskId, kind: DiskKind, file: File, no_cache: bool) -> Result<(DiskOpened, OneFd), Refusal> {
    let object = object(disk);
    let meta = file.metadata().at(&object, "stat")?;
    let state = looked_at(&object, disk, kind, &file, &meta)?;
    let most = most(&state, meta.len());
    // Not before: what is read past the cache is read by whole blocks.
    platform::set_cache(file.as_fd(), no_cache).at(&object, "pass by the cache")?;
    Ok((DiskOpened { disk: state, most }, [hand_out("disk", &object, file)?]))
}

/// Bytes that a disk's file may come to have, of which it has `now`: those of the disk, and tables, for which a 16th is ample with clusters of
/// 512 bytes, and clusters that its hypervisor lost in a crash. Of a raw one, too: while its machine runs a QCOW2 file may come upon it.
fn most(state: &DiskState, now: u64) -> u64 {
    match state.kind {
        DiskKind::Raw | DiskKind::Qcow2 => now.max(state.size).saturating_add(state.size / 16).saturating_add(64 << 20),
        DiskKind::Zvol | DiskKind::Iscsi => 0,
    }
}

/// Refuses a size that is less than a disk has, unless that is meant.
pub fn check_loss(object: &str, now: u64, size: u64, shrink: bool) -> Result<(), Refusal> {
    let lost = now.saturating_sub(size);
    if lost == 0 || shrink {
        return Ok(());
    }
    let note = format_args!("it has {now} bytes: the last {lost} bytes would be lost; if that is meant, say so (--force)");
    Err(Refusal::new(Reason::InvalidValue, object).field("size_bytes").note(note))
}

/// [`ResizeDisk`].
pub fn resize(store: &Store, call: &ResizeDisk) -> Result<DiskState, Refusal> {
    let object = object(call.disk);
    check_size(&object, call.size)?;
    if call.kind == DiskKind::Zvol {
        return volume::resize(store, call);
    }
    let file = open_existing(store, call.disk, call.kind, OFlag::O_RDWR)?;
    lock(&object, &file, false)?;
    let size = state(&object, call.disk, call.kind, &file)?.size;
    check_loss(&object, size, call.size, call.shrink)?;
    if call.size != size {
        match call.kind {
            DiskKind::Qcow2 if call.size > size => grow_qcow2(&object, &file, call.size)?,
            DiskKind::Qcow2 => cut::shrink(&file, call.size).map_err(|e| e.into_refusal(&object))?,
            DiskKind::Raw | DiskKind::Zvol | DiskKind::Iscsi => file.set_len(call.size).at(&object, "set the size")?,
        }
        file.sync_all().at(&object, "sync")?;
    }
    state(&object, call.disk, call.kind, &file)
}

/// [`MayGrow`].
pub fn may_grow(store: &Store, call: &MayGrow) -> Result<Growth, Refusal> {
    let object = object(call.disk);
    check_size(&object, call.size)?;
    let file = open_existing(store, call.disk, call.kind, OFlag::O_RDONLY)?;
    let meta = file.metadata().at(&object, "stat")?;
    let now = looked_at(&object, call.disk, call.kind, &file, &meta)?;
    if call.size < now.size {
        let note = format_args!("it has {} bytes, and a machine runs from it: it can only grow", now.size);
        return Err(Refusal::new(Reason::InvalidValue, object).field("size_bytes").note(note));
    }
    Ok(Growth { most: most(&DiskState { size: call.size, ..now }, meta.len()) })
}

fn grow_qcow2(object: &str, file: &File, size: u64) -> Result<(), Refusal> {
    let most = make::most(&image::header(file).map_err(|e| e.into_refusal(object))?);
    if size > most {
        let note = format_args!("its tables allow {most} bytes; import it as a raw disk to make it larger");
        return Err(Refusal::new(Reason::TooLarge, object).field("size_bytes").note(note));
    }
    make::grow(file, size).map_err(|e| e.into_refusal(object))
}

/// [`DeleteDisk`].
pub fn delete(store: &Store, jobs: &Jobs, call: &DeleteDisk) -> Result<Done, Refusal> {
    if call.kind == DiskKind::Zvol {
        return volume::delete(store, jobs, call).map(|()| Done {});
    }
    let (object, name) = (object(call.disk), file_name(call.disk, call.kind)?);
    jobs.check_idle(call.disk)?;
    if let Some(file) = open_if_there(store.disks.as_fd(), &name, OFlag::O_RDONLY).at(&object, "open")? {
        lock(&object, &file, false)?;
        remove(store.disks.as_fd(), &name).at(&object, "delete")?;
        nix::unistd::fsync(&store.disks).at(&object, "sync the directory")?;
    }
    Ok(Done {})
}

/// [`ListDisks`]. A disk whose image is broken is listed with size 0, so that it can be seen and deleted.
pub fn list(store: &Store, call: &ListDisks) -> Result<DiskPage, Refusal> {
    let all = names(store.disks.as_fd()).at("disks", "list")?;
    let volumes = store.volumes.as_ref().map_or_else(|| Ok(Vec::new()), Volumes::list)?;
    let files = all.iter().filter_map(|name| parse_name(name)).map(|(disk, kind)| (disk, kind, None));
    let found = files.chain(volumes.iter().map(|volume| (volume.disk, DiskKind::Zvol, Some(volume.state()))));
    let mut found: Vec<_> = found.filter(|(id, ..)| call.after.is_none_or(|a| *id > a)).collect();
    found.sort_unstable_by_key(|(id, ..)| *id);
    let mut disks = Vec::new();
    for (disk, kind, known) in found.into_iter().take(PAGE) {
        if let Some(known) = known {
            disks.push(known);
            continue;
        }
        let object = object(disk);
        let Some(file) = open_if_there(store.disks.as_fd(), &file_name(disk, kind)?, OFlag::O_RDONLY).at(&object, "open")? else {
            continue;
        };
        let broken = |_| {
            let allocated = file.metadata().map_or(0, |m| m.blocks().saturating_mul(512));
            DiskState { disk, kind, size: 0, allocated }
        };
        disks.push(state(&object, disk, kind, &file).unwrap_or_else(broken));
    }
    Ok(DiskPage { disks })
}

/// The header of a file's first bytes, for the total of an import's progress.
pub fn virtual_size(prefix: &[u8]) -> u64 {
    Header::parse(prefix, u64::MAX).map_or(0, |header| header.size)
}
