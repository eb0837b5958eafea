//! Imports and clones, whole, cancelled, killed and starved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use sha2::{Digest, Sha256};
use skep_proto::storage::*;
use skep_proto::{DiskId, Reason};
use skep_sys::sock;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
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

#[test]
fn import_keeps_or_unpacks_what_the_stream_holds() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let bytes = holey();
    let sum: [u8; 32] = Sha256::digest(&bytes).into();

    let raw = DiskId::random();
    let call = ImportDisk { expect: bytes.len() as u64, sha256: Some(sum), ..import(raw, DiskKind::Raw) };
    let done = helper.import_bytes(call, &bytes).unwrap();
    assert_eq!((done.disk.disk, done.disk.size, done.sha256), (raw, bytes.len() as u64, Some(sum)));
    assert!(done.disk.allocated < 4 * MIB as u64, "holes were written: {done:?}");
    assert!(contents(&place, raw) == bytes);

    let odd = DiskId::random();
    let done = helper.import_bytes(import(odd, DiskKind::Raw), b"a kernel of odd length").unwrap();
    assert_eq!(done.disk.size, 512);
    assert!(contents(&place, odd).starts_with(b"a kernel of odd length\0"));
    assert_eq!(helper.descriptors(), before);

    if !has_qemu_img("import_keeps_or_unpacks_what_the_stream_holds") {
        return;
    }
    let (source, plain) = (place.scratch("source.raw"), place.scratch("plain.qcow2"));
    std::fs::write(&source, &bytes).unwrap();
    let (source, plain) = (source.to_str().unwrap(), plain.to_str().unwrap());
    for options in
        [&["-o", "cluster_size=512"][..], &["-c"], &["-o", "compat=0.10"], &["-o", "cluster_size=2M"], &["-o", "refcount_bits=1"]]
    {
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &[source, plain]].concat());
        let image = std::fs::read(plain).unwrap();
        let unpacked = DiskId::random();
        let call = ImportDisk { expect: image.len() as u64, ..import(unpacked, DiskKind::Raw) };
        let done = helper.import_bytes(call, &image).unwrap();
        assert_eq!(done.disk.size, bytes.len() as u64);
        assert!(done.disk.allocated < 4 * MIB as u64, "{done:?}");
        assert!(contents(&place, unpacked) == bytes, "{options:?}");
        let kept = DiskId::random();
        let done = helper.import_bytes(import(kept, DiskKind::Qcow2), &image).unwrap();
        assert_eq!(done.disk.size, bytes.len() as u64);
        let path = place.state().join(format!("disks/{kept}.qcow2"));
        assert!(std::fs::read(&path).unwrap() == image);
        // It grows, and QEMU finds nothing wrong; the tables of the one with tiny clusters have no room.
        let grown = helper.ask(ResizeDisk { disk: kept, kind: DiskKind::Qcow2, size: 1 << 30, shrink: false });
        match options[..] {
            ["-o", "cluster_size=512"] => drop(refused(grown, Reason::TooLarge)),
            _ => assert_eq!(grown.unwrap().size, 1 << 30),
        }
        qemu_img(&["check", path.to_str().unwrap()]);
        let as_is = DiskId::random();
        helper.import_bytes(ImportDisk { format: SourceFormat::Raw, ..import(as_is, DiskKind::Raw) }, &image).unwrap();
        assert!(contents(&place, as_is).starts_with(&image));
    }
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn import_reads_files_and_sockets_too() {
    let place = Place::new();
    let mut helper = place.start();
    let bytes = holey();
    let path = place.scratch("source");
    std::fs::write(&path, whole(&bytes)).unwrap();
    let from_file = DiskId::random();
    let channel = helper.import(import(from_file, DiskKind::Raw), File::open(&path).unwrap().into()).unwrap();
    finish(&channel).1.unwrap();
    assert!(contents(&place, from_file) == bytes);

    let (theirs, ours) = sock::stream_pair().unwrap();
    skep_sys::fd::set_nonblocking(std::os::fd::AsFd::as_fd(&theirs), true).unwrap();
    let from_socket = DiskId::random();
    let channel = helper.import(import(from_socket, DiskKind::Raw), theirs).unwrap();
    let mut ours = std::os::unix::net::UnixStream::from(ours);
    ours.write_all(&whole(&bytes)).unwrap();
    drop(ours);
    finish(&channel).1.unwrap();
    assert!(contents(&place, from_socket) == bytes);
}

