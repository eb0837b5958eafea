//! Machines.

use super::network::mac_text;
use super::{at_most, devices, given, invalid, known, maybe_named, named, optional, strings, time, value, within};
use skep_api::v1;
use skep_proto::broker::{
    Acceleration, Applies, BootDraft, Controller, DiskDraft, GuestData, Limits, LimitsDraft, MAX_GUEST_DATA, MachineCreate,
    MachineEdited, MachineLaunch, MachineLog, MachineSet, MachineState, MachineView, Restart, Settings, Upkeep, UpkeepDraft,
};
use skep_proto::storage::LogKind;
use skep_proto::{Reason, Refusal, Share};

/// A machine.
pub fn machine(view: MachineView) -> v1::Machine {
    let state = match view.state {
        MachineState::Stopped => v1::MachineState::Stopped,
        MachineState::Starting => v1::MachineState::Starting,
        MachineState::Running => v1::MachineState::Running,
        MachineState::Paused => v1::MachineState::Paused,
        MachineState::Stopping => v1::MachineState::Stopping,
        MachineState::Failed => v1::MachineState::Failed,
    };
    let acceleration = match view.acceleration {
        Acceleration::Auto => v1::Acceleration::Auto,
        Acceleration::Tcg => v1::Acceleration::Tcg,
        Acceleration::Kvm => v1::Acceleration::Kvm,
    };
    let disk = |disk: &skep_proto::broker::MachineDisk| v1::DiskAttachment {
        disk: disk.name.to_string(),
        controller: match disk.controller {
            Controller::VirtioBlk => v1::Controller::VirtioBlk,
            Controller::Nvme => v1::Controller::Nvme,
            Controller::Ahci => v1::Controller::Ahci,
            Controller::AhciCd => v1::Controller::AhciCd,
            Controller::VirtioScsi => v1::Controller::VirtioScsi,
            Controller::VirtioScsiCd => v1::Controller::VirtioScsiCd,
        }
        .into(),
        read_only: disk.read_only,
        id: disk.id.to_string(),
        no_cache: disk.flags.no_cache,
        sync: disk.flags.sync,
        slot: devices::place_parts(disk.flags.slot.unwrap_or(0)).0,
        function: devices::place_parts(disk.flags.slot.unwrap_or(0)).1,
        ejected: disk.flags.ejected,
        eject_after_first_boot: disk.flags.eject_after_first_boot,
        on: disk.on.as_ref().map(|on| on.controller.to_string()).unwrap_or_default(),
        port: disk.on.as_ref().and_then(|on| on.port).map(u32::from),
    };
    let nic = |nic: &skep_proto::broker::MachineNic| v1::MachineNic {
        id: nic.id.to_string(),
        name: nic.name.to_string(),
        switch: nic.switch.to_string(),
        mac: mac_text(nic.mac),
        model: devices::nic_model_view(nic.model).into(),
    };
    v1::Machine {
        id: view.id.to_string(),
        name: view.name.to_string(),
        state: state.into(),
        note: view.note.to_string(),
        revision: view.revision,
        settings: Some(v1::MachineSettings {
            cpus: Some(view.cpus),
            memory_mib: Some(view.memory_mib),
            boot: Some(boot_view(view.boot)),
            acceleration: Some(acceleration.into()),
            screen: Some(view.screen),
            disks: view.disks.iter().map(disk).collect(),
            cpu_percent: Some(view.cpu_percent),
            description: Some(view.description.to_string()),
            limits: Some(limits_view(&view.limits)),
            sound: Some(view.sound),
            sound_out: Some(view.sound_out.map(|dsp| dsp.to_string()).unwrap_or_default()),
            sound_in: Some(view.sound_in.map(|dsp| dsp.to_string()).unwrap_or_default()),
            tpm: Some(view.tpm),
            channels: strings(&view.channels),
            upkeep: Some(upkeep_view(view.upkeep)),
            shares: view.shares.iter().map(share).collect(),
            screen_properties: Some(devices::screen_view(&view.screen_properties)),
            board: Some(devices::board_view(view.board)),
            fw_cfg: view.fw_cfg.iter().map(devices::item_view).collect(),
            places: view.places.iter().map(devices::place_view).collect(),
            serial: view.serial.iter().map(devices::port_view).collect(),
            gdb: Some(devices::gdb_view(view.gdb).into()),
            controllers: view.controllers.iter().map(devices::bus_view).collect(),
            topology: Some(devices::topology_view(view.topology)),
        }),
        nics: view.nics.iter().map(nic).collect(),
        pending: strings(&view.pending),
        create_time: time(view.created_ns),
        start_time: time(view.started_ns),
        group: view.group.to_string(),
        pci: view.pci.iter().map(devices::place_view).collect(),
    }
}

