//! The columns.

/// One process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Name, also of its socket and log.
    pub name: &'static str,
    /// Program that it runs.
    pub program: &'static str,
    /// What it is for.
    pub task: &'static str,
    /// Which uid it has when the suite was started by root.
    pub uid: Uid,
    /// Namespaces of its own (Linux).
    pub namespaces: &'static [Namespace],
    /// Capabilities that it keeps (Linux), each with its reason.
    pub capabilities: &'static [(Capability, &'static str)],
    /// Network in its reach.
    pub network: Network,
    /// Kinds of descriptors that it may hold.
    pub descriptors: &'static [Descriptor],
    /// Paths that it may use after entering (Landlock; a directory descriptor's reach on FreeBSD).
    pub paths: Paths,
    /// System calls beyond [`crate::BASE`] (seccomp), in groups with a reason.
    pub syscalls: &'static [Syscalls],
    /// Ioctl requests that it may make; empty: none.
    pub ioctls: &'static [(u64, &'static str)],
    /// Most descriptors that it may have open (`RLIMIT_NOFILE`).
    pub max_descriptors: u64,
    /// Its operations, each with what it does and the test that shows it.
    pub operations: &'static [Operation],
    /// What FreeBSD gives in place of the Linux columns.
    pub freebsd: FreeBsd,
}

/// Which uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uid {
    /// One of its own, the same for every instance of the process.
    Own,
    /// One per machine.
    PerMachine,
    /// One per switch, behind those of machines.
    PerSwitch,
    /// One per fetch of an image, behind those of switches.
    PerFetch,
    /// One per iSCSI disk of a running machine, behind those of fetches.
    PerInitiator,
}

/// A Linux namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Users.
    User,
    /// Mounts.
    Mount,
    /// Process ids.
    Pid,
    /// Network.
    Net,
    /// System V IPC and message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control groups.
    Cgroup,
}

impl Namespace {
    /// The name under `/proc/PID/ns`.
    pub const fn file(self) -> &'static str {
        match self {
            Namespace::User => "user",
            Namespace::Mount => "mnt",
            Namespace::Pid => "pid",
            Namespace::Net => "net",
            Namespace::Ipc => "ipc",
            Namespace::Uts => "uts",
            Namespace::Cgroup => "cgroup",
        }
    }
}

/// A Linux capability (capabilities(7)); only those that some process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Configure interfaces.
    NetAdmin,
    /// Open packet sockets.
    NetRaw,
    /// Become another uid.
    SetUid,
    /// Become another gid.
    SetGid,
    /// Signal processes of other uids.
    Kill,
}

impl Capability {
    /// Its number in the kernel.
    pub const fn number(self) -> u8 {
        match self {
            Capability::Kill => 5,
            Capability::SetGid => 6,
            Capability::SetUid => 7,
            Capability::NetAdmin => 12,
            Capability::NetRaw => 13,
        }
    }
    /// Its name in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Capability::Kill => "CAP_KILL",
            Capability::SetGid => "CAP_SETGID",
            Capability::SetUid => "CAP_SETUID",
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
        }
    }
}

/// Network in reach of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// None: a network namespace with a loopback that is down, or a jail without addresses.
    None,
    /// The host's, and why.
    Host(&'static str),
}

/// A kind of descriptor that a process may hold.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// Name of the line; a process says with it what each of its descriptors is.
    pub name: &'static str,
    /// What the kernel shows it as.
    pub kind: FdKind,
    /// Most of them at a time.
    pub most: Most,
    /// Capsicum rights (rights(4)), by name without `CAP_`; [`UNLIMITED`] where nothing is taken away.
    pub rights: &'static [&'static str],
    /// Ioctls that Capsicum leaves, by number.
    pub ioctls: &'static [u64],
    /// Why it is there.
    pub why: &'static str,
}

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// This many.
    N(u32),
    /// One for each machine, disk, client: as many as the limit of descriptors allows.
    Many,
}

