//! Parts of a machine's settings: as users give them, as they are kept, and as the engines read them.

use crate::spec::Seat;
use skep_machine as model;
use skep_proto::broker::{Board, BoardDraft, Controller, FwCfg, Limits, LimitsDraft, Screen, ScreenDraft, Topology};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskRates, Share};

fn take<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(value) = from {
        to.clone_from(value);
    }
}

/// Changes what the draft names.
pub fn edit_screen(screen: &mut Screen, draft: &ScreenDraft) {
    let ScreenDraft { width, height, wait, keyboard, tablet } = draft;
    take(&mut screen.width, width);
    take(&mut screen.height, height);
    take(&mut screen.wait, wait);
    take(&mut screen.keyboard, keyboard);
    take(&mut screen.tablet, tablet);
}

/// A screen as the engines read it.
pub fn model_screen(screen: &Screen) -> model::Screen {
    let Screen { width, height, wait, ref keyboard, tablet } = *screen;
    model::Screen { width, height, wait, keyboard: keyboard.as_str().to_owned(), tablet }
}

/// Changes what the draft names.
pub fn edit_board(board: &mut Board, draft: &BoardDraft) {
    let BoardDraft { local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic } = draft;
    take(&mut board.local_time, local_time);
    take(&mut board.acpi, acpi);
    take(&mut board.amd_host_bridge, amd_host_bridge);
    take(&mut board.exit_on_halt, exit_on_halt);
    take(&mut board.exit_on_pause, exit_on_pause);
    take(&mut board.strict_msr, strict_msr);
    take(&mut board.x2apic, x2apic);
}

/// A board as the engines read it.
pub fn model_board(board: Board) -> model::Board {
    let Board { acpi, exit_on_halt, exit_on_pause, strict_msr, x2apic, .. } = board;
    let host_bridge = if board.amd_host_bridge { model::HostBridge::Amd } else { model::HostBridge::Standard };
    model::Board { acpi, host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic }
}

/// Changes what the draft names.
pub fn edit_limits(limits: &mut Limits, draft: &LimitsDraft) {
    let LimitsDraft { memory_mib, tasks, pcpu, read_bps, write_bps, read_iops, write_iops, .. } = draft;
    take(&mut limits.memory_mib, memory_mib);
    take(&mut limits.tasks, tasks);
    take(&mut limits.pcpu, pcpu);
    take(&mut limits.read_bps, read_bps);
    take(&mut limits.write_bps, write_bps);
    take(&mut limits.read_iops, read_iops);
    take(&mut limits.write_iops, write_iops);
    let LimitsDraft { cpus, pins, priority, protect, wired, .. } = draft;
    take(&mut limits.cpus, cpus);
    take(&mut limits.pins, pins);
    take(&mut limits.priority, priority);
    take(&mut limits.protect, protect);
    take(&mut limits.wired, wired);
}

/// Bytes that stay in RAM with a guest's memory: QEMU's program, translated code, stacks.
pub const WIRED_BESIDE: u64 = 2 << 30;

/// Limits as the engines read it.
pub fn model_limits(cpu_percent: u32, limits: &Limits) -> model::Limits {
    let some = |n: u32| (n > 0).then_some(n);
    let many = |n: u64| (n > 0).then_some(n);
    model::Limits {
        cpu_percent: some(cpu_percent),
        memory_mib: some(limits.memory_mib),
        tasks: some(limits.tasks),
        pcpu: some(limits.pcpu),
        read_bps: many(limits.read_bps),
        write_bps: many(limits.write_bps),
        read_iops: many(limits.read_iops),
        write_iops: many(limits.write_iops),
        cpus: limits.cpus.0.clone(),
        pins: limits.pins.0.clone(),
        priority: limits.priority,
        protect: limits.protect,
        wired: limits.wired,
    }
}

/// Rates of a disk as the engines read them.
pub fn model_rates(rates: DiskRates) -> model::DiskRates {
    let some = |n: u64| (n > 0).then_some(n);
    let DiskRates { read_bps, write_bps, read_iops, write_iops } = rates;
    let (read_bps, write_bps) = (some(read_bps), some(write_bps));
    model::DiskRates { read_bps, write_bps, read_iops: some(read_iops), write_iops: some(write_iops) }
}

/// How a disk is kept, as the engines read it.
pub fn format(kind: DiskKind) -> model::Format {
    match kind {
        DiskKind::Raw | DiskKind::Zvol => model::Format::Raw,
        DiskKind::Qcow2 => model::Format::Qcow2,
        DiskKind::Iscsi => model::Format::Remote,
    }
}

/// An arrangement of CPUs, as the engines read it.
pub fn arranged(topology: Topology) -> model::Topology {
    let Topology { sockets, cores, threads } = topology;
    model::Topology { sockets, cores, threads }
}

/// A shared directory, as the engines read it.
pub fn shared(share: &Share, at: Option<u8>) -> model::Share {
    model::Share { name: share.name.as_str().to_owned(), read_only: share.read_only, at }
}

/// An item of fw_cfg, likewise.
pub fn item(item: &FwCfg) -> model::FwCfg {
    model::FwCfg { name: item.name.as_str().to_owned(), value: item.value.as_str().to_owned() }
}

/// What a disk is attached to, likewise.
pub fn model_controller(controller: Controller) -> model::Controller {
    match controller {
        Controller::VirtioBlk => model::Controller::VirtioBlk,
        Controller::Nvme => model::Controller::Nvme,
        Controller::Ahci => model::Controller::Ahci,
        Controller::AhciCd => model::Controller::AhciCd,
        Controller::VirtioScsi => model::Controller::VirtioScsi,
        Controller::VirtioScsiCd => model::Controller::VirtioScsiCd,
    }
}

/// Its place on a controller, likewise.
pub fn model_seat(seat: &Seat) -> model::Seat {
    model::Seat { controller: seat.controller, port: seat.port }
}

/// The setting that a field of the model comes from.
pub fn setting(field: &str) -> &str {
    match field {
        "cpu.count" => "cpus",
        "cpu.topology" => "topology",
        "memory_mib" => "memory",
        "limits.cpu_percent" => "cpu_percent",
        channel if channel.starts_with("channels[") => "channels",
        share if share.starts_with("shares[") => "shares",
        item if item.starts_with("fw_cfg[") => "fw_cfg",
        bus if bus.starts_with("places.controller") => "controllers",
        place if place.starts_with("places.") => "places",
        bus if bus.starts_with("controllers[") => "controllers",
        "clock" => "board",
        "serial_ports" => "serial",
        other => other,
    }
}
