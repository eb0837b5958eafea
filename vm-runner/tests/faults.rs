//! What happens when something dies, lies or is missing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_proto::cell::{CellUsage, Facilities, FdRole, KillCell, Limits, ListCells, MakeCell, StartConsole, SweepCell};
use skep_proto::runner::{self, End, Phase};
use skep_proto::{MachineId, Reason, UpTo, console};
use std::io::Read;
use std::os::fd::AsFd;
use support::{Events, Machine, Spawner, Terminal, ask, is_root, memory_file, processes_in_cell, skip};

fn end(pid: u32) {
    let pid = i32::try_from(pid).unwrap();
    let process = skep_sys::linux::pidfd(pid).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let mut set = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut set, 10_000u16), Ok(1), "it ends");
}

fn hypervisor_of(first: u32) -> u32 {
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    processes_in_cell(first).into_iter().find(|pid| name(pid).starts_with("qemu")).unwrap()
}

#[test]
fn a_killed_hypervisor_is_a_crash() {
    let mut spawner = spawner!("a_killed_hypervisor_is_a_crash");
    let machine = Machine::new("");
    let made = machine.make(&mut spawner).unwrap();
    let mut runner = spawner.runner(machine.id);
    ask(&mut runner, runner::Start {}, []).unwrap();
    let mut events = Events::of(&mut runner);
    end(hypervisor_of(made.runner));
    assert!(matches!(events.until_end(), End::Crash { code: 137, .. }));
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.phase, Phase::Ended);
}

#[test]
fn a_killed_runner_leaves_only_what_a_sweep_removes() {
    let mut spawner = spawner!("a_killed_runner_leaves_only_what_a_sweep_removes");
    let machine = Machine::new("");
    let made = machine.make(&mut spawner).unwrap();
    let mut terminal = machine.start_console(&mut spawner);
    ask(&mut spawner.runner(machine.id), runner::Start {}, []).unwrap();
    let all = processes_in_cell(made.runner);
    assert_eq!(all.len(), 2, "runner and hypervisor");
    end(made.runner);
    assert!(
        all.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()),
        "the kernel ended all of the cell"
    );
    let cells = spawner.ask(ListCells { after: None }, []).unwrap().cells;
    assert!(cells.len() == 1 && cells[0].machine == machine.id && !cells[0].runner);
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    assert!(!spawner.socket("vm", machine.id).exists() && !spawner.socket("console", machine.id).exists());
    terminal.stream.read_to_end(&mut Vec::new()).unwrap();
    // And the machine can be made again.
    machine.make(&mut spawner).unwrap();
}

#[test]
fn kill_cell_leaves_nothing_alive() {
    let mut spawner = spawner!("kill_cell_leaves_nothing_alive");
    let machine = Machine::new("");
    let made = machine.make(&mut spawner).unwrap();
    let _terminal = machine.start_console(&mut spawner);
    ask(&mut spawner.runner(machine.id), runner::Start {}, []).unwrap();
    let all = processes_in_cell(made.runner);
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
    assert!(all.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()));
    let cells = spawner.ask(ListCells { after: None }, []).unwrap().cells;
    assert!(cells.iter().all(|c| !c.runner && !c.console));
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
}

#[test]
fn a_killed_console_proxy_is_replaced() {
    let mut spawner = spawner!("a_killed_console_proxy_is_replaced");
    let machine = Machine::new("");
    machine.make(&mut spawner).unwrap();
    let (_, [line]) = ask(&mut spawner.runner(machine.id), runner::TakeSerial {}, []).unwrap();
    let log = || memory_file(b"");
    let call = StartConsole { machine: machine.id, slot: machine.slot, ports: machine.ports.clone() };
    let short = spawner.ask(call.clone(), UpTo(vec![log(), log()])).unwrap_err();
    assert_eq!((short.reason, short.field.as_str()), (Reason::InvalidValue, "ports"));
    let started = spawner.ask(call.clone(), UpTo(vec![line, log(), log()])).unwrap();
    let (_, [line]) = ask(&mut spawner.runner(machine.id), runner::TakeSerial {}, []).unwrap();
    assert_eq!(spawner.ask(call, UpTo(vec![line, log(), log()])).unwrap_err().reason, Reason::InUse);
    end(started.pid);
    let mut terminal = machine.start_console(&mut spawner);
    ask(&mut spawner.runner(machine.id), runner::Start {}, []).unwrap();
    terminal.until("skep-guest ready");
    let (state, _) = ask(&mut spawner.console(machine.id), console::Status {}, []).unwrap();
    assert!(state.readers == 1 && state.writer && state.received > 0 && state.unlogged == 0);
}

