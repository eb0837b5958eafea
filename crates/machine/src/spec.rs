//! What a machine is.

use crate::{Mac, Place, Uuid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A virtual machine. [`Default`] is a machine with one CPU, 512 MiB, UEFI, one serial port and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSpec {
    /// Identity that the guest sees. Default: nil, which [`MachineSpec::validate`] refuses.
    pub uuid: Uuid,
    /// Processors. Default: one.
    pub cpu: Cpu,
    /// Guest memory in MiB. Default: 512.
    pub memory_mib: u32,
    /// How it boots. Default: UEFI.
    pub boot: Boot,
    /// Default: [`Acceleration::Auto`].
    pub acceleration: Acceleration,
    /// By slot, each at most once. Default: none.
    pub disks: Vec<Disk>,
    /// By slot, each at most once. Default: none.
    pub nics: Vec<Nic>,
    /// Default: none; the machine then has serial ports only.
    pub screen: Option<Screen>,
    /// Its serial ports, by number: 1 is COM1; 1 to 4. Default: the first.
    pub serial_ports: BTreeSet<u8>,
    /// Whether there is a virtio random number device. Default: yes.
    pub rng: bool,
    /// What the real-time clock shows. Default: UTC.
    pub clock: Clock,
    /// What the cell may use. Default: no limit.
    pub limits: Limits,
    /// Whether there is a sound card: Intel HDA with one codec that plays and records. QEMU's is heard by whoever joins the screen
    /// (RFB's extension for sound); bhyve's has the host's devices that follow. Default: no.
    pub sound: bool,
    /// Whether there is a TPM 2.0. Default: no.
    pub tpm: bool,
    /// Channels between guest and host, at most 4, each name once. Default: none.
    pub channels: Vec<Channel>,
    /// UEFI: whether the firmware's variables say what is booted first, not the slots of the disks. bhyve's always do. Default: no.
    pub firmware_order: bool,
    /// Directories of the host, by virtio-9p, at most 4, each name once. Default: none.
    pub shares: Vec<Share>,
    /// Chip set and processor. Default: as each hypervisor's own.
    pub board: Board,
    /// Items that the guest's firmware and system read by their names, at most 8, each name once (QEMU's fw_cfg). Default: none.
    pub fw_cfg: Vec<FwCfg>,
    /// Devices that are elsewhere than usual on the PCI bus, each once. Default: none.
    pub places: Vec<Place>,
    /// Whether a debugger may be joined to it. Default: no.
    pub gdb: Gdb,
    /// Controllers with names, which hold the disks that say so; at most 4, each name once. Default: none.
    pub controllers: Vec<Bus>,
    /// The host's sound device that it plays to, by number. Default: none.
    pub sound_out: Option<u8>,
    /// The host's sound device that it records from, by number. Default: none.
    pub sound_in: Option<u8>,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            uuid: Uuid::default(),
            cpu: Cpu::default(),
            memory_mib: 512,
            boot: Boot::default(),
            acceleration: Acceleration::default(),
            disks: Vec::new(),
            nics: Vec::new(),
            screen: None,
            serial_ports: [1].into(),
            rng: true,
            clock: Clock::default(),
            limits: Limits::default(),
            sound: false,
            sound_out: None,
            sound_in: None,
            tpm: false,
            channels: Vec::new(),
            firmware_order: false,
            shares: Vec::new(),
            board: Board::default(),
            fw_cfg: Vec::new(),
            places: Vec::new(),
            gdb: Gdb::default(),
            controllers: Vec::new(),
        }
    }
}

/// Processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Virtual CPUs. Default: 1.
    pub count: u16,
    /// How they are arranged. Default: one socket with `count` cores of one thread.
    pub topology: Option<Topology>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { count: 1, topology: None }
    }
}

impl Cpu {
    /// The arrangement, the default one where none was given.
    pub fn topology(&self) -> Topology {
        self.topology.unwrap_or(Topology { sockets: 1, cores: self.count, threads: 1 })
    }
}

