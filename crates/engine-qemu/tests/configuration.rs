//! What is written for which model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{direct, full, uefi};
use proptest::prelude::*;
use skep_engine_qemu::{ARGV, Error, Fds, boot_path, configure};
use skep_machine::*;

/// Compares with the file of that name; `UPDATE_GOLDEN=1` writes it anew.
fn golden(name: &str, spec: &MachineSpec) {
    let text = configure(spec, &Fds::standard()).unwrap().config;
    let path = format!("{}/tests/golden/{name}.conf", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path} differs");
}

#[test]
fn the_smallest_machine_is_written_as_before() {
    golden(
        "smallest",
        &MachineSpec {
            boot: Boot::Direct { cmdline: String::new(), initrd: false },
            serial_ports: [].into(),
            rng: false,
            ..direct()
        },
    );
}

#[test]
fn a_direct_boot_is_written_as_before() {
    golden("direct", &direct());
}

#[test]
fn a_uefi_machine_is_written_as_before() {
    golden("uefi", &uefi());
}

#[test]
fn a_machine_with_everything_is_written_as_before() {
    golden("full", &full());
    let kvm = MachineSpec { acceleration: Acceleration::Kvm, clock: Clock::LocalTime, ..direct() };
    golden("kvm-localtime", &kvm);
}

/// What a machine has that is unlike all others.
fn unusual() -> MachineSpec {
    let disk = |slot, controller| Disk { slot, controller, ..Disk::default() };
    let place = |device, slot| Place { device, slot };
    MachineSpec {
        boot: Boot::Bios,
        disks: vec![
            Disk { no_cache: true, ..disk(0, Controller::VirtioBlk) },
            Disk { sync: true, ..disk(1, Controller::Nvme) },
            Disk { no_cache: true, sync: true, ..disk(2, Controller::Ahci) },
            Disk { ejected: true, ..disk(3, Controller::AhciCd) },
            disk(4, Controller::AhciCd),
        ],
        screen: Some(Screen { width: 1280, height: 1024, tablet: false, keyboard: "de-ch".into(), ..Screen::default() }),
        fw_cfg: vec![FwCfg { name: "opt/org.example/a".into(), value: "50% of b, c".into() }],
        places: vec![place(Device::Disk(0), 30), place(Device::Screen, 8), place(Device::Rng, 1)],
        ..direct()
    }
}

#[test]
fn an_unusual_machine_is_written_as_before() {
    golden("unusual", &unusual());
    let argv = configure(&unusual(), &Fds::standard()).unwrap().argv;
    assert_eq!(argv.split_at(ARGV.len()).1[4..], ["-k", "de-ch"]);
}

