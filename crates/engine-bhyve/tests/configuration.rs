//! What is written for which model and release, and that bhyve knows every key of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use skep_engine_bhyve::{BhyveRelease, Error, Key, Names, Pci, ScreenAddress, argv, configure};
use skep_machine::*;
use std::collections::{BTreeMap, BTreeSet};

fn names(release: BhyveRelease) -> Names {
    let mut names = Names::standard("skep-a1-0102");
    if release < BhyveRelease::V15 {
        names.screen = ScreenAddress::Loopback;
    }
    names
}

fn small() -> MachineSpec {
    MachineSpec {
        uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        memory_mib: 256,
        boot: Boot::Loader,
        disks: vec![Disk::default()],
        ..MachineSpec::default()
    }
}

fn full() -> MachineSpec {
    let disk = |slot, controller| Disk { slot, controller, ..Disk::default() };
    MachineSpec {
        boot: Boot::Uefi,
        cpu: Cpu { count: 4, topology: Some(Topology { sockets: 1, cores: 2, threads: 2 }) },
        disks: vec![
            disk(5, Controller::AhciCd),
            Disk { serial: "root-1".into(), ..disk(0, Controller::VirtioBlk) },
            Disk { read_only: true, ..disk(1, Controller::Nvme) },
            disk(2, Controller::Ahci),
        ],
        nics: vec![
            Nic { slot: 0, mac: Mac::from_id(0xaa), ..Nic::default() },
            Nic { slot: 7, model: NicModel::E1000, mac: Mac::from_id(0xbb), at: None },
        ],
        screen: Some(Screen { width: 1920, height: 1080, tablet: true, ..Screen::default() }),
        serial_ports: [1, 2, 3, 4].into(),
        clock: Clock::LocalTime,
        channels: ["org.qemu.guest_agent.0", "b"].map(|name| Channel { name: name.into() }).into(),
        shares: [("src", true), ("out", false)].map(|(name, read_only)| Share { name: name.into(), read_only, at: None }).into(),
        ..small()
    }
}

/// What a machine has that is unlike all others.
fn unusual() -> MachineSpec {
    let disk = |slot, controller| Disk { slot, controller, ..Disk::default() };
    let place = |device, slot| Place { device, slot };
    MachineSpec {
        boot: Boot::Uefi,
        disks: vec![
            Disk { no_cache: true, ..disk(0, Controller::VirtioBlk) },
            Disk { ejected: true, ..disk(1, Controller::AhciCd) },
            Disk { no_cache: true, sync: true, ..disk(2, Controller::Ahci) },
        ],
        screen: Some(Screen { wait: true, keyboard: "ch-fr".into(), tablet: false, ..Screen::default() }),
        board: Board {
            acpi: false,
            host_bridge: HostBridge::Amd,
            exit_on_halt: false,
            exit_on_pause: false,
            strict_msr: true,
            x2apic: true,
        },
        places: vec![place(Device::Disk(0), 30), place(Device::Ahci, 8), place(Device::Screen, 1)],
        ..small()
    }
}

fn number(release: BhyveRelease) -> u8 {
    match release {
        BhyveRelease::V13 => 13,
        BhyveRelease::V14 => 14,
        BhyveRelease::V15 => 15,
    }
}

/// Compares with the file of that name; `UPDATE_GOLDEN=1` writes it anew.
fn golden(name: &str, spec: &MachineSpec, release: BhyveRelease) {
    let text = configure(spec, &names(release), release).unwrap();
    let path = format!("{}/tests/golden/{name}-{}.conf", env!("CARGO_MANIFEST_DIR"), number(release));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path} differs");
}

#[test]
fn every_release_is_written_as_before() {
    for release in BhyveRelease::ALL {
        golden("small", &small(), release);
        golden("full", &full(), release);
        golden("unusual", &unusual(), release);
    }
}

