//! A machine's life in its cell: real QEMU, real guest, through the real sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use skep_proto::Reason;
use skep_proto::cell::{KillCell, ListCells, SweepCell};
use skep_proto::runner::{self, End, Phase};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use support::{Events, Machine, Terminal, ask, config, config_of, memory_file};

/// What a port's log holds, after its times.
fn logged(machine: &Machine, port: u8) -> String {
    let bytes = std::fs::read(machine.dir.path().join(format!("serial{port}.0.log"))).unwrap_or_default();
    let text = bytes.get(skep_proto::marks::TABLE as usize..).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[test]
fn boots_answers_and_powers_off() {
    let mut spawner = spawner!("boots_answers_and_powers_off");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    assert!(terminal.attached.writer);
    terminal.line("echo $((6*7))-answers");
    terminal.until("42-answers");
    let (state, _) = ask(&mut runner, runner::Status {}, []).unwrap();
    assert_eq!((state.phase, state.starts, state.last_end), (Phase::Running, 1, None));
    terminal.line("poweroff -f");
    assert_eq!(events.until_end(), End::PowerOff);
    events.until_phase(Phase::Ended);
    assert_eq!(spawner.ask(SweepCell { machine: machine.id }, []).unwrap_err().reason, Reason::InUse);
    ask(&mut runner, runner::Leave {}, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    let log = logged(&machine, 1);
    assert!(log.contains("42-answers"), "the log has what the guest said: {log}");
}

#[test]
fn a_cell_that_is_there_is_not_made_again() {
    let mut spawner = spawner!("a_cell_that_is_there_is_not_made_again");
    let machine = Machine::new("");
    machine.make(&mut spawner).unwrap();
    assert_eq!(machine.make(&mut spawner).unwrap_err().reason, Reason::InUse);
    let mut runner = spawner.runner(machine.id);
    assert_eq!(ask(&mut runner, runner::Pause {}, []).unwrap_err().reason, Reason::WrongState);
    ask(&mut runner, runner::Leave {}, []).unwrap();
}

#[test]
fn the_power_button_is_obeyed() {
    let mut spawner = spawner!("the_power_button_is_obeyed");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    ask(&mut runner, runner::PowerButton {}, []).unwrap();
    assert_eq!(events.until_end(), End::PowerOff);
}

#[test]
fn the_power_button_is_pressed_once_a_run() {
    let mut spawner = spawner!("the_power_button_is_pressed_once_a_run");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    // Nobody listens to it; the kernel counts.
    let count = "cat /sys/firmware/acpi/interrupts/ff_pwr_btn";
    terminal.line("killall dd; echo $((6*7))-deaf");
    terminal.until("42-deaf");
    for press in ["first", "second"] {
        ask(&mut runner, runner::PowerButton {}, []).unwrap();
        terminal.line(&format!("set -- $({count}); echo {press}-$1-presses"));
        terminal.until(&format!("{press}-1-presses"));
    }
    // A run anew has a button anew.
    ask(&mut runner, runner::Reset {}, []).unwrap();
    assert_eq!(events.until_end(), End::Reset);
    terminal.until("skep-guest ready");
    ask(&mut runner, runner::PowerButton {}, []).unwrap();
    assert_eq!(events.until_end(), End::PowerOff);
}

#[test]
fn killed_it_ends_at_once() {
    let mut spawner = spawner!("killed_it_ends_at_once");
    let machine = Machine::new("");
    let (mut runner, _terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    ask(&mut runner, runner::Kill {}, []).unwrap();
    assert_eq!(events.until_end(), End::Killed);
    ask(&mut runner, runner::Kill {}, []).unwrap();
    assert_eq!(ask(&mut runner, runner::Start {}, []).unwrap_err().reason, Reason::WrongState);
}

#[test]
fn reset_starts_it_anew() {
    let mut spawner = spawner!("reset_starts_it_anew");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    ask(&mut runner, runner::Reset {}, []).unwrap();
    assert_eq!(events.until_end(), End::Reset);
    terminal.until("skep-guest ready");
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.starts, 2);
}

#[test]
fn paused_it_says_nothing() {
    let mut spawner = spawner!("paused_it_says_nothing");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    terminal.until("skep-guest ready");
    ask(&mut runner, runner::Pause {}, []).unwrap();
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.phase, Phase::Paused);
    let before = ask(&mut runner, runner::Stats {}, []).unwrap().0.cpu_ns;
    terminal.line("echo $((6*7))-late");
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.phase, Phase::Paused);
    let after = ask(&mut runner, runner::Stats {}, []).unwrap().0.cpu_ns;
    assert!(!terminal.seen.contains("42-late"));
    ask(&mut runner, runner::Resume {}, []).unwrap();
    terminal.until("42-late");
    assert!(after - before < 1_000_000_000, "{before} {after}");
}

