//! FreeBSD: a jail makes the cell, bhyve runs in it. Two kinds of cell (FREEBSD 13 and 15), chosen by asking the host.

mod bhyve;
mod gate;
mod jail;
mod mounts;
mod volumes;

pub use bhyve::Engine;

use super::{CellHost, Gate, Plan, UNLOADED};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_machine::Ability;
use skep_proto::cell::{Limits, Usage};
use skep_proto::{DiskCounts, InstanceId, MachineId, Reason, Refusal, SoundDevice};
use skep_service::{SPARE, Start, StartError};
use skep_sys::freebsd::devfs::{self, Mark};
use skep_sys::freebsd::{rctl, vmm};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a console-proxy whose line is closed may take to give its readers the rest.
const REST_MS: u16 = 1_000;
/// Why a disk's rates cannot be kept.
const IN_MEMORY: &str = "a disk lies on a tmpfs(4), which the kernel counts no reads and writes of";
/// Why rctl(8) is of no use.
const UNCOUNTED: &str = "kern.racct.enable is not set in loader.conf";
/// How long the kernel may take to end a removed jail.
const END: Duration = Duration::from_secs(10);

/// Mount points that are kept: of so many cells that end, others begin without a wait for the disk.
const SPARES: usize = 8;

/// Opens a directory as a place: root may list it anyway.
pub const PLACE: OFlag = OFlag::O_DIRECTORY;

/// A serial line: the host's end and the hypervisor's. bhyve's must be a terminal, raw and non-blocking, since bhyve's own flags are
/// lost on an inherited descriptor.
pub fn serial_line() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
    let (master, slave) = skep_sys::freebsd::terminal()?;
    let mut settings = tcgetattr(&slave)?;
    cfmakeraw(&mut settings);
    tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
    for end in [&master, &slave] {
        skep_sys::fd::set_nonblocking(end.as_fd(), true)?;
        skep_sys::fd::set_cloexec(end.as_fd(), true)?;
    }
    Ok((master, slave))
}

/// This host.
pub struct Host {
    cell: PathBuf,
    cells: PathBuf,
    dev: OwnedFd,
    instance: InstanceId,
    /// `/dev/vmmctl` is there: bhyve runs without root and without a network stack.
    newer: bool,
    /// The kernel counts and limits.
    counts: bool,
}

impl Host {
    /// Making jails and mounts is root's, and capability mode forbids both: the spawner stays what it is.
    pub const STAYS_ROOT: bool = true;

    /// It stays root, so no uid can be taken from it.
    #[allow(clippy::unnecessary_wraps)]
    pub fn confine(_machines: Option<u32>) -> Result<(), skep_sandbox::EnterError> {
        Ok(())
    }

    /// It stays root.
    #[allow(clippy::unused_self)]
    pub fn group(&self) -> Option<u32> {
        None
    }

    /// Finds out which kind of cells this host can have.
    pub fn acquire(start: &Start) -> Result<Self, StartError> {
        let (cell, cells) = (start.state.join("cell"), start.run.join("cells"));
        for dir in [&cell, &cells] {
            std::fs::create_dir_all(dir).map_err(StartError::step(format!("make {}", dir.display())))?;
        }
        // What is mounted there is the cells' own; they hold it themselves, and nobody else has to find it by a path.
        std::fs::set_permissions(&cells, std::fs::Permissions::from_mode(0o700))
            .map_err(StartError::step(format!("close {} to others", cells.display())))?;
        let dev = std::fs::File::open("/dev").map_err(StartError::step("open /dev"))?;
        Ok(Self {
            cell,
            cells,
            dev: dev.into(),
            instance: start.instance,
            newer: Path::new("/dev/vmmctl").exists(),
            counts: rctl::usage("user:0").is_ok(),
        })
    }

    fn jail_name(&self, machine: MachineId, console: bool) -> String {
        format!("skep-{}-{machine}{}", self.instance, if console { "-console" } else { "" })
    }

    fn mount_point(&self, machine: MachineId, console: bool) -> PathBuf {
        self.cells.join(format!("{machine}{}", if console { "-console" } else { "" }))
    }

    /// Of the cell's devfs ruleset.
    fn mark(&self, machine: MachineId, console: bool) -> Mark {
        Mark::new(self.instance, format_args!("{machine}{}", if console { "-console" } else { "" }))
    }

    /// As the engine names it: see the broker's configuration.
    fn vm_name(&self, machine: MachineId) -> String {
        let machine: String = format!("{:032x}", machine.as_u128()).chars().take(26).collect();
        format!("sk{}{machine}", self.instance)
    }

    /// Of the device that a disk-server serves, below `/dev`.
    fn gate_name(&self, cell: MachineId) -> String {
        format!("skep/{}-{cell}", self.instance)
    }

