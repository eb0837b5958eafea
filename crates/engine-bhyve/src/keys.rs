//! The keys of bhyve_config(5) that skep writes, and the file's form: `key=value` to the end of the line, `%` doubled.

use crate::BhyveRelease as Release;
use skep_machine::{FwCfg, place};
use std::fmt::{self, Display, Write};

/// A key of bhyve_config(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the manual page describes them under the names that Display gives")]
pub enum Key {
    Name,
    Uuid,
    Cpus,
    Sockets,
    Cores,
    Threads,
    MemorySize,
    MemoryWired,
    /// Of a virtual CPU; in no manual page, but in bhyverun.c of every release.
    VcpuCpuset(u16),
    AcpiTables,
    RtcUseLocaltime,
    X86StrictMsr,
    X86VmexitOnHlt,
    X86VmexitOnPause,
    X86X2apic,
    KeyboardLayout,
    /// Until 14.
    LpcBootrom,
    /// Until 14.
    LpcBootvars,
    /// From 15.
    Bootrom,
    /// From 15.
    Bootvars,
    /// Serial port, 1 to 4.
    LpcComPath(u8),
    /// From 14.
    LpcFwcfg,
    /// A place on bus 0 ([`skep_machine::place`]).
    Pci(u8, Pci),
}

/// A key below a PCI device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "as above")]
pub enum Pci {
    Device,
    Path,
    Ro,
    NoCache,
    Sync,
    Ser,
    Backend,
    Mac,
    Rfb,
    W,
    H,
    Wait,
    /// AHCI port.
    PortType(u8),
    /// AHCI port, or port of a virtio console.
    PortPath(u8),
    /// AHCI port.
    PortRo(u8),
    /// AHCI port.
    PortNoCache(u8),
    /// AHCI port.
    PortSync(u8),
    /// AHCI port.
    PortSer(u8),
    /// USB slot, from 1.
    SlotDevice(u8),
    Play,
    Rec,
    /// Port of a virtio console.
    PortName(u8),
    Sharename,
    /// Of a host bridge, up to 14.
    Vendor,
    /// Of a host bridge, up to 14.
    Devid,
    /// From 15.
    RegVendor,
    /// From 15.
    RegDevice,
}

impl Key {
    /// The first and the last release that knows it (usr.sbin/bhyve/bhyve_config.5 of each).
    pub const fn releases(self) -> (Release, Release) {
        match self {
            Self::LpcBootrom | Self::LpcBootvars | Self::Pci(_, Pci::Vendor | Pci::Devid) => (Release::V13, Release::V14),
            Self::LpcFwcfg => (Release::V14, Release::V15),
            Self::Bootrom | Self::Bootvars | Self::Pci(_, Pci::RegVendor | Pci::RegDevice) => (Release::V15, Release::V15),
            _ => (Release::V13, Release::V15),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::Cpus => "cpus",
            Self::Sockets => "sockets",
            Self::Cores => "cores",
            Self::Threads => "threads",
            Self::MemorySize => "memory.size",
            Self::MemoryWired => "memory.wired",
            Self::VcpuCpuset(vcpu) => return write!(f, "vcpu.{vcpu}.cpuset"),
            Self::AcpiTables => "acpi_tables",
            Self::RtcUseLocaltime => "rtc.use_localtime",
            Self::X86StrictMsr => "x86.strictmsr",
            Self::X86VmexitOnHlt => "x86.vmexit_on_hlt",
            Self::X86VmexitOnPause => "x86.vmexit_on_pause",
            Self::X86X2apic => "x86.x2apic",
            Self::KeyboardLayout => "keyboard.layout",
            Self::LpcBootrom => "lpc.bootrom",
            Self::LpcBootvars => "lpc.bootvars",
            Self::Bootrom => "bootrom",
            Self::Bootvars => "bootvars",
            Self::LpcFwcfg => "lpc.fwcfg",
            Self::LpcComPath(port) => return write!(f, "lpc.com{port}.path"),
            Self::Pci(at, key) => return write!(f, "pci.0.{}.{}.{key}", place::slot(*at), place::function(*at)),
        })
    }
}

impl Display for Pci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Path => "path",
            Self::Ro => "ro",
            Self::NoCache => "nocache",
            Self::Sync => "sync",
            Self::Ser => "ser",
            Self::Backend => "backend",
            Self::Mac => "mac",
            Self::Rfb => "rfb",
            Self::W => "w",
            Self::H => "h",
            Self::Wait => "wait",
            Self::PortType(port) => return write!(f, "port.{port}.type"),
            Self::PortPath(port) => return write!(f, "port.{port}.path"),
            Self::PortRo(port) => return write!(f, "port.{port}.ro"),
            Self::PortNoCache(port) => return write!(f, "port.{port}.nocache"),
            Self::PortSync(port) => return write!(f, "port.{port}.sync"),
            Self::PortSer(port) => return write!(f, "port.{port}.ser"),
            Self::Play => "play",
            Self::Rec => "rec",
            Self::Sharename => "sharename",
            Self::Vendor => "vendor",
            Self::Devid => "devid",
            Self::RegVendor => "pcireg.vendor",
            Self::RegDevice => "pcireg.device",
            Self::PortName(port) => return write!(f, "port.{port}.name"),
            Self::SlotDevice(slot) => return write!(f, "slot.{slot}.device"),
        })
    }
}

/// A line that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bhyve's configuration: {key}: {why}")]
pub struct Unwritable {
    /// Its key.
    pub key: String,
    /// Why.
    pub why: &'static str,
}

/// How a line begins that has an item of fw_cfg.
const NOTE: &str = "#fw_cfg ";

/// The items of fw_cfg that a configuration speaks of: bhyve has no keys for them, and takes them from its command line ([`crate::argv`]).
pub fn items(config: &str) -> Vec<FwCfg> {
    let notes = config.lines().filter_map(|line| line.strip_prefix(NOTE)?.split_once('='));
    notes.map(|(name, value)| FwCfg { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// The file, as far as written.
#[derive(Debug)]
pub struct Config {
    release: Release,
    text: String,
}

impl Config {
    /// Empty.
    pub fn new(release: Release) -> Self {
        Self { release, text: String::new() }
    }
    /// Writes one line.
    pub fn set(&mut self, key: Key, value: impl ToString) -> Result<(), Unwritable> {
        let value = value.to_string();
        let (first, last) = key.releases();
        let why = match () {
            () if self.release < first || self.release > last => "this release does not know the key",
            () if value.is_empty() => "the value is empty",
            () if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) => "the value has a byte that is not printable ASCII",
            () => {
                let _ = writeln!(self.text, "{key}={}", value.replace('%', "%%")); // a String takes everything
                return Ok(());
            }
        };
        Err(Unwritable { key: key.to_string(), why })
    }
    /// Writes a line that bhyve takes for a comment, for whoever starts it: see [`items`].
    pub fn note(&mut self, item: &FwCfg) {
        let _ = writeln!(self.text, "{NOTE}{}={}", item.name, item.value); // a String takes everything
    }
    /// The whole file.
    pub fn finish(self) -> String {
        self.text
    }
}
