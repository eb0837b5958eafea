//! What a machine may be, on any host.

use crate::{Boot, Channel, Controller, Cpu, Disk, Format, FwCfg, Limits, MachineSpec, Screen, Share, place};
use std::collections::{BTreeMap, BTreeSet};
use std::{fmt::Display, ops::RangeInclusive};

/// The limits that [`MachineSpec::validate`] enforces.
pub mod limits {
    use std::ops::RangeInclusive;

    /// Virtual CPUs.
    pub const CPUS: RangeInclusive<u16> = 1..=256;
    /// Guest memory in MiB: 16 MiB to 16 TiB.
    pub const MEMORY_MIB: RangeInclusive<u32> = 16..=16 << 20;
    /// Slots for disks: 0 to 7.
    pub const DISKS: u8 = 8;
    /// Layers that a disk stands on.
    pub const LAYERS: usize = 16;
    /// Slots on the AHCI controller: 0 to 5.
    pub const AHCI_PORTS: u8 = 6;
    /// Slots for NICs: 0 to 7.
    pub const NICS: u8 = 8;
    /// Numbers of serial ports.
    pub const SERIAL_PORTS: RangeInclusive<u8> = 1..=4;
    /// Width of a screen in pixels.
    pub const WIDTH: RangeInclusive<u16> = 640..=3840;
    /// Height of a screen in pixels.
    pub const HEIGHT: RangeInclusive<u16> = 480..=2160;
    /// Bytes of a kernel command line: what fits on a line of QEMU's configuration file.
    pub const CMDLINE: usize = 900;
    /// Bytes of a disk's serial number: what virtio-blk carries.
    pub const SERIAL: usize = 20;
    /// Percent of one CPU.
    pub const CPU_PERCENT: RangeInclusive<u32> = 1..=25_600;
    /// MiB that a memory limit must leave to the hypervisor beside the guest's memory.
    pub const HYPERVISOR_MIB: u32 = 128;
    /// Processes and threads: fewer, and QEMU does not start.
    pub const TASKS: RangeInclusive<u32> = 16..=65_536;
    /// Bytes in a second: a guest's disk has to be read and written by pages at least.
    pub const BPS: RangeInclusive<u64> = 4096..=1 << 50;
    /// Reads or writes in a second.
    pub const IOPS: RangeInclusive<u64> = 1..=100_000_000;
    /// Bytes that go to or from one disk in a second.
    pub const DISK_BPS: RangeInclusive<u64> = 65_536..=1_000_000_000_000;
    /// Reads or writes of one disk in a second.
    pub const DISK_IOPS: RangeInclusive<u64> = 10..=100_000_000;
    /// CPUs of a host: what the kernels' own sets of them hold.
    pub const HOST_CPUS: RangeInclusive<u16> = 0..=1023;
    /// Nice values.
    pub const PRIORITY: RangeInclusive<i8> = -20..=19;
    /// Channels.
    pub const CHANNELS: usize = 4;
    /// Bytes of a channel's name.
    pub const CHANNEL_NAME: usize = 63;
    /// Shares.
    pub const SHARES: usize = 4;
    /// Items of fw_cfg.
    pub const FW_CFG: usize = 8;
    /// Bytes of an item's name: what QEMU's directory of them holds.
    pub const FW_CFG_NAME: usize = 55;
    /// Bytes of an item's text: with the rest of a machine's settings all of them fit one record.
    pub const FW_CFG_VALUE: usize = 128;
    /// Device numbers on the PCI bus: 0 is the host bridge, 31 the ISA bridge.
    pub const PCI_SLOTS: RangeInclusive<u8> = 1..=30;
    /// Functions of a device number.
    pub const PCI_FUNCTIONS: RangeInclusive<u8> = 0..=7;
    /// Bytes of the name of a keyboard layout.
    pub const KEYBOARD: usize = 32;
    /// Controllers with names.
    pub const CONTROLLERS: usize = 4;
    /// Bytes of a controller's name.
    pub const CONTROLLER_NAME: usize = 31;
    /// Bytes of a share's name: what FreeBSD's and Linux's clients take as a tag without question.
    pub const SHARE_NAME: usize = 31;
}

/// A field with a value that no machine may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: it must be {limit}")]
pub struct Invalid {
    /// Path of the field, like `disks[2].serial` (the number is the slot).
    pub field: String,
    /// The value, shortened to 64 characters and made printable.
    pub value: String,
    /// What it must be.
    pub limit: String,
}

fn invalid(field: impl Into<String>, value: impl Display, limit: impl Into<String>) -> Invalid {
    let value: String = value.to_string().chars().take(64).flat_map(char::escape_default).collect();
    Invalid { field: field.into(), value: if value.is_empty() { "empty".into() } else { value }, limit: limit.into() }
}

