//! Snapshots of whole machines: all disks that it writes to, at one instant, its firmware's variables, and its settings.

use super::file_snapshots::{self as files, Taking};
use super::machine::resting;
use super::{Cx, find_machine, not_found, taken};
use crate::broker::Broker;
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::machines::MachineRow;
use crate::db::snapshots::{SnapshotRow, Snapshots};
use crate::db::whole::{Whole, WholeRow, Wholes};
use crate::db::{Change, Who};
use crate::page::{ROWS, fit};
use crate::policy::User;
use crate::spec::Spec;
use skep_proto::broker::{
    Done, MachineGet, MachineState, MachineView, Ref, Role, WholeCreate, WholeDelete, WholeList, WholePage, WholeRename,
    WholeRollBack, WholeView,
};
use skep_proto::storage::{CloneVars, CreateSnapshot, DeleteMachineFiles, RollBackDisk};
use skep_proto::{DiskId, MachineId, Reason, Refusal, SnapshotId, SnapshotName, Text};
use std::rc::Rc;

fn object(machine: &MachineRow, name: &str) -> String {
    format!("snapshot {name} of machine {}", machine.name)
}

/// Its variables are kept like those of a machine with its id.
pub(super) fn keeper(id: SnapshotId) -> MachineId {
    MachineId::from_u128(id.as_u128())
}

pub(super) fn find(db: &impl Wholes, machine: &MachineRow, name: &str) -> Result<WholeRow, Refusal> {
    let found = db.find_whole(machine.id, name)?.filter(|whole| whole.state != Whole::Creating);
    found.ok_or_else(|| not_found("snapshot", format_args!("{name} of machine {}", machine.name)))
}

fn view(db: &(impl Snapshots + Disks), whole: WholeRow) -> Result<WholeView, Refusal> {
    let parts = db.parts_of(whole.id)?;
    let mut disks = Vec::new();
    for part in &parts {
        disks.extend(db.disk(part.disk)?.map(|disk| Text::lossy(disk.name.as_str())));
    }
    let used = parts.iter().map(|part| part.used).sum();
    Ok(WholeView { id: whole.id, name: whole.name, created_ns: whole.created_ns, disks, used })
}

/// The disks that settings say a machine writes to.
fn written(spec: &Spec) -> Vec<DiskId> {
    spec.disks.iter().filter(|disk| !disk.read_only && !disk.flags.ejected).map(|disk| disk.disk).collect()
}

/// These, if they are the user's to change.
fn rows(cx: &Cx, machine: &MachineRow, disks: &[DiskId]) -> Result<Vec<DiskRow>, Refusal> {
    let mut all = Vec::new();
    for id in disks {
        let gone = || Refusal::new(Reason::NotFound, format_args!("disk {id}")).note("the machine had it then");
        let disk = cx.broker.read(|db| db.disk(*id))?.filter(|disk| disk.stage == Stage::Ready).ok_or_else(gone)?;
        if cx.user.rights.host < Some(Role::Operator) && cx.user.rights.within(disk.group) < Some(Role::Operator) {
            let refusal = Refusal::new(Reason::PermissionDenied, format_args!("machine {}", machine.name)).field("disks");
            return Err(refusal.note(format_args!("the role operator in the group of disk {} is needed", disk.name)));
        }
        super::iscsi::kept(&disk)?;
        cx.broker.free(disk.id, disk.name.as_str())?;
        all.push(disk);
    }
    Ok(all)
}

/// What this request made when it came before; none: it comes for the first time.
fn before(cx: &Cx, c: &WholeCreate) -> Result<Option<WholeView>, Refusal> {
    let row = |id: SnapshotId| cx.broker.read(|db| db.whole(id));
    let looks = |id: Ref| {
        // Whoever may look at the machine; of one that is gone, at the one of this name.
        let whole = id.as_str().parse().ok().and_then(|id| row(id).ok().flatten());
        let machine = whole.map_or(c.machine.clone(), |whole| Text::lossy(&whole.machine.to_string()));
        MachineGet { machine }.into()
    };
    let Some(id) = cx.before::<SnapshotId>(looks)? else { return Ok(None) };
    let whole = row(id)?.filter(|whole| matches!(whole.state, Whole::Ready | Whole::Returning));
    let whole = whole.ok_or_else(|| not_found("snapshot", id))?;
    cx.broker.read(|db| view(db, whole)).map(Some)
}

