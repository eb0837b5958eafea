//! Every field that a value can be wrong for, and what is said of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_machine::*;
use std::collections::BTreeSet;
use support::{at, channel, item, share, sound};

/// An AHCI controller.
fn bus(name: &str, slot: u8) -> Bus {
    Bus { name: name.into(), slot, ..Bus::default() }
}

/// A disk on one.
fn seated(controller: u8, port: u8) -> Disk {
    Disk { controller: Controller::Ahci, seat: Some(Seat { controller, port }), ..Disk::default() }
}

type Edit = fn(&mut MachineSpec);

/// Each way to be wrong, and what is said of it.
fn wrong() -> Vec<(Edit, &'static str)> {
    let cases: Vec<(Edit, &str)> = vec![
        (|s| s.cpu.count = 0, "cpu.count is 0: it must be 1 to 256"),
        (
            |s| s.cpu.topology = Some(Topology { sockets: 2, cores: 3, threads: 1 }),
            "cpu.topology is 2 sockets x 3 cores x 1 threads: it must be an arrangement of 1 CPUs",
        ),
        (|s| s.memory_mib = 8, "memory_mib is 8: it must be 16 to 16777216"),
        (
            |s| s.boot = Boot::Direct { cmdline: "a\"\nb".into(), initrd: false },
            "boot.cmdline is a\\\"\\nb: it must be printable ASCII without the double quote",
        ),
        (
            |s| s.boot = Boot::Direct { cmdline: "x".repeat(901), initrd: false },
            &*format!("boot.cmdline is {}: it must be at most 900 bytes, not 901", "x".repeat(64)).leak(),
        ),
        (|s| s.disks[1].slot = 0, "disks[0].slot is 0: it must be used once"),
        (|s| s.disks[1].slot = 8, "disks[8].slot is 8: it must be 0 to 7"),
        (
            |s| s.disks[1] = Disk { slot: 6, controller: Controller::AhciCd, ..Disk::default() },
            "disks[6].slot is 6: it must be 0 to 5 on the AHCI controller",
        ),
        (
            |s| s.disks[1] = Disk { slot: 3, controller: Controller::AhciCd, at: Some(6), ..Disk::default() },
            "disks[3].slot is 6: it must be 0 to 5 on the AHCI controller",
        ),
        (
            |s| {
                s.disks[0].controller = Controller::VirtioScsi;
                s.disks[1] = Disk { slot: 3, controller: Controller::VirtioScsiCd, at: Some(0), ..Disk::default() };
            },
            "disks[3].slot is 0: it must be another than that of disk 0 on the virtio SCSI controller",
        ),
        (|s| s.disks[1].at = Some(31), "places.disk3 is 31: it must be 1 to 30"),
        (|s| s.shares = vec![Share { at: Some(31), ..share("s", true) }], "places.share0 is 31: it must be 1 to 30"),
        (|s| s.nics[0].at = Some(8), "places.nic1 is 8: it must be another than that of disk0"),
        (|s| s.disks[1].serial = "a b".into(), "disks[3].serial is a b: it must be at most 20 letters, digits, - or _"),
        (|s| s.nics[0].slot = 200, "nics[200].slot is 200: it must be 0 to 7"),
        (
            |s| s.nics.push(Nic { slot: 2, mac: Mac::from_id(7), ..Nic::default() }),
            "nics[2].mac is 02:00:00:00:00:07: it must be another than that of the machine's other NICs",
        ),
        (|s| s.screen = Some(Screen { width: 1, ..Screen::default() }), "screen.width is 1: it must be 640 to 3840"),
        (|s| s.screen = Some(Screen { height: 9999, ..Screen::default() }), "screen.height is 9999: it must be 480 to 2160"),
        (|s| s.serial_ports = [1, 5].into(), "serial_ports is 5: it must be 1 to 4"),
        (
            |s| s.controllers = vec![Bus { name: "a".into(), slot: 0, ..Bus::default() }],
            "controllers[0].slot is 0: it must be 1 to 30",
        ),
        (
            |s| s.controllers = vec![Bus { slot: 20, ..Bus::default() }],
            "controllers[0].name is empty: it must be 1 to 31 letters, digits, ., _ or -, a letter or digit first",
        ),
        (
            |s| s.disks[0].seat = Some(Seat { controller: 1, port: 0 }),
            "disks[0].controller is 1: it must be one of the machine's controllers",
        ),
        (|s| s.limits.cpu_percent = Some(0), "limits.cpu_percent is 0: it must be 1 to 25600"),
        (
            |s| s.limits.memory_mib = Some(512),
            "limits.memory_mib is 512: it must be at least 640: the guest's 512 and 128 for its hypervisor",
        ),
        (|s| s.limits.pcpu = Some(0), "limits.pcpu is 0: it must be 1 to 25600"),
        (|s| s.limits.read_bps = Some(1), "limits.read_bps is 1: it must be 4096 to 1125899906842624"),
        (|s| s.limits.write_iops = Some(0), "limits.write_iops is 0: it must be 1 to 100000000"),
        (|s| s.limits.cpus = [1024].into(), "limits.cpus is 1024: it must be 0 to 1023"),
        (|s| s.limits.pins = [(2, 0)].into(), "limits.pins is 2: it must be 0 to 0"),
        (
            |s| (s.limits.cpus, s.limits.pins) = ([0, 1].into(), [(0, 2)].into()),
            "limits.pins is 0:2: it must be a CPU that limits.cpus allows",
        ),
        (|s| s.limits.priority = 20, "limits.priority is 20: it must be -20 to 19"),
        (|s| s.channels = vec![channel("a"); 5], "channels is 5 channels: it must be at most 4"),
        (
            |s| s.channels = vec![channel("a"), channel("b"), channel("a")],
            "channels[2].name is a: it must be another than those of the machine's other channels",
        ),
        (
            |s| s.channels = vec![channel("")],
            "channels[0].name is empty: it must be 1 to 63 letters, digits, ., _ or -, a letter or digit first",
        ),
        (
            |s| s.channels = vec![channel("a"), channel(".b")],
            "channels[1].name is .b: it must be 1 to 63 letters, digits, ., _ or -, a letter or digit first",
        ),
        (
            |s| s.channels = vec![channel("a/\n")],
            "channels[0].name is a/\\n: it must be 1 to 63 letters, digits, ., _ or -, a letter or digit first",
        ),
        (|s| s.shares = vec![share("a", true); 5], "shares is 5 shares: it must be at most 4"),
        (
            |s| s.shares = vec![share("a", true), share("a", false)],
            "shares[1].name is a: it must be another than those of the machine's other shares",
        ),
        (
            |s| s.shares = vec![share("../etc", true)],
            "shares[0].name is ../etc: it must be 1 to 31 letters, digits, ., _ or -, a letter or digit first",
        ),
        (
            |s| s.shares = vec![share("", false)],
            "shares[0].name is empty: it must be 1 to 31 letters, digits, ., _ or -, a letter or digit first",
        ),
        (
            |s| s.shares = vec![share("x", true), share(&"a".repeat(32), true)],
            "shares[1].name is aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: it must be 1 to 31 letters, digits, ., _ or -, a letter or digit first",
        ),
        (|s| s.disks[0].ejected = true, "disks[0].ejected is yes: it must be no, except for a CD"),
        (
            |s| s.screen = Some(Screen { keyboard: "../de".into(), ..Screen::default() }),
            "screen.keyboard is ../de: it must be at most 32 letters, digits, _ or -",
        ),
        (|s| s.fw_cfg = vec![item("opt/a", "b"); 9], "fw_cfg is 9 items: it must be at most 8"),
        (
            |s| s.fw_cfg = vec![item("etc/boot-fail-wait", "1")],
            "fw_cfg[0].name is etc/boot-fail-wait: it must be opt/ and letters, digits, ., _, - or /, at most 55 in all",
        ),
        (
            |s| s.fw_cfg = vec![item("opt/a", "1"), item("opt/a", "2")],
            "fw_cfg[1].name is opt/a: it must be another than those of the machine's other items",
        ),
        (
            |s| s.fw_cfg = vec![item("opt/a", "a\"b")],
            "fw_cfg[0].value is a\\\"b: it must be 1 to 128 printable ASCII characters without the double quote",
        ),
        (
            |s| s.fw_cfg = vec![item("opt/a", "")],
            "fw_cfg[0].value is empty: it must be 1 to 128 printable ASCII characters without the double quote",
        ),
        (|s| s.places = vec![at(Device::Rng, 31)], "places.rng is 31: it must be 1 to 30"),
        (|s| s.places = vec![at(Device::Rng, 9), at(Device::Rng, 10)], "places.rng is 10: it must be said once"),
        (|s| s.places = vec![at(Device::Rng, 8)], "places.rng is 8: it must be another than that of disk0"),
        (|s| s.places = vec![at(Device::Disk(3), 17)], "places.disk3 is 17: it must be another than that of nic1"),
        (|s| s.places = vec![at(Device::Nic(9), 1)], "places is nic9: it must be a device that a machine can have"),
        (
            |s| s.disks[0].layers = vec![Format::Raw; 17],
            "disks[0].layers is 17: it must be at most 16, with nothing under a raw one",
        ),
        (|s| s.disks[0].layers = vec![Format::Raw], "disks[0].layers is 1: it must be at most 16, with nothing under a raw one"),
        (
            |s| (s.disks[0].format, s.disks[0].layers) = (Format::Qcow2, vec![Format::Qcow2; 17]),
            "disks[0].layers is 17: it must be at most 16, with nothing under a raw one",
        ),
        (|s| s.disks[0].rates.read_bps = Some(65_535), "disks[0].rates.read_bps is 65535: it must be 65536 to 1000000000000"),
        (|s| s.disks[0].rates.write_bps = Some(0), "disks[0].rates.write_bps is 0: it must be 65536 to 1000000000000"),
        (|s| s.disks[1].rates.read_iops = Some(9), "disks[3].rates.read_iops is 9: it must be 10 to 100000000"),
        (
            |s| s.disks[1].rates.write_iops = Some(100_000_001),
            "disks[3].rates.write_iops is 100000001: it must be 10 to 100000000",
        ),
        (|s| s.controllers = (20..25).map(|slot| bus("a", slot)).collect(), "controllers is 5 controllers: it must be at most 4"),
        (
            |s| s.controllers = vec![bus("a", 20), bus("b", 21), bus("a", 22)],
            "controllers[2].name is a: it must be another than those of the machine's other controllers",
        ),
        (
            |s| s.controllers = vec![bus(&"a".repeat(32), 20)],
            "controllers[0].name is aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: it must be 1 to 31 letters, digits, ., _ or -, a letter or digit first",
        ),
        (|s| s.controllers = vec![bus("a", 31)], "controllers[0].slot is 31: it must be 1 to 30"),
        (|s| (s.controllers, s.disks[0]) = (vec![bus("a", 20)], seated(0, 6)), "disks[0].port is 6: it must be 0 to 5"),
        (
            |s| {
                s.controllers = vec![bus("a", 20)];
                s.disks = vec![seated(0, 2), Disk { slot: 1, ..seated(0, 2) }];
            },
            "disks[1].port is 2: it must be another than that of disk 0 on controller a",
        ),
        (
            |s| {
                s.controllers = vec![Bus { kind: BusKind::VirtioBlk, ..bus("one", 20) }];
                let one = |slot| Disk { slot, controller: Controller::VirtioBlk, ..seated(0, slot) };
                s.disks = vec![one(0), one(1)];
            },
            "disks[1].port is 1: it must be 0 to 0",
        ),
        (
            |s| (s.controllers, s.disks[0]) = (vec![bus("a", 20)], Disk { controller: Controller::Nvme, ..seated(0, 0) }),
            "disks[0].controller is Nvme: it must be what a holds",
        ),
        (
            |s| {
                s.controllers = vec![Bus { kind: BusKind::Nvme, ..bus("fast", 20) }];
                s.disks[0] = Disk { controller: Controller::AhciCd, ..seated(0, 0) };
            },
            "disks[0].controller is AhciCd: it must be what fast holds",
        ),
        (
            |s| (s.shares, s.disks[0].format) = (vec![share("a", true)], Format::Remote),
            "shares is shares beside an iSCSI disk: it must be one or the other",
        ),
        (|s| s.limits.tasks = Some(15), "limits.tasks is 15: it must be 16 to 65536"),
        (|s| s.limits.tasks = Some(65_537), "limits.tasks is 65537: it must be 16 to 65536"),
        (|s| s.limits.write_bps = Some(4095), "limits.write_bps is 4095: it must be 4096 to 1125899906842624"),
        (|s| s.limits.read_iops = Some(100_000_001), "limits.read_iops is 100000001: it must be 1 to 100000000"),
        (|s| s.limits.pins = [(0, 1024)].into(), "limits.pins is 1024: it must be 0 to 1023"),
        (|s| s.limits.priority = -21, "limits.priority is -21: it must be -20 to 19"),
        (|s| s.uuid = Uuid::default(), "uuid is 00000000-0000-0000-0000-000000000000: it must be an identity, not nil"),
    ];
    cases
}

