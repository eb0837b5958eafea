//! The order of requests, faults and lies, against a kernel that is made up. What the real one does is tested on FreeBSD.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use nix::errno::Errno;
use skep_proto::{DiskId, Reason, SnapshotId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

#[derive(Debug, Default, Clone)]
struct Node {
    properties: List,
    origin: Option<String>,
    transaction: u64,
    deferred: bool,
}

/// Datasets and snapshots by name.
#[derive(Debug, Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    transaction: u64,
    log: Vec<String>,
    /// This request fails, once.
    fault: Option<(Request, Errno)>,
    /// So many requests are done, then each fails.
    left: Option<usize>,
    /// All answers are these bytes.
    lie: Option<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<World>>);

fn property(value: Value, source: &str) -> Value {
    Value::List(List::default().with("value", value).with("source", Value::Text(source.into())))
}

fn err<T>(errno: Errno) -> io::Result<T> {
    Err(errno.into())
}

impl World {
    fn clones(&self, snapshot: &str) -> bool {
        self.nodes.values().any(|node| node.origin.as_deref() == Some(snapshot))
    }

    fn set(&mut self, name: &str, properties: &List) -> io::Result<()> {
        let node = self.nodes.get_mut(name).ok_or(Errno::ENOENT)?;
        let mut kept = List::default();
        for known in ["volsize", "skep:instance", "skep:id", "skep:stage", "skep:snapshot"] {
            let new = properties.get(known).map(|value| property(value.clone(), name));
            if let Some(value) = new.or_else(|| node.properties.get(known).cloned()) {
                kept = kept.with(known, value);
            }
        }
        node.properties = kept;
        Ok(())
    }

    fn add(&mut self, name: &str, origin: Option<String>) -> io::Result<()> {
        if self.nodes.contains_key(name) {
            return err(Errno::EEXIST);
        }
        self.transaction += 1;
        self.nodes.insert(name.into(), Node { origin, transaction: self.transaction, ..Node::default() });
        Ok(())
    }

    fn stats(&self, name: &str) -> io::Result<Vec<u8>> {
        let node = self.nodes.get(name).ok_or(Errno::ENOENT)?;
        let mut list = node.properties.clone();
        list = list.with("defer_destroy", property(Value::Number(node.deferred.into()), ""));
        list = list.with("createtxg", property(Value::Number(node.transaction), name));
        list = list.with("used", property(Value::Number(4096), name)).with("available", property(Value::Number(1 << 30), name));
        if let Some(origin) = &node.origin {
            list = list.with("origin", property(Value::Text(origin.clone()), ""));
        }
        Ok(list.pack().unwrap())
    }

    fn destroy(&mut self, name: &str) -> io::Result<()> {
        let Some(node) = self.nodes.get(name).cloned() else { return err(Errno::ENOENT) };
        if self.nodes.keys().any(|other| other.starts_with(&format!("{name}@"))) {
            return err(Errno::EEXIST);
        }
        self.nodes.remove(name);
        if let Some(origin) = node.origin
            && self.nodes.get(&origin).is_some_and(|origin| origin.deferred)
            && !self.clones(&origin)
        {
            self.nodes.remove(&origin);
        }
        Ok(())
    }

    /// The origin and all older snapshots go over.
    fn promote(&mut self, name: &str) -> io::Result<()> {
        let Some(origin) = self.nodes.get(name).and_then(|node| node.origin.clone()) else { return err(Errno::EINVAL) };
        let (from, _) = origin.split_once('@').unwrap();
        let newest = self.nodes[&origin].transaction;
        let moved: Vec<String> = self
            .nodes
            .iter()
            .filter(|(n, node)| n.starts_with(&format!("{from}@")) && node.transaction <= newest)
            .map(|(n, _)| n.clone())
            .collect();
        for old in moved {
            let new = old.replace(from, name);
            let node = self.nodes.remove(&old).unwrap();
            self.nodes.insert(new.clone(), node);
            for other in self.nodes.values_mut().filter(|node| node.origin.as_deref() == Some(&old)) {
                other.origin = Some(new.clone());
            }
        }
        let before = self.nodes.get_mut(from).unwrap().origin.replace(origin.replace(from, name));
        self.nodes.get_mut(name).unwrap().origin = before;
        Ok(())
    }

