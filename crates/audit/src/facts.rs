//! What a kernel says about one process. Plain data, the same on both hosts, so that the judging is pure and tested on both.

use skep_rights::Namespace;
use std::path::PathBuf;

/// One process.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Process id.
    pub pid: i32,
    /// Its parent's, that one's parent's, and so on.
    pub ancestors: Vec<i32>,
    /// The program that it runs.
    pub program: String,
    /// Its arguments, its name first. It may have changed them itself.
    pub arguments: Vec<String>,
    /// Real, effective, saved, file-system (Linux) uid.
    pub uids: Vec<u32>,
    /// The same of groups.
    pub gids: Vec<u32>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Threads.
    pub threads: u32,
    /// Open descriptors.
    pub descriptors: Vec<Open>,
    /// Most descriptors that it may have open (`RLIMIT_NOFILE`).
    pub most_descriptors: Option<u64>,
    /// What confines it.
    pub confinement: Confinement,
    /// The network in its reach.
    pub reach: Reach,
}

/// One open descriptor.
#[derive(Debug, Clone)]
pub struct Open {
    /// Its number.
    pub number: i32,
    /// What it is.
    pub kind: Kind,
    /// The same in the kernel's words.
    pub shown: String,
    /// Capsicum rights as the kernel writes them (FreeBSD).
    pub rights: Option<[u64; 2]>,
    /// Of a pipe: the other processes that hold its other end, as far as whoever asks may see them. None: the kernel does not say.
    pub others: Option<Vec<i32>>,
}

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `/dev/null`.
    Null,
    /// A regular file.
    File(PathBuf),
    /// A regular file in STATE's file system that has no name any more (FreeBSD, whose kernel keeps nothing of where it was).
    Nameless,
    /// A directory.
    Directory(PathBuf),
    /// A UNIX socket; with the path that it is bound to (an accepted one has its listener's).
    Unix {
        /// See above.
        path: Option<PathBuf>,
        /// Whether it listens.
        listens: bool,
    },
    /// A socket of rtnetlink.
    Netlink,
    /// A socket of netfilter.
    Netfilter,
    /// A socket of sock_diag.
    SockDiag,
    /// A socket of generic netlink (Linux).
    GenericNetlink,
    /// A control socket of netgraph.
    Netgraph,
    /// An internet socket, its protocol.
    Inet(String),
    /// A packet socket (Linux).
    Packet,
    /// A pipe.
    Pipe,
    /// A pipe with a name; empty: the kernel does not say it any more.
    Fifo(PathBuf),
    /// A character device, by its path.
    Device(PathBuf),
    /// A memory file.
    Memory,
    /// Event, poll, timer, signal, kqueue.
    Event,
    /// FreeBSD's kernel does not say what it is (`KF_TYPE_UNKNOWN`): one that is just being accepted, or no longer of use.
    Unknown,
    /// A process.
    Process,
    /// A namespace.
    Namespace,
    /// Something that no table can name.
    Other,
}

/// What confines a process.
#[derive(Debug, Clone)]
pub enum Confinement {
    /// Linux's means.
    Linux(Linux),
    /// FreeBSD's.
    FreeBsd(FreeBsd),
}

impl Confinement {
    /// What it sees of the file system, as far as it can be read.
    pub fn mounts(&self) -> &[Mount] {
        match self {
            Confinement::Linux(linux) => &linux.mounts,
            Confinement::FreeBsd(freebsd) => freebsd.jail.as_ref().and_then(|jail| jail.mounts.as_deref()).unwrap_or_default(),
        }
    }
}

impl Default for Confinement {
    fn default() -> Self {
        Confinement::Linux(Linux::default())
    }
}

/// `/proc/PID/{status,ns,mountinfo}`.
#[derive(Debug, Clone, Default)]
pub struct Linux {
    /// Inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// no_new_privs.
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Filters.
    pub filters: u32,
    /// Each of its namespaces: inode, and the auditor's.
    pub namespaces: Vec<(Namespace, u64, u64)>,
    /// What it sees of the file system.
    pub mounts: Vec<Mount>,
    /// Its control groups.
    pub cgroups: Vec<String>,
}

impl Linux {
    /// The inode of one namespace.
    pub fn namespace(&self, which: Namespace) -> Option<u64> {
        self.namespaces.iter().find(|(name, _, _)| *name == which).map(|(_, own, _)| *own)
    }
    /// Whether it left the auditor's for another.
    pub fn left(&self, which: Namespace) -> bool {
        self.namespaces.iter().any(|(name, own, hosts)| *name == which && own != hosts)
    }
}

/// What is mounted: a line of `/proc/PID/mountinfo`, or of getfsstat(2) below a jail's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted.
    pub root: String,
    /// Where, as the process sees it.
    pub point: String,
    /// Type.
    pub filesystem: String,
    /// Whether it, or its file system as a whole, is read-only.
    pub read_only: bool,
    /// Whether neither programs, device nodes nor set-user-id bits of it count.
    pub plain: bool,
}

impl Mount {
    /// Whether it is where the spawner mounts what a machine shares.
    pub fn is_share(&self) -> bool {
        let number = self.point.strip_prefix("/share/").and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| number < skep_rights::hypervisor::SHARES)
    }
}

/// `kern.proc.pid` and jail_get(2).
#[derive(Debug, Clone, Default)]
pub struct FreeBsd {
    /// In capability mode.
    pub capability_mode: bool,
    /// Its jail; none: the host.
    pub jail: Option<Jail>,
}

/// A jail.
#[derive(Debug, Clone, Default)]
pub struct Jail {
    /// Number.
    pub id: i32,
    /// Name.
    pub name: String,
    /// Root.
    pub path: String,
    /// Whether it has a network stack of its own.
    pub vnet: bool,
    /// Securelevel.
    pub securelevel: i32,
    /// Most jails within.
    pub children: i32,
    /// IPv4: 0 disabled, 1 addresses of its own, 2 the host's (`JAIL_SYS_*`, jail(2)).
    pub ip4: i32,
    /// IPv6 likewise.
    pub ip6: i32,
    /// What statfs(2) shows of mounts outside (`enforce_statfs`): 2 nothing.
    pub enforce_statfs: i32,
    /// Which of `allow.*` it has, without that prefix.
    pub allowed: Vec<String>,
    /// Rules of rctl(8) for it, as the kernel writes them; none: it does not count, or does not say.
    pub limits: Option<Vec<String>>,
    /// Rules of its devfs, in their order; none: they cannot be read.
    pub nodes: Option<Vec<NodeRule>>,
    /// What is mounted at and below its root; none: it cannot be read.
    pub mounts: Option<Vec<Mount>>,
}

/// A rule of devfs(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRule {
    /// Nodes that it is about; empty: all.
    pub pattern: String,
    /// It hides them.
    pub hides: bool,
    /// It shows them.
    pub shows: bool,
    /// Whose it makes them, and with which mode.
    pub owner: Option<(u32, u16)>,
    /// It does something else: has the rules of another ruleset done, or looks at more than names.
    pub other: bool,
}

/// Network in reach.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Interfaces; none: it cannot be read from outside.
    pub interfaces: Option<Vec<String>>,
    /// Addresses of the process's own network stack.
    pub addresses: Vec<String>,
}
