//! `skep disk export`.

use super::Ctx;
use crate::error::Failure;
use crate::operation::bar;
use crate::view;
use sha2::{Digest, Sha256};
use skep_api::v1::export_disk_response::Kind;
use skep_api::v1::{Disk, ExportDiskRequest};
use skep_proto::Reason;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What came so far.
struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Part {
    /// Begins one, or goes on with what an earlier command left.
    fn open(path: PathBuf) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; skep_api::CHUNK]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self { path, file, hash, bytes }),
                got => {
                    hash.update(buffer.get(..got).unwrap_or_default());
                    bytes += got as u64;
                }
            }
        }
    }
}

/// Reads a disk into a file.
pub async fn run(ctx: &Ctx, disk: String, path: &Path) -> Result<(), Failure> {
    let failed = |what: &'static str| move |e: std::io::Error| Failure::io(format_args!("file {}", path.display()), what, &e);
    if path.exists() {
        return Err(Failure::new(Reason::AlreadyExists, format_args!("file {}", path.display()), "it is there already"));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let mut part = Part::open(PathBuf::from(name)).map_err(failed("begin"))?;
    let shown = bar(ctx.output, format!("disk {disk}: export"), 0);
    let (mut api, mut until) = (ctx.api.clone(), Instant::now() + super::AGAIN);
    let done = loop {
        let before = part.bytes;
        let taken = async { take(&api, &disk, &mut part, &shown).await };
        let failure = tokio::select! {
            taken = taken => match taken {
                Ok(done) => break Ok(done),
                Err(failure) => failure,
            },
            _ = tokio::signal::ctrl_c() => break Err(Failure::interrupted("what came is kept: the same command goes on with it")),
        };
        if part.bytes > before {
            until = Instant::now() + super::AGAIN;
        }
        if !failure.is_unavailable() || Instant::now() > until {
            break Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Ok(renewed) = api.again().await {
            api = renewed;
        }
    };
    shown.finish_and_clear();
    let remove = |failure| {
        // It is nothing to go on with.
        let _ = std::fs::remove_file(&part.path);
        failure
    };
    let (disk, sha256) = match done {
        Err(failure) if part.bytes == 0 => return Err(remove(failure)),
        done => done?,
    };
    let ours: String = part.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if ours != sha256 {
        let note = format!("SHA-256 of what came is {ours}, the disk's is {sha256}: it was changed in between; begin anew");
        return Err(remove(Failure::new(Reason::ChecksumMismatch, format_args!("disk {}", disk.name), note)));
    }
    part.file.sync_all().map_err(failed("sync"))?;
    std::fs::rename(&part.path, path).map_err(failed("finish"))?;
    let mut value = view::disk(&disk);
    if let Some(value) = value.as_object_mut() {
        value.insert("exported_sha256".into(), sha256.into());
    }
    ctx.made(&value, "disk", "exported");
    Ok(())
}

/// One stream, from what is there already.
async fn take(
    api: &crate::client::Api, disk: &str, part: &mut Part, shown: &indicatif::ProgressBar,
) -> Result<(Disk, String), Failure> {
    let object = format!("disk {disk}");
    let broken = || Failure::new(Reason::Unavailable, &object, "the stream ended early");
    let request = ExportDiskRequest { disk: disk.to_owned(), offset_bytes: part.bytes };
    let mut stream = api.disks().export(request).await?.into_inner();
    let Some(Kind::Header(header)) = stream.message().await?.and_then(|m| m.kind) else { return Err(broken()) };
    shown.set_length(header.size_bytes);
    shown.set_position(part.bytes);
    let found = header.disk.ok_or_else(broken)?;
    loop {
        match stream.message().await?.and_then(|m| m.kind) {
            Some(Kind::Data(data)) => {
                part.file.write_all(&data).map_err(|e| Failure::io(part.path.display(), "write", &e))?;
                part.hash.update(&data);
                part.bytes += data.len() as u64;
                shown.set_position(part.bytes);
            }
            Some(Kind::End(end)) => return Ok((found, end.sha256)),
            Some(Kind::Header(_)) | None => return Err(broken()),
        }
    }
}
