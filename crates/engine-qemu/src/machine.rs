//! Model to configuration.

use crate::config::{Config, Group, Unwritable};
use crate::{EMULATED, Fds, INITRD, KERNEL, KEYBOARD, PIN, THREADS, UEFI_CODE, WAIT, WIRED, argv, qmp};
use skep_efivars::path as firmware_path;
use skep_machine::{
    Acceleration, Board, Boot, BusKind, Channel, Clock, Controller, Device, Disk, DiskRates, Format, Gdb, Invalid, MachineSpec,
    Nic, NicModel, Screen, Seat, limits, place,
};

/// What starts a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The command line, the program's name ([`crate::BINARY`]) left out.
    pub argv: Vec<String>,
    /// The file for [`crate::CONFIG`].
    pub config: String,
    /// Lines to send when QEMU's greeting has come, each answered by an empty reply with its place as the id. The last one starts the guest,
    /// unless that is to wait for a debugger.
    pub qmp_first: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No machine may be like that.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A value cannot be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// A device of the model has no descriptor.
    #[error("{0} has no descriptor; pass one to QEMU under the number that Fds names")]
    NoDescriptor(String),
    /// QEMU has no such thing.
    #[error("{0}: QEMU cannot do that")]
    Unsupported(&'static str),
}

/// Makes the configuration of a machine. [`Acceleration::Auto`] is written as software emulation: whether the processor can is the
/// caller's knowledge ([`skep_machine::HostCapabilities::resolve`]). Pure: equal arguments give equal bytes.
pub fn configure(spec: &MachineSpec, fds: &Fds) -> Result<Launch, Error> {
    spec.validate()?;
    if spec.screen.as_ref().is_some_and(|screen| screen.wait) {
        return Err(Error::Unsupported("a guest that waits for a viewer"));
    }
    if spec.board != Board::default() {
        return Err(Error::Unsupported("other tables, host bridge, exits, registers or APIC than its own"));
    }
    let mut c = Config::default();
    keyboard(&mut c, spec)?;
    if spec.gdb == Gdb::Wait {
        c.comment(WAIT, "")?;
    }
    if spec.limits.wired {
        c.comment(WIRED, "")?;
    }
    for (vcpu, cpu) in &spec.limits.pins {
        c.comment(PIN, &format!("{vcpu}-{cpu}"))?;
    }
    if spec.acceleration != Acceleration::Kvm {
        c.comment(EMULATED, "")?;
    }
    if spec.cpu.topology().threads > 1 {
        c.comment(THREADS, "")?;
    }
    board(&mut c, spec)?;
    lines(&mut c, spec, fds)?;
    match &spec.boot {
        Boot::Uefi => firmware(&mut c, fds.vars)?,
        Boot::Direct { .. } | Boot::Bios => {}
        Boot::Loader => return Err(Error::Unsupported("boot by the host's loader")),
    }
    let mut disks: Vec<_> = spec.disks.iter().collect();
    disks.sort_by_key(|d| d.slot);
    if spec.devices().contains(&Device::Scsi) {
        device(&mut c, "scsi", "virtio-scsi-pci", at(spec, Device::Scsi))?;
    }
    buses(&mut c, spec, &disks)?;
    // A controller before what is put on it.
    disks.sort_by_key(|d| d.seat.is_some_and(|seat| seat.port > 0 && d.controller == Controller::Nvme));
    for d in disks {
        // Whatever is named to the firmware, it puts first, in its variables too, and forgets its other entries for disks.
        let first = !(spec.firmware_order && spec.boot == Boot::Uefi);
        disk(&mut c, spec, d, fds, first)?;
    }
    let mut nics: Vec<_> = spec.nics.iter().collect();
    nics.sort_by_key(|n| n.slot);
    for n in nics {
        nic(&mut c, spec, n, fds)?;
    }
    if let Some(s) = &spec.screen {
        screen(&mut c, spec, s)?;
    }
    if spec.rng {
        c.with_id("object", "rng0").set("qom-type", "rng-builtin")?;
        device(&mut c, "rng", "virtio-rng-pci", at(spec, Device::Rng))?.set("rng", "rng0")?;
    }
    if spec.sound {
        device(&mut c, "sound", "intel-hda", at(spec, Device::Sound))?;
        device(&mut c, "codec", "hda-duplex", None)?.set("bus", "sound.0")?.set("audiodev", "sound")?;
    }
    if spec.tpm {
        return Err(Error::Unsupported("a TPM without swtpm at its side"));
    }
    channels(&mut c, spec)?;
    shares(&mut c, spec)?;
    for item in &spec.fw_cfg {
        c.group("fw_cfg").set("name", &item.name)?.set("string", &item.value)?;
    }
    device(&mut c, "panic", "pvpanic", None)?;
    let config = c.finish();
    let mut qmp_first = vec![qmp::capabilities(0)];
    if spec.gdb != Gdb::Wait {
        qmp_first.push(qmp::cont(1));
    }
    Ok(Launch { argv: argv(spec.uuid, &config), config, qmp_first })
}

