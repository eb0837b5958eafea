//! Serial ports, debuggers, ISO images, controllers: what users ask of them, and what becomes of it.

use super::requests::{reason, text, web};
use super::suite::{Life, Session, Suite};
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Reason, SerialPort, Text, upload};
use std::io::Write;

/// Of a disk: its name, where it is, and its controller's name with its place there.
type SeatSeen = (String, Controller, Option<(String, u8)>);

#[test]
fn serial_ports_are_those_that_it_runs_with() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let port = |number, speed, log| SerialPort::new(number, speed, log).expect("a port");
        let set = |serial| MachineSet {
            machine: text("web"),
            settings: Settings { serial: Some(serial), ..Settings::default() },
            revision: 0,
        };
        let twice = s.ask(set(vec![port(2, 0, true), port(2, 300, true)])).await.expect_err("twice");
        assert_eq!((twice.reason, twice.field.as_str()), (Reason::InvalidValue, "serial"));
        assert_eq!(twice.note.as_str(), "port 2 is there twice");
        let (edited, []) = s.ask_with(set(vec![port(3, 9600, false)]), []).await.expect("set");
        assert_eq!(edited.machine.serial, [SerialPort::FIRST, port(3, 9600, false)]);
        s.act("web", Act::Start).await.expect("started");
        let console = |port| MachineConsole { machine: text("web"), write: true, take: false, port };
        // The stand-in says which it was asked for.
        assert_eq!(s.ask_with(console(3), []).await.expect("attached").0.scrollback, 3);
        let none = s.ask_with(console(2), []).await.expect_err("no such port");
        assert_eq!((none.reason, none.note.as_str()), (Reason::NotFound, "it runs with 1, 3"));
        let (edited, []) = s.ask_with(set(vec![port(3, 300, false)]), []).await.expect("set");
        assert_eq!(edited.changes, [(Text::lossy("serial"), Applies::NextStart)]);
        let (edited, []) = s.ask_with(set(vec![]), []).await.expect("set");
        assert_eq!(edited.machine.serial, [SerialPort::FIRST]);
        s.ask_with(console(3), []).await.expect("it still runs with it");
    });
}

#[test]
fn a_debugger_is_joined_where_it_was_allowed() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let gdb = || MachineGdb { machine: text("web") };
        assert_eq!(reason(s.ask_with(gdb(), []).await), Reason::WrongState);
        s.act("web", Act::Start).await.expect("started");
        let off = s.ask_with(gdb(), []).await.expect_err("off");
        assert_eq!((off.reason, off.field.as_str()), (Reason::WrongState, "gdb"));
        s.act("web", Act::Kill).await.expect("killed");
        let settings = Settings { gdb: Some(Gdb::On), ..Settings::default() };
        s.ask(MachineSet { machine: text("web"), settings, revision: 0 }).await.expect("set");
        let started = s.act("web", Act::Start).await;
        if crate::platform::HYPERVISOR == skep_machine::Hypervisor::Qemu {
            started.expect("started");
            s.ask_with(gdb(), []).await.expect("joined");
        } else {
            let refusal = started.expect_err("bhyve cannot");
            assert!(refusal.note.as_str().contains("TCP"), "{refusal}");
        }
    });
}

#[test]
fn an_exported_disk_is_not_written_meanwhile() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let export = || DiskExport { disk: text("root") };
        let (view, _file) = s.ask_with(export(), []).await.expect("opened");
        assert_eq!(view.name.as_str(), "root");
        s.act("web", Act::Start).await.expect("started");
        let refusal = s.ask_with(export(), []).await.expect_err("it is written");
        assert_eq!((refusal.reason, refusal.note.as_str()), (Reason::InUse, "machine web runs and can write it"));
    });
}

