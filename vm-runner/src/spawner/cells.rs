//! Finds, kills and sweeps cells. Whoever listens on a machine's socket is its runner: the kernel says so, no file does.

use super::Spawner;
use crate::platform::CellHost;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, socket};
use skep_machine::Ability;
use skep_proto::cell::{CellPage, CellState, Done, FacilitiesState};
use skep_proto::{MachineId, NoFds, Reason, Refusal, Text};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Asked of the program that is installed.
const NO_ITEMS: &str = "the hypervisor that is installed has none to give; bhyve's -f is FreeBSD 14's";

/// Cells in a page.
const PAGE: usize = 100;

/// A connection to whoever listens at `path`; `None`: nobody does. Never waits: a listener that does not accept is there, too.
pub fn connect(path: &Path) -> io::Result<Option<OwnedFd>> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect_to(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn lives(path: &Path) -> bool {
    // A full queue (EAGAIN) is a listener's; whatever else hinders us is no proof of an end.
    !matches!(connect(path), Ok(None))
}

impl Spawner {
    pub(super) fn kill_cell(&mut self, machine: MachineId) -> Result<(Done, NoFds), Refusal> {
        for path in [self.runner_socket(machine), self.console_socket(machine)] {
            match connect(&path) {
                Ok(Some(socket)) => self.host.end(machine, socket.as_fd())?,
                Ok(None) => {}
                // The queue is full, so nothing can be asked through it; the sweep below finds the processes by their group.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(Refusal::io(format_args!("machine {machine}"), "connect to the socket", &e)),
            }
        }
        self.host.sweep(machine)?;
        if lives(&self.runner_socket(machine)) {
            return Err(Refusal::new(Reason::Internal, format_args!("machine {machine}")).note("its runner cannot be reached"));
        }
        Ok((Done {}, []))
    }

    pub(super) fn sweep_cell(&mut self, machine: MachineId) -> Result<(Done, NoFds), Refusal> {
        let (runner, console) = (self.runner_socket(machine), self.console_socket(machine));
        if lives(&runner) {
            return Err(Refusal::new(Reason::InUse, format_args!("machine {machine}")).note("its runner lives"));
        }
        if let Ok(Some(socket)) = connect(&console)
            && !self.host.await_end(socket.as_fd())
        {
            self.host.end(machine, socket.as_fd())?;
        }
        self.host.sweep(machine)?;
        for path in [runner, console] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Refusal::io(format_args!("machine {machine}"), "remove the socket", &e));
                }
                _ => {}
            }
        }
        let failed = |e| Refusal::io(format_args!("machine {machine}"), "remove the pipe to its log", &e);
        self.words.sweep(machine).map_err(failed)?;
        Ok((Done {}, []))
    }

    pub(super) fn list_cells(&self, after: Option<MachineId>) -> Result<(CellPage, NoFds), Refusal> {
        let mut all: BTreeSet<MachineId> = self.host.machines().into_iter().collect();
        for dir in ["vm", "console"] {
            let list = std::fs::read_dir(self.run.join(dir)).map_err(|e| Refusal::io("cells", "list the sockets", &e))?;
            let names = list.filter_map(Result::ok).map(|entry| entry.file_name());
            all.extend(names.filter_map(|name| name.to_str()?.strip_suffix(".sock")?.parse::<MachineId>().ok()));
        }
        let state = |machine| CellState {
            machine,
            runner: lives(&self.runner_socket(machine)),
            console: lives(&self.console_socket(machine)),
        };
        let page = all.into_iter().filter(|m| after.is_none_or(|a| *m > a)).take(PAGE);
        Ok((CellPage { cells: page.map(state).collect() }, []))
    }

    pub(super) fn facilities(&self) -> FacilitiesState {
        let (hypervisor, dir) = skep_cellroot::LAYOUTS;
        let layouts = skep_machine::layouts(hypervisor).iter().filter(|name| self.host.look(&format!("{dir}/{name}")).is_ok());
        let root = skep_cellroot::describe(&self.host.cell_dir());
        let mut lacks = self.host.lacks();
        if root.as_ref().is_some_and(|r| r.hypervisor.is_some() && !r.fw_cfg) {
            lacks.push((Ability::FwCfg.name(), NO_ITEMS.to_owned()));
        }
        FacilitiesState {
            hypervisor: Text::lossy(root.as_ref().and_then(|r| r.hypervisor.as_deref()).unwrap_or_default()),
            uefi: root.as_ref().is_some_and(|r| r.uefi),
            can_share: root.is_some_and(|r| r.shares),
            shares: self.shares.keys().cloned().collect(),
            sound: self.host.sound(),
            limits: self.host.limits().into_iter().map(Text::lossy).collect(),
            own_uids: self.machines.is_some(),
            cpus: self.host.most_cpus(),
            keyboards: layouts.map(|name| Text::lossy(name)).collect(),
            lacks: lacks.into_iter().map(|(what, why)| (Text::lossy(what), Text::lossy(&why))).collect(),
            weaker: self.host.weaker().iter().map(|line| Text::lossy(line)).collect(),
        }
    }
}
