//! Disks.

use super::copies::{self, How, Plan, Source};
use super::{Cx, find_disk, group, iscsi, pace, said, taken};
use crate::broker::Broker;
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::groups::Groups;
use crate::db::iscsi::Iscsi;
use crate::db::layers::{LayerRow, Layers};
use crate::db::{Db, Who};
use crate::jobs::{self, Job};
use crate::operations::Operation;
use crate::page::{ROWS, fit};
use crate::policy::Rights;
use skep_proto::broker::{
    BrokerRequest, DiskClone, DiskCreate, DiskDelete, DiskExport, DiskGet, DiskImport, DiskList, DiskPage, DiskSet, DiskView,
    DiskWipe, Done, ImageFacts, OperationGet, OperationView, Ref,
};
use skep_proto::storage::{
    CreateDisk, DiskKind, DiskState, ImportDisk, JobDone, Layer, MergeLayers, OpenDisk, OpenLayer, Packing, SourceFormat, Space,
    VolumeSpace, WipeDisk,
};
use skep_proto::{DiskId, DiskName, DiskRates, GroupId, OneFd, OperationId, Reason, Refusal, Text, UpTo};
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Names of machines in a view, at most.
const MACHINES: usize = 50;

/// Machines of groups that are not his to see are left out.
fn view(broker: &Broker, db: &Db, disk: DiskRow, rights: &Rights) -> Result<DiskView, Refusal> {
    let iscsi = iscsi::view(broker, db, &disk)?;
    let users = db.disk_users(disk.id)?;
    let group = db.group_name(disk.group)?;
    // What it shares with others is theirs, too.
    let allocated = if disk.base.is_some() { db.own_bytes(disk.file())? } else { disk.allocated };
    let DiskRow { id, name, kind, size, sha256, created_ns, description, iso, image, rates, .. } = disk;
    let machines =
        users.into_iter().filter(|user| rights.within(user.group).is_some()).map(|user| user.name).take(MACHINES).collect();
    Ok(DiskView { id, name, kind, size, allocated, sha256, machines, created_ns, group, description, iso, image, rates, iscsi })
}

/// A row of which the file has yet to be made.
pub(super) fn new_row(name: &DiskName, kind: DiskKind, size: u64, group: GroupId) -> DiskRow {
    let id = DiskId::random();
    DiskRow {
        id,
        name: name.clone(),
        kind,
        size,
        allocated: 0,
        sha256: Text::default(),
        stage: Stage::Creating,
        created_ns: skep_service::now_ns(),
        group,
        description: Text::default(),
        iso: false,
        image: None,
        top: (!matches!(kind, DiskKind::Zvol | DiskKind::Iscsi)).then_some(id),
        base: None,
        rates: DiskRates::default(),
    }
}

/// Adds such a row. The name is taken from now on.
pub(super) fn add(broker: &Broker, db: &crate::db::Change<'_>, disk: DiskRow) -> Result<DiskRow, Refusal> {
    if db.find_disk(disk.name.as_str())?.is_some() {
        return Err(taken("disk", &disk.name));
    }
    broker.within_quota(db, disk.group, || Ok(db.add_disk(&disk)?))?;
    Ok(disk)
}

/// Adds a row of an ordinary disk.
pub(super) fn reserve(
    broker: &Broker, db: &crate::db::Change<'_>, name: &DiskName, kind: DiskKind, size: u64, group: GroupId,
) -> Result<DiskRow, Refusal> {
    add(broker, db, new_row(name, kind, size, group))
}

/// Users know names, helpers ids.
pub(super) fn about(mut refusal: Refusal, object: &str) -> Refusal {
    if refusal.reason != Reason::Unavailable {
        refusal.object = Text::lossy(object);
    }
    refusal
}

pub(super) fn named(disk: &DiskRow) -> impl Fn(Refusal) -> Refusal {
    let object = format!("disk {}", disk.name);
    move |refusal| about(refusal, &object)
}

pub(super) fn finished(broker: &Broker, who: &crate::db::Who, disk: &DiskRow, done: &JobDone) -> Result<(), Refusal> {
    broker.change(who, |change| finish(broker, change, disk, done))
}