#[test]
fn each_wrong_field_is_named_with_its_value_and_limit() {
    for (edit, want) in wrong() {
        let mut spec = sound();
        edit(&mut spec);
        assert_eq!(spec.validate().unwrap_err().to_string(), want);
    }
}

/// Fields of which no value is wrong by itself: what a host cannot do with them, [`HostCapabilities::check`] says.
const ANY: &[&str] = &[
    "acceleration",
    "board.acpi",
    "board.exit_on_halt",
    "board.exit_on_pause",
    "board.host_bridge",
    "board.strict_msr",
    "board.x2apic",
    "boot.initrd",
    "clock",
    "controllers.kind",
    "disks.format",
    "disks.no_cache",
    "disks.read_only",
    "disks.sync",
    "firmware_order",
    "gdb",
    "limits.protect",
    "limits.wired",
    "nics.model",
    "rng",
    "screen.tablet",
    "screen.wait",
    "shares.read_only",
    "sound",
    "sound_in",
    "sound_out",
    "tpm",
];

/// Paths of all values; a list's number is left out, as is the name of an enum's value.
fn paths(value: &serde_json::Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) if !fields.is_empty() && fields.keys().all(|name| name.parse::<u32>().is_err()) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                let begins = |c: char| c.is_ascii_uppercase();
                let inner = if name.starts_with(begins) { path.to_owned() } else { format!("{path}{dot}{name}") };
                paths(value, &inner, all);
            }
        }
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            items.iter().for_each(|item| paths(item, path, all));
        }
        _ => drop(all.insert(path.to_owned())),
    }
}

