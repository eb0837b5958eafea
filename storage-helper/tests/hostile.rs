//! Images, guests and peers that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_proto::storage::*;
use skep_proto::{DiskId, Helper as _, Reason, Refusal};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use support::*;

const CLUSTER: usize = 65536;
const L1: usize = 3 * CLUSTER;
const L2: usize = 4 * CLUSTER;
const DATA: u64 = 5 * CLUSTER as u64;
const IN_USE: u64 = 1 << 63;
const PACKED: u64 = 1 << 62;

/// Imports an image as each kind.
fn both(helper: &mut Helper, image: &[u8]) -> [Result<JobDone, Refusal>; 2] {
    [DiskKind::Raw, DiskKind::Qcow2].map(|kind| {
        let disk = DiskId::random();
        let result = helper.import_bytes(ImportDisk { format: SourceFormat::Qcow2, ..import(disk, kind) }, image);
        if result.is_ok() {
            helper.ask(DeleteDisk { disk, kind }).unwrap();
        }
        result
    })
}

fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = qcow2();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn hostile_images_are_refused_by_what_is_wrong() {
    use Reason::{BadImage, NamesOtherFile, TooLarge};
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    for result in both(&mut helper, &qcow2()) {
        assert_eq!(result.unwrap().disk.size, 1 << 20);
    }
    let be = u64::to_be_bytes;
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("version 1", changed(7, &[1]), BadImage),
        ("version 4", changed(7, &[4]), BadImage),
        ("a backing file", changed(8, &[&be(512)[..], &[0, 0, 0, 11]].concat()), NamesOtherFile),
        ("a backing file of no length", changed(8, &be(512)), NamesOtherFile),
        ("small clusters", changed(23, &[8]), BadImage),
        ("large clusters", changed(23, &[22]), BadImage),
        ("overflowing clusters", changed(20, &[0xff; 4]), BadImage),
        ("absurd size", changed(24, &[0xff; 8]), TooLarge),
        ("65 TiB", changed(24, &be(65 << 40)), TooLarge),
        ("no size", changed(24, &be(0)), BadImage),
        ("a size beyond its L1 table", changed(24, &be(1 << 40)), BadImage),
        ("encryption", changed(35, &[1]), BadImage),
        ("LUKS", changed(35, &[2]), BadImage),
        ("an endless L1 table", changed(36, &[0xff; 4]), BadImage),
        ("no L1 table", changed(36, &[0; 4]), BadImage),
        ("an L1 table beyond the end", changed(40, &be(1 << 40)), BadImage),
        ("an L1 table that wraps", changed(40, &be(u64::MAX - 65535)), BadImage),
        ("an L1 table in the header", changed(40, &be(0)), BadImage),
        ("a crooked L1 table", changed(40, &be(L1 as u64 + 8)), BadImage),
        ("no refcount table", changed(56, &[0; 4]), BadImage),
        ("an endless refcount table", changed(56, &[0xff; 4]), BadImage),
        ("a dirty image", changed(79, &[1]), BadImage),
        ("a corrupt image", changed(79, &[2]), BadImage),
        ("an external data file", changed(79, &[4]), NamesOtherFile),
        ("an external data file by name", changed(104, b"DATA\0\0\0\x0b/etc/passwd"), NamesOtherFile),
        ("zstd", changed(79, &[8]), BadImage),
        ("extended L2 entries", changed(79, &[16]), BadImage),
        ("unknown features", changed(72, &[0x80]), BadImage),
        ("wide refcounts", changed(99, &[7]), BadImage),
        ("a header longer than a cluster", changed(100, &[0, 2, 0, 0]), BadImage),
        ("a short header", changed(103, &[72]), BadImage),
        ("an endless extension", changed(104, b"\0\0\0\x01\xff\xff\xff\xff"), BadImage),
        ("an L2 table beyond the end", changed(L1, &be(IN_USE | (1 << 40))), BadImage),
        ("an L2 table that wraps", changed(L1, &be(0x00ff_ffff_ffff_0000)), BadImage),
        ("a crooked L2 table", changed(L1, &be(IN_USE | (L2 as u64 + 512))), BadImage),
        ("reserved bits in L1", changed(L1, &be(IN_USE | L2 as u64 | 2)), BadImage),
        ("data beyond the end", changed(L2, &be(IN_USE | (1 << 40))), BadImage),
        ("crooked data", changed(L2, &be(IN_USE | (DATA + 512))), BadImage),
        ("compressed garbage", changed(L2, &be(PACKED | DATA)), BadImage),
        ("compressed data beyond the end", changed(L2, &be(PACKED | (1 << 40))), BadImage),
        ("one cluster as all data", changed(L2, &be(IN_USE | DATA).repeat(16)), BadImage),
        ("only a magic", b"QFI\xfb".to_vec(), BadImage),
        ("another format", b"KDMV\x01\0\0\0".to_vec(), BadImage),
    ];
    for (what, image, reason) in cases {
        for result in both(&mut helper, &image) {
            let refusal = result.expect_err(what);
            assert_eq!(refusal.reason, reason, "{what}: {refusal}");
            assert!(refusal.object.as_str().starts_with("disk "), "{what}: {refusal}");
        }
    }
    // A snapshot's data would be kept but never shown.
    let [unpacked, kept] = both(&mut helper, &changed(63, &[1]));
    unpacked.unwrap();
    refused(kept, BadImage);
    assert!(place.files().is_empty());
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn truncated_images_are_refused_at_every_length() {
    let place = Place::new();
    let mut helper = place.start();
    let image = qcow2();
    let lengths = (0..6).flat_map(|c| [c * CLUSTER, c * CLUSTER + 1, c * CLUSTER + 100, (c + 1) * CLUSTER - 1]);
    for length in lengths {
        for result in both(&mut helper, &image[..length]) {
            refused(result, Reason::BadImage);
        }
    }
    assert!(place.files().is_empty());
}

