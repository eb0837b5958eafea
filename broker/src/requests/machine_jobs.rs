//! Machines: copies and deletions, which take long.

use super::copies::{self, How, Source, Way};
use super::machine::{free_name, resting};
use super::{Cx, disk, nic, taken};
use crate::actor::Msg;
use crate::broker::Broker;
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::groups::Groups;
use crate::db::guests::Guests;
use crate::db::machines::{MachineRow, Machines};
use crate::db::nics::Nics;
use crate::db::snapshots::Snapshots;
use crate::db::whole::Wholes;
use crate::db::{Change, Fault, Who};
use crate::operations::Operation;
use crate::policy::User;
use crate::served;
use crate::spec::Spec;
use skep_machine::Device;
use skep_proto::broker::{GuestData, MachineClone, MachineDelete, OperationView, Role};
use skep_proto::storage::{CloneVars, DeleteMachineFiles, DiskKind};
use skep_proto::{DiskName, MachineId, MachineName, NicName, Reason, Refusal, Text};
use std::fmt::Display;
use std::rc::Rc;
use std::str::FromStr;

/// A machine to be, with the disks that are copied for it: the original's row, the copy's.
struct Copy {
    machine: MachineRow,
    disks: Vec<(DiskRow, DiskRow)>,
    /// What its guest is told, and the disk that says it.
    guest: Option<(GuestData, DiskRow)>,
}

/// What is copied: a machine, or what a snapshot has of it.
struct Original {
    machine: MachineRow,
    /// Disks that it writes to, as they were.
    then: Vec<Source>,
    /// Whose variables its firmware has.
    vars: MachineId,
}

fn derived<T: FromStr<Err: Display>>(name: &MachineName, number: usize) -> Result<T, Refusal> {
    let text = format!("{name}-{number}");
    text.parse().map_err(|e| Refusal::new(Reason::InvalidValue, text).field("name").note(e))
}

/// Writes the copy as being made: names taken, nothing usable.
fn reserve(cx: &Cx, change: &Change<'_>, c: &MachineClone, source: &Original, how: How) -> Result<(Copy, Vec<Way>), Refusal> {
    let broker = &cx.broker;
    let original = match &c.snapshot {
        Some(_) => source.machine.clone(),
        None => resting(change, &source.machine.id.to_string())?,
    };
    may_have(&cx.user, change, &original)?;
    free_name(change, &c.name)?;
    let mut machine = MachineRow::new(c.name.clone());
    (machine.stage, machine.description) = (Stage::Creating, original.description.clone());
    machine.spec = original.spec.clone().with_nics_of(&Spec::default());
    machine.group = original.group;
    let (mut disks, mut ways) = (Vec::new(), Vec::new());
    for (number, drive) in machine.spec.disks.iter_mut().enumerate().filter(|(_, drive)| !drive.read_only) {
        let then = source.then.iter().find(|then| then.disk.id == drive.disk);
        let now;
        let from = match then {
            Some(then) => then,
            None => {
                let disk = change.disk(drive.disk)?.ok_or(Fault::Row("machine_disks"))?;
                disk::still(broker, &disk, change)?;
                now = Source { disk, snapshot: None };
                &now
            }
        };
        let name: DiskName = derived(&c.name, number)?;
        let (to, way) = copies::reserve(broker, change, from, (&name, from.disk.size, machine.group), how)?;
        (drive.disk, drive.kind) = (to.id, to.kind);
        disks.push((from.disk.clone(), to));
        ways.push(way);
    }
    let guest = seeded(cx, change, &c.name, original.id, &mut machine)?;
    broker.within_quota(change, machine.group, || Ok(change.add_machine(&machine)?))?;
    for ((number, at), old) in (0..).zip(0..).zip(&original.spec.nics) {
        let name: NicName = derived(&c.name, number)?;
        let old = super::find_nic(change, &old.nic.to_string())?;
        let traffic = nic::Traffic { rates: old.rates, isolated: old.isolated, ..nic::Traffic::default() };
        let new = nic::add(change, &name, old.switch, None, machine.group, (old.model, old.slot, None), traffic)
            .map_err(|r| if r.reason == Reason::AlreadyExists { taken("nic", &name) } else { r })?;
        change.set_nic_made_for(new.id, machine.id, original.spec.kept_at(Device::Nic(at)))?;
    }
    Ok((Copy { machine, disks, guest }, ways))
}

