//! Machines.

use super::{
    Board, BoardDraft, Bus, DiskFlags, DiskSeat, FwCfg, Gdb, NicModel, Place, Ref, Screen, ScreenDraft, Topology, Upkeep,
    UpkeepDraft,
};
use crate::{CpuList, CpuPins, DiskId, Dsp, MachineId, MachineName, NicId, SerialPort, Share, Text};
use serde::{Deserialize, Serialize};

/// How a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDraft {
    /// UEFI firmware with a variable store of the machine's own.
    Uefi,
    /// A kernel and an initial RAM disk that were imported as raw disks.
    Direct {
        /// The kernel.
        kernel: Ref,
        /// The initial RAM disk.
        initrd: Option<Ref>,
        /// The kernel's command line.
        cmdline: Text<1024>,
    },
    /// The host's own loader reads the guest's kernel from the first disk (bhyveload(8)).
    Loader,
    /// A BIOS, from the first disk (QEMU).
    Bios,
}

/// Where a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Controller {
    /// virtio-blk.
    VirtioBlk,
    /// NVMe.
    Nvme,
    /// The AHCI controller, which has six ports.
    Ahci,
    /// The same, as a CD: read-only.
    AhciCd,
    /// A virtio SCSI controller (QEMU).
    VirtioScsi,
    /// The same, as a CD.
    VirtioScsiCd,
}

impl Controller {
    /// Whether it is a CD, which the guest cannot write.
    pub fn is_cd(self) -> bool {
        matches!(self, Self::AhciCd | Self::VirtioScsiCd)
    }
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDraft {
    /// Which disk.
    pub disk: Ref,
    /// Where it is attached.
    pub controller: Controller,
    /// The guest may only read it.
    pub read_only: bool,
    /// See [`DiskFlags`].
    pub flags: DiskFlags,
    /// The controller with a name that it sits on, which says what it is attached to; of `controller` then only counts whether it is a CD.
    pub on: Option<DiskSeat>,
}

/// Hardware acceleration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceleration {
    /// The processor where a boot has shown that it runs guests, else software emulation.
    Auto,
    /// Emulation in software.
    Tcg,
    /// The processor, by the kernel's virtualisation.
    Kvm,
}

/// What a machine's cell may use beside its percent of a CPU, and how the host treats it; `None`: the default (create) or as it is
/// (set). By default nothing is limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitsDraft {
    /// See [`Limits`].
    pub memory_mib: Option<u32>,
    /// See [`Limits`].
    pub tasks: Option<u32>,
    /// See [`Limits`].
    pub pcpu: Option<u32>,
    /// See [`Limits`].
    pub read_bps: Option<u64>,
    /// See [`Limits`].
    pub write_bps: Option<u64>,
    /// See [`Limits`].
    pub read_iops: Option<u64>,
    /// See [`Limits`].
    pub write_iops: Option<u64>,
    /// See [`Limits`].
    pub cpus: Option<CpuList>,
    /// See [`Limits`].
    pub pins: Option<CpuPins>,
    /// See [`Limits`].
    pub priority: Option<i8>,
    /// See [`Limits`].
    pub protect: Option<bool>,
    /// See [`Limits`].
    pub wired: Option<bool>,
}

/// What a machine's cell may use beside its percent of a CPU, and how the host treats it. 0 and empty: not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// MiB of memory, the hypervisor's own included: at least 128 more than the guest has.
    pub memory_mib: u32,
    /// Processes and threads: 16 to 65,536.
    pub tasks: u32,
    /// FreeBSD: `pcpu` of rctl(8), percent of one CPU as a mean, kept by stopping the machine for seconds.
    pub pcpu: u32,
    /// Bytes read from disks in a second, from 4,096.
    pub read_bps: u64,
    /// Bytes written to disks in a second, likewise.
    pub write_bps: u64,
    /// Reads from disks in a second.
    pub read_iops: u64,
    /// Writes to disks in a second.
    pub write_iops: u64,
    /// CPUs of the host that it may run on.
    pub cpus: CpuList,
    /// Virtual CPUs that are bound to one CPU of the host each.
    pub pins: CpuPins,
    /// Nice value: -20 (first) to 19 (last).
    pub priority: i8,
    /// Whether the host spares it when memory runs out.
    pub protect: bool,
    /// Whether its memory stays in the host's RAM.
    pub wired: bool,
}

