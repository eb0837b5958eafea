//! QCOW2 disks that become smaller, through the program and with QEMU's tools.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_proto::storage::*;
use skep_proto::{DiskId, Reason};
use std::fs::File;
use std::os::unix::fs::FileExt;
use support::*;

const MIB: u64 = 1 << 20;

#[test]
fn what_a_disk_loses_does_not_come_back() {
    let name = "what_a_disk_loses_does_not_come_back";
    if !has_qemu_img(name) {
        return;
    }
    let place = Place::new();
    let mut helper = place.start();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let disk = helper.create(kind, 2 << 30);
        let format = if kind == DiskKind::Raw { "raw" } else { "qcow2" };
        let path = place.state().join(format!("disks/{disk}.{format}"));
        let path = path.to_str().unwrap();
        let qemu_io = |commands: &[&str]| qemu_io(format, path, commands);
        // Within the cluster that the new end is in, at the end of its table, and in the next one's.
        qemu_io(&["write -P 0x5a 100M 64k", "write -P 0x5b 511M 1M", "write -P 0x5c 1G 40M", "write -P 0x5d 2147418112 64k"]);
        let before = helper.ask(ListDisks { after: None }).unwrap().disks.into_iter().find(|d| d.disk == disk).unwrap();
        let end = 100 * MIB + 512;
        let cut = helper.ask(ResizeDisk { disk, kind, size: end, shrink: true }).unwrap();
        assert_eq!(cut.size, end);
        assert!(cut.allocated + 40 * MIB < before.allocated, "{before:?} {cut:?}");
        qemu_io(&["read -P 0x5a 100M 512"]);
        helper.ask(ResizeDisk { disk, kind, size: 2 << 30, shrink: false }).unwrap();
        qemu_io(&["read -P 0x5a 100M 512", "read -P 0 104858112 512M", "read -P 0 1G 1G"]);
        if kind == DiskKind::Qcow2 {
            qemu_img(&["check", path]);
        }
        qemu_io(&["write -P 0x77 1G 1M", "read -P 0x77 1G 1M", "read -P 0 1074790400 1M"]);
    }
    // Deflated clusters share sectors: their entries go.
    let (plain, packed) = (place.state().join("plain"), place.state().join("packed"));
    let bytes: Vec<u8> = (0..8 * MIB).map(|at| (at >> 16) as u8 | 1).collect();
    std::fs::write(&plain, &bytes).unwrap();
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", plain.to_str().unwrap(), packed.to_str().unwrap()]);
    let (disk, kind) = (DiskId::random(), DiskKind::Qcow2);
    helper.import_bytes(import(disk, kind), &std::fs::read(&packed).unwrap()).unwrap();
    let path = place.state().join(format!("disks/{disk}.qcow2"));
    let resize = |size, shrink| ResizeDisk { disk, kind, size, shrink };
    refused(helper.ask(resize(3 * MIB + 512, true)), Reason::BadImage);
    helper.ask(resize(2 * MIB, true)).unwrap();
    helper.ask(resize(8 * MIB, false)).unwrap();
    qemu_io("qcow2", path.to_str().unwrap(), &["read -P 0x1f 2031616 64k", "read -P 0 2M 6M"]);
}

#[test]
fn an_image_that_lies_costs_itself_alone_when_it_is_cut() {
    let place = Place::new();
    let mut helper = place.start();
    let disk = helper.create(DiskKind::Qcow2, 2 << 30);
    let path = place.state().join(format!("disks/{disk}.qcow2"));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let word = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let l1 = word(40);
    let len = file.metadata().unwrap().len();
    let shrink = ResizeDisk { disk, kind: DiskKind::Qcow2, size: MIB, shrink: true };
    // A table beyond the file's end, one that is not where clusters begin, one with entries beyond the file's end.
    for entry in [1u64 << 50, (1 << 63) | 512] {
        file.write_all_at(&entry.to_be_bytes(), l1 + 8).unwrap();
        refused(helper.ask(shrink.clone()), Reason::BadImage);
        assert_eq!(word(24), 2 << 30);
    }
    file.write_all_at(&len.to_be_bytes(), l1 + 8).unwrap();
    file.set_len(len + 65536).unwrap();
    file.write_all_at(&(0x00ff_ffff_ffff_0000u64).to_be_bytes(), len).unwrap();
    file.write_all_at(&(len + 65536).to_be_bytes(), len + 8).unwrap();
    let _ = helper.ask(shrink.clone());
    assert_eq!(file.metadata().unwrap().len(), len + 65536);
    // The helper lives, and serves others.
    helper.create(DiskKind::Raw, MIB);
}
