//! The database by itself.

use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::events::KEPT;
use crate::db::groups::{Groups, Member};
use crate::db::machines::{MachineRow, Machines, Which};
use crate::db::{Db, Fault, OpenError, Who};
use skep_proto::broker::MachineState;
use skep_proto::storage::DiskKind;
use skep_proto::{DiskId, Reason, Refusal, Text};

fn disk(name: &str) -> DiskRow {
    DiskRow {
        id: DiskId::random(),
        name: name.parse().expect("a name"),
        kind: DiskKind::Qcow2,
        size: u64::MAX,
        allocated: 5,
        sha256: Text::default(),
        stage: Stage::Ready,
        created_ns: 7,
        group: crate::db::groups::DEFAULT,
        description: Text::lossy("of web"),
        iso: true,
        image: None,
        top: None,
        base: None,
        rates: skep_proto::DiskRates::default(),
    }
}

#[test]
fn rows_come_back_as_they_went() {
    let mut db = Db::in_memory();
    let who = Who::broker();
    let root = disk("root");
    let mut machine = MachineRow::new("web".parse().expect("a name"));
    machine.spec.cpus = 3;
    let drive = crate::spec::Disk {
        disk: root.id,
        kind: root.kind,
        controller: skep_proto::broker::Controller::Nvme,
        read_only: true,
        flags: Default::default(),
    };
    machine.spec.disks.push(drive);
    machine.spec.keep();
    machine.disk_names.push(Text::lossy("root"));
    db.change(&who, |change| {
        change.add_disk(&root)?;
        change.add_machine(&machine)?;
        change.set_machine_state(machine.id, MachineState::Running, "note", Some(9))?;
        change.set_machine_applied(machine.id, &machine.spec, 11)
    })
    .expect("written");
    (machine.state, machine.note, machine.slot, machine.started_ns) = (MachineState::Running, "note".into(), Some(9), 11);
    machine.applied = Some(machine.spec.clone());
    assert_eq!(db.disk(root.id).expect("read"), Some(root.clone()));
    assert_eq!(db.machine(machine.id).expect("read"), Some(machine.clone()));
    assert_eq!(db.find_machine("web").expect("read"), Some(machine.clone()));
    assert_eq!(db.find_machine(&machine.id.to_string()).expect("read").map(|m| m.id), Some(machine.id));
    let users = db.disk_users(root.id).expect("read");
    assert_eq!(users.iter().map(|u| (u.machine, u.writes, u.active)).collect::<Vec<_>>(), [(machine.id, false, true)]);
    assert_eq!(db.machines(Which::Unsettled).expect("read").len(), 1);
}

#[test]
fn a_refused_change_leaves_neither_row_nor_event() {
    let mut db = Db::in_memory();
    let result = db.change(&Who::broker(), |change| {
        change.add_disk(&disk("root"))?;
        change.event("disk", "id", "root", "created", "")?;
        Err::<(), _>(Refusal::new(Reason::InUse, "test"))
    });
    assert_eq!(result.expect_err("refused").reason, Reason::InUse);
    assert!(db.disks_after("", 9, None, (None, None)).expect("read").is_empty());
    assert_eq!(db.last_event().expect("read"), 0);
}

#[test]
fn a_machine_gets_its_slot_again_and_others_get_the_smallest_that_was_nobodys() {
    let mut db = Db::in_memory();
    let machines: Vec<_> = (0..6).map(|n| MachineRow::new(format!("m{n}").parse().expect("a name"))).collect();
    let given = db.change(&Who::broker(), |change| {
        let mut given = Vec::new();
        let id = |n: usize| machines.get(n).expect("six").id;
        let mut start = |n: usize, slots: u16| {
            let slot = change.free_slot(id(n), slots)?;
            change.set_machine_state(id(n), MachineState::Running, "", slot)?;
            given.push(slot);
            Ok::<_, Fault>(())
        };
        for (n, machine) in machines.iter().enumerate() {
            change.add_machine(machine)?;
            if n < 4 {
                start(n, 9)?;
            }
        }
        change.set_machine_state(id(1), MachineState::Stopped, "", None)?;
        change.set_machine_state(id(2), MachineState::Stopped, "", None)?;
        // Both are somebody's; then there is no other; then they come back, one to find its own taken.
        start(4, 9)?;
        start(5, 5)?;
        start(2, 9)?;
        start(1, 9)?;
        change.set_machine_state(id(1), MachineState::Stopped, "", None)?;
        start(1, 2)?;
        Ok::<_, Fault>(given)
    });
    let slots = [Some(0), Some(1), Some(2), Some(3), Some(4), Some(1), Some(2), Some(5), None];
    assert_eq!(given.expect("written"), slots);
}

#[test]
fn a_newer_database_is_left_alone() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("skep.db");
    drop(Db::open(&path).expect("made"));
    drop(Db::open(&path).expect("opened again"));
    let other = rusqlite::Connection::open(&path).expect("opened");
    other.pragma_update(None, "user_version", 99).expect("written");
    drop(other);
    assert!(matches!(Db::open(&path), Err(OpenError::Newer(99, _))));
}

