//! Imports of images of other formats, and of packed ones: held against what QEMU and the packers' own programs make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use sha2::{Digest, Sha256};
use skep_proto::storage::*;
use skep_proto::{DiskId, Reason};
use std::io::Write;
use std::process::{Command, Stdio};
use support::*;

const MIB: usize = 1 << 20;

/// 6 MiB with holes, beginning and ending with data.
fn holey() -> Vec<u8> {
    let mut bytes = vec![0; 6 * MIB];
    bytes[..MIB].copy_from_slice(&noise(MIB));
    bytes[3 * MIB + 5000..4 * MIB].copy_from_slice(&noise(MIB - 5000));
    bytes[6 * MIB - 512..].copy_from_slice(&noise(512));
    bytes
}

fn contents(place: &Place, disk: DiskId) -> Vec<u8> {
    std::fs::read(place.state().join(format!("disks/{disk}.raw"))).unwrap()
}

/// What a packer makes of these bytes; none: it is not installed.
fn packed(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let (mut to, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    let feeder = std::thread::spawn(move || to.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

/// Those of qemu-img: format, options.
const FOREIGN: [(SourceFormat, &str, &str); 8] = [
    (SourceFormat::Vmdk, "vmdk", "subformat=monolithicSparse"),
    (SourceFormat::Vmdk, "vmdk", "subformat=streamOptimized"),
    (SourceFormat::Vhd, "vpc", "subformat=dynamic"),
    (SourceFormat::Vhd, "vpc", "subformat=dynamic,force_size"),
    (SourceFormat::Vhd, "vpc", "subformat=fixed,force_size"),
    (SourceFormat::Vhdx, "vhdx", "subformat=dynamic"),
    (SourceFormat::Vhdx, "vhdx", "subformat=dynamic,block_size=1M"),
    (SourceFormat::Vhdx, "vhdx", "subformat=fixed"),
];

/// The image that qemu-img makes of these bytes.
fn made(place: &Place, bytes: &[u8], format: &str, options: &str) -> Vec<u8> {
    let (source, image) = (place.scratch("source.raw"), place.scratch("image"));
    std::fs::write(&source, bytes).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", format, "-o", options, source.to_str().unwrap(), image.to_str().unwrap()]);
    std::fs::read(image).unwrap()
}

#[test]
fn images_of_other_formats_hold_what_qemu_put_in() {
    if !has_qemu_img("images_of_other_formats_hold_what_qemu_put_in") {
        return;
    }
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let bytes = holey();
    for (format, name, options) in FOREIGN {
        let image = made(&place, &bytes, name, options);
        let (source, plain) = (place.scratch("image"), place.scratch("plain.raw"));
        let how = if name == "vpc" { "vpc" } else { name };
        qemu_img(&["convert", "-f", how, "-O", "raw", source.to_str().unwrap(), plain.to_str().unwrap()]);
        let plain = std::fs::read(&plain).unwrap();
        for named in [SourceFormat::Detect, format] {
            let disk = DiskId::random();
            let call = ImportDisk { format: named, expect: image.len() as u64, ..import(disk, DiskKind::Raw) };
            let done = helper.import_bytes(call, &image).unwrap();
            let sum: [u8; 32] = Sha256::digest(&image).into();
            assert_eq!(done.sha256, Some(sum), "of what came in");
            let got = contents(&place, disk);
            assert!(got == plain && got.starts_with(&bytes), "{options}: {} and {} bytes", got.len(), plain.len());
            assert!(done.disk.allocated < 4 * MIB as u64, "holes were written: {done:?}");
        }
        // As another format it is refused, and as raw it is what it is.
        let other = if format == SourceFormat::Vhdx { SourceFormat::Vmdk } else { SourceFormat::Vhdx };
        let call = ImportDisk { format: other, ..import(DiskId::random(), DiskKind::Raw) };
        assert_eq!(refused(helper.import_bytes(call, &image), Reason::BadImage).field.as_str(), "format");
        refused(helper.import_bytes(import(DiskId::random(), DiskKind::Qcow2), &image), Reason::BadImage);
        let disk = DiskId::random();
        helper.import_bytes(ImportDisk { format: SourceFormat::Raw, ..import(disk, DiskKind::Raw) }, &image).unwrap();
        assert!(contents(&place, disk).starts_with(&image), "{options}");
    }
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn a_vmdk_whose_directory_is_at_its_end_is_read() {
    if !has_qemu_img("a_vmdk_whose_directory_is_at_its_end_is_read") {
        return;
    }
    let place = Place::new();
    let mut helper = place.start();
    let bytes = holey();
    let mut image = made(&place, &bytes, "vmdk", "subformat=streamOptimized");
    // As who writes a stream does it: a marker (1 sector, type 3), the header with the directory, a marker of the end.
    let mut marker = vec![0; 512];
    (marker[0], marker[12]) = (1, 3);
    let footer = image[..512].to_vec();
    image[56..64].fill(0xff);
    image.extend([marker, footer, vec![0; 512]].concat());
    let disk = DiskId::random();
    helper.import_bytes(import(disk, DiskKind::Raw), &image).unwrap();
    assert!(contents(&place, disk) == bytes);
    let path = place.scratch("image");
    std::fs::write(&path, &image).unwrap();
    let plain = place.scratch("plain.raw");
    qemu_img(&["convert", "-f", "vmdk", "-O", "raw", path.to_str().unwrap(), plain.to_str().unwrap()]);
    assert!(std::fs::read(plain).unwrap() == bytes, "QEMU reads it otherwise");
    for length in [512, 1024, 1536] {
        let cut = &image[..image.len() - length];
        refused(helper.import_bytes(import(DiskId::random(), DiskKind::Raw), cut), Reason::BadImage);
    }
}

#[test]
fn images_of_other_formats_that_are_wrong_are_refused_and_leave_nothing() {
    if !has_qemu_img("images_of_other_formats_that_are_wrong_are_refused_and_leave_nothing") {
        return;
    }
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let mut bytes = vec![0; MIB];
    bytes[..1000].copy_from_slice(&noise(1000));
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for (format, name, options) in FOREIGN {
        let image = made(&place, &bytes, name, options);
        let mut take = |image: &[u8]| {
            let disk = DiskId::random();
            let result = helper.import_bytes(ImportDisk { format, ..import(disk, DiskKind::Raw) }, image);
            if let Err(refusal) = &result {
                let known = [Reason::BadImage, Reason::NamesOtherFile, Reason::TooLarge];
                assert!(known.contains(&refusal.reason), "{options}: {refusal}");
                let left = place.files().into_iter().any(|file| file.starts_with(&disk.to_string()));
                assert!(!left, "{options}: something is left");
            } else {
                helper.ask(DeleteDisk { disk, kind: DiskKind::Raw }).unwrap();
            }
            result.is_err()
        };
        for length in [0, 1, 3, 4, 100, 511, 512, 513, 4096, image.len() - 100] {
            // Those that end with a footer know their end; others may lack what nothing names.
            let refused = take(&image[..length]);
            assert!(refused || (format != SourceFormat::Vhd && length > 4096), "{options}: cut off at {length}");
        }
        for _ in 0..40 {
            let mut image = image.clone();
            for _ in 0..=random() % 3 {
                let near = [0, 65536, 131_072, 196_608, 512, 1024, 1536, image.len() - 1024, image.len() - 512, 3 * MIB, 2 * MIB];
                let at = (near[random() % near.len()] + random() % 128) % image.len();
                image[at] = [random() as u8, 0, 0xff, image[at] ^ (1 << (random() % 8))][random() % 4];
            }
            take(&image);
        }
    }
    // One that names others.
    let text =
        b"# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n";
    refused(helper.import_bytes(import(DiskId::random(), DiskKind::Raw), text), Reason::NamesOtherFile);
    let (base, child) = (place.scratch("base.vmdk"), place.scratch("child.vmdk"));
    qemu_img(&["create", "-q", "-f", "vmdk", base.to_str().unwrap(), "1M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-b", base.to_str().unwrap(), "-F", "vmdk", child.to_str().unwrap()]);
    let refusal = helper.import_bytes(import(DiskId::random(), DiskKind::Raw), &std::fs::read(child).unwrap());
    refused(refusal, Reason::NamesOtherFile);
    assert_eq!(place.files(), Vec::<String>::new());
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn packed_images_are_unpacked_and_summed_up_as_they_came() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let bytes = holey();
    for (packing, program) in [(Packing::Gzip, "gzip"), (Packing::Xz, "xz"), (Packing::Zstd, "zstd"), (Packing::Bzip2, "bzip2")] {
        let Some(image) = packed(program, &bytes) else {
            skip("packed_images_are_unpacked_and_summed_up_as_they_came", &format!("{program} is not installed"));
            continue;
        };
        let sum: [u8; 32] = Sha256::digest(&image).into();
        for named in [Packing::Detect, packing] {
            let disk = DiskId::random();
            let call =
                ImportDisk { packing: named, expect: image.len() as u64, sha256: Some(sum), ..import(disk, DiskKind::Raw) };
            let done = helper.import_bytes(call, &image).unwrap();
            assert!(done.sha256 == Some(sum) && contents(&place, disk) == bytes, "{program}");
            assert!(done.disk.allocated < 4 * MIB as u64, "holes were written: {done:?}");
        }
        // Several parts are one stream; a format is found within, and kept or converted.
        let twice = DiskId::random();
        helper.import_bytes(import(twice, DiskKind::Raw), &[&image[..], &image].concat()).unwrap();
        assert!(contents(&place, twice) == [&bytes[..], &bytes].concat(), "{program}: two parts");
        let inner = packed(program, &qcow2()).unwrap();
        for kind in [DiskKind::Raw, DiskKind::Qcow2] {
            let done = helper.import_bytes(import(DiskId::random(), kind), &inner).unwrap();
            assert_eq!(done.disk.size, MIB as u64, "{program}: {kind:?}");
        }
        // As it is, if that is asked for.
        for call in [
            ImportDisk { packing: Packing::None, ..import(DiskId::random(), DiskKind::Raw) },
            ImportDisk { format: SourceFormat::Raw, ..import(DiskId::random(), DiskKind::Raw) },
        ] {
            let disk = call.disk;
            helper.import_bytes(call, &image).unwrap();
            assert!(contents(&place, disk).starts_with(&image), "{program}");
        }
        // Wrong ones are refused, and leave nothing.
        let files = place.files();
        let other = if packing == Packing::Xz { Packing::Gzip } else { Packing::Xz };
        let call = |packing| ImportDisk { packing, ..import(DiskId::random(), DiskKind::Raw) };
        assert_eq!(refused(helper.import_bytes(call(other), &image), Reason::BadImage).field.as_str(), "packing");
        for length in [program.len(), 20, 100, image.len() / 2, image.len() - 5, image.len() - 1] {
            let refusal = refused(helper.import_bytes(call(packing), &image[..length]), Reason::BadImage);
            assert_eq!(refusal.field.as_str(), "packing", "{program} cut off at {length}: {refusal}");
        }
        for at in [12, 200, image.len() / 2, image.len() - 3] {
            let mut damaged = image.clone();
            damaged[at] ^= 0x10;
            refused(helper.import_bytes(call(packing), &damaged), Reason::BadImage);
        }
        refused(helper.import_bytes(call(packing), &[&image[..], b"what does not belong to it"].concat()), Reason::BadImage);
        refused(helper.import_bytes(call(packing), &packed(program, b"").unwrap()), Reason::BadImage);
        assert_eq!(place.files(), files, "{program}");
    }
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn what_unpacks_to_more_than_may_be_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let mut helper = place.start();
    // More zeros than may be, and some noise: none of it takes long to pack, emulated either.
    let zeros = vec![0; 16 * MIB];
    for program in ["gzip", "xz", "zstd", "bzip2"] {
        let Some(part) = packed(program, &zeros) else { continue };
        let bomb = part.repeat(4);
        let call = ImportDisk { most: 50 * MIB as u64, ..import(DiskId::random(), DiskKind::Raw) };
        let refusal = refused(helper.import_bytes(call, &bomb), Reason::TooLarge);
        assert_eq!(refusal.field.as_str(), "most", "{program}: {refusal}");
        let noisy = packed(program, &[noise(3 * MIB), zeros.clone()].concat()).unwrap();
        let call = ImportDisk { limit: noisy.len() as u64 - 1, ..import(DiskId::random(), DiskKind::Raw) };
        assert_eq!(refused(helper.import_bytes(call, &noisy), Reason::TooLarge).field.as_str(), "limit");
        // A converted one is put aside, and that is bounded, too.
        let mut image = qcow2();
        image.resize(32 * MIB, 0);
        let call = ImportDisk { limit: 10 * MIB as u64, ..import(DiskId::random(), DiskKind::Raw) };
        let refusal = refused(helper.import_bytes(call, &packed(program, &image).unwrap()), Reason::TooLarge);
        assert_eq!(refusal.field.as_str(), "limit", "{program}: {refusal}");
    }
    // More memory than a stream may need to be unpacked: a dictionary of 1.5 GiB, a window of 2 GiB.
    let run = |program: &str, args: &[&str]| {
        let mut child = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        drop(child.stdin.take()?.write_all(b"little"));
        Some(child.wait_with_output().ok()?.stdout).filter(|bytes| !bytes.is_empty())
    };
    for (program, args) in [("xz", &["-c", "--lzma2=preset=0,dict=768MiB"][..]), ("zstd", &["-c", "--ultra", "--long=31", "-22"])]
    {
        let Some(greedy) = run(program, args) else { continue };
        let result = helper.import_bytes(import(DiskId::random(), DiskKind::Raw), &greedy);
        assert_eq!(refused(result, Reason::BadImage).field.as_str(), "packing", "{program}");
    }
    assert_eq!(place.files(), Vec::<String>::new());
}
