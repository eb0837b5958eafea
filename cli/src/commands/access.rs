//! `skep user`, `skep token`, `skep group`, `skep role`.

use super::Ctx;
use super::pages::pages;
use crate::args::{GroupCommand, QuotaArgs, RoleCommand, RoleName, TokenCommand, UserCommand};
use crate::error::Failure;
use crate::{people, secret, view};
use serde_json::{Value, json};
use skep_api::v1::add_to_group_request::What;
use skep_api::v1::{
    AddToGroupRequest, CreateGroupRequest, CreateTokenRequest, CreateUserRequest, DeleteGroupRequest, DeleteTokenRequest,
    DeleteUserRequest, DisableUserRequest, GetUserRequest, GrantRoleRequest, Group, ListGroupsRequest, ListRolesRequest,
    ListTokensRequest, ListUsersRequest, Quota, RenameGroupRequest, RenameUserRequest, RevokeRoleRequest, Role, RoleOfUser,
    SetPasswordRequest, SetQuotaRequest,
};
use skep_proto::Reason;

/// The group that is there from the start, whatever it is called.
const FIRST: &str = "00000000-0000-0000-0000-000000000000";

/// A uid, or the name of a user of this host.
fn uid(text: &str) -> Result<u32, Failure> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    let found = nix::unistd::User::from_name(text).ok().flatten();
    let none =
        || Failure::new(Reason::NotFound, format_args!("user {text} of this host"), "there is none").advice("give its uid");
    found.map(|user| user.uid.as_raw()).ok_or_else(none)
}

async fn all_roles(ctx: &Ctx) -> Result<Vec<RoleOfUser>, Failure> {
    let mut api = ctx.api.users();
    Ok(pages!(api.list_roles, roles, ListRolesRequest {}))
}

/// Runs `skep user`.
pub async fn user(ctx: Ctx, command: UserCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.users();
    match command {
        UserCommand::Create { name, no_password, local_uid } => {
            let local_uid = local_uid.as_deref().map(uid).transpose()?;
            let mut password = if no_password { None } else { Some(secret::new_password(&format!("Password of {name}"))?) };
            let password = password.as_mut().map(|password| std::mem::take(&mut **password));
            let made = ctx.make(|api, request_id| {
                let request = CreateUserRequest { name: name.clone(), password: password.clone(), local_uid, request_id };
                async move { api.users().create(request).await }
            });
            let made = made.await?;
            ctx.made(&people::user(&made), "user", "made");
        }
        UserCommand::List => {
            let all = pages!(api.list, users, ListUsersRequest {});
            ctx.output.list(people::USERS, all.iter().map(|u| (people::user(u), people::user_row(u))));
        }
        UserCommand::Show { user } => {
            let user = api.get(GetUserRequest { user: user.unwrap_or_default() }).await?.into_inner();
            let roles = all_roles(&ctx).await?;
            let roles = roles.iter().filter(|role| role.user == user.name);
            let roles: Vec<Value> =
                roles.map(|r| json!({"role": people::role_word(r), "group": people::role_place(r)})).collect();
            let mut value = people::user(&user);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("roles".into(), roles.into());
            }
            ctx.output.object(&value);
        }
        UserCommand::Passwd { user } => {
            let own = user.is_none();
            let mut old = if own { Some(secret::password("Present password")?) } else { None };
            let mut new = secret::new_password("New password")?;
            let request = SetPasswordRequest {
                user: user.clone().unwrap_or_default(),
                old_password: old.as_mut().map(|old| std::mem::take(&mut **old)),
                new_password: std::mem::take(&mut *new),
            };
            api.set_password(request).await?;
            ctx.made(&json!({"name": user.unwrap_or_else(|| "(you)".into())}), "user", "has a new password");
        }
        UserCommand::Rename { user, name } => {
            let user = api.rename(RenameUserRequest { user, name }).await?.into_inner();
            ctx.made(&people::user(&user), "user", "renamed");
        }
        UserCommand::Disable { user } => {
            let user = api.disable(DisableUserRequest { user, disabled: true }).await?.into_inner();
            ctx.made(&people::user(&user), "user", "locked out");
        }
        UserCommand::Enable { user } => {
            let user = api.disable(DisableUserRequest { user, disabled: false }).await?.into_inner();
            ctx.made(&people::user(&user), "user", "let in");
        }
        UserCommand::Delete { user } => {
            api.delete(DeleteUserRequest { user: user.clone() }).await?;
            ctx.gone("user", &user);
        }
    }
    Ok(0)
}

