//! Machines: what users ask, and what becomes of it.

use super::suite::{Life, Session, Suite};
use skep_proto::broker::*;
use skep_proto::runner::{End, Phase, RunnerEvent};
use skep_proto::{MachineId, Reason, Refusal, Share, Text};
use std::time::Instant;

pub fn text(name: &str) -> Ref {
    Text::lossy(name)
}

pub fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
    result.expect_err("refused").reason
}

/// A suite with a machine that has a disk and a NIC.
pub async fn web(life: &Life) -> (Session, MachineView) {
    life.up().await;
    let mut s = life.session().await;
    s.disk("root").await.expect("a disk");
    s.switch("lan", None).await.expect("a switch");
    let machine = s.machine("web", &["root"]).await.expect("a machine");
    s.nic("web-0", Some("lan"), Some("web")).await.expect("a nic");
    (s, machine)
}

/// Waits until a machine is like that.
async fn until(life: &Life, s: &mut Session, name: &str, state: MachineState) -> MachineView {
    let mut news = life.broker.news();
    loop {
        news.mark_unchanged();
        let view = s.get(name).await.expect("it is there");
        if view.state == state {
            return view;
        }
        news.changed().await.expect("the broker lives");
    }
}

pub fn share(name: &str, read_only: bool) -> Share {
    Share { name: name.parse().expect("a name"), read_only }
}

#[test]
fn a_machine_is_defined_and_listed() {
    Suite::new().live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        assert_eq!((machine.state, machine.cpus, machine.memory_mib, machine.revision), (MachineState::Stopped, 1, 64, 1));
        let view = s.get("web").await.expect("by name");
        assert_eq!(view.disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["root"]);
        let nic = view.nics.first().expect("a nic");
        assert_eq!((nic.name.as_str(), nic.switch.as_str(), nic.mac.first()), ("web-0", "lan", Some(&2)));
        assert_eq!(s.get(&machine.id.to_string()).await, Ok(view.clone()));
        assert_eq!(s.ask(MachineList { after: None }).await.expect("a list").machines, [view]);
        assert_eq!(reason(s.get("web2").await), Reason::NotFound);
    });
}

fn limited(limits: LimitsDraft) -> Settings {
    Settings { limits, ..Settings::default() }
}

#[test]
fn limits_reach_the_cell_and_what_the_host_cannot_do_is_refused() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let set = async |s: &mut Session, limits| {
            s.ask(MachineSet { machine: text("web"), settings: limited(limits), revision: 0 }).await.expect("set").machine
        };
        // The spawner of the tests offers no rates.
        let view = set(&mut s, LimitsDraft { read_bps: Some(1 << 20), tasks: Some(99), ..LimitsDraft::default() }).await;
        assert_eq!((view.limits.read_bps, view.limits.tasks), (1 << 20, 99));
        let refusal = s.act("web", Act::Start).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Unsupported, "limits.read_bps"), "{refusal}");
        // Why depends on the host: cgroups are root's, rctl(8) wants a tunable.
        assert!(["root", "kern.racct"].iter().any(|why| refusal.note.as_str().contains(why)), "{refusal}");
        let view = set(&mut s, LimitsDraft { read_bps: Some(0), cpus: "0".parse().ok(), ..LimitsDraft::default() }).await;
        assert_eq!((view.limits.read_bps, view.limits.cpus.to_string().as_str()), (0, "0"));
        // What shows only once its disks are open.
        let unkept = Refusal::new(Reason::Unsupported, "machine 7").field("limits.write_bps").note("no block device");
        suite.world.lock().unkept = Some(unkept.clone());
        assert_eq!(s.act("web", Act::Start).await, Err(Refusal { object: Text::lossy("machine web"), ..unkept }));
        assert!(suite.world.lock().cells.is_empty());
        s.act("web", Act::Start).await.expect("started");
        let limits = suite.world.lock().limits.clone().expect("a cell was made");
        assert_eq!((limits.tasks, limits.cpus.to_string().as_str(), limits.memory), (Some(99), "0", None));
    });
}

