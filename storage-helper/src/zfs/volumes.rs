//! Volumes as they lie below the dataset.

use super::command::{Command, Kernel, Request};
use super::list::{List, Value};
use super::names::Dataset;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::poll;
use nix::sys::stat::Mode;
use skep_proto::storage::{DiskKind, DiskState, SpaceState};
use skep_proto::{DiskId, InstanceId, Reason, Refusal, Text};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a volume's blocks: a volume is a whole number of them.
pub const BLOCK: u64 = 16 << 10;
/// `DMU_OST_ZVOL`
const VOLUME: i32 = 3;
/// Most datasets or snapshots that are gone through; whoever has more has them from elsewhere.
const MOST: usize = 100_000;

/// User properties. They count only where they are set on the thing itself: a dataset hands its own down.
const INSTANCE: &str = "skep:instance";
const ID: &str = "skep:id";
const STAGE: &str = "skep:stage";

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A job fills it. One that no job fills is swept.
    Making,
    /// It is whole.
    Ready,
}

impl Stage {
    const fn word(self) -> &'static str {
        match self {
            Stage::Making => "making",
            Stage::Ready => "ready",
        }
    }
}

/// A volume of this suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Which disk it is.
    pub disk: DiskId,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes that it and its snapshots occupy alone.
    pub used: u64,
    /// How far it is.
    pub stage: Stage,
}

impl Volume {
    /// As the broker sees it.
    pub fn state(&self) -> DiskState {
        DiskState { disk: self.disk, kind: DiskKind::Zvol, size: self.size, allocated: self.used }
    }
}

/// A child of the dataset, whosoever it is.
pub(super) struct Child {
    pub name: String,
    pub own: Option<Volume>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
}

/// The dataset and what is below it.
pub struct Volumes {
    pub(super) kernel: Box<dyn Kernel>,
    pub(super) root: Dataset,
    pub(super) instance: InstanceId,
    devices: OwnedFd,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volumes below {}", self.root)
    }
}

/// Names the object and the step of a request that failed.
pub(super) fn failed(object: &str, step: &str) -> impl FnOnce(io::Error) -> Refusal {
    move |e| match e.raw_os_error().map(Errno::from_raw) {
        Some(errno @ Errno::EBUSY) => {
            let note = format_args!("{step}: it is held open, or something outside of skep depends on it");
            Refusal::new(Reason::InUse, object).note(note).errno(errno as i32)
        }
        _ => Refusal::io(object, step, &e),
    }
}

/// A size as a volume can have it.
pub fn whole_blocks(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK).unwrap_or(size)
}

/// A user property that is set on `owner` itself.
pub(super) fn local<'a>(list: &'a List, name: &str, owner: &str) -> Option<&'a str> {
    let property = list.list(name)?;
    property.text("value").filter(|_| property.text("source") == Some(owner))
}

/// A native property that is a number.
pub(super) fn number(list: &List, name: &str) -> Option<u64> {
    list.list(name)?.number("value")
}

fn object(disk: DiskId) -> String {
    crate::ops::disk::object(disk)
}

impl Volumes {
    /// Volumes below `root`, whose device nodes are below `devices`, by their names.
    pub fn new(kernel: Box<dyn Kernel>, root: Dataset, instance: InstanceId, devices: OwnedFd) -> Self {
        Self { kernel, root, instance, devices }
    }