#[test]
fn images_changed_at_random_end_no_process() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let mut random = noise_words();
    for round in 0..150 {
        let mut image = qcow2();
        for _ in 0..=random() % 4 {
            // Where the tables are; data is data.
            let base = [0, 0, 0, CLUSTER, 2 * CLUSTER, L1, L2][random() as usize % 7];
            let at = base + random() as usize % 112;
            image[at] = [random() as u8, 0, 0xff, image[at] ^ (1 << (random() % 8))][random() as usize % 4];
        }
        for result in both(&mut helper, &image) {
            if let Err(refusal) = result {
                let known = [Reason::BadImage, Reason::NamesOtherFile, Reason::TooLarge];
                assert!(known.contains(&refusal.reason), "round {round}: {refusal}");
            }
        }
    }
    assert!(place.files().is_empty());
    assert_eq!(helper.descriptors(), before);
}

fn noise_words() -> impl FnMut() -> u64 {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    }
}

#[test]
fn a_guest_that_rewrites_its_image_gains_nothing() {
    let place = Place::new();
    let mut helper = place.start();
    let kind = DiskKind::Qcow2;
    let disk = DiskId::random();
    helper.import_bytes(import(disk, kind), &qcow2()).unwrap();
    let write = |helper: &mut Helper, at: u64, bytes: &[u8]| {
        let file = File::options().write(true).open(place.state().join(format!("disks/{disk}.qcow2"))).unwrap();
        file.write_all_at(&qcow2(), 0).unwrap();
        file.write_all_at(bytes, at).unwrap();
        helper.ask(Space {}).unwrap();
    };
    // A backing file, as a taken-over hypervisor can write it.
    write(&mut helper, 8, &[&512u64.to_be_bytes()[..], &[0, 0, 0, 11]].concat());
    refused(helper.call(OpenDisk { disk, kind, read_only: false, no_cache: false, sync: false }, []), Reason::NamesOtherFile);
    refused(helper.ask(ResizeDisk { disk, kind, size: 1 << 40, shrink: false }), Reason::NamesOtherFile);
    refused(helper.clone_disk(disk, DiskId::random(), kind), Reason::NamesOtherFile);
    let listed = helper.ask(ListDisks { after: None }).unwrap().disks;
    assert_eq!((listed.len(), listed[0].disk, listed[0].size), (1, disk, 0));
    // Whatever the header says, it is refused or grown.
    let mut random = noise_words();
    let grow = ResizeDisk { disk, kind, size: 4 << 40, shrink: false };
    write(&mut helper, 0, b"QFI");
    assert_eq!(helper.ask(grow.clone()).unwrap().size, 4 << 40);
    for _ in 0..200 {
        write(&mut helper, random() % 112, &random().to_be_bytes()[..1 + random() as usize % 8]);
        if let Err(refusal) = helper.ask(grow.clone()) {
            let known = [Reason::BadImage, Reason::NamesOtherFile, Reason::TooLarge, Reason::InvalidValue];
            assert!(known.contains(&refusal.reason), "{refusal}");
        }
    }
    helper.ask(DeleteDisk { disk, kind }).unwrap();
    assert!(place.files().is_empty());
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let place = Place::new();
    let mut helper = place.start();
    let disk = DiskId::random();
    let target = place.scratch("target");
    std::fs::write(&target, vec![0; 1 << 20]).unwrap();
    for kind in ["raw", "raw.part"] {
        std::os::unix::fs::symlink(&target, place.state().join(format!("disks/{disk}.{kind}"))).unwrap();
    }
    assert!(helper.call(OpenDisk { disk, kind: DiskKind::Raw, read_only: true, no_cache: false, sync: false }, []).is_err());
    assert!(helper.ask(CreateDisk { disk, kind: DiskKind::Raw, size: 1 << 20 }).is_err());
    std::fs::remove_file(place.state().join(format!("disks/{disk}.raw"))).unwrap();
    helper.import_bytes(import(disk, DiskKind::Raw), b"data").unwrap();
    assert!(std::fs::read(&target).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_wrong_peer_or_record_ends_only_its_connection() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let connect = |socket: &std::path::Path| as_broker(|| skep_sys::sock::connect_seqpacket(socket)).unwrap();
    let closed = |fd: &std::os::fd::OwnedFd| loop {
        if skep_sys::msg::recv(fd.as_fd(), 8000, 16, None).is_err() {
            break;
        }
    };
    // No hello; a hello with a descriptor; a request that is too short, too long, or brings descriptors that do not belong to it.
    let hello = skep_proto::wire::encode(&skep_proto::wire::Hello {
        protocol: "storage-helper".parse().unwrap(),
        version: Storage::VERSION,
    })
    .unwrap();
    let origin = |seq| skep_proto::wire::Origin { seq, trace: skep_proto::TraceId(1), user: skep_proto::Text::default() };
    let space = |seq| skep_proto::wire::encode_request::<Storage>(&origin(seq), &Space {}.into()).unwrap();
    let null = File::open("/dev/null").unwrap();
    let none = [];
    let one = [null.as_fd()];
    let with = |tail: &[u8]| [&space(1)[..], tail].concat();
    type Records<'a> = Vec<(Vec<u8>, &'a [std::os::fd::BorrowedFd<'a>])>;
    let talks: Vec<Records<'_>> = vec![
        vec![(b"garbage".to_vec(), &none)],
        vec![(hello.clone(), &one)],
        vec![(hello.clone(), &none), (hello.clone(), &none)],
        vec![(hello.clone(), &none), (space(1)[..1].to_vec(), &none)],
        vec![(hello.clone(), &none), (with(b"more"), &none)],
        vec![(hello.clone(), &none), (space(2), &none)],
        vec![(hello.clone(), &none), (space(1), &one)],
        vec![(hello.clone(), &none), (vec![0; 8001], &none)],
    ];
    for talk in talks {
        let socket = connect(&helper.socket);
        for (bytes, fds) in talk {
            skep_sys::msg::send(socket.as_fd(), &bytes, fds, None).unwrap();
        }
        closed(&socket);
    }
    if is_root() {
        // Root itself is not the broker.
        let socket = skep_sys::sock::connect_seqpacket(&helper.socket).unwrap();
        closed(&socket);
    }
    assert_eq!(helper.descriptors(), before);
}
