//! The generated configuration, given to the real QEMU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;
mod platform;
mod running;

use common::{direct, full, uefi};
use running::*;
use serde_json::json;
use skep_engine_qemu::qmp::{self, Event, Line, Reply};
use skep_engine_qemu::*;
use skep_machine::*;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

fn doing(command: &str) -> MachineSpec {
    MachineSpec { boot: Boot::Direct { cmdline: format!("console=ttyS0 quiet skep.exec={command}"), initrd: true }, ..direct() }
}

#[test]
fn qemu_has_the_devices_that_the_model_names_and_no_others() {
    if !qemu_is_there() {
        return;
    }
    let mut spec = MachineSpec { boot: Boot::Uefi, memory_mib: 128, ..full() };
    if platform::tap(&tap_name(0)).is_none() {
        spec.nics.clear();
    }
    let mut q = Running::start(&spec, None);
    assert_eq!(q.query("query-uuid"), json!({"UUID": spec.uuid.to_string()}));
    assert_eq!(q.query("query-status")["status"], "prelaunch");
    assert_eq!(q.query("query-cpus-fast").as_array().unwrap().len(), 4);
    assert_eq!(q.query("query-memory-size-summary")["base-memory"], 128 << 20);
    let blocks: Vec<_> = q
        .query("query-block")
        .as_array()
        .unwrap()
        .iter()
        .map(|b| format!("{} {} {}", b["device"].as_str().unwrap(), b["inserted"]["drv"].as_str().unwrap(), b["inserted"]["ro"]))
        .collect();
    let want = [
        "fw-code raw true",
        "fw-vars raw false",
        "disk0 qcow2 false",
        "disk1 raw true",
        "disk2 raw false",
        "disk3 raw false",
        "disk5 raw true",
        "disk7 raw false",
    ];
    assert_eq!(blocks, want);
    let buses = q.query("query-pci");
    let mut places: Vec<_> = buses[0]["devices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["slot"] != 0 && d["slot"] != 31)
        .map(|d| (d["slot"].as_u64().unwrap() as u8, d["qdev_id"].as_str().unwrap().to_owned()))
        .collect();
    places.sort();
    let mut want = vec![
        (place::SCREEN, "screen".to_owned()),
        (place::RNG, "rng".into()),
        (place::USB, "usb".into()),
        (place::SCSI, "scsi".into()),
        (place::SOUND, "sound".into()),
        (place::disk(0).unwrap(), "dev-disk0".into()),
        (place::disk(1).unwrap(), "dev-disk1".into()),
        (place::disk(7).unwrap(), "dev-disk7".into()),
    ];
    want.extend(spec.nics.iter().map(|n| (place::nic(n.slot).unwrap(), format!("dev-net{}", n.slot))));
    want.push((place::CHANNELS, "channels".into()));
    want.extend((0..2).map(|at| (place::share(at).unwrap(), format!("dev-share{at}"))));
    assert_eq!(places, want);
    q.qmp
        .write_all(
            format!(
                "{}\n",
                json!({"execute": "qom-get", "id": 7, "arguments": {"path": "/machine/peripheral/codec", "property": "audiodev"}})
            )
            .as_bytes(),
        )
        .unwrap();
    assert_eq!(q.ask(7, ""), "sound");
    let chardevs = q.query("query-chardev");
    let ours = chardevs.as_array().unwrap().iter().filter(|c| c["label"].as_str().unwrap().starts_with("com")).count();
    assert_eq!(ours, 4);
    let stats = q.ask(3, &qmp::query_block_stats(3));
    assert_eq!(qmp::block_stats(&stats).iter().map(|d| d.slot).collect::<Vec<_>>(), [0, 1, 2, 3, 5, 7]);
    q.qmp.write_all(qmp::quit(4).as_bytes()).unwrap();
    assert_eq!(q.end(), Ended::HostStop);
}

#[test]
fn an_image_of_another_format_ends_qemu_with_its_reason() {
    if !qemu_is_there() {
        return;
    }
    // Raw bytes said to be QCOW2.
    let dir = tempfile::tempdir().unwrap();
    let zeros = dir.path().join("zeros");
    File::create(&zeros).unwrap().set_len(1 << 20).unwrap();
    let spec = MachineSpec { disks: vec![Disk { format: Format::Qcow2, ..Disk::default() }], boot: Boot::Uefi, ..direct() };
    let ended = std::panic::catch_unwind(|| Running::start(&spec, Some(&zeros)).last_words());
    let words = *ended.unwrap_err().downcast::<String>().unwrap();
    assert!(words.contains("Image is not in qcow2 format"), "{words}");
}

#[test]
fn a_guest_boots_runs_pauses_and_obeys_its_power_button() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    let spec = MachineSpec {
        disks: vec![Disk::default(), Disk { slot: 1, controller: Controller::Nvme, ..Disk::default() }],
        ..direct()
    };
    let mut q = Running::start(&spec, None);
    q.run();
    q.serial_until("skep-guest ready");
    assert_eq!(q.ask(3, &qmp::stop(3)), json!({}));
    assert_eq!(q.ask(4, &qmp::query_status(4))["status"], "paused");
    assert_eq!(q.ask(5, &qmp::cont(5)), json!({}));
    q.serial.write_all(b"dd if=/dev/zero of=/dev/vda bs=1M count=2 oflag=direct 2>/dev/null; echo dd=$?\n").unwrap();
    q.serial_until("dd=0");
    let stats = q.ask(6, &qmp::query_block_stats(6));
    assert_eq!(qmp::block_stats(&stats)[0].write_bytes, 2 << 20);
    assert_eq!(q.ask(7, &qmp::system_powerdown(7)), json!({}));
    assert_eq!(q.end(), Ended::GuestPowerOff);
}