/// The keyboard layout, which QEMU takes from its command line only: a comment that [`argv`] reads.
fn keyboard(c: &mut Config, spec: &MachineSpec) -> Result<(), Error> {
    match &spec.screen {
        Some(Screen { keyboard, .. }) if !keyboard.is_empty() => Ok(c.comment(KEYBOARD, keyboard)?),
        _ => Ok(()),
    }
}

fn board(c: &mut Config, spec: &MachineSpec) -> Result<(), Error> {
    // dump-guest-core: a crash of QEMU must not write the guest's memory anywhere.
    let mut machine = c.group("machine").set("type", "q35")?.set("dump-guest-core", "off")?;
    if let Boot::Direct { cmdline, initrd } = &spec.boot {
        machine = machine.set("kernel", KERNEL)?;
        machine = if *initrd { machine.set("initrd", INITRD)? } else { machine };
        machine.set("append", cmdline)?;
    }
    let accel = c.group("accel");
    match spec.acceleration {
        Acceleration::Kvm => accel.set("accel", "kvm")?,
        // A cache of translated code of 128 MiB: the default takes 1 GiB of address space.
        Acceleration::Auto | Acceleration::Tcg => accel.set("accel", "tcg")?.set("tb-size", 128)?,
    };
    c.group("memory").set("size", format_args!("{}M", spec.memory_mib))?;
    let t = spec.cpu.topology();
    let smp = c.group("smp-opts").set("cpus", spec.cpu.count)?.set("sockets", t.sockets)?;
    smp.set("cores", t.cores)?.set("threads", t.threads)?;
    let base = match spec.clock {
        Clock::Utc => "utc",
        Clock::LocalTime => "localtime",
    };
    c.group("rtc").set("base", base)?;
    Ok(())
}

fn lines(c: &mut Config, spec: &MachineSpec, fds: &Fds) -> Result<(), Error> {
    c.with_id("chardev", "qmp").set("backend", "socket")?.set("fd", fds.qmp)?;
    c.with_id("mon", "qmp").set("chardev", "qmp")?.set("mode", "control")?;
    for &number in &spec.serial_ports {
        let port = number - 1;
        let fd = *fds.serials.get(usize::from(port)).ok_or_else(|| Error::NoDescriptor(format!("serial port {number}")))?;
        let id = qmp::serial_id(port);
        c.with_id("chardev", &id).set("backend", "socket")?.set("fd", fd)?;
        device(c, &format!("serial{port}"), "isa-serial", None)?.set("chardev", &id)?.set("index", port)?;
    }
    Ok(())
}

