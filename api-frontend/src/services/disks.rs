//! Disks.

use super::{Answer, Answers, Api, Call, Checked};
use crate::convert::{self, disk, event};
use crate::limits::Place;
use crate::relay;
use crate::uploads::{Key, Sent, Upload};
use sha2::{Digest, Sha256};
use skep_api::v1::disks_server::Disks;
use skep_api::v1::export_disk_response::Kind as Part;
use skep_api::v1::import_disk_request::Kind;
use skep_api::v1::{
    self, CloneDiskRequest, CreateDiskRequest, CreateSnapshotRequest, DeleteDiskRequest, DeleteSnapshotRequest, Disk,
    ExportDiskRequest, ExportDiskResponse, FetchDiskRequest, GetDiskRequest, GetUploadRequest, ImportDiskRequest,
    ListDisksRequest, ListDisksResponse, ListSnapshotsRequest, ListSnapshotsResponse, Operation, RenameSnapshotRequest,
    ResizeDiskRequest, RollBackDiskRequest, Snapshot, UpdateDiskRequest, WipeDiskRequest,
};
use skep_proto::broker::{
    DiskClone, DiskDelete, DiskExport, DiskGet, DiskList, DiskResize, DiskSet, DiskView, DiskWipe, OperationGet, SnapshotCreate,
    SnapshotDelete, SnapshotList, SnapshotRename, SnapshotRollBack,
};
use skep_proto::{Reason, Refusal, UpTo};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Bytes;
use tonic::{Request, Streaming};

#[tonic::async_trait]
impl Disks for Api {
    async fn create(&self, request: Request<CreateDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Create", request)?;
        call.run(async {
            let mut request = request;
            let id = std::mem::take(&mut request.request_id);
            let view = match request.iscsi.take() {
                Some(iscsi) => call.make(&id, disk::iscsi(request, iscsi)?).await?.0,
                None => call.make(&id, disk::create(&request)?).await?.0,
            };
            Ok(disk::disk(view))
        })
        .await
    }

    async fn import(&self, request: Request<Streaming<ImportDiskRequest>>) -> Answer<Operation> {
        let (call, stream) = self.enter("Disks.Import", request)?;
        call.run(async { import(&call, Checked(stream)).await }).await
    }

    async fn fetch(&self, request: Request<FetchDiskRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Disks.Fetch", request)?;
        call.run(async {
            let request_id = request.header.as_ref().map_or("", |header| &header.request_id);
            let (operation, UpTo(fds)) = call.make(request_id, disk::fetch(&request)?).await?;
            // A repeat has none: what was sent then counts.
            for (fd, bytes) in fds.into_iter().zip([&request.ca_certificates, &request.signed_by]) {
                super::pipe_out(fd, "disk", bytes).await?;
            }
            Ok(event::operation(operation))
        })
        .await
    }

    async fn get_upload(&self, request: Request<GetUploadRequest>) -> Answer<v1::Upload> {
        let (call, request) = self.enter("Disks.GetUpload", request)?;
        call.run(async { upload_of(&call, &request).await }).await
    }

    type ExportStream = Answers<ExportDiskResponse>;

