//! Runner and console-proxy of the tests.

use super::services::{act, memory, quiet};
use super::world::World;
use nix::poll::PollFlags;
use skep_ipc::{Answered, Ask, ProtocolError, Server, Service, Silent, Watch};
use skep_proto::console::{self, Console, ConsoleRequest};
use skep_proto::runner::{self, End, Phase, Runner, RunnerEvent, RunnerRequest, RunnerState, StatsState};
use skep_proto::{Helper, MachineId};
use skep_sys::sock::{self, Peer};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

struct FakeRunner {
    world: World,
    id: MachineId,
    life: OwnedFd,
    goes_on: bool,
}

/// Serves `path` in a thread until what is returned is dropped.
fn serve<H: Helper>(path: &Path, service: impl FnOnce(OwnedFd) -> Box<dyn Service<H> + Send>) -> OwnedFd {
    let listener = sock::bind_seqpacket(path, 0o600).expect("bind");
    sock::listen(listener.as_fd()).expect("listen");
    let (ours, theirs) = sock::stream_pair().expect("pair");
    let mut service = service(theirs);
    std::thread::spawn(move || Server::<H>::new(listener, None).run(&mut *service, &mut Silent));
    ours
}

pub fn serve_runner(world: &World, run: &Path, id: MachineId) -> OwnedFd {
    let world = world.clone();
    serve::<Runner>(&run.join(format!("vm/{id}.sock")), |life| Box::new(FakeRunner { world, id, life, goes_on: true }))
}

pub fn serve_console(world: &World, run: &Path, id: MachineId) -> OwnedFd {
    let world = world.clone();
    serve::<Console>(&run.join(format!("console/{id}.sock")), |life| Box::new(FakeConsole { world, life, goes_on: true }))
}

macro_rules! mortal {
    () => {
        fn watched(&self) -> Vec<Watch<'_>> {
            vec![Watch { fd: self.life.as_fd(), flags: PollFlags::POLLIN, token: 0 }]
        }
        fn ready(&mut self, _: u64, _: PollFlags) {
            self.goes_on = false;
        }
        fn goes_on(&self) -> bool {
            self.goes_on
        }
    };
}

impl FakeRunner {
    fn phase(&self, phase: Phase) {
        self.world.tell(self.id, &RunnerEvent::Phase(phase));
    }
    fn end(&self, end: End) {
        self.world.tell(self.id, &RunnerEvent::Ended(end));
    }
}