/// A block backend on a file, or on a descriptor in a set of its own.
fn drive<'c>(c: &'c mut Config, id: &str, format: &str, file: &str, read_only: bool) -> Result<Group<'c>, Error> {
    let switch = |on| if on { "on" } else { "off" };
    // pflash devices take their drive by interface and unit; all others name it.
    let group = c.with_id("drive", id);
    let group = match id {
        "fw-code" => group.set("if", "pflash")?.set("unit", 0)?,
        "fw-vars" => group.set("if", "pflash")?.set("unit", 1)?,
        _ => group.set("if", "none")?.set("discard", "unmap")?,
    };
    // Both drivers are named, so that no guest's byte is ever probed for a format. auto-read-only would first open a writable
    // descriptor for reading, which descriptor sets refuse. Locks are storage-helper's.
    let group = group.set("driver", format)?.set("file.driver", "file")?.set("file.filename", file)?;
    Ok(group.set("file.locking", "off")?.set("read-only", switch(read_only))?.set("auto-read-only", "off")?)
}

/// Hands an inherited descriptor to a set and returns the name under which a drive opens it.
fn fdset(c: &mut Config, set: i32, fd: i32) -> Result<String, Error> {
    c.group("add-fd").set("fd", fd)?.set("set", set)?;
    Ok(format!("/dev/fdset/{set}"))
}

fn firmware(c: &mut Config, vars: i32) -> Result<(), Error> {
    drive(c, "fw-code", "raw", UEFI_CODE, true)?;
    let file = fdset(c, 1000, vars)?;
    drive(c, "fw-vars", "raw", &file, false)?;
    Ok(())
}

fn driver(format: Format) -> &'static str {
    match format {
        // The bytes of what is reached over a socket are taken as they are, too.
        Format::Raw | Format::Remote => "raw",
        Format::Qcow2 => "qcow2",
    }
}

/// How much goes to and from a disk: a group of its own, whose name is the drive's.
fn rates<'c>(group: Group<'c>, disk: &Disk) -> Result<Group<'c>, Unwritable> {
    let DiskRates { read_bps, write_bps, read_iops, write_iops } = disk.rates;
    let all = [
        ("throttling.bps-read", read_bps),
        ("throttling.bps-write", write_bps),
        ("throttling.iops-read", read_iops),
        ("throttling.iops-write", write_iops),
    ];
    all.into_iter().filter_map(|(key, rate)| Some((key, rate?))).try_fold(group, |group, (key, rate)| group.set(key, rate))
}

fn cache<'c>(group: Group<'c>, disk: &Disk) -> Result<Group<'c>, Unwritable> {
    match (disk.no_cache, disk.sync) {
        (false, false) => Ok(group),
        (true, false) => group.set("cache", "none"),
        (false, true) => group.set("cache", "writethrough"),
        (true, true) => group.set("cache", "directsync"),
    }
}

/// What a disk stands on, from the lowest one on, each for reading only; the name of the topmost. Each is named to the one above it: nothing
/// that a file says of what is under it is followed. (As keys of the disk's own group they would soon be longer than the 63 bytes that QEMU reads.)
fn layers(c: &mut Config, disk: &Disk, fds: &Fds) -> Result<Option<String>, Error> {
    let mut under: Option<String> = None;
    for (at, format) in (0..).zip(disk.layers.iter().rev()) {
        let slot = disk.slot;
        let fd = *fds.layers.get(&(slot, at)).ok_or_else(|| Error::NoDescriptor(format!("layer {at} of disk {slot}")))?;
        let file = fdset(c, fd, fd)?;
        let name = format!("layer{slot}-{at}");
        let group = drive(c, &format!("under{slot}-{at}"), driver(*format), &file, true)?.set("node-name", &name)?;
        let group = match under.replace(name) {
            Some(node) => group.set("backing", node)?,
            None => group,
        };
        cache(group, disk)?;
    }
    Ok(under)
}

/// Seconds that what the guest asks waits for who serves it to come back.
const PATIENCE: u32 = 86_400;

