//! bhyve under control: loaded, started, signalled, and its end judged. It says nothing but its exit status.

use super::super::{Happening, Kit};
use super::unsupported;
use crate::runner::Words;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, execve};
use skep_engine_bhyve::{BINARY, BhyveRelease, Names, argv, ended, item_file, items};
use skep_ipc::Watch;
use skep_machine::{Exit, FwCfg};
use skep_proto::cell::FdRole;
use skep_proto::runner::DiskStats;
use skep_proto::{DiskRates, Reason, Refusal};
use skep_rights::hypervisor::TABLE as HYPERVISOR;
use skep_sandbox::limit_one;
use skep_sys::fd;
use skep_sys::freebsd::process::{Fork, fork, signal};
use skep_sys::freebsd::vmm;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a killed one.
const END: Duration = Duration::from_secs(10);
/// How long it may take until it listens, and between two looks.
const LISTENS: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(5);
const CONFIG: &str = "/run/machine.conf";
const LOADER: &str = "/usr/sbin/bhyveload";
const SCREEN: &str = "/tmp/vnc.sock";
/// Before 15.
const LOOPBACK: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::LOCALHOST, 5900);

const WORDS: u64 = 2;
/// Its variable store is a file, too.
const SMALLEST_FILE_LIMIT: u64 = 64 << 20;
const PROCESS: u64 = 3;

/// What the runner has to know of the configuration.
struct Facts {
    /// The vmm instance.
    name: String,
    /// `memory.size`.
    memory: String,
    /// `memory.wired`: loader and hypervisor have to agree on it.
    wired: bool,
    /// bhyveload fills the memory, as there is no boot ROM.
    loader: bool,
    /// The ends of its lines: which devices and sockets it has.
    values: Vec<String>,
    /// Items of fw_cfg.
    items: Vec<FwCfg>,
}

impl Facts {
    fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string(CONFIG)?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
        let missing = |key| io::Error::other(format!("the configuration has no {key}"));
        Ok(Self {
            name: value("name").ok_or_else(|| missing("name"))?,
            memory: value("memory.size").ok_or_else(|| missing("memory.size"))?,
            wired: value("memory.wired").is_some_and(|v| v == "true"),
            loader: value("bootrom").or_else(|| value("lpc.bootrom")).is_none(),
            values: text.lines().filter_map(|line| line.split_once('=')).map(|(_, value)| value.to_owned()).collect(),
            items: items(&text),
        })
    }
}

/// One run: bhyveload if it is needed, then bhyve.
pub struct Engine {
    pid: i32,
    process: OwnedFd,
    errors: Option<OwnedFd>,
    errors_theirs: Option<OwnedFd>,
    /// bhyve is yet to come, with these.
    file_limit: u64,
    next: Option<Vec<(OwnedFd, RawFd)>>,
    facts: Facts,
    release: BhyveRelease,
    happened: Vec<Happening>,
    ended: bool,
    killed: bool,
    /// Its last words.
    pub words: Words,
}

impl Engine {
    /// It has no disks that are reached over a socket.
    pub fn door(_: u8) -> Option<String> {
        None
    }

    /// Whether its disks can stand on layers.
    pub const LAYERS: bool = false;

