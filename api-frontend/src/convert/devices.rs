//! Devices of machines.

use super::{at_most, invalid, known, value, values, within};
use skep_api::v1;
use skep_proto::broker::{
    Board, BoardDraft, Bus, BusKind, DiskFlags, DiskSeat, FwCfg, Gdb, NicModel, Place, Screen, ScreenDraft, Topology,
};
use skep_proto::{BadPort, Refusal, SerialPort, pci};

/// What a NIC is to the guest.
pub fn nic_model_view(model: NicModel) -> v1::NicModel {
    match model {
        NicModel::VirtioNet => v1::NicModel::VirtioNet,
        NicModel::E1000 => v1::NicModel::E1000,
    }
}

/// The same as it was given; none: nothing was.
pub fn nic_model(field: &str, number: i32) -> Result<Option<NicModel>, Refusal> {
    Ok(match known("nic", field, number)? {
        v1::NicModel::Unspecified => None,
        v1::NicModel::VirtioNet => Some(NicModel::VirtioNet),
        v1::NicModel::E1000 => Some(NicModel::E1000),
    })
}

/// A place on the PCI bus, whose fields are called like this and then `slot` and `function`; 0: the usual one.
pub fn place(object: &str, fields: &str, slot: u32, function: u32) -> Result<u8, Refusal> {
    pci::place(slot, function).ok_or_else(|| {
        let (field, wrong) = match (slot, function) {
            (31.., _) => ("slot", format!("{slot} is not 1 to 30, or 0 for the usual one")),
            (_, 8..) => ("function", format!("{function} is not 0 to 7")),
            _ => ("function", format!("{function} is one of no device number: say that, too, by slot")),
        };
        invalid(object, &format!("{fields}{field}"), wrong)
    })
}

/// Device number and function of a place; 0 of both: the usual one.
pub fn place_parts(place: u8) -> (u32, u32) {
    let (slot, function) = pci::parts(place);
    (slot.into(), function.into())
}

/// How a disk is used.
pub fn flags(disk: &v1::DiskAttachment) -> Result<DiskFlags, Refusal> {
    Ok(DiskFlags {
        no_cache: disk.no_cache,
        sync: disk.sync,
        slot: Some(place("machine", "settings.disks.", disk.slot, disk.function)?).filter(|place| *place > 0),
        ejected: disk.ejected,
        eject_after_first_boot: disk.eject_after_first_boot,
    })
}

/// How CPUs are arranged; all zero: as usual.
pub fn topology_view(topology: Option<Topology>) -> v1::CpuTopology {
    let Some(Topology { sockets, cores, threads }) = topology else { return v1::CpuTopology::default() };
    v1::CpuTopology { sockets: sockets.into(), cores: cores.into(), threads: threads.into() }
}

/// The same as it was given. The product is looked at where the number of CPUs is known.
pub fn topology(given: &v1::CpuTopology) -> Result<Option<Topology>, Refusal> {
    if *given == v1::CpuTopology::default() {
        return Ok(None);
    }
    let number = |field: &str, number: u32| {
        let wrong = |_| invalid("machine", field, format_args!("{number} is not 1 to 64"));
        u16::try_from(number).ok().filter(|n| (1..=64).contains(n)).ok_or(()).map_err(wrong)
    };
    Ok(Some(Topology {
        sockets: number("settings.topology.sockets", given.sockets)?,
        cores: number("settings.topology.cores", given.cores)?,
        threads: number("settings.topology.threads", given.threads)?,
    }))
}

/// A screen's properties.
pub fn screen_view(screen: &Screen) -> v1::ScreenProperties {
    v1::ScreenProperties {
        width: Some(screen.width.into()),
        height: Some(screen.height.into()),
        wait: Some(screen.wait),
        keyboard: Some(screen.keyboard.to_string()),
        tablet: Some(screen.tablet),
    }
}

