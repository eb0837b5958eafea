//! What a host can do, and whether that is enough for a machine.

use crate::{Acceleration, Boot, Clock, Controller, Format, MachineSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who runs the machines of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hypervisor {
    /// QEMU, on Linux.
    Qemu,
    /// bhyve(8), on FreeBSD.
    Bhyve,
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU",
            Self::Bhyve => "bhyve",
        })
    }
}

/// What a host can do, found by asking or trying, never by guessing from a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCapabilities {
    /// Who runs the machines.
    pub hypervisor: Hypervisor,
    /// Virtual CPUs of one machine, at most.
    pub cpus: u16,
    /// Memory of the host in MiB.
    pub memory_mib: u32,
    /// Whether UEFI firmware is there.
    pub uefi: bool,
    /// Whether it can boot a Linux kernel directly.
    pub direct: bool,
    /// Whether the loader is there (bhyveload(8)).
    pub loader: bool,
    /// Whether the processor runs guests: shown by a boot, not by the existence of a device.
    pub kvm: bool,
    /// Whether there is software emulation.
    pub tcg: bool,
    /// Whether QCOW2 disks can be attached.
    pub qcow2: bool,
    /// Whether a screen can be had in a cell, and the largest one in pixels.
    pub screen: Option<(u16, u16)>,
    /// Whether the cell has what the host's local time needs.
    pub local_time: bool,
    /// Whether a limit on CPU use can be enforced.
    pub limit_cpu: bool,
    /// Whether a limit on memory can be enforced.
    pub limit_memory: bool,
    /// Whether a limit on processes can be enforced.
    pub limit_tasks: bool,
    /// Whether disks can be attached to a virtio SCSI controller.
    pub virtio_scsi: bool,
    /// Whether a sound card can be had in a cell.
    pub sound: bool,
    /// Whether a TPM can be had in a cell.
    pub tpm: bool,
}

/// A field that asks for what this host cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} asks for {what}: {why}")]
pub struct Unsupported {
    /// Path of the field.
    pub field: String,
    /// What it asks for.
    pub what: String,
    /// Why this host cannot, and what would mend it where something would.
    pub why: String,
}

/// pci_virtio_scsi.c knows no disk of its own: it passes the guest's commands to ctl(4).
const HOSTS_SCSI: &str =
    "bhyve passes its commands on to the host's own targets (/dev/cam/ctl), which no cell may have; use virtio, nvme or ahci";

/// pci_hda.c makes a codec for a device of the host only; without one the guest finds a controller with nothing behind it.
const HOSTS_SOUND: &str = "bhyve's card has a codec only where the cell has a sound device of the host, and no cell has one yet";
/// tpm_ppi_qemu.c, pci_lpc.c; `-tpmdev` of QEMU.
const HOSTS_TPM: [&str; 2] = [
    "QEMU needs swtpm at its side for one, or takes the host's own; no cell holds either yet",
    "bhyve takes the host's own, or from FreeBSD 15 on needs swtpm at its side; no cell holds either yet",
];