#[test]
fn a_machine_that_cannot_be_is_refused_with_its_field() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let disk = |name: &str| DiskDraft {
            disk: text(name),
            controller: Controller::Nvme,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        };
        let ahci = |name: &str| DiskDraft {
            disk: text(name),
            controller: Controller::Ahci,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        };
        for n in 0..7 {
            s.disk(&format!("d{n}")).await.expect("a disk");
        }
        let direct = |kernel: &str, cmdline: &str| {
            Some(BootDraft::Direct { kernel: text(kernel), initrd: None, cmdline: Text::lossy(cmdline) })
        };
        let none = Settings::default;
        let cases = [
            (Settings { cpus: Some(0), ..none() }, "cpus"),
            (Settings { cpus: Some(65), ..none() }, "cpus"),
            (Settings { memory_mib: Some(15), ..none() }, "memory"),
            (Settings { memory_mib: Some(u64::MAX), ..none() }, "memory"),
            (Settings { cpu_percent: Some(u32::MAX), ..none() }, "cpu_percent"),
            (limited(LimitsDraft { memory_mib: Some(600), ..LimitsDraft::default() }), "limits.memory_mib"),
            (limited(LimitsDraft { tasks: Some(1), ..LimitsDraft::default() }), "limits.tasks"),
            (limited(LimitsDraft { write_bps: Some(1), ..LimitsDraft::default() }), "limits.write_bps"),
            (limited(LimitsDraft { pins: "1:0".parse().ok(), ..LimitsDraft::default() }), "limits.pins"),
            (limited(LimitsDraft { priority: Some(20), ..LimitsDraft::default() }), "limits.priority"),
            (Settings { disks: Some(vec![disk("root"), disk("root")]), ..none() }, "disks"),
            (Settings { disks: Some((0..7).map(|n| ahci(&format!("d{n}"))).collect()), ..none() }, "disks[6].slot"),
            (Settings { disks: Some(vec![disk("missing")]), ..none() }, "disks"),
            (Settings { boot: direct("missing", ""), ..none() }, "boot.kernel"),
            (Settings { channels: Some(vec![text("a/b")]), ..none() }, "channels"),
            (Settings { channels: Some(vec![text("a"), text("a")]), ..none() }, "channels"),
            (Settings { channels: Some(vec![text("a"); 5]), ..none() }, "channels"),
            (Settings { shares: Some(vec![share("a", true), share("a", false)]), ..none() }, "shares"),
            (Settings { shares: Some(vec![share("a", true); 5]), ..none() }, "shares"),
            (Settings { boot: direct("root", "with \" quote"), ..none() }, "boot.cmdline"),
        ];
        for (settings, field) in cases {
            let refusal =
                s.ask(MachineCreate { name: "bad".parse().expect("a name"), settings, group: None }).await.expect_err("refused");
            assert_eq!(refusal.field.as_str(), field, "{refusal}");
        }
        assert_eq!(reason(s.get("bad").await), Reason::NotFound);
    });
}

#[test]
fn names_are_unique() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        assert_eq!(reason(s.machine("web", &[]).await), Reason::AlreadyExists);
        assert_eq!(reason(s.disk("root").await), Reason::AlreadyExists);
        assert_eq!(reason(s.switch("lan", None).await), Reason::AlreadyExists);
        assert_eq!(reason(s.nic("web-0", None, None).await), Reason::AlreadyExists);
        s.machine("other", &[]).await.expect("a machine");
        let rename = |name: &str| MachineRename { machine: text("other"), name: name.parse().expect("a name") };
        assert_eq!(reason(s.ask(rename("web")).await), Reason::AlreadyExists);
        assert_eq!(s.ask(rename("third")).await.expect("renamed").name.as_str(), "third");
        s.machine("other", &[]).await.expect("the name is free");
    });
}

