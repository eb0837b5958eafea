//! Snapshots of disks that are files: the disk goes on in a new file, which stands on the one that it was in. That stays as it is.

use super::copies::Source;
use super::disk::{in_use, replace};
use super::snapshot::{find, object};
use super::taken;
use crate::broker::{Broker, Hold};
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::layers::{LayerRow, Layers};
use crate::db::machines::{MachineRow, Machines};
use crate::db::snapshots::{SnapshotRow, Snapshots};
use crate::db::{Change, Who};
use crate::{cell, layers, platform};
use skep_machine::limits::LAYERS;
use skep_proto::broker::MachineState;
use skep_proto::storage::{CreateDisk, DiskKind, DiskState, Layer, OpenLayer};
use skep_proto::{DiskId, Reason, Refusal, SnapshotId, SnapshotName};
use std::rc::Rc;

/// A snapshot to be.
pub(super) struct Taking {
    pub disk: DiskRow,
    pub snapshot: SnapshotRow,
    /// The file that the disk goes on in.
    next: LayerRow,
    /// Until the database says that it is needed, nobody takes it away as left over.
    _hold: Hold,
    /// Bytes that the one that it was in occupies.
    allocated: u64,
}

/// Refuses a disk of which none can be made.
fn check(broker: &Broker, disk: &DiskRow, name: &SnapshotName) -> Result<DiskId, Refusal> {
    let object = object(disk, name.as_str());
    let refused = |reason, note: String| Err(Refusal::new(reason, &object).note(note));
    if !platform::LAYERS {
        return refused(Reason::Unsupported, "only ZFS volumes (kind zvol) have snapshots here; copy the disk instead".into());
    }
    let Some(top) = disk.top else { return refused(Reason::Unsupported, "it is a volume".into()) };
    if let Some(what) = disk.fixed() {
        return refused(Reason::WrongState, format!("it is {what}: it stays as it is"));
    }
    if let Some(machine) = broker.read(|db| db.booted_from(disk.id))? {
        return refused(
            Reason::InUse,
            format!("machine {machine} boots it as its kernel or initial RAM disk, which is read as a raw file"),
        );
    }
    let layers = broker.read(|db| db.layers_from(top))?.len();
    if layers > LAYERS {
        return refused(
            Reason::LimitReached,
            format!("it stands on {LAYERS} layers already; `skep disk clone --full` makes one of them"),
        );
    }
    Ok(top)
}

/// The machine that writes to a disk, if it runs.
pub(super) fn writer(broker: &Broker, disk: &DiskRow) -> Result<Option<MachineRow>, Refusal> {
    let users = broker.read(|db| db.disk_users(disk.id))?;
    let Some(user) = users.iter().find(|user| user.active && user.writes) else { return Ok(None) };
    let machine = broker.read(|db| db.machine(user.machine))?;
    match machine {
        Some(machine) if matches!(machine.state, MachineState::Running | MachineState::Paused) => Ok(Some(machine)),
        _ => Err(in_use(disk, &format!("machine {} is starting or stopping; try again", user.name))),
    }
}

/// Makes the file that the disk will go on in. Cut off, it goes again.
pub(super) async fn prepare(
    broker: &Rc<Broker>, who: &Who, disk: DiskRow, name: SnapshotName, live: bool, whole: Option<SnapshotId>,
) -> Result<Taking, Refusal> {
    let top = check(broker, &disk, &name)?;
    // Nobody else writes to it, not even a machine that runs with earlier settings.
    let layer = Layer { layer: top, kind: disk.kind };
    let opened = broker.storage.call(who, OpenLayer { layer, held: live, no_cache: false, sync: false }).await?;
    // As the file says: one that grew while a broker died is larger than the database knows, and the next may not be smaller.
    let DiskState { size, allocated, .. } = opened.0.disk;
    drop(opened.1);
    let next = LayerRow { id: DiskId::random(), kind: DiskKind::Qcow2, base: Some(top), allocated: 0 };
    broker.change(who, |change| change.add_layer(&LayerRow { base: None, ..next }, disk.group, true))?;
    let hold = broker.hold(vec![next.id]);
    let call = CreateDisk { disk: next.id, kind: next.kind, size: size.next_multiple_of(512).max(1 << 20) };
    broker.storage.call(who, call).await?;
    let snapshot = SnapshotRow {
        id: SnapshotId::random(),
        disk: disk.id,
        name,
        size,
        used: 0,
        stage: Stage::Creating,
        created_ns: skep_service::now_ns(),
        layer: Some(top),
        whole,
    };
    Ok(Taking { disk, snapshot, next, _hold: hold, allocated })
}