/// `WholeCreate`.
pub async fn create(cx: &Cx, c: WholeCreate) -> Result<WholeView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(view) = before(cx, &c)? {
        return Ok(view);
    }
    let machine = broker.read(|db| find_machine(db, c.machine.as_str()))?;
    let runs = match machine.state {
        MachineState::Running | MachineState::Paused => true,
        _ => {
            super::at_rest(&machine)?;
            false
        }
    };
    let disks = rows(cx, &machine, &written(&machine.spec))?;
    let (volumes, files): (Vec<DiskRow>, Vec<DiskRow>) = disks.into_iter().partition(|disk| disk.top.is_none());
    if runs && !volumes.is_empty() && volumes.len() + files.len() > 1 {
        let refusal = Refusal::new(Reason::Unsupported, object(&machine, c.name.as_str()));
        return Err(refusal.note("its disks are volumes, of which several have no common instant while it runs: stop it"));
    }
    let whole = WholeRow {
        id: SnapshotId::random(),
        machine: machine.id,
        name: c.name,
        spec: machine.spec.clone(),
        state: Whole::Creating,
        created_ns: skep_service::now_ns(),
    };
    let held = volumes.iter().chain(&files).map(|disk| disk.id).collect();
    broker.change(who, |change| {
        if change.find_whole(machine.id, whole.name.as_str())?.is_some() {
            return Err(taken("snapshot", format_args!("{} of machine {}", whole.name, machine.name)));
        }
        Ok(change.add_whole(&whole)?)
    })?;
    let hold = broker.hold(held);
    let made = take(broker, who, &machine, &whole, runs, (&volumes, &files)).await;
    drop(hold);
    if made.is_err() {
        let doomed = broker.change(who, |change| doom(change, &whole));
        if let Err(fault) = doomed {
            broker.warn(who.trace, format_args!("{}: {fault}", object(&machine, whole.name.as_str())));
        }
        broker.delete_whole(who, &whole).await;
    }
    broker.delete_layers(who).await;
    made?;
    broker.read(|db| view(db, find(db, &machine, &whole.id.to_string())?))
}

/// Makes all of it. Its disks' snapshots of files and the whole are there in one step.
async fn take(
    broker: &Rc<Broker>, who: &Who, machine: &MachineRow, whole: &WholeRow, runs: bool,
    (volumes, files): (&[DiskRow], &[DiskRow]),
) -> Result<(), Refusal> {
    broker.storage.call(who, CloneVars { from: machine.id, to: keeper(whole.id) }).await?;
    for disk in volumes {
        let snapshot = SnapshotRow {
            id: SnapshotId::random(),
            disk: disk.id,
            name: whole.name.clone(),
            size: 0,
            used: 0,
            stage: Stage::Creating,
            created_ns: whole.created_ns,
            layer: None,
            whole: Some(whole.id),
        };
        broker.change(who, |change| {
            free(change, disk, &whole.name)?;
            Ok::<_, Refusal>(change.add_snapshot(&snapshot)?)
        })?;
        let call = CreateSnapshot { disk: disk.id, kind: disk.kind, snapshot: snapshot.id };
        let (state, []) = broker.storage.call(who, call).await?;
        broker.change(who, |change| change.snapshot_ready(snapshot.id, state.size, state.used))?;
    }
    let mut all: Vec<Taking> = Vec::new();
    for disk in files {
        broker.read(|db| free(db, disk, &whole.name))?;
        let writer = files::writer(broker, disk)?;
        if writer.as_ref().is_some_and(|writer| writer.id != machine.id) || writer.is_some() != runs {
            return Err(super::disk::in_use(disk, &format!("it is not what machine {} runs with at the moment", machine.name)));
        }
        all.push(files::prepare(broker, who, disk.clone(), whole.name.clone(), runs, Some(whole.id)).await?);
    }
    let done = |change: &Change<'_>| {
        change.set_whole_state(whole.id, Whole::Ready)?;
        change.made(whole.id)?;
        Ok(change.event("machine", machine.id, &machine.name, "changed", format_args!("snapshot {} made", whole.name))?)
    };
    files::take(broker, who, &all, runs.then_some(machine).filter(|_| !all.is_empty()), done).await
}

/// Refuses a name that a disk's own snapshot has.
fn free(db: &impl Snapshots, disk: &DiskRow, name: &SnapshotName) -> Result<(), Refusal> {
    match db.find_snapshot(disk.id, name.as_str())? {
        Some(_) => Err(taken("snapshot", format_args!("{name} of disk {}", disk.name))),
        None => Ok(()),
    }
}

/// `WholeList`.
pub async fn list(cx: &Cx, c: WholeList) -> Result<WholePage, Refusal> {
    let machine = cx.broker.read(|db| find_machine(db, c.machine.as_str()))?;
    if c.after.is_none() {
        cx.broker.refresh_disks(&cx.who).await;
    }
    let after = c.after.as_ref().map_or("", SnapshotName::as_str);
    let rows = cx.broker.read(|db| {
        let rows = db.wholes_after(machine.id, after, ROWS)?;
        rows.into_iter().map(|row| view(db, row)).collect::<Result<Vec<_>, Refusal>>()
    })?;
    Ok(WholePage { snapshots: fit(rows) })
}