#[test]
fn a_reboot_starts_it_with_the_latest_configuration() {
    let mut spawner = spawner!("a_reboot_starts_it_with_the_latest_configuration");
    let machine = Machine::new("skep.test=first");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    let next = memory_file(config("skep.test=second", true, false).as_bytes());
    ask(&mut runner, runner::Configure {}, [next]).unwrap();
    terminal.line("cat /proc/cmdline; echo x > /tmp/kept; reboot -f");
    terminal.until("skep.test=first");
    assert_eq!(events.until_end(), End::Reboot);
    terminal.until("skep-guest ready");
    terminal.line("cat /proc/cmdline; ls /tmp/kept");
    terminal.until("skep.test=second");
    terminal.until("/tmp/kept: No such file");
    let (state, _) = ask(&mut runner, runner::Status {}, []).unwrap();
    assert_eq!((state.phase, state.starts, state.last_end), (Phase::Running, 2, Some(End::Reboot)));
}

#[test]
fn a_panic_is_told() {
    let mut spawner = spawner!("a_panic_is_told");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    terminal.until("skep-guest ready");
    terminal.line("echo c > /proc/sysrq-trigger");
    assert_eq!(events.until_end(), End::Panic);
}

#[test]
fn a_configuration_that_is_none_is_a_crash_with_words() {
    let mut spawner = spawner!("a_configuration_that_is_none_is_a_crash_with_words");
    let machine = Machine::scripted("[machine]\n type = \"no-such-machine\"");
    machine.make(&mut spawner).unwrap();
    let mut runner = spawner.runner(machine.id);
    let refusal = ask(&mut runner, runner::Start {}, []).unwrap_err();
    assert_eq!(refusal.reason, Reason::HypervisorFailed);
    assert!(refusal.note.as_str().contains("unsupported machine type"), "{refusal}");
    assert_eq!(ask(&mut runner, runner::Status {}, []).unwrap().0.phase, Phase::Ended);
}

#[test]
fn the_screen_speaks_rfb() {
    let mut spawner = spawner!("the_screen_speaks_rfb");
    let machine = Machine { config: config("", false, true), ..Machine::new("") };
    let (mut runner, _terminal) = machine.boot(&mut spawner);
    for _ in 0..2 {
        let (_, [hypervisor]) = ask(&mut runner, runner::ConnectScreen {}, []).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ask(&mut spawner.console(machine.id), skep_proto::console::AttachScreen {}, [theirs.into(), hypervisor]).unwrap();
        let mut banner = [0; 12];
        ours.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"RFB 003.008\n");
        ours.write_all(&banner).unwrap();
        let mut security = [0; 2];
        ours.read_exact(&mut security).unwrap();
        assert_eq!(security, [1, 1], "one kind of security, none: whoever holds the stream may look");
    }
}

