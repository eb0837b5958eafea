//! A hypervisor in namespaces of the kinds that a cell has, and nothing more: no filter, no rights taken away, no uid of anyone else.

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, execve, fchdir};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, sock};
use skep_tests::Suite;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Numbers of the descriptors that the configuration names.
const QMP: i32 = skep_engine_qemu::Fds::QMP;
const SERIAL: i32 = skep_engine_qemu::Fds::serial(0);

/// All that a start needs.
pub struct Bare {
    root: OwnedFd,
    /// `run` and `dev` of the root.
    dir: tempfile::TempDir,
    arguments: Vec<CString>,
}

/// One that runs.
pub struct Running {
    qmp: BufReader<UnixStream>,
    _serial: OwnedFd,
    maker: i32,
}

impl Bare {
    /// Takes command line and configuration from a running machine's cell; its files from where they were imported.
    pub fn like(suite: &Suite, guest: &Path) -> Result<Self> {
        let cell = &super::cell(suite)?;
        let hypervisor = super::hypervisor(cell)?;
        let arguments = super::arguments(hypervisor).into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let dir = tempfile::Builder::new().prefix("skb").tempdir_in("/tmp")?;
        let place = |name: &str| dir.path().join(name);
        for (from, to) in [(configuration(cell.runner)?, "run/machine.conf"), (fs::read(guest.join("kernel"))?, "run/kernel")] {
            write(&place(to), &from)?;
        }
        write(&place("run/initrd"), &fs::read(guest.join("initrd"))?)?;
        write(&place("dev/null"), b"")?;
        write(&place("dev/urandom"), b"")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let root = suite.state.join("cell").join("root");
        let root = nix::fcntl::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root, dir, arguments })
    }

    /// Starts one, and lets the guest run.
    pub fn start(&self) -> Result<Running> {
        let (qmp, qmp_theirs) = sock::stream_pair()?;
        let (serial, serial_theirs) = sock::stream_pair()?;
        let maker = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                let Err(error) = self.become_hypervisor(&qmp_theirs, &serial_theirs);
                eprintln!("skep-bench: {error:#}");
                exit_now(1)
            }
        };
        drop((qmp_theirs, serial_theirs));
        let mut running = Running { qmp: BufReader::new(UnixStream::from(qmp)), _serial: serial, maker };
        running.expect("\"QMP\"")?;
        running.ask("qmp_capabilities")?;
        running.ask("cont")?;
        Ok(running)
    }

    fn become_hypervisor(&self, qmp: &OwnedFd, serial: &OwnedFd) -> Result<Infallible> {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        fchdir(&self.root)?;
        unshare(CloneFlags::CLONE_NEWUSER).context("user namespace")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        let others = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
        unshare(others).context("namespaces")?;
        // The first process of the new process namespace is a child; its parent stays, so that its end can be awaited.
        if let Fork::Parent(child) = fork()? {
            let code = match waitpid(Pid::from_raw(child), None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                _ => 1,
            };
            exit_now(code);
        }
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
        let bind = |from: &Path, to: &str| mount(Some(from), to, none, MsFlags::MS_BIND, none).with_context(|| to.to_owned());
        bind(&self.dir.path().join("run"), "run")?;
        bind(&self.dir.path().join("dev"), "dev")?;
        bind(Path::new("/dev/null"), "dev/null")?;
        bind(Path::new("/dev/urandom"), "dev/urandom")?;
        chroot(".")?;
        chdir("/")?;
        let null = fs::File::open("/dev/null")?;
        fd::place(null.as_fd(), 0)?;
        fd::arrange(&[(qmp.as_fd(), QMP), (serial.as_fd(), SERIAL)])?;
        let environment: [&CStr; 0] = [];
        let program = self.arguments.first().context("no command line")?;
        Ok(execve(program, &self.arguments, &environment)?)
    }
}

/// The configuration that a runner holds for the hypervisor's next start.
pub fn configuration(runner: i32) -> Result<Vec<u8>> {
    for entry in fs::read_dir(format!("/proc/{runner}/fd"))? {
        let path = entry?.path();
        if fs::read_link(&path)?.to_string_lossy().starts_with("/memfd:skep-config") {
            return Ok(fs::read(path)?);
        }
    }
    bail!("runner {runner} holds no configuration")
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

impl Running {
    /// Reads until a line with this in it.
    fn expect(&mut self, what: &str) -> Result<()> {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            ensure!(self.qmp.read_line(&mut line)? > 0, "the bare hypervisor ended before {what}");
        }
        Ok(())
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        self.qmp.get_mut().write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())?;
        self.expect("\"return\"")
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        self.qmp.get_mut().write_all(b"{\"execute\":\"quit\"}\n")?;
        let status = waitpid(Pid::from_raw(self.maker), None)?;
        ensure!(matches!(status, WaitStatus::Exited(_, 0)), "the bare hypervisor ended with {status:?}");
        Ok(())
    }
}