#[test]
fn import_tells_progress() {
    let place = Place::new();
    let mut helper = place.start();
    let bytes = noise(40 * MIB);
    let (stream, feed) = pipe();
    let call = ImportDisk { expect: bytes.len() as u64, ..import(DiskId::random(), DiskKind::Raw) };
    let channel = helper.import(call, stream).unwrap();
    let feeder = std::thread::spawn(move || File::from(feed).write_all(&whole(&bytes)).unwrap());
    let (progress, result) = finish(&channel);
    feeder.join().unwrap();
    result.unwrap();
    assert_eq!(progress, [(16 * MIB as u64, 40 * MIB as u64), (32 * MIB as u64, 40 * MIB as u64)]);
    assert!(next(&channel).is_none());
}

#[test]
fn a_bad_stream_leaves_nothing() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let bytes = holey();
    let len = bytes.len() as u64;
    let raw = || import(DiskId::random(), DiskKind::Raw);
    refused(helper.import_bytes(raw(), b""), Reason::BadImage);
    // Whoever sent it died before its end: within a piece, between two, before the first.
    let wire = whole(&bytes);
    for cut in [0, 2, 5, MIB, wire.len() - 4, wire.len() - 1] {
        refused(helper.import_wire(raw(), wire[..cut].to_vec()), Reason::Cancelled);
        let exact = ImportDisk { expect: len, ..raw() };
        refused(helper.import_wire(exact, wire[..cut].to_vec()), Reason::Cancelled);
    }
    let refusal = refused(helper.import_bytes(ImportDisk { sha256: Some([7; 32]), ..raw() }, &bytes), Reason::ChecksumMismatch);
    assert!(refusal.object.as_str().starts_with("disk ") && refusal.note.as_str().contains("0707"), "{refusal}");
    refused(helper.import_bytes(ImportDisk { limit: len - 1, ..raw() }, &bytes), Reason::TooLarge);
    refused(helper.import_bytes(ImportDisk { expect: len + 1, ..raw() }, &bytes), Reason::BadImage);
    refused(helper.import_bytes(ImportDisk { limit: 10, expect: 11, ..raw() }, &bytes), Reason::TooLarge);
    refused(helper.import_bytes(ImportDisk { format: SourceFormat::Qcow2, ..raw() }, &bytes), Reason::BadImage);
    refused(helper.import_bytes(import(DiskId::random(), DiskKind::Qcow2), &bytes), Reason::BadImage);
    refused(helper.import_bytes(import(DiskId::random(), DiskKind::Zvol), &bytes), Reason::Unsupported);
    let there = helper.create(DiskKind::Raw, MIB as u64);
    refused(helper.import_bytes(import(there, DiskKind::Raw), &bytes), Reason::AlreadyExists);
    refused(helper.import_bytes(import(there, DiskKind::Qcow2), &bytes), Reason::AlreadyExists);
    // A directory is not a stream, a pipe is not a channel.
    refused(helper.import(raw(), File::open("/").unwrap().into()), Reason::InvalidValue);
    refused(helper.import(raw(), File::open("/dev/zero").unwrap().into()), Reason::InvalidValue);
    let (stream, feed) = pipe();
    refused(helper.call(raw(), [stream, feed]), Reason::InvalidValue);
    assert_eq!(place.files(), [format!("{there}.raw")]);
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn clone_copies_data_and_keeps_holes() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let (from, to) = (DiskId::random(), DiskId::random());
    let bytes = holey();
    helper.import_bytes(import(from, DiskKind::Raw), &bytes).unwrap();
    let done = helper.clone_disk(from, to, DiskKind::Raw).unwrap();
    assert_eq!((done.disk.disk, done.disk.size, done.sha256), (to, bytes.len() as u64, None));
    assert!(done.disk.allocated < 4 * MIB as u64, "{done:?}");
    assert!(contents(&place, to) == bytes);
    // The copy is on its own.
    let file = File::options().write(true).open(place.state().join(format!("disks/{to}.raw"))).unwrap();
    file.write_all_at(b"changed", 0).unwrap();
    assert!(contents(&place, from) == bytes);

    refused(helper.clone_disk(from, to, DiskKind::Raw), Reason::AlreadyExists);
    refused(helper.clone_disk(from, from, DiskKind::Raw), Reason::AlreadyExists);
    refused(helper.clone_disk(DiskId::random(), DiskId::random(), DiskKind::Raw), Reason::NotFound);
    let empty = helper.create(DiskKind::Raw, 1 << 30);
    let done = helper.clone_disk(empty, DiskId::random(), DiskKind::Raw).unwrap();
    // UFS keeps the last block of a file.
    assert!(done.disk.size == 1 << 30 && done.disk.allocated < MIB as u64, "{done:?}");
    let qcow2 = helper.create(DiskKind::Qcow2, 1 << 30);
    assert_eq!(helper.clone_disk(qcow2, DiskId::random(), DiskKind::Qcow2).unwrap().disk.size, 1 << 30);
    assert_eq!(helper.descriptors(), before);
}