fn upkeep_view(upkeep: Upkeep) -> v1::MachineUpkeep {
    let restart = match upkeep.restart {
        Restart::Never => v1::RestartPolicy::Never,
        Restart::OnFailure => v1::RestartPolicy::OnFailure,
        Restart::Always => v1::RestartPolicy::Always,
    };
    v1::MachineUpkeep {
        autostart: Some(upkeep.autostart),
        order: Some(upkeep.order.into()),
        delay_seconds: Some(upkeep.delay_s.into()),
        restart: Some(restart.into()),
        stop_timeout_seconds: Some(upkeep.stop_timeout_s),
    }
}

fn upkeep(given: &v1::MachineUpkeep) -> Result<UpkeepDraft, Refusal> {
    let within = |field: &str, number: Option<u32>, most: u16| {
        let number = number.map(|n| within("machine", field, n, &(0..=most.into()))).transpose()?;
        Ok::<_, Refusal>(number.and_then(|n| u16::try_from(n).ok()))
    };
    let restart = |number: i32| {
        Ok(match known("machine", "settings.upkeep.restart", number)? {
            v1::RestartPolicy::Unspecified => None,
            v1::RestartPolicy::Never => Some(Restart::Never),
            v1::RestartPolicy::OnFailure => Some(Restart::OnFailure),
            v1::RestartPolicy::Always => Some(Restart::Always),
        })
    };
    Ok(UpkeepDraft {
        autostart: given.autostart,
        order: within("settings.upkeep.order", given.order, 9_999)?,
        delay_s: within("settings.upkeep.delay_seconds", given.delay_seconds, 3_600)?,
        restart: given.restart.map(restart).transpose()?.flatten(),
        stop_timeout_s: given
            .stop_timeout_seconds
            .map(|n| super::within("machine", "settings.upkeep.stop_timeout_seconds", n, &(1..=86_400)))
            .transpose()?,
    })
}

fn limits_view(limits: &Limits) -> v1::MachineLimits {
    v1::MachineLimits {
        memory_mib: Some(limits.memory_mib),
        tasks: Some(limits.tasks),
        pcpu: Some(limits.pcpu),
        read_bps: Some(limits.read_bps),
        write_bps: Some(limits.write_bps),
        read_iops: Some(limits.read_iops),
        write_iops: Some(limits.write_iops),
        cpus: Some(limits.cpus.to_string()),
        pins: Some(limits.pins.to_string()),
        priority: Some(limits.priority.into()),
        protect: Some(limits.protect),
        wired: Some(limits.wired),
    }
}

fn limits(limits: &v1::MachineLimits) -> Result<LimitsDraft, Refusal> {
    let nice = limits.priority.map(|nice| within("machine", "settings.limits.priority", nice, &(-20..=19))).transpose()?;
    Ok(LimitsDraft {
        memory_mib: limits.memory_mib,
        tasks: limits.tasks,
        pcpu: limits.pcpu,
        read_bps: limits.read_bps,
        write_bps: limits.write_bps,
        read_iops: limits.read_iops,
        write_iops: limits.write_iops,
        cpus: given("machine", "settings.limits.cpus", limits.cpus.as_ref())?,
        pins: given("machine", "settings.limits.pins", limits.pins.as_ref())?,
        priority: nice.and_then(|nice| i8::try_from(nice).ok()),
        protect: limits.protect,
        wired: limits.wired,
    })
}

fn boot_view(boot: BootDraft) -> v1::Boot {
    let kind = match boot {
        BootDraft::Uefi => v1::boot::Kind::Uefi(v1::UefiBoot {}),
        BootDraft::Loader => v1::boot::Kind::Loader(v1::LoaderBoot {}),
        BootDraft::Bios => v1::boot::Kind::Bios(v1::BiosBoot {}),
        BootDraft::Direct { kernel, initrd, cmdline } => v1::boot::Kind::Direct(v1::DirectBoot {
            kernel: kernel.to_string(),
            initrd: initrd.map(|i| i.to_string()).unwrap_or_default(),
            cmdline: cmdline.to_string(),
        }),
    };
    v1::Boot { kind: Some(kind) }
}

