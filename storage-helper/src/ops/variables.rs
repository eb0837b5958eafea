//! What is in variable stores. A guest wrote it: it is read, and written anew, by a child that holds the files and nothing else.

use super::disk::lock;
use super::vars::{OWN_ORDER, file_name, mode, object, template};
use crate::job;
use crate::store::{At, MODE, Part, Store, open_if_there, remove};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::fsync;
use skep_efivars::{Change, Guid, MAX_IMAGE, Store as Variables, Variable, boot};
use skep_proto::storage::{BootRef, EditVars, ListVars, ReadVar, VarEdit, VarPage, VarPiece, VarState, VarsEdited};
use skep_proto::vars::{MAX_DATA, MAX_ENTRIES};
use skep_proto::{MachineId, Reason, Refusal, Text, VarName};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Bytes of a page of a list, at most, beside what stands around it.
const PAGE: usize = 7000;
/// Entries of an order that are told.
const TOLD: usize = 256;

/// A machine's store, or, before it has one, the template.
fn source(store: &Store, machine: MachineId) -> Result<(File, bool), Refusal> {
    let object = object(machine);
    match open_if_there(store.firmware.as_fd(), &file_name(machine), OFlag::O_RDONLY).at(&object, "open")? {
        Some(file) => Ok((file, true)),
        None => Ok((template(store, &object)?, false)),
    }
}

/// [`ListVars`].
pub fn list(store: &Store, call: ListVars) -> Result<VarPage, Refusal> {
    let (object, (file, _)) = (object(call.machine), source(store, call.machine)?);
    job::ask(&object, &[("variable store", file.as_fd())], || {
        let (variables, _) = parse(&object, &file)?;
        let mut all: Vec<VarState> = variables.variables().iter().filter_map(state).collect();
        all.sort_unstable_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        let (mut vars, mut bytes) = (Vec::new(), 0);
        for var in all {
            if call.after.as_ref().is_some_and(|after| var.name.as_str() <= after.as_str()) {
                continue;
            }
            bytes += var.name.as_str().len() + var.meaning.as_str().len() + 16;
            if bytes > PAGE {
                break;
            }
            vars.push(var);
        }
        let (used, room) = variables.room();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(VarPage { vars, used: number(used), room: number(room) })
    })
}

/// [`ReadVar`].
pub fn read(store: &Store, call: ReadVar) -> Result<VarPiece, Refusal> {
    let (object, (file, _)) = (object(call.machine), source(store, call.machine)?);
    job::ask(&object, &[("variable store", file.as_fd())], || {
        let (variables, _) = parse(&object, &file)?;
        let found = variables.find(vendor(&call.name)?, call.name.parts().0);
        let absent = || Refusal::new(Reason::NotFound, format_args!("variable {} of machine {}", call.name, call.machine));
        let variable = found.ok_or_else(absent)?;
        let var = state(variable).ok_or_else(absent)?;
        let from = usize::try_from(call.from).unwrap_or(usize::MAX);
        let data = variable.data().get(from..).unwrap_or_default();
        Ok(VarPiece { var, data: data.get(..MAX_DATA).unwrap_or(data).to_vec() })
    })
}

/// [`EditVars`]. Locked like a disk, so that no machine runs with it.
pub fn edit(store: &Store, call: EditVars) -> Result<VarsEdited, Refusal> {
    let (object, name, dir) = (object(call.machine), file_name(call.machine), store.firmware.as_fd());
    check(&object, &call.edit)?;
    if call.edit == VarEdit::Reset {
        if let Some(file) = open_if_there(dir, &name, OFlag::O_RDONLY).at(&object, "open")? {
            hold(&object, &file)?;
            remove(dir, &name).at(&object, "delete")?;
            fsync(dir).at(&object, "sync the directory")?;
        }
        return Ok(VarsEdited { order: Vec::new(), next: None });
    }
    let (from, own) = source(store, call.machine)?;
    if own {
        hold(&object, &from)?;
    }
    let size = from.metadata().at(&object, "stat")?.len();
    let old = if own { mode(&object, &from)? } else { MODE };
    let (part, to) = Part::begin_as(dir, &name, after(old, &call.edit)).at(&object, "create")?;
    let edited = job::ask(&object, &[("variable store", from.as_fd()), ("variable store", to.as_fd())], || {
        let (mut variables, mut image) = parse(&object, &from)?;
        change(&object, &mut variables, &call.edit)?;
        variables.write(&mut image).map_err(|e| unwritable(&object, &e))?;
        to.write_all_at(&image, 0).at(&object, "write")?;
        let order = boot::order(&variables).into_iter().take(TOLD).collect();
        Ok(VarsEdited { order, next: boot::next(&variables) })
    });
    // Of its file the child is believed no more than that.
    let whole = edited.and_then(|edited| match to.metadata().at(&object, "stat")?.len() {
        written if written == size => Ok(edited),
        written => Err(Refusal::new(Reason::Internal, &object).note(format_args!("{written} of {size} bytes were written"))),
    });
    match whole {
        Ok(edited) => part.replace(dir).at(&object, "finish").map(|()| edited),
        Err(refusal) => {
            part.discard(dir);
            Err(refusal)
        }
    }
}