/// Arrangement of the virtual CPUs; the product of the three is their count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Sockets.
    pub sockets: u16,
    /// Cores of a socket.
    pub cores: u16,
    /// Threads of a core.
    pub threads: u16,
}

/// How a machine boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// UEFI firmware of the host, with a variable store of the machine's own.
    #[default]
    Uefi,
    /// A Linux kernel, and an initial RAM disk or none, both given as descriptors.
    Direct {
        /// Kernel command line.
        cmdline: String,
        /// Whether there is an initial RAM disk.
        initrd: bool,
    },
    /// The host's own loader reads the guest's kernel from the first disk (bhyveload(8); FreeBSD guests).
    Loader,
    /// SeaBIOS, from the first disk or, if that cannot be booted, the first CD (QEMU).
    Bios,
}

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceleration {
    /// The processor where a boot has shown that it can, else software. Resolved by
    /// [`crate::HostCapabilities::resolve`].
    #[default]
    Auto,
    /// Software emulation.
    Tcg,
    /// The processor (KVM on Linux, vmm on FreeBSD).
    Kvm,
}

/// A disk or CD.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Its turn in the boot order, which names its descriptor, too. Default: 0.
    pub slot: u8,
    /// Default: virtio-blk.
    pub controller: Controller,
    /// Default: raw.
    pub format: Format,
    /// How the layers under it are kept that it stands on, the topmost first; its own format is then QCOW2. Default: none.
    pub layers: Vec<Format>,
    /// Default: no. A CD is always read-only.
    pub read_only: bool,
    /// Serial number that the guest sees. Default: empty, shown as `skep-disk-SLOT`.
    pub serial: String,
    /// Whether its bytes pass by the host's cache (`O_DIRECT`). Default: no.
    pub no_cache: bool,
    /// Whether each write is on the medium before the guest hears that it is done (`O_SYNC`; QEMU's `writethrough`). Default: no.
    pub sync: bool,
    /// A CD: whether the drive is empty. QEMU's is there all the same; bhyve has none without a medium. Default: no.
    pub ejected: bool,
    /// Where it is on one of [`MachineSpec::controllers`]. Default: none; it is then on the controller that its kind usually has.
    pub seat: Option<Seat>,
    /// How much goes to and from it. Default: as much as goes.
    pub rates: DiskRates,
    /// Where it is, if it has no seat and is elsewhere than its turn says: on the PCI bus, or its port or target on the controller that
    /// all of its kind share. Default: none.
    pub at: Option<u8>,
}

/// How much goes to and from a disk in a second. `None`: as much as goes. Default: nothing of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskRates {
    /// Bytes read.
    pub read_bps: Option<u64>,
    /// Bytes written.
    pub write_bps: Option<u64>,
    /// Reads.
    pub read_iops: Option<u64>,
    /// Writes.
    pub write_iops: Option<u64>,
}

impl Disk {
    /// The serial number that the guest sees.
    pub fn serial(&self) -> String {
        if self.serial.is_empty() { format!("skep-disk-{}", self.slot) } else { self.serial.clone() }
    }
    /// Port or target on the controller that all of its kind share.
    pub fn port(&self) -> u8 {
        self.at.unwrap_or(self.slot)
    }
    /// Whether the guest cannot write it; its descriptor is then opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only || self.controller.is_cd()
    }
}

/// What a disk is attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Controller {
    /// A virtio block device of its own.
    #[default]
    VirtioBlk,
    /// An NVMe controller of its own.
    Nvme,
    /// A disk on the AHCI controller, at a port of its own.
    Ahci,
    /// A CD on the AHCI controller, likewise.
    AhciCd,
    /// A disk on the virtio SCSI controller, as a target of its own.
    VirtioScsi,
    /// A CD on that controller.
    VirtioScsiCd,
}

impl Controller {
    /// Whether it is a CD.
    pub const fn is_cd(self) -> bool {
        matches!(self, Self::AhciCd | Self::VirtioScsiCd)
    }
}

