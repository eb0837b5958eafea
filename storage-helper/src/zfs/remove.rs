//! Taking volumes away, and what earlier runs left.

use super::command::{Command, Request};
use super::list::{List, Value};
use super::names::Mark;
use super::volumes::{Child, Stage, Volumes, failed};
use nix::errno::Errno;
use nix::poll::poll;
use skep_proto::{DiskId, Reason, Refusal};
use std::io;

impl Volumes {
    /// Destroys a volume with its snapshots. One that is not there is destroyed; one that is held open is refused. Copies that share
    /// blocks with it live on: they take over what they share.
    pub fn destroy(&self, disk: DiskId) -> Result<(), Refusal> {
        if self.look(disk)?.is_none() {
            return Ok(());
        }
        let object = crate::ops::disk::object(disk);
        let name = self.root.volume(disk);
        let beneath = format!("{name}@");
        let in_use = |note: String| Refusal::new(Reason::InUse, &object).note(note);
        let snapshots = self.all_snapshots(disk)?;
        if let Some(foreign) = snapshots.iter().find(|found| found.own.is_none()) {
            return Err(in_use(format!("{} is not skep's; destroy it first", foreign.name)));
        }
        // At once those that nobody depends on: else they would go over to a copy with the one that it does depend on.
        if !snapshots.is_empty() {
            self.destroy_snapshots(snapshots.iter().map(|found| found.name.clone()))
                .map_err(failed(&object, "delete its snapshots"))?;
        }
        // Each round gives at least one snapshot away.
        for _ in 0..=snapshots.len() {
            let depends = |child: &Child| child.origin.as_deref().is_some_and(|origin| origin.starts_with(&beneath));
            let mut copies: Vec<_> = self.children()?.into_iter().filter(depends).collect();
            // The one of the newest snapshot takes all the others along.
            let age = |child: &Child| snapshots.iter().position(|found| Some(found.name.as_str()) == child.origin.as_deref());
            copies.sort_by_key(age);
            let Some(copy) = copies.pop() else { break };
            if copy.own.is_none() {
                return Err(in_use(format!("{} depends on it, and is not this suite's", copy.name)));
            }
            self.ask_plainly(Request::Promote, &mut Command::about(&copy.name))
                .map_err(failed(&object, "hand its blocks over"))?;
        }
        self.ask_plainly(Request::Destroy, &mut Command::about(&name)).map(drop).map_err(failed(&object, "delete"))
    }

    /// What an earlier run left half-made goes. What still cannot is said, and goes when the broker asks for it.
    pub fn sweep(&self) -> Result<Vec<Refusal>, Refusal> {
        let mut left = Vec::new();
        for child in self.children()? {
            let Some(volume) = child.own else { continue };
            if volume.stage == Stage::Making {
                left.extend(self.destroy_when_closed(volume.disk).err());
                continue;
            }
            let found = self.all_snapshots(volume.disk)?.into_iter();
            let bound: Vec<_> = found.filter(|found| matches!(found.own, Some(Mark::Clone(_)))).map(|found| found.name).collect();
            if !bound.is_empty() {
                let object = crate::ops::disk::object(volume.disk);
                left.extend(self.destroy_snapshots(bound).map_err(failed(&object, "sweep")).err());
            }
        }
        Ok(left)
    }

    /// The child of a killed helper is killed, too, but lives on for a moment, and nobody is left who could wait for it.
    fn destroy_when_closed(&self, disk: DiskId) -> Result<(), Refusal> {
        let mut rounds = 0u16..1_000;
        loop {
            match self.destroy(disk) {
                Err(refusal) if refusal.errno == Errno::EBUSY as i32 && rounds.next().is_some() => drop(poll(&mut [], 5u8)),
                other => return other,
            }
        }
    }
}

/// What the helper's own uid may do below the dataset, once root has said so (zfs-allow(8)). `mount` is asked for by every creation and
/// destruction, and mounts nothing: mounting is root's on FreeBSD.
const PERMISSIONS: [&str; 10] =
    ["create", "destroy", "mount", "snapshot", "clone", "promote", "rollback", "volsize", "volblocksize", "userprop"];
/// `ZFS_VOLMODE_DEV`: a device and no more. By default each volume is offered to GEOM, which would read partition tables and labels
/// that guests write.
const PLAIN_DEVICE: u64 = 2;

impl Volumes {
    /// As root, before anything else: lets a uid manage the volumes, and has them be plain devices.
    pub fn hand_over(&self, uid: u32) -> io::Result<()> {
        let root = self.root.as_str();
        let all = PERMISSIONS.iter().fold(List::default(), |list, name| list.with(*name, Value::Flag));
        // Of the dataset itself, and of what is below.
        let grant =
            List::default().with(format!("ul${uid}"), Value::List(all.clone())).with(format!("ud${uid}"), Value::List(all));
        self.ask(Request::Allow, &mut Command::about(root), &grant)?;
        let plain = List::default().with("volmode", Value::Number(PLAIN_DEVICE));
        self.ask(Request::SetProperties, &mut Command::about(root), &plain).map(drop)
    }
}