/// The copy of a machine that was launched has a seed of its own: its guest is another one.
fn seeded(
    cx: &Cx, change: &Change<'_>, name: &MachineName, original: MachineId, machine: &mut MachineRow,
) -> Result<Option<(GuestData, DiskRow)>, Refusal> {
    let (Some(data), Some(old)) = (change.guest(original)?, change.seed(original)?) else { return Ok(None) };
    let Some(drive) = machine.spec.disks.iter_mut().find(|drive| drive.disk == old) else { return Ok(None) };
    let text = format!("{name}-seed");
    let name = text.parse().map_err(|e| Refusal::new(Reason::InvalidValue, &text).field("name").note(e))?;
    let kind = if drive.kind == DiskKind::Zvol { DiskKind::Zvol } else { DiskKind::Raw };
    let seed = disk::reserve(&cx.broker, change, &name, kind, skep_seed::SIZE as u64, machine.group)?;
    (drive.disk, drive.kind) = (seed.id, seed.kind);
    Ok(Some((data, seed)))
}

/// Refuses a copy that its user could not define himself: what an administrator gave to the original is not his to give.
fn may_have(user: &User, change: &Change<'_>, original: &MachineRow) -> Result<(), Refusal> {
    if user.rights.host >= Some(Role::Operator) {
        return Ok(());
    }
    let refused = |field: &str, note: String| {
        let refusal = Refusal::new(Reason::PermissionDenied, format_args!("machine {}", original.name)).field(field);
        Err(refusal.note(note))
    };
    let spec = &original.spec;
    if !spec.shares.is_empty() {
        return refused("shares", "the role operator on the host is needed to share its directories".into());
    }
    if spec.limits.priority < 0 || spec.limits.protect || spec.limits.wired {
        return refused("limits", "the role operator on the host is needed for what goes before others".into());
    }
    for nic in &spec.nics {
        let nic = super::find_nic(change, &nic.nic.to_string())?;
        if let Some(switch) = &nic.switch
            && !change.switch_is_open(switch.0, original.group)?
        {
            return refused("switch", format!("the switch of nic {} is not open to its group: `skep switch open`", nic.name));
        }
    }
    for (drive, name) in spec.disks.iter().zip(&original.disk_names) {
        let disk = change.disk(drive.disk)?.ok_or(Fault::Row("machine_disks"))?;
        let needed = if drive.read_only { Role::Viewer } else { Role::Operator };
        if user.rights.within(disk.group) < Some(needed) {
            return refused("disks", format!("the role {needed} in the group of disk {name} is needed"));
        }
    }
    Ok(())
}

/// What is to be copied.
async fn original(cx: &Cx, c: &MachineClone) -> Result<Original, Refusal> {
    let Cx { broker, who, .. } = cx;
    let Some(snapshot) = &c.snapshot else {
        let machine = broker.read(|db| resting(db, c.machine.as_str()))?;
        return Ok(Original { vars: machine.id, machine, then: Vec::new() });
    };
    let mut machine = broker.read(|db| super::find_machine(db, c.machine.as_str()))?;
    let whole = broker.read(|db| super::whole::find(db, &machine, snapshot.as_str()))?;
    let mut then = Vec::new();
    for part in broker.read(|db| db.parts_of(whole.id))? {
        let Some(disk) = broker.read(|db| db.disk(part.disk))? else { continue };
        then.push(super::file_snapshots::as_it_was(broker, who, disk, &part.id.to_string(), c.full).await?);
    }
    machine.spec = whole.spec.with_nics_of(&machine.spec);
    machine.disk_names.clear();
    for disk in &machine.spec.disks {
        let missing = || Refusal::new(Reason::NotFound, format_args!("disk {}", disk.disk)).note("the machine had it then");
        let row = broker.read(|db| db.disk(disk.disk))?.ok_or_else(missing)?;
        machine.disk_names.push(Text::lossy(row.name.as_str()));
    }
    Ok(Original { machine, then, vars: super::whole::keeper(whole.id) })
}

