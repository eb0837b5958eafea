//! Places on the PCI bus: what comes gets one, and whatever else comes, goes or changes its turn, what is there stays where it is.

use super::requests::{reason, text};
use super::suite::{Life, Session, Suite};
use crate::db::machines::Machines;
use crate::db::{Db, MIGRATIONS};
use skep_machine::Device;
use skep_proto::broker::*;
use skep_proto::{Reason, Share, Text};

/// Where a machine's disks and NICs are, by their names, and its shares, by theirs.
fn places(view: &MachineView) -> Vec<(String, u8)> {
    let at = |device: String| view.pci.iter().find(|place| place.device.as_str() == device).map(|place| place.slot);
    let disks = view.disks.iter().enumerate().map(|(n, disk)| (disk.name.to_string(), at(format!("disk{n}"))));
    let nics = view.nics.iter().enumerate().map(|(n, nic)| (nic.name.to_string(), at(format!("nic{n}"))));
    let shares = view.shares.iter().enumerate().map(|(n, share)| (share.name.to_string(), at(format!("share{n}"))));
    disks.chain(nics).chain(shares).filter_map(|(name, slot)| Some((name, slot?))).collect()
}

fn said(all: &[(&str, u8)]) -> Vec<(String, u8)> {
    all.iter().map(|(name, slot)| ((*name).to_owned(), *slot)).collect()
}

fn draft(disk: &str, slot: Option<u8>) -> DiskDraft {
    let flags = DiskFlags { slot, ..DiskFlags::default() };
    DiskDraft { disk: text(disk), controller: Controller::VirtioBlk, read_only: false, flags, on: None }
}

async fn set(s: &mut Session, settings: Settings) -> Result<MachineView, skep_proto::Refusal> {
    s.ask(MachineSet { machine: text("web"), settings, revision: 0 }).await.map(|edited| edited.machine)
}

async fn set_disks(s: &mut Session, disks: Vec<DiskDraft>) -> Result<MachineView, skep_proto::Refusal> {
    set(s, Settings { disks: Some(disks), ..Settings::default() }).await
}

fn share(name: &str) -> Share {
    Share { name: name.parse().expect("a name"), read_only: true }
}

#[test]
fn what_comes_goes_or_changes_its_turn_moves_nothing_else() {
    let suite = Suite::new();
    let kept = std::cell::RefCell::new(Vec::new());
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for name in ["a", "b", "c", "d"] {
            s.disk(name).await.expect("a disk");
        }
        s.machine("web", &["a", "b", "c"]).await.expect("a machine");
        for name in ["n", "o", "p"] {
            s.nic(name, None, Some("web")).await.expect("a nic");
        }
        let shares = Some(["s", "t", "u"].map(share).to_vec());
        let all = set(&mut s, Settings { shares, ..Settings::default() }).await.expect("set");
        let begin = [("a", 8), ("b", 9), ("c", 10), ("n", 16), ("o", 17), ("p", 18), ("s", 25), ("t", 26), ("u", 27)];
        assert_eq!(places(&all), said(&begin));
        // The first of each goes.
        set_disks(&mut s, vec![draft("b", None), draft("c", None)]).await.expect("set");
        s.ask(NicDetach { nic: text("n") }).await.expect("detached");
        let shares = Some(["t", "u"].map(share).to_vec());
        let fewer = set(&mut s, Settings { shares, ..Settings::default() }).await.expect("set");
        let rest = [("b", 9), ("c", 10), ("o", 17), ("p", 18), ("t", 26), ("u", 27)];
        assert_eq!(places(&fewer), said(&rest));
        // Others come, and those that are there change their turns.
        set_disks(&mut s, vec![draft("c", None), draft("d", None), draft("b", None)]).await.expect("set");
        s.nic("q", None, Some("web")).await.expect("a nic");
        let shares = Some(["u", "v", "t"].map(share).to_vec());
        let more = set(&mut s, Settings { shares, ..Settings::default() }).await.expect("set");
        let end = [("c", 10), ("d", 8), ("b", 9), ("o", 17), ("p", 18), ("q", 16), ("u", 27), ("v", 25), ("t", 26)];
        assert_eq!(places(&more), said(&end));
        // What is detached has no place to come back to.
        s.ask(NicAttach { nic: text("n"), machine: text("web") }).await.expect("attached");
        let last = s.get("web").await.expect("there");
        assert_eq!(places(&last)[6], ("n".to_owned(), 19));
        // A copy's guest finds all where the original's does, and a snapshot brings it back, but for the NICs.
        s.ask(NicDetach { nic: text("o") }).await.expect("detached");
        let original = s.get("web").await.expect("there");
        let name = "copy".parse().expect("a name");
        let copy = MachineClone { machine: text("web"), name, snapshot: None, full: false };
        let (copy, []) = s.ask_with(copy, []).await.expect("begun");
        s.done(copy).await.expect("copied");
        let slots = |view: &MachineView| places(view).into_iter().map(|(_, slot)| slot).collect::<Vec<_>>();
        assert_eq!(slots(&s.get("copy").await.expect("there")), slots(&original));
        assert_eq!(slots(&original), [10, 8, 9, 18, 16, 19, 27, 25, 26]);
        let then = "then".parse().expect("a name");
        // Where its disks have snapshots.
        if crate::platform::LAYERS {
            s.ask(WholeCreate { machine: text("web"), name: then }).await.expect("made");
        }
        set_disks(&mut s, vec![draft("d", Some(12)), draft("b", None), draft("c", Some(9))]).await.expect_err("b is there");
        set_disks(&mut s, vec![draft("d", Some(12)), draft("b", None), draft("c", Some(8))]).await.expect("set");
        s.ask(NicDetach { nic: text("p") }).await.expect("detached");
        if crate::platform::LAYERS {
            let back = s.ask(WholeRollBack { machine: text("web"), snapshot: text("then") }).await.expect("back");
            let end = [("c", 10), ("d", 8), ("b", 9), ("q", 16), ("n", 19), ("u", 27), ("v", 25), ("t", 26)];
            assert_eq!(places(&back), said(&end));
        }
        kept.replace(places(&s.get("web").await.expect("there")));
    });
    // It is kept, not reckoned.
    suite.live(async |life: Life| {
        life.up().await;
        let web = life.session().await.get("web").await.expect("there");
        assert_eq!(places(&web), kept.take());
    });
}

