//! Machines: definitions, and asking their actors.

use super::{Cx, at_rest, find_disk, find_machine, group, taken};
use crate::abilities::fits;
use crate::actor::Msg;
use crate::db::disks::{Disks, Stage};
use crate::db::machines::{MachineRow, Machines, Which};
use crate::page::{ROWS, fit};
use crate::served;
use crate::spec::{Boot, Spec};
use crate::upkeep;
use skep_machine::Ability;
use skep_proto::broker::{
    BootDraft, MachineAct, MachineCreate, MachineDisk, MachineEdited, MachineEject, MachineGet, MachineList, MachineNic,
    MachinePage, MachineRename, MachineSet, MachineView, OperationView,
};
use skep_proto::{MachineId, MachineName, Reason, Refusal, Text};
use tokio::sync::oneshot;

fn view(machine: MachineRow) -> Result<MachineView, Refusal> {
    let pending = match &machine.applied {
        Some(applied) => applied.changes(&machine.spec, machine.id)?.into_iter().map(|(name, _)| name).collect(),
        None => Vec::new(),
    };
    let MachineRow {
        id, name, state, note, revision, spec, description, upkeep, created_ns, started_ns, files, group_name, ..
    } = machine;
    let seats: Vec<_> = (0..spec.disks.len()).map(|at| spec.on(at)).collect();
    let disks = spec.disks.iter().zip(seats).zip(machine.disk_names).map(|((disk, on), name)| MachineDisk {
        on,
        id: disk.disk,
        name,
        controller: disk.controller,
        read_only: disk.read_only,
        flags: disk.flags,
    });
    let nics = spec.nics.iter().zip(machine.nic_names);
    let nics = nics.map(|(nic, (name, switch))| MachineNic { id: nic.nic, name, switch, mac: nic.mac, model: nic.model });
    let (pci, serial) = (spec.pci(id)?, spec.ports());
    Ok(MachineView {
        id,
        name,
        state,
        note: Text::lossy(&note),
        revision,
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        boot: match spec.boot {
            Boot::Uefi => BootDraft::Uefi,
            Boot::Loader => BootDraft::Loader,
            Boot::Bios => BootDraft::Bios,
            Boot::Direct { initrd, cmdline, .. } => {
                BootDraft::Direct { kernel: files.0, initrd: initrd.map(|_| files.1), cmdline }
            }
        },
        acceleration: spec.acceleration,
        screen: spec.screen,
        cpu_percent: spec.cpu_percent,
        description,
        disks: disks.collect(),
        nics: nics.collect(),
        pending,
        created_ns,
        started_ns,
        limits: spec.limits,
        sound: spec.sound,
        sound_out: spec.sound_out,
        sound_in: spec.sound_in,
        tpm: spec.tpm,
        channels: spec.channels,
        upkeep,
        shares: spec.shares,
        group: group_name,
        screen_properties: spec.screen_properties,
        board: spec.board,
        fw_cfg: spec.fw_cfg,
        places: spec.places,
        pci,
        serial,
        gdb: spec.gdb,
        controllers: spec.controllers.clone(),
        topology: spec.topology,
    })
}

fn show(cx: &Cx, id: MachineId) -> Result<MachineView, Refusal> {
    view(cx.broker.read(|db| find_machine(db, &id.to_string()))?)
}

/// Refuses a name that is taken.
pub(super) fn free_name(db: &impl Machines, name: &MachineName) -> Result<(), Refusal> {
    if db.find_machine(name.as_str())?.is_some() { Err(taken("machine", name)) } else { Ok(()) }
}

/// `MachineCreate`.
pub async fn create(cx: &Cx, c: MachineCreate) -> Result<MachineView, Refusal> {
    if let Some(id) = cx.before(|machine| MachineGet { machine }.into())? {
        return show(cx, id);
    }
    let host = cx.broker.host_now(&cx.who).await;
    let id = cx.broker.change(&cx.who, |change| {
        free_name(change, &c.name)?;
        let mut machine = MachineRow::new(c.name);
        machine.group = group::named(change, c.group.as_ref())?.id;
        machine.description = c.settings.description.clone().unwrap_or_default();
        machine.upkeep = upkeep::edited(machine.upkeep, &c.settings.upkeep, machine.name.as_str())?;
        machine.spec.edit(&c.settings, |name| find_disk(change, name))?;
        machine.spec.check(machine.id, machine.name.as_str())?;
        fits(host.as_ref(), &format!("machine {}", machine.name), machine.id, None, &machine.spec)?;
        cx.broker.within_quota(change, machine.group, || Ok(change.add_machine(&machine)?))?;
        change.event("machine", machine.id, &machine.name, "created", "")?;
        change.made(machine.id)?;
        Ok::<_, Refusal>(machine.id)
    })?;
    show(cx, id)
}

