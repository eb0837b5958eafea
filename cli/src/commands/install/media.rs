//! What an installer boots: its ISO image, in the suite's library; its kernel and initial RAM disk, out of that; its answers.

use super::super::{Ctx, disk, fetch, template};
use super::{initrd, iso9660};
use crate::args::{FetchArgs, InstallArgs};
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::templates::Found;
use crate::templates::install::Install;
use skep_api::v1::export_disk_response::Kind;
use skep_api::v1::{Disk, DiskKind, ExportDiskRequest, GetDiskRequest, ImageFormat, ImportDiskHeader};
use skep_proto::{Reason, Refusal};
use std::io::Read;
use std::path::Path;

/// Bytes of answers, at most: what a volume holds beside its own tables.
const ANSWERS: u64 = 512 << 10;
/// Bytes of a kernel or an initial RAM disk, at most.
const MOST: u64 = 512 << 20;

/// What is booted, and what it reads.
pub struct Media {
    /// The ISO image, as the library knows it.
    pub iso: Option<Disk>,
    /// Kernel and initial RAM disk; none: the ISO image boots by itself.
    pub boot: Option<(Vec<u8>, Vec<u8>)>,
    /// The bytes of the answers' volume, if there is one.
    pub volume: Option<Vec<u8>>,
}

/// Reads a file of at most so many bytes.
pub fn read(path: &Path, most: u64, option: &'static str) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| Failure::io(format_args!("file {}", path.display()), "read", &e);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let refusal = Refusal::new(Reason::TooLarge, format_args!("file {}", path.display())).field(option);
        return Err(refusal.note(format_args!("it has more than {most} bytes")).into());
    }
    Ok(bytes)
}

/// Gathers it; the ISO image comes into the library, if it is not there.
pub async fn gather(ctx: &Ctx, args: &InstallArgs, found: &Found, install: &Install, answers: &[u8]) -> Result<Media, Failure> {
    let iso = library(ctx, args, found, install).await?;
    let wrong = |field: &'static str, note: String| Failure::from(Refusal::new(Reason::InvalidValue, "").field(field).note(note));
    let boot = match (&args.kernel, &args.initrd) {
        (Some(kernel), Some(initrd)) => Some((read(kernel, MOST, "--kernel")?, read(initrd, MOST, "--initrd")?)),
        _ if install.kernel.is_empty() => None,
        _ => {
            let Some(iso) = &iso else {
                return Err(wrong("--iso", "the template names no ISO image, in which its kernel would be".into()));
            };
            let kernel = inside(ctx, iso, &install.kernel).await?;
            let initrd = if install.initrd.is_empty() { Vec::new() } else { inside(ctx, iso, &install.initrd).await? };
            Some((kernel, initrd))
        }
    };
    if boot.is_none() && iso.is_none() {
        return Err(wrong("--iso", "the template names no ISO image".into()));
    }
    if install.volume.is_empty() {
        let Some((kernel, initrd)) = boot else {
            return Err(wrong("--initrd", "the answers are to be in the initial RAM disk, and there is none".into()));
        };
        let initrd = initrd::with_file(initrd, &install.answers, answers);
        return Ok(Media { iso, boot: Some((kernel, initrd)), volume: None });
    }
    let volume = volume(install, &args.name, answers).map_err(|e| wrong("--answers", e.to_string()))?;
    Ok(Media { iso, boot, volume: Some(volume) })
}

/// Reads the answers.
pub fn answers(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(path, ANSWERS, "--answers")?;
    if bytes.is_empty() || bytes.contains(&0) {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("file {}", path.display())).field("--answers");
        return Err(refusal.note("a text is expected, without NUL").into());
    }
    Ok(bytes)
}

/// A volume with the answers. cloud-init takes one for a seed if it holds meta-data, too.
fn volume(install: &Install, name: &str, answers: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut label = [b' '; 11];
    label.iter_mut().zip(install.volume.bytes()).for_each(|(to, from)| *to = from);
    let meta = format!("instance-id: install-{name}\n");
    let mut files = vec![(install.answers.as_str(), answers)];
    if install.volume == "CIDATA" {
        files.push(("meta-data", meta.as_bytes()));
    }
    skep_seed::volume(label, &files)
}

