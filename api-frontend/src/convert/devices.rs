//! Devices of machines.

use super::{invalid, known, value};
use skep_api::v1;
use skep_proto::broker::{
    Board, BoardDraft, Bus, BusKind, DiskFlags, DiskSeat, FwCfg, Gdb, NicModel, Place, Screen, ScreenDraft,
};
use skep_proto::{BadPort, Refusal, SerialPort};

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

/// A place on the PCI bus; 0: the usual one.
pub fn slot(object: &str, field: &str, number: u32) -> Result<u8, Refusal> {
    let wrong = || invalid(object, field, format_args!("{number} is not 1 to 30, or 0 for the usual one"));
    u8::try_from(number).ok().filter(|slot| *slot <= 30).ok_or_else(wrong)
}

/// How a disk is used.
pub fn flags(disk: &v1::DiskAttachment) -> Result<DiskFlags, Refusal> {
    Ok(DiskFlags {
        no_cache: disk.no_cache,
        sync: disk.sync,
        slot: Some(slot("machine", "settings.disks.slot", disk.slot)?).filter(|slot| *slot > 0),
        ejected: disk.ejected,
        eject_after_first_boot: disk.eject_after_first_boot,
    })
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
    let pixels = |field: &str, number: Option<u32>| {
        let wrong = |n| invalid("machine", field, format_args!("{n} is too large"));
        number.map(|n| u16::try_from(n).map_err(|_| wrong(n))).transpose()
    };
    let keyboard = |name: &String| value("machine", "settings.screen_properties.keyboard", name);
    Ok(ScreenDraft {
        width: pixels("settings.screen_properties.width", given.width)?,
        height: pixels("settings.screen_properties.height", given.height)?,
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
    if given.len() > 8 {
        return Err(invalid("machine", "settings.fw_cfg", "at most 8 are expected"));
    }
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
    v1::DiskController { name: bus.name.to_string(), kind: kind.into(), slot: bus.slot.into() }
}

/// The same as they were given; none: there were none.
pub fn buses(given: &[v1::DiskController]) -> Result<Option<Vec<Bus>>, Refusal> {
    if given.len() > 4 {
        return Err(invalid("machine", "settings.controllers", "at most 4 are expected"));
    }
    let bus = |bus: &v1::DiskController| {
        let field = "settings.controllers.kind";
        let kind = match known("machine", field, bus.kind)? {
            v1::ControllerKind::Ahci => BusKind::Ahci,
            v1::ControllerKind::VirtioScsi => BusKind::VirtioScsi,
            v1::ControllerKind::Nvme => BusKind::Nvme,
            v1::ControllerKind::VirtioBlk => BusKind::VirtioBlk,
            v1::ControllerKind::Unspecified => return Err(invalid("machine", field, "a kind is expected")),
        };
        let name = value("machine", "settings.controllers.name", &bus.name)?;
        Ok(Bus { name, kind, slot: slot("machine", "settings.controllers.slot", bus.slot)? })
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
    if given.len() > 4 {
        return Err(invalid("machine", "settings.serial", "at most 4 are expected"));
    }
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
    v1::PciPlace { device: place.device.to_string(), slot: place.slot.into() }
}

/// The same as they were given; none: there were none.
pub fn places(given: &[v1::PciPlace]) -> Result<Option<Vec<Place>>, Refusal> {
    if given.len() > 11 {
        return Err(invalid("machine", "settings.places", "at most 11 are expected"));
    }
    let place = |place: &v1::PciPlace| {
        let device = value("machine", "settings.places.device", &place.device)?;
        Ok(Place { device, slot: slot("machine", "settings.places.slot", place.slot)? })
    };
    let places = given.iter().map(place).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(if places.is_empty() { None } else { Some(places) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        let field = |refusal: Refusal| refusal.field.to_string();
        assert_eq!(slot("nic", "slot", 31).map_err(field), Err("slot".into()));
        assert_eq!(slot("nic", "slot", 30).map_err(field), Ok(30));
        let wide = v1::ScreenProperties { width: Some(1 << 16), ..Default::default() };
        assert_eq!(screen(&wide).map_err(field), Err("settings.screen_properties.width".into()));
        let long = v1::ScreenProperties { keyboard: Some("x".repeat(33)), ..Default::default() };
        assert_eq!(screen(&long).map_err(field), Err("settings.screen_properties.keyboard".into()));
        let item = |name: &str, value: &str| v1::FwCfgItem { name: name.into(), value: value.into() };
        assert_eq!(items(&vec![item("opt/a", "b"); 9]).map_err(field), Err("settings.fw_cfg".into()));
        assert_eq!(items(&[item(&"x".repeat(56), "b")]).map_err(field), Err("settings.fw_cfg.name".into()));
        assert_eq!(items(&[item("opt/a", &"x".repeat(129))]).map_err(field), Err("settings.fw_cfg.value".into()));
        let place = |device: &str, slot| v1::PciPlace { device: device.into(), slot };
        assert_eq!(places(&[place("screen", 99)]).map_err(field), Err("settings.places.slot".into()));
        assert_eq!(places(&[place(&"x".repeat(32), 9)]).map_err(field), Err("settings.places.device".into()));
        assert_eq!(places(&vec![place("screen", 9); 12]).map_err(field), Err("settings.places".into()));
        let bus = |name: &str, kind: v1::ControllerKind, slot| v1::DiskController { name: name.into(), kind: kind.into(), slot };
        let ahci = v1::ControllerKind::Ahci;
        assert_eq!(buses(&vec![bus("a", ahci, 0); 5]).map_err(field), Err("settings.controllers".into()));
        assert_eq!(buses(&[bus(&"a".repeat(32), ahci, 0)]).map_err(field), Err("settings.controllers.name".into()));
        assert_eq!(buses(&[bus("a", ahci, 31)]).map_err(field), Err("settings.controllers.slot".into()));
        let none = v1::ControllerKind::Unspecified;
        assert_eq!(buses(&[bus("a", none, 1)]).map_err(field), Err("settings.controllers.kind".into()));
        let sits = |on: &str, port| v1::DiskAttachment { on: on.into(), port, ..Default::default() };
        assert_eq!(on(&sits("a", Some(8))).map_err(field), Err("settings.disks.port".into()));
        assert_eq!(on(&sits("", Some(1))).map_err(field), Err("settings.disks.port".into()));
        assert_eq!(on(&sits(&"a".repeat(32), None)).map_err(field), Err("settings.disks.on".into()));
        assert_eq!(on(&sits("", None)).map_err(field), Ok(None));
        let serial = |port, speed| v1::SerialPort { port, speed, log: None };
        assert_eq!(ports(&[serial(5, 0)]).map_err(field), Err("settings.serial.port".into()));
        assert_eq!(ports(&[serial(4, 1)]).map_err(field), Err("settings.serial.speed".into()));
        assert_eq!(ports(&[serial(1, 0); 5]).map_err(field), Err("settings.serial".into()));
        assert_eq!((port(0).map_err(field), port(4).map_err(field)), (Ok(1), Ok(4)));
        assert_eq!(port(5).map_err(field), Err("attach.port".into()));
        assert_eq!(gdb(4).map_err(field), Err("settings.gdb".into()));
        assert_eq!(nic_model("model", 9).map_err(field), Err("model".into()));
    }
}