#[test]
fn functions_of_a_device_number_are_written_with_it() {
    let at = |device, slot, function| Place { device, slot: place::at(slot, function) };
    let places = vec![at(Device::Disk(1), 30, 2), at(Device::Rng, 30, 0), at(Device::Screen, 30, 7)];
    let disk = |slot| Disk { slot, ..Disk::default() };
    let spec = MachineSpec { disks: vec![disk(0), disk(1)], screen: Some(Screen::default()), places, ..small() };
    for release in BhyveRelease::ALL {
        let text = configure(&spec, &names(release), release).unwrap();
        for line in [
            "pci.0.8.0.device=virtio-blk",
            "pci.0.30.0.device=virtio-rnd",
            "pci.0.30.2.device=virtio-blk",
            "pci.0.30.7.device=fbuf",
            "pci.0.30.7.w=1024",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}: {text}");
        }
    }
    // UEFI 2.10, 10.3.2.1: function, then device.
    assert_eq!(skep_engine_bhyve::boot_path(&spec, 1).unwrap()[16..], [2, 30]);
}

/// A key with its numbers replaced by `*`.
fn pattern(key: &str) -> String {
    key.split('.').map(|part| if part.parse::<u8>().is_ok() { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// The keys of a configuration that the release's manual page does not have.
fn undocumented(text: &str, release: BhyveRelease) -> Vec<String> {
    let path = format!("{}/tests/documented/{}.txt", env!("CARGO_MANIFEST_DIR"), number(release));
    let table = std::fs::read_to_string(path).unwrap();
    let known: BTreeSet<_> = table.lines().filter(|l| !l.starts_with('#')).collect();
    let lines: Vec<_> = text.lines().map(|l| l.split_once('=').unwrap()).collect();
    let models: BTreeMap<_, _> = lines
        .iter()
        .filter_map(|(key, value)| Some((key.strip_suffix(".device").filter(|k| k.split('.').count() == 4)?, *value)))
        .collect();
    let is_known = |key: &str| {
        let Some(rest) = key.strip_prefix("pci.") else {
            return known.contains(
                pattern(key)
                    .replace("com1", "com*")
                    .replace("com2", "com*")
                    .replace("com3", "com*")
                    .replace("com4", "com*")
                    .as_str(),
            );
        };
        let end = key.len() - rest.splitn(4, '.').nth(3).unwrap().len();
        let model = models[&key[..end - 1]];
        known.contains(format!("{model} {}", pattern(&key[end..])).as_str())
    };
    lines.iter().filter(|(key, _)| !is_known(key)).map(|(key, _)| (*key).to_owned()).collect()
}

#[test]
fn the_check_against_the_manual_page_sees_a_wrong_key() {
    assert!(undocumented("name=a\npci.0.8.0.device=nvme\npci.0.8.0.ser=x\nlpc.com4.path=/x\n", BhyveRelease::V13).is_empty());
    let wrong = "nmae=a\npci.0.8.0.device=nvme\npci.0.8.0.port.0.type=hd\nlpc.bootrom=x\nlpc.com4.pth=/x\n";
    assert_eq!(undocumented(wrong, BhyveRelease::V15), ["nmae", "pci.0.8.0.port.0.type", "lpc.bootrom", "lpc.com4.pth"]);
}

#[test]
fn a_sound_card_plays_to_the_device_of_the_cell() {
    let heard = |sound_out, sound_in| {
        let spec = MachineSpec { sound: true, sound_out, sound_in, ..small() };
        configure(&spec, &names(BhyveRelease::V13), BhyveRelease::V13)
    };
    let text = heard(Some(0), Some(12)).unwrap();
    assert!(text.contains("\npci.0.7.0.device=hda\npci.0.7.0.play=/dev/dsp0\npci.0.7.0.rec=/dev/dsp12\n"), "{text}");
    let text = heard(None, Some(3)).unwrap();
    assert!(text.contains("\npci.0.7.0.device=hda\npci.0.7.0.rec=/dev/dsp3\n"), "{text}");
    assert_eq!(heard(None, None), Err(Error::Unsupported("sound without a sound device of the host")));
}

#[test]
fn keys_are_written_only_for_releases_that_have_them() {
    for release in BhyveRelease::ALL {
        let text = configure(&full(), &names(release), release).unwrap();
        let new = release == BhyveRelease::V15;
        assert_eq!(text.contains("\nbootrom="), new);
        assert_eq!(text.contains("\nlpc.bootrom="), !new);
        assert_eq!(text.contains(".rfb=unix:/tmp/vnc.sock\n"), new);
    }
    assert_eq!(Key::Bootrom.releases().0, BhyveRelease::V15);
    assert_eq!(Key::Pci(5, Pci::PortType(1)).to_string(), "pci.0.5.0.port.1.type");
}

#[test]
fn what_only_qemu_has_is_never_passed_over() {
    let refused = configure(&MachineSpec { boot: Boot::Bios, ..small() }, &names(BhyveRelease::V15), BhyveRelease::V15);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[test]
fn items_of_fw_cfg_are_on_the_command_line_and_their_values_in_files() {
    let item = |name: &str, value: &str| FwCfg { name: name.into(), value: value.into() };
    let all = vec![item("opt/org.example/a", "50% of b, c=d"), item("opt/b", "#e")];
    let spec = MachineSpec { fw_cfg: all.clone(), ..small() };
    for release in [BhyveRelease::V14, BhyveRelease::V15] {
        let text = configure(&spec, &names(release), release).unwrap();
        assert!(text.contains("\nlpc.fwcfg=qemu\n"), "{text}");
        assert_eq!(skep_engine_bhyve::items(&text), all);
        // Of what bhyve reads, all is as it was.
        let plain = configure(&small(), &names(release), release).unwrap();
        let read = text.lines().filter(|l| !l.starts_with('#') && *l != "lpc.fwcfg=qemu");
        assert!(read.eq(plain.lines()), "{text}");
        assert!(skep_engine_bhyve::items(&plain).is_empty());
    }
    let line = argv("/x", &names(BhyveRelease::V15), &all).join(" ");
    assert_eq!(line, "-k /x -f opt/org.example/a,file=/run/fw_cfg0 -f opt/b,file=/run/fw_cfg1 skep-a1-0102");
    let many = |count| MachineSpec { fw_cfg: (0..count).map(|n| item(&format!("opt/{n}"), "v")).collect(), ..small() };
    for (release, count, taken) in
        [(BhyveRelease::V13, 1, false), (BhyveRelease::V14, 5, true), (BhyveRelease::V14, 6, false), (BhyveRelease::V15, 8, true)]
    {
        let made = configure(&many(count), &names(release), release);
        assert_eq!(made.is_ok(), taken, "{release:?} {count} {made:?}");
        assert!(taken || matches!(made, Err(Error::Unsupported(_))));
    }
}

#[test]
fn a_cd_that_is_ejected_moves_no_other_port() {
    let text = configure(&unusual(), &names(BhyveRelease::V15), BhyveRelease::V15).unwrap();
    assert!(text.contains("pci.0.8.0.port.2.type=hd\n") && !text.contains("port.1."), "{text}");
    assert_eq!(skep_engine_bhyve::boot_path(&unusual(), 1), None);
    assert_eq!(skep_engine_bhyve::boot_path(&unusual(), 0), Some(skep_efivars::path::pci(30, 0)));
}

#[test]
fn a_disk_or_nic_is_where_it_says_whatever_its_turn() {
    let disk = |slot, controller, at| Disk { slot, controller, at: Some(at), ..Disk::default() };
    let spec = MachineSpec {
        boot: Boot::Uefi,
        disks: vec![disk(0, Controller::VirtioBlk, 10), disk(1, Controller::AhciCd, 4), disk(2, Controller::Ahci, 1)],
        nics: vec![Nic { slot: 0, mac: Mac::from_id(1), at: Some(17), ..Nic::default() }],
        ..small()
    };
    for release in BhyveRelease::ALL {
        let text = configure(&spec, &names(release), release).unwrap();
        for line in ["10.0.device=virtio-blk", "17.0.device=virtio-net", "5.0.port.1.type=hd", "5.0.port.4.type=cd"] {
            assert!(text.lines().any(|l| l == format!("pci.0.{line}")), "{line}: {text}");
        }
    }
    use skep_efivars::path::{pci, sata};
    let path = |slot| skep_engine_bhyve::boot_path(&spec, slot);
    assert_eq!(path(0), Some(pci(10, 0)));
    assert_eq!(path(1), Some([pci(5, 0), sata(4)].concat()));
    assert_eq!(path(2), Some([pci(5, 0), sata(1)].concat()));
    // One that goes leaves the other where it is.
    let alone = MachineSpec { disks: vec![disk(0, Controller::VirtioBlk, 10), disk(1, Controller::AhciCd, 4)], ..spec.clone() };
    let text = configure(&alone, &names(BhyveRelease::V15), BhyveRelease::V15).unwrap();
    assert!(text.contains("pci.0.5.0.port.4.type=cd\n") && !text.contains("port.0.") && !text.contains("port.1."), "{text}");
    assert_eq!(skep_engine_bhyve::boot_path(&alone, 1), path(1));
}

#[test]
fn wired_memory_and_bound_cpus_are_lines_of_their_own() {
    for release in BhyveRelease::ALL {
        let limits = Limits { wired: true, pins: [(0, 3), (1, 12)].into(), ..Limits::default() };
        let spec = MachineSpec { cpu: Cpu { count: 2, topology: None }, limits, ..small() };
        let text = configure(&spec, &names(release), release).unwrap();
        assert!(text.contains("\nmemory.wired=true\nvcpu.0.cpuset=3\nvcpu.1.cpuset=12\n"), "{text}");
        assert_eq!(undocumented(&text, release), Vec::<String>::new());
        assert!(!configure(&small(), &names(release), release).unwrap().contains("cpuset"));
    }
}

#[test]
fn what_bhyve_cannot_do_is_refused() {
    let release = BhyveRelease::V15;
    let refused = |spec: MachineSpec| matches!(configure(&spec, &names(release), release), Err(Error::Unsupported(_)));
    assert!(refused(MachineSpec { acceleration: Acceleration::Tcg, ..small() }));
    assert!(refused(MachineSpec { boot: Boot::Direct { cmdline: String::new(), initrd: false }, ..small() }));
    assert!(refused(MachineSpec { disks: vec![Disk { format: Format::Qcow2, ..Disk::default() }], ..small() }));
    assert!(refused(MachineSpec { tpm: true, ..small() }));
    assert!(refused(MachineSpec { sound: true, ..small() }));
    let scsi = Disk { controller: Controller::VirtioScsi, ..Disk::default() };
    assert!(refused(MachineSpec { disks: vec![scsi], ..small() }));
    assert!(matches!(configure(&MachineSpec { memory_mib: 1, ..small() }, &names(release), release), Err(Error::Invalid(_))));
    let large = MachineSpec { screen: Some(Screen { width: 3840, height: 2160, tablet: true, ..Screen::default() }), ..small() };
    configure(&large, &names(release), release).unwrap();
    assert!(matches!(configure(&large, &names(BhyveRelease::V14), BhyveRelease::V14), Err(Error::Unsupported(_))));
}

#[test]
fn a_device_without_a_descriptor_is_refused_by_name() {
    let release = BhyveRelease::V15;
    let with = |edit: fn(&mut Names)| {
        let mut names = names(release);
        edit(&mut names);
        configure(&full(), &names, release).unwrap_err()
    };
    assert_eq!(with(|n| n.disks.retain(|slot, _| *slot != 2)), Error::NoDescriptor("disk 2".into()));
    assert_eq!(with(|n| n.taps.clear()), Error::NoDescriptor("NIC 0".into()));
    assert_eq!(with(|n| n.channels.truncate(1)), Error::NoDescriptor("channel b".into()));
    assert_eq!(with(|n| n.shares.truncate(1)), Error::NoDescriptor("share out".into()));
    assert_eq!(with(|n| n.serials.truncate(3)), Error::NoDescriptor("serial port 4".into()));
}

#[test]
fn names_that_bhyve_would_take_for_something_else_are_refused() {
    let refused = |edit: &dyn Fn(&mut Names), release| {
        let mut names = names(release);
        edit(&mut names);
        assert!(matches!(configure(&full(), &names, release), Err(Error::BadName { .. })), "{names:?}");
    };
    for vm in ["", "-k", "a b", "a\nb", "a.b", "%(name)", &"a".repeat(33)] {
        refused(&|n| n.vm = vm.into(), BhyveRelease::V15);
    }
    for tap in ["", "slirp", "netgraph", "tap/../null", "tap0\nx=y", "tap%(name)", "tap0123456789012"] {
        refused(&|n| drop(n.taps.insert(0, tap.into())), BhyveRelease::V15);
    }
    for path in ["", "a.sock", &format!("/{}", "a".repeat(103))] {
        refused(&|n| n.channels = vec![path.into()], BhyveRelease::V14);
    }
    for path in ["", "vnc.sock", &format!("/{}", "a".repeat(103))] {
        refused(&|n| n.screen = ScreenAddress::Socket(path.into()), BhyveRelease::V15);
    }
    refused(&|n| n.screen = ScreenAddress::Socket("/tmp/vnc.sock".into()), BhyveRelease::V13);
}

#[test]
fn a_percent_sign_is_doubled_and_a_line_end_refused() {
    let with = |path: &str| {
        let names = Names { screen: ScreenAddress::Socket(path.into()), bootrom: path.into(), ..names(BhyveRelease::V15) };
        configure(&full(), &names, BhyveRelease::V15)
    };
    let text = with("/tmp/%(name)").unwrap();
    assert!(text.contains("\nbootrom=/tmp/%%(name)\n") && text.contains(".rfb=unix:/tmp/%%(name)\n"));
    for path in ["/a\nname=b", "/a\r", "/a\0", "/é"] {
        assert!(matches!(with(path), Err(Error::Unwritable(_))), "{path:?}");
    }
}

#[test]
fn the_command_line_names_the_file_and_the_machine_only() {
    assert_eq!(argv("/dev/fd/9", &names(BhyveRelease::V13), &[]), ["-k", "/dev/fd/9", "skep-a1-0102"]);
}

#[test]
fn exit_codes_are_judged_by_release() {
    use skep_engine_bhyve::ended;
    for release in BhyveRelease::ALL {
        assert_eq!(ended(Exit::Code(0), release, false), Ended::GuestReboot);
        assert_eq!(ended(Exit::Code(1), release, false), Ended::GuestPowerOff);
        assert_eq!(ended(Exit::Code(2), release, false), Ended::GuestPowerOff);
        assert_eq!(ended(Exit::Code(3), release, false), Ended::Panic);
        assert_eq!(ended(Exit::Code(4), release, false), Ended::Crash(Exit::Code(4)));
        assert_eq!(ended(Exit::Signal(15), release, false), Ended::HostStop);
        assert_eq!(ended(Exit::Signal(6), release, true), Ended::Crash(Exit::Signal(6)));
        assert_eq!(ended(Exit::Code(4), release, true), Ended::HostStop);
    }
    assert_eq!(ended(Exit::Code(1), BhyveRelease::V13, true), Ended::HostStop);
    assert_eq!(ended(Exit::Code(1), BhyveRelease::V15, true), Ended::GuestPowerOff);
    assert_eq!(BhyveRelease::from_osreldate(1_301_000), None);
    assert_eq!(BhyveRelease::from_osreldate(1_302_001), Some(BhyveRelease::V13));
    assert_eq!(BhyveRelease::from_osreldate(1_501_502), Some(BhyveRelease::V15));
}

prop_compose! {
    fn disk()(slot in 0u8..9, kind in 0..5, read_only: bool, serial in prop_oneof!["[a-z0-9]{0,20}", "(?s).{0,24}"]) -> Disk {
        let all = [Controller::VirtioBlk, Controller::Nvme, Controller::Ahci, Controller::AhciCd, Controller::VirtioScsi];
        let controller = all[kind as usize];
        Disk { slot, controller, read_only, serial, ..Disk::default() }
    }
}

#[test]
fn disks_on_controllers_with_names_are_written_at_their_seats() {
    let bus = |name: &str, kind, slot| Bus { name: name.into(), kind, slot };
    let disk =
        |slot, controller, at, port| Disk { slot, controller, seat: Some(Seat { controller: at, port }), ..Disk::default() };
    let spec = MachineSpec {
        controllers: vec![bus("sata", BusKind::Ahci, 20), bus("fast", BusKind::Nvme, 9)],
        disks: vec![
            disk(0, Controller::Nvme, 1, 0),
            disk(1, Controller::Ahci, 0, 4),
            disk(2, Controller::AhciCd, 0, 2),
            Disk { controller: Controller::Ahci, slot: 3, ..Disk::default() },
        ],
        ..small()
    };
    for release in BhyveRelease::ALL {
        let config = configure(&spec, &names(release), release).unwrap();
        for line in [
            "pci.0.9.0.device=nvme",
            "pci.0.20.0.device=ahci",
            "pci.0.20.0.port.2.type=cd",
            "pci.0.20.0.port.4.type=hd",
            "pci.0.5.0.device=ahci",
            "pci.0.5.0.port.3.type=hd",
        ] {
            assert!(config.lines().any(|l| l == line), "{line}: {config}");
        }
        let mut several = spec.clone();
        several.disks[1] = disk(1, Controller::Nvme, 1, 1);
        assert!(matches!(configure(&several, &names(release), release), Err(Error::Unsupported(_))));
        let gdb = MachineSpec { gdb: Gdb::On, ..small() };
        assert!(matches!(configure(&gdb, &names(release), release), Err(Error::Unsupported(_))));
    }
}

prop_compose! {
    fn spec()(
        disks in proptest::collection::vec(disk(), 0..4), nics in proptest::collection::btree_set(0u8..9, 0..4), e1000: bool,
        uefi: bool, sound: bool, channels in 0usize..6, shares in 0usize..6, serial_ports in proptest::collection::btree_set(0u8..6, 0..5), rng: bool, local: bool, cpus in 0u16..20,
        screen in proptest::option::of((600u16..4000, 400u16..2200, any::<bool>())),
    ) -> MachineSpec {
        let model = if e1000 { NicModel::E1000 } else { NicModel::VirtioNet };
        MachineSpec {
            cpu: Cpu { count: cpus, topology: None },
            disks,
            nics: nics.into_iter().map(|slot| Nic { slot, model, mac: Mac::from_id(slot.into()), at: None }).collect(),
            boot: if uefi { Boot::Uefi } else { Boot::Loader },
            screen: screen.map(|(width, height, tablet)| Screen { width, height, tablet, ..Screen::default() }),
            serial_ports,
            rng,
            clock: if local { Clock::LocalTime } else { Clock::Utc },
            sound,
            sound_out: sound.then_some(0),
            channels: (0..channels).map(|n| Channel { name: format!("c{n}") }).collect(),
            shares: (0..shares).map(|n| Share { name: format!("s{n}"), read_only: n % 2 == 0, at: None }).collect(),
            ..small()
        }
    }
}

proptest! {
    #[test]
    fn every_key_that_is_written_is_in_the_releases_manual_page(spec in spec(), text in "(?s).{0,40}") {
        for release in BhyveRelease::ALL {
            if let Ok(config) = configure(&spec, &names(release), release) {
                prop_assert_eq!(undocumented(&config, release), Vec::<String>::new());
                let keys: BTreeSet<_> = config.lines().map(|l| l.split_once('=').unwrap().0).collect();
                prop_assert_eq!(keys.len(), config.lines().count(), "a key is written once");
            }
            let hostile = Names { bootrom: text.clone(), ..names(release) };
            if let Ok(config) = configure(&full(), &hostile, release) {
                let plain = configure(&full(), &names(release), release).unwrap();
                prop_assert_eq!(config.lines().count(), plain.lines().count());
                prop_assert!(!config.replace("%%", "").contains('%'));
            }
        }
    }
}
