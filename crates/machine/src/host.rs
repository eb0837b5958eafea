//! What a host can do, and whether that is enough for a machine.

use crate::ability::{Ability, asked as asked_of_host};
use crate::keyboards::layouts;
use crate::{Acceleration, Boot, Controller, Format, Limits, MachineSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Who says so, and what would mend it where something would.
    pub cpus_why: String,
    /// Memory of the host in MiB.
    pub memory_mib: u32,
    /// Whether UEFI firmware is there.
    pub uefi: bool,
    /// Whether it can boot a Linux kernel directly.
    pub direct: bool,
    /// Whether the loader is there (bhyveload(8)).
    pub loader: bool,
    /// Whether there is software emulation.
    pub tcg: bool,
    /// Whether QCOW2 disks can be attached.
    pub qcow2: bool,
    /// Whether a screen can be had in a cell, and the largest one in pixels.
    pub screen: Option<(u16, u16)>,
    /// Whether disks can be attached to a virtio SCSI controller.
    pub virtio_scsi: bool,
    /// Whether directories of the host can be shared.
    pub shares: bool,
    /// Whether the guest can be let write to them; if not, why.
    pub writable_shares: Result<(), String>,
    /// What of [`crate::Limits`] can be enforced.
    pub limits: BTreeSet<Limit>,
    /// What else it can do.
    pub abilities: BTreeSet<Ability>,
    /// What of that its hypervisor could do and this host cannot, and why.
    pub lacks: BTreeMap<Ability, String>,
    /// Names of the keyboard layouts that a screen can have.
    pub keyboards: BTreeSet<String>,
}

/// Something of [`crate::Limits`] that a host may or may not be able to enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// A share of the CPUs.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Tasks,
    /// rctl(8)'s mean of CPU use.
    Pcpu,
    /// Bytes and operations of disks in a second.
    Rates,
    /// The CPUs to run on.
    Cpus,
    /// A CPU for each virtual one.
    Pins,
    /// Yielding to others: nice values above 0.
    Priority,
    /// Going before others: nice values below 0.
    Raise,
    /// Being spared when memory runs out.
    Protect,
    /// Memory that stays in RAM.
    Wired,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Cpu,
        Self::Memory,
        Self::Tasks,
        Self::Pcpu,
        Self::Rates,
        Self::Cpus,
        Self::Pins,
        Self::Priority,
        Self::Raise,
        Self::Protect,
        Self::Wired,
    ];

    /// The word for it in messages between processes, and in what a host is said to enforce.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Tasks => "tasks",
            Self::Pcpu => "pcpu",
            Self::Rates => "rates",
            Self::Cpus => "cpus",
            Self::Pins => "pins",
            Self::Priority => "priority",
            Self::Raise => "raise",
            Self::Protect => "protect",
            Self::Wired => "wired",
        }
    }

    /// The limit of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// Why a host without it cannot, and what would do instead.
    const fn why(self, hypervisor: Hypervisor) -> &'static str {
        match (self, hypervisor) {
            (Self::Cpu, Hypervisor::Bhyve) => {
                "rctl(8) gives no share of a CPU; limits.cpus keeps it to some CPUs, limits.pcpu stops it for seconds at a time"
            }
            (Self::Pcpu, Hypervisor::Qemu) => "it is FreeBSD's rctl(8); use cpu_percent, which is a share",
            (Self::Rates, Hypervisor::Qemu) => {
                "it needs a suite started by root, and the io and memory controllers in version 2 of control groups"
            }
            (Self::Priority, Hypervisor::Qemu) => {
                "without a control group of the cpu controller a nice value counts only among the machine's own threads"
            }
            (Self::Raise, Hypervisor::Qemu) => {
                "going before others takes a suite started by root, with CAP_SYS_RESOURCE then, and a control group of the cpu controller; use 0 to 19"
            }
            (Self::Protect, Hypervisor::Qemu) => "it takes a suite started by root, with CAP_SYS_RESOURCE then",
            (Self::Wired, Hypervisor::Qemu) => "it takes a suite started by root, with CAP_SYS_RESOURCE then",
            (Self::Memory | Self::Tasks | Self::Pcpu | Self::Rates, Hypervisor::Bhyve) => {
                "kern.racct.enable is not set in loader.conf; `skep doctor` says how"
            }
            _ => "this host does not let it be enforced; `skep doctor` says why",
        }
    }
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
const HOSTS_SOUND: [&str; 2] = [
    "its card plays to whoever joins the screen, and to no device of the host: `skep vm sound`, or a viewer",
    "bhyve's card has a codec only with a sound device of the host: name one by sound_out or sound_in; `skep host show` lists them",
];

