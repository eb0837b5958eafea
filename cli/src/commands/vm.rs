//! `skep vm`.

use super::pages::pages;
use super::{Ctx, channel, console, devices, firmware, logs, sound, starting, stats, stopping, vnc, whole};
use crate::args::{Acceleration, ActArgs, CloneArgs, LimitsArgs, Restart, SettingsArgs, Switched, VmCommand};
use crate::error::Failure;
use crate::view;
use prost_types::FieldMask;
use serde_json::{Value, json};
use skep_api::v1::machines_client::MachinesClient;
use skep_api::v1::{
    self, Applies, BiosBoot, Boot, CloneMachineRequest, CreateMachineRequest, DeleteMachineRequest, DirectBoot, EjectRequest,
    GetMachineRequest, ListMachinesRequest, LoaderBoot, MachineActRequest, MachineSettings, RenameMachineRequest, UefiBoot,
    UpdateMachineRequest, boot,
};
use skep_proto::Reason;

/// Runs one.
pub async fn run(ctx: Ctx, command: VmCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.machines();
    match command {
        VmCommand::Create { name, group, settings } => {
            let settings = Some(given(&settings)?);
            let request = CreateMachineRequest { name, settings, group: group.unwrap_or_default(), request_id: String::new() };
            let made = ctx.make(|api, request_id| {
                let request = CreateMachineRequest { request_id, ..request.clone() };
                async move { api.machines().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::machine(&made), "machine", "defined");
        }
        VmCommand::List => {
            let all = list(&ctx).await?;
            ctx.output.list(view::MACHINES, all.iter().map(|m| (view::machine(m), view::machine_row(m))));
        }
        VmCommand::Show(which) => {
            let machine = api.get(GetMachineRequest { machine: which.machine }).await?.into_inner();
            ctx.output.object(&view::machine(&machine));
        }
        VmCommand::Set {
            machine,
            settings,
            no_disks,
            no_channels,
            no_shares,
            no_fw_cfg,
            no_places,
            no_serial,
            no_controllers,
            revision,
        } => {
            let settings = given(&settings)?;
            let none = [no_disks, no_channels, no_shares, no_fw_cfg, no_places, no_serial, no_controllers];
            let paths = if none.contains(&true) { mask(&settings, none) } else { Vec::new() };
            if paths.is_empty() && settings == MachineSettings::default() {
                return Err(Failure::new(Reason::InvalidValue, format_args!("machine {machine}"), "nothing to change was given"));
            }
            let update_mask = Some(FieldMask { paths });
            let request = UpdateMachineRequest { machine, settings: Some(settings), update_mask, revision };
            edited(&ctx, api.update(request).await?.into_inner());
        }
        VmCommand::Rename { machine, name } => {
            let renamed = api.rename(RenameMachineRequest { machine, name }).await?.into_inner();
            ctx.made(&view::machine(&renamed), "machine", "renamed");
        }
        VmCommand::Start(args) => starting::run(&ctx, args).await?,
        VmCommand::Stop(args) => stopping::run(&ctx, args).await?,
        VmCommand::Kill(args) => act(&ctx, args, "kill").await?,
        VmCommand::Reboot(args) => act(&ctx, args, "reboot").await?,
        VmCommand::Reset(args) => act(&ctx, args, "reset").await?,
        VmCommand::Pause(args) => act(&ctx, args, "pause").await?,
        VmCommand::Resume(args) => act(&ctx, args, "resume").await?,
        VmCommand::Console(args) => return console::run(ctx, args).await,
        VmCommand::Play(args) => return console::play(ctx, args).await,
        VmCommand::Sound(args) => return sound::run(ctx, args).await,
        VmCommand::Gdb { machine, path } => return vnc::gdb(ctx, machine, path).await,
        VmCommand::Channel { machine, channel, lines, timeout } => {
            return channel::run(&ctx, machine, channel, lines, timeout).await;
        }
        VmCommand::Vnc { machine, listen, path } => return vnc::run(ctx, machine, listen, path).await,
        VmCommand::Firmware(command) => return firmware::run(ctx, command).await,
        VmCommand::Log { machine, port, hypervisor, tail, since, follow } => {
            let port = (!hypervisor).then_some(port);
            logs::machine(&ctx, machine, port, tail, since, follow).await?;
        }
        VmCommand::Stats { machine, watch, interval } => stats::run(&ctx, machine, watch.then_some(interval)).await?,
        VmCommand::Snapshot(command) => whole::run(ctx, command).await?,
        VmCommand::Clone(CloneArgs { machine, name, snapshot, full, wait }) => {
            let snapshot = snapshot.unwrap_or_default();
            let begun = ctx.make(|api, request_id| {
                let (machine, name, snapshot) = (machine.clone(), name.clone(), snapshot.clone());
                let request = CloneMachineRequest { machine, name, request_id, snapshot, full };
                async move { MachinesClient::clone(&mut api.machines(), request).await }
            });
            let begun = begun.await?;
            ctx.finish(begun, wait).await?;
        }
        VmCommand::Eject { machine, disk } => {
            let machine = api.eject(EjectRequest { machine, disk }).await?.into_inner();
            ctx.made(&view::machine(&machine), "machine", "changed: its drive is empty");
        }
        VmCommand::Delete { machine, disks, wait } => {
            let begun = api.delete(DeleteMachineRequest { machine, disks }).await?.into_inner();
            ctx.finish(begun, wait).await?;
        }
    }
    Ok(0)
}

/// All machines.
pub async fn list(ctx: &Ctx) -> Result<Vec<v1::Machine>, Failure> {
    let mut api = ctx.api.machines();
    Ok(pages!(api.list, machines, ListMachinesRequest {}))
}

pub async fn act(ctx: &Ctx, args: ActArgs, what: &str) -> Result<(), Failure> {
    let mut api = ctx.api.machines();
    let request = MachineActRequest { machine: args.machine, ..MachineActRequest::default() };
    let begun = match what {
        "start" => api.start(request).await,
        "kill" => api.kill(request).await,
        "reboot" => api.reboot(request).await,
        "reset" => api.reset(request).await,
        "pause" => api.pause(request).await,
        _ => api.resume(request).await,
    };
    ctx.finish(begun?.into_inner(), args.wait).await.map(drop)
}

/// What was typed, as settings.
fn given(args: &SettingsArgs) -> Result<MachineSettings, Failure> {
    let direct = args.kernel.as_ref().map(|kernel| {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        boot::Kind::Direct(DirectBoot {
            kernel: kernel.clone(),
            initrd: or_empty(&args.initrd),
            cmdline: or_empty(&args.cmdline),
        })
    });
    let kind = direct
        .or_else(|| args.uefi.then_some(boot::Kind::Uefi(UefiBoot {})))
        .or_else(|| args.loader.then_some(boot::Kind::Loader(LoaderBoot {})))
        .or_else(|| args.bios.then_some(boot::Kind::Bios(BiosBoot {})));
    let acceleration = args.acceleration.map(|a| match a {
        Acceleration::Auto => v1::Acceleration::Auto.into(),
        Acceleration::Tcg => v1::Acceleration::Tcg.into(),
        Acceleration::Kvm => v1::Acceleration::Kvm.into(),
    });
    let topology = args.devices.topology.as_deref().map(devices::topology).transpose()?;
    let product = topology.map(|t| [t.sockets, t.cores, t.threads].into_iter().fold(1, u32::saturating_mul)).filter(|n| *n > 0);
    Ok(MachineSettings {
        cpus: args.cpus.or(product),
        memory_mib: args.memory,
        boot: kind.map(|kind| Boot { kind: Some(kind) }),
        acceleration,
        screen: args.screen.map(|s| s == Switched::On),
        disks: args.disk.iter().map(|text| devices::disk(text)).collect::<Result<_, _>>()?,
        cpu_percent: args.cpu_percent,
        description: args.description.clone(),
        limits: limits(&args.limits)?,
        sound: args.sound.map(|s| s == Switched::On),
        sound_out: args.sound_out.as_deref().map(devices::sound),
        sound_in: args.sound_in.as_deref().map(devices::sound),
        tpm: args.tpm.map(|s| s == Switched::On),
        channels: args.channel.clone(),
        upkeep: upkeep(args)?,
        shares: args.share.iter().map(|text| share(text)).collect::<Result<_, _>>()?,
        screen_properties: devices::screen(&args.devices),
        board: devices::board(&args.devices),
        fw_cfg: args.devices.fw_cfg.iter().map(|text| devices::item(text)).collect::<Result<_, _>>()?,
        places: args.devices.place.iter().map(|text| devices::place(text)).collect::<Result<_, _>>()?,
        serial: args.devices.serial.iter().map(|text| devices::port(text)).collect::<Result<_, _>>()?,
        gdb: args.devices.gdb.map(|gdb| devices::gdb(gdb).into()),
        controllers: args.devices.controller.iter().map(|text| devices::controller(text)).collect::<Result<_, _>>()?,
        topology,
    })
}

/// What was typed of starting; none, if nothing was.
fn upkeep(args: &SettingsArgs) -> Result<Option<v1::MachineUpkeep>, Failure> {
    let seconds = |option: &str, most: u32, time: std::time::Duration| {
        let note = format!("{option}: {time:?} is no number of seconds up to {most}");
        let whole = u32::try_from(time.as_secs()).ok().filter(|_| time.subsec_nanos() == 0);
        whole.ok_or_else(|| Failure::new(Reason::InvalidValue, "machine", note))
    };
    let upkeep = v1::MachineUpkeep {
        autostart: args.autostart.map(|s| s == Switched::On),
        order: args.start_order,
        delay_seconds: args.start_delay.map(|time| seconds("--start-delay", 3_600, time)).transpose()?,
        restart: args.restart.map(|restart| match restart {
            Restart::Never => v1::RestartPolicy::Never.into(),
            Restart::OnFailure => v1::RestartPolicy::OnFailure.into(),
            Restart::Always => v1::RestartPolicy::Always.into(),
        }),
        stop_timeout_seconds: args.stop_timeout.map(|time| seconds("--stop-timeout", 86_400, time)).transpose()?,
    };
    Ok((upkeep != v1::MachineUpkeep::default()).then_some(upkeep))
}

/// What was typed of limits; none, if nothing was.
fn limits(args: &LimitsArgs) -> Result<Option<v1::MachineLimits>, Failure> {
    let word = |text: &Option<String>, none: &str| text.as_ref().map(|t| if t == none { String::new() } else { t.clone() });
    let memory = |mib: u64| {
        let note = "--memory-limit is more than 4P";
        u32::try_from(mib).map_err(|_| Failure::new(Reason::InvalidValue, "machine", note))
    };
    let limits = v1::MachineLimits {
        memory_mib: args.memory_limit.map(memory).transpose()?,
        tasks: args.tasks,
        pcpu: args.pcpu,
        read_bps: args.read_bps,
        write_bps: args.write_bps,
        read_iops: args.read_iops,
        write_iops: args.write_iops,
        cpus: word(&args.cpus_allowed, "all"),
        pins: word(&args.pin, "none"),
        priority: args.priority,
        protect: args.protect.map(|s| s == Switched::On),
        wired: args.wired.map(|s| s == Switched::On),
    };
    Ok((limits != v1::MachineLimits::default()).then_some(limits))
}

/// `NAME[,ro]`.
fn share(text: &str) -> Result<v1::Share, Failure> {
    let (name, read_only) = match text.split_once(',') {
        None => (text, false),
        Some((name, "ro")) => (name, true),
        Some((name, more)) => {
            return Err(Failure::new(
                Reason::InvalidValue,
                format_args!("share {name}"),
                format_args!("--share {text}: `{more}` is not ro"),
            ));
        }
    };
    Ok(v1::Share { name: name.to_owned(), read_only })
}

/// The fields that are set, and the lists that are to become empty.
fn mask(settings: &MachineSettings, none: [bool; 7]) -> Vec<String> {
    let [no_disks, no_channels, no_shares, no_fw_cfg, no_places, no_serial, no_controllers] = none;
    let set = [
        ("cpus", settings.cpus.is_some()),
        ("memory_mib", settings.memory_mib.is_some()),
        ("boot", settings.boot.is_some()),
        ("acceleration", settings.acceleration.is_some()),
        ("screen", settings.screen.is_some()),
        ("cpu_percent", settings.cpu_percent.is_some()),
        ("description", settings.description.is_some()),
        ("limits", settings.limits.is_some()),
        ("disks", no_disks || !settings.disks.is_empty()),
        ("upkeep", settings.upkeep.is_some()),
        ("sound", settings.sound.is_some()),
        ("sound_out", settings.sound_out.is_some()),
        ("sound_in", settings.sound_in.is_some()),
        ("tpm", settings.tpm.is_some()),
        ("channels", no_channels || !settings.channels.is_empty()),
        ("shares", no_shares || !settings.shares.is_empty()),
        ("screen_properties", settings.screen_properties.is_some()),
        ("board", settings.board.is_some()),
        ("fw_cfg", no_fw_cfg || !settings.fw_cfg.is_empty()),
        ("places", no_places || !settings.places.is_empty()),
        ("serial", no_serial || !settings.serial.is_empty()),
        ("gdb", settings.gdb.is_some()),
        ("controllers", no_controllers || !settings.controllers.is_empty()),
        ("topology", settings.topology.is_some()),
    ];
    set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()).collect()
}

/// Says what a change of settings has changed, and when it applies.
pub fn edited(ctx: &Ctx, edited: v1::UpdateMachineResponse) {
    let when = |change: &v1::Change| if change.applies() == Applies::Now { "now" } else { "next start" };
    let machine = edited.machine.unwrap_or_default();
    if ctx.output.json {
        let changes: Vec<Value> = edited.changes.iter().map(|c| json!({"field": c.field, "applies": when(c)})).collect();
        return ctx.output.line(json!({"machine": view::machine(&machine), "changes": changes}));
    }
    if edited.changes.is_empty() {
        ctx.output.remark(format_args!("machine {}: it is so already", machine.name));
    }
    for change in &edited.changes {
        let applies = if change.applies() == Applies::Now { "applies now" } else { "applies at the next start" };
        ctx.output.remark(format_args!("machine {}: {} {applies}", machine.name, change.field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_typed_by_its_name() {
        let typed = |text| share(text).map(|share| (share.name, share.read_only)).map_err(|failure| failure.exit);
        assert_eq!(typed("src,ro"), Ok(("src".into(), true)));
        assert_eq!(typed("src"), Ok(("src".into(), false)));
        assert_eq!((typed("src,rw"), typed("src,ro,ro")), (Err(8), Err(8)));
    }
}