/// A disk has its file.
pub(super) fn finish(broker: &Broker, change: &crate::db::Change<'_>, disk: &DiskRow, done: &JobDone) -> Result<(), Refusal> {
    let sha256 = done.sha256.map(|sum| {
        sum.iter().fold(String::new(), |mut text, byte| {
            // A String takes everything.
            let _ = write!(text, "{byte:02x}");
            text
        })
    });
    // An image may be larger than anybody knew.
    broker.within_quota(change, disk.group, || {
        Ok(change.disk_ready(disk.id, done.disk.size, done.disk.allocated, sha256.as_deref())?)
    })?;
    Ok(change.event("disk", disk.id, &disk.name, "created", format_args!("{} bytes", done.disk.size))?)
}

/// `DiskCreate`.
pub async fn create(cx: &Cx, c: DiskCreate) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before::<DiskId>(|disk| DiskGet { disk }.into())? {
        return get(cx, DiskGet { disk: Text::lossy(&id.to_string()) }).await;
    }
    let disk = broker.change(who, |change| {
        let group = group::named(change, c.group.as_ref())?;
        let disk = reserve(broker, change, &c.name, c.kind, c.size, group.id)?;
        change.made(disk.id)?;
        Ok::<_, Refusal>(disk)
    })?;
    let made = broker.storage.call(who, CreateDisk { disk: disk.id, kind: c.kind, size: c.size }).await;
    match made {
        Ok((state, [])) => {
            if let Err(refusal) = finished(broker, who, &disk, &JobDone { disk: state, sha256: None }) {
                broker.undo_disk(who, &disk).await;
                return Err(refusal);
            }
        }
        // Nothing was made, and nothing could be deleted.
        Err(refusal) if refusal.reason == Reason::Unsupported => {
            broker.change(who, |change| {
                change.unmade(disk.id)?;
                change.remove_disk(disk.id)
            })?;
            return Err(named(&disk)(refusal));
        }
        Err(refusal) => {
            broker.undo_disk(who, &disk).await;
            return Err(named(&disk)(refusal));
        }
    }
    get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await
}

/// What a repeat of a request that began an operation looks at.
pub(super) fn operation(id: Ref) -> BrokerRequest {
    // An id that the broker wrote itself.
    OperationGet { id: id.as_str().parse().unwrap_or(OperationId::from_u128(0)), wait: false }.into()
}

/// `DiskImport`: the stream goes from the frontend to storage-helper; nothing of it comes by here.
pub async fn import(cx: &Cx, c: DiskImport) -> Result<(OperationView, UpTo<1>), Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before(operation)? {
        return Ok((broker.operation(id)?, UpTo(Vec::new())));
    }
    let object = format!("disk {}", c.name);
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Refusal::io(&object, "make a pipe", &e.into()))?;
    let group = broker.read(|db| group::named(db, c.group.as_ref()))?.id;
    let (disk, mut operation, call) = begin(cx, c, group, "import").await?;
    let view = operation.view();
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        let done = jobs::run(&broker, &mut operation, Job::Import(call, reader), |done, total| (done, total)).await;
        end(&broker, &who, operation, &disk, done).await;
    });
    Ok((view, UpTo(vec![writer])))
}

/// Begins the operation of this `kind` that fills a new disk of a group; gives how.
pub(super) async fn begin(
    cx: &Cx, c: DiskImport, group: GroupId, kind: &str,
) -> Result<(DiskRow, Operation, ImportDisk), Refusal> {
    let Cx { broker, who, .. } = cx;
    let object = format!("disk {}", c.name);
    if c.iso && (c.kind != DiskKind::Raw || !matches!(c.format, SourceFormat::Detect | SourceFormat::Raw)) {
        return Err(Refusal::new(Reason::InvalidValue, object).field("kind").note("an ISO image is read and kept raw"));
    }
    if c.iso && c.image.is_some() {
        let refusal = Refusal::new(Reason::InvalidValue, object).field("image");
        return Err(refusal.note("an ISO image is for drives, machines are made from disks' images: it is one or the other"));
    }
    // Whatever it begins with: a guest reads what was sent.
    let (format, packing) = if c.iso { (SourceFormat::Raw, Packing::None) } else { (c.format, c.packing) };
    let space = match c.kind {
        DiskKind::Zvol => broker.storage.call(who, VolumeSpace {}).await.map_err(|refusal| about(refusal, &object))?.0,
        DiskKind::Raw | DiskKind::Qcow2 => broker.storage.call(who, Space {}).await?.0,
        DiskKind::Iscsi => {
            let refusal = Refusal::new(Reason::InvalidValue, object).field("kind");
            return Err(refusal.note("what iSCSI targets keep is not written by an import"));
        }
    };
    if c.expect > space.free {
        let note = format!("{} bytes are to come, {} are free", c.expect, space.free);
        return Err(Refusal::new(Reason::NoSpace, object).note(note));
    }
    let begin = Operation::begin(broker, who, group, kind, &object, |change, _| {
        let room = broker.disk_room(change, group)?;
        if let Some(room) = room.filter(|room| c.expect > *room) {
            let refusal = Refusal::new(Reason::QuotaReached, &object).field("disk");
            return Err(refusal.note(format_args!("{} bytes are to come, its group may have {room} more", c.expect)));
        }
        let row = DiskRow { iso: c.iso, image: c.image, description: c.description, ..new_row(&c.name, c.kind, 0, group) };
        Ok((add(broker, change, row)?, room))
    });
    let ((disk, room), operation) = begin?;
    let limit = room.map_or(space.free, |room| room.min(space.free));
    let most = room.unwrap_or(u64::MAX);
    let call = ImportDisk { disk: disk.id, kind: c.kind, format, packing, limit, most, expect: c.expect, sha256: c.sha256 };
    Ok((disk, operation, call))
}