#[test]
fn every_field_has_a_value_that_is_wrong_or_none() {
    let full = MachineSpec {
        cpu: Cpu { count: 1, topology: Some(Topology { sockets: 1, cores: 1, threads: 1 }) },
        boot: Boot::Direct { cmdline: String::new(), initrd: false },
        disks: vec![Disk { seat: Some(Seat { controller: 0, port: 0 }), ..Disk::default() }],
        screen: Some(Screen::default()),
        channels: vec![channel("a")],
        shares: vec![share("a", true)],
        fw_cfg: vec![item("opt/a", "b")],
        places: vec![at(Device::Rng, 9)],
        controllers: vec![bus("a", 20)],
        ..sound()
    };
    let mut all = BTreeSet::new();
    paths(&serde_json::to_value(full).unwrap(), "", &mut all);
    let wrong: BTreeSet<String> = wrong()
        .iter()
        .map(|(_, said)| {
            let field = said.split(" is ").next().unwrap();
            field.split('.').map(|part| part.split('[').next().unwrap()).collect::<Vec<_>>().join(".")
        })
        .collect();
    // These are said of the whole that they are part of.
    let of = |path: &str| match path {
        "cpu.topology.cores" | "cpu.topology.sockets" | "cpu.topology.threads" => "cpu.topology".to_owned(),
        "places.device" => "places".to_owned(),
        "places.slot" => "places.rng".to_owned(),
        "disks.at" => "places.disk3".to_owned(),
        "nics.at" => "places.nic1".to_owned(),
        "shares.at" => "places.share0".to_owned(),
        path => path.replace(".seat.", "."),
    };
    let without: Vec<_> = all.iter().filter(|path| !wrong.contains(&of(path)) && !ANY.contains(&path.as_str())).collect();
    assert!(without.is_empty(), "no case of `wrong`, and not in `ANY`: {without:?}");
    let unknown: Vec<_> = ANY.iter().filter(|path| !all.contains(**path) || wrong.contains(**path)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
