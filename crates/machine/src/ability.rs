//! What one hypervisor can do and another cannot, beside the limits of a cell.

use crate::place::Device;
use crate::{Boot, BusKind, Clock, Gdb, HostBridge, Hypervisor, MachineSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Something that a host may or may not be able to do for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ability {
    /// Boot by a BIOS.
    Bios,
    /// Hold the guest until somebody looks at its screen.
    ScreenWait,
    /// Hand the guest items of fw_cfg.
    FwCfg,
    /// Have no ACPI tables.
    AcpiOff,
    /// Have AMD's host bridge.
    AmdHostBridge,
    /// Choose whether a guest's HLT and PAUSE give its CPU back.
    VmExits,
    /// Choose what unknown model-specific registers do.
    StrictMsr,
    /// Begin with the local APIC in x2APIC mode.
    X2apic,
    /// Take a CD out of a running machine.
    Eject,
    /// Choose the place of the AHCI controller.
    AhciPlace,
    /// Count what is read and written, by disk.
    DiskCounters,
    /// Have a debugger joined to it.
    Gdb,
    /// Have several disks on one NVMe controller.
    NvmeNamespaces,
    /// Limit how much goes through a NIC.
    NicRates,
    /// Keep NICs of one switch apart from each other.
    NicIsolation,
    /// Move a NIC to another switch while its guest runs.
    NicMoves,
    /// Limit how much goes to and from a disk.
    DiskRates,
    /// Make a disk larger while its guest runs.
    DiskGrowth,
    /// Speak IPv6 on a switch with a subnet.
    SwitchIpv6,
    /// Have switches of VALE.
    SwitchVale,
    /// Have disks of iSCSI targets.
    IscsiDisks,
    /// Have its clock at the host's local time.
    LocalTime,
    /// Have a TPM.
    Tpm,
    /// Have its instructions executed by the processor (KVM, vmm(4)): shown by a boot, not by a device that is there.
    Kvm,
}

impl Ability {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Bios,
        Self::ScreenWait,
        Self::FwCfg,
        Self::AcpiOff,
        Self::AmdHostBridge,
        Self::VmExits,
        Self::StrictMsr,
        Self::X2apic,
        Self::Eject,
        Self::AhciPlace,
        Self::DiskCounters,
        Self::Gdb,
        Self::NvmeNamespaces,
        Self::NicRates,
        Self::NicIsolation,
        Self::NicMoves,
        Self::DiskRates,
        Self::DiskGrowth,
        Self::SwitchIpv6,
        Self::SwitchVale,
        Self::IscsiDisks,
        Self::LocalTime,
        Self::Tpm,
        Self::Kvm,
    ];

    /// The word for it in what a host is said to be able to do.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::ScreenWait => "screen-wait",
            Self::FwCfg => "fw-cfg",
            Self::AcpiOff => "acpi-off",
            Self::AmdHostBridge => "amd-host-bridge",
            Self::VmExits => "vm-exits",
            Self::StrictMsr => "strict-msr",
            Self::X2apic => "x2apic",
            Self::Eject => "eject",
            Self::AhciPlace => "ahci-place",
            Self::DiskCounters => "disk-counters",
            Self::Gdb => "gdb",
            Self::NvmeNamespaces => "nvme-namespaces",
            Self::NicRates => "nic-rates",
            Self::NicIsolation => "nic-isolation",
            Self::NicMoves => "nic-moves",
            Self::DiskRates => "disk-rates",
            Self::DiskGrowth => "disk-growth",
            Self::SwitchIpv6 => "switch-ipv6",
            Self::SwitchVale => "switch-vale",
            Self::IscsiDisks => "iscsi-disks",
            Self::LocalTime => "local-time",
            Self::Tpm => "tpm",
            Self::Kvm => "kvm",
        }
    }

    /// The ability of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ability| ability.name() == name)
    }

    /// What a hypervisor of this kind can do.
    pub(crate) fn of(hypervisor: Hypervisor) -> BTreeSet<Self> {
        match hypervisor {
            Hypervisor::Qemu => [
                Self::Bios,
                Self::FwCfg,
                Self::Eject,
                Self::DiskCounters,
                Self::Gdb,
                Self::NvmeNamespaces,
                Self::NicRates,
                Self::NicIsolation,
                Self::NicMoves,
                Self::DiskRates,
                Self::DiskGrowth,
                Self::SwitchIpv6,
                Self::IscsiDisks,
                Self::LocalTime,
            ]
            .into(),
            Hypervisor::Bhyve => [
                Self::ScreenWait,
                Self::FwCfg,
                Self::AcpiOff,
                Self::AmdHostBridge,
                Self::VmExits,
                Self::StrictMsr,
                Self::X2apic,
                Self::AhciPlace,
                Self::NicIsolation,
                Self::SwitchIpv6,
                Self::IscsiDisks,
                Self::LocalTime,
                Self::Kvm,
            ]
            .into(),
        }
    }

    /// Why a host without it cannot, and what would do instead.
    pub const fn why(self, hypervisor: Hypervisor) -> &'static str {
        match (self, hypervisor) {
            (Self::Bios, Hypervisor::Bhyve) => {
                "bhyve has a BIOS only inside a UEFI firmware with a CSM, which no cell has; use uefi or loader"
            }
            (Self::ScreenWait, Hypervisor::Qemu) => "QEMU's VNC server holds no guest until somebody looks",
            (Self::AcpiOff, Hypervisor::Qemu) => "where QEMU gives none its firmware makes tables of its own",
            (Self::AmdHostBridge, Hypervisor::Qemu) => "QEMU's q35 has Intel's always",
            (Self::VmExits, Hypervisor::Qemu) => "it is the host's kernel that decides (halt_poll_ns and ple_window of kvm)",
            (Self::StrictMsr, Hypervisor::Qemu) => "it is a setting of the host's kernel for all guests (ignore_msrs of kvm)",
            (Self::X2apic, Hypervisor::Qemu) => "QEMU's begins as an xAPIC, and the guest switches it over",
            (Self::Eject, Hypervisor::Bhyve) => "bhyve cannot take a CD out while it runs; take it off the list of disks",
            (Self::AhciPlace, Hypervisor::Qemu) => "QEMU's AHCI controller is a part of its chip set",
            (Self::DiskCounters, Hypervisor::Bhyve) => {
                "bhyve counts nothing of its disks, and the kernel no files by who reads them; those of kinds qcow2 and iscsi are counted by what serves them, and volumes by ZFS"
            }
            (Self::Gdb, Hypervisor::Bhyve) => "bhyve's stub listens on TCP only, and a cell has no network",
            (Self::NvmeNamespaces, Hypervisor::Bhyve) => {
                "bhyve's NVMe controller has one namespace; give each disk one of its own"
            }
            (Self::NicRates, Hypervisor::Bhyve) => {
                "neither if_bridge(4) nor bhyve holds frames to a rate, and skep sets up no dummynet(4) so far"
            }
            (Self::NicMoves, Hypervisor::Bhyve) => {
                "bhyve cannot pull a guest's cable, so that the guest would keep its former address; stop the machine first"
            }
            (Self::DiskRates, Hypervisor::Bhyve) => {
                "bhyve holds no disk to a rate, but those of kinds qcow2 and iscsi are held to theirs by what serves them; `skep vm set --read-bps` and the like hold the whole machine (rctl)"
            }
            (Self::DiskGrowth, Hypervisor::Bhyve) => {
                "bhyve's files keep the limit that they had at its start, whatever its guest is told; stop the machine first"
            }
            // netmap.c looks a card up by name and asks for no privilege (read in 15.1's sources).
            (Self::SwitchVale, Hypervisor::Bhyve) => {
                "whoever may open netmap(4), by which VALE is reached, may take over the host's network cards, and bhyve opens it by name: no cell has it; use bridged, internal or netgraph"
            }
            (Self::SwitchVale, Hypervisor::Qemu) => "VALE is a part of netmap(4), which is FreeBSD's; use bridged or internal",
            // tpm_ppi_qemu.c, pci_lpc.c; `-tpmdev` of QEMU.
            (Self::Tpm, Hypervisor::Qemu) => {
                "QEMU needs swtpm at its side for one, or takes the host's own; no cell holds either yet"
            }
            (Self::Tpm, Hypervisor::Bhyve) => {
                "bhyve takes the host's own, or from FreeBSD 15 on needs swtpm at its side; no cell holds either yet"
            }
            (Self::Kvm, Hypervisor::Qemu) => "no boot has shown so far that it works on this host",
            _ => "this host does not have it",
        }
    }
}

