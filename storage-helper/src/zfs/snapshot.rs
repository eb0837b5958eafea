//! Snapshots of volumes, and copies, which share blocks through one.

use super::command::{Command, Request};
use super::list::{List, Value};
use super::names::Mark;
use super::volumes::{Stage, Volume, Volumes, failed, local, number};
use nix::errno::Errno;
use skep_proto::storage::SnapshotState;
use skep_proto::{DiskId, Reason, Refusal, SnapshotId};

/// User properties of a snapshot; on itself, since it has those of its volume, too.
const INSTANCE: &str = "skep:instance";
const SNAPSHOT: &str = "skep:snapshot";
/// Most snapshots of one volume that are gone through.
const MOST: usize = 100_000;

/// A snapshot of a volume, whosoever it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its whole name.
    pub name: String,
    /// What it is, if it is this suite's.
    pub own: Option<Mark>,
    /// It was deleted, and goes with the last copy of it.
    pub going: bool,
    /// The transaction that made it: their order.
    pub transaction: u64,
    size: u64,
    used: u64,
    seconds: u64,
}

impl Found {
    fn state(&self, snapshot: SnapshotId) -> SnapshotState {
        let created_ns = i64::try_from(self.seconds).unwrap_or(0).saturating_mul(1_000_000_000);
        SnapshotState { snapshot, size: self.size, used: self.used, order: self.transaction, created_ns }
    }
}

fn object(snapshot: SnapshotId, disk: DiskId) -> String {
    format!("snapshot {snapshot} of disk {disk}")
}

impl Volumes {
    /// All snapshots of a volume, oldest first.
    pub(super) fn all_snapshots(&self, disk: DiskId) -> Result<Vec<Found>, Refusal> {
        let (volume, what) = (self.root.volume(disk), format!("snapshots of disk {disk}"));
        let (mut list, mut cookie) = (Vec::new(), 0);
        for _ in 0..MOST {
            let mut command = Command::about(&volume).from(cookie);
            let properties = match self.ask_plainly(Request::NextSnapshot, &mut command) {
                Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => {
                    list.sort_by_key(|found: &Found| found.transaction);
                    return Ok(list);
                }
                other => other.map_err(failed(&what, "list"))?,
            };
            cookie = command.cookie();
            let Some(name) = command.name().map(str::to_owned) else { continue };
            let mark: Option<Mark> = name.split_once('@').and_then(|(_, mark)| mark.parse().ok());
            let own = mark.filter(|mark| {
                local(&properties, INSTANCE, &name) == Some(self.instance.to_string().as_str())
                    && local(&properties, SNAPSHOT, &name) == Some(mark.to_string().as_str())
            });
            let get = |name| number(&properties, name).unwrap_or(0);
            let (transaction, size) = (get("createtxg"), get("volsize"));
            let going = get("defer_destroy") != 0;
            list.push(Found { own, going, transaction, size, used: get("used"), seconds: get("creation"), name });
        }
        Err(Refusal::new(Reason::LimitReached, what).note(format_args!("there are {MOST} or more")))
    }

    /// Those that were asked for, in the order of their ids.
    pub fn snapshots(&self, disk: DiskId) -> Result<Vec<SnapshotState>, Refusal> {
        self.find(disk)?;
        let all = self.all_snapshots(disk)?;
        let mut list: Vec<_> = all
            .iter()
            .filter_map(|found| match found.own {
                Some(Mark::Asked(snapshot)) if !found.going => Some(found.state(snapshot)),
                _ => None,
            })
            .collect();
        list.sort_unstable_by_key(|state| state.snapshot);
        Ok(list)
    }

    fn take(&self, disk: DiskId, mark: Mark) -> std::io::Result<()> {
        let name = format!("{}@{mark}", self.root.volume(disk));
        let properties =
            List::default().with(INSTANCE, Value::Text(self.instance.to_string())).with(SNAPSHOT, Value::Text(mark.to_string()));
        let list = List::default()
            .with("snaps", Value::List(List::default().with(name, Value::Flag)))
            .with("props", Value::List(properties));
        self.ask(Request::Snapshot, &mut Command::about(self.root.pool()), &list).map(drop)
    }

    /// Makes a snapshot. Making one that is there succeeds.
    pub fn snapshot(&self, disk: DiskId, snapshot: SnapshotId) -> Result<SnapshotState, Refusal> {
        self.find(disk)?;
        let object = object(snapshot, disk);
        match self.take(disk, Mark::Asked(snapshot)) {
            Err(e) if e.raw_os_error() != Some(Errno::EEXIST as i32) => return Err(failed(&object, "create")(e)),
            _ => {}
        }
        self.find_snapshot(disk, snapshot)?.ok_or_else(|| {
            let note = "a snapshot of that name is there, without the mark of this suite";
            Refusal::new(Reason::AlreadyExists, object).note(note)
        })
    }

