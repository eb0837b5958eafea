//! Under which number QEMU finds each inherited descriptor.

use std::collections::BTreeMap;

/// Numbers of the descriptors that QEMU inherits. Each must be open without close-on-exec when it starts; QEMU closes a disk's after
/// duplicating it, so the runner keeps originals of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fds {
    /// QMP: one end of a stream socket pair.
    pub qmp: i32,
    /// Serial ports, COM1 first: one end of a stream socket pair each. The other end must be read always: an unread line stops the guest
    /// after 278 bytes.
    pub serials: Vec<i32>,
    /// UEFI variable store, opened for reading and writing.
    pub vars: i32,
    /// Disks by slot. Opened read-only if and only if [`skep_machine::Disk::is_read_only`]; QEMU refuses the wrong mode.
    pub disks: BTreeMap<u8, i32>,
    /// Layers that disks stand on, by slot of the disk, then by how many layers are under each. Opened read-only.
    pub layers: BTreeMap<(u8, u8), i32>,
    /// Taps by NIC slot: `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    pub taps: BTreeMap<u8, i32>,
}

impl Fds {
    /// QMP.
    pub const QMP: i32 = 3;
    /// UEFI variable store.
    pub const VARS: i32 = 8;

    /// Serial port 0 to 3.
    pub const fn serial(port: u8) -> i32 {
        4 + port as i32
    }
    /// Disk in a slot.
    pub const fn disk(slot: u8) -> i32 {
        16 + slot as i32
    }
    /// A layer of the disk in a slot that has `at` layers under it.
    pub const fn layer(slot: u8, at: u8) -> i32 {
        64 + slot as i32 * skep_machine::limits::LAYERS as i32 + at as i32
    }
    /// Tap of the NIC in a slot.
    pub const fn tap(slot: u8) -> i32 {
        32 + slot as i32
    }
    /// The numbers that skep uses: those of the functions above.
    pub fn standard() -> Self {
        use skep_machine::limits::{DISKS, LAYERS, NICS, SERIAL_PORTS};
        let under = |slot| (0..LAYERS as u8).map(move |at| ((slot, at), Self::layer(slot, at)));
        Self {
            qmp: Self::QMP,
            serials: (0..*SERIAL_PORTS.end()).map(Self::serial).collect(),
            vars: Self::VARS,
            disks: (0..DISKS).map(|slot| (slot, Self::disk(slot))).collect(),
            layers: (0..DISKS).flat_map(under).collect(),
            taps: (0..NICS).map(|slot| (slot, Self::tap(slot))).collect(),
        }
    }
}