/// A disk that is reached over a socket of the cell, in NBD.
fn remote<'c>(c: &'c mut Config, id: &str, disk: &Disk) -> Result<Group<'c>, Unwritable> {
    let switch = |on| if on { "on" } else { "off" };
    let group = c.with_id("drive", id).set("if", "none")?.set("driver", "raw")?.set("file.driver", "nbd")?;
    let group = group.set("file.server.type", "unix")?.set("file.server.path", crate::remote(disk.slot))?;
    let group = group.set("file.reconnect-delay", PATIENCE)?.set("node-name", qmp::node_id(disk.slot, 0))?;
    group.set("read-only", switch(disk.is_read_only()))?.set("auto-read-only", "off")
}

fn disk(c: &mut Config, spec: &MachineSpec, disk: &Disk, fds: &Fds, in_order: bool) -> Result<(), Error> {
    let slot = disk.slot;
    let id = qmp::disk_id(slot);
    if !disk.ejected && disk.format == Format::Remote {
        rates(cache(remote(c, &id, disk)?, disk)?, disk)?;
    } else if !disk.ejected {
        let fd = *fds.disks.get(&slot).ok_or_else(|| Error::NoDescriptor(format!("disk {slot}")))?;
        let file = fdset(c, i32::from(slot), fd)?;
        let under = layers(c, disk, fds)?;
        let group = drive(c, &id, driver(disk.format), &file, disk.is_read_only())?;
        let group = group.set("node-name", qmp::node_id(slot, disk.layers.len()))?;
        let group = match under {
            Some(node) => group.set("backing", node)?,
            None => group,
        };
        rates(cache(group, disk)?, disk)?;
    }
    let seat = spec.seat(disk).map(|(_, seat)| seat);
    let own = match seat {
        None => at(spec, Device::Disk(slot)),
        Some(seat) => at(spec, Device::Controller(seat.controller)),
    };
    // A namespace: the first one is the controller's own, which alone can be booted from.
    let further = disk.controller == Controller::Nvme && seat.is_some_and(|seat| seat.port > 0);
    let (driver, place) = match disk.controller {
        Controller::VirtioBlk => ("virtio-blk-pci", own),
        Controller::Nvme if further => ("nvme-ns", None),
        Controller::Nvme => ("nvme", own),
        Controller::Ahci => ("ide-hd", None),
        Controller::AhciCd => ("ide-cd", None),
        Controller::VirtioScsi => ("scsi-hd", None),
        Controller::VirtioScsiCd => ("scsi-cd", None),
    };
    let name = match seat {
        Some(seat) if driver == "nvme" => bus_id(seat.controller),
        _ => qmp::device_id(&id),
    };
    let mut group = device(c, &name, driver, place)?;
    group = match (disk.controller, seat) {
        (Controller::Ahci | Controller::AhciCd, None) => group.set("bus", format_args!("ide.{}", disk.port()))?,
        (Controller::Ahci | Controller::AhciCd, Some(seat)) => {
            group.set("bus", format_args!("{}.{}", bus_id(seat.controller), seat.port))?
        }
        (Controller::VirtioScsi | Controller::VirtioScsiCd, None) => {
            group.set("bus", "scsi.0")?.set("scsi-id", disk.port())?.set("lun", 0)?
        }
        (Controller::VirtioScsi | Controller::VirtioScsiCd, Some(seat)) => {
            group.set("bus", format_args!("{}.0", bus_id(seat.controller)))?.set("scsi-id", seat.port)?.set("lun", 0)?
        }
        (Controller::Nvme, Some(seat)) if further => {
            group.set("bus", bus_id(seat.controller))?.set("nsid", u16::from(seat.port) + 1)?
        }
        (Controller::VirtioBlk | Controller::Nvme, _) => group,
    };
    group = if disk.ejected { group } else { group.set("drive", &id)? };
    if further {
        return Ok(());
    }
    group = group.set("serial", disk.serial())?;
    if in_order && !disk.ejected {
        // 0 is the option ROM of a direct boot.
        group.set("bootindex", slot + 1)?;
    }
    Ok(())
}

