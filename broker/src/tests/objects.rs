//! Disks, switches, NICs, streams, events, tokens: what users ask, and what becomes of it.

use super::requests::{reason, share, text, web};
use super::services::finish_job;
use super::suite::{Life, Session, Suite};
use skep_ipc::aio::Port;
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, LogKind, Packing, SourceFormat};
use skep_proto::{Reason, Text, UpTo, upload, wire};
use std::io::Write;

#[test]
fn snapshots_are_made_rolled_back_to_and_deleted() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let mut s = life.session().await;
        life.up().await;
        let name = |name: &str| name.parse().expect("a name");
        s.ask(DiskCreate { name: name("vol"), kind: DiskKind::Zvol, size: 1 << 20, group: None }).await.expect("a disk");
        s.disk("file").await.expect("a disk");
        s.machine("web", &["vol"]).await.expect("a machine");
        let create = |disk: &str, snapshot: &str| SnapshotCreate { disk: text(disk), name: snapshot.parse().expect("a name") };
        let back = |snapshot: &str| SnapshotRollBack { disk: text("vol"), snapshot: text(snapshot) };
        let delete = |snapshot: &str| SnapshotDelete { disk: text("vol"), snapshot: text(snapshot) };
        let list = || SnapshotList { disk: text("vol"), after: None };
        let of_file = s.ask(create("file", "a")).await;
        let listed = s.ask(SnapshotList { disk: text("file"), after: None }).await.expect("a list").snapshots;
        if crate::platform::LAYERS {
            assert_eq!(listed, [of_file.expect("made")]);
            s.ask(SnapshotRollBack { disk: text("file"), snapshot: text("a") }).await.expect("rolled back");
            s.ask(SnapshotDelete { disk: text("file"), snapshot: text("a") }).await.expect("deleted");
        } else {
            assert_eq!((reason(of_file), listed), (Reason::Unsupported, vec![]));
        }
        assert_eq!(reason(s.ask(back("before")).await), Reason::NotFound);
        let before = s.ask(create("vol", "before")).await.expect("made");
        assert_eq!((before.size, before.used), (1 << 20, 4096));
        assert_eq!(reason(s.ask(create("vol", "before")).await), Reason::AlreadyExists);
        s.ask(DiskResize { disk: text("vol"), size: 2 << 20, shrink: false }).await.expect("enlarged");
        // While a machine runs from it: made, but not rolled back to.
        s.act("web", Act::Start).await.expect("started");
        s.ask(create("vol", "after")).await.expect("made");
        assert_eq!(reason(s.ask(back("after")).await), Reason::InUse);
        s.act("web", Act::Kill).await.expect("killed");
        let refusal = s.ask(back("before")).await.expect_err("a newer one is there");
        assert!(refusal.to_string().contains("snapshot after is newer"), "{refusal}");
        let listed = s.ask(list()).await.expect("a list").snapshots;
        let listed: Vec<_> = listed.iter().map(|v| (v.name.as_str(), v.used)).collect();
        assert_eq!(listed, [("after", 8192), ("before", 8192)]);
        s.ask(delete("after")).await.expect("deleted");
        assert_eq!(reason(s.ask(delete("after")).await), Reason::NotFound);
        assert_eq!(s.ask(back(&before.id.to_string())).await.expect("rolled back").size, 1 << 20);
        s.ask(MachineDelete { machine: text("web"), disks: false }).await.expect("begun");
        suite.settled(&life.broker).await;
        let refusal = s.ask(DiskDelete { disk: text("vol") }).await.expect_err("it has a snapshot");
        assert!(refusal.to_string().contains("before"), "{refusal}");
        s.ask(delete("before")).await.expect("deleted");
        s.ask(DiskDelete { disk: text("vol") }).await.expect("deleted");
        assert_eq!(suite.world.lock().snapshots.len(), 0);
    });
}

