//! Who somebody is, and what he may do: every request is held against the table of `skep_proto::broker::needs`, here and nowhere else.

use crate::broker::Broker;
use crate::db::Db;
use crate::db::groups::{DEFAULT_NAME, Groups, Member};
use crate::db::switches::{SwitchRow, Switches};
use crate::db::tokens::TokenRow;
use crate::db::users::{UserRow, Users};
use sha2::{Digest, Sha256};
use skep_proto::broker::{self as proto, BrokerRequest, CallTold, Credential, MetricsGet, Needs, On, Ref, Role, needs};
use skep_proto::{Call, GroupId, Helper, Reason, Refusal, Text, UserId};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};

/// How a session showed who it is for. It is held against the database anew at each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// root, or who started the suite, by the kernel's word.
    Owner(u32),
    /// Somebody else on this host, by the kernel's word.
    Local(u32),
    /// A token, by its hash.
    Token([u8; 32]),
    /// A password, which was this user's.
    Password(UserId),
    /// The frontend's word that it asks for whoever reads metrics.
    Metrics,
    /// The frontend's word that it tells of calls of whoever has shown nothing.
    Nobody,
}

/// What whoever has shown nothing is called.
pub const NOBODY: &str = "(nobody)";

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// On the host, and so in every group.
    pub host: Option<Role>,
    /// In groups.
    pub groups: BTreeMap<GroupId, Role>,
}

impl Rights {
    /// In one group.
    pub fn within(&self, group: GroupId) -> Option<Role> {
        self.host.max(self.groups.get(&group).copied())
    }

    /// The highest that there is anywhere.
    fn anywhere(&self) -> Option<Role> {
        self.host.max(self.groups.values().max().copied())
    }

    /// The groups that lists may show, as JSON; none: all.
    pub fn seen(&self) -> Option<String> {
        let groups: Vec<String> = self.groups.keys().map(|group| format!("\"{group}\"")).collect();
        self.host.is_none().then(|| format!("[{}]", groups.join(",")))
    }
}

/// Who a session turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// For logs, events and operations.
    pub name: Text<64>,
    /// None: root, who started the suite, or a token that is nobody's.
    pub id: Option<UserId>,
    /// What he may do now.
    pub rights: Rights,
    /// Shown by a token, which makes no other.
    pub by_token: bool,
    /// May ask the operation of this number and nothing else, whatever its role.
    pub only: Option<u8>,
}

impl User {
    /// An administrator of the host who is no user.
    fn admin(name: impl Display, by_token: bool) -> Self {
        let rights = Rights { host: Some(Role::Admin), groups: BTreeMap::new() };
        Self { name: Text::lossy(&name.to_string()), id: None, rights, by_token, only: None }
    }

    /// Whoever reads metrics: a viewer who may ask one thing only.
    fn metrics() -> Self {
        let rights = Rights { host: Some(Role::Viewer), groups: BTreeMap::new() };
        Self { name: Text::lossy("(metrics)"), id: None, rights, by_token: false, only: Some(MetricsGet::OP) }
    }

    /// Whoever has shown nothing that counts. No user has such a name.
    fn nobody() -> Self {
        let (name, only) = (Text::lossy(NOBODY), Some(CallTold::OP));
        Self { name, id: None, rights: Rights::default(), by_token: false, only }
    }

    /// Whether he is an administrator of the host.
    pub fn is_admin(&self) -> bool {
        self.rights.host >= Some(Role::Admin)
    }
}

fn nobody(note: impl Display) -> Refusal {
    Refusal::new(Reason::Unauthenticated, "session").note(note)
}

fn hash(token: &Text<128>) -> [u8; 32] {
    Sha256::digest(token.as_str().as_bytes()).into()
}

impl Broker {
    /// Finds out who a client is. Refused: nobody who may do anything here.
    pub async fn recognise(&self, credential: Credential, socket: Option<&OwnedFd>) -> Result<(Proof, User), Refusal> {
        let proof = match (credential, socket) {
            (Credential::LocalSocket, Some(socket)) => self.at_the_door(socket)?,
            (Credential::Token(text), None) => Proof::Token(hash(&text)),
            (Credential::Password { user, password, peer }, None) => self.log_in(&user, password, &peer).await?,
            (Credential::Metrics, None) if self.metrics => Proof::Metrics,
            (Credential::Nobody, None) => Proof::Nobody,
            (Credential::Metrics, None) => return Err(nobody("metrics are not served: `skep up --metrics`")),
            _ => {
                let refusal = Refusal::new(Reason::InvalidValue, "session").field("credential");
                return Err(refusal.note("the socket goes with LocalSocket only"));
            }
        };
        let user = self.user_of(&proof)?;
        if let Proof::Token(hash) = &proof {
            self.token_used(hash);
        }
        Ok((proof, user))
    }