/// What QEMU calls a controller with a name: names are users'.
fn bus_id(at: u8) -> String {
    format!("bus{at}")
}

/// Controllers with names. One that is its first disk, too, comes with that.
fn buses(c: &mut Config, spec: &MachineSpec, disks: &[&Disk]) -> Result<(), Error> {
    for (number, bus) in (0..).zip(&spec.controllers) {
        let (id, place) = (bus_id(number), at(spec, Device::Controller(number)));
        let first = disks.iter().any(|disk| disk.seat == Some(Seat { controller: number, port: 0 }));
        match bus.kind {
            BusKind::Ahci => device(c, &id, "ich9-ahci", place)?,
            BusKind::VirtioScsi => device(c, &id, "virtio-scsi-pci", place)?,
            BusKind::Nvme if !first => device(c, &id, "nvme", place)?.set("serial", format_args!("skep-{number}"))?,
            // It comes with its first namespace, or with its disk.
            BusKind::Nvme | BusKind::VirtioBlk => continue,
        };
    }
    Ok(())
}

/// The firmware's device path to a place.
fn pci(at: u8) -> Vec<u8> {
    firmware_path::pci(place::slot(at), place::function(at))
}

/// How the firmware's device paths to a disk begin.
pub fn boot_path(spec: &MachineSpec, slot: u8) -> Option<Vec<u8>> {
    // The AHCI controller of the chip set.
    const AHCI: (u8, u8) = (0x1f, 2);
    let disk = spec.disks.iter().find(|disk| disk.slot == slot)?;
    if let Some((bus, seat)) = spec.seat(disk) {
        let at = pci(bus.slot);
        return Some(match bus.kind {
            BusKind::Ahci => [at, firmware_path::sata(seat.port.into())].concat(),
            BusKind::VirtioScsi => [at, firmware_path::scsi(seat.port.into(), 0)].concat(),
            // Of an NVMe controller only the first namespace is one to boot.
            BusKind::Nvme | BusKind::VirtioBlk => return (seat.port == 0).then_some(at),
        });
    }
    Some(match disk.controller {
        Controller::VirtioBlk | Controller::Nvme => pci(spec.place(Device::Disk(slot))?),
        Controller::Ahci | Controller::AhciCd => {
            [firmware_path::pci(AHCI.0, AHCI.1), firmware_path::sata(disk.port().into())].concat()
        }
        Controller::VirtioScsi | Controller::VirtioScsiCd => {
            [pci(spec.place(Device::Scsi)?), firmware_path::scsi(disk.port().into(), 0)].concat()
        }
    })
}

fn nic(c: &mut Config, spec: &MachineSpec, nic: &Nic, fds: &Fds) -> Result<(), Error> {
    let slot = nic.slot;
    let fd = *fds.taps.get(&slot).ok_or_else(|| Error::NoDescriptor(format!("NIC {slot}")))?;
    let id = qmp::nic_id(slot);
    // vhost would need /dev/vhost-net in the cell.
    c.with_id("netdev", &id).set("type", "tap")?.set("fd", fd)?.set("vhost", "off")?;
    let driver = match nic.model {
        NicModel::VirtioNet => "virtio-net-pci",
        NicModel::E1000 => "e1000",
    };
    let group = device(c, &format!("dev-{id}"), driver, at(spec, Device::Nic(slot)))?;
    // No boot ROM: network boot is not offered, and the cell need not hold one.
    group.set("netdev", &id)?.set("mac", nic.mac)?.set("romfile", "")?;
    Ok(())
}

