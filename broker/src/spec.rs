//! Settings as users give them ↔ what is stored ↔ the model that the engines read.

use crate::db::Fault;
use crate::db::disks::DiskRow;
use serde::{Deserialize, Serialize};
use skep_machine::{self as model, Mac, MachineSpec};
use skep_proto::broker::{
    Acceleration, Applies, Board, BoardDraft, Controller, DiskFlags, FwCfg, Limits, LimitsDraft, NicModel, Place, Screen,
    ScreenDraft, Settings,
};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskId, MachineId, NicId, Reason, Refusal, Share, Text};

/// Everything about a machine that the hypervisor or its cell is given. Names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Virtual CPUs.
    pub cpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// How it boots.
    pub boot: Boot,
    /// As asked for.
    pub acceleration: Acceleration,
    /// Whether it has a screen.
    pub screen: bool,
    /// Percent of one CPU; 0: no limit.
    pub cpu_percent: u32,
    /// By slot.
    pub disks: Vec<Disk>,
    /// By slot.
    pub nics: Vec<Nic>,
    /// What its cell may use besides.
    pub limits: Limits,
    /// Whether it has a sound card.
    pub sound: bool,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Names of its channels.
    pub channels: Vec<Text<63>>,
    /// Whether the firmware's variables say what is booted first, not the places of the disks. Looked up at each start: only in what a
    /// machine runs with.
    pub own_order: bool,
    /// Directories of the host that it shares.
    pub shares: Vec<Share>,
    /// Properties of its screen.
    pub screen_properties: Screen,
    /// Chip set, clock and processor.
    pub board: Board,
    /// Items of fw_cfg.
    pub fw_cfg: Vec<FwCfg>,
    /// Devices other than disks and NICs that are elsewhere than usual on the PCI bus.
    pub places: Vec<Place>,
}

/// How a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// UEFI.
    Uefi,
    /// From a kernel that was imported as a raw disk.
    Direct {
        /// The kernel.
        kernel: DiskId,
        /// The initial RAM disk.
        initrd: Option<DiskId>,
        /// The command line.
        cmdline: Text<1024>,
    },
    /// By the host's loader, from the first disk.
    Loader,
    /// By a BIOS.
    Bios,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Which.
    pub disk: DiskId,
    /// How it is kept.
    pub kind: DiskKind,
    /// Where it is attached.
    pub controller: Controller,
    /// The guest may only read it.
    pub read_only: bool,
    /// How it is used.
    pub flags: DiskFlags,
}

/// A NIC of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Which.
    pub nic: NicId,
    /// Its address.
    pub mac: [u8; 6],
    /// What it is to the guest.
    pub model: NicModel,
    /// Its chosen place on the PCI bus.
    pub slot: Option<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory_mib: 512,
            boot: Boot::Uefi,
            acceleration: Acceleration::Auto,
            screen: true,
            cpu_percent: 0,
            disks: Vec::new(),
            nics: Vec::new(),
            limits: Limits::default(),
            sound: false,
            tpm: false,
            channels: Vec::new(),
            own_order: false,
            shares: Vec::new(),
            screen_properties: Screen::default(),
            board: Board::default(),
            fw_cfg: Vec::new(),
            places: Vec::new(),
        }
    }
}

/// Most NICs of a machine: with configuration, firmware, log and eight disks they fit one record.
pub const MAX_NICS: usize = 4;
/// Virtual CPUs that a machine may have at most.
const MAX_CPUS: u32 = 64;
/// MiB that a machine may have at most.
const MAX_MEMORY: u64 = 1_048_576;