fn within<T: PartialOrd + Display>(field: &str, value: T, range: &RangeInclusive<T>) -> Result<(), Invalid> {
    if range.contains(&value) { Ok(()) } else { Err(invalid(field, value, format!("{} to {}", range.start(), range.end()))) }
}

/// Each slot at most once, and below the number of slots.
fn slots(field: &str, slots: impl Iterator<Item = u8>, count: u8) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for slot in slots {
        if slot >= count {
            return Err(invalid(format!("{field}[{slot}].slot"), slot, format!("0 to {}", count - 1)));
        }
        if !seen.insert(slot) {
            return Err(invalid(format!("{field}[{slot}].slot"), slot, "used once"));
        }
    }
    Ok(())
}

impl MachineSpec {
    /// Checks every field; the error names the first one that no machine may have.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.uuid.is_nil() {
            return Err(invalid("uuid", self.uuid, "an identity, not nil"));
        }
        self.cpu.validate()?;
        within("memory_mib", self.memory_mib, &limits::MEMORY_MIB)?;
        self.boot.validate()?;
        slots("disks", self.disks.iter().map(|d| d.slot), limits::DISKS)?;
        self.disks.iter().try_for_each(Disk::validate)?;
        self.ports()?;
        slots("nics", self.nics.iter().map(|n| n.slot), limits::NICS)?;
        for (at, nic) in self.nics.iter().enumerate() {
            if self.nics.iter().take(at).any(|other| other.mac == nic.mac) {
                return Err(invalid(format!("nics[{}].mac", nic.slot), nic.mac, "another than that of the machine's other NICs"));
            }
        }
        self.screen.iter().try_for_each(Screen::validate)?;
        self.serial_ports.iter().try_for_each(|&port| within("serial_ports", port, &limits::SERIAL_PORTS))?;
        self.limits.validate(self.memory_mib, self.cpu.count)?;
        channels(&self.channels)?;
        shares(&self.shares)?;
        if !self.shares.is_empty() && self.disks.iter().any(|disk| disk.format == crate::Format::Remote) {
            // Its hypervisor may connect to sockets of its cell, and what is in a directory of the host is not its.
            return Err(invalid("shares", "shares beside an iSCSI disk", "one or the other"));
        }
        fw_cfg(&self.fw_cfg)?;
        self.seats()?;
        self.places()
    }

    /// Each port of the AHCI controller has one disk, and each target of the virtio SCSI controller.
    fn ports(&self) -> Result<(), Invalid> {
        let mut taken = BTreeMap::new();
        for disk in self.disks.iter().filter(|disk| disk.seat.is_none()) {
            let (kind, most) = match disk.controller {
                Controller::VirtioBlk | Controller::Nvme => continue,
                Controller::Ahci | Controller::AhciCd => ("AHCI", limits::AHCI_PORTS),
                Controller::VirtioScsi | Controller::VirtioScsiCd => ("virtio SCSI", limits::DISKS),
            };
            let (field, port) = (format!("disks[{}].slot", disk.slot), disk.port());
            if port >= most {
                return Err(invalid(field, port, format!("0 to {} on the {kind} controller", most - 1)));
            }
            if let Some(other) = taken.insert((kind, port), disk.slot) {
                return Err(invalid(field, port, format!("another than that of disk {other} on the {kind} controller")));
            }
        }
        Ok(())
    }

    /// Controllers have names and places, and each of their seats one disk of their kind.
    fn seats(&self) -> Result<(), Invalid> {
        let buses = &self.controllers;
        if buses.len() > limits::CONTROLLERS {
            let value = format!("{} controllers", buses.len());
            return Err(invalid("controllers", value, format!("at most {}", limits::CONTROLLERS)));
        }
        for (at, bus) in buses.iter().enumerate() {
            let field = |part: &str| format!("controllers[{at}].{part}");
            word(|| field("name"), &bus.name, limits::CONTROLLER_NAME)?;
            if buses.iter().take(at).any(|other| other.name == bus.name) {
                return Err(invalid(field("name"), &bus.name, "another than those of the machine's other controllers"));
            }
            within(&field("slot"), place::slot(bus.slot), &limits::PCI_SLOTS)?;
        }
        let mut taken = BTreeMap::new();
        for disk in &self.disks {
            let Some(seat) = disk.seat else { continue };
            let field = |part: &str| format!("disks[{}].{part}", disk.slot);
            let Some(bus) = buses.get(usize::from(seat.controller)) else {
                return Err(invalid(field("controller"), seat.controller, "one of the machine's controllers"));
            };
            if bus.kind.holds(disk.controller.is_cd()) != Some(disk.controller) {
                return Err(invalid(
                    field("controller"),
                    format_args!("{:?}", disk.controller),
                    format!("what {} holds", bus.name),
                ));
            }
            within(&field("port"), seat.port, &(0..=bus.kind.seats() - 1))?;
            if let Some(other) = taken.insert((seat.controller, seat.port), disk.slot) {
                let limit = format!("another than that of disk {other} on controller {}", bus.name);
                return Err(invalid(field("port"), seat.port, limit));
            }
        }
        Ok(())
    }

    /// Each device once, and no two of those that are there at one place. What was chosen yields to what was not. Functions are seen by a guest
    /// only where there is a function 0.
    fn places(&self) -> Result<(), Invalid> {
        for (at, place) in self.places.iter().enumerate() {
            let field = format!("places.{}", place.device);
            if place.device.usual().is_none() {
                return Err(invalid("places", place.device, "a device that a machine can have"));
            }
            within(&field, place::slot(place.slot), &limits::PCI_SLOTS)?;
            if self.places.iter().take(at).any(|other| other.device == place.device) {
                return Err(invalid(field, place::written(place.slot), "said once"));
            }
        }
        let mut taken = BTreeMap::new();
        let (chosen, usual): (Vec<_>, Vec<_>) = self.devices().into_iter().partition(|&d| self.chosen(d).is_some());
        for device in usual.into_iter().chain(chosen) {
            let Some(at) = self.place(device) else { continue };
            within(&format!("places.{device}"), place::slot(at), &limits::PCI_SLOTS)?;
            if let Some(other) = taken.insert(at, device) {
                return Err(invalid(format!("places.{device}"), place::written(at), format!("another than that of {other}")));
            }
        }
        if let Some((&at, device)) = taken.iter().find(|(at, _)| !taken.contains_key(&place::slot(**at))) {
            let limit = format!("at a device number whose function 0 something has: nothing is at {}", place::slot(at));
            return Err(invalid(format!("places.{device}"), place::written(at), limit));
        }
        Ok(())
    }
}