impl Taking {
    /// From here on the disk reads right, wherever its hypervisor writes: the new file is empty, and stands on the old one.
    pub(super) fn commit(&self, broker: &Broker, change: &Change<'_>) -> Result<(), Refusal> {
        let Taking { disk, snapshot, next, allocated, .. } = self;
        if change.find_snapshot(disk.id, snapshot.name.as_str())?.is_some() {
            return Err(taken("snapshot", format_args!("{} of disk {}", snapshot.name, disk.name)));
        }
        if change.disk(disk.id)?.is_none_or(|now| now.top != disk.top) {
            return Err(in_use(disk, "it was changed just now; try again"));
        }
        broker.within_quota(change, disk.group, || {
            next.base.map_or(Ok(()), |top| change.set_layer_allocated(top, *allocated))?;
            change.keep_layer(next)?;
            change.set_disk_top(disk.id, next)?;
            Ok(change.add_snapshot(snapshot)?)
        })
    }

    /// It is made.
    pub(super) fn done(&self, change: &Change<'_>) -> Result<(), Refusal> {
        let Taking { disk, snapshot, .. } = self;
        change.snapshot_ready(snapshot.id, snapshot.size, snapshot.used)?;
        Ok(change.event("disk", disk.id, &disk.name, "changed", format_args!("snapshot {} made", snapshot.name))?)
    }

    /// The hypervisor has refused: the disk goes on where it was. `switched`: it may go on in the new file, so that stays.
    pub(super) fn undo(&self, change: &Change<'_>, switched: bool) -> Result<(), Refusal> {
        let Taking { disk, snapshot, .. } = self;
        if let (false, Some(top)) = (switched, disk.top) {
            let old = LayerRow { id: top, kind: disk.kind, base: disk.base, allocated: 0 };
            change.set_disk_top(disk.id, &old)?;
        }
        Ok(change.remove_snapshot(snapshot.id)?)
    }
}