#[test]
fn a_channel_carries_bytes_both_ways() {
    let mut spawner = spawner!("a_channel_carries_bytes_both_ways");
    let machine = Machine { config: support::config_with_channel("org.example.a"), disk: false, ..Machine::new("") };
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    terminal.until("skep-guest ready");
    // Nothing is there to be read before a client is.
    terminal.line(
        "p=$(echo /dev/vport*p1); exec 5<>$p; while :; do if read -r l <&5; then echo \"got $l\" >&5; else sleep 0.1; fi; done &",
    );
    for round in 0..2 {
        let (_, [hypervisor]) = ask(&mut runner, runner::ConnectChannel { port: 0 }, []).unwrap();
        let taken = ask(&mut runner, runner::ConnectChannel { port: 0 }, []).unwrap_err();
        assert_eq!(taken.reason, Reason::InUse, "{taken}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ask(&mut spawner.console(machine.id), skep_proto::console::AttachScreen {}, [theirs.into(), hypervisor]).unwrap();
        ours.write_all(format!("line-{round}\n").as_bytes()).unwrap();
        let mut answer = [0; 11];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *format!("got line-{round}\n").as_bytes().first_chunk::<11>().unwrap());
        drop(ours);
        // The console-proxy hears of the end before it passes on what is typed afterwards, and QEMU before the guest answers that.
        terminal.line("echo $((6*7))-gone");
        terminal.until("42-gone");
    }
    assert_eq!(ask(&mut runner, runner::ConnectChannel { port: 1 }, []).unwrap_err().reason, Reason::WrongState);
}

#[test]
fn four_serial_ports_carry_bytes_both_ways() {
    let mut spawner = spawner!("four_serial_ports_carry_bytes_both_ways");
    let ports: Vec<skep_proto::SerialPort> = ["1", "2", "3,nolog", "4"].map(|port| port.parse().unwrap()).into();
    let config = config_of(|spec| spec.serial_ports = [1, 2, 3, 4].into());
    let machine = Machine { config, ports, disk: false, ..Machine::new("") };
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    terminal.until("skep-guest ready");
    let mut console = spawner.console(machine.id);
    for port in 2..=4 {
        let line = port - 1;
        let mut other = Terminal::attach_port(&mut console, port);
        // What comes before it is open is lost.
        terminal.line(&format!("(echo $((6*7))-listens; read -r l; echo \"got $l\") </dev/ttyS{line} >/dev/ttyS{line} &"));
        other.until("42-listens");
        other.line(&format!("line-{port}"));
        other.until(&format!("got line-{port}"));
        let log = logged(&machine, port);
        assert_eq!(log.contains(&format!("got line-{port}")), port != 3, "{port}: {log}");
    }
    let none = ask(&mut runner, runner::TakePort { port: 5 }, []).unwrap_err();
    assert_eq!(none.reason, Reason::WrongState, "{none}");
}

/// A command of gdb's remote protocol, and the answer's text.
fn gdb(stream: &mut UnixStream, command: &str) -> String {
    let sum = command.bytes().fold(0u8, u8::wrapping_add);
    stream.write_all(format!("${command}#{sum:02x}").as_bytes()).unwrap();
    gdb_says(stream)
}

