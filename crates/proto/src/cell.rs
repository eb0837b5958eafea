//! The spawner (`skep-vm-runner`): makes cells, starts runners, console-proxies, guest-services and iscsi-initiators in them, sweeps what is left.

use crate::{
    CpuList, DiskCounts, DiskId, DiskRates, Dsp, MAX_FDS, MachineId, NoFds, OneFd, SerialPort, Share, ShareName, SoundDevice,
    SwitchId, UpTo, names::Text, protocol::protocol, storage::DiskKind,
};
use serde::{Deserialize, Serialize};

/// Limits of a cell, and how the host treats it. `None`: not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, hypervisor's own included.
    pub memory: Option<u64>,
    /// Percent of one CPU.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
    /// `pcpu` of rctl(8): percent of one CPU as a mean, kept by stopping the cell for seconds.
    pub pcpu: Option<u32>,
    /// Bytes read from disks in a second.
    pub read_bps: Option<u64>,
    /// Bytes written to disks in a second.
    pub write_bps: Option<u64>,
    /// Reads from disks in a second.
    pub read_iops: Option<u64>,
    /// Writes to disks in a second.
    pub write_iops: Option<u64>,
    /// CPUs of the host that it may run on; empty: all. One that the spawner itself may not run on is refused.
    pub cpus: CpuList,
    /// CPUs of the host that its hypervisor will bind virtual ones to; refused likewise.
    pub bound: CpuList,
    /// Nice value of all its processes, -20 to 19.
    pub priority: i8,
    /// Whether the kernel spares it when memory runs out.
    pub protect: bool,
    /// Bytes of memory that it may keep in RAM, hypervisor's own included; none: hardly any.
    pub wired: Option<u64>,
}

/// What a descriptor given to a cell is for. The hypervisor finds it under the number that the engine was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FdRole {
    /// The hypervisor's configuration file: a sealed memory file, written into the cell before each start.
    Config,
    /// Kernel for direct boot: likewise.
    Kernel,
    /// Initial RAM disk for direct boot: likewise.
    Initrd,
    /// UEFI variable store.
    Vars,
    /// Disk in this slot.
    Disk(u8),
    /// Tap of the NIC in this slot.
    Tap(u8),
    /// The hypervisor's standard error, first half.
    Log,
}

/// Makes a machine's cell and starts its runner in it; the hypervisor is started by the runner's `Start`.
/// A cell that is there already is refused as in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeCell {
    /// Whose.
    pub machine: MachineId,
    /// Number of the machine's uids (root mode): not reused while anything of it lives.
    pub slot: u16,
    /// Limits.
    pub limits: Limits,
    /// What each descriptor is for, in their order.
    pub fds: Vec<FdRole>,
    /// Whether the hypervisor may use hardware acceleration: gives the cell `/dev/kvm`.
    pub kvm: bool,
    /// Bytes that a file of the hypervisor's may come to have: those of its largest disk.
    pub file_limit: u64,
    /// Directories that it shares, in their order; at most 4, each once. Which one a name stands for only the spawner knows.
    pub shares: Vec<Share>,
    /// Numbers of its serial ports, 1 to 4, each once; the runner makes the lines.
    pub serial: Vec<u8>,
    /// FreeBSD: the host's sound devices that it sees; at most 2.
    pub sound: Vec<Dsp>,
    /// Slots of disks that are reached over a socket in the cell, each once; the runner makes it. Not with `shares`: what is in those
    /// directories could be connected to, too.
    pub remote: Vec<u8>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellMade {
    /// The runner's process id on the host.
    pub runner: u32,
}

/// Starts a machine's console-proxy. Descriptors: of each port the line, and both halves of its log if it is to be logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartConsole {
    /// Whose.
    pub machine: MachineId,
    /// Number of the machine's uids.
    pub slot: u16,
    /// Its serial ports, each once.
    pub ports: Vec<SerialPort>,
}

/// Starts a switch's guest-services, in a cell of one process that counts as the console-proxy of a machine with the switch's id:
/// `RUN/console/UUID.sock`, [`KillCell`], [`SweepCell`] and [`ListCells`] are the same. It gets what it serves from the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartServices {
    /// Of which switch.
    pub switch: SwitchId,
    /// The switch's number, which gives the uid (root mode).
    pub number: u16,
}

/// Starts the process that fetches an image for a disk, in a cell of one process that counts as the console-proxy of a machine with the
/// disk's id, as [`StartServices`]. Descriptor: its channel ([`crate::fetch`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFetcher {
    /// Which disk is filled.
    pub disk: DiskId,
    /// Number of the fetch, which gives the uid (root mode): not reused while it lives.
    pub slot: u16,
}

/// Starts the iscsi-initiator of a disk, in a cell of one process that counts as the console-proxy of a machine with the disk's id, as
/// [`StartServices`]. Descriptor: the socket that the hypervisor connects to, which the runner made ([`crate::runner::TakeDoor`]); none: the target
/// is only looked at. It gets what it logs in to from the broker ([`crate::iscsi`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartInitiator {
    /// Of which disk.
    pub disk: DiskId,
    /// Its number, which gives the uid (root mode): not reused while it lives.
    pub number: u16,
}

