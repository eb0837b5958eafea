//! Snapshots of disks.

use super::disk::{about, idle, in_use};
use super::{Cx, file_snapshots as files, find_disk, not_found, taken};
use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::machines::Machines;
use crate::db::snapshots::{SnapshotRow, Snapshots};
use crate::db::whole::Wholes;
use crate::page::{ROWS, fit};
use skep_proto::broker::{
    DiskGet, DiskView, Done, Ref, SnapshotCreate, SnapshotDelete, SnapshotList, SnapshotPage, SnapshotRename, SnapshotRollBack,
    SnapshotView,
};
use skep_proto::storage::{CreateSnapshot, DeleteSnapshot, DiskKind, ListSnapshots, RollBackDisk};
use skep_proto::{Reason, Refusal, SnapshotId, SnapshotName, Text};

fn view(row: SnapshotRow) -> SnapshotView {
    let SnapshotRow { id, name, size, used, created_ns, .. } = row;
    SnapshotView { id, name, size, used, created_ns }
}

/// What a snapshot is called in refusals.
pub(super) fn object(disk: &DiskRow, name: &str) -> String {
    format!("snapshot {name} of disk {}", disk.name)
}

pub(super) fn find(db: &impl Snapshots, disk: &DiskRow, name: &str) -> Result<SnapshotRow, Refusal> {
    let found = db.find_snapshot(disk.id, name)?.filter(|snapshot| snapshot.stage == Stage::Ready);
    found.ok_or_else(|| not_found("snapshot", format_args!("{name} of disk {}", disk.name)))
}

/// What this request made when it came before; none: it comes for the first time.
fn before(cx: &Cx, c: &SnapshotCreate) -> Result<Option<SnapshotView>, Refusal> {
    let row = |id: &str| cx.broker.read(|db| db.snapshot(id));
    let looks = |id: Ref| {
        // Whoever may look at the disk; of one that is gone, at the one of this name.
        let disk = row(id.as_str()).ok().flatten().map_or(c.disk.clone(), |row| Text::lossy(&row.disk.to_string()));
        DiskGet { disk }.into()
    };
    let Some(id) = cx.before::<SnapshotId>(looks)? else { return Ok(None) };
    let found = row(&id.to_string())?.filter(|row| row.stage == Stage::Ready);
    found.map(|row| Some(view(row))).ok_or_else(|| not_found("snapshot", id))
}

/// `SnapshotCreate`. Of a running machine's disk it holds what a power failure would have left.
pub async fn create(cx: &Cx, c: SnapshotCreate) -> Result<SnapshotView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(view) = before(cx, &c)? {
        return Ok(view);
    }
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    super::iscsi::kept(&disk)?;
    broker.free(disk.id, disk.name.as_str())?;
    if disk.top.is_some() {
        let row = files::create(broker, who, &disk, c.name).await?;
        return Ok(view(row));
    }
    let object = object(&disk, c.name.as_str());
    let snapshot = SnapshotRow {
        id: SnapshotId::random(),
        disk: disk.id,
        name: c.name,
        size: 0,
        used: 0,
        stage: Stage::Creating,
        created_ns: skep_service::now_ns(),
        layer: None,
        whole: None,
    };
    broker.change(who, |change| {
        if change.find_snapshot(disk.id, snapshot.name.as_str())?.is_some() {
            return Err(taken("snapshot", format_args!("{} of disk {}", snapshot.name, disk.name)));
        }
        Ok(change.add_snapshot(&snapshot)?)
    })?;
    let call = CreateSnapshot { disk: disk.id, kind: disk.kind, snapshot: snapshot.id };
    match broker.storage.call(who, call).await {
        Ok((state, [])) => broker.change(who, |change| {
            change.snapshot_ready(snapshot.id, state.size, state.used)?;
            change.made(snapshot.id)?;
            change.event("disk", disk.id, &disk.name, "changed", format_args!("snapshot {} made", snapshot.name))?;
            Ok(view(find(change, &disk, &snapshot.id.to_string())?))
        }),
        Err(refusal) => {
            if refusal.reason == Reason::Unsupported {
                // Nothing was made, and nothing could be deleted.
                broker.change(who, |change| change.remove_snapshot(snapshot.id))?;
            } else {
                broker.change(who, |change| change.snapshot_doomed(snapshot.id))?;
                broker.delete_snapshot(who, &snapshot).await;
            }
            Err(about(refusal, &object))
        }
    }
}

