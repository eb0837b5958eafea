//! Where each device sits on PCI bus 0, function 0. A table, so that adding or removing one device moves no other: guests name
//! their interfaces and Windows its licences by these numbers. The host bridge is 0 and the ISA bridge 31 on both hypervisors;
//! QEMU's q35 also has its AHCI controller at 31.

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

/// Disk in a slot (virtio-blk, NVMe). `None` where there is no such slot.
pub fn disk(slot: u8) -> Option<u8> {
    (slot < crate::limits::DISKS).then(|| FIRST_DISK + slot)
}

/// Share by its place in the list. `None` where there is no such place.
pub fn share(at: u8) -> Option<u8> {
    (usize::from(at) < crate::limits::SHARES).then(|| FIRST_SHARE + at)
}

/// NIC in a slot. `None` where there is no such slot.
pub fn nic(slot: u8) -> Option<u8> {
    (slot < crate::limits::NICS).then(|| FIRST_NIC + slot)
}