    /// Asks the kernel who is at the other end.
    fn at_the_door(&self, socket: &OwnedFd) -> Result<Proof, Refusal> {
        let failed = |e| Refusal::io("session", "ask who is at the other end", &e).field("credential");
        let uid = skep_sys::sock::peer(socket.as_fd()).map_err(failed)?.uid;
        // Of a connection that the frontend itself has made, to whatever root listens on, the kernel would name root; and
        // whoever has left asks for nothing any more.
        let door = skep_sys::sock::bound_to(socket.as_fd()).map_err(failed)?;
        if door.as_ref() != Some(&self.door) || skep_sys::sock::hung_up(socket.as_fd()) {
            let refusal = Refusal::new(Reason::PermissionDenied, "session").field("credential");
            return Err(refusal.note(format_args!("it is no client's connection to {}", self.door.display())));
        }
        Ok(if uid == 0 || uid == self.owner { Proof::Owner(uid) } else { Proof::Local(uid) })
    }

    /// Who that is by now, and what he may do. Refused: nobody any more.
    pub fn user_of(&self, proof: &Proof) -> Result<User, Refusal> {
        let (row, by_token) = match proof {
            Proof::Owner(uid) => return Ok(User::admin(format_args!("uid {uid}"), false)),
            Proof::Metrics => return Ok(User::metrics()),
            Proof::Nobody => return Ok(User::nobody()),
            Proof::Local(uid) => {
                let stranger = || {
                    let refusal = Refusal::new(Reason::PermissionDenied, format_args!("uid {uid}"));
                    refusal.note("only root, who started skep, and users made with --local-uid may use it")
                };
                (self.read(|db| db.user_of_uid(*uid))?.ok_or_else(stranger)?, false)
            }
            Proof::Token(hash) => {
                let token = self.read(|db| db.token(hash))?.ok_or_else(|| nobody("no such token"))?;
                if token.expires_ns != 0 && token.expires_ns <= skep_service::now_ns() {
                    return Err(nobody(format_args!("the token {} has expired", token.name)));
                }
                match token {
                    TokenRow { user: None, name, .. } => return Ok(User::admin(format_args!("token {name}"), true)),
                    TokenRow { user: Some(user), .. } => {
                        (self.read(|db| db.user(user))?.ok_or_else(|| nobody("no such user"))?, true)
                    }
                }
            }
            Proof::Password(user) => (self.read(|db| db.user(*user))?.ok_or_else(|| nobody("no such user"))?, false),
        };
        let UserRow { id, name, disabled, .. } = row;
        if disabled {
            return Err(nobody(format_args!("user {name} is locked out")));
        }
        let mut rights = Rights::default();
        for (group, role) in self.read(|db| db.roles_of(id))? {
            match group {
                None => rights.host = Some(role),
                Some(group) => drop(rights.groups.insert(group, role)),
            }
        }
        Ok(User { name: Text::lossy(name.as_str()), id: Some(id), rights, by_token, only: None })
    }
}

/// Refuses what this user may not do, and what is not there for him.
pub fn permit(db: &Db, user: &User, request: &BrokerRequest) -> Result<(), Refusal> {
    if matches!(request, BrokerRequest::TokenCreate(_)) && user.by_token {
        // A stolen one would live on in those that it made.
        return Err(denied(&user.name, "a token makes no other: log in with a password, or make it on the host itself"));
    }
    if user.only.is_some_and(|only| only != proto::Broker::op(request).number) {
        return Err(denied(&user.name, "this is not given to whoever shows nothing"));
    }
    let Needs { role, on } = needs(request);
    let Some(role) = role else { return Ok(()) };
    if user.is_admin() {
        return Ok(());
    }
    on.iter().try_for_each(|on| check(db, user, role, on))
}

fn denied(object: impl Display, note: impl Display) -> Refusal {
    Refusal::new(Reason::PermissionDenied, object).note(note)
}

