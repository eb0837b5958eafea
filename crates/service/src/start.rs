//! Flags of every service, and what it makes of them while it still may.

use crate::{Journal, Kept};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, fchown, getegid, geteuid, setegid, seteuid, setgroups};
use skep_proto::InstanceId;
use skep_sandbox::Scene;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A flag that is missing or wrong, or a step of the start that failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Flags.
    #[error("{0}; flags: --state DIR --run DIR --instance ID [--ids broker=N,...]")]
    Flags(String),
    /// A step.
    #[error("{what}: {error}")]
    Step {
        /// What was being done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl StartError {
    /// Names a step.
    pub fn step(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |error| StartError::Step { what: what.to_string(), error }
    }
}

/// The services, as uids are given to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// broker
    Broker,
    /// api-frontend
    Frontend,
    /// storage-helper
    Storage,
    /// net-helper
    Net,
    /// vm-runner's spawner
    Spawner,
}

impl Role {
    /// Name of its flag, its socket and its log.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Broker => "broker",
            Role::Frontend => "api-frontend",
            Role::Storage => "storage-helper",
            Role::Net => "net-helper",
            Role::Spawner => "vm-runner",
        }
    }
}

/// Slots of machines. Each has two uids, and the suite's block has 4,096 (`skep up` gives the first few to services).
pub const SLOTS: u16 = 2000;

/// Switches whose guest-services have uids of their own, behind those of machines.
pub const SWITCHES: u16 = 64;
/// Images that are fetched at a time, each with a uid of its own, behind those of switches.
pub const FETCHES: u16 = 8;
/// iSCSI disks of running machines at a time, each with an initiator whose uid is its own, behind those of fetches. With them and what `skep up`
/// keeps for services the block of 4,096 is full.
pub const INITIATORS: u16 = 8;
/// Uids of machines, of switches' services, of fetches and of iSCSI disks.
pub const UIDS: u32 = 2 * SLOTS as u32 + SWITCHES as u32 + FETCHES as u32 + INITIATORS as u32;

/// The uids and gids of root mode.
#[derive(Debug, Clone)]
pub struct Ids {
    by_name: BTreeMap<String, (u32, u32)>,
}

impl Ids {
    /// From `broker=71000,…`, or `broker=71000:81000` where the group has another number; every role and `machines` must be there,
    /// none may be 0. A machine's group has the number of its uid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut by_name = BTreeMap::new();
        for part in text.split(',') {
            let (name, number) = part.split_once('=').ok_or_else(|| format!("--ids {part}: NAME=NUMBER is expected"))?;
            let (uid, gid) = number.split_once(':').unwrap_or((number, number));
            let number = |text: &str| text.parse::<u32>().map_err(|_| format!("--ids {part}: a number is expected"));
            let (uid, gid) = (number(uid)?, number(gid)?);
            if uid == 0 || gid == 0 {
                return Err(format!("--ids {part}: root is not allowed"));
            }
            by_name.insert(name.to_owned(), (uid, gid));
        }
        for role in [Role::Broker, Role::Frontend, Role::Storage, Role::Net, Role::Spawner] {
            if !by_name.contains_key(role.name()) {
                return Err(format!("--ids: {} is missing", role.name()));
            }
        }
        if by_name.contains_key("machines") { Ok(Self { by_name }) } else { Err("--ids: machines is missing".into()) }
    }
    /// A role's uid.
    pub fn of(&self, role: Role) -> u32 {
        self.both(role.name()).0
    }
    /// A role's gid.
    pub fn group_of(&self, role: Role) -> u32 {
        self.both(role.name()).1
    }
    /// The first uid of machines: slot N has this + 2N, its console-proxy one more.
    pub fn machines(&self) -> u32 {
        self.both("machines").0
    }
    fn both(&self, name: &str) -> (u32, u32) {
        // `parse` has seen to it that it is there; an unprivileged uid otherwise.
        self.by_name.get(name).copied().unwrap_or((65534, 65534))
    }
}

/// A service's flags.
#[derive(Debug, Clone)]
pub struct Start {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// Marks what this suite owns on the host.
    pub instance: InstanceId,
    /// uids; none: an ordinary user started it.
    pub ids: Option<Ids>,
    /// Further flags: `ready-fd`, a pipe to the supervisor; those that only this service knows.
    pub extra: BTreeMap<String, String>,
}

impl Start {
    /// From the command line. `extra` names further flags, each with a value.
    pub fn from_args(extra: &[&str]) -> Result<Self, StartError> {
        Self::parse(std::env::args().skip(1), extra).map_err(StartError::Flags)?.begun()
    }

    /// Lets go of what whoever started it has, and neither it nor a child of it needs: root's further groups, which would stay with
    /// whatever is done under another uid; and children do not inherit the word to the supervisor.
    pub(crate) fn begun(self) -> Result<Self, StartError> {
        if geteuid().is_root() {
            setgroups(&[]).map_err(|e| StartError::step("leave root's groups")(e.into()))?;
        }
        if let Some(number) = self.ready_fd()? {
            skep_sys::fd::keep_from_children(number).map_err(StartError::step("keep --ready-fd from children"))?;
        }
        Ok(self)
    }

    fn ready_fd(&self) -> Result<Option<RawFd>, StartError> {
        let wrong = |_| StartError::Flags("--ready-fd: a number is expected".into());
        self.extra.get("ready-fd").map(|text| text.parse().map_err(wrong)).transpose()
    }

