//! Linux: namespaces and cgroups make the cell, QEMU runs in it.

mod accel;
mod cell;
mod cgroup;
mod exec;
mod gdb;
mod precedence;
mod qemu;

pub use qemu::Engine;

use super::{CellHost, Gate, Plan};
use accel::Kvm;
use cgroup::Cgroups;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use precedence::Precedence;
use skep_proto::cell::Usage;
use skep_proto::{MachineId, Refusal, SoundDevice};
use skep_sandbox::EnterError;
use skep_service::{Role, Start, StartError};
use skep_sys::linux::{peer_pidfd, pidfd_signal};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// How long the kernel may take to end a killed cell.
const END_MS: u16 = 10_000;
/// How long a console-proxy whose line is closed may take to give its readers the rest.
const REST_MS: u16 = 1_000;

/// Opens a directory as a place only: whoever opens it need not be able to list what is on the way.
pub const PLACE: OFlag = OFlag::O_PATH;

/// A serial line: the host's end and the hypervisor's.
pub fn serial_line() -> io::Result<(OwnedFd, OwnedFd)> {
    skep_sys::sock::stream_pair()
}

/// This host.
pub struct Host {
    /// `STATE/cell`; as a descriptor, since the spawner's uid need not be able to pass STATE.
    cell: OwnedFd,
    cgroups: Cgroups,
    rooted: bool,
    precedence: Precedence,
    kvm: Kvm,
}

impl Host {
    /// Three capabilities are all that it needs of root.
    pub const STAYS_ROOT: bool = false;

    /// While it still may: opens the place of the root and makes the cgroups its own.
    pub fn acquire(start: &Start) -> Result<Self, StartError> {
        let cell = start.state.join("cell");
        let step = |what: &str| StartError::step(format!("{what} {}", cell.display()));
        std::fs::create_dir_all(&cell).map_err(step("make"))?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(&cell, flags, Mode::empty()).map_err(|e| step("open")(e.into()))?;
        let uid = start.ids.as_ref().map(|ids| ids.of(Role::Spawner));
        let cgroups = Cgroups::acquire(start.instance, uid);
        Ok(Self { cell: fd, cgroups, rooted: uid.is_some(), precedence: Precedence::acquire(), kvm: Kvm::acquire(uid.is_some()) })
    }

    /// A group that it takes on in its sandbox.
    pub fn group(&self) -> Option<u32> {
        self.kvm.group()
    }

    /// In the sandbox: of the uids that its capabilities would allow, only those of machines are left.
    pub fn confine(machines: Option<u32>) -> Result<(), EnterError> {
        let last = |first: u32| first.saturating_add(skep_service::UIDS - 1);
        machines.map_or(Ok(()), |first| skep_sandbox::seccomp::only_ids(first..=last(first)))
    }

    fn root(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.cell, name, flags, Mode::empty())?)
    }
}

/// The process that listens at the other end.
fn listener_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match peer_pidfd(socket) {
        // Before Linux 6.5 there is only its number.
        Err(e) if e.raw_os_error() == Some(codes::ENOPROTOOPT) => {
            let process = skep_sys::linux::pidfd(skep_sys::sock::peer(socket)?.pid)?;
            // The connection ends with it: as long as it stands, the number was nobody else's when it was turned into a descriptor.
            let mut set = [PollFd::new(socket, PollFlags::POLLIN)];
            poll(&mut set, PollTimeout::ZERO)?;
            let ended = set.iter().any(|p| p.revents().is_none_or(|f| f.contains(PollFlags::POLLHUP)));
            if ended { Err(io::Error::from_raw_os_error(codes::ESRCH)) } else { Ok(process) }
        }
        result => result,
    }
}

