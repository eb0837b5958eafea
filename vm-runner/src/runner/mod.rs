//! The runner: first process of a cell. Starts the hypervisor, starts it anew when the guest reboots, and tells how it ends.
//!
//! It holds every descriptor that the machine needs, so nobody else is needed for that. Single-threaded; one poll loop.

mod files;
mod layers;
mod serve;
mod words;

pub use words::Words;

use crate::handover::{FIRST, LISTENER, READY, REPORT, RunnerArgs};
use crate::platform::{Engine, Kit, serial_line};
use skep_ipc::{Server, Silent};
use skep_proto::DiskId;
use skep_proto::cell::FdRole;
use skep_proto::runner::{End, Phase};
use skep_rights::runner::{TABLE, TABLE_REMOTE, TABLE_SHARES};
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_sys::alarm::Alarm;
use skep_sys::{fd, msg, sock};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// Why a runner cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was started by somebody else.
    #[error("a runner is started by the spawner")]
    Args,
    /// A step before the sandbox.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
    /// The sandbox.
    #[error(transparent)]
    Enter(#[from] EnterError),
}

/// What it holds.
struct Acquired {
    report: Rc<OwnedFd>,
    listener: OwnedFd,
    runner: Runner,
}

/// The service.
pub struct Runner {
    kit: Kit,
    /// The host's end of each serial line, by the port's number.
    serial: Vec<(u8, OwnedFd)>,
    /// Sockets of disks that are reached over one, by slot. Whoever serves them accepts; connections that come meanwhile wait here.
    doors: Vec<(u8, OwnedFd)>,
    alarm: Alarm,
    engine: Option<Engine>,
    phase: Phase,
    starts: u32,
    started: Instant,
    /// The power button was pressed since the hypervisor's last start.
    pressed: bool,
    /// Ends that came too soon, in a row.
    quick: u32,
    last_end: Option<End>,
    /// Files that disks have gone on in, by slot.
    switched: BTreeMap<u8, DiskId>,
    /// Each with its token.
    watchers: Vec<(u64, OwnedFd)>,
    /// The listener once more: shut on leaving, so that whoever has the reply finds nobody here.
    door: OwnedFd,
    left: bool,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let Runner { kit, serial, doors, alarm, door, .. } = &self.runner;
        let mut held = vec![
            ("report", self.report.as_fd()),
            ("listener", self.listener.as_fd()),
            ("listener", door.as_fd()),
            ("alarm", alarm.as_fd()),
        ];
        held.extend(serial.iter().chain(&kit.serial).map(|(_, line)| ("serial line", line.as_fd())));
        held.extend(doors.iter().map(|(_, door)| ("door", door.as_fd())));
        held.extend(kit.fds.iter().map(|(role, fd)| (line(*role), fd.as_fd())));
        held
    }
}

/// A role's line in the table.
fn line(role: FdRole) -> &'static str {
    match role {
        FdRole::Config => "configuration",
        FdRole::Kernel | FdRole::Initrd => "kernel",
        FdRole::Vars => "variable store",
        FdRole::Disk(_) => "disk",
        FdRole::Tap(_) => "tap",
        FdRole::Log => "log",
    }
}

/// acquire → limit → enter → serve. Tells the spawner when it is ready, or why it is not.
pub fn main() -> Result<(), Error> {
    let args = RunnerArgs::parse(std::env::args().skip(1)).ok_or(Error::Args)?;
    let report = fd::inherited(REPORT).map_err(|e| Error::Step("take over the report channel", e))?;
    // The one behind the channel must hear of a failure, too.
    let report = Rc::new(report);
    let spare = Rc::clone(&report);
    let tell = move |error: Error| {
        let errno = match &error {
            Error::Step(_, e) | Error::Enter(EnterError::Failed { error: e, .. }) => e.raw_os_error().unwrap_or(0),
            _ => 0,
        };
        let _ = msg::send(spare.as_fd(), format!("runner: {error}\t{errno}").as_bytes(), &[], None);
        error
    };
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false };
    let table = match (args.shares, args.remote.is_empty()) {
        (true, _) => &TABLE_SHARES,
        (false, false) => &TABLE_REMOTE,
        (false, true) => &TABLE,
    };
    let acquired = acquire(args, report).map_err(&tell)?;
    let inside = limit(acquired, table).and_then(|limited| enter(limited, &scene)).map_err(|e| tell(e.into()))?;
    let Acquired { report, listener, mut runner } = inside.into_inner();
    msg::send(report.as_fd(), READY, &[], None).map_err(|e| Error::Step("report", e))?;
    drop((report, tell));
    // The peer's uid cannot be shown in here; the socket's mode lets only the broker in.
    let mut server = Server::new(listener, None).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut runner, &mut Silent).map_err(|e| Error::Step("poll", e))
}

fn acquire(args: RunnerArgs, report: Rc<OwnedFd>) -> Result<Acquired, Error> {
    let step = |what: &'static str| move |e: io::Error| Error::Step(what, e);
    let listener = fd::inherited(LISTENER).map_err(step("take over the socket"))?;
    sock::listen(listener.as_fd()).map_err(step("listen"))?;
    let take = |(role, number)| Ok((role, fd::inherited(number)?));
    let fds =
        args.roles.into_iter().zip(FIRST..).map(take).collect::<io::Result<Vec<_>>>().map_err(step("take over descriptors"))?;
    let RunnerArgs { machine, kvm, file_limit, shares, serial: ports, remote, .. } = args;
    let (mut serial, mut theirs) = (Vec::new(), Vec::new());
    for port in ports {
        let (our_end, their_end) = serial_line().map_err(step("make a serial line"))?;
        serial.push((port, our_end));
        theirs.push((port, their_end));
    }
    let mut doors = Vec::new();
    for slot in &remote {
        let none = || Error::Step("make the socket of a disk", io::Error::from(io::ErrorKind::Unsupported));
        let path = Engine::door(*slot).ok_or_else(none)?;
        let door = sock::bind_stream(path.as_ref(), 0o600).map_err(step("make the socket of a disk"))?;
        sock::listen(door.as_fd()).map_err(step("listen for a disk"))?;
        doors.push((*slot, door));
    }
    let remote = !doors.is_empty();
    let kit = Kit { machine, fds, layers: Vec::new(), serial: theirs, kvm, file_limit, shares, remote };
    let runner = Runner {
        kit,
        serial,
        doors,
        alarm: Alarm::new().map_err(step("make a timer"))?,
        engine: None,
        phase: Phase::Ready,
        starts: 0,
        started: Instant::now(),
        pressed: false,
        quick: 0,
        last_end: None,
        switched: BTreeMap::new(),
        watchers: Vec::new(),
        door: listener.try_clone().map_err(step("dup the socket"))?,
        left: false,
    };
    Ok(Acquired { report, listener, runner })
}