impl Spec {
    /// Changes what `settings` name. `disk` finds a usable disk by name or id.
    pub fn edit(&mut self, settings: &Settings, disk: impl Fn(&str) -> Result<DiskRow, Refusal>) -> Result<(), Refusal> {
        use skep_proto::broker::BootDraft;
        let at = |field: &'static str| move |refusal: Refusal| refusal.field(field);
        self.cpus = settings.cpus.unwrap_or(self.cpus);
        self.memory_mib = settings.memory_mib.unwrap_or(self.memory_mib);
        self.acceleration = settings.acceleration.unwrap_or(self.acceleration);
        self.screen = settings.screen.unwrap_or(self.screen);
        self.cpu_percent = settings.cpu_percent.unwrap_or(self.cpu_percent);
        edit_limits(&mut self.limits, &settings.limits);
        self.sound = settings.sound.unwrap_or(self.sound);
        self.tpm = settings.tpm.unwrap_or(self.tpm);
        self.channels = settings.channels.clone().unwrap_or_else(|| self.channels.clone());
        self.shares = settings.shares.clone().unwrap_or_else(|| self.shares.clone());
        edit_screen(&mut self.screen_properties, &settings.screen_properties);
        edit_board(&mut self.board, &settings.board);
        self.fw_cfg = settings.fw_cfg.clone().unwrap_or_else(|| self.fw_cfg.clone());
        self.places = settings.places.clone().unwrap_or_else(|| self.places.clone());
        let file = |name: &Text<63>, field: &'static str| {
            let row = disk(name.as_str()).map_err(at(field))?;
            if row.kind == DiskKind::Raw {
                Ok(row.id)
            } else {
                Err(Refusal::new(Reason::InvalidValue, format_args!("disk {}", row.name))
                    .field(field)
                    .note("it is not a raw disk"))
            }
        };
        match &settings.boot {
            None => {}
            Some(BootDraft::Uefi) => self.boot = Boot::Uefi,
            Some(BootDraft::Loader) => self.boot = Boot::Loader,
            Some(BootDraft::Bios) => self.boot = Boot::Bios,
            Some(BootDraft::Direct { kernel, initrd, cmdline }) => {
                let kernel = file(kernel, "boot.kernel")?;
                let initrd = initrd.as_ref().map(|name| file(name, "boot.initrd")).transpose()?;
                self.boot = Boot::Direct { kernel, initrd, cmdline: cmdline.clone() };
            }
        }
        if let Some(drafts) = &settings.disks {
            let mut disks: Vec<Disk> = Vec::with_capacity(drafts.len());
            for draft in drafts {
                let row = disk(draft.disk.as_str()).map_err(at("disks"))?;
                if disks.iter().any(|d| d.disk == row.id) {
                    let object = format_args!("disk {}", row.name).to_string();
                    return Err(Refusal::new(Reason::InvalidValue, object).field("disks").note("it is there twice"));
                }
                // A CD cannot be written, whatever was said: others may have it, too.
                let (controller, read_only) = (draft.controller, draft.read_only || draft.controller == Controller::AhciCd);
                let flags = draft.flags;
                let refused = |note: &str| {
                    let refusal = Refusal::new(Reason::InvalidValue, format_args!("disk {}", row.name));
                    Err(refusal.field("disks").note(note))
                };
                if flags.slot.is_some() && !matches!(controller, Controller::VirtioBlk | Controller::Nvme) {
                    return refused("it has no place of its own on the PCI bus: its controller has");
                }
                if (flags.ejected || flags.eject_after_first_boot) && controller != Controller::AhciCd {
                    return refused("only a CD can be ejected");
                }
                disks.push(Disk { disk: row.id, kind: row.kind, controller, read_only, flags });
            }
            self.disks = disks;
        }
        Ok(())
    }

    /// Refuses what no machine may have; the refusal names the field.
    pub fn check(&self, id: MachineId, name: &str) -> Result<(), Refusal> {
        let invalid = |field: &str, note: String| {
            Err(Refusal::new(Reason::InvalidValue, format_args!("machine {name}")).field(field).note(note))
        };
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return invalid("cpus", format!("{} is not 1 to {MAX_CPUS}", self.cpus));
        }
        if self.memory_mib < 16 || self.memory_mib > MAX_MEMORY {
            return invalid("memory", format!("{} MiB is not 16 to {MAX_MEMORY}", self.memory_mib));
        }
        if self.nics.len() > MAX_NICS {
            return invalid("nics", format!("a machine has at most {MAX_NICS} NICs"));
        }
        for place in &self.places {
            use model::Device::{Disk, Nic};
            match place.device.as_str().parse() {
                Ok(Disk(_) | Nic(_)) => {
                    return invalid("places", format!("{}: its place is the disk's or NIC's own", place.device));
                }
                Ok(_) => {}
                Err(model::BadDevice) => return invalid("places", format!("{}: {}", place.device, model::BadDevice)),
            }
        }
        match self.model(id).map_err(Refusal::from)?.validate() {
            Ok(()) => Ok(()),
            Err(wrong) => invalid(setting(&wrong.field), wrong.to_string()),
        }
    }

    /// What the engines read.
    pub fn model(&self, id: MachineId) -> Result<MachineSpec, Fault> {
        let row = || Fault::Row("machines");
        let mut nics = Vec::new();
        for (slot, nic) in (0..).zip(&self.nics) {
            let mac = Mac::new(nic.mac).map_err(|_| Fault::Row("nics"))?;
            let model = match nic.model {
                NicModel::VirtioNet => model::NicModel::VirtioNet,
                NicModel::E1000 => model::NicModel::E1000,
            };
            nics.push(model::Nic { slot, mac, model });
        }
        let disks = (0..).zip(&self.disks).map(|(slot, disk)| model::Disk {
            slot,
            controller: match disk.controller {
                Controller::VirtioBlk => model::Controller::VirtioBlk,
                Controller::Nvme => model::Controller::Nvme,
                Controller::Ahci => model::Controller::Ahci,
                Controller::AhciCd => model::Controller::AhciCd,
                Controller::VirtioScsi => model::Controller::VirtioScsi,
            },
            format: if disk.kind == DiskKind::Qcow2 { model::Format::Qcow2 } else { model::Format::Raw },
            read_only: disk.read_only,
            no_cache: disk.flags.no_cache,
            sync: disk.flags.sync,
            ejected: disk.flags.ejected,
            // Stays with the disk, so a guest finds it again wherever it is attached.
            serial: format!("{:032x}", disk.disk.as_u128()).chars().take(20).collect(),
        });
        Ok(MachineSpec {
            uuid: model::Uuid::from_u128(id.as_u128()),
            cpu: model::Cpu { count: u16::try_from(self.cpus).map_err(|_| row())?, topology: None },
            memory_mib: u32::try_from(self.memory_mib).map_err(|_| row())?,
            boot: match &self.boot {
                Boot::Uefi => model::Boot::Uefi,
                Boot::Loader => model::Boot::Loader,
                Boot::Bios => model::Boot::Bios,
                Boot::Direct { initrd, cmdline, .. } => {
                    model::Boot::Direct { cmdline: cmdline.as_str().to_owned(), initrd: initrd.is_some() }
                }
            },
            acceleration: match self.acceleration {
                Acceleration::Auto => model::Acceleration::Auto,
                Acceleration::Tcg => model::Acceleration::Tcg,
                Acceleration::Kvm => model::Acceleration::Kvm,
            },
            disks: disks.collect(),
            nics,
            screen: self.screen.then(|| model_screen(&self.screen_properties)),
            limits: model_limits(self.cpu_percent, &self.limits),
            sound: self.sound,
            tpm: self.tpm,
            channels: self.channels.iter().map(|name| model::Channel { name: name.as_str().to_owned() }).collect(),
            shares: self.shares.iter().map(shared).collect(),
            clock: if self.board.local_time { model::Clock::LocalTime } else { model::Clock::Utc },
            board: model_board(self.board),
            fw_cfg: self.fw_cfg.iter().map(item).collect(),
            places: self.model_places(),
            ..MachineSpec::default()
        })
    }

    /// Chosen places of all devices; disks and NICs have theirs with them.
    fn model_places(&self) -> Vec<model::Place> {
        let named = |place: &Place| Some(model::Place { device: place.device.as_str().parse().ok()?, slot: place.slot });
        let disks = (0..).zip(&self.disks).filter_map(|(at, disk)| Some((model::Device::Disk(at), disk.flags.slot?)));
        let nics = (0..).zip(&self.nics).filter_map(|(at, nic)| Some((model::Device::Nic(at), nic.slot?)));
        let own = disks.chain(nics).map(|(device, slot)| model::Place { device, slot });
        self.places.iter().filter_map(named).chain(own).collect()
    }

    /// Where all its devices are.
    pub fn pci(&self, id: MachineId) -> Result<Vec<Place>, Fault> {
        let model = self.model(id)?;
        // The chip set's own.
        let own = |device| device == model::Device::Ahci && crate::platform::HYPERVISOR == model::Hypervisor::Qemu;
        let place = |device| Some((if own(device) { 31 } else { model.place(device)? }, device));
        let mut all: Vec<_> = model.devices().into_iter().filter_map(place).collect();
        all.sort_unstable();
        Ok(all.into_iter().map(|(slot, device)| Place { device: Text::lossy(&device.to_string()), slot }).collect())
    }

    /// Whether these are the same settings.
    pub fn is_set_as(&self, other: &Spec) -> bool {
        Spec { own_order: other.own_order, ..self.clone() } == *other
    }

    /// Names of what differs, and when each would apply to a machine that runs with `self`.
    pub fn changes(&self, new: &Spec, id: MachineId) -> Result<Vec<(Text<32>, Applies)>, Fault> {
        let mut changes: Vec<Text<32>> = Vec::new();
        let fields = model::applies(&self.model(id)?, &new.model(id)?);
        changes.extend(fields.iter().map(|change| Text::lossy(setting(&change.field))));
        // Another file under the same description.
        let files = |spec: &Spec| match spec.boot {
            Boot::Uefi | Boot::Loader | Boot::Bios => None,
            Boot::Direct { kernel, initrd, .. } => Some((kernel, initrd)),
        };
        if files(self) != files(new) {
            changes.push(Text::lossy("boot"));
        }
        let slots = |spec: &Spec| spec.nics.iter().map(|n| n.nic).collect::<Vec<_>>();
        if slots(self) != slots(new) && self.nics.len() == new.nics.len() {
            changes.push(Text::lossy("nics"));
        }
        let once = |spec: &Spec| spec.disks.iter().map(|d| d.flags.eject_after_first_boot).collect::<Vec<_>>();
        if once(self) != once(new) && self.disks.len() == new.disks.len() {
            changes.push(Text::lossy("disks"));
        }
        changes.dedup();
        // Limits could apply at once, but no operation of the spawner changes those of a living cell yet.
        Ok(changes.into_iter().map(|name| (name, Applies::NextStart)).collect())
    }

    /// What a reboot of a guest that runs with `self` can take over from `new`: what needs no other descriptors, and no other limits
    /// of the cell.
    pub fn at_reboot(&self, new: &Spec) -> Spec {
        let boot = match (&self.boot, &new.boot) {
            (Boot::Direct { kernel, initrd, .. }, Boot::Direct { cmdline, .. }) => {
                Boot::Direct { kernel: *kernel, initrd: *initrd, cmdline: cmdline.clone() }
            }
            (old, _) => old.clone(),
        };
        // The device of hardware acceleration is in the cell or it is not; a sound card needs what is on the command line of a runner that
        // may be older than this.
        let mut disks = self.disks.clone();
        for (old, new) in disks.iter_mut().zip(&new.disks).filter(|(old, new)| old.disk == new.disk) {
            // Out it can come; what was not in has no descriptor.
            old.flags.ejected |= new.flags.ejected;
        }
        Spec {
            cpus: new.cpus,
            memory_mib: new.memory_mib,
            screen: new.screen,
            boot,
            channels: new.channels.clone(),
            screen_properties: new.screen_properties.clone(),
            board: new.board,
            fw_cfg: new.fw_cfg.clone(),
            disks,
            ..self.clone()
        }
    }
}