/// A controller with a name and a place of its own, for several disks and CDs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bus {
    /// Name, for people: 1 to 31 letters, digits, `.`, `_` and `-`, beginning with a letter or digit. Default: empty, which
    /// [`MachineSpec::validate`] refuses.
    pub name: String,
    /// Default: [`BusKind::Ahci`].
    pub kind: BusKind,
    /// Its place on PCI bus 0, see [`crate::place`]. Default: 0, which [`MachineSpec::validate`] refuses.
    pub slot: u8,
}

/// What a controller is to the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BusKind {
    /// AHCI: disks and CDs at its ports.
    #[default]
    Ahci,
    /// Virtio SCSI: disks and CDs at its targets.
    VirtioScsi,
    /// NVMe: disks as its namespaces.
    Nvme,
    /// Virtio block: one disk, which it is itself.
    VirtioBlk,
}

impl BusKind {
    /// Seats that it has.
    pub const fn seats(self) -> u8 {
        match self {
            Self::Ahci => crate::limits::AHCI_PORTS,
            Self::VirtioScsi | Self::Nvme => crate::limits::DISKS,
            Self::VirtioBlk => 1,
        }
    }
    /// What a disk, or a CD, on it is attached to. `None`: it has no CDs.
    pub const fn holds(self, cd: bool) -> Option<Controller> {
        match (self, cd) {
            (Self::Ahci, false) => Some(Controller::Ahci),
            (Self::Ahci, true) => Some(Controller::AhciCd),
            (Self::VirtioScsi, false) => Some(Controller::VirtioScsi),
            (Self::VirtioScsi, true) => Some(Controller::VirtioScsiCd),
            (Self::Nvme, false) => Some(Controller::Nvme),
            (Self::VirtioBlk, false) => Some(Controller::VirtioBlk),
            (Self::Nvme | Self::VirtioBlk, true) => None,
        }
    }
}

/// A disk's place on a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Its controller, by its place in [`MachineSpec::controllers`].
    pub controller: u8,
    /// Port, target or namespace, from 0.
    pub port: u8,
}

/// How a disk's bytes lie in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// As they are.
    #[default]
    Raw,
    /// QCOW2.
    Qcow2,
    /// It has no file: the cell has a socket over which its bytes are reached (NBD).
    Remote,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// Its turn, which names its descriptor. Default: 0.
    pub slot: u8,
    /// Default: virtio-net.
    pub model: NicModel,
    /// Default: `02:00:00:00:00:00`.
    pub mac: Mac,
    /// Where it is on the PCI bus, if elsewhere than its turn says. Default: none.
    pub at: Option<u8>,
}

/// What a NIC is to the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicModel {
    /// virtio.
    #[default]
    VirtioNet,
    /// Intel 82545.
    E1000,
}

/// A screen, with keyboard and pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Screen {
    /// Pixels. Default: 1024.
    pub width: u16,
    /// Pixels. Default: 768.
    pub height: u16,
    /// Whether the pointer is a USB tablet, which needs no capture. Default: yes.
    pub tablet: bool,
    /// Whether the guest is held until somebody looks (bhyve). Default: no.
    pub wait: bool,
    /// Layout by which a viewer's key symbols become keys: the name of a file of the hypervisor's, 1 to 32 letters, digits, `_` and `-`.
    /// Default: empty, the US keyboard.
    pub keyboard: String,
}

impl Default for Screen {
    fn default() -> Self {
        Self { width: 1024, height: 768, tablet: true, wait: false, keyboard: String::new() }
    }
}