fn screen(c: &mut Config, spec: &MachineSpec, screen: &Screen) -> Result<(), Error> {
    let bytes = u32::from(screen.width) * u32::from(screen.height) * 4;
    let memory = bytes.div_ceil(1 << 20).next_power_of_two().max(16);
    let group = device(c, "screen", "VGA", at(spec, Device::Screen))?;
    group.set("xres", screen.width)?.set("yres", screen.height)?.set("edid", "on")?.set("vgamem_mb", memory)?;
    if screen.tablet {
        device(c, "usb", "qemu-xhci", at(spec, Device::Usb))?;
        device(c, "tablet", "usb-tablet", None)?.set("bus", "usb.0")?;
    }
    Ok(())
}

/// Ports of a virtio console. Nobody is at the host's end of one before [`qmp::connect_channel`], which the guest sees; what it writes
/// until then is dropped.
fn channels(c: &mut Config, spec: &MachineSpec) -> Result<(), Error> {
    if !spec.channels.is_empty() {
        device(c, "channels", "virtio-serial-pci", at(spec, Device::Channels))?.set("max_ports", limits::CHANNELS + 1)?;
    }
    for (port, Channel { name }) in (0..).zip(&spec.channels) {
        let id = qmp::channel_id(port);
        c.with_id("chardev", &id).set("backend", "null")?;
        // Port 0 would be a console.
        let group = device(c, &format!("dev-{id}"), "virtserialport", None)?.set("bus", "channels.0")?.set("nr", port + 1)?;
        group.set("chardev", &id)?.set("name", name)?;
    }
    Ok(())
}

/// A virtio-9p device for each, found by its name. What the guest may only read it sees as it is, symbolic links included, which it follows
/// in its own tree. Where it writes, owners, modes, links and devices are kept in files (`.virtfs_metadata`), so that the host's files get no
/// set-user-id bit and no link that a program of the host would follow; the other two models do as much, but reach names through /proc,
/// which cells do not have (hw/9pfs/9p-util.h).
fn shares(c: &mut Config, spec: &MachineSpec) -> Result<(), Error> {
    for (number, share) in (0..).zip(&spec.shares) {
        let missing = || Error::NoDescriptor(format!("share {}", share.name));
        let place = at(spec, Device::Share(number)).ok_or_else(missing)?;
        let id = format!("share{number}");
        let group = c.with_id("fsdev", &id).set("fsdriver", "local")?.set("path", format_args!("{}{number}", crate::SHARE))?;
        match share.read_only {
            true => group.set("security_model", "none")?.set("readonly", "on")?,
            false => group.set("security_model", "mapped-file")?,
        };
        device(c, &format!("dev-{id}"), "virtio-9p-pci", Some(place))?.set("fsdev", &id)?.set("mount_tag", &share.name)?;
    }
    Ok(())
}

/// A device's place on PCI bus 0.
#[derive(Clone, Copy)]
struct At {
    place: u8,
    /// Other functions of its device number are there.
    shared: bool,
}

fn at(spec: &MachineSpec, device: Device) -> Option<At> {
    let place = spec.place(device)?;
    Some(At { place, shared: spec.is_shared(place) })
}

/// Begins a device, at its place on PCI bus 0 if it has one.
fn device<'c>(c: &'c mut Config, id: &str, driver: &str, at: Option<At>) -> Result<Group<'c>, Error> {
    let group = c.with_id("device", id).set("driver", driver)?;
    let Some(At { place, shared }) = at else { return Ok(group) };
    let (slot, function) = (place::slot(place), place::function(place));
    let group = group.set("bus", "pcie.0")?;
    // Without it a guest looks for no other function (PCI 3.0, 6.2.1: header type), and QEMU lets none be there.
    let group = if shared && function == 0 { group.set("multifunction", "on")? } else { group };
    Ok(match function {
        0 => group.set("addr", format_args!("{slot:#04x}"))?,
        function => group.set("addr", format_args!("{slot:#04x}.{function:#x}"))?,
    })
}
