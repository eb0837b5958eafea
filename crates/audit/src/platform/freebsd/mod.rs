//! FreeBSD: `kern.proc.*` and jail_get(2).

use super::{Listener, kinfo};
use crate::facts::{Confinement, Facts, FreeBsd, Jail, Kind, Mount, NodeRule, Open, Reach};
use crate::{Error, Options};
use nix::libc::{self, c_int, kinfo_proc};
use skep_proto::MachineId;
use skep_sys::freebsd::{ask, devfs, rctl};
use std::collections::BTreeMap;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Datasets within datasets, `zvol` included; ZFS itself allows 50.
const MOST_DATASETS: u8 = 51;
const PROC: [c_int; 2] = [libc::CTL_KERN, libc::KERN_PROC];

/// One process of `kern.proc.proc`.
#[derive(Debug, Clone)]
struct Info {
    pid: i32,
    parent: i32,
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
    threads: u32,
    command: String,
    jail: i32,
    capability_mode: bool,
    ended: bool,
}

/// The kernel, and its processes as they were at the beginning.
pub struct Kernel {
    paths: kinfo::Paths,
    processes: Vec<Info>,
    listeners: Vec<Listener>,
    /// Who holds the end of a pipe with this address.
    pipes: BTreeMap<u64, Vec<i32>>,
}

impl Kernel {
    /// Reads what is needed for every process.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let state = std::fs::metadata(&options.state).ok().map(|meta| meta.dev());
        let mut paths = kinfo::Paths { state, ..kinfo::Paths::default() };
        below(&options.state, 0, &mut paths);
        devices(&options.run.join("volumes"), 0, &mut paths);
        let bytes = ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_PROC]).map_err(Error::kernel("kern.proc.proc"))?;
        let processes = infos(&bytes);
        let (mut listeners, mut pipes) = (Vec::new(), BTreeMap::<u64, Vec<i32>>::new());
        for process in &processes {
            // What may not be read is not ours.
            let bytes = descriptors(process.pid).unwrap_or_default();
            for (_, end, _) in kinfo::pipes(&bytes) {
                pipes.entry(end).or_default().push(process.pid);
            }
            for open in kinfo::files(&bytes, "", &paths) {
                if let Kind::Unix { path: Some(path), listens: true } = open.kind {
                    listeners.push(Listener { path, pids: vec![process.pid] });
                }
            }
        }
        Ok(Self { paths, processes, listeners, pipes })
    }

    /// Every process.
    #[allow(clippy::unnecessary_wraps)]
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        Ok(self.processes.iter().map(|process| process.pid).collect())
    }

    /// UNIX sockets that listen.
    #[allow(clippy::unnecessary_wraps)]
    pub fn listeners(&self) -> Result<Vec<Listener>, Error> {
        Ok(self.listeners.clone())
    }

    /// A process's parent.
    pub fn parent(&self, pid: i32) -> Option<i32> {
        self.processes.iter().find(|process| process.pid == pid).map(|process| process.parent)
    }

    /// The other processes of a runner's jail.
    #[allow(clippy::unnecessary_wraps)]
    pub fn cell_mates(&self, runner: i32) -> Result<Vec<i32>, Error> {
        let Some(of) = self.processes.iter().find(|process| process.pid == runner) else { return Ok(Vec::new()) };
        let belongs = |p: &&Info| if of.jail == 0 { p.parent == runner } else { p.jail == of.jail };
        Ok(self.processes.iter().filter(belongs).map(|p| p.pid).filter(|pid| *pid != runner).collect())
    }

    /// What bears the suite's mark and outlives its cell: rules of rctl(8), instances of vmm(4). Those that belong to none of these
    /// machines. None: it cannot be asked.
    #[allow(clippy::unused_self)]
    pub fn left_over(&self, options: &Options, machines: &[MachineId]) -> Option<Vec<String>> {
        let instance = options.instance;
        let jails: Vec<String> = machines.iter().map(|machine| format!("skep-{instance}-{machine}")).collect();
        let mark = format!("skep-{instance}-");
        let of = |rule: &String| rule.strip_prefix("jail:").and_then(|rest| rest.split(':').next()).map(str::to_owned);
        let known = |jail: &str| jails.iter().any(|known| jail.strip_suffix("-console").unwrap_or(jail) == known);
        // Without kern.racct.enable there are none.
        let rules = rctl::rules("jail:").unwrap_or_default();
        let stale = rules.iter().filter(|rule| of(rule).is_some_and(|jail| jail.starts_with(&mark) && !known(&jail)));
        let mut left: Vec<String> = stale.map(|rule| format!("rule {}", kinfo::text(rule.as_bytes()))).collect();
        // As the broker names instances: in its configuration for bhyve.
        let mark = format!("sk{instance}");
        let vms: Vec<String> =
            machines.iter().map(|m| format!("{mark}{}", format!("{:032x}", m.as_u128()).get(..26).unwrap_or_default())).collect();
        let nodes = match std::fs::read_dir("/dev/vmm") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            list => list.ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        };
        let ours = |name: &&String| name.strip_prefix(&mark).is_some_and(is_machine);
        let stale = nodes.iter().filter(ours).filter(|name| !vms.contains(name));
        left.extend(stale.map(|name| format!("vmm instance {name}")));
        Some(left)
    }

    /// What it says about one process. `None`: it has ended.
    pub fn facts(&self, pid: i32) -> Result<Option<Facts>, Error> {
        match self.read(pid) {
            Ok(facts) => Ok(facts),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(Error::kernel(format!("process {pid}"))(error)),
        }
    }

    fn read(&self, pid: i32) -> io::Result<Option<Facts>> {
        let bytes = ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_PID, pid])?;
        let Some(info) = infos(&bytes).into_iter().next().filter(|info| !info.ended) else { return Ok(None) };
        let program = ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_PATHNAME, pid]).map(|bytes| kinfo::text(&bytes));
        let arguments = ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_ARGS, pid]).unwrap_or_default();
        let jail = if info.jail == 0 { None } else { jail(info.jail)? };
        // Without IPv4 and IPv6 there is nothing to reach; what a network stack of its own holds can be asked only from inside.
        let none = jail
            .as_ref()
            .is_some_and(|jail| !jail.vnet && jail.ip4 == libc::JAIL_SYS_DISABLE && jail.ip6 == libc::JAIL_SYS_DISABLE);
        Ok(Some(Facts {
            pid,
            ancestors: self.ancestors(pid),
            program: program.ok().filter(|path| !path.is_empty()).unwrap_or(info.command),
            arguments: arguments.split(|byte| *byte == 0).filter(|text| !text.is_empty()).map(kinfo::text).collect(),
            uids: info.uids,
            gids: info.gids,
            groups: info.groups,
            threads: info.threads,
            descriptors: self.files(pid, jail.as_ref().map_or("", |jail| jail.path.as_str()))?,
            most_descriptors: most_descriptors(pid)?,
            confinement: Confinement::FreeBsd(FreeBsd { capability_mode: info.capability_mode, jail }),
            reach: Reach { interfaces: none.then(Vec::new), addresses: Vec::new() },
        }))
    }

    fn ancestors(&self, pid: i32) -> Vec<i32> {
        // As deep as no suite is.
        std::iter::successors(self.parent(pid), |parent| self.parent(*parent).filter(|above| above != parent)).take(32).collect()
    }

    fn files(&self, pid: i32, root: &str) -> io::Result<Vec<Open>> {
        let bytes = descriptors(pid)?;
        let mut open = kinfo::files(&bytes, root, &self.paths);
        for (number, _, peer) in kinfo::pipes(&bytes) {
            let mut others = self.pipes.get(&peer).cloned().unwrap_or_default();
            others.retain(|holder| *holder != pid);
            open.iter_mut().filter(|open| open.number == number).for_each(|open| open.others = Some(others.clone()));
        }
        open.sort_by_key(|open| open.number);
        Ok(open)
    }
}

