//! The model's rules, from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use proptest::prelude::*;
use skep_machine::*;
use std::collections::BTreeSet;
use support::{at, channel, item, share, sound};

#[test]
fn the_default_machine_needs_only_an_identity() {
    assert_eq!(MachineSpec::default().validate().unwrap_err().field, "uuid");
    MachineSpec { uuid: Uuid::from_u128(1), ..MachineSpec::default() }.validate().unwrap();
    sound().validate().unwrap();
}

#[test]
fn an_edit_says_field_by_field_when_it_applies() {
    let old = sound();
    assert!(applies(&old, &old).is_empty());
    let mut new = old.clone();
    new.memory_mib = 2048;
    new.limits.cpu_percent = Some(50);
    new.limits.cpus = [0].into();
    new.limits.wired = true;
    new.disks.remove(1);
    new.nics[0].model = NicModel::E1000;
    (new.sound, new.tpm, new.channels) = (true, true, vec![channel("a")]);
    new.shares = vec![share("src", true)];
    let changes: Vec<_> = applies(&old, &new).into_iter().map(|c| format!("{} {}", c.field, c.when)).collect();
    let want = [
        "memory_mib at the next start",
        "disks[3] at the next start",
        "nics[1] at the next start",
        "sound at the next start",
        "tpm at the next start",
        "channels at the next start",
        "shares at the next start",
        "limits.cpu_percent now",
        "limits.cpus now",
        "limits.wired at the next start",
    ];
    assert_eq!(changes, want);
    let mut reordered = old.clone();
    reordered.disks.reverse();
    assert!(applies(&old, &reordered).is_empty(), "the order of a list means nothing");
}

