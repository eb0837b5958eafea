//! Disks that become larger, while their machine runs, too; or smaller, if that is said.

use super::disk::{changeable, get, idle, in_use, named};
use super::file_snapshots::writer;
use super::{Cx, find_disk};
use crate::broker::Broker;
use crate::db::disks::DiskRow;
use crate::db::machines::MachineRow;
use crate::{cell, layers};
use skep_machine::Ability;
use skep_proto::broker::{Controller, DiskGet, DiskResize, DiskView};
use skep_proto::runner::GrowDisk;
use skep_proto::storage::{MayGrow, ResizeDisk};
use skep_proto::{Refusal, Text};

/// `DiskResize`. Whoever is killed on the way: the file says how large the disk is, and the database follows it.
pub async fn resize(cx: &Cx, c: DiskResize) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    changeable(&disk)?;
    super::iscsi::kept(&disk)?;
    broker.free(disk.id, disk.name.as_str())?;
    let lost = disk.size.saturating_sub(c.size);
    let runs = if lost == 0 { writer(broker, &disk)? } else { None };
    if runs.is_none() {
        idle(broker, &disk)?;
    }
    if lost > 0 && c.shrink {
        whole(broker, &disk)?;
    }
    let hold = broker.hold(vec![disk.id]);
    let growing = broker.change(who, |change| broker.grow(change, disk.group, c.size.saturating_sub(disk.size)))?;
    let (size, allocated) = match runs {
        Some(machine) => (grow(cx, &disk, &machine, c.size).await?, disk.allocated),
        None => {
            let call = ResizeDisk { disk: disk.file(), kind: disk.kind, size: c.size, shrink: c.shrink && lost > 0 };
            let (state, []) = broker.storage.call(who, call).await.map_err(named(&disk))?;
            (state.size, state.allocated)
        }
    };
    drop((hold, growing));
    broker.change(who, |change| {
        change.disk_ready(disk.id, size, allocated, None)?;
        let lost = if lost > 0 { format!(", the last {lost} are lost") } else { String::new() };
        change.event("disk", disk.id, &disk.name, "changed", format_args!("size {size} bytes{lost}"))
    })?;
    get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await
}

/// Refuses a disk that cannot become smaller: of one that stands on others, what they hold beyond its end would come back when it grows.
fn whole(broker: &Broker, disk: &DiskRow) -> Result<(), Refusal> {
    broker.without_snapshots(disk)?;
    match disk.base {
        Some(_) => Err(in_use(
            disk,
            "it stands on another file, as copies of images do; `skep disk clone --full` makes one that does not",
        )),
        None => Ok(()),
    }
}

/// Has the hypervisor of a running machine make a disk larger, and its guest see it.
async fn grow(cx: &Cx, disk: &DiskRow, machine: &MachineRow, size: u64) -> Result<u64, Refusal> {
    let Cx { broker, who, .. } = cx;
    let busy = |why: &str| in_use(disk, &format!("machine {} runs, {why}", machine.name));
    let host = crate::platform::capabilities(0);
    if !host.abilities.contains(&Ability::DiskGrowth) {
        return Err(busy(&format!("and {}", Ability::DiskGrowth.why(host.hypervisor))));
    }
    let applied = machine.applied.as_ref().ok_or_else(|| busy("and it is not known with what; stop it first"))?;
    let at = applied.disks.iter().position(|there| there.disk == disk.id && !there.flags.ejected && !there.read_only);
    let there = at.and_then(|at| Some((u8::try_from(at).ok()?, applied.disks.get(at)?.controller)));
    let Some((slot, controller)) = there else { return Err(busy("and has it from its next start on; stop it first")) };
    if controller == Controller::Nvme {
        return Err(busy("and an NVMe disk keeps its size until it is stopped"));
    }
    if layers::writes_to(applied, disk.id).flatten() != disk.top {
        return Err(busy("and has yet to go on in the disk's newest file; try again"));
    }
    let call = MayGrow { disk: disk.file(), kind: disk.kind, size };
    let (growth, []) = broker.storage.call(who, call).await.map_err(named(disk))?;
    cell::grow(broker, who, machine.id, GrowDisk { slot, size, most: growth.most }).await.map_err(named(disk))?;
    Ok(size)
}
