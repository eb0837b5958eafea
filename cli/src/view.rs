//! API messages as objects and rows.

mod snapshots;

pub use snapshots::*;

use crate::output::{Column, bytes};
use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value, json};
use skep_api::v1;

/// A time as RFC 3339 in UTC.
pub fn time(time: Option<&Timestamp>) -> Value {
    time.map_or(Value::Null, |t| {
        let ns = t.seconds.saturating_mul(1_000_000_000).saturating_add(t.nanos.into());
        Value::String(skep_service::iso8601(ns))
    })
}

/// The last part of an enum value's name, in lower case: `MACHINE_STATE_RUNNING` is `running`.
pub fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// A machine's state.
pub fn state(machine: &v1::Machine) -> String {
    word(machine.state().as_str_name(), "MACHINE_STATE_")
}

/// A machine.
pub fn machine(machine: &v1::Machine) -> Value {
    let settings = machine.settings.clone().unwrap_or_default();
    let boot = match settings.boot.as_ref().and_then(|b| b.kind.clone()) {
        Some(v1::boot::Kind::Direct(d)) => json!({"kernel": d.kernel, "initrd": d.initrd, "cmdline": d.cmdline}),
        Some(v1::boot::Kind::Loader(_)) => json!("loader"),
        Some(v1::boot::Kind::Bios(_)) => json!("bios"),
        _ => json!("uefi"),
    };
    let disk = |disk: &v1::DiskAttachment| {
        let controller = word(disk.controller().as_str_name(), "CONTROLLER_");
        json!({
            "disk": disk.disk, "id": disk.id, "controller": controller, "read_only": disk.read_only, "no_cache": disk.no_cache,
            "sync": disk.sync, "slot": place(disk.slot, disk.function), "ejected": disk.ejected,
            "eject_after_first_boot": disk.eject_after_first_boot,
            "on": Some(&disk.on).filter(|on| !on.is_empty()), "port": disk.port,
        })
    };
    let share = |share: &v1::Share| json!({"share": share.name, "read_only": share.read_only});
    let nic = |nic: &v1::MachineNic| {
        let model = nic_model(nic.model());
        json!({"nic": nic.name, "id": nic.id, "switch": nic.switch, "mac": nic.mac, "model": model})
    };
    let item = |item: &v1::FwCfgItem| (item.name.clone(), Value::String(item.value.clone()));
    json!({
        "name": machine.name,
        "id": machine.id,
        "state": state(machine),
        "note": machine.note,
        "cpus": settings.cpus(),
        "topology": settings.topology.filter(|t| t.sockets > 0).map(|t| json!({"sockets": t.sockets, "cores": t.cores, "threads": t.threads})),
        "memory_mib": settings.memory_mib(),
        "boot": boot,
        "acceleration": word(settings.acceleration().as_str_name(), "ACCELERATION_"),
        "screen": settings.screen(),
        "screen_properties": screen(settings.screen_properties.as_ref()),
        "board": board(settings.board.as_ref()),
        "cpu_percent": settings.cpu_percent(),
        "limits": limits(settings.limits.as_ref()),
        "upkeep": upkeep(settings.upkeep.as_ref()),
        "description": settings.description(),
        "sound": settings.sound(),
        "sound_out": settings.sound_out(),
        "sound_in": settings.sound_in(),
        "tpm": settings.tpm(),
        "channels": settings.channels,
        "shares": settings.shares.iter().map(share).collect::<Vec<_>>(),
        "fw_cfg": settings.fw_cfg.iter().map(item).collect::<Map<_, _>>(),
        "places": places(&settings.places),
        "pci": places(&machine.pci),
        "serial": settings.serial.iter().map(port).collect::<Vec<_>>(),
        "controllers": settings.controllers.iter().map(controller).collect::<Vec<_>>(),
        "gdb": word(settings.gdb().as_str_name(), "GDB_STUB_"),
        "disks": settings.disks.iter().map(disk).collect::<Vec<_>>(),
        "nics": machine.nics.iter().map(nic).collect::<Vec<_>>(),
        "pending": machine.pending,
        "group": machine.group,
        "revision": machine.revision,
        "created": time(machine.create_time.as_ref()),
        "started": time(machine.start_time.as_ref()),
    })
}

/// A controller with a name.
fn controller(controller: &v1::DiskController) -> Value {
    let kind = word(controller.kind().as_str_name(), "CONTROLLER_KIND_");
    json!({"controller": controller.name, "kind": kind, "slot": place(controller.slot, controller.function)})
}

/// A serial port; speed null: as fast as it goes.
fn port(port: &v1::SerialPort) -> Value {
    json!({"port": port.port, "speed": (port.speed > 0).then_some(port.speed), "log": port.log()})
}

