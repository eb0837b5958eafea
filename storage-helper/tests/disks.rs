//! Disks, logs, variable stores and space, through the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_proto::storage::*;
use skep_proto::{DiskId, MachineId, Reason, SnapshotId, UpTo};
use skep_sys::changes::{Change, Changes};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use support::*;

const MIB: u64 = 1 << 20;

#[test]
fn disks_are_made_once_and_listed() {
    let place = Place::new();
    let mut helper = place.start();
    let raw = helper.create(DiskKind::Raw, 8 * MIB);
    let qcow2 = helper.create(DiskKind::Qcow2, 64 << 40);
    let again = CreateDisk { disk: raw, kind: DiskKind::Raw, size: 8 * MIB };
    assert_eq!(helper.ask(again.clone()).unwrap().size, 8 * MIB);
    refused(helper.ask(CreateDisk { size: 9 * MIB, ..again.clone() }), Reason::AlreadyExists);
    refused(helper.ask(CreateDisk { kind: DiskKind::Qcow2, ..again.clone() }), Reason::AlreadyExists);
    let fresh = |kind, size| CreateDisk { disk: DiskId::random(), kind, size };
    let refusal = refused(helper.ask(fresh(DiskKind::Zvol, MIB)), Reason::Unsupported);
    assert_eq!(refusal.field.as_str(), "kind");
    refused(helper.ask(fresh(DiskKind::Raw, (64 << 40) + 512)), Reason::TooLarge);
    refused(helper.ask(fresh(DiskKind::Raw, u64::MAX)), Reason::TooLarge);
    refused(helper.ask(fresh(DiskKind::Raw, MIB - 512)), Reason::InvalidValue);
    let refusal = refused(helper.ask(fresh(DiskKind::Qcow2, MIB + 1)), Reason::InvalidValue);
    assert!(refusal.to_string().contains("multiple of 512"), "{refusal}");
    let page = helper.ask(ListDisks { after: None }).unwrap();
    assert_eq!(page.disks.len(), 2);
    let large = page.disks.iter().find(|d| d.disk == qcow2).unwrap();
    assert_eq!((large.kind, large.size), (DiskKind::Qcow2, 64 << 40));
    assert!(large.allocated < 4 * MIB, "{large:?}");
    assert_eq!(place.files().len(), 2);
    if has_qemu_img("disks_are_made_once_and_listed") {
        qemu_img(&["check", place.state().join(format!("disks/{qcow2}.qcow2")).to_str().unwrap()]);
    }
}

#[test]
fn files_have_no_snapshots_and_there_are_no_volumes_unasked() {
    let place = Place::new();
    let mut helper = place.start();
    let snapshot = SnapshotId::random();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let disk = helper.create(kind, MIB);
        let refusals = [
            refused(helper.ask(CreateSnapshot { disk, kind, snapshot }), Reason::Unsupported),
            refused(helper.ask(ListSnapshots { disk, kind, after: None }), Reason::Unsupported),
            refused(helper.ask(RollBackDisk { disk, kind, snapshot }), Reason::Unsupported),
            refused(helper.ask(DeleteSnapshot { disk, kind, snapshot }), Reason::Unsupported),
        ];
        for refusal in refusals {
            assert!(refusal.to_string().contains("zvol"), "{refusal}");
        }
    }
    let (disk, kind) = (DiskId::random(), DiskKind::Zvol);
    refused(helper.ask(VolumeSpace {}), Reason::Unsupported);
    refused(helper.ask(CreateSnapshot { disk, kind, snapshot }), Reason::Unsupported);
    refused(helper.ask(DeleteDisk { disk, kind }), Reason::Unsupported);
    refused(helper.ask(ResizeDisk { disk, kind, size: MIB, shrink: false }), Reason::Unsupported);
    refused(helper.call(OpenDisk { disk, kind, read_only: true, no_cache: false, sync: false }, []), Reason::Unsupported);
    refused(helper.import_bytes(import(disk, kind), b"x"), Reason::Unsupported);
    refused(helper.clone_disk(disk, DiskId::random(), kind), Reason::Unsupported);
}