    /// They cannot.
    pub fn switch_disks(&mut self, _: &[(skep_proto::runner::DiskSwitch, OwnedFd)]) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::Unsupported, "disks").note("bhyve's disks stand on nothing"))
    }

    /// Where it reads its configuration, its kernel and its initial RAM disk (of which bhyve has none).
    pub const FILES: [&'static str; 3] = [CONFIG, "/run/kernel", "/run/initrd"];

    /// Starts it. The guest runs when [`Happening::Running`] comes.
    pub fn start(kit: &Kit, words: Words) -> io::Result<Self> {
        let facts = Facts::read()?;
        let date = u32::try_from(skep_sys::freebsd::release_date()?).unwrap_or(0);
        let release = BhyveRelease::from_osreldate(date).ok_or_else(|| io::Error::other("FreeBSD 13.2 or later is needed"))?;
        // An instance of an earlier run has that run's memory.
        destroy(&facts.name)?;
        let (errors, errors_theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        fd::set_nonblocking(errors.as_fd(), true)?;
        // bhyve does not start over the sockets of an earlier run.
        for path in Names::standard(&facts.name).channels {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        for (at, item) in facts.items.iter().enumerate() {
            std::fs::write(item_file(at), &item.value)?;
        }
        let given = given(kit)?;
        let (program, args) = if facts.loader {
            let disk = given.iter().map(|(_, number)| *number).find(|n| (16..32).contains(n));
            let disk = disk.ok_or_else(|| io::Error::other("the loader needs a disk"))?;
            let (memory, path) = (facts.memory.clone(), format!("/dev/fd/{disk}"));
            let line = format!("/dev/fd/{}", fd_of_line());
            let wired = facts.wired.then(|| "-S".to_owned());
            let rest = ["-m".into(), memory, "-d".into(), path, "-c".into(), line, facts.name.clone()];
            (LOADER, wired.into_iter().chain(rest).collect())
        } else {
            (BINARY, argv(CONFIG, &Names::standard(&facts.name), &facts.items))
        };
        let (pid, process) = spawn(program, &args, &given, &errors_theirs, kit.file_limit)?;
        let loading = facts.loader;
        let happened = if loading { Vec::new() } else { vec![Happening::Running] };
        let next = loading.then_some(given);
        let errors_theirs = loading.then_some(errors_theirs);
        Ok(Self {
            pid,
            process,
            errors: Some(errors),
            errors_theirs,
            next,
            file_limit: kit.file_limit,
            facts,
            release,
            happened,
            ended: false,
            killed: false,
            words,
        })
    }

    /// What to wait for.
    pub fn watched(&self) -> Vec<Watch<'_>> {
        let process = (!self.ended).then_some((&self.process, PROCESS));
        let errors = self.errors.as_ref().map(|fd| (fd, WORDS));
        let all = [process, errors].into_iter().flatten();
        all.map(|(fd, token)| Watch { fd: fd.as_fd(), flags: PollFlags::POLLIN, token }).collect()
    }

    /// Something that was waited for is ready.
    pub fn ready(&mut self, token: u64) {
        match token {
            WORDS => self.read_words(),
            PROCESS => self.finish(),
            _ => {}
        }
    }

    /// What has happened since the last call.
    pub fn happened(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    /// Whether bhyve was started.
    pub fn is_up(&self) -> bool {
        self.next.is_none()
    }

    /// It has no control line that it could close.
    pub fn is_deaf(&self) -> bool {
        false
    }

    /// Waits until bhyve was started, or has ended. False: neither came in time.
    pub fn await_up(&mut self, patience: Duration) -> bool {
        self.step_until(Instant::now() + patience, |e| e.is_up() || e.ended)
    }

    /// SIGTERM is the power button (bhyve(8)).
    pub fn power_button(&mut self) -> Result<(), Refusal> {
        signal(self.process.as_fd(), Signal::SIGTERM as i32).map_err(|e| Refusal::io("power button", "signal bhyve", &e))
    }

    /// bhyve has no such command.
    pub fn pause(&mut self) -> Result<(), Refusal> {
        Err(unsupported("pause"))
    }

    /// Likewise.
    pub fn resume(&mut self) -> Result<(), Refusal> {
        Err(unsupported("resume"))
    }

    /// Connects to the socket that bhyve listens on in the cell.
    pub fn connect_screen(&mut self) -> Result<OwnedFd, Refusal> {
        let tcp = self.release < BhyveRelease::V15;
        self.connect("screen", "fbuf", || match tcp {
            true => TcpStream::connect(LOOPBACK).map(OwnedFd::from),
            false => UnixStream::connect(SCREEN).map(OwnedFd::from),
        })
    }

    /// Connects to the socket of a channel. bhyve serves one client, and closes the connection of another at once.
    pub fn connect_channel(&mut self, port: u8) -> Result<OwnedFd, Refusal> {
        let object = format!("channel {port}");
        let path = Names::standard(&self.facts.name).channels.into_iter().nth(port.into()).unwrap_or_default();
        self.connect(&object, &path, || UnixStream::connect(&path).map(OwnedFd::from))
    }

    /// Connects to what bhyve listens on if its configuration has `value`. It does so some time after it was started, and tells nobody.
    fn connect(&mut self, object: &str, value: &str, to: impl Fn() -> io::Result<OwnedFd>) -> Result<OwnedFd, Refusal> {
        if !self.facts.values.iter().any(|one| one == value) {
            return Err(Refusal::new(Reason::WrongState, object).note("the machine runs without it"));
        }
        let deadline = Instant::now() + LISTENS;
        loop {
            match to() {
                Ok(stream) => return Ok(stream),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    if self.step_until(deadline.min(Instant::now() + MOMENT), |engine| engine.ended) || Instant::now() > deadline
                    {
                        return Err(Refusal::new(Reason::WrongState, object).note("bhyve does not listen on it"));
                    }
                }
                Err(e) => return Err(Refusal::io(object, "connect", &e)),
            }
        }
    }

    /// Its stub listens on TCP only, and the cell has no network.
    pub fn connect_gdb(&mut self) -> Result<OwnedFd, Refusal> {
        Err(unsupported("gdb"))
    }

    /// bhyve(8) opens a CD at its start, and has no way to take it out.
    pub fn eject(&mut self, slot: u8) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::Unsupported, format_args!("CD {slot}")).note("bhyve cannot take it out"))
    }

    /// bhyve's NICs have their cables in always.
    pub fn set_link(&mut self, slot: u8, _up: bool) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::Unsupported, format_args!("NIC {slot}")).note("bhyve cannot pull its cable"))
    }

    /// bhyve holds no disk to a rate.
    pub fn limit_disk(&mut self, slot: u8, _rates: DiskRates) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::Unsupported, format_args!("disk {slot}")).note("a rate is kept from its next start on"))
    }

    /// It would look at a file that grew (blockif_register_resize_callback), but the limit of its files stands.
    pub fn grow_disk(&mut self, slot: u8, _size: u64, _most: u64) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::Unsupported, format_args!("disk {slot}")).note("its guest would see it from its next start on"))
    }

    /// CPU time; bhyve counts nothing of its disks.
    pub fn stats(&mut self) -> Result<(u64, Vec<DiskStats>), Refusal> {
        let cpu = skep_sys::process::cpu_time_of(self.pid).map_err(|e| Refusal::io("hypervisor", "read its CPU time", &e))?;
        Ok((cpu, Vec::new()))
    }

    /// Ends it. What the guest wrote is in the file already: bhyve keeps nothing of its disks.
    pub fn end(&mut self, _reset: bool) {
        if !self.ended {
            self.kill();
            self.step_until(Instant::now() + END, |e| e.ended);
        }
    }

    /// Kills it, for a reason that goes to its last words.
    pub fn give_up(&mut self, why: &str) {
        self.words.add(format!("skep: {why}\n").as_bytes());
        self.kill();
    }

    fn kill(&mut self) {
        self.killed = true;
        // It can only fail for one that has ended.
        let _ = signal(self.process.as_fd(), Signal::SIGKILL as i32);
    }

    fn step_until(&mut self, deadline: Instant, enough: impl Fn(&Self) -> bool) -> bool {
        while !enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let ready: Vec<u64> = {
                let watched = self.watched();
                let mut set: Vec<PollFd<'_>> = watched.iter().map(|w| PollFd::new(w.fd, w.flags)).collect();
                match poll(&mut set, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return false,
                }
                let any = |p: &PollFd<'_>| p.revents().is_none_or(|f| !f.is_empty());
                set.iter().zip(&watched).filter(|(p, _)| any(p)).map(|(_, w)| w.token).collect()
            };
            for token in ready {
                self.ready(token);
            }
        }
        true
    }

    fn read_words(&mut self) {
        let Some(pipe) = &self.errors else { return };
        let mut buffer = [0; 4096];
        match nix::unistd::read(pipe, &mut buffer) {
            Ok(0) => self.errors = None,
            Ok(n) => self.words.add(buffer.get(..n).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.errors = None,
        }
    }

    /// A process is gone: after the loader comes bhyve, after bhyve the verdict.
    fn finish(&mut self) {
        let exit = match waitpid(Pid::from_raw(self.pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return,
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
            Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
            _ => Exit::Code(255),
        };
        if let Some(given) = self.next.take() {
            if exit == Exit::Code(0) && self.start_bhyve(&given).is_ok() {
                self.happened.push(Happening::Running);
                return;
            }
            self.conclude(skep_machine::Ended::Crash(exit));
            return;
        }
        self.conclude(ended(exit, self.release, self.killed));
    }

    fn start_bhyve(&mut self, given: &[(OwnedFd, RawFd)]) -> io::Result<()> {
        let Some(errors) = self.errors_theirs.take() else { return Err(io::Error::from(io::ErrorKind::BrokenPipe)) };
        let args = argv(CONFIG, &Names::standard(&self.facts.name), &self.facts.items);
        (self.pid, self.process) = spawn(BINARY, &args, given, &errors, self.file_limit)?;
        Ok(())
    }

    fn conclude(&mut self, verdict: skep_machine::Ended) {
        self.errors_theirs = None;
        for _ in 0..1024 {
            if self.errors.is_none() {
                break;
            }
            self.read_words();
        }
        self.errors = None;
        self.ended = true;
        // If this fails, the next start or the spawner's sweep does it.
        let _ = destroy(&self.facts.name);
        self.happened.push(Happening::Ended(verdict));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// Without root where the kernel allows it (FREEBSD15.md 18).
fn destroy(name: &str) -> io::Result<()> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/vmmctl") {
        Ok(control) => vmm::destroy_by(control.as_fd(), name),
        Err(_) => vmm::destroy(name),
    }
}

/// The first serial line's number, as the engine was told.
fn fd_of_line() -> RawFd {
    Names::standard("x").serials.first().copied().unwrap_or(4)
}

/// Copies of what bhyve gets, with their numbers.
fn given(kit: &Kit) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    let names = Names::standard("x");
    let mut list = Vec::new();
    for (port, line) in &kit.serial {
        let number = names.serials.get(usize::from(port.saturating_sub(1)));
        list.push((line.try_clone()?, *number.ok_or_else(|| io::Error::other("there is no such serial port"))?));
    }
    for (role, fd) in &kit.fds {
        let number = match role {
            FdRole::Vars => names.vars,
            FdRole::Disk(slot) => 16 + i32::from(*slot),
            FdRole::Tap(slot) => 32 + i32::from(*slot),
            FdRole::Config | FdRole::Kernel | FdRole::Initrd | FdRole::Log => continue,
        };
        let copy = fd.try_clone()?;
        // bhyve limits its disks and taps itself, but leaves this one as it came. Rights are each copy's own.
        if *role == FdRole::Vars {
            limit_one(&HYPERVISOR, "variable store", copy.as_fd()).map_err(|e| io::Error::other(e.to_string()))?;
        }
        list.push((copy, number));
    }
    Ok(list)
}

