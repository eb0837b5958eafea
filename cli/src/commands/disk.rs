//! `skep disk`.

use super::pages::pages;
use super::{Ctx, export, fetch};
use crate::args::{DiskCommand, Format, IscsiArgs, Kind, Packed, ReadArgs, SnapshotCommand};
use crate::client::Api;
use crate::error::{Failure, INTERRUPTED};
use crate::operation::bar;
use crate::secret;
use crate::view;
use indicatif::ProgressBar;
use skep_api::CHUNK;
use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::import_disk_request::Kind as Part;
use skep_api::v1::{
    CancelOperationRequest, CloneDiskRequest, CreateDiskRequest, CreateSnapshotRequest, DeleteDiskRequest, DeleteSnapshotRequest,
    Disk, DiskKind, DiskRates, GetDiskRequest, GetUploadRequest, ImageFormat, ImportDiskEnd, ImportDiskHeader, ImportDiskRequest,
    IscsiDisk, ListDisksRequest, ListSnapshotsRequest, Operation, Packing, RenameSnapshotRequest, ResizeDiskRequest,
    RollBackDiskRequest, UpdateDiskRequest, WaitOperationRequest, WipeDiskRequest,
};
use skep_proto::{Reason, RequestId};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use zeroize::Zeroizing;

/// How a disk is to be kept.
pub fn kind(kind: Kind) -> i32 {
    match kind {
        Kind::Raw => DiskKind::Raw,
        Kind::Qcow2 => DiskKind::Qcow2,
        Kind::Zvol => DiskKind::Zvol,
    }
    .into()
}

/// The same header, with how the image is to be read.
pub fn reading(header: ImportDiskHeader, read: &ReadArgs) -> ImportDiskHeader {
    let format = match read.format {
        Format::Auto => ImageFormat::Unspecified,
        Format::Raw => ImageFormat::Raw,
        Format::Qcow2 => ImageFormat::Qcow2,
        Format::Vmdk => ImageFormat::Vmdk,
        Format::Vhd => ImageFormat::Vhd,
        Format::Vhdx => ImageFormat::Vhdx,
    };
    let packing = match read.packed {
        Packed::Auto => Packing::Unspecified,
        Packed::No => Packing::None,
        Packed::Gz => Packing::Gzip,
        Packed::Xz => Packing::Xz,
        Packed::Zst => Packing::Zstd,
        Packed::Bz2 => Packing::Bzip2,
    };
    ImportDiskHeader { format: format.into(), packing: packing.into(), ..header }
}