#[test]
fn long_lists_come_in_pages() {
    let place = Place::new();
    let mut helper = place.start();
    let mut made: Vec<DiskId> = (0..205).map(|_| helper.create(DiskKind::Raw, MIB)).collect();
    made.sort();
    // What is not a disk's name is not a disk.
    for name in ["x.raw", "00000000-0000-0000-0000-000000000000.img", "A0000000-0000-0000-0000-000000000000.raw"] {
        File::create(place.state().join("disks").join(name)).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = helper.ask(ListDisks { after }).unwrap().disks;
        assert!(page.len() <= 100);
        let Some(last) = page.last() else { break };
        after = Some(last.disk);
        seen.extend(page.iter().map(|d| d.disk));
    }
    assert_eq!(seen, made);
}

#[test]
fn an_open_disk_is_locked_by_its_descriptor() {
    let place = Place::new();
    let mut helper = place.start();
    let disk = helper.create(DiskKind::Raw, MIB);
    let before = helper.descriptors();
    let open = |read_only| OpenDisk { disk, kind: DiskKind::Raw, read_only, no_cache: false, sync: false };
    let delete = DeleteDisk { disk, kind: DiskKind::Raw };
    let resize = ResizeDisk { disk, kind: DiskKind::Raw, size: 2 * MIB, shrink: false };

    let (state, [fd]) = helper.call(open(false), []).unwrap();
    assert_eq!(state.disk.size, MIB);
    File::from(fd.try_clone().unwrap()).write_all_at(b"guest", 512).unwrap();
    assert_eq!(helper.descriptors(), before);
    for read_only in [false, true] {
        refused(helper.call(open(read_only), []), Reason::InUse);
    }
    refused(helper.ask(delete.clone()), Reason::InUse);
    refused(helper.ask(resize.clone()), Reason::InUse);
    refused(helper.clone_disk(disk, DiskId::random(), DiskKind::Raw), Reason::InUse);
    drop(fd);

    let (_, [first]) = helper.call(open(true), []).unwrap();
    let (_, [second]) = helper.call(open(true), []).unwrap();
    assert!(File::from(second).write_all_at(b"x", 0).is_err());
    refused(helper.call(open(false), []), Reason::InUse);
    refused(helper.ask(delete.clone()), Reason::InUse);
    drop(first);
    helper.ask(delete.clone()).unwrap();
    helper.ask(delete).unwrap();
    refused(helper.call(open(false), []), Reason::NotFound);
    refused(helper.ask(resize), Reason::NotFound);
    assert!(place.files().is_empty());
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn disks_grow_and_shrink_only_if_that_is_said() {
    let place = Place::new();
    let mut helper = place.start();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let disk = helper.create(kind, 4 * MIB);
        let resize = |size| ResizeDisk { disk, kind, size, shrink: false };
        let refusal = helper.ask(resize(3 * MIB)).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidValue);
        assert!(refusal.note.as_str().contains("the last 1048576 bytes would be lost"), "{refusal}");
        refused(helper.ask(resize(4 * MIB + 1)), Reason::InvalidValue);
        refused(helper.ask(resize(65 << 40)), Reason::TooLarge);
        assert_eq!(helper.ask(resize(4 * MIB)).unwrap().size, 4 * MIB);
        for size in [5 * MIB, 1 << 30, 5 << 40] {
            assert_eq!(helper.ask(resize(size)).unwrap().size, size);
        }
        let open = OpenDisk { disk, kind, read_only: true, no_cache: false, sync: false };
        let (opened, fd) = helper.call(open.clone(), []).unwrap();
        let state = opened.disk;
        assert!(opened.most > state.size, "{}", opened.most);
        assert_eq!(state.size, 5 << 40);
        let shrink = |size| ResizeDisk { size, shrink: true, ..resize(0) };
        refused(helper.ask(shrink(2 * MIB)), Reason::InUse);
        drop(fd);
        // Less than the least that a disk has, never.
        refused(helper.ask(shrink(MIB / 2)), Reason::InvalidValue);
        // Of others: resize.rs.
        if kind == DiskKind::Raw {
            assert_eq!(helper.ask(shrink(2 * MIB)).unwrap().size, 2 * MIB);
            assert_eq!(helper.call(open, []).unwrap().0.disk.size, 2 * MIB);
        }
    }
}