/// Whether this can be the beginning of a machine's id as instances have it.
fn is_machine(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Files of STATE, which has directories in directories at most; what cannot be read stays unknown.
fn below(directory: &Path, depth: u8, paths: &mut kinfo::Paths) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            paths.files.insert((meta.dev(), meta.ino()), entry.path());
        } else if meta.is_dir() && depth < 2 {
            below(&entry.path(), depth + 1, paths);
        }
    }
}

/// The same for the devices of volumes. The kernel names an open device only while it remembers all directories on the way, and
/// forgets them by itself, or when somebody tries to unmount them: file system and number of a device stay.
fn devices(directory: &Path, depth: u8, paths: &mut kinfo::Paths) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // A link is not followed.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.file_type().is_char_device() {
            paths.files.insert((meta.dev(), meta.ino()), entry.path());
        } else if meta.is_dir() && depth < MOST_DATASETS {
            devices(&entry.path(), depth + 1, paths);
        }
    }
}

fn descriptors(pid: i32) -> io::Result<Vec<u8>> {
    ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_FILEDESC, pid])
}

/// `struct rlimit`: soft limit, hard limit.
fn most_descriptors(pid: i32) -> io::Result<Option<u64>> {
    let bytes = ask::sysctl(&[PROC[0], PROC[1], libc::KERN_PROC_RLIMIT, pid, libc::RLIMIT_NOFILE])?;
    Ok(kinfo::long(&bytes, 0))
}