/// `MachineGet`.
pub async fn get(cx: &Cx, c: MachineGet) -> Result<MachineView, Refusal> {
    view(cx.broker.read(|db| find_machine(db, c.machine.as_str()))?)
}

/// `MachineList`.
pub async fn list(cx: &Cx, c: MachineList) -> Result<MachinePage, Refusal> {
    let after = c.after.as_ref().map_or("", MachineName::as_str);
    let seen = cx.user.rights.seen();
    let rows = cx.broker.read(|db| db.machines(Which::After(after, ROWS, seen.as_deref())))?;
    let views = rows.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(MachinePage { machines: fit(views) })
}

/// `MachineSet`.
pub async fn set(cx: &Cx, c: MachineSet) -> Result<MachineEdited, Refusal> {
    let Cx { broker, who, .. } = cx;
    let host = broker.host_now(who).await;
    let (machine, changes) = broker.change(who, |change| {
        let old = find_machine(change, c.machine.as_str())?;
        if c.revision != 0 && c.revision != old.revision {
            let refusal = Refusal::new(Reason::Conflict, format_args!("machine {}", old.name)).field("revision");
            return Err(refusal.note(format_args!("it is at revision {}", old.revision)));
        }
        let mut new = old.clone();
        new.description = c.settings.description.clone().unwrap_or(new.description);
        new.upkeep = upkeep::edited(new.upkeep, &c.settings.upkeep, new.name.as_str())?;
        new.spec.edit(&c.settings, |name| find_disk(change, name))?;
        new.spec.check(new.id, new.name.as_str())?;
        fits(host.as_ref(), &format!("machine {}", new.name), new.id, Some(&old.spec), &new.spec)?;
        let mut changes = old.spec.changes(&new.spec, old.id)?;
        if new.description != old.description {
            changes.push((Text::lossy("description"), skep_proto::broker::Applies::Now));
        }
        let fields = upkeep::changed(old.upkeep, new.upkeep);
        changes.extend(fields.map(|name| (Text::lossy(name), skep_proto::broker::Applies::Now)));
        if (&new.spec, &new.description, new.upkeep) != (&old.spec, &old.description, old.upkeep) {
            new.revision += 1;
            // What it would write while others have it is refused here; by then its start could be far away.
            in_use(change, &old, &new)?;
            broker.within_quota(change, new.group, || Ok(change.set_machine(&new)?))?;
            let names: Vec<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
            change.event("machine", new.id, &new.name, "changed", names.join(", "))?;
        }
        Ok((new, changes))
    })?;
    // A machine that is off starts with them in any case.
    let running = machine.slot.is_some();
    if running && !changes.is_empty() {
        let _ = broker.actor(&machine).send(Msg::Changed(who.clone()));
    }
    Ok(MachineEdited { machine: show(cx, machine.id)?, changes })
}

/// A running machine takes no disk that another running one excludes.
fn in_use(db: &impl Disks, old: &MachineRow, new: &MachineRow) -> Result<(), Refusal> {
    if old.slot.is_none() {
        return Ok(());
    }
    for disk in &new.spec.disks {
        let users = db.disk_users(disk.disk)?;
        if let Some(user) = users.iter().find(|u| u.active && u.machine != new.id && (u.writes || !disk.read_only)) {
            let name = db.disk(disk.disk)?.map(|d| d.name.to_string()).unwrap_or_default();
            let refusal = Refusal::new(Reason::InUse, format_args!("disk {name}")).field("disks");
            return Err(refusal.note(format_args!("machine {} has it", user.name)));
        }
    }
    Ok(())
}

