//! `skep disk`.

use super::Ctx;
use crate::args::{DiskCommand, Format, Kind, SnapshotCommand};
use crate::error::Failure;
use crate::operation::{self, Interrupt, bar};
use crate::view;
use indicatif::ProgressBar;
use skep_api::CHUNK;
use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::import_disk_request::Kind as Part;
use skep_api::v1::{
    CloneDiskRequest, CreateDiskRequest, CreateSnapshotRequest, DeleteDiskRequest, DeleteSnapshotRequest, DiskKind,
    GetDiskRequest, ImageFormat, ImportDiskEnd, ImportDiskHeader, ImportDiskRequest, ListDisksRequest, ListSnapshotsRequest,
    Operation, ResizeDiskRequest, RollBackDiskRequest, UpdateDiskRequest, WipeDiskRequest,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn kind(kind: Kind) -> i32 {
    match kind {
        Kind::Raw => DiskKind::Raw,
        Kind::Qcow2 => DiskKind::Qcow2,
        Kind::Zvol => DiskKind::Zvol,
    }
    .into()
}

/// Runs one.
pub async fn run(ctx: Ctx, command: DiskCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.disks();
    match command {
        DiskCommand::Create { name, size, kind: how, group } => {
            let group = group.unwrap_or_default();
            let made = ctx.make(|api, request_id| {
                let (name, group) = (name.clone(), group.clone());
                let request = CreateDiskRequest { name, kind: kind(how), size_bytes: size, group, request_id };
                async move { api.disks().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::disk(&made), "disk", "made");
        }
        DiskCommand::Import { name, file, kind: how, format, sha256, group } => {
            let format = match format {
                Format::Auto => ImageFormat::Unspecified,
                Format::Raw => ImageFormat::Raw,
                Format::Qcow2 => ImageFormat::Qcow2,
            };
            let sha256 = sha256.unwrap_or_default();
            let header = ImportDiskHeader {
                name: name.clone(),
                kind: kind(how),
                format: format.into(),
                expect_bytes: 0,
                sha256,
                group: group.unwrap_or_default(),
                // A stream that broke is cancelled, so there is nothing to be known again.
                request_id: String::new(),
            };
            let begun = import(&ctx, header, &file).await?;
            let ended = operation::finish(&ctx.api, ctx.output, begun, Interrupt::Cancels).await?;
            if ctx.output.json {
                ctx.output.line(view::operation(&ended));
            } else {
                ctx.output.remark(format_args!("disk {name}: imported"));
            }
        }
        DiskCommand::Clone { disk, name, wait } => {
            let begun = ctx.make(|api, request_id| {
                let request = CloneDiskRequest { disk: disk.clone(), name: name.clone(), request_id };
                async move { DisksClient::clone(&mut api.disks(), request).await }
            });
            let begun = begun.await?;
            ctx.finish(begun, wait).await?;
        }
        DiskCommand::Resize { disk, size } => {
            let disk = api.resize(ResizeDiskRequest { disk, size_bytes: size }).await?.into_inner();
            ctx.made(&view::disk(&disk), "disk", "resized");
        }
        DiskCommand::Rename { disk, name } => {
            let request = UpdateDiskRequest { disk, name: Some(name), ..Default::default() };
            ctx.made(&view::disk(&api.update(request).await?.into_inner()), "disk", "renamed");
        }
        DiskCommand::Set { disk, description } => {
            let request = UpdateDiskRequest { disk, description, ..Default::default() };
            ctx.made(&view::disk(&api.update(request).await?.into_inner()), "disk", "changed");
        }
        DiskCommand::Wipe { disk } => {
            let disk = api.wipe(WipeDiskRequest { disk }).await?.into_inner();
            ctx.made(&view::disk(&disk), "disk", "wiped");
        }
        DiskCommand::List => {
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let page = api.list(ListDisksRequest { page_size: 0, page_token }).await?.into_inner();
                all.extend(page.disks);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
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

/// Runs one about snapshots.
async fn snapshot(ctx: Ctx, command: SnapshotCommand) -> Result<(), Failure> {
    let mut api = ctx.api.disks();
    match command {
        SnapshotCommand::Create { disk, name } => {
            let made = api.create_snapshot(CreateSnapshotRequest { disk, name }).await?.into_inner();
            ctx.made(&view::snapshot(&made), "snapshot", "made");
        }
        SnapshotCommand::List { disk } => {
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListSnapshotsRequest { disk: disk.clone(), page_size: 0, page_token };
                let page = api.list_snapshots(request).await?.into_inner();
                all.extend(page.snapshots);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            ctx.output.list(view::SNAPSHOTS, all.iter().map(|s| (view::snapshot(s), view::snapshot_row(s))));
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

/// Sends an image. ^C ends the stream early, and what came is thrown away.
async fn import(ctx: &Ctx, mut header: ImportDiskHeader, file: &Path) -> Result<Operation, Failure> {
    let failed = |what: &str, e: &std::io::Error| Failure::io(format_args!("file {}", file.display()), what, e);
    let mut source: Box<dyn Read + Send> = Box::new(std::io::stdin());
    if file != Path::new("-") {
        let opened = File::open(file).map_err(|e| failed("open", &e))?;
        let meta = opened.metadata().map_err(|e| failed("look at", &e))?;
        if meta.is_dir() {
            return Err(failed("read", &std::io::ErrorKind::IsADirectory.into()));
        }
        header.expect_bytes = if meta.is_file() { meta.len() } else { 0 };
        source = Box::new(opened);
    }
    let shown = bar(ctx.output, format!("disk {}: import", header.name), header.expect_bytes);
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
    let mut api = ctx.api.disks();
    let begun = tokio::select! {
        biased;
        Some(error) = why.recv() => Err(failed("read", &error)),
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted("the import was cancelled, and nothing was left behind")),
        begun = api.import(ReceiverStream::new(parts)) => begun.map(tonic::Response::into_inner).map_err(Failure::from),
    };
    shown.finish_and_clear();
    begun
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
