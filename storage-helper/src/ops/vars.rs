//! Variable stores of UEFI: `STATE/firmware/UUID.vars`.

use super::disk::lock;
use super::log;
use crate::platform::VARS_TEMPLATE;
use crate::store::{At, MODE, Store, hand_out, make, make_as, open_if_there, open_in, remove};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use skep_proto::storage::{CloneVars, DeleteMachineFiles, Done, OpenVars, OrderState, WhoseOrder};
use skep_proto::{MachineId, OneFd, Reason, Refusal};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

/// Largest variable store; real ones have 528 KiB.
const MAX_VARS: u64 = skep_efivars::MAX_IMAGE as u64;

/// Mode of a store with a boot order that a user has set. The owner's "execute" says so: the mode goes with the file through its one
/// rename, and asking for it reads nothing that a guest wrote.
pub const OWN_ORDER: Mode = MODE.union(Mode::S_IXUSR);

/// The same bit, as the standard library has it.
const OWNER_EXECUTES: u32 = 0o100;

/// What variables are called in refusals.
pub fn object(machine: MachineId) -> String {
    format!("firmware variables of machine {machine}")
}

/// The name of a store's file.
pub fn file_name(machine: MachineId) -> String {
    format!("{machine}.vars")
}

/// Copies a whole, small file.
fn copy(object: &str, from: &File, mut to: &File) -> Result<(), Refusal> {
    let mut bytes = Vec::new();
    from.take(MAX_VARS + 1).read_to_end(&mut bytes).at(object, "read")?;
    if bytes.is_empty() || bytes.len() as u64 > MAX_VARS {
        let note = format_args!("the source has {} bytes; 1 to {MAX_VARS} are expected", bytes.len());
        return Err(Refusal::new(Reason::FirmwareMissing, object).note(note));
    }
    to.write_all(&bytes).at(object, "write")
}

/// The mode of a store's copy.
pub fn mode(object: &str, file: &File) -> Result<Mode, Refusal> {
    let own = file.metadata().at(object, "stat")?.permissions().mode() & OWNER_EXECUTES != 0;
    Ok(if own { OWN_ORDER } else { MODE })
}

/// The variables of a new machine.
pub fn template(store: &Store, object: &str) -> Result<File, Refusal> {
    let missing = || Refusal::new(Reason::FirmwareMissing, object).note(format_args!("there is no STATE/cell/{VARS_TEMPLATE}"));
    match open_in(store.cell.as_fd(), VARS_TEMPLATE, OFlag::O_RDONLY) {
        Err(Errno::ENOENT | Errno::EACCES) => Err(missing()),
        other => other.at(object, "open the template"),
    }
}

/// [`OpenVars`]. Locked like a disk.
pub fn open(store: &Store, call: &OpenVars) -> Result<(Done, OneFd), Refusal> {
    let (object, name, dir) = (object(call.machine), file_name(call.machine), store.firmware.as_fd());
    let there = open_if_there(dir, &name, OFlag::O_RDWR).at(&object, "open")?;
    let file = match there {
        Some(file) => file,
        None => {
            let from = template(store, &object)?;
            make(dir, &name, &object, |to| copy(&object, &from, to))?;
            open_in(dir, &name, OFlag::O_RDWR).at(&object, "open")?
        }
    };
    lock(&object, &file, false)?;
    Ok((Done {}, [hand_out("variable store", &object, file)?]))
}

/// [`CloneVars`].
pub fn clone(store: &Store, call: &CloneVars) -> Result<Done, Refusal> {
    let (object, dir) = (object(call.to), store.firmware.as_fd());
    if let Some(from) = open_if_there(dir, &file_name(call.from), OFlag::O_RDONLY).at(&object, "open")? {
        make_as(dir, &file_name(call.to), mode(&object, &from)?, &object, |to| copy(&object, &from, to))?;
    }
    Ok(Done {})
}

/// [`WhoseOrder`].
pub fn whose_order(store: &Store, call: &WhoseOrder) -> Result<OrderState, Refusal> {
    let object = object(call.machine);
    let file = open_if_there(store.firmware.as_fd(), &file_name(call.machine), OFlag::O_RDONLY).at(&object, "open")?;
    let own = file.as_ref().is_some_and(|file| mode(&object, file).is_ok_and(|mode| mode == OWN_ORDER));
    Ok(OrderState { own })
}

/// [`DeleteMachineFiles`].
pub fn delete(store: &Store, call: &DeleteMachineFiles) -> Result<Done, Refusal> {
    let object = format!("files of machine {}", call.machine);
    remove(store.firmware.as_fd(), &file_name(call.machine)).at(&object, "delete")?;
    for name in log::all_names(call.machine) {
        remove(store.logs.as_fd(), &name).at(&object, "delete")?;
    }
    Ok(Done {})
}
