//! NICs.

use super::{Cx, at_rest, find_machine, find_nic, find_switch, group, taken};
use crate::db::Change;
use crate::db::groups::Groups;
use crate::db::machines::MachineRow;
use crate::db::nics::{NicRow, Nics};
use crate::page::{ROWS, fit};
use crate::spec::MAX_NICS;
use skep_machine::Mac;
use skep_proto::broker::{Done, NicAttach, NicCreate, NicDelete, NicDetach, NicList, NicPage, NicView};
use skep_proto::{GroupId, IfName, InstanceId, NicId, NicName, Reason, Refusal, Text};

fn view(instance: InstanceId, nic: NicRow) -> NicView {
    let NicRow { id, name, number, mac, switch, machine, created_ns, group_name, .. } = nic;
    NicView {
        id,
        name,
        mac,
        switch: switch.map(|(_, name, _)| name).unwrap_or_default(),
        machine: machine.map(|(_, name)| name).unwrap_or_default(),
        tap: Text::lossy(IfName::tap(instance, number).as_str()),
        created_ns,
        group: group_name,
    }
}

/// Adds a NIC, without a machine. `mac`: none, or a valid one.
pub(super) fn add(
    change: &Change<'_>, name: &NicName, switch: Option<(skep_proto::SwitchId, Text<63>, u16)>, mac: Option<[u8; 6]>,
    group: GroupId,
) -> Result<NicRow, Refusal> {
    if change.find_nic(name.as_str())?.is_some() {
        return Err(taken("nic", name));
    }
    let quota = change.group(group)?.map_or(0, |row| row.quota.machines);
    let most = quota.saturating_mul(u32::try_from(MAX_NICS).unwrap_or(u32::MAX));
    if quota > 0 && change.nics_in(group)? >= most {
        let refusal = Refusal::new(Reason::QuotaReached, format_args!("nic {name}")).field("nics");
        return Err(refusal.note(format_args!("its group may have {most}, {MAX_NICS} for each machine")));
    }
    let id = NicId::random();
    let mac = mac.unwrap_or_else(|| Mac::from_id(id.as_u128()).bytes());
    if let Some(other) = change.nic_with_mac(mac)? {
        let refusal = Refusal::new(Reason::AlreadyExists, format_args!("nic {}", other.name)).field("mac");
        return Err(refusal.note("it has this address"));
    }
    let full = || Refusal::new(Reason::LimitReached, format_args!("nic {name}")).note("too many NICs");
    let number = change.nic_number()?.ok_or_else(full)?;
    let nic = NicRow {
        id,
        name: name.clone(),
        number,
        mac,
        switch,
        machine: None,
        created_ns: skep_service::now_ns(),
        group,
        group_name: Text::default(),
    };
    change.add_nic(&nic)?;
    change.event("nic", nic.id, &nic.name, "created", "")?;
    Ok(nic)
}

/// Gives it to a stopped machine.
pub(super) fn give(change: &Change<'_>, nic: &NicRow, machine: &MachineRow) -> Result<(), Refusal> {
    at_rest(machine)?;
    if machine.group != nic.group {
        let refusal = Refusal::new(Reason::WrongState, format_args!("nic {}", nic.name));
        return Err(refusal.note(format_args!("machine {} is in another group than it: {}", machine.name, machine.group_name)));
    }
    if machine.spec.nics.len() >= MAX_NICS {
        let refusal = Refusal::new(Reason::LimitReached, format_args!("machine {}", machine.name));
        return Err(refusal.note(format_args!("a machine has at most {MAX_NICS} NICs")));
    }
    change.set_nic_machine(nic.id, Some(machine.id))?;
    Ok(change.event("nic", nic.id, &nic.name, "changed", format_args!("attached to machine {}", machine.name))?)
}

fn show(cx: &Cx, id: NicId) -> Result<NicView, Refusal> {
    let nic = cx.broker.read(|db| find_nic(db, &id.to_string()))?;
    Ok(view(cx.broker.instance, nic))
}

/// `NicCreate`.
pub async fn create(cx: &Cx, c: NicCreate) -> Result<NicView, Refusal> {
    if let Some(id) = cx.before()? {
        return show(cx, id);
    }
    if let Some(mac) = c.mac {
        let invalid = |e| Refusal::new(Reason::InvalidValue, format_args!("nic {}", c.name)).field("mac").note(e);
        Mac::new(mac).map_err(invalid)?;
    }
    let nic = cx.broker.change(&cx.who, |change| {
        let switch = c.switch.as_ref().map(|name| find_switch(change, name.as_str())).transpose()?;
        let machine = c.machine.as_ref().map(|name| find_machine(change, name.as_str())).transpose()?;
        let switch = switch.map(|s| (s.id, Text::lossy(s.name.as_str()), s.number));
        let group = match &machine {
            Some(machine) => machine.group,
            None => group::named(change, c.group.as_ref())?.id,
        };
        let nic = add(change, &c.name, switch, c.mac, group)?;
        if let Some(machine) = &machine {
            give(change, &nic, machine)?;
        }
        change.made(nic.id)?;
        Ok::<_, Refusal>(nic)
    })?;
    show(cx, nic.id)
}

/// `NicAttach`.
pub async fn attach(cx: &Cx, c: NicAttach) -> Result<NicView, Refusal> {
    let id = cx.broker.change(&cx.who, |change| {
        let nic = find_nic(change, c.nic.as_str())?;
        if let Some((_, machine)) = &nic.machine {
            let refusal = Refusal::new(Reason::InUse, format_args!("nic {}", nic.name));
            return Err(refusal.note(format_args!("machine {machine} has it; detach it first")));
        }
        give(change, &nic, &find_machine(change, c.machine.as_str())?)?;
        Ok(nic.id)
    })?;
    show(cx, id)
}

/// `NicDetach`.
pub async fn detach(cx: &Cx, c: NicDetach) -> Result<NicView, Refusal> {
    let id = cx.broker.change(&cx.who, |change| {
        let nic = find_nic(change, c.nic.as_str())?;
        let object = || format!("nic {}", nic.name);
        let (machine, name) =
            nic.machine.as_ref().ok_or_else(|| Refusal::new(Reason::WrongState, object()).note("no machine has it"))?;
        at_rest(&find_machine(change, &machine.to_string())?)?;
        change.set_nic_machine(nic.id, None)?;
        change.event("nic", nic.id, &nic.name, "changed", format_args!("detached from machine {name}"))?;
        Ok::<_, Refusal>(nic.id)
    })?;
    show(cx, id)
}

/// `NicList`.
pub async fn list(cx: &Cx, c: NicList) -> Result<NicPage, Refusal> {
    let after = c.after.as_ref().map_or("", NicName::as_str);
    let seen = cx.user.rights.seen();
    let rows = cx.broker.read(|db| db.nics_after(after, ROWS, seen.as_deref()))?;
    Ok(NicPage { nics: fit(rows.into_iter().map(|row| view(cx.broker.instance, row))) })
}

/// `NicDelete`.
pub async fn delete(cx: &Cx, c: NicDelete) -> Result<Done, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let nic = find_nic(change, c.nic.as_str())?;
        if let Some((_, machine)) = &nic.machine {
            let refusal = Refusal::new(Reason::InUse, format_args!("nic {}", nic.name));
            return Err(refusal.note(format_args!("machine {machine} has it")));
        }
        change.event("nic", nic.id, &nic.name, "deleted", "")?;
        Ok::<_, Refusal>(change.remove_nic(nic.id)?)
    })?;
    Ok(Done {})
}