#[test]
fn the_keyboard_is_one_terminals() {
    let mut spawner = spawner!("the_keyboard_is_one_terminals");
    let machine = Machine::new("");
    let (_runner, mut first) = machine.boot(&mut spawner);
    first.until("skep-guest ready");
    let mut console = spawner.console(machine.id);
    let mut second = Terminal::attach(&mut console, true, false);
    assert!(first.attached.writer && !second.attached.writer);
    second.until("skep-guest ready");
    second.line("echo $((6*7))-ignored");
    let mut third = Terminal::attach(&mut console, true, true);
    assert!(third.attached.writer);
    first.until("[skep: the keyboard was taken over by another terminal]");
    first.line("echo $((6*7))-ignored");
    third.line("echo $((6*7))-typed");
    for terminal in [&mut first, &mut second, &mut third] {
        let seen = terminal.until("42-typed");
        assert!(!seen.contains("42-ignored"), "{seen}");
    }
}

#[test]
fn limits_act() {
    let mut spawner = spawner!("limits_act");
    let there = spawner.ask(Facilities {}, []).unwrap().limits;
    let kept = |name: &str| there.iter().any(|limit| limit.as_str() == name);
    let each = [
        ("limits.memory_mib", kept("memory"), Limits { memory: Some(1 << 30), ..Limits::default() }),
        ("limits.cpu_percent", kept("cpu"), Limits { cpu_percent: Some(30), ..Limits::default() }),
        ("limits.tasks", kept("tasks"), Limits { tasks: Some(64), ..Limits::default() }),
    ];
    // One that cannot be kept is refused by its name, and no cell is left.
    for (field, _, limits) in each.iter().filter(|(_, kept, _)| !kept) {
        let refusal = Machine { limits: limits.clone(), ..Machine::new("") }.make(&mut spawner).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Unsupported, *field), "{refusal}");
    }
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    let enforced = each.iter().filter(|(_, kept, _)| *kept).count();
    let limits = Limits {
        memory: kept("memory").then_some(1 << 30),
        cpu_percent: kept("cpu").then_some(30),
        tasks: kept("tasks").then_some(64),
        ..Limits::default()
    };
    let machine = Machine { limits, ..Machine::new("") };
    machine.make(&mut spawner).unwrap();
    let mut runner = spawner.runner(machine.id);
    ask(&mut runner, runner::Start {}, []).unwrap();
    if enforced == 0 {
        return skip("limits_act", "no control groups");
    }
    let usage = spawner.ask(CellUsage { machine: machine.id, volume: false }, []).unwrap();
    assert!(usage.memory.is_none_or(|bytes| bytes > 10 << 20), "{usage:?}");
    assert!(usage.cpu_ns.is_none_or(|ns| ns > 10_000_000), "{usage:?}");
    if there.iter().any(|l| l.as_str() == "memory") {
        // Less than the hypervisor needs: the kernel ends it, and the runner says so.
        let small = Machine { limits: Limits { memory: Some(40 << 20), ..Limits::default() }, slot: 4, ..Machine::new("") };
        small.make(&mut spawner).unwrap();
        let mut runner = spawner.runner(small.id);
        let mut events = Events::of(&mut runner);
        let _ = ask(&mut runner, runner::Start {}, []);
        assert!(matches!(events.until_end(), End::Crash { code: 137, .. }));
    }
}

#[test]
fn facilities_are_told() {
    let mut spawner = spawner!("facilities_are_told");
    let state = spawner.ask(Facilities {}, []).unwrap();
    assert!(state.hypervisor.as_str().starts_with(|c: char| c.is_ascii_digit()), "{state:?}");
    assert_eq!(state.own_uids, is_root());
    let counted = ["memory", "cpu", "tasks"].iter().all(|name| state.limits.iter().any(|l| l.as_str() == *name));
    assert_eq!(state.weaker.is_empty(), is_root() && counted, "{state:?}");
    assert!(state.limits.iter().all(|name| skep_machine::Limit::named(name.as_str()).is_some()), "{state:?}");
    // Only FreeBSD's kernel says it.
    assert!(state.cpus.is_none_or(|most| most > 0), "{state:?}");
    assert!(state.keyboards.iter().any(|name| ["en-us", "default"].contains(&name.as_str())), "{state:?}");
    assert!(
        state.lacks.iter().all(|(name, why)| skep_machine::Ability::named(name.as_str()).is_some() && why.as_str().len() > 9)
    );
}

/// A field of `/proc/PID/status`, of each thread of a process.
fn of_threads(pid: u32, field: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
    texts.filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned())).collect()
}