#[test]
fn a_thousand_machines_are_listed_in_pages() {
    Suite::new().live(async |life: Life| {
        let mut s = life.session().await;
        for n in 0..1000 {
            s.machine(&format!("m{n:04}"), &[]).await.expect("a machine");
        }
        let begun = Instant::now();
        let (mut names, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = s.ask(MachineList { after }).await.expect("a page").machines;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            names.extend(page.into_iter().map(|m| m.name.to_string()));
            pages += 1;
        }
        eprintln!("1000 machines in {pages} pages: {:?}", begun.elapsed());
        assert_eq!(names, (0..1000).map(|n| format!("m{n:04}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_machine_starts_stops_and_leaves_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        assert_eq!(reason(s.act("web", Act::Stop(Stop::default())).await), Reason::WrongState);
        s.act("web", Act::Start).await.expect("started");
        let view = s.get("web").await.expect("it is there");
        assert_eq!((view.state, view.started_ns > 0, view.pending), (MachineState::Running, true, vec![]));
        let calls = suite.world.lock().calls.clone();
        let mut start: Vec<_> = calls.into_iter().filter(|c| !c.starts_with("List") && !c.starts_with("Create")).collect();
        // A line's log is opened while the cell is made, and the runner is watched while the console-proxy starts.
        [5..7, 8..10].into_iter().for_each(|beside| start.get_mut(beside).expect("as many calls").sort());
        let order = [
            "Facilities",
            "WhoseOrder",
            "OpenVars",
            "OpenDisk",
            "OpenLogWriter",
            "MakeCell",
            "OpenLogWriter",
            "TakeSerial",
            "StartConsole",
            "Watch",
            "Start",
        ];
        assert_eq!(start, order);
        assert_eq!(reason(s.act("web", Act::Start).await), Reason::WrongState);
        assert_eq!(s.ask(MachineStats { machine: text("web") }).await.expect("counters").cpu_ns, 7);
        s.act("web", Act::Pause).await.expect("paused");
        assert_eq!(s.get("web").await.expect("it is there").state, MachineState::Paused);
        s.act("web", Act::Resume).await.expect("resumed");
        s.act("web", Act::Reset).await.expect("reset");
        s.act("web", Act::Stop(Stop::default())).await.expect("stopped");
        let view = s.get("web").await.expect("it is there");
        assert_eq!((view.state, view.note.as_str()), (MachineState::Stopped, "powered off"));
        assert!(suite.world.lock().cells.is_empty());
        assert_eq!(
            reason(s.ask(MachineStats { machine: machine.name.as_str().parse().expect("a name") }).await),
            Reason::WrongState
        );
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        suite.world.lock().crash = Some(Refusal::new(Reason::HypervisorFailed, "qemu").note("last words"));
        let refusal = s.act("web", Act::Start).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.note.as_str()), (Reason::HypervisorFailed, "last words"));
        let view = s.get("web").await.expect("it is there");
        assert!(view.state == MachineState::Failed && view.note.as_str().contains("last words"), "{view:?}");
        suite.settled(&life.broker).await;
        s.act("web", Act::Start).await.expect("it can be started again");
    });
}

#[test]
fn a_cancelled_start_leaves_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        suite.world.lock().block = Some("Start");
        let op = s.ask(MachineAct { machine: text("web"), act: Act::Start }).await.expect("begun");
        suite.world.die.notified().await;
        s.ask(OperationCancel { id: op.id }).await.expect("asked");
        assert_eq!(reason(s.done(op).await), Reason::Cancelled);
        assert_eq!(s.get("web").await.expect("it is there").state, MachineState::Stopped);
        suite.world.resume();
        suite.settled(&life.broker).await;
    });
}

#[test]
fn kill_overtakes_a_start_and_a_stop() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        suite.world.lock().block = Some("Start");
        let start = s.ask(MachineAct { machine: text("web"), act: Act::Start }).await.expect("begun");
        suite.world.die.notified().await;
        s.act("web", Act::Kill).await.expect("killed");
        assert_eq!(reason(s.done(start).await), Reason::Cancelled);
        suite.world.resume();
        suite.settled(&life.broker).await;
        suite.world.lock().deaf = true;
        s.act("web", Act::Start).await.expect("started");
        let stop = s.ask(MachineAct { machine: text("web"), act: Act::Stop(Stop::default()) }).await.expect("begun");
        s.act("web", Act::Kill).await.expect("killed");
        assert_eq!(reason(s.done(stop).await), Reason::Cancelled);
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_killed_runner_is_a_failure_and_is_cleared_away() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        s.act("web", Act::Start).await.expect("started");
        if let Some(cell) = suite.world.lock().cells.get_mut(&machine.id) {
            cell.lives.clear();
            cell.watchers.clear();
        }
        let view = until(&life, &mut s, "web", MachineState::Failed).await;
        assert_eq!(view.note.as_str(), "its runner was killed");
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_dead_console_proxy_is_replaced() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        s.act("web", Act::Start).await.expect("started");
        suite.world.lock().cells.get_mut(&machine.id).expect("a cell").lives.truncate(1);
        let count = |call: &str| suite.world.lock().calls.iter().filter(|c| **c == call).count();
        while count("StartConsole") < 2 {
            suite.world.news.notified().await;
        }
        let call = MachineConsole { machine: text("web"), write: true, take: false, port: 1 };
        // The call that was begun is answered before it listens.
        let attached = loop {
            match s.ask_with(call.clone(), []).await {
                Err(refusal) if refusal.reason == Reason::Unavailable => tokio::task::yield_now().await,
                result => break result.expect("attached"),
            }
        };
        assert!(attached.0.writer);
    });
}

