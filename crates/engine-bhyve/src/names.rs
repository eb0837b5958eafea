//! Under which names bhyve finds what is not in the model.

use std::collections::BTreeMap;

/// Where the screen's VNC server listens inside the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenAddress {
    /// A UNIX socket, from 15 on: needs no address in the cell. bhyve removes an old one.
    Socket(String),
    /// Port 5900 of the cell's own loopback, for 13 and 14: the cell then has a network stack of its own with `lo0` only.
    Loopback,
}

/// Where the cell has the value of an item of fw_cfg, by its place in [`crate::items`]. On a command line anybody could read it.
pub fn item_file(at: usize) -> String {
    format!("/run/fw_cfg{at}")
}

/// Names and numbers of what the cell gives bhyve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The vmm instance: host-wide, so it carries skep's instance and the machine; letters, digits, `-` and `_`, at most 32.
    pub vm: String,
    /// UEFI firmware in the cell's root.
    pub bootrom: String,
    /// Descriptor of the UEFI variable store.
    pub vars: i32,
    /// Descriptors of the serial ports, COM1 first: terminals, opened non-blocking, since bhyve's own wish for it is lost.
    pub serials: Vec<i32>,
    /// Descriptors of disks by slot. bhyve's open flags are lost too: the opener's count.
    pub disks: BTreeMap<u8, i32>,
    /// Names of taps by NIC slot, as the cell's devfs shows them below /dev; each begins with `tap`.
    pub taps: BTreeMap<u8, String>,
    /// The screen's address.
    pub screen: ScreenAddress,
    /// UNIX sockets that bhyve binds for the channels, in their order. An old one must be gone.
    pub channels: Vec<String>,
    /// Where the cell has the directories that are shared, in their order.
    pub shares: Vec<String>,
}

impl Names {
    /// The numbers and names that skep uses: variable store 8, serial ports from 4, disks from 16, `tapfd` for the first NIC and
    /// `tapfd1` to `tapfd7` for the others (symbolic links to descriptors 32 to 39), `/tmp/vnc.sock`, `/tmp/channel0.sock` and `/share/0` and so
    /// on.
    pub fn standard(vm: &str) -> Self {
        use skep_machine::limits::{CHANNELS, DISKS, NICS, SERIAL_PORTS, SHARES};
        let tap = |slot| {
            if slot == 0 { "tapfd".to_owned() } else { format!("tapfd{slot}") }
        };
        Self {
            vm: vm.to_owned(),
            bootrom: crate::UEFI_CODE.to_owned(),
            vars: 8,
            serials: (0..*SERIAL_PORTS.end()).map(|port| 4 + i32::from(port)).collect(),
            disks: (0..DISKS).map(|slot| (slot, 16 + i32::from(slot))).collect(),
            taps: (0..NICS).map(|slot| (slot, tap(slot))).collect(),
            screen: ScreenAddress::Socket("/tmp/vnc.sock".to_owned()),
            channels: (0..CHANNELS).map(|port| format!("/tmp/channel{port}.sock")).collect(),
            shares: (0..SHARES).map(|at| format!("/share/{at}")).collect(),
        }
    }
}
