//! ZFS volumes on the real kernel, through the program in capability mode, in a pool of the test's own.
#![cfg(target_os = "freebsd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use nix::errno::Errno;
use sha2::{Digest, Sha256};
use skep_proto::storage::*;
use skep_proto::{DiskId, Reason, SnapshotId};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use support::*;

const MIB: u64 = 1 << 20;
const KIND: DiskKind = DiskKind::Zvol;

/// The broker's part is played by a change of uid, which all threads share.
static ONE: Mutex<()> = Mutex::new(());

/// A pool in a file, with a dataset for the suite and a volume that is none of its.
struct Pool {
    name: String,
    place: Place,
    _one: MutexGuard<'static, ()>,
}

fn try_run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn run(program: &str, args: &[&str]) -> String {
    try_run(program, args).unwrap_or_else(|e| panic!("{program} {args:?}: {e}"))
}

impl Pool {
    /// Says that the test `test` is skipped if this host has no ZFS.
    fn new(test: &str) -> Option<Self> {
        if !is_root() {
            skip(test, "root is needed");
            return None;
        }
        let _ = try_run("kldload", &["-n", "zfs"]);
        if let Err(e) = File::open("/dev/zfs") {
            skip(test, &format!("this host has no ZFS (/dev/zfs: {e})"));
            return None;
        }
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = Place::new();
        let vdev = place.scratch("vdev");
        File::create(&vdev).unwrap().set_len(256 * MIB).unwrap();
        let name = format!("skt{}", std::process::id());
        run("zpool", &["create", "-f", "-o", "cachefile=none", "-O", "mountpoint=none", &name, vdev.to_str().unwrap()]);
        let pool = Self { name, place, _one: one };
        run("zfs", &["create", &pool.dataset()]);
        run("zfs", &["create", "-s", "-V", "8M", &format!("{}/other", pool.name)]);
        Some(pool)
    }

    /// Of the ruleset of what shows the helper its volumes.
    fn mark(&self) -> skep_sys::freebsd::devfs::Mark {
        skep_sys::freebsd::devfs::Mark::new(instance(), "volumes")
    }

    fn dataset(&self) -> String {
        format!("{}/skep", self.name)
    }

    fn start(&self) -> Helper {
        self.place.start_with(&["--zfs-dataset", &self.dataset()]).unwrap()
    }

    fn volume(&self, disk: DiskId) -> String {
        format!("{}/{disk}", self.dataset())
    }

    /// Where the host sees a volume.
    fn device(&self, disk: DiskId) -> PathBuf {
        PathBuf::from(format!("/dev/zvol/{}", self.volume(disk)))
    }

    fn contents(&self, disk: DiskId, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.next_multiple_of(512)];
        File::open(self.device(disk)).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes.truncate(len);
        bytes
    }

    /// Everything below the suite's dataset, as zfs(8) sees it.
    fn names(&self) -> Vec<String> {
        let list = run("zfs", &["list", "-H", "-o", "name", "-t", "all", "-r", &self.dataset()]);
        list.lines().filter(|name| *name != self.dataset()).map(str::to_owned).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = skep_sys::freebsd::devfs::hide(&self.place.run().join("volumes"), &self.mark());
        // The end of what holds it is not waited for otherwise.
        for _ in 0..100 {
            if try_run("zpool", &["destroy", "-f", &self.name]).is_ok() {
                break;
            }
            let _ = nix::poll::poll(&mut [], 100u8);
        }
    }
}

