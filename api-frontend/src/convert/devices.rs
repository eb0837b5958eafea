//! Devices of machines.

use super::{invalid, known, value};
use skep_api::v1;
use skep_proto::Refusal;
use skep_proto::broker::{Board, BoardDraft, DiskFlags, FwCfg, NicModel, Place, Screen, ScreenDraft};

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
        assert_eq!(places(&[place(&"x".repeat(17), 9)]).map_err(field), Err("settings.places.device".into()));
        assert_eq!(places(&vec![place("screen", 9); 12]).map_err(field), Err("settings.places".into()));
        assert_eq!(nic_model("model", 9).map_err(field), Err("model".into()));
    }
}
