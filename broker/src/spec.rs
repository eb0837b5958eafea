//! Settings as users give them ↔ what is stored ↔ the model that the engines read.

use crate::db::Fault;
use crate::db::disks::DiskRow;
use crate::layers::DiskLayers;
use crate::parts::{
    arranged, edit_board, edit_limits, edit_screen, format, item, model_board, model_controller, model_limits, model_rates,
    model_screen, model_seat, setting, shared,
};
use crate::seats::{held, model_bus};
use serde::{Deserialize, Serialize};
use skep_machine::{self as model, Mac, MachineSpec};
use skep_proto::broker::{
    Acceleration, Applies, Board, Bus, Controller, DiskFlags, DiskSeat, FwCfg, Gdb, Limits, NicModel, Place, Screen, Settings,
    Topology,
};
use skep_proto::storage::DiskKind;
use skep_proto::{BadPort, DiskId, DiskRates, Dsp, MachineId, NicId, Reason, Refusal, SerialPort, Share, Text};

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
    /// In boot order.
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
    /// Its serial ports; none: only the first, as it usually is.
    pub serial: Vec<SerialPort>,
    /// Whether a debugger may be joined to it.
    pub gdb: Gdb,
    /// Controllers with names.
    pub controllers: Vec<Bus>,
    /// Which disks sit on them, and where.
    pub seats: Vec<Seat>,
    /// The host's device that its sound card plays to.
    pub sound_out: Option<Dsp>,
    /// The host's device that it records from.
    pub sound_in: Option<Dsp>,
    /// Files of its disks. Looked up at each start: only in what a machine runs with.
    pub layers: Vec<DiskLayers>,
    /// How much goes to and from its disks, by slot, of those that are held to something. Likewise.
    pub rates: Vec<(u8, DiskRates)>,
    /// How its CPUs are arranged, if that was said.
    pub topology: Option<Topology>,
    /// Where disks, NICs and shares are that have chosen no place; each by its turn.
    pub kept: Vec<model::Place>,
    /// Whether the processor runs its guest, and its cell has what that takes. Found out at each start: only in what a machine runs with.
    pub accelerated: bool,
}

/// A disk's place on a controller with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The disk, by its place among the machine's.
    pub disk: u8,
    /// The controller, likewise.
    pub controller: u8,
    /// Port, target or namespace, from 0.
    pub port: u8,
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
            serial: Vec::new(),
            gdb: Gdb::Off,
            controllers: Vec::new(),
            seats: Vec::new(),
            sound_out: None,
            sound_in: None,
            layers: Vec::new(),
            rates: Vec::new(),
            topology: None,
            kept: Vec::new(),
            accelerated: false,
        }
    }
}

/// Most NICs of a machine: with configuration, firmware, log and eight disks they fit one record.
pub const MAX_NICS: usize = 4;
/// Virtual CPUs that a machine may have at most.
pub(crate) const MAX_CPUS: u32 = 64;
/// MiB that a machine may have at most.
const MAX_MEMORY: u64 = 1_048_576;