#[test]
fn volumes_are_made_once_and_listed() {
    let Some(pool) = Pool::new("volumes_are_made_once_and_listed") else { return };
    let mut helper = pool.start();
    // Not root, and allowed by root to do all of this.
    assert_eq!(
        run("ps", &["-o", "ruid=", "-o", "uid=", "-o", "svuid=", "-p", &helper.pid().to_string()])
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["61803"; 3]
    );
    let disk = helper.create(KIND, 8 * MIB);
    let again = CreateDisk { disk, kind: KIND, size: 8 * MIB };
    assert_eq!(helper.ask(again.clone()).unwrap().size, 8 * MIB);
    refused(helper.ask(CreateDisk { size: 9 * MIB, ..again.clone() }), Reason::AlreadyExists);
    refused(helper.ask(CreateDisk { kind: DiskKind::Raw, ..again.clone() }), Reason::AlreadyExists);
    let raw = helper.create(DiskKind::Raw, MIB);
    refused(helper.ask(CreateDisk { disk: raw, kind: KIND, size: MIB }), Reason::AlreadyExists);
    // Whole blocks.
    let odd = DiskId::random();
    let call = CreateDisk { disk: odd, kind: KIND, size: MIB + 512 };
    assert_eq!(helper.ask(call.clone()).unwrap().size, MIB + (16 << 10));
    helper.ask(call).unwrap();
    assert_eq!(helper.ask(ResizeDisk { disk: odd, kind: KIND, size: MIB + 512, shrink: false }).unwrap().size, MIB + (16 << 10));

    let marks = run(
        "zfs",
        &["get", "-H", "-o", "value,source", "skep:instance,skep:id,volmode,volsize,refreservation", &pool.volume(disk)],
    );
    let marks: Vec<_> = marks.lines().collect();
    assert_eq!(marks[..2], [format!("{}\tlocal", instance()), format!("{disk}\tlocal")]);
    assert!(marks[2].starts_with("dev\tinherited"), "{marks:?}");
    assert!(marks[4].starts_with("none"), "{marks:?}");

    let (state, [fd]) = helper.call(OpenDisk { disk, kind: KIND, read_only: false, no_cache: false, sync: false }, []).unwrap();
    assert!(state.disk.allocated < MIB && state.most == 0, "{state:?}");
    let device = File::from(fd);
    device.write_all_at(&noise(4 * MIB as usize), 0).unwrap();
    drop(device);
    run("zpool", &["sync", &pool.name]);
    let page = helper.ask(ListDisks { after: None }).unwrap();
    let listed = page.disks.iter().find(|state| state.disk == disk).unwrap();
    assert!(listed.allocated >= 4 * MIB && listed.kind == KIND, "{listed:?}");
    let ids: Vec<_> = page.disks.iter().map(|state| state.disk).collect();
    let mut sorted = [disk, raw, odd];
    sorted.sort();
    assert_eq!(ids, sorted);
    assert_eq!(helper.ask(ListDisks { after: Some(sorted[1]) }).unwrap().disks.len(), 1);
    let space = helper.ask(VolumeSpace {}).unwrap();
    assert_eq!(space.filesystem.as_str(), "zfs");
    assert!(space.free > 64 * MIB && space.free < 256 * MIB && space.total > space.free, "{space:?}");

    for disk in [disk, odd, disk] {
        helper.ask(DeleteDisk { disk, kind: KIND }).unwrap();
    }
    assert_eq!(pool.names(), Vec::<String>::new());
    refused(helper.call(OpenDisk { disk, kind: KIND, read_only: true, no_cache: false, sync: false }, []), Reason::NotFound);
}

