//! Users, their tokens and roles, and groups of machines.

use super::Ref;
use crate::{GroupId, GroupName, Secret, Text, UserId, UserName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What somebody may do, on the host or in a group. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Sees.
    Viewer,
    /// Makes, changes, runs and deletes what is in the group.
    Operator,
    /// Says who has which role there; on the host: everything.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// `viewer`, `operator`, `admin`.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Makes a user, without any role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCreate {
    /// Its name.
    pub name: UserName,
    /// None: it cannot log in with a password.
    pub password: Option<Secret>,
    /// The user of the host that it is, over the API's UNIX socket.
    pub local_uid: Option<u32>,
}

/// Looks a user up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserGet {
    /// Which; none: oneself.
    pub user: Option<Ref>,
}

/// Lists users by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// Begin after this name.
    pub after: Option<Text<64>>,
}

/// Locks a user out, or lets it in again. Sessions and tokens end at their next call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDisable {
    /// Which.
    pub user: Ref,
    /// Whether it is locked out.
    pub disabled: bool,
}

/// Changes a password. What was logged in with the old one stays so until its token ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPassword {
    /// Whose; none: one's own.
    pub user: Option<Ref>,
    /// The present one; an administrator of the host needs none for others.
    pub old: Option<Secret>,
    /// The new one.
    pub new: Secret,
}

/// Renames a user. Its sessions, tokens and roles go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRename {
    /// Which.
    pub user: Ref,
    /// The new name.
    pub name: UserName,
}

/// Deletes a user with its tokens and roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDelete {
    /// Which.
    pub user: Ref,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// Its id; none: somebody on the host who is no user of the API.
    pub id: Option<UserId>,
    /// Its name; `uid 0` and the like for somebody on the host who is no user of the API.
    pub name: Text<64>,
    /// Whether it is locked out.
    pub disabled: bool,
    /// Whether it can log in with a password.
    pub password: bool,
    /// The user of the host that it is.
    pub local_uid: Option<u32>,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    /// As many as fit a record.
    pub users: Vec<UserView>,
}

/// Makes a token for the remote API. Its text is shown once and only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreate {
    /// What to call it, among the user's.
    pub name: Text<63>,
    /// Whose it is; none: one's own. Of somebody on the host who is no user: an administrator's.
    pub user: Option<Ref>,
    /// Seconds that it is good for; 0: for ever.
    pub seconds: u64,
}

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    /// The secret.
    pub token: Text<128>,
    /// Whose it is.
    pub user: Text<64>,
    /// When it ends; nanoseconds since 1970; 0: never.
    pub expires_ns: i64,
}
impl fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenMade { .. }")
    }
}

/// Lists tokens by user and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    /// Whose; none: one's own, for an administrator of the host all.
    pub user: Option<Ref>,
    /// Begin after this one: `user/name`.
    pub after: Option<Text<128>>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// `user/name`.
    pub key: Text<128>,
    /// Its name.
    pub name: Text<63>,
    /// Whose it is; empty: an administrator's who is no user.
    pub user: Text<64>,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
    /// When it ends; 0: never.
    pub expires_ns: i64,
    /// When it opened a session last, to the minute; 0: never.
    pub used_ns: i64,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPage {
    /// As many as fit a record.
    pub tokens: Vec<TokenView>,
}

/// Deletes a token: it opens nothing any more, and sessions with it end at their next call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDelete {
    /// Its name.
    pub name: Text<63>,
    /// Whose; none: one's own.
    pub user: Option<Ref>,
}

/// What a group may have at most; 0: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Machines, running or not.
    pub machines: u32,
    /// Virtual CPUs of all of them.
    pub cpus: u32,
    /// MiB of memory of all of them.
    pub memory_mib: u64,
    /// Bytes that its disks show to guests.
    pub disk_bytes: u64,
}

/// Makes a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCreate {
    /// Its name.
    pub name: GroupName,
    /// What it may have.
    pub quota: Quota,
}

/// Lists groups by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    /// Begin after this name.
    pub after: Option<GroupName>,
}

/// Changes what a group may have. What it has beyond that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupQuota {
    /// Which.
    pub group: Ref,
    /// The new quota.
    pub quota: Quota,
}

/// Renames a group. What is in it stays, and so do the roles there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRename {
    /// Which.
    pub group: Ref,
    /// The new name.
    pub name: GroupName,
}

/// What is moved into a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    /// A machine, with its NICs and the disks that no machine of another group has.
    Machine(Ref),
    /// A disk that no machine has.
    Disk(Ref),
}

/// Moves something into a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAdd {
    /// Where to.
    pub group: Ref,
    /// What.
    pub what: Moved,
}

/// Deletes an empty group, with the roles in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDelete {
    /// Which.
    pub group: Ref,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: GroupName,
    /// What it may have.
    pub quota: Quota,
    /// What it has.
    pub used: Quota,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPage {
    /// As many as fit a record.
    pub groups: Vec<GroupView>,
}

/// Gives a user a role, in place of the one it has there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleGrant {
    /// Whom.
    pub user: Ref,
    /// In which group; none: on the host, and so in every group.
    pub group: Option<Ref>,
    /// Which.
    pub role: Role,
}

/// Takes a user's role away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRevoke {
    /// From whom.
    pub user: Ref,
    /// In which group; none: on the host.
    pub group: Option<Ref>,
}

/// Lists roles by user and group: one's own, and those where one is an administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleList {
    /// Begin after this one: `user/group`.
    pub after: Option<Text<128>>,
}

/// A role that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleView {
    /// `user/group`.
    pub key: Text<128>,
    /// Who.
    pub user: Text<64>,
    /// In which group; empty: on the host.
    pub group: Text<63>,
    /// Which.
    pub role: Role,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolePage {
    /// As many as fit a record.
    pub roles: Vec<RoleView>,
}
