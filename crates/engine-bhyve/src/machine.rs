//! Model to configuration.

use crate::keys::{Config, Key, Pci, Unwritable};
use crate::{BhyveRelease, Names, ScreenAddress, item_file};
use skep_efivars::path as firmware;
use skep_machine::{
    Acceleration, Boot, BusKind, Clock, Controller, Device, Disk, DiskRates, Format, FwCfg, Gdb, HostBridge, Invalid,
    MachineSpec, Nic, NicModel, Screen, place,
};
use std::collections::BTreeSet;

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No machine may be like that.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A line cannot be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// A device of the model has no descriptor or name.
    #[error("{0} has no descriptor; pass one to bhyve under the number or name that Names gives")]
    NoDescriptor(String),
    /// This bhyve has no such thing.
    #[error("{0}: bhyve cannot do that")]
    Unsupported(&'static str),
    /// A name that the cell gives is not one that bhyve takes.
    #[error("{what} {name:?}: {must}")]
    BadName {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
        /// What it must be.
        must: &'static str,
    },
}

/// The whole command line, the program's name ([`crate::BINARY`]) left out. `items` are those of [`crate::items`], whose values lie in
/// [`item_file`]s.
pub fn argv(config: &str, names: &Names, items: &[FwCfg]) -> Vec<String> {
    let given = |(at, item): (usize, &FwCfg)| ["-f".to_owned(), format!("{},file={}", item.name, item_file(at))];
    let items = items.iter().enumerate().flat_map(given);
    ["-k".to_owned(), config.to_owned()].into_iter().chain(items).chain([names.vm.clone()]).collect()
}

/// Makes the configuration of a machine for `bhyve -k`. Pure: equal arguments give equal bytes.
pub fn configure(spec: &MachineSpec, names: &Names, release: BhyveRelease) -> Result<String, Error> {
    spec.validate()?;
    names.check(spec, release)?;
    if spec.acceleration == Acceleration::Tcg {
        return Err(Error::Unsupported("software emulation"));
    }
    if spec.gdb != Gdb::Off {
        return Err(Error::Unsupported("a debugger's stub without TCP"));
    }
    let mut c = Config::new(release);
    board(&mut c, spec, names)?;
    boot(&mut c, spec, names, release)?;
    device(&mut c, 0, "hostbridge")?;
    if spec.board.host_bridge == HostBridge::Amd {
        // What `amd_hostbridge` means on a command line (pci_hostbridge.c); in a configuration it is refused.
        let (vendor, id) = if release < BhyveRelease::V15 { (Pci::Vendor, Pci::Devid) } else { (Pci::RegVendor, Pci::RegDevice) };
        c.set(Key::Pci(0, vendor), "0x1022")?;
        c.set(Key::Pci(0, id), "0x7432")?;
    }
    disks(&mut c, spec, names)?;
    let mut nics: Vec<_> = spec.nics.iter().collect();
    nics.sort_by_key(|n| n.slot);
    for n in nics {
        nic(&mut c, spec, n, names)?;
    }
    if let Some(s) = &spec.screen {
        screen(&mut c, spec, s, names)?;
    }
    if spec.rng {
        device(&mut c, at(spec, Device::Rng)?, "virtio-rnd")?;
    }
    if spec.sound {
        if spec.sound_out.or(spec.sound_in).is_none() {
            return Err(Error::Unsupported("sound without a sound device of the host"));
        }
        let slot = at(spec, Device::Sound)?;
        device(&mut c, slot, "hda")?;
        for (key, device) in [(Pci::Play, spec.sound_out), (Pci::Rec, spec.sound_in)] {
            if let Some(number) = device {
                c.set(Key::Pci(slot, key), format_args!("/dev/dsp{number}"))?;
            }
        }
    }
    if spec.tpm {
        return Err(Error::Unsupported("a TPM without the host's own or swtpm"));
    }
    channels(&mut c, spec, names)?;
    shares(&mut c, spec, names)?;
    device(&mut c, 31, "lpc")?;
    for &port in &spec.serial_ports {
        let fd = names.serials.get(usize::from(port - 1));
        c.set(Key::LpcComPath(port), path(*fd.ok_or_else(|| Error::NoDescriptor(format!("serial port {port}")))?))?;
    }
    items(&mut c, spec, release)?;
    Ok(c.finish())
}