/// What the stub says next.
fn gdb_says(stream: &mut UnixStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    let mut next = || {
        stream.read_exact(&mut byte).unwrap();
        byte[0]
    };
    while next() != b'$' {}
    loop {
        match next() {
            b'#' => break,
            byte => text.push(byte),
        }
    }
    let _ = (next(), next());
    stream.write_all(b"+").unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_debugger_stops_reads_and_lets_run() {
    let mut spawner = spawner!("a_debugger_stops_reads_and_lets_run");
    // It stands still until somebody lets it run.
    let config = config_of(|spec| spec.gdb = skep_machine::Gdb::Wait);
    let machine = Machine { config, disk: false, ..Machine::new("") };
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    let mut events = Events::of(&mut runner);
    events.until_phase(Phase::Paused);
    for round in 0..2 {
        let (_, [stub]) = ask(&mut runner, runner::ConnectGdb {}, []).unwrap();
        let taken = ask(&mut runner, runner::ConnectGdb {}, []).unwrap_err();
        assert_eq!(taken.reason, Reason::InUse, "{taken}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(support::PATIENCE)).unwrap();
        ask(&mut spawner.console(machine.id), skep_proto::console::AttachScreen {}, [theirs.into(), stub]).unwrap();
        let features = gdb(&mut ours, "qSupported");
        assert!(features.contains("PacketSize="), "round {round}: {features}");
        assert!(gdb(&mut ours, "?").starts_with("T05"), "it stands still");
        // Where a PC begins, it reads the reset vector's far jump; later the registers are those of a guest at work.
        if round == 0 {
            assert_eq!(gdb(&mut ours, "mfffffff0,1"), "ea");
        }
        assert!(gdb(&mut ours, "g").len() > 200);
        assert_eq!(gdb(&mut ours, "D"), "OK");
        events.until_phase(Phase::Running);
        if round == 0 {
            terminal.until("skep-guest ready");
        }
        drop(ours);
        terminal.line("echo $((6*7))-lives");
        terminal.until("42-lives");
        if round == 0 {
            // The console-proxy has heard of the end, and QEMU before the guest answered.
            let stub = ask(&mut runner, runner::ConnectGdb {}, []);
            drop(stub.unwrap());
            events.until_phase(Phase::Paused);
            ask(&mut runner, runner::Resume {}, []).unwrap();
            events.until_phase(Phase::Running);
            terminal.line("echo $((6*7))-again");
            terminal.until("42-again");
        }
    }
}

#[test]
fn counters_rise() {
    let mut spawner = spawner!("counters_rise");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    terminal.until("skep-guest ready");
    let (before, _) = ask(&mut runner, runner::Stats {}, []).unwrap();
    terminal.line("dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=fsync; echo $((6*7))-written");
    terminal.until("42-written");
    let (after, _) = ask(&mut runner, runner::Stats {}, []).unwrap();
    assert!(after.cpu_ns > before.cpu_ns);
    assert_eq!(after.disks.len(), 1);
    assert!(after.disks[0].write_bytes >= before.disks[0].write_bytes + (4 << 20), "{before:?} {after:?}");
}

#[test]
fn a_disk_that_cannot_grow_leaves_its_hypervisors_limit() {
    let mut spawner = spawner!("a_disk_that_cannot_grow_leaves_its_hypervisors_limit");
    let machine = Machine::new("");
    let made = machine.make(&mut spawner).unwrap();
    let mut terminal = machine.start_console(&mut spawner);
    let mut runner = spawner.runner(machine.id);
    ask(&mut runner, runner::Start {}, []).unwrap();
    terminal.until("skep-guest ready");
    let limit = || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", made.runner)).unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", children.trim())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max file size")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 20
    };
    // Its variable store would fit, if it had one.
    assert_eq!(limit(), 64);
    let mut grow =
        |slot, size: u64, most: u64| ask(&mut runner, runner::GrowDisk { slot, size: size << 20, most: most << 20 }, []);
    assert_eq!(grow(1, 96, 100).unwrap_err().reason, Reason::InvalidValue);
    assert_eq!(grow(0, 0, 100).unwrap_err().reason, Reason::InvalidValue);
    // The kernel holds it to what it was given.
    let refusal = grow(0, 200, 100).unwrap_err();
    assert_eq!((refusal.reason, limit()), (Reason::HypervisorFailed, 64), "{refusal}");
    grow(0, 96, 100).unwrap();
    assert_eq!(limit(), 100);
    // Less than it may have takes nothing from its other files.
    grow(0, 97, 98).unwrap();
    assert_eq!(limit(), 100);
    terminal.line("until [ $(cat /sys/block/vda/size) = 198656 ]; do sleep 0.1; done; echo $((6*7))-larger");
    terminal.until("42-larger");
    // The one that a reset starts may do as much.
    ask(&mut runner, runner::Reset {}, []).unwrap();
    assert_eq!(limit(), 100);
}

#[test]
fn a_machine_outlives_its_spawner() {
    let mut spawner = spawner!("a_machine_outlives_its_spawner");
    let machine = Machine::new("");
    let (mut runner, mut terminal) = machine.boot(&mut spawner);
    terminal.until("skep-guest ready");
    spawner.replace();
    let cells = spawner.ask(ListCells { after: None }, []).unwrap().cells;
    assert_eq!(cells.len(), 1);
    assert!(cells[0].machine == machine.id && cells[0].runner && cells[0].console);
    terminal.line("echo $((6*7))-alive");
    terminal.until("42-alive");
    ask(&mut runner, runner::Status {}, []).unwrap();
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
}
