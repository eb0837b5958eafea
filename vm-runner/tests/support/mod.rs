//! A spawner with real cells, and a client for each of its protocols.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use skep_ipc::{CallError, Client};
use skep_proto::cell::{self, Cell, FdRole, Limits, MakeCell, StartConsole, SweepCell};
use skep_proto::console::{AttachPort, AttachSerial, Attached, Console};
use skep_proto::runner::{self, End, Phase, RunnerEvent};
use skep_proto::{Call, InstanceId, MachineId, Refusal, Text, TraceId, UpTo, wire};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(60);
/// uids of a suite started by root, beside those of others.
const IDS: &str = "broker=81000,api-frontend=81001,storage-helper=81002,net-helper=81003,vm-runner=81004,machines=81100";

/// Ends a test early, with a reason, where the host lacks something.
pub fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
}

/// A spawner, or a named skip.
#[allow(unused_macros)]
macro_rules! spawner {
    ($name:literal) => {{
        if $crate::support::guest("kernel").is_none() {
            return $crate::support::skip($name, "no test guest; see scripts/guest");
        }
        let Some(spawner) = $crate::support::Spawner::start() else {
            return $crate::support::skip($name, "no hypervisor; see scripts/packages");
        };
        spawner
    }};
    ($name:literal, $flags:expr) => {{
        if $crate::support::guest("kernel").is_none() {
            return $crate::support::skip($name, "no test guest; see scripts/guest");
        }
        let Some(spawner) = $crate::support::Spawner::start_with($flags) else {
            return $crate::support::skip($name, "no hypervisor; see scripts/packages");
        };
        spawner
    }};
}

pub fn guest(name: &str) -> Option<PathBuf> {
    let made = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guest"));
    let dir = std::env::var_os("SKEP_GUEST_DIR").map_or_else(made, PathBuf::from);
    Some(dir.join(name)).filter(|p| p.is_file())
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub struct Spawner {
    pub dir: tempfile::TempDir,
    pub instance: InstanceId,
    flags: Vec<String>,
    child: Child,
    pub client: Client<Cell>,
}

pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_skep-vm-runner")).parent().unwrap().to_owned()
}

impl Spawner {
    /// With a prepared root; `None`: there is no hypervisor here.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| Vec::new())
    }

    /// The same with further flags, for what lies in its directory.
    pub fn start_with(flags: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("skep-t").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let config = skep_cellroot::Config { state: dir.path().join("state"), prefixes: Vec::new(), programs: programs() };
        let report = skep_cellroot::prepare(&config).unwrap();
        report.hypervisor?;
        std::fs::set_permissions(dir.path().join("state"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let instance = InstanceId::random();
        let flags = flags(dir.path());
        let (child, client) = launch(dir.path(), instance, &flags);
        Some(Self { dir, instance, flags, child, client })
    }

    /// Puts another program in the hypervisor's place in the cell's root.
    pub fn replace_hypervisor(&self, name: &str) {
        let place = self.dir.path().join("state/cell/root/usr/bin/qemu-system-x86_64");
        std::fs::remove_file(&place).unwrap();
        std::fs::copy(programs().join("examples").join(name), &place).unwrap();
    }

    /// Puts another program in the place of console-proxy.
    pub fn replace_console(&self, name: &str) {
        let place = self.dir.path().join("state/cell/console/skep/skep-console-proxy");
        std::fs::remove_file(&place).unwrap();
        std::fs::copy(programs().join("examples").join(name), &place).unwrap();
    }

    /// Reads the log of a kind of process until `is_enough`.
    pub fn words(&self, kind: &str, is_enough: impl Fn(&str) -> bool) -> String {
        let path = self.dir.path().join(format!("state/logs/{kind}.log"));
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            if is_enough(&text) {
                return text;
            }
            assert!(Instant::now() < until, "{text}");
            std::thread::yield_now();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and starts another.
    pub fn replace(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.client) = launch(self.dir.path(), self.instance, &self.flags);
    }

    pub fn ask<C: Call<Helper = Cell>>(&mut self, call: C, fds: C::SendFds) -> Result<C::Reply, Refusal> {
        ask(&mut self.client, call, fds).map(|(reply, _)| reply)
    }

    pub fn socket(&self, kind: &str, machine: MachineId) -> PathBuf {
        self.dir.path().join("run").join(kind).join(format!("{machine}.sock"))
    }

    pub fn runner(&self, machine: MachineId) -> Client<runner::Runner> {
        Client::connect(&self.socket("vm", machine)).unwrap()
    }

    pub fn console(&self, machine: MachineId) -> Client<Console> {
        Client::connect(&self.socket("console", machine)).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("spawner.log")).unwrap_or_default()
    }
}