    pub(crate) fn parse(mut args: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        while let Some(flag) = args.next() {
            let name = flag.strip_prefix("--").ok_or_else(|| format!("{flag}: a flag is expected"))?;
            let (name, same) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
            if !["state", "run", "instance", "ids", "ready-fd"].contains(&name) && !known.contains(&name) {
                return Err(format!("{flag}: no such flag"));
            }
            let value = same.or_else(|| args.next()).ok_or_else(|| format!("{flag}: a value is expected"))?;
            given.insert(name.to_owned(), value);
        }
        let mut take = |name: &str| given.remove(name).ok_or_else(|| format!("--{name} is missing"));
        let absolute = |text: String| {
            let path = PathBuf::from(text);
            if path.is_absolute() { Ok(path) } else { Err(format!("{}: an absolute path is expected", path.display())) }
        };
        let state = absolute(take("state")?)?;
        let run = absolute(take("run")?)?;
        let instance = take("instance")?.parse().map_err(|e| format!("--instance: {e}"))?;
        let ids = given.remove("ids").map(|text| Ids::parse(&text)).transpose()?;
        if ids.is_some() != geteuid().is_root() {
            return Err("--ids goes with being started as root, and only with that".into());
        }
        Ok(Self { state, run, instance, ids, extra: given })
    }

    /// What to become on entering.
    pub fn scene(&self, role: Role) -> Scene {
        let identity = self.ids.as_ref().map(|ids| (ids.of(role), ids.group_of(role)));
        Scene { state: self.state.clone(), run: self.run.clone(), identity, group: None, in_cell: false, with_parent: true }
    }

    /// The uids that may connect to a socket whose declared peer is `peer`.
    pub fn allowed(&self, peer: Role) -> Option<Vec<u32>> {
        Some(vec![self.ids.as_ref().map_or_else(|| geteuid().as_raw(), |ids| ids.of(peer))])
    }

    /// Makes a directory (and what is above it), `role`'s with `mode`, or sets an existing one right.
    pub fn own_dir(&self, path: &Path, role: Role, mode: u32) -> Result<(), StartError> {
        let step = |what: &str| StartError::step(format!("{what} {}", path.display()));
        fs::create_dir_all(path).map_err(step("make"))?;
        // By descriptor: what was looked at is what is changed, whoever may change names meanwhile.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = fs::File::from(open(path, flags, Mode::empty()).map_err(|e| step("use")(e.into()))?);
        if let Some(ids) = &self.ids {
            let (meta, own) = (dir.metadata().map_err(step("look at"))?, (ids.of(role), ids.group_of(role)));
            if (meta.uid(), meta.gid()) != own {
                fchown(&dir, Some(Uid::from_raw(own.0)), Some(Gid::from_raw(own.1))).map_err(|e| step("chown")(e.into()))?;
            }
        }
        dir.set_permissions(fs::Permissions::from_mode(mode)).map_err(step("chmod"))
    }

    /// Does something in a directory that is `role`'s own with `role`'s rights: root must not follow what `role` may have put there.
    /// Of groups it has `role`'s alone: root's others went when it began.
    pub fn as_role<T, E: From<StartError>>(&self, role: Role, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(ids) = &self.ids else { return act() };
        let step = |e: nix::errno::Errno| StartError::step(format!("act as {}", role.name()))(e.into());
        let (uid, gid) = (geteuid(), getegid());
        setegid(Gid::from_raw(ids.group_of(role))).map_err(step)?;
        seteuid(Uid::from_raw(ids.of(role))).map_err(step)?;
        let result = act();
        seteuid(uid).map_err(step)?;
        setegid(gid).map_err(step)?;
        result
    }

    /// Binds `RUN/<name>.sock` for one declared peer, and listens.
    pub fn bind(&self, role: Role, peer: Role) -> Result<OwnedFd, StartError> {
        let path = self.run.join(format!("{}.sock", role.name()));
        let step = |what: &str| StartError::step(format!("{what} {}", path.display()));
        fs::create_dir_all(&self.run).map_err(step("make the directory of"))?;
        let socket = skep_sys::sock::bind_seqpacket(&path, 0o600).map_err(step("bind"))?;
        if let Some(ids) = &self.ids {
            let own = (Uid::from_raw(ids.of(peer)), Gid::from_raw(ids.group_of(peer)));
            chown(&path, Some(own.0), Some(own.1)).map_err(|e| step("chown")(e.into()))?;
        }
        skep_sys::sock::listen(socket.as_fd()).map_err(step("listen on"))?;
        Ok(socket)
    }

    /// The service's log, if its standard error goes there. storage-helper's group may read it, for administrators elsewhere.
    pub fn own_log(&self, name: &'static str) -> Result<Option<Kept>, StartError> {
        let logs = self.state.join("logs");
        let step = |what: &str| StartError::step(format!("{what} {}", logs.display()));
        let kept = Kept::of_standard_error(&logs, name).map_err(step("open the log in"))?;
        if let (Some(ids), Some(kept)) = (&self.ids, &kept) {
            kept.show_to(ids.group_of(Role::Storage)).map_err(step("chown the log in"))?;
        }
        Ok(kept)
    }

    /// Opens the service's log of privileged acts and its line to syslog.
    pub fn journal(&self, name: &'static str) -> Result<Journal, StartError> {
        let logs = self.state.join("logs");
        let step = |what: &str| StartError::step(format!("{what} {}", logs.display()));
        fs::create_dir_all(&logs).map_err(step("make"))?;
        let acts = Kept::open(&logs, &format!("audit-{name}")).map_err(step("open the record of acts in"))?;
        let kept = self.own_log(name)?;
        let ready =
            self.ready_fd()?.map(skep_sys::fd::inherited).transpose().map_err(StartError::step("take over --ready-fd"))?;
        Ok(Journal::new(name, Some(acts)).keeping(kept).telling(ready))
    }
}