/// Settings of a machine; `None`: the default (create) or as it is (set).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Virtual CPUs: 1 to 64; default 1.
    pub cpus: Option<u32>,
    /// Memory in MiB: 16 to 1,048,576; default 512.
    pub memory_mib: Option<u64>,
    /// How it boots; default UEFI.
    pub boot: Option<BootDraft>,
    /// Acceleration; default `Auto`.
    pub acceleration: Option<Acceleration>,
    /// Whether it has a screen; default yes.
    pub screen: Option<bool>,
    /// Its disks in boot order, at most 8; default none.
    pub disks: Option<Vec<DiskDraft>>,
    /// Percent of one CPU that it may use; 0: no limit (the default).
    pub cpu_percent: Option<u32>,
    /// Free text; default empty.
    pub description: Option<Text<256>>,
    /// Further limits; default none.
    pub limits: LimitsDraft,
    /// Whether it has a sound card; default no.
    pub sound: Option<bool>,
    /// FreeBSD: the host's device that it plays to; default none.
    pub sound_out: Option<Option<Dsp>>,
    /// FreeBSD: the host's device that it records from; default none.
    pub sound_in: Option<Option<Dsp>>,
    /// Whether it has a TPM; default no.
    pub tpm: Option<bool>,
    /// Names of its channels, at most 4; default none.
    pub channels: Option<Vec<Text<63>>>,
    /// Whether it starts with the host, and again; default: neither.
    pub upkeep: UpkeepDraft,
    /// Directories of the host that it shares, at most 4; default none.
    pub shares: Option<Vec<Share>>,
    /// Properties of its screen.
    pub screen_properties: ScreenDraft,
    /// Chip set, clock and processor.
    pub board: BoardDraft,
    /// Items of fw_cfg, at most 8; default none.
    pub fw_cfg: Option<Vec<FwCfg>>,
    /// Devices that are elsewhere than usual on the PCI bus; default none.
    pub places: Option<Vec<Place>>,
    /// Its serial ports; the first is there always. Default: only that.
    pub serial: Option<Vec<SerialPort>>,
    /// Whether a debugger may be joined to it; default no.
    pub gdb: Option<Gdb>,
    /// Controllers with names, at most 4; default none.
    pub controllers: Option<Vec<Bus>>,
    /// How its CPUs are arranged; default `None`: one socket with as many cores, each of one thread.
    pub topology: Option<Option<Topology>>,
}

/// Defines a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineCreate {
    /// Its name.
    pub name: MachineName,
    /// Its settings.
    pub settings: Settings,
    /// Its group; none: the one that is there from the start.
    pub group: Option<Ref>,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MachineState {
    /// Nothing of it runs.
    Stopped,
    /// Its cell is being made.
    Starting,
    /// Its guest runs.
    Running,
    /// Its virtual CPUs stand still.
    Paused,
    /// Its power button was pressed.
    Stopping,
    /// It ended by itself, against its will; see `note`. Can be started again.
    Failed,
}

impl MachineState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Stopped, Self::Starting, Self::Running, Self::Paused, Self::Stopping, Self::Failed];

    /// Its word: in the database, in events, in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: MachineName,
    /// What it is doing.
    pub state: MachineState,
    /// Why it failed, or how it ended last.
    pub note: Text<512>,
    /// Raised by every change of the settings.
    pub revision: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// How it boots; kernel and RAM disk by name.
    pub boot: BootDraft,
    /// Acceleration asked for.
    pub acceleration: Acceleration,
    /// Whether it has a screen.
    pub screen: bool,
    /// Percent of one CPU; 0: no limit.
    pub cpu_percent: u32,
    /// Free text.
    pub description: Text<256>,
    /// Disks, by name, in boot order.
    pub disks: Vec<MachineDisk>,
    /// NICs.
    pub nics: Vec<MachineNic>,
    /// Settings that differ from those of the running hypervisor: they apply at the next start.
    pub pending: Vec<Text<32>>,
    /// When it was defined; nanoseconds since 1970.
    pub created_ns: i64,
    /// When the hypervisor was started last; 0: never.
    pub started_ns: i64,
    /// Limits beside `cpu_percent`.
    pub limits: Limits,
    /// Whether it has a sound card.
    pub sound: bool,
    /// The host's device that it plays to.
    pub sound_out: Option<Dsp>,
    /// The host's device that it records from.
    pub sound_in: Option<Dsp>,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Names of its channels.
    pub channels: Vec<Text<63>>,
    /// Whether it starts with the host, and again.
    pub upkeep: Upkeep,
    /// Directories of the host that it shares.
    pub shares: Vec<Share>,
    /// Name of its group.
    pub group: Text<63>,
    /// Properties of its screen.
    pub screen_properties: Screen,
    /// Chip set, clock and processor.
    pub board: Board,
    /// Items of fw_cfg.
    pub fw_cfg: Vec<FwCfg>,
    /// Devices that were put elsewhere than usual on the PCI bus.
    pub places: Vec<Place>,
    /// Where all its devices are.
    pub pci: Vec<Place>,
    /// Its serial ports, all of them.
    pub serial: Vec<SerialPort>,
    /// Whether a debugger may be joined to it.
    pub gdb: Gdb,
    /// Controllers with names.
    pub controllers: Vec<Bus>,
    /// How its CPUs are arranged, if that was said.
    pub topology: Option<Topology>,
}

