//! The runner's operations, and what it does when something happens.

use super::{Runner, Words, files};
use crate::platform::{Engine, Happening};
use nix::poll::PollFlags;
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_machine::{Ended, Exit};
use skep_proto::cell::FdRole;
use skep_proto::runner::{self, Done, End, Phase, RunnerEvent, RunnerRequest, RunnerState, StatsState};
use skep_proto::{DiskRates, NoFds, OneFd, Reason, Refusal, wire};
use skep_rights::runner::TABLE;
use skep_sys::sock::Peer;
use skep_sys::{msg, sock};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a hypervisor may take from its start until the guest runs.
const START: Duration = Duration::from_secs(30);
/// How long a hypervisor may live on that has closed its control line.
const GRACE: Duration = Duration::from_secs(3);
/// A reboot this soon after a start is a quick one.
const QUICK: Duration = Duration::from_secs(10);
/// So many quick ones in a row are a loop.
const LOOP: u32 = 5;
/// Watchers at a time.
const WATCHERS: usize = 8;
/// The alarm's token; the engine's are smaller.
const ALARM: u64 = 100;
/// The first token of watchers.
const WATCHER: u64 = 1000;

pub(super) type Answer<T, F = NoFds> = Result<(T, F), Refusal>;

impl Service<runner::Runner> for Runner {
    fn serve(&mut self, ask: Ask<'_>, request: RunnerRequest) -> Result<Answered, ProtocolError> {
        let answered = match request {
            RunnerRequest::Status(c) => ask.answer(c, |_, _, []| Ok((self.state(), []))),
            RunnerRequest::Start(c) => ask.answer(c, |_, _, []| self.start()),
            RunnerRequest::PowerButton(c) => ask.answer(c, |_, _, []| self.power_button()),
            RunnerRequest::Kill(c) => ask.answer(c, |_, _, []| self.kill()),
            RunnerRequest::Reset(c) => ask.answer(c, |_, _, []| self.reset()),
            RunnerRequest::Pause(c) => ask.answer(c, |_, _, []| self.with(Engine::pause)),
            RunnerRequest::Resume(c) => ask.answer(c, |_, _, []| self.with(Engine::resume)),
            RunnerRequest::Configure(c) => ask.answer(c, |_, _, fds| self.configure(fds)),
            RunnerRequest::TakeSerial(c) => ask.answer(c, |_, _, []| self.take_port(1)),
            RunnerRequest::TakeDoor(c) => ask.answer(c, |_, c, []| self.take_door(c.slot)),
            RunnerRequest::TakePort(c) => ask.answer(c, |_, c, []| self.take_port(c.port)),
            RunnerRequest::ConnectGdb(c) => ask.answer(c, |_, _, []| self.connect_gdb()),
            RunnerRequest::ConnectScreen(c) => ask.answer(c, |_, _, []| self.connect_screen()),
            RunnerRequest::Stats(c) => ask.answer(c, |_, _, []| self.stats()),
            RunnerRequest::Watch(c) => ask.answer(c, |_, _, []| self.watch()),
            RunnerRequest::Leave(c) => ask.answer(c, |_, _, []| self.leave()),
            RunnerRequest::Eject(c) => ask.answer(c, |_, c, []| self.with(|engine| engine.eject(c.slot))),
            RunnerRequest::KeepLayers(c) => ask.answer(c, |_, c, fds| self.keep_layers(&c.layers, fds)),
            RunnerRequest::SetLink(c) => ask.answer(c, |_, c, []| self.with(|engine| engine.set_link(c.slot, c.up))),
            RunnerRequest::LimitDisk(c) => ask.answer(c, |_, c, []| self.limit_disk(c.slot, c.rates)),
            RunnerRequest::GrowDisk(c) => ask.answer(c, |_, c, []| self.grow_disk(&c)),
            RunnerRequest::SwitchDisks(c) => ask.answer(c, |_, c, fds| self.switch_disks(&c.disks, fds)),
            RunnerRequest::ConnectChannel(c) => ask.answer(c, |_, c, []| self.connect_channel(c.port)),
        };
        // What happened while it waited for the hypervisor.
        self.settle();
        answered
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        let mut list = self.engine.as_ref().map(Engine::watched).unwrap_or_default();
        list.push(Watch { fd: self.alarm.as_fd(), flags: PollFlags::POLLIN, token: ALARM });
        list.extend(self.watchers.iter().map(|(token, fd)| Watch { fd: fd.as_fd(), flags: PollFlags::POLLIN, token: *token }));
        list
    }