#[test]
fn a_reboot_of_the_guest_applies_what_is_pending() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        s.act("web", Act::Start).await.expect("started");
        let settings = Settings { cpus: Some(2), cpu_percent: Some(50), ..Settings::default() };
        let edited = s.ask(MachineSet { machine: text("web"), settings, revision: 1 }).await.expect("set");
        let names: Vec<_> = edited.changes.iter().map(|(name, when)| (name.as_str(), *when)).collect();
        assert_eq!(names, [("cpus", Applies::NextStart), ("cpu_percent", Applies::NextStart)]);
        assert_eq!(edited.machine.pending.iter().map(Text::as_str).collect::<Vec<_>>(), ["cpus", "cpu_percent"]);
        while !suite.world.lock().calls.contains(&"Configure") {
            suite.world.news.notified().await;
        }
        // Its reply has to arrive, too.
        s.ask(MachineStats { machine: text("web") }).await.expect("counters");
        let mut news = life.broker.news();
        news.mark_unchanged();
        suite.world.tell(machine.id, &RunnerEvent::Ended(End::Reboot));
        suite.world.tell(machine.id, &RunnerEvent::Phase(Phase::Running));
        news.changed().await.expect("the broker lives");
        let view = s.get("web").await.expect("it is there");
        assert_eq!(view.pending.iter().map(Text::as_str).collect::<Vec<_>>(), ["cpu_percent"], "limits are the cell's");
        s.act("web", Act::Reboot).await.expect("rebooted");
        assert_eq!(s.get("web").await.expect("it is there").pending, []);
    });
}

#[test]
fn a_change_of_an_old_revision_is_refused() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let set = |revision, cpus| MachineSet {
            machine: text("web"),
            settings: Settings { cpus: Some(cpus), ..Settings::default() },
            revision,
        };
        assert_eq!(s.ask(set(1, 2)).await.expect("set").machine.revision, 2);
        assert_eq!(reason(s.ask(set(1, 3)).await), Reason::Conflict);
        assert_eq!(s.ask(set(0, 3)).await.expect("set").machine.revision, 3);
        assert_eq!(s.ask(set(0, 3)).await.expect("as it was").machine.revision, 3);
    });
}

#[test]
fn a_disk_is_written_by_one_running_machine_only() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.machine("other", &["root"]).await.expect("stopped ones may share");
        s.act("web", Act::Start).await.expect("started");
        let refusal = s.act("other", Act::Start).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.object.as_str()), (Reason::InUse, "disk root"));
        assert!(refusal.note.as_str().contains("web"));
        assert_eq!(reason(s.ask(DiskResize { disk: text("root"), size: 512, shrink: true }).await), Reason::InUse);
        let copy =
            DiskClone { disk: text("root"), name: "copy".parse().expect("a name"), image: None, full: false, snapshot: None };
        assert_eq!(reason(s.ask(copy).await), Reason::InUse);
        assert_eq!(reason(s.ask(DiskDelete { disk: text("root") }).await), Reason::InUse);
        assert_eq!(reason(s.ask(MachineDelete { machine: text("web"), disks: false }).await), Reason::WrongState);
        s.act("web", Act::Kill).await.expect("killed");
        s.act("other", Act::Start).await.expect("started");
    });
}