#[test]
fn a_disk_that_its_hypervisor_has_is_weighed() {
    let place = Place::new();
    let mut helper = place.start();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let disk = helper.create(kind, 4 * MIB);
        let (opened, fd) = helper.call(OpenDisk { disk, kind, read_only: false, no_cache: false, sync: false }, []).unwrap();
        let may_grow = |size| MayGrow { disk, kind, size };
        let now = helper.ask(may_grow(4 * MIB)).unwrap().most;
        assert_eq!(now, opened.most);
        // As much as it has when it is opened with that size.
        let more = helper.ask(may_grow(1 << 30)).unwrap().most;
        refused(helper.ask(may_grow(2 * MIB)), Reason::InvalidValue);
        refused(helper.ask(may_grow(4 * MIB + 1)), Reason::InvalidValue);
        refused(helper.ask(may_grow(65 << 40)), Reason::TooLarge);
        drop(fd);
        helper.ask(ResizeDisk { disk, kind, size: 1 << 30, shrink: false }).unwrap();
        let open = OpenDisk { disk, kind, read_only: true, no_cache: false, sync: false };
        assert_eq!(helper.call(open, []).unwrap().0.most, more);
    }
    let disk = DiskId::random();
    refused(helper.ask(MayGrow { disk, kind: DiskKind::Raw, size: MIB }), Reason::NotFound);
    refused(helper.ask(MayGrow { disk, kind: DiskKind::Zvol, size: MIB }), Reason::Unsupported);
}

#[test]
fn a_wiped_disk_reads_as_zeros() {
    let place = Place::new();
    let mut helper = place.start();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let disk = helper.create(kind, 4 * MIB);
        let fresh = helper.ask(ListDisks { after: None }).unwrap().disks.iter().find(|d| d.disk == disk).unwrap().clone();
        let wipe = WipeDisk { disk, kind, size: 4 * MIB };
        let open = || OpenDisk { disk, kind, read_only: false, no_cache: false, sync: false };
        let (_, [fd]) = helper.call(open(), []).unwrap();
        let file = File::from(fd);
        file.write_all_at(&[7; 1 << 20], 2 * MIB).unwrap();
        refused(helper.ask(wipe.clone()), Reason::InUse);
        drop(file);
        refused(helper.ask(WipeDisk { size: 1, ..wipe.clone() }), Reason::InvalidValue);
        assert_eq!(helper.ask(wipe.clone()).unwrap(), fresh);
        let (_, [fd]) = helper.call(open(), []).unwrap();
        let mut bytes = vec![1; 1 << 20];
        let read = File::from(fd).read_at(&mut bytes, 2 * MIB).unwrap();
        assert!(bytes[..read].iter().all(|byte| *byte == 0), "{kind:?}");
    }
    // What is not there is made: cut off between the two steps that a volume needs, the next attempt ends it.
    let disk = DiskId::random();
    assert_eq!(helper.ask(WipeDisk { disk, kind: DiskKind::Raw, size: MIB }).unwrap().size, MIB);
}