/// Refuses a store that a machine runs with.
fn hold(object: &str, file: &File) -> Result<(), Refusal> {
    lock(object, file, false).map_err(|refusal| match refusal.reason {
        Reason::InUse => refusal.note("a machine runs with them; stop it first"),
        _ => refusal,
    })
}

/// Refuses more than a request may have.
fn check(object: &str, edit: &VarEdit) -> Result<(), Refusal> {
    let refuse = |field: &str, note: String| Err(Refusal::new(Reason::TooLarge, object).field(field).note(note));
    match edit {
        VarEdit::Set { data, .. } if data.len() > MAX_DATA => {
            refuse("data", format!("{} bytes; at most {MAX_DATA} are permitted", data.len()))
        }
        VarEdit::Order(entries) if entries.len() > MAX_ENTRIES => {
            refuse("entries", format!("{} entries; at most {MAX_ENTRIES} are permitted", entries.len()))
        }
        _ => Ok(()),
    }
}

/// Whose order counts after an edit.
fn after(old: Mode, edit: &VarEdit) -> Mode {
    let is_order = |name: &VarName| Some(name) == order_name().as_ref();
    match edit {
        VarEdit::Order(_) => OWN_ORDER,
        VarEdit::Set { name, .. } if is_order(name) => OWN_ORDER,
        VarEdit::Delete(name) if is_order(name) => MODE,
        _ => old,
    }
}

/// The name of the variable with the boot order, in full.
fn order_name() -> Option<VarName> {
    boot::ORDER.parse().ok()
}

/// Reads a store; in a child only.
fn parse(object: &str, file: &File) -> Result<(Variables, Vec<u8>), Refusal> {
    let damaged = |note: String| Refusal::new(Reason::BadVariables, object).note(note);
    let size = file.metadata().at(object, "stat")?.len();
    let length = usize::try_from(size).ok().filter(|length| *length <= MAX_IMAGE);
    let length = length.ok_or_else(|| damaged(format!("the store has {size} bytes; {MAX_IMAGE} is the most")))?;
    let mut image = vec![0; length];
    file.read_exact_at(&mut image, 0).at(object, "read")?;
    let variables = Variables::parse(&image).map_err(|e| damaged(e.to_string()))?;
    Ok((variables, image))
}

fn vendor(name: &VarName) -> Result<Guid, Refusal> {
    name.parts().1.parse().map_err(|e| Refusal::new(Reason::InvalidValue, format_args!("variable {name}")).field("name").note(e))
}

fn state(variable: &Variable) -> Option<VarState> {
    Some(VarState {
        name: format!("{}-{}", variable.name(), variable.guid()).parse().ok()?,
        attributes: variable.attributes(),
        size: u32::try_from(variable.data().len()).unwrap_or(u32::MAX),
        meaning: Text::lossy(&boot::describe(variable)),
    })
}

fn change(object: &str, variables: &mut Variables, edit: &VarEdit) -> Result<(), Refusal> {
    let wrong = |e: Change| unwritable(object, &e);
    match edit {
        VarEdit::Set { name, attributes, data } => variables.set(vendor(name)?, name.parts().0, *attributes, data).map_err(wrong),
        VarEdit::Delete(name) => {
            variables.delete(vendor(name)?, name.parts().0);
            Ok(())
        }
        VarEdit::Order(entries) => {
            let numbers = entries.iter().map(|entry| number(object, variables, entry)).collect::<Result<Vec<_>, _>>()?;
            boot::put_first(variables, &numbers).map(drop).map_err(|e| unchosen(object, &e))
        }
        VarEdit::Next(entry) => {
            let number = entry.as_ref().map(|entry| number(object, variables, entry)).transpose()?;
            boot::set_next(variables, number).map_err(|e| unchosen(object, &e))
        }
        VarEdit::Reset => Ok(()),
    }
}

fn number(object: &str, variables: &Variables, entry: &BootRef) -> Result<u16, Refusal> {
    match entry {
        BootRef::Entry(number) => Ok(*number),
        BootRef::Path(beginning) => boot::leading_to(variables, beginning).ok_or_else(|| {
            let note =
                "no entry leads to the disk itself: the firmware makes them at a machine's start; or name an entry by its number";
            Refusal::new(Reason::NotFound, format_args!("boot entry at {} in {object}", skep_efivars::path::text(beginning)))
                .field("entries")
                .note(note)
        }),
    }
}

fn unchosen(object: &str, error: &boot::Choice) -> Refusal {
    let reason = match error {
        boot::Choice::Change(error) => return unwritable(object, error),
        boot::Choice::NoEntry(_) => Reason::NotFound,
        boot::Choice::Twice(_) => Reason::InvalidValue,
    };
    Refusal::new(reason, object).field("entries").note(error)
}

fn unwritable(object: &str, error: &Change) -> Refusal {
    let (reason, field) = match error {
        Change::Name => (Reason::InvalidValue, "name"),
        Change::Attributes(_) => (Reason::InvalidValue, "attributes"),
        Change::Empty => (Reason::InvalidValue, "data"),
        Change::Full { .. } => (Reason::LimitReached, "data"),
        Change::Unfinished => (Reason::WrongState, ""),
        Change::OtherImage => (Reason::Internal, ""),
    };
    Refusal::new(reason, object).field(field).note(error)
}
