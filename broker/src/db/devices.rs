//! Devices of machines as columns, and what older brokers wrote of them.

use super::machines::{MachineRow, Machines};
use super::sql::{bus_kind, gdb, restart};
use super::{Change, Fault, Id};
use crate::spec::{Boot, Disk, Nic, Spec};
use rusqlite::types::FromSqlError;
use rusqlite::{Row, params};
use serde::Deserialize;
use skep_machine::{self as model, Device};
use skep_proto::broker::{
    Acceleration, Board, Bus, Controller, DiskFlags, FwCfg, Limits, NicModel, Place, Screen, Topology, Upkeep,
};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskId, Dsp, MachineId, NicId, SerialPort, Share, Text, wire};

/// The columns that [`read`] reads.
pub(super) const COLUMNS: &str = "m.sound, m.tpm, m.channels, m.shares, m.bios, m.screen_width, m.screen_height, m.screen_wait,
    m.keyboard, m.tablet, m.local_time, m.acpi, m.amd_host_bridge, m.exit_on_halt, m.exit_on_pause, m.strict_msr, m.x2apic,
    m.fw_cfg, m.places, m.serial, m.gdb,
    m.controllers, m.sound_out, m.sound_in, m.topology, m.share_places";

/// Devices of a row; all else is the default.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Spec> {
    let text = |name: &str| row.get::<_, String>(name);
    Ok(Spec {
        sound: row.get("sound")?,
        tpm: row.get("tpm")?,
        channels: text("channels")?.split_whitespace().map(Text::lossy).collect(),
        shares: text("shares")?.split_whitespace().map(share).collect::<Result<_, _>>()?,
        screen_properties: Screen {
            width: row.get("screen_width")?,
            height: row.get("screen_height")?,
            wait: row.get("screen_wait")?,
            keyboard: row.get::<_, Id<_>>("keyboard")?.0,
            tablet: row.get("tablet")?,
        },
        board: Board {
            local_time: row.get("local_time")?,
            acpi: row.get("acpi")?,
            amd_host_bridge: row.get("amd_host_bridge")?,
            exit_on_halt: row.get("exit_on_halt")?,
            exit_on_pause: row.get("exit_on_pause")?,
            strict_msr: row.get("strict_msr")?,
            x2apic: row.get("x2apic")?,
        },
        fw_cfg: text("fw_cfg")?.lines().map(item).collect::<Result<_, _>>()?,
        places: text("places")?.split_whitespace().map(place).collect::<Result<_, _>>()?,
        serial: text("serial")?.split_whitespace().map(port).collect::<Result<_, _>>()?,
        gdb: gdb::from(row.get("gdb")?)?,
        controllers: text("controllers")?.split_whitespace().map(bus).collect::<Result<_, _>>()?,
        sound_out: row.get::<_, Option<u8>>("sound_out")?.map(Dsp),
        sound_in: row.get::<_, Option<u8>>("sound_in")?.map(Dsp),
        kept: (0..).zip(text("share_places")?.split_whitespace()).filter_map(share_place).collect(),
        topology: Some(text("topology")?).filter(|text| !text.is_empty()).map(|text| arrangement(&text)).transpose()?,
        ..Spec::default()
    })
}

fn share(text: &str) -> Result<Share, FromSqlError> {
    let (name, read_only) = text.strip_suffix(",ro").map_or((text, false), |name| (name, true));
    Ok(Share { name: name.parse().map_err(|_| FromSqlError::InvalidType)?, read_only })
}

/// Where a share is; 0: where it was chosen to be.
fn share_place((at, text): (u8, &str)) -> Option<model::Place> {
    let slot = text.parse().ok().filter(|slot| *slot > 0)?;
    Some(model::Place { device: Device::Share(at), slot })
}

fn item(line: &str) -> Result<FwCfg, FromSqlError> {
    let (name, value) = line.split_once('=').ok_or(FromSqlError::InvalidType)?;
    let wrong = |_| FromSqlError::InvalidType;
    Ok(FwCfg { name: name.parse().map_err(wrong)?, value: value.parse().map_err(wrong)? })
}

fn place(text: &str) -> Result<Place, FromSqlError> {
    let (device, slot) = text.split_once('=').ok_or(FromSqlError::InvalidType)?;
    let device = device.parse().map_err(|_| FromSqlError::InvalidType)?;
    Ok(Place { device, slot: slot.parse().map_err(|_| FromSqlError::InvalidType)? })
}

fn port(text: &str) -> Result<SerialPort, FromSqlError> {
    text.parse().map_err(|_| FromSqlError::InvalidType)
}

/// `SOCKETS,CORES,THREADS`.
fn arrangement(text: &str) -> Result<Topology, FromSqlError> {
    let mut numbers = text.split(',').map(|number| number.parse::<u16>().map_err(|_| FromSqlError::InvalidType));
    let mut next = || numbers.next().unwrap_or(Err(FromSqlError::InvalidType));
    Ok(Topology { sockets: next()?, cores: next()?, threads: next()? })
}

