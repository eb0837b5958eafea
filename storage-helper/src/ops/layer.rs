//! Layers: files that disks stand on. They are opened for reading only, and merged into new ones.

use super::disk::{check_absent, file_name, lock, object, open_existing, opened};
use crate::format::layers::{self, Layer as Read};
use crate::job::{Jobs, Made, Making, Progress, Task, Work};
use crate::platform;
use crate::store::{At, Part, Store};
use nix::fcntl::OFlag;
use skep_proto::storage::{DiskKind, DiskOpened, JobStarted, Layer, MergeLayers, OpenLayer};
use skep_proto::{OneFd, Reason, Refusal, TraceId};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// Most layers of a disk, itself included.
const MOST: usize = 17;

fn open_one(store: &Store, layer: Layer, flags: OFlag, held: bool) -> Result<File, Refusal> {
    if layer.kind == DiskKind::Zvol {
        let refusal = Refusal::new(Reason::Unsupported, object(layer.layer)).field("kind");
        return Err(refusal.note("a ZFS volume is no file that a disk stands on"));
    }
    let file = open_existing(store, layer.layer, layer.kind, OFlag::O_RDONLY | flags)?;
    if !held {
        lock(&object(layer.layer), &file, true)?;
    }
    Ok(file)
}

/// [`OpenLayer`].
pub fn open(store: &Store, call: &OpenLayer) -> Result<(DiskOpened, OneFd), Refusal> {
    let flags = platform::cache_flags(call.no_cache, call.sync);
    let file = open_one(store, call.layer, flags, call.held)?;
    opened(call.layer.layer, call.layer.kind, file, call.no_cache)
}

/// [`MergeLayers`].
pub fn merge(store: &Store, jobs: &mut Jobs, trace: TraceId, call: &MergeLayers, fds: OneFd) -> Result<JobStarted, Refusal> {
    let [channel] = fds;
    let object = object(call.to);
    let merged = usize::from(call.merged);
    if !(1..=MOST).contains(&call.layers.len()) || !(1..=call.layers.len()).contains(&merged) {
        let refusal = Refusal::new(Reason::InvalidValue, object).field("layers");
        return Err(refusal.note(format_args!("1 to {MOST} layers, of which 1 to all are merged")));
    }
    // Nothing is under a raw layer.
    if call.layers.iter().rev().skip(1).any(|layer| layer.kind != DiskKind::Qcow2) {
        return Err(Refusal::new(Reason::InvalidValue, object).field("layers").note("only the lowest one can be raw"));
    }
    let open = |(at, layer): (usize, &Layer)| open_one(store, *layer, OFlag::empty(), call.held && at == 0);
    let files = call.layers.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
    jobs.check(call.to, channel.as_fd())?;
    check_absent(store, jobs, call.to)?;
    let (part, to) = Part::begin(store.disks.as_fd(), &file_name(call.to, DiskKind::Qcow2)?).at(&object, "create")?;
    let task = Task { disk: call.to, kind: DiskKind::Qcow2, making: Making::File(part), channel, trace };
    let layers = files.into_iter().zip(call.layers.iter().map(|layer| layer.kind)).collect();
    jobs.begin(store, task, Merge { layers, merged, to, object })?;
    Ok(JobStarted {})
}

struct Merge {
    layers: Vec<(File, DiskKind)>,
    merged: usize,
    to: File,
    object: String,
}

impl Work for Merge {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.layers.iter().map(|(file, _)| file).chain([&self.to]).map(|file| ("disk", file.as_fd())).collect()
    }

    fn run(self, progress: &mut Progress<'_>) -> Result<Made, Refusal> {
        let object = &self.object;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (file, kind) in &self.layers {
            layers.push(Read::open(file, *kind).map_err(|e| e.into_refusal(object))?);
        }
        progress.total = layers.first().map_or(0, Read::size);
        layers::merge(&mut layers, self.merged, &self.to, |bytes| progress.advance(bytes)).map_err(|e| e.into_refusal(object))?;
        self.to.sync_all().at(object, "sync")?;
        Ok(Made::default())
    }
}