    fn ready(&mut self, token: u64, _: PollFlags) {
        if token >= WATCHER {
            // It is gone: a watcher never says anything.
            return self.watchers.retain(|(number, _)| *number != token);
        }
        if let Some(engine) = &mut self.engine {
            if token == ALARM {
                if !engine.is_up() || engine.is_deaf() {
                    engine.give_up("the hypervisor did not answer in time");
                }
            } else {
                engine.ready(token);
                // It ends, or it has gone mad.
                if engine.is_deaf() {
                    let _ = self.alarm.set(GRACE);
                }
            }
        }
        if token == ALARM {
            let _ = self.alarm.clear();
        }
        self.settle();
    }

    fn closed(&mut self, _: Peer, _: &ProtocolError) {}
    fn stranger(&mut self, _: Peer) {}
    fn goes_on(&self) -> bool {
        !self.left
    }
}

pub(super) fn object(runner: &Runner) -> String {
    format!("machine {}", runner.kit.machine)
}

impl Runner {
    fn state(&self) -> RunnerState {
        RunnerState { phase: self.phase, starts: self.starts, last_end: self.last_end.clone() }
    }

    fn wrong_state(&self) -> Refusal {
        Refusal::new(Reason::WrongState, object(self)).note(format_args!("its runner is in phase {:?}", self.phase))
    }

    fn start(&mut self) -> Answer<Done> {
        if self.phase != Phase::Ready {
            return Err(self.wrong_state());
        }
        self.launch()?;
        self.await_up()
    }

    /// Starts the hypervisor; the guest runs later.
    fn launch(&mut self) -> Result<(), Refusal> {
        files::write(&self.kit)?;
        let log = self.kit.fds.iter().find(|(role, _)| *role == FdRole::Log).and_then(|(_, fd)| fd.try_clone().ok());
        let engine =
            Engine::start(&self.kit, Words::new(log)).map_err(|e| Refusal::io(object(self), "start the hypervisor", &e))?;
        self.engine = Some(engine);
        self.starts = self.starts.saturating_add(1);
        self.pressed = false;
        self.started = Instant::now();
        let _ = self.alarm.set(START);
        self.enter(Phase::Starting);
        Ok(())
    }

    fn await_up(&mut self) -> Answer<Done> {
        let up = self.engine.as_mut().is_some_and(|engine| engine.await_up(START));
        self.settle();
        match (&self.last_end, self.phase) {
            (_, Phase::Running | Phase::Paused) => Ok((Done {}, [])),
            (Some(End::Crash { code, words }), Phase::Ended) => {
                let note = format!("it ended with code {code}: {words}");
                Err(Refusal::new(Reason::HypervisorFailed, object(self)).note(note))
            }
            _ if up => Err(Refusal::new(Reason::HypervisorFailed, object(self)).note("it ended at once")),
            _ => {
                if let Some(engine) = &mut self.engine {
                    engine.give_up("the hypervisor did not answer in time");
                    engine.end(false);
                }
                Err(Refusal::new(Reason::Timeout, object(self)).note("the hypervisor did not answer"))
            }
        }
    }

    /// Asks the hypervisor of a machine that is up.
    fn with<T>(&mut self, act: impl FnOnce(&mut Engine) -> Result<T, Refusal>) -> Answer<Done> {
        self.engine_up()?;
        self.engine.as_mut().map_or_else(|| Err(Refusal::new(Reason::WrongState, "hypervisor")), act)?;
        Ok((Done {}, []))
    }

