//! A hypervisor that was taken over: whatever it says, the runner goes on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use skep_ipc::Client;
use skep_proto::Reason;
use skep_proto::runner::{self, End, Phase};
use support::{Events, Machine, Spawner, ask};

fn cell(spawner: &mut Spawner, script: &str) -> (Machine, Client<runner::Runner>) {
    spawner.replace_hypervisor("hostile_hypervisor");
    let machine = Machine::scripted(script);
    machine.make(spawner).unwrap();
    let runner = spawner.runner(machine.id);
    (machine, runner)
}

fn last_end(runner: &mut Client<runner::Runner>) -> (Phase, Option<End>) {
    let (state, _) = ask(runner, runner::Status {}, []).unwrap();
    (state.phase, state.last_end)
}

#[test]
fn garbage_ends_it() {
    let mut spawner = spawner!("garbage_ends_it");
    for script in ["garbage", "endless line"] {
        let (_machine, mut runner) = cell(&mut spawner, script);
        assert_eq!(ask(&mut runner, runner::Start {}, []).unwrap_err().reason, Reason::HypervisorFailed);
        match last_end(&mut runner) {
            (Phase::Ended, Some(End::Crash { code: 137, words })) => assert!(words.as_str().contains("QMP"), "{words}"),
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[test]
fn a_flood_hinders_nobody() {
    let mut spawner = spawner!("a_flood_hinders_nobody");
    let (_machine, mut runner) = cell(&mut spawner, "flood");
    ask(&mut runner, runner::Start {}, []).unwrap();
    for _ in 0..100 {
        assert_eq!(last_end(&mut runner).0, Phase::Running);
    }
    ask(&mut runner, runner::Kill {}, []).unwrap();
    assert_eq!(last_end(&mut runner), (Phase::Ended, Some(End::Killed)));
}

#[test]
fn silence_is_given_up() {
    let mut spawner = spawner!("silence_is_given_up");
    let (_machine, mut runner) = cell(&mut spawner, "silence");
    assert_eq!(ask(&mut runner, runner::Start {}, []).unwrap_err().reason, Reason::Timeout);
    assert!(matches!(last_end(&mut runner), (Phase::Ended, Some(End::Crash { .. }))));
}

#[test]
fn one_that_hangs_up_is_ended() {
    let mut spawner = spawner!("one_that_hangs_up_is_ended");
    let (_machine, mut runner) = cell(&mut spawner, "deaf");
    let mut events = Events::of(&mut runner);
    let _ = ask(&mut runner, runner::Start {}, []);
    assert!(matches!(events.until_end(), End::Crash { code: 137, .. }));
}

#[test]
fn an_answer_that_never_comes_is_a_timeout() {
    let mut spawner = spawner!("an_answer_that_never_comes_is_a_timeout");
    let (_machine, mut runner) = cell(&mut spawner, "answers nothing");
    ask(&mut runner, runner::Start {}, []).unwrap();
    assert_eq!(ask(&mut runner, runner::PowerButton {}, []).unwrap_err().reason, Reason::Timeout);
    assert_eq!(last_end(&mut runner).0, Phase::Running);
    ask(&mut runner, runner::Kill {}, []).unwrap();
    assert_eq!(last_end(&mut runner), (Phase::Ended, Some(End::Killed)));
}

#[test]
fn many_words_are_cut() {
    let mut spawner = spawner!("many_words_are_cut");
    let (machine, mut runner) = cell(&mut spawner, "many words");
    let refusal = ask(&mut runner, runner::Start {}, []).unwrap_err();
    assert_eq!(refusal.reason, Reason::HypervisorFailed);
    match last_end(&mut runner) {
        (Phase::Ended, Some(End::Crash { code: 3, words })) => assert!(words.as_str().ends_with("word 199999"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert!(std::fs::metadata(machine.dir.path().join("hypervisor.log")).unwrap().len() <= (1 << 20) + 4096);
}

#[test]
fn a_reboot_loop_is_left() {
    let mut spawner = spawner!("a_reboot_loop_is_left");
    let (_machine, mut runner) = cell(&mut spawner, "reboots");
    let mut events = Events::of(&mut runner);
    let _ = ask(&mut runner, runner::Start {}, []);
    events.until_phase(Phase::Ended);
    assert_eq!(last_end(&mut runner), (Phase::Ended, Some(End::RebootLoop)));
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.starts, 5);
}