#[test]
fn qemu_writes_to_a_disk_that_was_made_and_grown_here() {
    let name = "qemu_writes_to_a_disk_that_was_made_and_grown_here";
    if !has_qemu_img(name) {
        return;
    }
    let place = Place::new();
    let mut helper = place.start();
    let disk = helper.create(DiskKind::Qcow2, 4 * MIB);
    let path = place.state().join(format!("disks/{disk}.qcow2"));
    let path = path.to_str().unwrap();
    let qemu_io = |commands: &[&str]| qemu_io("qcow2", path, commands);
    qemu_io(&["write -P 0x5a 1M 100k", "write -P 0x11 4194000 304"]);
    helper.ask(ResizeDisk { disk, kind: DiskKind::Qcow2, size: 64 << 40, shrink: false }).unwrap();
    qemu_io(&["write -P 0xa5 10G 1M", "write -P 0x77 70368744177152 512", "read -P 0x5a 1M 100k", "read -P 0 2G 1M"]);
    qemu_img(&["check", path]);
    qemu_io(&["read -P 0xa5 10G 1M", "read -P 0x77 70368744177152 512"]);
    let disk = helper.ask(ListDisks { after: None }).unwrap().disks.remove(0);
    assert_eq!(disk.size, 64 << 40);
    assert!(disk.allocated < 8 * MIB, "{disk:?}");
}