impl Service<Runner> for FakeRunner {
    quiet!();
    mortal!();
    fn serve(&mut self, ask: Ask<'_>, request: RunnerRequest) -> Result<Answered, ProtocolError> {
        let fate = self.world.begin(Runner::op(&request).name)?;
        let done = || Ok((runner::Done {}, []));
        match request {
            RunnerRequest::Status(c) => act!(ask, c, fate, |_, _| {
                let state = self.world.lock();
                let cell = state.cells.get(&self.id);
                let cell = cell.ok_or_else(|| skep_proto::Refusal::new(skep_proto::Reason::NotFound, self.id))?;
                Ok((RunnerState { phase: cell.phase, starts: cell.starts, last_end: cell.last_end.clone() }, []))
            }),
            RunnerRequest::Start(c) => act!(ask, c, fate, |_, _| {
                if let Some(refusal) = self.world.lock().crash.take() {
                    return Err(refusal);
                }
                if let Some(cell) = self.world.lock().cells.get_mut(&self.id) {
                    cell.starts += 1;
                }
                self.phase(Phase::Running);
                let state = self.world.lock();
                let tries = state.cells.get(&self.id).is_some_and(|cell| cell.tries_kvm);
                let end = state.kvm.clone().flatten().filter(|_| tries);
                drop(state);
                if let Some(end) = end {
                    self.end(end);
                }
                done()
            }),
            RunnerRequest::PowerButton(c) => act!(ask, c, fate, |_, _| {
                if !self.world.lock().deaf {
                    self.end(End::PowerOff);
                }
                done()
            }),
            RunnerRequest::Kill(c) => act!(ask, c, fate, |_, _| {
                self.end(End::Killed);
                done()
            }),
            RunnerRequest::Reset(c) => act!(ask, c, fate, |_, _| {
                self.end(End::Reset);
                self.phase(Phase::Running);
                done()
            }),
            RunnerRequest::Pause(c) => act!(ask, c, fate, |_, _| {
                self.phase(Phase::Paused);
                done()
            }),
            RunnerRequest::Resume(c) => act!(ask, c, fate, |_, _| {
                self.phase(Phase::Running);
                done()
            }),
            RunnerRequest::Configure(c) => act!(ask, c, fate, |_, _| done()),
            RunnerRequest::TakeSerial(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::ConnectScreen(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::TakeDoor(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::TakePort(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::ConnectGdb(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::SetLink(c) => act!(ask, c, fate, |_, _| done()),
            RunnerRequest::LimitDisk(c) => act!(ask, c, fate, |_, _| done()),
            RunnerRequest::GrowDisk(c) => act!(ask, c, fate, |c: runner::GrowDisk, _| {
                let mut world = self.world.lock();
                if let Some((disk, size)) = world.growing.take() {
                    world.disks.insert(disk, size);
                }
                world.grown.push(c);
                done()
            }),
            RunnerRequest::Eject(c) => act!(ask, c, fate, |_, _| done()),
            RunnerRequest::ConnectChannel(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, [memory()]))),
            RunnerRequest::SwitchDisks(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, []))),
            RunnerRequest::KeepLayers(c) => act!(ask, c, fate, |_, _| Ok((runner::Done {}, []))),
            RunnerRequest::Stats(c) => act!(ask, c, fate, |_, _| Ok((StatsState { cpu_ns: 7, disks: vec![] }, []))),
            RunnerRequest::Watch(c) => act!(ask, c, fate, |_, _| {
                let (ours, theirs) = sock::seqpacket_pair().expect("pair");
                let phase = {
                    let mut state = self.world.lock();
                    let cell = state.cells.get_mut(&self.id);
                    let cell = cell.ok_or_else(|| skep_proto::Refusal::new(skep_proto::Reason::NotFound, self.id))?;
                    cell.watchers.push(ours);
                    cell.phase
                };
                self.phase(phase);
                Ok((runner::Done {}, [theirs]))
            }),
            RunnerRequest::Leave(c) => act!(ask, c, fate, |_, _| {
                if let Some(cell) = self.world.lock().cells.get_mut(&self.id) {
                    cell.lives.clear();
                    cell.watchers.clear();
                }
                done()
            }),
        }
    }
}

struct FakeConsole {
    world: World,
    life: OwnedFd,
    goes_on: bool,
}

impl Service<Console> for FakeConsole {
    quiet!();
    mortal!();
    fn serve(&mut self, ask: Ask<'_>, request: ConsoleRequest) -> Result<Answered, ProtocolError> {
        let fate = self.world.begin(Console::op(&request).name)?;
        match request {
            ConsoleRequest::AttachSerial(c) => act!(ask, c, fate, |c: console::AttachSerial, _| {
                Ok((console::Attached { writer: c.write, scrollback: 0 }, []))
            }),
            ConsoleRequest::AttachPort(c) => act!(ask, c, fate, |c: console::AttachPort, _| {
                Ok((console::Attached { writer: c.write, scrollback: u32::from(c.port) }, []))
            }),
            ConsoleRequest::AttachScreen(c) => act!(ask, c, fate, |_, _| Ok((console::Done {}, []))),
            ConsoleRequest::Status(c) => act!(ask, c, fate, |_, _| {
                Ok((console::ConsoleState { readers: 0, writer: false, screens: 0, received: 0, unlogged: 0 }, []))
            }),
        }
    }
}
