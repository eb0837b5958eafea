//! A hypervisor in the mounts and the jail that a cell has, and nothing more: no uid of anyone else, no limits, no log, and a serial line whose
//! other end somebody reads.

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, Nmount, unmount};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, execve};
use skep_sys::fd;
use skep_sys::freebsd::devfs::{self, Mark, Rule};
use skep_sys::freebsd::jail::{self, Value};
use skep_sys::freebsd::{ask, net, vmm};
use skep_sys::process::{Fork, exit_now, fork};
use skep_tests::Suite;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const JAIL: &str = "skep-bench";
const VM: &str = "skep-bench";
/// Numbers of the descriptors that the configuration names.
const SERIAL: i32 = 4;
const DISK: i32 = 16;

/// All that a start needs.
pub struct Bare {
    root: PathBuf,
    place: tempfile::TempDir,
    dev: File,
    disk: PathBuf,
    configuration: String,
    memory: String,
    /// `/dev/vmmctl` is there: no network stack is needed.
    newer: bool,
    /// Its serial line.
    line: OwnedFd,
    /// Who reads what is said there.
    reader: i32,
}

/// One that runs.
pub struct Running<'a> {
    bare: &'a Bare,
    pid: i32,
}

/// A serial line as a cell has one, and a process that reads it and keeps nothing. Loader and hypervisor have nowhere else to write to.
fn line() -> Result<(OwnedFd, i32)> {
    let (master, slave) = skep_sys::freebsd::terminal()?;
    let mut settings = tcgetattr(&slave)?;
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
    fd::set_nonblocking(slave.as_fd(), true)?;
    match fork()? {
        Fork::Parent(reader) => Ok((slave, reader)),
        Fork::Child => {
            let (mut from, mut said) = (File::from(master), [0; 4096]);
            while from.read(&mut said).is_ok_and(|n| n > 0) {}
            exit_now(0)
        }
    }
}

impl Bare {
    /// Takes the configuration from a running machine's cell, and a copy of its disk from where it was imported.
    pub fn like(suite: &Suite, guest: &Path) -> Result<Self> {
        let cells = suite.run.join("cells");
        let mut found = fs::read_dir(&cells)?.filter_map(|e| fs::read_to_string(e.ok()?.path().join("run/machine.conf")).ok());
        let text = found.next().with_context(|| format!("{}: no cell with a configuration", cells.display()))?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
        let name = value("name").context("the configuration has no name")?;
        let memory = value("memory.size").context("the configuration has no memory.size")?;
        let place = tempfile::Builder::new().prefix("skb").tempdir_in("/tmp")?;
        let disk = place.path().join("disk.raw");
        fs::copy(guest.join("disk.img"), &disk)?;
        fs::create_dir(place.path().join("cell"))?;
        let (line, reader) = line()?;
        Ok(Self {
            root: suite.state.join("cell").join("root"),
            place,
            dev: File::open("/dev")?,
            disk,
            configuration: text.replace(&name, VM),
            memory,
            newer: Path::new("/dev/vmmctl").exists(),
            line,
            reader,
        })
    }

    fn cell(&self) -> PathBuf {
        self.place.path().join("cell")
    }