/// A place on the PCI bus: its device number, with a function other than 0 as text; null: the usual one.
fn place(slot: u32, function: u32) -> Value {
    match (slot, function) {
        (0, _) => Value::Null,
        (_, 0) => json!(slot),
        _ => json!(format!("{slot}.{function}")),
    }
}

fn nic_model(model: v1::NicModel) -> String {
    word(model.as_str_name(), "NIC_MODEL_")
}

/// Places on the PCI bus, by device.
fn places(places: &[v1::PciPlace]) -> Map<String, Value> {
    places.iter().map(|place| (place.device.clone(), self::place(place.slot, place.function))).collect()
}

/// A screen's properties; null: the US keyboard.
fn screen(screen: Option<&v1::ScreenProperties>) -> Value {
    let screen = screen.cloned().unwrap_or_default();
    let keyboard = Some(screen.keyboard()).filter(|name| !name.is_empty());
    json!({
        "width": screen.width(), "height": screen.height(), "wait": screen.wait(), "keyboard": keyboard, "tablet": screen.tablet(),
    })
}

/// Chip set, clock and processor.
fn board(board: Option<&v1::MachineBoard>) -> Value {
    let board = board.copied().unwrap_or_default();
    json!({
        "clock": if board.local_time() { "local" } else { "utc" },
        "acpi": board.acpi(),
        "host_bridge": if board.amd_host_bridge() { "amd" } else { "standard" },
        "exit_on_halt": board.exit_on_halt(),
        "exit_on_pause": board.exit_on_pause(),
        "strict_msr": board.strict_msr(),
        "x2apic": board.x2apic(),
    })
}

/// Whether it starts with the host, and again.
fn upkeep(upkeep: Option<&v1::MachineUpkeep>) -> Value {
    let upkeep = upkeep.copied().unwrap_or_default();
    json!({
        "autostart": upkeep.autostart(),
        "order": upkeep.order(),
        "delay_seconds": upkeep.delay_seconds(),
        "restart": word(upkeep.restart().as_str_name(), "RESTART_POLICY_"),
        "stop_timeout_seconds": upkeep.stop_timeout_seconds(),
    })
}

/// Limits; null: not limited.
fn limits(limits: Option<&v1::MachineLimits>) -> Value {
    let limits = limits.cloned().unwrap_or_default();
    let number = |n: u64| (n > 0).then_some(n);
    let list = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "memory_mib": number(limits.memory_mib().into()),
        "tasks": number(limits.tasks().into()),
        "pcpu": number(limits.pcpu().into()),
        "read_bps": number(limits.read_bps()),
        "write_bps": number(limits.write_bps()),
        "read_iops": number(limits.read_iops()),
        "write_iops": number(limits.write_iops()),
        "cpus": list(limits.cpus()),
        "pins": list(limits.pins()),
        "priority": (limits.priority() != 0).then_some(limits.priority()),
        "protect": limits.protect().then_some(true),
        "wired": limits.wired().then_some(true),
    })
}

/// Columns of a list of machines.
pub const MACHINES: &[Column] =
    &[Column::Left("NAME"), Column::Left("STATE"), Column::Right("CPUS"), Column::Right("MEMORY"), Column::Left("NOTE")];

/// A row of it.
pub fn machine_row(machine: &v1::Machine) -> Vec<String> {
    let settings = machine.settings.as_ref();
    let memory = settings.map_or(0, v1::MachineSettings::memory_mib);
    vec![
        machine.name.clone(),
        state(machine),
        settings.map_or(0, v1::MachineSettings::cpus).to_string(),
        bytes(memory.saturating_mul(1 << 20)),
        machine.note.clone(),
    ]
}

/// A disk.
pub fn disk(disk: &v1::Disk) -> Value {
    let number = |n: u64| (n > 0).then_some(n);
    json!({
        "name": disk.name,
        "id": disk.id,
        "kind": word(disk.kind().as_str_name(), "DISK_KIND_"),
        "size": disk.size_bytes,
        "allocated": disk.allocated_bytes,
        "sha256": disk.sha256,
        "machines": disk.machines,
        "group": disk.group,
        "description": disk.description,
        "iso": disk.iso,
        "image": disk.image.as_ref().map(image),
        "rates": disk.rates.map(|rates| json!({
            "read_bps": number(rates.read_bps()), "write_bps": number(rates.write_bps()),
            "read_iops": number(rates.read_iops()), "write_iops": number(rates.write_iops()),
        })),
        "iscsi": disk.iscsi.as_ref().map(|iscsi| json!({
            "portal": iscsi.portal, "target": iscsi.target, "lun": iscsi.lun, "chap_user": iscsi.chap_user, "initiator": iscsi.initiator,
        })),
        "created": time(disk.create_time.as_ref()),
    })
}