/// Items of fw_cfg; without any, bhyve's own interface (fwctl) stays at their ports.
fn items(c: &mut Config, spec: &MachineSpec, release: BhyveRelease) -> Result<(), Error> {
    if spec.fw_cfg.is_empty() {
        return Ok(());
    }
    match release {
        BhyveRelease::V13 => return Err(Error::Unsupported("items of fw_cfg before FreeBSD 14")),
        BhyveRelease::V14 if spec.fw_cfg.len() > ITEMS_14 => {
            return Err(Error::Unsupported(
                "more than 5 items of fw_cfg before FreeBSD 15, whose list of them takes no more safely",
            ));
        }
        _ => {}
    }
    c.set(Key::LpcFwcfg, "qemu")?;
    spec.fw_cfg.iter().for_each(|item| c.note(item));
    Ok(())
}

/// Most items on 14: with five of bhyve's own (qemu_fwcfg_add_file's callers) its list has ten places, and when it makes room for another
/// it writes behind the end of it.
const ITEMS_14: usize = 5;

/// The place of a device on the PCI bus.
fn at(spec: &MachineSpec, device: Device) -> Result<u8, Error> {
    spec.place(device).ok_or_else(|| Error::NoDescriptor(device.to_string()))
}

/// How fdescfs names a descriptor.
fn path(fd: i32) -> String {
    format!("/dev/fd/{fd}")
}

fn board(c: &mut Config, spec: &MachineSpec, names: &Names) -> Result<(), Error> {
    c.set(Key::Name, &names.vm)?;
    c.set(Key::Uuid, spec.uuid)?;
    let t = spec.cpu.topology();
    c.set(Key::Cpus, spec.cpu.count)?;
    c.set(Key::Sockets, t.sockets)?;
    c.set(Key::Cores, t.cores)?;
    c.set(Key::Threads, t.threads)?;
    c.set(Key::MemorySize, format_args!("{}M", spec.memory_mib))?;
    if spec.limits.wired {
        c.set(Key::MemoryWired, true)?;
    }
    for (vcpu, cpu) in &spec.limits.pins {
        c.set(Key::VcpuCpuset(*vcpu), cpu)?;
    }
    let board = spec.board;
    c.set(Key::AcpiTables, board.acpi)?;
    c.set(Key::RtcUseLocaltime, spec.clock == Clock::LocalTime)?;
    // Linux reads registers that bhyve does not have, and takes the fault for a broken processor.
    c.set(Key::X86StrictMsr, board.strict_msr)?;
    // An idle guest gives its CPU back.
    c.set(Key::X86VmexitOnHlt, board.exit_on_halt)?;
    c.set(Key::X86VmexitOnPause, board.exit_on_pause)?;
    if board.x2apic {
        c.set(Key::X86X2apic, true)?;
    }
    match &spec.screen {
        Some(Screen { keyboard, .. }) if !keyboard.is_empty() => Ok(c.set(Key::KeyboardLayout, keyboard)?),
        _ => Ok(()),
    }
}

fn boot(c: &mut Config, spec: &MachineSpec, names: &Names, release: BhyveRelease) -> Result<(), Error> {
    let (rom, vars) = match (&spec.boot, release) {
        (Boot::Direct { .. }, _) => return Err(Error::Unsupported("boot of a kernel of its own")),
        (Boot::Bios, _) => return Err(Error::Unsupported("boot by a BIOS")),
        // The loader has filled the guest's memory before bhyve starts.
        (Boot::Loader, _) => return Ok(()),
        (Boot::Uefi, BhyveRelease::V13 | BhyveRelease::V14) => (Key::LpcBootrom, Key::LpcBootvars),
        (Boot::Uefi, BhyveRelease::V15) => (Key::Bootrom, Key::Bootvars),
    };
    c.set(rom, &names.bootrom)?;
    Ok(c.set(vars, path(names.vars))?)
}

fn device(c: &mut Config, slot: u8, model: &str) -> Result<(), Error> {
    Ok(c.set(Key::Pci(slot, Pci::Device), model)?)
}