/// Chip set and processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Board {
    /// Whether there are ACPI tables. Without them the guest hears no power button. Default: yes.
    pub acpi: bool,
    /// Default: [`HostBridge::Standard`].
    pub host_bridge: HostBridge,
    /// Whether a CPU that the guest halts is given back (bhyve's `x86.vmexit_on_hlt`). Default: yes.
    pub exit_on_halt: bool,
    /// Whether one that spins is (bhyve's `x86.vmexit_on_pause`). Default: yes.
    pub exit_on_pause: bool,
    /// Whether a guest that reads or writes an unknown model-specific register gets a fault (bhyve's `x86.strictmsr`). Linux as a guest
    /// does not start then. Default: no.
    pub strict_msr: bool,
    /// Whether the local APIC begins in x2APIC mode (bhyve's `x86.x2apic`). Default: no.
    pub x2apic: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            acpi: true,
            host_bridge: HostBridge::default(),
            exit_on_halt: true,
            exit_on_pause: true,
            strict_msr: false,
            x2apic: false,
        }
    }
}

/// What the guest finds at place 0 of the PCI bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostBridge {
    /// The hypervisor's usual one, by Intel.
    #[default]
    Standard,
    /// One that says it is AMD's (bhyve's `amd_hostbridge`), as some guests with AMD's processors expect.
    Amd,
}

/// An item that the guest's firmware and system read by its name (docs/specs/fw_cfg.rst of QEMU).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FwCfg {
    /// Name: `opt/` and up to 51 letters, digits, `.`, `_`, `-` and `/`. Default: empty, which [`MachineSpec::validate`] refuses.
    pub name: String,
    /// Text: 1 to 128 printable ASCII characters without the double quote. Default: empty, which [`MachineSpec::validate`] refuses.
    pub value: String,
}

/// A stream of bytes between a program in the guest and one on the host: a port of a virtio console, which is no console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Channel {
    /// Name that the guest finds it by, like `org.qemu.guest_agent.0`: 1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter
    /// or digit. Default: empty, which [`MachineSpec::validate`] refuses.
    pub name: String,
}

/// A directory of the host that the guest mounts. Which directory a name stands for is the cell's to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Name, and tag that the guest mounts it by: 1 to 31 letters, digits, `.`, `_` and `-`, beginning with a letter or digit. Default:
    /// empty, which [`MachineSpec::validate`] refuses.
    pub name: String,
    /// Whether the guest can only read it. Default: no.
    pub read_only: bool,
    /// Where it is on the PCI bus, if elsewhere than its turn in the list says. Default: none.
    pub at: Option<u8>,
}

/// Whether gdb may be joined to the machine, as one that reads and writes all of the guest's memory and registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gdb {
    /// No.
    #[default]
    Off,
    /// Yes.
    On,
    /// Yes, and the guest stands still until a debugger, or whoever resumes it, lets it run.
    Wait,
}

/// What the real-time clock shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// Universal time.
    #[default]
    Utc,
    /// The host's local time, as older Windows expects.
    LocalTime,
}

/// What a machine's cell may use, the hypervisor itself included, and how the host treats it. `None`: not limited. Default: nothing of
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Percent of one CPU: 150 is one and a half.
    pub cpu_percent: Option<u32>,
    /// Memory in MiB; must leave room for the hypervisor beside the guest's.
    pub memory_mib: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
    /// `pcpu` of rctl(8): percent of one CPU as a mean, kept by stopping the whole cell for seconds (FreeBSD).
    pub pcpu: Option<u32>,
    /// Bytes read from disks in a second.
    pub read_bps: Option<u64>,
    /// Bytes written to disks in a second.
    pub write_bps: Option<u64>,
    /// Reads from disks in a second.
    pub read_iops: Option<u64>,
    /// Writes to disks in a second.
    pub write_iops: Option<u64>,
    /// CPUs of the host that the cell may run on; empty: all.
    pub cpus: BTreeSet<u16>,
    /// Virtual CPUs that are bound to one CPU of the host each.
    pub pins: BTreeMap<u16, u16>,
    /// Nice value of all its processes (nice(1)): the larger, the more they yield to others.
    pub priority: i8,
    /// Whether the host's kernel spares it when memory runs out.
    pub protect: bool,
    /// Whether the guest's memory stays in the host's RAM.
    pub wired: bool,
}