/// Runs `skep token`.
pub async fn token(ctx: Ctx, command: TokenCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.host();
    match command {
        TokenCommand::Create { name, user, lifetime } => {
            let seconds = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            let lifetime = lifetime.0.map(|time| prost_types::Duration { seconds: seconds(time), nanos: 0 });
            let request = CreateTokenRequest { name: name.clone(), user: user.unwrap_or_default(), lifetime };
            let made = api.create_token(request).await?.into_inner();
            if ctx.output.json {
                let expires = view::time(made.expire_time.as_ref());
                ctx.output.line(json!({"name": name, "user": made.user, "expires": expires, "token": made.token}));
            } else {
                ctx.output.line(&made.token);
            }
        }
        TokenCommand::List { user } => {
            let user = user.unwrap_or_default();
            let all = pages!(api.list_tokens, tokens, ListTokensRequest { user: user.clone() });
            ctx.output.list(people::TOKENS, all.iter().map(|t| (people::token(t), people::token_row(t))));
        }
        TokenCommand::Delete { name, user } => {
            api.delete_token(DeleteTokenRequest { name: name.clone(), user: user.unwrap_or_default() }).await?;
            ctx.gone("token", &name);
        }
    }
    Ok(0)
}

/// The present quota with what was given.
fn quota(now: Quota, given: &QuotaArgs) -> Quota {
    Quota {
        machines: given.machines.unwrap_or(now.machines),
        cpus: given.cpus.unwrap_or(now.cpus),
        memory_mib: given.memory.unwrap_or(now.memory_mib),
        disk_bytes: given.disk.unwrap_or(now.disk_bytes),
    }
}

/// Runs `skep group`.
pub async fn group(ctx: Ctx, command: GroupCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.groups();
    let what = |name: String, disk: bool| if disk { What::Disk(name) } else { What::Machine(name) };
    match command {
        GroupCommand::Create { name, quota: given } => {
            let made = ctx.make(|api, request_id| {
                let request = CreateGroupRequest { name: name.clone(), quota: Some(quota(Quota::default(), &given)), request_id };
                async move { api.groups().create(request).await }
            });
            ctx.made(&people::group(&made.await?), "group", "made");
        }
        GroupCommand::List => {
            let all = pages!(api.list, groups, ListGroupsRequest {});
            ctx.output.list(people::GROUPS, all.iter().map(|g| (people::group(g), people::group_row(g))));
        }
        GroupCommand::Add { group, machine, disk } => moved(&ctx, group, &machine, what(machine.clone(), disk)).await?,
        GroupCommand::Remove { machine, disk } => {
            let all = pages!(api.list, groups, ListGroupsRequest {});
            let first = all.into_iter().find(|g: &Group| g.id == FIRST).map_or_else(|| FIRST.to_owned(), |g| g.name);
            moved(&ctx, first, &machine, what(machine.clone(), disk)).await?;
        }
        GroupCommand::Rename { group, name } => {
            let group = api.rename(RenameGroupRequest { group, name }).await?.into_inner();
            ctx.made(&people::group(&group), "group", "renamed");
        }
        GroupCommand::Quota { group, quota: given } => {
            let all = pages!(api.list, groups, ListGroupsRequest {});
            let now = all.iter().find(|g| g.name == group || g.id == group).and_then(|g: &Group| g.quota).unwrap_or_default();
            let request = SetQuotaRequest { group, quota: Some(quota(now, &given)) };
            ctx.made(&people::group(&api.set_quota(request).await?.into_inner()), "group", "quota set");
        }
        GroupCommand::Delete { group } => {
            api.delete(DeleteGroupRequest { group: group.clone() }).await?;
            ctx.gone("group", &group);
        }
    }
    Ok(0)
}

async fn moved(ctx: &Ctx, group: String, name: &str, what: What) -> Result<(), Failure> {
    let kind = if matches!(what, What::Disk(_)) { "disk" } else { "machine" };
    ctx.api.groups().add(AddToGroupRequest { group: group.clone(), what: Some(what) }).await?;
    ctx.made(&json!({"name": name, "group": group}), kind, &format!("in group {group}"));
    Ok(())
}

/// Runs `skep role`.
pub async fn role(ctx: Ctx, command: RoleCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.users();
    let place = |group: &str| if group.is_empty() { "on the host".to_owned() } else { format!("in group {group}") };
    match command {
        RoleCommand::Grant { user, role, group } => {
            let (role, word) = match role {
                RoleName::Viewer => (Role::Viewer, "viewer"),
                RoleName::Operator => (Role::Operator, "operator"),
                RoleName::Admin => (Role::Admin, "admin"),
            };
            let group = group.unwrap_or_default();
            api.grant(GrantRoleRequest { user: user.clone(), group: group.clone(), role: role.into() }).await?;
            ctx.made(&json!({"name": user, "group": group, "role": word}), "user", &format!("{word} {}", place(&group)));
        }
        RoleCommand::Revoke { user, group } => {
            let group = group.unwrap_or_default();
            api.revoke(RevokeRoleRequest { user: user.clone(), group: group.clone() }).await?;
            ctx.made(&json!({"name": user, "group": group, "role": null}), "user", &format!("no role {}", place(&group)));
        }
        RoleCommand::List => {
            let all = all_roles(&ctx).await?;
            ctx.output.list(people::ROLES, all.iter().map(|r| (people::role(r), people::role_row(r))));
        }
    }
    Ok(0)
}