pub(super) async fn end(
    broker: &Broker, who: &crate::db::Who, operation: Operation, disk: &DiskRow, done: Result<JobDone, Refusal>,
) {
    let result = done.map_err(named(disk)).and_then(|done| finished(broker, who, disk, &done));
    if result.is_err() {
        broker.undo_disk(who, disk).await;
    }
    operation.finish(result);
}

/// `DiskClone`.
pub async fn copy(cx: &Cx, c: DiskClone) -> Result<OperationView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before(operation)? {
        return broker.operation(id);
    }
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    iscsi::kept(&disk)?;
    let source = match &c.snapshot {
        Some(snapshot) => super::file_snapshots::as_it_was(broker, who, disk, snapshot.as_str(), c.full).await?,
        None => {
            broker.read(|db| still(broker, &disk, db))?;
            Source { disk, snapshot: None }
        }
    };
    let (from, how) = (&source.disk, How::ask(broker, who, c.full).await?);
    let begin = Operation::begin(broker, who, from.group, "clone", format_args!("disk {}", c.name), |change, _| {
        let image = c.image.map(|facts| ImageFacts { source: Text::lossy(&format!("disk {}", from.name)), ..facts });
        let mut row = DiskRow { iso: from.iso && image.is_none(), image, ..new_row(&c.name, from.kind, from.size, from.group) };
        let Plan { kind, base, way } = copies::plan(change, &source, row.id, from.size, how)?;
        (row.kind, row.base) = (kind, base);
        Ok((add(broker, change, row)?, way))
    });
    let ((disk, way), mut operation) = begin?;
    let hold = broker.hold(vec![from.id]);
    let view = operation.view();
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        let done = copies::make(&broker, &mut operation, way, |done, total| (done, total)).await;
        drop(hold);
        end(&broker, &who, operation, &disk, done).await;
    });
    Ok(view)
}

/// Refuses a disk that somebody may be writing to.
pub(super) fn still(broker: &Broker, disk: &DiskRow, db: &impl Disks) -> Result<(), Refusal> {
    broker.free(disk.id, disk.name.as_str())?;
    let users = db.disk_users(disk.id)?;
    match users.iter().find(|user| user.active && user.writes) {
        Some(user) => Err(in_use(disk, &format!("machine {} runs and can write it", user.name))),
        None => Ok(()),
    }
}

pub(super) fn in_use(disk: &DiskRow, note: &str) -> Refusal {
    Refusal::new(Reason::InUse, format_args!("disk {}", disk.name)).note(note)
}

/// Refuses a disk that a job is at, or a running machine has.
pub(super) fn idle(broker: &Broker, disk: &DiskRow) -> Result<(), Refusal> {
    broker.free(disk.id, disk.name.as_str())?;
    match broker.read(|db| db.disk_users(disk.id))?.iter().find(|user| user.active) {
        Some(user) => Err(in_use(disk, &format!("machine {} runs", user.name))),
        None => Ok(()),
    }
}

/// Refuses what stays as it is.
pub(super) fn changeable(disk: &DiskRow) -> Result<(), Refusal> {
    disk.fixed().map_or(Ok(()), |what| {
        let refusal = Refusal::new(Reason::WrongState, format_args!("disk {}", disk.name));
        Err(refusal.note(format_args!("it is {what}: it stays as it is")))
    })
}