#[test]
fn functions_of_a_device_number_are_written_with_it() {
    let at = |device, slot, function| Place { device, slot: place::at(slot, function) };
    let places = vec![at(Device::Disk(0), 30, 0), at(Device::Rng, 30, 1), at(Device::Screen, 30, 7)];
    let spec = MachineSpec {
        disks: vec![Disk::default(), Disk { slot: 1, ..Disk::default() }],
        screen: Some(Screen::default()),
        places,
        ..direct()
    };
    let config = configure(&spec, &Fds::standard()).unwrap().config;
    let said = |id: &str| {
        let group = config.split("\n\n").find(|group| group.starts_with(&format!("[device \"{id}\"]"))).unwrap();
        let lines = group.lines().map(str::trim).filter(|line| line.starts_with("addr") || line.starts_with("multifunction"));
        lines.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(said("dev-disk0"), "multifunction = \"on\" addr = \"0x1e\"");
    assert_eq!([said("rng"), said("screen")], ["addr = \"0x1e.0x1\"", "addr = \"0x1e.0x7\""]);
    assert_eq!(said("dev-disk1"), "addr = \"0x09\"");
    // UEFI 2.10, 10.3.2.1: function, then device.
    let moved = MachineSpec { places: vec![at(Device::Disk(1), 30, 2), at(Device::Rng, 30, 0)], ..spec };
    assert_eq!(boot_path(&moved, 1).unwrap()[16..], [2, 30]);
}

#[test]
fn a_disk_is_held_to_its_rates_by_a_group_of_its_own() {
    let rates = DiskRates { read_bps: Some(1 << 20), write_iops: Some(10), ..DiskRates::default() };
    let held = Disk { slot: 1, rates, ..Disk::default() };
    let spec = MachineSpec { disks: vec![Disk::default(), held], ..direct() };
    let config = configure(&spec, &Fds::standard()).unwrap().config;
    let groups: Vec<&str> = config.split("\n\n").filter(|group| group.contains("throttling")).collect();
    let [group] = groups[..] else { panic!("{config}") };
    assert!(group.starts_with("[drive \"disk1\"]"), "{group}");
    let said: Vec<&str> = group.lines().filter_map(|line| line.trim().strip_prefix("throttling.")).collect();
    assert_eq!(said, ["bps-read = \"1048576\"", "iops-write = \"10\""]);
    let wrong = Disk { rates: DiskRates { read_bps: Some(1), ..DiskRates::default() }, ..Disk::default() };
    let wrong = MachineSpec { disks: vec![wrong], ..direct() }.validate().unwrap_err();
    assert_eq!(wrong.field, "disks[0].rates.read_bps");
}

#[test]
fn only_a_plain_word_becomes_an_argument() {
    let uuid = Uuid::from_u128(1);
    for config in ["# keyboard ../../run/x", "# keyboard ", "\n# keyboard de", "[machine]\n# keyboard de", "# keyboard de -S"] {
        assert_eq!(skep_engine_qemu::argv(uuid, config).len(), ARGV.len() + 4, "{config}");
    }
}

#[test]
fn what_only_bhyve_has_is_never_passed_over() {
    type Edit = fn(&mut MachineSpec);
    let edits: [Edit; 7] = [
        |s| s.board.acpi = false,
        |s| s.screen = Some(Screen { wait: true, ..Screen::default() }),
        |s| s.board.host_bridge = HostBridge::Amd,
        |s| s.board.exit_on_halt = false,
        |s| s.board.exit_on_pause = false,
        |s| s.board.strict_msr = true,
        |s| s.board.x2apic = true,
    ];
    for edit in edits {
        let mut spec = direct();
        edit(&mut spec);
        assert!(matches!(configure(&spec, &Fds::standard()), Err(Error::Unsupported(_))), "{spec:?}");
    }
}

#[test]
fn only_the_identity_varies_on_the_command_line() {
    let launch = configure(&direct(), &Fds::standard()).unwrap();
    let (fixed, rest) = launch.argv.split_at(ARGV.len());
    assert_eq!(fixed, ARGV);
    assert_eq!(rest, ["-uuid", "01020304-0506-0708-090a-0b0c0d0e0f10", "-cpu", "max,erms=off,fsrm=off"]);
    let kvm = MachineSpec { acceleration: Acceleration::Kvm, ..direct() };
    let argv = configure(&kvm, &Fds::standard()).unwrap().argv;
    assert_eq!(argv.split_at(ARGV.len()).1[2..], ["-cpu", "max"]);
}

#[test]
fn the_order_of_devices_in_the_model_does_not_matter() {
    let mut other = full();
    other.disks.reverse();
    other.nics.reverse();
    assert_eq!(configure(&full(), &Fds::standard()), configure(&other, &Fds::standard()));
}

#[test]
fn removing_a_device_moves_no_other() {
    let places = |spec: &MachineSpec| {
        let text = configure(spec, &Fds::standard()).unwrap().config;
        let mut places = std::collections::BTreeMap::new();
        let mut id = String::new();
        for line in text.lines() {
            match line.trim().split_once(" = ") {
                None => id = line.to_owned(),
                Some(("addr" | "bus", value)) => *places.entry(id.clone()).or_insert_with(String::new) += value,
                Some(_) => {}
            }
        }
        places
    };
    let before = places(&full());
    for without in 0..6 {
        let mut spec = full();
        spec.disks.remove(without);
        spec.screen = None;
        assert!(places(&spec).iter().all(|(id, at)| before.get(id) == Some(at)));
    }
}

#[test]
fn a_device_without_a_descriptor_is_refused_by_name() {
    let mut fds = Fds::standard();
    fds.disks.remove(&5);
    assert_eq!(configure(&full(), &fds), Err(Error::NoDescriptor("disk 5".into())));
    fds = Fds { taps: Default::default(), ..Fds::standard() };
    assert_eq!(configure(&full(), &fds), Err(Error::NoDescriptor("NIC 0".into())));
    fds = Fds { serials: vec![4], ..Fds::standard() };
    assert_eq!(configure(&full(), &fds), Err(Error::NoDescriptor("serial port 2".into())));
}

#[test]
fn what_qemu_cannot_do_or_no_machine_may_be_is_refused() {
    let loader = MachineSpec { boot: Boot::Loader, ..direct() };
    assert!(matches!(configure(&loader, &Fds::standard()), Err(Error::Unsupported(_))));
    let trusted = MachineSpec { tpm: true, ..direct() };
    assert!(matches!(configure(&trusted, &Fds::standard()), Err(Error::Unsupported(_))));
    let none = MachineSpec { memory_mib: 0, ..direct() };
    assert!(matches!(configure(&none, &Fds::standard()), Err(Error::Invalid(_))));
}

proptest! {
    /// Whatever text is tried, the file is refused or has exactly the lines that harmless text gives.
    #[test]
    fn no_text_smuggles_a_line_into_the_file(cmdline in prop_oneof!["[ -~]{0,920}", "[ -~]{0,20}[\"\n\r\0é\\[]", "(?s).{0,1200}"], serial in prop_oneof!["[a-z]{0,20}", "(?s).{0,24}"]) {
        let with = |cmdline: &str, serial: &str| {
            let mut spec = full();
            spec.boot = Boot::Direct { cmdline: cmdline.into(), initrd: true };
            spec.disks[0].serial = serial.into();
            configure(&spec, &Fds::standard()).map(|launch| launch.config)
        };
        if let Ok(text) = with(&cmdline, &serial) {
            let plain = with("x", "x").unwrap();
            prop_assert!(text.lines().all(|line| line.len() < 1000 && line.matches('"').count() % 2 == 0));
            prop_assert_eq!(text.lines().count(), plain.lines().count());
            let differ = text.lines().zip(plain.lines()).filter(|(a, b)| a != b).count();
            prop_assert!(differ <= 2);
        }
    }
}

/// A machine with controllers that have names.
fn seated() -> MachineSpec {
    let bus = |name: &str, kind, slot| Bus { name: name.into(), kind, slot };
    let disk =
        |slot, controller, at, port| Disk { slot, controller, seat: Some(Seat { controller: at, port }), ..Disk::default() };
    MachineSpec {
        controllers: vec![
            bus("sata", BusKind::Ahci, 20),
            bus("fast", BusKind::Nvme, 9),
            bus("bus", BusKind::VirtioScsi, 21),
            bus("one", BusKind::VirtioBlk, 22),
        ],
        disks: vec![
            disk(0, Controller::Nvme, 1, 1),
            disk(1, Controller::Nvme, 1, 0),
            disk(2, Controller::Ahci, 0, 3),
            disk(3, Controller::AhciCd, 0, 0),
            Disk { ejected: true, ..disk(4, Controller::VirtioScsiCd, 2, 5) },
            disk(5, Controller::VirtioBlk, 3, 0),
        ],
        ..direct()
    }
}

#[test]
fn disks_on_controllers_with_names_are_written_at_their_seats() {
    let text = configure(&seated(), &Fds::standard()).unwrap().config;
    let device = |id: &str| {
        let begin = text.find(&format!("[device \"{id}\"]")).unwrap_or_else(|| panic!("no {id}: {text}"));
        let group: Vec<&str> = text[begin..].lines().skip(1).take_while(|line| line.starts_with("  ")).map(str::trim).collect();
        (begin, group.join(" "))
    };
    let is = |id: &str, wanted: &[&str]| {
        let (_, group) = device(id);
        assert!(wanted.iter().all(|part| group.contains(part)), "{id}: {group}");
    };
    is("bus0", &["driver = \"ich9-ahci\"", "addr = \"0x14\""]);
    is("bus1", &["driver = \"nvme\"", "addr = \"0x09\"", "drive = \"disk1\"", "bootindex = \"2\""]);
    is("bus2", &["driver = \"virtio-scsi-pci\"", "addr = \"0x15\""]);
    is("dev-disk0", &["driver = \"nvme-ns\"", "bus = \"bus1\"", "nsid = \"2\"", "drive = \"disk0\""]);
    is("dev-disk2", &["driver = \"ide-hd\"", "bus = \"bus0.3\""]);
    is("dev-disk3", &["driver = \"ide-cd\"", "bus = \"bus0.0\""]);
    is("dev-disk4", &["driver = \"scsi-cd\"", "bus = \"bus2.0\"", "scsi-id = \"5\""]);
    is("dev-disk5", &["driver = \"virtio-blk-pci\"", "addr = \"0x16\"", "drive = \"disk5\""]);
    // What is put on a controller comes after it, whatever the order of the disks.
    assert!(device("bus1").0 < device("dev-disk0").0 && !text.contains("\"scsi\""), "{text}");
    let waits = MachineSpec { gdb: Gdb::Wait, ..direct() };
    let launch = configure(&waits, &Fds::standard()).unwrap();
    assert!(skep_engine_qemu::waits(&launch.config) && launch.qmp_first.len() == 1);
    assert!(!skep_engine_qemu::waits(&configure(&direct(), &Fds::standard()).unwrap().config));
}

#[test]
fn what_a_disk_stands_on_is_named_one_by_one_and_only_read() {
    let layers = vec![Format::Qcow2, Format::Raw];
    let disks = vec![Disk { format: Format::Qcow2, layers: layers.clone(), ..Disk::default() }];
    let spec = MachineSpec { disks, ..direct() };
    let config = configure(&spec, &Fds::standard()).unwrap().config;
    let has = |line: &str| assert!(config.lines().any(|l| l.trim() == line), "{line}\n{config}");
    for line in ["node-name = \"layer0-0\"", "backing = \"layer0-0\"", "backing = \"layer0-1\"", "node-name = \"disk0-2\""] {
        has(line);
    }
    let parts: Vec<_> = config.split("\n[").filter(|part| part.starts_with("drive \"under0-")).collect();
    assert!(parts.len() == 2 && parts.iter().all(|part| part.contains("  read-only = \"on\"")), "{config}");
    for (format, layers) in
        [(Format::Raw, vec![Format::Raw]), (Format::Qcow2, vec![Format::Raw; 2]), (Format::Qcow2, vec![Format::Qcow2; 17])]
    {
        let disks = vec![Disk { format, layers, ..Disk::default() }];
        let refused = configure(&MachineSpec { disks, ..direct() }, &Fds::standard()).unwrap_err();
        assert!(refused.to_string().contains("layers"), "{refused}");
    }
}

#[test]
fn a_disk_over_a_socket_is_connected_to_in_the_cell() {
    let disk = Disk { format: Format::Remote, slot: 3, read_only: true, ..Disk::default() };
    let spec = MachineSpec { disks: vec![disk], ..direct() };
    let config = configure(&spec, &Fds::standard()).unwrap().config;
    for line in
        ["file.driver = \"nbd\"", "file.server.path = \"/run/disk3.sock\"", "read-only = \"on\"", "node-name = \"disk3-0\""]
    {
        assert!(config.lines().any(|l| l.trim() == line), "{line}\n{config}");
    }
    assert!(!config.contains("fdset/3"), "{config}");
    let shares = vec![Share { name: "a".into(), read_only: true, at: None }];
    let refused = configure(&MachineSpec { shares, ..spec }, &Fds::standard()).unwrap_err();
    assert!(refused.to_string().contains("shares"), "{refused}");
}

#[test]
fn a_disk_or_nic_is_where_it_says_whatever_its_turn() {
    let disk = |slot, controller, at| Disk { slot, controller, at: Some(at), ..Disk::default() };
    let spec = MachineSpec {
        disks: vec![
            disk(0, Controller::VirtioBlk, 10),
            disk(1, Controller::Ahci, 4),
            disk(2, Controller::VirtioScsi, 7),
            disk(3, Controller::Nvme, 8),
        ],
        nics: vec![Nic { slot: 0, mac: Mac::from_id(1), at: Some(17), ..Nic::default() }],
        shares: vec![Share { name: "src".into(), read_only: true, at: Some(27) }],
        ..uefi()
    };
    let text = configure(&spec, &Fds::standard()).unwrap().config;
    let has = |id: &str, parts: &[&str]| {
        let begin = text.find(&format!("[device \"{id}\"]")).unwrap_or_else(|| panic!("no {id}: {text}"));
        let group: Vec<&str> = text[begin..].lines().skip(1).take_while(|line| line.starts_with("  ")).map(str::trim).collect();
        assert!(parts.iter().all(|part| group.contains(part)), "{id}: {group:?}");
    };
    // What is booted first is what comes first, wherever it is.
    has("dev-disk0", &["addr = \"0x0a\"", "bootindex = \"1\""]);
    has("dev-disk1", &["bus = \"ide.4\"", "bootindex = \"2\""]);
    has("dev-disk2", &["bus = \"scsi.0\"", "scsi-id = \"7\""]);
    has("dev-disk3", &["addr = \"0x08\""]);
    has("dev-net0", &["addr = \"0x11\""]);
    has("dev-share0", &["addr = \"0x1b\""]);
    use skep_efivars::path::{pci, sata, scsi};
    let path = |slot| skep_engine_qemu::boot_path(&spec, slot);
    assert_eq!(path(0), Some(pci(10, 0)));
    assert_eq!(path(1), Some([pci(31, 2), sata(4)].concat()));
    assert_eq!(path(2), Some([pci(6, 0), scsi(7, 0)].concat()));
}