/// `SnapshotList`.
pub async fn list(cx: &Cx, c: SnapshotList) -> Result<SnapshotPage, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    if c.after.is_none() {
        match disk.kind {
            DiskKind::Zvol => broker.refresh_snapshots(who, &disk).await,
            DiskKind::Raw | DiskKind::Qcow2 | DiskKind::Iscsi => broker.refresh_disks(who).await,
        }
    }
    let after = c.after.as_ref().map_or("", SnapshotName::as_str);
    let rows = broker.read(|db| db.snapshots_after(disk.id, after, ROWS))?;
    Ok(SnapshotPage { snapshots: fit(rows.into_iter().map(view)) })
}

/// `SnapshotRollBack`. The disk would change under a machine that runs.
pub async fn roll_back(cx: &Cx, c: SnapshotRollBack) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    let snapshot = broker.read(|db| find(db, &disk, c.snapshot.as_str()))?;
    idle(broker, &disk)?;
    if let Some(layer) = snapshot.layer {
        files::roll_back(broker, who, &disk, &snapshot, layer).await?;
        return super::disk::get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await;
    }
    let hold = broker.hold(vec![disk.id]);
    let call = RollBackDisk { disk: disk.id, kind: disk.kind, snapshot: snapshot.id };
    let rolled = broker.storage.call(who, call).await;
    drop(hold);
    let (state, []) = match rolled {
        Ok(done) => done,
        Err(refusal) => return Err(about(broker.named(&disk, refusal), &object(&disk, snapshot.name.as_str()))),
    };
    broker.change(who, |change| {
        change.disk_ready(disk.id, state.size, state.allocated, None)?;
        change.event("disk", disk.id, &disk.name, "changed", format_args!("rolled back to snapshot {}", snapshot.name))
    })?;
    super::disk::get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await
}

/// Refuses one that goes with its machine's: what is done (`verb`) is done with that.
fn alone(db: &(impl Wholes + Machines), disk: &DiskRow, snapshot: &SnapshotRow, verb: &str) -> Result<(), Refusal> {
    let Some(whole) = snapshot.whole.map(|id| db.whole(id)).transpose()?.flatten() else { return Ok(()) };
    let machine = db.machine(whole.machine)?.map(|machine| machine.name.to_string()).unwrap_or_default();
    let note =
        format_args!("it is a part of the snapshot of machine {machine}: `skep vm snapshot {verb} {machine} {}`", whole.name);
    Err(Refusal::new(Reason::InUse, object(disk, snapshot.name.as_str())).note(note))
}

/// `SnapshotRename`. On the host it is called by its id.
pub async fn rename(cx: &Cx, c: SnapshotRename) -> Result<SnapshotView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let disk = find_disk(change, c.disk.as_str())?;
        let mut snapshot = find(change, &disk, c.snapshot.as_str())?;
        if snapshot.name != c.name {
            alone(change, &disk, &snapshot, "rename")?;
            if change.find_snapshot(disk.id, c.name.as_str())?.is_some() {
                return Err(taken("snapshot", format_args!("{} of disk {}", c.name, disk.name)));
            }
            let old = std::mem::replace(&mut snapshot.name, c.name);
            change.rename_snapshot(snapshot.id, &snapshot.name)?;
            let note = format_args!("snapshot {old} renamed to {}", snapshot.name);
            change.event("disk", disk.id, &disk.name, "changed", note)?;
        }
        Ok(view(snapshot))
    })
}