#[test]
fn a_running_broker_takes_running_machines_over() {
    let suite = Suite::new();
    let id = suite.live(async |life: Life| {
        let (mut s, machine) = web(&life).await;
        s.act("web", Act::Start).await.expect("started");
        machine.id
    });
    suite.live(async |life: Life| {
        let mut s = life.session().await;
        let machine = s.get("web").await.expect("it is there");
        assert_eq!((machine.id, machine.state), (id, MachineState::Running));
        // Until it was found it can be asked for nothing.
        while let Err(refusal) = s.act("web", Act::Stop(Stop::default())).await {
            assert_eq!(refusal.reason, Reason::Unavailable, "{refusal}");
            suite.world.news.notified().await;
        }
        suite.settled(&life.broker).await;
    });
}

#[test]
fn cells_that_nobody_knows_are_swept() {
    let suite = Suite::new();
    let unknown = MachineId::random();
    let cell = super::world::FakeCell {
        phase: Phase::Running,
        last_end: None,
        starts: 1,
        tries_kvm: false,
        console: false,
        watchers: vec![],
        lives: vec![super::services::memory()],
    };
    suite.world.lock().cells.insert(unknown, cell);
    suite.live(async |life: Life| suite.settled(&life.broker).await);
}

#[test]
fn operations_at_work_end_with_the_broker() {
    let suite = Suite::new();
    let op = suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        suite.world.lock().block = Some("Start");
        let op = s.ask(MachineAct { machine: text("web"), act: Act::Start }).await.expect("begun");
        suite.world.die.notified().await;
        op
    });
    suite.world.resume();
    suite.live(async |life: Life| {
        let mut s = life.session().await;
        let listed = s.ask(OperationList { after: None }).await.expect("a list").operations;
        assert_eq!(listed.first().map(|o| o.id), Some(op.id));
        assert_eq!(reason(s.done(op).await), Reason::Unavailable);
        suite.settled(&life.broker).await;
        // The hypervisor answered, or it did not.
        let state = s.get("web").await.expect("it is there").state;
        assert!(matches!(state, MachineState::Stopped | MachineState::Running), "{state:?}");
    });
}

#[test]
fn a_copy_has_disks_and_nics_of_its_own() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, original) = web(&life).await;
        let copy = MachineClone { machine: text("web"), name: "copy".parse().expect("a name"), snapshot: None, full: false };
        let op = s.ask(copy).await.expect("begun");
        let op = s.done(op).await.expect("copied");
        assert_eq!(op.progress, (1 << 20, 1 << 20));
        let copy = s.get("copy").await.expect("it is there");
        assert_eq!(copy.disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["copy-0"]);
        let nic = copy.nics.first().expect("a nic");
        assert_eq!((nic.name.as_str(), nic.switch.as_str()), ("copy-0", "lan"));
        assert_ne!(original.nics.first().map(|n| n.mac), Some(nic.mac));
        s.act("web", Act::Start).await.expect("started");
        s.act("copy", Act::Start).await.expect("beside it");
        suite.settled(&life.broker).await;
    });
}

#[test]
fn nics_that_a_copy_made_go_along_with_it_and_others_stay() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.nic("web-1", Some("lan"), Some("web")).await.expect("a nic");
        let copy = MachineClone { machine: text("web"), name: "copy".parse().expect("a name"), snapshot: None, full: false };
        let op = s.ask(copy).await.expect("begun");
        s.done(op).await.expect("copied");
        s.nic("own", Some("lan"), Some("copy")).await.expect("a nic");
        // Taken in hand, it is like any other.
        s.ask(NicDetach { nic: text("copy-1") }).await.expect("detached");
        s.ask(NicAttach { nic: text("copy-1"), machine: text("copy") }).await.expect("attached");
        let op = s.ask(MachineDelete { machine: text("copy"), disks: true }).await.expect("begun");
        s.done(op).await.expect("deleted");
        let nics = s.ask(NicList { after: None }).await.expect("a list").nics;
        let left: Vec<_> = nics.iter().map(|n| (n.name.as_str(), n.machine.as_str())).collect();
        assert_eq!(left, [("copy-1", ""), ("own", ""), ("web-0", "web"), ("web-1", "web")]);
        for nic in ["copy-1", "own"] {
            s.ask(NicDelete { nic: text(nic) }).await.expect("deleted");
        }
        suite.settled(&life.broker).await;
    });
}