#[test]
fn firmware_is_changed_while_its_machine_stands_still() {
    use skep_proto::storage::{BootRef, VarEdit};
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let mut s = life.session().await;
        life.up().await;
        for disk in ["root", "data", "other"] {
            s.disk(disk).await.expect("a disk");
        }
        s.machine("web", &["root", "data"]).await.expect("a machine");
        let edit = |change| FirmwareEdit { machine: text("web"), change };
        let disk = |name: &str| BootChoice::Disk(text(name));
        let order = FirmwareChange::Order(vec![disk("data"), BootChoice::Entry(7)]);
        assert_eq!(s.ask(edit(order.clone())).await.expect("done").order, [1]);
        // The second disk's place on the bus.
        let place = skep_machine::place::disk(1).expect("a slot");
        let path = [&[2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0][..], &[1, 1, 6, 0, 0, place]].concat();
        let expected = VarEdit::Order(vec![BootRef::Path(path), BootRef::Entry(7)]);
        assert_eq!(suite.world.lock().edits.pop(), Some(expected));
        assert_eq!(reason(s.ask(edit(FirmwareChange::Next(Some(disk("other"))))).await), Reason::NotFound);
        assert_eq!(reason(s.ask(edit(FirmwareChange::Next(Some(disk("none"))))).await), Reason::NotFound);
        assert_eq!(reason(s.ask(edit(FirmwareChange::Order(vec![]))).await), Reason::InvalidValue);
        // One that is not there is not deleted.
        let delete = FirmwareChange::Delete("Lang".parse().expect("a name"));
        assert_eq!(reason(s.ask(edit(delete)).await), Reason::NotFound);
        s.act("web", Act::Start).await.expect("started");
        let refusal = s.ask(edit(order)).await.expect_err("it runs");
        assert!(refusal.reason == Reason::WrongState && refusal.to_string().contains("stop it first"), "{refusal}");
        assert_eq!(reason(s.ask(edit(FirmwareChange::Reset)).await), Reason::WrongState);
        s.ask(FirmwareList { machine: text("web"), after: None }).await.expect("read");
        // That the order is the firmware's own is no change of the settings.
        assert_eq!(s.get("web").await.expect("it is there").pending, []);
        s.act("web", Act::Kill).await.expect("killed");
        s.ask(edit(FirmwareChange::Reset)).await.expect("done");
        assert_eq!(suite.world.lock().edits, [VarEdit::Reset]);
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_copied_disk_cannot_be_deleted_meanwhile() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        suite.world.lock().hold_jobs = true;
        let copy = |name: &str| DiskClone {
            disk: text("root"),
            name: name.parse().expect("a name"),
            image: None,
            full: false,
            snapshot: None,
        };
        let op = s.ask(copy("copy")).await.expect("begun");
        while suite.world.lock().jobs.is_empty() {
            suite.world.news.notified().await;
        }
        assert_eq!(reason(s.act("web", Act::Start).await), Reason::InUse);
        assert_eq!(reason(s.ask(DiskResize { disk: text("root"), size: 1 << 30, shrink: false }).await), Reason::InUse);
        let del = MachineDelete { machine: text("web"), disks: true };
        assert_eq!(reason(s.ask(del).await), Reason::InUse);
        assert_eq!(reason(s.machine("hasty", &["copy"]).await), Reason::WrongState);
        s.ask(OperationCancel { id: op.id }).await.expect("asked");
        assert_eq!(reason(s.done(op).await), Reason::Cancelled);
        suite.settled(&life.broker).await;
        let op = s.ask(copy("copy")).await.expect("the name is free");
        while suite.world.lock().jobs.len() < 2 {
            suite.world.news.notified().await;
        }
        let (disk, channel) = suite.world.lock().jobs.pop().expect("a job");
        finish_job(&suite.world, disk, &channel, 1 << 20);
        s.done(op).await.expect("copied");
        s.ask(DiskDelete { disk: text("copy") }).await.expect("deleted");
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_deleted_machine_takes_its_disks_along() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.disk("shared").await.expect("a disk");
        s.disk("own").await.expect("a disk");
        let both = Settings {
            disks: Some(
                ["shared", "own"]
                    .map(|n| DiskDraft {
                        disk: text(n),
                        controller: Controller::Nvme,
                        read_only: true,
                        flags: DiskFlags::default(),
                        on: None,
                    })
                    .into(),
            ),
            ..Settings::default()
        };
        s.ask(MachineSet { machine: text("web"), settings: both, revision: 0 }).await.expect("set");
        s.machine("other", &["shared"]).await.expect("a machine");
        let op = s.ask(MachineDelete { machine: text("web"), disks: true }).await.expect("begun");
        s.done(op).await.expect("deleted");
        let disks = s.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks;
        assert_eq!(disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["root", "shared"]);
        let nics = s.ask(NicList { after: None }).await.expect("a list").nics;
        assert_eq!(nics.iter().map(|n| (n.name.as_str(), n.machine.as_str())).collect::<Vec<_>>(), [("web-0", "")]);
        suite.settled(&life.broker).await;
    });
}

