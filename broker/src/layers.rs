//! What disks of a machine stand on, on its way into the cell.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::layers::{LayerRow, Layers};
use crate::helpers::{Lent, PATIENCE};
use crate::parts::format;
use crate::spec::Disk;
use serde::{Deserialize, Serialize};
use skep_proto::broker::DiskFlags;
use skep_proto::runner::{KeepLayers, LayerPlace, Runner};
use skep_proto::storage::{DiskKind, Layer, OpenDisk, OpenLayer};
use skep_proto::{DiskId, MAX_FDS, Reason, Refusal, UpTo};
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

/// The same of one.
pub fn of_one(slot: u8, top: DiskId, layers: Vec<LayerRow>) -> DiskLayers {
    DiskLayers { slot, top, under: layers.iter().skip(1).map(|layer| (layer.id, layer.kind)).collect() }
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