#[test]
fn a_cell_keeps_to_its_cpus_and_yields_to_others() {
    let mut spawner = spawner!("a_cell_keeps_to_its_cpus_and_yields_to_others");
    let own = of_threads(spawner.pid(), "Cpus_allowed_list:").remove(0);
    let all: skep_proto::CpuList = own.parse().unwrap();
    let last = skep_proto::CpuList(all.0.last().copied().into_iter().collect());
    let limits = Limits { cpus: last.clone(), priority: 7, ..Limits::default() };
    let machine = Machine { limits, ..Machine::new("") };
    let made = machine.make(&mut spawner).unwrap();
    let mut runner = spawner.runner(machine.id);
    ask(&mut runner, runner::Start {}, []).unwrap();
    for pid in [made.runner, hypervisor_of(made.runner)] {
        let cpus = of_threads(pid, "Cpus_allowed_list:");
        assert!(!cpus.is_empty() && cpus.iter().all(|list| *list == last.to_string()), "{cpus:?}");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name may have blanks; nice is field 19, 16 behind it.
        assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("7"));
    }
    // Others are as they were.
    assert_eq!(of_threads(spawner.pid(), "Cpus_allowed_list:"), [own]);
    let missing = skep_proto::CpuList([1023].into());
    for (limits, field) in [
        (Limits { cpus: missing.clone(), ..Limits::default() }, "limits.cpus"),
        (Limits { bound: missing, ..Limits::default() }, "limits.pins"),
        (Limits { priority: 20, ..Limits::default() }, "limits.priority"),
    ] {
        let refusal = Machine { limits, slot: 4, ..Machine::new("") }.make(&mut spawner).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, field), "{refusal}");
    }
    let state = spawner.ask(Facilities {}, []).unwrap();
    // Before others: where it lacks the privilege for that, nothing is left of the attempt.
    let raised = Machine { limits: Limits { priority: -5, ..Limits::default() }, slot: 4, ..Machine::new("") };
    let raised = raised.make(&mut spawner);
    if state.limits.iter().any(|limit| limit.as_str() == "raise") {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", raised.unwrap().runner)).unwrap();
        assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("-5"));
        return;
    }
    let refusal = raised.unwrap_err();
    assert!(refusal.note.as_str().contains("set the priority"), "{refusal}");
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.iter().all(|cell| cell.machine == machine.id));
}

#[test]
fn what_is_missing_is_said_and_nothing_is_left() {
    let mut spawner = spawner!("what_is_missing_is_said_and_nothing_is_left");
    let machine = Machine::new("");
    let root = spawner.dir.path().join("state/cell/root");
    let refused = |spawner: &mut Spawner, reason| {
        let refusal = machine.make(spawner).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    };
    let runner = root.join("skep/skep-vm-runner");
    std::fs::rename(&runner, root.join("skep/away")).unwrap();
    refused(&mut spawner, Reason::Internal);
    std::fs::write(&runner, "not a program").unwrap();
    std::fs::set_permissions(&runner, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    refused(&mut spawner, Reason::Internal);
    // A program that ends before it is ready.
    std::fs::remove_file(&runner).unwrap();
    std::fs::copy(root.join("usr/bin/qemu-system-x86_64"), &runner).unwrap();
    refused(&mut spawner, Reason::Internal);
    std::fs::remove_file(root.join("usr/bin/qemu-system-x86_64")).unwrap();
    refused(&mut spawner, Reason::HypervisorMissing);
    std::fs::rename(&root, root.with_extension("away")).unwrap();
    refused(&mut spawner, Reason::HypervisorMissing);
}

#[test]
fn wrong_descriptors_are_refused() {
    let mut spawner = spawner!("wrong_descriptors_are_refused");
    let machine = MachineId::random();
    let mut refused = |fds: Vec<FdRole>, given: Vec<std::os::fd::OwnedFd>| {
        let call = MakeCell {
            machine,
            slot: 1,
            limits: Limits::default(),
            fds,
            kvm: false,
            file_limit: 0,
            shares: vec![],
            serial: vec![1],
            sound: vec![],
            remote: vec![],
        };
        let refusal = spawner.ask(call, UpTo(given)).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidValue, "{refusal}");
    };
    let directory = || std::fs::File::open("/").unwrap().into();
    let file = || memory_file(b"x");
    refused(vec![], vec![]);
    refused(vec![FdRole::Config], vec![]);
    refused(vec![FdRole::Config], vec![directory()]);
    refused(vec![FdRole::Config, FdRole::Disk(0)], vec![file(), directory()]);
    refused(vec![FdRole::Config, FdRole::Config], vec![file(), file()]);
    refused(vec![FdRole::Config, FdRole::Tap(0)], vec![file(), file()]);
    refused(vec![FdRole::Config, FdRole::Disk(200)], vec![file(), file()]);
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
}
