//! Every helper, and the broker itself, may die in any call: what is left afterwards is nothing, or all of it.

use super::suite::{Life, Session, Suite};
use super::world::Cut;
use crate::db::machines::{Machines, Which};
use skep_proto::broker::*;
use skep_proto::{Refusal, Text};

/// A bit of everything. Each step may be refused when something has died.
async fn scenario(s: &mut Session) -> Vec<Refusal> {
    let mut refused = Vec::new();
    macro_rules! step {
        ($act:expr) => {
            if let Err(refusal) = $act.await {
                refused.push(refusal);
            }
        };
    }
    macro_rules! long {
        ($call:expr) => {
            match s.ask($call).await {
                Ok(operation) => step!(s.done(operation)),
                Err(refusal) => refused.push(refusal),
            }
        };
    }
    step!(s.switch("lan", None));
    step!(s.disk("root"));
    step!(s.machine("web", &["root"]));
    step!(s.nic("web-0", Some("lan"), Some("web")));
    step!(s.act("web", Act::Start));
    if crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::DiskGrowth) {
        step!(s.ask(DiskResize { disk: Text::lossy("root"), size: 3 << 19, shrink: false }));
    }
    step!(s.act("web", Act::Reboot));
    step!(s.act("web", Act::Stop(Stop::default())));
    step!(s.ask(DiskResize { disk: Text::lossy("root"), size: 2 << 20, shrink: false }));
    let name = |name: &str| name.parse().expect("a name");
    let web = || Text::lossy("web");
    // Elsewhere only volumes have snapshots.
    if crate::platform::LAYERS {
        step!(s.ask(WholeCreate { machine: web(), name: name("whole") }));
        step!(s.ask(WholeRollBack { machine: web(), snapshot: Text::lossy("whole") }));
        step!(s.ask(WholeDelete { machine: web(), snapshot: Text::lossy("whole") }));
    }
    long!(MachineClone { machine: Text::lossy("web"), name: "web2".parse().expect("a name"), snapshot: None, full: false });
    step!(s.act("web2", Act::Start));
    step!(s.act("web2", Act::Kill));
    long!(MachineDelete { machine: Text::lossy("web2"), disks: true });
    step!(s.disk("spare"));
    step!(s.ask(DiskDelete { disk: Text::lossy("spare") }));
    let volume = || Text::lossy("volume");
    let kind = skep_proto::storage::DiskKind::Zvol;
    step!(s.ask(DiskCreate { name: "volume".parse().expect("a name"), kind, size: 1 << 20, group: None }));
    for name in ["one", "two"] {
        step!(s.ask(SnapshotCreate { disk: volume(), name: name.parse().expect("a name") }));
    }
    step!(s.ask(SnapshotList { disk: volume(), after: None }));
    step!(s.ask(SnapshotRollBack { disk: volume(), snapshot: Text::lossy("two") }));
    step!(s.ask(SnapshotDelete { disk: volume(), snapshot: Text::lossy("two") }));
    match super::fetches::fetch(s, "fetched", "https://example.org/a.img").await {
        Ok(operation) => step!(s.done(operation)),
        Err(refusal) => refused.push(refusal),
    }
    let tunnel = Some("42 192.0.2.1 198.51.100.2 4789".parse().expect("a tunnel"));
    step!(s.ask(SwitchCreate {
        name: "wan".parse().expect("a name"),
        uplink: None,
        kind: SwitchKind::Plain,
        subnet: None,
        tunnel,
        subnet6: None,
    }));
    step!(s.ask(SwitchDelete { switch: Text::lossy("wan") }));
    refused
}

/// Whatever happened before, this works.
async fn works(s: &mut Session) {
    s.disk("after").await.expect("a disk");
    s.machine("after", &["after"]).await.expect("a machine");
    s.act("after", Act::Start).await.expect("a start");
    assert_eq!(s.get("after").await.expect("it is there").state, MachineState::Running);
    s.act("after", Act::Kill).await.expect("a kill");
    let delete = s.ask(MachineDelete { machine: Text::lossy("after"), disks: true }).await.expect("a deletion");
    s.done(delete).await.expect("a deletion");
}