#[test]
fn a_host_refuses_what_it_cannot_do_with_the_reason() {
    let linux = HostCapabilities::qemu(8192);
    linux.check(&sound()).unwrap();
    type Edit = fn(&mut MachineSpec);
    let cases: [(Edit, &str); 6] = [
        (
            |s| s.cpu.count = 256,
            "cpu.count asks for 256 CPUs: QEMU on this host gives a machine at most 255: its board (q35) has room for no more",
        ),
        (|s| s.memory_mib = 8192, "memory_mib asks for 8192 MiB: this host has 8192 MiB"),
        (|s| s.boot = Boot::Loader, "boot asks for bhyveload: QEMU has no such loader; use UEFI"),
        (
            |s| s.acceleration = Acceleration::Kvm,
            "acceleration asks for kvm: no boot has shown so far that it works on this host; use auto or tcg",
        ),
        (
            |s| s.limits.tasks = Some(64),
            "limits.tasks asks for a limit of 64: this host does not let it be enforced; `skep doctor` says why",
        ),
        (
            |s| s.tpm = true,
            "tpm asks for a TPM: QEMU needs swtpm at its side for one, or takes the host's own; no cell holds either yet",
        ),
    ];
    for (edit, want) in cases {
        let mut spec = sound();
        edit(&mut spec);
        assert_eq!(linux.check(&spec).unwrap_err().to_string(), want);
    }
    let mut bhyve = HostCapabilities::bhyve(8192);
    assert_eq!(bhyve.check(&sound()).unwrap_err().field, "boot");
    bhyve.uefi = true;
    bhyve.check(&sound()).unwrap();
    type LimitsEdit = fn(&mut Limits);
    let cases: [(LimitsEdit, Limit); 11] = [
        (|l| l.cpu_percent = Some(50), Limit::Cpu),
        (|l| l.memory_mib = Some(4096), Limit::Memory),
        (|l| l.tasks = Some(64), Limit::Tasks),
        (|l| l.pcpu = Some(50), Limit::Pcpu),
        (|l| l.write_iops = Some(100), Limit::Rates),
        (|l| l.cpus = [0].into(), Limit::Cpus),
        (|l| l.pins = [(0, 0)].into(), Limit::Pins),
        (|l| l.priority = 5, Limit::Priority),
        (|l| l.priority = -5, Limit::Raise),
        (|l| l.protect = true, Limit::Protect),
        (|l| l.wired = true, Limit::Wired),
    ];
    for (edit, limit) in cases {
        let mut spec = sound();
        edit(&mut spec.limits);
        spec.validate().unwrap();
        for host in [&linux, &bhyve] {
            let mut host = HostCapabilities { limits: [].into(), ..host.clone() };
            let refused = host.check(&spec).unwrap_err();
            assert!(refused.field.starts_with("limits.") && refused.why.len() > 20, "{refused}");
            host.limits = Limit::ALL.into_iter().filter(|l| *l != limit).collect();
            assert_eq!(host.check(&spec).unwrap_err(), refused);
            host.limits = [limit].into();
            host.check(&spec).unwrap();
        }
        assert_eq!(Limit::named(limit.name()), Some(limit));
    }
    assert_eq!(Limit::named("none"), None);
    let mut spec = sound();
    spec.disks[1].format = Format::Qcow2;
    assert_eq!(bhyve.check(&spec).unwrap_err().field, "disks[3].format");
    spec.disks[1] = Disk { slot: 3, controller: Controller::VirtioScsi, ..Disk::default() };
    linux.check(&spec).unwrap();
    let why = bhyve.check(&spec).unwrap_err().to_string();
    assert!(why.starts_with("disks[3].controller asks for virtio-scsi: bhyve passes") && why.contains("/dev/cam/ctl"), "{why}");
    let mut loud = MachineSpec { sound: true, channels: vec![channel("org.qemu.guest_agent.0")], ..sound() };
    linux.check(&loud).unwrap();
    assert_eq!(bhyve.check(&loud).unwrap_err().field, "sound");
    loud.sound_in = Some(1);
    bhyve.check(&loud).unwrap();
    assert_eq!(linux.check(&loud).unwrap_err().field, "sound_in");
    (loud.sound, loud.sound_in) = (false, None);
    bhyve.check(&loud).unwrap();
    loud.tpm = true;
    assert!(bhyve.check(&loud).unwrap_err().to_string().contains("from FreeBSD 15 on needs swtpm"));
    let mut shared = MachineSpec { shares: vec![share("src", true), share("out", false)], ..sound() };
    linux.check(&shared).unwrap();
    let without = HostCapabilities { shares: false, ..linux.clone() };
    let why = without.check(&shared).unwrap_err().to_string();
    assert_eq!(why, "shares[0] asks for the directory src: the hypervisor that is installed has no virtio-9p");
    let why = bhyve.check(&shared).unwrap_err();
    assert_eq!((why.field.as_str(), why.what.as_str()), ("shares[1].read_only", "the directory out to write to"));
    shared.shares.truncate(1);
    bhyve.check(&shared).unwrap();
    spec.disks[1] = Disk { slot: 3, controller: Controller::AhciCd, format: Format::Qcow2, ..Disk::default() };
    assert_eq!(linux.check(&spec).unwrap_err().to_string(), "disks[3].format asks for a QCOW2 CD: a CD is a raw image");
    spec.disks.clear();
    spec.screen = Some(Screen { width: 2560, height: 1440, ..Screen::default() });
    linux.check(&spec).unwrap();
    let why = bhyve.check(&spec).unwrap_err().to_string();
    assert_eq!(why, "screen asks for 2560x1440: bhyve on this host has at most 1920x1200");
    let none = HostCapabilities { screen: None, ..linux.clone() };
    let why = none.check(&spec).unwrap_err().to_string();
    assert_eq!(why, "screen asks for 2560x1440: QEMU cannot show a screen out of a cell on this host");
    spec.screen = None;
    spec.boot = Boot::Direct { cmdline: String::new(), initrd: false };
    let why = bhyve.check(&spec).unwrap_err().to_string();
    assert_eq!(why, "boot asks for a kernel of its own: bhyve cannot boot one; use UEFI");
    spec.boot = Boot::Uefi;
    spec.acceleration = Acceleration::Tcg;
    assert_eq!(bhyve.check(&spec).unwrap_err().field, "acceleration");
    assert_eq!(bhyve.resolve(Acceleration::Auto), Acceleration::Kvm);
    assert_eq!(linux.resolve(Acceleration::Auto), Acceleration::Tcg);
    // A boot shows it, or why it is not so.
    let mut shown = linux.clone();
    let wanted = |acceleration| MachineSpec { acceleration, ..sound() };
    shown.give(Ability::Kvm);
    for (asked, got) in [(Acceleration::Auto, Acceleration::Kvm), (Acceleration::Tcg, Acceleration::Tcg)] {
        shown.check(&wanted(asked)).unwrap();
        assert_eq!(shown.resolve(asked), got);
    }
    shown.check(&wanted(Acceleration::Kvm)).unwrap();
    shown.take(Ability::Kvm, "there is no /dev/kvm");
    assert_eq!(shown.resolve(Acceleration::Auto), Acceleration::Tcg);
    let why = shown.fits(&wanted(Acceleration::Kvm)).unwrap_err().to_string();
    assert_eq!(why, "acceleration asks for kvm: there is no /dev/kvm; use auto or tcg");
    // What the host said counts, with what it said of it.
    spec = MachineSpec { cpu: Cpu { count: 5, ..Cpu::default() }, ..sound() };
    (bhyve.cpus, bhyve.cpus_why) = (4, "it is hw.vmm.maxcpu".to_owned());
    for refused in [bhyve.fits(&spec), bhyve.check(&spec)] {
        let why = refused.unwrap_err().to_string();
        assert_eq!(why, "cpu.count asks for 5 CPUs: bhyve on this host gives a machine at most 4: it is hw.vmm.maxcpu");
    }
    (spec.cpu.count, spec.gdb) = (4, Gdb::On);
    bhyve.check(&MachineSpec { gdb: Gdb::Off, ..spec.clone() }).unwrap();
    let mut taken = linux.clone();
    taken.take(Ability::Gdb, "this one has no stub");
    assert_eq!(taken.check(&spec).unwrap_err().to_string(), "gdb asks for a debugger's stub: this one has no stub");
}