impl HostCapabilities {
    /// QEMU on Linux with everything that its engine writes, software emulation, and no limit known to be enforced.
    pub fn qemu(memory_mib: u32) -> Self {
        Self {
            hypervisor: Hypervisor::Qemu,
            cpus: 255,
            memory_mib,
            uefi: true,
            direct: true,
            loader: false,
            kvm: false,
            tcg: true,
            qcow2: true,
            screen: Some((3840, 2160)),
            local_time: false,
            limit_cpu: false,
            limit_memory: false,
            limit_tasks: false,
            virtio_scsi: true,
            sound: true,
            tpm: false,
        }
    }
    /// bhyve(8) with what every supported release has.
    pub fn bhyve(memory_mib: u32) -> Self {
        Self {
            hypervisor: Hypervisor::Bhyve,
            cpus: 16,
            uefi: false,
            direct: false,
            loader: true,
            kvm: true,
            tcg: false,
            qcow2: false,
            screen: Some((1920, 1200)),
            local_time: true,
            virtio_scsi: false,
            sound: false,
            ..Self::qemu(memory_mib)
        }
    }
    /// Who executes the guest's instructions where `wanted` is asked for; [`Acceleration::Auto`] is never the answer.
    pub fn resolve(&self, wanted: Acceleration) -> Acceleration {
        match wanted {
            Acceleration::Auto if self.kvm => Acceleration::Kvm,
            Acceleration::Auto => Acceleration::Tcg,
            said => said,
        }
    }
    /// Refuses what this host cannot do; the error names the first such field and the reason.
    pub fn check(&self, spec: &MachineSpec) -> Result<(), Unsupported> {
        let name = self.hypervisor;
        let need = |able: bool, field: &str, what: &str, why: &str| {
            if able { Ok(()) } else { Err(Unsupported { field: field.into(), what: what.into(), why: why.into() }) }
        };
        let cpus = format!("{} CPUs", spec.cpu.count);
        need(
            spec.cpu.count <= self.cpus,
            "cpu.count",
            &cpus,
            &format!("{name} on this host gives a machine at most {}", self.cpus),
        )?;
        let memory = format!("{} MiB", spec.memory_mib);
        need(spec.memory_mib < self.memory_mib, "memory_mib", &memory, &format!("this host has {} MiB", self.memory_mib))?;
        match &spec.boot {
            Boot::Uefi => need(self.uefi, "boot", "UEFI", "its firmware is not installed; `skep doctor` names the package")?,
            Boot::Direct { .. } => {
                need(self.direct, "boot", "a kernel of its own", &format!("{name} cannot boot one; use UEFI"))?
            }
            Boot::Loader => need(self.loader, "boot", "bhyveload", &format!("{name} has no such loader; use UEFI"))?,
        }
        match self.resolve(spec.acceleration) {
            Acceleration::Tcg => need(self.tcg, "acceleration", "tcg", &format!("{name} does not emulate; use auto"))?,
            _ => need(self.kvm, "acceleration", "kvm", "a boot probe has shown that it does not work here; use auto or tcg")?,
        }
        for disk in &spec.disks {
            let field = format!("disks[{}].format", disk.slot);
            let why = format!("{name} has no driver for it here; convert the disk to raw");
            need(self.qcow2 || disk.format != Format::Qcow2, &field, "QCOW2", &why)?;
            let cd = disk.controller == Controller::AhciCd && disk.format == Format::Qcow2;
            need(!cd, &field, "a QCOW2 CD", "a CD is a raw image")?;
            let scsi = self.virtio_scsi || disk.controller != Controller::VirtioScsi;
            need(scsi, &format!("disks[{}].controller", disk.slot), "virtio-scsi", HOSTS_SCSI)?;
        }
        if let Some(screen) = spec.screen {
            let what = format!("{}x{}", screen.width, screen.height);
            let Some((width, height)) = self.screen else {
                return need(false, "screen", &what, &format!("{name} cannot show a screen out of a cell on this host"));
            };
            let fits = screen.width <= width && screen.height <= height;
            need(fits, "screen", &what, &format!("{name} on this host has at most {width}x{height}"))?;
        }
        let clock = self.local_time || spec.clock == Clock::Utc;
        need(clock, "clock", "local time", "the cell does not know the host's time zone; use UTC")?;
        need(self.sound || !spec.sound, "sound", "a sound card", HOSTS_SOUND)?;
        let [qemu, bhyve] = HOSTS_TPM;
        need(self.tpm || !spec.tpm, "tpm", "a TPM", if name == Hypervisor::Qemu { qemu } else { bhyve })?;
        let limits = [
            ("limits.cpu_percent", spec.limits.cpu_percent, self.limit_cpu),
            ("limits.memory_mib", spec.limits.memory_mib, self.limit_memory),
            ("limits.tasks", spec.limits.tasks, self.limit_tasks),
        ];
        for (field, value, able) in limits {
            let what = format!("a limit of {}", value.unwrap_or_default());
            need(able || value.is_none(), field, &what, "this host does not let it be enforced; `skep doctor` says why")?;
        }
        Ok(())
    }
}