fn disks(c: &mut Config, spec: &MachineSpec, names: &Names) -> Result<(), Error> {
    // A CD drive is there with its medium only.
    let mut disks: Vec<_> = spec.disks.iter().filter(|disk| !disk.ejected).collect();
    disks.sort_by_key(|d| d.slot);
    // AHCI controllers that are there already.
    let mut there = BTreeSet::new();
    disks.sort_by_key(|d| (d.seat.map(|seat| seat.port), d.port(), d.slot));
    for disk in disks {
        let fd = names.disks.get(&disk.slot).ok_or_else(|| Error::NoDescriptor(format!("disk {}", disk.slot)))?;
        if disk.format != Format::Raw {
            return Err(Error::Unsupported("a disk that is not raw"));
        }
        if disk.rates != DiskRates::default() {
            return Err(Error::Unsupported("limits of a disk"));
        }
        let own = match disk.seat {
            None => spec.place(Device::Disk(disk.slot)),
            Some(seat) if seat.port > 0 && disk.controller == Controller::Nvme => {
                return Err(Error::Unsupported("several disks on one NVMe controller"));
            }
            Some(seat) => spec.place(Device::Controller(seat.controller)),
        };
        let ahci = match disk.seat {
            None => Device::Ahci,
            Some(seat) => Device::Controller(seat.controller),
        };
        match (disk.controller, own) {
            (Controller::VirtioBlk, Some(at)) => single(c, disk, at, "virtio-blk", *fd)?,
            (Controller::Nvme, Some(at)) => single(c, disk, at, "nvme", *fd)?,
            (Controller::Ahci | Controller::AhciCd, _) => {
                let slot = at(spec, ahci)?;
                if there.insert(slot) {
                    device(c, slot, "ahci")?;
                }
                port(c, slot, disk, *fd)?;
            }
            // Its only disks are those of ctl(4): all that the host serves as targets.
            (Controller::VirtioScsi | Controller::VirtioScsiCd, _) => {
                return Err(Error::Unsupported("a virtio-scsi disk of the machine's own"));
            }
            (_, None) => return Err(Error::NoDescriptor(format!("disk {}", disk.slot))),
        }
    }
    Ok(())
}

/// A disk with a controller of its own.
fn single(c: &mut Config, disk: &Disk, at: u8, model: &str, fd: i32) -> Result<(), Error> {
    device(c, at, model)?;
    c.set(Key::Pci(at, Pci::Path), path(fd))?;
    for (on, key) in [(disk.is_read_only(), Pci::Ro), (disk.no_cache, Pci::NoCache), (disk.sync, Pci::Sync)] {
        if on {
            c.set(Key::Pci(at, key), true)?;
        }
    }
    Ok(c.set(Key::Pci(at, Pci::Ser), disk.serial())?)
}

/// A disk on the AHCI controller at this place, at its own port: bhyve_config(5) speaks of successive numbers, but pci_ahci.c of every
/// release passes over a port that is not there, and shows the guest which are.
fn port(c: &mut Config, slot: u8, disk: &Disk, fd: i32) -> Result<(), Error> {
    let port = disk.seat.map_or(disk.port(), |seat| seat.port);
    let kind = if disk.controller.is_cd() { "cd" } else { "hd" };
    c.set(Key::Pci(slot, Pci::PortType(port)), kind)?;
    c.set(Key::Pci(slot, Pci::PortPath(port)), path(fd))?;
    let flags =
        [(disk.is_read_only(), Pci::PortRo(port)), (disk.no_cache, Pci::PortNoCache(port)), (disk.sync, Pci::PortSync(port))];
    for (on, key) in flags {
        if on {
            c.set(Key::Pci(slot, key), true)?;
        }
    }
    Ok(c.set(Key::Pci(slot, Pci::PortSer(port)), disk.serial())?)
}

/// The firmware's device path to a place.
fn pci(at: u8) -> Vec<u8> {
    firmware::pci(place::slot(at), place::function(at))
}

/// How the firmware's device paths to a disk begin.
pub fn boot_path(spec: &MachineSpec, slot: u8) -> Option<Vec<u8>> {
    let disk = spec.disks.iter().find(|disk| disk.slot == slot && !disk.ejected)?;
    if let Some((bus, seat)) = spec.seat(disk) {
        let place = pci(bus.slot);
        return match bus.kind {
            BusKind::Ahci => Some([place, firmware::sata(seat.port.into())].concat()),
            BusKind::Nvme | BusKind::VirtioBlk => (seat.port == 0).then_some(place),
            BusKind::VirtioScsi => None,
        };
    }
    Some(match disk.controller {
        Controller::VirtioBlk | Controller::Nvme => pci(spec.place(Device::Disk(slot))?),
        Controller::Ahci | Controller::AhciCd => [pci(spec.place(Device::Ahci)?), firmware::sata(disk.port().into())].concat(),
        Controller::VirtioScsi | Controller::VirtioScsiCd => return None,
    })
}

fn nic(c: &mut Config, spec: &MachineSpec, nic: &Nic, names: &Names) -> Result<(), Error> {
    let missing = || Error::NoDescriptor(format!("NIC {}", nic.slot));
    let (tap, at) = names.taps.get(&nic.slot).zip(spec.place(Device::Nic(nic.slot))).ok_or_else(missing)?;
    let model = match nic.model {
        NicModel::VirtioNet => "virtio-net",
        NicModel::E1000 => "e1000",
    };
    device(c, at, model)?;
    c.set(Key::Pci(at, Pci::Backend), tap)?;
    Ok(c.set(Key::Pci(at, Pci::Mac), nic.mac)?)
}