/// contrib/lib9p/backend/fs.c, fs_icreate: fchown(2) to the guest's user after each file that is made. As root, before 15, it would leave
/// set-user-id files of root's on the host at a guest's wish.
const HOSTS_WRITES: &str =
    "add `ro`: bhyve, as root, would let a guest leave programs on the host, and otherwise can give no file to its user";

/// Asked of the program that is installed.
const HOSTS_SHARES: &str = "the hypervisor that is installed has no virtio-9p";

impl HostCapabilities {
    /// QEMU on Linux with everything that its engine writes, software emulation, and no limit known to be enforced.
    pub fn qemu(memory_mib: u32) -> Self {
        Self {
            hypervisor: Hypervisor::Qemu,
            cpus: 255,
            cpus_why: "its board (q35) has room for no more".to_owned(),
            memory_mib,
            uefi: true,
            direct: true,
            loader: false,
            tcg: true,
            qcow2: true,
            screen: Some((3840, 2160)),
            limits: BTreeSet::from([Limit::Pins]),
            virtio_scsi: true,
            shares: true,
            writable_shares: Ok(()),
            abilities: Ability::of(Hypervisor::Qemu),
            lacks: BTreeMap::new(),
            keyboards: named(layouts(Hypervisor::Qemu)),
        }
    }
    /// bhyve(8) with what every supported release has.
    pub fn bhyve(memory_mib: u32) -> Self {
        Self {
            hypervisor: Hypervisor::Bhyve,
            cpus: 16,
            cpus_why: "all that every release's vmm(4) has; this one did not say how many it has (hw.vmm.maxcpu)".to_owned(),
            uefi: false,
            direct: false,
            loader: true,
            tcg: false,
            qcow2: false,
            screen: Some((1920, 1200)),
            limits: BTreeSet::from([Limit::Pins, Limit::Wired]),
            virtio_scsi: false,
            writable_shares: Err(HOSTS_WRITES.to_owned()),
            abilities: Ability::of(Hypervisor::Bhyve),
            keyboards: named(layouts(Hypervisor::Bhyve)),
            ..Self::qemu(memory_mib)
        }
    }
    /// Gives it an ability that it was seen to have.
    pub fn give(&mut self, ability: Ability) {
        self.lacks.remove(&ability);
        self.abilities.insert(ability);
    }
    /// Takes an ability away, for a reason of this host's.
    pub fn take(&mut self, ability: Ability, why: &str) {
        self.abilities.remove(&ability);
        self.lacks.insert(ability, why.to_owned());
    }
    /// Why it has not an ability that it has not.
    pub fn why(&self, ability: Ability) -> &str {
        self.lacks.get(&ability).map_or(ability.why(self.hypervisor), String::as_str)
    }
    /// Who executes the guest's instructions where `wanted` is asked for; [`Acceleration::Auto`] is never the answer.
    pub fn resolve(&self, wanted: Acceleration) -> Acceleration {
        match wanted {
            Acceleration::Auto if self.abilities.contains(&Ability::Kvm) => Acceleration::Kvm,
            Acceleration::Auto => Acceleration::Tcg,
            said => said,
        }
    }
    /// Refuses numbers beyond what a machine of this host can have, and a processor that it has not, which nothing that is attached later would
    /// change; the error names the first such field, the limit and the reason.
    pub fn fits(&self, spec: &MachineSpec) -> Result<(), Unsupported> {
        let name = self.hypervisor;
        let (cpus, most) = (format!("{} CPUs", spec.cpu.count), self.cpus);
        let why = format!("{name} on this host gives a machine at most {most}: {}", self.cpus_why);
        need(spec.cpu.count <= most, "cpu.count", &cpus, &why)?;
        match self.resolve(spec.acceleration) {
            Acceleration::Tcg => need(self.tcg, "acceleration", "tcg", &format!("{name} does not emulate; use auto"))?,
            _ => {
                let able = self.abilities.contains(&Ability::Kvm);
                need(able, "acceleration", "kvm", &format!("{}; use auto or tcg", self.why(Ability::Kvm)))?;
            }
        }
        if let (Some(screen), Some((width, height))) = (&spec.screen, self.screen) {
            let fits = screen.width <= width && screen.height <= height;
            let what = format!("{}x{}", screen.width, screen.height);
            need(fits, "screen", &what, &format!("{name} on this host has at most {width}x{height}"))?;
        }
        Ok(())
    }
    /// Refuses what this host cannot do; the error names the first such field and the reason.
    pub fn check(&self, spec: &MachineSpec) -> Result<(), Unsupported> {
        let name = self.hypervisor;
        self.fits(spec)?;
        let memory = format!("{} MiB", spec.memory_mib);
        need(spec.memory_mib < self.memory_mib, "memory_mib", &memory, &format!("this host has {} MiB", self.memory_mib))?;
        match &spec.boot {
            Boot::Uefi => need(self.uefi, "boot", "UEFI", "its firmware is not installed; `skep doctor` names the package")?,
            Boot::Direct { .. } => {
                need(self.direct, "boot", "a kernel of its own", &format!("{name} cannot boot one; use UEFI"))?
            }
            // Among the abilities.
            Boot::Bios => {}
            Boot::Loader => need(self.loader, "boot", "bhyveload", &format!("{name} has no such loader; use UEFI"))?,
        }
        for disk in &spec.disks {
            let field = format!("disks[{}].format", disk.slot);
            let why = format!("{name} has no driver for it here; convert the disk to raw");
            need(self.qcow2 || disk.format != Format::Qcow2, &field, "QCOW2", &why)?;
            let cd = disk.controller.is_cd() && disk.format == Format::Qcow2;
            need(!cd, &field, "a QCOW2 CD", "a CD is a raw image")?;
            let scsi = self.virtio_scsi || !matches!(disk.controller, Controller::VirtioScsi | Controller::VirtioScsiCd);
            need(scsi, &format!("disks[{}].controller", disk.slot), "virtio-scsi", HOSTS_SCSI)?;
        }
        if let Some(screen) = &spec.screen {
            let what = format!("{}x{}", screen.width, screen.height);
            need(self.screen.is_some(), "screen", &what, &format!("{name} cannot show a screen out of a cell on this host"))?;
            let known = screen.keyboard.is_empty() || self.keyboards.contains(&screen.keyboard);
            let why = format!("{name} has none of that name; `skep host show` lists those that it has");
            need(known, "screen.keyboard", &format!("the layout {}", screen.keyboard), &why)?;
        }
        let [qemu, bhyve] = HOSTS_SOUND;
        let devices = [("sound_out", spec.sound_out), ("sound_in", spec.sound_in)];
        match name {
            Hypervisor::Qemu => {
                devices.iter().try_for_each(|(field, dsp)| need(dsp.is_none(), field, "a sound device of the host", qemu))?
            }
            Hypervisor::Bhyve => {
                let some = devices.iter().any(|(_, dsp)| dsp.is_some());
                need(!spec.sound || some, "sound", "a sound card", bhyve)?;
            }
        }
        for (at, share) in spec.shares.iter().enumerate() {
            let what = format!("the directory {}", share.name);
            need(self.shares, &format!("shares[{at}]"), &what, HOSTS_SHARES)?;
            if let (Err(why), false) = (&self.writable_shares, share.read_only) {
                need(false, &format!("shares[{at}].read_only"), &format!("{what} to write to"), why)?;
            }
        }
        for (field, what, ability) in asked_of_host(spec) {
            need(self.abilities.contains(&ability), &field, &what, self.why(ability))?;
        }
        for (field, what, limit) in asked(&spec.limits) {
            need(self.limits.contains(&limit), field, &what, limit.why(name))?;
        }
        Ok(())
    }
}