/// `KIND:SLOT:NAME`.
fn bus(text: &str) -> Result<Bus, FromSqlError> {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().ok_or(FromSqlError::InvalidType);
    let wrong = |_| FromSqlError::InvalidType;
    let kind = bus_kind::from(next()?.parse().map_err(wrong)?)?;
    let slot = next()?.parse().map_err(wrong)?;
    Ok(Bus { kind, slot, name: next()?.parse().map_err(|_| FromSqlError::InvalidType)? })
}

impl Change<'_> {
    /// Writes which places its disks, NICs and shares keep.
    pub(super) fn set_places(&self, machine: &MachineRow) -> Result<(), Fault> {
        let (id, spec) = (Id(machine.id), &machine.spec);
        let sql = "UPDATE machine_disks SET place = ? WHERE machine = ? AND disk = ?";
        for (at, disk) in (0..).zip(&spec.disks) {
            self.prepare_cached(sql)?.execute(params![spec.kept_at(Device::Disk(at)), id, Id(disk.disk)])?;
        }
        let sql = "UPDATE nics SET place = ? WHERE machine = ? AND id = ?";
        for (at, nic) in (0..).zip(&spec.nics) {
            self.prepare_cached(sql)?.execute(params![spec.kept_at(Device::Nic(at)), id, Id(nic.nic)])?;
        }
        let share = |(at, _)| spec.kept_at(Device::Share(at)).unwrap_or(0).to_string();
        let shares = (0..).zip(&spec.shares).map(share).collect::<Vec<_>>().join(" ");
        self.prepare_cached("UPDATE machines SET share_places = ? WHERE id = ?")?.execute(params![shares, id])?;
        Ok(())
    }

    /// Gives those of its disks, NICs and shares places that have none: NICs come one by one.
    pub fn keep_places(&self, id: MachineId) -> Result<(), Fault> {
        let Some(mut machine) = self.machine(id)? else { return Ok(()) };
        machine.spec.keep();
        self.set_places(&machine)
    }

    /// Writes devices other than disks and NICs, and whether it starts with the host, and again.
    pub(super) fn set_devices(&self, machine: &MachineRow) -> Result<(), Fault> {
        let Spec {
            boot,
            sound,
            tpm,
            channels,
            shares,
            screen_properties,
            board,
            fw_cfg,
            places,
            serial,
            gdb,
            controllers,
            sound_out,
            sound_in,
            topology,
            ..
        } = &machine.spec;
        let joined = |parts: Vec<String>, between: &str| parts.join(between);
        let channels = joined(channels.iter().map(ToString::to_string).collect(), " ");
        let share = |share: &Share| format!("{}{}", share.name, if share.read_only { ",ro" } else { "" });
        let shares = joined(shares.iter().map(share).collect(), " ");
        let fw_cfg = joined(fw_cfg.iter().map(|item| format!("{}={}", item.name, item.value)).collect(), "\n");
        let places = joined(places.iter().map(|place| format!("{}={}", place.device, place.slot)).collect(), " ");
        let sql =
            "UPDATE machines SET sound = ?, tpm = ?, channels = ?, shares = ?, fw_cfg = ?, places = ?, bios = ? WHERE id = ?";
        let bios = *boot == Boot::Bios;
        self.prepare_cached(sql)?.execute(params![sound, tpm, channels, shares, fw_cfg, places, bios, Id(machine.id)])?;
        let serial = joined(serial.iter().map(ToString::to_string).collect(), " ");
        let bus = |bus: &Bus| format!("{}:{}:{}", bus_kind::number(bus.kind), bus.slot, bus.name);
        let controllers = joined(controllers.iter().map(bus).collect(), " ");
        let topology = topology.map(|t| format!("{},{},{}", t.sockets, t.cores, t.threads)).unwrap_or_default();
        let sql =
            "UPDATE machines SET serial = ?, gdb = ?, controllers = ?, sound_out = ?, sound_in = ?, topology = ? WHERE id = ?";
        let (gdb, [out, into]) = (gdb::number(*gdb), [sound_out, sound_in].map(|dsp| dsp.map(|dsp| dsp.0)));
        self.prepare_cached(sql)?.execute(params![serial, gdb, controllers, out, into, topology, Id(machine.id)])?;
        let Screen { width, height, wait, keyboard, tablet } = screen_properties;
        let sql =
            "UPDATE machines SET screen_width = ?, screen_height = ?, screen_wait = ?, keyboard = ?, tablet = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![width, height, wait, Id(keyboard), tablet, Id(machine.id)])?;
        let Board { local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic } = *board;
        let sql = "UPDATE machines SET local_time = ?, acpi = ?, amd_host_bridge = ?, exit_on_halt = ?, exit_on_pause = ?,
                   strict_msr = ?, x2apic = ? WHERE id = ?";
        let values = params![local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic, Id(machine.id)];
        self.prepare_cached(sql)?.execute(values)?;
        let Upkeep { autostart, order, delay_s, restart, stop_timeout_s } = machine.upkeep;
        let sql =
            "UPDATE machines SET autostart = ?, start_order = ?, start_delay_s = ?, restart = ?, stop_timeout_s = ? WHERE id = ?";
        let values = params![autostart, order, delay_s, restart::number(restart), stop_timeout_s, Id(machine.id)];
        self.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// A specification as brokers wrote it that knew no flags of disks and no models of NICs (until migration 9).
#[derive(Deserialize)]
struct Before {
    cpus: u32,
    memory_mib: u64,
    boot: Boot,
    acceleration: Acceleration,
    screen: bool,
    cpu_percent: u32,
    disks: Vec<(DiskId, DiskKind, Controller, bool)>,
    nics: Vec<(NicId, [u8; 6])>,
    limits: Limits,
    sound: bool,
    tpm: bool,
    channels: Vec<Text<63>>,
    own_order: bool,
    shares: Vec<Share>,
}

impl From<Before> for Spec {
    fn from(before: Before) -> Self {
        let Before { cpus, memory_mib, boot, acceleration, screen, cpu_percent, disks, nics, .. } = before;
        let Before { limits, sound, tpm, channels, own_order, shares, .. } = before;
        let disk = |(disk, kind, controller, read_only)| Disk { disk, kind, controller, read_only, flags: DiskFlags::default() };
        let nic = |(nic, mac)| Nic { nic, mac, model: NicModel::default(), slot: None };
        let (disks, nics) = (disks.into_iter().map(disk).collect(), nics.into_iter().map(nic).collect());
        Self {
            cpus,
            memory_mib,
            boot,
            acceleration,
            screen,
            cpu_percent,
            disks,
            nics,
            limits,
            sound,
            tpm,
            channels,
            own_order,
            shares,
            ..Self::default()
        }
    }
}

/// What ran before places were kept has those of its turns.
fn kept(mut spec: Spec) -> Spec {
    spec.keep();
    spec
}

/// What a hypervisor was configured with. What an older broker wrote may lack fields at the end: zeros are the defaults of those.
pub(super) fn as_applied(mut bytes: Vec<u8>) -> Option<Spec> {
    const ADDED: usize = 17;
    /// Since the flags of disks: serial ports, gdb, controllers, seats, two sound devices, layers, rates, topology, places kept, whether it is accelerated. Few enough that one from before those is not taken for one with them.
    const SINCE: usize = 11;
    let mut longer = bytes.clone();
    for _ in 0..=SINCE {
        if let Ok(spec) = wire::decode(&longer) {
            return Some(kept(spec));
        }
        longer.push(0);
    }
    for _ in 0..=ADDED {
        if let Ok(spec) = wire::decode::<Before>(&bytes) {
            return Some(kept(spec.into()));
        }
        bytes.push(0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_broker_applied_is_read_with_the_defaults_of_what_came_since() {
        let new = Spec { cpus: 3, screen: true, board: Board { acpi: false, ..Board::default() }, ..Spec::default() };
        let bytes = wire::encode(&new).expect("encodes");
        for lacks in 0..=7 {
            let older = bytes.get(..bytes.len() - lacks).expect("longer").to_vec();
            assert_eq!(as_applied(older), Some(new.clone()), "{lacks} bytes");
        }
        let (disk, nic) = (DiskId::random(), NicId::random());
        let flags = DiskFlags::default();
        let root = Disk { disk, kind: DiskKind::Raw, controller: Controller::Nvme, read_only: true, flags };
        let eth = Nic { nic, mac: [2; 6], model: NicModel::VirtioNet, slot: None };
        let at = [(Device::Disk(0), 8), (Device::Nic(0), 16)];
        let kept = at.map(|(device, slot)| model::Place { device, slot }).to_vec();
        let spec = Spec { cpus: 3, disks: vec![root], nics: vec![eth], kept, ..Spec::default() };
        let (boot, acceleration) = (&spec.boot, spec.acceleration);
        let disks = vec![(disk, DiskKind::Raw, Controller::Nvme, true)];
        let rest = (&spec.limits, false, false, Vec::<Text<63>>::new(), false, Vec::<Share>::new());
        let before = (3u32, spec.memory_mib, boot, acceleration, spec.screen, 0u32, disks, vec![(nic, [2u8; 6])], rest);
        let bytes = wire::encode(&before).expect("encodes");
        assert_eq!(as_applied(bytes.clone()), Some(spec.clone()));
        // Shares; before them sound, TPM, channels; before them the twelve limits.
        for lacks in [1, 4, 16] {
            let older = bytes.get(..bytes.len() - lacks).expect("longer").to_vec();
            wire::decode::<Before>(&older).err().expect("it lacks something");
            assert_eq!(as_applied(older), Some(spec.clone()), "{lacks} bytes");
        }
        assert_eq!(as_applied(vec![0xff; 40]), None);
    }
}