/// Starts an import that waits for its stream; gives channel and feeding end.
fn waiting(helper: &mut Helper, disk: DiskId) -> (OwnedFd, OwnedFd) {
    let (stream, feed) = pipe();
    let channel = helper.import(import(disk, DiskKind::Raw), stream).unwrap();
    (channel, feed)
}

#[test]
fn closing_the_channel_cancels() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let disk = DiskId::random();
    let (channel, feed) = waiting(&mut helper, disk);
    assert_eq!(place.files(), [format!("{disk}.raw.part")]);
    refused(helper.ask(CreateDisk { disk, kind: DiskKind::Raw, size: 1 << 20 }), Reason::InUse);
    refused(helper.ask(DeleteDisk { disk, kind: DiskKind::Raw }), Reason::InUse);
    assert_eq!(helper.ask(ListDisks { after: None }).unwrap().disks, []);
    drop(channel);
    // The job is the only reader: its end shows as a broken pipe.
    wait_for_hangup(&feed);
    assert_eq!(helper.descriptors(), before);
    assert!(place.files().is_empty());
    assert!(helper.jobs().is_empty());
    helper.ask(CreateDisk { disk, kind: DiskKind::Raw, size: 1 << 20 }).unwrap();
}

fn wait_for_hangup(feed: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(std::os::fd::AsFd::as_fd(feed), PollFlags::empty())];
    poll(&mut set, PollTimeout::NONE).unwrap();
}

#[test]
fn a_client_that_speaks_on_the_channel_is_cancelled() {
    let place = Place::new();
    let mut helper = place.start();
    let (channel, _feed) = waiting(&mut helper, DiskId::random());
    skep_sys::msg::send(std::os::fd::AsFd::as_fd(&channel), b"?", &[], None).unwrap();
    assert!(next(&channel).is_none_or(|record| matches!(record, JobRecord::Done(Err(r)) if r.reason == Reason::Cancelled)));
    helper.ask(Space {}).unwrap();
    assert!(place.files().is_empty());
}

#[test]
fn a_killed_job_leaves_nothing() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let (channel, _feed) = waiting(&mut helper, DiskId::random());
    let [job] = helper.jobs()[..] else { panic!("{:?}", helper.jobs()) };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(job), nix::sys::signal::Signal::SIGKILL).unwrap();
    let refusal = refused(finish(&channel).1, Reason::Internal);
    assert!(refusal.object.as_str().starts_with("disk ") && refusal.note.as_str().contains("killed"), "{refusal}");
    assert_eq!(helper.descriptors(), before);
    assert!(place.files().is_empty() && helper.jobs().is_empty());
}

#[test]
fn jobs_die_with_the_helper_and_are_swept() {
    let place = Place::new();
    let mut helper = place.start();
    let (channel, _feed) = waiting(&mut helper, DiskId::random());
    helper.kill();
    assert!(next(&channel).is_none(), "the job lives on");
    assert_eq!(place.files().len(), 1);
    let mut helper = place.start();
    assert!(place.files().is_empty());
    helper.ask(Space {}).unwrap();
}

#[test]
fn jobs_run_side_by_side_up_to_a_limit() {
    let place = Place::new();
    let mut helper = place.start();
    let before = helper.descriptors();
    let mut running: Vec<_> = (0..8).map(|_| waiting(&mut helper, DiskId::random())).collect();
    let (stream, _feed) = pipe();
    refused(helper.import(import(DiskId::random(), DiskKind::Raw), stream), Reason::LimitReached);
    // In any order, and others are served meanwhile.
    running.reverse();
    for (channel, feed) in running {
        File::from(feed).write_all(&whole(&noise(MIB))).unwrap();
        assert_eq!(finish(&channel).1.unwrap().disk.size, MIB as u64);
        helper.ask(Space {}).unwrap();
    }
    assert_eq!(helper.descriptors(), before);
    assert_eq!(place.files().len(), 8);
}

/// A mounted file system, unmounted at the end.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.as_os_str()]);
    }
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    std::process::Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
}

fn mount(options: &str, what: &std::path::Path, place: &Place) -> Option<Mounted> {
    let disks = place.state().join("disks");
    let mut args: Vec<&std::ffi::OsStr> = options.split(' ').map(|o| o.as_ref()).collect();
    args.extend([what.as_os_str(), disks.as_os_str()]);
    run("mount", &args).then_some(Mounted(disks))
}

