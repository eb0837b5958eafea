//! Devices as they are typed.

use crate::args::{Clock, DeviceArgs, Gdb, HostBridge, Switched};
use crate::error::Failure;
use crate::pci;
use skep_api::v1::{
    Controller, ControllerKind, CpuTopology, DiskAttachment, DiskController, FwCfgItem, GdbStub, MachineBoard, PciPlace,
    ScreenProperties, SerialPort,
};
use skep_proto::Reason;

fn on(switched: Option<Switched>) -> Option<bool> {
    switched.map(|s| s == Switched::On)
}

fn wrong(object: impl std::fmt::Display, note: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidValue, object, note)
}

/// The name of a sound device as the API has it.
pub fn sound(name: &str) -> String {
    if name == "none" { String::new() } else { name.to_owned() }
}

/// `sockets=N,cores=N,threads=N`, each at most once, or `none`.
pub fn topology(text: &str) -> Result<CpuTopology, Failure> {
    if text == "none" {
        return Ok(CpuTopology::default());
    }
    let mut topology = CpuTopology { sockets: 0, cores: 0, threads: 0 };
    let refuse = |part: &str| {
        wrong(
            "machine",
            format_args!("--topology {text}: `{part}` is none of sockets=N, cores=N, threads=N, each once, N from 1 to 64"),
        )
    };
    for part in text.split(',') {
        let (name, number) = part.split_once('=').ok_or_else(|| refuse(part))?;
        let place = match name {
            "sockets" => &mut topology.sockets,
            "cores" => &mut topology.cores,
            "threads" => &mut topology.threads,
            _ => return Err(refuse(part)),
        };
        let number = number.parse().ok().filter(|n| (1..=64).contains(n) && *place == 0);
        *place = number.ok_or_else(|| refuse(part))?;
    }
    let CpuTopology { sockets, cores, threads } = topology;
    Ok(CpuTopology { sockets: sockets.max(1), cores: cores.max(1), threads: threads.max(1) })
}

/// What was typed of the screen; none, if nothing was.
pub fn screen(args: &DeviceArgs) -> Option<ScreenProperties> {
    let keyboard = args.keyboard.as_ref().map(|name| if name == "none" { String::new() } else { name.clone() });
    let screen = ScreenProperties {
        width: args.screen_size.map(|(width, _)| width),
        height: args.screen_size.map(|(_, height)| height),
        wait: on(args.screen_wait),
        keyboard,
        tablet: on(args.tablet),
    };
    (screen != ScreenProperties::default()).then_some(screen)
}

/// What was typed of the board; none, if nothing was.
pub fn board(args: &DeviceArgs) -> Option<MachineBoard> {
    let board = MachineBoard {
        local_time: args.clock.map(|clock| clock == Clock::Local),
        acpi: on(args.acpi),
        amd_host_bridge: args.host_bridge.map(|bridge| bridge == HostBridge::Amd),
        exit_on_halt: on(args.exit_on_halt),
        exit_on_pause: on(args.exit_on_pause),
        strict_msr: on(args.strict_msr),
        x2apic: on(args.x2apic),
    };
    (board != MachineBoard::default()).then_some(board)
}

/// `NAME=TEXT`.
pub fn item(text: &str) -> Result<FwCfgItem, Failure> {
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("machine", format_args!("--fw-cfg {text}: it has no `=`")))?;
    Ok(FwCfgItem { name: name.to_owned(), value: value.to_owned() })
}

/// `NAME,KIND[,slot=N]`.
pub fn controller(text: &str) -> Result<DiskController, Failure> {
    let parts: Vec<&str> = text.split(',').collect();
    let (name, kind, (slot, function)) = match parts.as_slice() {
        [name, kind] => (name, kind, (0, 0)),
        [name, kind, slot] => {
            let place =
                slot.strip_prefix("slot=").ok_or_else(|| "its third part is not like slot=20".to_owned()).and_then(pci::place);
            (name, kind, place.map_err(|why| wrong("machine", format_args!("--controller {text}: {why}")))?)
        }
        _ => return Err(wrong("machine", format_args!("--controller {text}: it is not like sata,ahci or sata,ahci,slot=20"))),
    };
    let kind = match *kind {
        "ahci" => ControllerKind::Ahci,
        "scsi" => ControllerKind::VirtioScsi,
        "nvme" => ControllerKind::Nvme,
        "virtio" => ControllerKind::VirtioBlk,
        _ => return Err(wrong("machine", format_args!("--controller {text}: `{kind}` is none of ahci, scsi, nvme, virtio"))),
    };
    Ok(DiskController { name: (*name).to_owned(), kind: kind.into(), slot, function })
}

/// `PORT[,speed=N][,nolog]`.
pub fn port(text: &str) -> Result<SerialPort, Failure> {
    let port: skep_proto::SerialPort = text.parse().map_err(|e| wrong("machine", format_args!("--serial {text}: {e}")))?;
    Ok(SerialPort { port: port.port().into(), speed: port.speed(), log: Some(port.log()) })
}

/// Whether a debugger may be joined.
pub fn gdb(gdb: Gdb) -> GdbStub {
    match gdb {
        Gdb::Off => GdbStub::Off,
        Gdb::On => GdbStub::On,
        Gdb::Wait => GdbStub::Wait,
    }
}

