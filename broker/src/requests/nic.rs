//! NICs.

use super::{Cx, at_rest, find_machine, find_nic, find_switch, group, said, switch, taken};
use crate::db::Change;
use crate::db::groups::Groups;
use crate::db::machines::MachineRow;
use crate::db::nics::{NicRow, Nics};
use crate::page::{ROWS, fit};
use crate::policy;
use crate::spec::MAX_NICS;
use crate::taps;
use skep_machine::{Ability, Mac};
use skep_proto::broker::{
    Done, NicAttach, NicClone, NicCreate, NicDelete, NicDetach, NicGet, NicList, NicModel, NicPage, NicSet, NicView, Role,
    SwitchKind,
};
use skep_proto::net::{CheckPort, FORWARDED};
use skep_proto::{Forwards, GroupId, IfName, InstanceId, MachineId, NicId, NicName, Rates, Reason, Refusal, SwitchId, Text, pci};
use std::fmt::Display;
use std::net::Ipv4Addr;

fn view(instance: InstanceId, nic: NicRow) -> NicView {
    let NicRow {
        id,
        name,
        number,
        mac,
        switch,
        machine,
        created_ns,
        group_name,
        model,
        slot,
        description,
        address,
        rates,
        isolated,
        forwards,
        subnet6,
        ..
    } = nic;
    NicView {
        id,
        name,
        mac,
        switch: switch.map(|(_, name, _)| name).unwrap_or_default(),
        machine: machine.map(|(_, name)| name).unwrap_or_default(),
        tap: Text::lossy(IfName::tap(instance, number).as_str()),
        created_ns,
        group: group_name,
        model,
        slot,
        description,
        address,
        rates,
        isolated,
        forwards,
        address6: subnet6.map(|subnet| subnet.of(mac)),
    }
}

fn in_range(name: &NicName, slot: Option<u8>) -> Result<(), Refusal> {
    let range = skep_machine::limits::PCI_SLOTS;
    match slot {
        Some(slot) if !range.contains(&skep_machine::place::slot(slot)) => {
            let refusal = Refusal::new(Reason::InvalidValue, format_args!("nic {name}")).field("slot");
            Err(refusal.note(format_args!("{} is not {} to {}", pci::written(slot), range.start(), range.end())))
        }
        _ => Ok(()),
    }
}

/// Refuses what this host cannot have of a NIC.
fn can(name: &NicName, rates: Rates, isolated: bool) -> Result<(), Refusal> {
    let limited = if rates.inward.is_some() { Some("rate_in") } else { rates.outward.map(|_| "rate_out") };
    let asked = [(Ability::NicRates, limited), (Ability::NicIsolation, isolated.then_some("isolated"))];
    let host = crate::platform::capabilities(0);
    for (ability, field) in asked {
        if let Some(field) = field.filter(|_| !host.abilities.contains(&ability)) {
            let refusal = Refusal::new(Reason::Unsupported, format_args!("nic {name}")).field(field);
            return Err(refusal.note(ability.why(host.hypervisor)));
        }
    }
    Ok(())
}

/// The address of a NIC on a switch: the one that it is to have, or the lowest that is free; none where there is no subnet.
fn address_on(
    change: &Change<'_>, nic: &NicName, switch: Option<SwitchId>, wanted: Option<Ipv4Addr>,
) -> Result<Option<Ipv4Addr>, Refusal> {
    let refuse = |reason| Refusal::new(reason, format_args!("nic {nic}")).field("address");
    let switch = switch.map(|id| find_switch(change, &id.to_string())).transpose()?;
    let Some((switch, subnet)) = switch.and_then(|switch| Some((switch.clone(), switch.subnet?))) else {
        let none = || refuse(Reason::InvalidValue).note("only a switch with a subnet gives addresses");
        return wanted.map_or(Ok(None), |_| Err(none()));
    };
    let taken = change.addresses_on(switch.id)?;
    match wanted {
        Some(address) if !subnet.is_guest(address) => {
            let note = format_args!("{address} is not a guest's address in {subnet}, the subnet of switch {}", switch.name);
            Err(refuse(Reason::InvalidValue).note(note))
        }
        Some(address) if taken.contains(&address) => {
            Err(refuse(Reason::AlreadyExists).note(format_args!("another NIC on switch {} has {address}", switch.name)))
        }
        Some(address) => Ok(Some(address)),
        None => {
            let full = || refuse(Reason::LimitReached).note(format_args!("no address of {subnet} is free"));
            subnet.guests().find(|address| !taken.contains(address)).map(Some).ok_or_else(full)
        }
    }
}

/// What a machine has become by a change of its NICs.
fn still_right(change: &Change<'_>, machine: MachineId) -> Result<(), Refusal> {
    change.keep_places(machine)?;
    let machine = find_machine(change, &machine.to_string())?;
    machine.spec.check(machine.id, machine.name.as_str())
}