/// `DiskSet`. What it changes of rates, running machines follow.
pub async fn set(cx: &Cx, c: DiskSet) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let (disk, paced) = broker.change(who, |change| {
        let old = find_disk(change, c.disk.as_str())?;
        let mut new = old.clone();
        if let Some(name) = c.name.filter(|name| *name != old.name) {
            if change.find_disk(name.as_str())?.is_some() {
                return Err(taken("disk", name));
            }
            new.name = name;
        }
        new.description = c.description.unwrap_or(new.description);
        if let Some(facts) = c.image {
            let Some(image) = &mut new.image else {
                return Err(Refusal::new(Reason::WrongState, format_args!("disk {}", old.name))
                    .field("image")
                    .note("it is no image"));
            };
            *image = ImageFacts { source: image.source.clone(), ..facts };
        }
        new.rates = pace::edited(&old, c.rates)?;
        change.set_disk(&new)?;
        said(change, "disk", old.id, (&old.name, &old.description), (&new.name, &new.description))?;
        let paced = new.rates != old.rates;
        if paced {
            change.event("disk", new.id, &new.name, "changed", pace::said(new.rates))?;
        }
        Ok((new, paced))
    })?;
    if paced {
        pace::follow(broker, who, &disk).await?;
    }
    get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await
}

/// `DiskWipe`. Cut off, it is as it was, or empty.
pub async fn wipe(cx: &Cx, c: DiskWipe) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    changeable(&disk)?;
    iscsi::kept(&disk)?;
    idle(broker, &disk)?;
    broker.without_snapshots(&disk)?;
    let hold = broker.hold(vec![disk.id]);
    // Before it is emptied: cut off, it does not bear the checksum of what it had.
    broker.change(who, |change| change.disk_ready(disk.id, disk.size, disk.allocated, Some("")))?;
    let wiped = match disk.base {
        // Another file takes its place, which stands on nothing.
        Some(_) => replace(broker, who, &disk, None, disk.size).await.map(|state| (state, [])),
        None => broker.storage.call(who, WipeDisk { disk: disk.file(), kind: disk.kind, size: disk.size }).await,
    };
    drop(hold);
    if wiped.as_ref().is_err_and(|refusal| refusal.reason != Reason::Unavailable) {
        broker.change(who, |change| change.disk_ready(disk.id, disk.size, disk.allocated, Some(disk.sha256.as_str())))?;
    }
    let (state, []) = wiped.map_err(named(&disk))?;
    broker.change(who, |change| {
        change.disk_ready(disk.id, state.size, state.allocated, None)?;
        change.event("disk", disk.id, &disk.name, "changed", "wiped")
    })?;
    get(cx, DiskGet { disk: Text::lossy(&disk.id.to_string()) }).await
}

/// `DiskExport`.
pub async fn export(cx: &Cx, c: DiskExport) -> Result<(DiskView, OneFd), Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    iscsi::kept(&disk)?;
    broker.read(|db| still(broker, &disk, db))?;
    let file = match disk.base {
        Some(_) => whole(broker, who, &disk).await.map_err(named(&disk))?,
        None => {
            let call = OpenDisk { disk: disk.file(), kind: disk.kind, read_only: true, no_cache: false, sync: false };
            let (_, [file]) = broker.storage.call(who, call).await.map_err(named(&disk))?;
            file
        }
    };
    let view = broker.read(|db| view(broker, db, disk, &cx.user.rights))?;
    Ok((view, [file]))
}

/// Makes one file of all that a disk stands on, and opens it; its name goes at once.
async fn whole(broker: &Rc<Broker>, who: &Who, disk: &DiskRow) -> Result<OwnedFd, Refusal> {
    let layers = broker.read(|db| db.layers_from(disk.file()))?;
    let layer = LayerRow { id: DiskId::random(), kind: DiskKind::Qcow2, base: None, allocated: 0 };
    let begin = Operation::begin(broker, who, disk.group, "export", format_args!("disk {}", disk.name), |change, _| {
        Ok(change.add_layer(&layer, disk.group, true)?)
    });
    let ((), mut operation) = begin?;
    let hold = broker.hold(vec![disk.id, layer.id]);
    let merged = u8::try_from(layers.len()).unwrap_or(u8::MAX);
    let call = MergeLayers { layers: copies::told(&layers), merged, to: layer.id, held: false };
    let made = async {
        jobs::run(broker, &mut operation, Job::Merge(call), |done, total| (done, total)).await?;
        let call = OpenLayer { layer: Layer::from(&layer), held: true, no_cache: false, sync: false };
        let (_, [file]) = broker.storage.call(who, call).await?;
        Ok(file)
    };
    let file = made.await;
    drop(hold);
    broker.delete_layers(who).await;
    operation.finish(file.as_ref().map(drop).map_err(Clone::clone));
    file
}