fn channels(channels: &[Channel]) -> Result<(), Invalid> {
    if channels.len() > limits::CHANNELS {
        return Err(invalid("channels", format_args!("{} channels", channels.len()), format!("at most {}", limits::CHANNELS)));
    }
    for (at, Channel { name }) in channels.iter().enumerate() {
        let field = || format!("channels[{at}].name");
        word(field, name, limits::CHANNEL_NAME)?;
        if channels.iter().take(at).any(|other| other.name == *name) {
            return Err(invalid(field(), name, "another than those of the machine's other channels"));
        }
    }
    Ok(())
}

fn shares(shares: &[Share]) -> Result<(), Invalid> {
    if shares.len() > limits::SHARES {
        return Err(invalid("shares", format_args!("{} shares", shares.len()), format!("at most {}", limits::SHARES)));
    }
    for (at, Share { name, .. }) in shares.iter().enumerate() {
        let field = || format!("shares[{at}].name");
        word(field, name, limits::SHARE_NAME)?;
        if shares.iter().take(at).any(|other| other.name == *name) {
            return Err(invalid(field(), name, "another than those of the machine's other shares"));
        }
    }
    Ok(())
}

fn fw_cfg(items: &[FwCfg]) -> Result<(), Invalid> {
    if items.len() > limits::FW_CFG {
        return Err(invalid("fw_cfg", format_args!("{} items", items.len()), format!("at most {}", limits::FW_CFG)));
    }
    for (at, FwCfg { name, value }) in items.iter().enumerate() {
        let field = |part: &str| format!("fw_cfg[{at}].{part}");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        let rest = name.strip_prefix("opt/").unwrap_or_default();
        if rest.is_empty() || name.len() > limits::FW_CFG_NAME || !rest.bytes().all(plain) {
            let limit = format!("opt/ and letters, digits, ., _, - or /, at most {} in all", limits::FW_CFG_NAME);
            return Err(invalid(field("name"), name, limit));
        }
        if items.iter().take(at).any(|other| other.name == *name) {
            return Err(invalid(field("name"), name, "another than those of the machine's other items"));
        }
        let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"');
        if value.is_empty() || value.len() > limits::FW_CFG_VALUE || !printable {
            let limit = format!("1 to {} printable ASCII characters without the double quote", limits::FW_CFG_VALUE);
            return Err(invalid(field("value"), value, limit));
        }
    }
    Ok(())
}

/// A name that guests find something by.
fn word(field: impl Fn() -> String, name: &str, most: usize) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && name.len() <= most && name.bytes().all(plain) {
        return Ok(());
    }
    Err(invalid(field(), name, format!("1 to {most} letters, digits, ., _ or -, a letter or digit first")))
}