/// What may go through a NIC.
#[derive(Default)]
pub(super) struct Traffic {
    pub rates: Rates,
    pub isolated: bool,
    pub forwards: Forwards,
}

/// Adds a NIC, without a machine. `mac`: none, or a valid one.
pub(super) fn add(
    change: &Change<'_>, name: &NicName, switch: Option<(skep_proto::SwitchId, Text<63>, u16)>, mac: Option<[u8; 6]>,
    group: GroupId, (model, slot, address): (NicModel, Option<u8>, Option<Ipv4Addr>), traffic: Traffic,
) -> Result<NicRow, Refusal> {
    let Traffic { rates, isolated, forwards } = traffic;
    in_range(name, slot)?;
    can(name, rates, isolated)?;
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
    free_mac(change, id, mac)?;
    let full = || Refusal::new(Reason::LimitReached, format_args!("nic {name}")).note("too many NICs");
    let number = change.nic_number()?.ok_or_else(full)?;
    let address = address_on(change, name, switch.as_ref().map(|(id, ..)| *id), address)?;
    let on = switch.as_ref().map(|(id, ..)| find_switch(change, &id.to_string())).transpose()?;
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
        model,
        slot,
        description: Text::default(),
        address,
        rates,
        isolated,
        forwards,
        subnet6: on.and_then(|switch| switch.subnet6),
    };
    free_ports(change, &nic)?;
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
    still_right(change, machine.id)?;
    Ok(change.event("nic", nic.id, &nic.name, "changed", format_args!("attached to machine {}", machine.name))?)
}

fn show(cx: &Cx, id: NicId) -> Result<NicView, Refusal> {
    let nic = cx.broker.read(|db| find_nic(db, &id.to_string()))?;
    Ok(view(cx.broker.instance, nic))
}

/// Refuses an address that no NIC may have.
fn valid(nic: impl Display, mac: Option<[u8; 6]>) -> Result<(), Refusal> {
    let invalid = |e| Refusal::new(Reason::InvalidValue, format_args!("nic {nic}")).field("mac").note(e);
    mac.map(Mac::new).transpose().map(drop).map_err(invalid)
}

/// Refuses another's address.
fn free_mac(change: &Change<'_>, nic: NicId, mac: [u8; 6]) -> Result<(), Refusal> {
    match change.nic_with_mac(mac)?.filter(|other| other.id != nic) {
        Some(other) => {
            let refusal = Refusal::new(Reason::AlreadyExists, format_args!("nic {}", other.name)).field("mac");
            Err(refusal.note("it has this address"))
        }
        None => Ok(()),
    }
}

/// Refuses forwards where there is no NAT, and ports that lead elsewhere already.
fn free_ports(change: &Change<'_>, nic: &NicRow) -> Result<(), Refusal> {
    if nic.forwards.is_empty() {
        return Ok(());
    }
    let refuse = |reason| Refusal::new(reason, format_args!("nic {}", nic.name)).field("forwards");
    let switch = nic.switch.as_ref().map(|(id, ..)| find_switch(change, &id.to_string())).transpose()?;
    if switch.as_ref().is_none_or(|switch| switch.kind != SwitchKind::Nat) {
        let note = "only on a NAT switch ports of the host's lead to guests; take the forwards away, or connect it to one";
        return Err(refuse(Reason::InvalidValue).note(note));
    }
    let others: Vec<NicRow> = change.nics_with_forwards()?.into_iter().filter(|other| other.id != nic.id).collect();
    for forward in nic.forwards.iter() {
        if let Some(other) = others.iter().find(|other| other.forwards.iter().any(|theirs| theirs.meets(forward))) {
            return Err(
                refuse(Reason::InUse).note(format_args!("port {} of the host's leads to nic {}", forward.port, other.name))
            );
        }
    }
    let there =
        others.iter().filter(|other| place(other).0 == place(nic).0).map(|other| other.forwards.iter().count()).sum::<usize>();
    if there + nic.forwards.iter().count() > FORWARDED {
        return Err(refuse(Reason::LimitReached).note(format_args!("a switch has at most {FORWARDED} forwards")));
    }
    Ok(())
}

/// Refuses ports that the host listens on, which it would not hear of any more.
async fn unheard(cx: &Cx, nic: impl Display, old: &Forwards, new: &Forwards) -> Result<(), Refusal> {
    for forward in new.iter().filter(|forward| !old.iter().any(|old| old.meets(forward))) {
        let checked = cx.broker.net.call(&cx.who, CheckPort { forward: *forward }).await;
        checked.map_err(|refusal| match refusal.reason {
            Reason::InUse => Refusal::new(Reason::InUse, format_args!("nic {nic}")).field("forwards").note(refusal.note),
            _ => refusal,
        })?;
    }
    Ok(())
}