fn shared(share: &Share) -> model::Share {
    model::Share { name: share.name.as_str().to_owned(), read_only: share.read_only }
}

fn item(item: &FwCfg) -> model::FwCfg {
    model::FwCfg { name: item.name.as_str().to_owned(), value: item.value.as_str().to_owned() }
}

fn take<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(value) = from {
        to.clone_from(value);
    }
}

/// Changes what the draft names.
fn edit_screen(screen: &mut Screen, draft: &ScreenDraft) {
    let ScreenDraft { width, height, wait, keyboard, tablet } = draft;
    take(&mut screen.width, width);
    take(&mut screen.height, height);
    take(&mut screen.wait, wait);
    take(&mut screen.keyboard, keyboard);
    take(&mut screen.tablet, tablet);
}

fn model_screen(screen: &Screen) -> model::Screen {
    let Screen { width, height, wait, ref keyboard, tablet } = *screen;
    model::Screen { width, height, wait, keyboard: keyboard.as_str().to_owned(), tablet }
}

/// Changes what the draft names.
fn edit_board(board: &mut Board, draft: &BoardDraft) {
    let BoardDraft { local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic } = draft;
    take(&mut board.local_time, local_time);
    take(&mut board.acpi, acpi);
    take(&mut board.amd_host_bridge, amd_host_bridge);
    take(&mut board.exit_on_halt, exit_on_halt);
    take(&mut board.exit_on_pause, exit_on_pause);
    take(&mut board.strict_msr, strict_msr);
    take(&mut board.x2apic, x2apic);
}