#[test]
fn addresses_are_unicast_and_locally_administered_however_they_come() {
    assert_eq!("02:00:5e:10:00:fF".parse::<Mac>().unwrap().to_string(), "02:00:5e:10:00:ff");
    assert_eq!("03:00:00:00:00:00".parse::<Mac>(), Err(BadMac::Multicast("03:00:00:00:00:00".into())));
    assert_eq!("00:1b:21:00:00:00".parse::<Mac>(), Err(BadMac::Universal("00:1b:21:00:00:00".into())));
    for text in [
        "",
        "02",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "2:0:0:0:0:0",
        "+2:00:00:00:00:00",
        "02:00:00:00:00:0g",
        "02-00-00-00-00-00",
    ] {
        assert_eq!(text.parse::<Mac>(), Err(BadMac::Form), "{text}");
    }
    postcard::from_bytes::<Mac>(&[1, 0, 0, 0, 0, 0]).unwrap_err();
    assert_eq!(Mac::from_id(u128::MAX).to_string(), "02:ff:ff:ff:ff:ff");
}

#[test]
fn every_device_has_a_place_of_its_own() {
    let mut places = vec![0, 31, place::SCREEN, place::RNG, place::USB, place::AHCI, place::SCSI, place::SOUND, place::CHANNELS];
    places.extend((0..limits::DISKS).map(|s| place::disk(s).unwrap()));
    places.extend((0..limits::NICS).map(|s| place::nic(s).unwrap()));
    places.extend((0..4).map(|at| place::share(at).unwrap()));
    let count = places.len();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), count);
    assert!(places.iter().all(|&p| p < 32));
    assert_eq!((place::disk(8), place::nic(255), place::share(4)), (None, None, None));
}

#[test]
fn the_encoding_is_what_it_was() {
    let bytes = postcard::to_stdvec(&sound()).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "1111222233334444555566667777888801008004000002000000000000000000000000000000030100000000000000000000000000010100020000000007000001010100000000000000000000000000000000000000010001010000000000000000"
    );
    assert_eq!(postcard::from_bytes::<MachineSpec>(&bytes).unwrap(), sound());
}

#[test]
fn a_field_that_an_older_record_lacks_has_its_default() {
    let spec: MachineSpec = serde_json::from_str(r#"{"memory_mib": 512, "disks": [{"slot": 2}]}"#).unwrap();
    let want = MachineSpec { memory_mib: 512, disks: vec![Disk { slot: 2, ..Disk::default() }], ..MachineSpec::default() };
    assert_eq!(spec, want);
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_or_judged_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(spec) = postcard::from_bytes::<MachineSpec>(&bytes) {
            let _ = spec.validate();
            let _ = HostCapabilities::qemu(1 << 14).check(&spec);
            let _ = applies(&spec, &sound());
        }
    }
    #[test]
    fn an_address_survives_its_text(id in any::<u128>()) {
        let mac = Mac::from_id(id);
        prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
        prop_assert_eq!(Mac::new(mac.bytes()), Ok(mac));
    }
}