impl Cpu {
    fn validate(&self) -> Result<(), Invalid> {
        within("cpu.count", self.count, &limits::CPUS)?;
        let Some(t) = self.topology else {
            return Ok(());
        };
        let product = u64::from(t.sockets) * u64::from(t.cores) * u64::from(t.threads);
        if product == u64::from(self.count) {
            return Ok(());
        }
        let value = format!("{} sockets x {} cores x {} threads", t.sockets, t.cores, t.threads);
        Err(invalid("cpu.topology", value, format!("an arrangement of {} CPUs", self.count)))
    }
}

impl Boot {
    fn validate(&self) -> Result<(), Invalid> {
        let Self::Direct { cmdline, .. } = self else {
            return Ok(());
        };
        if cmdline.len() > limits::CMDLINE {
            let limit = format!("at most {} bytes, not {}", limits::CMDLINE, cmdline.len());
            return Err(invalid("boot.cmdline", cmdline, limit));
        }
        if cmdline.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"') {
            Ok(())
        } else {
            Err(invalid("boot.cmdline", cmdline, "printable ASCII without the double quote"))
        }
    }
}

impl Disk {
    fn validate(&self) -> Result<(), Invalid> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.serial.len() > limits::SERIAL || !self.serial.bytes().all(plain) {
            let limit = format!("at most {} letters, digits, - or _", limits::SERIAL);
            return Err(invalid(format!("disks[{}].serial", self.slot), &self.serial, limit));
        }
        let mut above = [self.format].into_iter().chain(self.layers.iter().copied()).take(self.layers.len());
        if self.layers.len() > limits::LAYERS || above.any(|format| format != Format::Qcow2) {
            let limit = format!("at most {}, with nothing under a raw one", limits::LAYERS);
            return Err(invalid(format!("disks[{}].layers", self.slot), self.layers.len(), limit));
        }
        let crate::DiskRates { read_bps, write_bps, read_iops, write_iops } = self.rates;
        let rates = [
            ("read_bps", read_bps, limits::DISK_BPS),
            ("write_bps", write_bps, limits::DISK_BPS),
            ("read_iops", read_iops, limits::DISK_IOPS),
            ("write_iops", write_iops, limits::DISK_IOPS),
        ];
        for (field, rate, range) in rates {
            rate.map_or(Ok(()), |rate| within(&format!("disks[{}].rates.{field}", self.slot), rate, &range))?;
        }
        if self.ejected && !self.controller.is_cd() {
            return Err(invalid(format!("disks[{}].ejected", self.slot), "yes", "no, except for a CD"));
        }
        Ok(())
    }
}

impl Screen {
    fn validate(&self) -> Result<(), Invalid> {
        within("screen.width", self.width, &limits::WIDTH)?;
        within("screen.height", self.height, &limits::HEIGHT)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if self.keyboard.len() > limits::KEYBOARD || !self.keyboard.bytes().all(plain) {
            let limit = format!("at most {} letters, digits, _ or -", limits::KEYBOARD);
            return Err(invalid("screen.keyboard", &self.keyboard, limit));
        }
        Ok(())
    }
}

impl Limits {
    fn validate(&self, memory_mib: u32, vcpus: u16) -> Result<(), Invalid> {
        self.cpu_percent.iter().try_for_each(|&v| within("limits.cpu_percent", v, &limits::CPU_PERCENT))?;
        self.tasks.iter().try_for_each(|&v| within("limits.tasks", v, &limits::TASKS))?;
        self.pcpu.iter().try_for_each(|&v| within("limits.pcpu", v, &limits::CPU_PERCENT))?;
        for (field, value, range) in [
            ("limits.read_bps", self.read_bps, &limits::BPS),
            ("limits.write_bps", self.write_bps, &limits::BPS),
            ("limits.read_iops", self.read_iops, &limits::IOPS),
            ("limits.write_iops", self.write_iops, &limits::IOPS),
        ] {
            value.iter().try_for_each(|&v| within(field, v, range))?;
        }
        self.cpus.iter().try_for_each(|&cpu| within("limits.cpus", cpu, &limits::HOST_CPUS))?;
        for (&vcpu, &cpu) in &self.pins {
            within("limits.pins", vcpu, &(0..=vcpus.saturating_sub(1)))?;
            within("limits.pins", cpu, &limits::HOST_CPUS)?;
            if !self.cpus.is_empty() && !self.cpus.contains(&cpu) {
                return Err(invalid("limits.pins", format!("{vcpu}:{cpu}"), "a CPU that limits.cpus allows"));
            }
        }
        within("limits.priority", self.priority, &limits::PRIORITY)?;
        let least = memory_mib.saturating_add(limits::HYPERVISOR_MIB);
        match self.memory_mib {
            Some(v) if v < least => {
                let limit =
                    format!("at least {least}: the guest's {memory_mib} and {} for its hypervisor", limits::HYPERVISOR_MIB);
                Err(invalid("limits.memory_mib", v, limit))
            }
            _ => Ok(()),
        }
    }
}
