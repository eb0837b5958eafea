//! Devices of a machine, and how it has them.

use super::Ref;
use crate::Text;
use serde::{Deserialize, Serialize};

/// What a NIC is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NicModel {
    /// virtio.
    #[default]
    VirtioNet,
    /// Intel 82545.
    E1000,
}

/// A screen's properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// Pixels: 640 to 3,840.
    pub width: u16,
    /// Pixels: 480 to 2,160.
    pub height: u16,
    /// Whether the guest is held until somebody looks (bhyve).
    pub wait: bool,
    /// Keyboard layout by the hypervisor's name; empty: US.
    pub keyboard: Text<32>,
    /// Whether the pointer is a USB tablet.
    pub tablet: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self { width: 1024, height: 768, wait: false, keyboard: Text::default(), tablet: true }
    }
}

/// Changes of [`Screen`]; `None`: the default (create) or as it is (set).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScreenDraft {
    /// See [`Screen::width`].
    pub width: Option<u16>,
    /// See [`Screen::height`].
    pub height: Option<u16>,
    /// See [`Screen::wait`].
    pub wait: Option<bool>,
    /// See [`Screen::keyboard`].
    pub keyboard: Option<Text<32>>,
    /// See [`Screen::tablet`].
    pub tablet: Option<bool>,
}

/// Chip set, clock and processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Whether the clock shows the host's local time.
    pub local_time: bool,
    /// Whether there are ACPI tables.
    pub acpi: bool,
    /// Whether the host bridge says that it is AMD's (bhyve).
    pub amd_host_bridge: bool,
    /// Whether a CPU that the guest halts is given back; only bhyve can do otherwise.
    pub exit_on_halt: bool,
    /// Whether one that spins is, likewise.
    pub exit_on_pause: bool,
    /// Whether unknown model-specific registers are a fault (bhyve).
    pub strict_msr: bool,
    /// Whether the local APIC begins in x2APIC mode (bhyve).
    pub x2apic: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            local_time: false,
            acpi: true,
            amd_host_bridge: false,
            exit_on_halt: true,
            exit_on_pause: true,
            strict_msr: false,
            x2apic: false,
        }
    }
}

/// Changes of [`Board`]; `None`: the default (create) or as it is (set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BoardDraft {
    /// See [`Board::local_time`].
    pub local_time: Option<bool>,
    /// See [`Board::acpi`].
    pub acpi: Option<bool>,
    /// See [`Board::amd_host_bridge`].
    pub amd_host_bridge: Option<bool>,
    /// See [`Board::exit_on_halt`].
    pub exit_on_halt: Option<bool>,
    /// See [`Board::exit_on_pause`].
    pub exit_on_pause: Option<bool>,
    /// See [`Board::strict_msr`].
    pub strict_msr: Option<bool>,
    /// See [`Board::x2apic`].
    pub x2apic: Option<bool>,
}

/// An item that firmware and guest read by its name (QEMU's fw_cfg).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfg {
    /// Name: `opt/` and up to 51 letters, digits, `.`, `_`, `-` and `/`.
    pub name: Text<55>,
    /// Printable ASCII without the double quote.
    pub value: Text<128>,
}

/// Whether a debugger may be joined to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Gdb {
    /// No.
    #[default]
    Off,
    /// Yes.
    On,
    /// Yes, and the guest stands still until a debugger, or whoever resumes it, lets it run.
    Wait,
}

/// Joins a debugger to a machine; the descriptor is a stream socket that speaks gdb's remote protocol. The guest stands still from then on,
/// until the debugger lets it run. One at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineGdb {
    /// Which.
    pub machine: Ref,
}

/// What a controller is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BusKind {
    /// AHCI: up to 6 disks and CDs at its ports.
    Ahci,
    /// Virtio SCSI: up to 8 disks and CDs at its targets (QEMU).
    VirtioScsi,
    /// NVMe: up to 8 disks as its namespaces (bhyve: one).
    Nvme,
    /// Virtio block: one disk.
    VirtioBlk,
}

/// A controller with a name, that holds the disks which say so ([`DiskSeat`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    /// Its name.
    pub name: Text<31>,
    /// What it is.
    pub kind: BusKind,
    /// Its place on PCI bus 0 ([`crate::pci`]). In requests 0: as it is or, of a new one, the first that is free from 20 on; it stays then.
    pub slot: u8,
}

/// A disk's place on a controller with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSeat {
    /// The controller's name.
    pub controller: Text<31>,
    /// Port, target or namespace, from 0. In requests none: as it is or, of a disk that is new there, the first that is free.
    pub port: Option<u8>,
}

/// A device's place on PCI bus 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `screen`, `rng`, `usb`, `ahci`, `scsi`, `sound`, `channels` or `share0` to `share3`; in answers `disk0`, `nic0` and so on and controllers by their names, too.
    pub device: Text<31>,
    /// Where it is: [`crate::pci`].
    pub slot: u8,
}

/// How a disk of a machine is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskFlags {
    /// Its bytes pass by the host's cache.
    pub no_cache: bool,
    /// Each write is on the medium before the guest hears that it is done.
    pub sync: bool,
    /// Its place on PCI bus 0 ([`crate::pci`]), if it has a controller of its own; none: the one that it keeps, as nothing else was there when it came.
    pub slot: Option<u8>,
    /// A CD that is not in its drive.
    pub ejected: bool,
    /// A CD that is taken out once the machine has started with it.
    pub eject_after_first_boot: bool,
}

/// Takes a CD out of a machine, of a running one's drive at once. It stays among the machine's disks, as an empty drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineEject {
    /// Which.
    pub machine: Ref,
    /// The disk that is its CD.
    pub disk: Ref,
}

/// How a machine's CPUs are arranged; the product of the three is their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Sockets.
    pub sockets: u16,
    /// Cores of a socket.
    pub cores: u16,
    /// Threads of a core.
    pub threads: u16,
}