/// Waits until a process has ended.
fn ended(process: BorrowedFd<'_>, patience_ms: u16) -> bool {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::from(patience_ms)) {
            Ok(n) => return n > 0,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

impl CellHost for Host {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("cell directory", self.cell.as_fd())]
    }

    fn cell_dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.cell.as_raw_fd()))
    }

    fn look(&self, path: &str) -> io::Result<()> {
        let below = path.strip_prefix('/').unwrap_or(path);
        openat(self.root(skep_cellroot::ROOT)?, below, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(())
    }

    fn start(&mut self, plan: &Plan<'_>) -> Result<u32, Refusal> {
        let object = format!("machine {}", plan.machine);
        let root = self.root(plan.root).map_err(|e| Refusal::io(&object, "open the cell's root", &e))?;
        let joined = match plan.limits {
            Some(limits) => self.cgroups.make(plan.machine, limits, &plan.disks)?,
            None => cgroup::Joined::default(),
        };
        match cell::start(root.as_fd(), plan, &joined.procs) {
            Ok(pid) => Ok(pid),
            Err(refusal) => {
                if plan.limits.is_some() {
                    // What the sweep cannot remove now, the next one will.
                    let _ = self.cgroups.sweep(plan.machine);
                }
                Err(refusal)
            }
        }
    }

    fn gate(&mut self, _: MachineId, _: u64, _: u32, _: bool) -> io::Result<Gate> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn gate_again(&mut self, _: MachineId, _: bool) -> io::Result<Option<Gate>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn end(&mut self, machine: MachineId, socket: BorrowedFd<'_>) -> Result<(), Refusal> {
        let failed = |what: &str, e: &io::Error| Refusal::io(format_args!("machine {machine}"), what, e);
        let process = match listener_of(socket) {
            Ok(process) => process,
            // It ended while we asked.
            Err(e) if matches!(e.raw_os_error(), Some(codes::ESRCH | codes::ENODATA)) => return Ok(()),
            Err(e) => return Err(failed("find the process at the socket", &e)),
        };
        match pidfd_signal(process.as_fd(), nix::sys::signal::Signal::SIGKILL as i32) {
            Err(e) if e.raw_os_error() != Some(codes::ESRCH) => return Err(failed("kill", &e)),
            _ => {}
        }
        if ended(process.as_fd(), END_MS) {
            Ok(())
        } else {
            Err(failed("wait for the end of its processes", &io::Error::from(io::ErrorKind::TimedOut)))
        }
    }

    fn await_end(&mut self, socket: BorrowedFd<'_>) -> bool {
        listener_of(socket).is_ok_and(|process| ended(process.as_fd(), REST_MS))
    }

    fn sweep(&mut self, machine: MachineId) -> Result<(), Refusal> {
        self.cgroups.sweep(machine)
    }

    fn machines(&self) -> Vec<MachineId> {
        self.cgroups.machines()
    }

    fn usage(&self, machine: MachineId, _volume: bool) -> Usage {
        self.cgroups.usage(machine)
    }

    fn limits(&self) -> Vec<&'static str> {
        let counted = self.cgroups.limits();
        // Without a group's weight a nice value counts only among the machine's own threads.
        let raises = self.precedence.raises && counted.contains(&"priority");
        let own = [("raise", raises), ("protect", self.precedence.spares), ("wired", self.precedence.wires)]
            .into_iter()
            .filter_map(|(name, can)| can.then_some(name));
        counted.iter().copied().chain(["cpus"]).chain(own).collect()
    }

    fn only_reads(&self) -> Option<&'static str> {
        None
    }

    fn cpus(&self) -> io::Result<BTreeSet<u16>> {
        let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
        let all = 0..nix::sched::CpuSet::count();
        Ok(all.filter(|cpu| set.is_set(*cpu).unwrap_or(false)).filter_map(|cpu| u16::try_from(cpu).ok()).collect())
    }

    fn sound(&self) -> Vec<SoundDevice> {
        Vec::new()
    }

    fn most_cpus(&self) -> Option<u16> {
        None
    }

    fn lacks(&self) -> Vec<(&'static str, String)> {
        self.kvm.lacks().map(|why| (skep_machine::Ability::Kvm.name(), why)).into_iter().collect()
    }

    fn weaker(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.rooted {
            lines.push("machines share your uid: the suite was not started by root".to_owned());
        }
        let missing: Vec<_> = ["memory", "cpu", "tasks"].into_iter().filter(|l| !self.limits().contains(l)).collect();
        if !missing.is_empty() {
            let why = if self.rooted { "the kernel offers no cgroup controller for them" } else { "cgroups are root's" };
            lines.push(format!("limits of {} are not enforced: {why}", missing.join(", ")));
        }
        lines
    }
}

/// Numbers of errors.
mod codes {
    pub const ESRCH: i32 = nix::errno::Errno::ESRCH as i32;
    pub const ENOPROTOOPT: i32 = nix::errno::Errno::ENOPROTOOPT as i32;
    pub const ENODATA: i32 = nix::errno::Errno::ENODATA as i32;
}