fn spawn(program: &str, args: &[String], given: &[(OwnedFd, RawFd)], errors: &OwnedFd, files: u64) -> io::Result<(i32, OwnedFd)> {
    match fork()? {
        Fork::Parent(pid, process) => Ok((pid, process)),
        Fork::Child => {
            let error = match become_program(program, args, given, errors, files) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            eprintln!("skep: {program}: {error}");
            skep_sys::process::exit_now(126)
        }
    }
}

fn become_program(
    program: &str, args: &[String], given: &[(OwnedFd, RawFd)], errors: &OwnedFd, files: u64,
) -> io::Result<Infallible> {
    fd::place(errors.as_fd(), 2)?;
    fd::place(errors.as_fd(), 1)?;
    let null = std::fs::File::open("/dev/null")?;
    fd::place(null.as_fd(), 0)?;
    drop(null);
    // What a taken-over one could fill the host with. One that only meets the limit gets an error, not a signal.
    let files = files.max(SMALLEST_FILE_LIMIT);
    let files = nix::libc::rlim_t::try_from(files).unwrap_or(nix::libc::rlim_t::MAX);
    setrlimit(Resource::RLIMIT_FSIZE, files, files)?;
    skep_sys::process::ignore(nix::libc::SIGXFSZ)?;
    let text = |s: &str| CString::new(s).map_err(io::Error::from);
    let path = text(program)?;
    let args = std::iter::once(program).chain(args.iter().map(String::as_str)).map(text).collect::<io::Result<Vec<_>>>()?;
    let numbers: Vec<(BorrowedFd<'_>, RawFd)> = given.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
    fd::arrange(&numbers)?;
    // iasl is started with what it finds here (FREEBSD.md 35).
    let environment = [c"PATH=/bin:/usr/sbin", c"TMPDIR=/tmp"];
    let environment: Vec<&CStr> = environment.into_iter().collect();
    Ok(execve(&path, &args, &environment)?)
}