#[test]
fn memory_stays_in_ram_where_that_is_asked_for() {
    if !qemu_is_there() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skipped("an ordinary user may lock a few MiB");
    }
    for wired in [false, true] {
        let spec = MachineSpec { limits: Limits { wired, ..Limits::default() }, memory_mib: 64, ..direct() };
        let q = Running::start(&spec, None);
        let status = std::fs::read_to_string(format!("/proc/{}/status", q.child.id())).unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")?.strip_suffix("kB")).unwrap();
        let locked: u64 = locked.trim().parse().unwrap();
        assert_eq!(wired, locked > 64 << 10, "{locked} KiB");
    }
}

#[test]
fn a_guest_finds_its_disks_on_the_scsi_controller() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    let disk = Disk { slot: 6, controller: Controller::VirtioScsi, ..Disk::default() };
    let spec = MachineSpec { disks: vec![Disk { slot: 7, read_only: true, ..disk.clone() }, disk], ..direct() };
    let mut q = Running::start(&spec, None);
    q.run();
    q.serial_until("skep-guest ready");
    // The kernel looks for disks while the shell comes up, and names them as it finds them: they are known by their target, their slot.
    let write = "for t in 6 7; do until d=$(ls -d /sys/bus/scsi/devices/*:0:$t:0/block/*) && [ -b /dev/${d##*/} ]; do sleep 0.1; done 2>/dev/null; \
                 dd if=/dev/zero of=/dev/${d##*/} bs=1M count=3 oflag=direct 2>/dev/null; echo t$t=$?; done\n";
    q.serial.write_all(write.as_bytes()).unwrap();
    let said = q.serial_until("t7=1");
    assert!(said.contains("t6=0"), "{said}");
    let stats = q.ask(6, &qmp::query_block_stats(6));
    let written: Vec<_> = qmp::block_stats(&stats).iter().map(|d| (d.slot, d.write_bytes)).collect();
    assert_eq!(written, [(6, 3 << 20), (7, 0)]);
    q.qmp.write_all(qmp::quit(7).as_bytes()).unwrap();
    assert_eq!(q.end(), Ended::HostStop);
}

#[test]
fn reboot_power_off_reset_quit_and_kill_are_told_apart() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    type Act = fn(&mut Running);
    let cases: [(&str, Act, Ended); 6] = [
        ("reboot$IFS-f", |_| {}, Ended::GuestReboot),
        ("poweroff$IFS-f", |_| {}, Ended::GuestPowerOff),
        ("echo${IFS}c>/proc/sysrq-trigger", |_| {}, Ended::Panic),
        ("true", |q| q.qmp.write_all(qmp::system_reset(3).as_bytes()).unwrap(), Ended::Reset),
        ("true", |q| q.qmp.write_all(qmp::quit(3).as_bytes()).unwrap(), Ended::HostStop),
        ("true", |q| q.child.kill().unwrap(), Ended::Crash(Exit::Signal(9))),
    ];
    for (command, act, want) in cases {
        let mut q = Running::start(&doing(command), None);
        q.run();
        if command == "true" {
            q.serial_until("skep-guest ready");
        }
        act(&mut q);
        assert_eq!(q.end(), want, "{command}");
    }
}