/// The same as they were given.
pub fn screen(given: &v1::ScreenProperties) -> Result<ScreenDraft, Refusal> {
    let pixels = |field: &str, number: Option<u32>, range| {
        let number = number.map(|n| within("machine", field, n, &range)).transpose()?;
        Ok::<_, Refusal>(number.and_then(|n| u16::try_from(n).ok()))
    };
    let keyboard = |name: &String| value("machine", "settings.screen_properties.keyboard", name);
    Ok(ScreenDraft {
        width: pixels("settings.screen_properties.width", given.width, 640..=3840)?,
        height: pixels("settings.screen_properties.height", given.height, 480..=2160)?,
        wait: given.wait,
        keyboard: given.keyboard.as_ref().map(keyboard).transpose()?,
        tablet: given.tablet,
    })
}

/// Chip set, clock and processor.
pub fn board_view(board: Board) -> v1::MachineBoard {
    v1::MachineBoard {
        local_time: Some(board.local_time),
        acpi: Some(board.acpi),
        amd_host_bridge: Some(board.amd_host_bridge),
        exit_on_halt: Some(board.exit_on_halt),
        exit_on_pause: Some(board.exit_on_pause),
        strict_msr: Some(board.strict_msr),
        x2apic: Some(board.x2apic),
    }
}

/// The same as they were given.
pub fn board(given: &v1::MachineBoard) -> BoardDraft {
    let v1::MachineBoard { local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic } = *given;
    BoardDraft { local_time, acpi, amd_host_bridge, exit_on_halt, exit_on_pause, strict_msr, x2apic }
}

/// An item of fw_cfg.
pub fn item_view(item: &FwCfg) -> v1::FwCfgItem {
    v1::FwCfgItem { name: item.name.to_string(), value: item.value.to_string() }
}

/// The same as they were given; none: there were none.
pub fn items(given: &[v1::FwCfgItem]) -> Result<Option<Vec<FwCfg>>, Refusal> {
    at_most("machine", "settings.fw_cfg", given, 8)?;
    let item = |item: &v1::FwCfgItem| {
        let name = value("machine", "settings.fw_cfg.name", &item.name)?;
        Ok(FwCfg { name, value: value("machine", "settings.fw_cfg.value", &item.value)? })
    };
    let items = given.iter().map(item).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(if items.is_empty() { None } else { Some(items) })
}

/// A controller with a name.
pub fn bus_view(bus: &Bus) -> v1::DiskController {
    let kind = match bus.kind {
        BusKind::Ahci => v1::ControllerKind::Ahci,
        BusKind::VirtioScsi => v1::ControllerKind::VirtioScsi,
        BusKind::Nvme => v1::ControllerKind::Nvme,
        BusKind::VirtioBlk => v1::ControllerKind::VirtioBlk,
    };
    let (slot, function) = place_parts(bus.slot);
    v1::DiskController { name: bus.name.to_string(), kind: kind.into(), slot, function }
}

/// The same as they were given; none: there were none.
pub fn buses(given: &[v1::DiskController]) -> Result<Option<Vec<Bus>>, Refusal> {
    at_most("machine", "settings.controllers", given, 4)?;
    let bus = |bus: &v1::DiskController| {
        let field = "settings.controllers.kind";
        let kind = match known("machine", field, bus.kind)? {
            v1::ControllerKind::Ahci => BusKind::Ahci,
            v1::ControllerKind::VirtioScsi => BusKind::VirtioScsi,
            v1::ControllerKind::Nvme => BusKind::Nvme,
            v1::ControllerKind::VirtioBlk => BusKind::VirtioBlk,
            v1::ControllerKind::Unspecified => {
                return Err(invalid("machine", field, format_args!("0 is none of {}", values::<v1::ControllerKind>())));
            }
        };
        let name = value("machine", "settings.controllers.name", &bus.name)?;
        Ok(Bus { name, kind, slot: place("machine", "settings.controllers.", bus.slot, bus.function)? })
    };
    let buses = given.iter().map(bus).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(if buses.is_empty() { None } else { Some(buses) })
}

