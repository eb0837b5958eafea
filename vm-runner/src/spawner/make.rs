//! Makes cells and starts console-proxies.

use super::Spawner;
use crate::handover::RunnerArgs;
use crate::platform::{CellHost, Plan};
use nix::sys::stat::{SFlag, fstat};
use skep_proto::cell::{CellMade, FdRole, Limits, MakeCell, StartConsole, StartFetcher, StartInitiator, StartServices, Started};
use skep_proto::storage::ServiceName;
use skep_proto::{CpuList, DiskId, Dsp, MAX_FDS, MachineId, NoFds, Reason, Refusal, UpTo};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Slots of machines, two uids each: all within the suite's own block of uids, so that no machine gets that of another suite's service.
const SLOTS: u16 = skep_service::SLOTS;

impl Spawner {
    pub(super) fn make_cell(&mut self, c: MakeCell, UpTo(fds): UpTo<MAX_FDS>) -> Result<(CellMade, NoFds), Refusal> {
        let MakeCell { machine, slot, limits, fds: roles, kvm, file_limit, shares, serial, sound, remote } = c;
        check(machine, &roles, &fds)?;
        check_ports(machine, &serial)?;
        self.check_sound(machine, &sound)?;
        check_remote(machine, &remote, &roles, shares.is_empty())?;
        self.check_limits(machine, &limits)?;
        let shares = self.shares(machine, &shares)?;
        self.look(skep_cellroot::HYPERVISOR, Reason::HypervisorMissing)?;
        if roles.contains(&FdRole::Vars) {
            self.look(skep_cellroot::UEFI, Reason::FirmwareMissing)?;
        }
        let identity = self.identity(slot, 0)?;
        let disks: Vec<bool> = roles.iter().map(|role| matches!(role, FdRole::Disk(_))).collect();
        let args = RunnerArgs { machine, roles, kvm, file_limit, shares: !shares.is_empty(), serial, remote };
        let path = self.runner_socket(machine);
        let listener = bind(machine, &path)?;
        let plan = Plan {
            machine,
            root: skep_cellroot::ROOT,
            program: "/skep/skep-vm-runner",
            args: args.to_args(),
            listener: listener.as_fd(),
            fds: fds.iter().map(AsFd::as_fd).collect(),
            errors: None,
            disks: fds.iter().zip(&disks).filter(|(_, is)| **is).map(|(fd, _)| fd.as_fd()).collect(),
            identity,
            limits: Some(&limits),
            kvm,
            shares,
            sound,
        };
        match self.host.start(&plan) {
            Ok(runner) => Ok((CellMade { runner }, [])),
            Err(refusal) => {
                // Nothing half-made: the socket goes as it came. If that fails, the next sweep removes it.
                let _ = std::fs::remove_file(&path);
                Err(refusal)
            }
        }
    }

    pub(super) fn start_console(&mut self, c: StartConsole, UpTo(fds): UpTo<12>) -> Result<(Started, NoFds), Refusal> {
        let StartConsole { machine, slot, ports } = c;
        let numbers: Vec<u8> = ports.iter().map(|port| port.port()).collect();
        check_ports(machine, &numbers)?;
        // A line is a socket (Linux) or a terminal (FreeBSD).
        let line = ("serial line", [SFlag::S_IFSOCK, SFlag::S_IFCHR]);
        let log = [("log", [SFlag::S_IFREG; 2]); 2];
        let kinds = ports.iter().flat_map(|port| [line].into_iter().chain(log.into_iter().filter(|_| port.log())));
        let kinds: Vec<_> = kinds.collect();
        if kinds.len() != fds.len() {
            let note = format!("{} descriptors came, and {} are expected", fds.len(), kinds.len());
            return Err(Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field("ports").note(note));
        }
        for (fd, (name, kinds)) in fds.iter().zip(kinds) {
            if !kinds.contains(&kind_of(machine, fd.as_fd())?) {
                return Err(Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field(name));
            }
        }
        let args = ports.iter().map(ToString::to_string).collect();
        self.start_alone(ServiceName::Console, machine, args, self.identity(slot, 1)?, &fds)
    }

    pub(super) fn start_services(&mut self, c: &StartServices) -> Result<(Started, NoFds), Refusal> {
        let identity = match self.machines {
            Some(_) if c.number >= skep_service::SWITCHES => {
                let refusal = Refusal::new(Reason::LimitReached, format_args!("switch {}", c.switch)).field("number");
                return Err(refusal.note(format_args!("{} switches at most have services", skep_service::SWITCHES)));
            }
            machines => machines.map(|first| first.saturating_add(2 * u32::from(SLOTS)).saturating_add(c.number.into())),
        };
        self.start_alone(ServiceName::GuestServices, c.switch.cell(), Vec::new(), identity, &[])
    }

