//! `skep iso`: disks that are ISO images, and the drives that they are in.

use super::{Ctx, disk, fetch};
use crate::args::IsoCommand;
use crate::error::Failure;
use crate::view;
use skep_api::v1::{
    Controller, DeleteDiskRequest, Disk, DiskAttachment, DiskKind, EjectRequest, GetDiskRequest, GetMachineRequest, ImageFormat,
    ImportDiskHeader, MachineSettings, UpdateDiskRequest, UpdateMachineRequest,
};
use skep_proto::Reason;

/// Runs one.
pub async fn run(ctx: Ctx, command: IsoCommand) -> Result<u8, Failure> {
    match command {
        IsoCommand::List => {
            let all = disk::list(&ctx, Some(true), None).await?;
            ctx.output.list(view::DISKS, all.iter().map(|d| (view::disk(d), view::disk_row(d))));
        }
        IsoCommand::Show { iso } => {
            let iso = find(&ctx, iso).await?;
            ctx.output.object(&view::disk(&iso));
        }
        IsoCommand::Import { name, file, from, sha256, group } => {
            let header = ImportDiskHeader {
                name,
                kind: DiskKind::Raw.into(),
                format: ImageFormat::Raw.into(),
                sha256: sha256.unwrap_or_default(),
                group: group.unwrap_or_default(),
                iso: true,
                ..Default::default()
            };
            fetch::take_in(&ctx, header, &file, &from).await?;
        }
        IsoCommand::Rename { iso, name } => {
            let request = UpdateDiskRequest { disk: find(&ctx, iso).await?.id, name: Some(name), ..Default::default() };
            ctx.made(&view::disk(&ctx.api.disks().update(request).await?.into_inner()), "iso", "renamed");
        }
        IsoCommand::Delete { iso } => {
            let found = find(&ctx, iso).await?;
            ctx.api.disks().delete(DeleteDiskRequest { disk: found.id }).await?;
            ctx.gone("iso", &found.name);
        }
        IsoCommand::Attach { machine, iso, on, eject_once } => attach(&ctx, machine, iso, on, eject_once).await?,
        IsoCommand::Eject { machine, iso } => {
            let request = EjectRequest { machine, disk: find(&ctx, iso).await?.id };
            let machine = ctx.api.machines().eject(request).await?.into_inner();
            ctx.made(&view::machine(&machine), "machine", "changed: its drive is empty");
        }
    }
    Ok(0)
}

async fn find(ctx: &Ctx, iso: String) -> Result<Disk, Failure> {
    let found = ctx.api.disks().get(GetDiskRequest { disk: iso }).await?.into_inner();
    if found.iso {
        return Ok(found);
    }
    let failure = Failure::new(Reason::InvalidValue, format_args!("disk {}", found.name), "it is no ISO image");
    Err(failure.advice("skep disk deals with it"))
}

/// Puts it into a drive: the one that it was in, or a new one, after the machine's other disks.
async fn attach(ctx: &Ctx, machine: String, iso: String, on: Option<String>, once: bool) -> Result<(), Failure> {
    let iso = find(ctx, iso).await?;
    let found = ctx.api.machines().get(GetMachineRequest { machine }).await?.into_inner();
    let mut disks = found.settings.map(|settings| settings.disks).unwrap_or_default();
    let place = disks.iter().position(|disk| disk.id == iso.id);
    let place = place.unwrap_or_else(|| {
        disks.push(DiskAttachment { disk: iso.name.clone(), controller: Controller::AhciCd.into(), ..Default::default() });
        disks.len() - 1
    });
    if let Some(drive) = disks.get_mut(place) {
        (drive.ejected, drive.eject_after_first_boot) = (false, once);
        if let Some(on) = on {
            (drive.on, drive.port) = (on, None);
        }
    }
    let settings = MachineSettings { disks, ..Default::default() };
    let request =
        UpdateMachineRequest { machine: found.id, settings: Some(settings), update_mask: None, revision: found.revision };
    super::vm::edited(ctx, ctx.api.machines().update(request).await?.into_inner());
    Ok(())
}