/// `MachineEject`: out of a running machine's drive at first, so that nothing is written of what could not be done.
pub async fn eject(cx: &Cx, c: MachineEject) -> Result<MachineView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let place = |machine: &MachineRow| {
        let disk = broker.read(|db| find_disk(db, c.disk.as_str()))?;
        let refused = |reason, note: &str| {
            Err(Refusal::new(reason, format_args!("disk {} of machine {}", disk.name, machine.name)).field("disk").note(note))
        };
        match machine.spec.disks.iter().position(|d| d.disk == disk.id) {
            None => refused(Reason::NotFound, "the machine does not have it"),
            Some(at) if machine.spec.disks.get(at).is_none_or(|d| !d.controller.is_cd()) => {
                refused(Reason::InvalidValue, "it is no CD")
            }
            Some(at) => Ok((at, disk.id)),
        }
    };
    let machine = broker.read(|db| find_machine(db, c.machine.as_str()))?;
    let (_, disk) = place(&machine)?;
    let in_drive = machine
        .applied
        .as_ref()
        .filter(|_| machine.slot.is_some())
        .and_then(|spec| spec.disks.iter().position(|d| d.disk == disk && d.controller.is_cd() && !d.flags.ejected));
    if let Some(slot) = in_drive {
        let host = crate::platform::capabilities(0);
        if !host.abilities.contains(&Ability::Eject) {
            let refusal = Refusal::new(Reason::Unsupported, format_args!("machine {}", machine.name)).field("disk");
            return Err(refusal.note(Ability::Eject.why(host.hypervisor)));
        }
        let slot = u8::try_from(slot).map_err(|_| Refusal::new(Reason::Internal, format_args!("machine {}", machine.name)))?;
        broker.ask_runner(who, machine.id, skep_proto::runner::Eject { slot }).await?;
    }
    let machine = broker.change(who, |change| {
        let mut machine = find_machine(change, &machine.id.to_string())?;
        // By now its disks may be others.
        let out = |spec: &mut Spec| {
            spec.disks
                .iter_mut()
                .find(|d| d.disk == disk && d.controller.is_cd() && !d.flags.ejected)
                .map(|d| d.flags.ejected = true)
                .is_some()
        };
        if in_drive.is_some()
            && let Some(mut applied) = machine.applied.clone()
            && out(&mut applied)
        {
            change.set_machine_applied(machine.id, &applied, machine.started_ns)?;
        }
        if out(&mut machine.spec) {
            machine.revision += 1;
            change.set_machine(&machine)?;
            change.event("machine", machine.id, &machine.name, "changed", "ejected")?;
        }
        Ok::<_, Refusal>(machine)
    })?;
    if machine.slot.is_some() {
        let _ = broker.actor(&machine).send(Msg::Changed(who.clone()));
    }
    show(cx, machine.id)
}

/// `MachineRename`.
pub async fn rename(cx: &Cx, c: MachineRename) -> Result<MachineView, Refusal> {
    let id = cx.broker.change(&cx.who, |change| {
        let mut machine = find_machine(change, c.machine.as_str())?;
        if machine.name == c.name {
            return Ok(machine.id);
        }
        free_name(change, &c.name)?;
        let old = std::mem::replace(&mut machine.name, c.name);
        machine.revision += 1;
        change.set_machine(&machine)?;
        change.event("machine", machine.id, &machine.name, "renamed", old)?;
        Ok::<_, Refusal>(machine.id)
    })?;
    served::renamed(&cx.broker);
    show(cx, id)
}

/// `MachineAct`.
pub async fn act(cx: &Cx, c: MachineAct) -> Result<OperationView, Refusal> {
    let machine = cx.broker.read(|db| find_machine(db, c.machine.as_str()))?;
    let away = || Refusal::new(Reason::Unavailable, format_args!("machine {}", machine.name)).note("it is being deleted");
    let (reply, answer) = oneshot::channel();
    cx.broker.actor(&machine).send(Msg::Act(c.act, cx.who.clone(), reply)).map_err(|_| away())?;
    answer.await.unwrap_or_else(|_| Err(away()))
}

/// Refuses a machine that is not at rest or not whole.
pub(super) fn resting(db: &impl Machines, name: &str) -> Result<MachineRow, Refusal> {
    let machine = find_machine(db, name)?;
    at_rest(&machine)?;
    debug_assert_eq!(machine.stage, Stage::Ready);
    Ok(machine)
}