    pub(super) fn start_fetcher(&mut self, c: &StartFetcher, fds: &[OwnedFd; 1]) -> Result<(Started, NoFds), Refusal> {
        if c.slot >= skep_service::FETCHES {
            let refusal = Refusal::new(Reason::LimitReached, format_args!("disk {}", c.disk)).field("slot");
            return Err(refusal.note(format_args!("{} images at most are fetched at a time", skep_service::FETCHES)));
        }
        let [channel] = fds;
        if kind_of(c.disk.cell(), channel.as_fd())? != SFlag::S_IFSOCK {
            return Err(Refusal::new(Reason::InvalidValue, format_args!("disk {}", c.disk))
                .field("channel")
                .note("a socket is expected"));
        }
        let behind = 2 * u32::from(SLOTS) + u32::from(skep_service::SWITCHES) + u32::from(c.slot);
        let identity = self.machines.map(|first| first.saturating_add(behind));
        self.start_alone(ServiceName::Fetcher, c.disk.cell(), Vec::new(), identity, fds)
    }

    pub(super) fn start_initiator(&mut self, c: &StartInitiator, UpTo(fds): UpTo<1>) -> Result<(Started, NoFds), Refusal> {
        let identity = self.initiator(c.disk, c.number)?;
        for door in &fds {
            if kind_of(c.disk.cell(), door.as_fd())? != SFlag::S_IFSOCK {
                let refusal = Refusal::new(Reason::InvalidValue, format_args!("disk {}", c.disk)).field("door");
                return Err(refusal.note("a socket is expected"));
            }
        }
        let args = fds.iter().map(|_| "--door".to_owned()).collect();
        self.start_alone(ServiceName::Initiator, c.disk.cell(), args, identity, &fds)
    }

    /// Starts what is no hypervisor, in a cell that holds little more than its program.
    pub(super) fn start_alone(
        &mut self, service: ServiceName, machine: MachineId, args: Vec<String>, identity: Option<u32>, fds: &[OwnedFd],
    ) -> Result<(Started, NoFds), Refusal> {
        let path = self.console_socket(machine);
        let listener = bind(machine, &path)?;
        // None of them runs unheard.
        let errors = self.words.open(service, machine).map_err(|e| unheard(machine, &e))?;
        let plan = Plan {
            machine,
            root: skep_cellroot::CONSOLE_ROOT,
            program: &format!("/skep/skep-{}", service.word()),
            args,
            listener: listener.as_fd(),
            fds: fds.iter().map(AsFd::as_fd).collect(),
            errors: Some(errors.as_fd()),
            disks: Vec::new(),
            identity,
            limits: None,
            kvm: false,
            shares: Vec::new(),
            sound: Vec::new(),
        };
        match self.host.start(&plan) {
            Ok(pid) => Ok((Started { pid }, [])),
            Err(refusal) => {
                let _ = (std::fs::remove_file(&path), self.words.sweep(machine));
                Err(refusal)
            }
        }
    }

    pub(super) fn runner_socket(&self, machine: MachineId) -> PathBuf {
        self.run.join("vm").join(format!("{machine}.sock"))
    }

    pub(super) fn console_socket(&self, machine: MachineId) -> PathBuf {
        self.run.join("console").join(format!("{machine}.sock"))
    }

    /// The uid of a slot's hypervisor (0) or console-proxy (1).
    pub(super) fn identity(&self, slot: u16, which: u32) -> Result<Option<u32>, Refusal> {
        if slot >= SLOTS {
            return Err(Refusal::new(Reason::InvalidValue, format_args!("slot {slot}")).note(format_args!("less than {SLOTS}")));
        }
        Ok(self.machines.map(|first| first.saturating_add(2 * u32::from(slot) + which)))
    }

    /// The uid of an iSCSI disk.
    pub(super) fn initiator(&self, disk: DiskId, number: u16) -> Result<Option<u32>, Refusal> {
        if number >= skep_service::INITIATORS {
            let refusal = Refusal::new(Reason::LimitReached, format_args!("disk {disk}")).field("number");
            return Err(refusal.note(format_args!("{} iSCSI disks at most are at work at a time", skep_service::INITIATORS)));
        }
        let behind = 2 * u32::from(SLOTS) + u32::from(skep_service::SWITCHES) + u32::from(skep_service::FETCHES);
        Ok(self.machines.map(|first| first.saturating_add(behind + u32::from(number))))
    }