#[test]
fn an_import_fills_a_disk_or_leaves_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let import = |name: &str| DiskImport {
            name: name.parse().expect("a name"),
            kind: DiskKind::Raw,
            format: SourceFormat::Raw,
            packing: Packing::Detect,
            expect: 0,
            sha256: None,
            group: None,
            iso: false,
            image: None,
            description: Text::default(),
        };
        let (op, stream) = s.import_with(import("image")).await.expect("begun");
        assert_eq!(reason(s.disk("image").await), Reason::AlreadyExists);
        let piece = [&upload::header(5000).expect("a length")[..], &[7; 5000], &upload::END].concat();
        std::fs::File::from(stream).write_all(&piece).expect("written");
        s.done(op).await.expect("imported");
        assert_eq!(s.ask(DiskGet { disk: text("image") }).await.expect("it is there").size, 5000);
        let (op, stream) = s.import_with(import("other")).await.expect("begun");
        s.ask(OperationCancel { id: op.id }).await.expect("asked");
        assert_eq!(reason(s.done(op).await), Reason::Cancelled);
        assert_eq!(reason(s.ask(DiskGet { disk: text("other") }).await), Reason::NotFound);
        drop(stream);
    });
}

#[test]
fn a_switch_with_nics_stays() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let delete = || SwitchDelete { switch: text("lan") };
        assert_eq!(reason(s.ask(delete()).await), Reason::InUse);
        assert_eq!(reason(s.ask(NicDelete { nic: text("web-0") }).await), Reason::InUse);
        s.ask(NicDetach { nic: text("web-0") }).await.expect("detached");
        s.ask(NicDelete { nic: text("web-0") }).await.expect("deleted");
        assert_eq!(s.ask(NicList { after: None }).await.expect("a list").nics, []);
        s.ask(delete()).await.expect("deleted");
        assert_eq!(s.ask(SwitchList { after: None }).await.expect("a list").switches, []);
        assert_eq!(reason(s.switch("wan", Some("missing")).await), Reason::NotFound);
        s.switch("wan", None).await.expect("the name is free");
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_nic_goes_to_a_stopped_machine_only() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.machine("other", &[]).await.expect("a machine");
        let attach = |nic: &str, machine: &str| NicAttach { nic: text(nic), machine: text(machine) };
        assert_eq!(reason(s.ask(attach("web-0", "other")).await), Reason::InUse);
        s.act("web", Act::Start).await.expect("started");
        assert_eq!(reason(s.ask(NicDetach { nic: text("web-0") }).await), Reason::WrongState);
        s.nic("free", None, None).await.expect("a nic");
        assert_eq!(reason(s.ask(attach("free", "web")).await), Reason::WrongState);
        assert_eq!(s.ask(attach("free", "other")).await.expect("attached").machine.as_str(), "other");
        let mac = NicCreate {
            name: "bad".parse().expect("a name"),
            switch: None,
            mac: Some([1, 0, 0, 0, 0, 0]),
            machine: None,
            group: None,
            model: NicModel::VirtioNet,
            slot: None,
            address: None,
            rates: skep_proto::Rates::default(),
            isolated: false,
            forwards: Default::default(),
        };
        assert_eq!(reason(s.ask(mac).await), Reason::InvalidValue);
        for n in 1..4 {
            s.nic(&format!("other-{n}"), None, Some("other")).await.expect("a nic");
        }
        assert_eq!(reason(s.nic("fifth", None, Some("other")).await), Reason::LimitReached);
    });
}

#[test]
fn streams_are_joined_by_descriptor() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let settings = Settings { channels: Some(vec![text("a"), text("b")]), ..Settings::default() };
        s.ask(MachineSet { machine: text("web"), settings, revision: 0 }).await.expect("set");
        let channel = |name: &str| MachineChannel { machine: text("web"), channel: text(name) };
        assert_eq!(reason(s.ask_with(channel("b"), []).await), Reason::WrongState);
        let console = || MachineConsole { machine: text("web"), write: true, take: false, port: 1 };
        assert_eq!(reason(s.ask_with(console(), []).await), Reason::WrongState);
        s.act("web", Act::Start).await.expect("started");
        assert!(s.ask_with(console(), []).await.expect("attached").0.writer);
        s.ask_with(MachineScreen { machine: text("web") }, []).await.expect("attached");
        s.ask_with(channel("b"), []).await.expect("attached");
        let refusal = s.ask_with(channel("c"), []).await.expect_err("no such channel");
        assert_eq!((refusal.reason, refusal.note.as_str()), (Reason::NotFound, "it runs with a, b"));
        let log = MachineLog { machine: text("web"), log: LogKind::Serial, follow: false };
        let (opened, UpTo(files)) = s.ask_with(log, []).await.expect("opened");
        assert_eq!((opened.files, files.len()), (1, 1));
        let log = HostLog { service: ServiceName::Broker, follow: true };
        let (opened, UpTo(files)) = s.ask_with(log, []).await.expect("opened");
        assert_eq!((opened.files, files.len()), (1, 2));
    });
}

