//! What is in variable stores, through the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_efivars::{Guid, Store, path};
use skep_proto::storage::*;
use skep_proto::{MachineId, Reason, VarName};
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use support::*;

/// A store with three entries for disks, and one that the firmware did not finish.
const TEMPLATE: &[u8] = include_bytes!("../../fuzz/corpus/variables/authenticated");
const UNFINISHED: &[u8] = include_bytes!("../../fuzz/corpus/variables/unfinished");
const STRANGE_NAMES: &[u8] = include_bytes!("../../fuzz/corpus/variables/strange-names");

fn place() -> Place {
    let place = Place::new();
    let template = place.state().join("cell").join(skep_storage_helper::platform::VARS_TEMPLATE);
    std::fs::create_dir_all(template.parent().unwrap()).unwrap();
    std::fs::write(&template, TEMPLATE).unwrap();
    place
}

fn file(place: &Place, machine: MachineId) -> PathBuf {
    place.state().join(format!("firmware/{machine}.vars"))
}

fn left(place: &Place) -> Vec<String> {
    let list = std::fs::read_dir(place.state().join("firmware")).unwrap();
    list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn name(text: &str) -> VarName {
    text.parse().unwrap()
}

fn set(text: &str, data: &[u8]) -> VarEdit {
    VarEdit::Set { name: name(text), attributes: None, data: data.to_vec() }
}

fn all(helper: &mut Helper, machine: MachineId) -> Vec<VarState> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = helper.ask(ListVars { machine, after }).unwrap();
        let Some(last) = page.vars.last() else { return all };
        after = Some(last.name.clone());
        all.extend(page.vars);
    }
}

#[test]
fn variables_are_listed_read_and_changed() {
    let place = place();
    let mut helper = place.start();
    let before = helper.descriptors();
    let machine = MachineId::random();
    let edit = |edit| EditVars { machine, edit };
    // Of a machine that was never started: the template's.
    assert_eq!(all(&mut helper, machine).len(), 8);
    assert!(left(&place).is_empty());
    let piece = helper.ask(ReadVar { machine, name: name("BootOrder"), from: 0 }).unwrap();
    assert_eq!((piece.var.meaning.as_str(), piece.data.as_slice()), ("0001,0002,0003,0000", &[1u8, 0, 2, 0, 3, 0, 0, 0][..]));
    refused(helper.ask(ReadVar { machine, name: name("BootNext"), from: 0 }), Reason::NotFound);

    assert!(!helper.ask(WhoseOrder { machine }).unwrap().own);
    let edited = helper.ask(edit(VarEdit::Next(Some(BootRef::Entry(3))))).unwrap();
    assert_eq!(edited, VarsEdited { order: vec![1, 2, 3, 0], next: Some(3) });
    assert!(!helper.ask(WhoseOrder { machine }).unwrap().own);
    let order = VarEdit::Order(vec![BootRef::Path(path::pci(9, 0)), BootRef::Entry(0)]);
    assert_eq!(helper.ask(edit(order)).unwrap(), VarsEdited { order: vec![2, 0, 1, 3], next: Some(3) });
    assert!(helper.ask(WhoseOrder { machine }).unwrap().own);
    helper.ask(edit(set("Big", &[7; 2000]))).unwrap();
    helper.ask(edit(VarEdit::Delete(name("Lang")))).unwrap();
    helper.ask(edit(VarEdit::Delete(name("Lang")))).unwrap();
    let image = std::fs::read(file(&place, machine)).unwrap();
    let store = Store::parse(&image).unwrap();
    assert_eq!(store.find(Guid::GLOBAL, "Big").unwrap().data(), [7; 2000]);
    assert!(store.find(Guid::GLOBAL, "Lang").is_none());
    assert_eq!(image.len(), TEMPLATE.len());

    // A copy has the order, and whose it is.
    let copy = MachineId::random();
    helper.ask(CloneVars { from: machine, to: copy }).unwrap();
    assert!(helper.ask(WhoseOrder { machine: copy }).unwrap().own);
    // Without an order of its own the disks' counts again.
    helper.ask(edit(VarEdit::Delete(name("BootOrder")))).unwrap();
    assert!(!helper.ask(WhoseOrder { machine }).unwrap().own);
    helper.ask(edit(set("BootOrder", &[3, 0]))).unwrap();
    assert!(helper.ask(WhoseOrder { machine }).unwrap().own);
    helper.ask(edit(VarEdit::Reset)).unwrap();
    helper.ask(edit(VarEdit::Reset)).unwrap();
    assert!(!helper.ask(WhoseOrder { machine }).unwrap().own);
    assert_eq!(all(&mut helper, machine).len(), 8);
    assert_eq!(left(&place), [format!("{copy}.vars")]);
    assert_eq!(helper.descriptors(), before);
    assert!(helper.jobs().is_empty());
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let place = place();
    let mut helper = place.start();
    let machine = MachineId::random();
    let edit = |edit| EditVars { machine, edit };
    helper.ask(edit(set("Timeout", &[1, 0]))).unwrap();
    let image = std::fs::read(file(&place, machine)).unwrap();
    let refusals = [
        (edit(VarEdit::Order(vec![BootRef::Entry(7)])), Reason::NotFound, "entries"),
        (edit(VarEdit::Order(vec![BootRef::Entry(1), BootRef::Entry(1)])), Reason::InvalidValue, "entries"),
        (edit(VarEdit::Order(vec![BootRef::Entry(1); 65])), Reason::TooLarge, "entries"),
        (edit(VarEdit::Next(Some(BootRef::Path(path::pci(20, 0))))), Reason::NotFound, "entries"),
        (edit(set("Timeout", &[])), Reason::InvalidValue, "data"),
        (edit(set("Timeout", &[1; 6001])), Reason::TooLarge, "data"),
        // All of the template's room is less than that.
        (edit(set("Timeout", &[1; 6000])), Reason::LimitReached, "data"),
        (edit(set("back\\slash", &[1])), Reason::InvalidValue, "name"),
        (edit(VarEdit::Set { name: name("A"), attributes: Some(6), data: vec![1] }), Reason::InvalidValue, "attributes"),
    ];
    for (call, reason, field) in refusals {
        let refusal = refused(helper.ask(call.clone()), reason);
        assert_eq!(refusal.field.as_str(), field, "{call:?}");
        assert!(!refusal.note.as_str().is_empty(), "{call:?}");
    }
    assert_eq!(std::fs::read(file(&place, machine)).unwrap(), image);
    assert_eq!(left(&place).len(), 1);
}

