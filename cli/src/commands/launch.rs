//! `skep launch`.

use super::{Ctx, template};
use crate::args::{FetchArgs, LaunchArgs};
use crate::error::Failure;
use crate::templates::Seed;
use crate::view;
use skep_api::v1::{GetDiskRequest, GetMachineRequest, GetNicRequest, LaunchMachineRequest, Machine, MachineSettings};
use skep_proto::{Reason, Refusal};
use std::path::Path;

/// Bytes of a file that is read whole, at most.
const MOST: u64 = 256 << 10;

fn read(path: &Path, field: &'static str) -> Result<Vec<u8>, Failure> {
    let failed = |note: String| Failure::from(Refusal::new(Reason::InvalidValue, path.display()).field(field).note(note));
    let length = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if length > MOST {
        return Err(failed(format!("{length} bytes; at most {MOST} fit a seed")));
    }
    std::fs::read(path).map_err(|e| failed(e.to_string()))
}

/// The keys of a file in the form of authorized_keys (sshd(8)).
fn keys(path: &Path) -> Result<Vec<String>, Failure> {
    let text = String::from_utf8_lossy(&read(path, "--ssh-key")?).into_owned();
    if text.contains("PRIVATE KEY") {
        let note = "this is a private key, which stays here; its public half is in the file that ends in .pub";
        return Err(Refusal::new(Reason::InvalidValue, path.display()).field("--ssh-key").note(note).into());
    }
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// Runs it.
pub async fn run(ctx: Ctx, args: LaunchArgs) -> Result<u8, Failure> {
    let mut ssh_keys = Vec::new();
    for path in &args.ssh_keys {
        ssh_keys.extend(keys(path)?);
    }
    let user_data = args.user_data.as_deref().map_or(Ok(Vec::new()), |path| read(path, "--user-data"))?;
    let image = args.image;
    let from = FetchArgs { ca: args.ca, ..FetchArgs::default() };
    let template = template::image(&ctx, &image, &from, args.group.clone()).await?;
    let settings = template::settings(template.as_ref());
    // Who has nothing to learn from says nothing either.
    let silent = template.is_some_and(|template| template.seed == Seed::None);
    let request = LaunchMachineRequest {
        name: args.name.clone(),
        image: image.clone(),
        settings: Some(MachineSettings { cpus: args.cpus.or(settings.cpus), memory_mib: args.memory, ..settings }),
        size_bytes: args.size.unwrap_or_default(),
        switch: args.switch.unwrap_or_default(),
        ssh_keys,
        user_data: user_data.into(),
        group: args.group.unwrap_or_default(),
        wait_for_guest: !args.no_wait_for_guest && !silent,
        request_id: String::new(),
    };
    let begun = ctx.make(|api, request_id| {
        let request = LaunchMachineRequest { request_id, ..request.clone() };
        async move { api.machines().launch(request).await }
    });
    let begun = begun.await?;
    let waits = !args.wait.no_wait;
    ctx.finish(begun, args.wait).await?;
    if waits {
        let machine = ctx.api.machines().get(GetMachineRequest { machine: args.name }).await?.into_inner();
        ctx.output.object(&view::machine(&machine));
        if let Some(how) = login(&ctx, image, &machine).await {
            ctx.output.remark(how);
        }
    }
    Ok(0)
}

/// How its guest lets one in, if that is known.
async fn login(ctx: &Ctx, image: String, machine: &Machine) -> Option<String> {
    let nic = machine.nics.first()?.id.clone();
    let nic = ctx.api.nics().get(GetNicRequest { nic }).await.ok()?.into_inner();
    let image = ctx.api.disks().get(GetDiskRequest { disk: image }).await.ok()?.into_inner().image?;
    (!image.user.is_empty() && !nic.address.is_empty()).then(|| format!("ssh {}@{}", image.user, nic.address))
}
