//! The state machine against a world that does whatever a host may do, in any order.

use super::*;
use proptest::prelude::*;
use skep_proto::Text;
use skep_proto::broker::Stop;

/// One step of the world or of a user.
#[derive(Debug, Clone)]
enum Move {
    Ask(Act),
    Cancel,
    /// The work at hand succeeds, or fails.
    Work(bool),
    Event(Input),
    Late,
    /// The broker is restarted; the host shows this. It was waiting for this stop, or is not.
    Restart(Found, Option<bool>),
}

fn act() -> impl Strategy<Value = Act> {
    use Act::*;
    let stop = any::<bool>().prop_map(|force| Stop(skep_proto::broker::Stop { timeout_ms: None, force }));
    prop_oneof![Just(Start), stop, Just(Kill), Just(Reboot), Just(Reset), Just(Pause), Just(Resume)]
}

fn end() -> impl Strategy<Value = End> {
    let crash = End::Crash { code: 139, words: Text::lossy("words") };
    prop_oneof![
        Just(End::PowerOff),
        Just(End::Reboot),
        Just(End::Reset),
        Just(End::Killed),
        Just(End::Panic),
        Just(crash),
        Just(End::RebootLoop)
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Ready), Just(Phase::Starting), Just(Phase::Running), Just(Phase::Paused), Just(Phase::Ended)]
}

fn moves() -> impl Strategy<Value = Move> {
    let found =
        prop_oneof![Just(Found::Nothing), Just(Found::Unready), phase().prop_map(Found::Alive), end().prop_map(Found::Ended)];
    prop_oneof![
        4 => act().prop_map(Move::Ask),
        1 => Just(Move::Cancel),
        4 => any::<bool>().prop_map(Move::Work),
        2 => phase().prop_map(|p| Move::Event(Input::Phase(p))),
        2 => end().prop_map(|e| Move::Event(Input::Ended(e))),
        1 => Just(Move::Event(Input::Lost)),
        1 => Just(Move::Late),
        1 => (found, any::<Option<bool>>()).prop_map(|(found, waits)| Move::Restart(found, waits)),
    ]
}

/// What an actor does with the effects: one work at a time, one act at a time.
struct Model {
    life: Life,
    work: Option<Effect>,
    open: usize,
    /// A cell was made, as far as the actor knows.
    cell: bool,
}