/// Runs one.
pub async fn run(ctx: Ctx, command: DiskCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.disks();
    match command {
        DiskCommand::Create { name, size, kind: how, iscsi, group } => {
            let group = group.unwrap_or_default();
            let (iscsi, chap_secret) = unit(iscsi)?;
            let kind = if iscsi.is_some() { DiskKind::Unspecified.into() } else { kind(how) };
            let made = ctx.make(|api, request_id| {
                let (name, group, iscsi, chap_secret) = (name.clone(), group.clone(), iscsi.clone(), chap_secret.to_string());
                let size_bytes = size.unwrap_or_default();
                let request = CreateDiskRequest { name, kind, size_bytes, group, request_id, iscsi, chap_secret };
                async move { api.disks().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::disk(&made), "disk", "made");
        }
        DiskCommand::Import { name, file, from, kind: how, read, sha256, group } => {
            let header = ImportDiskHeader {
                name,
                kind: kind(how),
                sha256: sha256.unwrap_or_default(),
                group: group.unwrap_or_default(),
                ..Default::default()
            };
            fetch::take_in(&ctx, reading(header, &read), &file, &from).await?;
        }
        DiskCommand::Export { disk, file } => export::run(&ctx, disk, &file).await?,
        DiskCommand::Clone { disk, name, full, snapshot, wait } => {
            let snapshot = snapshot.unwrap_or_default();
            let begun = ctx.make(|api, request_id| {
                let (disk, name, snapshot) = (disk.clone(), name.clone(), snapshot.clone());
                let request = CloneDiskRequest { disk, name, request_id, image: None, full, snapshot };
                async move { DisksClient::clone(&mut api.disks(), request).await }
            });
            let begun = begun.await?;
            ctx.finish(begun, wait).await?;
        }
        DiskCommand::Resize { disk, size, force } => {
            let disk = api.resize(ResizeDiskRequest { disk, size_bytes: size, shrink: force }).await?.into_inner();
            ctx.made(&view::disk(&disk), "disk", "resized");
        }
        DiskCommand::Rename { disk, name } => {
            let request = UpdateDiskRequest { disk, name: Some(name), ..Default::default() };
            ctx.made(&view::disk(&api.update(request).await?.into_inner()), "disk", "renamed");
        }
        DiskCommand::Set { disk, description, read_bps, write_bps, read_iops, write_iops } => {
            let rates = Some(DiskRates { read_bps, write_bps, read_iops, write_iops });
            let request = UpdateDiskRequest { disk, description, rates, ..Default::default() };
            ctx.made(&view::disk(&api.update(request).await?.into_inner()), "disk", "changed");
        }
        DiskCommand::Wipe { disk } => {
            let disk = api.wipe(WipeDiskRequest { disk }).await?.into_inner();
            ctx.made(&view::disk(&disk), "disk", "wiped");
        }
        DiskCommand::List => {
            let all = list(&ctx, None, None).await?;
            ctx.output.list(view::DISKS, all.iter().map(|d| (view::disk(d), view::disk_row(d))));
        }
        DiskCommand::Show { disk } => {
            let disk = api.get(GetDiskRequest { disk }).await?.into_inner();
            ctx.output.object(&view::disk(&disk));
        }
        DiskCommand::Delete { disk } => {
            api.delete(DeleteDiskRequest { disk: disk.clone() }).await?;
            ctx.gone("disk", &disk);
        }
        DiskCommand::Snapshot(command) => snapshot(ctx, command).await?,
    }
    Ok(0)
}

/// A target's logical unit, and CHAP's secret.
fn unit(args: IscsiArgs) -> Result<(Option<IscsiDisk>, Zeroizing<String>), Failure> {
    let IscsiArgs { iscsi, portal, lun, chap_user, chap_secret_file } = args;
    let secret = chap_secret_file.map_or_else(|| Ok(Zeroizing::default()), |file| secret::of_file(&file))?;
    let (portal, chap_user) = (portal.unwrap_or_default(), chap_user.unwrap_or_default());
    let disk = |target| IscsiDisk { portal, target, lun: lun.into(), chap_user, initiator: String::new() };
    Ok((iscsi.map(disk), secret))
}

/// Runs one about snapshots.
async fn snapshot(ctx: Ctx, command: SnapshotCommand) -> Result<(), Failure> {
    let mut api = ctx.api.disks();
    match command {
        SnapshotCommand::Create { disk, name } => {
            let made = ctx.make(|api, request_id| {
                let request = CreateSnapshotRequest { disk: disk.clone(), name: name.clone(), request_id };
                async move { api.disks().create_snapshot(request).await }
            });
            let made = made.await?;
            ctx.made(&view::snapshot(&made), "snapshot", "made");
        }
        SnapshotCommand::List { disk } => {
            let all = pages!(api.list_snapshots, snapshots, ListSnapshotsRequest { disk: disk.clone() });
            ctx.output.list(view::SNAPSHOTS, all.iter().map(|s| (view::snapshot(s), view::snapshot_row(s))));
        }
        SnapshotCommand::Rename { disk, snapshot, name } => {
            let renamed = api.rename_snapshot(RenameSnapshotRequest { disk, snapshot, name }).await?.into_inner();
            ctx.made(&view::snapshot(&renamed), "snapshot", "renamed");
        }
        SnapshotCommand::Rollback { disk, snapshot } => {
            let disk = api.roll_back(RollBackDiskRequest { disk, snapshot }).await?.into_inner();
            ctx.made(&view::disk(&disk), "disk", "rolled back");
        }
        SnapshotCommand::Delete { disk, snapshot } => {
            api.delete_snapshot(DeleteSnapshotRequest { disk, snapshot: snapshot.clone() }).await?;
            ctx.gone("snapshot", &snapshot);
        }
    }
    Ok(())
}

/// All disks; `iso`: only ISO images, or only what is none; `image` likewise.
pub async fn list(ctx: &Ctx, iso: Option<bool>, image: Option<bool>) -> Result<Vec<Disk>, Failure> {
    let mut api = ctx.api.disks();
    Ok(pages!(api.list, disks, ListDisksRequest { iso: iso, image: image }))
}

/// How often an upload begins anew, at most, whose keeper has gone.
const ANEW: u32 = 5;

/// What is sent.
#[derive(Clone)]
pub enum Origin<'a> {
    /// A file; `-`: standard input.
    File(&'a Path),
    /// Bytes that are here already, and what they are called.
    Bytes(&'a Path, Arc<[u8]>),
}

impl Origin<'_> {
    fn name(&self) -> &Path {
        match self {
            Origin::File(path) | Origin::Bytes(path, _) => path,
        }
    }

    fn failed(&self, what: &str, e: &std::io::Error) -> Failure {
        Failure::io(format_args!("file {}", self.name().display()), what, e)
    }

    /// How many bytes it has, if it can be read again.
    fn length(&self) -> Result<Option<u64>, Failure> {
        match self {
            Origin::Bytes(_, bytes) => Ok(Some(bytes.len() as u64)),
            Origin::File(file) if *file == Path::new("-") => Ok(None),
            Origin::File(file) => {
                let meta = std::fs::metadata(file).map_err(|e| self.failed("look at", &e))?;
                if meta.is_dir() {
                    return Err(self.failed("read", &std::io::ErrorKind::IsADirectory.into()));
                }
                Ok(meta.is_file().then_some(meta.len()))
            }
        }
    }

    /// Opens it at a byte.
    fn open(&self, offset: u64) -> Result<Box<dyn Read + Send>, Failure> {
        match self {
            Origin::Bytes(_, bytes) => {
                let mut cursor = Cursor::new(Arc::clone(bytes));
                cursor.set_position(offset);
                Ok(Box::new(cursor))
            }
            Origin::File(file) if *file == Path::new("-") => Ok(Box::new(std::io::stdin())),
            Origin::File(file) => {
                let mut opened = File::open(file).map_err(|e| self.failed("open", &e))?;
                if offset > 0 {
                    opened.seek(SeekFrom::Start(offset)).map_err(|e| self.failed("read", &e))?;
                }
                Ok(Box::new(opened))
            }
        }
    }
}

/// Sends an image. ^C ends the stream early, and what came is thrown away. Where the connection breaks, a file is gone on with from the byte
/// that the suite wants next; and sent anew where the process is gone that kept what had come, and with it all that had.
pub async fn import(ctx: &Ctx, mut header: ImportDiskHeader, origin: Origin<'_>) -> Result<Operation, Failure> {
    let length = origin.length()?;
    let again = length.is_some();
    header.expect_bytes = length.unwrap_or(0);
    header.resumable = again;
    if again {
        header.request_id = RequestId::random().to_string();
    }
    let shown = bar(ctx.output, format!("disk {}: import", header.name), header.expect_bytes);
    let (mut api, mut until, mut anew) = (ctx.api.clone(), Instant::now() + super::AGAIN, 0);
    let begun = loop {
        let source = origin.open(header.offset_bytes)?;
        let failure = match send(&api, header.clone(), source, origin.name(), &shown).await {
            // Begun anew while the former was not yet at its end, it is answered with that.
            Ok(begun) if anew > 0 && anew < ANEW && broke_off(&begun) => {
                anew += 1;
                continue;
            }
            Ok(begun) => break Ok(begun),
            Err(failure) => failure,
        };
        if again && (failure.is_late() || failure.exit == INTERRUPTED) && give_up(&api, &header.request_id).await.is_err() {
            // It may not have known of the upload yet, and will.
            break Err(failure.advice("what has come of it, if anything, is thrown away within ten minutes"));
        }
        if !again || !failure.is_unavailable() || Instant::now() > until {
            break Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(renewed) = api.again().await else { continue };
        api = renewed;
        let request = GetUploadRequest { request_id: header.request_id.clone() };
        match api.disks().get_upload(request).await {
            Ok(upload) => {
                header.offset_bytes = upload.into_inner().offset_bytes;
                shown.set_position(header.offset_bytes);
                until = Instant::now() + super::AGAIN;
            }
            Err(status) => {
                let other = Failure::from(status);
                if other.is_unavailable() {
                    continue;
                }
                // The process that kept it is another one by now: what had come was thrown away with the end of its pipe.
                if !other.is(Reason::NotFound) || anew == ANEW {
                    break Err(failure);
                }
                anew += 1;
                ctx.output
                    .remark(format_args!("disk {}: what had come is lost with the process that kept it; once more", header.name));
                header.offset_bytes = 0;
                shown.set_position(0);
                until = Instant::now() + super::AGAIN;
            }
        }
    };
    shown.finish_and_clear();
    begun
}

/// Whether it has ended as one does whose stream broke off.
fn broke_off(operation: &Operation) -> bool {
    operation.failure.as_ref().is_some_and(|failure| failure.reason == Reason::Cancelled.row().name)
}

/// Has the suite throw away what came of an upload, since nobody will go on with it, and waits for that. Where this does not arrive, time
/// does it.
async fn give_up(api: &Api, request_id: &str) -> Result<(), Failure> {
    // The connection may be what nothing comes through any more.
    let api = api.again().await?;
    let kept = api.disks().get_upload(GetUploadRequest { request_id: request_id.to_owned() }).await?.into_inner();
    let operation = kept.operation.unwrap_or_default().id;
    api.operations().cancel(CancelOperationRequest { operation: operation.clone() }).await?;
    let mut ends = api.operations().wait(WaitOperationRequest { operation }).await?.into_inner();
    while ends.message().await?.is_some() {}
    Ok(())
}

async fn send(
    api: &Api, header: ImportDiskHeader, mut source: Box<dyn Read + Send>, file: &Path, shown: &ProgressBar,
) -> Result<Operation, Failure> {
    let (to, parts) = mpsc::channel(4);
    let (broken, mut why) = mpsc::channel(1);
    let progress = shown.clone();
    // A thread, since a read may wait for ever, and ^C must be heard meanwhile.
    std::thread::spawn(move || {
        if let Err(error) = read_all(&mut source, header, &to, &progress) {
            // The stream ends without its last message, and what came is thrown away.
            let _ = broken.blocking_send(error);
        }
    });
    let failed = |e: &std::io::Error| Failure::io(format_args!("file {}", file.display()), "read", e);
    tokio::select! {
        biased;
        Some(error) = why.recv() => Err(failed(&error)),
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted("the import was cancelled, and nothing was left behind")),
        begun = async { api.disks().import(ReceiverStream::new(parts)).await } => begun.map(tonic::Response::into_inner).map_err(Failure::from),
    }
}

fn read_all(
    source: &mut dyn Read, header: ImportDiskHeader, to: &mpsc::Sender<ImportDiskRequest>, progress: &ProgressBar,
) -> std::io::Result<()> {
    let mut part = Part::Header(header);
    let mut buffer = vec![0; CHUNK];
    loop {
        if to.blocking_send(ImportDiskRequest { kind: Some(part) }).is_err() {
            // The answer came early: it says why.
            return Ok(());
        }
        let got = loop {
            match source.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                got => break got?,
            }
        };
        if got == 0 {
            let _ = to.blocking_send(ImportDiskRequest { kind: Some(Part::End(ImportDiskEnd {})) });
            return Ok(());
        }
        progress.inc(got as u64);
        part = Part::Data(buffer.get(..got).unwrap_or_default().to_vec().into());
    }
}