/// `WholeRollBack`. Files and settings return in one step, which says that the rest is to follow; cut off after it, the rest is done when
/// storage-helper is back.
pub async fn roll_back(cx: &Cx, c: WholeRollBack) -> Result<MachineView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let machine = broker.read(|db| resting(db, c.machine.as_str()))?;
    let whole = broker.read(|db| find(db, &machine, c.snapshot.as_str()))?;
    let mut parts = Vec::new();
    for part in broker.read(|db| db.parts_of(whole.id))? {
        let disk = broker.read(|db| db.disk(part.disk))?.ok_or_else(|| not_found("disk", part.disk))?;
        super::disk::idle(broker, &disk)?;
        parts.push((part, disk));
    }
    let disks: Vec<DiskId> = parts.iter().map(|(_, disk)| disk.id).collect();
    rows(cx, &machine, &disks)?;
    let back = returned(broker, &machine, &whole)?;
    may_return(&cx.user, &machine, &back)?;
    let hold = broker.hold(disks);
    let files = parts.iter().filter_map(|(part, disk)| Some((disk, part.size, part.layer?)));
    let rolled = files::roll_back_all(broker, who, files, |change| {
        // It may have been started, or changed, meanwhile.
        let now = resting(change, &machine.id.to_string())?;
        if now.spec != machine.spec {
            let refusal = Refusal::new(Reason::WrongState, format_args!("machine {}", machine.name));
            return Err(refusal.note("it was changed just now; try again"));
        }
        let back = MachineRow { spec: back.clone(), revision: now.revision + 1, ..now };
        broker.within_quota(change, back.group, || Ok(change.set_machine(&back)?))?;
        change.set_whole_state(whole.id, Whole::Returning)?;
        let note = format_args!("rolled back to snapshot {}", whole.name);
        Ok(change.event("machine", machine.id, &machine.name, "changed", note)?)
    });
    let rolled = rolled.await;
    let rolled = match rolled {
        Ok(()) => broker.finish_returning(who, &whole).await,
        Err(refusal) => Err(refusal),
    };
    drop(hold);
    broker.delete_layers(who).await;
    rolled?;
    super::machine::get(cx, MachineGet { machine: Text::lossy(&machine.id.to_string()) }).await
}

/// The settings of then, with what is not the machine's past: its NICs stay. Refused if it has other disks than then.
fn returned(broker: &Broker, machine: &MachineRow, whole: &WholeRow) -> Result<Spec, Refusal> {
    let refused = |note: String| {
        let refusal = Refusal::new(Reason::WrongState, object(machine, whole.name.as_str())).field("disks");
        Err(refusal.note(note))
    };
    let name = |id: DiskId| {
        let row = broker.read(|db| db.disk(id)).ok().flatten();
        row.map_or_else(|| id.to_string(), |disk| disk.name.to_string())
    };
    let has = |spec: &Spec, id: DiskId| spec.disks.iter().any(|disk| disk.disk == id);
    for disk in &whole.spec.disks {
        if broker.read(|db| db.disk(disk.disk))?.is_none() {
            return refused(format!("disk {} is gone, which it had then", disk.disk));
        }
        if !has(&machine.spec, disk.disk) {
            return refused(format!("it had disk {} then: give it back first", name(disk.disk)));
        }
    }
    if let Some(disk) = machine.spec.disks.iter().find(|disk| !has(&whole.spec, disk.disk)) {
        return refused(format!("it did not have disk {} then: take it away first", name(disk.disk)));
    }
    let mut spec = whole.spec.clone().with_nics_of(&machine.spec);
    for disk in &mut spec.disks {
        // How it is kept may have changed: a raw file with a snapshot goes on in a QCOW2 one.
        disk.kind = machine.spec.disks.iter().find(|now| now.disk == disk.disk).map_or(disk.kind, |now| now.kind);
    }
    spec.check(machine.id, machine.name.as_str())?;
    Ok(spec)
}

/// Refuses settings that only the host's operators give, if the machine has not got them now: they were taken from it since.
fn may_return(user: &User, machine: &MachineRow, back: &Spec) -> Result<(), Refusal> {
    let (then, now) = (&back.limits, &machine.spec.limits);
    let before_others =
        (then.priority < 0 && then.priority < now.priority) || (then.protect && !now.protect) || (then.wired && !now.wired);
    let field = match () {
        () if back.shares.iter().any(|share| !machine.spec.shares.contains(share)) => "shares",
        () if before_others => "limits",
        () => return Ok(()),
    };
    if user.rights.host >= Some(Role::Operator) {
        return Ok(());
    }
    let refusal = Refusal::new(Reason::PermissionDenied, format_args!("machine {}", machine.name)).field(field);
    Err(refusal.note("it had then what was taken from it since; the role operator on the host is needed to give it back"))
}

