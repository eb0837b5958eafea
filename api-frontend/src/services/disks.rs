//! Disks.

use super::{Answer, Api, Call};
use crate::convert::{self, disk, event};
use crate::relay::{self, Sink};
use skep_api::v1::disks_server::Disks;
use skep_api::v1::import_disk_request::Kind;
use skep_api::v1::{
    CloneDiskRequest, CreateDiskRequest, CreateSnapshotRequest, DeleteDiskRequest, DeleteSnapshotRequest, Disk, GetDiskRequest,
    ImportDiskRequest, ListDisksRequest, ListDisksResponse, ListSnapshotsRequest, ListSnapshotsResponse, Operation,
    ResizeDiskRequest, RollBackDiskRequest, Snapshot, UpdateDiskRequest, WipeDiskRequest,
};
use skep_proto::broker::{
    DiskClone, DiskDelete, DiskGet, DiskList, DiskResize, DiskSet, DiskWipe, OperationGet, SnapshotCreate, SnapshotDelete,
    SnapshotList, SnapshotRollBack,
};
use skep_proto::{Reason, Refusal, UpTo, upload};
use std::io;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Streaming};

#[tonic::async_trait]
impl Disks for Api {
    async fn create(&self, request: Request<CreateDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Create", request)?;
        call.run(async { Ok(disk::disk(call.make(&request.request_id, disk::create(&request)?).await?.0)) }).await
    }

    async fn import(&self, request: Request<Streaming<ImportDiskRequest>>) -> Answer<Operation> {
        let (call, stream) = self.enter("Disks.Import", request)?;
        call.run(async { import(&call, stream).await }).await
    }

    async fn clone(&self, request: Request<CloneDiskRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Disks.Clone", request)?;
        call.run(async {
            let disk = convert::named("disk", "disk", &request.disk)?;
            let name = convert::value("disk", "name", &request.name)?;
            Ok(event::operation(call.make(&request.request_id, DiskClone { disk, name }).await?.0))
        })
        .await
    }

    async fn resize(&self, request: Request<ResizeDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Resize", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            Ok(disk::disk(call.act(DiskResize { disk: which, size: request.size_bytes }).await?.0))
        })
        .await
    }

    async fn update(&self, request: Request<UpdateDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Update", request)?;
        call.run(async {
            let set = DiskSet {
                disk: convert::named("disk", "disk", &request.disk)?,
                name: convert::given("disk", "name", request.name.as_ref())?,
                description: convert::given("disk", "description", request.description.as_ref())?,
            };
            Ok(disk::disk(call.act(set).await?.0))
        })
        .await
    }

    async fn wipe(&self, request: Request<WipeDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Wipe", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            Ok(disk::disk(call.act(DiskWipe { disk: which }).await?.0))
        })
        .await
    }

    async fn get(&self, request: Request<GetDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Get", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            Ok(disk::disk(call.read(DiskGet { disk: which }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListDisksRequest>) -> Answer<ListDisksResponse> {
        let (call, request) = self.enter("Disks.List", request)?;
        call.run(async {
            let page = call.pages(
                "disk",
                request.page_size,
                &request.page_token,
                |after| DiskList { after },
                |page| page.disks,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListDisksResponse { disks: got.into_iter().map(disk::disk).collect(), next_page_token })
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteDiskRequest>) -> Answer<()> {
        let (call, request) = self.enter("Disks.Delete", request)?;
        call.run(async {
            let disk = convert::named("disk", "disk", &request.disk)?;
            call.act(DiskDelete { disk }).await.map(drop)
        })
        .await
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Answer<Snapshot> {
        let (call, request) = self.enter("Disks.CreateSnapshot", request)?;
        call.run(async {
            let of = convert::named("disk", "disk", &request.disk)?;
            let name = convert::value("snapshot", "name", &request.name)?;
            Ok(disk::snapshot(call.act(SnapshotCreate { disk: of, name }).await?.0))
        })
        .await
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let (call, request) = self.enter("Disks.ListSnapshots", request)?;
        call.run(async {
            let of = convert::named("disk", "disk", &request.disk)?;
            let page = call.pages(
                "snapshot",
                request.page_size,
                &request.page_token,
                |after| SnapshotList { disk: of.clone(), after },
                |page| page.snapshots,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListSnapshotsResponse { snapshots: got.into_iter().map(disk::snapshot).collect(), next_page_token })
        })
        .await
    }

    async fn roll_back(&self, request: Request<RollBackDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.RollBack", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            Ok(disk::disk(call.act(SnapshotRollBack { disk: which, snapshot }).await?.0))
        })
        .await
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Answer<()> {
        let (call, request) = self.enter("Disks.DeleteSnapshot", request)?;
        call.run(async {
            let disk = convert::named("disk", "disk", &request.disk)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            call.act(SnapshotDelete { disk, snapshot }).await.map(drop)
        })
        .await
    }
}

/// Sends a piece of an upload.
async fn send(sink: &mut Sink, data: &[u8]) -> io::Result<()> {
    let Some(header) = upload::header(data.len()) else { return Ok(()) };
    sink.write_all(&header).await?;
    sink.write_all(data).await
}

async fn import(call: &Call, mut stream: Streaming<ImportDiskRequest>) -> Result<Operation, Refusal> {
    let _place = call.peer.stream_place()?;
    let broken = |status: tonic::Status| Refusal::new(Reason::Cancelled, "disk").note(status.message());
    let first = stream.message().await.map_err(broken)?.and_then(|m| m.kind);
    let Some(Kind::Header(header)) = first else {
        return Err(convert::invalid("disk", "header", "the first message must be the header"));
    };
    let (operation, UpTo(fds)) = call.make(&header.request_id, disk::import(&header)?).await?;
    let id = operation.id;
    // A repeat: what was imported then counts.
    let Some(fd) = fds.into_iter().next() else { return call.ended(id).await.map(event::operation) };
    // Dropped without the end mark, it cancels the operation: what came is not taken for the whole image.
    let mut sink = relay::sink(fd).map_err(|e| Refusal::io("disk", "open the stream", &e))?;
    loop {
        // A client that goes away is no error here but an end without the last message (a reset stream reads so, too).
        let cut = || Refusal::new(Reason::Cancelled, format_args!("disk {}", header.name)).note("the stream ended early");
        let data = match stream.message().await.map_err(broken)?.ok_or_else(cut)?.kind {
            Some(Kind::Data(data)) => data,
            Some(Kind::End(_)) => break,
            Some(Kind::Header(_)) | None => return Err(convert::invalid("disk", "kind", "data or the end is expected")),
        };
        if send(&mut sink, &data).await.is_err() {
            // Whoever read has stopped; the operation says why.
            drop(sink);
            return call.ended(id).await.map(event::operation);
        }
    }
    // The same, if this fails.
    let _ = sink.write_all(&upload::END).await;
    drop(sink);
    let (view, []) = call.read(OperationGet { id, wait: false }).await?;
    Ok(event::operation(view))
}