fn boot(boot: &v1::Boot) -> Result<BootDraft, Refusal> {
    Ok(match &boot.kind {
        None => return Err(invalid("machine", "settings.boot", "uefi, direct, loader or bios must be set")),
        Some(v1::boot::Kind::Uefi(_)) => BootDraft::Uefi,
        Some(v1::boot::Kind::Loader(_)) => BootDraft::Loader,
        Some(v1::boot::Kind::Bios(_)) => BootDraft::Bios,
        Some(v1::boot::Kind::Direct(direct)) => BootDraft::Direct {
            kernel: named("machine", "settings.boot.direct.kernel", &direct.kernel)?,
            initrd: maybe_named("machine", "settings.boot.direct.initrd", &direct.initrd)?,
            cmdline: value("machine", "settings.boot.direct.cmdline", &direct.cmdline)?,
        },
    })
}

fn acceleration(number: i32) -> Result<Acceleration, Refusal> {
    Ok(match known("machine", "settings.acceleration", number)? {
        v1::Acceleration::Unspecified | v1::Acceleration::Auto => Acceleration::Auto,
        v1::Acceleration::Tcg => Acceleration::Tcg,
        v1::Acceleration::Kvm => Acceleration::Kvm,
    })
}

fn disk(disk: &v1::DiskAttachment) -> Result<DiskDraft, Refusal> {
    Ok(DiskDraft {
        disk: named("machine", "settings.disks.disk", &disk.disk)?,
        controller: match known("machine", "settings.disks.controller", disk.controller)? {
            v1::Controller::Unspecified | v1::Controller::VirtioBlk => Controller::VirtioBlk,
            v1::Controller::Nvme => Controller::Nvme,
            v1::Controller::Ahci => Controller::Ahci,
            v1::Controller::AhciCd => Controller::AhciCd,
            v1::Controller::VirtioScsi => Controller::VirtioScsi,
            v1::Controller::VirtioScsiCd => Controller::VirtioScsiCd,
        },
        read_only: disk.read_only,
        flags: devices::flags(disk)?,
        on: devices::on(disk)?,
    })
}

fn share(share: &Share) -> v1::Share {
    v1::Share { name: share.name.to_string(), read_only: share.read_only }
}

/// Settings as they were given; `disks`, `channels` and `shares` only if there are any.
fn settings(given: &v1::MachineSettings) -> Result<Settings, Refusal> {
    given.cpus.map(|n| within("machine", "settings.cpus", n, &(1..=64))).transpose()?;
    given.memory_mib.map(|n| within("machine", "settings.memory_mib", n, &(16..=1_048_576))).transpose()?;
    at_most("machine", "settings.disks", &given.disks, 8)?;
    let disks = given.disks.iter().map(disk).collect::<Result<Vec<_>, _>>()?;
    let text = |text: &String| value("machine", "settings.description", text);
    at_most("machine", "settings.channels", &given.channels, 4)?;
    let channel = |name: &String| value("machine", "settings.channels", name);
    let channels = given.channels.iter().map(channel).collect::<Result<Vec<_>, _>>()?;
    at_most("machine", "settings.shares", &given.shares, 4)?;
    let share =
        |share: &v1::Share| Ok(Share { name: value("machine", "settings.shares", &share.name)?, read_only: share.read_only });
    let shares = given.shares.iter().map(share).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(Settings {
        cpus: given.cpus,
        memory_mib: given.memory_mib,
        boot: given.boot.as_ref().map(boot).transpose()?,
        acceleration: given.acceleration.map(acceleration).transpose()?,
        screen: given.screen,
        disks: if disks.is_empty() { None } else { Some(disks) },
        cpu_percent: given.cpu_percent,
        description: given.description.as_ref().map(text).transpose()?,
        limits: given.limits.as_ref().map(limits).transpose()?.unwrap_or_default(),
        sound: given.sound,
        sound_out: given.sound_out.as_ref().map(|name| optional("machine", "settings.sound_out", name)).transpose()?,
        sound_in: given.sound_in.as_ref().map(|name| optional("machine", "settings.sound_in", name)).transpose()?,
        tpm: given.tpm,
        channels: if channels.is_empty() { None } else { Some(channels) },
        upkeep: given.upkeep.as_ref().map(upkeep).transpose()?.unwrap_or_default(),
        shares: if shares.is_empty() { None } else { Some(shares) },
        screen_properties: given.screen_properties.as_ref().map(devices::screen).transpose()?.unwrap_or_default(),
        board: given.board.as_ref().map(devices::board).unwrap_or_default(),
        fw_cfg: devices::items(&given.fw_cfg)?,
        places: devices::places(&given.places)?,
        serial: devices::ports(&given.serial)?,
        gdb: given.gdb.map(devices::gdb).transpose()?,
        controllers: devices::buses(&given.controllers)?,
        topology: given.topology.as_ref().map(devices::topology).transpose()?,
    })
}