    /// Presses it, unless it was pressed since the hypervisor's start, whoever asked: a guest that is shutting down may take a second press for
    /// something else, and bhyve for an order to end at once.
    fn power_button(&mut self) -> Answer<Done> {
        self.engine_up()?;
        if !self.pressed {
            let pressed = self.with(Engine::power_button);
            // One that was late with its answer has heard it.
            self.pressed = pressed.as_ref().err().is_none_or(|refusal| refusal.reason == Reason::Timeout);
            return pressed;
        }
        Ok((Done {}, []))
    }

    fn limit_disk(&mut self, slot: u8, rates: DiskRates) -> Answer<Done> {
        rates.check().map_err(|bad| Refusal::new(Reason::InvalidValue, object(self)).field(bad.field).note(bad))?;
        self.with(|engine| engine.limit_disk(slot, rates))
    }

    pub(super) fn engine_up(&self) -> Result<(), Refusal> {
        if matches!(self.phase, Phase::Running | Phase::Paused) { Ok(()) } else { Err(self.wrong_state()) }
    }

    fn kill(&mut self) -> Answer<Done> {
        let Some(mut engine) = self.engine.take() else {
            return if self.phase == Phase::Ended { Ok((Done {}, [])) } else { Err(self.wrong_state()) };
        };
        engine.end(false);
        drop(engine);
        self.finish(End::Killed);
        Ok((Done {}, []))
    }

    fn reset(&mut self) -> Answer<Done> {
        self.engine_up()?;
        if let Some(mut engine) = self.engine.take() {
            engine.end(true);
        }
        self.quick = 0;
        self.restart(End::Reset)?;
        self.await_up()
    }

    fn configure(&mut self, [config]: OneFd) -> Answer<Done> {
        self.check_config(&config)?;
        self.put(FdRole::Config, config)?;
        Ok((Done {}, []))
    }

    /// Refuses what is no configuration.
    pub(super) fn check_config(&self, config: &OwnedFd) -> Result<(), Refusal> {
        let kind = nix::sys::stat::fstat(config).map(|s| s.st_mode & nix::libc::S_IFMT);
        if kind != Ok(nix::libc::S_IFREG) {
            return Err(Refusal::new(Reason::InvalidValue, object(self)).note("a memory file is expected"));
        }
        // As those that came with the cell: it is held as long.
        skep_sandbox::limit_one(&TABLE, "configuration", config.as_fd())
            .map_err(|e| Refusal::new(Reason::Internal, object(self)).note(e.to_string()))
    }

    /// Puts a descriptor into the place of the one that has this role.
    pub(super) fn put(&mut self, role: FdRole, fd: OwnedFd) -> Result<(), Refusal> {
        match self.kit.fds.iter_mut().find(|(there, _)| *there == role) {
            Some((_, place)) => *place = fd,
            None => return Err(Refusal::new(Reason::Internal, object(self)).note(format_args!("it has no {role:?}"))),
        }
        Ok(())
    }

    fn take_port(&mut self, port: u8) -> Answer<Done, OneFd> {
        let none = || Refusal::new(Reason::WrongState, object(self)).note(format_args!("it has no serial port {port}"));
        let (_, line) = self.serial.iter().find(|(number, _)| *number == port).ok_or_else(none)?;
        let end = line.try_clone().map_err(|e| Refusal::io(object(self), "dup the serial line", &e))?;
        Ok((Done {}, [end]))
    }

    fn take_door(&mut self, slot: u8) -> Answer<Done, OneFd> {
        let none =
            || Refusal::new(Reason::WrongState, object(self)).note(format_args!("disk {slot} is not reached over a socket"));
        let (_, door) = self.doors.iter().find(|(there, _)| *there == slot).ok_or_else(none)?;
        let door = door.try_clone().map_err(|e| Refusal::io(object(self), "dup the socket of a disk", &e))?;
        Ok((Done {}, [door]))
    }

    fn connect_screen(&mut self) -> Answer<Done, OneFd> {
        self.engine_up()?;
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        Ok((Done {}, [engine.connect_screen()?]))
    }

    fn connect_channel(&mut self, port: u8) -> Answer<Done, OneFd> {
        self.engine_up()?;
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        Ok((Done {}, [engine.connect_channel(port)?]))
    }

