//! Copies of disks: upon the original where that stays as it is, so that they are there at once, else of its bytes.

use crate::broker::Broker;
use crate::db::disks::DiskRow;
use crate::db::layers::Layers;
use crate::db::{Change, Who};
use crate::jobs::{self, Job};
use crate::operations::Operation;
use crate::platform;
use skep_machine::limits::LAYERS;
use skep_proto::storage::{CloneDisk, CreateDisk, DiskKind, JobDone, Layer, MergeLayers, Space};
use skep_proto::{DiskId, DiskName, GroupId, Refusal, SnapshotId};
use std::rc::Rc;

/// The smallest disk that storage-helper makes.
const SMALLEST: u64 = 1 << 20;

/// How the original's bytes come to the copy.
pub(super) enum Way {
    /// The original's file is copied, or shares its blocks; what it stands on, both stand on.
    File(CloneDisk),
    /// It stands on the original: nothing is copied.
    Upon(CreateDisk),
    /// All layers become one file.
    Whole(MergeLayers),
}

/// What is known before a copy is planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// It shall stand on nothing.
    pub full: bool,
    /// The file system shares blocks.
    pub reflink: bool,
}

impl How {
    /// Asks.
    pub(super) async fn ask(broker: &Broker, who: &Who, full: bool) -> Result<Self, Refusal> {
        Ok(Self { full, reflink: broker.storage.call(who, Space {}).await?.0.reflink })
    }
}

/// What is copied: a disk, or what a snapshot has of it, whose writer may still have that.
pub(super) struct Source {
    /// Its row, or as it was then.
    pub disk: DiskRow,
    /// The snapshot.
    pub snapshot: Option<SnapshotId>,
}

/// A copy to be.
pub(super) struct Plan {
    pub kind: DiskKind,
    /// What it will stand on.
    pub base: Option<DiskId>,
    pub way: Way,
}

/// Layers as storage-helper is told them.
pub(super) fn told(layers: &[crate::db::layers::LayerRow]) -> Vec<Layer> {
    layers.iter().map(Layer::from).collect()
}

/// How `to` becomes a copy of `from` with this size, which is not smaller.
pub(super) fn plan(db: &impl Layers, source: &Source, to: DiskId, size: u64, how: How) -> Result<Plan, Refusal> {
    let (from, held) = (&source.disk, source.snapshot.is_some());
    let file = |base, snapshot| {
        let call = CloneDisk { from: from.file(), snapshot, to, kind: from.kind };
        Ok(Plan { kind: from.kind, base, way: Way::File(call) })
    };
    super::iscsi::kept(from)?;
    let Some(top) = from.top else { return file(None, source.snapshot) };
    let layers = db.layers_from(top)?;
    if layers.len() == 1 && how.full && !held {
        return file(None, None);
    }
    // An ISO image is read as it is, by machines and people.
    let stays = (from.image.is_some() && !from.iso) || held;
    // bhyve has QCOW2 served, which costs: there a raw image is copied, and only what is QCOW2 anyhow stands on another.
    let stands = platform::LAYERS || platform::SERVES && from.kind == DiskKind::Qcow2;
    if stays && !how.full && !how.reflink && stands && layers.len() <= LAYERS {
        let size = size.next_multiple_of(512).max(SMALLEST);
        let call = CreateDisk { disk: to, kind: DiskKind::Qcow2, size };
        return Ok(Plan { kind: DiskKind::Qcow2, base: Some(top), way: Way::Upon(call) });
    }
    if !how.full && layers.len() <= LAYERS + 1 {
        return file(from.base, None);
    }
    let merged = u8::try_from(layers.len()).unwrap_or(u8::MAX);
    let call = MergeLayers { layers: told(&layers), merged, to, held };
    Ok(Plan { kind: DiskKind::Qcow2, base: None, way: Way::Whole(call) })
}

/// Adds a row of a disk that will be a copy of `from`, with the way to make it.
pub(super) fn reserve(
    broker: &Broker, change: &Change<'_>, from: &Source, (name, size, group): (&DiskName, u64, GroupId), how: How,
) -> Result<(DiskRow, Way), Refusal> {
    let mut row = super::disk::new_row(name, from.disk.kind, size, group);
    let Plan { kind, base, way } = plan(change, from, row.id, size, how)?;
    (row.kind, row.base) = (kind, base);
    Ok((super::disk::add(broker, change, row)?, way))
}

/// Makes it.
pub(super) async fn make(
    broker: &Rc<Broker>, operation: &mut Operation, way: Way, told: impl Fn(u64, u64) -> (u64, u64),
) -> Result<JobDone, Refusal> {
    match way {
        Way::File(call) => jobs::run(broker, operation, Job::Clone(call), told).await,
        Way::Whole(call) => jobs::run(broker, operation, Job::Merge(call), told).await,
        Way::Upon(call) => {
            let who = operation.who().clone();
            let (disk, []) = broker.storage.call(&who, call).await?;
            Ok(JobDone { disk, sha256: None })
        }
    }
}