#[test]
fn a_full_disk_leaves_nothing() {
    let name = "a_full_disk_leaves_nothing";
    if !is_root() {
        return skip(name, "a small file system can be mounted by root only");
    }
    let place = Place::new();
    let disks = mount("-t tmpfs -o size=8m", "tmpfs".as_ref(), &place).expect("mount");
    let disks = &disks.0;
    let mut helper = place.start();
    let before = helper.descriptors();
    let refusal = refused(helper.import_bytes(import(DiskId::random(), DiskKind::Raw), &noise(10 * MIB)), Reason::NoSpace);
    assert_eq!(refusal.errno, nix::errno::Errno::ENOSPC as i32);
    assert!(std::fs::read_dir(disks).unwrap().next().is_none());
    let disk = DiskId::random();
    helper.import_bytes(import(disk, DiskKind::Raw), &noise(5 * MIB)).unwrap();
    refused(helper.clone_disk(disk, DiskId::random(), DiskKind::Raw), Reason::NoSpace);
    assert_eq!(std::fs::read_dir(disks).unwrap().count(), 1);
    let free = helper.ask(Space {}).unwrap().free as usize;
    helper.import_bytes(import(DiskId::random(), DiskKind::Raw), &noise(free)).unwrap();
    refused(helper.ask(CreateDisk { disk: DiskId::random(), kind: DiskKind::Qcow2, size: 64 << 40 }), Reason::NoSpace);
    assert_eq!(std::fs::read_dir(disks).unwrap().count(), 2);
    assert_eq!(std::fs::metadata(disks.join(format!("{disk}.raw"))).unwrap().size(), 5 * MIB as u64);
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn a_clone_shares_blocks_where_the_file_system_can() {
    let name = "a_clone_shares_blocks_where_the_file_system_can";
    if !is_root() {
        return skip(name, "a file system can be mounted by root only");
    }
    let place = Place::new();
    let image = place.scratch("xfs");
    File::create(&image).unwrap().set_len(512 << 20).unwrap();
    if !run("mkfs.xfs", &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), image.as_ref()]) {
        return skip(name, "mkfs.xfs (Debian: xfsprogs) is not installed");
    }
    let Some(disks) = mount("-o loop", &image, &place) else {
        return skip(name, "no XFS or no loop device here");
    };
    let mut helper = place.start();
    let space = helper.ask(Space {}).unwrap();
    assert_eq!((space.filesystem.as_str(), space.reflink), ("xfs", true));
    let (from, to) = (DiskId::random(), DiskId::random());
    let bytes = noise(32 * MIB);
    helper.import_bytes(import(from, DiskKind::Raw), &bytes).unwrap();
    let free = helper.ask(Space {}).unwrap().free;
    helper.clone_disk(from, to, DiskKind::Raw).unwrap();
    assert!(free - helper.ask(Space {}).unwrap().free < MIB as u64);
    assert!(std::fs::read(disks.0.join(format!("{to}.raw"))).unwrap() == bytes);
}

#[test]
fn a_job_holds_only_its_descriptors() {
    if !std::path::Path::new("/proc/self/fd").exists() {
        return skip("a_job_holds_only_its_descriptors", "there is no /proc");
    }
    let place = Place::new();
    let mut helper = place.start();
    let (channel, feed) = waiting(&mut helper, DiskId::random());
    // It reads on, so it has confined itself.
    let wire = whole(&noise(MIB));
    let (most, end) = wire.split_at(wire.len() - 4);
    File::from(feed.try_clone().unwrap()).write_all(most).unwrap();
    let [job] = helper.jobs()[..] else { panic!() };
    let mut fds: Vec<String> = std::fs::read_dir(format!("/proc/{job}/fd"))
        .unwrap()
        .map(|e| std::fs::read_link(e.unwrap().path()).unwrap().to_string_lossy().split(':').next().unwrap().to_owned())
        .collect();
    fds.retain(|name| name != "/dev/null");
    fds.sort();
    // Standard error and the stream; the file in the making and the nameless one; the channel and the result.
    let kind = |prefix: &str| fds.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!((kind("pipe"), kind("socket")), (2, 2), "{fds:?}");
    let paths: Vec<_> = fds.iter().filter(|name| name.starts_with('/')).filter(|n| n.contains(".part")).collect();
    assert_eq!(paths.len(), 2, "{fds:?}");
    let mut status = String::new();
    File::open(format!("/proc/{job}/status")).unwrap().read_to_string(&mut status).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("CapEff:")), ("2".into(), "1".into(), "0000000000000000".into()));
    assert_eq!(field("Seccomp_filters:"), "4");
    File::from(feed).write_all(end).unwrap();
    finish(&channel).1.unwrap();
}