impl Model {
    fn input(&mut self, input: Input) -> bool {
        let before = self.life.clone();
        match self.life.step(input) {
            Err((reason, note)) => {
                assert_eq!(before, self.life, "a refused step changes nothing");
                assert!(!note.is_empty());
                assert!(matches!(reason, Reason::WrongState | Reason::Unavailable));
                false
            }
            Ok(effects) => {
                for effect in effects {
                    self.effect(effect);
                }
                true
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Drop => self.work = None,
            Effect::Finish(_) => {
                self.open = self.open.checked_sub(1).expect("only what was begun is finished");
            }
            Effect::Restarted => assert!(self.life.cell),
            work => {
                assert!(self.work.is_none(), "{work:?} while {:?} is being done", self.work);
                match &work {
                    Effect::Make => {
                        assert!(!self.cell, "a cell is made twice");
                        assert_eq!(self.life.state, MachineState::Starting);
                    }
                    Effect::Tell(_) => assert!(self.cell, "a runner is told that was never made"),
                    _ => {}
                }
                assert!(self.life.cell, "{work:?} without a slot");
                self.work = Some(work);
            }
        }
    }

    fn work(&mut self, good: bool) {
        let failed = || Refusal::new(Reason::HypervisorFailed, "machine").note("no");
        let result = if good { Ok(()) } else { Err(failed()) };
        match self.work.take() {
            Some(Effect::Make) => {
                // Failed, it may have come to be all the same.
                self.cell = true;
                self.input(Input::Made(result));
            }
            Some(Effect::Tell(_)) => drop(self.input(Input::Told(result))),
            Some(Effect::Clear { .. }) => {
                if good {
                    self.cell = false;
                }
                self.input(Input::Cleared(result));
            }
            _ => {}
        }
    }

    fn check(&self) {
        let life = &self.life;
        let off = matches!(life.state, MachineState::Stopped | MachineState::Failed);
        if life.state == MachineState::Stopped && life.known {
            assert!(!life.cell && !self.cell, "a stopped machine has nothing on the host");
        }
        if off {
            assert_eq!((life.busy, &life.ending), (None, &None));
        }
        assert!(life.cell || !self.cell, "what is on the host has a slot");
        assert_eq!(self.open, usize::from(life.busy.is_some()), "an operation is open as long as its act is at work");
        if life.ending.is_some() {
            assert_eq!(life.state, MachineState::Stopping);
            assert!(matches!(self.work, Some(Effect::Clear { .. })), "what ends is being cleared away");
        }
        if life.state == MachineState::Starting {
            assert!(self.work.is_some(), "a start goes on");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_acts_end_once_and_nothing_is_left(moves in prop::collection::vec(moves(), 1..60)) {
        let life = Life::load(MachineState::Stopped, String::new(), false);
        let mut model = Model { life, work: None, open: 0, cell: false };
        for step in moves {
            match step {
                Move::Ask(act) => {
                    // Counted first: an act may overtake another one, and finish it.
                    model.open += 1;
                    if !model.input(Input::Ask(act)) {
                        model.open -= 1;
                    }
                }
                Move::Cancel => drop(model.input(Input::Cancel)),
                Move::Work(good) => model.work(good),
                // The runner of a cell that is being cleared away is listened to no more.
                Move::Event(event) if model.cell => drop(model.input(event)),
                Move::Event(_) => {}
                Move::Late => drop(model.input(Input::Late)),
                Move::Restart(found, waits) => {
                    let known = Life::load(model.life.state, model.life.note.clone(), model.life.cell);
                    let alive = !matches!(found, Found::Nothing);
                    // Only machines with something on the host are looked for; a cell is found if it is there.
                    let (asks, cell) = (!known.known, alive && model.life.cell);
                    model = Model { life: known, work: None, open: 0, cell };
                    if let (true, Some(force)) = (asks, waits) {
                        model.open = 1;
                        model.input(Input::Waits(Act::Stop(Stop { timeout_ms: None, force })));
                    }
                    if asks {
                        let found = if cell { found } else { Found::Nothing };
                        model.input(Input::Found(found));
                    }
                }
            }
            model.check();
        }
        // Left to itself, with a host that does what it is told, everything comes to rest.
        for _ in 0..8 {
            model.work(true);
            if let (Some(_), None, true) = (model.life.busy, &model.work, model.life.state == MachineState::Stopping) {
                model.input(Input::Ended(End::PowerOff));
            }
            match (model.life.busy, &model.work) {
                (Some(Act::Pause), None) => drop(model.input(Input::Phase(Phase::Paused))),
                (Some(Act::Resume), None) => drop(model.input(Input::Phase(Phase::Running))),
                _ => {}
            }
        }
        model.check();
        prop_assert_eq!(model.open, 0);
        prop_assert!(model.work.is_none());
        prop_assert!(matches!(model.life.state, MachineState::Stopped | MachineState::Failed | MachineState::Running | MachineState::Paused));
        // And it can always be got rid of.
        if model.life.cell {
            model.open += 1;
            prop_assert!(model.input(Input::Ask(Act::Kill)));
            for _ in 0..4 {
                model.work(true);
                model.input(Input::Late);
            }
            prop_assert!(matches!(model.life.state, MachineState::Stopped | MachineState::Failed));
            prop_assert!(!model.life.cell && !model.cell);
        }
        prop_assert_eq!(model.open, 0);
    }
}

fn life(state: MachineState) -> Life {
    Life::load(state, String::new(), false)
}

fn run(life: &mut Life, input: Input) -> Vec<Effect> {
    life.step(input).expect("not refused")
}

#[test]
fn a_guest_that_powers_off_is_stopped_and_a_crash_is_a_failure() {
    for (end, state) in [(End::PowerOff, MachineState::Stopped), (End::Panic, MachineState::Failed)] {
        let mut life = life(MachineState::Stopped);
        assert_eq!(run(&mut life, Input::Ask(Act::Start)), [Effect::Make]);
        assert_eq!(run(&mut life, Input::Made(Ok(()))), [Effect::Finish(Ok(()))]);
        assert_eq!(run(&mut life, Input::Ended(end)), [Effect::Drop, Effect::Clear { kill: false }]);
        assert_eq!(run(&mut life, Input::Cleared(Ok(()))), []);
        assert_eq!(life.state, state);
    }
}

#[test]
fn a_reboot_starts_again_once_all_is_cleared_away() {
    let mut life = life(MachineState::Stopped);
    run(&mut life, Input::Ask(Act::Start));
    run(&mut life, Input::Made(Ok(())));
    assert_eq!(run(&mut life, Input::Ask(Act::Reboot)), [Effect::Tell(Act::Reboot)]);
    run(&mut life, Input::Ended(End::PowerOff));
    assert_eq!(run(&mut life, Input::Cleared(Ok(()))), [Effect::Make]);
    assert_eq!(run(&mut life, Input::Made(Ok(()))), [Effect::Finish(Ok(()))]);
}

#[test]
fn a_guest_that_ignores_its_button_runs_on_and_kill_is_named() {
    let mut life = life(MachineState::Stopped);
    run(&mut life, Input::Ask(Act::Start));
    run(&mut life, Input::Made(Ok(())));
    run(&mut life, Input::Ask(Act::Stop(Stop::default())));
    let effects = run(&mut life, Input::Late);
    let [Effect::Drop, Effect::Finish(Err(refusal))] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(refusal.reason, Reason::Timeout);
    assert!(refusal.note.as_str().contains("skep vm kill"));
    assert_eq!(life.state, MachineState::Running);
}

fn stop(force: bool) -> Act {
    Act::Stop(Stop { timeout_ms: Some(1), force })
}

fn running() -> Life {
    let mut life = life(MachineState::Stopped);
    run(&mut life, Input::Ask(Act::Start));
    run(&mut life, Input::Made(Ok(())));
    life
}

#[test]
fn a_guest_that_ignores_its_button_is_ended_where_force_was_said() {
    let mut life = running();
    assert_eq!(run(&mut life, Input::Ask(stop(true))), [Effect::Tell(stop(true))]);
    assert_eq!(run(&mut life, Input::Told(Ok(()))), []);
    assert_eq!(run(&mut life, Input::Late), [Effect::Drop, Effect::Tell(Act::Kill)]);
    life.step(Input::Cancel).expect_err("it is too late to cancel it");
    assert_eq!(run(&mut life, Input::Ended(End::Killed)), [Effect::Drop, Effect::Clear { kill: false }]);
    assert_eq!(run(&mut life, Input::Cleared(Ok(()))), [Effect::Finish(Ok(()))]);
    assert_eq!((life.state, life.note.as_str()), (MachineState::Stopped, "ended by force"));
    // One that powers itself off at the last moment was not ended.
    let mut life = running();
    run(&mut life, Input::Ask(stop(true)));
    run(&mut life, Input::Late);
    run(&mut life, Input::Ended(End::PowerOff));
    assert_eq!(run(&mut life, Input::Cleared(Ok(()))), [Effect::Finish(Ok(()))]);
    assert_eq!(life.note, "powered off");
}

#[test]
fn what_cannot_hear_its_button_is_ended_at_once_by_force_and_else_refused() {
    let mut life = running();
    run(&mut life, Input::Phase(Phase::Paused));
    assert_eq!(life.step(Input::Ask(stop(false))).expect_err("refused").0, Reason::WrongState);
    assert_eq!(run(&mut life, Input::Ask(stop(true))), [Effect::Drop, Effect::Tell(Act::Kill)]);
    // Nor does a runner that cannot press it.
    let mut life = running();
    run(&mut life, Input::Ask(stop(true)));
    let refused = Refusal::new(Reason::Unavailable, "");
    assert_eq!(run(&mut life, Input::Told(Err(refused))), [Effect::Drop, Effect::Tell(Act::Kill)]);
}

#[test]
fn the_stop_that_was_asked_for_last_holds() {
    let mut life = running();
    run(&mut life, Input::Ask(stop(true)));
    let effects = run(&mut life, Input::Ask(stop(false)));
    assert!(matches!(effects.as_slice(), [Effect::Drop, Effect::Finish(Err(_)), Effect::Tell(act)] if *act == stop(false)));
    let effects = run(&mut life, Input::Late);
    assert!(matches!(effects.as_slice(), [Effect::Drop, Effect::Finish(Err(refusal))] if refusal.reason == Reason::Timeout));
    assert_eq!(life.state, MachineState::Running);
}

#[test]
fn a_stop_goes_on_in_the_next_broker() {
    let begun = || {
        let mut life = Life::load(MachineState::Stopping, String::new(), true);
        run(&mut life, Input::Waits(stop(true)));
        // Nothing is ended before the host was asked.
        assert_eq!(run(&mut life, Input::Late), []);
        life
    };
    let mut life = begun();
    // Whether the button was pressed is the runner's to know.
    assert_eq!(run(&mut life, Input::Found(Found::Alive(Phase::Running))), [Effect::Tell(stop(true))]);
    assert_eq!(run(&mut life, Input::Late), [Effect::Drop, Effect::Tell(Act::Kill)]);
    for found in [Found::Ended(End::PowerOff), Found::Nothing] {
        let mut life = begun();
        run(&mut life, Input::Found(found));
        assert_eq!(run(&mut life, Input::Cleared(Ok(()))), [Effect::Finish(Ok(()))]);
        assert_eq!(life.state, MachineState::Stopped);
    }
    let mut life = begun();
    let effects = run(&mut life, Input::Cancel);
    assert!(matches!(effects.as_slice(), [Effect::Drop, Effect::Finish(Err(refusal))] if refusal.reason == Reason::Cancelled));
    assert_eq!(run(&mut life, Input::Found(Found::Alive(Phase::Running))), []);
    assert_eq!(life.state, MachineState::Running);
}

#[test]
fn two_starts_at_once_are_one() {
    let mut life = life(MachineState::Stopped);
    run(&mut life, Input::Ask(Act::Start));
    assert_eq!(life.step(Input::Ask(Act::Start)).expect_err("refused").0, Reason::WrongState);
}

#[test]
fn nothing_is_done_before_the_host_was_asked() {
    let mut life = life(MachineState::Running);
    for act in [Act::Start, Act::Stop(Stop::default()), Act::Kill] {
        assert_eq!(life.step(Input::Ask(act)).expect_err("refused").0, Reason::Unavailable);
    }
}

#[test]
fn a_guest_that_waits_for_its_debugger_is_paused_from_the_start() {
    for before in [true, false] {
        let mut life = life(MachineState::Stopped);
        life.step(Input::Ask(Act::Start)).expect("accepted");
        for phase in [Phase::Ready, Phase::Starting] {
            life.step(Input::Phase(phase)).expect("heard");
        }
        // The runner's word comes on another connection, before the start has ended or after it.
        let steps = [Input::Phase(Phase::Paused), Input::Made(Ok(()))];
        let steps = if before {
            steps
        } else {
            let [paused, made] = steps;
            [made, paused]
        };
        for step in steps {
            life.step(step).expect("heard");
        }
        assert_eq!(life.state, MachineState::Paused);
        life.step(Input::Phase(Phase::Running)).expect("heard");
        assert_eq!(life.state, MachineState::Running);
    }
}
