//! Guests that are asked to power themselves off, and what becomes of those that do not.

use super::suite::{Life, Session, Suite};
use crate::db::Db;
use crate::db::Who;
use crate::db::machines::Machines;
use crate::db::stops::StopRow;
use skep_proto::broker::*;
use skep_proto::runner::{End, RunnerEvent};
use skep_proto::{MachineId, OperationId, Reason, Refusal, Text};

const LONG: u32 = 86_400_000;

fn stop(timeout_ms: Option<u32>, force: bool) -> MachineAct {
    MachineAct { machine: Text::lossy("m"), act: Act::Stop(Stop { timeout_ms, force }) }
}

/// A machine that runs, whose guest does not listen.
async fn deaf(suite: &Suite, life: &Life) -> (Session, MachineId) {
    life.up().await;
    let mut s = life.session().await;
    let id = s.machine("m", &[]).await.expect("a machine").id;
    suite.world.lock().deaf = true;
    s.act("m", Act::Start).await.expect("a start");
    (s, id)
}

fn waits(life: &Life) -> Vec<(MachineId, StopRow)> {
    life.broker.read(Db::stops).expect("rows")
}

/// Until its guest was asked.
async fn pressed(suite: &Suite, times: usize) {
    while suite.world.lock().calls.iter().filter(|call| **call == "PowerButton").count() < times {
        suite.world.news.notified().await;
    }
}

#[test]
fn a_guest_that_does_not_end_in_its_time_runs_on_or_is_ended_by_force() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = deaf(&suite, &life).await;
        let begun = s.ask(stop(Some(1), false)).await.expect("begun");
        let refusal = s.done(begun).await.expect_err("it is not off");
        assert_eq!(refusal.reason, Reason::Timeout);
        assert!(refusal.note.as_str().contains("in its time"), "{refusal}");
        assert_eq!(s.get("m").await.expect("it is there").state, MachineState::Running);
        assert_eq!(waits(&life), []);
        let begun = s.ask(stop(Some(1), true)).await.expect("begun");
        s.done(begun).await.expect("it is off");
        let view = s.get("m").await.expect("it is there");
        assert_eq!((view.state, view.note.as_str()), (MachineState::Stopped, "ended by force"));
        assert_eq!(waits(&life), []);
        suite.settled(&life.broker).await;
        // One that listens is not ended.
        suite.world.lock().deaf = false;
        s.act("m", Act::Start).await.expect("a start");
        let begun = s.ask(stop(Some(LONG), true)).await.expect("begun");
        s.done(begun).await.expect("it is off");
        assert_eq!(s.get("m").await.expect("it is there").note.as_str(), "powered off");
        assert_eq!(waits(&life), []);
    });
}

#[test]
fn one_that_is_paused_is_ended_at_once_by_force() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = deaf(&suite, &life).await;
        s.act("m", Act::Pause).await.expect("paused");
        assert_eq!(s.ask(stop(Some(1), false)).await.expect_err("refused").reason, Reason::WrongState);
        let begun = s.ask(stop(Some(LONG), true)).await.expect("begun");
        s.done(begun).await.expect("it is off");
        assert!(!suite.world.lock().calls.contains(&"PowerButton"));
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_stop_that_is_cancelled_forces_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, id) = deaf(&suite, &life).await;
        let begun = s.ask(stop(Some(LONG), true)).await.expect("begun");
        assert_eq!(
            waits(&life).into_iter().map(|(machine, stop)| (machine, stop.operation, stop.force)).collect::<Vec<_>>(),
            [(id, begun.id, true)]
        );
        s.ask(OperationCancel { id: begun.id }).await.expect("asked");
        assert_eq!(s.done(begun).await.expect_err("cancelled").reason, Reason::Cancelled);
        assert_eq!(s.get("m").await.expect("it is there").state, MachineState::Running);
        assert_eq!(waits(&life), []);
        s.act("m", Act::Kill).await.expect("killed");
    });
}