#[test]
fn a_serial_line_can_be_given_a_new_peer_and_a_screen_takes_viewers() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    let mut q = Running::start(&MachineSpec { screen: Some(Screen::default()), ..direct() }, None);
    for id in [3, 5] {
        let (mut viewer, theirs) = pair();
        q.give(theirs, id);
        assert_eq!(q.ask(id + 1, &qmp::add_vnc_client(id + 1, "given")), json!({}));
        let mut banner = [0; 12];
        viewer.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"RFB 003.008\n");
    }
    let (ours, theirs) = pair();
    q.serial = ours; // the old peer is gone
    q.give(theirs, 7);
    assert_eq!(q.ask(8, &qmp::replace_serial(8, 0, "given")), json!({}));
    q.run();
    q.serial_until("skep-guest ready");
    q.qmp.write_all(qmp::quit(9).as_bytes()).unwrap();
    assert_eq!(q.end(), Ended::HostStop);
}

#[test]
fn a_channel_carries_bytes_both_ways_for_one_after_the_other() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    let names = ["org.example.a", "org.example.b"];
    let channels = names.map(|name| Channel { name: name.into() }).into();
    let mut q = Running::start(&MachineSpec { channels, sound: true, ..direct() }, None);
    q.run();
    q.serial_until("skep-guest ready");
    q.serial.write_all(b"cat /sys/class/virtio-ports/*/name /sys/bus/pci/devices/0000:00:07.0/class; echo al''l\n").unwrap();
    let said = q.serial_until("all\r\n");
    assert!(names.iter().all(|name| said.contains(name)) && said.contains("0x040300"), "{said}");
    // The guest answers each line, whoever is there.
    let echo = "p=$(echo /dev/vport*p2); exec 5<>$p; while :; do if read -r l <&5; then echo \"got $l\" >&5; else sleep 0.1; fi; done &\n";
    q.serial.write_all(echo.as_bytes()).unwrap();
    for id in [20, 30] {
        let chardevs = q.ask(id, &qmp::query_chardevs(id));
        assert_eq!([0, 1, 2].map(|port| qmp::channel(&chardevs, port)), [Some(false), Some(false), None]);
        let (mut ours, theirs) = pair();
        q.give(theirs, id + 1);
        assert_eq!(q.ask(id + 2, &qmp::connect_channel(id + 2, 1, "given")), json!({}));
        let chardevs = q.ask(id + 3, &qmp::query_chardevs(id + 3));
        assert_eq!([0, 1].map(|port| qmp::channel(&chardevs, port)), [Some(false), Some(true)]);
        ours.write_all(format!("line-{id}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&ours), &mut answer).unwrap();
        assert_eq!(answer, format!("got line-{id}\n"));
        drop(ours);
        // QEMU hears of it in its main loop, before the guest's next byte.
        q.serial.write_all(b"echo go''ne\n").unwrap();
        q.serial_until("gone");
    }
    q.qmp.write_all(qmp::quit(40).as_bytes()).unwrap();
    assert_eq!(q.end(), Ended::HostStop);
}

#[test]
fn a_guest_boots_through_uefi_from_its_disk() {
    let Some(disk) = guest().map(|dir| dir.join("disk.img")).filter(|_| qemu_is_there()) else {
        return;
    };
    if !disk.exists() || !Path::new(UEFI_CODE).exists() {
        return skipped("no disk.img, or ovmf is not installed");
    }
    // The firmware has a driver of its own for each, whatever the guest's kernel has.
    for controller in [Controller::VirtioBlk, Controller::Ahci, Controller::VirtioScsi] {
        let mut spec = uefi();
        spec.nics.clear();
        spec.disks = vec![Disk { controller, ..Disk::default() }];
        let mut q = Running::start(&spec, Some(&disk));
        q.run();
        q.serial_until("skep-guest ready");
        assert_eq!(q.ask(3, &qmp::system_powerdown(3)), json!({}));
        assert_eq!(q.end(), Ended::GuestPowerOff, "{controller:?}");
    }
}

#[test]
fn events_of_a_running_guest_are_seen() {
    if !qemu_is_there() || guest().is_none() {
        return;
    }
    let mut q = Running::start(&direct(), None);
    q.qmp.write_all(qmp::cont(1).as_bytes()).unwrap();
    let mut seen = [false; 2];
    while seen != [true; 2] {
        match q.line().unwrap() {
            Line::Event(Event::Running) => seen[0] = true,
            Line::Reply(1, Reply::Done(_)) => seen[1] = true,
            other => panic!("{other:?}"),
        }
    }
}