    fn answer(&mut self, request: Request, command: &mut Command, list: &List) -> io::Result<Vec<u8>> {
        let name = command.name().unwrap().to_owned();
        let snaps: Vec<String> = list.list("snaps").map(|snaps| snaps.names().map(str::to_owned).collect()).unwrap_or_default();
        self.log.push(format!("{request:?} {name} {}", snaps.join(" ")).trim().to_owned());
        if self.fault.is_some_and(|(which, _)| which == request) {
            return err(self.fault.take().unwrap().1);
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Errno::EIO)?;
        }
        if let Some(lie) = &self.lie {
            return Ok(lie.clone());
        }
        match request {
            Request::Stats => return self.stats(&name),
            Request::NextDataset | Request::NextSnapshot => {
                let start = if request == Request::NextDataset { format!("{name}/") } else { format!("{name}@") };
                let mut all = self.nodes.keys().filter(|n| {
                    n.strip_prefix(&start).is_some_and(|rest| !rest.contains(['/', '@']) || request == Request::NextSnapshot)
                });
                let Some(next) = all.nth(command.cookie() as usize).cloned() else { return err(Errno::ESRCH) };
                *command = Command::about(&next).from(command.cookie() + 1);
                return self.stats(&next);
            }
            Request::Create => {
                self.add(&name, None)?;
                self.set(&name, list.list("props").unwrap())?;
            }
            Request::Clone => {
                let origin = list.text("origin").unwrap();
                let Some(source) = self.nodes.get(origin).cloned() else { return err(Errno::ENOENT) };
                self.add(&name, Some(origin.into()))?;
                // A clone has the size of its origin, and none of its own properties.
                let size = source.properties.list("volsize").unwrap().number("value").unwrap();
                self.set(&name, &List::default().with("volsize", Value::Number(size)))?;
                self.set(&name, list.list("props").unwrap())?;
            }
            Request::SetProperties => self.set(&name, list)?,
            Request::Snapshot => {
                for snap in &snaps {
                    self.add(snap, None)?;
                    let volume = self.nodes[snap.split('@').next().unwrap()].properties.clone();
                    self.nodes.get_mut(snap).unwrap().properties = volume;
                    self.set(snap, list.list("props").unwrap())?;
                }
            }
            Request::DestroySnapshots => {
                for snap in &snaps {
                    if self.clones(snap) {
                        if list.get("defer").is_none() {
                            return err(Errno::EBUSY);
                        }
                        self.nodes.get_mut(snap).unwrap().deferred = true;
                    } else {
                        self.nodes.remove(snap);
                    }
                }
            }
            Request::Destroy => self.destroy(&name)?,
            Request::Promote => self.promote(&name)?,
            Request::RollBack | Request::Allow => {}
        }
        Ok(Vec::new())
    }
}

impl Kernel for Fake {
    fn request(&self, request: Request, command: &mut Command, source: &[u8]) -> io::Result<Vec<u8>> {
        let list = if source.is_empty() { List::default() } else { List::unpack(source).unwrap() };
        self.0.borrow_mut().answer(request, command, &list)
    }