    /// What a disk-server counts.
    fn counts_of(&self, cell: MachineId) -> PathBuf {
        self.cell.join(format!("{cell}.counts"))
    }

    /// Before the process that serves it: whoever waits for that one would wait for good.
    fn take_gate(&self, cell: MachineId) -> Result<(), Refusal> {
        gate::take(&self.gate_name(cell)).map_err(|e| Refusal::io(format_args!("machine {cell}"), "take its device away", &e))
    }

    fn remove_jail(&self, name: &str, console: bool) -> io::Result<()> {
        let deadline = Instant::now() + END;
        while let Some(id) = skep_sys::freebsd::jail::find(name)? {
            if Instant::now() > deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            match skep_sys::freebsd::jail::remove(id) {
                // It went by itself meanwhile.
                Err(e) if e.raw_os_error() != Some(nix::libc::EINVAL) => return Err(e),
                _ => {}
            }
            // Removal is asynchronous, and the kernel tells nobody when it is done (FREEBSD.md 49).
            let _ = poll(&mut [], 5u8);
        }
        // A console-proxy's jail has no stack of its own.
        if !self.newer && !console && skep_sys::freebsd::jail::find_dying(name)?.is_some() {
            jail::empty(name, deadline)?;
        }
        Ok(())
    }

    /// Adds the rules of rctl(8), which may be there before their jail.
    fn limit(&self, machine: MachineId, name: &str, limits: &Limits, disks: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        let object = format!("machine {machine}");
        let unkept = |field: &str, why: &str| Err(Refusal::new(Reason::Unsupported, &object).field(field).note(why));
        // pcpu stops the jail for seconds: not a share of a CPU (FREEBSD.md 46).
        if limits.cpu_percent.is_some() {
            return unkept("limits.cpu_percent", "rctl(8) gives no share of a CPU; use limits.cpus or limits.pcpu");
        }
        let tasks = limits.tasks.map(u64::from);
        let rules = [
            // Guest memory is seen only as virtual memory (FREEBSD.md 46).
            ("limits.memory_mib", "vmemoryuse:deny", limits.memory),
            ("limits.tasks", "maxproc:deny", tasks),
            ("limits.tasks", "nthr:deny", tasks),
            ("limits.pcpu", "pcpu:deny", limits.pcpu.map(u64::from)),
            ("limits.read_bps", "readbps:throttle", limits.read_bps),
            ("limits.write_bps", "writebps:throttle", limits.write_bps),
            ("limits.read_iops", "readiops:throttle", limits.read_iops),
            ("limits.write_iops", "writeiops:throttle", limits.write_iops),
        ];
        let uncounted =
            |rule: &str| rule.ends_with("throttle") && disks.iter().any(|disk| mounts::in_memory(*disk).unwrap_or(false));
        for (field, rule, value) in rules {
            match value {
                Some(_) if uncounted(rule) => return unkept(field, IN_MEMORY),
                Some(value) if self.counts => {
                    rctl::add(&format!("jail:{name}:{rule}={value}")).map_err(|e| Refusal::io(&object, "set limits", &e))?;
                }
                Some(_) => return unkept(field, UNCOUNTED),
                None => {}
            }
        }
        Ok(())
    }

    /// Keeps a living jail to some CPUs.
    fn keep_to(&self, name: &str, limits: &Limits) -> io::Result<()> {
        if limits.cpus.0.is_empty() {
            return Ok(());
        }
        let id = skep_sys::freebsd::jail::find(name)?.ok_or(io::ErrorKind::NotFound)?;
        skep_sys::freebsd::cpu::place_jail(id, limits.cpus.0.iter().map(|cpu| usize::from(*cpu)))
    }