fn screen(c: &mut Config, spec: &MachineSpec, screen: &Screen, names: &Names) -> Result<(), Error> {
    let slot = at(spec, Device::Screen)?;
    device(c, slot, "fbuf")?;
    let address = match &names.screen {
        ScreenAddress::Socket(path) => format!("unix:{path}"),
        ScreenAddress::Loopback => "127.0.0.1:5900".to_owned(),
    };
    c.set(Key::Pci(slot, Pci::Rfb), address)?;
    c.set(Key::Pci(slot, Pci::W), screen.width)?;
    c.set(Key::Pci(slot, Pci::H), screen.height)?;
    if screen.wait {
        c.set(Key::Pci(slot, Pci::Wait), true)?;
    }
    if screen.tablet {
        let slot = at(spec, Device::Usb)?;
        device(c, slot, "xhci")?;
        c.set(Key::Pci(slot, Pci::SlotDevice(1)), "tablet")?;
    }
    Ok(())
}

/// Ports of a virtio console; bhyve listens on each one's socket and serves one client at a time.
fn channels(c: &mut Config, spec: &MachineSpec, names: &Names) -> Result<(), Error> {
    let slot = at(spec, Device::Channels)?;
    if !spec.channels.is_empty() {
        device(c, slot, "virtio-console")?;
    }
    for (port, channel) in (0..).zip(&spec.channels) {
        let missing = || Error::NoDescriptor(format!("channel {}", channel.name));
        let path = names.channels.get(usize::from(port)).ok_or_else(missing)?;
        c.set(Key::Pci(slot, Pci::PortName(port)), &channel.name)?;
        c.set(Key::Pci(slot, Pci::PortPath(port)), path)?;
    }
    Ok(())
}

/// A virtio-9p device for each; the guest finds it by its name.
fn shares(c: &mut Config, spec: &MachineSpec, names: &Names) -> Result<(), Error> {
    for (at, share) in (0..).zip(&spec.shares) {
        let missing = || Error::NoDescriptor(format!("share {}", share.name));
        let (path, slot) = names.shares.get(usize::from(at)).zip(spec.place(Device::Share(at))).ok_or_else(missing)?;
        device(c, slot, "virtio-9p")?;
        c.set(Key::Pci(slot, Pci::Sharename), &share.name)?;
        c.set(Key::Pci(slot, Pci::Path), path)?;
        if share.read_only {
            c.set(Key::Pci(slot, Pci::Ro), true)?;
        }
    }
    Ok(())
}

impl Names {
    fn check(&self, spec: &MachineSpec, release: BhyveRelease) -> Result<(), Error> {
        let bad = |what, name: &str, must| Err(Error::BadName { what, name: name.to_owned(), must });
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if self.vm.is_empty() || self.vm.len() > 32 || !plain(&self.vm) || self.vm.starts_with('-') {
            return bad("vmm instance", &self.vm, "must be 1 to 32 letters, digits, - or _, not beginning with -");
        }
        for tap in self.taps.values() {
            if !tap.starts_with("tap") || tap.len() > 15 || !plain(tap) {
                return bad(
                    "tap",
                    tap,
                    "must begin with \"tap\" and have at most 15 letters and digits, or bhyve takes it for another backend",
                );
            }
        }
        // sun_path, its end included.
        if let Some(path) = self.channels.iter().find(|path| !path.starts_with('/') || path.len() > 103) {
            return bad("channel socket", path, "must be an absolute path of at most 103 bytes");
        }
        match (&self.screen, &spec.screen) {
            (_, None) => Ok(()),
            (ScreenAddress::Loopback, Some(s)) => narrow(s, release),
            (ScreenAddress::Socket(path), Some(_)) if release < BhyveRelease::V15 => {
                bad("screen socket", path, "needs FreeBSD 15: give the cell a loopback of its own")
            }
            // sun_path, its end included.
            (ScreenAddress::Socket(path), Some(_)) if !path.starts_with('/') || path.len() > 103 => {
                bad("screen socket", path, "must be an absolute path of at most 103 bytes")
            }
            (ScreenAddress::Socket(_), Some(s)) => narrow(s, release),
        }
    }
}

/// Width and height of the largest screen, in pixels (usr.sbin/bhyve/pci_fbuf.c: COLS_MAX, ROWS_MAX).
pub const fn largest_screen(release: BhyveRelease) -> (u16, u16) {
    match release {
        BhyveRelease::V13 | BhyveRelease::V14 => (1920, 1200),
        BhyveRelease::V15 => (3840, 2160),
    }
}

fn narrow(screen: &Screen, release: BhyveRelease) -> Result<(), Error> {
    let (width, height) = largest_screen(release);
    if screen.width <= width && screen.height <= height {
        Ok(())
    } else {
        Err(Error::Unsupported("a screen larger than 1920x1200 before FreeBSD 15"))
    }
}