fn launch(dir: &Path, instance: InstanceId, flags: &[String]) -> (Child, Client<Cell>) {
    let log = File::options().create(true).append(true).open(dir.join("spawner.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep-vm-runner"));
    command.arg("--state").arg(dir.join("state")).arg("--run").arg(dir.join("run")).arg("--instance").arg(instance.to_string());
    command.args(flags);
    if is_root() {
        command.arg("--ids").arg(IDS);
    }
    let socket = dir.join("run/vm-runner.sock");
    let _ = std::fs::remove_file(&socket);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    // As the broker, if we may choose.
    loop {
        match as_broker(|| Client::connect(&socket)) {
            Ok(client) => return (child, client),
            Err(_) if Instant::now() < until && child.try_wait().unwrap().is_none() => std::thread::yield_now(),
            Err(e) => panic!("spawner: {e}\n{}", std::fs::read_to_string(dir.join("spawner.log")).unwrap()),
        }
    }
}

/// The spawner accepts only its declared peer's uid.
pub fn as_broker<T>(act: impl FnOnce() -> T) -> T {
    if !is_root() {
        return act();
    }
    nix::unistd::setegid(81000.into()).unwrap();
    nix::unistd::seteuid(81000.into()).unwrap();
    let result = act();
    nix::unistd::seteuid(0.into()).unwrap();
    nix::unistd::setegid(0.into()).unwrap();
    result
}

pub fn ask<H: skep_proto::Helper, C: Call<Helper = H>>(
    client: &mut Client<H>, call: C, fds: C::SendFds,
) -> Result<(C::Reply, C::ReplyFds), Refusal> {
    match client.call(TraceId::random(), &Text::lossy("tester"), call, fds, PATIENCE) {
        Ok(reply) => Ok(reply),
        Err(CallError::Refused(refusal)) => Err(refusal),
        Err(e) => panic!("{e}"),
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let pages = ask(&mut self.client, cell::ListCells { after: None }, []);
        for state in pages.map(|(page, _)| page.cells).unwrap_or_default() {
            let _ = ask(&mut self.client, cell::KillCell { machine: state.machine }, []);
            let _ = ask(&mut self.client, SweepCell { machine: state.machine }, []);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- spawner's log\n{}", self.log());
        }
        if is_root() {
            skep_cellroot::forget(&self.instance.to_string()).unwrap();
        }
    }
}