    /// What each descriptor is, by its line in the table of rights.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("volumes", self.devices.as_fd())];
        held.extend(self.kernel.held().map(|fd| ("zfs", fd)));
        held
    }

    /// One request with a list, answered by a list.
    pub(super) fn ask(&self, request: Request, command: &mut Command, list: &List) -> io::Result<List> {
        let source = list.pack().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let answer = self.kernel.request(request, command, &source)?;
        if answer.is_empty() { Ok(List::default()) } else { List::unpack(&answer).map_err(io::Error::other) }
    }

    /// One request without a list.
    pub(super) fn ask_plainly(&self, request: Request, command: &mut Command) -> io::Result<List> {
        let answer = self.kernel.request(request, command, &[])?;
        if answer.is_empty() { Ok(List::default()) } else { List::unpack(&answer).map_err(io::Error::other) }
    }

    /// The suite's volume that these properties belong to.
    fn own(&self, name: &str, properties: &List) -> Option<Volume> {
        let disk = self.root.disk(name)?;
        let size = number(properties, "volsize")?;
        let ours = local(properties, INSTANCE, name) == Some(self.instance.to_string().as_str())
            // A copy that somebody made of one of ours has its properties, too.
            && local(properties, ID, name) == Some(disk.to_string().as_str());
        let stage = if local(properties, STAGE, name) == Some(Stage::Ready.word()) { Stage::Ready } else { Stage::Making };
        ours.then_some(Volume { disk, size, used: number(properties, "used").unwrap_or(0), stage })
    }

    /// The disk's volume, if there is one. One of that name that is not this suite's is refused.
    pub fn look(&self, disk: DiskId) -> Result<Option<Volume>, Refusal> {
        let name = self.root.volume(disk);
        let properties = match self.ask_plainly(Request::Stats, &mut Command::about(&name)) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
            other => other.map_err(failed(&object(disk), "look up"))?,
        };
        let foreign = || {
            let note = format_args!("{name} is there, without the mark of this suite ({INSTANCE}={})", self.instance);
            Refusal::new(Reason::AlreadyExists, object(disk)).note(note)
        };
        self.own(&name, &properties).map(Some).ok_or_else(foreign)
    }

    /// The same; it must be there and whole.
    pub fn find(&self, disk: DiskId) -> Result<Volume, Refusal> {
        let found = self.look(disk)?.filter(|volume| volume.stage == Stage::Ready);
        found.ok_or_else(|| Refusal::new(Reason::NotFound, object(disk)).note("as Zvol"))
    }

    /// Everything directly below the dataset.
    pub(super) fn children(&self) -> Result<Vec<Child>, Refusal> {
        let what = format!("dataset {}", self.root);
        let (mut list, mut cookie) = (Vec::new(), 0);
        for _ in 0..MOST {
            let mut command = Command::about(self.root.as_str()).from(cookie);
            let properties = match self.ask_plainly(Request::NextDataset, &mut command) {
                Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(list),
                other => other.map_err(failed(&what, "list"))?,
            };
            cookie = command.cookie();
            let Some(name) = command.name().map(str::to_owned) else { continue };
            let origin = properties.list("origin").and_then(|origin| origin.text("value")).map(str::to_owned);
            list.push(Child { own: self.own(&name, &properties), name, origin });
        }
        Err(Refusal::new(Reason::LimitReached, what).note(format_args!("{MOST} or more lie below it")))
    }

    /// All volumes of this suite that are whole, in the order of their ids.
    pub fn list(&self) -> Result<Vec<Volume>, Refusal> {
        let mut list: Vec<_> = self.children()?.into_iter().filter_map(|child| child.own).collect();
        list.retain(|volume| volume.stage == Stage::Ready);
        list.sort_unstable_by_key(|volume| volume.disk);
        Ok(list)
    }

    pub(super) fn marks(&self, disk: DiskId, stage: Stage) -> List {
        List::default()
            .with(INSTANCE, Value::Text(self.instance.to_string()))
            .with(ID, Value::Text(disk.to_string()))
            .with(STAGE, Value::Text(stage.word().into()))
    }

    /// Makes a volume that occupies nothing yet.
    pub fn create(&self, disk: DiskId, size: u64, stage: Stage) -> Result<Volume, Refusal> {
        let object = object(disk);
        let properties =
            self.marks(disk, stage).with("volsize", Value::Number(whole_blocks(size))).with("volblocksize", Value::Number(BLOCK));
        let list = List::default().with("type", Value::Small(VOLUME)).with("props", Value::List(properties));
        self.ask(Request::Create, &mut Command::about(&self.root.volume(disk)), &list).map_err(failed(&object, "create"))?;
        self.look(disk)?.ok_or_else(|| Refusal::new(Reason::Internal, object).note("it is gone again"))
    }

    /// Makes a volume larger; or smaller, if nobody has used its end yet.
    pub fn set_size(&self, disk: DiskId, size: u64) -> Result<(), Refusal> {
        let list = List::default().with("volsize", Value::Number(whole_blocks(size)));
        let set = self.ask(Request::SetProperties, &mut Command::about(&self.root.volume(disk)), &list);
        set.map(drop).map_err(failed(&object(disk), "set the size"))
    }

    /// A job's volume is whole. What was written to it is on the disk when this returns: the mark is set in a later transaction.
    pub fn finish(&self, disk: DiskId, size: Option<u64>) -> Result<Volume, Refusal> {
        if let Some(size) = size {
            self.set_size(disk, size)?;
        }
        let list = List::default().with(STAGE, Value::Text(Stage::Ready.word().into()));
        let set = self.ask(Request::SetProperties, &mut Command::about(&self.root.volume(disk)), &list);
        set.map_err(failed(&object(disk), "finish"))?;
        self.find(disk)
    }

    /// Opens a volume's device.
    pub fn open(&self, disk: DiskId, flags: OFlag) -> Result<File, Refusal> {
        let path = format!("zvol/{}", self.root.volume(disk));
        let mut rounds = 0u16..12_000;
        loop {
            match openat(&self.devices, path.as_str(), flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()) {
                // The kernel may make the node in a task of its own, and tells nobody when it has: more than five seconds on a busy host.
                Err(Errno::ENOENT) if rounds.next().is_some() => drop(poll(&mut [], 5u8)),
                other => return other.map(File::from).map_err(|e| failed(&object(disk), "open")(e.into())),
            }
        }
    }

    /// Space that the dataset has.
    pub fn space(&self) -> Result<SpaceState, Refusal> {
        let what = format!("dataset {}", self.root);
        let properties = self.ask_plainly(Request::Stats, &mut Command::about(self.root.as_str()));
        let properties = properties.map_err(failed(&what, "look up"))?;
        let free = number(&properties, "available").unwrap_or(0);
        let used = number(&properties, "used").unwrap_or(0);
        Ok(SpaceState { total: free.saturating_add(used), free, filesystem: Text::lossy("zfs"), reflink: true })
    }
}