/// Takes snapshots of disks of one machine, or of nobody's, that are held: all of them or none.
pub(super) async fn take(
    broker: &Rc<Broker>, who: &Who, all: &[Taking], runs: Option<&MachineRow>,
    also: impl FnOnce(&Change<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    broker.change(who, |change| all.iter().try_for_each(|taking| taking.commit(broker, change)))?;
    if let Some(machine) = runs {
        // The settings of now go along, and with them the files.
        let told = cell::configure(broker, who, machine.id).await.and_then(|_| follows(broker, machine, all));
        if let Err(refusal) = told {
            let unsure = matches!(refusal.reason, Reason::Timeout | Reason::Unavailable);
            broker.change(who, |change| all.iter().try_for_each(|taking| taking.undo(change, unsure)))?;
            return Err(refusal);
        }
    }
    broker.change(who, |change| {
        all.iter().try_for_each(|taking| taking.done(change))?;
        also(change)
    })
}

/// Refuses a machine whose hypervisor still writes where it did.
fn follows(broker: &Broker, machine: &MachineRow, all: &[Taking]) -> Result<(), Refusal> {
    let now = broker.read(|db| db.machine(machine.id))?.and_then(|machine| machine.applied);
    let old = || {
        let refusal = Refusal::new(Reason::WrongState, format_args!("machine {}", machine.name));
        refusal.note("it was started by a skep that knew no layers; start it anew")
    };
    let now = now.ok_or_else(old)?;
    let follows = |taking: &Taking| layers::writes_to(&now, taking.disk.id).is_none_or(|top| top == Some(taking.next.id));
    if all.iter().all(follows) { Ok(()) } else { Err(old()) }
}

/// One of a disk.
pub(super) async fn create(broker: &Rc<Broker>, who: &Who, disk: &DiskRow, name: SnapshotName) -> Result<SnapshotRow, Refusal> {
    if broker.read(|db| db.find_snapshot(disk.id, name.as_str()))?.is_some() {
        return Err(taken("snapshot", format_args!("{name} of disk {}", disk.name)));
    }
    let runs = writer(broker, disk)?;
    let hold = broker.hold(vec![disk.id]);
    let taken = async {
        let taking = prepare(broker, who, disk.clone(), name, runs.is_some(), None).await?;
        take(broker, who, std::slice::from_ref(&taking), runs.as_ref(), |change| Ok(change.made(taking.snapshot.id)?)).await?;
        broker.read(|db| find(db, disk, &taking.snapshot.id.to_string()))
    };
    let taken = taken.await;
    drop(hold);
    broker.delete_layers(who).await;
    taken
}

/// The disk goes on in an empty file upon the snapshot's. What it wrote since goes, unless another snapshot or disk needs it.
pub(super) async fn roll_back(
    broker: &Rc<Broker>, who: &Who, disk: &DiskRow, snapshot: &SnapshotRow, layer: DiskId,
) -> Result<(), Refusal> {
    let hold = broker.hold(vec![disk.id]);
    let size = snapshot.size.next_multiple_of(512).max(1 << 20);
    let rolled = replace(broker, who, disk, Some(layer), size).await;
    drop(hold);
    rolled?;
    broker.change(who, |change| {
        Ok(change.event("disk", disk.id, &disk.name, "changed", format_args!("rolled back to snapshot {}", snapshot.name))?)
    })
}

/// The same of several, in one step, in which `also` is done.
pub(super) async fn roll_back_all<'a>(
    broker: &Rc<Broker>, who: &Who, all: impl Iterator<Item = (&'a DiskRow, u64, DiskId)>,
    also: impl FnOnce(&Change<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (mut made, mut holds) = (Vec::new(), Vec::new());
    for (disk, size, base) in all {
        let layer = LayerRow { id: DiskId::random(), kind: DiskKind::Qcow2, base: Some(base), allocated: 0 };
        // Cut off, it goes again.
        broker.change(who, |change| change.add_layer(&LayerRow { base: None, ..layer }, disk.group, true))?;
        holds.push(broker.hold(vec![layer.id]));
        let size = size.next_multiple_of(512).max(1 << 20);
        let (state, []) = broker.storage.call(who, CreateDisk { disk: layer.id, kind: layer.kind, size }).await?;
        made.push((disk.id, layer, state));
    }
    broker.change(who, |change| {
        for (disk, layer, state) in &made {
            change.keep_layer(layer)?;
            change.set_disk_top(*disk, layer)?;
            change.disk_ready(*disk, state.size, state.allocated, None)?;
        }
        also(change)?;
        Ok::<_, Refusal>(change.doom_layers()?)
    })
}

/// A disk as it was when a snapshot was made, to be copied.
pub(super) async fn as_it_was(broker: &Broker, who: &Who, mut disk: DiskRow, name: &str, full: bool) -> Result<Source, Refusal> {
    broker.free(disk.id, disk.name.as_str())?;
    let snapshot = broker.read(|db| find(db, &disk, name))?;
    let object = object(&disk, name);
    let Some(id) = snapshot.layer else {
        disk.size = snapshot.size;
        return Ok(Source { disk, snapshot: Some(snapshot.id) });
    };
    let layer = broker.read(|db| db.layer(id))?.ok_or_else(|| Refusal::new(Reason::Internal, &object))?;
    // A hypervisor that was taken over could write to it as long as it has it open for writing: under other machines, too.
    let call = OpenLayer { layer: Layer::from(&layer), held: full, no_cache: false, sync: false };
    if let Err(refusal) = broker.storage.call(who, call).await {
        let held = refusal.reason == Reason::InUse;
        let note = "its machine runs since before it was made, and could still write to it: stop it, or copy all (full)";
        return Err(if held { Refusal::new(Reason::InUse, object).note(note) } else { refusal });
    }
    (disk.top, disk.kind, disk.base, disk.size) = (Some(layer.id), layer.kind, layer.base, snapshot.size);
    Ok(Source { disk, snapshot: Some(snapshot.id) })
}
