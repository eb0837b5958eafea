//! Variables of machines' UEFI firmware. What a guest wrote is read by storage-helper's child; here are names and places.

use super::disk::about;
use super::{Cx, at_rest, find_disk, find_machine};
use crate::db::machines::MachineRow;
use crate::platform;
use crate::spec::Boot;
use skep_proto::broker::{BootChoice, FirmwareChange, FirmwareEdit, FirmwareGet, FirmwareList, VarPage, VarPiece, VarsEdited};
use skep_proto::storage::{BootRef, EditVars, ListVars, ReadVar, VarEdit};
use skep_proto::vars::{ATTRIBUTES, MAX_ENTRIES};
use skep_proto::{Reason, Refusal};

/// A machine that has firmware.
fn find(cx: &Cx, name: &str) -> Result<(MachineRow, String), Refusal> {
    let machine = cx.broker.read(|db| find_machine(db, name))?;
    let object = format!("firmware variables of machine {}", machine.name);
    if machine.spec.boot != Boot::Uefi {
        return Err(Refusal::new(Reason::Unsupported, object).field("boot").note("it boots without UEFI firmware"));
    }
    Ok((machine, object))
}

/// `FirmwareList`.
pub async fn list(cx: &Cx, c: FirmwareList) -> Result<VarPage, Refusal> {
    let (machine, object) = find(cx, c.machine.as_str())?;
    let answer = cx.broker.storage.call(&cx.who, ListVars { machine: machine.id, after: c.after }).await;
    answer.map(|(page, [])| page).map_err(|refusal| about(refusal, &object))
}

/// `FirmwareGet`.
pub async fn get(cx: &Cx, c: FirmwareGet) -> Result<VarPiece, Refusal> {
    let (machine, object) = find(cx, c.machine.as_str())?;
    read(cx, &machine, &object, c).await
}

async fn read(cx: &Cx, machine: &MachineRow, object: &str, c: FirmwareGet) -> Result<VarPiece, Refusal> {
    let variable = format!("variable {} of machine {}", c.name, machine.name);
    let answer = cx.broker.storage.call(&cx.who, ReadVar { machine: machine.id, name: c.name, from: c.from }).await;
    answer.map(|(piece, [])| piece).map_err(|refusal| {
        let object = if refusal.reason == Reason::NotFound { &variable } else { object };
        about(refusal, object)
    })
}

/// `FirmwareEdit`.
pub async fn edit(cx: &Cx, c: FirmwareEdit) -> Result<VarsEdited, Refusal> {
    let Cx { broker, who, .. } = cx;
    let (machine, object) = find(cx, c.machine.as_str())?;
    at_rest(&machine)?;
    if let FirmwareChange::Delete(name) = &c.change {
        // storage-helper is asked twice if it dies meanwhile, and takes a variable that is gone for deleted.
        let get = FirmwareGet { machine: c.machine.clone(), name: name.clone(), from: 0 };
        read(cx, &machine, &object, get).await?;
    }
    let (edit, what) = translate(cx, &machine, &object, c.change)?;
    // Nothing was waited for since the machine was seen at rest, or it is seen again; and storage-helper's lock has the last word.
    let machine = broker.read(|db| find_machine(db, &machine.id.to_string()))?;
    at_rest(&machine)?;
    let answer = broker.storage.call(who, EditVars { machine: machine.id, edit }).await;
    let (edited, []) = answer.map_err(|refusal| about(refusal, &object))?;
    broker.change(who, |change| change.event("machine", machine.id, &machine.name, "firmware changed", &what))?;
    Ok(edited)
}

/// What storage-helper is asked for, and how an event tells of it.
fn translate(cx: &Cx, machine: &MachineRow, object: &str, change: FirmwareChange) -> Result<(VarEdit, String), Refusal> {
    let choose = |choice: &BootChoice| match choice {
        BootChoice::Entry(number) => Ok(BootRef::Entry(*number)),
        BootChoice::Disk(name) => leading_to(cx, machine, name.as_str()),
    };
    Ok(match change {
        FirmwareChange::Set { name, attributes, data } => {
            if let Some(odd) = attributes.filter(|bits| bits & !ATTRIBUTES != 0) {
                let refusal = Refusal::new(Reason::InvalidValue, object).field("attributes");
                return Err(refusal.note(format_args!("{odd:#x}; a variable can have what is in {ATTRIBUTES:#x}")));
            }
            let what = format!("{name} set to {} bytes", data.len());
            (VarEdit::Set { name, attributes, data }, what)
        }
        FirmwareChange::Delete(name) => {
            let what = format!("{name} deleted");
            (VarEdit::Delete(name), what)
        }
        FirmwareChange::Order(choices) => {
            if choices.is_empty() || choices.len() > MAX_ENTRIES {
                let note = format_args!("{} entries; 1 to {MAX_ENTRIES} are expected", choices.len());
                return Err(Refusal::new(Reason::InvalidValue, object).field("entries").note(note));
            }
            let what = format!("boot order begins with {}", choices.iter().map(said).collect::<Vec<_>>().join(", "));
            (VarEdit::Order(choices.iter().map(choose).collect::<Result<_, _>>()?), what)
        }
        FirmwareChange::Next(choice) => {
            let what =
                choice.as_ref().map_or_else(|| "the boot order says what is next".to_owned(), |c| format!("{} is next", said(c)));
            (VarEdit::Next(choice.as_ref().map(choose).transpose()?), what)
        }
        FirmwareChange::Reset => (VarEdit::Reset, "reset".to_owned()),
    })
}

fn said(choice: &BootChoice) -> String {
    match choice {
        BootChoice::Entry(number) => format!("{number:04X}"),
        BootChoice::Disk(name) => format!("disk {name}"),
    }
}

/// The entry for a disk of the machine's: by the place that the disk has on the bus.
fn leading_to(cx: &Cx, machine: &MachineRow, name: &str) -> Result<BootRef, Refusal> {
    let disk = cx.broker.read(|db| find_disk(db, name)).map_err(|refusal| refusal.field("entries"))?;
    let model = machine.spec.model(machine.id)?;
    let slot = machine.spec.disks.iter().position(|has| has.disk == disk.id).and_then(|slot| u8::try_from(slot).ok());
    let path = slot.and_then(|slot| platform::boot_path(&model, slot));
    let absent = || {
        let note = format_args!("machine {} does not have it", machine.name);
        Refusal::new(Reason::NotFound, format_args!("disk {}", disk.name)).field("entries").note(note)
    };
    path.map(BootRef::Path).ok_or_else(absent)
}