#[test]
fn a_chosen_place_wins_and_two_devices_at_one_place_are_refused() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for name in ["a", "b"] {
            s.disk(name).await.expect("a disk");
        }
        s.machine("web", &[]).await.expect("a machine");
        // Who comes leaves it free for who says so.
        let both = set_disks(&mut s, vec![draft("a", None), draft("b", Some(8))]).await.expect("set");
        assert_eq!(places(&both), said(&[("a", 9), ("b", 8)]));
        let refusal = set_disks(&mut s, vec![draft("a", None), draft("b", Some(9))]).await.expect_err("a is there");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "places"));
        assert!(refusal.note.as_str().contains("places.disk1 is 9: it must be another than that of disk0"), "{refusal}");
        let places_of = |device: &str, slot| vec![Place { device: Text::lossy(device), slot }];
        let rng = set(&mut s, Settings { places: Some(places_of("rng", 9)), ..Settings::default() }).await;
        assert_eq!(reason(rng), Reason::InvalidValue);
        // A choice that is taken back leaves the next one that is free.
        let both = set_disks(&mut s, vec![draft("a", None), draft("b", None)]).await.expect("set");
        assert_eq!(places(&both), said(&[("a", 9), ("b", 8)]));
        s.nic("n", None, Some("web")).await.expect("a nic");
        // A share has its chosen place when it has another turn, too.
        let shares = Some(["s", "t"].map(share).to_vec());
        let chosen = Settings { shares, places: Some(places_of("share1", 20)), ..Settings::default() };
        set(&mut s, chosen).await.expect("set");
        let shares = Some(["t", "s"].map(share).to_vec());
        let turned = set(&mut s, Settings { shares, ..Settings::default() }).await.expect("set");
        assert_eq!(places(&turned), said(&[("a", 9), ("b", 8), ("n", 16), ("t", 20), ("s", 25)]));
    });
}

#[test]
fn machines_of_before_have_the_places_that_they_had() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("skep.db");
    let old = rusqlite::Connection::open(&path).expect("made");
    let before = MIGRATIONS.iter().position(|sql| sql.contains("share_places")).expect("the step");
    for sql in MIGRATIONS.iter().take(before) {
        old.execute_batch(sql).expect("migrated");
    }
    old.pragma_update(None, "user_version", u32::try_from(before).expect("few")).expect("written");
    let id = |n: u8| format!("00000000-0000-0000-0000-0000000000{n:02}");
    let machine = format!(
        "INSERT INTO machines (id, name, stage, state, cpus, memory_mib, acceleration, screen, cpu_percent, description, created_ns, shares)
         VALUES ('{}', 'web', 'ready', 'stopped', 1, 64, 0, 0, 0, '', 5, 's t,ro')",
        id(1)
    );
    old.execute_batch(&machine).expect("written");
    // Virtio, AHCI, virtio at a chosen place, NVMe, virtio SCSI.
    for (position, (controller, slot)) in (0u8..).zip([(0, "NULL"), (2, "NULL"), (0, "20"), (1, "NULL"), (4, "NULL")]) {
        let disk = id(10 + position);
        let row = format!(
            "INSERT INTO disks (id, name, kind, size, state, created_ns) VALUES ('{disk}', 'd{position}', 0, 512, 'ready', 5);
             INSERT INTO machine_disks (machine, position, disk, controller, read_only, slot)
             VALUES ('{}', {position}, '{disk}', {controller}, 0, {slot})",
            id(1)
        );
        old.execute_batch(&row).expect("written");
    }
    // The first, and one between, were detached.
    for (n, position) in [(1u8, 1), (2, 3), (3, 4)] {
        let row = format!(
            "INSERT INTO nics (id, name, number, mac, machine, position, created_ns)
             VALUES ('{}', 'n{n}', {n}, x'02000000000{n}', '{}', {position}, 5)",
            id(20 + n),
            id(1)
        );
        old.execute_batch(&row).expect("written");
    }
    drop(old);
    let db = Db::open(&path).expect("upgraded");
    let mut machine = db.find_machine("web").expect("read").expect("kept");
    let kept: Vec<_> = machine.spec.kept.iter().map(|kept| (kept.device, kept.slot)).collect();
    use Device::{Disk, Nic, Share};
    let want = [
        (Share(0), 25),
        (Share(1), 26),
        (Disk(0), 8),
        (Disk(1), 1),
        (Disk(3), 11),
        (Disk(4), 4),
        (Nic(0), 16),
        (Nic(1), 17),
        (Nic(2), 18),
    ];
    assert_eq!(kept, want);
    let places = machine.spec.pci(machine.id).expect("a model");
    // As it was reckoned until then.
    machine.spec.kept.clear();
    assert_eq!(machine.spec.pci(machine.id).expect("a model"), places);
}
