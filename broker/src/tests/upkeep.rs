//! Machines that are started again.

use super::suite::{Life, Session, Suite};
use crate::db::machines::Machines;
use skep_proto::broker::*;
use skep_proto::runner::{End, RunnerEvent};
use skep_proto::{MachineId, Reason, Text};

fn restart(restart: Restart) -> Settings {
    Settings { upkeep: UpkeepDraft { restart: Some(restart), ..UpkeepDraft::default() }, ..Settings::default() }
}

async fn define(s: &mut Session, policy: Restart) -> MachineId {
    s.ask(MachineCreate { name: "m".parse().expect("a name"), settings: restart(policy) }).await.expect("a machine").id
}

/// Waits for a machine's state, by what the broker says of it.
async fn until(life: &Life, s: &mut Session, state: MachineState) -> MachineView {
    let mut news = life.broker.news();
    loop {
        let view = s.get("m").await.expect("it is there");
        if view.state == state {
            return view;
        }
        news.changed().await.expect("the broker lives");
    }
}

fn wanted(life: &Life, id: MachineId) -> bool {
    life.broker.read(|db| db.machine(id)).expect("read").expect("it is there").wanted
}

/// What was told about its next starts.
fn told(life: &Life) -> Vec<String> {
    let events = life.broker.read(|db| db.events_after(0, "machine")).expect("events");
    events.iter().filter(|e| e.what.as_str() == "restart").map(|e| e.detail.to_string()).collect()
}

#[test]
fn one_that_fails_is_started_again_and_again_after_a_restart_of_the_broker() {
    let suite = Suite::new();
    let id = suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let id = define(&mut s, Restart::OnFailure).await;
        s.act("m", Act::Start).await.expect("a start");
        suite.world.tell(id, &RunnerEvent::Ended(End::Panic));
        until(&life, &mut s, MachineState::Failed).await;
        until(&life, &mut s, MachineState::Running).await;
        suite.world.tell(id, &RunnerEvent::Ended(End::Panic));
        until(&life, &mut s, MachineState::Failed).await;
        id
    });
    // It waited for its second start when the broker died.
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        until(&life, &mut s, MachineState::Running).await;
        // What its user ends stays so.
        s.act("m", Act::Kill).await.expect("a kill");
        assert_eq!(s.get("m").await.expect("it is there").state, MachineState::Stopped);
        suite.settled(&life.broker).await;
        assert!(!suite.world.lock().cells.contains_key(&id));
    });
    suite.live(async |life: Life| {
        life.up().await;
        suite.settled(&life.broker).await;
        assert_eq!(life.session().await.get("m").await.expect("it is there").state, MachineState::Stopped);
    });
}

#[test]
fn one_that_powers_off_is_started_again_only_if_always_was_said() {
    for (policy, again) in [(Restart::OnFailure, false), (Restart::Always, true)] {
        let suite = Suite::new();
        suite.live(async |life: Life| {
            life.up().await;
            let mut s = life.session().await;
            let id = define(&mut s, policy).await;
            s.act("m", Act::Start).await.expect("a start");
            suite.world.tell(id, &RunnerEvent::Ended(End::PowerOff));
            until(&life, &mut s, MachineState::Stopped).await;
            if again {
                until(&life, &mut s, MachineState::Running).await;
            }
            assert_eq!(told(&life), if again { &["again in 1 s"][..] } else { &[] });
        });
    }
}

#[test]
fn a_start_that_is_refused_or_a_changed_mind_ends_it() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let id = define(&mut s, Restart::Always).await;
        let set = |settings| MachineSet { machine: Text::lossy("m"), settings, revision: 0 };
        let limits = LimitsDraft { read_bps: Some(1 << 20), ..LimitsDraft::default() };
        s.ask(set(Settings { limits, ..Settings::default() })).await.expect("set");
        assert_eq!(s.act("m", Act::Start).await.expect_err("the host cannot").reason, Reason::Unsupported);
        assert!(!wanted(&life, id));
        let limits = LimitsDraft { read_bps: Some(0), ..LimitsDraft::default() };
        s.ask(set(Settings { limits, ..Settings::default() })).await.expect("set");
        s.act("m", Act::Start).await.expect("a start");
        suite.world.tell(id, &RunnerEvent::Ended(End::Panic));
        until(&life, &mut s, MachineState::Failed).await;
        let edited = s.ask(set(restart(Restart::Never))).await.expect("set");
        assert_eq!(edited.changes, [(Text::lossy("upkeep.restart"), Applies::Now)]);
        // The pause goes by, and with it the wish.
        let mut news = life.broker.news();
        while told(&life) != ["again in 1 s", "not any more"] {
            news.changed().await.expect("the broker lives");
        }
        assert!(!wanted(&life, id));
        assert_eq!(s.get("m").await.expect("it is there").state, MachineState::Failed);
    });
}

#[test]
fn bounds_are_named() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for (draft, field) in [
            (UpkeepDraft { order: Some(10_000), ..UpkeepDraft::default() }, "upkeep.order"),
            (UpkeepDraft { delay_s: Some(3_601), ..UpkeepDraft::default() }, "upkeep.delay"),
        ] {
            let settings = Settings { upkeep: draft, ..Settings::default() };
            let refusal = s.ask(MachineCreate { name: "m".parse().expect("a name"), settings }).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, field));
        }
    });
}