    fn find_snapshot(&self, disk: DiskId, snapshot: SnapshotId) -> Result<Option<SnapshotState>, Refusal> {
        let all = self.all_snapshots(disk)?;
        let found = all.iter().find(|found| found.own == Some(Mark::Asked(snapshot)) && !found.going);
        Ok(found.map(|found| found.state(snapshot)))
    }

    /// Brings a volume back to its newest snapshot, its size included. Nobody may have it open: see to that first.
    pub fn roll_back(&self, disk: DiskId, snapshot: SnapshotId) -> Result<Volume, Refusal> {
        self.find(disk)?;
        let object = object(snapshot, disk);
        let all = self.all_snapshots(disk)?;
        let at = all.iter().position(|found| found.own == Some(Mark::Asked(snapshot)) && !found.going);
        let at = at.ok_or_else(|| Refusal::new(Reason::NotFound, &object))?;
        if let Some(later) = all.get(at + 1) {
            let copied = |copy| format!("disk {copy} was copied later and shares blocks with it; delete that disk first");
            let which = match later.own {
                Some(Mark::Asked(_)) if later.going => match self.copy_of(later)? {
                    Some(copy) => copied(copy),
                    None => format!("something outside of skep depends on {}", later.name),
                },
                Some(Mark::Asked(later)) => format!("snapshot {later} is newer; delete it first"),
                Some(Mark::Clone(copy)) => copied(copy),
                None => format!("{} is newer, and not skep's", later.name),
            };
            return Err(Refusal::new(Reason::InUse, object).note(which));
        }
        let volume = self.root.volume(disk);
        let target = List::default().with("target", Value::Text(format!("{volume}@{snapshot}")));
        self.ask(Request::RollBack, &mut Command::about(&volume), &target).map_err(failed(&object, "roll back"))?;
        self.find(disk)
    }

    /// A disk that is a copy of a snapshot.
    fn copy_of(&self, snapshot: &Found) -> Result<Option<DiskId>, Refusal> {
        let of = self.children()?.into_iter().find(|child| child.origin.as_deref() == Some(&snapshot.name));
        Ok(of.and_then(|child| child.own).map(|volume| volume.disk))
    }

    /// Deletes a snapshot; its blocks go with the last copy of it. One that is not there is deleted.
    pub fn delete_snapshot(&self, disk: DiskId, snapshot: SnapshotId) -> Result<(), Refusal> {
        if self.look(disk)?.is_none() || self.find_snapshot(disk, snapshot)?.is_none() {
            return Ok(());
        }
        let name = format!("{}@{snapshot}", self.root.volume(disk));
        self.destroy_snapshots([name]).map_err(failed(&object(snapshot, disk), "delete"))
    }

    /// Destroys snapshots. Those that clones depend on go with the last clone.
    pub(super) fn destroy_snapshots(&self, names: impl IntoIterator<Item = String>) -> std::io::Result<()> {
        let names = names.into_iter().fold(List::default(), |list, name| list.with(name, Value::Flag));
        let list = List::default().with("snaps", Value::List(names)).with("defer", Value::Flag);
        self.ask(Request::DestroySnapshots, &mut Command::about(self.root.pool()), &list).map(drop)
    }

    /// Copies a volume that nobody writes to, or a snapshot of it: blocks are shared until they are written.
    pub fn copy(&self, from: DiskId, snapshot: Option<SnapshotId>, to: DiskId) -> Result<Volume, Refusal> {
        self.find(from)?;
        let object = crate::ops::disk::object(to);
        let mark = match snapshot {
            Some(snapshot) => {
                let there = self.find_snapshot(from, snapshot)?;
                there.ok_or_else(|| Refusal::new(Reason::NotFound, self::object(snapshot, from)))?;
                Mark::Asked(snapshot)
            }
            None => {
                let mark = Mark::Clone(to);
                match self.take(from, mark) {
                    // Left by an earlier try that was cut off.
                    Err(e) if e.raw_os_error() != Some(Errno::EEXIST as i32) => {
                        return Err(failed(&object, "take a snapshot")(e));
                    }
                    _ => mark,
                }
            }
        };
        let origin = format!("{}@{mark}", self.root.volume(from));
        let list =
            List::default().with("origin", Value::Text(origin.clone())).with("props", Value::List(self.marks(to, Stage::Making)));
        let cloned = self.ask(Request::Clone, &mut Command::about(&self.root.volume(to)), &list).map(drop);
        // One of its own goes now, or with the copy.
        let bound = if snapshot.is_none() { self.destroy_snapshots([origin]) } else { Ok(()) };
        cloned.and(bound).map_err(failed(&object, "copy"))?;
        self.finish(to, None)
    }
}