/// Where a disk sits.
pub fn on(disk: &v1::DiskAttachment) -> Result<Option<DiskSeat>, Refusal> {
    let port = |number: u32| {
        let wrong = || invalid("machine", "settings.disks.port", format_args!("{number} is not 0 to 7"));
        u8::try_from(number).ok().filter(|port| *port <= 7).ok_or_else(wrong)
    };
    let port = disk.port.map(port).transpose()?;
    if disk.on.is_empty() {
        return match port {
            None => Ok(None),
            Some(_) => Err(invalid("machine", "settings.disks.port", "a port is one of a controller; `on` names none")),
        };
    }
    Ok(Some(DiskSeat { controller: value("machine", "settings.disks.on", &disk.on)?, port }))
}

/// A serial port.
pub fn port_view(port: &SerialPort) -> v1::SerialPort {
    v1::SerialPort { port: port.port().into(), speed: port.speed(), log: Some(port.log()) }
}

/// The same as they were given; none: there were none.
pub fn ports(given: &[v1::SerialPort]) -> Result<Option<Vec<SerialPort>>, Refusal> {
    at_most("machine", "settings.serial", given, 4)?;
    let port = |port: &v1::SerialPort| {
        let field = |e: &BadPort| if matches!(e, BadPort::Speed(_)) { "settings.serial.speed" } else { "settings.serial.port" };
        SerialPort::new(port.port, port.speed, port.log.unwrap_or(true)).map_err(|e| invalid("machine", field(&e), e))
    };
    let ports = given.iter().map(port).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(if ports.is_empty() { None } else { Some(ports) })
}

/// The number of a serial port; 0: the first.
pub fn port(number: u32) -> Result<u8, Refusal> {
    let wrong = || invalid("machine", "attach.port", format_args!("{number} is not 1 to 4, or 0 for the first"));
    u8::try_from(number).ok().filter(|port| *port <= 4).map(|port| port.max(1)).ok_or_else(wrong)
}

/// Whether a debugger may be joined.
pub fn gdb_view(gdb: Gdb) -> v1::GdbStub {
    match gdb {
        Gdb::Off => v1::GdbStub::Off,
        Gdb::On => v1::GdbStub::On,
        Gdb::Wait => v1::GdbStub::Wait,
    }
}

/// The same as it was given.
pub fn gdb(number: i32) -> Result<Gdb, Refusal> {
    Ok(match known("machine", "settings.gdb", number)? {
        v1::GdbStub::Unspecified | v1::GdbStub::Off => Gdb::Off,
        v1::GdbStub::On => Gdb::On,
        v1::GdbStub::Wait => Gdb::Wait,
    })
}

/// A place on the PCI bus.
pub fn place_view(place: &Place) -> v1::PciPlace {
    let (slot, function) = place_parts(place.slot);
    v1::PciPlace { device: place.device.to_string(), slot, function }
}