#[test]
fn an_iso_image_is_only_read_and_stays_what_it_is() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let import = |name: &str, kind| DiskImport {
            name: name.parse().expect("a name"),
            kind,
            format: SourceFormat::Detect,
            packing: Packing::Detect,
            expect: 0,
            sha256: None,
            group: None,
            iso: true,
            image: None,
            description: Text::default(),
        };
        let wrong = s.import_with(import("disc", DiskKind::Qcow2)).await.expect_err("not raw");
        assert_eq!((wrong.reason, wrong.field.as_str()), (Reason::InvalidValue, "kind"));
        let (op, stream) = s.import_with(import("disc", DiskKind::Raw)).await.expect("begun");
        let piece = [&upload::header(5000).expect("a length")[..], &[7; 5000], &upload::END].concat();
        std::fs::File::from(stream).write_all(&piece).expect("written");
        s.done(op).await.expect("imported");
        s.disk("root").await.expect("a disk");
        let names = async |s: &mut Session, iso| {
            let disks = s.ask(DiskList { after: None, iso, image: None }).await.expect("a list").disks;
            disks.iter().map(|disk| disk.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut s, Some(true)).await, ["disc"]);
        assert_eq!(names(&mut s, Some(false)).await, ["root"]);
        assert_eq!(names(&mut s, None).await, ["disc", "root"]);
        assert_eq!(reason(s.ask(DiskResize { disk: text("disc"), size: 1 << 21, shrink: false }).await), Reason::WrongState);
        assert_eq!(reason(s.ask(DiskWipe { disk: text("disc") }).await), Reason::WrongState);
        s.machine("web", &[]).await.expect("a machine");
        let attach = |controller, read_only| {
            let flags = DiskFlags::default();
            let disks = Some(vec![DiskDraft { disk: text("disc"), controller, read_only, flags, on: None }]);
            MachineSet { machine: text("web"), settings: Settings { disks, ..Settings::default() }, revision: 0 }
        };
        let writes = s.ask(attach(Controller::VirtioBlk, false)).await.expect_err("it would be written");
        assert_eq!((writes.reason, writes.field.as_str()), (Reason::InvalidValue, "disks"));
        s.ask(attach(Controller::VirtioBlk, true)).await.expect("read");
        s.ask(attach(Controller::AhciCd, false)).await.expect("a CD");
    });
}

#[test]
fn controllers_keep_their_places_and_disks_their_seats() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for name in ["a", "b", "c", "d"] {
            s.disk(name).await.expect("a disk");
        }
        s.machine("web", &[]).await.expect("a machine");
        let bus = |name: &str, kind, slot| Bus { name: Text::lossy(name), kind, slot };
        let on = |disk: &str, controller: &str, port| DiskDraft {
            disk: text(disk),
            controller: Controller::VirtioBlk,
            read_only: false,
            flags: DiskFlags::default(),
            on: Some(DiskSeat { controller: Text::lossy(controller), port }),
        };
        let set = |controllers, disks| {
            let settings = Settings { controllers, disks, ..Settings::default() };
            MachineSet { machine: text("web"), settings, revision: 0 }
        };
        let (sata, fast) = (bus("sata", BusKind::Ahci, 0), bus("fast", BusKind::Nvme, 9));
        let disks = vec![on("a", "sata", Some(3)), on("b", "fast", None), on("c", "sata", None)];
        let set_up = s.ask(set(Some(vec![sata.clone(), fast.clone()]), Some(disks))).await.expect("set").machine;
        assert_eq!(set_up.controllers.iter().map(|bus| bus.slot).collect::<Vec<_>>(), [20, 9]);
        let seats = |view: &MachineView| {
            let seat = |d: &MachineDisk| d.on.as_ref().map(|on| (on.controller.to_string(), on.port.unwrap_or(99)));
            view.disks.iter().map(|d| (d.name.to_string(), d.controller, seat(d))).collect::<Vec<_>>()
        };
        let sits = |name: &str, controller, at: &str, port| (name.to_owned(), controller, Some((at.to_owned(), port)));
        let want = vec![
            sits("a", Controller::Ahci, "sata", 3),
            sits("b", Controller::Nvme, "fast", 0),
            sits("c", Controller::Ahci, "sata", 0),
        ];
        assert_eq!(seats(&set_up), want);
        let place = |view: &MachineView, name: &str| view.pci.iter().find(|p| p.device.as_str() == name).map(|p| p.slot);
        assert_eq!((place(&set_up, "sata"), place(&set_up, "fast")), (Some(20), Some(9)));
        // Another one goes between, and disks change places in the list: nothing moves on a bus.
        let more = vec![bus("more", BusKind::VirtioScsi, 0), fast, sata];
        let disks = vec![on("d", "more", None), on("c", "sata", None), on("a", "sata", None), on("b", "fast", None)];
        let moved = s.ask(set(Some(more), None)).await.expect("set").machine;
        assert_eq!(seats(&moved), want);
        let moved = s.ask(set(None, Some(disks))).await.expect("set").machine;
        assert_eq!((place(&moved, "sata"), place(&moved, "fast"), place(&moved, "more")), (Some(20), Some(9), Some(21)));
        assert_eq!(seats(&moved)[1..], [want[2].clone(), want[0].clone(), want[1].clone()]);
        // What cannot be is refused with its field.
        for (controllers, disks, field, says) in [
            (Some(vec![]), None, "controllers", "which goes"),
            (None, Some(vec![on("a", "none", None)]), "disks", "has no controller none"),
            (None, Some(vec![on("a", "sata", Some(6))]), "disks", "0 to 5"),
            (None, Some(vec![on("a", "sata", Some(1)), on("b", "sata", Some(1))]), "disks", "another than that of disk 0"),
            (Some(vec![bus("a b", BusKind::Ahci, 0)]), Some(vec![]), "controllers", "letters, digits"),
            (Some(vec![bus("a", BusKind::Ahci, 2)]), Some(vec![]), "controllers", "another than that of screen"),
            (Some(vec![bus("a", BusKind::VirtioBlk, 0)]), Some(vec![on("a", "a", None), on("b", "a", None)]), "disks", "0 to 0"),
        ] {
            let refusal = s.ask(set(controllers, disks)).await.expect_err(says);
            assert!(refusal.field.as_str().starts_with(field) && refusal.note.as_str().contains(says), "{refusal}");
        }
        // A copy has them, too.
        let (copy, []) = s
            .ask_with(
                MachineClone { machine: text("web"), name: "copy".parse().expect("a name"), snapshot: None, full: false },
                [],
            )
            .await
            .expect("begun");
        s.done(copy).await.expect("copied");
        let copied = s.ask(MachineGet { machine: text("copy") }).await.expect("there");
        let of = |seats: Vec<SeatSeen>| seats.into_iter().map(|(_, c, s)| (c, s)).collect::<Vec<_>>();
        assert_eq!(of(seats(&copied)), of(seats(&moved)));
    });
}