    fn connect_gdb(&mut self) -> Answer<Done, OneFd> {
        self.engine_up()?;
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        Ok((Done {}, [engine.connect_gdb()?]))
    }

    fn stats(&mut self) -> Answer<StatsState> {
        self.engine_up()?;
        let engine = self.engine.as_mut().ok_or_else(|| Refusal::new(Reason::WrongState, "hypervisor"))?;
        let (cpu_ns, disks) = engine.stats()?;
        Ok((StatsState { cpu_ns, disks }, []))
    }

    fn watch(&mut self) -> Answer<Done, OneFd> {
        let (ours, theirs) = sock::seqpacket_pair().map_err(|e| Refusal::io(object(self), "make a socket pair", &e))?;
        tell(&ours, &RunnerEvent::Phase(self.phase));
        // The oldest makes room.
        if self.watchers.len() >= WATCHERS {
            self.watchers.remove(0);
        }
        let last = self.watchers.last().map_or(WATCHER, |(number, _)| *number);
        self.watchers.push((last + 1, ours));
        Ok((Done {}, [theirs]))
    }

    fn leave(&mut self) -> Answer<Done> {
        if self.engine.is_some() {
            return Err(self.wrong_state());
        }
        // If this fails, a sweep that comes at once finds the runner alive, and is refused.
        let _ = nix::sys::socket::shutdown(self.door.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        self.left = true;
        Ok((Done {}, []))
    }

    /// Deals with what the hypervisor has done.
    fn settle(&mut self) {
        let happened = self.engine.as_mut().map(Engine::happened).unwrap_or_default();
        for one in happened {
            match one {
                Happening::Running => self.enter(Phase::Running),
                Happening::Paused => self.enter(Phase::Paused),
                Happening::Ended(ending) => self.ended(ending),
            }
        }
    }

    fn ended(&mut self, ended: Ended) {
        let words = self.engine.take().map(|engine| engine.words.last()).unwrap_or_default();
        match ended {
            Ended::GuestReboot => {
                self.quick = if self.started.elapsed() < QUICK { self.quick + 1 } else { 0 };
                if self.quick >= LOOP {
                    self.finish(End::RebootLoop);
                } else {
                    // A failure is told as the end that it is.
                    let _ = self.restart(End::Reboot);
                }
            }
            Ended::GuestPowerOff => self.finish(End::PowerOff),
            // Not by an operation of ours: a signal of the host's administrator.
            Ended::HostStop | Ended::Reset => self.finish(End::Killed),
            Ended::Panic => self.finish(End::Panic),
            Ended::Crash(exit) => self.finish(End::Crash { code: code(exit), words }),
        }
    }

    fn restart(&mut self, why: End) -> Result<(), Refusal> {
        self.last_end = Some(why.clone());
        self.say(&RunnerEvent::Ended(why));
        let result = self.launch();
        if let Err(refusal) = &result {
            self.finish(End::Crash { code: 255, words: skep_proto::Text::lossy(&refusal.to_string()) });
        }
        result
    }

    fn finish(&mut self, end: End) {
        self.engine = None;
        let _ = self.alarm.clear();
        self.last_end = Some(end.clone());
        self.say(&RunnerEvent::Ended(end));
        self.enter(Phase::Ended);
    }

    fn enter(&mut self, phase: Phase) {
        if phase == Phase::Running {
            let _ = self.alarm.clear();
        }
        if self.phase != phase {
            self.phase = phase;
            self.say(&RunnerEvent::Phase(phase));
        }
    }

    fn say(&mut self, event: &RunnerEvent) {
        self.watchers.retain(|(_, watcher)| tell(watcher, event));
    }
}

/// As a shell shows it.
fn code(exit: Exit) -> u8 {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => signal.saturating_add(128),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// False: it does not keep up, or is gone.
fn tell(watcher: &OwnedFd, event: &RunnerEvent) -> bool {
    // A deadline that has passed: one try.
    wire::encode(event).is_ok_and(|bytes| msg::send(watcher.as_fd(), &bytes, &[], Some(Instant::now())).is_ok())
}
