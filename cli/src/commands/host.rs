//! `skep host`.

use super::Ctx;
use crate::args::HostCommand;
use crate::error::Failure;
use serde_json::{Value, json};
use skep_api::v1::{self, ShowHostRequest};

/// `skep host`.
pub async fn run(ctx: Ctx, command: HostCommand) -> Result<u8, Failure> {
    let HostCommand::Show = command;
    let host = ctx.api.host().show(ShowHostRequest {}).await?.into_inner();
    ctx.output.object(&view(&host));
    Ok(0)
}

fn uplink(interface: &v1::HostInterface) -> Value {
    json!({"name": interface.name, "up": interface.up, "mtu": interface.mtu, "bridge": interface.bridge})
}

fn sound_device(device: &v1::SoundDevice) -> Value {
    json!({"name": device.name, "description": device.description, "plays": device.plays, "records": device.records})
}

/// What is shown of it.
fn view(host: &v1::HostInfo) -> Value {
    json!({
        "version": host.version,
        "instance": host.instance,
        "system": host.system,
        "hypervisor": host.hypervisor,
        "uefi": host.uefi,
        "cpus": host.cpus,
        "machine_cpus": host.machine_cpus,
        "machine_screen": format!("{}x{}", host.screen_width, host.screen_height),
        "memory": host.memory_bytes,
        "space": host.space_bytes,
        "space_free": host.space_free_bytes,
        "reflink": host.reflink,
        "limits": host.limits,
        "weaker": host.weaker,
        "helpers": host.helpers,
        "shares": host.shares,
        "abilities": host.abilities,
        "inabilities": host.inabilities,
        "keyboards": host.keyboards,
        "wireguard_key": host.wireguard_key,
        "uplinks": host.uplinks.iter().map(uplink).collect::<Vec<_>>(),
        "sound_devices": host.sound_devices.iter().map(sound_device).collect::<Vec<_>>(),
        "certificate": host.certificate,
    })
}
