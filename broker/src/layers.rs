//! What disks of a machine stand on, on its way into the cell.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::layers::{LayerRow, Layers};
use crate::helpers::{Lent, PATIENCE};
use crate::parts::format;
use crate::spec::{Disk, Spec};
use serde::{Deserialize, Serialize};
use skep_proto::broker::DiskFlags;
use skep_proto::runner::{DiskSwitch, KeepLayers, LayerPlace, Runner};
use skep_proto::storage::{DiskKind, Layer, OpenDisk, OpenLayer};
use skep_proto::{DiskId, DiskRates, MAX_FDS, Reason, Refusal, UpTo};
use std::os::fd::OwnedFd;

/// What a disk of a running machine is kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayers {
    /// The disk, by its place among the machine's.
    pub slot: u8,
    /// The file that is written.
    pub top: DiskId,
    /// What that stands on, the topmost first.
    pub under: Vec<(DiskId, DiskKind)>,
}

impl DiskLayers {
    /// How what it stands on is kept.
    pub fn formats(&self) -> Vec<skep_machine::Format> {
        self.under.iter().map(|(_, kind)| format(*kind)).collect()
    }
}

/// What each of them writes to, and what that stands on, by slot.
pub fn of(broker: &Broker, disks: &[Disk]) -> Result<Vec<DiskLayers>, Refusal> {
    let mut all = Vec::new();
    for (slot, disk) in (0..).zip(disks) {
        let Some(row) = broker.read(|db| db.disk(disk.disk))? else { continue };
        let Some(top) = row.top else { continue };
        all.push(of_one(slot, top, broker.read(|db| db.layers_from(top))?));
    }
    Ok(all)
}

/// How much goes to and from each of them, by slot, of those that are held to something.
pub fn rates(broker: &Broker, disks: &[Disk]) -> Result<Vec<(u8, DiskRates)>, Refusal> {
    let mut all = Vec::new();
    for (slot, disk) in (0..).zip(disks) {
        let rates = broker.read(|db| db.disk(disk.disk))?.map(|row| row.rates).unwrap_or_default();
        if rates != DiskRates::default() {
            all.push((slot, rates));
        }
    }
    Ok(all)
}

/// The files of one.
pub fn of_one(slot: u8, top: DiskId, layers: Vec<LayerRow>) -> DiskLayers {
    DiskLayers { slot, top, under: layers.iter().skip(1).map(|layer| (layer.id, layer.kind)).collect() }
}

/// What a machine runs with, with the files that its disks are in by now: those that it writes, and that went on in another upon the old one.
pub fn followed(broker: &Broker, applied: &Spec) -> Result<Spec, Refusal> {
    let mut now = applied.clone();
    for files in &mut now.layers {
        let Some(disk) = now.disks.get_mut(usize::from(files.slot)) else { continue };
        let row = broker.read(|db| db.disk(disk.disk))?.filter(|row| row.top != Some(files.top));
        let Some((top, kind)) = row.and_then(|row| Some((row.top?, row.kind))).filter(|_| !disk.read_only && !disk.flags.ejected)
        else {
            continue;
        };
        let layers = broker.read(|db| db.layers_from(top))?;
        let next = of_one(files.slot, top, layers);
        // Anything else would be another disk to the guest.
        let old = [(files.top, disk.kind)].into_iter().chain(files.under.iter().copied());
        if next.under.iter().copied().eq(old) {
            (*files, disk.kind) = (next, kind);
        }
    }
    Ok(now)
}