fn missing(what: &str, name: impl Display) -> Refusal {
    Refusal::new(Reason::NotFound, format_args!("{what} {name}"))
}

fn check(db: &Db, user: &User, role: Role, on: &On<'_>) -> Result<(), Refusal> {
    let member = |kind, what: &str, name: &Ref, field: &str, role| {
        let missing = || missing(what, name).field(field);
        let group = db.group_of(kind, name.as_str())?.ok_or_else(missing)?;
        within(db, user, role, group, format_args!("{what} {name}"), missing)
    };
    match on {
        On::Host if user.rights.host >= Some(role) => Ok(()),
        On::Host => Err(denied(&user.name, format_args!("the role {role} on the host is needed"))),
        On::Any if user.rights.anywhere() >= Some(role) => Ok(()),
        On::Any => Err(denied(&user.name, "no role has been granted to you")),
        On::Group(name) => {
            let called = name.map_or(DEFAULT_NAME, |name| name.as_str());
            let missing = || missing("group", called).field("group");
            let group = db.named_group(*name)?.ok_or_else(missing)?;
            within(db, user, role, group.id, format_args!("group {called}"), missing)
        }
        On::Machine(name) => member(Member::Machine, "machine", name, "", role),
        On::Disk(name, field) => member(Member::Disk, "disk", name, field, role),
        On::Read(name, field) => member(Member::Disk, "disk", name, field, role.min(Role::Viewer)),
        On::Nic(name) => member(Member::Nic, "nic", name, "", role),
        On::Switch(name, group, machine) => {
            let switch = db.find_switch(name.as_str())?.ok_or_else(|| missing("switch", name))?;
            let group = match machine {
                Some(machine) => db.group_of(Member::Machine, machine.as_str())?,
                None => db.named_group(*group)?.map(|group| group.id),
            };
            open_to(db, user, role, &switch, group)
        }
        On::NicsSwitch(name, _) if name.as_str().is_empty() => Ok(()),
        On::NicsSwitch(name, nic) => {
            let switch = db.find_switch(name.as_str())?.ok_or_else(|| missing("switch", name))?;
            open_to(db, user, role, &switch, db.group_of(Member::Nic, nic.as_str())?)
        }
        On::Operation(id) => {
            let missing = || missing("operation", id);
            match db.group_of_operation(*id)?.ok_or_else(missing)? {
                Some(group) => within(db, user, role, group, format_args!("operation {id}"), missing),
                // Of a time before there were groups.
                None if user.rights.host >= Some(role) => Ok(()),
                None => Err(missing()),
            }
        }
        On::User(None) => Ok(()),
        On::User(Some(name)) => {
            let found = db.find_user(name.as_str())?;
            let own = found.is_some_and(|found| Some(found.id) == user.id);
            if own || user.rights.host >= Some(role) { Ok(()) } else { Err(missing("user", name)) }
        }
    }
}

/// Refuses a switch that is neither open to the group nor the user's by a role on the host.
pub fn open_to(
    db: &(impl Groups + ?Sized), user: &User, role: Role, switch: &SwitchRow, group: Option<GroupId>,
) -> Result<(), Refusal> {
    if user.rights.host >= Some(role) || group.is_some_and(|group| db.switch_is_open(switch.id, group).unwrap_or(false)) {
        return Ok(());
    }
    let object = format_args!("switch {}", switch.name);
    Err(denied(object, "it is not open to this group: `skep switch open`").field("switch"))
}

/// Whether somebody has a role in a group; who has none there is told that there is no such thing.
fn within(
    db: &Db, user: &User, role: Role, group: GroupId, object: impl Display, missing: impl Fn() -> Refusal,
) -> Result<(), Refusal> {
    match user.rights.within(group) {
        Some(has) if has >= role => Ok(()),
        Some(has) => {
            let group = db.group(group)?.map(|group| group.name.to_string()).unwrap_or_default();
            Err(denied(object, format_args!("the role {role} in group {group} is needed; yours is {has}")))
        }
        None => Err(missing()),
    }
}

fn renamed(name: Option<impl Display>) -> String {
    name.map_or(String::new(), |name| format!(" to {name}"))
}