/// What to define.
pub fn create(request: v1::CreateMachineRequest) -> Result<MachineCreate, Refusal> {
    let name = value("machine", "name", &request.name)?;
    let group = maybe_named("machine", "group", &request.group)?;
    Ok(MachineCreate { name, settings: settings(&request.settings.unwrap_or_default())?, group })
}

/// What to launch, and what its guest is told, encoded.
pub fn launch(request: &v1::LaunchMachineRequest) -> Result<(MachineLaunch, Vec<u8>), Refusal> {
    let settings = settings(&request.settings.clone().unwrap_or_default())?;
    if settings.disks.as_ref().is_some_and(|disks| !disks.is_empty()) {
        return Err(invalid("machine", "settings.disks", "a machine that is launched gets its own"));
    }
    let mut keys = Vec::new();
    for (number, key) in request.ssh_keys.iter().enumerate() {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_control) {
            return Err(invalid("machine", &format!("ssh_keys[{number}]"), "one line with a public key is expected"));
        }
        keys.push(key.to_owned());
    }
    let data = GuestData { keys, user_data: request.user_data.to_vec() };
    let data = postcard::to_stdvec(&data).map_err(|e| Refusal::new(Reason::Internal, "machine").note(e))?;
    if data.len() > MAX_GUEST_DATA {
        let why = format!("{} bytes with the keys; at most {MAX_GUEST_DATA} fit a seed", data.len());
        return Err(invalid("machine", "user_data", why));
    }
    let launch = MachineLaunch {
        name: value("machine", "name", &request.name)?,
        image: named("disk", "image", &request.image)?,
        settings,
        size: request.size_bytes,
        switch: maybe_named("switch", "switch", &request.switch)?,
        group: maybe_named("machine", "group", &request.group)?,
        wait: request.wait_for_guest,
    };
    Ok((launch, data))
}

/// What to change: the fields that the mask names, or those that are set.
pub fn set(request: v1::UpdateMachineRequest) -> Result<MachineSet, Refusal> {
    let machine = named("machine", "machine", &request.machine)?;
    let mut settings = settings(&request.settings.unwrap_or_default())?;
    let mask = request.update_mask.map(|m| m.paths).unwrap_or_default();
    if !mask.is_empty() {
        let named = |list: &str| mask.iter().any(|path| path == list);
        if named("disks") {
            settings.disks.get_or_insert_default();
        }
        if named("channels") {
            settings.channels.get_or_insert_default();
        }
        if named("shares") {
            settings.shares.get_or_insert_default();
        }
        if named("fw_cfg") {
            settings.fw_cfg.get_or_insert_default();
        }
        if named("places") {
            settings.places.get_or_insert_default();
        }
        if named("controllers") {
            settings.controllers.get_or_insert_default();
        }
        if named("serial") {
            settings.serial.get_or_insert_default();
        }
        settings = masked(settings, &mask)?;
    }
    Ok(MachineSet { machine, settings, revision: request.revision })
}