#[test]
fn an_open_volume_is_locked_and_has_few_rights() {
    let Some(pool) = Pool::new("an_open_volume_is_locked_and_has_few_rights") else { return };
    let mut helper = pool.start();
    let disk = helper.create(KIND, 8 * MIB);
    let snapshot = SnapshotId::random();
    helper.ask(CreateSnapshot { disk, kind: KIND, snapshot }).unwrap();
    let before = helper.descriptors();
    let open = |read_only| OpenDisk { disk, kind: KIND, read_only, no_cache: false, sync: false };
    let (_, [fd]) = helper.call(open(false), []).unwrap();
    assert_eq!(helper.descriptors(), before);
    for read_only in [false, true] {
        refused(helper.call(open(read_only), []), Reason::InUse);
    }
    let grow = ResizeDisk { disk, kind: KIND, size: 16 * MIB, shrink: false };
    refused(helper.ask(grow.clone()), Reason::InUse);
    refused(helper.ask(DeleteDisk { disk, kind: KIND }), Reason::InUse);
    refused(helper.ask(RollBackDisk { disk, kind: KIND, snapshot }), Reason::InUse);
    refused(helper.clone_disk(disk, DiskId::random(), KIND), Reason::InUse);
    assert_eq!(pool.names().len(), 2);
    // What bhyve asks of a disk is allowed, what else a device can do is not.
    assert_eq!(size(&fd), 8 * MIB);
    // TIOCGETA; without the limit the device would say ENOTTY.
    assert_eq!(nix::sys::termios::tcgetattr(&fd).unwrap_err(), Errno::ENOTCAPABLE);
    let file = File::from(fd.try_clone().unwrap());
    assert_eq!(
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap_err().raw_os_error(),
        Some(Errno::ENOTCAPABLE as i32)
    );
    // The lock outlives the helper.
    helper.kill();
    let mut helper = pool.start();
    refused(helper.call(open(false), []), Reason::InUse);
    drop((fd, file));
    let (_, [one]) = helper.call(open(true), []).unwrap();
    let (_, [two]) = helper.call(open(true), []).unwrap();
    assert_eq!(File::from(one.try_clone().unwrap()).write_all_at(b"x", 0).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
    refused(helper.call(open(false), []), Reason::InUse);
    drop((one, two));
    assert_eq!(helper.ask(grow).unwrap().size, 16 * MIB);
    refused(helper.ask(ResizeDisk { disk, kind: KIND, size: 8 * MIB, shrink: false }), Reason::InvalidValue);
    helper.ask(DeleteDisk { disk, kind: KIND }).unwrap();
    assert_eq!(pool.names(), Vec::<String>::new());
}

/// Of an open device (lseek(2) asks it).
fn size(fd: &OwnedFd) -> u64 {
    File::from(fd.try_clone().unwrap()).seek(SeekFrom::End(0)).unwrap()
}

#[test]
fn images_become_volumes() {
    let Some(pool) = Pool::new("images_become_volumes") else { return };
    let mut helper = pool.start();
    let before = helper.descriptors();
    let mut bytes = vec![0; 6 * MIB as usize];
    bytes[..MIB as usize].copy_from_slice(&noise(MIB as usize));
    let end = bytes.len();
    bytes[end - 512..].copy_from_slice(&noise(512));
    let sum: [u8; 32] = Sha256::digest(&bytes).into();
    let known = DiskId::random();
    let call = ImportDisk { expect: bytes.len() as u64, sha256: Some(sum), ..import(known, KIND) };
    let done = helper.import_bytes(call, &bytes).unwrap();
    assert_eq!((done.disk.disk, done.disk.size, done.sha256), (known, 6 * MIB, Some(sum)));
    assert!(done.disk.allocated < 4 * MIB, "holes were written: {done:?}");
    assert!(pool.contents(known, bytes.len()) == bytes);
    // Of a length that nobody knew, and odd.
    let odd = DiskId::random();
    let short = &bytes[..MIB as usize - 77];
    let done = helper.import_bytes(ImportDisk { format: SourceFormat::Raw, ..import(odd, KIND) }, short).unwrap();
    assert_eq!(done.disk.size, MIB);
    assert!(pool.contents(odd, short.len()) == short);
    // QCOW2 is unpacked.
    let unpacked = DiskId::random();
    let done = helper.import_bytes(import(unpacked, KIND), &qcow2()).unwrap();
    assert_eq!(done.disk.size, MIB);
    let image = pool.contents(unpacked, MIB as usize);
    assert!(image[65536..131_072] == noise(65536) && image[..65536].iter().all(|byte| *byte == 0));
    let three = pool.names();
    assert_eq!(three.len(), 3);
    // What is wrong leaves nothing.
    let fresh = || import(DiskId::random(), KIND);
    refused(helper.import_bytes(ImportDisk { sha256: Some([1; 32]), ..fresh() }, &bytes), Reason::ChecksumMismatch);
    refused(helper.import_bytes(ImportDisk { limit: MIB, ..fresh() }, &bytes), Reason::TooLarge);
    refused(helper.import_bytes(fresh(), b""), Reason::BadImage);
    refused(helper.import_bytes(fresh(), &qcow2()[..70_000]), Reason::BadImage);
    refused(helper.import_bytes(import(known, KIND), &bytes), Reason::AlreadyExists);
    // More than there is.
    run("zfs", &["set", "quota=16M", &pool.dataset()]);
    refused(helper.import_bytes(fresh(), &noise(24 * MIB as usize)), Reason::NoSpace);
    assert_eq!(pool.names(), three);
    assert_eq!(helper.descriptors(), before);
}

#[test]
fn a_volume_is_rolled_back_to_its_newest_snapshot() {
    let Some(pool) = Pool::new("a_volume_is_rolled_back_to_its_newest_snapshot") else { return };
    let mut helper = pool.start();
    let disk = helper.create(KIND, 4 * MIB);
    let write = |helper: &mut Helper, bytes: &[u8]| {
        let (_, [fd]) = helper.call(OpenDisk { disk, kind: KIND, read_only: false, no_cache: false, sync: false }, []).unwrap();
        let mut sector = bytes.to_vec();
        sector.resize(512, 0);
        File::from(fd).write_all_at(&sector, 0).unwrap();
    };
    let (first, second) = (SnapshotId::random(), SnapshotId::random());
    let create = |snapshot| CreateSnapshot { disk, kind: KIND, snapshot };
    let back = |snapshot| RollBackDisk { disk, kind: KIND, snapshot };
    let delete = |snapshot| DeleteSnapshot { disk, kind: KIND, snapshot };
    refused(helper.ask(back(first)), Reason::NotFound);
    write(&mut helper, b"first");
    let made = helper.ask(create(first)).unwrap();
    assert_eq!((made.snapshot, made.size), (first, 4 * MIB));
    assert!(made.created_ns > 1_600_000_000_000_000_000);
    assert_eq!(helper.ask(create(first)).unwrap().order, made.order);
    helper.ask(ResizeDisk { disk, kind: KIND, size: 8 * MIB, shrink: false }).unwrap();
    write(&mut helper, b"second");
    // Of an open volume, too.
    let (_, [open]) = helper.call(OpenDisk { disk, kind: KIND, read_only: false, no_cache: false, sync: false }, []).unwrap();
    let newer = helper.ask(create(second)).unwrap();
    drop(open);
    assert!(newer.order > made.order && newer.size == 8 * MIB, "{newer:?}");
    write(&mut helper, b"third");
    let list = helper.ask(ListSnapshots { disk, kind: KIND, after: None }).unwrap().snapshots;
    let mut ids = [first, second];
    ids.sort();
    assert_eq!(list.iter().map(|state| state.snapshot).collect::<Vec<_>>(), ids);
    assert_eq!(helper.ask(ListSnapshots { disk, kind: KIND, after: Some(ids[0]) }).unwrap().snapshots.len(), 1);

    let refusal = refused(helper.ask(back(first)), Reason::InUse);
    assert!(refusal.to_string().contains(&second.to_string()), "{refusal}");
    assert_eq!(helper.ask(back(second)).unwrap().size, 8 * MIB);
    assert!(pool.contents(disk, 6) == b"second");
    helper.ask(delete(second)).unwrap();
    helper.ask(delete(second)).unwrap();
    // The size goes back, too.
    assert_eq!(helper.ask(back(first)).unwrap().size, 4 * MIB);
    assert!(pool.contents(disk, 6) == b"first\0");
    let (state, [fd]) = helper.call(OpenDisk { disk, kind: KIND, read_only: true, no_cache: false, sync: false }, []).unwrap();
    assert_eq!((state.disk.size, size(&fd)), (4 * MIB, 4 * MIB));
    drop(fd);
    refused(helper.ask(CreateSnapshot { disk: DiskId::random(), kind: KIND, snapshot: first }), Reason::NotFound);
    helper.ask(DeleteDisk { disk, kind: KIND }).unwrap();
    assert_eq!(pool.names(), Vec::<String>::new());
}

#[test]
fn copies_of_volumes_share_blocks_and_outlive_their_original() {
    let Some(pool) = Pool::new("copies_of_volumes_share_blocks_and_outlive_their_original") else { return };
    let mut helper = pool.start();
    let original = DiskId::random();
    let bytes = noise(8 * MIB as usize);
    helper.import_bytes(import(original, KIND), &bytes).unwrap();
    helper.ask(CreateSnapshot { disk: original, kind: KIND, snapshot: SnapshotId::random() }).unwrap();
    let copies = [DiskId::random(), DiskId::random(), DiskId::random()];
    for copy in &copies[..2] {
        let done = helper.clone_disk(original, *copy, KIND).unwrap();
        assert_eq!(done.disk.size, 8 * MIB);
        assert!(done.disk.allocated < MIB, "{done:?}");
    }
    helper.clone_disk(copies[0], copies[2], KIND).unwrap();
    refused(helper.clone_disk(original, copies[0], KIND), Reason::AlreadyExists);
    refused(helper.clone_disk(DiskId::random(), DiskId::random(), KIND), Reason::NotFound);
    // One of the copies is at work meanwhile.
    let (_, [open]) =
        helper.call(OpenDisk { disk: copies[1], kind: KIND, read_only: false, no_cache: false, sync: false }, []).unwrap();
    helper.ask(DeleteDisk { disk: original, kind: KIND }).unwrap();
    File::from(open).write_all_at(&[7; 512], 0).unwrap();
    assert!(pool.contents(copies[0], bytes.len()) == bytes);
    assert!(pool.contents(copies[2], bytes.len()) == bytes);
    assert!(pool.contents(copies[1], 512) == [7; 512]);
    for copy in copies {
        helper.ask(DeleteDisk { disk: copy, kind: KIND }).unwrap();
    }
    assert_eq!(pool.names(), Vec::<String>::new());
}

#[test]
fn a_killed_helper_leaves_no_volume_behind() {
    let Some(pool) = Pool::new("a_killed_helper_leaves_no_volume_behind") else { return };
    let mut helper = pool.start();
    let kept = helper.create(KIND, MIB);
    for kill_child in [false, true] {
        let disk = DiskId::random();
        let (stream, feed) = pipe();
        let channel = helper.import(import(disk, KIND), stream).unwrap();
        let mut feed = File::from(feed);
        // It is at work, and its volume there, as large as any; nobody sees it yet.
        feed.write_all(&noise(MIB as usize)).unwrap();
        assert_eq!(pool.names().len(), 2);
        assert_eq!(helper.ask(ListDisks { after: None }).unwrap().disks.len(), 1);
        refused(helper.call(OpenDisk { disk, kind: KIND, read_only: false, no_cache: false, sync: false }, []), Reason::NotFound);
        refused(helper.ask(DeleteDisk { disk, kind: KIND }), Reason::InUse);
        refused(helper.ask(CreateDisk { disk, kind: KIND, size: MIB }), Reason::InUse);
        if kill_child {
            let [job] = helper.jobs()[..] else { panic!("one job") };
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(job), nix::sys::signal::Signal::SIGKILL).unwrap();
            refused(finish(&channel).1, Reason::Internal);
        } else {
            helper.kill();
            assert!(next(&channel).is_none());
            helper = pool.start();
        }
        assert_eq!(pool.names(), [pool.volume(kept)], "{kill_child}");
        drop(feed);
    }
    // Cancelled by the client.
    let (stream, feed) = pipe();
    drop(helper.import(import(DiskId::random(), KIND), stream).unwrap());
    helper.descriptors();
    while pool.names().len() > 1 {
        // Each question is answered after what came before it.
        helper.ask(Space {}).unwrap();
    }
    drop(feed);
    // A copy that was cut off: its snapshot alone, as it is between two requests.
    let cut = format!("{}@clone-{}", pool.volume(kept), DiskId::random());
    let mark = cut.rsplit_once('@').unwrap().1.to_owned();
    run("zfs", &["snapshot", "-o", &format!("skep:instance={}", instance()), "-o", &format!("skep:snapshot={mark}"), &cut]);
    helper.kill();
    let mut helper = pool.start();
    assert_eq!(pool.names(), [pool.volume(kept)]);
    helper.ask(DeleteDisk { disk: kept, kind: KIND }).unwrap();
}