/// What the runner of a machine needs, whose disks are to go on in other files: which, the descriptors of these, and of those that they stand on.
pub async fn switch(broker: &Broker, who: &Who, old: &Spec, now: &Spec) -> Result<Switch, Refusal> {
    let (mut disks, mut fds, mut under) = (Vec::new(), Vec::new(), Vec::new());
    for (files, before) in now.layers.iter().zip(&old.layers).filter(|(files, before)| files != before) {
        let (Some(disk), Some(&(layer, kind))) = (now.disks.get(usize::from(files.slot)), files.under.first()) else { continue };
        let at = u8::try_from(files.under.len()).map_err(|_| Refusal::new(Reason::LimitReached, "layers"))?;
        let (no_cache, sync) = (disk.flags.no_cache, disk.flags.sync);
        let call = OpenDisk { disk: files.top, kind: disk.kind, read_only: false, no_cache, sync };
        let (_, [file]) = broker.storage.call(who, call).await?;
        fds.push(file);
        // Its writer has it still, and the lock with it.
        let call = OpenLayer { layer: Layer { layer, kind }, held: true, no_cache, sync };
        let (_, [file]) = broker.storage.call(who, call).await?;
        under.push((LayerPlace { slot: files.slot, at: at.saturating_sub(1) }, file));
        debug_assert_eq!(layer, before.top);
        disks.push(DiskSwitch { slot: files.slot, top: files.top, at, no_cache });
    }
    Ok((disks, fds, under))
}

/// See [`switch`].
type Switch = (Vec<DiskSwitch>, Vec<OwnedFd>, Vec<(LayerPlace, OwnedFd)>);

/// The file that a machine's hypervisor writes a disk to, if it has that disk; a volume has none.
pub fn writes_to(applied: &Spec, disk: DiskId) -> Option<Option<DiskId>> {
    let slot = applied.disks.iter().position(|there| there.disk == disk && !there.flags.ejected)?;
    Some(applied.layers.iter().find(|files| usize::from(files.slot) == slot).map(|files| files.top))
}

/// The disks of a machine are in the files that those of `applied` are in.
pub fn take_files(spec: &mut Spec, applied: &Spec) {
    spec.layers.clone_from(&applied.layers);
    spec.rates.clone_from(&applied.rates);
    for (disk, old) in spec.disks.iter_mut().zip(&applied.disks).filter(|(disk, old)| disk.disk == old.disk) {
        disk.kind = old.kind;
    }
}

/// Opens what a disk stands on.
pub async fn open(
    broker: &Broker, who: &Who, layers: Option<&DiskLayers>, flags: DiskFlags,
) -> Result<Vec<(LayerPlace, OwnedFd)>, Refusal> {
    let mut all = Vec::new();
    let Some(DiskLayers { slot, under, .. }) = layers else { return Ok(all) };
    for (at, (layer, kind)) in (0..).zip(under.iter().rev()) {
        let layer = Layer { layer: *layer, kind: *kind };
        let call = OpenLayer { layer, held: false, no_cache: flags.no_cache, sync: flags.sync };
        let (_, [file]) = broker.storage.call(who, call).await?;
        all.push((LayerPlace { slot: *slot, at }, file));
    }
    Ok(all)
}

/// Has the runner keep them, as many at a time as fit a record.
pub async fn keep(who: &Who, runner: &mut Lent<Runner>, layers: Vec<(LayerPlace, OwnedFd)>) -> Result<(), Refusal> {
    let mut layers = layers.into_iter().peekable();
    while layers.peek().is_some() {
        let (places, fds): (Vec<_>, Vec<_>) = layers.by_ref().take(MAX_FDS).unzip();
        runner.ask(who, KeepLayers { layers: places }, UpTo(fds), PATIENCE).await?;
    }
    Ok(())
}

/// To open a raw disk that is read from its beginning to its end.
pub fn whole(broker: &Broker, disk: DiskId) -> Result<OpenDisk, Refusal> {
    let row = broker.read(|db| db.disk(disk))?.ok_or_else(|| Refusal::new(Reason::NotFound, format_args!("disk {disk}")))?;
    if row.kind != DiskKind::Raw || row.base.is_some() {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("disk {}", row.name)).field("boot");
        return Err(refusal.note("it is not a raw disk any more: `skep disk clone` copies a snapshot from when it was"));
    }
    Ok(OpenDisk { disk: row.file(), kind: DiskKind::Raw, read_only: true, no_cache: false, sync: false })
}