#[test]
fn a_device_moves_only_if_it_is_said_and_moves_no_other() {
    let mut spec = sound();
    (spec.screen, spec.channels) = (Some(Screen::default()), vec![channel("a")]);
    let places = |spec: &MachineSpec| spec.devices().into_iter().map(|d| (d, spec.place(d).unwrap())).collect::<Vec<_>>();
    let before = places(&spec);
    spec.places = vec![at(Device::Disk(0), 30), at(Device::Sound, 1)];
    spec.validate().unwrap();
    let want: Vec<_> = before.into_iter().map(|(d, slot)| (d, if d == Device::Disk(0) { 30 } else { slot })).collect();
    assert_eq!(places(&spec), want);
    // Two that change places, and one that goes where a device is that is not there.
    spec.places = vec![at(Device::Disk(0), 11), at(Device::Disk(3), 8), at(Device::Rng, 7)];
    spec.validate().unwrap();
    spec.sound = true;
    assert_eq!(spec.validate().unwrap_err().to_string(), "places.rng is 7: it must be another than that of sound");
    // What says where it is yields to what was chosen for it, and to nothing else.
    (spec.places, spec.shares) = (vec![at(Device::Disk(0), 30)], vec![Share { at: Some(12), ..share("s", true) }]);
    (spec.disks[0].at, spec.disks[1].at, spec.nics[0].at) = (Some(20), Some(8), Some(16));
    spec.validate().unwrap();
    let there = [Device::Disk(0), Device::Disk(3), Device::Nic(1), Device::Share(0)].map(|device| spec.place(device));
    assert_eq!(there, [Some(30), Some(8), Some(16), Some(12)]);
    spec.places = vec![at(Device::Disk(0), 16)];
    assert_eq!(spec.validate().unwrap_err().to_string(), "places.disk0 is 16: it must be another than that of nic1");
    for device in spec.devices() {
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    for wrong in ["", "disk", "disk8", "disk00", "nic+1", "share4", "lpc", "Screen"] {
        assert_eq!(wrong.parse::<Device>(), Err(BadDevice), "{wrong}");
    }
}

#[test]
fn devices_are_functions_of_one_device_number_as_long_as_one_is_its_first() {
    let mut spec = sound();
    let function = |device, slot, function| at(device, place::at(slot, function));
    // Beside the first disk, which nobody put where it is, and at a number of their own.
    spec.places = vec![function(Device::Rng, 8, 7), function(Device::Disk(3), 30, 0), function(Device::Nic(1), 30, 1)];
    spec.validate().unwrap();
    let [rng, disk, other] = [Device::Rng, Device::Disk(0), Device::Disk(3)].map(|device| spec.place(device).unwrap());
    assert_eq!([rng, disk, other].map(|at| (place::slot(at), place::function(at))), [(8, 7), (8, 0), (30, 0)]);
    assert_eq!(
        (place::written(rng), spec.is_shared(rng), spec.is_shared(disk), spec.is_shared(16)),
        ("8.7".to_owned(), true, true, false)
    );
    // Another at the same function, and none that is the first, for it went, or was never there.
    let wrong = |spec: &MachineSpec| spec.validate().unwrap_err().to_string();
    spec.places.push(function(Device::Disk(0), 30, 1));
    assert_eq!(wrong(&spec), "places.nic1 is 30.1: it must be another than that of disk0");
    spec.places.pop();
    spec.disks.retain(|disk| disk.slot != 3);
    let want = "places.nic1 is 30.1: it must be at a device number whose function 0 something has: nothing is at 30";
    assert_eq!(wrong(&spec), want);
    spec.places = vec![function(Device::Rng, 0, 1)];
    assert_eq!(wrong(&spec), "places.rng is 0: it must be 1 to 30");
}

#[test]
fn what_one_hypervisor_cannot_do_is_refused_with_its_reason() {
    type Edit = fn(&mut MachineSpec);
    let host = |hypervisor| {
        let found = if hypervisor == Hypervisor::Qemu { HostCapabilities::qemu(4096) } else { HostCapabilities::bhyve(4096) };
        HostCapabilities { uefi: true, ..found }
    };
    let screen = |edit: fn(&mut Screen), spec: &mut MachineSpec| edit(spec.screen.get_or_insert_default());
    let cases: [(Edit, Hypervisor, &str); 14] = [
        (|s| s.board.acpi = false, Hypervisor::Qemu, "board.acpi asks for no ACPI tables"),
        (|s| s.boot = Boot::Bios, Hypervisor::Bhyve, "boot asks for a BIOS"),
        (
            |s| s.screen = Some(Screen { wait: true, ..Screen::default() }),
            Hypervisor::Qemu,
            "screen.wait asks for a guest that waits",
        ),
        (|s| s.board.host_bridge = HostBridge::Amd, Hypervisor::Qemu, "board.host_bridge asks for AMD's host bridge"),
        (|s| s.board.exit_on_halt = false, Hypervisor::Qemu, "board.exit_on_halt asks for HLT without an exit"),
        (|s| s.board.exit_on_pause = false, Hypervisor::Qemu, "board.exit_on_pause asks for PAUSE without an exit"),
        (|s| s.board.strict_msr = true, Hypervisor::Qemu, "board.strict_msr asks for faults"),
        (|s| s.board.x2apic = true, Hypervisor::Qemu, "board.x2apic asks for an APIC"),
        (|s| s.places = vec![at(Device::Ahci, 20)], Hypervisor::Qemu, "places.ahci asks for a place"),
        (
            |s| s.screen = Some(Screen { keyboard: "uk".into(), ..Screen::default() }),
            Hypervisor::Qemu,
            "screen.keyboard asks for the layout uk",
        ),
        (
            |s| s.screen = Some(Screen { keyboard: "en-gb".into(), ..Screen::default() }),
            Hypervisor::Bhyve,
            "screen.keyboard asks for the layout en-gb",
        ),
        (
            |s| {
                s.controllers = vec![Bus { name: "fast".into(), kind: BusKind::Nvme, slot: 20 }];
                let on = |slot| Disk {
                    slot,
                    controller: Controller::Nvme,
                    seat: Some(Seat { controller: 0, port: slot }),
                    ..Disk::default()
                };
                s.disks = vec![on(0), on(1)];
            },
            Hypervisor::Bhyve,
            "controllers[0] asks for several disks on fast: bhyve's NVMe controller has one namespace",
        ),
        (|s| s.disks[0].rates.read_bps = Some(1 << 20), Hypervisor::Bhyve, "disks asks for limits of a disk"),
        (|s| s.gdb = Gdb::Wait, Hypervisor::Bhyve, "gdb asks for a debugger's stub"),
    ];
    let mut reached = BTreeSet::new();
    for (edit, cannot, want) in cases {
        let mut spec = sound();
        edit(&mut spec);
        spec.validate().unwrap();
        let refused = host(cannot).check(&spec).unwrap_err();
        let said = refused.to_string();
        assert!(said.starts_with(want) && said.len() < 300, "{said}");
        let other = if cannot == Hypervisor::Qemu { Hypervisor::Bhyve } else { Hypervisor::Qemu };
        host(other).check(&spec).unwrap();
        host(other).check(&MachineSpec { clock: Clock::LocalTime, ..sound() }).unwrap();
        reached.extend(Ability::ALL.into_iter().filter(|ability| refused.why == ability.why(cannot)));
    }
    // What is asked for otherwise than by a machine as it is defined: of NICs, switches, and what runs. And what both can.
    use Ability::{
        DiskCounters, DiskGrowth, Eject, FwCfg, IscsiDisks, LocalTime, NicIsolation, NicMoves, NicRates, SwitchIpv6, SwitchVale,
        Tpm,
    };
    reached.extend([
        DiskCounters,
        DiskGrowth,
        Eject,
        FwCfg,
        IscsiDisks,
        LocalTime,
        NicIsolation,
        NicMoves,
        NicRates,
        SwitchIpv6,
        SwitchVale,
    ]);
    // What neither can.
    for hypervisor in [Hypervisor::Qemu, Hypervisor::Bhyve] {
        let refused = host(hypervisor).check(&MachineSpec { tpm: true, ..sound() }).unwrap_err();
        assert_eq!((refused.field.as_str(), refused.why.as_str()), ("tpm", Tpm.why(hypervisor)));
    }
    reached.insert(Tpm);
    // And what only a boot shows.
    let kvm = MachineSpec { acceleration: Acceleration::Kvm, ..sound() };
    let said = host(Hypervisor::Qemu).check(&kvm).unwrap_err().to_string();
    assert!(said.contains(Ability::Kvm.why(Hypervisor::Qemu)), "{said}");
    host(Hypervisor::Bhyve).check(&kvm).unwrap();
    reached.insert(Ability::Kvm);
    assert_eq!(reached, Ability::ALL.into(), "no case reaches the difference");
    // An older bhyve has no items to give: its file says so.
    let mut old = host(Hypervisor::Bhyve);
    old.take(FwCfg, "none of them");
    let refused = old.check(&MachineSpec { fw_cfg: vec![item("opt/a", "b")], ..sound() }).unwrap_err().to_string();
    assert_eq!(refused, "fw_cfg asks for items of fw_cfg: none of them");
    old.check(&sound()).unwrap();
    let mut spec = sound();
    screen(|s| s.keyboard = "de".into(), &mut spec);
    for hypervisor in [Hypervisor::Qemu, Hypervisor::Bhyve] {
        host(hypervisor).check(&spec).unwrap();
        assert!(
            Ability::ALL
                .iter()
                .all(|a| host(hypervisor).abilities.contains(a) || a.why(hypervisor) != "this host does not have it")
        );
    }
}
