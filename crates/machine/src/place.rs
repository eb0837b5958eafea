//! Where each device sits on PCI bus 0. Guests name their interfaces and Windows its licences by these numbers, so adding or
//! removing one device must move no other: the table has a place for each kind, and disks, NICs and shares, which have turns in lists,
//! say where they are themselves once their turns have changed (`at`). The host bridge is 0 and the ISA bridge 31 on both hypervisors;
//! QEMU's q35 also has its AHCI controller at 31. A machine may choose another place for any of its devices ([`Place`]), of which several
//! can be functions of one device number.
//!
//! A place is one number: the device number in its lower five bits and the function in the upper three. Where no function is said, it is the
//! device number.

use crate::{Controller, MachineSpec};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Screen.
pub const SCREEN: u8 = 2;
/// Random number device.
pub const RNG: u8 = 3;
/// USB controller of the tablet.
pub const USB: u8 = 4;
/// AHCI controller (bhyve).
pub const AHCI: u8 = 5;
/// Virtio SCSI controller.
pub const SCSI: u8 = 6;
/// Sound card.
pub const SOUND: u8 = 7;
const FIRST_DISK: u8 = 8;
const FIRST_NIC: u8 = 16;
/// Virtio console of the channels.
pub const CHANNELS: u8 = 24;
const FIRST_SHARE: u8 = 25;

/// A device with a place of its own. Kept in databases: new ones come at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Device {
    /// The screen.
    Screen,
    /// The random number device.
    Rng,
    /// The tablet's USB controller.
    Usb,
    /// The AHCI controller (bhyve; QEMU's is a part of its chip set).
    Ahci,
    /// The virtio SCSI controller.
    Scsi,
    /// The sound card.
    Sound,
    /// The virtio console of the channels.
    Channels,
    /// A share, by its place in the list.
    Share(u8),
    /// A disk with a controller of its own, by its slot.
    Disk(u8),
    /// A NIC, by its slot.
    Nic(u8),
    /// A controller with a name, by its place in the list.
    Controller(u8),
}

/// The place of a function of a device number. Whatever is beyond 31 and 7 is cut off.
pub const fn at(slot: u8, function: u8) -> u8 {
    (slot & 31) | (function << 5)
}

/// The device number of a place.
pub const fn slot(place: u8) -> u8 {
    place & 31
}

/// The function of a place.
pub const fn function(place: u8) -> u8 {
    place >> 5
}

/// A place as it is written: `20`, or `20.1` where the function is another than 0.
pub fn written(place: u8) -> String {
    match function(place) {
        0 => slot(place).to_string(),
        function => format!("{}.{function}", slot(place)),
    }
}

/// A device's chosen place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which device; it need not be there.
    pub device: Device,
    /// Where on PCI bus 0: a place, see the module. Its device number is 1 to 30.
    pub slot: u8,
}

/// No device of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device is screen, rng, usb, ahci, scsi, sound, channels, shareN, diskN or nicN")]
pub struct BadDevice;

const NAMES: [(&str, Device); 7] = [
    ("screen", Device::Screen),
    ("rng", Device::Rng),
    ("usb", Device::Usb),
    ("ahci", Device::Ahci),
    ("scsi", Device::Scsi),
    ("sound", Device::Sound),
    ("channels", Device::Channels),
];

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(at) => write!(f, "share{at}"),
            Self::Disk(slot) => write!(f, "disk{slot}"),
            Self::Nic(slot) => write!(f, "nic{slot}"),
            Self::Controller(at) => write!(f, "controller{at}"),
            named => f.write_str(NAMES.iter().find(|(_, device)| device == named).map_or("device", |(name, _)| name)),
        }
    }
}

impl FromStr for Device {
    type Err = BadDevice;
    fn from_str(text: &str) -> Result<Self, BadDevice> {
        let number = |kind: &str| text.strip_prefix(kind).filter(|digits| digits.len() == 1)?.parse().ok();
        let numbered = number("share").map(Self::Share).or(number("disk").map(Self::Disk)).or(number("nic").map(Self::Nic));
        let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, device)| *device);
        let found = named.or(numbered).filter(|device| device.usual().is_some());
        found.ok_or(BadDevice)
    }
}