fn need(able: bool, field: &str, what: &str, why: &str) -> Result<(), Unsupported> {
    if able { Ok(()) } else { Err(Unsupported { field: field.into(), what: what.into(), why: why.into() }) }
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// What is asked for: field, value, and what a host needs for it.
fn asked(limits: &Limits) -> Vec<(&'static str, String, Limit)> {
    let number = |value: Option<u64>| value.map(|v| format!("a limit of {v}"));
    let yes = |on: bool| on.then(|| "yes".to_owned());
    let priority = limits.priority;
    let all = [
        ("limits.cpu_percent", number(limits.cpu_percent.map(u64::from)), Limit::Cpu),
        ("limits.memory_mib", number(limits.memory_mib.map(u64::from)), Limit::Memory),
        ("limits.tasks", number(limits.tasks.map(u64::from)), Limit::Tasks),
        ("limits.pcpu", number(limits.pcpu.map(u64::from)), Limit::Pcpu),
        ("limits.read_bps", number(limits.read_bps), Limit::Rates),
        ("limits.write_bps", number(limits.write_bps), Limit::Rates),
        ("limits.read_iops", number(limits.read_iops), Limit::Rates),
        ("limits.write_iops", number(limits.write_iops), Limit::Rates),
        ("limits.cpus", (!limits.cpus.is_empty()).then(|| format!("{} CPUs of the host", limits.cpus.len())), Limit::Cpus),
        ("limits.pins", (!limits.pins.is_empty()).then(|| format!("{} bound CPUs", limits.pins.len())), Limit::Pins),
        ("limits.priority", (priority > 0).then(|| format!("a nice value of {priority}")), Limit::Priority),
        ("limits.priority", (priority < 0).then(|| format!("a nice value of {priority}")), Limit::Raise),
        ("limits.protect", yes(limits.protect), Limit::Protect),
        ("limits.wired", yes(limits.wired), Limit::Wired),
    ];
    all.into_iter().filter_map(|(field, what, limit)| Some((field, what?, limit))).collect()
}