    async fn export(&self, request: Request<ExportDiskRequest>) -> Answer<Answers<ExportDiskResponse>> {
        let (call, request) = self.enter("Disks.Export", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            let place = call.peer.stream_place()?;
            let (view, [file]) = call.act_long(DiskExport { disk: which }).await?;
            export(&call, view, file, request.offset_bytes, place)
        })
        .await
    }

    async fn clone(&self, request: Request<CloneDiskRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Disks.Clone", request)?;
        call.run(async {
            let disk = convert::named("disk", "disk", &request.disk)?;
            let name = convert::value("disk", "name", &request.name)?;
            let image = disk::facts(request.image.as_ref())?;
            let snapshot = convert::optional("snapshot", "snapshot", &request.snapshot)?;
            let clone = DiskClone { disk, name, image, full: request.full, snapshot };
            Ok(event::operation(call.make(&request.request_id, clone).await?.0))
        })
        .await
    }

    async fn resize(&self, request: Request<ResizeDiskRequest>) -> Answer<Disk> {
        let (call, request) = self.enter("Disks.Resize", request)?;
        call.run(async {
            let which = convert::named("disk", "disk", &request.disk)?;
            Ok(disk::disk(call.act(DiskResize { disk: which, size: request.size_bytes, shrink: request.shrink }).await?.0))
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
                image: disk::facts(request.image.as_ref())?,
                rates: disk::rates(request.rates.as_ref()),
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
                |after| DiskList { after, iso: request.iso, image: request.image },
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
            Ok(disk::snapshot(call.make(&request.request_id, SnapshotCreate { disk: of, name }).await?.0))
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

    async fn rename_snapshot(&self, request: Request<RenameSnapshotRequest>) -> Answer<Snapshot> {
        let (call, request) = self.enter("Disks.RenameSnapshot", request)?;
        call.run(async {
            let disk = convert::named("disk", "disk", &request.disk)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            let name = convert::value("snapshot", "name", &request.name)?;
            Ok(disk::snapshot(call.act(SnapshotRename { disk, snapshot, name }).await?.0))
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

/// Takes an import in. It goes on in a task of its own: whatever becomes of the client, a piece that was begun is passed on whole.
async fn import(call: &Call, mut stream: Checked<ImportDiskRequest>) -> Result<Operation, Refusal> {
    let first = stream.message().await?.and_then(|m| m.kind);
    let Some(Kind::Header(header)) = first else {
        return Err(convert::invalid("disk", "header", "the first message must be the header"));
    };
    let key = key(call, &header.request_id)?;
    if header.resumable && key.is_none() {
        return Err(convert::invalid("disk", "header.request_id", "one is needed to go on with it"));
    }
    let said = v1::ImportDiskHeader { offset_bytes: 0, ..header.clone() };
    let said = format!("{said:?}");
    let begun = key.as_ref().and_then(|key| call.api.uploads.find(key));
    let upload = match begun {
        Some(upload) => {
            if upload.said != said {
                let refusal = Refusal::new(Reason::AlreadyExists, format_args!("upload {}", header.request_id));
                return Err(refusal.field("header.request_id").note("its header was another"));
            }
            upload
        }
        None if header.offset_bytes > 0 => {
            let refusal = Refusal::new(Reason::NotFound, format_args!("upload {}", header.request_id));
            return Err(refusal.note("there is none to go on with: it was too late, or it has ended"));
        }
        None => {
            let place = call.peer.stream_place()?;
            let (operation, UpTo(fds)) = call.make(&header.request_id, disk::import(&header)?).await?;
            // A repeat: what was imported then counts.
            let Some(fd) = fds.into_iter().next() else { return call.ended(operation.id).await.map(event::operation) };
            // Dropped without the end mark, it cancels the operation: what came is not taken for the whole image.
            let sink = relay::sink(fd).map_err(|e| Refusal::io("disk", "open the stream", &e))?;
            let upload = Upload::new(operation.id, said, Sent::new(sink, place));
            if let Some(key) = key.as_ref().filter(|_| header.resumable) {
                call.api.uploads.keep(key.clone(), upload.clone());
            }
            upload
        }
    };
    let key = key.filter(|_| header.resumable);
    let passed = tokio::spawn(pass_on(call.clone(), upload, key, header, stream)).await;
    passed.unwrap_or_else(|e| Err(Refusal::new(Reason::Internal, "disk").note(e)))
}

/// Whose the upload of this id is; none: it has no id.
fn key(call: &Call, request_id: &str) -> Result<Option<Key>, Refusal> {
    Ok(convert::optional("request", "request_id", request_id)?.map(|id| (call.owner(), id)))
}

async fn pass_on(
    call: Call, upload: Arc<Upload>, key: Option<Key>, header: v1::ImportDiskHeader, mut stream: Checked<ImportDiskRequest>,
) -> Result<Operation, Refusal> {
    let id = upload.operation;
    let forget = |key: &Option<Key>| key.iter().for_each(|key| call.api.uploads.forget(key, &upload));
    let mut sent = upload.take().await?;
    if header.offset_bytes != sent.bytes {
        let note = format!("{} bytes came; the next one is to be sent", sent.bytes);
        return Err(convert::invalid("upload", "header.offset_bytes", note));
    }
    let refusal = loop {
        // A client that goes away is no error here but an end without the last message (a reset stream reads so, too).
        let cut = || Refusal::new(Reason::Cancelled, format_args!("disk {}", header.name)).note("the stream ended early");
        let message = tokio::select! {
            message = stream.message() => message,
            () = upload.overtaken(), if key.is_some() => Err(cut().note("another stream goes on with it")),
            // Its client was told, and may send on all the same.
            () = call.over() => Err(cut().note("its deadline has passed")),
        };
        let data = match message.and_then(|message| message.ok_or_else(cut)).map(|message| message.kind) {
            Ok(Some(Kind::Data(data))) => data,
            Ok(Some(Kind::End(_))) => {
                // If this fails, it reads as cut off, and the operation says so.
                let _ = sent.end().await;
                drop(sent);
                forget(&key);
                drop(upload);
                let (view, []) = call.read(OperationGet { id, wait: false }).await?;
                return Ok(event::operation(view));
            }
            Ok(Some(Kind::Header(_)) | None) => break convert::invalid("disk", "kind", "data or the end is expected"),
            Err(refusal) => break refusal,
        };
        if sent.piece(&data).await.is_err() {
            // Whoever read has stopped; the operation says why.
            drop(sent);
            forget(&key);
            drop(upload);
            return call.ended(id).await.map(event::operation);
        }
    };
    match key {
        Some(key) if refusal.reason == Reason::Cancelled => call.api.uploads.leave(key, &upload, &mut sent),
        key => forget(&key),
    }
    Err(refusal)
}

/// How far an upload came.
async fn upload_of(call: &Call, request: &GetUploadRequest) -> Result<v1::Upload, Refusal> {
    let upload = key(call, &request.request_id)?.and_then(|key| call.api.uploads.find(&key));
    let none =
        || Refusal::new(Reason::NotFound, format_args!("upload {}", request.request_id)).note("there is none to go on with");
    let upload = upload.ok_or_else(none)?;
    // The broker says whether he may know of it.
    let (operation, []) = call.read(OperationGet { id: upload.operation, wait: false }).await?;
    let offset_bytes = upload.take().await?.bytes;
    Ok(v1::Upload { offset_bytes, operation: Some(event::operation(operation)) })
}

/// Reads a disk to its end; what was sent before is read for the checksum only.
fn export(call: &Call, view: DiskView, file: OwnedFd, from: u64, place: Place) -> Result<Answers<ExportDiskResponse>, Refusal> {
    let object = format!("disk {}", view.name);
    let mut file = File::from(file);
    let size = file.seek(SeekFrom::End(0)).map_err(|e| Refusal::io(&object, "look at", &e))?;
    if from > size {
        return Err(convert::invalid("disk", "offset_bytes", format_args!("{from} is more than the {size} bytes that it has")));
    }
    let (to, answers) = mpsc::channel(2);
    let call = call.clone();
    tokio::spawn(async move {
        let _place = place;
        let message = |kind| Ok(ExportDiskResponse { kind: Some(kind) });
        let header = v1::ExportDiskHeader { disk: Some(disk::disk(view)), size_bytes: size };
        if to.send(message(Part::Header(header))).await.is_err() {
            return;
        }
        let (mut at, mut hash, mut buffer) = (0, Sha256::new(), vec![0; skep_api::CHUNK]);
        while at < size {
            let most = usize::try_from(size - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            let got = match file.read_at(buffer.get_mut(..most).unwrap_or_default(), at) {
                Ok(got) => got,
                Err(e) => return drop(to.send(Err(call.refused(&Refusal::io(&object, "read", &e)))).await),
            };
            let data = buffer.get(..got).unwrap_or_default();
            if data.is_empty() {
                let refusal = Refusal::new(Reason::Internal, &object).note("it became smaller");
                return drop(to.send(Err(call.refused(&refusal))).await);
            }
            hash.update(data);
            let known = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX).min(got);
            at += got as u64;
            let new = data.get(known..).unwrap_or_default();
            if new.is_empty() {
                // Others have their turn, and a client that has left is noticed.
                tokio::task::yield_now().await;
                if to.is_closed() {
                    return;
                }
            } else if to.send(message(Part::Data(Bytes::copy_from_slice(new)))).await.is_err() {
                return;
            }
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        drop(to.send(message(Part::End(v1::ExportDiskEnd { sha256 }))).await);
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}