/// FreeBSD: makes a device of the host, and starts the process that serves a QCOW2 or an iSCSI disk through it, in a cell that counts as
/// the console-proxy of a machine with the disk's id, as [`StartServices`]; with that cell the device goes. Descriptors: the disk's file,
/// then what each stands on; an iSCSI disk has none, and in the cell is its iscsi-initiator, which gets what it logs in to from the broker, as that of
/// [`StartInitiator`]. The answer's is the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDiskServer {
    /// Which disk.
    pub disk: DiskId,
    /// Number of its machine's uids: it gets that of the console-proxy. Of an iSCSI disk, its own number, as in [`StartInitiator`].
    pub slot: u16,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a block of it: 512 or 4096.
    pub block: u32,
    /// Whether nobody writes to it.
    pub read_only: bool,
    /// Bytes that a QCOW2 disk's file may come to have.
    pub file_limit: u64,
    /// What it is held to.
    pub rates: DiskRates,
    /// How its files are kept, in the order of the descriptors; of an iSCSI disk, that it is one.
    pub kinds: Vec<DiskKind>,
    /// Whether a machine has the device already, and another process is to serve it: what a former one left undone is done by this one. After a
    /// refusal its requests wait on.
    pub again: bool,
}

/// A started process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process id on the host.
    pub pid: u32,
}

/// Kills everything in a machine's cell, and its console-proxy, at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillCell {
    /// Whose.
    pub machine: MachineId,
}

/// Removes what a dead cell left on the host (sockets, cgroups, mounts, jails). Refused as in use while its runner lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepCell {
    /// Whose.
    pub machine: MachineId,
}

/// Lists the cells of this instance that have anything on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCells {
    /// Begin after this one.
    pub after: Option<MachineId>,
}

/// A cell as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellState {
    /// Whose.
    pub machine: MachineId,
    /// Whether its runner lives.
    pub runner: bool,
    /// Whether its console-proxy lives.
    pub console: bool,
}

/// A page of cells; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPage {
    /// At most 100, by id.
    pub cells: Vec<CellState>,
}

/// What a cell uses, as its cgroup or jail counts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellUsage {
    /// Whose: a machine's, or a disk's ([`DiskId::cell`]).
    pub machine: MachineId,
    /// FreeBSD: it is a disk that is a ZFS volume and has no cell.
    pub volume: bool,
}

/// See [`CellUsage`]; `None` where the host does not count it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// CPU time in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// FreeBSD, a disk: what its disk-server has counted, or ZFS of a volume since the host has it.
    pub disk: Option<DiskCounts>,
}

/// What this host gives a cell, found by trying at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facilities {}

/// See [`Facilities`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacilitiesState {
    /// Version of the hypervisor's file in the cell root; empty if missing.
    pub hypervisor: Text<64>,
    /// Whether UEFI firmware is in the cell root.
    pub uefi: bool,
    /// Limits that can be enforced, by the names of `skep_machine::Limit`.
    pub limits: Vec<Text<32>>,
    /// Whether each machine has a uid of its own.
    pub own_uids: bool,
    /// Lines that say where this host's cell is weaker than declared, and why.
    pub weaker: Vec<Text<200>>,
    /// Names of the directories that machines may share, the first 64.
    pub shares: Vec<ShareName>,
    /// Whether the hypervisor can share them.
    pub can_share: bool,
    /// FreeBSD: sound devices that machines may have, the first 16.
    pub sound: Vec<SoundDevice>,
    /// CPUs that a machine may have at most, where the host's kernel says it (hw.vmm.maxcpu); else what the hypervisor is known to have.
    pub cpus: Option<u16>,
    /// Keyboard layouts in the cell root, by their names there.
    pub keyboards: Vec<Text<32>>,
    /// Abilities (names of `skep_machine::Ability`) that this host lacks, of those that its hypervisor has, and why.
    pub lacks: Vec<(Text<32>, Text<200>)>,
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of the spawner; its only client is the broker.
    Cell = "vm-runner", version 13, oldest 13, CellRequest {
        0 MakeCell [UpTo<MAX_FDS>] => CellMade [NoFds];
        1 StartConsole [UpTo<12>] => Started [NoFds];
        2 KillCell [NoFds] => Done [NoFds];
        3 SweepCell [NoFds] => Done [NoFds];
        4 ListCells [NoFds] => CellPage [NoFds];
        5 CellUsage [NoFds] => Usage [NoFds];
        6 Facilities [NoFds] => FacilitiesState [NoFds];
        7 StartServices [NoFds] => Started [NoFds];
        8 StartFetcher [OneFd] => Started [NoFds];
        9 StartInitiator [UpTo<1>] => Started [NoFds];
        10 StartDiskServer [UpTo<MAX_FDS>] => Started [OneFd];
    }
}