/// `MachineClone`.
pub async fn copy(cx: &Cx, c: MachineClone) -> Result<OperationView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before(disk::operation)? {
        return broker.operation(id);
    }
    let original = original(cx, &c).await?;
    let object = format!("machine {}", c.name);
    let how = How::ask(broker, who, c.full).await?;
    let group = original.machine.group;
    let begin = Operation::begin(broker, who, group, "clone", object, |change, _| reserve(cx, change, &c, &original, how));
    let ((copy, ways), mut operation) = begin?;
    let original = original.vars;
    let view = operation.view();
    let seed = copy.guest.iter().map(|(_, seed)| seed.id);
    let hold = broker.hold(copy.disks.iter().flat_map(|(from, to)| [from.id, to.id]).chain(seed).collect());
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        let result = fill(&broker, &who, &mut operation, original, (&copy, ways)).await;
        drop(hold);
        if result.is_err() {
            forget(&broker, &who, &copy).await;
        }
        operation.finish(result);
    });
    Ok(view)
}

async fn fill(
    broker: &Rc<Broker>, who: &Who, operation: &mut Operation, original: MachineId, (copy, ways): (&Copy, Vec<Way>),
) -> Result<(), Refusal> {
    broker.storage.call(who, CloneVars { from: original, to: copy.machine.id }).await?;
    let all: u64 = copy.disks.iter().map(|(from, _)| from.size).sum();
    let mut before = 0u64;
    for ((from, to), way) in copy.disks.iter().zip(ways) {
        let told = |done: u64, total: u64| {
            // Each disk counts with its size, whatever a job counts in.
            let part = u128::from(from.size) * u128::from(done) / u128::from(total.max(1));
            (before.saturating_add(u64::try_from(part).unwrap_or(0)).min(all), all)
        };
        let done = copies::make(broker, operation, way, told).await?;
        before = before.saturating_add(from.size);
        disk::finished(broker, who, to, &done)?;
    }
    let mut seed = None;
    if let Some((data, disk)) = &copy.guest {
        let nics = broker.read(|db| db.nics_of(copy.machine.id))?;
        let macs: Vec<[u8; 6]> = nics.iter().map(|nic| nic.mac).collect();
        let document = served::document(&copy.machine, data, &macs);
        let bytes = skep_seed::disk(&document).map_err(|e| Refusal::new(Reason::InvalidValue, "").field("user_data").note(e))?;
        seed = Some((disk, data, super::launch::write_seed(broker, operation, disk, bytes).await?));
    }
    broker.change(who, |change| {
        if let Some((disk, data, written)) = &seed {
            disk::finish(broker, change, disk, written)?;
            change.set_guest(copy.machine.id, data, disk.id)?;
        }
        change.set_machine_stage(copy.machine.id, Stage::Ready)?;
        Ok(change.event("machine", copy.machine.id, &copy.machine.name, "created", "")?)
    })
}

async fn forget(broker: &Rc<Broker>, who: &Who, copy: &Copy) {
    let doomed = broker.change(who, |change| {
        doom(change, copy.machine.id)?;
        let seed = copy.guest.iter().map(|(_, seed)| seed);
        copy.disks.iter().map(|(_, to)| to).chain(seed).try_for_each(|disk| change.disk_doomed(disk.id))
    });
    if let Err(fault) = doomed {
        return broker.warn(who.trace, format_args!("machine {}: {fault}", copy.machine.name));
    }
    broker.delete_machine_files(who, copy.machine.id).await;
    for disk in copy.disks.iter().map(|(_, to)| to).chain(copy.guest.iter().map(|(_, seed)| seed)) {
        broker.delete_file(who, disk.id).await;
    }
}

