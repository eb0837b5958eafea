//! `skep image`: disks that machines are made from.

use super::{Ctx, disk, export, fetch};
use crate::args::{FactsArgs, ImageCommand};
use crate::error::Failure;
use crate::view;
use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::{CloneDiskRequest, DeleteDiskRequest, Disk, GetDiskRequest, ImageFacts, ImportDiskHeader, UpdateDiskRequest};
use skep_proto::Reason;

/// Runs one.
pub async fn run(ctx: Ctx, command: ImageCommand) -> Result<u8, Failure> {
    match command {
        ImageCommand::List => {
            let all = disk::list(&ctx, None, Some(true)).await?;
            ctx.output.list(view::IMAGES, all.iter().map(|d| (view::disk(d), view::image_row(d))));
        }
        ImageCommand::Show { image } => {
            let image = find(&ctx, image).await?;
            ctx.output.object(&view::disk(&image));
        }
        ImageCommand::Import { name, file, from, kind, read, sha256, description, facts: said, group } => {
            let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let header = ImportDiskHeader {
                name,
                kind: disk::kind(kind),
                sha256: sha256.unwrap_or_default(),
                group: group.unwrap_or_default(),
                image: Some(facts(ImageFacts { source: file_name, ..ImageFacts::default() }, said)?),
                description: description.unwrap_or_default(),
                ..Default::default()
            };
            fetch::take_in(&ctx, disk::reading(header, &read), &file, &from).await?;
        }
        ImageCommand::Create { name, disk, facts: said, wait } => {
            let image = facts(ImageFacts::default(), said)?;
            let begun = ctx.make(|api, request_id| {
                let request = CloneDiskRequest {
                    disk: disk.clone(),
                    name: name.clone(),
                    request_id,
                    image: Some(image.clone()),
                    full: false,
                    snapshot: String::new(),
                };
                async move { DisksClient::clone(&mut api.disks(), request).await }
            });
            let begun = begun.await?;
            ctx.finish(begun, wait).await?;
        }
        ImageCommand::Set { image, description, facts: said } => {
            let found = find(&ctx, image).await?;
            let image = facts(found.image.unwrap_or_default(), said)?;
            let request = UpdateDiskRequest { disk: found.id, name: None, description, image: Some(image), rates: None };
            ctx.made(&view::disk(&ctx.api.disks().update(request).await?.into_inner()), "image", "changed");
        }
        ImageCommand::Rename { image, name } => {
            let request = UpdateDiskRequest { disk: find(&ctx, image).await?.id, name: Some(name), ..Default::default() };
            ctx.made(&view::disk(&ctx.api.disks().update(request).await?.into_inner()), "image", "renamed");
        }
        ImageCommand::Export { image, file } => export::run(&ctx, find(&ctx, image).await?.id, &file).await?,
        ImageCommand::Delete { image } => {
            let found = find(&ctx, image).await?;
            ctx.api.disks().delete(DeleteDiskRequest { disk: found.id }).await?;
            ctx.gone("image", &found.name);
        }
    }
    Ok(0)
}

async fn find(ctx: &Ctx, image: String) -> Result<Disk, Failure> {
    let found = ctx.api.disks().get(GetDiskRequest { disk: image }).await?.into_inner();
    if found.image.is_some() {
        return Ok(found);
    }
    let failure = Failure::new(Reason::InvalidValue, format_args!("disk {}", found.name), "it is no image");
    Err(failure.advice("skep disk deals with it; skep image create makes an image of it"))
}

/// What is known, and what is said now.
fn facts(known: ImageFacts, said: FactsArgs) -> Result<ImageFacts, Failure> {
    let memory = said.min_memory.map(u32::try_from).transpose();
    let memory = memory.map_err(|_| Failure::new(Reason::InvalidValue, "--min-memory", "it is more than a machine can have"))?;
    Ok(ImageFacts {
        source: known.source,
        os: said.os.unwrap_or(known.os),
        user: said.user.unwrap_or(known.user),
        min_disk_bytes: said.min_disk.unwrap_or(known.min_disk_bytes),
        min_memory_mib: memory.unwrap_or(known.min_memory_mib),
    })
}
