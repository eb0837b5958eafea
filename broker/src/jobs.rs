//! Work of storage-helper that takes long: imports and copies. Each has a channel of its own; closing it cancels.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::{DiskRow, Disks};
use crate::db::layers::Layers;
use crate::operations::Operation;
use skep_ipc::aio::Port;
use skep_proto::storage::{CloneDisk, DeleteDisk, ImportDisk, JobDone, JobRecord, MergeLayers};
use skep_proto::{DiskId, Reason, Refusal, wire};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// What a job does.
pub enum Job {
    /// Fills a disk from a stream.
    Import(ImportDisk, OwnedFd),
    /// Copies one.
    Clone(CloneDisk),
    /// Makes one of layers that stand on one another.
    Merge(MergeLayers),
}

/// Runs one to its end. `told` gets the progress within it. Cancelled or failed, the new disk is gone, or will be.
pub async fn run(
    broker: &Rc<Broker>, operation: &mut Operation, job: Job, told: impl Fn(u64, u64) -> (u64, u64),
) -> Result<JobDone, Refusal> {
    let who = operation.who().clone();
    let pair = skep_sys::sock::seqpacket_pair();
    let (ours, theirs) = pair.map_err(|e| Refusal::io("job", "make its channel", &e))?;
    let ours = Port::new(ours).map_err(|e| Refusal::io("job", "make its channel", &e))?;
    match job {
        Job::Import(call, stream) => broker.storage.call_with(&who, call, [stream, theirs]).await?,
        Job::Clone(call) => broker.storage.call_with(&who, call, [theirs]).await?,
        Job::Merge(call) => broker.storage.call_with(&who, call, [theirs]).await?,
    };
    let cancelled = operation.cancelled();
    tokio::pin!(cancelled);
    loop {
        let record = tokio::select! {
            _ = &mut cancelled => return Err(Refusal::new(Reason::Cancelled, "")),
            record = ours.recv() => record,
        };
        let away = |note: String| Refusal::new(Reason::Unavailable, "storage-helper").note(note);
        let record = record.map_err(|e| away(format!("the job's channel: {e}")))?;
        match wire::decode(&record.bytes).map_err(|e| away(format!("the job's channel: {e}")))? {
            JobRecord::Progress { done, total } => {
                let (done, total) = told(done, total);
                operation.progress(done, total);
            }
            JobRecord::Done(result) => return result,
        }
    }
}

impl Broker {
    /// A new disk could not be made: its row says that its file has to go, its name is free at once.
    pub async fn undo_disk(&self, who: &Who, disk: &DiskRow) {
        if let Err(fault) = self.undo(who, disk) {
            self.warn(who.trace, format_args!("disk {}: {fault}", disk.name));
        }
        self.delete_file(who, disk.id).await;
    }

    fn undo(&self, who: &Who, disk: &DiskRow) -> Result<(), crate::db::Fault> {
        self.change(who, |change| {
            change.unmade(disk.id)?;
            change.disk_doomed(disk.id)
        })
    }

    /// Deletes the file of a doomed disk, then its row. What fails now is done when storage-helper comes back.
    pub async fn delete_file(&self, who: &Who, id: DiskId) {
        let Ok(Some(disk)) = self.read(|db| db.disk(id)) else { return };
        if let Err(refusal) = self.delete_disk(who, &disk).await {
            self.warn(who.trace, format_args!("disk {} ({id}) has yet to be deleted: {refusal}", disk.name));
        }
    }

    /// Deletes a doomed disk's file or volume, then its row. A file that others stand on stays until the last of them is gone.
    pub async fn delete_disk(&self, who: &Who, disk: &DiskRow) -> Result<(), Refusal> {
        if !disk.top.map_or(Ok(false), |top| self.read(|db| db.is_stood_on(top)))? {
            self.storage.call(who, DeleteDisk { disk: disk.file(), kind: disk.kind }).await?;
        }
        self.change(who, |change| change.remove_disk(disk.id))?;
        self.delete_layers(who).await;
        Ok(())
    }

    /// Deletes files that nothing needs any more. What fails now is done when storage-helper comes back, or with the next.
    pub async fn delete_layers(&self, who: &Who) {
        for layer in self.read(|db| db.layers_to_go()).unwrap_or_default() {
            // One that is being made, or read; or that has come to be needed while others were deleted.
            let to_go = self.read(|db| db.is_layer_to_go(layer.id)).unwrap_or(false);
            if !to_go || self.free(layer.id, "").is_err() {
                continue;
            }
            let gone = self.storage.call(who, DeleteDisk { disk: layer.id, kind: layer.kind }).await.map(|_| ());
            if let Err(refusal) = gone.and_then(|()| Ok(self.change(who, |change| change.remove_layer(layer.id))?)) {
                self.warn(who.trace, format_args!("a layer of disks has yet to be deleted: {refusal}"));
            }
        }
    }
}