/// A disk as a machine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDisk {
    /// Which.
    pub id: DiskId,
    /// Its name.
    pub name: Text<63>,
    /// Where it is attached.
    pub controller: Controller,
    /// Read-only.
    pub read_only: bool,
    /// How it is used.
    pub flags: DiskFlags,
    /// The controller with a name that it sits on, and where.
    pub on: Option<DiskSeat>,
}

/// A NIC as a machine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineNic {
    /// Which.
    pub id: NicId,
    /// Its name.
    pub name: Text<63>,
    /// Name of its switch; empty: connected to nothing.
    pub switch: Text<63>,
    /// MAC address.
    pub mac: [u8; 6],
    /// What it is to the guest.
    pub model: NicModel,
}

/// Looks one machine up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineGet {
    /// Which.
    pub machine: Ref,
}

/// Lists machines by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineList {
    /// Begin after this name.
    pub after: Option<MachineName>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachinePage {
    /// As many as fit a record.
    pub machines: Vec<MachineView>,
}

/// Changes settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSet {
    /// Which.
    pub machine: Ref,
    /// What to change.
    pub settings: Settings,
    /// Refuse with `Conflict` unless the revision is this. 0: any.
    pub revision: u64,
}

/// A changed machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineEdited {
    /// As it is now.
    pub machine: MachineView,
    /// Each changed setting, and whether it applies already or at the next start.
    pub changes: Vec<(Text<32>, Applies)>,
}

/// When a change applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applies {
    /// It applies already.
    Now,
    /// At the next start; a guest's reboot counts.
    NextStart,
}

/// Renames a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRename {
    /// Which.
    pub machine: Ref,
    /// The new name.
    pub name: MachineName,
}

/// How a guest is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Stop {
    /// Milliseconds that it has, 0 to 86,400,000; `None`: what its machine's upkeep says.
    pub timeout_ms: Option<u32>,
    /// Whether it is ended then. If not, the stop fails, and it runs on.
    pub force: bool,
}

/// What to do with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Start it.
    Start,
    /// Press its power button and wait until it is off.
    Stop(Stop),
    /// End it at once.
    Kill,
    /// Press its power button, wait, start it.
    Reboot,
    /// Press its reset button.
    Reset,
    /// Stop its virtual CPUs.
    Pause,
    /// Let them run again.
    Resume,
}

/// Does something with a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineAct {
    /// Which.
    pub machine: Ref,
    /// What.
    pub act: Act,
}

/// Defines a copy of a stopped machine, or of a machine as a snapshot has it: its settings, copies of its writable disks, NICs of its own, and a seed of its own if
/// it was launched with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineClone {
    /// The original.
    pub machine: Ref,
    /// Name of the copy; its disks are called `<name>-<n>`.
    pub name: MachineName,
    /// As it was when this snapshot was made; none: as it is.
    pub snapshot: Option<Ref>,
    /// Copy all of its disks, which then stand on nothing.
    pub full: bool,
}

/// Deletes a stopped machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDelete {
    /// Which.
    pub machine: Ref,
    /// Its disks, too, as far as no other machine has them.
    pub disks: bool,
}

/// Asks for counters of a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStats {
    /// Which.
    pub machine: Ref,
}