impl Device {
    /// Its place where none was chosen. `None`: no machine has such a device.
    pub const fn usual(self) -> Option<u8> {
        match self {
            Self::Screen => Some(SCREEN),
            Self::Rng => Some(RNG),
            Self::Usb => Some(USB),
            Self::Ahci => Some(AHCI),
            Self::Scsi => Some(SCSI),
            Self::Sound => Some(SOUND),
            Self::Channels => Some(CHANNELS),
            Self::Share(at) => share(at),
            Self::Disk(slot) => disk(slot),
            Self::Nic(slot) => nic(slot),
            // Each says where it is.
            Self::Controller(_) => None,
        }
    }
}

/// Disk in a slot (virtio-blk, NVMe), where none was chosen. `None` where there is no such slot.
pub const fn disk(slot: u8) -> Option<u8> {
    if slot < crate::limits::DISKS { Some(FIRST_DISK + slot) } else { None }
}

/// Share by its place in the list, likewise. `None` where there is no such place.
pub const fn share(at: u8) -> Option<u8> {
    if (at as usize) < crate::limits::SHARES { Some(FIRST_SHARE + at) } else { None }
}

/// NIC in a slot, likewise. `None` where there is no such slot.
pub const fn nic(slot: u8) -> Option<u8> {
    if slot < crate::limits::NICS { Some(FIRST_NIC + slot) } else { None }
}

impl MachineSpec {
    /// The place that was chosen for a device.
    pub fn chosen(&self, device: Device) -> Option<u8> {
        self.places.iter().find(|place| place.device == device).map(|place| place.slot)
    }

    /// The place of a device, chosen or not. `None`: no machine has such a device.
    pub fn place(&self, device: Device) -> Option<u8> {
        match device {
            Device::Controller(at) => self.controllers.get(usize::from(at)).map(|bus| bus.slot),
            _ => self.chosen(device).or(self.said(device)).or(device.usual()),
        }
    }

    /// Where a disk, NIC or share says that it is.
    fn said(&self, device: Device) -> Option<u8> {
        match device {
            Device::Disk(slot) => self.disks.iter().find(|disk| disk.slot == slot)?.at,
            Device::Nic(slot) => self.nics.iter().find(|nic| nic.slot == slot)?.at,
            Device::Share(at) => self.shares.get(usize::from(at))?.at,
            _ => None,
        }
    }

    /// Whether a place has its device number with others: they are its functions.
    pub fn is_shared(&self, place: u8) -> bool {
        let here = |device: &Device| self.place(*device).is_some_and(|other| slot(other) == slot(place));
        self.devices().iter().filter(|device| here(device)).count() > 1
    }

    /// Its devices with places of their own.
    pub fn devices(&self) -> Vec<Device> {
        let unseated = || self.disks.iter().filter(|disk| disk.seat.is_none());
        let on = |controllers: &[Controller]| unseated().any(|disk| controllers.contains(&disk.controller));
        let one = [
            (self.screen.is_some(), Device::Screen),
            (self.rng, Device::Rng),
            (self.screen.as_ref().is_some_and(|screen| screen.tablet), Device::Usb),
            (on(&[Controller::Ahci, Controller::AhciCd]), Device::Ahci),
            (on(&[Controller::VirtioScsi, Controller::VirtioScsiCd]), Device::Scsi),
            (self.sound, Device::Sound),
            (!self.channels.is_empty(), Device::Channels),
        ];
        let alone = |disk: &&crate::Disk| matches!(disk.controller, Controller::VirtioBlk | Controller::Nvme);
        let mut devices: Vec<Device> = one.into_iter().filter(|(there, _)| *there).map(|(_, device)| device).collect();
        devices.extend(unseated().filter(alone).map(|disk| Device::Disk(disk.slot)));
        devices.extend(self.nics.iter().map(|nic| Device::Nic(nic.slot)));
        devices.extend((0..).zip(&self.shares).map(|(at, _)| Device::Share(at)));
        devices.extend((0..).zip(&self.controllers).map(|(at, _)| Device::Controller(at)));
        devices
    }

    /// The controller that a disk sits on, and the seat; `None`: it is on the one that its kind usually has.
    pub fn seat(&self, disk: &crate::Disk) -> Option<(&crate::Bus, crate::Seat)> {
        let seat = disk.seat?;
        Some((self.controllers.get(usize::from(seat.controller))?, seat))
    }
}
