//! Disks that the hypervisor reads none of by itself (bhyve: QCOW2, iSCSI): each is served by processes of its own, as a device of the host, which goes
//! with their cell. The cell goes by the disk's id.
//!
//! They may be killed at any time: what the hypervisor asks waits, and is asked again of who comes next.

use crate::broker::Broker;
use crate::cell;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::machines::{MachineRow, Machines};
use crate::helpers::BACK_OFF;
use crate::layers;
use crate::platform;
use crate::remote;
use crate::spec::{Disk, Spec};
use skep_ipc::aio::Port;
use skep_machine::{Format, MachineSpec};
use skep_proto::cell::{KillCell, StartDiskServer, SweepCell};
use skep_proto::runner::{Phase, Status};
use skep_proto::storage::{DiskKind, OpenDisk};
use skep_proto::{DiskId, Fds, MachineId, Reason, Refusal, UpTo};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::sleep;

/// Whether disks of this kind are.
pub fn serves(kind: DiskKind) -> bool {
    platform::SERVES && matches!(kind, DiskKind::Qcow2 | DiskKind::Iscsi)
}

/// The hypervisor sees devices, which stand on nothing, and whose rates are kept elsewhere.
pub fn hide(model: &mut MachineSpec) {
    let served = |format| platform::SERVES && matches!(format, Format::Qcow2 | Format::Remote);
    for disk in model.disks.iter_mut().filter(|disk| served(disk.format)) {
        disk.format = Format::Raw;
        disk.layers.clear();
        disk.rates = skep_machine::DiskRates::default();
    }
}

/// Has a disk served that a machine is to have in `slot`; gives the device.
pub async fn start(
    broker: &Broker, who: &Who, machine: &MachineRow, spec: &Spec, place: (u8, &Disk),
) -> Result<OwnedFd, Refusal> {
    let (slot, disk) = place;
    match disk.kind {
        DiskKind::Iscsi => remote::through_device(broker, who, machine.id, disk, spec.rates_of(slot)).await,
        _ => of_files(broker, who, machine, spec, place, false).await,
    }
}

/// Has one served from its open file and those that this stands on.
async fn of_files(
    broker: &Broker, who: &Who, machine: &MachineRow, spec: &Spec, (slot, disk): (u8, &Disk), again: bool,
) -> Result<OwnedFd, Refusal> {
    let files = spec.layers.iter().find(|files| files.slot == slot);
    let top = files.map_or(disk.disk, |files| files.top);
    let (opened, [file]) = broker.storage.call(who, OpenDisk { disk: top, ..OpenDisk::from(disk) }).await?;
    // They come from the lowest upwards.
    let under = layers::open(broker, who, files, disk.flags).await?.into_iter().rev().map(|(_, fd)| fd);
    let below: &[(DiskId, DiskKind)] = files.map_or(&[], |files| &files.under);
    let many = |_| Refusal::new(Reason::LimitReached, "").note("bhyve has disks that stand on 15 layers at most");
    let fds = UpTo::from_vec([file].into_iter().chain(under).collect()).map_err(many)?;
    let call = StartDiskServer {
        disk: disk.disk,
        slot: machine.slot.ok_or_else(|| Refusal::new(Reason::Internal, "slot"))?,
        size: opened.disk.size,
        block: 512,
        read_only: disk.read_only,
        file_limit: opened.most,
        rates: spec.rates_of(slot),
        kinds: [disk.kind].into_iter().chain(below.iter().map(|(_, kind)| *kind)).collect(),
        again,
    };
    let (_, [device]) = broker.cells.call_with(who, call, fds).await?;
    Ok(device)
}

/// The tasks that keep a machine's. Those of iSCSI are kept with their sessions.
pub fn keepers(broker: &Rc<Broker>, machine: MachineId) -> Vec<impl Future<Output = ()> + use<>> {
    let applied = cell::applied(broker, machine).unwrap_or_default();
    let all = (0..).zip(&applied.disks).filter(|(_, disk)| serves(disk.kind) && disk.kind != DiskKind::Iscsi);
    all.map(|(slot, disk)| keep(broker.clone(), machine, slot, disk.clone())).collect()
}

/// Keeps a disk of a running machine served. Ends with the runner, or when nobody can serve it any more: its device goes then, so that whoever
/// waits for it gets an error.
async fn keep(broker: Rc<Broker>, machine: MachineId, slot: u8, disk: Disk) {
    let who = Who::broker();
    let (mut pause, mut lost) = (BACK_OFF.0, false);
    loop {
        let begun = Instant::now();
        // Nobody says anything: the connection ends with who listens.
        if let Ok(port) = broker.run.connect(&remote::path(disk.disk)).and_then(Port::new) {
            let _ = port.recv().await;
        }
        if begun.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
        }
        let alive = broker.ask_runner(&who, machine, Status {}).await;
        if !matches!(&alive, Ok((state, [])) if state.phase != Phase::Ended) {
            return;
        }
        if !lost {
            remote::note(&broker, &who, disk.disk, "lost", "its disk-server is gone; another one is started");
        }
        match again(&broker, &who, machine, slot, &disk).await {
            Ok(()) => {
                remote::note(&broker, &who, disk.disk, "back", "");
                lost = false;
            }
            Err(refusal) => {
                broker.warn(who.trace, format_args!("disk {}: disk-server: {refusal}", disk.disk));
                lost = true;
                if !matches!(refusal.reason, Reason::Unavailable | Reason::InUse | Reason::Timeout) {
                    if let Err(refusal) = sweep(&broker, &who, disk.disk.cell()).await {
                        broker.warn(who.trace, format_args!("disk {}: its device may be left: {refusal}", disk.disk));
                    }
                    return;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

async fn again(broker: &Broker, who: &Who, machine: MachineId, slot: u8, disk: &Disk) -> Result<(), Refusal> {
    let none = || Refusal::new(Reason::NotFound, format_args!("machine {machine}"));
    let row = broker.read(|db| db.machine(machine))?.ok_or_else(none)?;
    let spec = row.applied.clone().ok_or_else(none)?;
    of_files(broker, who, &row, &spec, (slot, disk), true).await.map(drop)
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