/// `SnapshotDelete`.
pub async fn delete(cx: &Cx, c: SnapshotDelete) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    let snapshot = broker.read(|db| find(db, &disk, c.snapshot.as_str()))?;
    broker.read(|db| alone(db, &disk, &snapshot, "delete"))?;
    if snapshot.layer.is_some() {
        broker.free(disk.id, disk.name.as_str())?;
        broker.change(who, |change| {
            change.remove_snapshot(snapshot.id)?;
            change.event("disk", disk.id, &disk.name, "changed", format_args!("snapshot {} deleted", snapshot.name))
        })?;
        broker.delete_layers(who).await;
        return Ok(Done {});
    }
    // The intent first: a crash from here on finishes it.
    broker.change(who, |change| {
        change.snapshot_doomed(snapshot.id)?;
        change.event("disk", disk.id, &disk.name, "changed", format_args!("snapshot {} deleted", snapshot.name))
    })?;
    let call = DeleteSnapshot { disk: disk.id, kind: disk.kind, snapshot: snapshot.id };
    match broker.storage.call(who, call).await {
        Ok(_) => broker.change(who, |change| change.remove_snapshot(snapshot.id))?,
        // It is done when storage-helper is back.
        Err(refusal) if refusal.reason == Reason::Unavailable => {}
        // Something outside of skep depends on it. Its name may be taken by now; then it goes when that has gone.
        Err(refusal) => {
            broker.change(who, |change| match change.find_snapshot(disk.id, snapshot.name.as_str())? {
                None => change.snapshot_ready(snapshot.id, snapshot.size, snapshot.used),
                Some(_) => Ok(()),
            })?;
            return Err(about(refusal, &object(&disk, snapshot.name.as_str())));
        }
    }
    Ok(Done {})
}

impl Broker {
    /// Refuses a disk that has snapshots, which would go with it.
    pub(super) fn without_snapshots(&self, disk: &DiskRow) -> Result<(), Refusal> {
        match self.read(|db| db.snapshots_after(disk.id, "", 1))?.first() {
            Some(snapshot) => Err(in_use(disk, &format!("it has snapshots ({}, …); delete them first", snapshot.name))),
            None => Ok(()),
        }
    }

    /// Deletes a doomed snapshot, then its row. What fails now is done when storage-helper comes back.
    pub async fn delete_snapshot(&self, who: &Who, snapshot: &SnapshotRow) {
        // Without its disk it is gone.
        let Ok(Some(disk)) = self.read(|db| db.disk(snapshot.disk)) else { return };
        if snapshot.layer.is_some() {
            if let Err(fault) = self.change(who, |change| change.remove_snapshot(snapshot.id)) {
                self.warn(who.trace, format_args!("{}: {fault}", object(&disk, snapshot.name.as_str())));
            }
            return self.delete_layers(who).await;
        }
        let call = DeleteSnapshot { disk: disk.id, kind: disk.kind, snapshot: snapshot.id };
        let gone = self.storage.call(who, call).await.map(|_| ());
        if let Err(refusal) = gone.and_then(|()| Ok(self.change(who, |change| change.remove_snapshot(snapshot.id))?)) {
            let object = object(&disk, snapshot.name.as_str());
            self.warn(who.trace, format_args!("{object} has yet to be deleted: {refusal}"));
        }
    }

    /// Brings in line what snapshots occupy, as far as storage-helper answers.
    async fn refresh_snapshots(&self, who: &Who, disk: &DiskRow) {
        let mut after = None;
        while self.storage.is_up() {
            let call = ListSnapshots { disk: disk.id, kind: disk.kind, after };
            let Ok((page, [])) = self.storage.call(who, call).await else { return };
            let Some(last) = page.snapshots.last() else { return };
            after = Some(last.snapshot);
            let written = self.change(who, |change| {
                page.snapshots.iter().try_for_each(|state| {
                    let row = change.find_snapshot(disk.id, &state.snapshot.to_string())?;
                    match row.filter(|row| row.stage == Stage::Ready && (row.size, row.used) != (state.size, state.used)) {
                        Some(row) => change.snapshot_ready(row.id, state.size, state.used),
                        None => Ok(()),
                    }
                })
            });
            if let Err(fault) = written {
                return self.warn(who.trace, format_args!("disk {}: {fault}", disk.name));
            }
        }
    }

    /// Newer snapshots and copies stand in the way of a roll-back: users know them by name.
    fn named(&self, disk: &DiskRow, mut refusal: Refusal) -> Refusal {
        let mut note = refusal.note.as_str().to_owned();
        for word in refusal.note.as_str().split(|c: char| !c.is_ascii_hexdigit() && c != '-').filter(|word| word.len() == 36) {
            let snapshot = self.read(|db| db.find_snapshot(disk.id, word)).ok().flatten().map(|s| s.name.to_string());
            let copy = || self.read(|db| db.find_disk(word)).ok().flatten().map(|disk| disk.name.to_string());
            if let Some(name) = snapshot.or_else(copy) {
                note = note.replace(word, &name);
            }
        }
        refusal.note = Text::lossy(&note);
        refusal
    }
}