fn model_board(board: Board) -> model::Board {
    let Board { acpi, exit_on_halt, exit_on_pause, strict_msr, x2apic, .. } = board;
    let host_bridge = if board.amd_host_bridge { model::HostBridge::Amd } else { model::HostBridge::Standard };
    model::Board { acpi, host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic }
}

/// Changes what the draft names.
fn edit_limits(limits: &mut Limits, draft: &LimitsDraft) {
    let LimitsDraft { memory_mib, tasks, pcpu, read_bps, write_bps, read_iops, write_iops, .. } = draft;
    take(&mut limits.memory_mib, memory_mib);
    take(&mut limits.tasks, tasks);
    take(&mut limits.pcpu, pcpu);
    take(&mut limits.read_bps, read_bps);
    take(&mut limits.write_bps, write_bps);
    take(&mut limits.read_iops, read_iops);
    take(&mut limits.write_iops, write_iops);
    let LimitsDraft { cpus, pins, priority, protect, wired, .. } = draft;
    take(&mut limits.cpus, cpus);
    take(&mut limits.pins, pins);
    take(&mut limits.priority, priority);
    take(&mut limits.protect, protect);
    take(&mut limits.wired, wired);
}

fn model_limits(cpu_percent: u32, limits: &Limits) -> model::Limits {
    let some = |n: u32| (n > 0).then_some(n);
    let many = |n: u64| (n > 0).then_some(n);
    model::Limits {
        cpu_percent: some(cpu_percent),
        memory_mib: some(limits.memory_mib),
        tasks: some(limits.tasks),
        pcpu: some(limits.pcpu),
        read_bps: many(limits.read_bps),
        write_bps: many(limits.write_bps),
        read_iops: many(limits.read_iops),
        write_iops: many(limits.write_iops),
        cpus: limits.cpus.0.clone(),
        pins: limits.pins.0.clone(),
        priority: limits.priority,
        protect: limits.protect,
        wired: limits.wired,
    }
}

/// The setting that a field of the model comes from.
fn setting(field: &str) -> &str {
    match field {
        "cpu.count" | "cpu.topology" => "cpus",
        "memory_mib" => "memory",
        "limits.cpu_percent" => "cpu_percent",
        channel if channel.starts_with("channels[") => "channels",
        share if share.starts_with("shares[") => "shares",
        item if item.starts_with("fw_cfg[") => "fw_cfg",
        place if place.starts_with("places.") => "places",
        "clock" => "board",
        other => other,
    }
}