/// `WholeRename`. Its disks' snapshots are called like it.
pub async fn rename(cx: &Cx, c: WholeRename) -> Result<WholeView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let machine = find_machine(change, c.machine.as_str())?;
        let mut whole = find(change, &machine, c.snapshot.as_str())?;
        if whole.name != c.name {
            if change.find_whole(machine.id, c.name.as_str())?.is_some() {
                return Err(taken("snapshot", format_args!("{} of machine {}", c.name, machine.name)));
            }
            for part in change.parts_of(whole.id)? {
                if let Some(disk) = change.disk(part.disk)? {
                    free(change, &disk, &c.name)?;
                }
                change.rename_snapshot(part.id, &c.name)?;
            }
            let old = std::mem::replace(&mut whole.name, c.name);
            change.rename_whole(whole.id, &whole.name)?;
            let note = format_args!("snapshot {old} renamed to {}", whole.name);
            change.event("machine", machine.id, &machine.name, "changed", note)?;
        }
        view(change, whole)
    })
}

/// `WholeDelete`.
pub async fn delete(cx: &Cx, c: WholeDelete) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    let machine = broker.read(|db| find_machine(db, c.machine.as_str()))?;
    let whole = broker.read(|db| find(db, &machine, c.snapshot.as_str()))?;
    if whole.state == Whole::Returning {
        return Err(
            Refusal::new(Reason::InUse, object(&machine, whole.name.as_str())).note("its machine is being brought back to it")
        );
    }
    for part in broker.read(|db| db.parts_of(whole.id))? {
        let Some(disk) = broker.read(|db| db.disk(part.disk))? else { continue };
        broker.free(disk.id, disk.name.as_str())?;
    }
    // The intent first: a crash from here on finishes it.
    broker.change(who, |change| {
        doom(change, &whole)?;
        change.event("machine", machine.id, &machine.name, "changed", format_args!("snapshot {} deleted", whole.name))
    })?;
    broker.delete_whole(who, &whole).await;
    Ok(Done {})
}

/// It is to go, with its parts.
pub fn doom(change: &Change<'_>, whole: &WholeRow) -> Result<(), crate::db::Fault> {
    for part in change.parts_of(whole.id)? {
        change.snapshot_doomed(part.id)?;
    }
    change.set_whole_state(whole.id, Whole::Deleting)
}

impl Broker {
    /// Deletes a doomed one: its parts, its variables, its row. What fails now is done when storage-helper is back.
    pub async fn delete_whole(&self, who: &Who, whole: &WholeRow) {
        for part in self.read(|db| db.parts_of(whole.id)).unwrap_or_default() {
            self.delete_snapshot(who, &part).await;
        }
        let gone = self.storage.call(who, DeleteMachineFiles { machine: keeper(whole.id) }).await.map(drop);
        let left = self.read(|db| db.parts_of(whole.id)).is_ok_and(|parts| !parts.is_empty());
        let removed =
            gone.and_then(|()| if left { Ok(()) } else { Ok(self.change(who, |change| change.remove_whole(whole.id))?) });
        if let Err(refusal) = removed {
            self.warn(who.trace, format_args!("snapshot {} has yet to be deleted: {refusal}", whole.name));
        }
    }

    /// Brings the rest of a machine back to a snapshot: its volumes, and its firmware's variables.
    pub async fn finish_returning(&self, who: &Who, whole: &WholeRow) -> Result<(), Refusal> {
        for part in self.read(|db| db.parts_of(whole.id))?.iter().filter(|part| part.layer.is_none()) {
            let Some(disk) = self.read(|db| db.disk(part.disk))? else { continue };
            let call = RollBackDisk { disk: disk.id, kind: disk.kind, snapshot: part.id };
            let (state, []) = self.storage.call(who, call).await?;
            self.change(who, |change| change.disk_ready(disk.id, state.size, state.allocated, None))?;
        }
        self.storage.call(who, CloneVars { from: keeper(whole.id), to: whole.machine }).await?;
        self.change(who, |change| change.set_whole_state(whole.id, Whole::Ready))?;
        Ok(())
    }
}

/// Refuses a machine that is on its way back to a snapshot.
pub fn not_returning(db: &impl Wholes, machine: &MachineRow) -> Result<(), Refusal> {
    match db.wholes(Some(machine.id), Some(Whole::Returning))?.first() {
        None => Ok(()),
        Some(whole) => {
            let refusal = Refusal::new(Reason::WrongState, format_args!("machine {}", machine.name));
            let note = format_args!("it is being brought back to snapshot {}: `skep vm snapshot rollback` again", whole.name);
            Err(refusal.note(note))
        }
    }
}