#[test]
fn variable_stores_come_from_the_template() {
    let place = Place::new();
    let (one, two) = (MachineId::random(), MachineId::random());
    let mut helper = place.start();
    refused(helper.call(OpenVars { machine: one }, []), Reason::FirmwareMissing);

    let template = noise(540_672);
    let firmware = place.state().join("cell").join(skep_storage_helper::platform::VARS_TEMPLATE);
    std::fs::create_dir_all(firmware.parent().unwrap()).unwrap();
    std::fs::write(&firmware, &template).unwrap();
    let read = |fd: &File| {
        let mut bytes = vec![0; 540_672];
        fd.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let (_, [fd]) = helper.call(OpenVars { machine: one }, []).unwrap();
    let vars = File::from(fd);
    assert_eq!(read(&vars), template);
    vars.write_all_at(b"boot entry", 100).unwrap();
    refused(helper.call(OpenVars { machine: one }, []), Reason::InUse);
    helper.ask(CloneVars { from: one, to: two }).unwrap();
    helper.ask(CloneVars { from: MachineId::random(), to: MachineId::random() }).unwrap();
    let (_, [fd]) = helper.call(OpenVars { machine: two }, []).unwrap();
    assert_eq!(read(&File::from(fd)), read(&vars));
    drop(vars);
    helper.ask(DeleteMachineFiles { machine: one }).unwrap();
    helper.ask(DeleteMachineFiles { machine: one }).unwrap();
    let (_, [fd]) = helper.call(OpenVars { machine: one }, []).unwrap();
    assert_eq!(read(&File::from(fd)), template);
}

#[test]
fn logs_have_two_halves_older_first() {
    let place = Place::new();
    let mut helper = place.start();
    let machine = MachineId::random();
    let log = LogKind::Serial;
    let (_, none) = helper.call(OpenLogReader { machine, log, follow: false }, []).unwrap();
    assert!(none.0.is_empty());
    let (_, halves) = helper.call(OpenLogWriter { machine, log }, []).unwrap();
    let [first, second] = halves.map(File::from);
    // By name: on FreeBSD what was handed out lacks the right to it.
    let set_time = |half: u8, seconds| {
        let path = place.state().join(format!("logs/machines/{machine}.serial.{half}.log"));
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    };
    first.write_all_at(b"newer", 0).unwrap();
    second.write_all_at(b"older", 0).unwrap();
    set_time(0, 2000);
    set_time(1, 1000);
    let (_, read) = helper.call(OpenLogReader { machine, log, follow: false }, []).unwrap();
    let texts: Vec<_> = read.0.into_iter().map(|fd| std::io::read_to_string(File::from(fd)).unwrap()).collect();
    assert_eq!(texts, ["older", "newer"]);
    let (_, read) = helper.call(OpenLogReader { machine, log, follow: false }, []).unwrap();
    for fd in read.0 {
        assert!(File::from(fd).set_len(0).is_err(), "a reader could truncate the log");
    }
    assert_eq!(first.metadata().unwrap().mode() & 0o777, 0o600);
    let (_, others) = helper.call(OpenLogReader { machine, log: LogKind::Hypervisor, follow: false }, []).unwrap();
    assert!(others.0.is_empty());
    helper.ask(DeleteMachineFiles { machine }).unwrap();
    let (_, none) = helper.call(OpenLogReader { machine, log, follow: false }, []).unwrap();
    assert!(none.0.is_empty());
}

#[test]
fn a_log_that_is_followed_has_both_halves_and_a_watcher() {
    let place = Place::new();
    let mut helper = place.start();
    let call = OpenLogReader { machine: MachineId::random(), log: LogKind::Serial, follow: true };
    let (opened, UpTo(mut fds)) = helper.call(call.clone(), []).unwrap();
    let watcher = fds.split_off(usize::from(opened.files)).pop();
    assert_eq!(fds.len(), 2);
    let files: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let changes = Changes::new(&files, watcher).unwrap();
    let (_, [first, _]) = helper.call(OpenLogWriter { machine: call.machine, log: call.log }, []).unwrap();
    File::from(first).write_all_at(b"x", 0).unwrap();
    assert_eq!(changes.take().unwrap(), Change::Written);
    helper.ask(DeleteMachineFiles { machine: call.machine }).unwrap();
    while changes.take().unwrap() != Change::Gone {}
}

#[test]
fn logs_of_services_are_read_and_followed() {
    let place = Place::new();
    let mut helper = place.start();
    let call = OpenServiceLog { service: ServiceName::Net, follow: true };
    // One that a service manager takes elsewhere.
    assert_eq!(helper.call(call.clone(), []).unwrap_err().reason, Reason::NotFound);
    let path = |name: &str| place.state().join("logs").join(name);
    std::fs::write(path("net-helper.log"), "live\n").unwrap();
    let (opened, UpTo(fds)) = helper.call(OpenServiceLog { follow: false, ..call.clone() }, []).unwrap();
    assert_eq!((opened.files, fds.len()), (1, 1));
    std::fs::write(path("net-helper.1.log"), "former\n").unwrap();
    let (opened, UpTo(mut fds)) = helper.call(call, []).unwrap();
    let watcher = fds.split_off(usize::from(opened.files)).pop();
    let texts: Vec<_> = fds.iter().map(|fd| std::io::read_to_string(File::from(fd.try_clone().unwrap())).unwrap()).collect();
    assert_eq!(texts, ["former\n", "live\n"]);
    assert!(nix::unistd::write(&fds[1], b"x").is_err(), "an administrator could write it");
    let files: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let changes = Changes::new(&files, watcher).unwrap();
    std::fs::OpenOptions::new().append(true).open(path("net-helper.log")).unwrap().write_all(b"more\n").unwrap();
    assert_eq!(changes.take().unwrap(), Change::Written);
    std::fs::rename(path("net-helper.log"), path("net-helper.1.log")).unwrap();
    while changes.take().unwrap() != Change::Gone {}
}

#[test]
fn space_is_what_the_file_system_says() {
    let place = Place::new();
    let mut helper = place.start();
    let stat = nix::sys::statvfs::statvfs(&place.state()).unwrap();
    let space = helper.ask(Space {}).unwrap();
    // A file system in memory has what is left of that, which changes meanwhile.
    let total = stat.blocks() * stat.fragment_size();
    assert!(space.total.abs_diff(total) <= total / 100, "{} of {total}", space.total);
    assert!(space.free > 0 && space.free <= space.total);
    assert!(!space.filesystem.as_str().is_empty());
}