#[test]
fn a_store_that_a_machine_runs_with_is_read_only() {
    let place = place();
    let mut helper = place.start();
    let machine = MachineId::random();
    let (_, [vars]) = helper.call(OpenVars { machine }, []).unwrap();
    for edit in [VarEdit::Next(Some(BootRef::Entry(1))), VarEdit::Reset] {
        let refusal = refused(helper.ask(EditVars { machine, edit }), Reason::InUse);
        assert!(refusal.to_string().contains("stop it first"), "{refusal}");
    }
    assert_eq!(all(&mut helper, machine).len(), 8);
    drop(vars);
    helper.ask(EditVars { machine, edit: VarEdit::Next(Some(BootRef::Entry(1))) }).unwrap();
    // The file is another one now, and as free as the old one was.
    helper.call(OpenVars { machine }, []).unwrap();
}

#[test]
fn what_a_guest_left_is_refused_or_shown_and_reset_mends_it() {
    let place = place();
    let mut helper = place.start();
    let machine = MachineId::random();
    let path = file(&place, machine);
    drop(helper.call(OpenVars { machine }, []).unwrap());
    let mut images = vec![noise(540_672), vec![0; 1], Vec::new(), TEMPLATE[..0x60].to_vec()];
    images.extend(["checksum", "too-long"].map(corpus));
    for image in images {
        // As a hypervisor would: through the file that is there.
        File::options().write(true).truncate(true).open(&path).unwrap().write_all_at(&image, 0).unwrap();
        let refusals = [
            refused(helper.ask(ListVars { machine, after: None }), Reason::BadVariables),
            refused(helper.ask(EditVars { machine, edit: set("Timeout", &[1, 0]) }), Reason::BadVariables),
        ];
        for refusal in refusals {
            assert!(!refusal.note.as_str().is_empty());
        }
        assert_eq!(std::fs::read(&path).unwrap(), image);
    }
    helper.ask(EditVars { machine, edit: VarEdit::Reset }).unwrap();
    assert_eq!(all(&mut helper, machine).len(), 8);
    // More than anybody has: not even read.
    drop(helper.call(OpenVars { machine }, []).unwrap());
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    refused(helper.ask(ListVars { machine, after: None }), Reason::BadVariables);
    File::options().write(true).truncate(true).open(&path).unwrap().write_all_at(UNFINISHED, 0).unwrap();
    assert_eq!(all(&mut helper, machine).len(), 8);
    let refusal = refused(helper.ask(EditVars { machine, edit: set("Timeout", &[1, 0]) }), Reason::WrongState);
    assert!(refusal.to_string().contains("next start"), "{refusal}");
    std::fs::write(&path, STRANGE_NAMES).unwrap();
    // Whatever they are called: by what is shown they are read and deleted.
    for var in all(&mut helper, machine) {
        helper.ask(ReadVar { machine, name: var.name.clone(), from: 0 }).unwrap();
        helper.ask(EditVars { machine, edit: VarEdit::Delete(var.name) }).unwrap();
    }
    assert!(all(&mut helper, machine).is_empty());
    assert!(helper.jobs().is_empty());
}

fn corpus(name: &str) -> Vec<u8> {
    match name {
        "checksum" => include_bytes!("../../fuzz/corpus/variables/checksum").to_vec(),
        _ => include_bytes!("../../fuzz/corpus/variables/too-long").to_vec(),
    }
}

#[test]
fn a_helper_that_is_killed_while_it_writes_leaves_the_old_store_or_the_new_one() {
    let place = place();
    let machine = MachineId::random();
    let path = file(&place, machine);
    let mut seen = [0, 0];
    for turn in 0..24u32 {
        let mut helper = place.start();
        let value = |turn: u32| vec![turn as u8; 500 + turn as usize];
        helper.ask(EditVars { machine, edit: set("Turn", &value(0)) }).unwrap();
        let pid = nix::unistd::Pid::from_raw(helper.pid().try_into().unwrap());
        // From at once to after the answer, as it takes some milliseconds.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_micros(u64::from(turn) * 250));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let answered = helper.try_ask(EditVars { machine, edit: set("Turn", &value(turn + 1)) });
        killer.join().unwrap();
        helper.kill();
        // Its child, which outlives it for a moment, has the store locked.
        std::fs::File::open(&path).unwrap().lock().unwrap();
        let store = Store::parse(&std::fs::read(&path).unwrap()).unwrap();
        let found = store.find(Guid::GLOBAL, "Turn").unwrap().data().to_vec();
        assert!(found == value(0) || found == value(turn + 1), "turn {turn}: {found:?}");
        assert!(!answered || found == value(turn + 1), "turn {turn}: it was answered, and not done");
        seen[usize::from(found == value(turn + 1))] += 1;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    println!("killed before {} times, after {} times", seen[0], seen[1]);
    // What was half-written is swept.
    drop(place.start());
    assert_eq!(left(&place), [format!("{machine}.vars")]);
}