impl Spec {
    /// Changes what `settings` name. `disk` finds a usable disk by name or id.
    pub fn edit(&mut self, settings: &Settings, disk: impl Fn(&str) -> Result<DiskRow, Refusal>) -> Result<(), Refusal> {
        use skep_proto::broker::BootDraft;
        let at = |field: &'static str| move |refusal: Refusal| refusal.field(field);
        let old = self.clone();
        self.cpus = settings.cpus.unwrap_or(self.cpus);
        self.topology = settings.topology.unwrap_or(self.topology);
        self.memory_mib = settings.memory_mib.unwrap_or(self.memory_mib);
        self.acceleration = settings.acceleration.unwrap_or(self.acceleration);
        self.screen = settings.screen.unwrap_or(self.screen);
        self.cpu_percent = settings.cpu_percent.unwrap_or(self.cpu_percent);
        edit_limits(&mut self.limits, &settings.limits);
        self.sound = settings.sound.unwrap_or(self.sound);
        self.sound_out = settings.sound_out.unwrap_or(self.sound_out);
        self.sound_in = settings.sound_in.unwrap_or(self.sound_in);
        self.tpm = settings.tpm.unwrap_or(self.tpm);
        self.channels = settings.channels.clone().unwrap_or_else(|| self.channels.clone());
        self.shares = settings.shares.clone().unwrap_or_else(|| self.shares.clone());
        edit_screen(&mut self.screen_properties, &settings.screen_properties);
        edit_board(&mut self.board, &settings.board);
        self.fw_cfg = settings.fw_cfg.clone().unwrap_or_else(|| self.fw_cfg.clone());
        self.places = settings.places.clone().unwrap_or_else(|| self.places.clone());
        if let Some(ports) = &settings.serial {
            let wrong = |e: BadPort| Refusal::new(Reason::InvalidValue, "machine").field("serial").note(e);
            let all = SerialPort::complete(ports).map_err(wrong)?;
            self.serial = if all == [SerialPort::FIRST] { Vec::new() } else { all };
        }
        self.gdb = settings.gdb.unwrap_or(self.gdb);
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
        // Disks are found again by their controllers' names.
        let seated: Vec<(DiskId, Text<31>, u8)> = self.seated().collect();
        if let Some(wanted) = &settings.controllers {
            let known = std::mem::take(&mut self.controllers);
            let slot =
                |bus: &Bus| known.iter().find(|old| old.name == bus.name && bus.slot == 0).map_or(bus.slot, |old| old.slot);
            self.controllers = wanted.iter().map(|bus| Bus { slot: slot(bus), ..bus.clone() }).collect();
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
                let (controller, read_only) = (draft.controller, draft.read_only || draft.controller.is_cd());
                let flags = draft.flags;
                let refused = |note: &str| {
                    let refusal = Refusal::new(Reason::InvalidValue, format_args!("disk {}", row.name));
                    Err(refusal.field("disks").note(note))
                };
                let controller = match &draft.on {
                    None => controller,
                    Some(on) => {
                        let bus = self.controllers.iter().find(|bus| bus.name == on.controller);
                        let Some(bus) = bus else {
                            return refused(&format!("the machine has no controller {}", on.controller));
                        };
                        match held(bus.kind, controller.is_cd()) {
                            Some(controller) => controller,
                            None => return refused(&format!("controller {} holds no CDs", bus.name)),
                        }
                    }
                };
                if draft.on.is_some() && flags.slot.is_some() {
                    return refused("it has no place of its own on the PCI bus: its controller has");
                }
                if flags.slot.is_some() && !matches!(controller, Controller::VirtioBlk | Controller::Nvme) {
                    return refused("it has no place of its own on the PCI bus: its controller has");
                }
                if let Some(what) = row.fixed().filter(|_| !read_only) {
                    let copy =
                        if row.iso { "attach it as a CD, or read-only" } else { "`skep launch` and `skep disk clone` copy it" };
                    return refused(&format!("it is {what}, which machines only read: {copy}"));
                }
                if (flags.ejected || flags.eject_after_first_boot) && !controller.is_cd() {
                    return refused("only a CD can be ejected");
                }
                disks.push(Disk { disk: row.id, kind: row.kind, controller, read_only, flags });
            }
            self.disks = disks;
        }
        let on: Vec<Option<DiskSeat>> = match &settings.disks {
            Some(drafts) => drafts.iter().map(|draft| draft.on.clone()).collect(),
            None => {
                let of = |disk: &Disk| seated.iter().find(|(id, ..)| *id == disk.disk);
                self.disks
                    .iter()
                    .map(|d| of(d).map(|(_, name, port)| DiskSeat { controller: name.clone(), port: Some(*port) }))
                    .collect()
            }
        };
        self.sit(&on, &seated)?;
        self.keep_from(&old, settings.places.is_some() || settings.shares.is_none());
        self.place_controllers()
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
            nics.push(model::Nic { slot, mac, model, at: self.kept_at(model::Device::Nic(slot)) });
        }
        let disks = (0..).zip(&self.disks).map(|(slot, disk)| model::Disk {
            slot,
            controller: model_controller(disk.controller),
            seat: self.seats.iter().find(|seat| seat.disk == slot).map(model_seat),
            format: format(disk.kind),
            layers: self.layers.iter().find(|layers| layers.slot == slot).map(DiskLayers::formats).unwrap_or_default(),
            read_only: disk.read_only,
            no_cache: disk.flags.no_cache,
            sync: disk.flags.sync,
            ejected: disk.flags.ejected,
            rates: model_rates(self.rates_of(slot)),
            at: self.kept_at(model::Device::Disk(slot)),
            // Stays with the disk, so a guest finds it again wherever it is attached.
            serial: format!("{:032x}", disk.disk.as_u128()).chars().take(20).collect(),
        });
        Ok(MachineSpec {
            uuid: model::Uuid::from_u128(id.as_u128()),
            cpu: model::Cpu { count: u16::try_from(self.cpus).map_err(|_| row())?, topology: self.topology.map(arranged) },
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
            sound_out: self.sound_out.map(|dsp| dsp.0),
            sound_in: self.sound_in.map(|dsp| dsp.0),
            tpm: self.tpm,
            channels: self.channels.iter().map(|name| model::Channel { name: name.as_str().to_owned() }).collect(),
            shares: (0..).zip(&self.shares).map(|(at, share)| shared(share, self.kept_at(model::Device::Share(at)))).collect(),
            clock: if self.board.local_time { model::Clock::LocalTime } else { model::Clock::Utc },
            board: model_board(self.board),
            fw_cfg: self.fw_cfg.iter().map(item).collect(),
            places: self.model_places(),
            serial_ports: self.ports().iter().map(|port| port.port()).collect(),
            controllers: self.controllers.iter().map(model_bus).collect(),
            gdb: match self.gdb {
                Gdb::Off => model::Gdb::Off,
                Gdb::On => model::Gdb::On,
                Gdb::Wait => model::Gdb::Wait,
            },
            ..MachineSpec::default()
        })
    }

    /// How much goes to and from the disk in a slot.
    pub fn rates_of(&self, slot: u8) -> DiskRates {
        self.rates.iter().find(|(there, _)| *there == slot).map(|(_, rates)| *rates).unwrap_or_default()
    }

    /// All its serial ports.
    pub fn ports(&self) -> Vec<SerialPort> {
        if self.serial.is_empty() { vec![SerialPort::FIRST] } else { self.serial.clone() }
    }

    /// Whether these are the same settings.
    pub fn is_set_as(&self, other: &Spec) -> bool {
        let same =
            Spec { own_order: other.own_order, accelerated: other.accelerated, layers: other.layers.clone(), ..self.clone() };
        Spec { rates: other.rates.clone(), ..same } == *other
    }

    /// Names of what differs, and when each would apply to a machine that runs with `self`.
    pub fn changes(&self, new: &Spec, id: MachineId) -> Result<Vec<(Text<32>, Applies)>, Fault> {
        let mut changes: Vec<Text<32>> = Vec::new();
        let mut same_files = new.clone();
        same_files.layers.clone_from(&self.layers);
        same_files.rates.clone_from(&self.rates);
        let fields = model::applies(&self.model(id)?, &same_files.model(id)?);
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
        // Their speeds and logs are the console-proxy's.
        if self.ports() != new.ports() {
            changes.push(Text::lossy("serial"));
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
        // The device of hardware acceleration is in the cell or not; a sound card needs a command line, of a runner that may be older.
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
            gdb: new.gdb,
            disks,
            ..self.clone()
        }
    }
}