fn jail(id: i32) -> io::Result<Option<Jail>> {
    let ask::Jail { name, path, vnet, ip4, ip6, securelevel, children, enforce_statfs, ruleset, allowed } = match ask::jail(id) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        found => found?,
    };
    let limits = rctl::rules(&format!("jail:{name}")).ok();
    let limits = limits.map(|rules| rules.iter().map(|rule| kinfo::text(rule.as_bytes())).collect());
    let (name, path) = (kinfo::text(name.as_bytes()), kinfo::text(path.as_bytes()));
    let nodes = u16::try_from(ruleset).ok().and_then(|ruleset| nodes(ruleset).ok());
    let mounts = ask::mounts().ok().map(|all| all.into_iter().filter_map(|seen| mount(&path, seen)).collect());
    Ok(Some(Jail {
        id,
        name,
        path,
        vnet: vnet == libc::JAIL_SYS_NEW,
        securelevel,
        children,
        ip4,
        ip6,
        enforce_statfs,
        allowed: allowed.into_iter().map(str::to_owned).collect(),
        limits,
        nodes,
        mounts,
    }))
}

/// A mount at or below a jail's root, as the jail has it.
fn mount(root: &str, seen: ask::Mount) -> Option<Mount> {
    let below = seen.at.strip_prefix(root)?;
    let point = match below {
        "" => "/",
        below if below.starts_with('/') => below,
        _ => return None,
    };
    Some(Mount {
        root: kinfo::text(seen.from.as_bytes()),
        point: kinfo::text(point.as_bytes()),
        filesystem: kinfo::text(seen.kind.as_bytes()),
        read_only: seen.read_only,
        plain: seen.no_exec && seen.no_suid,
    })
}

/// Root's to ask.
fn nodes(ruleset: u16) -> io::Result<Vec<NodeRule>> {
    let dev = std::fs::File::open("/dev")?;
    let rule = |seen: devfs::Seen| NodeRule {
        pattern: kinfo::text(seen.pattern.as_bytes()),
        hides: seen.hides,
        shows: seen.shows,
        owner: seen.owner.map(|uid| (uid, seen.mode.unwrap_or(0))),
        other: seen.more || seen.include.is_some(),
    };
    Ok(devfs::rules(dev.as_fd(), ruleset)?.into_iter().map(rule).collect())
}

/// `struct kinfo_proc`, one after the other, each as long as its first word says.
fn infos(mut bytes: &[u8]) -> Vec<Info> {
    let mut infos = Vec::new();
    while let Some(size) = kinfo::word(bytes, 0).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0) {
        let Some((one, rest)) = bytes.split_at_checked(size) else { break };
        infos.extend(info(one));
        bytes = rest;
    }
    infos
}

fn info(one: &[u8]) -> Option<Info> {
    let word = |at| kinfo::word(one, at);
    let id = |at| word(at).map(i32::cast_unsigned);
    let count = one.get(offset_of!(kinfo_proc, ki_ngroups)..)?.first_chunk::<2>().map(|bytes| i16::from_le_bytes(*bytes))?;
    let count = usize::try_from(count).unwrap_or(0).min(libc::KI_NGROUPS);
    // The first group is the effective one.
    let groups: Vec<u32> = (0..count).filter_map(|n| id(offset_of!(kinfo_proc, ki_groups) + 4 * n)).collect();
    let effective = groups.first().copied();
    let mut gids = vec![id(offset_of!(kinfo_proc, ki_rgid))?];
    gids.extend(effective);
    gids.push(id(offset_of!(kinfo_proc, ki_svgid))?);
    let flags = id(offset_of!(kinfo_proc, ki_cr_flags))? as usize;
    let state = i32::from(*one.get(offset_of!(kinfo_proc, ki_stat))?);
    Some(Info {
        pid: word(offset_of!(kinfo_proc, ki_pid))?,
        parent: word(offset_of!(kinfo_proc, ki_ppid))?,
        uids: vec![
            id(offset_of!(kinfo_proc, ki_ruid))?,
            id(offset_of!(kinfo_proc, ki_uid))?,
            id(offset_of!(kinfo_proc, ki_svuid))?,
        ],
        gids,
        groups: groups.into_iter().skip(1).collect(),
        threads: id(offset_of!(kinfo_proc, ki_numthreads))?,
        command: kinfo::text(one.get(offset_of!(kinfo_proc, ki_comm)..)?),
        jail: word(offset_of!(kinfo_proc, ki_jid))?,
        capability_mode: flags & libc::KI_CRF_CAPABILITY_MODE != 0,
        ended: state == i32::from(libc::SZOMB),
    })
}