/// Has a disk that nobody has open go on with an empty file upon `base`. What only the former one needed goes.
pub(super) async fn replace(
    broker: &Rc<Broker>, who: &Who, disk: &DiskRow, base: Option<DiskId>, size: u64,
) -> Result<DiskState, Refusal> {
    let layer = LayerRow { id: DiskId::random(), kind: DiskKind::Qcow2, base, allocated: 0 };
    // Cut off, it goes again.
    broker.change(who, |change| change.add_layer(&LayerRow { base: None, ..layer }, disk.group, true))?;
    let hold = broker.hold(vec![layer.id]);
    let made = broker.storage.call(who, CreateDisk { disk: layer.id, kind: layer.kind, size }).await;
    let made = made.and_then(|(state, [])| {
        broker.change(who, |change| {
            change.keep_layer(&layer)?;
            change.set_disk_top(disk.id, &layer)?;
            change.disk_ready(disk.id, state.size, state.allocated, None)?;
            change.doom_layers()
        })?;
        Ok(state)
    });
    drop(hold);
    broker.delete_layers(who).await;
    made
}

/// `DiskGet`.
pub async fn get(cx: &Cx, c: DiskGet) -> Result<DiskView, Refusal> {
    // Found before and looked at after: meanwhile the name may have become another's.
    let id = cx.broker.read(|db| find_disk(db, c.disk.as_str()))?.id;
    cx.broker.refresh_disks(&cx.who).await;
    cx.broker.read(|db| {
        let row = db.disk(id)?.filter(|row| row.stage == Stage::Ready);
        view(&cx.broker, db, row.ok_or_else(|| super::not_found("disk", &c.disk))?, &cx.user.rights)
    })
}

/// `DiskList`.
pub async fn list(cx: &Cx, c: DiskList) -> Result<DiskPage, Refusal> {
    if c.after.is_none() {
        cx.broker.refresh_disks(&cx.who).await;
    }
    let after = c.after.as_ref().map_or("", DiskName::as_str);
    let seen = cx.user.rights.seen();
    let rows = cx.broker.read(|db| {
        let rows = db.disks_after(after, ROWS, seen.as_deref(), (c.iso, c.image))?;
        rows.into_iter().map(|row| view(&cx.broker, db, row, &cx.user.rights)).collect::<Result<Vec<_>, _>>()
    })?;
    Ok(DiskPage { disks: fit(rows) })
}

/// `DiskDelete`.
pub async fn delete(cx: &Cx, c: DiskDelete) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
    broker.free(disk.id, disk.name.as_str())?;
    if let Some(user) = broker.read(|db| db.disk_users(disk.id))?.first() {
        return Err(in_use(&disk, &format!("machine {} has it", user.name)));
    }
    broker.without_snapshots(&disk)?;
    if disk.kind == DiskKind::Iscsi {
        if broker.read(|db| db.iscsi(disk.id))?.is_some_and(|row| row.number.is_some()) {
            return Err(in_use(&disk, "a machine runs that was started with it"));
        }
        // It is only forgotten.
        broker.change(who, |change| {
            change.event("disk", disk.id, &disk.name, "deleted", "")?;
            change.remove_disk(disk.id)
        })?;
        return Ok(Done {});
    }
    // The intent first: a crash from here on finishes it.
    broker.change(who, |change| {
        change.disk_doomed(disk.id)?;
        change.event("disk", disk.id, &disk.name, "deleted", "")
    })?;
    match broker.delete_disk(who, &disk).await {
        Ok(()) => {}
        // It is done when storage-helper is back.
        Err(refusal) if refusal.reason == Reason::Unavailable => {}
        // Somebody holds it open whom the database does not know any more: a machine that runs with earlier settings.
        Err(refusal) => {
            broker.change(who, |change| match change.find_disk(disk.name.as_str())? {
                None => {
                    change.disk_ready(disk.id, disk.size, disk.allocated, None)?;
                    change.event("disk", disk.id, &disk.name, "created", "it could not be deleted")
                }
                Some(_) => Ok(()),
            })?;
            return Err(named(&disk)(refusal));
        }
    }
    Ok(Done {})
}