/// What a machine asks for: field, what, and the ability that it takes.
pub(crate) fn asked(spec: &MachineSpec) -> Vec<(String, String, Ability)> {
    let board = spec.board;
    let all = [
        (spec.boot == Boot::Bios, "boot", "a BIOS", Ability::Bios),
        (spec.screen.as_ref().is_some_and(|s| s.wait), "screen.wait", "a guest that waits for a viewer", Ability::ScreenWait),
        (!spec.fw_cfg.is_empty(), "fw_cfg", "items of fw_cfg", Ability::FwCfg),
        (!board.acpi, "board.acpi", "no ACPI tables", Ability::AcpiOff),
        (board.host_bridge == HostBridge::Amd, "board.host_bridge", "AMD's host bridge", Ability::AmdHostBridge),
        (!board.exit_on_halt, "board.exit_on_halt", "HLT without an exit", Ability::VmExits),
        (!board.exit_on_pause, "board.exit_on_pause", "PAUSE without an exit", Ability::VmExits),
        (board.strict_msr, "board.strict_msr", "faults at unknown registers", Ability::StrictMsr),
        (board.x2apic, "board.x2apic", "an APIC that begins as an x2APIC", Ability::X2apic),
        (spec.chosen(Device::Ahci).is_some(), "places.ahci", "a place for the AHCI controller", Ability::AhciPlace),
        (spec.disks.iter().any(|d| d.rates != crate::DiskRates::default()), "disks", "limits of a disk", Ability::DiskRates),
        (spec.disks.iter().any(|d| d.format == crate::Format::Remote), "disks", "an iSCSI disk", Ability::IscsiDisks),
        (spec.gdb != Gdb::Off, "gdb", "a debugger's stub", Ability::Gdb),
        (spec.clock == Clock::LocalTime, "clock", "local time", Ability::LocalTime),
        (spec.tpm, "tpm", "a TPM", Ability::Tpm),
    ];
    let several = (0..).zip(&spec.controllers).find(|(at, bus)| {
        let holds = |disk: &&crate::Disk| disk.seat.is_some_and(|seat| seat.controller == *at);
        bus.kind == BusKind::Nvme && spec.disks.iter().filter(holds).count() > 1
    });
    let nvme = several
        .map(|(at, bus)| (format!("controllers[{at}]"), format!("several disks on {}", bus.name), Ability::NvmeNamespaces));
    let asked = all.into_iter().filter(|(asked, ..)| *asked);
    asked.map(|(_, field, what, ability)| (field.to_owned(), what.to_owned(), ability)).chain(nvme).collect()
}