#[test]
fn two_brokers_do_not_share_a_database() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("skep.db");
    let _first = Db::open(&path).expect("made");
    assert!(matches!(Db::open(&path), Err(OpenError::Sql(_))));
}

#[test]
fn bytes_that_are_no_database_are_refused() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("skep.db");
    std::fs::write(&path, [7; 8192]).expect("written");
    assert!(matches!(Db::open(&path), Err(OpenError::Sql(_))));
}

#[test]
fn old_events_go_and_a_token_before_them_is_a_gap() {
    let mut db = Db::in_memory();
    let who = Who::broker();
    let count = KEPT + 2_000;
    db.change(&who, |change| (0..count).try_for_each(|n| change.event("disk", "id", n, "created", ""))).expect("written");
    assert_eq!(db.last_event().expect("read"), count as u64);
    assert!(!db.keeps_after(5).expect("read"));
    assert!(db.keeps_after(3_000).expect("read"));
    assert!(db.keeps_after(count as u64).expect("read"));
    assert!(!db.keeps_after(count as u64 + 1).expect("read"), "never given out");
    let next = db.events_after(3_000, "", None).expect("read");
    assert_eq!(next.first().map(|e| e.token), Some(3_001));
}

/// Steps that SQLite takes for each read that a request makes, with so many machines and disks there, and how often it plans one anew.
fn steps_with(number: usize) -> Vec<(&'static str, [u64; 2])> {
    use std::sync::atomic::Ordering;
    let mut db = Db::in_memory();
    let who = Who::broker();
    db.change(&who, |change| {
        for n in 0..number {
            let disk = disk(&format!("disk-{n:05}"));
            let mut machine = MachineRow::new(format!("machine-{n:05}").parse().expect("a name"));
            machine.spec.disks.push(crate::spec::Disk {
                disk: disk.id,
                kind: disk.kind,
                controller: skep_proto::broker::Controller::Nvme,
                read_only: false,
                flags: Default::default(),
            });
            change.add_disk(&disk)?;
            change.add_machine(&machine)?;
            change.event("machine", machine.id, &machine.name, "created", "")?;
        }
        Ok::<_, Fault>(())
    })
    .expect("written");
    let one = db.find_machine("machine-00050").expect("read").expect("there");
    let id = one.id.to_string();
    let mut edited = one.clone();
    edited.description = Text::lossy("other");
    let counts = db.count_steps();
    type Read<'a> = &'a dyn Fn(&mut Db);
    let reads: [(&str, Read<'_>); 12] = [
        ("a machine by name", &|db| assert!(db.find_machine("machine-00050").is_ok())),
        ("a machine by id", &|db| assert!(db.find_machine(&id).is_ok())),
        ("a name that is free", &|db| assert!(db.find_machine("nobody").is_ok())),
        ("a page of machines", &|db| assert!(db.machines(Which::After("machine-00020", 64, None)).is_ok())),
        ("a page of a group's", &|db| {
            let seen = format!("[\"{}\"]", crate::db::groups::DEFAULT);
            assert!(db.machines(Which::After("machine-00020", 64, Some(&seen))).is_ok());
        }),
        ("a machine's group", &|db| assert!(db.group_of(Member::Machine, "machine-00050").is_ok())),
        ("a disk by name", &|db| assert!(db.find_disk("disk-00050").is_ok())),
        ("a page of disks", &|db| assert!(db.disks_after("disk-00020", 64, None, (None, None)).is_ok())),
        ("a disk's group", &|db| assert!(db.group_of(Member::Disk, &one.spec.disks[0].disk.to_string()).is_ok())),
        ("who uses a disk", &|db| assert!(db.disk_users(one.spec.disks[0].disk).is_ok())),
        ("an edit and its event", &|db| {
            let write = |change: &crate::db::Change<'_>| {
                change.set_machine(&edited)?;
                change.event("machine", edited.id, &edited.name, "changed", "description")
            };
            db.change(&Who::broker(), write).expect("written");
        }),
        ("the next event", &|db| {
            let last = db.last_event().expect("read");
            assert!(db.events_after(last - 1, "", None).is_ok());
        }),
    ];
    let taken = |(what, read): (&'static str, Read<'_>)| {
        let counted = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let [steps, plans] = counted();
        read(&mut db);
        let [more, again] = counted();
        (what, [more - steps, again - plans])
    };
    reads.into_iter().map(taken).collect()
}

#[test]
fn what_one_request_asks_costs_no_more_when_there_are_many() {
    for ((what, [few, _]), (_, [many, planned])) in steps_with(100).into_iter().zip(steps_with(2000)) {
        assert!(few > 0, "{what}: nothing was counted");
        assert_eq!(planned, 0, "{what}: a statement was planned anew");
        // A tree that is deeper takes no further steps; looked through, twenty times as many rows would take twenty times as many.
        assert!(many <= few + few / 4, "{what}: {few} steps of 100, {many} of 2000");
    }
}