#[test]
fn what_no_machine_may_have_is_named_with_its_value_and_its_limit() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        type Edit = fn(&mut LimitsDraft);
        let limits: [(Edit, &str); 8] = [
            (|l| l.memory_mib = Some(191), "limits.memory_mib is 191: it must be at least 192: the guest's 64 and 128"),
            (|l| l.tasks = Some(15), "limits.tasks is 15: it must be 16 to 65536"),
            (|l| l.pcpu = Some(25_601), "limits.pcpu is 25601: it must be 1 to 25600"),
            (|l| l.read_bps = Some(4095), "limits.read_bps is 4095: it must be 4096 to 1125899906842624"),
            (|l| l.write_bps = Some(u64::MAX), "limits.write_bps is 18446744073709551615: it must be 4096 to 1125899906842624"),
            (|l| l.read_iops = Some(100_000_001), "limits.read_iops is 100000001: it must be 1 to 100000000"),
            (|l| l.write_iops = Some(u64::MAX), "limits.write_iops is 18446744073709551615: it must be 1 to 100000000"),
            (|l| l.priority = Some(-21), "limits.priority is -21: it must be -20 to 19"),
        ];
        for (edit, says) in limits {
            let mut limits = LimitsDraft::default();
            edit(&mut limits);
            let settings = Settings { limits, ..Settings::default() };
            let refusal = s.ask(MachineSet { machine: text("web"), settings, revision: 0 }).await.expect_err(says);
            assert_eq!(refusal.reason, Reason::InvalidValue);
            assert!(refusal.note.as_str().starts_with(says), "{says}: {refusal}");
        }
        let there = s.get("web").await.expect("a machine").nics.len();
        for number in there..4 {
            s.nic(&format!("n{number}"), None, Some("web")).await.expect("a nic");
        }
        let refusal = s.nic("more", None, Some("web")).await.expect_err("a fifth");
        assert_eq!((refusal.reason, refusal.note.as_str()), (Reason::LimitReached, "a machine has at most 4 NICs"));
        assert_eq!(reason(s.ask(NicGet { nic: text("more") }).await), Reason::NotFound, "nothing was made");
    });
}