/// The same as they were given; none: there were none.
pub fn places(given: &[v1::PciPlace]) -> Result<Option<Vec<Place>>, Refusal> {
    at_most("machine", "settings.places", given, 11)?;
    let read = |given: &v1::PciPlace| {
        let device = value("machine", "settings.places.device", &given.device)?;
        Ok(Place { device, slot: place("machine", "settings.places.", given.slot, given.function)? })
    };
    let places = given.iter().map(read).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(if places.is_empty() { None } else { Some(places) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, field: &str, says: &str) {
            let refusal = result.expect_err(field);
            assert_eq!(refusal.field.as_str(), field);
            assert!(refusal.note.as_str().contains(says), "{says}: {refusal}");
        }
        refused(place("nic", "", 31, 0), "slot", "31 is not 1 to 30");
        refused(place("nic", "a.", 256, 9), "a.slot", "256 is not 1 to 30");
        refused(place("nic", "a.", 30, 8), "a.function", "8 is not 0 to 7");
        refused(place("nic", "", 0, 1), "function", "1 is one of no device number");
        assert_eq!((place("nic", "", 30, 0), place("nic", "", 0, 0)), (Ok(30), Ok(0)));
        assert_eq!(place("nic", "", 30, 7).map(place_parts), Ok((30, 7)));
        let size = |width, height| screen(&v1::ScreenProperties { width, height, ..Default::default() });
        refused(size(Some(70_000), None), "settings.screen_properties.width", "70000 is not 640 to 3840");
        refused(size(None, Some(479)), "settings.screen_properties.height", "479 is not 480 to 2160");
        let long = v1::ScreenProperties { keyboard: Some("x".repeat(33)), ..Default::default() };
        refused(
            screen(&long),
            "settings.screen_properties.keyboard",
            "at most 32 bytes without control characters is expected, not \"xx",
        );
        let item = |name: &str, value: &str| v1::FwCfgItem { name: name.into(), value: value.into() };
        refused(items(&vec![item("opt/a", "b"); 9]), "settings.fw_cfg", "9 of them; at most 8");
        refused(items(&[item(&"x".repeat(56), "b")]), "settings.fw_cfg.name", "… (56 bytes)");
        refused(items(&[item("opt/a", &"x".repeat(129))]), "settings.fw_cfg.value", "… (129 bytes)");
        let place = |device: &str, slot| v1::PciPlace { device: device.into(), slot, function: 0 };
        refused(places(&[place("screen", 99)]), "settings.places.slot", "99 is not 1 to 30");
        refused(
            places(&[place(&"x".repeat(32), 9)]),
            "settings.places.device",
            "at most 31 bytes without control characters is expected, not \"xx",
        );
        refused(places(&vec![place("screen", 9); 12]), "settings.places", "12 of them; at most 11");
        let bus = |name: &str, kind: v1::ControllerKind, slot| v1::DiskController {
            name: name.into(),
            kind: kind.into(),
            slot,
            function: 0,
        };
        let ahci = v1::ControllerKind::Ahci;
        refused(buses(&vec![bus("a", ahci, 0); 5]), "settings.controllers", "5 of them; at most 4");
        refused(
            buses(&[bus(&"a".repeat(32), ahci, 0)]),
            "settings.controllers.name",
            "at most 31 bytes without control characters is expected, not \"aa",
        );
        refused(buses(&[bus("a", ahci, 31)]), "settings.controllers.slot", "31 is not 1 to 30");
        let kinds = "is none of 1 (Ahci), 2 (VirtioScsi), 3 (Nvme), 4 (VirtioBlk)";
        refused(buses(&[bus("a", v1::ControllerKind::Unspecified, 1)]), "settings.controllers.kind", &format!("0 {kinds}"));
        let odd = v1::DiskController { name: "a".into(), kind: 5, slot: 1, function: 0 };
        refused(buses(&[odd]), "settings.controllers.kind", &format!("5 {kinds}"));
        let sits = |on: &str, port| v1::DiskAttachment { on: on.into(), port, ..Default::default() };
        refused(on(&sits("a", Some(8))), "settings.disks.port", "8 is not 0 to 7");
        refused(on(&sits("", Some(1))), "settings.disks.port", "`on` names none");
        refused(
            on(&sits(&"a".repeat(32), None)),
            "settings.disks.on",
            "at most 31 bytes without control characters is expected, not \"aa",
        );
        assert_eq!(on(&sits("", None)), Ok(None));
        let serial = |port, speed| v1::SerialPort { port, speed, log: None };
        refused(ports(&[serial(5, 0)]), "settings.serial.port", "port 5 is not 1 to 4");
        refused(ports(&[serial(4, 1)]), "settings.serial.speed", "a speed of 1 is none of 0 (as fast as it goes), 300,");
        refused(ports(&[serial(1, 0); 5]), "settings.serial", "5 of them; at most 4");
        assert_eq!((port(0), port(4)), (Ok(1), Ok(4)));
        refused(port(5), "attach.port", "5 is not 1 to 4");
        refused(gdb(4), "settings.gdb", "4 is none of 1 (Off), 2 (On), 3 (Wait)");
        refused(nic_model("model", 9), "model", "9 is none of 1 (VirtioNet), 2 (E1000)");
    }
}
