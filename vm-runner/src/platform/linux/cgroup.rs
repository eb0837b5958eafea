//! Control groups (cgroups(7)): one for each machine, below one that belongs to the instance. Version 1 where the controllers are
//! there, as they then cannot be in version 2.

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Uid, chown};
use skep_proto::cell::{Limits, Usage};
use skep_proto::{InstanceId, MachineId, Reason, Refusal};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The groups of one instance; none without root.
pub struct Cgroups {
    trees: Vec<Tree>,
}

/// One hierarchy, by the instance's group in it.
struct Tree {
    dir: PathBuf,
    unified: bool,
    controllers: Vec<&'static str>,
}

/// A machine's groups, to be joined by its cell's first process.
#[derive(Default)]
pub struct Joined {
    /// Files to write `0` to.
    pub procs: Vec<PathBuf>,
}

/// Why a machine has no groups.
enum Failure {
    /// What was to be done, and what the kernel said.
    Io(String, io::Error),
    /// A limit that this host cannot keep, by its field, and why.
    Unkept(&'static str, String),
}

impl Failure {
    fn of(self, machine: MachineId) -> Refusal {
        let object = format!("machine {machine}");
        match self {
            Self::Io(what, e) => Refusal::io(object, &what, &e),
            Self::Unkept(field, why) => Refusal::new(Reason::Unsupported, object).field(field).note(why),
        }
    }
}

const WANTED: [&str; 5] = ["memory", "cpu", "pids", "cpuacct", "io"];

impl Cgroups {
    /// Finds the hierarchies and makes the instance's group in each, to be `uid`'s. What cannot be had is left out.
    pub fn acquire(instance: InstanceId, uid: Option<u32>) -> Self {
        let Some(uid) = uid else { return Self { trees: Vec::new() } };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut trees: Vec<Tree> = Vec::new();
        let mut taken = Vec::new();
        // Version 1 first: a controller in use there is not to be had in version 2.
        for unified in [false, true] {
            for (mount, mut controllers) in mounts.lines().filter_map(|line| hierarchy(line, unified)) {
                controllers.retain(|c| !taken.contains(c));
                let dir = mount.join(format!("skep-{instance}"));
                // Version 2 is taken without controllers, too: it counts CPU time.
                let counts = unified && !taken.contains(&"cpuacct");
                if (counts || !controllers.is_empty()) && adopt(&mount, &dir, uid, unified, &controllers).is_ok() {
                    taken.extend(controllers.iter().copied());
                    trees.push(Tree { dir, unified, controllers });
                }
            }
        }
        Self { trees }
    }

    fn tree(&self, controller: &str) -> Option<&Tree> {
        self.trees.iter().find(|t| t.controllers.contains(&controller))
    }

    /// Limits that can be enforced.
    pub fn limits(&self) -> Vec<&'static str> {
        let there = |(name, controller)| self.tree(controller).map(|_| name);
        let own = [("memory", "memory"), ("cpu", "cpu"), ("tasks", "pids"), ("priority", "cpu")].into_iter().filter_map(there);
        own.chain(self.throttles().map(|_| "rates")).collect()
    }

    /// The hierarchy that limits what disks are read and written: what was written into memory is laid to a group's charge only where
    /// both controllers are in version 2.
    fn throttles(&self) -> Option<&Tree> {
        self.trees.iter().find(|t| t.unified && ["io", "memory"].iter().all(|c| t.controllers.contains(c)))
    }

