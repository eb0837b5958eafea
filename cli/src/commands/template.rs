//! `skep template`, and images that come by one.

use super::{Ctx, fetch};
use crate::args::{FetchArgs, TemplateCommand};
use crate::error::Failure;
use crate::output::{Column, Output};
use crate::templates::{self, Firmware, Found, Image, Seed, Template};
use serde_json::{Value, json};
use skep_api::v1::{BiosBoot, Boot, Disk, GetDiskRequest, ImageFacts, ImportDiskHeader, MachineSettings, UefiBoot, boot};
use skep_proto::{Reason, Refusal};
use std::path::Path;

const TEMPLATES: &[Column] =
    &[Column::Left("NAME"), Column::Left("OS"), Column::Left("USER"), Column::Left("IMAGE"), Column::Left("DESCRIPTION")];

/// Runs one.
pub fn run(output: Output, command: TemplateCommand) -> Result<u8, Failure> {
    let directories = templates::directories();
    match command {
        TemplateCommand::List => {
            let all = templates::list(&directories);
            output.list(TEMPLATES, all.iter().map(|found| (value(found), row(found))));
        }
        TemplateCommand::Show { template } => {
            let found = templates::find(&directories, &template).ok_or_else(|| templates::missing(&directories, &template))?;
            good(&found)?;
            output.object(&value(&found));
        }
    }
    Ok(0)
}

/// What it says, if its file is good.
pub fn good(found: &Found) -> Result<&Template, Failure> {
    let wrong = |why: &String| {
        Refusal::new(Reason::InvalidValue, format_args!("template {}", found.name))
            .note(format_args!("{}: {why}", found.path.display()))
    };
    found.template.as_ref().map_err(|why| wrong(why).into())
}

fn value(found: &Found) -> Value {
    let file = found.path.display().to_string();
    let template = match &found.template {
        Ok(template) => template,
        Err(why) => return json!({"name": found.name, "file": file, "wrong": why}),
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let of_image = |image: &Image| json!({"url": image.url, "sums": text(&image.sums), "signature": text(&image.signature), "key": text(&image.key)});
    json!({
        "name": found.name,
        "description": template.description,
        "os": template.os,
        "user": text(&template.user),
        "image": template.image.as_ref().map(of_image),
        "install": template.install.as_ref().map(|install| {
            json!({
                "iso": install.iso.as_ref().map(of_image), "kernel": text(&install.kernel), "initrd": text(&install.initrd),
                "cmdline": text(&install.cmdline), "answers": install.answers, "volume": text(&install.volume),
                "network": install.network, "steps": install.script.lines().filter(|line| !line.trim().is_empty()).count(),
            })
        }),
        "seed": if template.seed == Seed::None { "none" } else { "nocloud" },
        "min_disk": (template.min_disk > 0).then_some(template.min_disk),
        "min_memory_mib": (template.min_memory > 0).then_some(template.min_memory),
        "cpus": template.machine.cpus,
        "firmware": template.machine.firmware.map(|firmware| if firmware == Firmware::Bios { "bios" } else { "uefi" }),
        "screen": template.machine.screen,
        "note": text(&template.note),
        "file": file,
    })
}

fn row(found: &Found) -> Vec<String> {
    match &found.template {
        Ok(template) => {
            let from = template
                .image
                .as_ref()
                .map_or("your own", |image| image.url.trim_start_matches("https://").split('/').next().unwrap_or_default());
            vec![found.name.clone(), template.os.clone(), template.user.clone(), from.to_owned(), template.description.clone()]
        }
        Err(why) => vec![found.name.clone(), String::new(), String::new(), String::new(), format!("wrong: {why}")],
    }
}

/// The image of this name, and the template that it came by. If there is no such image but a template, it is fetched.
pub async fn image(ctx: &Ctx, name: &str, from: &FetchArgs, group: Option<String>) -> Result<Option<Template>, Failure> {
    let found = templates::find(&templates::directories(), name);
    match ctx.api.disks().get(GetDiskRequest { disk: name.to_owned() }).await {
        Ok(disk) => {
            let disk: Disk = disk.into_inner();
            let source = disk.image.map(|facts| facts.source).unwrap_or_default();
            // Of another image of that name the template says nothing.
            let its = |template: &Template| template.image.as_ref().is_none_or(|image| image.url == source);
            return Ok(found.and_then(|found| found.template.ok()).filter(its));
        }
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(status) => return Err(status.into()),
    }
    let none =
        || Failure::new(Reason::NotFound, format_args!("image {name}"), "there is neither an image nor a template of that name");
    let found = found.ok_or_else(|| none().advice("skep image list, skep template list"))?;
    let template = good(&found)?;
    let Some(image) = &template.image else {
        let refusal = Refusal::new(Reason::NotFound, format_args!("image {name}"));
        let note = if template.note.is_empty() { "the template names no image to fetch" } else { &template.note };
        return Err(refusal.note(note).into());
    };
    let header = ImportDiskHeader {
        name: name.to_owned(),
        group: group.unwrap_or_default(),
        image: Some(ImageFacts {
            source: String::new(),
            os: template.os.clone(),
            user: template.user.clone(),
            min_disk_bytes: template.min_disk,
            min_memory_mib: u32::try_from(template.min_memory).unwrap_or(u32::MAX),
        }),
        description: template.description.clone(),
        ..ImportDiskHeader::default()
    };
    let from = source(&found, image, from)?;
    fetch::take_in(ctx, header, Path::new(&image.url), &from).await?;
    Ok(Some(template.clone()))
}

/// How one of a template's images is fetched: held against its list, and that or itself against its key.
pub fn source(found: &Found, image: &Image, from: &FetchArgs) -> Result<FetchArgs, Failure> {
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let object = || format!("template {}", found.name);
    let missing = |why| Failure::from(Refusal::new(Reason::NotFound, object()).field("key").note(why));
    let signed_by = found.key(image).transpose().map_err(missing)?;
    Ok(FetchArgs { sums: said(&image.sums), signature: said(&image.signature), signed_by, ca: from.ca.clone() })
}

/// What a machine of this template has, where nobody says otherwise.
pub fn settings(template: Option<&Template>) -> MachineSettings {
    let Some(machine) = template.map(|template| &template.machine) else { return MachineSettings::default() };
    let boot = machine.firmware.map(|firmware| match firmware {
        Firmware::Uefi => boot::Kind::Uefi(UefiBoot {}),
        Firmware::Bios => boot::Kind::Bios(BiosBoot {}),
    });
    let boot = boot.map(|kind| Boot { kind: Some(kind) });
    MachineSettings { cpus: machine.cpus, boot, screen: machine.screen, ..MachineSettings::default() }
}