    fn try_start(&self, plan: &Plan<'_>, console: bool) -> Result<u32, Refusal> {
        let object = format!("machine {}", plan.machine);
        let failed = |what: &'static str| {
            let object = object.clone();
            move |e: io::Error| Refusal::io(object, what, &e)
        };
        let name = self.jail_name(plan.machine, console);
        let place = self.mount_point(plan.machine, console);
        self.take_place(&place).map_err(failed("make the mount point"))?;
        let owner = plan.identity.filter(|_| self.newer || console);
        mounts::root(&self.cell.join(plan.root), &place).map_err(failed("mount the cell's root"))?;
        // A console-proxy opens nothing: it gets neither devices nor room.
        let ruleset = if console {
            None
        } else {
            let mark = self.mark(plan.machine, console);
            let ruleset =
                devfs::take(self.dev.as_fd(), &mark, &mounts::rules(owner, &plan.sound)).map_err(failed("set devfs rules"))?;
            mounts::furnish(&place, ruleset, owner.unwrap_or(0)).map_err(failed("mount the cell's devices and room"))?;
            Some(ruleset)
        };
        for (number, share) in plan.shares.iter().enumerate() {
            mounts::share(share, number, &place)
                .map_err(|e| crate::spawner::refused(plan.machine, &share.name, e.raw_os_error().unwrap_or(0)))?;
        }
        if let Some(limits) = plan.limits {
            self.limit(plan.machine, &name, limits, &plan.disks)?;
        }
        // Until 15 a NIC needs a network stack in the cell (FREEBSD.md 25, 26).
        let stack = !self.newer && !console;
        let pid = jail::start(plan, &jail::Cell { name: name.clone(), place, owner, ruleset, stack })?;
        // Nothing runs there yet but a runner that waits.
        if let Some(limits) = plan.limits {
            self.keep_to(&name, limits).map_err(failed("keep its jail to some CPUs"))?;
        }
        Ok(pid)
    }

    fn try_sweep(&self, machine: MachineId, console: bool) -> io::Result<()> {
        let name = self.jail_name(machine, console);
        self.remove_jail(&name, console)?;
        if !console {
            vmm::destroy(&self.vm_name(machine))?;
        }
        let place = self.mount_point(machine, console);
        if !place.exists() {
            // It is made first and goes last.
            return Ok(());
        }
        if self.counts {
            rctl::remove(&format!("jail:{name}"))?;
        }
        mounts::clear(&place)?;
        devfs::give(self.dev.as_fd(), &self.mark(machine, console))?;
        self.give_place(&place)
    }

    /// Makes a mount point, of one that a former cell has left if there is one: of a directory that was just made, mount(2) has UFS write to
    /// its disk what it holds, and waits for that.
    fn take_place(&self, place: &Path) -> io::Result<()> {
        for spare in self.spares() {
            match std::fs::rename(spare, place) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                taken => return taken,
            }
        }
        std::fs::create_dir_all(place)
    }

    /// Keeps a mount point on which nothing is mounted any more for another cell, or removes it.
    fn give_place(&self, place: &Path) -> io::Result<()> {
        let free = self.spares().find(|spare| !spare.exists());
        match free.map_or_else(|| std::fs::remove_dir(place), |spare| std::fs::rename(place, spare)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Mount points of no cell; the suite's end removes them (`cli/src/platform/freebsd.rs`).
    fn spares(&self) -> impl Iterator<Item = PathBuf> {
        (0..SPARES).map(|number| self.cells.join(format!("{SPARE}{number}")))
    }
}

impl CellHost for Host {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("dev", self.dev.as_fd())]
    }

    fn cell_dir(&self) -> PathBuf {
        self.cell.clone()
    }

    fn look(&self, path: &str) -> io::Result<()> {
        std::fs::metadata(self.cell.join(skep_cellroot::ROOT).join(path.trim_start_matches('/'))).map(|_| ())
    }

    fn start(&mut self, plan: &Plan<'_>) -> Result<u32, Refusal> {
        let console = plan.limits.is_none();
        self.try_sweep(plan.machine, console)
            .map_err(|e| Refusal::io(format_args!("machine {}", plan.machine), "sweep an old cell", &e))?;
        let result = self.try_start(plan, console);
        if result.is_err() {
            // What the sweep cannot remove now, the next one will.
            let _ = self.try_sweep(plan.machine, console);
        }
        result
    }

    fn gate(&mut self, cell: MachineId, size: u64, block: u32, read_only: bool) -> io::Result<Gate> {
        gate::make(&self.gate_name(cell), size, block, read_only, &self.counts_of(cell))
    }

    fn gate_again(&mut self, cell: MachineId, read_only: bool) -> io::Result<Option<Gate>> {
        let (name, deadline) = (self.jail_name(cell, true), Instant::now() + END);
        self.remove_jail(&name, true)?;
        // One that is about to end could do once more what it was asked last, after who comes next has done what was asked later.
        while skep_sys::freebsd::jail::find_dying(&name)?.is_some() {
            if Instant::now() > deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let _ = poll(&mut [], 5u8);
        }
        gate::again(&self.gate_name(cell), read_only, &self.counts_of(cell))
    }

    fn end(&mut self, machine: MachineId, _socket: BorrowedFd<'_>) -> Result<(), Refusal> {
        self.take_gate(machine)?;
        for console in [false, true] {
            self.remove_jail(&self.jail_name(machine, console), console)
                .map_err(|e| Refusal::io(format_args!("machine {machine}"), "remove its jail", &e))?;
        }
        Ok(())
    }

    fn await_end(&mut self, socket: BorrowedFd<'_>) -> bool {
        // The connection hangs up when the listener ends.
        let mut set = [PollFd::new(socket, PollFlags::POLLIN)];
        poll(&mut set, PollTimeout::from(REST_MS)).is_ok_and(|n| n > 0)
    }

    fn sweep(&mut self, machine: MachineId) -> Result<(), Refusal> {
        self.take_gate(machine)?;
        for console in [true, false] {
            self.try_sweep(machine, console)
                .map_err(|e| Refusal::io(format_args!("machine {machine}"), "remove its jail and mounts", &e))?;
        }
        match std::fs::remove_file(self.counts_of(machine)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Refusal::io(format_args!("machine {machine}"), "remove what was counted of it", &e))
            }
            _ => Ok(()),
        }
    }

    fn machines(&self) -> Vec<MachineId> {
        let list = std::fs::read_dir(&self.cells).into_iter().flatten().filter_map(Result::ok);
        let names = list.filter_map(|entry| entry.file_name().into_string().ok());
        let machine = |name: &str| name.strip_suffix("-console").unwrap_or(name).parse().ok();
        let all: BTreeSet<MachineId> = names.filter_map(|name| machine(&name)).collect();
        all.into_iter().collect()
    }

    fn usage(&self, machine: MachineId, volume: bool) -> Usage {
        let text = rctl::usage(&format!("jail:{}", self.jail_name(machine, false))).unwrap_or_default();
        let value = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok());
        let disk = if volume {
            volumes::counts(&machine.to_string()).ok().flatten()
        } else {
            // There from the start, and empty until something goes through.
            let counts = std::fs::read(self.counts_of(machine)).ok();
            counts.map(|bytes| bytes.first_chunk().map(DiskCounts::from_bytes).unwrap_or_default())
        };
        Usage { memory: value("vmemoryuse"), cpu_ns: value("cputime").map(|s| s.saturating_mul(1_000_000_000)), disk }
    }

    fn limits(&self) -> Vec<&'static str> {
        let counted: &[&str] = if self.counts { &["memory", "tasks", "pcpu", "rates"] } else { &[] };
        [counted, &["cpus", "priority", "raise", "protect"]].concat()
    }

    fn only_reads(&self) -> Option<&'static str> {
        Some(if self.newer {
            "bhyve has the machine's uid here, and cannot give the files that a guest makes to the guest's users; add `ro`"
        } else {
            "bhyve is root before FreeBSD 15, and would let a guest leave programs on the host that run as root; add `ro`"
        })
    }

    fn cpus(&self) -> io::Result<BTreeSet<u16>> {
        Ok(skep_sys::freebsd::cpu::allowed()?.into_iter().filter_map(|cpu| u16::try_from(cpu).ok()).collect())
    }

    fn sound(&self) -> Vec<SoundDevice> {
        // Not there without the driver.
        std::fs::read("/dev/sndstat")
            .map(|text| crate::platform::sound::parse(&String::from_utf8_lossy(&text)))
            .unwrap_or_default()
    }

    fn most_cpus(&self) -> Option<u16> {
        // Not there before vmm(4) is loaded.
        skep_sys::freebsd::sysctl_number(c"hw.vmm.maxcpu").ok().and_then(|most| u16::try_from(most).ok()).filter(|most| *most > 0)
    }

    fn lacks(&self) -> Vec<(&'static str, String)> {
        if Path::new("/dev/ggctl").exists() {
            return Vec::new();
        }
        vec![(Ability::IscsiDisks.name(), UNLOADED.to_owned())]
    }

    fn weaker(&self) -> Vec<String> {
        let mut lines =
            vec!["shares of CPU are not enforced: rctl stops a jail for seconds, which is pcpu and no share of a CPU".to_owned()];
        if !self.counts {
            lines.push(format!("limits of memory, tasks, pcpu and rates are not enforced: {UNCOUNTED}"));
        }
        if self.newer {
            lines.push(
                "a cell can ask whether an interface of the host is up: its jail has no network stack of its own".to_owned(),
            );
        }
        if !self.newer {
            lines.push(
                "bhyve is root in its jail, which has a network stack with nothing in it: this release knows no other way"
                    .to_owned(),
            );
            let clones = [c"net.link.tap.devfs_cloning", c"net.link.tun.devfs_cloning"];
            if clones.iter().any(|name| skep_sys::freebsd::sysctl_number(name).is_ok_and(|on| on != 0)) {
                lines.push(
                    "root of a cell can have the kernel make taps that nobody opens and that go with the cell, unless \
                     net.link.tap.devfs_cloning=0 and net.link.tun.devfs_cloning=0 in sysctl.conf forbid it"
                        .to_owned(),
                );
            }
        }
        lines
    }
}

/// A refusal for what this hypervisor has not.
fn unsupported(what: &str) -> Refusal {
    Refusal::new(Reason::Unsupported, what).note("bhyve cannot do that")
}