    /// Makes a machine's groups with its limits; those of rates are on the devices of its disks. After a refusal none is left.
    pub fn make(&self, machine: MachineId, limits: &Limits, disks: &[BorrowedFd<'_>]) -> Result<Joined, Refusal> {
        self.sweep(machine)?;
        let result = self.try_make(machine, limits, disks).map_err(|failure| failure.of(machine));
        if result.is_err() {
            let _ = self.sweep(machine);
        }
        result
    }

    fn try_make(&self, machine: MachineId, limits: &Limits, disks: &[BorrowedFd<'_>]) -> Result<Joined, Failure> {
        let mut joined = Joined::default();
        for tree in &self.trees {
            let dir = tree.dir.join(machine.to_string());
            fs::create_dir(&dir).map_err(|e| Failure::Io(format!("make {}", dir.display()), e))?;
            // Who joins has one thread. In version 1 it can join as that thread, which spares the kernel a wait of some 10 ms for all
            // forks and exits on the host (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
            joined.procs.push(dir.join(if tree.unified { "cgroup.procs" } else { "tasks" }));
        }
        let period = 100_000u64;
        let quota = limits.cpu_percent.map(|percent| u64::from(percent) * period / 100);
        let wanted = [
            (
                "limits.memory_mib",
                "memory",
                limits.memory.map(|n| [("memory.limit_in_bytes", n.to_string()), ("memory.max", n.to_string())]),
            ),
            (
                "limits.cpu_percent",
                "cpu",
                quota.map(|q| [("cpu.cfs_quota_us", q.to_string()), ("cpu.max", format!("{q} {period}"))]),
            ),
            ("limits.tasks", "pids", limits.tasks.map(|n| [("pids.max", n.to_string()), ("pids.max", n.to_string())])),
            // Against other groups a nice value counts as the group's weight only.
            (
                "limits.priority",
                "cpu",
                weight(limits.priority)
                    .map(|w| [("cpu.shares", w.to_string()), ("cpu.weight.nice", limits.priority.to_string())]),
            ),
        ];
        for (field, controller, value) in wanted {
            let Some([old, new]) = value else { continue };
            let Some(tree) = self.tree(controller) else {
                return Err(Failure::Unkept(field, format!("there is no control group of the {controller} controller")));
            };
            let (file, value) = if tree.unified { new } else { old };
            let path = tree.dir.join(machine.to_string()).join(file);
            fs::write(&path, value).map_err(|e| Failure::Io(format!("set {}", path.display()), e))?;
        }
        let rates = [
            ("limits.read_bps", "rbps", limits.read_bps),
            ("limits.write_bps", "wbps", limits.write_bps),
            ("limits.read_iops", "riops", limits.read_iops),
            ("limits.write_iops", "wiops", limits.write_iops),
        ];
        let rates: Vec<_> =
            rates.into_iter().filter_map(|(field, key, value)| Some((field, format!("{key}={}", value?)))).collect();
        if let Some((field, _)) = rates.first() {
            let line = rates.iter().map(|(_, rate)| rate.as_str()).collect::<Vec<_>>().join(" ");
            self.throttle(machine, field, &line, disks)?;
        }
        Ok(joined)
    }

    fn throttle(&self, machine: MachineId, field: &'static str, rates: &str, disks: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let Some(tree) = self.throttles() else {
            let why = "there is no control group of version 2 with the io and memory controllers";
            return Err(Failure::Unkept(field, why.into()));
        };
        let path = tree.dir.join(machine.to_string()).join("io.max");
        let mut done = BTreeSet::new();
        for disk in disks {
            match device(*disk) {
                Ok(device) if !done.insert(device) => {}
                Ok((major, minor)) => {
                    let line = format!("{major}:{minor} {rates}");
                    fs::write(&path, line).map_err(|e| Failure::Io(format!("set {}", path.display()), e))?;
                }
                Err(e) => return Err(Failure::Unkept(field, format!("the device of a disk is not known: {e}"))),
            }
        }
        Ok(())
    }

    /// Kills what is left in a machine's groups and removes them.
    pub fn sweep(&self, machine: MachineId) -> Result<(), Refusal> {
        for tree in &self.trees {
            let dir = tree.dir.join(machine.to_string());
            let what = format!("remove {}", dir.display());
            remove(&dir).map_err(|e| Refusal::io(format_args!("machine {machine}"), &what, &e))?;
        }
        Ok(())
    }

    /// Machines that have a group.
    pub fn machines(&self) -> Vec<MachineId> {
        let list = self.trees.iter().filter_map(|tree| fs::read_dir(&tree.dir).ok());
        let names = list.flatten().filter_map(Result::ok).map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).collect()
    }

