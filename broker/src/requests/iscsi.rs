//! `IscsiCreate`: a disk whose bytes are an iSCSI target's. What it is not for is refused here, too.

use super::{Cx, disk, group, taken};
use crate::broker::Broker;
use crate::db::disks::DiskRow;
use crate::db::iscsi::{Iscsi, IscsiRow};
use crate::remote;
use skep_machine::Ability;
use skep_proto::broker::{DiskGet, DiskView, IscsiCreate, IscsiView};
use skep_proto::iscsi::MAX_LUN;
use skep_proto::storage::{DiskKind, DiskState, JobDone};
use skep_proto::{DiskId, Reason, Refusal, Text};

/// See the module. The target is logged in to, and asked how large the unit is.
pub async fn create(cx: &Cx, c: IscsiCreate) -> Result<DiskView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before::<DiskId>(|disk| DiskGet { disk }.into())? {
        return disk::get(cx, DiskGet { disk: Text::lossy(&id.to_string()) }).await;
    }
    let object = format!("disk {}", c.name);
    let host = crate::platform::capabilities(0);
    if !host.abilities.contains(&Ability::IscsiDisks) {
        return Err(Refusal::new(Reason::Unsupported, object).field("iscsi").note(Ability::IscsiDisks.why(host.hypervisor)));
    }
    if c.lun > MAX_LUN {
        return Err(Refusal::new(Reason::InvalidValue, object).field("lun").note(format_args!("0 to {MAX_LUN} is expected")));
    }
    let IscsiCreate { name, portal, target, lun, chap, group } = c;
    let row = broker.change(who, |change| {
        let group = group::named(change, group.as_ref())?;
        if let Some(other) = change.iscsi_taken(&target, lun)? {
            let refusal = taken("disk", &other).field("iscsi");
            return Err(
                refusal.note(format_args!("it is LUN {lun} of {target}: two disks of one unit would each overwrite the other"))
            );
        }
        let row = disk::reserve(broker, change, &name, DiskKind::Iscsi, 0, group.id)?;
        change.add_iscsi(&IscsiRow { disk: row.id, portal, target, lun, chap, number: None, machine: None })?;
        change.made(row.id)?;
        Ok::<_, Refusal>(row)
    })?;
    let looked = remote::look(broker, who, row.id).await;
    let made = looked.map_err(disk::named(&row)).and_then(|size| {
        let state = DiskState { disk: row.id, kind: DiskKind::Iscsi, size, allocated: 0 };
        disk::finished(broker, who, &row, &JobDone { disk: state, sha256: None })
    });
    if let Err(refusal) = made {
        broker.change(who, |change| {
            change.unmade(row.id)?;
            change.remove_disk(row.id)
        })?;
        return Err(refusal);
    }
    disk::get(cx, DiskGet { disk: Text::lossy(&row.id.to_string()) }).await
}

/// What is told of one.
pub(super) fn view(broker: &Broker, db: &impl Iscsi, disk: &DiskRow) -> Result<Option<IscsiView>, Refusal> {
    let Some(row) = db.iscsi(disk.id)? else { return Ok(None) };
    let user = row.chap.map(|chap| chap.user.clone()).unwrap_or_default();
    let initiator = remote::initiator(broker).ok_or_else(|| Refusal::new(Reason::Internal, "initiator"))?;
    Ok(Some(IscsiView { portal: row.portal, target: row.target, lun: row.lun, user, initiator }))
}

/// Refuses what only disks that are kept here can be used for.
pub(super) fn kept(disk: &DiskRow) -> Result<(), Refusal> {
    if disk.kind != DiskKind::Iscsi {
        return Ok(());
    }
    let note = "it is an iSCSI disk, whose bytes are its target's: sizes, snapshots and copies are made there, and a machine sees another size at its next start";
    Err(Refusal::new(Reason::Unsupported, format_args!("disk {}", disk.name)).note(note))
}