/// What a request is about, for the record of calls. No secret is in it.
pub fn about(request: &BrokerRequest) -> String {
    use BrokerRequest as R;
    let on = |group: &Option<Ref>| group.as_ref().map_or("the host".to_owned(), |group| format!("group {group}"));
    match request {
        R::TokenCreate(c) => format!("token {}", c.name),
        R::TokenDelete(c) => format!("token {}", c.name),
        R::MachineCreate(c) => format!("machine {}", c.name),
        R::MachineRename(c) => format!("machine {} to {}", c.machine, c.name),
        R::MachineAct(c) => format!("machine {} {:?}", c.machine, c.act),
        R::MachineLaunch(c) => format!("machine {} from {}", c.name, c.image),
        R::MachineClone(c) => format!("machine {} to {}", c.machine, c.name),
        R::DiskCreate(c) => format!("disk {}", c.name),
        R::IscsiCreate(c) => format!("disk {}", c.name),
        R::DiskImport(c) => format!("disk {}", c.name),
        R::DiskClone(c) => format!("disk {} to {}", c.disk, c.name),
        R::WholeCreate(c) => format!("snapshot {} of machine {}", c.name, c.machine),
        R::WholeRollBack(c) => format!("snapshot {} of machine {}", c.snapshot, c.machine),
        R::WholeRename(c) => format!("snapshot {} of machine {} to {}", c.snapshot, c.machine, c.name),
        R::WholeDelete(c) => format!("snapshot {} of machine {}", c.snapshot, c.machine),
        R::SnapshotCreate(c) => format!("snapshot {} of disk {}", c.name, c.disk),
        R::SnapshotRollBack(c) => format!("snapshot {} of disk {}", c.snapshot, c.disk),
        R::SnapshotRename(c) => format!("snapshot {} of disk {} to {}", c.snapshot, c.disk, c.name),
        R::SnapshotDelete(c) => format!("snapshot {} of disk {}", c.snapshot, c.disk),
        R::SwitchCreate(c) => format!("switch {}", c.name),
        R::SwitchSet(c) => format!("switch {}{}", c.switch, renamed(c.name.as_ref())),
        R::DiskSet(c) => format!("disk {}{}", c.disk, renamed(c.name.as_ref())),
        R::NicSet(c) => format!("nic {}{}", c.nic, renamed(c.name.as_ref())),
        R::NicClone(c) => format!("nic {} to {}", c.nic, c.name),
        R::SwitchGet(c) => format!("switch {}", c.switch),
        R::SwitchDelete(c) => format!("switch {}", c.switch),
        R::SwitchOpen(c) => {
            let groups = c.group.as_ref().map_or("all groups".to_owned(), |group| format!("group {group}"));
            format!("switch {} {} {groups}", c.switch, if c.open { "to" } else { "no more to" })
        }
        R::NicCreate(c) => format!("nic {}", c.name),
        R::UserCreate(c) => format!("user {}", c.name),
        R::UserRename(c) => format!("user {} to {}", c.user, c.name),
        R::UserDisable(c) => format!("user {} {}", c.user, if c.disabled { "out" } else { "in" }),
        R::UserDelete(c) => format!("user {}", c.user),
        R::GroupCreate(c) => format!("group {}", c.name),
        R::GroupRename(c) => format!("group {} to {}", c.group, c.name),
        R::GroupQuota(c) => format!("group {}", c.group),
        R::GroupDelete(c) => format!("group {}", c.group),
        R::RoleGrant(c) => format!("role {} for user {} on {}", c.role, c.user, on(&c.group)),
        R::RoleRevoke(c) => format!("role of user {} on {}", c.user, on(&c.group)),
        other => {
            let words = needs(other).on.into_iter().filter_map(|on| match on {
                On::Group(name) => Some(format!("group {}", name.map_or(DEFAULT_NAME, |name| name.as_str()))),
                On::Machine(name) => Some(format!("machine {name}")),
                On::Disk(name, _) | On::Read(name, _) => Some(format!("disk {name}")),
                On::Nic(name) => Some(format!("nic {name}")),
                On::NicsSwitch(name, _) if name.as_str().is_empty() => None,
                On::Switch(name, ..) | On::NicsSwitch(name, _) => Some(format!("switch {name}")),
                On::Operation(id) => Some(format!("operation {id}")),
                On::User(Some(name)) => Some(format!("user {name}")),
                On::Host | On::Any | On::User(None) => None,
            });
            words.collect::<Vec<_>>().join(", ")
        }
    }
}
