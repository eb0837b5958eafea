//! Groups of machines.

use super::{Cx, find_disk, find_machine, not_found, taken};
use crate::broker::Broker;
use crate::db::Change;
use crate::db::disks::Disks;
use crate::db::groups::{DEFAULT, DEFAULT_NAME, GroupRow, Groups};
use crate::db::machines::MachineRow;
use crate::page::{ROWS, fit};
use crate::spec::Boot;
use skep_proto::broker::{
    Done, GroupAdd, GroupCreate, GroupDelete, GroupList, GroupPage, GroupQuota, GroupRename, GroupView, Moved, Ref,
};
use skep_proto::{GroupId, GroupName, Reason, Refusal, Text};

/// The group that a request names, or the one that is there from the start.
pub fn named(db: &impl Groups, name: Option<&Ref>) -> Result<GroupRow, Refusal> {
    let called = name.map_or(DEFAULT_NAME, |name| name.as_str());
    db.named_group(name)?.ok_or_else(|| not_found("group", called).field("group"))
}

fn view(db: &impl Groups, row: GroupRow) -> Result<GroupView, Refusal> {
    let GroupRow { id, name, quota, created_ns } = row;
    Ok(GroupView { id, name, quota, used: db.usage(id)?, created_ns })
}

/// `GroupCreate`.
pub async fn create(cx: &Cx, c: GroupCreate) -> Result<GroupView, Refusal> {
    if let Some(id) = cx.before::<GroupId>(|_| GroupList { after: None }.into())? {
        return cx.broker.read(|db| view(db, named(db, Some(&Text::lossy(&id.to_string())))?));
    }
    cx.broker.change(&cx.who, |change| {
        if change.find_group(c.name.as_str())?.is_some() {
            return Err(taken("group", &c.name));
        }
        let row = GroupRow { id: GroupId::random(), name: c.name, quota: c.quota, created_ns: skep_service::now_ns() };
        change.add_group(&row)?;
        change.event("group", row.id, &row.name, "created", "")?;
        change.made(row.id)?;
        view(change, row)
    })
}

/// `GroupList`.
pub async fn list(cx: &Cx, c: GroupList) -> Result<GroupPage, Refusal> {
    let after = c.after.as_ref().map_or("", GroupName::as_str);
    let seen = cx.user.rights.seen();
    let views = cx.broker.read(|db| {
        let rows = db.groups_after(after, ROWS, seen.as_deref())?;
        rows.into_iter().map(|row| view(db, row)).collect::<Result<Vec<_>, _>>()
    })?;
    Ok(GroupPage { groups: fit(views) })
}

/// `GroupRename`.
pub async fn rename(cx: &Cx, c: GroupRename) -> Result<GroupView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let mut row = named(change, Some(&c.group))?;
        if row.name != c.name {
            if change.find_group(c.name.as_str())?.is_some() {
                return Err(taken("group", &c.name));
            }
            let old = std::mem::replace(&mut row.name, c.name);
            change.rename_group(row.id, &row.name)?;
            change.event("group", row.id, &row.name, "renamed", old)?;
        }
        view(change, row)
    })
}

/// `GroupQuota`.
pub async fn quota(cx: &Cx, c: GroupQuota) -> Result<GroupView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let mut row = named(change, Some(&c.group))?;
        row.quota = c.quota;
        change.set_quota(row.id, row.quota)?;
        change.event("group", row.id, &row.name, "changed", "quota")?;
        view(change, row)
    })
}

/// `GroupAdd`.
pub async fn add(cx: &Cx, c: GroupAdd) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    broker.change(who, |change| {
        let to = named(change, Some(&c.group))?;
        let told = format!("in group {}", to.name);
        match &c.what {
            Moved::Machine(name) => {
                let machine = find_machine(change, name.as_str())?;
                if machine.group != to.id {
                    broker.within_quota(change, to.id, || move_machine(broker, change, &machine, to.id))?;
                    change.event("machine", machine.id, &machine.name, "changed", &told)?;
                }
            }
            Moved::Disk(name) => {
                let disk = find_disk(change, name.as_str())?;
                broker.free(disk.id, disk.name.as_str())?;
                if let Some(user) = change.disk_users(disk.id)?.first() {
                    let refusal = Refusal::new(Reason::InUse, format_args!("disk {}", disk.name));
                    return Err(refusal.note(format_args!("machine {} has it; it goes along with its machine", user.name)));
                }
                if disk.group != to.id {
                    broker.within_quota(change, to.id, || Ok(change.move_disk(disk.id, to.id)?))?;
                    change.event("disk", disk.id, &disk.name, "changed", &told)?;
                }
            }
        }
        Ok(Done {})
    })
}

/// Its NICs go along, and the disks of its old group that it alone has.
fn move_machine(broker: &Broker, change: &Change<'_>, machine: &MachineRow, to: GroupId) -> Result<(), Refusal> {
    let mut disks: Vec<_> = machine.spec.disks.iter().map(|disk| disk.disk).collect();
    if let Boot::Direct { kernel, initrd, .. } = machine.spec.boot {
        disks.push(kernel);
        disks.extend(initrd);
    }
    disks.sort_unstable();
    disks.dedup();
    for id in disks {
        let Some(disk) = change.disk(id)? else { continue };
        if disk.group == machine.group && change.disk_users(id)?.iter().all(|user| user.machine == machine.id) {
            broker.free(id, disk.name.as_str())?;
            change.move_disk(id, to)?;
        }
    }
    Ok(change.move_machine(machine.id, to)?)
}

/// `GroupDelete`.
pub async fn delete(cx: &Cx, c: GroupDelete) -> Result<Done, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let row = named(change, Some(&c.group))?;
        let object = format!("group {}", row.name);
        if row.id == DEFAULT {
            return Err(Refusal::new(Reason::WrongState, object).note("this one stays: what names no group is in it"));
        }
        if !change.group_is_empty(row.id)? {
            let refusal = Refusal::new(Reason::InUse, object);
            return Err(refusal.note("machines, disks or NICs are in it; move or delete them first"));
        }
        change.event("group", row.id, &row.name, "deleted", "")?;
        change.remove_group(row.id)?;
        Ok(Done {})
    })
}