/// The ISO image in the library. One that is not there is taken in under its file's name, and stays.
async fn library(ctx: &Ctx, args: &InstallArgs, found: &Found, install: &Install) -> Result<Option<Disk>, Failure> {
    let from = FetchArgs { ca: args.ca.clone(), ..FetchArgs::default() };
    let (what, from) = match (&args.iso, &install.iso) {
        (Some(given), _) => (given.clone(), from),
        // With a kernel of one's own it is for him to say whether it needs an ISO image.
        (None, Some(image)) if args.kernel.is_none() => (image.url.clone(), template::source(found, image, &from)?),
        _ => return Ok(None),
    };
    let file = what.contains("://") || what.contains('/') || Path::new(&what).is_file();
    let name = if file { what.rsplit('/').next().unwrap_or_default().to_owned() } else { what.clone() };
    let get = || async { ctx.api.disks().get(GetDiskRequest { disk: name.clone() }).await.map(tonic::Response::into_inner) };
    match get().await {
        Ok(disk) if disk.iso => return Ok(Some(disk)),
        Ok(_) => {
            let refusal = Refusal::new(Reason::InvalidValue, format_args!("disk {name}")).field("--iso");
            return Err(refusal.note("it is no ISO image").into());
        }
        Err(status) if status.code() == tonic::Code::NotFound && file => {}
        Err(status) => return Err(status.into()),
    }
    let header = ImportDiskHeader {
        name: name.clone(),
        kind: DiskKind::Raw.into(),
        format: ImageFormat::Raw.into(),
        group: args.group.clone().unwrap_or_default(),
        iso: true,
        ..Default::default()
    };
    fetch::take_in(ctx, header, Path::new(&what), &from).await?;
    Ok(Some(get().await?))
}

/// Reads a file that is in an ISO image.
async fn inside(ctx: &Ctx, iso: &Disk, path: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |note: String| Failure::new(Reason::InvalidValue, format_args!("iso {}", iso.name), note);
    let descriptor = part(ctx, iso, iso9660::DESCRIPTORS, iso9660::SECTOR).await?;
    let mut at = iso9660::root(&descriptor).ok_or_else(|| wrong("it is no ISO 9660 file system".into()))?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if !at.directory || at.bytes > iso9660::MOST {
            return Err(wrong(format!("{path}: a directory on the way is none")));
        }
        let directory = part(ctx, iso, at.at, at.bytes).await?;
        at = iso9660::find(&directory, name).ok_or_else(|| wrong(format!("there is no {path} in it")))?;
    }
    if at.directory || at.bytes == 0 || at.bytes > MOST {
        return Err(wrong(format!("{path} is no file of 1 to {MOST} bytes")));
    }
    part(ctx, iso, at.at, at.bytes).await
}

/// Reads some of an ISO image's bytes.
async fn part(ctx: &Ctx, iso: &Disk, from: u64, bytes: u64) -> Result<Vec<u8>, Failure> {
    let cut =
        || Failure::new(Reason::InvalidValue, format_args!("iso {}", iso.name), "what it says is in it lies behind its end");
    if from.checked_add(bytes).is_none_or(|end| end > iso.size_bytes) {
        return Err(cut());
    }
    let wanted = usize::try_from(bytes).map_err(|_| cut())?;
    let request = ExportDiskRequest { disk: iso.id.clone(), offset_bytes: from };
    let mut stream = ctx.api.disks().export(request).await?.into_inner();
    let mut read = Vec::with_capacity(wanted);
    while read.len() < wanted {
        match stream.message().await?.and_then(|message| message.kind) {
            Some(Kind::Header(_)) => {}
            Some(Kind::Data(data)) => read.extend_from_slice(data.get(..data.len().min(wanted - read.len())).unwrap_or_default()),
            Some(Kind::End(_)) | None => return Err(cut()),
        }
    }
    Ok(read)
}

/// Makes a disk of bytes that are here.
pub async fn upload(ctx: &Ctx, name: &str, group: &str, bytes: Vec<u8>) -> Result<(), Failure> {
    let header = ImportDiskHeader {
        name: name.to_owned(),
        kind: DiskKind::Raw.into(),
        format: ImageFormat::Raw.into(),
        group: group.to_owned(),
        ..Default::default()
    };
    let begun = disk::import(ctx, header, disk::Origin::Bytes(Path::new(name), bytes.into())).await?;
    operation::finish(&ctx.api, ctx.output, begun, Interrupt::Cancels).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_a_text_of_some_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers");
        for (text, good) in [(&b"d-i x"[..], true), (b"", false), (b"a\0b", false), (&vec![b'a'; 600 << 10], false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(answers(&path).is_ok(), good);
        }
        assert!(answers(dir.path()).is_err());
    }
}