pub fn memory_file(bytes: &[u8]) -> OwnedFd {
    let mut file = File::from(skep_sys::fd::memory_file(c"test").unwrap());
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// A machine with the test guest and a disk of its own.
pub struct Machine {
    pub id: MachineId,
    pub slot: u16,
    pub dir: tempfile::TempDir,
    pub config: String,
    pub limits: Limits,
    pub disk: bool,
    pub shares: Vec<skep_proto::Share>,
    pub ports: Vec<skep_proto::SerialPort>,
}

impl Machine {
    pub fn new(append: &str) -> Self {
        let id = MachineId::random();
        let config = config(append, true, false);
        Self {
            id,
            slot: 3,
            dir: tempfile::tempdir_in("/tmp").unwrap(),
            config,
            limits: Limits::default(),
            disk: true,
            shares: Vec::new(),
            ports: vec![skep_proto::SerialPort::FIRST],
        }
    }

    pub fn make(&self, spawner: &mut Spawner) -> Result<cell::CellMade, Refusal> {
        let open =
            |path: &Path| OwnedFd::from(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap());
        let mut roles = vec![FdRole::Config, FdRole::Kernel, FdRole::Initrd, FdRole::Log];
        let mut fds = vec![
            memory_file(self.config.as_bytes()),
            memory_file(&std::fs::read(guest("kernel").unwrap()).unwrap()),
            memory_file(&std::fs::read(guest("initrd").unwrap()).unwrap()),
            open(&self.dir.path().join("hypervisor.log")),
        ];
        if self.disk {
            let disk = self.dir.path().join("disk.raw");
            File::create(&disk).unwrap().set_len(8 << 20).unwrap();
            roles.push(FdRole::Disk(0));
            fds.push(open(&disk));
        }
        let call = MakeCell {
            machine: self.id,
            slot: self.slot,
            limits: self.limits.clone(),
            fds: roles,
            kvm: false,
            file_limit: 8 << 20,
            shares: self.shares.clone(),
            serial: self.ports.iter().map(|port| port.port()).collect(),
            sound: vec![],
            remote: vec![],
        };
        spawner.ask(call, UpTo(fds))
    }

    pub fn start_console(&self, spawner: &mut Spawner) -> Terminal {
        let log = |port: u8, n: u8| {
            let path = self.dir.path().join(format!("serial{port}.{n}.log"));
            OwnedFd::from(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
        };
        let mut fds = Vec::new();
        for port in &self.ports {
            let number = port.port();
            let mut runner = spawner.runner(self.id);
            let (_, [line]) = match number {
                1 => ask(&mut runner, runner::TakeSerial {}, []).unwrap(),
                port => ask(&mut runner, runner::TakePort { port }, []).unwrap(),
            };
            fds.push(line);
            fds.extend([0, 1].into_iter().filter(|_| port.log()).map(|half| log(number, half)));
        }
        spawner.ask(StartConsole { machine: self.id, slot: self.slot, ports: self.ports.clone() }, UpTo(fds)).unwrap();
        Terminal::attach(&mut spawner.console(self.id), true, false)
    }

    /// With another configuration, which need not be one.
    pub fn scripted(script: &str) -> Self {
        Self { config: format!("{script}\n"), ..Self::new("") }
    }

    /// Makes the cell and starts everything.
    pub fn boot(&self, spawner: &mut Spawner) -> (Client<runner::Runner>, Terminal) {
        let made = self.make(spawner).unwrap();
        assert!(made.runner > 1);
        let terminal = self.start_console(spawner);
        let mut client = spawner.runner(self.id);
        ask(&mut client, runner::Start {}, []).unwrap();
        (client, terminal)
    }
}

/// A configuration as the engine writes it.
pub fn config(append: &str, disk: bool, screen: bool) -> String {
    use skep_engine_qemu::{Fds, configure};
    let spec = spec(append, disk, screen);
    configure(&spec, &Fds::standard()).unwrap().config
}

/// The same with a channel, and without a disk.
pub fn config_with_channel(name: &str) -> String {
    use skep_engine_qemu::{Fds, configure};
    let channels = vec![skep_machine::Channel { name: name.into() }];
    configure(&skep_machine::MachineSpec { channels, ..spec("", false, false) }, &Fds::standard()).unwrap().config
}

/// The same with another specification made of the usual one.
pub fn config_of(change: impl FnOnce(&mut skep_machine::MachineSpec)) -> String {
    let mut spec = spec("", false, false);
    change(&mut spec);
    skep_engine_qemu::configure(&spec, &skep_engine_qemu::Fds::standard()).unwrap().config
}

fn spec(append: &str, disk: bool, screen: bool) -> skep_machine::MachineSpec {
    use skep_machine::{Acceleration, Boot, Disk, MachineSpec, Screen};
    MachineSpec {
        uuid: skep_machine::Uuid::from_u128(7),
        memory_mib: 128,
        boot: Boot::Direct { cmdline: format!("console=ttyS0 quiet panic=-1 {append}"), initrd: true },
        acceleration: Acceleration::Tcg,
        disks: disk.then(Disk::default).into_iter().collect(),
        screen: screen.then(Screen::default),
        ..MachineSpec::default()
    }
}

/// A terminal on a machine's serial line.
pub struct Terminal {
    pub stream: UnixStream,
    pub attached: Attached,
    pub seen: String,
}

impl Terminal {
    pub fn attach(console: &mut Client<Console>, write: bool, take: bool) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (attached, _) = ask(console, AttachSerial { write, take }, [theirs.into()]).unwrap();
        Self::on(ours, attached)
    }

    pub fn attach_port(console: &mut Client<Console>, port: u8) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (attached, _) = ask(console, AttachPort { port, write: true, take: false }, [theirs.into()]).unwrap();
        Self::on(ours, attached)
    }

    fn on(ours: UnixStream, attached: Attached) -> Self {
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: ours, attached, seen: String::new() }
    }

    pub fn until(&mut self, mark: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(mark) {
                let rest = self.seen.split_off(at + mark.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let n = self.stream.read(&mut buffer).unwrap_or_else(|e| panic!("waiting for {mark}: {e}; seen: {}", self.seen));
            assert!(n > 0, "end of stream while waiting for {mark}; seen: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    pub fn line(&mut self, text: &str) {
        self.stream.write_all(format!("{text}\n").as_bytes()).unwrap();
    }
}

/// Processes below a machine's first one, and itself; the kernel's view.
pub fn processes_in_cell(first: u32) -> Vec<u32> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(first) else { return Vec::new() };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect()
}

/// The events of a runner.
pub struct Events(OwnedFd);

impl Events {
    pub fn of(client: &mut Client<runner::Runner>) -> Self {
        let (_, [socket]) = ask(client, runner::Watch {}, []).unwrap();
        Self(socket)
    }
    pub fn next(&mut self) -> RunnerEvent {
        let record = skep_sys::msg::recv(self.0.as_fd(), 8000, 0, Some(Instant::now() + PATIENCE)).unwrap();
        wire::decode(&record.bytes).unwrap()
    }
    pub fn until_end(&mut self) -> End {
        loop {
            if let RunnerEvent::Ended(end) = self.next() {
                return end;
            }
        }
    }
    pub fn until_phase(&mut self, phase: Phase) {
        while self.next() != RunnerEvent::Phase(phase) {}
    }
}