    fn held(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn world() -> (Fake, Volumes) {
    let fake = Fake::default();
    fake.0.borrow_mut().add("p/skep", None).unwrap();
    let here = std::fs::File::open("/").unwrap();
    let volumes = Volumes::new(Box::new(fake.clone()), "p/skep".parse().unwrap(), "tsto".parse().unwrap(), here.into());
    (fake, volumes)
}

impl Fake {
    fn names(&self) -> Vec<String> {
        self.0.borrow().nodes.keys().filter(|name| *name != "p/skep").cloned().collect()
    }
}

fn disk(n: u128) -> DiskId {
    DiskId::from_u128(n)
}

#[test]
fn what_bears_no_mark_is_neither_listed_nor_touched() {
    let (fake, volumes) = world();
    volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
    {
        let mut world = fake.0.borrow_mut();
        let instance = |instance: &str, id: DiskId| {
            List::default()
                .with("volsize", Value::Number(1 << 20))
                .with("skep:instance", Value::Text(instance.into()))
                .with("skep:id", Value::Text(id.to_string()))
        };
        // Of another suite; a copy with the marks of another disk; a name that is none of ours; a file system.
        for (name, list) in [
            (format!("p/skep/{}", disk(2)), instance("othr", disk(2))),
            (format!("p/skep/{}", disk(3)), instance("tsto", disk(1))),
            ("p/skep/swap".into(), instance("tsto", disk(4))),
        ] {
            world.add(&name, None).unwrap();
            world.set(&name, &list).unwrap();
        }
        let plain = format!("p/skep/{}", disk(5));
        world.add(&plain, None).unwrap();
        // Marks that the dataset hands down.
        let inherited = format!("p/skep/{}", disk(6));
        world.add(&inherited, None).unwrap();
        let handed = |value: &str| property(Value::Text(value.into()), "p/skep");
        world.nodes.get_mut(&inherited).unwrap().properties = List::default()
            .with("volsize", property(Value::Number(1 << 20), &inherited))
            .with("skep:instance", handed("tsto"))
            .with("skep:id", handed(&disk(6).to_string()));
    }
    assert_eq!(volumes.list().unwrap().iter().map(|volume| volume.disk).collect::<Vec<_>>(), [disk(1)]);
    let before = fake.names();
    for foreign in [2, 3, 5, 6] {
        assert_eq!(volumes.look(disk(foreign)).unwrap_err().reason, Reason::AlreadyExists, "{foreign}");
        assert_eq!(volumes.destroy(disk(foreign)).unwrap_err().reason, Reason::AlreadyExists, "{foreign}");
    }
    assert_eq!(volumes.sweep().unwrap(), []);
    assert_eq!(fake.names(), before);
}

#[test]
fn a_copy_outlives_its_original_and_leaves_no_snapshot() {
    let (fake, volumes) = world();
    volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
    let asked = SnapshotId::from_u128(9);
    volumes.snapshot(disk(1), asked).unwrap();
    for copy in [2, 3, 4] {
        assert_eq!(volumes.copy(disk(1), None, disk(copy)).unwrap().size, 1 << 20);
    }
    volumes.copy(disk(3), None, disk(5)).unwrap();
    let later = volumes.roll_back(disk(1), asked).unwrap_err();
    assert_eq!(later.reason, Reason::InUse);
    assert!(later.to_string().contains(&disk(2).to_string()), "{later}");
    volumes.destroy(disk(1)).unwrap();
    let left = volumes.list().unwrap().iter().map(|volume| volume.disk).collect::<Vec<_>>();
    assert_eq!(left, [2, 3, 4, 5].map(disk));
    assert!(!fake.names().iter().any(|name| name.contains(&asked.to_string())), "{:?}", fake.names());
    for copy in [3, 2, 5, 4] {
        volumes.destroy(disk(copy)).unwrap();
    }
    assert_eq!(fake.names(), Vec::<String>::new());
    assert!(volumes.destroy(disk(4)).is_ok());
}

#[test]
fn a_copy_of_a_snapshot_outlives_both_and_leaves_nothing() {
    for first in [1, 2] {
        let (fake, volumes) = world();
        volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
        let [old, asked] = [8, 9].map(SnapshotId::from_u128);
        volumes.snapshot(disk(1), old).unwrap();
        volumes.snapshot(disk(1), asked).unwrap();
        assert_eq!(volumes.copy(disk(1), Some(asked), disk(2)).unwrap().size, 1 << 20);
        assert_eq!(volumes.copy(disk(1), Some(SnapshotId::from_u128(7)), disk(3)).unwrap_err().reason, Reason::NotFound);
        assert!(volumes.roll_back(disk(1), asked).is_ok());
        // Deleted, it is not there any more, though its blocks are.
        volumes.delete_snapshot(disk(1), asked).unwrap();
        volumes.delete_snapshot(disk(1), asked).unwrap();
        assert_eq!(volumes.snapshots(disk(1)).unwrap().iter().map(|state| state.snapshot).collect::<Vec<_>>(), [old]);
        assert_eq!(volumes.copy(disk(1), Some(asked), disk(3)).unwrap_err().reason, Reason::NotFound);
        let later = volumes.roll_back(disk(1), old).unwrap_err();
        assert!(later.reason == Reason::InUse && later.to_string().contains(&disk(2).to_string()), "{later}");
        for gone in [first, 3 - first] {
            volumes.destroy(disk(gone)).unwrap();
            assert!(volumes.look(disk(gone)).unwrap().is_none());
        }
        assert_eq!(fake.names(), Vec::<String>::new());
    }
}

#[test]
fn what_others_made_of_a_volume_keeps_it() {
    let (fake, volumes) = world();
    volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
    volumes.snapshot(disk(1), SnapshotId::from_u128(9)).unwrap();
    let by_hand = format!("p/skep/{}@daily", disk(1));
    fake.0.borrow_mut().add(&by_hand, None).unwrap();
    let refusal = volumes.destroy(disk(1)).unwrap_err();
    assert_eq!(refusal.reason, Reason::InUse);
    assert!(refusal.to_string().contains(&by_hand), "{refusal}");
    let refusal = volumes.roll_back(disk(1), SnapshotId::from_u128(9)).unwrap_err();
    assert!(refusal.to_string().contains("not skep's"), "{refusal}");
    assert_eq!(volumes.snapshots(disk(1)).unwrap().len(), 1);
    fake.0.borrow_mut().nodes.remove(&by_hand);
    // A clone by hand, of a snapshot of ours.
    volumes.copy(disk(1), None, disk(2)).unwrap();
    fake.0.borrow_mut().add("p/skep/mine", Some(format!("p/skep/{}@clone-{}", disk(1), disk(2)))).unwrap();
    volumes.destroy(disk(2)).unwrap();
    let refusal = volumes.destroy(disk(1)).unwrap_err();
    assert!(refusal.to_string().contains("p/skep/mine"), "{refusal}");
}

#[test]
fn a_copy_that_is_cut_off_anywhere_is_swept() {
    for fault in [Request::Snapshot, Request::Clone, Request::DestroySnapshots, Request::SetProperties] {
        let (fake, volumes) = world();
        volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
        let before = fake.names();
        fake.0.borrow_mut().fault = Some((fault, Errno::EIO));
        // Cut off: nothing is undone.
        let refusal = volumes.copy(disk(1), None, disk(2)).unwrap_err();
        assert_eq!(refusal.errno, Errno::EIO as i32, "{fault:?}");
        assert_eq!(volumes.list().unwrap().len(), 1, "{fault:?}");
        // It can be tried again,
        if matches!(fault, Request::Snapshot | Request::Clone) {
            volumes.copy(disk(1), None, disk(2)).unwrap();
            volumes.destroy(disk(2)).unwrap();
        }
        // and whatever is left goes.
        assert_eq!(volumes.sweep().unwrap(), [], "{fault:?}");
        assert_eq!(fake.names(), before, "{fault:?}");
    }
}

#[test]
fn a_deletion_that_is_cut_off_anywhere_is_finished_by_the_next() {
    for requests in 0.. {
        let (fake, volumes) = world();
        volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
        volumes.copy(disk(1), None, disk(2)).unwrap();
        volumes.snapshot(disk(1), SnapshotId::from_u128(9)).unwrap();
        volumes.copy(disk(1), None, disk(3)).unwrap();
        fake.0.borrow_mut().left = Some(requests);
        let cut_off = volumes.destroy(disk(1)).is_err();
        fake.0.borrow_mut().left = None;
        volumes.sweep().unwrap();
        volumes.destroy(disk(1)).unwrap();
        let left = volumes.list().unwrap().iter().map(|volume| volume.disk).collect::<Vec<_>>();
        assert_eq!(left, [2, 3].map(disk), "{requests}");
        for copy in [2, 3] {
            volumes.destroy(disk(copy)).unwrap();
        }
        assert_eq!(fake.names(), Vec::<String>::new(), "{requests}");
        if !cut_off {
            assert!(requests > 5);
            return;
        }
    }
}

#[test]
fn an_import_counts_when_it_is_finished() {
    let (fake, volumes) = world();
    volumes.create(disk(1), 64 << 40, Stage::Making).unwrap();
    assert_eq!(volumes.list().unwrap(), []);
    assert_eq!(volumes.find(disk(1)).unwrap_err().reason, Reason::NotFound);
    assert_eq!(volumes.snapshot(disk(1), SnapshotId::from_u128(1)).unwrap_err().reason, Reason::NotFound);
    let done = volumes.finish(disk(1), Some(513)).unwrap();
    assert_eq!((done.size, done.stage), (BLOCK, Stage::Ready));
    volumes.create(disk(2), 64 << 40, Stage::Making).unwrap();
    volumes.sweep().unwrap();
    assert_eq!(fake.names(), [format!("p/skep/{}", disk(1))]);
}

#[test]
fn faults_name_the_disk_and_lies_end_nothing() {
    let (fake, volumes) = world();
    volumes.create(disk(1), 1 << 20, Stage::Ready).unwrap();
    fake.0.borrow_mut().fault = Some((Request::Create, Errno::ENOSPC));
    let refusal = volumes.create(disk(2), 1 << 20, Stage::Ready).unwrap_err();
    assert_eq!((refusal.reason, refusal.object.as_str()), (Reason::NoSpace, format!("disk {}", disk(2)).as_str()));
    fake.0.borrow_mut().fault = Some((Request::Destroy, Errno::EBUSY));
    assert_eq!(volumes.destroy(disk(1)).unwrap_err().reason, Reason::InUse);
    let list = |properties: List| properties.pack().unwrap();
    for lie in [
        vec![0],
        vec![0xff; 64],
        list(List::default()),
        list(List::default().with("volsize", Value::Number(1))),
        list(List::default().with("volsize", Value::Text("x".into())).with("skep:id", Value::Number(1))),
    ] {
        fake.0.borrow_mut().lie = Some(lie);
        assert!(volumes.find(disk(1)).is_err());
        assert!(volumes.snapshot(disk(1), SnapshotId::from_u128(1)).is_err());
        // One that never ends: the same answer for ever.
        let _ = volumes.list();
        let _ = volumes.space();
    }
}
