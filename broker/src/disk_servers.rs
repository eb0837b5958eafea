//! Disks of kind QCOW2 where the hypervisor reads none (bhyve): each is served by a process of its own, as a device of the host, which goes with
//! that process's cell. The cell goes by the disk's id.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::machines::MachineRow;
use crate::layers::DiskLayers;
use crate::platform;
use crate::spec::{Disk, Spec};
use skep_machine::{Format, MachineSpec};
use skep_proto::cell::{KillCell, StartDiskServer, SweepCell};
use skep_proto::runner::LayerPlace;
use skep_proto::storage::{DiskKind, DiskOpened};
use skep_proto::{DiskId, Fds, MachineId, Reason, Refusal, UpTo};
use std::os::fd::OwnedFd;

/// Whether disks of this kind are.
pub fn serves(kind: DiskKind) -> bool {
    platform::SERVES && kind == DiskKind::Qcow2
}

/// The hypervisor sees devices, which stand on nothing, and whose rates are kept elsewhere.
pub fn hide(model: &mut MachineSpec) {
    for disk in model.disks.iter_mut().filter(|disk| platform::SERVES && disk.format == Format::Qcow2) {
        disk.format = Format::Raw;
        disk.layers.clear();
        disk.rates = skep_machine::DiskRates::default();
    }
}

/// Has a disk served that a machine is to have in `slot`, from its open file and those that this stands on; gives the device.
pub async fn start(
    broker: &Broker, who: &Who, machine: &MachineRow, spec: &Spec, place: (u8, &Disk), file: (OwnedFd, DiskOpened),
    under: Vec<(LayerPlace, OwnedFd)>,
) -> Result<OwnedFd, Refusal> {
    let (slot, disk) = place;
    let (file, opened) = file;
    let below: &[(DiskId, DiskKind)] =
        spec.layers.iter().find(|files| files.slot == slot).map_or(&[], |files: &DiskLayers| &files.under);
    let kinds = [disk.kind].into_iter().chain(below.iter().map(|(_, kind)| *kind)).collect();
    // They came from the lowest upwards.
    let fds = [file].into_iter().chain(under.into_iter().rev().map(|(_, fd)| fd)).collect();
    let many = |_| Refusal::new(Reason::LimitReached, "").note("bhyve has disks that stand on 15 layers at most");
    let call = StartDiskServer {
        disk: disk.disk,
        slot: machine.slot.ok_or_else(|| Refusal::new(Reason::Internal, "slot"))?,
        size: opened.disk.size,
        read_only: disk.read_only,
        file_limit: opened.most,
        rates: spec.rates_of(slot),
        kinds,
    };
    let (_, [device]) = broker.cells.call_with(who, call, UpTo::from_vec(fds).map_err(many)?).await?;
    Ok(device)
}

/// Ends those of a machine's disks, those that it runs with and those that it was about to, and takes away their devices: what the hypervisor
/// may still wait for fails.
pub async fn end(broker: &Broker, who: &Who, machine: &MachineRow) -> Result<(), Refusal> {
    let specs = machine.applied.iter().chain([&machine.spec]);
    let mut disks: Vec<DiskId> = specs.flat_map(|spec| &spec.disks).filter(|d| serves(d.kind)).map(|d| d.disk).collect();
    disks.sort_unstable();
    disks.dedup();
    for disk in disks {
        // Another machine's that has it, too, or had it first.
        if broker.read(|db| db.disk_users(disk))?.iter().any(|user| user.active && user.machine != machine.id) {
            continue;
        }
        sweep(broker, who, disk.cell()).await?;
    }
    Ok(())
}

async fn sweep(broker: &Broker, who: &Who, cell: MachineId) -> Result<(), Refusal> {
    broker.cells.call(who, KillCell { machine: cell }).await?;
    broker.cells.call(who, SweepCell { machine: cell }).await.map(drop)
}

/// Whether a cell is that of a disk which a machine has that may run.
pub fn has(broker: &Broker, cell: MachineId) -> Result<bool, Refusal> {
    let disk = DiskId::from_u128(cell.as_u128());
    Ok(platform::SERVES && broker.read(|db| db.disk_users(disk))?.iter().any(|user| user.active))
}