/// `NicCreate`.
pub async fn create(cx: &Cx, c: NicCreate) -> Result<NicView, Refusal> {
    if let Some(id) = cx.before(|nic| NicGet { nic }.into())? {
        return show(cx, id);
    }
    valid(&c.name, c.mac)?;
    unheard(cx, &c.name, &Forwards::default(), &c.forwards).await?;
    let nic = cx.broker.change(&cx.who, |change| {
        let switch = c.switch.as_ref().map(|name| find_switch(change, name.as_str())).transpose()?;
        let machine = c.machine.as_ref().map(|name| find_machine(change, name.as_str())).transpose()?;
        let switch = switch.map(|s| (s.id, Text::lossy(s.name.as_str()), s.number));
        let group = match &machine {
            Some(machine) => machine.group,
            None => group::named(change, c.group.as_ref())?.id,
        };
        let traffic = Traffic { rates: c.rates, isolated: c.isolated, forwards: c.forwards.clone() };
        let nic = add(change, &c.name, switch, c.mac, group, (c.model, c.slot, c.address), traffic)?;
        if let Some(machine) = &machine {
            give(change, &nic, machine)?;
        }
        change.made(nic.id)?;
        Ok::<_, Refusal>(nic)
    })?;
    if let Err(refusal) = led(cx, [&nic]).await {
        cx.broker.change(&cx.who, |change| {
            change.unmade(nic.id)?;
            change.remove_nic(nic.id)?;
            change.event("nic", nic.id, &nic.name, "deleted", &refusal)
        })?;
        let _ = led(cx, [&nic]).await;
        return Err(refusal);
    }
    show(cx, nic.id)
}