/// A machine is to go: its name, disks and NICs are free; NICs that were made for it by a clone go too.
pub fn doom(change: &Change<'_>, id: MachineId) -> Result<(), Fault> {
    let Some(mut machine) = change.machine(id)? else { return Ok(()) };
    let names = std::mem::take(&mut machine.nic_names);
    for (nic, (nic_name, _)) in std::mem::take(&mut machine.spec.nics).into_iter().zip(names) {
        if !change.nic_goes_along(nic.nic)? {
            change.set_nic_machine(nic.nic, None)?;
            continue;
        }
        change.event("nic", nic.nic, nic_name.as_str(), "deleted", format_args!("with machine {}", machine.name))?;
        change.remove_nic(nic.nic)?;
    }
    machine.spec.disks.clear();
    machine.spec.seats.clear();
    machine.spec.boot = crate::spec::Boot::Uefi;
    change.set_machine(&machine)?;
    change.set_machine_stage(id, Stage::Deleting)
}

/// `MachineDelete`.
pub async fn delete(cx: &Cx, c: MachineDelete) -> Result<OperationView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let machine = broker.read(|db| resting(db, c.machine.as_str()))?;
    let nics = broker.read(|db| db.nics_of(machine.id))?;
    let begin = Operation::begin(broker, who, machine.group, "delete", format_args!("machine {}", machine.name), |change, _| {
        let machine = resting(change, c.machine.as_str())?;
        doom(change, machine.id)?;
        change.event("machine", machine.id, &machine.name, "deleted", "")?;
        let mut disks = Vec::new();
        if c.disks {
            for disk in &machine.spec.disks {
                let Some(row) = change.disk(disk.disk)? else { continue };
                // One of another group is not this group's to delete.
                if row.group != machine.group {
                    continue;
                }
                broker.free(row.id, row.name.as_str())?;
                if change.disk_users(row.id)?.is_empty() {
                    change.disk_doomed(row.id)?;
                    change.event("disk", row.id, &row.name, "deleted", "")?;
                    disks.push(row.id);
                }
            }
        }
        Ok(disks)
    });
    let (disks, operation) = begin?;
    if let Some(post) = broker.actors.borrow_mut().remove(&machine.id) {
        let _ = post.send(Msg::End);
    }
    let view = operation.view();
    // Should it fail now, that is made good when net-helper is back.
    if let Err(refusal) = nic::led(cx, &nics).await {
        broker.warn(who.trace, format_args!("machine {}: {refusal}", machine.name));
    }
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        broker.delete_machine_files(&who, machine.id).await;
        for disk in disks {
            broker.delete_file(&who, disk).await;
        }
        // The intent is written: what could not be deleted now is deleted when storage-helper is back.
        operation.finish(Ok(()));
    });
    Ok(view)
}

impl Broker {
    /// Deletes the files of a doomed machine, then its row.
    pub async fn delete_machine_files(&self, who: &Who, machine: MachineId) {
        // Its disks' snapshots are on their own from now on.
        for whole in self.read(|db| db.wholes(Some(machine), None)).unwrap_or_default() {
            let _ = self.storage.call(who, DeleteMachineFiles { machine: super::whole::keeper(whole.id) }).await;
        }
        let gone = self.storage.call(who, DeleteMachineFiles { machine }).await.map(|_| ());
        if let Err(refusal) = gone.and_then(|()| Ok(self.change(who, |change| change.remove_machine(machine))?)) {
            self.warn(who.trace, format_args!("machine {machine}: its files have yet to be deleted: {refusal}"));
        }
    }
}
