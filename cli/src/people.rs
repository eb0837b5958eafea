//! Users, tokens, roles and groups as objects and rows.

use crate::output::{Column, bytes};
use crate::view::{time, word};
use serde_json::{Value, json};
use skep_api::v1;

fn when(at: Option<&prost_types::Timestamp>, otherwise: &str) -> String {
    time(at).as_str().map_or_else(|| otherwise.to_owned(), str::to_owned)
}

/// A user.
pub fn user(user: &v1::User) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "disabled": user.disabled,
        "password": user.password,
        "local_uid": user.local_uid,
        "created": time(user.create_time.as_ref()),
    })
}

/// Columns of a list of users.
pub const USERS: &[Column] = &[Column::Left("NAME"), Column::Left("LOGIN"), Column::Right("LOCAL UID"), Column::Left("CREATED")];

/// A row of it.
pub fn user_row(user: &v1::User) -> Vec<String> {
    let login = match (user.disabled, user.password) {
        (true, _) => "locked out",
        (false, true) => "password",
        (false, false) => "tokens",
    };
    let uid = user.local_uid.map(|uid| uid.to_string()).unwrap_or_default();
    vec![user.name.clone(), login.into(), uid, when(user.create_time.as_ref(), "")]
}

/// A token.
pub fn token(token: &v1::Token) -> Value {
    json!({
        "name": token.name,
        "user": token.user,
        "created": time(token.create_time.as_ref()),
        "expires": time(token.expire_time.as_ref()),
        "used": time(token.use_time.as_ref()),
    })
}

/// Columns of a list of tokens.
pub const TOKENS: &[Column] = &[Column::Left("USER"), Column::Left("NAME"), Column::Left("EXPIRES"), Column::Left("USED")];

/// A row of it.
pub fn token_row(token: &v1::Token) -> Vec<String> {
    let user = if token.user.is_empty() { "(admin)" } else { token.user.as_str() };
    let (expires, used) = (when(token.expire_time.as_ref(), "never"), when(token.use_time.as_ref(), "never"));
    vec![user.into(), token.name.clone(), expires, used]
}

/// A role that somebody has.
pub fn role(role: &v1::RoleOfUser) -> Value {
    let group = (!role.group.is_empty()).then_some(&role.group);
    json!({"user": role.user, "group": group, "role": role_word(role)})
}

/// `viewer`, `operator`, `admin`.
pub fn role_word(role: &v1::RoleOfUser) -> String {
    word(role.role().as_str_name(), "ROLE_")
}

/// Where a role is, for people.
pub fn role_place(role: &v1::RoleOfUser) -> &str {
    if role.group.is_empty() { "(host)" } else { &role.group }
}

/// Columns of a list of roles.
pub const ROLES: &[Column] = &[Column::Left("USER"), Column::Left("GROUP"), Column::Left("ROLE")];

/// A row of it.
pub fn role_row(role: &v1::RoleOfUser) -> Vec<String> {
    vec![role.user.clone(), role_place(role).into(), role_word(role)]
}

/// A group.
pub fn group(group: &v1::Group) -> Value {
    let number = |n: u64| (n > 0).then_some(n);
    let (quota, used) = (group.quota.unwrap_or_default(), group.used.unwrap_or_default());
    json!({
        "name": group.name,
        "id": group.id,
        "machines": used.machines,
        "cpus": used.cpus,
        "memory_mib": used.memory_mib,
        "disk_bytes": used.disk_bytes,
        "quota_machines": number(quota.machines.into()),
        "quota_cpus": number(quota.cpus.into()),
        "quota_memory_mib": number(quota.memory_mib),
        "quota_disk_bytes": number(quota.disk_bytes),
        "created": time(group.create_time.as_ref()),
    })
}

/// Columns of a list of groups: what each has, of how much.
pub const GROUPS: &[Column] =
    &[Column::Left("NAME"), Column::Right("MACHINES"), Column::Right("CPUS"), Column::Right("MEMORY"), Column::Right("DISKS")];

/// A row of it.
pub fn group_row(group: &v1::Group) -> Vec<String> {
    let (quota, used) = (group.quota.unwrap_or_default(), group.used.unwrap_or_default());
    let of = |used: String, most: String, bounded: bool| if bounded { format!("{used}/{most}") } else { used };
    let mib = |n: u64| bytes(n.saturating_mul(1 << 20));
    vec![
        group.name.clone(),
        of(used.machines.to_string(), quota.machines.to_string(), quota.machines > 0),
        of(used.cpus.to_string(), quota.cpus.to_string(), quota.cpus > 0),
        of(mib(used.memory_mib), mib(quota.memory_mib), quota.memory_mib > 0),
        of(bytes(used.disk_bytes), bytes(quota.disk_bytes), quota.disk_bytes > 0),
    ]
}