/// Has the host's ports lead to where these rows, or those before or after them, say.
pub(super) async fn led(cx: &Cx, rows: impl IntoIterator<Item = &NicRow>) -> Result<(), Refusal> {
    let mut switches: Vec<SwitchId> = Vec::new();
    for row in rows {
        let switch = row.switch.as_ref().filter(|_| !row.forwards.is_empty()).map(|(id, ..)| *id);
        switches.extend(switch.filter(|id| !switches.contains(id)));
    }
    for switch in switches {
        switch::forward(&cx.broker, &cx.who, switch).await?;
    }
    Ok(())
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

/// `NicGet`.
pub async fn get(cx: &Cx, c: NicGet) -> Result<NicView, Refusal> {
    let nic = cx.broker.read(|db| find_nic(db, c.nic.as_str()))?;
    Ok(view(cx.broker.instance, nic))
}

/// `NicSet`.
pub async fn set(cx: &Cx, c: NicSet) -> Result<NicView, Refusal> {
    valid(&c.nic, c.mac)?;
    if let Some(forwards) = &c.forwards {
        let nic = cx.broker.read(|db| find_nic(db, c.nic.as_str()))?;
        unheard(cx, &nic.name, &nic.forwards, forwards).await?;
    }
    let old = cx.broker.change(&cx.who, |change| {
        let old = find_nic(change, c.nic.as_str())?;
        let mut new = old.clone();
        if let Some(name) = c.name.filter(|name| *name != old.name) {
            if change.find_nic(name.as_str())?.is_some() {
                return Err(taken("nic", name));
            }
            new.name = name;
        }
        new.description = c.description.unwrap_or(new.description);
        if let Some(mac) = c.mac {
            free_mac(change, old.id, mac)?;
            new.mac = mac;
        }
        if let Some(name) = &c.switch {
            let switch = (!name.as_str().is_empty()).then(|| find_switch(change, name.as_str())).transpose()?;
            new.switch = switch.map(|s| (s.id, Text::lossy(s.name.as_str()), s.number));
        }
        new.model = c.model.unwrap_or(new.model);
        new.slot = match c.slot {
            None => old.slot,
            Some(0) => None,
            some => some,
        };
        in_range(&new.name, new.slot)?;
        new.rates = Rates { inward: c.rate_in.unwrap_or(old.rates.inward), outward: c.rate_out.unwrap_or(old.rates.outward) };
        if new.rates != old.rates {
            can(&new.name, new.rates, false)?;
        }
        new.isolated = c.isolated.unwrap_or(old.isolated);
        if new.isolated != old.isolated {
            can(&new.name, Rates::default(), new.isolated)?;
        }
        let switch = |nic: &NicRow| nic.switch.as_ref().map(|(id, ..)| *id);
        if switch(&new) != switch(&old) || c.address.is_some_and(|address| Some(address) != old.address) {
            new.address = address_on(change, &new.name, switch(&new), c.address)?;
        }
        new.forwards = c.forwards.unwrap_or(new.forwards);
        free_ports(change, &new)?;
        let now = new.switch.as_ref().map_or("none", |(_, name, _)| name.as_str());
        let moves = [
            (switch(&new) != switch(&old)).then(|| format!("switch {now}")),
            (new.address != old.address).then(|| "address".to_owned()),
        ];
        let device = [
            (new.mac != old.mac).then(|| "mac".to_owned()),
            ((new.model, new.slot) != (old.model, old.slot)).then(|| "device".to_owned()),
        ];
        let can_move = crate::platform::capabilities(0).abilities.contains(&Ability::NicMoves);
        let rests = device.iter().any(Option::is_some) || (!can_move && moves.iter().any(Option::is_some));
        let live = [
            (new.rates != old.rates).then(|| "rates".to_owned()),
            (new.isolated != old.isolated).then(|| if new.isolated { "isolated" } else { "not isolated" }.to_owned()),
            (new.forwards != old.forwards).then(|| "forwards".to_owned()),
        ];
        let changed: Vec<String> = device.into_iter().chain(moves).chain(live).flatten().collect();
        let machine = old.machine.as_ref().filter(|_| rests);
        let machine = machine.map(|(id, _)| find_machine(change, &id.to_string())).transpose()?;
        machine.iter().try_for_each(at_rest)?;
        change.set_nic(&new)?;
        machine.iter().try_for_each(|machine| still_right(change, machine.id))?;
        said(change, "nic", old.id, (&old.name, &old.description), (&new.name, &new.description))?;
        if !changed.is_empty() {
            change.event("nic", old.id, &new.name, "changed", changed.join(", "))?;
        }
        Ok::<_, Refusal>((old, new))
    })?;
    let (old, new) = old;
    let leads = (&old.forwards, place(&old)) != (&new.forwards, place(&new));
    let followed = match taps::follow(&cx.broker, &cx.who, &old).await {
        Ok(()) if leads => led(cx, [&old, &new]).await,
        result => result,
    };
    if let Err(refusal) = followed {
        // Nobody is to believe that it is so.
        let failed = cx.broker.change(&cx.who, |change| {
            let row = find_nic(change, &old.id.to_string())?;
            // Its former address may be another's by now.
            let switch = old.switch.as_ref().map(|(id, ..)| *id);
            let address = if row.address == old.address { old.address } else { address_on(change, &old.name, switch, None)? };
            let (switch, forwards) = (old.switch.clone(), old.forwards.clone());
            let back = NicRow { rates: old.rates, isolated: old.isolated, switch, address, forwards, ..row.clone() };
            change.set_nic(&back)?;
            change.event("nic", back.id, &back.name, "changed", "back to what it was")?;
            Ok::<_, Refusal>(row)
        })?;
        let _ = taps::follow(&cx.broker, &cx.who, &failed).await;
        let _ = led(cx, [&old, &new]).await;
        return Err(refusal);
    }
    show(cx, old.id)
}

/// Where its guest is.
fn place(nic: &NicRow) -> (Option<SwitchId>, Option<Ipv4Addr>) {
    (nic.switch.as_ref().map(|(id, ..)| *id), nic.address)
}

/// `NicClone`.
pub async fn copy(cx: &Cx, c: NicClone) -> Result<NicView, Refusal> {
    if let Some(id) = cx.before(|nic| NicGet { nic }.into())? {
        return show(cx, id);
    }
    let nic = cx.broker.change(&cx.who, |change| {
        let original = find_nic(change, c.nic.as_str())?;
        // An administrator may have connected the original; the copy is not its user's to connect then.
        if let Some((switch, ..)) = &original.switch {
            let switch = find_switch(change, &switch.to_string())?;
            policy::open_to(change, &cx.user, Role::Operator, &switch, Some(original.group))?;
        }
        let mut nic = add(
            change,
            &c.name,
            original.switch,
            None,
            original.group,
            (original.model, None, None),
            // Ports of the host's lead to one guest.
            Traffic { rates: original.rates, isolated: original.isolated, ..Traffic::default() },
        )?;
        nic.description = original.description;
        change.set_nic(&nic)?;
        change.made(nic.id)?;
        Ok::<_, Refusal>(nic)
    })?;
    show(cx, nic.id)
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
    let gone = cx.broker.change(&cx.who, |change| {
        let nic = find_nic(change, c.nic.as_str())?;
        if let Some((_, machine)) = &nic.machine {
            let refusal = Refusal::new(Reason::InUse, format_args!("nic {}", nic.name));
            return Err(refusal.note(format_args!("machine {machine} has it")));
        }
        change.event("nic", nic.id, &nic.name, "deleted", "")?;
        change.remove_nic(nic.id)?;
        Ok::<_, Refusal>(nic)
    })?;
    // It is gone. Should this fail, that is made good when net-helper is back.
    if let Err(refusal) = led(cx, [&gone]).await {
        cx.broker.warn(cx.who.trace, format_args!("nic {}: {refusal}", gone.name));
    }
    Ok(Done {})
}