/// Which of the scenario's calls are cut off: all, or every so many where an emulated host would take long (packaging/freebsd/run-tests).
fn calls_of_the_scenario() -> (usize, std::iter::StepBy<std::ops::Range<usize>>) {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        assert_eq!(scenario(&mut s).await, []);
        suite.settled(&life.broker).await;
    });
    let all = suite.world.lock().calls.len();
    let every = std::env::var("SKEP_FAULTS_EVERY").map_or(1, |text| text.parse().expect("SKEP_FAULTS_EVERY: a number"));
    (all, (0..all).step_by(every))
}

#[test]
fn a_helper_may_die_in_any_call() {
    let (all, cuts) = calls_of_the_scenario();
    let mut refused = std::collections::BTreeMap::new();
    for at in cuts {
        for cut in [Cut::Before, Cut::After] {
            let suite = Suite::new();
            suite.world.lock().cut = Some((at, cut));
            suite.live(async |life: Life| {
                life.up().await;
                let mut s = life.session().await;
                for refusal in scenario(&mut s).await {
                    *refused.entry(refusal.reason.row().name).or_insert(0) += 1;
                }
                suite.settled(&life.broker).await;
                works(&mut s).await;
                suite.settled(&life.broker).await;
            });
        }
    }
    // Calls that cannot be repeated are refused, and what builds on them; everything else was repeated and nobody noticed.
    assert!(refused.contains_key("UNAVAILABLE"), "{refused:?}");
    assert!(!refused.contains_key("INTERNAL"), "{refused:?}");
    eprintln!("{all} calls: {refused:?}");
}

#[test]
fn the_broker_may_die_in_any_call() {
    let (_, cuts) = calls_of_the_scenario();
    for at in cuts {
        let suite = Suite::new();
        suite.world.lock().cut = Some((at, Cut::Broker));
        suite.live(async |life: Life| {
            let all = async {
                life.up().await;
                scenario(&mut life.session().await).await;
            };
            tokio::select! {
                () = suite.world.die.notified() => {}
                () = all => {}
            }
        });
        suite.world.lock().cut = None;
        suite.world.resume();
        suite.live(async |life: Life| {
            life.up().await;
            suite.settled(&life.broker).await;
            works(&mut life.session().await).await;
            suite.settled(&life.broker).await;
        });
    }
}

/// A disk's rates are written down, then told. A broker that dies in between is followed by one that tells them.
#[test]
fn rates_that_a_broker_died_upon_are_told_by_the_next() {
    if !crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::DiskRates) {
        return;
    }
    let suite = Suite::new();
    let told = || suite.world.lock().calls.iter().filter(|call| **call == "LimitDisk").count();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.disk("root").await.expect("a disk");
        s.machine("web", &["root"]).await.expect("a machine");
        s.act("web", Act::Start).await.expect("a start");
        suite.world.lock().block = Some("LimitDisk");
        let rates = DiskRatesDraft { write_bps: Some(1 << 20), ..DiskRatesDraft::default() };
        let set = DiskSet { disk: Text::lossy("root"), name: None, description: None, image: None, rates };
        tokio::select! {
            () = suite.world.die.notified() => {}
            done = s.ask(set) => panic!("{done:?}"),
        }
    });
    assert_eq!(told(), 1);
    suite.world.lock().cut = None;
    suite.world.resume();
    suite.live(async |life: Life| {
        life.up().await;
        let running = || {
            let machines = life.broker.read(|db| db.machines(Which::After("", u32::MAX, None))).expect("machines");
            machines.into_iter().next().and_then(|machine| machine.applied).expect("it runs")
        };
        let mut news = life.broker.news();
        while running().rates_of(0).write_bps != 1 << 20 {
            tokio::select! {
                _ = news.changed() => {}
                () = suite.world.news.notified() => {}
            }
        }
        assert_eq!(told(), 2);
    });
}