/// What is known of an image; null: any, none.
fn image(image: &v1::ImageFacts) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "source": text(&image.source),
        "os": text(&image.os),
        "user": text(&image.user),
        "min_disk": (image.min_disk_bytes > 0).then_some(image.min_disk_bytes),
        "min_memory_mib": (image.min_memory_mib > 0).then_some(image.min_memory_mib),
    })
}

/// Columns of a list of images.
pub const IMAGES: &[Column] = &[
    Column::Left("NAME"),
    Column::Left("OS"),
    Column::Left("USER"),
    Column::Right("SIZE"),
    Column::Right("USED"),
    Column::Left("IMPORTED"),
    Column::Left("DESCRIPTION"),
];

/// A row of it.
pub fn image_row(disk: &v1::Disk) -> Vec<String> {
    let image = disk.image.clone().unwrap_or_default();
    let created = time(disk.create_time.as_ref()).as_str().unwrap_or_default().to_owned();
    let (size, used) = (bytes(disk.size_bytes), bytes(disk.allocated_bytes));
    vec![disk.name.clone(), image.os, image.user, size, used, created, disk.description.clone()]
}

/// Columns of a list of disks.
pub const DISKS: &[Column] =
    &[Column::Left("NAME"), Column::Left("KIND"), Column::Right("SIZE"), Column::Right("USED"), Column::Left("MACHINES")];

/// A row of it.
pub fn disk_row(disk: &v1::Disk) -> Vec<String> {
    let kind = word(disk.kind().as_str_name(), "DISK_KIND_");
    vec![disk.name.clone(), kind, bytes(disk.size_bytes), bytes(disk.allocated_bytes), disk.machines.join(" ")]
}

/// A variable of firmware, without its data.
pub fn variable(variable: &v1::Variable) -> Value {
    json!({
        "name": variable.name,
        "attributes": variable.attributes,
        "size": variable.size_bytes,
        "meaning": variable.meaning,
    })
}

/// The same with its data, in hexadecimal.
pub fn variable_with_data(with: &v1::Variable) -> Value {
    let data: String = with.data.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut value = variable(with);
    if let Value::Object(fields) = &mut value {
        fields.insert("data".to_owned(), Value::String(data));
    }
    value
}

/// Columns of a list of variables.
pub const VARIABLES: &[Column] =
    &[Column::Left("VARIABLE"), Column::Left("SEEN BY"), Column::Right("BYTES"), Column::Left("MEANING")];

/// A row of it. The GUID of the UEFI specification's own goes without saying.
pub fn variable_row(variable: &v1::Variable) -> Vec<String> {
    const GLOBAL: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let seen = match variable.attributes & 6 {
        2 => "firmware",
        6 => "firmware, system",
        _ => "",
    };
    let name = variable.name.strip_suffix(GLOBAL).unwrap_or(&variable.name);
    vec![name.to_owned(), seen.to_owned(), variable.size_bytes.to_string(), variable.meaning.clone()]
}

/// A switch.
pub fn switch(switch: &v1::Switch) -> Value {
    json!({
        "name": switch.name,
        "id": switch.id,
        "bridge": switch.bridge,
        "kind": switch_kind(switch.kind()),
        "uplink": switch.uplink,
        "subnet": switch.subnet,
        "subnet6": switch.subnet6,
        "tunnel": switch.tunnel.as_ref().map(tunnel),
        "nics": switch.nics,
        "open": switch.open,
        "groups": switch.groups,
        "description": switch.description,
        "created": time(switch.create_time.as_ref()),
    })
}

fn tunnel(v1::Tunnel { vni, local, remote, port, interface, peer_key }: &v1::Tunnel) -> Value {
    json!({"vni": vni, "local": local, "remote": remote, "port": port, "group_interface": interface, "peer_key": peer_key})
}

/// Columns of a list of switches.
pub const SWITCHES: &[Column] = &[
    Column::Left("NAME"),
    Column::Left("KIND"),
    Column::Left("BRIDGE"),
    Column::Left("UPLINK"),
    Column::Left("SUBNET"),
    Column::Right("NICS"),
];

/// A row of it.
pub fn switch_row(switch: &v1::Switch) -> Vec<String> {
    let kind = switch_kind(switch.kind()).to_owned();
    let (bridge, uplink, subnet) = (switch.bridge.clone(), switch.uplink.clone(), switch.subnet.clone());
    vec![switch.name.clone(), kind, bridge, uplink, subnet, switch.nics.to_string()]
}