fn masked(mut from: Settings, mask: &[String]) -> Result<Settings, Refusal> {
    fn take<T>(path: &str, from: &mut Option<T>, to: &mut Option<T>) -> Result<(), Refusal> {
        *to = from.take();
        let missing = format!("settings.{path} is named here, once, but not given");
        if to.is_some() { Ok(()) } else { Err(invalid("machine", "update_mask", missing)) }
    }
    /// Fields that are named together.
    fn group<T: Default + PartialEq>(path: &str, from: &mut T, to: &mut T) -> Result<(), Refusal> {
        *to = std::mem::take(from);
        let missing = format!("settings.{path} is named here, once, but none of its fields is given");
        if *to == T::default() { Err(invalid("machine", "update_mask", missing)) } else { Ok(()) }
    }
    let mut to = Settings::default();
    for path in mask {
        match path.as_str() {
            "cpus" => take(path, &mut from.cpus, &mut to.cpus),
            "memory_mib" => take(path, &mut from.memory_mib, &mut to.memory_mib),
            "boot" => take(path, &mut from.boot, &mut to.boot),
            "acceleration" => take(path, &mut from.acceleration, &mut to.acceleration),
            "screen" => take(path, &mut from.screen, &mut to.screen),
            "disks" => take(path, &mut from.disks, &mut to.disks),
            "cpu_percent" => take(path, &mut from.cpu_percent, &mut to.cpu_percent),
            "description" => take(path, &mut from.description, &mut to.description),
            "limits" => group(path, &mut from.limits, &mut to.limits),
            "upkeep" => group(path, &mut from.upkeep, &mut to.upkeep),
            "screen_properties" => group(path, &mut from.screen_properties, &mut to.screen_properties),
            "board" => group(path, &mut from.board, &mut to.board),
            "sound" => take(path, &mut from.sound, &mut to.sound),
            "sound_out" => take(path, &mut from.sound_out, &mut to.sound_out),
            "sound_in" => take(path, &mut from.sound_in, &mut to.sound_in),
            "tpm" => take(path, &mut from.tpm, &mut to.tpm),
            "channels" => take(path, &mut from.channels, &mut to.channels),
            "shares" => take(path, &mut from.shares, &mut to.shares),
            "fw_cfg" => take(path, &mut from.fw_cfg, &mut to.fw_cfg),
            "places" => take(path, &mut from.places, &mut to.places),
            "serial" => take(path, &mut from.serial, &mut to.serial),
            "gdb" => take(path, &mut from.gdb, &mut to.gdb),
            "controllers" => take(path, &mut from.controllers, &mut to.controllers),
            "topology" => take(path, &mut from.topology, &mut to.topology),
            _ => Err(invalid("machine", "update_mask", format_args!("there is no field settings.{path}"))),
        }?;
    }
    Ok(to)
}

/// A changed machine.
pub fn edited(edited: MachineEdited) -> v1::UpdateMachineResponse {
    let change = |(field, applies): (skep_proto::Text<32>, Applies)| v1::Change {
        field: field.to_string(),
        applies: match applies {
            Applies::Now => v1::Applies::Now,
            Applies::NextStart => v1::Applies::NextStart,
        }
        .into(),
    };
    let changes = edited.changes.into_iter().map(change).collect();
    v1::UpdateMachineResponse { machine: Some(machine(edited.machine)), changes }
}

/// Which log to open.
pub fn log(request: &v1::MachineLogRequest) -> Result<MachineLog, Refusal> {
    let log = match known("machine", "log", request.log)? {
        v1::MachineLog::Unspecified | v1::MachineLog::Serial => LogKind::Serial,
        v1::MachineLog::Hypervisor => LogKind::Hypervisor,
        v1::MachineLog::Serial2 => LogKind::Serial2,
        v1::MachineLog::Serial3 => LogKind::Serial3,
        v1::MachineLog::Serial4 => LogKind::Serial4,
    };
    Ok(MachineLog { machine: named("machine", "machine", &request.machine)?, log, follow: request.follow })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(settings: v1::MachineSettings, mask: &[&str]) -> Result<Settings, String> {
        let paths = mask.iter().map(ToString::to_string).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = v1::UpdateMachineRequest { machine: "web1".into(), settings: Some(settings), update_mask, revision: 0 };
        set(request).map(|s| s.settings).map_err(|e| e.field.to_string())
    }

    #[test]
    fn without_a_mask_what_is_set_is_changed() {
        let got = update(v1::MachineSettings { cpus: Some(2), ..Default::default() }, &[]).expect("valid");
        assert_eq!(got, Settings { cpus: Some(2), ..Default::default() });
    }

    #[test]
    fn a_mask_chooses_and_can_take_all_disks_away() {
        let given = v1::MachineSettings { cpus: Some(2), screen: Some(false), ..Default::default() };
        let got = update(given.clone(), &["screen", "disks"]).expect("valid");
        assert_eq!(got, Settings { screen: Some(false), disks: Some(vec![]), ..Default::default() });
        let tasks = v1::MachineLimits { tasks: Some(64), cpus: Some(String::new()), ..Default::default() };
        let limited = v1::MachineSettings { limits: Some(tasks), ..given.clone() };
        let got = update(limited, &["limits"]).expect("valid");
        let limits = LimitsDraft { tasks: Some(64), cpus: Some(skep_proto::CpuList::default()), ..LimitsDraft::default() };
        assert_eq!(got, Settings { limits, ..Default::default() });
        let got = update(given.clone(), &["screen", "channels"]).expect("valid");
        assert_eq!(got, Settings { screen: Some(false), channels: Some(vec![]), ..Default::default() });
        for wrong in [&["memory_mib"][..], &["cpus", "cpus"], &["name"], &["limits"]] {
            assert_eq!(update(given.clone(), wrong).expect_err("refused"), "update_mask");
        }
    }
}