    /// What the kernels would pass over, or tell the hypervisor only.
    fn check_limits(&self, machine: MachineId, limits: &Limits) -> Result<(), Refusal> {
        let object = || format!("machine {machine}");
        if !(-20..=19).contains(&limits.priority) {
            let note = format_args!("{} is not -20 to 19", limits.priority);
            return Err(Refusal::new(Reason::InvalidValue, object()).field("limits.priority").note(note));
        }
        if limits.cpus.0.is_empty() && limits.bound.0.is_empty() {
            return Ok(());
        }
        let there = CpuList(self.host.cpus().map_err(|e| Refusal::io(object(), "ask which CPUs there are", &e))?);
        for (field, wanted) in [("limits.cpus", &limits.cpus), ("limits.pins", &limits.bound)] {
            if let Some(cpu) = wanted.0.difference(&there.0).next() {
                let note = format_args!("CPU {cpu} is none of {there}, which the suite may run on");
                return Err(Refusal::new(Reason::InvalidValue, object()).field(field).note(note));
            }
        }
        Ok(())
    }

    /// They are there, and do what is wanted of them only bhyve finds out.
    fn check_sound(&self, machine: MachineId, wanted: &[Dsp]) -> Result<(), Refusal> {
        // Not looked for if none is wanted: it is a file.
        let has = if wanted.is_empty() { Vec::new() } else { self.host.sound() };
        match wanted.iter().find(|dsp| !has.iter().any(|sound| sound.device == **dsp)) {
            Some(dsp) => {
                let refusal = Refusal::new(Reason::NotFound, format_args!("machine {machine}")).field("sound");
                Err(refusal.note(format_args!("this host has no sound device {dsp}: `skep host show` lists those that it has")))
            }
            None => Ok(()),
        }
    }

    fn look(&self, path: &str, reason: Reason) -> Result<(), Refusal> {
        self.host.look(path).map_err(|e| Refusal::new(reason, path).note(e))
    }
}

/// Binds a socket whose old one nobody listens on.
fn bind(machine: MachineId, path: &std::path::Path) -> Result<OwnedFd, Refusal> {
    let object = format!("machine {machine}");
    match super::cells::connect(path) {
        Ok(Some(_)) => return Err(Refusal::new(Reason::InUse, object).note(format_args!("{} is served", path.display()))),
        Ok(None) => {}
        Err(e) => return Err(Refusal::io(object, "connect to the socket", &e)),
    }
    skep_sys::sock::bind_seqpacket(path, 0o660).map_err(|e| Refusal::io(object, "bind the socket", &e))
}

/// Why what it would say could not be heard.
pub(super) fn unheard(machine: MachineId, error: &std::io::Error) -> Refusal {
    Refusal::io(format_args!("machine {machine}"), "make the pipe to its log", error)
}

pub(super) fn kind_of(machine: MachineId, fd: BorrowedFd<'_>) -> Result<SFlag, Refusal> {
    let stat = fstat(fd).map_err(|e| Refusal::io(format_args!("machine {machine}"), "fstat", &e.into()))?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

/// Each once, none that is there as a file, and none beside shares.
fn check_remote(machine: MachineId, remote: &[u8], roles: &[FdRole], alone: bool) -> Result<(), Refusal> {
    let twice = remote.iter().collect::<HashSet<_>>().len() != remote.len();
    let file = remote.iter().any(|slot| roles.contains(&FdRole::Disk(*slot)));
    if twice || file || !remote.is_empty() && !alone {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field("remote");
        return Err(refusal.note("slots of disks without a file are expected, each once, and no shares"));
    }
    Ok(())
}

/// Each port once.
fn check_ports(machine: MachineId, ports: &[u8]) -> Result<(), Refusal> {
    let twice = ports.iter().collect::<HashSet<_>>().len() != ports.len();
    if twice || ports.iter().any(|port| !(1..=4).contains(port)) {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field("serial");
        return Err(refusal.note("ports 1 to 4 are expected, each once"));
    }
    Ok(())
}

/// Each role once, with a descriptor of its kind: no directory, no foreign socket gets into a cell.
fn check(machine: MachineId, roles: &[FdRole], fds: &[OwnedFd]) -> Result<(), Refusal> {
    let wrong = |note: &str| Err(Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field("fds").note(note));
    if roles.len() != fds.len() {
        return wrong("as many roles as descriptors are expected");
    }
    if roles.iter().collect::<HashSet<_>>().len() != roles.len() {
        return wrong("a role is given twice");
    }
    if !roles.contains(&FdRole::Config) {
        return wrong("the configuration is missing");
    }
    for (role, fd) in roles.iter().zip(fds) {
        let kind = kind_of(machine, fd.as_fd())?;
        let fits = match role {
            FdRole::Config | FdRole::Kernel | FdRole::Initrd | FdRole::Vars | FdRole::Log => kind == SFlag::S_IFREG,
            FdRole::Disk(slot) => *slot < 16 && (kind == SFlag::S_IFREG || kind == SFlag::S_IFBLK || kind == SFlag::S_IFCHR),
            FdRole::Tap(slot) => *slot < 16 && kind == SFlag::S_IFCHR,
        };
        if !fits {
            return wrong(&format!("{role:?}: not that kind of file"));
        }
    }
    Ok(())
}