fn switch_kind(kind: v1::SwitchKind) -> &'static str {
    match kind {
        v1::SwitchKind::Unspecified => "",
        v1::SwitchKind::Bridged => "bridged",
        v1::SwitchKind::Internal => "internal",
        v1::SwitchKind::HostOnly => "host-only",
        v1::SwitchKind::Nat => "nat",
        v1::SwitchKind::Netgraph => "netgraph",
        v1::SwitchKind::Vxlan => "vxlan",
    }
}

/// A NIC.
pub fn nic(nic: &v1::Nic) -> Value {
    json!({
        "name": nic.name,
        "id": nic.id,
        "mac": nic.mac,
        "switch": nic.switch,
        "address": nic.address,
        "address6": nic.address6,
        "machine": nic.machine,
        "tap": nic.tap,
        "model": nic_model(nic.model()),
        "slot": place(nic.slot, nic.function),
        "rate_in": rate(nic.rate_in),
        "rate_out": rate(nic.rate_out),
        "isolated": nic.isolated,
        "forwards": nic.forwards,
        "group": nic.group,
        "description": nic.description,
        "created": time(nic.create_time.as_ref()),
    })
}

/// Bits per second, if they are limited.
fn rate(bits: u64) -> Option<u64> {
    (bits > 0).then_some(bits)
}

/// Columns of a list of NICs.
pub const NICS: &[Column] = &[
    Column::Left("NAME"),
    Column::Left("MAC"),
    Column::Left("SWITCH"),
    Column::Left("ADDRESS"),
    Column::Left("MACHINE"),
    Column::Left("TAP"),
];

/// A row of it.
pub fn nic_row(nic: &v1::Nic) -> Vec<String> {
    [&nic.name, &nic.mac, &nic.switch, &nic.address, &nic.machine, &nic.tap].map(Clone::clone).to_vec()
}

/// An operation.
pub fn operation(operation: &v1::Operation) -> Value {
    let failure = operation.failure.as_ref().map(|f| {
        json!({"reason": f.reason, "object": f.object, "field": f.field, "note": f.note, "errno": f.errno, "message": f.message})
    });
    json!({
        "id": operation.id,
        "kind": operation.kind,
        "object": operation.object,
        "state": word(operation.state().as_str_name(), "OPERATION_STATE_"),
        "user": operation.user,
        "trace": operation.trace,
        "done": operation.progress_done,
        "total": operation.progress_total,
        "started": time(operation.start_time.as_ref()),
        "ended": time(operation.end_time.as_ref()),
        "failure": failure,
    })
}

/// Columns of a list of operations.
pub const OPERATIONS: &[Column] = &[
    Column::Left("ID"),
    Column::Left("KIND"),
    Column::Left("OBJECT"),
    Column::Left("STATE"),
    Column::Left("USER"),
    Column::Left("STARTED"),
];

/// A row of it.
pub fn operation_row(operation: &v1::Operation) -> Vec<String> {
    vec![
        operation.id.clone(),
        operation.kind.clone(),
        operation.object.clone(),
        word(operation.state().as_str_name(), "OPERATION_STATE_"),
        operation.user.clone(),
        time(operation.start_time.as_ref()).as_str().unwrap_or_default().to_owned(),
    ]
}

/// An event.
pub fn event(event: &v1::Event) -> Value {
    json!({
        "token": event.token,
        "time": time(event.time.as_ref()),
        "object": event.object,
        "id": event.id,
        "name": event.name,
        "what": event.what,
        "detail": event.detail,
        "user": event.user,
        "trace": event.trace,
    })
}

/// Counters.
pub fn stats(stats: &v1::MachineStats) -> Value {
    let disk = |d: &v1::DiskStats| {
        json!({
            "slot": d.slot, "read_bytes": d.read_bytes, "write_bytes": d.write_bytes, "read_ops": d.read_ops, "write_ops": d.write_ops,
        })
    };
    let nic = |n: &v1::NicStats| {
        json!({
            "id": n.id, "name": n.name, "rx_bytes": n.rx_bytes, "rx_packets": n.rx_packets,
            "tx_bytes": n.tx_bytes, "tx_packets": n.tx_packets,
        })
    };
    json!({
        "time": time(stats.read_time.as_ref()),
        "cpu_ns": nanoseconds(stats.cpu_time.as_ref()),
        "memory": stats.memory_bytes,
        "disks": stats.disks.iter().map(disk).collect::<Vec<_>>(),
        "nics": stats.nics.iter().map(nic).collect::<Vec<_>>(),
    })
}

/// A time that has passed, in nanoseconds.
pub fn nanoseconds(time: Option<&Duration>) -> u64 {
    let time = time.copied().unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(time.seconds).unwrap_or(0), u64::try_from(time.nanos).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
