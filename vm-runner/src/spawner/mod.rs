//! The spawner: makes cells, starts console-proxies, sweeps what is left of them. Knows no hypervisor's flags.

mod cells;
mod disks;
mod make;
mod shares;
mod words;

pub use shares::refused;

use crate::platform::{CellHost, Host};
use nix::poll::PollFlags;
use nix::unistd::{Gid, chown};
use skep_ipc::{Answered, Ask, ProtocolError, Server, Service, Watch};
use skep_proto::ShareName;
use skep_proto::cell::{Cell, CellRequest};
use skep_rights::vm_runner::TABLE;
use skep_sandbox::{EnterError, Held, enter, limit, limit_connection};
use skep_service::{Journal, Role, Start, StartError};
use skep_sys::sock::Peer;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use words::Words;

/// Why the spawner cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step before the sandbox.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The sandbox.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// poll(2) itself.
    #[error("poll: {0}")]
    Poll(std::io::Error),
}

/// What it holds from the start.
pub struct Acquired {
    listener: OwnedFd,
    journal: Journal,
    spawner: Spawner,
}

/// The service.
pub struct Spawner {
    host: Host,
    run: PathBuf,
    /// The first uid of machines; none: an ordinary user's suite.
    machines: Option<u32>,
    /// Directories of the host that machines may share.
    shares: BTreeMap<ShareName, PathBuf>,
    /// What those say that it has started beside runners.
    words: Words,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("listener", self.listener.as_fd())];
        held.extend(self.journal.held());
        held.extend(self.spawner.host.held());
        held.extend(self.spawner.words.held());
        held
    }
}

/// acquire → limit → enter → serve.
pub fn main() -> Result<(), Error> {
    let start = Start::from_args(&["shares"])?;
    let acquired = acquire(&start)?;
    let mut scene = start.scene(Role::Spawner);
    scene.group = acquired.spawner.host.group();
    let limited = limit(acquired, &TABLE)?;
    if Host::STAYS_ROOT {
        scene.identity = None;
    }
    let Acquired { listener, mut journal, mut spawner } = enter(limited, &scene)?.into_inner();
    Host::confine(spawner.machines)?;
    spawner.words.resume();
    journal.serves();
    // In its own user namespace it sees the uids of others as one that stands for all; the socket's mode has let them in.
    let allowed = start.ids.as_ref().and_then(|_| start.allowed(Role::Broker));
    let mut server = Server::<Cell>::new(listener, allowed).limiting(|fd| limit_connection(&TABLE, fd));
    server.run(&mut spawner, &mut journal).map_err(Error::Poll)
}

fn acquire(start: &Start) -> Result<Acquired, StartError> {
    for name in ["vm", "console"] {
        let dir = start.run.join(name);
        start.own_dir(&dir, Role::Spawner, 0o2710)?;
        if let Some(ids) = &start.ids {
            // Sockets in it get the directory's group: the broker may connect, and cannot bind or remove.
            let step = || StartError::step(format!("chgrp {}", dir.display()));
            chown(&dir, None, Some(Gid::from_raw(ids.group_of(Role::Broker)))).map_err(|e| step()(e.into()))?;
        }
    }
    let text = start.extra.get("shares").map_or("", String::as_str);
    let shares = skep_service::shares(text, &[&start.state, &start.run]).map_err(StartError::Flags)?;
    let host = Host::acquire(start)?;
    let machines = start.ids.as_ref().map(skep_service::Ids::machines);
    let (listener, journal) = (start.bind(Role::Spawner, Role::Broker)?, start.journal("vm-runner")?);
    let words = Words::acquire(start)?;
    Ok(Acquired { listener, journal, spawner: Spawner { host, run: start.run.clone(), machines, shares, words } })
}

impl Service<Cell> for Spawner {
    fn serve(&mut self, ask: Ask<'_>, request: CellRequest) -> Result<Answered, ProtocolError> {
        match request {
            CellRequest::MakeCell(c) => ask.answer(c, |_, c, fds| self.make_cell(c, fds)),
            CellRequest::StartConsole(c) => ask.answer(c, |_, c, fds| self.start_console(c, fds)),
            CellRequest::StartServices(c) => ask.answer(c, |_, c, []| self.start_services(&c)),
            CellRequest::StartInitiator(c) => ask.answer(c, |_, c, fds| self.start_initiator(&c, fds)),
            CellRequest::StartFetcher(c) => ask.answer(c, |_, c, fds| self.start_fetcher(&c, &fds)),
            CellRequest::StartDiskServer(c) => ask.answer(c, |_, c, fds| self.start_disk_server(c, fds)),
            CellRequest::KillCell(c) => ask.answer(c, |_, c, []| self.kill_cell(c.machine)),
            CellRequest::SweepCell(c) => ask.answer(c, |_, c, []| self.sweep_cell(c.machine)),
            CellRequest::ListCells(c) => ask.answer(c, |_, c, []| self.list_cells(c.after)),
            CellRequest::CellUsage(c) => ask.answer(c, |_, c, []| Ok((self.host.usage(c.machine, c.volume), []))),
            CellRequest::Facilities(c) => ask.answer(c, |_, _, []| Ok((self.facilities(), []))),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        self.words.watched()
    }

    fn ready(&mut self, token: u64, _: PollFlags) {
        self.words.ready(token);
    }

    // The journal hears of both as an observer.
    fn closed(&mut self, _: Peer, _: &ProtocolError) {}
    fn stranger(&mut self, _: Peer) {}
}
