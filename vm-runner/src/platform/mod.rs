//! What differs between hosts: how a cell is made and swept, and how the hypervisor is driven.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
mod shares;
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "QEMU plays to whoever joins the screen"))]
mod sound;
#[cfg(target_os = "freebsd")]
pub use freebsd::{Engine, Host, PLACE, serial_line};
#[cfg(target_os = "linux")]
pub use linux::{Engine, Host, PLACE, serial_line};

use skep_machine::Ended;
use skep_proto::cell::{Limits, Usage};
use skep_proto::{Dsp, MachineId, Refusal, ShareName, SoundDevice};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A program that is to be started in a cell.
pub struct Plan<'a> {
    /// Whose cell.
    pub machine: MachineId,
    /// Name of the prepared root.
    pub root: &'static str,
    /// Path of the program inside it.
    pub program: &'a str,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its socket, bound and not listening.
    pub listener: BorrowedFd<'a>,
    /// Its other descriptors, in the order of [`crate::handover`].
    pub fds: Vec<BorrowedFd<'a>>,
    /// Its standard error; none: the null device.
    pub errors: Option<BorrowedFd<'a>>,
    /// The uid and gid that it gets (root mode).
    pub identity: Option<u32>,
    /// Limits; `None`: it is not the runner, and stays outside of the machine's group.
    pub limits: Option<&'a Limits>,
    /// Those of them that are its disks.
    pub disks: Vec<BorrowedFd<'a>>,
    /// `/dev/kvm` in the cell.
    #[cfg_attr(target_os = "freebsd", expect(dead_code, reason = "bhyve runs on the processor or not at all"))]
    pub kvm: bool,
    /// Directories that it shares.
    pub shares: Vec<SharePlan>,
    /// The host's sound devices that it sees.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "QEMU plays to whoever joins the screen"))]
    pub sound: Vec<Dsp>,
}

/// A directory of the host that a cell gets, at `/share` and its place in the list.
pub struct SharePlan {
    /// What it is called.
    pub name: ShareName,
    /// Where it is.
    pub dir: PathBuf,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// Why no disk is served to bhyve.
pub const UNLOADED: &str =
    "bhyve has QCOW2 and iSCSI disks through geom_gate(4), which is not loaded: kldload geom_gate; sysrc kld_list+=geom_gate";

/// A device of the host that awaits whoever serves it.
pub struct Gate {
    /// Its number.
    pub unit: u32,
    /// What takes and answers its requests.
    pub control: OwnedFd,
    /// The device, open.
    pub device: OwnedFd,
    /// Where it is counted what goes through it.
    pub counts: OwnedFd,
}

/// The host, as the spawner uses it.
pub trait CellHost {
    /// Descriptors that it holds, by their lines in the table.
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)>;
    /// `STATE/cell`, as a path that this process can use.
    fn cell_dir(&self) -> PathBuf;
    /// Opens a file of the prepared root, to see that it is there.
    fn look(&self, path: &str) -> io::Result<()>;
    /// Makes a cell and starts a program as its first process. After a refusal nothing is left.
    fn start(&mut self, plan: &Plan<'_>) -> Result<u32, Refusal>;
    /// Makes a device of `size` bytes, in blocks of `block`, that goes with the cell `cell`; nothing of the host has looked at what will be in it.
    fn gate(&mut self, cell: MachineId, size: u64, block: u32, read_only: bool) -> io::Result<Gate>;
    /// The same device again, whose requests wait: whoever serves it ends, if somebody does. `None`: there is none.
    fn gate_again(&mut self, cell: MachineId, read_only: bool) -> io::Result<Option<Gate>>;
    /// Ends the process that listens at the other end of `socket`, and waits until it and its cell are gone.
    fn end(&mut self, machine: MachineId, socket: BorrowedFd<'_>) -> Result<(), Refusal>;
    /// Waits until the process that listens at the other end of `socket` ends by itself, a moment at most.
    fn await_end(&mut self, socket: BorrowedFd<'_>) -> bool;
    /// Ends what still lives in a dead cell, and removes what it left.
    fn sweep(&mut self, machine: MachineId) -> Result<(), Refusal>;
    /// Machines that have anything on the host beside sockets.
    fn machines(&self) -> Vec<MachineId>;
    /// What a cell uses, or a volume, of which ZFS counts it.
    fn usage(&self, machine: MachineId, volume: bool) -> Usage;
    /// Limits that can be enforced here, by the names of [`skep_machine::Limit`].
    fn limits(&self) -> Vec<&'static str>;
    /// Why no guest may write to what is shared; none: it may.
    fn only_reads(&self) -> Option<&'static str>;
    /// CPUs that this process may run on.
    fn cpus(&self) -> io::Result<BTreeSet<u16>>;
    /// Sound devices that a cell can have.
    fn sound(&self) -> Vec<SoundDevice>;
    /// CPUs that the kernel gives a machine at most; none: it does not say, and the hypervisor decides.
    fn most_cpus(&self) -> Option<u16>;
    /// Abilities (names of [`skep_machine::Ability`]) that this host lacks although its hypervisor has them, and why.
    fn lacks(&self) -> Vec<(&'static str, String)>;
    /// Where cells are weaker here than declared.
    fn weaker(&self) -> Vec<String>;
}

/// What happened to a hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The guest runs: for the first time, or again.
    Running,
    /// Its CPUs stand still.
    #[cfg_attr(target_os = "freebsd", expect(dead_code, reason = "bhyve cannot pause"))]
    Paused,
    /// The hypervisor has ended.
    Ended(Ended),
}

/// What a hypervisor is started with; all of it stays with the runner.
pub struct Kit {
    /// The machine.
    pub machine: MachineId,
    /// Each descriptor and what it is for.
    pub fds: Vec<(skep_proto::cell::FdRole, OwnedFd)>,
    /// Layers that disks stand on: where each is, and its descriptor, opened read-only.
    pub layers: Vec<(skep_proto::runner::LayerPlace, OwnedFd)>,
    /// The hypervisor's end of each serial line, by the port's number.
    pub serial: Vec<(u8, OwnedFd)>,
    /// Whether it may use hardware acceleration.
    #[cfg_attr(target_os = "freebsd", expect(dead_code, reason = "bhyve runs on the processor or not at all"))]
    pub kvm: bool,
    /// Bytes that a file of the hypervisor's may come to have.
    pub file_limit: u64,
    /// Whether the cell shares directories of the host.
    #[cfg_attr(target_os = "freebsd", expect(dead_code, reason = "a jail has no list of system calls"))]
    pub shares: bool,
    /// Whether disks are reached over sockets of the cell.
    #[cfg_attr(target_os = "freebsd", expect(dead_code, reason = "bhyve has no such disks"))]
    pub remote: bool,
}