    /// What a machine uses.
    pub fn usage(&self, machine: MachineId) -> Usage {
        let read = |tree: &Tree, file: &str| fs::read_to_string(tree.dir.join(machine.to_string()).join(file)).ok();
        let number = |text: String| text.trim().parse::<u64>().ok();
        let memory = self
            .tree("memory")
            .and_then(|t| read(t, if t.unified { "memory.current" } else { "memory.usage_in_bytes" }).and_then(number));
        let counted = self.tree("cpuacct").and_then(|t| read(t, "cpuacct.usage")).and_then(number);
        let cpu_ns = counted.or_else(|| {
            let text = self.trees.iter().find(|t| t.unified).and_then(|t| read(t, "cpu.stat"))?;
            let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
            line.parse::<u64>().ok().map(|us| us.saturating_mul(1000))
        });
        Usage { memory, cpu_ns, disk: None }
    }
}

/// What a nice value is worth (kernel/sched/core.c, sched_prio_to_weight), as version 1's cpu.shares; none for the default.
fn weight(nice: i8) -> Option<u64> {
    const WEIGHTS: [u64; 40] = [
        88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991,
        1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
    ];
    let at = usize::try_from(i16::from(nice) + 20).ok()?;
    WEIGHTS.get(at).copied().filter(|_| nice != 0)
}

/// The whole disk that a file lies on, or that a block device is or is part of.
fn device(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(file)?;
    let block = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFBLK;
    let number = if block { stat.st_rdev } else { stat.st_dev };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let shown = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // Of a file system in memory, over others or across several there is none.
    if major == 0 || !shown.exists() {
        return Err(io::Error::other(format!("its file system, {major}:{minor}, is on no block device")));
    }
    if !shown.join("partition").exists() {
        return Ok((major, minor));
    }
    let text = fs::read_to_string(shown.join("../dev"))?;
    let numbers = text.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// A line of the mount table as a hierarchy: where, and which of the wanted controllers.
fn hierarchy(line: &str, unified: bool) -> Option<(PathBuf, Vec<&'static str>)> {
    let mut fields = line.split(' ').skip(1);
    let (dir, kind, options) = (PathBuf::from(fields.next()?), fields.next()?, fields.next()?);
    let offered = match (kind, unified) {
        ("cgroup", false) => options.replace(',', " "),
        ("cgroup2", true) => fs::read_to_string(dir.join("cgroup.controllers")).ok()?,
        _ => return None,
    };
    let controllers = WANTED.into_iter().filter(|w| offered.split_whitespace().any(|o| o == *w)).collect();
    Some((dir, controllers))
}

/// Makes the instance's group and gives the right to make groups below it to `uid`.
fn adopt(mount: &Path, dir: &Path, uid: u32, unified: bool, controllers: &[&str]) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    chown(dir, owner, group)?;
    if unified {
        let all: Vec<String> = controllers.iter().filter(|c| **c != "cpuacct").map(|c| format!("+{c}")).collect();
        if !all.is_empty() {
            fs::write(mount.join("cgroup.subtree_control"), all.join(" "))?;
            fs::write(dir.join("cgroup.subtree_control"), all.join(" "))?;
        }
        chown(&dir.join("cgroup.procs"), owner, group)?;
        // A process may move between groups below one that it may write to: so the spawner has a place below it, too.
        let own = dir.join("spawner");
        match fs::create_dir(&own) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        fs::write(own.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Kills and awaits the processes of a group, then removes it. One that is not there is removed.
fn remove(dir: &Path) -> io::Result<()> {
    // Each round waits for the end of processes; new ones cannot come once all are killed.
    for _ in 0..20 {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() != Some(Errno::EBUSY as i32) => return Err(e),
            Err(_) => {}
        }
        let list = || fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let open = |pid: &str| Some((pid.to_owned(), skep_sys::linux::pidfd(pid.parse().ok()?).ok()?));
        let found: Vec<(String, OwnedFd)> = list().lines().filter_map(open).collect();
        // A number that is still listed was not given to somebody else before its descriptor was made.
        let still = list();
        let mut waited = false;
        for (_, process) in found.into_iter().filter(|(pid, _)| still.lines().any(|l| l == pid)) {
            let _ = skep_sys::linux::pidfd_signal(process.as_fd(), nix::sys::signal::Signal::SIGKILL as i32);
            waited |= super::ended(process.as_fd(), super::END_MS);
        }
        if !waited {
            // Nobody is there any more, but the kernel has not finished with the last one.
            let _ = nix::poll::poll(&mut [], 10u8);
        }
    }
    fs::remove_dir(dir)
}
