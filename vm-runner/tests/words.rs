//! What is said in cells beside a runner's is heard, whoever says it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use skep_proto::cell::{Facilities, KillCell, StartConsole, SweepCell};
use skep_proto::runner;
use support::{Machine, Terminal, ask};

#[test]
fn a_console_proxy_is_heard_by_whichever_spawner_there_is() {
    let mut spawner = spawner!("a_console_proxy_is_heard_by_whichever_spawner_there_is");
    let machine = Machine::new("");
    machine.make(&mut spawner).unwrap();
    drop(machine.start_console(&mut spawner));
    let its = format!("console-proxy info machine {}: ", machine.id);
    let text = spawner.words("console-proxy", |text| text.contains("AttachSerial"));
    assert!(text.contains(&format!("{its}serves\n")) && text.contains(" AttachSerial for tester: done\n"), "{text}");
    assert!(text.lines().all(|line| line.contains(&its)), "{text}");
    spawner.replace();
    Terminal::attach(&mut spawner.console(machine.id), false, false);
    spawner.words("console-proxy", |text| text.matches("AttachSerial").count() == 2);
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    let left: Vec<_> = std::fs::read_dir(spawner.dir.path().join("run/console")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_that_shouts_hinders_nobody_and_fills_nothing() {
    let mut spawner = spawner!("one_that_shouts_hinders_nobody_and_fills_nothing");
    spawner.replace_console("loud_console");
    let machine = Machine::new("");
    machine.make(&mut spawner).unwrap();
    let (_, [line]) = ask(&mut spawner.runner(machine.id), runner::TakeSerial {}, []).unwrap();
    let call = StartConsole { machine: machine.id, slot: machine.slot, ports: vec!["1,nolog".parse().unwrap()] };
    spawner.ask(call, skep_proto::UpTo(vec![line])).unwrap();
    spawner.words("console-proxy", |text| text.contains("it says too much"));
    for _ in 0..100 {
        spawner.ask(Facilities {}, []).unwrap();
    }
    let text = spawner.words("console-proxy", |_| true);
    assert!(text.lines().count() < 130 && text.len() < 32 << 10, "{} lines, {} bytes", text.lines().count(), text.len());
    let its = format!(" machine {}: ", machine.id);
    assert!(text.lines().all(|line| line.contains(" console-proxy ") && line.contains(&its) && !line.contains('\x1b')), "{text}");
    assert!(!spawner.log().contains("MachineAct"), "{}", spawner.log());
    // Nor does a successor wait for it.
    spawner.replace();
    spawner.ask(Facilities {}, []).unwrap();
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
}