/// `DEVICE=N`.
pub fn place(text: &str) -> Result<PciPlace, Failure> {
    let parts = text.split_once('=').ok_or_else(|| "it is not like screen=20".to_owned());
    let place = parts.and_then(|(device, place)| Ok((device, pci::place(place)?)));
    let (device, (slot, function)) = place.map_err(|why| wrong("machine", format_args!("--place {text}: {why}")))?;
    Ok(PciPlace { device: device.to_owned(), slot, function })
}

/// `NAME[,KIND][,FLAG…]`.
pub fn disk(text: &str) -> Result<DiskAttachment, Failure> {
    let mut parts = text.split(',');
    let mut disk = DiskAttachment { disk: parts.next().unwrap_or_default().to_owned(), ..DiskAttachment::default() };
    for part in parts {
        match part {
            "nvme" => disk.set_controller(Controller::Nvme),
            "virtio" => disk.set_controller(Controller::VirtioBlk),
            "ahci" => disk.set_controller(Controller::Ahci),
            "cd" => disk.set_controller(Controller::AhciCd),
            "scsi" => disk.set_controller(Controller::VirtioScsi),
            "ro" => disk.read_only = true,
            "nocache" => disk.no_cache = true,
            "sync" => disk.sync = true,
            "ejected" => disk.ejected = true,
            "eject-once" => disk.eject_after_first_boot = true,
            _ if part.starts_with("on=") => disk.on = part.trim_start_matches("on=").to_owned(),
            _ if part.starts_with("port=") => {
                let port = part.trim_start_matches("port=");
                let note = format!("--disk {text}: `{port}` is no port");
                disk.port = Some(port.parse().map_err(|_| wrong(format_args!("disk {}", disk.disk), note))?);
            }
            _ if part.starts_with("slot=") => {
                let place = pci::place(part.trim_start_matches("slot="));
                let object = format!("disk {}", disk.disk);
                (disk.slot, disk.function) = place.map_err(|why| wrong(object, format_args!("--disk {text}: {why}")))?;
            }
            _ => {
                let words = "virtio, nvme, ahci, cd, scsi, ro, nocache, sync, slot=N, on=CONTROLLER, port=N, ejected, eject-once";
                let note = format!("--disk {text}: `{part}` is none of {words}");
                return Err(wrong(format_args!("disk {}", disk.disk), note));
            }
        }
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_typed_with_its_options() {
        let typed = disk("root,nvme,ro,nocache,slot=20").expect("valid");
        assert_eq!((typed.disk.as_str(), typed.controller(), typed.read_only), ("root", Controller::Nvme, true));
        assert_eq!((typed.no_cache, typed.sync, typed.slot, typed.function), (true, false, 20, 0));
        let typed = disk("root,slot=20.7").expect("valid");
        assert_eq!((typed.slot, typed.function), (20, 7));
        for text in ["root,sata", "root,slot=0", "root,slot=x", "root,slot=20.x", "root,slot=0.1", "root,"] {
            assert_eq!(disk(text).expect_err("refused").exit, 8, "{text}");
        }
    }

    #[test]
    fn an_arrangement_of_cpus_is_typed_by_its_parts() {
        let all = |sockets, cores, threads| CpuTopology { sockets, cores, threads };
        let typed = |text: &str| topology(text).expect("valid");
        assert_eq!(typed("sockets=2,cores=3,threads=4"), all(2, 3, 4));
        assert_eq!((typed("threads=2"), typed("none")), (all(1, 1, 2), all(0, 0, 0)));
        for text in ["", "2", "cores", "cores=0", "cores=65", "cores=x", "cores=1,cores=1", "dies=2", "cores=2,"] {
            assert_eq!(topology(text).expect_err("refused").exit, 8, "{text}");
        }
    }

    #[test]
    fn a_controller_is_typed_with_its_kind() {
        let typed = controller("sata,ahci,slot=20").expect("valid");
        assert_eq!((typed.name.as_str(), typed.kind(), typed.slot), ("sata", ControllerKind::Ahci, 20));
        assert_eq!(controller("fast,nvme").expect("valid").slot, 0);
        for text in ["sata", "sata,ide", "sata,ahci,20", "sata,ahci,slot=0", "sata,ahci,slot=1,x"] {
            assert_eq!(controller(text).expect_err("refused").exit, 8, "{text}");
        }
        let typed = disk("root,on=sata,port=3,cd").expect("valid");
        assert_eq!((typed.on.as_str(), typed.port, typed.controller()), ("sata", Some(3), Controller::AhciCd));
        assert_eq!(disk("root,on=sata,port=x").expect_err("refused").exit, 8);
    }

    #[test]
    fn items_and_places_are_typed_with_an_equals_sign() {
        let typed = item("opt/a=b=c").expect("valid");
        assert_eq!((typed.name.as_str(), typed.value.as_str()), ("opt/a", "b=c"));
        assert_eq!(place("screen=20").expect("valid"), PciPlace { device: "screen".into(), slot: 20, function: 0 });
        assert_eq!(place("rng=20.1").expect("valid"), PciPlace { device: "rng".into(), slot: 20, function: 1 });
        assert_eq!((item("opt/a").expect_err("refused").exit, place("screen").expect_err("refused").exit), (8, 8));
    }
}