/// What the kernel shows a descriptor as (`/proc/PID/fd` on Linux, `kern.proc.filedesc` on FreeBSD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdKind {
    /// `/dev/null`.
    Null,
    /// A regular file below this directory of STATE (`""`: STATE itself), or a deleted or foreign one where it says so.
    File(&'static str),
    /// A regular file without a name, made below this directory of STATE. FreeBSD's kernel says only in which file system it is.
    Nameless(&'static str),
    /// A directory: this one of STATE or RUN.
    Directory(&'static str),
    /// A UNIX socket that does not listen.
    Unix,
    /// A UNIX socket that listens.
    Listener,
    /// An end of a serial line: a UNIX socket on Linux, a terminal on FreeBSD.
    Line,
    /// A socket of rtnetlink.
    Netlink,
    /// A socket of netfilter (Linux).
    Netfilter,
    /// A socket of sock_diag (Linux).
    SockDiag,
    /// A socket of generic netlink (Linux).
    GenericNetlink,
    /// A control socket of netgraph.
    Netgraph,
    /// An internet socket.
    Inet,
    /// Frames of one interface: a packet socket on Linux, a bpf(4) device on FreeBSD.
    Packet,
    /// A pipe.
    Pipe,
    /// A pipe that has a name in this directory of RUN.
    Fifo(&'static str),
    /// A character device below `/dev`; a name that ends in `/` stands for all below it.
    Device(&'static str),
    /// A device below this directory of RUN.
    DeviceBelow(&'static str),
    /// This file of a cell's root.
    CellFile(&'static str),
    /// A file or directory below a directory of the host that a machine shares.
    Shared,
    /// A memory file.
    Memory,
    /// An event, poll, timer or signal descriptor of the kernel's own kind.
    Event,
    /// A process.
    Process,
    /// A namespace.
    Namespace,
}

/// Paths in reach after entering.
#[derive(Debug, Clone, Copy)]
pub enum Paths {
    /// Landlock allows these and nothing else.
    Only(&'static [PathRule]),
    /// Landlock is not used, and why.
    Unrestricted(&'static str),
}

/// One path.
#[derive(Debug, Clone, Copy)]
pub struct PathRule {
    /// Where.
    pub place: Place,
    /// What for.
    pub access: Access,
    /// Why.
    pub why: &'static str,
}

/// Where a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Below STATE.
    State(&'static str),
    /// Below RUN.
    Run(&'static str),
    /// As it stands.
    Exact(&'static str),
}

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files and directories.
    Read,
    /// Read and write one existing file or device.
    ReadWriteFile,
    /// Read, write, make, rename and delete files and sockets.
    ReadWrite,
    /// Read, write, make, rename and delete files and directories; no links, sockets, pipes or devices.
    Files,
    /// Read and execute files.
    Execute,
}

/// A group of system calls.
#[derive(Debug, Clone, Copy)]
pub struct Syscalls {
    /// Their names (syscalls(2)).
    pub names: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// `own`, and `others` for another reason, as one list of `N` groups.
// Called in constants only: a wrong `N` does not compile.
#[allow(clippy::indexing_slicing)]
pub(crate) const fn joined<const N: usize>(own: &[Syscalls], others: &[Syscalls], why: &'static str) -> [Syscalls; N] {
    let mut all = [Syscalls { names: &[], why }; N];
    let mut n = 0;
    while n < N {
        if n < own.len() {
            all[n] = own[n];
        } else {
            all[n].names = others[n - own.len()].names;
        }
        n += 1;
    }
    all
}

/// `own`, and one more, as one list of `N`.
// Called in constants only: a wrong `N` does not compile.
#[allow(clippy::indexing_slicing)]
pub(crate) const fn with<T: Copy, const N: usize>(own: &[T], more: T) -> [T; N] {
    let mut all = [more; N];
    let mut n = 0;
    while n < own.len() {
        all[n] = own[n];
        n += 1;
    }
    all
}

/// An operation: the row that `cargo xtask tidy` wants for every message.
#[derive(Debug)]
pub struct Operation {
    /// Name of the request's type in skep-proto.
    pub name: &'static str,
    /// What it does to the host.
    pub does: &'static str,
    /// Name of a test that shows it.
    pub test: &'static str,
}

/// FreeBSD's column.
#[derive(Debug, Clone, Copy)]
pub struct FreeBsd {
    /// Whether it enters capability mode.
    pub capability_mode: bool,
    /// Whether it keeps uid 0.
    pub root: Root,
    /// Why not, or what else confines it.
    pub note: &'static str,
}

/// Whether a process is root on FreeBSD, where a suite that root started has a uid for each of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// It is not.
    Never,
    /// It is, for the reason in the note.
    Always,
    /// It is root of a jail with a network stack of its own, which is how cells are made before FreeBSD 15.
    InOldCells,
}

/// Rights of what a process makes itself, or of a pair that another of the suite made for it: nothing is taken away, since its own sandbox
/// limits what can be made.
pub const UNLIMITED: &[&str] = &["ALL"];