#[test]
fn what_is_not_the_suites_is_out_of_reach() {
    let Some(pool) = Pool::new("what_is_not_the_suites_is_out_of_reach") else { return };
    for dataset in [
        &pool.name,
        "",
        "nopool/x",
        &format!("{}/absent", pool.name),
        &format!("{}/../x", pool.name),
        &format!("{}@x", pool.dataset()),
        &format!("{}/*", pool.name),
    ] {
        let said = pool.place.start_with(&["--zfs-dataset", dataset]).map(drop).unwrap_err();
        assert!(said.contains(dataset), "{dataset}: {said}");
    }
    let mut helper = pool.start();
    let disk = helper.create(KIND, MIB);
    let foreign = DiskId::random();
    run("zfs", &["create", "-s", "-V", "1M", &pool.volume(foreign)]);
    refused(helper.ask(CreateDisk { disk: foreign, kind: KIND, size: MIB }), Reason::AlreadyExists);
    refused(helper.ask(DeleteDisk { disk: foreign, kind: KIND }), Reason::AlreadyExists);
    refused(
        helper.call(OpenDisk { disk: foreign, kind: KIND, read_only: true, no_cache: false, sync: false }, []),
        Reason::AlreadyExists,
    );
    // Somebody's copy of ours, marks and all; marks of the dataset, handed down.
    let copy = DiskId::random();
    run("zfs", &["snapshot", &format!("{}@mine", pool.volume(disk))]);
    run("sh", &["-c", &format!("zfs send -p {}@mine | zfs receive {}", pool.volume(disk), pool.volume(copy))]);
    run("zfs", &["set", &format!("skep:instance={}", instance()), "skep:stage=ready", &pool.dataset()]);
    run("zfs", &["set", &format!("skep:id={foreign}"), &pool.dataset()]);
    let listed = helper.ask(ListDisks { after: None }).unwrap().disks;
    assert_eq!(listed.iter().map(|state| state.disk).collect::<Vec<_>>(), [disk]);
    // A snapshot by hand keeps the volume.
    let refusal = refused(helper.ask(DeleteDisk { disk, kind: KIND }), Reason::InUse);
    assert!(refusal.to_string().contains("@mine"), "{refusal}");
    helper.kill();
    let before = pool.names();
    let mut helper = pool.start();
    assert_eq!(pool.names(), before);
    run("zfs", &["destroy", &format!("{}@mine", pool.volume(disk))]);
    helper.ask(DeleteDisk { disk, kind: KIND }).unwrap();

    // The kernel refuses the helper's uid everything outside of the dataset, whatever a taken-over helper asks.
    let as_helper = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).uid(STORAGE).gid(STORAGE).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let other = format!("{}/other", pool.name);
    for args in [
        vec!["destroy", other.as_str()],
        vec!["snapshot", &format!("{other}@x")],
        vec!["set", "volsize=16M", other.as_str()],
        vec!["create", "-s", "-V", "1M", &format!("{}/new", pool.name)],
        vec!["set", "volmode=geom", pool.dataset().as_str()],
        vec!["set", "quota=1G", pool.dataset().as_str()],
        vec!["allow", "-u", "nobody", "destroy", pool.dataset().as_str()],
    ] {
        let (done, said) = as_helper("zfs", &args);
        assert!(!done, "{args:?}: {said}");
    }
    // And shows it no device but those below.
    let shown = run("find", &[pool.place.run().join("volumes").to_str().unwrap(), "!", "-type", "d"]);
    assert!(shown.lines().all(|path| path.contains(&format!("/volumes/zvol/{}/", pool.dataset()))), "{shown}");
    let (done, said) = as_helper("dd", &["if=/dev/zvol/".to_owned().as_str(), "of=/dev/null", "count=1"]);
    assert!(!done, "{said}");
    let (done, _) = as_helper("dd", &[&format!("if=/dev/zvol/{other}"), "of=/dev/null", "count=1"]);
    assert!(!done);
}