    /// Starts one: returns when it was executed.
    pub fn start(&self) -> Result<Running<'_>> {
        self.furnish()?;
        let disk = File::options().read(true).write(true).open(&self.disk)?;
        // Closed by exec: its end is what is waited for.
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let pid = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                drop(read);
                let Err(error) = self.become_hypervisor(&disk, &write);
                let _ = nix::unistd::write(&write, format!("{error:#}").as_bytes());
                exit_now(1)
            }
        };
        drop(write);
        let mut said = String::new();
        File::from(read).read_to_string(&mut said)?;
        ensure!(said.is_empty(), "the bare hypervisor: {said}");
        Ok(Running { bare: self, pid })
    }

    fn furnish(&self) -> Result<()> {
        let cell = self.cell();
        let mut rules = vec![Rule::HideAll];
        let shown = ["null", "random", "fd", "fd/*", "pts", "pts/*", "vmm", "vmm.io", "vmmctl", "vmm/*", "vmm.io/*"];
        rules.extend(shown.map(|pattern| Rule::Show(pattern.into())));
        let ruleset = devfs::take(self.dev.as_fd(), &mark(), &rules)?.to_string();
        let root = self.root.to_str().context("path")?;
        mount("nullfs", &cell, &[("target", root)], MntFlags::MNT_RDONLY)?;
        mount("devfs", &cell.join("dev"), &[("ruleset", ruleset.as_str())], MntFlags::empty())?;
        mount("fdescfs", &cell.join("dev/fd"), &[], MntFlags::empty())?;
        mount("tmpfs", &cell.join("run"), &[("size", "64m")], MntFlags::empty())?;
        mount("tmpfs", &cell.join("tmp"), &[("size", "4m")], MntFlags::empty())?;
        Ok(fs::write(cell.join("run/machine.conf"), &self.configuration)?)
    }

    fn become_hypervisor(&self, disk: &File, report: &OwnedFd) -> Result<Infallible> {
        let cell = self.cell();
        let mut parameters = vec![
            ("name", Value::Text(JAIL.to_owned())),
            ("path", Value::Text(cell.to_str().context("path")?.to_owned())),
            ("securelevel", Value::Number(3)),
            ("enforce_statfs", Value::Number(2)),
            ("allow.vmm", Value::Named),
        ];
        if self.newer {
            parameters.extend([("ip4", Value::Number(0)), ("ip6", Value::Number(0))]);
        } else {
            parameters.push(("vnet", Value::Number(1)));
        }
        // The kernel lets nobody who holds a directory into a jail.
        fd::close_all_but(&[2, disk.as_raw_fd(), self.line.as_raw_fd(), report.as_raw_fd()])?;
        jail::create_and_enter(&parameters).context("make the jail")?;
        if !self.newer {
            let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            net::set_up(control.as_fd(), "lo0", true)?;
            net::add_address(control.as_fd(), "lo0", Ipv4Addr::LOCALHOST, 8)?;
        }
        std::env::set_current_dir("/")?;
        fd::place(disk.as_fd(), DISK)?;
        fd::place(self.line.as_fd(), SERIAL)?;
        let (disk_path, line_path) = (format!("/dev/fd/{DISK}"), format!("/dev/fd/{SERIAL}"));
        match fork()? {
            Fork::Child => {
                let args = ["/usr/sbin/bhyveload", "-m", &self.memory, "-d", &disk_path, "-c", &line_path, VM];
                let _ = run(&args);
                exit_now(126)
            }
            Fork::Parent(loader) => match waitpid(Pid::from_raw(loader), None)? {
                WaitStatus::Exited(_, 0) => {}
                other => bail!("bhyveload ended with {other:?}"),
            },
        }
        run(&["/usr/sbin/bhyve", "-k", "/run/machine.conf", VM])
    }
}

/// Whose the cell's devfs ruleset is.
fn mark() -> Mark {
    Mark::new("bench", "cell")
}

/// Becomes this program.
fn run(args: &[&str]) -> Result<Infallible> {
    let args = args.iter().map(|a| CString::new(*a)).collect::<Result<Vec<_>, _>>()?;
    let environment: Vec<&CStr> = vec![c"PATH=/bin:/usr/sbin", c"TMPDIR=/tmp"];
    let program = args.first().context("no program")?;
    Ok(execve(program, &args, &environment)?)
}

fn mount(kind: &str, at: &Path, options: &[(&str, &str)], flags: MntFlags) -> Result<()> {
    let mut call = Nmount::new();
    call.str_opt_owned("fstype", kind).str_opt_owned("fspath", at);
    for (key, value) in options {
        call.str_opt_owned(*key, *value);
    }
    call.nmount(flags).map_err(|e| e.error()).with_context(|| format!("mount {kind} at {}", at.display()))
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.reader), Signal::SIGKILL);
        let _ = waitpid(Pid::from_raw(self.reader), None);
    }
}

impl Running<'_> {
    /// Ends it, and takes its cell away.
    pub fn end(self) -> Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL)?;
        waitpid(Pid::from_raw(self.pid), None)?;
        vmm::destroy(VM)?;
        let cell = self.bare.cell();
        for below in ["tmp", "run", "dev/fd", "dev", ""] {
            let at = if below.is_empty() { cell.clone() } else { cell.join(below) };
            // A jail that is dying keeps them for a moment, and until devices are looked at once more (FREEBSD.md 48, 49).
            let mut tries = 0..200u8;
            while let Err(e) = unmount(&at, MntFlags::empty()) {
                ensure!(tries.next().is_some(), "unmount {}: {e}", at.display());
                for devices in ask::mounts()?.iter().filter(|mounted| mounted.kind == "devfs") {
                    let _ = fs::read_dir(&devices.at).map(Iterator::count);
                }
                nix::poll::poll(&mut [], 5u8)?;
            }
        }
        Ok(devfs::give(self.bare.dev.as_fd(), &mark())?)
    }
}