#[test]
fn a_watch_resumes_where_it_was_or_says_gap() {
    Suite::new().live(async |life: Life| {
        let mut s = life.session().await;
        let watch = |after, object: &str| EventWatch { after, object: Text::lossy(object) };
        let (_, [events]) = s.ask_with(watch(None, "nic"), []).await.expect("a watch");
        let port = Port::new(events).expect("a port");
        s.machine("web", &[]).await.expect("a machine");
        s.nic("a", None, None).await.expect("a nic");
        let next = async |port: &Port| wire::decode::<EventView>(&port.recv().await.expect("an event").bytes).expect("decodes");
        let first = next(&port).await;
        assert_eq!((first.name.as_str(), first.what.as_str()), ("a", "created"));
        drop(port);
        s.nic("b", None, None).await.expect("a nic");
        let (_, [events]) = s.ask_with(watch(Some(first.token), ""), []).await.expect("a watch");
        assert_eq!(next(&Port::new(events).expect("a port")).await.name.as_str(), "b");
        assert_eq!(reason(s.ask_with(watch(Some(1 << 40), ""), []).await), Reason::Gap);
        // All from the beginning.
        let (_, [events]) = s.ask_with(watch(Some(0), ""), []).await.expect("a watch");
        assert_eq!(next(&Port::new(events).expect("a port")).await.name.as_str(), "web");
    });
}

#[test]
fn a_token_opens_a_session_and_makes_no_other() {
    Suite::new().live(async |life: Life| {
        let mut s = life.session().await;
        let create = || TokenCreate { name: Text::lossy("laptop"), user: None, seconds: 0 };
        let made = s.ask(create()).await.expect("made");
        assert_eq!(reason(s.ask(create()).await), Reason::AlreadyExists);
        assert!(!format!("{made:?}").contains(made.token.as_str()));
        let mut remote = Session(life.connect().await);
        let open = OpenSession { credential: Credential::Token(made.token) };
        assert_eq!(remote.ask_with(open, UpTo(vec![])).await.expect("a session").0.user.as_str(), "token laptop");
        remote.ask(MachineList { after: None }).await.expect("a list");
        assert_eq!(
            reason(remote.ask(TokenCreate { name: Text::lossy("x"), user: None, seconds: 0 }).await),
            Reason::PermissionDenied
        );
    });
}

#[test]
fn a_host_is_shown_without_its_helpers() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let mut s = life.session().await;
        // As it begins, nothing is connected yet.
        let host = s.ask(HostShow {}).await.expect("shown");
        assert_eq!((host.instance.as_str(), host.cpus), ("test", 8));
        life.up().await;
        let host = s.ask(HostShow {}).await.expect("shown");
        assert_eq!((host.hypervisor.as_str(), host.helpers.len()), ("QEMU of the tests", 3));
    });
}

#[test]
fn devices_are_kept_shown_and_told_as_changes() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.act("web", Act::Start).await.expect("started");
        let given =
            Settings { sound: Some(true), tpm: Some(true), channels: Some(vec![text("b"), text("a.0")]), ..Settings::default() };
        let shares = vec![share("src", true), share("out.d", false)];
        let given = Settings { shares: Some(shares.clone()), ..given };
        let edited = s.ask(MachineSet { machine: text("web"), settings: given, revision: 0 }).await.expect("set");
        let names: Vec<_> = edited.changes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["sound", "tpm", "channels", "shares"]);
        assert_eq!(s.get("web").await.expect("it is there").shares, shares);
        let view = s.get("web").await.expect("it is there");
        assert_eq!((view.sound, view.tpm, &view.channels[..]), (true, true, &[text("b"), text("a.0")][..]));
        assert_eq!(view.pending.iter().map(Text::as_str).collect::<Vec<_>>(), names);
        let none = Settings { sound: Some(false), tpm: Some(false), channels: Some(vec![]), ..Settings::default() };
        let none = Settings { shares: Some(vec![]), ..none };
        let edited = s.ask(MachineSet { machine: text("web"), settings: none, revision: 0 }).await.expect("set");
        assert_eq!(
            (edited.machine.sound, edited.machine.tpm, edited.machine.channels, edited.machine.pending),
            (false, false, vec![], vec![])
        );
    });
}