#[test]
fn of_two_stops_the_later_holds_and_the_machines_own_time_is_taken_where_none_is_said() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = deaf(&suite, &life).await;
        let upkeep = UpkeepDraft { stop_timeout_s: Some(86_400), ..UpkeepDraft::default() };
        let settings = Settings { upkeep, ..Settings::default() };
        let edited = s.ask(MachineSet { machine: Text::lossy("m"), settings, revision: 0 }).await.expect("an edit");
        assert_eq!(edited.changes, [(Text::lossy("upkeep.stop_timeout"), Applies::Now)]);
        let before = skep_service::now_ns();
        let first = s.ask(stop(None, true)).await.expect("begun");
        let day = 86_400_000_000_000;
        let deadline = waits(&life).first().expect("it waits").1.deadline_ns;
        assert!((before + day..=skep_service::now_ns() + day).contains(&deadline), "{deadline}");
        let second = s.ask(stop(Some(1), true)).await.expect("begun");
        assert_eq!(s.done(first).await.expect_err("overtaken").reason, Reason::Cancelled);
        s.done(second).await.expect("it is off");
        for seconds in [0, 86_401] {
            let upkeep = UpkeepDraft { stop_timeout_s: Some(seconds), ..UpkeepDraft::default() };
            let settings = Settings { upkeep, ..Settings::default() };
            let refusal = s.ask(MachineSet { machine: Text::lossy("m"), settings, revision: 0 }).await.expect_err("refused");
            assert_eq!(refusal.field.as_str(), "upkeep.stop_timeout");
            assert!(refusal.note.as_str().contains(&format!("{seconds} is not 1 to 86400")), "{refusal}");
        }
    });
}

/// A stop that waits when the broker dies.
fn begun(suite: &Suite, force: bool) -> (MachineId, OperationId) {
    suite.live(async |life: Life| {
        let (mut s, id) = deaf(suite, &life).await;
        let operation = s.ask(stop(Some(LONG), force)).await.expect("begun").id;
        pressed(suite, 1).await;
        (id, operation)
    })
}

/// Its time is over while no broker is there.
fn late(suite: &Suite, machine: MachineId, operation: OperationId, force: bool) {
    let mut db = Db::open(&suite.dir.path().join("skep.db")).expect("a database");
    let stop = StopRow { operation, deadline_ns: 1, force };
    db.change(&Who::broker(), |change| Ok::<_, Refusal>(change.put_stop(machine, &stop)?)).expect("written");
}

#[test]
fn a_stop_outlives_the_broker() {
    for force in [true, false] {
        let suite = Suite::new();
        let (machine, operation) = begun(&suite, force);
        // The same operation waits in the next broker, which has its guest asked: only the runner knows whether it was.
        suite.live(async |life: Life| {
            life.up().await;
            pressed(&suite, 2).await;
            let mut s = life.session().await;
            let view = s.ask(OperationGet { id: operation, wait: false }).await.expect("it is there");
            assert_eq!(view.state, OperationState::Running);
            assert_eq!(s.get("m").await.expect("it is there").state, MachineState::Stopping);
        });
        late(&suite, machine, operation, force);
        suite.live(async |life: Life| {
            life.up().await;
            let mut s = life.session().await;
            let view = s.ask(OperationGet { id: operation, wait: true }).await.expect("it is there");
            let state = s.get("m").await.expect("it is there").state;
            if force {
                assert_eq!((view.state, state), (OperationState::Done, MachineState::Stopped));
                suite.settled(&life.broker).await;
            } else {
                assert!(matches!(view.state, OperationState::Failed(refusal) if refusal.reason == Reason::Timeout));
                assert_eq!(state, MachineState::Running);
            }
            assert_eq!(waits(&life), []);
        });
    }
}

#[test]
fn a_guest_that_ends_while_there_is_no_broker_has_ended_its_stop_and_one_is_cancelled_in_the_next() {
    let suite = Suite::new();
    let (machine, operation) = begun(&suite, true);
    suite.world.tell(machine, &RunnerEvent::Ended(End::PowerOff));
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let view = s.ask(OperationGet { id: operation, wait: true }).await.expect("it is there");
        assert_eq!(view.state, OperationState::Done);
        assert!(!life.broker.read(|db| db.machine(machine)).expect("read").expect("it is there").wanted);
        suite.settled(&life.broker).await;
        s.act("m", Act::Start).await.expect("a start");
    });
    let operation = suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        // Until the host was asked it is not known to run.
        let begun = loop {
            match s.ask(stop(Some(LONG), true)).await {
                Ok(begun) => break begun,
                Err(refusal) if refusal.reason == Reason::Unavailable => tokio::task::yield_now().await,
                Err(refusal) => panic!("{refusal}"),
            }
        };
        pressed(&suite, 2).await;
        begun.id
    });
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let view = s.ask(OperationGet { id: operation, wait: false }).await.expect("it is there");
        s.ask(OperationCancel { id: operation }).await.expect("asked");
        assert_eq!(s.done(view).await.expect_err("cancelled").reason, Reason::Cancelled);
        assert_eq!(waits(&life), []);
        while s.get("m").await.expect("it is there").state != MachineState::Running {
            life.broker.news().changed().await.expect("the broker lives");
        }
        assert!(suite.world.lock().cells.contains_key(&machine));
    });
}
